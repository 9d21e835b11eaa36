"""Agreement with people as text: Markdown for people, plain values for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from genloop.stats.agreement.measure import Agreement, PairedAgreement, TaskAgreement
from genloop.stats.intervals import Interval
from genloop.stats.markdown import percent, table_head, table_row


def markdown(found: Agreement, names: Sequence[str], facts: Mapping[str, object]) -> str:
    """The tables; every rate with its 95 % interval. `names`: the evaluator, and the second one if there is one."""
    lines = [f"# Agreement of {names[0]} with people", ""]
    lines += [f"{key}: {value}  " for key, value in facts.items()]
    lines += [
        "",
        *table_head(
            ["task", "images", "right by people", "right by evaluator", "agreement", "kappa", "precision", "recall"]
        ),
    ]
    lines += [table_row(_of_task(task)) for task in found.tasks]
    if any(margin.majority + margin.minority > 1 for margin in found.margins):
        lines += [
            "",
            f"One annotator agrees with the majority (which includes that annotator) in {percent(found.person)}.",
        ]
    lines.append("")
    lines += table_head(["people", "images", "agreement"])
    for margin in found.margins:
        lines.append(
            table_row([f"{margin.majority} : {margin.minority}", str(margin.images), percent(margin.agreement)])
        )
    if found.paired:
        lines += ["", f"{names[1]} minus {names[0]}, in points of agreement and in kappa:", ""]
        lines += table_head(["task", "images", "agreement", "kappa", "only first / second agrees", "McNemar p", "p"])
        lines += [table_row(_of_pair(pair)) for pair in found.paired]
        lines += [
            "",
            "p: sign-flip permutation test over prompts, of a task Holm-corrected for the number of tasks. McNemar's "
            "test assumes that images of a prompt are independent.",
        ]
    return "\n".join(lines) + "\n"


def as_json(found: Agreement, names: Sequence[str], facts: Mapping[str, object]) -> dict[str, Any]:
    """The same numbers unrounded."""
    parts = {name: [_plain(asdict(one)) for one in getattr(found, name)] for name in ("tasks", "margins", "paired")}
    return {"evaluators": list(names), **facts, **parts, "person": found.person._asdict()}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals as {"estimate", "low", "high"}: asdict keeps named tuples as such."""
    return {key: value._asdict() if isinstance(value, Interval) else value for key, value in values.items()}


def _of_task(task: TaskAgreement) -> list[str]:
    rates = [percent(one) for one in (task.human, task.machine, task.agreement)]
    shares = [percent(one) if one else "" for one in (task.precision, task.recall)]
    return [task.task, f"{task.images} of {task.prompts} prompts", *rates, _kappa(task.kappa), *shares]


def _of_pair(pair: PairedAgreement) -> list[str]:
    points, low, high = (100 * share for share in pair.agreement)
    return [
        pair.task,
        str(pair.images),
        f"{points:+z.1f} ({low:+z.1f} to {high:+z.1f})",
        _kappa(pair.kappa, sign="+"),
        f"{pair.only_first} / {pair.only_other}",
        f"{pair.mcnemar:.3g}",
        f"{pair.p:.3g}",
    ]


def _kappa(value: Interval | None, sign: str = "") -> str:
    return f"{value.estimate:{sign}z.2f} ({value.low:{sign}z.2f} to {value.high:{sign}z.2f})" if value else ""
