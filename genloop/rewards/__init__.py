"""Judges: P(yes) for a question about an image. Each name stands for a function without arguments that builds one.

`shapes_oracle` is the exact detector of the embedded world under GenEval's rules; it knows `JUDGE_CLASSES` only.
"""

JUDGES = {"shapes_oracle": "geneval.judge:shapes_oracle"}
JUDGE_CLASSES = {"shapes_oracle": "genloop.shapes.scenes:SHAPES"}
