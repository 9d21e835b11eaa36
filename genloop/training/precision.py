"""Mixed precision: matrix products in half precision by autocast; weights, moments, sums and losses stay in float32.

float16 has a small range, so its losses are scaled up before backward (Micikevicius et al. 2018). The scale is halved
after a step whose gradient is not finite and doubled after 2000 finite steps in a row, as torch's GradScaler does; this
one decides by the norm of the whole gradient, which all ranks and all kinds of sharding know alike.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch

from genloop.models.common.footprint import autocast_on_meta

_FIRST_SCALE = 65536.0
_GROWS_AFTER = 2000  # finite steps in a row
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What `train.precision` means on a device; `caches`: autocast may keep half-precision copies of weights."""

    def __init__(self, name: str, device: torch.device, *, caches: bool = True) -> None:
        self.dtype, self._device, self.caches = DTYPES[name], device, caches
        self.scale, self._finite_steps = (_FIRST_SCALE if name == "fp16" else 1.0), 0

    def autocast(self) -> AbstractContextManager[object]:
        """Around a forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        if self._device.type == "meta":
            return autocast_on_meta(self.dtype, caches=self.caches)
        return torch.autocast(self._device.type, dtype=self.dtype, cache_enabled=self.caches)

    def factor(self, weight: float) -> float:
        """What a loss is multiplied by before backward; gradients are divided by it afterwards."""
        return self.scale / weight if self.dtype == torch.float16 else 1.0

    def update(self, grad_norm: float) -> None:
        """Adapt the scale to the gradient of a step."""
        if self.dtype != torch.float16:
            return
        self._finite_steps = self._finite_steps + 1 if math.isfinite(grad_norm) else 0
        if self._finite_steps == 0:
            self.scale /= 2
        elif self._finite_steps % _GROWS_AFTER == 0:
            self.scale *= 2

    @property
    def state(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"scale": self.scale, "finite_steps": self._finite_steps}

    def load(self, state: dict[str, float]) -> None:
        """Go on from the state of a checkpoint; one of another precision has no say."""
        if state and self.dtype == torch.float16 and state["scale"] != 1.0:
            self.scale, self._finite_steps = state["scale"], int(state["finite_steps"])
