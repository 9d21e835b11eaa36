"""What a student diffusion model learns from, by name. Each is a subclass of `base.StudentObjective`."""

OBJECTIVES = {
    "sft": "genloop.training.objectives.student.sft:Imitation",
    "lcm": "genloop.training.objectives.student.lcm:Consistency",
    "dpo": "genloop.training.objectives.student.dpo:ImagePreference",
    "perceptual": "genloop.training.objectives.student.perceptual:PerceptualLoss",
    "features": "genloop.training.objectives.student.features:Features",
}
