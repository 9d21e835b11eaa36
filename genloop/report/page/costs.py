"""What images cost to make: decoding steps, questions to a judge, operations relative to an image without search."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from genloop.report.runs import GenerationRecord


@dataclass(frozen=True, slots=True)
class Expense:
    """Means an image. `relative`: operations, in images without search; None where rows hold no operations."""

    generator_steps: float
    judge_calls: float
    relative: float | None

    @property
    def words(self) -> str:
        """For example "36 steps, 8 judge calls, 2.4x operations"."""
        calls = f", {_short(self.judge_calls)} judge call{'' if self.judge_calls == 1 else 's'}"
        calls = calls if self.judge_calls else ""
        times = f", {_short(self.relative)}× operations" if self.relative is not None else ""
        return f"{_short(self.generator_steps)} steps{calls}{times}"


def unit_of(records: Iterable[GenerationRecord | None]) -> float | None:
    """Operations of one image without search, the unit of relative costs; None when no row records them."""
    alone = (record.cost.flops_without_search for record in records if record is not None)
    return next((flops for flops in alone if flops), None)


def expense(records: Sequence[GenerationRecord | None], unit: float | None) -> Expense | None:
    """The mean over images; None when one of them has no recorded cost."""
    costs = [record.cost for record in records if record is not None and record.cost.generator_steps]
    if not costs or len(costs) < len(records):
        return None
    flops = [cost.flops for cost in costs if cost.flops]
    return Expense(
        sum(cost.generator_steps for cost in costs) / len(costs),
        sum(cost.judge_calls for cost in costs) / len(costs),
        sum(flops) / len(flops) / unit if unit and len(flops) == len(costs) else None,
    )


def mean(expenses: Sequence[Expense | None]) -> Expense | None:
    """The unweighted mean of the tasks, as the overall score is; None when a task has none."""
    known = [found for found in expenses if found is not None]
    if not known or len(known) < len(expenses):
        return None
    relative = [found.relative for found in known if found.relative is not None]
    return Expense(
        sum(found.generator_steps for found in known) / len(known),
        sum(found.judge_calls for found in known) / len(known),
        sum(relative) / len(relative) if len(relative) == len(known) else None,
    )


def _short(number: float) -> str:
    """Three digits are enough."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"
