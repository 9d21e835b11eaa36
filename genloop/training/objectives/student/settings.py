"""Config keys of objectives of a student. No torch."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from genloop.bounds import CountOrNone, Factor, Repeats, Share, Weight, Width
from genloop.config import ADDED, LAUNCH, ReadPath, Settings


class ConsistencySettings(Settings):
    """objective=lcm: what the student of few steps is told to agree with."""

    solver_steps: Repeats = Field(50, ge=2, description="timesteps that the teacher's DDIM solver knows")
    guidance_min: Weight = Field(
        6.0, description="the teacher's guidance_scale is drawn from here to guidance_max, a row; as `sampling` has it"
    )
    guidance_max: Weight = Field(16.0, description="end of that range")
    huber: Factor = Field(1e-3, description="below it the loss is a square, above it a distance")

    def check(self) -> None:
        """ValueError for an empty range."""
        if self.guidance_min > self.guidance_max:
            raise ValueError(f"lcm.guidance_min: {self.guidance_min:g} is above guidance_max={self.guidance_max:g}")


class ImagePairSettings(Settings):
    """objective=dpo: what the student's images are compared with."""

    rejected: ReadPath | None = Field(
        None,
        description="folder of shards, the student's own images of the prompts of `shards`; fingerprinted by content",
    )
    beta: Factor = Field(
        2000.0, description="how strongly the student is held to the base; errors are means over a latent"
    )


class FeatureLossSettings(Settings):
    """objective=features: whose outputs and features a smaller UNet learns."""

    teacher: Annotated[str | None, LAUNCH] = Field(
        None, description="a pipeline with the base's VAE and text encoders, fingerprinted by content; null: the base"
    )
    down: tuple[CountOrNone, ...] = Field(
        (), description="layers of every down block of the base that the student keeps, such as [0]; none: all"
    )
    up: tuple[CountOrNone, ...] = Field((), description="those of every up block, one more, such as [0, 2]")
    mid: bool = Field(True, description="whether the student keeps the middle block")
    task_weight: Weight = Field(1.0, description="of the error against the noise")
    output_weight: Weight = Field(1.0, description="of the error against the teacher's output")
    feature_weight: Weight = Field(1.0, description="of the errors of self-attention outputs, a mean over layers")

    @property
    def prunes(self) -> bool:
        """Whether the student is smaller than the base."""
        return bool(self.down or self.up) or not self.mid


class PerceptualWeights(Settings):
    """Files that are not shipped, as published; fingerprinted by content."""

    lpips: ReadPath | None = Field(None, description="linear heads of the package lpips, alex or vgg")
    alexnet: ReadPath | None = Field(None, description="torchvision's AlexNet, for heads of alex")
    vgg16: ReadPath | None = Field(None, description="torchvision's VGG-16, for heads of vgg")

    def given(self) -> dict[str, Path]:
        """Those that are there, by their keys."""
        return {key: value for key in type(self).model_fields if (value := getattr(self, key)) is not None}


class PerceptualSettings(Settings):
    """objective=perceptual: factors of distances between decoded images, beside 1 of the error of the output."""

    vae: Annotated[Weight, ADDED] = Field(1.0, description="features of the VAE's own encoder")
    pyramid: Annotated[Weight, ADDED] = Field(0.0, description="features of random convolutions")
    ms_ssim: Annotated[Weight, ADDED] = Field(0.0, description="1 - MS-SSIM of luma")
    lpips: Annotated[Weight, ADDED] = Field(0.0, description="LPIPS, with its files in `weights`")
    weights: PerceptualWeights = PerceptualWeights()
    min_signal: Annotated[Share, ADDED] = Field(
        0.2, description="rows whose share of signal abar is below are not decoded; those above weigh abar"
    )
    crop: Annotated[Width | None, ADDED] = Field(
        None, description="cells on a side of the square of a latent that is decoded, placed by chance; null: all of it"
    )

    def factors(self) -> dict[str, float]:
        """Of the distances that count."""
        found = {name: float(getattr(self, name)) for name in ("vae", "pyramid", "ms_ssim", "lpips")}
        return {name: factor for name, factor in found.items() if factor > 0}
