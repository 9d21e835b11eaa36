"""A preference pair: two images of one prompt as codes of an image tokenizer, the better one first. n = image tokens.

Fields of a sample: `txt` what the generator reads, `chosen.npy` and `rejected.npy` (n,) codes, and where known
`kept.npy` (n,) 0 or 1, the tokens that both sides share because they were fixed before the image was reopened, and
`chosen_steps.npy` and `rejected_steps.npy` (n,), the decoding step, from 0, that fixed each token. `json` is an object
with "schema", "num_codes" and "tokenizer" (sha256 of its folder), "kind" (plain, localised), "signal" (what decided:
judge, verdict, both, given), "scores" and "verdicts" of chosen and rejected (verdicts null where nobody looked),
"tag", "metadata" (GenEval's, or {"prompt": text}), "prompt_index", "chosen_from" and "rejected_from" (which images of
the source) and "reopened_at" (the step from which a localised pair was drawn again, else null).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from genloop.data.arrays import CAPTION, read_caption, read_integers
from genloop.data.prompts import parse_metadata
from genloop.data.shards import Sample, npy_bytes
from genloop.reading import parse_json
from genloop.records import Prompt, pack_tokens, unpack_tokens

Kind = Literal["plain", "localised"]
SCHEMA = "genloop.pair/1"
CHOSEN, REJECTED = "chosen.npy", "rejected.npy"
NEEDED = (CAPTION, CHOSEN, REJECTED, "json")
_ARRAYS = ("chosen", "rejected", "kept", "chosen_steps", "rejected_steps")
_MOST_STEPS = 1 << 16  # as rows pack them


@dataclass(frozen=True, slots=True)
class CodeSpace:
    """Whose codes a pair holds: how many there are, and the sha256 of the image tokenizer's folder."""

    num_codes: int
    tokenizer: str


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two images of one prompt. Scores are finite, the first one higher."""

    key: str
    prompt: str  # what the generator reads
    chosen: np.ndarray  # (n,) int64 codes
    rejected: np.ndarray  # (n,) int64
    scores: tuple[float, float]  # of chosen and rejected
    tag: str | None = None
    kind: Kind = "plain"
    signal: str = "given"
    metadata: Mapping[str, Any] | None = None
    verdicts: tuple[bool, bool] | None = None
    kept: np.ndarray | None = None  # (n,) bool: fixed before the image was reopened, the same on both sides
    chosen_steps: np.ndarray | None = None  # (n,) int64
    rejected_steps: np.ndarray | None = None  # (n,) int64
    reopened_at: int | None = None
    prompt_index: int = 0
    chosen_from: str = ""
    rejected_from: str = ""

    @property
    def margin(self) -> float:
        """By how much the chosen image's score is higher."""
        return self.scores[0] - self.scores[1]

    def swapped(self) -> "Pair":
        """The same two images with the sides exchanged, for controls: the first score is the lower one then."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            scores=self.scores[::-1],
            verdicts=None if self.verdicts is None else self.verdicts[::-1],
            chosen_steps=self.rejected_steps,
            rejected_steps=self.chosen_steps,
            chosen_from=self.rejected_from,
            rejected_from=self.chosen_from,
        )

    @property
    def differs(self) -> np.ndarray:
        """(n,) bool: where the two sides hold other codes."""
        return self.chosen != self.rejected

    @property
    def text(self) -> str:
        """The sentence that judges see, by which sets are split and compared; the prompt unless it was rewritten."""
        return str((self.metadata or {}).get("prompt", self.prompt))


def prompt_of(pair: Pair) -> Prompt:
    """What the images of a pair were drawn for, with GenEval's metadata where the pair has them."""
    if pair.tag is None or "include" not in (pair.metadata or {}):
        return Prompt(pair.prompt_index, pair.text, detailed_caption=None if pair.text == pair.prompt else pair.prompt)
    found = parse_metadata(pair.metadata, pair.prompt_index, where=f"pair {pair.key}")
    return found if found.text == pair.prompt else replace(found, detailed_caption=pair.prompt)


def to_sample(pair: Pair, codebook: CodeSpace) -> Sample:
    """The pair as a sample of a shard; arrays as uint16, which 65,536 codes fit."""
    fields = {CAPTION: pair.prompt.encode(), "json": _encode(_facts(pair) | _of_codebook(codebook))}
    for name in _ARRAYS:
        array = getattr(pair, name)
        if array is not None:
            fields[f"{name}.npy"] = npy_bytes(array.astype(np.uint8 if name == "kept" else np.uint16))
    return Sample(pair.key, fields)


def from_sample(sample: Sample) -> tuple[Pair, CodeSpace]:
    """What a sample holds; ValueError names the sample and what is wrong with it."""
    if missing := [field for field in NEEDED if field not in sample.fields]:
        raise ValueError(f"{sample.name} lacks {' and '.join(missing)}, which a preference pair needs")
    try:
        row = parse_json(sample.fields["json"])
        codebook = CodeSpace(_whole(row, "num_codes"), str(row["tokenizer"]))
        facts = _parse(row)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        what = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else f"{error}"
        raise ValueError(f"{sample.name}: json is not that of a preference pair ({what})") from None
    arrays: dict[str, Any] = {CHOSEN: read_integers(sample, CHOSEN, (None,), codebook.num_codes).astype(np.int64)}
    limits = {REJECTED: codebook.num_codes, "kept.npy": 2}
    for field in (f"{name}.npy" for name in _ARRAYS[1:]):
        if field in sample.fields:
            found = read_integers(sample, field, arrays[CHOSEN].shape, limits.get(field, _MOST_STEPS))
            arrays[field] = found.astype(bool if field == "kept.npy" else np.int64)
    if not len(arrays[CHOSEN]):
        raise ValueError(f"{sample.name}: {CHOSEN}: holds no codes")
    pair = Pair(sample.key, read_caption(sample), **{n.removesuffix(".npy"): a for n, a in arrays.items()}, **facts)
    if pair.kept is not None and (pair.kept & pair.differs).any():
        raise ValueError(f"{sample.name}: kept.npy: names {int((pair.kept & pair.differs).sum())} tokens that differ")
    return pair, codebook


def to_row(pair: Pair) -> dict[str, Any]:
    """The pair as part of a row of a run, arrays packed; the inverse is `from_row`."""
    arrays = {name: getattr(pair, name) for name in _ARRAYS}
    packed = {name: pack_tokens(array) for name, array in arrays.items() if array is not None}
    return {"key": pair.key, "read": pair.prompt} | _facts(pair) | packed


def from_row(row: Mapping[str, Any]) -> Pair:
    """A pair out of a row that `to_row` made; ValueError, KeyError or TypeError for anything else."""
    arrays: dict[str, Any] = {name: unpack_tokens(row[name]) for name in _ARRAYS if name in row}
    if "kept" in arrays:
        arrays["kept"] = arrays["kept"].astype(bool)
    return Pair(row["key"], row["read"], **arrays, **_parse(row))


def _facts(pair: Pair) -> dict[str, Any]:
    """All but key, prompt and arrays, as JSON holds it."""
    return {
        "schema": SCHEMA,
        "kind": pair.kind,
        "signal": pair.signal,
        "scores": list(pair.scores),
        "verdicts": None if pair.verdicts is None else list(pair.verdicts),
        "tag": pair.tag,
        "metadata": None if pair.metadata is None else dict(pair.metadata),
        "prompt_index": pair.prompt_index,
        "chosen_from": pair.chosen_from,
        "rejected_from": pair.rejected_from,
        "reopened_at": pair.reopened_at,
    }


def _parse(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `_facts`."""
    if row["schema"] != SCHEMA:
        raise ValueError(f"schema {row['schema']!r}, this version reads {SCHEMA!r}")
    if row["kind"] not in get_args(Kind):
        raise ValueError(f"kind {row['kind']!r} ({', '.join(get_args(Kind))})")
    better, worse = map(float, row["scores"])
    if not (math.isfinite(better) and math.isfinite(worse) and better > worse):
        raise ValueError(f"scores [{better}, {worse}]: the first must be the higher one, both finite")
    verdicts = None if row["verdicts"] is None else tuple(map(bool, row["verdicts"]))
    if verdicts is not None and len(verdicts) != 2:
        raise ValueError(f"{len(verdicts)} verdicts")
    metadata, tag = row["metadata"], row["tag"]
    if not isinstance(metadata, Mapping | None) or not isinstance(tag, str | None):
        raise ValueError("metadata must be an object, tag a text")
    return {
        "kind": row["kind"],
        "signal": str(row["signal"]),
        "scores": (better, worse),
        "verdicts": verdicts,
        "tag": tag,
        "metadata": metadata,
        "prompt_index": _whole(row, "prompt_index"),
        "chosen_from": str(row["chosen_from"]),
        "rejected_from": str(row["rejected_from"]),
        "reopened_at": None if row["reopened_at"] is None else _whole(row, "reopened_at"),
    }


def _of_codebook(codebook: CodeSpace) -> dict[str, Any]:
    return {"num_codes": codebook.num_codes, "tokenizer": codebook.tokenizer}


def _whole(row: Mapping[str, Any], key: str) -> int:
    value = row[key]
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} must be a whole number, found {value!r}")
    return value


def _encode(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()
