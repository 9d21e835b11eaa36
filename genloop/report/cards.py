"""What pages of every kind show: large numbers, and cards of images with their prompt."""

from dataclasses import dataclass

from genloop.report.page.pictures import EmbeddedImage


@dataclass(frozen=True, slots=True)
class Head:
    """One large number with lines below it."""

    title: str
    value: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shot:
    """One image, and what is known of it; `picture` is None when its file is missing."""

    picture: EmbeddedImage | None
    alt: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class PictureCard:
    """Images that belong together, side by side above their text."""

    text: str
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()
