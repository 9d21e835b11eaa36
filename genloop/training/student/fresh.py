"""Config keys of train_diffusion: those of train_student, and the UNet that is trained from fresh weights. No torch."""

from typing import Literal

from pydantic import Field

from genloop.factories import Resolve
from genloop.models.diffusion.config import DiffusionFolder, check_diffusion_folder
from genloop.models.unet.config import UnetSizes
from genloop.training.student.keys import StudentKeys


class DiffusionKeys(StudentKeys):
    """A diffusion model of one's own: VAE, text encoders and noise schedule of a base, a UNet of one's own sizes."""

    model: UnetSizes = UnetSizes()
    objective: str = Field("perceptual", description="perceptual, sft, or another one of train_student")
    weights: Literal["lora", "full"] = Field("full", description="adapters, or all weights of `parts`")

    def base_folder(self, resolve: Resolve) -> DiffusionFolder:
        """The base with the UNet that is trained."""
        base = check_diffusion_folder(resolve(self.start))
        if self.model.kind == "start":
            return base
        if self.weights != "full":
            raise ValueError(f"weights: {self.weights} needs model.kind=start, a UNet that has been trained before")
        if self.objective in ("dpo", "lcm"):
            raise ValueError(f"objective: {self.objective} needs model.kind=start, a UNet that has been trained before")
        self.model.check()
        return base._replace(unet=self.model.unet_config(base.unet), is_fresh=True)
