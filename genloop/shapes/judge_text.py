"""The text tokenizer of a judge of the embedded world: one token a word, for questions, answers and reasons too."""

import re
from collections.abc import Iterable

from genloop.data.prompts import NUMBERS
from genloop.shapes.text import END, vocabulary, word_level_files

IMAGE_TOKEN = "<image>"
SPECIALS = (END, "<|im_start|>", "<|im_end|>", IMAGE_TOKEN)
_ANSWERS = ("yes", "no", "not", "many", "background", "other", *NUMBERS)  # answers, reasons, cells without an object


def judge_tokenizer_files(texts: Iterable[str]) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json for the world's sentences and these texts (questions, chat)."""
    return word_level_files(judge_vocabulary(texts), specials=SPECIALS)


def judge_vocabulary(texts: Iterable[str]) -> tuple[str, ...]:
    """Special tokens first, then every word in alphabetical order."""
    words = {*vocabulary(), *_ANSWERS} - set(SPECIALS)
    for text in texts:
        for special in (*SPECIALS, "{prompt}"):
            text = text.replace(special, " ")
        words |= set(re.findall(r"\w+|[^\w\s]+", text.lower()))  # as the tokenizer splits
    return *SPECIALS, *sorted(words)
