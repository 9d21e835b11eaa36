"""What fails: kinds of failure by task, colours and relations wanted and found, classes, and the worst prompts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from genloop.reading import parse_json
from genloop.records import COLORS, RELATIONS
from genloop.report.failures.reasons import ABOUT, KINDS, MISSING, RELATION, UNREADABLE, FailedClause, failures
from genloop.report.page.pictures import EmbeddedImage, embed
from genloop.report.page.selection import spread
from genloop.report.runs import ReportedImage, ReportedRun
from genloop.stats.intervals import Interval, clustered_wilson

NEITHER, UNSEEN = "neither", "an object is missing"
SHOWN_IMAGES, SHOWN_SIDE = 4, 160  # of a worst prompt


@dataclass(frozen=True, slots=True)
class CountCell:
    """A count among `total`; `interval` where it is a share of images, `heat` from 0 to 1 for its shade."""

    count: int
    total: int
    heat: float
    is_right: bool = False
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class CountTable:
    """Rows of cells under column names; `totals` are what each row is a share of."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[CountCell, ...]], ...]


@dataclass(frozen=True)
class FailedPrompt:
    """One prompt and its images, for the list of the worst."""

    prompt: str
    tag: str
    images: tuple[ReportedImage, ...]

    outcome = "wrong"

    @cached_property
    def right(self) -> int:
        return sum(image.correct for image in self.images)

    @property
    def rate(self) -> float:
        return self.right / len(self.images)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Each reason and how often, the most frequent first."""
        lines = Counter(line for image in self.images for line in image.reason.split("\n") if line)
        return lines.most_common(4)

    @cached_property
    def pictures(self) -> list[tuple[ReportedImage, EmbeddedImage | None]]:
        return [(image, embed(image.path, SHOWN_SIDE)) for image in self.images[:SHOWN_IMAGES]]


def by_kind(run: ReportedRun) -> CountTable:
    """Images of each task that failed in each way; an image that failed in two ways counts in both columns."""
    found = [(image, {failure.kind for failure in failures(image.reason)}) for image in run.images]
    kinds = tuple(kind for kind in KINDS if any(kind in ours for _, ours in found))
    rows = []
    for tag in run.tags:
        ours = [(image, kinds_of) for image, kinds_of in found if image.tag == tag]
        prompts = [image.prompt for image, _ in ours]
        cells = []
        for kind in kinds:
            hits = [float(kind in kinds_of) for _, kinds_of in ours]
            share = clustered_wilson(hits, prompts)
            cells.append(CountCell(int(sum(hits)), len(ours), share.estimate, interval=share))
        rows.append((tag, len(ours), tuple(cells)))
    return CountTable(kinds, tuple(rows))


def kinds_told(table: CountTable) -> list[tuple[str, str]]:
    """What the columns mean."""
    return [(kind, ABOUT[kind]) for kind in table.columns]


def colors(run: ReportedRun) -> CountTable:
    """Requested by classified colour, per object; rows of older runs and of GenEval's own do not record colours."""
    pairs: Counter[tuple[str, str]] = Counter()
    for image in run.images:
        include = _include(image)
        for part in image.row.colors:
            wanted = include[part.clause].get("color", "")
            pairs.update((wanted, named) for named in part.named)
    return _matrix(pairs, COLORS, COLORS)


def relations(run: ReportedRun) -> CountTable:
    """Requested by detected relation, per image; above and left of the target counts in both columns."""
    pairs: Counter[tuple[str, str]] = Counter()
    totals: Counter[str] = Counter()
    for image in run.images:
        missed = failures(image.reason)
        for clause in _include(image):
            if clause.get("position") and all(failure.kind != UNREADABLE for failure in missed):
                wanted = clause["position"][0]
                totals[wanted] += 1
                pairs.update((wanted, found) for found in _found(clause["class"], wanted, missed))
    return _matrix(pairs, RELATIONS, (*RELATIONS, NEITHER, UNSEEN), totals)


def classes(run: ReportedRun, limit: int = 12) -> list[tuple[str, CountCell]]:
    """Classes that are missing most often where a prompt asks for them; of at least three images."""
    asked: dict[str, list[tuple[str, float]]] = {}
    for image in run.images:
        missing = {failure.class_name for failure in failures(image.reason) if failure.kind == MISSING}
        for name in dict.fromkeys(clause["class"] for clause in _include(image)):
            asked.setdefault(name, []).append((image.prompt, float(name in missing)))
    found = []
    for name, hits in asked.items():
        count = int(sum(hit for _, hit in hits))
        if count and len(hits) >= 3:
            share = clustered_wilson([hit for _, hit in hits], [prompt for prompt, _ in hits])
            found.append((name, CountCell(count, len(hits), share.estimate, interval=share)))
    return sorted(found, key=lambda item: (-item[1].heat, -item[1].count, item[0]))[:limit]


def worst(run: ReportedRun, limit: int) -> tuple[list[FailedPrompt], int]:
    """Prompts with the fewest right images, at most `limit`, and how many prompts have no right image at all.

    Ties at the cut-off are spread over the tasks.
    """
    prompts = [FailedPrompt(ours[0].prompt, ours[0].tag, tuple(ours)) for ours in run.by_prompt.values()]
    bad = sorted((prompt for prompt in prompts if prompt.rate < 1), key=lambda prompt: prompt.rate)
    hopeless = sum(prompt.right == 0 for prompt in prompts)
    if len(bad) <= limit:
        return bad, hopeless
    cut = bad[limit].rate
    sure = [prompt for prompt in bad if prompt.rate < cut]
    return sure + spread([prompt for prompt in bad if prompt.rate == cut], limit - len(sure)), hopeless


def _include(image: ReportedImage) -> Sequence[dict[str, Any]]:
    return parse_json(image.metadata).get("include") or ()


def _found(name: str, wanted: str, missed: Sequence[FailedClause]) -> Iterator[str]:
    """The detected relations of the object of a clause, as far as the verdict records them."""
    ours = [failure for failure in missed if failure.class_name == name]
    if any(failure.kind != RELATION for failure in ours):
        yield UNSEEN
    elif ours:
        yield from ours[0].found or (NEITHER,)
    else:
        yield wanted


def _matrix(
    pairs: Counter[tuple[str, str]], rows: Sequence[str], columns: Sequence[str], totals: Counter[str] | None = None
) -> CountTable:
    """The non-empty rows; each count is a share of its row's total."""
    whole = totals or Counter(
        {row: sum(count for (wanted, _), count in pairs.items() if wanted == row) for row in rows}
    )
    shown = tuple(
        column for column in columns if any(pairs[row, column] or row == column for row in rows if whole[row])
    )
    return CountTable(
        shown,
        tuple(
            (row, whole[row], tuple(CountCell(n := pairs[row, c], whole[row], n / whole[row], row == c) for c in shown))
            for row in rows
            if whole[row]
        ),
    )
