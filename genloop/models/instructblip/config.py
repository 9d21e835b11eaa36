"""What a folder of InstructBLIP holds beside config.json and weights, as transformers publishes it. No torch.

tokenizer.json, tokenizer_config.json    of Vicuna or Flan-T5
qformer_tokenizer/                       of the Q-Former, BERT's
preprocessor_config.json                 sizes, mean and deviation of images
processor_config.json                    num_query_tokens
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genloop.reading import read_object_or_empty
from genloop.registry import did_you_mean

LANGUAGES = ("llama", "t5")  # text_config.model_type: decoder only; encoder and decoder
QUESTIONS = "qformer_tokenizer"
FILES = (
    *("tokenizer.model", "spiece.model", f"{QUESTIONS}/tokenizer.json", f"{QUESTIONS}/tokenizer_config.json"),
    *(f"{QUESTIONS}/special_tokens_map.json", f"{QUESTIONS}/vocab.txt", f"{QUESTIONS}/added_tokens.json"),
)
_PARTS = ("text_config", "vision_config", "qformer_config")


def check_instructblip(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json -> the same with the id that stands for image features; ValueError or FileNotFoundError in one line.

    Older files name no image token. Its id needs no embedding here, so one behind the vocabulary serves.
    """
    for part in _PARTS:
        if not isinstance(config.get(part), dict):
            raise ValueError(f"{folder}/config.json: {part} is missing; use the files as published")
    language = config["text_config"].get("model_type")
    if language not in LANGUAGES:
        hint = did_you_mean(str(language), LANGUAGES)
        raise ValueError(
            f"{folder}/config.json: text_config.model_type {language!r}{hint}: is none of {', '.join(LANGUAGES)}"
        )
    for name in ("tokenizer_config.json", "preprocessor_config.json", f"{QUESTIONS}/tokenizer_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no {folder / name}; copy all files of the published folder")
    wanted, found = config.get("num_query_tokens", 32), read_object_or_empty(folder / "processor_config.json")
    if found.get("num_query_tokens") not in (None, wanted):
        raise ValueError(
            f"{folder}/processor_config.json: num_query_tokens={found['num_query_tokens']}, config.json has {wanted}"
        )
    token = next((config[key] for key in ("image_token_index", "image_token_id") if config.get(key) is not None), None)
    return {**config, "image_token_index": config["text_config"].get("vocab_size", 32000) if token is None else token}
