"""What the detector saw, drawn on the image: boxes and masks of kept objects, scores, named colours, areas."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from genloop.data.masks import decode_mask
from genloop.data.members import is_there
from genloop.ledger import DamagedRows
from genloop.reading import parse_json
from genloop.report.failures.outlines import outline
from genloop.report.failures.reasons import failures
from genloop.report.page.pictures import EmbeddedImage, embed, upright_size
from genloop.report.page.selection import spread
from genloop.report.runs import ReportedImage, ReportedRun

SIDE = 384  # px of an embedded image
NUM_HUES = 4
RIGHT = "right"


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """One kept object; x, y, width and height in px of the image. `number` is None for a class nobody asked for."""

    number: int | None
    hue: int
    class_name: str
    score: float
    x: float
    y: float
    width: float
    height: float
    color: str = ""
    margin: float | None = None
    area: float | None = None  # of the mask, as a share of the image
    outline: str = ""  # of the mask, as the `d` of an SVG path in px of the image; "" where the row has none


@dataclass(frozen=True, slots=True)
class DetectedImage:
    """One image with all that was seen on it, asked-for objects first."""

    image: ReportedImage
    outcome: str  # right, or the kind of its first failure
    picture: EmbeddedImage
    width: int
    height: int
    objects: tuple[DetectedObject, ...]

    @property
    def tag(self) -> str:
        return self.image.tag

    @property
    def unit(self) -> float:
        """A length that looks the same on images of any size."""
        return max(self.width, self.height) / 100


@dataclass(frozen=True, slots=True)
class _Choice:
    image: ReportedImage
    tag: str
    outcome: str


def shots(run: ReportedRun, limit: int) -> list[DetectedImage]:
    """At most `limit` images, spread over tasks and kinds of failure; those whose files are gone are left out."""
    known = [image for image in run.images if image.row.details is not None]
    choices = [_Choice(image, image.tag, _outcome(image)) for image in known]
    found = (_shot(choice) for choice in spread([c for c in choices if is_there(c.image.path)], limit))
    return [shot for shot in found if shot is not None]


def _outcome(image: ReportedImage) -> str:
    missed = failures(image.reason)
    return missed[0].kind if missed else RIGHT


def _shot(choice: _Choice) -> DetectedImage | None:
    picture, size = embed(choice.image.path, SIDE), upright_size(choice.image.path)
    if picture is None or size is None:
        return None
    return DetectedImage(choice.image, choice.outcome, picture, *size, tuple(_objects(choice.image, size)))


def _objects(image: ReportedImage, size: tuple[int, int]) -> Iterator[DetectedObject]:
    details, areas, masks = image.row.details or {}, image.row.areas, image.row.masks
    include = parse_json(image.metadata).get("include") or ()
    asked = list(dict.fromkeys(clause["class"] for clause in include))
    named = {
        (include[part.clause]["class"], place): (color, margin)
        for part in image.row.colors
        for place, (color, margin) in enumerate(zip(part.named, part.margins))
    }
    number = 0
    for name in [*(name for name in asked if name in details), *(name for name in details if name not in asked)]:
        known: Sequence[int | None] = areas.get(name) or [None] * len(details[name])
        drawn: Sequence[str | None] = masks.get(name) or [None] * len(details[name])
        for place, ((x1, y1, x2, y2, score), area, mask) in enumerate(zip(details[name], known, drawn)):
            number += name in asked
            color, margin = named.get((name, place), ("", None))
            yield DetectedObject(
                number=number if name in asked else None,
                hue=asked.index(name) % NUM_HUES if name in asked else NUM_HUES,
                class_name=name,
                score=score,
                x=x1,
                y=y1,
                width=x2 - x1,
                height=y2 - y1,
                color=color,
                margin=margin,
                area=None if area is None else area / (size[0] * size[1]),
                outline="" if mask is None or image.row.size != size else _outline(image, mask, size),
            )


def _outline(image: ReportedImage, mask: str, size: tuple[int, int]) -> str:
    """Of an encoded mask of an image of that width and height; DamagedRows when it is none."""
    width, height = size
    try:
        return outline(decode_mask(mask, height, width))
    except ValueError as error:
        raise DamagedRows(f"masks of {image.path} in its row: {error}") from None
