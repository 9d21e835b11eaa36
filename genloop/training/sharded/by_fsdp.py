"""ZeRO stage 3 (weights, gradients and moments are sharded) by torch's FSDP2.

Layers, the members of module lists, are gathered one by one; all ranks must call them equally often, in one order. All
else (embeddings, heads, projectors) is gathered for the whole of a pass, so it may be used in any way.

FSDP2 changes modules in place: class, hooks and parameters. Both forms of each module, plain and sharded, are kept,
and the model is in one of them at a time; parameters of the plain form are empty while it is not in use.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from genloop.training.sharded.learner import Sharded, sharded_like
from genloop.training.task import B, MicroBatch


class ShardedByFsdp(Sharded[B]):
    """`train.zero_stage` 3."""

    def shard(self, build: Callable[[], torch.optim.AdamW]) -> None:
        """Shard layer by layer, then the rest; frozen weights that FSDP2 cannot shard stay whole on every rank."""
        self._other = [(type(module), _attributes(module)) for module in self.model.modules()]
        plain = list(self.model.parameters())
        unsharded = {p for p in plain if not p.requires_grad and (p.ndim == 0 or not p.is_floating_point())}
        mesh = init_device_mesh(plain[0].device.type, (self.world.world_size,))
        for module in (*_layers(self.model), self.losses):
            fully_shard(module, mesh=mesh, ignored_params=unsharded)
        self._emptied = [p for p in plain if p not in unsharded]
        self._empty_plain()
        self.optimizer = build()

    def backward(self, micro: MicroBatch[B] | None, factor: float, *, is_last: bool) -> None:
        """One pass; gradients are reduced into their shards meanwhile."""
        (self.losses(micro) * factor).backward()

    def update(self) -> float:
        """A step of this rank's shards."""
        for parameter in self.trained.values():
            if parameter.grad is not None:
                parameter.grad.mul_(self.world.world_size / self.precision.scale)
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.grad_clip)
        value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if math.isfinite(value):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)  # used once: no step leaves it out from then on
        return value

    def moment(self, parameter: nn.Parameter, name: str) -> Tensor | None:
        """Sharded; nothing of a layer that no loss has used."""
        return self.optimizer.state.get(parameter, {}).get(name)

    def set_moment(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        """Every rank cuts its shard out of the whole value."""
        self.optimizer.state[parameter][name] = value if name == "step" else sharded_like(parameter, value)
        parameter.grad = torch.zeros_like(parameter)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The model is a plain module meanwhile; changes of its weights are dropped."""
        self._to_plain()
        yield
        self._empty_plain()
        self._swap()

    def free(self) -> None:
        """The model stays in its plain form."""
        self._to_plain()
        self._other.clear()

    @torch.no_grad()
    def _to_plain(self) -> None:
        wholes = [p.full_tensor() for p in self.model.parameters() if isinstance(p, DTensor)]
        self._swap()
        for parameter, whole in zip(self._emptied, wholes, strict=True):
            parameter.data = whole

    def _empty_plain(self) -> None:
        for parameter in self._emptied:
            parameter.data = parameter.data.new_empty(0)

    def _swap(self) -> None:
        """Exchange the plain and the sharded form of every module; `train` and `eval` apply to both."""
        for number, module in enumerate(list(self.model.modules())):
            current = type(module), dict(vars(module))
            module.__class__, attributes = self._other[number]
            attributes["training"] = module.training
            vars(module).clear()
            vars(module).update(attributes)
            self._other[number] = current


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module is made of; its tables of parameters, hooks and such are copied, what is in them is not."""
    return {name: copy.copy(value) if isinstance(value, dict) else value for name, value in vars(module).items()}


def _layers(model: nn.Module) -> list[nn.Module]:
    """The members of module lists that can be called, inner ones first."""
    members = {member for module in model.modules() if isinstance(module, nn.ModuleList) for member in module}
    return [m for m in reversed(list(model.modules())) if m in members and type(m).forward is not nn.Module.forward]
