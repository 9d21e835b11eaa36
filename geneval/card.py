"""The card of a result: everything that decided it, so that two scores can be told apart. No torch.

A score says little without how its images were made and judged. How they were made stands in the images themselves
(`genloop.runs.provenance`); `evaluate` writes a card with all of it beside its rows.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from geneval.folder import Sample
from genloop.reading import parse_json, read_json_object
from genloop.rundir import RunFailed, read_run
from genloop.runs.generated import generate_fingerprint
from genloop.runs.provenance import SCHEMA, UPPER_BOUND, is_upper_bound, keys_below, read_chunk, regime_of
from genloop.runs.rows import EvaluatedRow

_PARTS = ("detector", "colors")
_LISTED = 20  # values of what is not the same for all images
_SEEN = frozenset({"source", "sha256", "num_images", "samples_per_prompt", "size"}) | frozenset(
    {"prompts", "num_prompts", "rewritten", "mixed", "seeds"}
)  # what the card says by itself, whatever a chunk says


def result_card(
    run: Path,
    images: Path,
    samples: Sequence[Sample],
    rows: Sequence[EvaluatedRow],
    facts: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, Any]:
    """The card of a finished evaluation `run` of `images`; the same for everyone who computes it.

    `facts`: of detector and colours, what their weights decide (`geneval.settings.evaluator_facts`).
    """
    known = read_run(run) or {}
    keys, inputs = known.get("keys", {}), known.get("inputs", {})
    return {
        "schema": SCHEMA,
        **{name: _part(name, keys, inputs, facts.get(name, {})) for name in _PARTS},
        "options": keys_below(keys, "options."),
        "code": _code(run),
        "canary": _canary(run),
        "images": {**_prompts(samples), **_images(images, samples, rows, inputs.get("images", ""))},
    }


def remarks(card: Mapping[str, Any]) -> list[str]:
    """What a reader of the score must know of how its images were made, a line each."""
    images = card["images"]
    lines = ["images were made from rewritten prompts: not comparable with those of the prompts themselves"]
    lines = lines if images["rewritten"] else []
    lines += [f"images were {UPPER_BOUND}"] if is_upper_bound(card) else []
    if mixed := sorted(images.get("mixed", {})):
        lines.append(f"images were not all made in one way: they differ in {', '.join(mixed)}")
    if len(images["size"]) > 1:
        lines.append(f"images have {len(images['size'])} different sizes")
    return lines


def _part(name: str, keys: Mapping[str, Any], inputs: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """A detector or colour classifier: its kind, its options, the sha256 of what it was loaded from.

    A fact of an option's name is the value of an option that is null; what else is known stands under `facts`.
    """
    options = keys_below(keys, f"{name}.options.")
    others = {key: value for key, value in facts.items() if key not in options}
    return {
        "kind": keys.get(f"{name}.kind"),
        "options": {key: facts.get(key) if value is None else value for key, value in options.items()},
        "weights": keys_below(inputs, f"{name}.options."),
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
        return read_json_object(path) if path.is_file() else {}
    except ValueError as error:
        raise RunFailed(f"{error}; remove it and run the same command again") from None


def _prompts(samples: Sequence[Sample]) -> dict[str, Any]:
    """The prompts of the images; `prompts` is the sha256 of a metadata file with these lines in this order."""
    lines = {sample.prompt.index: sample.metadata for sample in samples}
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines.values()).encode()).hexdigest()
    rewritten = any(sample.rewritten is not None for sample in samples)
    return {"prompts": digest, "num_prompts": len(lines), "rewritten": rewritten}


def _images(images: Path, samples: Sequence[Sample], rows: Sequence[EvaluatedRow], digest: str) -> dict[str, Any]:
    """Where the images came from: what they say themselves, else the run of generate they lie in."""
    per_prompt = Counter(sample.prompt.index for sample in samples).values()
    sizes = Counter(row.size for row in rows if row.size)
    found = [read_chunk(images / sample.image) for sample in samples]
    made = [{key: regime[key] for key in regime if key not in _SEEN} for regime in found if regime is not None]
    source = "the images' own metadata" if len(made) == len(samples) else "unknown"
    around = generate_fingerprint(images) if source == "unknown" else None
    if around is not None:
        made, source = [regime_of(around)], "the run of generate around them"
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
        values = [parse_json(text) for text in texts[:_LISTED]]
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
    value = parse_json(text)
    return (value if isinstance(value, int | float) else math.inf, text)
