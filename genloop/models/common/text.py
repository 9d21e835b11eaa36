"""The text tokenizer of a checkpoint folder: a `tokenizers` file with its begin and end tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from genloop.reading import read_bytes, read_json_object
from genloop.registry import require


class TextTokenizer(Protocol):
    """Text <-> ids below the language model's vocabulary size."""

    bos_id: int
    eos_id: int
    num_tokens: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class FileTokenizer:
    """A folder with tokenizer.json and tokenizer_config.json (or special_tokens_map.json), as the hub stores them."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"no text tokenizer {path}; put the language model's tokenizer files there")
        self.folder = folder
        self._tokenizer = _read(path)
        self.num_tokens: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.bos_id = self._special("bos_token")
        self.eos_id = self._special("eos_token")

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def files(self) -> dict[str, bytes]:
        """{name: content} of the folder's files."""
        return {path.name: read_bytes(path) for path in sorted(self.folder.iterdir()) if path.is_file()}

    def _special(self, name: str) -> int:
        for source in ("tokenizer_config.json", "special_tokens_map.json"):
            if not (self.folder / source).is_file():
                continue
            token: Any = read_json_object(self.folder / source).get(name)
            text = token.get("content") if isinstance(token, dict) else token
            if text is None:
                continue
            index = self._tokenizer.token_to_id(text) if isinstance(text, str) else None
            if index is None:
                raise ValueError(f"{self.folder / source}: {name} {text!r} is not in the vocabulary")
            return int(index)
        raise ValueError(f"{self.folder}: no {name} in tokenizer_config.json or special_tokens_map.json")


def with_bos(tokenizer: TextTokenizer, text: str) -> list[int]:
    """The ids of a text with exactly one bos in front."""
    ids = tokenizer.encode(text)
    return ids if ids and ids[0] == tokenizer.bos_id else [tokenizer.bos_id, *ids]


def check_text_tokenizer(tokenizer: TextTokenizer, llm_vocab_size: int, where: object) -> None:
    """ValueError unless every token has its row in the checkpoint at `where`."""
    if tokenizer.num_tokens > llm_vocab_size:
        raise ValueError(
            f"{where}: the text tokenizer has {tokenizer.num_tokens} tokens, config.json has room for {llm_vocab_size}"
        )


def _read(path: Path) -> Any:
    tokenizers = require("tokenizers")
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path}: not a file of the tokenizers library ({error}); download it again") from error
