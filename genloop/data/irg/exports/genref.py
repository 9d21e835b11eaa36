"""GenRef-wds of ReflectionFlow (Zhuo et al. 2025): a bad and a good image of one prompt, and the reflection between.

Fields of a sample: good_image.jpg, bad_image.jpg, reflection.txt, prompt.txt, subset.txt. Each accepted round is one
sample, KEY-ROUND; traces without one (clean images) have none.
"""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

from genloop.data.image_reader import decode_image
from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.lazy import Read
from genloop.data.irg.exports.looks import Seen, looks_of, read_looks, record_of
from genloop.data.irg.exports.own import joined
from genloop.data.irg.record import CONTENT_ISSUES, Record
from genloop.data.shards import Sample

_FIELDS = ("good_image.jpg", "bad_image.jpg", "reflection.txt", "prompt.txt", "subset.txt")
_QUALITY = 95  # of JPEG


class GenRef:
    """Pairs of images with a reflection."""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """Shards of pairs by split -> the traces without a pair."""
        pairs, left_out = [], []
        for sample in samples:
            record = record_of(sample)
            looks = looks_of(record)
            left_out += [record.id] if len(looks) < 2 else []
            for place, (bad, good) in enumerate(itertools.pairwise(looks)):
                fields = {
                    "good_image.jpg": _jpeg(sample.fields[good.image]),
                    "bad_image.jpg": _jpeg(sample.fields[bad.image]),
                    "reflection.txt": bad.text.encode(),
                    "prompt.txt": record.instruction.encode(),
                    "subset.txt": _subset(record).encode(),
                }
                pairs.append((record.split, Sample(f"{record.id}-{place}", fields)))
        sink.shard(pairs)
        return left_out

    def read(self, source: Path) -> Sequence[Sample]:
        """Each pair as a trace of one round, in the split that its folder is named after."""
        found = joined(source)
        if len(found):
            _check(found[0])
        return Read(len(found), lambda place: _trace(found[place]))


def _trace(sample: Sample) -> Sample:
    _check(sample)
    fields = sample.fields
    texts = {name: fields[name].decode("utf-8", "replace") for name in ("reflection.txt", "prompt.txt")}
    folder = sample.shard.parent.name if sample.shard else ""
    seen = [
        Seen(fields["bad_image.jpg"], texts["reflection.txt"], edit=texts["reflection.txt"] or "draw it again"),
        Seen(fields["good_image.jpg"], ""),
    ]
    return read_looks(sample.key, texts["prompt.txt"], seen, told={"split": folder}, source="genref")


def _check(sample: Sample) -> None:
    if missing := [field for field in _FIELDS[:4] if field not in sample.fields]:
        raise ValueError(f"{sample.name} lacks {missing[0]}; GenRef has {', '.join(_FIELDS)}")


def _subset(record: Record) -> str:
    """ "editing" for operations on pixels, "rule" for content that an oracle has read, else "general"."""
    if any(diagnosis.issue in CONTENT_ISSUES for one in record.rounds for diagnosis in one.diagnosis):
        return "rule"
    ops = {action.op for one in record.rounds for action in one.actions}
    return "general" if "regenerate" in ops else "editing"


def _jpeg(png: bytes) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(decode_image(png)).save(stream, format="JPEG", quality=_QUALITY, subsampling=0)
    return stream.getvalue()
