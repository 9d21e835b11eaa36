"""The tokenizer of a new chat model: byte-level BPE in the ChatML format, numbers digit by digit, trained on its texts.

With `vocab_size` = `SMALLEST` there are no merges: one token a byte. The same texts give the same bytes.
"""

import json
from collections.abc import Iterable

from genloop.registry import require

IMAGE = "<|image_pad|>"
SPECIALS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *(IMAGE, "<|video_pad|>"),
)
SMALLEST = 256 + len(SPECIALS)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_files(texts: Iterable[str], vocab_size: int = SMALLEST) -> dict[str, bytes]:
    """{name: content} of a folder's tokenizer.json and tokenizer_config.json, chat template included."""
    library = require("tokenizers")
    before, after = library.pre_tokenizers, library.decoders
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = before.Sequence([before.Digits(individual_digits=True), before.ByteLevel(False)])
    tokenizer.decoder = after.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(before.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    return {
        "tokenizer.json": f"{tokenizer.to_str(pretty=False)}\n".encode(),
        "tokenizer_config.json": f"{json.dumps(config, indent=1)}\n".encode(),
    }
