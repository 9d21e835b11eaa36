"""The text tokenizer of the embedded world: one token a word, in the file format of the `tokenizers` library.

The vocabulary is every word that the prompt sets use. `<|endoftext|>` begins, ends, and stands for unknown words, as
its one token does all three in Phi's tokenizer.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from genloop.records import TAGS
from genloop.rundir import write_atomic
from genloop.shapes.prompts import SETS, pool

END = "<|endoftext|>"


@cache
def vocabulary() -> tuple[str, ...]:
    """The end token, then every word in alphabetical order."""
    words = {word for name in SETS for tag in TAGS for prompt in pool(name, tag) for word in prompt.text.split()}
    return END, *sorted(words)


def write_text_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in word_level_files(vocabulary(), specials=(END,)).items():
        write_atomic(folder / name, content)


def word_level_files(words: Sequence[str], *, specials: Sequence[str]) -> dict[str, bytes]:
    """The files of a tokenizer with these words, the special tokens first; the first of them stands for all others."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": index, "content": token, "special": True} | flags for index, token in enumerate(specials)]
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: index for index, word in enumerate(words)},
            "unk_token": specials[0],
        },
    }
    names = {"bos_token": specials[0], "eos_token": specials[0], "unk_token": specials[0]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, **names}
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": config}
    return {name: (json.dumps(content, indent=1) + "\n").encode() for name, content in files.items()}
