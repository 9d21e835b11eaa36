"""The two ways of taking rows of image tokens through Show-o, each behind its prefix.

B = tokens of rows, V = prefixes (the rows of tokens, again and again), U = rows that are run, n = image tokens, D =
hidden size, R = tokens whose logits are wanted. Grouped rows depend on themselves alone, to the last bit on a CPU.
Padded rows take one pass of a fixed shape: few kernels, and the host waits for nothing.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from genloop.models.common.footprint import kind_of
from genloop.models.common.memory import Budget
from genloop.models.showo.model import ShowO
from genloop.models.showo.padded import PrefixBank, padded_hidden
from genloop.models.showo.prefix import Prefix
from genloop.models.showo.rows import image_hidden
from genloop.sampling.maskgit.settings import SamplingConfig

ROWS = "rows_per_forward"  # the key behind the budget of rows


class Passes(Protocol):
    """What the sampler needs of either way."""

    def run(self, tokens: Tensor, prefixes: Sequence[Prefix]) -> tuple[Tensor, Tensor]:
        """tokens (B, n) behind prefixes (V,) -> hidden states (U, n, D), and which of them each prefix has, (V,).

        Only those of masked tokens are of use.
        """

    def wanted(self, masked: Tensor) -> tuple[Tensor, Tensor]:
        """masked (B, n) -> rows (R,), positions (R,): the masked tokens at least."""


def passes_of(
    model: ShowO, settings: SamplingConfig, *, rows_per_forward: int, slots: int, budget: Budget | None = None
) -> Passes:
    """As `sampling.padded` and `sampling.compile` say."""
    budget = budget or Budget(rows_per_forward, ROWS)
    if not settings.is_padded(kind_of(model.device)):
        return Grouped(model, budget)
    branches = 2 if settings.guidance_scale > 0 else 1
    return Padded(model, budget, backend=settings.compile, rows=branches * slots)


class Grouped:
    """Rows behind prefixes of any lengths, side by side; equal rows are run once, as at the first step."""

    def __init__(self, model: ShowO, budget: Budget) -> None:
        self.model, self.budget = model, budget

    def wanted(self, masked: Tensor) -> tuple[Tensor, Tensor]:
        """See `Passes.wanted`: the masked tokens."""
        rows, positions = masked.nonzero(as_tuple=True)
        return rows, positions

    def run(self, tokens: Tensor, prefixes: Sequence[Prefix]) -> tuple[Tensor, Tensor]:
        """See `Passes.run`."""
        contents = [row.tobytes() for row in tokens.cpu().numpy()]
        distinct: dict[tuple[int, bytes], int] = {}
        first: list[int] = []
        where = []
        for index, prefix in enumerate(prefixes):
            key = (id(prefix), contents[index % len(contents)])
            if key not in distinct:
                distinct[key] = len(first)
                first.append(index)
            where.append(distinct[key])
        order = sorted(range(len(first)), key=lambda number: len(prefixes[first[number]]))
        width, n = self.model.config.phi.hidden_size, tokens.shape[1]
        hidden = torch.empty(len(first), n, width, dtype=self.model.dtype, device=tokens.device)

        def compute(numbers: Sequence[int]) -> Sequence[int]:
            members = [first[number] for number in numbers]
            codes = tokens[[index % len(contents) for index in members]]
            behind = [prefixes[index] for index in members]
            masked = codes == self.model.config.codebook_size
            hidden[list(numbers)] = image_hidden(self.model, codes, behind, masked)
            return numbers

        self.budget.run(order, 1, compute)
        return hidden, torch.tensor(where, device=tokens.device)


class Padded:
    """All rows behind prefixes of one padded length, logits of all tokens.

    Compiled, rows are repeated up to a fixed number, `rows` or what a pass holds, so that one shape is compiled.
    """

    def __init__(self, model: ShowO, budget: Budget, *, backend: str | None = None, rows: int = 1) -> None:
        self.model, self.budget = model, budget
        self._hidden = padded_hidden if backend is None else torch.compile(padded_hidden, backend=backend)
        self._multiple = 1 if backend is None else rows
        self._bank: PrefixBank | None = None
        self._rows: tuple[tuple[Prefix, ...], Tensor] | None = None  # the last prefixes and their numbers

    def wanted(self, masked: Tensor) -> tuple[Tensor, Tensor]:
        """See `Passes.wanted`: all tokens, whatever is masked."""
        rows, n = masked.shape
        index = torch.arange(rows * n, device=masked.device)
        return index // n, index % n

    def run(self, tokens: Tensor, prefixes: Sequence[Prefix]) -> tuple[Tensor, Tensor]:
        """See `Passes.run`; U = V."""
        count, n = len(prefixes), tokens.shape[1]
        numbers, bank = self._numbers(tuple(prefixes))
        codes = tokens.repeat(count // len(tokens), 1)
        hidden = torch.empty(count, n, self.model.config.phi.hidden_size, dtype=self.model.dtype, device=tokens.device)

        def compute(rows: range) -> range:
            part = slice(rows.start, rows.stop)
            short = -len(rows) % min(self._multiple, self.budget.limit)
            found = self._hidden(
                self.model,
                _repeated(codes[part], short),
                _repeated(numbers[part], short),
                bank.keys,
                bank.values,
                bank.mask,
                bank.positions,
            )
            hidden[part] = found[: len(rows)]
            return rows

        self.budget.run(range(count), 1, compute)  # type: ignore[arg-type]
        return hidden, torch.arange(count, device=tokens.device)

    def _numbers(self, prefixes: tuple[Prefix, ...]) -> tuple[Tensor, PrefixBank]:
        """The prefixes of rows, on the device; computed again only when they change."""
        if self._bank is None or not self._bank.has(prefixes):
            self._bank = PrefixBank(self.model, prefixes)
            self._rows = None
        if self._rows is None or self._rows[0] != prefixes:
            self._rows = prefixes, self._bank.numbers(prefixes)
        return self._rows[1], self._bank


def _repeated(part: Tensor, more: int) -> Tensor:
    """(U, ...) -> (U + more, ...), with the first row at the end."""
    return torch.cat([part, part[:1].expand(more, *part.shape[1:])]) if more else part
