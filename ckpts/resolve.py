"""Names of checkpoints: `shapes/showo` or a path -> the folder that holds it.

ckpts/registry.yaml lists what is known: folder, files with their sha256, licence, source. A folder is looked for beside
this file, so shipped weights are found wherever a job is started.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genloop.config import read_yaml
from genloop.registry import did_you_mean
from genloop.rundir import sha256_file

HERE = Path(__file__).resolve().parent
REGISTRY = HERE / "registry.yaml"


@dataclass(frozen=True, slots=True)
class Entry:
    """One known checkpoint. `files` maps names inside the folder to their sha256; None: whatever was published.

    `made_by` is the command that makes the folder, of files that `source` tells; "": they are copied. `backbone` is
    what a conversion under this name has to find in the file; "": anything.
    """

    name: str
    folder: Path
    licence: str
    source: str
    files: dict[str, str | None]
    made_by: str = ""
    backbone: str = ""


@cache
def registry(path: Path = REGISTRY) -> dict[str, Entry]:
    """{name: entry} of a registry file."""
    found = {}
    for name, row in read_yaml(path).items():
        folder = path.parent / row["folder"]
        more = {key: row.get(key, "") for key in ("made_by", "backbone")}
        found[name] = Entry(name, folder, row["licence"], row["source"], dict(row["files"]), **more)
    return found


def resolve(name_or_path: str | Path, *, path: Path = REGISTRY) -> Path:
    """A path that exists, or the folder of a registered name; FileNotFoundError says what is known."""
    known = registry(path)
    if str(name_or_path) in known:
        return _folder(known[str(name_or_path)])
    direct = Path(name_or_path)
    if direct.exists():
        return direct
    raise FileNotFoundError(
        f"no checkpoint {str(name_or_path)!r}: neither a path nor a known name"
        f"{did_you_mean(str(name_or_path), known)} ({', '.join(known)})"
    )


def verify(name: str, *, path: Path = REGISTRY) -> None:
    """Check every file of a registered checkpoint against its sha256; ValueError lists the files that differ."""
    known = registry(path)
    if name not in known:
        raise FileNotFoundError(f"no checkpoint named {name!r}{did_you_mean(name, known)} ({', '.join(known)})")
    entry = known[name]
    folder = _folder(entry)
    changed = [file for file, digest in entry.files.items() if digest not in (None, sha256_file(folder / file))]
    if changed:
        raise ValueError(f"{folder}: other content than registered as {name!r}: {', '.join(changed)}; copy them again")


def missing_files(entry: Entry) -> list[str]:
    """The files of a registered checkpoint that are not in its folder."""
    return [file for file in entry.files if not (entry.folder / file).is_file()]


def place(name_or_path: str | Path, *, path: Path = REGISTRY) -> Path:
    """Where a checkpoint belongs: the folder of a registered name, be it there or not; else the path itself."""
    entry = registry(path).get(str(name_or_path))
    return entry.folder if entry else Path(name_or_path)


def backbone(name_or_path: str | Path, *, path: Path = REGISTRY) -> str | None:
    """What has to be in a file that is converted under a registered name; None: anything."""
    entry = registry(path).get(str(name_or_path))
    return entry.backbone or None if entry else None


def _folder(entry: Entry) -> Path:
    absent = missing_files(entry)
    if absent and entry.made_by:
        raise FileNotFoundError(f"checkpoint {entry.name!r} is not there: run `{entry.made_by}`, {entry.source}")
    if absent:
        raise FileNotFoundError(
            f"checkpoint {entry.name!r} is not complete: put {', '.join(absent)} into {entry.folder} ({entry.source})"
        )
    return entry.folder
