"""The text tokenizer of the embedded world: one token a word, in the file format of the `tokenizers` library.

The vocabulary is every word that the prompt sets use. `<|endoftext|>` begins, ends, and stands for unknown words, as
its one token does all three in Phi's tokenizer.
"""

import json
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
    special = {"id": 0, "content": END, "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special | flags],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: index for index, word in enumerate(vocabulary())},
            "unk_token": END,
        },
    }
    names = {"bos_token": END, "eos_token": END, "unk_token": END}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, **names}
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        write_atomic(folder / name, (json.dumps(content, indent=1) + "\n").encode())
