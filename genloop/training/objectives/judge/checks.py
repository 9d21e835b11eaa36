"""What can be said against a judge's training data before anything is loaded. No torch."""

from collections.abc import Collection

from genloop.data.judge.dataset import PATHS, holds
from genloop.data.judge.examples import read_cells
from genloop.models.llava.config import LlavaConfig, llava_manifest
from genloop.registry import check_installed
from genloop.training.objectives.judge.data import JudgeShards
from genloop.training.objectives.judge.settings import BatchSettings, LossSettings
from genloop.training.settings import LoraSettings

ADAPTED = "model.language_model.layers."  # adapters stand beside layers whose names begin so


def check_batch(batch: BatchSettings, sets: Collection[JudgeShards], *, has_conversations: bool) -> None:
    """Refuse a batch that the data cannot fill."""
    if not batch.num_items:
        raise ValueError("batch: groups, scenes and conversations are all 0; a step needs at least one of them")
    batch.check_filled("conversations", there=has_conversations)
    batch.check_filled("groups", there=not batch.groups or _has(sets, PATHS))
    batch.check_filled("scenes", there=not batch.scenes or _has(sets, ("scenes",)))


def check_cells(shards: JudgeShards, grid: int, where: str) -> None:
    """Refuse images whose cells are not the patches of a tower with `grid` of them a side."""
    cells = read_cells(shards.train[0])
    if cells is not None and cells.shape[:2] != (grid, grid):
        raise ValueError(
            f"loss.cells: images of {where} have {cells.shape[0]} x {cells.shape[1]} cells, the vision tower {grid} x "
            f"{grid} patches; set loss.cells=0 or use a tower whose patches are the cells"
        )


def check_questions(batch: BatchSettings, loss: LossSettings, names: Collection[str], where: str) -> None:
    """Refuse questions, those in `where`, that lack the wording of what a batch asks."""
    needed = ["outcome"] if batch.groups or batch.scenes else []
    needed += ["clarity", "potential"] if batch.groups and batch.previews else []
    needed += ["reason"] if loss.reason else []
    if missing := [question for question in needed if question not in names]:
        raise ValueError(
            f"questions: {where} has no {', '.join(missing)} (it has {', '.join(names)}); add the wording, or set "
            "batch.previews=0 (clarity, potential) or loss.reason=0 (reason)"
        )


def check_adapters(lora: LoraSettings, model: LlavaConfig) -> None:
    """Refuse targets that are no layers of the language model; MissingPackage without peft."""
    if lora.rank:
        check_installed("peft", "train")
        shapes = llava_manifest(model)
        weights = [name for name, shape in shapes.items() if name.startswith(ADAPTED) and len(shape) == 2]
        lora.layers_of(name.removesuffix(".weight") for name in weights)


def _has(sets: Collection[JudgeShards], sources: Collection[str]) -> bool:
    """Whether any set has examples of these sources; mostly the first example tells."""
    is_first = any(one.first.source in sources for one in sets)
    return is_first or any(holds(one.train, sources) for one in sets)
