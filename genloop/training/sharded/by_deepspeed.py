"""ZeRO stages 1 (moments are sharded) and 2 (gradients too) by DeepSpeed, used as a library.

The process group, the optimiser, batches, checkpoints and metrics are ours.
"""

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from genloop.registry import require
from genloop.training.sharded.learner import Sharded
from genloop.training.task import B, MicroBatch

_BUCKET = 1 << 24  # values that travel in one call; of a small model a power of 2 near a sixteenth of it


class ShardedByDeepSpeed(Sharded[B]):
    """`train.zero_stage` 1 or 2."""

    def shard(self, build: Callable[[], torch.optim.AdamW]) -> None:
        """DeepSpeed gives the optimiser flat shards in the places of the parameters."""
        scalars = [name for name, parameter in self.model.named_parameters() if parameter.ndim == 0]
        if scalars:
            raise ValueError(f"train.zero_stage: DeepSpeed takes no scalar parameters ({scalars[0]}); use 0 or 3")
        self.optimizer = build()
        size = sum(parameter.numel() for parameter in self.model.parameters())
        bucket = min(_BUCKET, 1 << max(10, (size // 16).bit_length()))
        config = {
            "train_micro_batch_size_per_gpu": 1,  # without effect: a step is as many passes as we say
            "gradient_accumulation_steps": 1,
            "gradient_clipping": self.settings.grad_clip,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {
                "stage": self.settings.zero_stage,
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
        }
        device = next(self.model.parameters()).device
        for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"):  # DeepSpeed wants the first, and both alike
            os.environ[name] = str(self.world.local_rank)
        self._deepspeed = _library(device.type)
        place = SimpleNamespace(device_rank=device.index or 0)  # a rank may see its own GPU alone
        self._engine = self._deepspeed.initialize(place, self.losses, self.optimizer, config=config)[0]
        self._make_moments()

    def backward(self, micro: MicroBatch[B] | None, factor: float, *, is_last: bool) -> None:
        """One pass; gradients are reduced into their shards meanwhile, and clipped as they are: as sums over ranks."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine.backward(self._engine(micro) * (factor * self.world.world_size), scale_wrt_gas=False)

    def update(self) -> float:
        """A step of the whole weights: every rank steps its shard, then all shards are gathered."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def moment(self, parameter: nn.Parameter, name: str) -> Tensor:
        """The number of steps is one for all parameters."""
        if name == "step":
            return next(iter(self.optimizer.state.values()))["step"].clone()
        return self._deepspeed.utils.safe_get_full_optimizer_state(parameter, name)

    def set_moment(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        """The number of steps is that of the parameter with the most."""
        if name != "step":
            self._deepspeed.utils.safe_set_full_optimizer_state(parameter, value, name)
            return
        for state in self.optimizer.state.values():
            state["step"].clamp_(min=value)

    def whole(self) -> AbstractContextManager[object]:
        """The model is whole on every rank at all times."""
        return nullcontext()

    def free(self) -> None:
        """The model stays as it is."""
        self._engine.destroy()

    def _make_moments(self) -> None:
        """Take a step of rate 0: DeepSpeed finds moments by parameter only after a step that found those of all."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
            for shard in group["params"]:
                moments = {name: torch.zeros_like(shard) for name in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[shard] = {"step": torch.tensor(0.0), **moments}
        self.backward(None, 0.0, is_last=True)
        self._engine.step()
        for state in self.optimizer.state.values():
            state["step"].zero_()


def _library(device: str) -> Any:
    """DeepSpeed for this kind of device, with its own operators taken away: it would compile them at first use.

    A process that is killed while it compiles leaves a lock that all later ones wait for.
    """
    os.environ["DS_ACCELERATOR"] = device  # what it was installed with has no say
    deepspeed = require("deepspeed", "train")
    accelerator = require("deepspeed.accelerator")
    plain: Any = type(accelerator.get_accelerator())

    class WithoutOperators(plain):
        """Torch's own operators only."""

        def create_op_builder(self, class_name: str) -> None:
            return None

    if plain.__name__ != WithoutOperators.__name__:
        accelerator.set_accelerator(WithoutOperators())
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # of old names that it calls
    return deepspeed
