"""The regime of a result: everything that decided it, so that two scores can be told apart. No torch.

A score says little without how its images were made and judged. `genloop run generate` writes its part into every PNG
(a text chunk `genloop`), so that it stays with the images wherever they go; `evaluate` puts all of it on the card that
lies beside its rows.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from geneval.folder import Sample
from genloop.checkpoint import read_json
from genloop.data.images import decoding_errors
from genloop.rundir import RunFailed, read_run
from genloop.runs.folder import generate_mark

CHUNK = "genloop"  # keyword of the text chunk
SCHEMA = 1
_PARTS = ("detector", "colors")
_GENERATOR = re.compile(r"^generator\.options\.")  # images call these keys model.*, as when there was one generator
_LISTED = 20  # values of what is not the same for all images
_OWN = ("prompt", "rewritten_prompt", "prompt_index", "sample")  # what an image's chunk says of that image alone
_SEEN = frozenset({"source", "sha256", "num_images", "samples_per_prompt", "size"}) | frozenset(
    {"prompts", "num_prompts", "rewritten", "mixed", "seeds"}
)  # what the card says by itself, whatever a chunk says


def regime_of(mark: Mapping[str, Any]) -> dict[str, Any]:
    """How a run of `generate` makes images, from its fingerprint: nothing about places, cuts into units or limits."""
    keys, inputs = mark.get("keys", {}), mark.get("inputs", {})
    sampling = _below(keys, "sampling.")
    weights = {_GENERATOR.sub("model.", key): digest for key, digest in inputs.items()}
    regime: dict[str, Any] = {
        "by": "genloop generate",
        "steps": sampling.pop("steps", None),
        "guidance": sampling.pop("guidance_scale", None),
        "sampling": sampling,
        "strategy": keys.get("search.strategy"),
        "n": keys.get("search.n"),
        "search": _below(keys, "search.options."),
        "seed": keys.get("seed"),
        "dtype": keys.get("generator.options.dtype", keys.get("model.dtype")),
        "weights": {key: digest for key, digest in weights.items() if key.startswith(("model.", "judge."))},
    }
    if keys.get("text") not in (None, "prompt"):
        regime["text"] = keys["text"]
    if keys.get("search.strategy") not in (None, "none"):
        regime["judge"] = _below(keys, "judge.")
    return regime


def image_chunk(regime: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """The text that goes into the PNG of a row of `generate`: its prompt, and how it was made."""
    return json.dumps(
        {"schema": SCHEMA, **{key: row[key] for key in _OWN if key in row}, **regime}, separators=(",", ":")
    )


def card(
    run: Path,
    images: Path,
    samples: Sequence[Sample],
    rows: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The regime card of a finished evaluation `run` of `images`; the same for everyone who computes it.

    `facts`: of detector and colours, what their weights decide (`geneval.settings.evaluator_facts`).
    """
    mark = read_run(run) or {}
    keys, inputs = mark.get("keys", {}), mark.get("inputs", {})
    return {
        "schema": SCHEMA,
        **{name: _part(name, keys, inputs, facts.get(name, {})) for name in _PARTS},
        "options": _below(keys, "options."),
        "code": _code(run),
        "canary": _canary(run),
        "images": {**_prompts(samples), **_images(images, samples, rows, inputs.get("images", ""))},
    }


def remarks(card: Mapping[str, Any]) -> list[str]:
    """What a reader of the score must know of how its images were made, a line each."""
    images = card["images"]
    lines = ["images were made from rewritten prompts: not comparable with those of the prompts themselves"]
    lines = lines if images["rewritten"] else []
    if mixed := sorted(images.get("mixed", {})):
        lines.append(f"images were not all made in one way: they differ in {', '.join(mixed)}")
    if len(images["size"]) > 1:
        lines.append(f"images have {len(images['size'])} different sizes")
    return lines


def _part(name: str, keys: Mapping[str, Any], inputs: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A detector or colour classifier: its kind, its options, the sha256 of what it was loaded from.

    A fact of an option's name is the value of an option that is null; what else is known stands under `facts`.
    """
    options = _below(keys, f"{name}.options.")
    others = {key: value for key, value in facts.items() if key not in options}
    return {
        "kind": keys.get(f"{name}.kind"),
        "options": {key: facts.get(key) if value is None else value for key, value in options.items()},
        "weights": _below(inputs, f"{name}.options."),
    } | ({"facts": others} if others else {})


def _code(run: Path) -> dict[str, Any]:
    """What the run was started with, as its env.json has it."""
    known = _note(run / "env.json")
    return {"genloop": known.get("genloop"), "git": known.get("git"), "digest": known.get("code")}


def _canary(run: Path) -> dict[str, Any]:
    known = _note(run / "canary.json")
    return {part: known.get(part, {}).get("outcome", "not run") for part in _PARTS}


def _note(path: Path) -> dict[str, Any]:
    """What a run has noted beside its rows; nothing where there is no such file."""
    try:
        return read_json(path) if path.is_file() else {}
    except ValueError as error:
        raise RunFailed(f"{error}; remove it and run the same command again") from None


def _prompts(samples: Sequence[Sample]) -> dict[str, Any]:
    """The prompts of the images; `prompts` is the sha256 of a metadata file with these lines in this order."""
    lines = {sample.prompt.index: sample.metadata for sample in samples}
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines.values()).encode()).hexdigest()
    rewritten = any(sample.rewritten is not None for sample in samples)
    return {"prompts": digest, "num_prompts": len(lines), "rewritten": rewritten}


def _images(images: Path, samples: Sequence[Sample], rows: Sequence[Mapping[str, Any]], digest: str) -> dict[str, Any]:
    """Where the images came from: what they say themselves, else the run of generate they lie in."""
    per_prompt = Counter(sample.prompt.index for sample in samples).values()
    sizes = Counter(tuple(row["size"]) for row in rows if row.get("size"))
    made = [regime for sample in samples if (regime := read_chunk(images / sample.image)) is not None]
    source = "the images' own metadata" if len(made) == len(samples) else "unknown"
    around = _generate_around(images) if source == "unknown" else None
    if around is not None:
        made, source = [around], "the run of generate around them"
    elif made and source == "unknown":
        source = f"the own metadata of {len(made)} of {len(samples)} images"
    return {
        "source": source,
        "sha256": digest,
        "num_images": len(samples),
        "samples_per_prompt": sorted(set(per_prompt)),
        "size": [list(size) for size in sorted(sizes)],
        **_agreed(made),
    }


def read_chunk(path: Path) -> dict[str, Any] | None:
    """How an image says that it was made, less what it says of itself alone; None when it says nothing."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            info = dict(image.info)
    except decoding_errors():
        return None  # counted as unreadable where it is judged
    with suppress(ValueError, TypeError, RecursionError):
        found = json.loads(info[CHUNK]) if CHUNK in info else None
        if isinstance(found, dict):
            json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # what the card could not hold is no regime
            return {key: value for key, value in found.items() if key not in (*_OWN, *_SEEN, "schema")}
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


def _agreed(made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all images have in common, and under `mixed` what they do not: {key: up to 20 values}.

    `seeds` are a list; of more than 20 how many, the first ones and the sha256 of all.
    """
    if not made:
        return {}
    found: dict[str, Any] = {}
    mixed: dict[str, Any] = {}
    for key in dict.fromkeys(key for regime in made for key in regime):
        texts = sorted({json.dumps(regime.get(key), sort_keys=True) for regime in made}, key=_by_value)
        values = [json.loads(text) for text in texts[:_LISTED]]
        if key == "seed":
            digest = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
            more = {"count": len(texts), "first": values, "sha256": digest}
            found["seeds"] = values if len(texts) <= _LISTED else more
        elif len(texts) == 1:
            found[key] = values[0]
        else:
            mixed[key] = values
    return found | ({"mixed": mixed} if mixed else {})


def _by_value(text: str) -> tuple[float, str]:
    """Numbers before all else, by what they are."""
    value = json.loads(text)
    return (value if isinstance(value, int | float) else math.inf, text)


def _generate_around(images: Path) -> dict[str, Any] | None:
    """The regime of the run of `generate` that a folder of images lies in; None when it lies in none."""
    mark = generate_mark(images)
    return None if mark is None else regime_of(mark)


def _below(keys: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in keys.items() if key.startswith(prefix)}
