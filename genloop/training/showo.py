"""What trainings of a Show-o share: the keys of what they start from, and the way from an objective to RUN/showo."""

from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field

from genloop.config import LAUNCH, Settings
from genloop.distributed import World
from genloop.factories import Resolve
from genloop.meanings import START, TEXT_TOKENIZER, TOKENIZER
from genloop.models.common.image_tokenizers import check_image_tokenizer, load_image_tokenizer
from genloop.models.common.text import FileTokenizer, check_text_tokenizer
from genloop.models.showo.config import ShowOConfig, check_showo_folder
from genloop.protocols import Judge
from genloop.registry import check_installed
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.guards.settings import GuardSettings
from genloop.training.settings import LoopSettings, LoraSettings

ADAPTED = "showo.model."  # where adapters may be: the transformer's layers, not its head


class StartKeys(Settings):
    """Config keys of a training that goes on from a Show-o."""

    start: Annotated[str, LAUNCH] = Field("shapes/showo", description=START)
    tokenizer: Annotated[str, LAUNCH] = Field("shapes/tokenizer", description=TOKENIZER)
    text_tokenizer: Annotated[str | None, LAUNCH] = Field(None, description=TEXT_TOKENIZER)
    lora: LoraSettings = LoraSettings()
    guards: GuardSettings = GuardSettings()

    def check_start(self, resolve: Resolve) -> ShowOConfig:
        """The shape of `start`; ValueError or MissingPackage in one line when the other keys do not fit it."""
        shape = check_showo_folder(resolve(self.start))
        check_text_tokenizer(self.text(resolve), shape.llm_vocab_size, self.start)
        check_codebook(self.tokenizer, self.start, shape, resolve)
        if self.lora.rank:
            check_installed("peft", "train")
        return shape

    def start_inputs(self, resolve: Resolve) -> dict[str, Path]:
        """What enters the fingerprint by content."""
        found = {"start": resolve(self.start), "tokenizer": resolve(self.tokenizer), **self.guards.inputs(resolve)}
        return found | ({"text_tokenizer": resolve(self.text_tokenizer)} if self.text_tokenizer else {})

    def text(self, resolve: Resolve) -> FileTokenizer:
        """The configured text tokenizer, else that of `start`."""
        named = self.text_tokenizer
        return FileTokenizer(resolve(named) if named else resolve(self.start) / "tokenizer")


class _Keys(Protocol):
    @property
    def out(self) -> Path: ...
    @property
    def seed(self) -> int: ...
    @property
    def tokenizer(self) -> str: ...
    @property
    def guards(self) -> GuardSettings: ...


def check_codebook(tokenizer: str, start: str, shape: ShowOConfig, resolve: Resolve) -> None:
    """ValueError when an image tokenizer has another number of codes than a Show-o."""
    num_codes = check_image_tokenizer(resolve(tokenizer))
    if num_codes != shape.codebook_size:
        raise ValueError(f"tokenizer: {tokenizer} has {num_codes} codes, {start} {shape.codebook_size}")


def train_to_checkpoint(
    objective: Any,
    adapted: Any,
    config: _Keys,
    settings: LoopSettings,
    world: World,
    *,
    resolve: Resolve,
    device: str,
    judge: Judge | None = None,
    sampling: SamplingConfig | None = None,
) -> None:
    """Train an objective whose model is a Show-o, under its guards; write RUN/showo, and RUN/adapter of adapters.

    adapted: the model with its adapters, or None; judge: what the training follows; sampling: of the guards' images.
    """
    from genloop.models.showo.load import save_showo
    from genloop.training.adapters import merge_adapters, save_adapters
    from genloop.training.guards.build import build_guard
    from genloop.training.loop import train

    tokenizer = load_image_tokenizer(resolve(config.tokenizer), device=device) if config.guards.has_images else None
    objective.guard = build_guard(
        config.guards,
        config.out,
        world,
        model=objective.model,
        tokenizer=tokenizer,
        judge=judge,
        sampling=sampling,
        resolve=resolve,
        device=device,
        seed=config.seed,
    )
    train(objective, settings, config.out, world, seed=config.seed)
    if adapted is not None and world.rank == 0:
        save_adapters(adapted, config.out / "adapter")
    model = objective.model if adapted is None else merge_adapters(adapted)
    if world.rank == 0:
        save_showo(model, config.out / "showo")
