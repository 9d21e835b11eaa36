"""A training of a few numbers: a regression whose batches are keyed by the step."""

import json
from pathlib import Path

import torch
from torch import nn

from genloop.distributed import World
from genloop.training.loop import train
from genloop.training.settings import TrainSettings
from genloop.training.task import Loss, Objective, Plan

SETTINGS = TrainSettings(num_steps=12, batch_size=6, lr=0.05, warmup_steps=3, save_every=4, log_every=5)


class Regression(Objective[int, torch.Tensor]):
    """A regression whose batch of step s is keyed by s; items are rows of it."""

    def __init__(self, settings: TrainSettings = SETTINGS, before_step=lambda step: None, dropout: float = 0) -> None:
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))
        self.settings, self.before_step, self.loaded = settings, before_step, 0
        generator = torch.Generator().manual_seed(0)
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def plan(self, step: int) -> Plan[int]:
        return Plan(range(self.settings.batch_size), float(self.settings.batch_size), step)

    def load(self, items, plan) -> torch.Tensor:
        self.loaded = plan.shared
        self.before_step(plan.shared)
        rows = torch.randn(self.settings.batch_size, 3, generator=torch.Generator().manual_seed(plan.shared))
        return rows[list(items)]

    def loss(self, batch: torch.Tensor) -> Loss:
        error = (self.model(batch)[:, 0] - batch.prod(dim=1)).square()
        return Loss(error.sum(), float(len(batch)), {"worst": float(error.detach().max())})


def fit(objective: Regression, run: Path, world: World | None = None) -> None:
    train(objective, objective.settings, run, world or World())


def weights(task: Regression) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in task.model.parameters()]


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith(("_per_s", "cpu_seconds"))} for row in rows]


def whole_run(folder: Path) -> list[torch.Tensor]:
    whole = Regression()
    folder.mkdir()
    fit(whole, folder, World())
    return weights(whole)
