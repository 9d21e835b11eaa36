"""What a model costs: parameters, bytes of weights by dtype, operations, seconds of a call, peak memory.

Operations count 2 a multiply-add, in matrix products, convolutions and attention, whatever the weights are held in.
Seconds and bytes are measured on the machine at hand. `genloop.stats.latency` makes percentiles of the seconds.
"""

import ctypes
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genloop.checkpoint import find_weights
from genloop.models.common.memory import release_memory
from genloop.reading import read_utf8

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters, tied ones once; `bytes_by_dtype` is what weights and buffers take in memory, packed as they are."""

    parameters: int
    trainable: int
    bytes_by_dtype: dict[str, int]

    @property
    def num_bytes(self) -> int:
        """All of them."""
        return sum(self.bytes_by_dtype.values())


@dataclass(slots=True)
class Peak:
    """Bytes that the body took at its highest, beyond what was held before; 0 until it ends."""

    num_bytes: int = 0


def size_of(model: nn.Module) -> ModelSize:
    """Of any network, with weights in four or eight bits by bitsandbytes or torchao too."""
    parameters = list(model.parameters())
    seen: dict[tuple[int, int], tuple[str, int]] = {}
    for tensor in _plain_tensors(model):
        key = (tensor.untyped_storage()._cdata, int(tensor.storage_offset()))
        seen[key] = (str(tensor.dtype).removeprefix("torch."), tensor.numel() * tensor.element_size())
    sizes: dict[str, int] = {}
    for dtype, size in seen.values():
        sizes[dtype] = sizes.get(dtype, 0) + size
    trainable = sum(_count(parameter) for parameter in parameters if parameter.requires_grad)
    return ModelSize(sum(map(_count, parameters)), trainable, dict(sorted(sizes.items())))


def weight_bytes(folder: Path) -> int:
    """Bytes of the files of weights in a checkpoint or adapter folder."""
    files = [adapter_file(folder)] if adapter_file(folder).is_file() else find_weights(folder).files
    return sum(path.stat().st_size for path in files)


def adapter_file(folder: Path) -> Path:
    """The weights in a folder of adapters, as peft names them."""
    return folder / "adapter_model.safetensors"


def count_flops(call: Callable[[], object]) -> int:
    """Operations of one call. Its tensors may be on the meta device."""
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with counter:
        call()
    return int(counter.get_total_flops())


def time_calls(
    call: Callable[[], object], device: str | torch.device = "cpu", *, warmup: int = 3, repeats: int = 20
) -> list[float]:
    """Seconds of each of `repeats` calls behind `warmup` others; what a GPU still computes belongs to its call."""
    seconds = []
    for number in range(warmup + repeats):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        if number >= warmup:
            seconds.append(time.perf_counter() - start)
    return seconds


@contextmanager
def peak_memory(device: str | torch.device = "cpu") -> Iterator[Peak]:
    """Of the body: on a GPU what torch allocated there, else the resident memory of this process."""
    peak = Peak()
    release_memory()
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        _wait(device)
        peak.num_bytes = torch.cuda.max_memory_allocated(device) - before
        return
    with suppress(OSError, AttributeError):  # not with every C library
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):  # not on every system: there the peak is that of the whole process so far
        _RESET.write_text(_RESET_PEAK)
    before = _resident()
    yield peak
    peak.num_bytes = max(0, _resident(peak=True) - before)


def _count(parameter: Tensor) -> int:
    """Numbers that a parameter stands for, however they are packed."""
    state = getattr(parameter, "quant_state", None)  # of bitsandbytes
    return int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()


def _formulas() -> dict[Any, Any]:
    """What torch does not know: attention on CPUs, products with weights that bitsandbytes has packed."""
    found = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    packed = [getattr(torch.ops.bitsandbytes, name, None) for name in ("gemm_4bit", "gemv_4bit")]  # None: not imported
    return found | {operator: _packed_flops for operator in packed if operator is not None}


def _packed_flops(given: Sequence[int], packed: Sequence[int], shape: Sequence[int], *_: Any, **__: Any) -> int:
    """Shapes (..., I) and, of what the packed weights stand for, (O, I)."""
    return 2 * math.prod(given) * shape[0]


def _attention_flops(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Shapes (B, H, L, D), (B, h, S, D), (B, h, S, E): products with keys and with values; nothing is left out."""
    return 2 * math.prod(query[:3]) * key[2] * (query[3] + value[3])


def _plain_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The strided tensors that hold parameters and buffers, scales of quantised ones included."""
    for tensor in (*model.parameters(), *model.buffers()):
        yield from _parts(tensor)
        state = getattr(tensor, "quant_state", None)
        while state is not None:  # scales of weights, and with double quantisation those of scales
            yield from (state.absmax, state.code)
            state = state.state2


def _parts(tensor: Any) -> Iterator[Tensor]:
    """A tensor, or those that one of torchao is made of."""
    if not hasattr(type(tensor), "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))


def _wait(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _resident(*, peak: bool = False) -> int:
    """Bytes of this process in memory, now or at the most."""
    if _STATUS.is_file():
        key = "VmHWM:" if peak else "VmRSS:"
        line = next(line for line in read_utf8(_STATUS).splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
