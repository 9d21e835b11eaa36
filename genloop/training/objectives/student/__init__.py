"""What a student diffusion model learns from, by name. Each is a subclass of `base.StudentObjective`."""

OBJECTIVES = {
    "sft": "genloop.training.objectives.student.sft:Imitation",
}
