"""LLaVA-OneVision as a judge: what its options are, what it needs, what it answers. No torch until it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from genloop.bounds import Total, Weight
from genloop.config import LAUNCH, DType, InputPath, Settings
from genloop.factories import Resolve
from genloop.models.llava.config import check_llava_folder
from genloop.models.llava.text import LlavaTokenizer
from genloop.reading import read_json_object
from genloop.rewards.calibration import read_calibration
from genloop.rewards.questions import FILE, check_wording, read_questions
from genloop.rewards.settings import JudgeMaker

if TYPE_CHECKING:
    from genloop.rewards.llava.judge import LlavaJudge


class LlavaOptions(Settings):
    """Keys of `judge.kind=llava`."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="name or folder, fingerprinted by content")
    questions: InputPath | None = Field(
        None, description="file of other wordings; null: those of the checkpoint, else the released ones"
    )
    probability: Literal["raw", "two_way", "processed"] = Field(
        "raw",
        description="raw: 'yes' among all tokens; two_way: 'yes' against 'no'; processed: after the checkpoint's "
        "top-k and top-p, as released",
    )
    calibrated: bool = Field(
        False,
        description="true: sigmoid(a (logit(yes) - logit(no)) + b) in place of `probability`, for the questions in the "
        "checkpoint's calibration.json",
    )
    tiling: Literal["pad", "anyres"] = Field("pad", description="one padded tile, or tiles at the image's own size")
    dtype: DType = Field("float32", description="of the weights; probabilities are computed in float32")
    tokens_per_forward: Annotated[Total, LAUNCH] = Field(8192, description="positions in one forward pass")
    cache_gb: Annotated[Weight, LAUNCH] = Field(
        2.0, description="GB of keys and values of images that were asked about"
    )


class LlavaJudgeMaker(JudgeMaker):
    """The maker behind `llava`."""

    Options = LlavaOptions
    asks_freely = True

    @classmethod
    def check(cls, options: LlavaOptions, resolve: Resolve) -> None:
        """Another family, tensors that do not fit, a missing yes or no token, a bad questions or calibration file."""
        folder = resolve(options.checkpoint)
        config = check_llava_folder(folder)
        questions = read_questions(_questions_file(options, folder))
        if options.calibrated:
            read_calibration(folder)
        if options.probability == "processed":
            generation_of(folder)
        tokenizer = LlavaTokenizer(folder)
        if tokenizer.num_tokens > config.text.vocab_size:
            raise ValueError(
                f"{folder}: the tokenizer has {tokenizer.num_tokens} tokens, "
                f"config.json has room for {config.text.vocab_size}; use the tokenizer that belongs to the checkpoint"
            )
        for word in ("yes", "no"):
            tokenizer.word_id(word)
        check_wording(questions, tokenizer)

    @classmethod
    def inputs(cls, options: LlavaOptions, resolve: Resolve) -> dict[str, Path]:
        """The checkpoint, its questions included; a questions file is fingerprinted as the option that it is."""
        return {"checkpoint": resolve(options.checkpoint)}

    @classmethod
    def questions(cls, options: LlavaOptions, resolve: Resolve) -> tuple[str, ...]:
        """Those of the questions file, else those that the checkpoint was trained on, else the released ones."""
        return read_questions(_questions_file(options, resolve(options.checkpoint))).names

    @classmethod
    def load(cls, options: LlavaOptions, resolve: Resolve, device: str) -> "LlavaJudge":
        """The judge, in eval mode."""
        import torch

        from genloop.models.llava.load import load_llava
        from genloop.rewards.llava.judge import LlavaJudge

        folder = resolve(options.checkpoint)
        return LlavaJudge(
            load_llava(folder, dtype=getattr(torch, options.dtype), device=device),
            LlavaTokenizer(folder),
            read_questions(_questions_file(options, folder)),
            probability=options.probability,
            tiling=options.tiling,
            tokens_per_forward=options.tokens_per_forward,
            cache_bytes=int(options.cache_gb * 1e9),
            generation=generation_of(folder) if options.probability == "processed" else None,
            calibration=read_calibration(folder) if options.calibrated else None,
        )


def _questions_file(options: LlavaOptions, folder: Path) -> Path | None:
    """The file that was asked for, else the checkpoint's own; None for the released questions."""
    own = folder / FILE
    return options.questions or (own if own.is_file() else None)


def generation_of(folder: Path) -> dict[str, Any]:
    """generation_config.json of a checkpoint folder; {} where there is none. ValueError for a bad top_k or top_p."""
    path = folder / "generation_config.json"
    data = read_json_object(path) if path.is_file() else {}
    top_k, top_p = data.get("top_k"), data.get("top_p")
    if top_k is not None and (type(top_k) is not int or top_k < 0):
        raise ValueError(f"{path}: top_k is {top_k!r}, expected a whole number, 0 for all tokens")
    if top_p is not None and (type(top_p) not in (int, float) or not 0 < top_p <= 1):
        raise ValueError(f"{path}: top_p is {top_p!r}, expected a number above 0 and at most 1")
    return data
