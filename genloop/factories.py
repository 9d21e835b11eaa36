"""What stands behind a name in a table of parts: detectors, colour classifiers, judges, metrics, features. No torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import model_validator

from genloop.config import Settings

Resolve = Callable[[str], Path]  # the name of a checkpoint, or a path -> its folder


class Maker(Protocol):
    """Knows, without loading anything, what its part needs. Each table has a protocol of its own that adds `load`.

    A class that inherits from one of them only writes what differs.
    """

    Options: ClassVar[type[Settings]] = Settings  # its config keys

    @classmethod
    def check(cls, options: Any, resolve: Resolve) -> None:
        """Refuse bad options with a ValueError or FileNotFoundError of one line; reads headers at most."""

    @classmethod
    def inputs(cls, options: Any, resolve: Resolve) -> Mapping[str, Path]:
        """{option: file or folder} whose content decides what comes out; paths that options mark as input are known."""
        return {}


class PartSettings(Settings):
    """A name and its options. After validation `options` is an instance of the maker's `Options`."""

    kind: str
    options: Any

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"kind": given} if isinstance(given, str) else given
