"""Shards of captioned images as a list of what is to be learned: which crop of which image, under which caption.

Every sample's caption and the header of its image are read once, so that what cannot be trained on is refused before
anything is written. N = samples.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from genloop.data.arrays import CAPTION, read_caption
from genloop.data.image_reader import UnreadableImage, decode_image
from genloop.data.images import SUFFIXES, decoding_errors, open_image
from genloop.data.latents.buckets import Crop, Size, crop_of, cut
from genloop.data.latents.mirror import mirrored_caption
from genloop.data.shards import Sample, Shards

FIELDS = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)  # of images; the first that a sample has is taken


@dataclass(frozen=True, slots=True)
class Example:
    """One sample: its key, the sha256 of its image file and of its caption, what is cut out, the image's own size."""

    key: str
    image: str
    caption: str  # sha256
    crop: Crop
    original: Size
    is_mirrored: bool = False


class CaptionedImages:
    """All samples of some shards; `captions` holds each text once, by its sha256.

    With `mirror` they are followed by the mirror images of those whose captions allow it, as if in shards of their own.
    """

    def __init__(
        self, shards: Shards, sizes: Sequence[Size], *, needs_captions: bool = True, mirror: bool = False
    ) -> None:
        """needs_captions False: a sample without one has the empty caption."""
        self.shards, self.captions, self._needs_captions = shards, dict[str, str](), needs_captions
        self.examples = [self._read(position, sizes) for position in range(len(shards))]
        self.shard_of = np.repeat(np.arange(len(shards.sizes)), shards.sizes)
        self.source = np.arange(len(shards))  # of every example, the position of its sample
        if mirror:
            self._add_mirrored()

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, position: int) -> Example:
        return self.examples[position]

    def counts(self) -> dict[Size, int]:
        """How many samples each bucket has, from the tallest to the widest."""
        return dict(sorted(Counter(example.crop.size for example in self.examples).items()))

    def pixels(self, position: int) -> np.ndarray:
        """(h, w, 3) uint8: the crop of an image; ValueError names a sample whose image does not decode."""
        sample, example = self.shards.read(int(self.source[position]), FIELDS), self.examples[position]
        field = _field(sample)
        try:
            image = decode_image(sample.fields[field])
        except UnreadableImage as error:
            raise ValueError(f"{sample.name}: {field}: {error}") from None
        found = cut(image, example.crop)
        return found[:, ::-1] if example.is_mirrored else found

    def _add_mirrored(self) -> None:
        texts = [mirrored_caption(self.captions[example.caption]) for example in self.examples]
        positions = [position for position, text in enumerate(texts) if text is not None]
        for position in positions:
            text, example = str(texts[position]), self.examples[position]
            digest = sha256(text.encode())
            self.captions[digest] = text
            self.examples.append(replace(example, caption=digest, is_mirrored=True))
        self.source = np.concatenate([self.source, self.source[positions]])
        self.shard_of = np.concatenate([self.shard_of, len(self.shards.sizes) + self.shard_of[positions]])

    def _read(self, position: int, sizes: Sequence[Size]) -> Example:
        sample = self.shards.read(position, (CAPTION, *FIELDS))
        field = _field(sample)
        if CAPTION not in sample.fields and self._needs_captions:
            raise ValueError(f"{sample.name} has no caption; needs {CAPTION}")
        caption = read_caption(sample).strip() if CAPTION in sample.fields else ""
        data = sample.fields[field]
        try:
            original = _size(data)
        except decoding_errors() as error:
            raise ValueError(f"{sample.name}: {field}: not a whole image ({' '.join(str(error).split())})") from None
        try:
            crop = crop_of(original, sizes)
        except ValueError as error:
            raise ValueError(f"{sample.name}: {field}: {error}") from None
        digest = sha256(caption.encode())
        self.captions[digest] = caption
        return Example(sample.key, sha256(data), digest, crop, original)


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def _field(sample: Sample) -> str:
    found = next((field for field in FIELDS if field in sample.fields), None)
    if found is None:
        raise ValueError(f"{sample.name} has no image; needs one of {', '.join(FIELDS)}")
    return found


def _size(data: bytes) -> Size:
    """Of the upright image, from its header; `decoding_errors`."""
    with open_image(io.BytesIO(data)) as image:
        # Pillow decodes a whole PNG to look for EXIF data, which may lie behind the pixels
        has_exif = image.format != "PNG" or b"eXIf" in data or b"Raw profile type" in data
        turned = has_exif and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return Size(*(image.size[::-1] if turned else image.size))
