"""Judges: P(yes) for a question about an image. Each name stands for a maker (`genloop.rewards.settings.JudgeMaker`).

`shapes_oracle` is the exact detector of the embedded world under GenEval's rules. `llava` is LLaVA-OneVision,
zero-shot or fine-tuned (ORM, PARM).
"""

JUDGES = {
    "shapes_oracle": "geneval.judge:ShapesOracle",
    "llava": "genloop.rewards.llava:Llava",
}
JUDGE_CLASSES = {"shapes_oracle": "genloop.shapes.scenes:SHAPES"}
