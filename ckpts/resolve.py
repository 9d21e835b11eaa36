"""Names of checkpoints: `shapes/showo` or a path -> the folder that holds it.

ckpts/registry.yaml lists what is known: folder, files with their sha256, licence, source, where it can be fetched. A
folder is looked for below the folder that the environment variable CHECKPOINT_DIR names, in ./ckpts, then beside this
file, so shipped weights are found wherever a job is started. The first that is complete counts.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genloop.config import INSTALLED, read_yaml, shipped
from genloop.reading import read_json_object
from genloop.registry import did_you_mean
from genloop.rundir import sha256_file

HERE = Path(__file__).resolve().parent
REGISTRY = HERE / "registry.yaml"
CHECKPOINT_DIR = "CHECKPOINT_DIR"
FETCHED_FILE = "fetched.json"
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth"}


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository of the Hugging Face Hub: its files below `folder` that match one of `only` (none: all of them).

    `revision` is a commit where one is known; a branch is resolved when it is fetched, and written down then.
    """

    repository: str
    revision: str = "main"
    folder: str = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Url:
    """One file elsewhere: its address, the first digits of its sha256, the kind of `genloop ckpts convert` it needs."""

    address: str
    sha256_prefix: str
    convert: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One known checkpoint. `files` maps names inside the folder to their sha256; None: whatever was published.

    `made_by` is the command that makes the folder, of files that `source` tells; "": they are copied. `backbone` is
    what a conversion under this name has to find in the file; "": anything. `hub` or `url` say where it is fetched.
    `shape` is what is public about its tensors, see ckpts/stand_in.py; None: nothing is known.
    """

    name: str
    beside: Path
    licence: str
    source: str
    files: dict[str, str | None]
    made_by: str = ""
    backbone: str = ""
    hub: Hub | None = None
    url: Url | None = None
    shape: Mapping[str, Any] | None = None

    @property
    def folder(self) -> Path:
        """The first of its places where it is complete, else the first that is there at all, else where it belongs."""
        places = [root / self.name for root in _roots()] + [self.beside]
        whole = (place for place in places if not _absent(self, place))
        return next(whole, next((place for place in places if place.is_dir()), self._home))

    @property
    def _home(self) -> Path:
        """Below CHECKPOINT_DIR, else beside the registry; an installed package is left as it is."""
        if elsewhere := os.environ.get(CHECKPOINT_DIR):
            return Path(elsewhere).absolute() / self.name
        is_installed = self.beside.is_relative_to(HERE) and not (INSTALLED / "setup.py").is_file()
        return Path("ckpts").absolute() / self.name if is_installed else self.beside


@cache
def registry(path: Path = REGISTRY) -> dict[str, Entry]:
    """{name: entry} of a registry file; a name in `also` stands for the same entry."""
    found: dict[str, Entry] = {}
    for name, row in read_yaml(path).items():
        more = {key: row.get(key, "") for key in ("made_by", "backbone")}
        hub = Hub(**row["hub"] | {"only": tuple(row["hub"].get("only", ()))}) if "hub" in row else None
        url = Url(**row["url"]) if "url" in row else None
        folder = path.parent / row["folder"]
        where = {"hub": hub, "url": url, "shape": row.get("shape")}
        entry = Entry(name, folder, row["licence"], row["source"], dict(row["files"]), **more, **where)
        found |= dict.fromkeys((name, *row.get("also", ())), entry)
    return found


_INSTEAD: ContextVar[Callable[[Entry], Path | None]] = ContextVar("instead_of", default=lambda entry: None)


@contextmanager
def instead_of(make: Callable[[Entry], Path | None]) -> Iterator[None]:
    """While the body runs, a known checkpoint that is not here resolves to what `make` returns for it, unless None."""
    token = _INSTEAD.set(make)
    try:
        yield
    finally:
        _INSTEAD.reset(token)


def known(name: str, *, path: Path = REGISTRY) -> Entry:
    """The entry of a registered name; FileNotFoundError names the closest."""
    entries = registry(path)
    if name not in entries:
        raise FileNotFoundError(f"no checkpoint named {name!r}{did_you_mean(name, entries)} ({', '.join(entries)})")
    return entries[name]


def resolve(name_or_path: str | Path, *, path: Path = REGISTRY) -> Path:
    """A path that exists, or the folder of a registered name; FileNotFoundError says what is known."""
    entries = registry(path)
    if str(name_or_path) in entries:
        return _folder(entries[str(name_or_path)])
    places = [shipped(Path(name_or_path)), *(root / name_or_path for root in (*_roots(), HERE))]
    if found := next((place for place in places if place.exists()), None):
        return found
    raise FileNotFoundError(
        f"no checkpoint {str(name_or_path)!r}: neither a path nor a known name"
        f"{did_you_mean(str(name_or_path), entries)} ({', '.join(entries)})"
    )


def verify(name: str, *, path: Path = REGISTRY) -> None:
    """Check every file of a registered checkpoint whose sha256 is known; ValueError lists the files that differ."""
    entry = known(name, path=path)
    folder = _folder(entry)
    digests = fetched_files(entry) | {file: digest for file, digest in entry.files.items() if digest is not None}
    absent = [file for file in digests if not (folder / file).is_file()]
    changed = [file for file in digests if file not in absent and digests[file] != sha256_file(folder / file)]
    if absent or changed:
        raise ValueError(
            f"{folder}: missing, or other content than registered or fetched as {name!r}:"
            f" {', '.join(absent + changed)}; move the folder away and get it again"
        )


def missing_files(entry: Entry) -> list[str]:
    """What is missing in the folder of a registered checkpoint: registered files, fetched ones, shards, all weights."""
    folder = entry.folder
    listed = [shard for index in sorted(folder.rglob("*.index.json")) for shard in _shards(index, folder)]
    named = dict.fromkeys((*_absent(entry, folder), *fetched_files(entry), *listed))
    found = [name for name in named if not (folder / name).is_file()]
    has_weights = any(file.suffix in WEIGHTS for file in folder.rglob("*"))
    needs_weights = any(Path(name).stem in {"config", "model_index"} for name in entry.files)
    return found + (["weights (*.safetensors, *.bin)"] if needs_weights and not has_weights else [])


def state(entry: Entry) -> str:
    """there, not there, or what an incomplete folder lacks, for a person."""
    absent = missing_files(entry)
    if absent and entry.folder.is_dir():
        return f"incomplete: {entry.folder} lacks {', '.join(absent)}"
    if absent and part_of(entry.folder).is_dir():
        return f"half fetched: {part_of(entry.folder)}; the same `genloop ckpts fetch` goes on"
    return "not there" if absent else "there"


def part_of(folder: Path) -> Path:
    """Where a folder is fetched to until it is complete."""
    return folder.with_name(f"{folder.name}.part")


def _shards(index: Path, folder: Path) -> list[str]:
    """The files that an index of tensors names, by their place in the folder; of a damaged one, that it is damaged."""
    try:
        names = read_json_object(index).get("weight_map", {}).values()
        return [(index.parent / name).relative_to(folder).as_posix() for name in dict.fromkeys(map(str, names))]
    except (ValueError, AttributeError):
        return [f"{index.relative_to(folder).as_posix()} (damaged)"]


def fetched_files(entry: Entry) -> dict[str, str]:
    """{file: sha256} as they came from the Hub; empty where somebody else put them there."""
    record = entry.folder / FETCHED_FILE
    if not record.is_file():
        return {}
    try:
        return {name: file["sha256"] for name, file in read_json_object(record)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {f"{FETCHED_FILE} (damaged)": ""}


def place(name_or_path: str | Path) -> Path:
    """Where a checkpoint belongs: the folder of a registered name, be it there or not; else the path itself."""
    entry = registry().get(str(name_or_path))
    return entry.folder if entry else Path(name_or_path)


def backbone(name_or_path: str | Path) -> str | None:
    """What has to be in a file that is converted under a registered name; None: anything."""
    entry = registry().get(str(name_or_path))
    return entry.backbone or None if entry else None


def _roots() -> list[Path]:
    """Where folders are looked for before those that came with genloop."""
    elsewhere = os.environ.get(CHECKPOINT_DIR)
    return [*([Path(elsewhere).absolute()] if elsewhere else []), Path("ckpts").absolute()]


def _absent(entry: Entry, folder: Path) -> list[str]:
    needed = list(entry.files) or [FETCHED_FILE]  # where no file's name is known: as `genloop ckpts fetch` leaves it
    return [file for file in needed if not (folder / file).is_file()]


def _folder(entry: Entry) -> Path:
    absent = missing_files(entry)
    if not absent:
        return entry.folder
    if (other := _INSTEAD.get()(entry)) is not None:
        return other
    what = f"checkpoint {entry.name!r} is {state(entry)}"
    if entry.hub is not None or entry.url is not None:
        raise FileNotFoundError(f"{what}: run `genloop ckpts fetch {entry.name}`")
    if entry.made_by:
        raise FileNotFoundError(f"{what}: run `{entry.made_by}`, {entry.source}")
    raise FileNotFoundError(
        f"checkpoint {entry.name!r} is not complete: put {', '.join(absent)} into {entry.folder} ({entry.source})"
    )
