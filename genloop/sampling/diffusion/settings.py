"""The config keys of diffusion. No torch."""

from typing import Literal

from pydantic import Field, model_validator

from genloop.bounds import Repeats, Weight, Width
from genloop.config import Settings, refusal

Scheduler = Literal["checkpoint", "ddim", "euler", "dpmpp_2m", "flow_euler", "lcm"]


class DiffusionSampling(Settings):
    """How latents are denoised."""

    steps: Repeats = Field(30, description="denoising steps")
    scheduler: Scheduler = Field("dpmpp_2m", description="the solver; checkpoint: the one in the folder")
    guidance_scale: Weight = Field(
        7.5, description="g in without + g * (with - without), as in diffusers; up to 1 switches guidance off"
    )
    negative_prompt: str | None = Field(None, description="what guidance leads away from; null: no text")
    height: Width | None = Field(None, description="pixels; null: as the checkpoint was trained")
    width: Width | None = Field(None, description="pixels; null: as the checkpoint was trained")

    @property
    def num_steps(self) -> int:
        """Steps that a path takes."""
        return self.steps

    @property
    def is_guided(self) -> bool:
        """Whether a step takes a second pass, without the text."""
        return self.guidance_scale > 1

    @model_validator(mode="after")
    def _guided_where_it_matters(self) -> "DiffusionSampling":
        if self.negative_prompt is not None and not self.is_guided:
            raise refusal(
                f".negative_prompt: guidance_scale={self.guidance_scale:g} switches guidance off; leave it out"
            )
        return self
