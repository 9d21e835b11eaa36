"""What some objectives of a student read beside base and shards: rejected images, a teacher's folder. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genloop.data.latents.buckets import Size
from genloop.data.latents.examples import CaptionedImages
from genloop.data.latents.pairing import partners_of
from genloop.data.shards import Shards
from genloop.factories import Resolve
from genloop.hashing import sha256_tree
from genloop.models.diffusion.config import COMPONENTS, TOKENIZERS, UNET, DiffusionFolder, check_diffusion_folder

_SCHEDULE = ("prediction_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")


class Extras(NamedTuple):
    """What is there of it."""

    rejected: CaptionedImages | None = None
    partners: Sequence[int] = ()  # of every sample, its position in `rejected`
    teacher: DiffusionFolder | None = None


def extras_of(
    keys: Any, base: DiffusionFolder, examples: CaptionedImages, sizes: Sequence[Size], resolve: Resolve
) -> Extras:
    """What the objective needs, checked; ValueError or FileNotFoundError in one line."""
    if keys.objective == "dpo":
        rejected = CaptionedImages(Shards(keys.dpo.rejected), sizes)
        return Extras(rejected, partners_of(examples, rejected, "dpo.rejected"))
    if keys.objective == "features" and keys.features.teacher is not None:
        teacher = check_diffusion_folder(resolve(keys.features.teacher))
        check_teacher(teacher, base)
        return Extras(teacher=teacher)
    return Extras()


def extra_inputs(keys: Any, extras: Extras, resolve: Resolve) -> dict[str, Path | str]:
    """What enters the fingerprint by content."""
    found: dict[str, Path | str] = {}
    if extras.rejected is not None:
        found["dpo.rejected"] = extras.rejected.shards.digest()
    if extras.teacher is not None:
        found["features.teacher"] = resolve(keys.features.teacher)
    if keys.objective == "perceptual" and keys.perceptual.lpips:
        found |= {f"perceptual.weights.{name}": path for name, path in keys.perceptual.weights.given().items()}
    return found


def check_teacher(teacher: DiffusionFolder, base: DiffusionFolder) -> None:
    """ValueError where latents, texts or noise of the two do not mean the same."""
    if teacher.pipeline != base.pipeline:
        raise ValueError(f"features.teacher: {teacher.folder} is a {teacher.pipeline}, the base a {base.pipeline}")
    shared = [part for part in COMPONENTS[base.pipeline] if part != UNET]
    for part in [*shared, *(TOKENIZERS[part] for part in shared if part in TOKENIZERS)]:
        if sha256_tree(teacher.folder / part) != sha256_tree(base.folder / part):
            raise ValueError(
                f"features.teacher: {teacher.folder / part} is not that of {base.folder}, so that outputs cannot be "
                "compared; use objective=sft on images of this teacher"
            )
    for key in _SCHEDULE:
        ours, theirs = base.scheduler.get(key), teacher.scheduler.get(key)
        if ours != theirs:
            raise ValueError(f"features.teacher: {teacher.folder}: its scheduler has {key}={theirs}, the base's {ours}")
