"""What stands behind a name in a table of parts: detectors, colour classifiers, judges, metrics, features. No torch."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pydantic import Field, ValidationInfo, field_validator, model_validator

from genloop.config import INPUT, Settings, check_part, computing_keys, marked, parse_options
from genloop.hashing import sha256_tree
from genloop.registry import lookup

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
    """A name of `table` and its options. A bare name stands for a part without options.

    After validation `options` is an instance of the maker's `Options`.
    """

    table: ClassVar[Mapping[str, str]]
    part: ClassVar[str]  # what the table is of, for errors

    kind: str
    options: Any = Field({}, validate_default=True, description="keys of that kind")

    @classmethod
    def maker_of(cls, kind: str) -> Any:
        """The maker behind a name, or behind "module:class"; ValueError with a suggestion when there is none."""
        return lookup(cls.table, kind, cls.part)

    @property
    def maker(self) -> Any:
        """The maker of this part."""
        return self.maker_of(self.kind)

    def check(self, resolve: Resolve) -> None:
        """Refuse bad options with a ValueError or FileNotFoundError of one line; reads headers at most."""
        self.maker.check(self.options, resolve)

    def inputs(self, resolve: Resolve, group: str) -> dict[str, Path]:
        """{dotted key: file or folder} whose content enters the fingerprint; `group`: the part's key in the config."""
        found = self.maker.inputs(self.options, resolve)
        return {f"{group}.options.{key}": path for key, path in found.items()}

    def identity(self, resolve: Resolve) -> list[Any]:
        """What the part's answers depend on, as JSON: kind, options, the content of its files."""
        files = {key: path for key, path in marked(self.options, INPUT) if path is not None}
        files |= self.maker.inputs(self.options, resolve)
        contents = {key: sha256_tree(path) for key, path in sorted(files.items())}
        return [self.kind, computing_keys(self.options), contents]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"kind": given} if isinstance(given, str) else given

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        return check_part(cls.maker_of, kind)

    @field_validator("options", mode="plain")
    @classmethod
    def _of_that_kind(cls, options: Any, info: ValidationInfo) -> Settings:
        kind = info.data.get("kind")  # None when it was refused already
        return parse_options(cls.maker_of(kind).Options, options) if kind else Settings()
