"""Saving and resuming a training run: RUN/checkpoints/step-0000500, whole or not there, safetensors only.

A checkpoint holds what is trained of the model, its moving averages, the optimiser's moments, the loss scale and the
sums of the metrics window: all that the next step needs beside the weights that training starts from.
Random numbers are keyed by the step, so there is no generator state to keep.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genloop.checkpoint import MANIFEST_FILE, WEIGHTS_FILE, compare_manifest, read_shapes, save_folder, verify_folder
from genloop.distributed import World
from genloop.reading import object_or_empty, read_bytes, read_json_object, read_object_or_empty
from genloop.registry import require
from genloop.rundir import write_atomic, write_json
from genloop.training.ema import Ema
from genloop.training.reductions import largest_over_ranks

log = logging.getLogger(__name__)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW
BEST_FILE = "best.json"  # beside the checkpoints: the step of the best one
_STEP = "step-"  # opens the name of a checkpoint's folder
_MODEL, _MOMENT, _AVERAGE = "model.", "optimizer.", "ema."


@dataclass
class Progress:
    """Steps done, and the sums since the last line of metrics."""

    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    skipped: int = 0  # steps since the last line of metrics whose gradient was not finite
    skipped_in_a_row: int = 0
    scaler: dict[str, float] = field(default_factory=dict)  # state of the loss scale

    def add(self, sums: dict[str, float]) -> None:
        """Add the sums of one step."""
        self.skipped_in_a_row = 0
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def skip(self) -> None:
        """Count a step that was left out."""
        self.skipped += 1
        self.skipped_in_a_row += 1

    def mean(self) -> dict[str, float]:
        """The sums divided by the weight of the window, and the number of steps that were left out, if any."""
        means = {name: value / self.sums["weight"] for name, value in self.sums.items() if name != "weight"}
        return means | ({"skipped": self.skipped} if self.skipped else {})

    def clear(self) -> None:
        """Begin a new window."""
        self.sums, self.skipped = {}, 0


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    folders = (run / "checkpoints").glob(f"{_STEP}*")
    return sorted(folder for folder in folders if (folder / MANIFEST_FILE).is_file())


def mark_best(run: Path, step: int) -> None:
    """From now on the checkpoint of this step is the best one, which stays on disk."""
    write_json(run / "checkpoints" / BEST_FILE, {"step": step})


def best_checkpoint(run: Path) -> Path | None:
    """The complete checkpoint that was marked as the best."""
    step = read_object_or_empty(run / "checkpoints" / BEST_FILE).get("step")
    folder = _folder_of(run, step) if isinstance(step, int) else None
    return folder if folder is not None and (folder / MANIFEST_FILE).is_file() else None


def load_result(folder: Path, model: nn.Module, *, use_averages: bool) -> None:
    """Give a plain whole model the weights of a checkpoint, or their moving averages, as the end of a training does."""
    load_weights(folder, model)
    if use_averages:
        parameters = dict(model.named_parameters())
        trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
        with torch.no_grad():
            for name, average in load_averages(folder, trained):
                parameters[name].copy_(average)


def _folder_of(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{_STEP}{step:07d}"


def save_state(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None, progress: Progress, *, keep: int
) -> None:
    """Write the checkpoint of this step, then delete all but the newest `keep` and the best."""
    averages = {} if ema is None else ema.averages
    write_state(run, trained_tensors(model), _moments(model, optimizer), progress, keep=keep, averages=averages)


def write_state(
    run: Path,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Tensor],
    progress: Progress,
    *,
    keep: int,
    averages: Mapping[str, Tensor] | None = None,
) -> None:
    """Write weights and their moving averages by name, and moments by NAME/MOMENT, as the checkpoint of this step."""
    tensors = {_MODEL + name: value for name, value in weights.items()}
    tensors |= {_MOMENT + name: value for name, value in moments.items()}
    tensors |= {_AVERAGE + name: value for name, value in (averages or {}).items()}
    folder = _folder_of(run, progress.step)
    save_folder(folder, tensors, {"progress.json": asdict(progress)})
    leftovers = (run / "checkpoints").glob(f".{_STEP}*.tmp")  # of processes that were killed while writing
    best = best_checkpoint(run)
    for old in (*(folder for folder in checkpoints(run)[:-keep] if folder != best), *leftovers):
        shutil.rmtree(old, ignore_errors=True)
        if old.exists():
            log.warning("%s cannot be removed", old)
    log.info("saved %s", folder)


def load_state(
    run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: Ema | None = None, world: World | None = None
) -> Progress:
    """Read the newest whole checkpoint into model, optimiser and averages -> its progress; a fresh one without any.

    Averages that a checkpoint does not hold start from its weights.
    """
    newest = newest_checkpoint(run, world or World())
    if newest is None:
        return Progress()
    progress = load_weights(newest, model)
    names = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, moment, value in load_moments(newest, names, MOMENTS):
        parameter = names[name]
        optimizer.state[parameter][moment] = value if moment == "step" else value.to(parameter.device)
    if ema is not None:
        for name, average in load_averages(newest, ema.averages):
            ema.averages[name].copy_(average)
    return progress


def load_averages(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Name and average, one at a time, on the CPU; the weight itself where a checkpoint holds no average of it."""
    with _opened(folder) as file:
        kept = set(file.keys())
        for name in names:
            yield name, file.get_tensor((_AVERAGE if _AVERAGE + name in kept else _MODEL) + name)


def newest_checkpoint(run: Path, world: World) -> Path | None:
    """The newest checkpoint that is whole; called on all ranks, of which rank 0 reads the files and the others wait."""
    found = (
        next((folder for folder in reversed(checkpoints(run)) if _is_whole(folder)), None) if world.rank == 0 else None
    )
    if world.world_size == 1:
        return found
    step = largest_over_ranks(-1 if found is None else int(found.name.removeprefix(_STEP)))
    return None if step < 0 else _folder_of(run, step)


def load_weights(folder: Path, model: nn.Module) -> Progress:
    """Read a checkpoint's weights into the model, tensor by tensor -> its progress."""
    trained = trained_tensors(model)
    shapes = read_shapes(folder)
    found = {name.removeprefix(_MODEL): shape for name, shape in shapes.items() if name.startswith(_MODEL)}
    compare_manifest({name: tuple(value.shape) for name, value in trained.items()}, found, folder)
    with torch.no_grad(), _opened(folder) as file:
        for name, value in trained.items():
            value.copy_(file.get_tensor(_MODEL + name))
    log.info("resumed from %s", folder)
    return Progress(**read_json_object(folder / "progress.json"))


def load_moments(folder: Path, names: Iterable[str], moments: Sequence[str]) -> Iterator[tuple[str, str, Tensor]]:
    """Name, moment and whole tensor, one at a time, of those that a checkpoint holds; on the CPU."""
    with _opened(folder) as file:
        kept = set(file.keys())
        for name in names:
            for moment in moments:
                if f"{_MOMENT}{name}/{moment}" in kept:
                    yield name, moment, file.get_tensor(f"{_MOMENT}{name}/{moment}")


def _opened(folder: Path) -> Any:
    return require("safetensors").safe_open(folder / WEIGHTS_FILE, "pt", device="cpu")


def cut_lines(path: Path, step: int) -> None:
    """Drop the rows of a JSON-lines file after `step`, whose steps are done again, and lines that are no rows."""
    if not path.is_file():
        return
    lines = read_bytes(path).split(b"\n")[:-1]
    steps = [object_or_empty(line).get("step") for line in lines]
    if num_garbled := sum(type(found) is not int for found in steps):
        log.warning("%s: %d lines that are no rows are dropped", path, num_garbled)
    kept = [line for line, found in zip(lines, steps) if type(found) is int and found <= step]
    write_atomic(path, b"".join(line + b"\n" for line in kept))


def _is_whole(folder: Path) -> bool:
    try:
        verify_folder(folder)
    except ValueError as error:
        log.warning("%s; the one before it will do", error)
        return False
    return True


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that want a gradient, each once, and buffers beside them: all else stays as training found it.

    A buffer counts for the innermost module around it that has parameters: is one of these trained, it is kept.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trained |= {name for name, _ in model.named_buffers() if _is_beside_trained(model, name)}
    return {name: value for name, value in model.state_dict().items() if name in trained}


def _is_beside_trained(model: nn.Module, buffer: str) -> bool:
    name = buffer
    while name:
        name = name.rpartition(".")[0]
        if parameters := list(model.get_submodule(name).parameters()):
            return any(parameter.requires_grad for parameter in parameters)
    return False


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }
