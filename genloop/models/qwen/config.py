"""What a folder of a chat model holds, before anything is loaded: its family, tokenizer and chat template. No torch.

Most families have a language model of Qwen2's kind, three of them with the features of images between the tokens;
InstructBLIP has Vicuna or Flan-T5 and no chat template.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.checkpoint import find_weights, read_shapes
from genloop.models.instructblip.config import check_instructblip
from genloop.models.llava.text import LlavaTokenizer
from genloop.reading import read_json_object, read_object_or_empty, read_utf8
from genloop.registry import did_you_mean

CLASSES = {  # model_type of config.json -> class of transformers
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "llava_onevision": "LlavaOnevisionForConditionalGeneration",
    "instructblip": "InstructBlipForConditionalGeneration",
}
SYSTEM = "You are a careful assistant for image generation. You quote measured numbers exactly."
_TEMPLATES = ("tokenizer_config.json", "chat_template.json")  # of the tokenizer, of the processor
_INT8 = "Int8WeightOnlyConfig"
_IMAGE_TOKENS = ("image_token_id", "image_token_index")


@dataclass(frozen=True, eq=False)
class ChatFolder:
    """A checked folder: config.json, the chat template and the texts of the special tokens that it may name."""

    folder: Path
    config: Mapping[str, Any]
    template: str
    specials: Mapping[str, str]

    @property
    def family(self) -> str:
        """The model_type of config.json, a key of `CLASSES`."""
        return str(self.config["model_type"])

    @property
    def sees(self) -> bool:
        """Whether the model takes images."""
        return self.family != "qwen2"

    @property
    def quantised(self) -> str:
        """How the weights are held: none, int8 or nf4."""
        return quantisation_of(self.config, self.folder)

    @property
    def has_encoder(self) -> bool:
        """Whether an encoder reads the question and a decoder writes the answer."""
        return self.family == "instructblip" and self.config["text_config"].get("model_type") == "t5"

    @property
    def image_token(self) -> int:
        """The id that stands for the features of an image; -1 for models of text."""
        return next((int(self.config[key]) for key in _IMAGE_TOKENS if self.sees and key in self.config), -1)


def check_chat_folder(folder: Path) -> ChatFolder:
    """A folder with config.json, weights, tokenizer and, but for InstructBLIP, chat template.

    FileNotFoundError or ValueError in one line: what is missing, another family, a torn file of weights.
    """
    config = read_json_object(folder / "config.json")
    if config.get("model_type") not in CLASSES:
        found = config.get("model_type")
        hint = did_you_mean(str(found), CLASSES)
        raise ValueError(f"{folder}/config.json: model_type {found!r} is no chat model{hint} ({', '.join(CLASSES)})")
    quantisation_of(config, folder)
    read_shapes(folder)
    if not find_weights(folder).is_safetensors:
        raise ValueError(f"{folder}: holds weights as .bin files; use safetensors")
    if config["model_type"] == "instructblip":
        return ChatFolder(folder, check_instructblip(folder, config), "", {})
    return read_chat(folder, config)


def quantisation_of(config: Mapping[str, Any], folder: Path) -> str:
    """none, int8 (torchao) or nf4 (bitsandbytes) by config.json; ValueError for any other way."""
    found = config.get("quantization_config")
    if not found:
        return "none"
    if isinstance(found, dict) and found.get("quant_method") == "bitsandbytes":
        if found.get("load_in_4bit") and found.get("bnb_4bit_quant_type") == "nf4":
            return "nf4"
    elif isinstance(found, dict) and found.get("quant_method") == "torchao" and _INT8 in str(found.get("quant_type")):
        return "int8"
    raise ValueError(
        f"{folder}/config.json: quantization_config: only nf4 by bitsandbytes and int8 by torchao are read; "
        "name the original weights"
    )


def read_chat(folder: Path, config: Mapping[str, Any]) -> ChatFolder:
    """The chat template and special tokens of a tokenizer's folder; ValueError without a template."""
    LlavaTokenizer(folder)
    files = [read_object_or_empty(folder / name) for name in _TEMPLATES]
    alone = folder / "chat_template.jinja"
    found = (
        read_utf8(alone) if alone.is_file() else next((f["chat_template"] for f in files if "chat_template" in f), None)
    )
    if isinstance(found, list):  # several by name
        found = next((one.get("template") for one in found if one.get("name") == "default"), None)
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{folder}/tokenizer_config.json: chat_template is missing; use an instruction-tuned model")
    named = {key: value for key, value in files[0].items() if key.endswith("_token")}
    specials = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return ChatFolder(folder, config, found, {key: text for key, text in specials.items() if isinstance(text, str)})
