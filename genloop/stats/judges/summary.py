"""What a judge is worth on held-out prompts: every number by question, by step and by task, and its calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genloop.records import HeldOutAnswer
from genloop.stats.judges.quality import (
    JudgeAnswers,
    accuracy,
    area_under_curve,
    auc_within,
    calibration_error,
    describe,
    fit_platt,
    sigmoid,
)

_COLUMNS = ("n", "prompts", "yes", "accuracy", "auc", "auc_within", "ece")


def summarize_judge(rows: Sequence[HeldOutAnswer], seed: int) -> dict[str, Any]:
    """{"overall": {question: numbers}, "by_step", "by_task": {question: {step or task: numbers}}, "calibration"}."""
    questions = list(dict.fromkeys(row.question for row in rows))
    found: dict[str, Any] = {"overall": {}, "by_step": {}, "by_task": {}, "calibration": {}}
    for question in questions:
        members = [row for row in rows if row.question == question]
        found["overall"][question] = describe(_answers(members), seed)
        for key, attribute in (("by_step", "step"), ("by_task", "tag")):
            names = sorted({getattr(row, attribute) for row in members}, key=_order)
            found[key][question] = {
                name: describe(_answers([row for row in members if getattr(row, attribute) == name]), seed)
                for name in names
            }
        calibration = calibrate(members, seed)
        if calibration is not None:
            found["calibration"][question] = calibration
    return found


def calibrate(rows: Sequence[HeldOutAnswer], seed: int) -> dict[str, Any] | None:
    """Platt scaling (a, b) fitted on one half of the prompts, its effect measured on the other; None for few prompts.

    P(yes) = sigmoid(a * margin + b). The halves alternate over the sentences in alphabetical order.
    """
    prompts = sorted({row.prompt for row in rows})
    fitted = set(prompts[::2])
    fit, test = ([row for row in rows if (row.prompt in fitted) == wanted] for wanted in (True, False))
    if len(prompts) < 4:
        return None
    labels, margins = np.array([row.label for row in fit]), np.array([row.margin for row in fit])
    a, b = fit_platt(labels, margins)
    before, after = _answers(test), _answers(test, a=a, b=b)
    return {
        "a": a,
        "b": b,
        "fitted_on": len(fit),
        "measured_on": len(test),
        "ece_before": list(calibration_error(before, seed)),
        "ece_after": list(calibration_error(after, seed)),
    }


def point_estimates(rows: Sequence[HeldOutAnswer], seed: int) -> dict[str, float]:
    """Accuracy, AUC and AUC within prompts of every question, for a line of metrics; undefined ones are left out."""
    found: dict[str, float] = {}
    for question in dict.fromkeys(row.question for row in rows):
        answers = _answers([row for row in rows if row.question == question])
        within, _ = auc_within(answers, seed)
        pooled = float(area_under_curve(answers.labels, answers.p_yes))
        values = {"accuracy": accuracy(answers).estimate, "auc": pooled, "auc_within": within and within.estimate}
        found |= {f"{question}_{name}": v for name, v in values.items() if v is not None and not np.isnan(v)}
    return found


def format_judge(summary: Mapping[str, Any]) -> str:
    """Markdown tables: one row a question, then a question and step, then a question and task, then calibration."""
    parts = ["# The judge on held-out prompts", ""]
    parts += ["Intervals are 95 %, over prompts. P(yes) is that of yes against no.", ""]
    overall: dict[tuple[str, ...], Any] = {(question,): row for question, row in summary["overall"].items()}
    parts += _section("All", overall, ("question",))
    for key, what in (("by_step", "step"), ("by_task", "task")):
        rows: dict[tuple[str, ...], Any] = {
            (question, name): row for question, names in summary[key].items() for name, row in names.items()
        }
        parts += _section(f"By {what}", rows, ("question", what))
    parts += ["## Reliability", "| question | P(yes) in | n | mean P(yes) | share of yes |", "|---|---|---|---|---|"]
    for question, row in summary["overall"].items():
        for bar in row["reliability"]:
            place = f"{bar['low']:.1f} to {bar['high']:.1f}"
            parts.append(f"| {question} | {place} | {bar['n']} | {bar['p_yes']:.3f} | {_shown(bar['yes'])} |")
    parts += ["", "## Calibration (Platt)"]
    parts += ["| question | a | b | fitted on | measured on | ECE before | ECE after |", "|---" * 7 + "|"]
    for question, row in summary["calibration"].items():
        sizes = f"{row['fitted_on']} | {row['measured_on']}"
        errors = f"{_shown(row['ece_before'])} | {_shown(row['ece_after'])}"
        parts.append(f"| {question} | {row['a']:.3f} | {row['b']:.3f} | {sizes} | {errors} |")
    return "\n".join(parts) + "\n"


def _answers(rows: Sequence[HeldOutAnswer], *, a: float = 1.0, b: float = 0.0) -> JudgeAnswers:
    labels, margins = np.array([row.label for row in rows]), np.array([row.margin for row in rows])
    groups = [(row.prompt, row.step) for row in rows]
    return JudgeAnswers(labels, sigmoid(a * margins + b), [row.prompt for row in rows], groups)


def _order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 30, name)


def _section(title: str, rows: Mapping[tuple[str, ...], Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    head = ["n", "prompts", "yes", "accuracy", "AUC", "AUC within prompts", "ECE"]
    lines = [f"## {title}", f"| {' | '.join((*names, *head))} |", "|---" * (len(names) + len(head)) + "|"]
    for key, row in rows.items():
        lines.append(f"| {' | '.join((*key, *(_shown(row[column]) for column in _COLUMNS)))} |")
    return [*lines, ""]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
