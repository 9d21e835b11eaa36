"""Our generator writes what the reference's does, for every recorded seed; published files survive our reader."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from geneval.names import OBJECT_NAMES
from geneval.prompts import generate
from genloop.data.prompts import METADATA_FILE, PROMPTS_FILE, caption, encode_prompts, read_prompts
from tests.goldens.roots import golden_paths, golden_roots

PUBLISHED = {
    PROMPTS_FILE: "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680",
    METADATA_FILE: "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
}
RECORDED = [
    entry for file in golden_paths("geneval/**/*hashes*.json") for entry in json.loads(file.read_text(encoding="utf-8"))
]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_seed_43_gives_the_published_files() -> None:
    prompts = generate(43, 100)
    texts, metadata = encode_prompts(prompts)
    assert len(prompts) == 553
    assert {PROMPTS_FILE: sha256(texts), METADATA_FILE: sha256(metadata)} == PUBLISHED


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: f"seed{entry['seed']}-n{entry['n']}")
def test_every_recorded_seed_gives_the_same_bytes(entry: dict[str, Any]) -> None:
    for name, data in zip((PROMPTS_FILE, METADATA_FILE), encode_prompts(generate(entry["seed"], entry["n"]))):
        assert (data.count(b"\n"), len(data)) == (entry[name]["lines"], entry[name]["bytes"])
        assert sha256(data) == entry[name]["sha256"]


def published_folders() -> list[Path]:
    """Folders with both published files, and one written by us, which has the same bytes."""
    return [file.parent for root in golden_roots() for file in root.glob(f"geneval/**/{METADATA_FILE}")]


def test_published_files_are_read_checked_and_written_back(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    for name, data in zip((PROMPTS_FILE, METADATA_FILE), encode_prompts(generate(43, 100))):
        (ours / name).write_bytes(data)
    for folder in (ours, *published_folders()):
        prompts = read_prompts(folder / PROMPTS_FILE, folder / METADATA_FILE, classes=OBJECT_NAMES)
        written = encode_prompts(prompts)
        assert written == ((folder / PROMPTS_FILE).read_bytes(), (folder / METADATA_FILE).read_bytes())
        assert {sha256(written[0]), sha256(written[1])} == set(PUBLISHED.values())
        assert [prompt.text for prompt in prompts] == [caption(p.tag or "", p.include) for p in prompts]


def test_object_names_are_the_published_ones() -> None:
    files = [folder / "object_names.txt" for folder in published_folders()]
    assert len(OBJECT_NAMES) == len(set(OBJECT_NAMES)) == 80
    assert all(file.read_text(encoding="utf-8").split("\n") == [*OBJECT_NAMES, ""] for file in files if file.exists())
