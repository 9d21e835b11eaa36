"""Config keys of train_student, and what is refused before anything is written. No torch."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from genloop.bounds import Count, CountOrNone, Factor, Share, TotalOrNone, Width
from genloop.config import ADDED, LAUNCH, DType, ReadPath, Settings
from genloop.data.latents.buckets import bucket_sizes
from genloop.data.latents.examples import CaptionedImages
from genloop.data.shards import Shards
from genloop.factories import Resolve
from genloop.meanings import CACHE, EVAL_EVERY, SHARDS, START, TARGETS
from genloop.models.diffusion.config import (
    UNET,
    DiffusionFolder,
    check_diffusion_folder,
    check_schedule,
    component_shapes,
    components_of,
)
from genloop.registry import check_installed, lookup
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.tables import check_scheduler
from genloop.training.guards.settings import GuardSettings
from genloop.training.objectives.student import OBJECTIVES
from genloop.training.objectives.student.settings import (
    ConsistencySettings,
    FeatureLossSettings,
    ImagePairSettings,
    PerceptualSettings,
)
from genloop.training.settings import LoraSettings, TrainSettings
from genloop.training.student.extras import Extras, extra_inputs, extras_of

Part = Literal["unet", "text_encoder"]
_HALVES = {"bfloat16": "bf16", "float16": "fp16"}  # types, as train.precision calls them


class UnetLora(LoraSettings):
    """Adapters of the UNet, by default at its attention."""

    rank: CountOrNone = Field(16, ge=1, description="of the matrices of an adapter")
    targets: tuple[str, ...] = Field(("to_q", "to_k", "to_v", "to_out.0"), description=TARGETS)


class TextLora(LoraSettings):
    """Adapters of the text encoders, whose layers have names of their own."""

    rank: CountOrNone = Field(16, ge=1, description="of the matrices of an adapter")
    targets: tuple[str, ...] = Field(("q_proj", "k_proj", "v_proj", "out_proj"), description=TARGETS)


class StudentData(NamedTuple):
    """What `check` has read: the pipeline's configuration, and all samples."""

    base: DiffusionFolder
    examples: CaptionedImages
    extras: Extras = Extras()


class StudentKeys(Settings):
    """Which pipeline learns what from which images."""

    start: Annotated[str, LAUNCH] = Field(description=START)
    shards: ReadPath = Field(description=SHARDS)
    cache: Annotated[Path | None, LAUNCH] = Field(None, description=CACHE)
    objective: str = Field("sft", description=f"{', '.join(OBJECTIVES)}, module:class")
    weights: Literal["lora", "full"] = Field("lora", description="adapters, or all weights of `parts`")
    parts: tuple[Part, ...] = Field(("unet",), min_length=1, description="what is trained; text_encoder: both of SDXL")
    dtype: DType = Field(
        "float32", description="of weights beside adapters; half precision needs train.precision of that kind"
    )
    saved_dtype: DType = Field("float32", description="of the weights in RUN/student, which weights=full writes")
    lora: UnetLora = UnetLora()
    text_lora: TextLora = TextLora()
    lcm: ConsistencySettings = ConsistencySettings()
    dpo: ImagePairSettings = ImagePairSettings()
    features: FeatureLossSettings = FeatureLossSettings()
    perceptual: PerceptualSettings = PerceptualSettings()
    resolution: Width | None = Field(None, description="pixels on a side of a square; null: as the base was trained")
    bucket_step: Width = Field(64, description="sides of buckets are multiples of it, in pixels")
    latents: Literal["mode", "sample"] = Field("mode", description="of the VAE's answer: its mode, or a draw a step")
    mirror: Annotated[bool, ADDED] = Field(
        False, description="also learn mirror images, left and right exchanged in captions that allow it"
    )
    drop_captions: Share = Field(0.1, description="share of captions dropped, for guidance")
    shuffle_captions: bool = Field(
        False, description="deal the captions out to other images by chance: the control of a training"
    )
    snr_gamma: Factor | None = Field(5.0, description="min-SNR weights of timesteps; null: all weigh the same")
    val_rows: Count = Field(64, description="samples that are held out for the validation loss")
    eval_every: TotalOrNone = Field(0, description=EVAL_EVERY)
    sampling: DiffusionSampling = Field(DiffusionSampling(), description="how the images of `guards` are drawn")
    train: TrainSettings = TrainSettings()
    guards: GuardSettings = GuardSettings()

    def check_student(self, resolve: Resolve) -> StudentData:
        """Base, adapters, sizes and samples; ValueError, FileNotFoundError or MissingPackage of one line."""
        self.train.check()
        self.guards.check(resolve)
        base = self.base_folder(resolve)
        check_schedule(base.scheduler)
        check_installed("diffusers", "diffusion")
        self._check_adapters(base)
        if self.guards.has_images:
            check_scheduler(base.scheduler, self.sampling.scheduler, self.sampling.num_steps)
            self.preview_grid(base)
            if self.guards.sampling is not None:
                raise ValueError("guards.sampling: is about image tokens; `sampling` says how latents are drawn")
        lookup(OBJECTIVES, self.objective, "objective").check(self, base)
        side = self.side(base)
        sizes = bucket_sizes(side, self.bucket_step)
        if self.mirror and self.objective == "dpo":
            raise ValueError("mirror: pairs of objective=dpo are not mirrored; leave it out")
        examples = CaptionedImages(Shards(self.shards), sizes, mirror=self.mirror)
        if self.eval_every and self.val_rows >= (number := len(examples.shards)):
            raise ValueError(f"val_rows: {self.val_rows} of {number} samples leaves none to train on")
        return StudentData(base, examples, extras_of(self, base, examples, sizes, resolve))

    def base_folder(self, resolve: Resolve) -> DiffusionFolder:
        """The pipeline as it is trained; ValueError or FileNotFoundError for what is none."""
        return check_diffusion_folder(resolve(self.start))

    def side(self, base: DiffusionFolder) -> int:
        """The resolution in pixels; ValueError for one that is no multiple of what it has to be."""
        if self.bucket_step % base.multiple:
            raise ValueError(
                f"bucket_step: {self.bucket_step} is not a multiple of {base.multiple}, as {self.start} needs"
            )
        rows, columns = base.grid(None, None)
        side = self.resolution or math.isqrt(rows * columns) * base.factor
        if side % self.bucket_step:
            raise ValueError(f"resolution: {side} is not a multiple of bucket_step, {self.bucket_step}")
        return side

    def preview_grid(self, base: DiffusionFolder) -> tuple[int, int]:
        """h, w of a latent of the images of `guards`: as `sampling` says, else of the resolution."""
        side = self.side(base)
        return base.grid(self.sampling.height or side, self.sampling.width or side)

    def student_inputs(self, resolve: Resolve, checked: StudentData) -> dict[str, Path | str]:
        """What enters the fingerprint by content."""
        found: dict[str, Path | str] = {"start": resolve(self.start), "shards": checked.examples.shards.digest()}
        return found | extra_inputs(self, checked.extras, resolve) | self.guards.inputs(resolve)

    def adapters(self, base: DiffusionFolder) -> Iterator[tuple[str, str, LoraSettings]]:
        """Component, config key and settings of what gets adapters."""
        for component in components_of(base, self.parts):
            yield (component, "lora", self.lora) if component == UNET else (component, "text_lora", self.text_lora)

    def _check_adapters(self, base: DiffusionFolder) -> None:
        if self.dtype != "float32" and (self.weights, self.train.precision) != ("lora", _HALVES[self.dtype]):
            raise ValueError(f"dtype: {self.dtype} needs weights=lora and train.precision={_HALVES[self.dtype]}")
        if self.weights == "full":
            return
        if self.saved_dtype != "float32":
            raise ValueError(f"saved_dtype: {self.saved_dtype} is of a whole pipeline, weights=lora writes adapters")
        check_installed("peft", "train")
        for component, key, settings in self.adapters(base):
            shapes: dict[str, Any] = component_shapes(base.folder, component)
            names = (name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2)
            settings.layers_of((name for name in names if "embedding" not in name), key=key)
