"""Text tokenizer folders, as the hub stores them."""

import json
import shutil
from pathlib import Path

import pytest

from genloop.models.common.text import FileTokenizer
from tests.goldens.roots import SAMPLES

SOURCE = SAMPLES / "showo" / "dev" / "A" / "tokenizer"


def copied(folder: Path) -> Path:
    shutil.copytree(SOURCE, folder)
    return folder


def test_text_comes_back() -> None:
    tokenizer = FileTokenizer(SOURCE)
    assert tokenizer.decode(tokenizer.encode("a photo of two clocks")) == "a photo of two clocks"
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.num_tokens) == (0, 0, 290)


@pytest.mark.parametrize("token", ["<|endoftext|>", {"content": "<|endoftext|>", "special": True}])
def test_special_tokens_are_named_in_either_form(token: object, tmp_path: Path) -> None:
    folder = copied(tmp_path / "t")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": token, "eos_token": token}))
    assert FileTokenizer(folder).eos_id == 0


def test_the_special_tokens_map_is_enough(tmp_path: Path) -> None:
    folder = copied(tmp_path / "t")
    (folder / "tokenizer_config.json").unlink()
    assert FileTokenizer(folder).bos_id == 0


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        FileTokenizer(tmp_path)
    folder = copied(tmp_path / "t")
    (folder / "special_tokens_map.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no bos_token"):
        FileTokenizer(folder)
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<bos>"}')
    with pytest.raises(ValueError, match="bos_token '<bos>'"):
        FileTokenizer(folder)
