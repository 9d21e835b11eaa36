"""Pictures of a data set that a run wrote: the first samples of its shards that hold images, with their texts."""

import json
from collections.abc import Iterator
from pathlib import Path

from genloop.data.image_reader import UnreadableImage, decode_image
from genloop.data.shards import Fields, Shards
from genloop.reading import object_or_empty
from genloop.report.cards import PictureCard, Shot
from genloop.report.page.pictures import embed_pixels

SHOWN, SHOTS, TEXT = 12, 4, 300  # samples, images of each, letters of a text
LOOKED_AT = 48  # samples that are opened: those without an image are passed over
_ENDINGS = ("png", "jpg", "jpeg", "webp")
_TEXTS = ("prompt", "caption", "text", "question", "instruction")


def sample_cards(folder: Path) -> list[PictureCard]:
    """A card a sample; [] for a run without shards of images."""
    places = sorted({path.parent for path in (folder / "shards").rglob("*.tar")})
    found = (card for place in places for card in _of_shards(place))
    return [card for card, _ in zip(found, range(SHOWN))]


def _of_shards(place: Path) -> Iterator[PictureCard]:
    shards = Shards(place)
    for number in range(min(len(shards), LOOKED_AT)):
        sample = shards.read(number)
        names = [name for name in sample.fields if name.rpartition(".")[2].lower() in _ENDINGS]
        if names:
            text = _text(sample.fields) or sample.key
            shots = tuple(_shot(sample.fields[name], name, f"{text}: {name}") for name in names[:SHOTS])
            yield PictureCard(text, shots)


def _shot(data: bytes, name: str, alt: str) -> Shot:
    try:
        picture = embed_pixels(decode_image(data))
    except (OSError, UnreadableImage):
        picture = None
    return Shot(picture, alt, name.rpartition(".")[0])


def _text(fields: Fields) -> str:
    """What a sample says about itself: its text, or the first of the usual keys of its JSON."""
    if "txt" in fields:
        return fields["txt"].decode("utf-8", "replace")[:TEXT]
    row = object_or_empty(fields.get("json", b"{}"))
    known = next((row[key] for key in _TEXTS if row.get(key)), "")
    return (known if isinstance(known, str) else json.dumps(known, ensure_ascii=False))[:TEXT]
