"""A comparison as text: Markdown for people, plain values for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from genloop.runs.provenance import UPPER_BOUND
from genloop.stats.comparison.compare import OVERALL, Change, ChangedPrompt, Comparison
from genloop.stats.comparison.regime import Differing, in_words
from genloop.stats.markdown import percent, table_head, table_row
from genloop.stats.nearness import WITHIN
from genloop.stats.rates import MARKS, legend

RESULTS = {"better": "better", "worse": "worse", "same": "not significant"}


def markdown(found: Comparison, names: tuple[str, str], conditions: Sequence[Differing], *, num_flips: int = 20) -> str:
    """The tables of a comparison of run b with run a; every number with its 95 % interval."""
    overall = found.changes[-1]
    lines = [f"# {names[1]} minus {names[0]}", "", sentence(overall, names), ""]
    if conditions:
        lines += [f"The runs {in_words(conditions)}.", ""]
    for name, is_bound in zip(names, found.upper_bounds):
        lines += [f"{name} was {UPPER_BOUND}.", ""] if is_bound else []
    if any(found.unpaired):
        lines += [f"Images without a partner, left out: {found.unpaired[0]} of a, {found.unpaired[1]} of b.", ""]
    lines += table_head(["task", "n", "a", "b", "b - a, points", "p", "result", "detectable"])
    lines += [table_row(_of_change(change)) for change in found.changes]
    lines += ["", _legend(found.changes), ""]
    lines += table_head(["task", "images only a / b", "McNemar p", "prompts worse / better", "sign p"])
    lines += [table_row(_of_signs(change)) for change in found.changes]
    lines += ["", *_nearness(found), "", *_flips(found.flips, num_flips)]
    return "\n".join(lines) + "\n"


def as_json(found: Comparison, names: tuple[str, str], conditions: Sequence[Differing]) -> dict[str, Any]:
    """The same numbers unrounded, and every prompt whose verdicts differ."""
    return {
        "a": names[0],
        "b": names[1],
        "differs": [one._asdict() for one in conditions],
        "upper_bound": dict(zip("ab", found.upper_bounds)),
        "unpaired": {"a": found.unpaired[0], "b": found.unpaired[1]},
        "changes": [
            {
                **asdict(change),
                **{"a": change.a.to_json(), "b": change.b.to_json(), "difference": change.difference._asdict()},
                "result": change.result,
            }
            for change in found.changes
        ],
        "near_threshold": {
            "within": WITHIN,
            **{side: near and near.to_json() for side, near in zip("ab", found.near)},
            "of_the_flips": found.near_flips,
        },
        "flips": [_flip_json(flip) for flip in found.flips],
    }


def sentence(overall: Change, names: tuple[str, str]) -> str:
    """The overall difference, its interval and its p-value in one sentence."""
    points, low, high = overall.difference
    if overall.result == "same":
        claim = f"not significant (p {_is(overall.p)})"
        reach = "no difference" if overall.detectable is None else f"a difference of {100 * overall.detectable:.1f}"
        claim += f"; with these prompts {reach} is found in 80 % of cases"
    else:
        claim = f"significant (p {_is(overall.p)})"
    distance = f"{100 * abs(points):.1f} points {'higher' if points > 0 else 'lower'} than" if points else "the same as"
    return f"{names[1]} scores {distance} {names[0]} (95 % interval {_signed(low)} to {_signed(high)}): {claim}."


def _of_change(change: Change) -> list[str]:
    points, low, high = change.difference
    return [
        change.task,
        f"{change.images} of {change.prompts}",
        percent(change.a.interval, MARKS[change.a.method]),
        percent(change.b.interval, MARKS[change.b.method]),
        f"{_signed(points)} ({_signed(low)} to {_signed(high)})",
        _p(change.p),
        RESULTS[change.result],
        "none" if change.detectable is None else f"{100 * change.detectable:.1f}",
    ]


def _of_signs(change: Change) -> list[str]:
    return [
        change.task,
        f"{change.only_a} / {change.only_b}",
        _p(change.mcnemar),
        f"{change.worse} / {change.better}",
        _p(change.sign),
    ]


def _legend(changes: Sequence[Change]) -> str:
    methods = [side.method for change in changes for side in (change.a, change.b)]
    return (
        f"{legend(methods)}; of b - a: paired bootstrap over prompts. n: images of prompts. p: sign-flip permutation "
        "test over prompts, Holm-corrected for the number of tasks. detectable: the true difference in points that "
        "this test finds with 80 % power when only this task differs; none: too few prompts. McNemar's test assumes "
        f"that images of a prompt are independent. {OVERALL}: mean of the tasks; McNemar's and the sign test pool them."
    )


def _nearness(found: Comparison) -> list[str]:
    lines = []
    for side, near in zip("ab", found.near):
        lines.append(f"- {side}: {near or 'its rows hold no distances of scores to thresholds'}")
    if found.near_flips is not None:
        turned = sum(len(flip.turned) for flip in found.flips)
        lines.append(f"- of the {turned} images whose verdicts differ: {found.near_flips}")
    return [f"Decisions within {WITHIN} of a threshold:", "", *lines]


def _flips(flips: Sequence[ChangedPrompt], limit: int) -> list[str]:
    if not flips:
        return ["No verdict differs."]
    better, worse = (sum(sign * (flip.b - flip.a) > 0 for flip in flips) for sign in (1, -1))
    shown = f"; the {limit} that changed most, all are in comparison.json" if len(flips) > limit else ""
    lines = [
        f"{better} prompts got better, {worse} worse, {len(flips) - better - worse} changed without either{shown}:"
    ]
    lines += ["", *table_head(["prompt", "task", "a", "b", "wrong because (a)", "wrong because (b)"])]
    for flip in flips[:limit]:
        reasons = [_reasons([pair[side].reason for pair in flip.turned]) for side in (0, 1)]
        where = f"{flip.prompt_index} {flip.text}"
        lines.append(table_row([where, flip.tag, f"{flip.a}/{flip.images}", f"{flip.b}/{flip.images}", *reasons]))
    return lines


def _reasons(texts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(text.replace("\n", ", ") for text in texts if text))


def _flip_json(flip: ChangedPrompt) -> dict[str, Any]:
    images = [
        {"sample": a.sample, "a": a.correct, "b": b.correct, "reason_a": a.reason, "reason_b": b.reason}
        for a, b in flip.turned
    ]
    plain = {"prompt_index": flip.prompt_index, "prompt": flip.text, "tag": flip.tag, "images": flip.images}
    return {**plain, "a": flip.a, "b": flip.b, "turned": images}


def _signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text


def _is(p: float) -> str:
    return _p(p) if p < 0.001 else f"= {_p(p)}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
