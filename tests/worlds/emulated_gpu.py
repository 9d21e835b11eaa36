"""A GPU that is none: tensors that say cuda:0 and have their values on the CPU, with the rules between the two.

Inside of `EmulatedGpu` whatever is made on or moved to "cuda" is such a tensor. An operator that gets tensors of both
devices fails, as a GPU's does, unless it copies or takes an index or a single number from the CPU. Covered are devices,
dtypes and autocast; not covered are the numbers, kernels, memory and time of a GPU, its generators, and NCCL.
"""

import ctypes
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_COPIES = {"copy_", "_to_copy", "to", "index", "index_put", "index_put_", "_index_put_impl_"}
_WAITS = {"_local_scalar_dense", "nonzero", "nonzero_numpy", "equal", "is_nonzero"}
_CUDA = {  # what is asked of torch.cuda
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "is_bf16_supported": lambda *_: True,
    "get_rng_state": lambda *_: torch.zeros(8, dtype=torch.uint8),
    "set_rng_state": lambda *_: None,
    "get_device_capability": lambda *_: (9, 0),
    "empty_cache": lambda: None,
}


class GpuTensor(torch.Tensor):
    """Says cuda:0; `held` has its values."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "GpuTensor":
        """Wrap a tensor of the CPU."""
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="cuda:0",
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"GpuTensor({self.held})"

    def tolist(self) -> Any:
        """Which torch refuses for subclasses."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> torch.Tensor:  # type: ignore[override]
        """Which torch would make on the CPU here."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=self.device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, Counter())


class EmulatedGpu(TorchDispatchMode):
    """While it is entered there is one GPU; `waits` counts by operator how often the host needed one of its values."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._patches = ExitStack()

    def __enter__(self) -> "EmulatedGpu":
        for name, answer in _CUDA.items():
            self._patches.enter_context(patch.object(torch.cuda, name, answer))
        self._patches.enter_context(patch.object(torch.Tensor, "pin_memory", lambda tensor, *_: tensor))
        self._patches.enter_context(patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        _guard()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes a tensor of the CPU, which is moved
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waits)


def _guard() -> None:
    """Let switching to the device do nothing: torch does so itself where it is built for CUDA and finds no GPU."""
    torch._C._ensureCUDADeviceGuardSet()
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    guards = (ctypes.c_void_p * 16).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    guards[1] = guards[1] or guards[14]  # c10/core/DeviceType.h: CUDA, Meta


def _run(func: Any, args: Any, kwargs: dict[str, Any], waits: Counter[str]) -> Any:
    name = func.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    mine = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, GpuTensor)}
    strangers = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor) and tensor.ndim]
    if mine and strangers and name not in _COPIES:
        raise RuntimeError(
            f"{name}: tensors of shapes {[tuple(t.shape) for t in strangers]} are on the CPU, others on cuda"
        )
    if name == "_fused_sdp_choice":
        return 0  # plain matrix products, which both devices have
    wanted = next((leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)), None)
    on_gpu = bool(mine) if wanted is None else wanted.type == "cuda"
    if mine and (not on_gpu or name in _WAITS):
        waits[name] += 1
    if name == "copy_":
        on_gpu = isinstance(args[0], GpuTensor)
    args, kwargs = tree_map(_on_cpu, (args, {key: value for key, value in kwargs.items() if key != "pin_memory"}))
    found = func(*args, **kwargs)
    return tree_map(lambda leaf: _wrapped(leaf, mine) if on_gpu and isinstance(leaf, torch.Tensor) else leaf, found)


def _on_cpu(leaf: Any) -> Any:
    """What the CPU computes with."""
    if isinstance(leaf, torch.device) and leaf.type == "cuda":
        return torch.device("cpu")
    return leaf.held if isinstance(leaf, GpuTensor) else leaf


def _wrapped(found: torch.Tensor, mine: dict[int, GpuTensor]) -> GpuTensor:
    """The tensor that was changed in place, or a new one."""
    if id(found) in mine:
        return mine[id(found)]
    with torch.inference_mode(False):  # it may be a view of a parameter
        return GpuTensor(found)
