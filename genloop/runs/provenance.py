"""How `generate` made an image, as its PNG says it: a text chunk that stays with the image wherever it goes. No torch.

The regime is what decided all images of a run: sampling, strategy, judge, weights, seed.
"""

import io
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genloop.data.images import decoding_errors, open_image
from genloop.data.members import is_member, read_any
from genloop.reading import parse_json
from genloop.runs.rows import GeneratedRow

UPPER_BOUND = "searched with the evaluator: an upper bound"  # said wherever such a score is shown
_ORACLES = {"shapes_oracle": "shapes"}  # judges that stand for a detector under GenEval's rules
CHUNK = "genloop"  # keyword of the text chunk
SCHEMA = 1
_GENERATOR = re.compile(r"^generator\.options\.")  # images call these keys model.*, as when there was one generator
_OWN = ("prompt", "rewritten_prompt", "prompt_index", "sample")  # what a chunk says about its image alone


def regime_of(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """How a run of `generate` makes images, from its fingerprint: nothing about places, cuts into units or limits."""
    keys, inputs = fingerprint.get("keys", {}), fingerprint.get("inputs", {})
    sampling = keys_below(keys, "sampling.")
    weights = {_GENERATOR.sub("model.", key): digest for key, digest in inputs.items()}
    regime: dict[str, Any] = {
        "by": "genloop generate",
        "steps": sampling.pop("steps", None),
        "guidance": sampling.pop("guidance_scale", None),
        "sampling": sampling,
        "strategy": keys.get("search.strategy"),
        "n": keys.get("search.n"),
        "search": keys_below(keys, "search.options."),
        "seed": keys.get("seed"),
        "dtype": keys.get("generator.options.dtype", keys.get("model.dtype")),
        "weights": {key: digest for key, digest in weights.items() if key.startswith(("model.", "judge."))},
    }
    if "generator.options.tokenizer_dtype" in keys:
        regime["tokenizer_dtype"] = keys["generator.options.tokenizer_dtype"]
    if keys.get("text") not in (None, "prompt"):
        regime["text"] = keys["text"]
    if mode := keys_below(keys, "mode."):
        regime["mode"] = mode | {key: digest for key, digest in inputs.items() if key.startswith("mode.")}
    if keys.get("search.strategy") not in (None, "none"):
        regime["judge"] = keys_below(keys, "judge.")
    return regime


def is_upper_bound(card: Mapping[str, Any] | None) -> bool:
    """Whether a search chose the images of a card by the detector that then judged them."""
    making, detector = (card or {}).get("images") or {}, ((card or {}).get("detector") or {}).get("kind")
    judges = [making.get("judge"), *(making.get("mixed") or {}).get("judge", ())]
    return any(detector in _detectors(judge) for judge in judges if isinstance(judge, Mapping))


def _detectors(judge: Mapping[str, Any]) -> set[Any]:
    """The detectors that a judge goes by, alone or as a member of several; its keys are dotted."""
    kinds = {value for key, value in judge.items() if key.rpartition(".")[2] == "kind" and isinstance(value, str)}
    by = {value for key, value in judge.items() if key.endswith("options.detector.kind")}
    return by | {_ORACLES[kind] for kind in kinds if kind in _ORACLES}


def image_chunk(regime: Mapping[str, Any], row: GeneratedRow) -> str:
    """The text that goes into the PNG of a row of `generate`: its prompt, and how it was made."""
    own = {key: getattr(row, key) for key in _OWN if key in row.model_fields_set}
    return json.dumps({"schema": SCHEMA, **own, **regime}, separators=(",", ":"))


def read_chunk(path: Path) -> dict[str, Any] | None:
    """How an image says that it was made, without what it says about itself alone; None when it says nothing."""
    try:
        with open_image(io.BytesIO(read_any(path)) if is_member(path) else path) as image:
            info = dict(image.info)
    except decoding_errors():
        return None  # counted as unreadable where it is judged
    with suppress(ValueError, TypeError):
        found = parse_json(info[CHUNK]) if CHUNK in info else None
        if isinstance(found, dict):
            json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # JSON must be able to say it again
            return {key: value for key, value in found.items() if key not in (*_OWN, "schema")}
    return _from_parameters(info.get("parameters"))


def _from_parameters(text: object) -> dict[str, Any] | None:
    """The line "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, ..." that some tools end a PNG's text with."""
    line = text.strip().rpartition("\n")[2] if isinstance(text, str) else ""
    fields = dict(part.split(": ", 1) for part in line.split(", ") if ": " in part)
    if "Steps" not in fields:
        return None
    names = {"steps": "Steps", "guidance": "CFG scale", "sampler": "Sampler", "model": "Model", "seed": "Seed"}
    return {"by": "PNG parameters"} | {key: _plain(fields[name]) for key, name in names.items() if name in fields}


def _plain(text: str) -> int | float | str:
    """A number where the text is one."""
    for kind in (int, float):
        with suppress(ValueError):
            value = kind(text)
            return value if math.isfinite(value) else text
    return text


def keys_below(keys: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The keys that begin with `prefix`, without it."""
    return {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}
