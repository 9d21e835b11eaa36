"""Make torchvision importable beside a torch of another build, for all who import it: open_clip, timm, transformers.

A torchvision wheel from the package index is built for CUDA. Beside a CPU torch its compiled part cannot be loaded, and
its Python part then stops at an operator that nobody has declared. Declared by name, without an implementation, the
operators let the rest work: transforms, models, box arithmetic. `torchvision.ops.nms` itself stays unavailable.
`genloop.registry.require` declares them before it imports a package that may import torchvision.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

USERS = frozenset({"torchvision", "open_clip", "timm", "transformers", "diffusers", "peft", "accelerate", "deepspeed"})
_SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))


@cache
def declare_torchvision_operators() -> Any:
    """Declare what an installed torchvision that was built for another torch lacks; a no-op where all is well.

    -> what keeps the declarations alive, or None.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    torch = importlib.import_module("torch")
    compiled = sorted(Path(spec.origin).parent.glob("_C*.so"))
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
