"""Parts that stand in no table: what "module:class" may lead to."""

from collections.abc import Mapping
from typing import ClassVar

from genloop.sampling.maskgit.maker import ShowoGenerator


class PlainGenerator(ShowoGenerator):
    """Show-o, which draws images of texts and does nothing else."""

    modes: ClassVar[Mapping[str, str]] = {}


class NoPart:
    """Not a part: it has no `Options`."""
