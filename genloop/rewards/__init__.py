"""Judges: P(yes) for a question about an image. Each name stands for a maker (`genloop.rewards.settings.JudgeMaker`).

`shapes_oracle` is the exact detector of the embedded world under GenEval's rules.
"""

JUDGES = {"shapes_oracle": "geneval.judge:ShapesOracle"}
JUDGE_CLASSES = {"shapes_oracle": "genloop.shapes.scenes:SHAPES"}
