"""The tokenizer of a judge's folder: pieces of chats, the words yes and no."""

import json
from pathlib import Path

import pytest

from genloop.models.llava.text import LlavaTokenizer
from tests.worlds.tiny_llava import CHAT, word_tokenizer


def folder_of_words(folder: Path, *words: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in word_tokenizer(words).items():
        (folder / name).write_bytes(content)
    return folder


def folder_of_pairs(folder: Path) -> Path:
    """vocab.json and merges.txt as Qwen2's slow tokenizer has them: bytes, and what `yes` and `no` are merged from."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True)
    merges = [("e", "s"), ("y", "es"), ("n", "o")]
    words = [*sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges))
    special = {"special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    added = {str(len(words) + index): {"content": word, **special} for index, word in enumerate(CHAT)}
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": CHAT[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_words_and_chat_tokens_have_their_ids(tmp_path: Path) -> None:
    tokenizer = LlavaTokenizer(folder_of_words(tmp_path, "yes", "no", "red"))
    assert tokenizer.encode("<|im_start|>red nothing yes<|im_end|>") == [1, 6, 0, 4, 2]
    assert (tokenizer.word_id("yes"), tokenizer.word_id("no"), tokenizer.num_tokens) == (4, 5, 7)
    assert tokenizer.decode([1, 6, 4, 2]) == "red yes"
    assert tokenizer.encode("") == []


def test_its_files_are_enough_to_read_it_again(tmp_path: Path) -> None:
    tokenizer = LlavaTokenizer(folder_of_words(tmp_path / "a", "yes", "no"))
    (tmp_path / "b").mkdir()
    for name, content in tokenizer.files().items():
        (tmp_path / "b" / name).write_bytes(content)
    assert LlavaTokenizer(tmp_path / "b").encode("no yes") == tokenizer.encode("no yes")


@pytest.mark.parametrize(("words", "gives"), [((), r"\[0\]"), (("ye", "s"), r"\[0\]")])
def test_a_word_that_is_no_token_is_refused(words: tuple[str, ...], gives: str, tmp_path: Path) -> None:
    tokenizer = LlavaTokenizer(folder_of_words(tmp_path, *words))
    with pytest.raises(ValueError, match=rf"'yes' \(it gives {gives}\)") as caught:
        tokenizer.word_id("yes")
    assert "\n" not in str(caught.value)


def test_the_older_files_of_qwen_are_read_too(tmp_path: Path) -> None:
    tokenizer = LlavaTokenizer(folder_of_pairs(tmp_path / "older"))
    yes, start = tokenizer.word_id("yes"), tokenizer.word_id("<|im_start|>")
    assert tokenizer.encode("<|im_start|>yes") == [start, yes]
    assert tokenizer.decode(tokenizer.encode("<|im_start|>user\nno yes<|im_end|>")) == "user\nno yes"
    assert max(start, yes) < tokenizer.num_tokens
    with pytest.raises(ValueError, match=r"no single token 'maybe'"):
        tokenizer.word_id("maybe")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        LlavaTokenizer(tmp_path)


def test_a_torn_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="file of the tokenizers"):
        LlavaTokenizer(tmp_path)
    older = folder_of_pairs(tmp_path / "older")
    (older / "vocab.json").write_text("[")
    with pytest.raises(ValueError, match=r"vocab\.json: not a file") as caught:
        LlavaTokenizer(older)
    assert "\n" not in str(caught.value)
