"""Duplicates and leaks between splits: units of work note what makes traces alike, the end of a job compares it.

A fingerprint holds the hash of the scene, of the normalised text and of the templates, a MinHash signature (Broder
1997) of the text's word 5-grams, and a difference hash of the first image. Nothing is dropped here, so a unit of work
need not know the others and shards stay as they were written; duplicates are listed, and jobs/export_irg.py leaves
them out of a copy.
"""

import base64
import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from genloop.data.image_reader import decode_image
from genloop.data.irg.phrases import SLOTS, is_held_out, parse, sentences
from genloop.data.irg.record import Record
from genloop.data.irg.split import scene_sha
from genloop.registry import require

NUM_HASHES = 64  # of a signature
THRESHOLD = 0.8  # of the estimated Jaccard similarity from which texts are near-duplicates
GRAM = 5  # words
MAX_BITS = 3  # in which the hashes of alike images differ
_HASH_SIDE = 8
_SPLIT_ORDER = ("test", "val", "train")  # of two alike traces the one that comes first here stays
Fingerprint = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Leakage:
    """Counts for a datasheet, and the traces that repeat another: {"key", "of", "kind", "similarity", "splits"}."""

    summary: dict[str, Any]
    duplicates: list[dict[str, Any]]


def fingerprint(record: Record, png: bytes) -> dict[str, Any]:
    """What of a trace, and of its first image, is compared with others; plain values for a row."""
    text = normalised(text_of(record))
    return {
        "key": record.id,
        "split": record.split,
        "scene": scene_sha(record),
        "text": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        "minhash": base64.b64encode(signature(text).astype("<u4").tobytes()).decode(),
        "image": f"{difference_hash(decode_image(png)):016x}",
        "templates": sorted(templates_of(record)),
    }


def text_of(record: Record) -> str:
    """All texts of a trace that are not repeated in others of its texts."""
    rounds = (f"{one.reasoning_text} {one.diagnosis_text}" for one in record.rounds)
    return " ".join([record.instruction, record.reasoning_text, *rounds, record.final_prompt])


def normalised(text: str) -> str:
    """Lower case, compatibility forms joined, words and numbers alone with one space between them."""
    return " ".join(re.findall(r"[\w.]*\w", unicodedata.normalize("NFKC", text).lower()))


def templates_of(record: Record) -> set[str]:
    """The templates that made the sentences of a trace; of sentences of others none."""
    texts = [record.reasoning_text]
    texts += [f"{one.reasoning_text} {one.diagnosis_text}" for one in record.rounds]
    return {parsed.template for text in texts for s in sentences(text) if (parsed := parse(s)) is not None}


def signature(text: str) -> np.ndarray:
    """A normalised text -> (NUM_HASHES,) uint32: MinHash of its word 5-grams"""
    words = text.split()
    grams = {" ".join(words[place : place + GRAM]) for place in range(max(1, len(words) - GRAM + 1))}
    found = _empty().copy()
    found.update_batch([gram.encode() for gram in sorted(grams)])
    return np.asarray(found.hashvalues, dtype=np.uint32)


def difference_hash(image: np.ndarray) -> int:
    """(H, W, 3) uint8 -> 64 bits: whether each of 8 x 8 cells is brighter than the one at its left"""
    from PIL import Image

    small = Image.fromarray(image).convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX)
    cells = np.asarray(small, dtype=np.int16)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def leakage(fingerprints: Iterable[Fingerprint]) -> Leakage:
    """Compare all traces with each other; the same fingerprints in any order give the same report."""
    rows = sorted(fingerprints, key=lambda row: (_SPLIT_ORDER.index(row["split"]), row["key"]))
    by_text = _exact(rows)
    repeated = {row["key"] for row in by_text}
    duplicates = by_text + _near([row for row in rows if row["key"] not in repeated])
    counts = Counter(row["split"] for row in rows)
    summary: dict[str, Any] = {
        "traces": {split: counts[split] for split in reversed(_SPLIT_ORDER)},
        "scenes": len({row["scene"] for row in rows}),
        "scenes_in_two_splits": _shared(rows, "scene"),
        "templates_in_two_splits": _shared_templates(rows),
        "held_out_templates": sum(len(slot.held_out) for name, slot in SLOTS.items() if name not in _UNPARSED),
        **{f"{kind}_{side}": 0 for kind in ("duplicates", "near_duplicates") for side in ("within", "across")},
        "alike_images_across": _alike_images(rows),
    }
    for row in duplicates:
        kind = "duplicates" if row["kind"] == "text" else "near_duplicates"
        summary[f"{kind}_{'within' if len(set(row['splits'])) == 1 else 'across'}"] += 1
    return Leakage(summary, duplicates)


_UNPARSED = {"prompt", "request"}  # slots that are no sentence of a paragraph


@cache
def _empty() -> Any:
    return require("datasketch", "corpus").MinHash(num_perm=NUM_HASHES, seed=1, scheme="affine32")


def _exact(rows: Sequence[Fingerprint]) -> list[dict[str, Any]]:
    first: dict[str, Fingerprint] = {}
    found = []
    for row in rows:
        if (known := first.setdefault(row["text"], row)) is not row:
            found.append(_duplicate(row, known, "text", 1.0))
    return found


def _near(rows: Sequence[Fingerprint]) -> list[dict[str, Any]]:
    """Traces whose text is nearly that of an earlier one which is kept."""
    datasketch = require("datasketch", "corpus")
    lsh = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=NUM_HASHES)
    kept: dict[str, tuple[Fingerprint, np.ndarray]] = {}
    found = []
    for row in rows:
        values = np.frombuffer(base64.b64decode(row["minhash"]), dtype="<u4")
        own = _empty().copy()
        own.hashvalues = values.astype(own.hashvalues.dtype)
        alike = ((float((kept[key][1] == values).mean()), key) for key in lsh.query(own))
        best = max(alike, key=lambda pair: (pair[0], pair[1]), default=(0.0, ""))
        if best[0] >= THRESHOLD:
            found.append(_duplicate(row, kept[best[1]][0], "near", round(best[0], 3)))
        else:
            kept[row["key"]] = row, values
            lsh.insert(row["key"], own)
    return found


def _duplicate(row: Fingerprint, of: Fingerprint, kind: str, similarity: float) -> dict[str, Any]:
    splits = [row["split"], of["split"]]
    return {"key": row["key"], "of": of["key"], "kind": kind, "similarity": similarity, "splits": splits}


def _shared(rows: Sequence[Fingerprint], name: str) -> int:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row[name]].add(row["split"])
    return sum(len(found) > 1 for found in splits.values())


def _shared_templates(rows: Sequence[Fingerprint]) -> int:
    """Templates that are not where they belong: held-out ones outside of test, or others in it."""
    used = {(template, row["split"] == "test") for row in rows for template in row["templates"]}
    return len({template for template, in_test in used if is_held_out(template) != in_test})


def _alike_images(rows: Sequence[Fingerprint]) -> int:
    """Traces of val and train whose first image looks like one of a split before, in MAX_BITS bits at most.

    Hashes that differ in 3 bits are equal in one of four quarters.
    """
    buckets: dict[tuple[int, int], dict[int, str]] = defaultdict(dict)
    alike = 0
    for row in rows:
        own = int(row["image"], 16)
        quarters = [(place, own >> 16 * place & 0xFFFF) for place in range(4)]
        others = (other for quarter in quarters for other, split in buckets[quarter].items() if split != row["split"])
        alike += any((own ^ other).bit_count() <= MAX_BITS for other in others)
        for quarter in quarters:
            buckets[quarter].setdefault(own, row["split"])
    return alike
