"""The images of the page: cards with every run's image for a prompt, close-ups of how images came about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

from genloop.data.members import is_there
from genloop.report.page.costs import Expense, expense
from genloop.report.page.pictures import FRAME_WIDTH, EmbeddedImage, Frame, embed, filmstrip
from genloop.report.page.selection import spread
from genloop.report.page.trajectories import CandidateTrajectories, trajectories
from genloop.report.runs import GenerationRecord, ReportedImage, ReportedRun

BAR_HEIGHT = 36.0  # px for P(yes) = 1
NUM_FRAMES = 8


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt and, of each run that has it, the image of the same sample."""

    prompt: str
    tag: str
    images: tuple[tuple[ReportedRun, ReportedImage], ...]

    @property
    def outcome(self) -> str:
        """right or wrong when the runs agree, else mixed."""
        verdicts = {image.correct for _, image in self.images}
        return "mixed" if len(verdicts) > 1 else "right" if verdicts == {True} else "wrong"


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """One run's image of a card; `picture` is None when its file is missing."""

    run: ReportedRun
    image: ReportedImage
    picture: EmbeddedImage | None
    alt: str


@dataclass(frozen=True, slots=True)
class Card:
    """One case of the gallery."""

    case: Case
    shots: tuple[GalleryImage, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """The judge's P(yes) for one candidate, as a bar of `height` px."""

    label: str
    height: float
    is_chosen: bool


@dataclass(frozen=True, slots=True)
class ImageHistory:
    """How one image was made: the filmstrip, and the candidates when there were several."""

    name: str
    prompt: str
    picture: EmbeddedImage
    frames: tuple[Frame, ...]
    width: int
    height: float
    bars: tuple[Bar, ...]
    choice: str
    expense: Expense | None
    trajectories: CandidateTrajectories | None
    run: ReportedRun | None = None  # None: nobody has judged the image
    image: ReportedImage | None = None


@dataclass(frozen=True, slots=True)
class Closeup:
    """One case with its history in every run that recorded one."""

    case: Case
    histories: tuple[ImageHistory, ...]


def cases(runs: Sequence[ReportedRun]) -> list[Case]:
    """Every (prompt, sample) of any run, in the order of the first run's prompt file, prompts of later runs last."""
    keys = dict.fromkeys(key for run in runs for key in run.by_prompt)
    found = []
    for key in keys:
        columns = [[(run, image) for image in run.by_prompt.get(key, ())] for run in runs]
        for row in zip_longest(*columns):
            present = tuple(entry for entry in row if entry is not None)
            found.append(Case(present[0][1].prompt, present[0][1].tag, present))
    return found


def cards(found: Sequence[Case], limit: int) -> list[Card]:
    """At most `limit` cards, spread over tasks and outcomes."""
    return [Card(case, tuple(_gallery_images(case))) for case in spread(found, limit)]


def extremes(found: Sequence[Case], limit: int) -> list[tuple[str, list[Card]]]:
    """The best and the worst cases, one a prompt: by verdicts, then by what the judge said of the chosen images.

    Cases that lack an image file are left out.
    """
    groups = {
        "Best": [case for case in sorted(found, key=_worth, reverse=True) if _worth(case)[0] > 0],
        "Worst": [case for case in sorted(found, key=_worth) if _worth(case)[0] < 1],
    }
    shown = {name: list(islice(_complete(cases), limit)) for name, cases in groups.items()}
    return [(name, cards) for name, cards in shown.items() if cards]


def _complete(found: Sequence[Case]) -> Iterator[Card]:
    """The cards of the first case of each prompt, of which all images are there."""
    seen = set()
    for case in found:
        if (case.prompt, case.tag) not in seen:
            card = Card(case, tuple(_gallery_images(case)))
            if all(shot.picture for shot in card.shots):
                seen.add((case.prompt, case.tag))
                yield card


def _worth(case: Case) -> tuple[float, float]:
    """Share of the images that are right; mean P(yes) of those that a judge was asked about."""
    records = [image.record for _, image in case.images if image.record]
    asked = [p for record in records if (p := record.p_yes.get(record.chosen)) is not None]
    return sum(image.correct for _, image in case.images) / len(case.images), sum(asked) / max(1, len(asked))


def closeups(found: Sequence[Case], limit: int, unit: float | None) -> list[Closeup]:
    """At most `limit` close-ups of images whose rows say how they came about; `unit` is that of their expenses."""
    recorded = [case for case in found if any(image.record and is_there(image.path) for _, image in case.images)]
    shown = []
    for number, case in enumerate(spread(recorded, limit)):
        histories = [_history(f"path{number}-{run.number}", run, image, unit) for run, image in case.images]
        shown.append(Closeup(case, tuple(history for history in histories if history is not None)))
    return [closeup for closeup in shown if closeup.histories]


def missing_images(run: ReportedRun) -> int:
    """How many of a run's images are not where they were."""
    return sum(not is_there(image.path) for image in run.images)


def _gallery_images(case: Case) -> Iterator[GalleryImage]:
    for run, image in case.images:
        yield GalleryImage(run, image, embed(image.path), f"{image.prompt}: sample {image.sample} of {run.name}")


def _history(name: str, run: ReportedRun, image: ReportedImage, unit: float | None) -> ImageHistory | None:
    found = history(name, image.prompt, image.record, image.path, unit) if image.record else None
    return replace(found, run=run, image=image) if found else None


def history(name: str, prompt: str, record: GenerationRecord, image: Path, unit: float | None) -> ImageHistory | None:
    """How an image came about; None when its file is missing."""
    picture = embed(image)
    if picture is None:
        return None
    rows, columns = record.grid
    return ImageHistory(
        name=name,
        prompt=prompt,
        picture=picture,
        frames=_frames(record),
        width=FRAME_WIDTH,
        height=round(FRAME_WIDTH * rows / columns, 2),
        bars=_bars(record),
        choice=_choice(record),
        expense=expense([record], unit),
        trajectories=trajectories(record, image),
    )


def _frames(record: GenerationRecord) -> tuple[Frame, ...]:
    """What was decided at some of its steps; of latents everything changes at every step, and there is nothing."""
    if record.revealed_at is None:
        return ()
    return tuple(filmstrip(record.revealed_at, record.grid, record.num_steps, num_frames=NUM_FRAMES))


def _bars(record: GenerationRecord) -> tuple[Bar, ...]:
    """One bar a candidate; none when there was no choice or nobody judged."""
    scores = record.p_yes
    if len(scores) < 2 or all(value is None for value in scores.values()):
        return ()
    return tuple(
        Bar("dropped" if p is None else f"{p:.2f}", _bar_height(p), index == record.chosen)
        for index, p in scores.items()
    )


def _bar_height(p_yes: float | None) -> float:
    """In px; a score of 0 is still seen, a dropped candidate is not."""
    return 0.0 if p_yes is None else round(max(BAR_HEIGHT * p_yes, 2.0), 1)


def _choice(record: GenerationRecord) -> str:
    known = [value for value in record.p_yes.values() if value is not None]
    if not known:
        return ""
    best = record.p_yes.get(record.chosen)
    score = "not scored" if best is None else f"P(yes) {best:.2f}"
    mean = sum(known) / len(known)
    return f"candidate {record.chosen} of {len(record.p_yes)} chosen: {score}; mean {mean:.2f}"
