"""What stands behind generator=showo: its config keys, what it needs, how it is loaded. No torch until loading."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from genloop.config import ADDED, LAUNCH, DType, Settings
from genloop.factories import Resolve
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer, takes_dtype
from genloop.models.common.text import FileTokenizer, check_text_tokenizer, with_bos
from genloop.models.showo.config import check_showo_folder
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.windows import check_growth
from genloop.sampling.modes import ModeSettings
from genloop.sampling.settings import GeneratorMaker, Runtime, TextLimit

if TYPE_CHECKING:
    from genloop.sampling.maskgit.sampler import MaskGitSampler


class ShowoOptions(Settings):
    """Which weights, each a name of `ckpts` or a folder, fingerprinted by content; and how they are held."""

    showo: Annotated[str, LAUNCH] = Field("shapes/showo", description="Show-o checkpoint")
    tokenizer: Annotated[str, LAUNCH] = Field("shapes/tokenizer", description="image tokenizer")
    tokenizer_class: str | None = Field(
        None, description="module:class that checks and loads the image tokenizer; null: as its config.json says"
    )
    text_tokenizer: Annotated[str | None, LAUNCH] = Field(
        None, description="text tokenizer, if the checkpoint has none"
    )
    dtype: DType = Field("float32", description="of Show-o")
    tokenizer_dtype: Annotated[DType, ADDED] = Field(
        "float32", description="of the image tokenizer; others than float32 for MAGVIT-v2 alone"
    )


class ShowoGenerator(GeneratorMaker):
    """Show-o with an image tokenizer, sampled as MaskGIT."""

    Options = ShowoOptions
    Sampling = SamplingConfig
    modes: ClassVar[Mapping[str, str]] = {
        "inpaint": "genloop.sampling.maskgit.inpaint:inpainting",
        "extrapolate": "genloop.sampling.maskgit.extrapolate:extrapolation",
        "answer": "genloop.sampling.maskgit.answers:ShowoAnswers",
    }

    @classmethod
    def check(cls, options: ShowoOptions, resolve: Resolve) -> None:
        """Both tokenizers fit the checkpoint."""
        showo = check_showo_folder(resolve(options.showo))
        check_text_tokenizer(cls._text_tokenizer(options, resolve), showo.llm_vocab_size, options.showo)
        num_codes = check_image_tokenizer(resolve(options.tokenizer), options.tokenizer_class)
        if not takes_dtype(resolve(options.tokenizer), options.tokenizer_class, options.tokenizer_dtype):
            raise ValueError(
                f"generator.options.tokenizer_dtype: {options.tokenizer} does not take {options.tokenizer_dtype}; "
                "use float32"
            )
        if num_codes != showo.codebook_size:
            raise ValueError(
                f"generator.options.tokenizer: {options.tokenizer} has {num_codes} codes, "
                f"{options.showo} was trained on {showo.codebook_size}"
            )

    @classmethod
    def check_mode(cls, options: ShowoOptions, mode: ModeSettings, resolve: Resolve) -> None:
        """Images grow from a square grid, by less than its side."""
        if mode.kind == "extrapolate":
            check_growth(check_showo_folder(resolve(options.showo)).grid, mode.options.overlap)

    @classmethod
    def inputs(cls, options: ShowoOptions, resolve: Resolve) -> dict[str, Path]:
        """The checkpoints."""
        found = {"showo": resolve(options.showo), "tokenizer": resolve(options.tokenizer)}
        return found | ({"text_tokenizer": resolve(options.text_tokenizer)} if options.text_tokenizer else {})

    @classmethod
    def text_limit(cls, options: ShowoOptions, resolve: Resolve, texts: Sequence[str]) -> TextLimit:
        """Show-o reads so many tokens of a text and no more; the last one is eos."""
        room = check_showo_folder(resolve(options.showo)).max_seq_length - 1
        tokenizer = cls._text_tokenizer(options, resolve)
        return TextLimit(room, [place for place, text in enumerate(texts) if len(with_bos(tokenizer, text)) > room])

    @classmethod
    def load(
        cls, options: ShowoOptions, sampling: SamplingConfig, resolve: Resolve, runtime: Runtime
    ) -> "MaskGitSampler":
        """The sampler over the configured weights."""
        import torch

        from genloop.models.showo.load import load_showo
        from genloop.sampling.maskgit.sampler import MaskGitSampler

        model = load_showo(
            resolve(options.showo),
            dtype=getattr(torch, options.dtype),
            device=runtime.device,
            text_tokenizer=cls._text_tokenizer(options, resolve),
        )
        tokenizer = load_image_tokenizer(
            resolve(options.tokenizer),
            options.tokenizer_class,
            device=runtime.device,
            dtype=options.tokenizer_dtype,
        )
        return MaskGitSampler(
            model,
            tokenizer,
            sampling,
            rows_per_forward=runtime.rows_per_forward,
            slots=runtime.slots,
            before_step=runtime.before_step,
        )

    @classmethod
    def _text_tokenizer(cls, options: ShowoOptions, resolve: Resolve) -> FileTokenizer:
        """The configured text tokenizer, else that of the checkpoint."""
        named = options.text_tokenizer
        return FileTokenizer(resolve(named) if named else resolve(options.showo) / "tokenizer")
