"""Which split a trace belongs to: a hash of what it is about decides, so no unit of work has to know the others.

A scene counts as it was asked for, without exposure and texture; a photograph by the sha256 of the source image,
`provenance.source_sha256`, or of the image that the trace begins with. Traces of one scene with different faults are
so in one split. Which templates a split may use says genloop/data/irg/phrases.py.
"""

import hashlib
import json

from genloop.data.irg.record import Record

SPLITS = ("train", "val", "test")


def scene_sha(record: Record) -> str:
    """What a trace is about, as 32 hex digits."""
    if record.scene is None:
        about = record.provenance.get("source_sha256", record.rounds[0].image_sha256)
    else:
        about = json.dumps(record.scene.model_dump(exclude={"exposure", "texture_seed"}), sort_keys=True)
    return hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def split_of(scene: str, seed: int, val_share: float, test_share: float) -> str:
    """train, val or test: a function of `scene_sha` and the seed alone."""
    digest = hashlib.blake2b(f"{seed}/irg/{scene}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < test_share:
        return "test"
    return "val" if place < test_share + val_share else "train"
