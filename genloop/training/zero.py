"""Training with what each rank holds shared out among the ranks: ZeRO (Rajbhandari et al. 2020), by DeepSpeed.

Stage 1 shares out AdamW's moments, stage 2 the gradients too, stage 3 the weights too. DeepSpeed is a library here, in
workers that torchrun starts: the process group, the optimiser, batches, checkpoints and metrics are ours, and a run
goes on under any stage with any number of ranks.

Collective calls must be the same on all ranks, in one order. So every rank does as many forward passes as the one with
the most rows; passes too many count for nothing. Under stage 3 the members of module lists (the layers) are gathered
one by one; all else (embeddings, heads, projectors) is gathered for the whole of a pass, so it may be used in any way.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from genloop.distributed import World
from genloop.registry import require
from genloop.training.optimizer import LR_SCALE, build_optimizer
from genloop.training.passes import LossModule
from genloop.training.precision import Precision
from genloop.training.reductions import add_over_ranks
from genloop.training.settings import LoopSettings
from genloop.training.state import (
    Progress,
    load_moments,
    load_weights,
    newest_checkpoint,
    trained_tensors,
    write_state,
)
from genloop.training.task import B, Objective, Outcome, Step

MOMENTS = ("exp_avg", "exp_avg_sq")
_BUCKET = 1 << 24  # values that travel in one call; of a small model a power of 2 near a sixteenth of it
_SMALL = 100_000  # a tensor of so many values, or a thousandth of the model, is not worth sharing out


class Partitioned(Generic[B]):
    """`train.zero_stage` 1, 2 or 3 on several ranks."""

    equal_passes = True

    def __init__(self, objective: Objective[Any, B], settings: LoopSettings, run: Path, world: World) -> None:
        self.model, self.settings, self.run, self.world = objective.model, settings, run, world
        device = next(self.model.parameters()).device
        self.precision = Precision(settings.precision, device, caches=settings.zero_stage < 3)
        self._pass = LossModule(objective, self.precision)
        optimizer = build_optimizer(self.model, settings, objective.lr_scale_of)
        self._moments_on = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        newest = newest_checkpoint(run)
        self.progress = Progress() if newest is None else load_weights(newest, self.model)
        self._deepspeed = _library(str(device), world)
        self._sharded = self._deepspeed.initialize(
            model=self._pass, optimizer=optimizer, config=_config(self.model, settings, world.world_size)
        )[0]
        if settings.zero_stage == 3:
            for module in _outside_of_lists(self.model):
                for parameter in module.parameters(recurse=False):
                    self._deepspeed.zero.register_external_parameter(self._pass, parameter)
            self._watch_lists_only()
        self._begin_moments()
        if newest is not None:
            self._load_moments(newest)

    def step(self, step: Step[B]) -> Outcome:
        """Add up the gradients of all passes of all ranks, clip them, and take one step of AdamW."""
        world = self.world
        self._pass.begin()
        for micro in step.micro_batches:
            self._sharded.set_gradient_accumulation_boundary(micro.is_last)
            total = self._sharded(micro)
            # DeepSpeed takes the mean over the ranks; we want the sum.
            factor = world.world_size / step.weight if micro.is_counted else 0.0
            self._sharded.backward(total * factor, scale_wrt_gas=False)
            self._pass.count(micro)
        stop = add_over_ranks(self._pass.sums, world)
        for group in self._sharded.optimizer.param_groups:
            group["lr"] = step.lr * group[LR_SCALE]
        self._sharded.step()
        if self._sharded.optimizer.overflow:
            return Outcome(math.inf, self._pass.sums, stop)
        return Outcome(float(self._sharded.get_global_grad_norm()), self._pass.sums, stop)

    def save(self) -> None:
        """Write the checkpoint of this step: all ranks gather tensor by tensor, rank 0 keeps them on the CPU."""
        stage, model = self.settings.zero_stage, self.model
        weights = {} if stage == 3 else trained_tensors(model)
        if stage == 3:
            named = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            weights |= {name: value for name, value in model.state_dict().items() if name not in named}
        moments: dict[str, Tensor] = {}
        utils = self._deepspeed.utils
        for name, parameter in self._moments_on.items():
            if stage == 3:
                self._keep(weights, name, utils.safe_get_full_fp32_param(parameter))
            for moment in MOMENTS:
                self._keep(moments, f"{name}/{moment}", utils.safe_get_full_optimizer_state(parameter, moment))
            self._keep(moments, f"{name}/step", torch.tensor(float(self.progress.step)))
        if self.world.rank == 0:
            write_state(self.run, weights, moments, self.progress, keep=self.settings.keep)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """While the body runs every rank holds the whole weights and may ask the model for itself."""
        if self.settings.zero_stage < 3:
            yield
            return
        with self._deepspeed.zero.unwrap_model_for_generation(self._sharded):
            yield
        self._watch_lists_only()

    def close(self) -> None:
        """Training is over: every rank gets a plain model with the whole weights, and gives back all else."""
        self._sharded.destroy()
        self._sharded.optimizer.optimizer.state.clear()
        if self.settings.zero_stage == 3:
            self._unshare()
        else:
            for parameter in self._moments_on.values():
                parameter._hp_mapping = None  # type: ignore[attr-defined]

    def _begin_moments(self) -> None:
        """AdamW's state of steps done so far; DeepSpeed would make it in the first step, too late to load it."""
        shared = self._sharded.optimizer
        is_third = self.settings.zero_stage == 3
        for part in shared.fp32_partitioned_groups_flat if is_third else shared.single_partition_of_fp32_groups:
            shared.optimizer.state[part] = {
                "step": torch.tensor(float(self.progress.step)),
                **{moment: torch.zeros_like(part) for moment in MOMENTS},
            }
        if not is_third:
            shared._lazy_init_hp_params_optimizer_state()

    def _watch_lists_only(self) -> None:
        """Take DeepSpeed's hooks off all modules that are gathered with the pass.

        It wants all hooked modules called in one order on all ranks. A head or an embedding may not be: what some rows
        ask for is nothing to others.
        """
        gathering = self._sharded.optimizer.parameter_offload
        numbers = {hook.id for hook in (*gathering.forward_hooks, *gathering.backward_hooks)}
        for module in _outside_of_lists(self.model):
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for number in numbers & hooks.keys():
                    del hooks[number]

    def _load_moments(self, folder: Path) -> None:
        utils, rank = self._deepspeed.utils, self.world.rank
        for name, moment, value in load_moments(folder, self._moments_on, MOMENTS):
            parameter = self._moments_on[name]
            if self.settings.zero_stage < 3:
                utils.safe_set_full_optimizer_state(parameter, value, moment)
                continue
            part = torch.zeros(parameter.ds_tensor.numel())  # type: ignore[attr-defined]
            mine = value.flatten()[rank * len(part) : (rank + 1) * len(part)]
            part[: len(mine)] = mine
            utils.safe_set_local_optimizer_state(parameter, part, moment)

    def _keep(self, tensors: dict[str, Tensor], name: str, value: Tensor) -> None:
        if self.world.rank == 0:
            tensors[name] = value.cpu()

    def _unshare(self) -> None:
        """Put whole parameters of the plain kind in the places of shared ones."""
        places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    places.setdefault(parameter, []).append((module, name))
            module._parameters = dict(module._parameters)
        for parameter, users in places.items():
            with self._deepspeed.zero.GatheredParameters([parameter]):
                whole = nn.Parameter(parameter.data.clone(), requires_grad=parameter.requires_grad)
            for module, name in users:
                module._parameters[name] = whole
            parameter.ds_tensor = None  # type: ignore[attr-defined]


def _library(device: str, world: World) -> Any:
    """DeepSpeed, told where it runs and to compile nothing."""
    os.environ.setdefault("DS_ACCELERATOR", device.partition(":")[0])
    os.environ.setdefault("LOCAL_RANK", str(world.local_rank))  # torchrun sets it, srun does not
    deepspeed = require("deepspeed", "train")
    # Compiled at the first use; a process that is killed meanwhile leaves a lock that all later ones wait for.
    require("deepspeed.ops").__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)  # of old names that it calls
    return deepspeed


def _config(model: nn.Module, settings: LoopSettings, world_size: int) -> Mapping[str, Any]:
    """DeepSpeed's own; float32 throughout, as our losses compute in half precision by themselves."""
    size = sum(parameter.numel() for parameter in model.parameters())
    share, bucket = math.ceil(size / world_size), min(_BUCKET, 1 << max(10, (size // 16).bit_length()))
    return {
        "train_micro_batch_size_per_gpu": 1,  # never looked at: a step is as many passes as we say
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.grad_clip,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
            "stage3_max_live_parameters": share,
            "stage3_max_reuse_distance": share,
            "stage3_param_persistence_threshold": min(_SMALL, size // 1000),
        },
    }


def _outside_of_lists(model: nn.Module) -> list[nn.Module]:
    """The modules that are in no nn.ModuleList."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inside = {id(module) for members in lists for module in members.modules()}
    return [module for module in model.modules() if id(module) not in inside]
