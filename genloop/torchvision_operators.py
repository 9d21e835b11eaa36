"""Make torchvision importable beside a torch of another build, for all who import it: open_clip, timm, transformers.

A torchvision wheel from the package index is built for CUDA. Beside a CPU torch its compiled part cannot be loaded, and
its Python part then stops at an operator that nobody has declared. Declared by name, without an implementation, the
operators let the rest work: transforms, models, box arithmetic. `torchvision.ops.nms` itself stays unavailable.
`genloop` puts a finder in front of Python's own ones when it is imported, so that this happens just before torchvision
runs, and never where nobody imports it.
"""

import importlib
import sys
from collections.abc import Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))


def declare_before_torchvision() -> None:
    """Have the operators declared just before torchvision is imported, by whatever package. Imports nothing now."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@cache
def declare_torchvision_operators(folder: Path) -> Any:
    """For the torchvision in `folder`, before it is imported; nothing is done where its compiled part fits torch.

    -> what keeps the declarations alive, or None.
    """
    torch = importlib.import_module("torch")
    compiled = sorted(folder.glob("_C*.so"))
    try:
        for file in compiled:
            torch.ops.load_library(str(file))
    except OSError:  # made for another torch
        compiled = []
    if compiled:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library


class _Finder(MetaPathFinder):
    """Finds torchvision where Python does, and has it run behind the declarations."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == "torchvision" else None
        if spec is None or spec.loader is None or spec.origin is None:
            return None
        spec.loader = _Declaring(spec.loader, Path(spec.origin).parent)
        return spec


class _Declaring(Loader):
    """Declares, then steps aside for the loader that it stands for."""

    def __init__(self, inner: Loader, folder: Path) -> None:
        self.inner, self.folder = inner, folder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        declare_torchvision_operators(self.folder)
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.inner
        self.inner.exec_module(module)
