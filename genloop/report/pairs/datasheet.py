"""The datasheet of a set of preference pairs: where they come from, how many of each task, how sure the labels are."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.pairs.pair import CodeSpace
from genloop.data.pairs.selection import FoundPair, Selection
from genloop.records import TAGS
from genloop.stats.intervals import Interval, clustered_wilson
from genloop.stats.markdown import percent, table_head, table_row

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_NO_TASK = "no task"
_RATES = {
    "prompts_with_pairs": "prompts that gave a pair",
    "right": "images that are right, by the verdict",
    "chosen_right": "chosen images that are right",
    "rejected_right": "rejected images that are right",
    "verdict_agrees": "pairs in which only the chosen image is right",
    "verdict_opposes": "pairs in which only the rejected image is right",
    "continuation_wins": "reopened images whose continuation is preferred",
    "continuation_loses": "reopened images that are preferred to their continuation",
}


def summarize(
    rows: Iterable[Mapping[str, Any]], selection: Selection, sides: Mapping[str, Sequence[FoundPair]]
) -> dict[str, Any]:
    """The counts and rates of a run: of its rows (one a prompt), and of the pairs that are kept, by side."""
    kept, rows = selection.kept, list(rows)
    images = sum(row["images"] for row in rows)
    return {
        "prompts": len(rows),
        "images": images,
        "images_left_out": sum(row["left_out"] for row in rows),
        "pairs": len(kept),
        "found": len(kept) + selection.duplicates + selection.balanced_out,
        "duplicates": selection.duplicates,
        "balanced_out": selection.balanced_out,
        "by_task": _by_task(kept),
        "sides": {
            side: {"pairs": len(pairs), "sentences": len({pair.text for pair in pairs}), "by_task": _by_task(pairs)}
            for side, pairs in sides.items()
        },
        "rates": {name: rate for name, rate in _rates(rows, kept).items() if rate is not None},
        "margin": _quantiles([pair.margin for pair in kept]),
        "differing_tokens": _quantiles([pair.num_differing for pair in kept]),
    }


def datasheet(summary: Mapping[str, Any], sections: Mapping[str, Sequence[str]]) -> str:
    """Markdown: the sections (heading -> lines), then tables of the summary."""
    parts = ["# Preference pairs", ""]
    for heading, lines in sections.items():
        parts += [f"## {heading}", *lines, ""]
    parts += ["## Counts", *_counts(summary), ""]
    sides = summary["sides"]
    tasks = list(summary["by_task"])
    parts += [*table_head(["pairs by task", *tasks, "sentences"])]
    for side, numbers in sides.items():
        cells = [str(numbers["by_task"].get(task, 0)) for task in tasks]
        parts += [table_row([side, *cells, str(numbers["sentences"])])]
    parts += ["", "## Rates", "95 % intervals: Wilson's, a sentence counts as one cluster.", ""]
    parts += table_head(["rate", "n", "share"])
    for name, rate in summary["rates"].items():
        share = Interval(rate["estimate"], rate["low"], rate["high"])
        parts += [table_row([_RATES[name], str(rate["n"]), percent(share)])]
    parts += ["", "## Margins and differences", *table_head(["quantile", *(f"{q:g}" for q in QUANTILES)])]
    for name, key in (("margin of the scores", "margin"), ("tokens that differ", "differing_tokens")):
        parts += [table_row([name, *(f"{value:.4g}" for value in summary[key].values())])]
    return "\n".join(parts).rstrip() + "\n"


def about_codes(space: CodeSpace) -> str:
    """Whose codes the pairs hold."""
    return f"- codes of an image tokenizer with {space.num_codes} codes, sha256 `{space.tokenizer}`"


def about_split(seed: int, val_share: float, held_out: Sequence[Path]) -> list[str]:
    """How sentences are split, and which are not there."""
    files = ", ".join(f"`{path}`" for path in held_out)
    return [
        f"- A sentence is in val when a hash of it and the seed {seed} is below {val_share}.",
        f"- No sentence is one of {files}."
        if files
        else "- No prompts were held out: sentences were compared with none.",
    ]


def _counts(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"- {summary['prompts']} prompts, {summary['images']} images, {summary['images_left_out']} more left out "
        "(unfinished, or without a score or a verdict)",
        f"- {summary['found']} pairs found, {summary['duplicates']} duplicates dropped, {summary['balanced_out']} left "
        f"out to balance tasks, {summary['pairs']} kept",
    ]


def _rates(rows: Sequence[Mapping[str, Any]], kept: Sequence[FoundPair]) -> dict[str, dict[str, Any] | None]:
    judged = [pair for pair in kept if pair.verdicts is not None]

    def of_pairs(holds: Callable[[bool, bool], bool]) -> dict[str, Any] | None:
        return _rate([(holds(*(pair.verdicts or ())), pair.text) for pair in judged])

    return {
        "prompts_with_pairs": _rate([(bool(row["pairs"]), row["prompt"]) for row in rows]),
        "right": _rate([(hit, row["prompt"]) for row in rows for hit in _outcomes(row["right"], row["judged"])]),
        "chosen_right": of_pairs(lambda chosen, rejected: chosen),
        "rejected_right": of_pairs(lambda chosen, rejected: rejected),
        "verdict_agrees": of_pairs(lambda chosen, rejected: chosen and not rejected),
        "verdict_opposes": of_pairs(lambda chosen, rejected: rejected and not chosen),
        "continuation_wins": _rate([(hit, r["prompt"]) for r in rows for hit in _outcomes(r["wins"], r["reopened"])]),
        "continuation_loses": _rate(
            [(hit, r["prompt"]) for r in rows for hit in _outcomes(r["losses"], r["reopened"])]
        ),
    }


def _outcomes(hits: int, trials: int) -> list[bool]:
    return [True] * hits + [False] * (trials - hits)


def _rate(trials: Sequence[tuple[bool, str]]) -> dict[str, Any] | None:
    """{"n", "estimate", "low", "high"} of (hit, sentence) trials; None without any."""
    if not trials:
        return None
    found = clustered_wilson([float(hit) for hit, _ in trials], [text for _, text in trials])
    return {"n": len(trials), **{name: round(value, 6) for name, value in found._asdict().items()}}


def _by_task(pairs: Sequence[FoundPair]) -> dict[str, int]:
    counts = Counter(pair.tag or _NO_TASK for pair in pairs)
    return {tag: counts[tag] for tag in (*TAGS, _NO_TASK) if tag in counts}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    found = np.quantile(np.asarray(values, dtype=np.float64), QUANTILES)
    return {f"{q:g}": round(float(value), 6) for q, value in zip(QUANTILES, found, strict=True)}
