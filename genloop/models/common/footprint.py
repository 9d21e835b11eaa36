"""How much memory a computation takes: bytes of live storages and their peak, measured, or found on the meta device.

`Tracker` counts what the operators inside of it return and are given. `Rehearsal` is a tracker for code that runs on
the meta device, where tensors have shapes and no values: the real code runs, nothing is computed. Tensors of whole
numbers and bools that come from the host keep their values (token ids, labels, masks), so that what is selected by
them has its true size; whatever else code asks a value of gets an answer that takes the most memory.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_stands_for: ContextVar[str] = ContextVar("meta_stands_for", default="cpu")
_half: ContextVar[tuple[torch.dtype, dict[int, Tensor] | None] | None] = ContextVar("half_on_meta", default=None)
_aten = torch.ops.aten
_SPREAD = 0.6180339887  # multiples of it are spread over [0, 1): no two pictures are alike
_IN_HALF = {"linear", "matmul", "bmm", "baddbmm", "mm", "addmm", "einsum", "conv2d", "scaled_dot_product_attention"}
_IN_FULL = {"layer_norm", "group_norm", "softmax", "log_softmax", "cross_entropy"}
_ASKS = (_aten._local_scalar_dense.default, _aten.nonzero.default)


def kind_of(device: torch.device) -> str:
    """cpu or cuda, also where the meta device stands for one of them."""
    return _stands_for.get() if device.type == "meta" else device.type


class Tracker(TorchDispatchMode):
    """Counts bytes while it is entered, on some kinds of devices; a storage that several tensors share counts once."""

    def __init__(self, devices: Iterable[str] = ("cpu",)) -> None:
        super().__init__()
        self._devices = frozenset(devices)
        self._sizes: dict[int, int] = {}  # of live storages, by address of their C++ object
        self.live = self.peak = 0

    def see(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that no operator inside of the tracker has made."""
        for tensor in tensors:
            if tensor.device.type not in self._devices or tensor.layout is not torch.strided:
                continue
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._sizes:
                weakref.finalize(storage, self._forget, key).atexit = False
            self.live += size - self._sizes.get(key, 0)
            self._sizes[key] = size
            self.peak = max(self.peak, self.live)

    def take_peak(self) -> int:
        """The peak since this was asked for last; the next one starts from what is live."""
        peak, self.peak = self.peak, self.live
        return peak

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._can_decompose():  # under inference mode these come whole: what they call is what takes memory
            with self:
                return func.decompose(*args, **kwargs)
        result = self._compute(func, args, kwargs)
        self.see(leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        return result

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key, 0)


class Rehearsal(Tracker):
    """A tracker for code on the meta device, see `rehearsal`. `parts` keeps the bytes of named parts."""

    def __init__(self, device: str) -> None:
        super().__init__(("meta", "cpu") if device == "cpu" else ("meta",))
        self.device = device
        self.parts: dict[str, int] = {}
        self._values: dict[int, torch.UntypedStorage] = {}  # of meta storages of whole numbers, by address

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is live behind the body and was not before is a part of its own; making it sets no peak."""
        before = self.live
        yield
        self.parts[name] = self.parts.get(name, 0) + self.live - before
        self.peak = self.live

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in _ASKS and args[0].is_meta:
            return self._answer(func, args[0])
        if func is _aten._to_copy.default and args[0].is_meta and str(kwargs.get("device", "meta")) == "cpu":
            return self._on_the_host(args[0]).to(kwargs.get("dtype") or args[0].dtype)
        if func in (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default):
            args = (args[0], self._numbers(args[1]), *args[2:])
        result = func(*args, **kwargs)
        self._follow(func, args, kwargs, result)
        return result

    def _answer(self, func: Any, asked: Tensor) -> Any:
        known = self._value(asked)
        if func is _aten._local_scalar_dense.default:
            return known.item() if known is not None else torch.ones((), dtype=asked.dtype).item()
        count = asked.numel() if known is None else int(known.count_nonzero())
        return torch.empty(count, asked.ndim, dtype=torch.int64, device="meta")

    def _on_the_host(self, asked: Tensor) -> Tensor:
        """Its values, or some: different whole numbers or shares, True."""
        if (known := self._value(asked)) is not None:
            return known.clone()
        if asked.dtype == torch.bool or asked.is_complex():
            return torch.ones(asked.shape, dtype=asked.dtype)
        if asked.is_floating_point():
            return (torch.arange(asked.numel()) * _SPREAD % 1).to(asked.dtype).view(asked.shape)
        return torch.arange(asked.numel()).to(asked.dtype).view(asked.shape)

    def _numbers(self, indices: Iterable[Tensor | None]) -> list[Tensor | None]:
        """Masks among indices as the numbers of what they select."""
        found: list[Tensor | None] = []
        for index in indices:
            if index is not None and index.is_meta and index.dtype == torch.bool:
                found += self._answer(_aten.nonzero.default, index).unbind(1)
            else:
                found.append(index)
        return found

    def _value(self, tensor: Tensor) -> Tensor | None:
        """The values of a tensor of whole numbers, None where they are not known."""
        if not tensor.is_meta:
            return tensor
        storage = self._values.get(tensor.untyped_storage()._cdata)
        if storage is None:
            return None
        return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())

    def _follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Compute whole numbers from whole numbers, beside the meta device."""
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if len(made) != 1 or not made[0].is_meta or made[0].is_floating_point() or made[0].is_complex():
            return
        (made_one,), key = made, made[0].untyped_storage()._cdata
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(leaf.is_floating_point() or self._value(leaf) is None for leaf in given):
            if any(leaf is made_one for leaf in given):
                self._values.pop(key, None)  # written into
            return
        if key in self._values and not func._schema.is_mutable:
            return  # a view
        on_the_host = {**kwargs, "device": "cpu"} if "device" in kwargs else kwargs
        value = func(*self._values_of(args), **self._values_of(on_the_host))
        if key in self._values or not made_one.is_meta:
            return  # written in place
        plain = torch.empty_strided(made_one.size(), made_one.stride(), dtype=made_one.dtype).copy_(value)
        self._values[key] = plain.untyped_storage()
        weakref.finalize(made_one.untyped_storage(), self._values.pop, key, None).atexit = False

    def _values_of(self, tree: Any) -> Any:
        return tree_map(lambda leaf: self._value(leaf) if isinstance(leaf, Tensor) else leaf, tree)


@contextmanager
def rehearsal(device: str) -> Iterator[Rehearsal]:
    """A `Rehearsal` for the body, in which the meta device stands for `device`: cpu or cuda."""
    stands_for, half = _stands_for.set(device), _half.set(None)
    try:
        with _RealKernels(), Rehearsal(device) as tracker:
            yield tracker
    finally:
        _stands_for.reset(stands_for)
        _half.reset(half)


@contextmanager
def autocast_on_meta(dtype: torch.dtype, *, caches: bool) -> Iterator[None]:
    """What torch.autocast does on real devices; `caches`: half-precision copies of weights are kept for the body.

    The type stays set behind the body, for activations that the backward pass computes again.
    """
    _half.set((dtype, {} if caches else None))
    yield
    _half.set((dtype, None))


class _RealKernels(TorchFunctionMode):
    """What operators of real devices do otherwise: attention without its matrix, autocast."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        options = dict(kwargs or {})
        if func is Tensor.backward:  # its body would run outside of this mode, and so what it computes again
            with self:
                ends = (args[0],), (torch.ones_like(args[0]),)
                return _engine_run_backward(*ends, False, False, (), allow_unreachable=True, accumulate_grad=True)
        name = getattr(func, "__name__", "")
        if (half := _half.get()) and (name in _IN_HALF or name in _IN_FULL):
            dtype, kept = half if name in _IN_HALF else (torch.float32, None)
            args, options = tree_map(lambda leaf: _cast(leaf, dtype, kept), (args, options))
        if name == "scaled_dot_product_attention" and next(iter((*args, *options.values()))).is_meta:
            return _attention(*args, **options)
        return func(*args, **options)


def _cast(leaf: Any, dtype: torch.dtype, kept: dict[int, Tensor] | None) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.dtype == dtype:
        return leaf
    if kept is None or not (leaf.is_leaf and leaf.requires_grad):
        return leaf.to(dtype)
    if id(leaf) not in kept:
        kept[id(leaf)] = leaf.to(dtype)
    return kept[id(leaf)]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As `scaled_dot_product_attention`; its fused kernels take this much on CPUs and GPUs alike."""
    if enable_gqa:  # heads share keys
        repeats = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # they add numbers, and keep them for the backward pass
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    fused = _aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
