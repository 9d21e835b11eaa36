"""Small InstructBLIPs in folders as transformers publishes them, with Vicuna's and with Flan-T5's language model."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from genloop.models.qwen.load import build_chat_model, save_chat_model
from tests.worlds.tiny_qwen import write_chats

_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.02,
}
_QFORMER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "cross_attention_frequency": 2,
    "encoder_hidden_size": 16,
    "hidden_dropout_prob": 0.0,  # dropout is keyed by the pass: with it losses depend on the number of ranks
    "attention_probs_dropout_prob": 0.0,
}
LANGUAGES: dict[str, dict[str, Any]] = {
    "vicuna": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "flan_t5": {
        "model_type": "t5",
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    },
}
_IMAGES = {
    "image_processor_type": "BlipImageProcessor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
LETTERS = " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!'-()[]"


def instructblip_folder(
    folder: Path,
    language: str = "vicuna",
    *,
    words: Iterable[str] = (),
    seed: int = 0,
    vision: Mapping[str, Any] = MappingProxyType({}),
    qformer: Mapping[str, Any] = MappingProxyType({}),
    text: Mapping[str, Any] = MappingProxyType({}),
    side: int = 32,
    change: Callable[[Any], None] = lambda model: None,
) -> Path:
    """Write a folder with fresh weights, which `change` may alter; `words` are tokens beside the letters."""
    files, num_tokens, num_read = tokenizer_files(language, words, side)
    config = {
        "model_type": "instructblip",
        "vision_config": _VISION | dict(vision),
        "qformer_config": _QFORMER | {"vocab_size": num_read} | dict(qformer),
        "text_config": LANGUAGES[language] | {"vocab_size": num_tokens} | dict(text),
        "num_query_tokens": 4,
        "image_token_index": num_tokens - 1,
    }
    model = build_chat_model(config, seed=seed)
    change(model)
    save_chat_model(model, folder, files)
    return folder


@torch.no_grad()
def scale_by_fan_in(model: Any, *, seed: int) -> None:
    """Draw matrices again at the scale at which models of this width learn: std 1 / sqrt(fan-in), embeddings 0.4."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        is_table = ("embed" in name and "patch" not in name) or name == "query_tokens"
        std = 0.4 if is_table else parameter[0].numel() ** -0.5
        std *= 0.1 if name.endswith("lm_head.weight") else 1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def write_rounds(folder: Path, *, count: int = 6) -> Path:
    """rounds.jsonl about small drawn images, one question and one answer each; the same bytes every time."""
    lines = []
    for line in write_chats(folder, count=count).read_text().splitlines():
        lines.append(json.dumps({"messages": json.loads(line)["messages"][:2]}))
    (folder / "rounds.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "rounds.jsonl"


def tokenizer_files(language: str, words: Iterable[str] = (), side: int = 32) -> tuple[dict[str, bytes], int, int]:
    """-> {name: content} of both tokenizers and the processor, and how many tokens both have."""
    import tempfile

    from transformers import BertTokenizer, LlamaTokenizer, T5Tokenizer

    listed = list(dict.fromkeys(words))
    if language == "vicuna":
        vocab, merges = _byte_pairs(listed)
        tokenizer: Any = LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True)
        tokenizer.pad_token = "<unk>"
    else:
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
        pieces += [(letter, -8.0) for letter in LETTERS.strip()] + [(f"▁{word}", -4.0) for word in listed]
        tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    read = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(w.lower() for w in listed)]
    letters = [letter for letter in LETTERS.lower() if letter.strip()]
    read = list(dict.fromkeys([*read, *letters, *(f"##{letter}" for letter in letters)]))
    questions = BertTokenizer(vocab={token: number for number, token in enumerate(read)})
    files = {
        "preprocessor_config.json": _json(_IMAGES | {"size": {"height": side, "width": side}}),
        "processor_config.json": _json({"num_query_tokens": 4}),
    }
    with tempfile.TemporaryDirectory() as place:
        for name, saved in (("", tokenizer), ("qformer_tokenizer/", questions)):
            saved.save_pretrained(f"{place}/{name}")
            for file in ("tokenizer.json", "tokenizer_config.json"):
                files[f"{name}{file}"] = (Path(place) / name / file).read_bytes()
    return files, len(tokenizer), len(questions)


def _byte_pairs(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary of bytes, letters and words, and the merges that put the words together."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    tokens += ["▁", *LETTERS.strip()]
    merges = []
    for word in words:
        found = "▁"
        for letter in word:
            merges.append((found, letter))
            found += letter
            tokens.append(found)
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, list(dict.fromkeys(merges))


def _json(value: Any) -> bytes:
    return f"{json.dumps(value, indent=1)}\n".encode()
