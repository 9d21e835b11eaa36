"""Which generator, with which options: the config keys of every job that samples. No torch.

`GENERATORS` names makers. A maker is a class that knows, without loading anything, what its generator needs, which
`sampling` keys it has, and how it is loaded.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from pydantic import Field, PlainValidator, ValidationInfo, model_validator

from genloop.bounds import Count
from genloop.config import LAUNCH, ComputeKeys, Settings, parse_options
from genloop.factories import Maker, PartSettings, Resolve
from genloop.meanings import SLOTS
from genloop.protocols import Sampler
from genloop.sampling import GENERATORS
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.modes import TEXT, ModeSettings

log = logging.getLogger(__name__)


class Runtime(NamedTuple):
    """Where and how a sampler runs; nothing here changes what it draws."""

    device: str = "cpu"
    slots: int = 64  # paths side by side
    rows_per_forward: int = 256
    before_step: Callable[[], None] = lambda: None  # may raise, to stop in the middle of a search


class TextLimit(NamedTuple):
    """How many tokens of a text a generator reads, and which of the given texts have more."""

    num_tokens: int
    longer: list[int]


class GeneratorMaker(Maker, Protocol):
    """What stands behind a name in `GENERATORS`."""

    Sampling: ClassVar[type[Settings]] = Settings  # its `sampling` keys; an instance has `num_steps`
    modes: ClassVar[Mapping[str, str]] = {}  # what it can do beside images of texts: {mode: "module:attribute"}
    corrects: ClassVar[bool] = True  # whether it reads a finished image and what is wrong with it

    @classmethod
    def check_sampling(cls, options: Any, sampling: Any, resolve: Resolve) -> None:
        """Refuse `sampling` keys that do not fit the checkpoint; reads headers at most."""

    @classmethod
    def check_mode(cls, options: Any, mode: ModeSettings, resolve: Resolve) -> None:
        """Refuse options of one of its modes that do not fit the checkpoint; reads headers at most."""

    @classmethod
    def text_limit(cls, options: Any, resolve: Resolve, texts: Sequence[str]) -> TextLimit | None:
        """Which of the texts will be cut; None: texts of any length are read."""
        return None

    @classmethod
    def load(cls, options: Any, sampling: Any, resolve: Resolve, runtime: Runtime) -> Sampler[Any]:
        """The sampler over its weights."""
        ...


class GeneratorSettings(PartSettings):
    """Who draws images. After validation `options` is an instance of the maker's `Options`."""

    table: ClassVar = GENERATORS
    part: ClassVar = "generator"

    kind: str = Field("showo", description=f"{', '.join(GENERATORS)}, module:class")

    def mode(self, name: str) -> str:
        """What stands behind a mode, as "module:attribute"; ValueError when this kind of generator has none."""
        modes = self.maker.modes
        if name not in modes:
            raise ValueError(f"generator {self.kind!r} has no mode {name!r} ({', '.join((TEXT, *modes))})")
        return modes[name]


def _parse_sampling(given: Any, info: ValidationInfo) -> Settings:
    """The `sampling` keys of the generator that stands in front of them; a default of another kind's is dropped."""
    generator = info.data.get("generator")  # None when it was refused already
    if generator is None:
        return Settings()
    model = generator.maker.Sampling
    return parse_options(model, {} if isinstance(given, Settings) and not isinstance(given, model) else given)


class GeneratorKeys(ComputeKeys):
    """Config keys of jobs that draw images."""

    generator: GeneratorSettings = GeneratorSettings()
    sampling: Annotated[Any, PlainValidator(_parse_sampling)] = Field(
        SamplingConfig(), validate_default=True, description="how images are drawn: keys of the kind of generator"
    )
    slots: Annotated[Count, LAUNCH] = Field(64, description=SLOTS)
    rows_per_forward: Annotated[Count, LAUNCH] = Field(256, description="rows in one forward pass, two a path")

    @model_validator(mode="before")
    @classmethod
    def _translated(cls, given: Any) -> Any:
        return translate_model_keys(given) if isinstance(given, Mapping) and "model" in given else given


def translate_model_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """Presets and runs from before there was more than one generator: `model.KEY` -> `generator.options.KEY`."""
    _warn_of_old_names()
    data = dict(given)
    model, generator = data.pop("model"), data.get("generator") or {}
    generator = {"kind": generator} if isinstance(generator, str) else dict(generator)
    old = dict(model) if isinstance(model, Mapping) else {"model": model}
    if "device" in old:
        data["device"] = old.pop("device")
    generator["options"] = {**(generator.get("options") or {}), **old}
    return data | {"generator": generator}


@functools.cache  # once a process, however often a config is parsed
def _warn_of_old_names() -> None:
    log.warning("model.* is an old name: use generator.options.showo, .tokenizer, .text_tokenizer, .dtype, and device")
