"""From keys to what is trained: the pipeline, its adapters, its caches of latents and texts, the objective."""

import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.latents.cache import Arrays, EncodedCache, latent_key, text_key
from genloop.data.latents.examples import CaptionedImages, sha256
from genloop.distributed import World
from genloop.hashing import sha256_tree
from genloop.models.diffusion.config import COMPONENTS, TOKENIZERS, UNET, DiffusionFolder, components_of
from genloop.models.diffusion.load import PipelineDenoiser
from genloop.models.diffusion.pruning import kept_layers, prune_unet, source_name
from genloop.models.diffusion.student import Student, Teacher, encode_pixels
from genloop.models.unet.build import unet_class
from genloop.reading import read_json_object
from genloop.registry import lookup
from genloop.training.adapters import add_adapters
from genloop.training.objectives.student import OBJECTIVES
from genloop.training.objectives.student.base import StudentObjective
from genloop.training.objectives.student.data import (
    EMBEDDINGS,
    MEAN,
    POOLED,
    SPREAD,
    BlankData,
    CachedData,
    LearningData,
)
from genloop.training.objectives.student.settings import FeatureLossSettings
from genloop.training.reductions import wait_for_all
from genloop.training.student.keys import StudentData, StudentKeys

log = logging.getLogger(__name__)


def build_student(keys: Any, denoiser: PipelineDenoiser, checked: StudentData) -> tuple[Student, dict[str, Any]]:
    """The model, and by component what `genloop.training.adapters` takes; no adapters: all weights of `parts` learn."""
    base = checked.base
    components = components_of(base, keys.parts)
    teacher = _with_teacher(keys.features, denoiser, checked) if keys.objective == "features" else None
    student = Student(denoiser, base, components)
    student.teacher = teacher
    adapted = {}
    if keys.weights == "lora":
        for number, (component, _, settings) in enumerate(keys.adapters(base)):
            adapted[component] = add_adapters(getattr(student, component), settings, seed=keys.seed + number)
    return student, adapted


def _with_teacher(settings: FeatureLossSettings, denoiser: PipelineDenoiser, checked: StudentData) -> Teacher:
    """The UNet to learn from; the pipeline's own is made smaller where the settings say so."""
    whole, found = denoiser.pipeline.unet, checked.extras.teacher
    names: Callable[[str], str] = str
    if settings.prunes:
        kept = kept_layers(checked.base.unet, settings.down, settings.up, mid=settings.mid)
        denoiser.pipeline.register_modules(unet=prune_unet(whole, kept, mid=settings.mid))
        names = partial(source_name, kept=kept)
    if found is None:
        return Teacher(whole.requires_grad_(False), names)
    unet = unet_class(found.unet).from_pretrained(found.folder / UNET, local_files_only=True, use_safetensors=True)
    return Teacher(unet.to(denoiser.device).eval().requires_grad_(False), names)


def put_away(denoiser: PipelineDenoiser, student: Student) -> None:
    """Move what no step needs any more to the CPU: the VAE, and text encoders that do not learn."""
    for name in COMPONENTS[student.base.pipeline]:
        if name != UNET and name not in student.components:
            getattr(denoiser.pipeline, name).to("cpu")


def build_objective(keys: Any, student: Student, data: LearningData, world: World) -> StudentObjective:
    """The objective that `keys.objective` names; some samples are held out when there is a validation loss."""
    kind = lookup(OBJECTIVES, keys.objective, "objective")
    found: StudentObjective = kind(student, data, keys, held_out(keys, len(data.examples.shards)), world)
    return found


def held_out(keys: Any, num_samples: int) -> list[int]:
    """The positions of `val_rows` samples, keyed by the seed."""
    if not keys.eval_every:
        return []
    return sorted(np.random.default_rng([keys.seed, 5]).permutation(num_samples)[: keys.val_rows].tolist())


def fill_caches(keys: Any, denoiser: PipelineDenoiser, checked: StudentData, world: World) -> CachedData:
    """Compute latents and embeddings that are not there yet, on all ranks together; ValueError names a bad image.

    Rejected images come with them.
    """
    examples, base = checked.examples, checked.base
    folder: Path = keys.cache or keys.out / "cache"
    if world.rank == 0:
        warn_of_cut_captions(denoiser, examples)
    vae, encoders = (
        _sha256_of(base, ["vae"]),
        _sha256_of(base, [c for c in COMPONENTS[base.pipeline] if c in TOKENIZERS]),
    )
    encoders = encoders if keys.dtype == "float32" else f"{encoders} in {keys.dtype}"
    latent_keys = [latent_key(example, vae, keys.latents) for example in examples.examples]
    position_of = {key: position for position, key in enumerate(latent_keys)}
    latents = EncodedCache(folder, "latents", latent_keys)
    latents.fill(lambda key: _latent(denoiser, examples, position_of[key], keys.latents), world)
    texts, text_keys = None, dict[str, str]()
    if "text_encoder" not in keys.parts:
        text_keys = {caption: text_key(caption, encoders) for caption in examples.captions} | {
            "": text_key(None, encoders)
        }
        caption_of = {key: examples.captions.get(caption) for caption, key in text_keys.items()}
        texts = EncodedCache(folder, "texts", list(text_keys.values()))
        texts.fill(lambda key: _text(denoiser, caption_of[key]), world)
    wait_for_all(world)
    for cache in (latents, texts):
        if cache is not None:
            cache.open()
    data = CachedData(examples, latents, latent_keys, texts, text_keys)
    if (rejected := checked.extras.rejected) is not None:
        data.rejected = fill_caches(keys, denoiser, StudentData(base, rejected), world)
        data.partners = checked.extras.partners
    return data


def warn_of_cut_captions(denoiser: PipelineDenoiser, examples: CaptionedImages) -> None:
    """Log how many captions the text encoders will not read to their ends."""
    tokenizer, texts = denoiser.pipeline.tokenizer, examples.captions.values()
    room = tokenizer.model_max_length
    longer = sum(len(tokenizer.tokenize(text)) > room - 2 for text in texts)  # two marks stand around a text
    if longer:
        log.warning("%d of %d captions are longer than %d tokens; their ends are cut off", longer, len(texts), room)


def _latent(denoiser: PipelineDenoiser, examples: CaptionedImages, position: int, kept: str) -> Arrays:
    mean, spread = encode_pixels(denoiser, examples.pixels(position))
    if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
        raise ValueError(f"sample {examples[position].key}: its latent is not finite; use a VAE that fits its dtype")
    return {MEAN: mean} | ({SPREAD: spread} if kept == "sample" else {})


def _text(denoiser: PipelineDenoiser, caption: str | None) -> Arrays:
    condition = denoiser.encode(caption)
    found = {EMBEDDINGS: condition.embeddings[0].float().cpu().numpy()}
    return found | ({} if condition.pooled is None else {POOLED: condition.pooled[0].float().cpu().numpy()})


def _sha256_of(base: DiffusionFolder, components: Sequence[str]) -> str:
    """Of weights and configuration of components, and of the tokenizers beside them."""
    folders = [*components, *(TOKENIZERS[component] for component in components if component in TOKENIZERS)]
    return sha256(json.dumps({name: sha256_tree(base.folder / name) for name in folders}).encode())


def blank_data(keys: Any, checked: StudentData) -> BlankData:
    """What stands for the caches in a plan of memory."""
    base = checked.base
    pooled = 0
    if "text_encoder_2" in COMPONENTS[base.pipeline]:
        pooled = read_json_object(base.folder / "text_encoder_2" / "config.json")["projection_dim"]
    has_texts = "text_encoder" not in keys.parts
    width = base.unet["cross_attention_dim"]
    return BlankData(checked.examples, base, width=width, pooled=pooled, has_texts=has_texts)


def cache_bytes(keys: Any, data: BlankData) -> int:
    """What latents and text embeddings take on disk, without the headers of their files."""
    texts = data.text(None) or {}
    sizes = data.examples.counts()
    cells = sum(n * size.width * size.height for size, n in sizes.items()) // data.base.factor**2
    kept = {"mode": 1, "sample": 2}[keys.latents]
    each_text = sum(array.nbytes for array in texts.values())
    return 4 * kept * cells * data.base.vae["latent_channels"] + each_text * (1 + len(data.examples.captions))


def bucket_table(keys: StudentKeys, checked: StudentData) -> list[dict[str, Any]]:
    """Size, samples and steps of an epoch of every bucket, for RUN/buckets.json."""
    counts = checked.examples.counts()
    return [
        {"width": size.width, "height": size.height, "samples": n, "steps": n / keys.train.batch_size}
        for size, n in counts.items()
    ]
