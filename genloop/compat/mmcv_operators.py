"""Make mmdet importable beside an mmcv without compiled operators (mmcv-lite): a stand-in for `mmcv._ext`.

mmdet imports all of mmcv's operators and Mask2Former runs one of them, multi-scale deformable attention, which mmcv
also has in plain PyTorch. Every other operator can be imported and says when it is called that it is not there. An mmcv
that has its operators is left alone.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

USERS = frozenset({"mmcv", "mmdet"})  # who imports `mmcv._ext`
_NAME = "mmcv._ext"


@cache
def install_mmcv_operators() -> bool:
    """To be called before mmdet, or an operator of mmcv, is imported -> whether the stand-in is in place."""
    if importlib.util.find_spec("mmcv") is None or importlib.util.find_spec(_NAME) is not None:
        return False
    module = ModuleType(_NAME, __doc__)
    module.__spec__ = ModuleSpec(_NAME, None)  # mmengine asks for it
    module.__dict__.update(ms_deform_attn_forward=_deformable_attention, __getattr__=_absent)
    sys.modules[_NAME] = sys.modules["mmcv"].__dict__["_ext"] = module
    return True


def _deformable_attention(
    value: "Tensor", shapes: "Tensor", starts: "Tensor", locations: "Tensor", weights: "Tensor", im2col_step: int
) -> "Tensor":
    """What the compiled operator computes, by mmcv's own PyTorch; it is only called on a GPU."""
    attention = importlib.import_module("mmcv.ops.multi_scale_deform_attn")
    return attention.multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)


def _absent(name: str) -> Callable[..., Any]:
    """Any other operator."""
    if name.startswith("__"):
        raise AttributeError(f"module {_NAME!r} has no attribute {name!r}")

    def operator(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"mmcv-lite has no operator {name}; build mmcv with its operators to use it")

    return operator
