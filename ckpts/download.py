"""What `ckpts.fetch` runs in a process of its own, so that a transfer that hangs can be stopped: listing and download.

Hub files come by huggingface_hub's `snapshot_download` (resume, hf-xet, the token of the environment, HF_ENDPOINT),
files elsewhere by `torch.hub.download_url_to_file`. The process reads one JSON object from standard input, ends with
its parent, and prints one line of JSON when it fails.
"""

import json
import os
import sys
import threading
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from genloop.reading import parse_json
from genloop.registry import require


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a repository: its path there, bytes, and the sha256 or, of small files, git's sha1 of its content."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str


def listing(
    repository: str, revision: str, folder: str = "", patterns: Sequence[str] = ()
) -> tuple[str, list[RemoteFile]]:
    """The commit that `revision` stands for, and its files below `folder` that match one of `patterns` (none: all).

    Raises:
        OSError: one line, see `explained`.
    """
    hub, errors = require("huggingface_hub"), require("huggingface_hub.errors")
    api = hub.HfApi(library_name="genloop")
    try:
        commit = api.model_info(repository, revision=revision).sha
        entries = list(api.list_repo_tree(repository, folder or None, recursive=True, revision=commit))
    except (errors.HTTPError, OSError) as error:
        raise explained(error, repository, revision) from error
    files = [
        RemoteFile(entry.path, entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in entries
        if isinstance(entry, hub.hf_api.RepoFile)
        and (not patterns or any(fnmatchcase(entry.path, p) for p in patterns))
    ]
    if not files:
        raise OSError(f"{repository} at {commit} has no file {folder and folder + '/'}{' '.join(patterns)}")
    return commit, files


def explained(error: Exception, repository: str, revision: str) -> OSError:
    """What a user can do about an error of huggingface_hub, in one line."""
    kinds = require("huggingface_hub.errors")
    page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{repository}"
    lines = {
        kinds.GatedRepoError: f"gated: accept its terms at {page}, then set HF_TOKEN or run `hf auth login`",
        kinds.RepositoryNotFoundError: f"not found at {page}; a private one needs HF_TOKEN or `hf auth login`",
        kinds.RevisionNotFoundError: f"has no revision {revision!r}",
        kinds.OfflineModeIsEnabled: "HF_HUB_OFFLINE is set; fetch it where there is a network, and copy the folder",
    }
    for kind, line in lines.items():
        if isinstance(error, kind) or isinstance(error.__cause__, kind):
            return OSError(f"{repository}: {line}")
    return OSError(f"{repository}: cannot be reached at {page} ({type(error).__name__}: {_first_line(error)})")


def download(task: dict[str, Any]) -> None:
    """Files of a commit, or one file of an address, into a folder; what is there in full already is kept."""
    if "address" in task:
        _by_https(task["address"], Path(task["folder"]), task["sha256_prefix"])
        return
    hub, errors = require("huggingface_hub"), require("huggingface_hub.errors")
    try:
        hub.snapshot_download(
            task["repository"],
            revision=task["commit"],
            local_dir=task["folder"],
            allow_patterns=task["files"],
            library_name="genloop",
        )
    except (errors.HTTPError, OSError) as error:
        raise explained(error, task["repository"], task["commit"]) from error


def _by_https(address: str, folder: Path, sha256_prefix: str) -> None:
    file = folder / file_name(address)
    try:
        require("torch.hub").download_url_to_file(address, str(file), hash_prefix=sha256_prefix, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: another hash
        raise OSError(f"{address}: {_first_line(error)}") from error


def file_name(address: str) -> str:
    """The last part of a URL's path."""
    return Path(urllib.parse.urlsplit(address).path).name


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the other side is gone
    os._exit(1)


def main() -> None:
    """The task of standard input; exit 1 and {"error": line} on standard output when it fails."""
    task = parse_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        download(task)
    except OSError as error:
        sys.stdout.write(json.dumps({"error": _first_line(error)}) + "\n")
        sys.stdout.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
