"""Job configs: defaults in a pydantic model, differences in a YAML 1.2 preset, the moment in `key=value`.

`LAUNCH` marks keys that say how a run is started, not what it computes: they are left out of its fingerprint.
`InputPath` marks files and folders that are read: their content, not their place, enters the fingerprint. `ReadPath`
marks those whose content the job itself names in its `inputs`. Both are also found where genloop is installed.
`ADDED` marks keys that are younger than runs that may be resumed: their default is left out of the fingerprint.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML

from genloop.bounds import Count, Seconds, Seed, Threads, Total
from genloop.meanings import AUTO, THREADS
from genloop.reading import MAX_YAML_BYTES, parse_json, parse_yaml, read_utf8
from genloop.redaction import REDACTED, holds_redacted, redact
from genloop.registry import did_you_mean

INSTALLED = Path(__file__).resolve().parent.parent  # holds configs/ and ckpts/, in a checkout and when installed
_PART_KEYS = ("kind", "strategy")  # keys that name a part, whose `options` stand beside them
LAUNCH = "launch"
INPUT = "input"
ADDED = "added"
DEVICE = "device"
MISSING = "needs a value"
Device = Annotated[Literal["auto", "cpu", "cuda"], DEVICE]
DType = Literal["float32", "bfloat16", "float16"]


def shipped(path: Path) -> Path:
    """A relative path as it is, or, when there is nothing, the file of that name that came with genloop."""
    return INSTALLED / path if not path.exists() and (INSTALLED / path).exists() else path


InputPath = Annotated[Path, INPUT, AfterValidator(shipped)]
ReadPath = Annotated[Path, LAUNCH, AfterValidator(shipped)]
ReadPaths = Annotated[tuple[Annotated[Path, AfterValidator(shipped)], ...], LAUNCH]


def _named(value: Any) -> Any:
    """An empty path would be the current folder."""
    if value == "":
        raise ValueError("needs a name")
    return value


def listed(value: object) -> object:
    """For validators: one value where a list may stand is a list of it."""
    return [value] if isinstance(value, str | Path) else value


class ConfigError(ValueError):
    """A config that cannot be used; the message is one line."""


class Settings(BaseModel):
    """A group of config keys: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())


class JobConfig(Settings):
    """Keys of every job."""

    out: Annotated[Path, LAUNCH, BeforeValidator(_named)] = Field(description="the run folder")
    seed: Seed = Field(0, description="keys every random number of the run")

    @model_validator(mode="after")
    def _ends(self) -> "JobConfig":
        """A pipe or a device would be read forever."""
        for key, value, _ in _walk(self):
            for path in value if isinstance(value, list | tuple) else [value]:
                if isinstance(path, Path) and path.exists() and not (path.is_file() or path.is_dir()):
                    raise refusal(f"{key}: {path} is no regular file or folder; copy its content to one")
        return self


class IndependentConfig(JobConfig):
    """Keys of every job whose workers share nothing but the run folder."""

    limit: Total | None = Field(None, description="only the first so many items")
    unit_size: Count = Field(8, description="items in one unit of work")
    retry_failed: Annotated[bool, LAUNCH] = Field(False, description="take failed units up again")
    max_attempts: Annotated[Count, LAUNCH] = Field(1, description="attempts at a unit before the run stops")
    lease_timeout: Annotated[Seconds, LAUNCH] = Field(
        120.0, ge=5, description="seconds without a heartbeat after which another worker takes a unit over"
    )


class DeviceKeys(Settings):
    """Where an independent job computes; a training says it in its `train` keys."""

    device: Device = Field("auto", description=AUTO)


class ComputeKeys(DeviceKeys):
    """The same, and on how many cores."""

    threads: Threads = Field(1, description=THREADS)


class HeldOutKeys(Settings):
    """Prompts that must not come up where something is learned from."""

    held_out: ReadPaths = Field(
        description="prompt files of evaluations, whose prompts are refused here; [] for none; fingerprinted by content"
    )

    def held_out_inputs(self) -> dict[str, Path]:
        """The files, for the fingerprint."""
        return {f"held_out.{number}": path for number, path in enumerate(self.held_out)}


class PromptKeys(Settings):
    """Keys of every job that draws images for prompts."""

    prompts: InputPath = Field(description="prompt file, one prompt a line, or a metadata file (.jsonl)")
    metadata: InputPath | None = Field(None, description="GenEval metadata, one JSON object a line")


G = TypeVar("G", bound=Settings)


def load_config(model: type[G], preset: Path | None, overrides: Sequence[str] = ()) -> G:
    """Preset file and `key=value` words -> a checked config; ConfigError says path, value and what is allowed.

    What no word is to blame for is said of the file.
    """
    data = read_yaml(preset) if preset else {}
    apply_words(data, overrides)
    try:
        return parse_settings(model, data)
    except ConfigError as error:
        key, colon, _ = str(error).partition(": ")
        keys = [word.partition("=")[0] for word in overrides]
        by_word = any(f"{key}.".startswith(f"{word}.") or f"{word}.".startswith(f"{key}.") for word in keys)
        if preset is None or not colon or by_word or MISSING in str(error):
            raise
        raise ConfigError(f"{preset}: {error}") from None


def apply_words(data: dict[str, Any], words: Sequence[str]) -> None:
    """Change `data` by `key=value` words with dotted keys.

    A word that names another part (another judge, another strategy) drops the `options` that `data` has for its.
    """
    for word in words:
        _drop_options(data, word)
    for word in words:
        _override(data, word)


def words_of(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The `key=value` words that `apply_words` turns into these nested keys and values again."""
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from words_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={_as_yaml(value)}"


def _as_yaml(value: Any) -> str:
    """A value as YAML on one line; text is quoted where YAML would read something else."""
    with suppress(ValueError):
        if isinstance(value, str) and value and parse_yaml(value, "") == value:
            return value
    return json.dumps(value, default=os.fspath)


def parse_settings(model: type[G], data: Any) -> G:
    """Plain values -> a checked model; ConfigError says path, value and what is allowed."""
    if key := holds_redacted(data):
        raise ConfigError(f"{key}: a secret was taken out of it when it was written down ({REDACTED}); give it again")
    try:
        return model.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise ConfigError(_explain(error, model, data)) from None


def refusal(line: str) -> PydanticCustomError:
    """For validators: an error that says everything itself; `line` follows the key that is validated."""
    return PydanticCustomError("refusal", "{line}", {"line": line})


def parse_options(model: type[G], options: Any) -> G:
    """For validators: the options of a named part (a judge, a strategy) in its own model, with its own errors."""
    if isinstance(options, model):
        return options
    try:
        return model.model_validate_json(json.dumps(options, default=os.fspath))
    except ValidationError as error:
        line = _explain(error, model, options)
        raise refusal(line if line.startswith(":") else f".{line}") from None


def check_part(find: Callable[[str], Any], name: str) -> str:
    """For validators: the name of a part (a judge, a strategy), refused as `find` refuses it with a ValueError."""
    try:
        found = find(name)
    except ValueError as error:
        raise refusal(f": {error}") from None
    if not hasattr(found, "Options"):  # whatever "module:attribute" may lead to
        raise refusal(f": {name!r} cannot be used here: it has no `Options`, the model of its config keys")
    return name


@dataclass(frozen=True)
class OneOf:
    """To annotate the name of a part beside `part_name`: the table that it comes from, for manuals."""

    table: Mapping[str, str]


def part_name(find: Callable[[str], Any]) -> AfterValidator:
    """To annotate the name of a part, see `check_part`."""
    return AfterValidator(partial(check_part, find))


def part_options(key: str, find: Callable[[str], Any]) -> PlainValidator:
    """To annotate the options of the part that the field `key` names: they become an instance of its `Options`."""

    def parse(options: Any, info: ValidationInfo) -> Settings:
        name = info.data.get(key)  # None when it was refused already
        return parse_options(find(name).Options, options) if name else Settings()

    return PlainValidator(parse)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 file that holds a mapping; ConfigError with the line otherwise."""
    try:
        data = parse_yaml(read_utf8(path, limit=MAX_YAML_BYTES), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or 'no such file'}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(data).__name__}")
    return data


def dump_yaml(data: Mapping[str, Any]) -> str:
    """A mapping of plain values as block-style YAML 1.2."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(dict(data), stream)
    return stream.getvalue()


def find_preset(job: str, name: str, roots: Sequence[Path], *, noun: str = "preset") -> Path:
    """A preset's file: a path that exists, or configs/JOB/NAME.yaml below one of `roots`. `noun` is for complaints."""
    direct = Path(name)
    if direct.suffix in {".yaml", ".yml"}:
        if direct.is_file():
            return direct
        raise ConfigError(f"no {noun} file {name}")
    folders = [root / job for root in roots]
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    what = f"{noun} {name!r}" if noun == job else f"{noun} {name!r} of job {job!r}"
    raise ConfigError(f"unknown {what}{did_you_mean(name, known)} ({', '.join(known) or 'none'})")


def preset_roots() -> list[Path]:
    """Where presets are looked for: ./configs, then the configs installed with genloop."""
    return [Path("configs"), INSTALLED / "configs"]


def marked(config: Settings, marker: str) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every field that carries `marker`, at any depth."""
    for key, value, marks in _walk(config):
        if marker in marks:
            yield key, value


def computing_keys(config: Settings) -> dict[str, Any]:
    """{dotted key: plain value} of what a run computes: neither launch settings, input paths nor secrets."""
    return {
        key: redact(parse_json(json.dumps(value, default=os.fspath)), key)
        for key, value, marks in _walk(config)
        if LAUNCH not in marks and INPUT not in marks
    }


def _walk(config: Settings, prefix: str = "") -> Iterator[tuple[str, Any, set[Any]]]:
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        marks = {mark for mark in info.metadata if isinstance(mark, str)} | _marks(info.annotation)
        if isinstance(value, Settings):
            yield from _walk(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and all(isinstance(part, Settings) for part in value):
            for index, part in enumerate(value):
                yield from _walk(part, f"{prefix}{name}.{index}.")
        elif isinstance(value, dict) and value and all(isinstance(part, Settings) for part in value.values()):
            for key, part in value.items():
                yield from _walk(part, f"{prefix}{name}.{key}.")
        elif ADDED not in marks or value != info.default:
            yield f"{prefix}{name}", value, marks


def _marks(annotation: Any) -> set[str]:
    if get_origin(annotation) is Annotated:
        return {mark for mark in annotation.__metadata__ if isinstance(mark, str)} | _marks(annotation.__origin__)
    return {mark for part in get_args(annotation) if not isinstance(part, str) for mark in _marks(part)}


def _drop_options(data: dict[str, Any], word: str) -> None:
    """What the preset says of a part that `word` replaces by another one."""
    key, _, name = word.partition("=")
    *parents, last = key.split(".")
    group: Any = data
    for parent in parents:
        group = group.get(parent) if isinstance(group, dict) else None
    if parents and last in _PART_KEYS and isinstance(group, dict) and group.get(last, name) != name:
        group.pop("options", None)


def _override(data: dict[str, Any], word: str) -> None:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected key=value, found {word!r}")
    try:
        value = parse_yaml(text, key) if text else None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent} is {inner!r}, not a group of keys")
        data = inner
    data[last] = value


def _explain(error: ValidationError, model: type[BaseModel], data: dict[str, Any]) -> str:
    first, *rest = error.errors()
    path = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(rest)} more)" if rest else ""
    missing = [".".join(map(str, other["loc"])) for other in (first, *rest) if other["type"] == "missing"]
    if len(missing) > 1 and first["type"] == "missing":
        more = f" (and {len(rest) + 1 - len(missing)} more)" if len(missing) <= len(rest) else ""
        return f"{', '.join(missing)}: each {MISSING}{more}"
    if first["type"] == "refusal":
        return f"{path}{first['msg']}{more}"
    if first["type"] == "extra_forbidden":
        fields = list(_fields_at(model, first["loc"][:-1]))
        known = ", ".join(fields) or "none"
        return f"{path}: unknown key{did_you_mean(str(first['loc'][-1]), fields)} (keys: {known}){more}"
    if first["type"] == "missing":
        return f"{path}: {MISSING}{more}"
    found = first["input"]
    hint = ""
    if first["type"] == "literal_error" and isinstance(found, str):
        options = [part.strip(" '") for part in first["ctx"]["expected"].replace(" or ", ",").split(",")]
        hint = did_you_mean(found, options)
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower()}{message[1:]}, found {found!r}{hint}{more}"


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> Sequence[str]:
    current: Any = model
    parts = iter(loc)
    for part in parts:
        is_model = isinstance(current, type) and issubclass(current, BaseModel)
        info = current.model_fields.get(str(part)) if is_model else None
        if info is None:
            return ()
        if get_origin(info.annotation) in {dict, list, tuple}:
            next(parts, None)  # the key or the place of one of several groups
        options = [info.annotation, *get_args(info.annotation)]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(current.model_fields) if current is not None else ()
