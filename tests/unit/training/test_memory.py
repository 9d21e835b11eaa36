"""The tables of memory in docs/training.md, against bytes that are counted at every operator."""

import gc
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from genloop.distributed import World
from genloop.models.llava.config import llava_manifest, parse_hf_config
from genloop.models.llava.load import _assemble
from genloop.training.replicated import Replicated
from genloop.training.settings import TrainSettings
from genloop.training.sharded.by_fsdp import _layers
from genloop.training.task import Loss, MicroBatch, Objective, Plan, Step
from tests.runs import ROOT
from tests.worlds.llava_configs import HF
from tests.worlds.memory_counter import MemoryCounter

TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
WIDTH = 128


def cells(row: str) -> list[str]:
    """The cells of a row of a table, behind its first."""
    line = re.search(rf"^\| {re.escape(row)}.*$", TEXT, re.M)
    assert line, row
    return [cell.strip() for cell in line[0].strip("| ").split("|")][1:]


def number(cell: str) -> float:
    """The number at the start of a cell; 0 for a dash."""
    found = re.match(r"\d+(\.\d+)?", cell)
    return float(found[0]) if found else 0.0


class Wide(Objective[int, Tensor]):
    """Next to no activations beside the weights."""

    def __init__(self) -> None:
        self.model = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(32)])

    def plan(self, step: int) -> Plan[int]:
        return Plan([0], 1.0)

    def load(self, items, plan) -> Tensor:
        return torch.zeros(1, WIDTH)

    def loss(self, batch: Tensor) -> Loss:
        return Loss(self.model(batch).float().sum(), 1.0)


@pytest.mark.parametrize(("column", "precision"), [(0, "fp32"), (1, "bf16")])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_bytes_a_weight_of_a_step_are_those_of_the_table(tmp_path, column, precision, ema):
    def step() -> Step[Tensor]:
        batches: Iterator[MicroBatch[Tensor]] = iter([MicroBatch(torch.zeros(1, WIDTH), 0, is_last=True)])
        return Step(1, 1e-3, 1.0, 1, batches)

    with MemoryCounter() as counter:
        learner = Replicated(Wide(), TrainSettings(precision=precision, ema=ema), tmp_path, World())
        weights = sum(p.numel() for p in learner.model.parameters())
        learner.add_up(step())
        learner.step(step())
        gc.collect()
        held = counter.live
        counter.peak = held
        learner.add_up(step())
        in_pass, counter.peak = counter.peak - held, held
        learner.step(step())
        in_step = counter.peak - held
    average = number(cells("moving average, with `ema`")[column]) if ema else 0
    assert held / weights == pytest.approx(number(cells("weight, gradient, two moments")[column]) + average, abs=0.1)
    assert in_pass / weights == pytest.approx(number(cells("copy in half precision")[column]), abs=0.6)  # of one layer
    assert in_step / weights == pytest.approx(number(cells("temporary values of AdamW")[column]), abs=0.1)


def test_figures_of_the_7b_judge_are_those_of_its_shapes():
    config = parse_hf_config(HF, "config.json")
    state = {key: torch.empty(shape, device="meta") for key, shape in llava_manifest(config).items()}
    model = _assemble(config, state)
    weights = sum(parameter.numel() for parameter in model.parameters())
    in_layers = {parameter for layer in _layers(model) for parameter in layer.parameters()}
    outside = sum(parameter.nbytes for parameter in model.parameters() if parameter not in in_layers)
    assert f"{weights / 1e9:.1f} billion weights, N = 8" in TEXT
    assert f"embeddings, head and projector of the 7B judge: {outside / 1e9:.1f} GB" in TEXT
    assert f"RUN/judge's making: {4 * weights / 1e9:.0f} GB" in TEXT
    assert f"{12 * weights / 1e9:.0f} GB of host memory" in TEXT
    for stage, (whole, shared) in enumerate([(16, 0), (8, 12), (4, 16), (0, 16)]):
        row = cells(f"{stage} |")
        formula = " + ".join(part for part in (str(whole) * (whole > 0), f"{shared} / N" * (shared > 0)) if part)
        assert row[2:] == [formula, f"{(whole + shared / 8) * weights / 1e9:.0f} GB"]
