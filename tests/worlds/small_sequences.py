"""A small training of sequences that has what sharding may stumble over: tied, frozen and integer weights, a head that
only some items use, dropout, gradients that are not finite, and a look at the model between two steps."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genloop.training.task import Loss, Objective, Plan

CODES, WIDTH, LENGTH, ITEMS = 11, 8, 4, 5
SKIPPED = 4  # the step whose gradient is not finite

Item = tuple[int, int]  # step, number
Batch = tuple[Tensor, tuple[int, ...], bool]


class Net(nn.Module):
    """An embedding that is the head too, layers, a second head that has other uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CODES, WIDTH)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.2)) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CODES, bias=False)
        self.extra = nn.Linear(WIDTH, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
        self.head.weight = self.embed.weight
        self.norm.weight.requires_grad_(False)
        self.codes = nn.Parameter(torch.arange(6, dtype=torch.uint8), requires_grad=False)

    def hidden(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D); no forward pass of the module."""
        x = self.embed(ids)
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return self.norm(x)


class Sequences(Objective[Item, Batch]):
    """Predict the next code; item 0 has a second loss."""

    after_every = 2

    def __init__(self, *, dropout: bool = False) -> None:
        self.model = Net()
        for layer in self.model.layers:
            assert isinstance(layer, nn.Sequential)
            layer[1] = nn.Dropout(0.2 if dropout else 0.0)

    def plan(self, step: int) -> Plan[Item]:
        return Plan([(step, number) for number in range(ITEMS)], float(ITEMS))

    def load(self, items: Sequence[Item], plan: Plan[Item]) -> Batch:
        seeds = (torch.Generator().manual_seed(10 * step + number) for step, number in items)
        ids = torch.stack([torch.randint(CODES, (LENGTH,), generator=generator) for generator in seeds])
        return ids, tuple(number for _, number in items), items[0][0] == SKIPPED

    def loss(self, batch: Batch) -> Loss:
        ids, numbers, is_bad = batch
        hidden = self.model.hidden(ids)
        logits = self.model.head(hidden[:, :-1]).float()
        total = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
        if 0 in numbers:
            total = total + self.model.extra(hidden[numbers.index(0)]).float().square().sum()
        if 1 in numbers and is_bad:
            total = total * float("inf")
        return Loss(total, float(len(ids)))

    def after_step(self, step: int) -> dict[str, list[float]]:
        """Use modules in another way and order than the loss does."""
        model, first = self.model, self.model.layers[0]
        assert type(model) is Net
        assert type(first) is nn.Sequential
        assert not model.training
        with torch.no_grad():
            backwards = model.layers[2](first(model.extra.weight))
            whole = sum(float(value.float().sum()) for value in model.state_dict().values())
        return {"seen": [float(backwards.sum()), whole]}
