"""The plan of one job: how much there is to do, what a worker holds, how long it takes, what would make it fit."""

import math
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from genloop import job
from genloop.config import JobConfig, words_of
from genloop.planning import Footprint
from genloop.registry import MissingPackage, load
from launch.backends.processors import number_of_gpus
from launch.planning.pace import Pace, calibrate, pace_like

HEADROOM = 0.9  # of a GPU: its context, workspaces and gaps between blocks take the rest
GIB = 2**30
_STAND_INS = "ckpts.stand_in:stand_ins"
_SMALLER = ("rows_per_forward", "images_per_batch", "slots")  # halved
_HALF = ("float32", "bfloat16")
_OTHERWISE = {
    "dtype": _HALF,
    "tokenizer_dtype": _HALF,
    "precision": ("fp32", "bf16"),
    "gradient_checkpointing": (False, True),
    "memory": ("all", "stages"),
    "quantise": ("none", "float8"),
    "offload": (False, True),
}


@dataclass(frozen=True)
class Request:
    """What is asked about: a job with its words, on how many workers."""

    module: ModuleType
    words: tuple[str, ...]
    procs: int
    vram: float | None = None  # GiB of a device
    like: Path | None = None
    calibrate: int | None = None


@dataclass(frozen=True)
class JobPlan:
    """Everything that is known before the first unit; None where it is not, and `notes` say why."""

    job: str
    out: str
    workers: int
    device: str
    units: int | None = None
    items: int | None = None
    steps: int | None = None
    footprint: Footprint | None = None
    fits: bool | None = None
    remedy: str | None = None  # key=value ... that makes it fit
    seconds: Pace | None = None  # of the whole run on all workers
    notes: tuple[str, ...] = ()
    from_shapes: tuple[str, ...] = ()  # checkpoints that are not here, whose memory is that of their public shapes


def plan_job(request: Request) -> JobPlan:
    """Nothing is written; ValueError in one line for bad input, as `genloop run` has it."""
    module = request.module
    config = job.parse(module, request.words)
    name = job.job_name(module)
    plan = _counted(JobPlan(name, str(config.out), request.procs, _device(config, request)), module, config)
    footprint, notes, absent = _footprint(request, request.words)
    plan = replace(plan, footprint=footprint, notes=notes, from_shapes=absent)
    if footprint is not None and request.vram is not None:
        fits = footprint.peak <= request.vram * GIB * HEADROOM
        plan = replace(plan, fits=fits, remedy=None if fits else _remedy(request, config))
    return _timed(plan, request, config)


def _counted(plan: JobPlan, module: ModuleType, config: Any) -> JobPlan:
    if hasattr(config, "train"):
        return replace(plan, steps=config.train.num_steps)
    if not hasattr(module, "work"):
        return plan
    items = module.work(config).items
    return replace(plan, items=items, units=math.ceil(items / config.unit_size))


def _footprint(request: Request, words: Sequence[str]) -> tuple[Footprint | None, tuple[str, ...], tuple[str, ...]]:
    """What a worker holds, notes, and the checkpoints that stand-ins of their public shapes were taken for.

    What is known of no checkpoint is a note that names the command which gets it.
    """
    module = request.module
    with tempfile.TemporaryDirectory(prefix="genloop-plan-") as folder:
        config = job.parse(module, [*words, *words_of({"out": f"{folder}/run"})])
        with load(_STAND_INS)(Path(folder) / "ckpts") as absent:
            try:
                checked = module.check(config) if hasattr(module, "check") else None
            except FileNotFoundError as error:
                if "is not there" not in str(error):
                    raise
                return None, (f"memory is not planned: {job.one_line(error)}",), ()
            if not hasattr(module, "footprint"):
                return None, (_untold(job.job_name(module), config),), ()
            found = module.footprint(config, checked, device=_device(config, request), ranks=request.procs)
    fetch = f"memory is from registry shapes; the weights are not there: run `genloop ckpts fetch {' '.join(absent)}`"
    return found, (fetch,) if absent else (), tuple(absent)


def _untold(name: str, config: JobConfig) -> str:
    """Why there is no footprint: a job without a key for a device needs no GPU."""
    if any(hasattr(config, key) for key in ("device", "train")):
        return f"memory is not planned: {name} does not tell"
    return f"no memory of a GPU: {name} works on the CPU alone"


def _device(config: JobConfig, request: Request) -> str:
    """A GPU where one is asked about or there, unless the config says cpu."""
    keys: Any = getattr(config, "train", config)
    is_gpu = getattr(keys, "device", "cpu") != "cpu" and (request.vram is not None or number_of_gpus() > 0)
    return "cuda" if is_gpu else "cpu"


def _remedy(request: Request, config: JobConfig) -> str | None:
    """The first setting that makes it fit, tried one by one, then together; None when nothing does."""
    assert request.vram is not None
    room = request.vram * GIB * HEADROOM

    def fits(*words: str) -> bool:
        try:
            footprint, *_ = _footprint(request, (*request.words, *words))
        except (ValueError, MissingPackage):  # this job cannot be set so
            return False
        return footprint is not None and footprint.peak <= room

    ways = list(_settings(config, request))
    for tries in ways:
        if fits(tries[-1]):
            return tries[bisect_left(tries[:-1], True, key=fits)]  # the mildest
    strongest = [tries[-1] for tries in ways]
    together = (strongest[:count] for count in range(2, len(strongest) + 1))
    return next((" ".join(words) for words in together if fits(*words)), None)


def _settings(config: JobConfig, request: Request) -> Iterator[list[str]]:
    """For each key that could help, what it may be set to, the mildest first."""
    keys = list(_leaves(config.model_dump(mode="json")))
    for key, value in keys:
        if key.rpartition(".")[2] in _SMALLER and value > 1:
            yield [f"{key}={value >> shift}" for shift in range(1, value.bit_length())]
    for key, value in keys:
        if _OTHERWISE.get(key.rpartition(".")[2], (None,))[0] == value and type(value) in (str, bool):
            yield [f"{key}={str(_OTHERWISE[key.rpartition('.')[2]][1]).lower()}"]
    if request.procs > 1 and getattr(getattr(config, "train", None), "zero_stage", 3) < 3:
        yield ["train.zero_stage=3"]


def _leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _timed(plan: JobPlan, request: Request, config: JobConfig) -> JobPlan:
    """The time of the run, where somebody has measured a part of it."""
    number = plan.steps if plan.steps is not None else plan.items
    if number is None:
        return replace(
            plan, notes=(*plan.notes, "time is not planned: what there is to do is known once it is started")
        )
    if request.like is not None:
        pace = pace_like(request.like, request.module, config, request.procs)
    elif request.calibrate is not None:
        work = None if plan.items is None else request.module.work(config)
        pace = calibrate(request.calibrate, request.module, request.words, work, getattr(config, "unit_size", 1))
    else:
        return replace(plan, notes=(*plan.notes, "time is not calibrated: give --like RUN or --calibrate K"))
    rounds = number if plan.steps is not None else number / min(request.procs, plan.units or 1)
    if request.calibrate is not None and plan.steps is not None:
        rounds /= request.procs  # the trial was that of one worker
    return replace(
        plan, seconds=Pace(pace.seconds * rounds, pace.low * rounds, pace.high * rounds, pace.basis, pace.peak)
    )
