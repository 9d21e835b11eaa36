"""What stands behind generator=diffusion: its config keys, what it needs, how it is loaded. No torch until loading."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from genloop.bounds import Count
from genloop.config import LAUNCH, DType, Settings, shipped
from genloop.factories import Resolve
from genloop.models.diffusion.config import COMPONENTS, DiffusionFolder, check_diffusion_folder
from genloop.models.diffusion.lora import check_lora, checked_loras, parse_lora
from genloop.registry import check_installed, require
from genloop.sampling.diffusion.settings import DiffusionSampling
from genloop.sampling.diffusion.tables import check_scheduler, scheduler_table
from genloop.sampling.settings import GeneratorMaker, Runtime, TextLimit

if TYPE_CHECKING:
    from genloop.sampling.diffusion.sampler import DiffusionSampler


class DiffusionOptions(Settings):
    """Which pipeline, fingerprinted by content, with which adapters; and how it is held."""

    pipeline: Annotated[str, LAUNCH] = Field(description="folder of a diffusers pipeline, or a name of `ckpts`")
    lora: Annotated[tuple[str, ...], AfterValidator(checked_loras)] = Field(
        (), description="LoRA files as FILE:weight, each added to the weights"
    )
    dtype: DType = Field("float32", description="of UNet and text encoders")
    vae_dtype: DType = Field("float32", description="of the VAE; that of SDXL overflows in float16")
    paths_per_forward: Count = Field(
        1,
        le=256,
        description="on a CPU: paths in each pass, filled up where there are fewer; numbers differ by rounding",
    )


class DiffusionGenerator(GeneratorMaker):
    """Stable Diffusion 1.5 or SDXL, as diffusers publishes them."""

    Options = DiffusionOptions
    Sampling = DiffusionSampling
    modes: ClassVar[Mapping[str, str]] = {"restyle": "genloop.sampling.diffusion.restyle:restyling"}
    corrects: ClassVar[bool] = False

    @classmethod
    def check(cls, options: DiffusionOptions, resolve: Resolve) -> None:
        """The folder is whole and the adapters are of this base."""
        base = cls._base(options, resolve)
        for lora in map(parse_lora, options.lora):
            check_lora(shipped(lora.file), base, COMPONENTS[base.pipeline])

    @classmethod
    def check_sampling(cls, options: DiffusionOptions, sampling: DiffusionSampling, resolve: Resolve) -> None:
        """Sizes are multiples of a cell, the solver fits the checkpoint's schedule; then, what has to be installed."""
        base = cls._base(options, resolve)
        base.grid(sampling.height, sampling.width)
        check_scheduler(base.scheduler, sampling.scheduler, sampling.num_steps)
        check_installed("diffusers", "diffusion")
        if options.lora:
            check_installed("peft", "diffusion")

    @classmethod
    def inputs(cls, options: DiffusionOptions, resolve: Resolve) -> dict[str, Path]:
        """The pipeline and the adapters."""
        files = {f"lora.{number}": shipped(parse_lora(text).file) for number, text in enumerate(options.lora)}
        return {"pipeline": resolve(options.pipeline)} | files

    @classmethod
    def text_limit(cls, options: DiffusionOptions, resolve: Resolve, texts: Sequence[str]) -> TextLimit:
        """CLIP reads 77 tokens, the first and the last of which are marks."""
        folder = resolve(options.pipeline) / "tokenizer"
        tokenizer = require("transformers").CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        room = tokenizer.model_max_length
        longer = [place for place, text in enumerate(texts) if len(tokenizer.tokenize(text)) > room - 2]
        return TextLimit(room, longer)

    @classmethod
    def load(
        cls, options: DiffusionOptions, sampling: DiffusionSampling, resolve: Resolve, runtime: Runtime
    ) -> "DiffusionSampler":
        """The sampler over the configured weights."""
        import torch

        from genloop.models.diffusion.load import load_diffusion
        from genloop.sampling.diffusion.sampler import DiffusionSampler

        base = cls._base(options, resolve)
        model = load_diffusion(
            base,
            [parse_lora(text)._replace(file=shipped(parse_lora(text).file)) for text in options.lora],
            grid=base.grid(sampling.height, sampling.width),
            dtype=getattr(torch, options.dtype),
            vae_dtype=getattr(torch, options.vae_dtype),
            device=runtime.device,
        )
        return DiffusionSampler(
            model,
            partial(scheduler_table, base.scheduler, sampling.scheduler),
            sampling,
            rows_per_forward=runtime.rows_per_forward,
            slots=runtime.slots,
            paths_per_forward=options.paths_per_forward,
            before_step=runtime.before_step,
        )

    @classmethod
    def _base(cls, options: DiffusionOptions, resolve: Resolve) -> DiffusionFolder:
        return check_diffusion_folder(resolve(options.pipeline))
