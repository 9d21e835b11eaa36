"""Judges: P(yes) for a question about an image. Each name stands for a maker (`genloop.rewards.settings.JudgeMaker`).

`shapes_oracle` is the exact detector of the embedded world under GenEval's rules, `geneval` any detector under them,
`llava` a LLaVA-OneVision, `clip_score` a CLIP; `remote` asks a server, `ensemble` several of the others, `critic`
scores measured features beside another judge, and refines prompts.
"""

JUDGES = {
    "shapes_oracle": "geneval.judge:ShapesOracle",
    "geneval": "geneval.judge:GenevalJudge",
    "llava": "genloop.rewards.llava.options:LlavaJudgeMaker",
    "clip_score": "genloop.rewards.clip_score:ClipJudgeMaker",
    "remote": "genloop.rewards.remote.judge:RemoteJudgeMaker",
    "ensemble": "genloop.rewards.ensemble:Ensemble",
    "critic": "genloop.rewards.critics.judge:CriticJudgeMaker",
}
