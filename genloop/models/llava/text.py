"""The text tokenizer of a LLaVA-OneVision folder: tokenizer.json, or the older vocab.json and merges.txt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genloop.reading import read_bytes
from genloop.registry import require

_NAMES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OLDER = ("vocab.json", "merges.txt")


class LlavaTokenizer:
    """Text <-> ids. Nothing is put in front or behind, as chats are cut into pieces around their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tokenizer = _read(folder)
        self.num_tokens: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        added = self._tokenizer.get_added_tokens_decoder().values()
        self.specials: tuple[str, ...] = tuple(token.content for token in added if token.special)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def decode_all(self, ids: Sequence[int]) -> str:
        """Special tokens too."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def unknown(self, text: str) -> list[str]:
        """The words of a text that it has no token for; tokenizers of bytes know all."""
        stands_in = getattr(self._tokenizer.model, "unk_token", None)
        number = None if stands_in is None else self._tokenizer.token_to_id(stands_in)
        if number is None:
            return []
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return [text[start:end] for id_, (start, end) in zip(encoding.ids, encoding.offsets) if id_ == number]

    def word_id(self, word: str) -> int:
        """The id of a word that is a token of its own; ValueError when it is none."""
        ids = self.encode(word)
        if len(ids) != 1 or ids[0] != self._tokenizer.token_to_id(word):
            raise ValueError(
                f"{self.folder}: the tokenizer has no single token {word!r} (it gives {ids}); "
                "a judge needs 'yes' and 'no': use a tokenizer that knows them"
            )
        return ids[0]

    def files(self) -> dict[str, bytes]:
        """{name: content} of its files, to be saved beside the weights."""
        paths = [self.folder / name for name in (*_NAMES, *_OLDER)]
        return {path.name: read_bytes(path) for path in paths if path.is_file()}


def _read(folder: Path) -> Any:
    path = folder / "tokenizer.json"
    is_new = path.is_file()
    if not is_new and not all((folder / name).is_file() for name in _OLDER):
        raise FileNotFoundError(f"no text tokenizer in {folder}; put the checkpoint's tokenizer.json there")
    library = require("tokenizers" if is_new else "transformers")
    try:
        if is_new:
            return library.Tokenizer.from_file(str(path))
        return library.Qwen2TokenizerFast.from_pretrained(str(folder), local_files_only=True).backend_tokenizer
    except Exception as error:  # the library raises nothing narrower
        where, said = path if is_new else folder / _OLDER[0], " ".join(str(error).split())
        raise ValueError(f"{where}: not a file of the tokenizers library ({said}); download it again") from error
