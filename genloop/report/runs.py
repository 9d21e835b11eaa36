"""Evaluate runs as the report sees them: judged images, how each came about, and what is unfinished or missing.

How an image came about stands in the rows of the generate run that lies around its images folder. Images that were
made elsewhere have none; then the page shows verdicts only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genloop import ledger, rundir
from genloop.config import read_yaml
from genloop.reading import read_json_object
from genloop.records import TAGS, unpack_tokens
from genloop.runs.evaluations import Evaluation, judged_image, read_card, read_evaluated
from genloop.runs.generated import DRAWING_JOBS, read_generated
from genloop.runs.lineage import locate
from genloop.runs.rows import EvaluatedRow, GeneratedRow, GenerationCost, RecordedCandidate
from genloop.stats.rates import Kind


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRecord:
    """How one image came about, from its row of a generate run: every candidate, and what judges said about each."""

    strategy: str
    grid: tuple[int, int]
    num_steps: int
    revealed_at: np.ndarray | None  # (h*w,) step, from 0, that fixed each token; None: of latents
    chosen: int
    candidates: tuple[RecordedCandidate, ...]
    cost: GenerationCost
    question: str = "outcome"  # the one that decided
    previews: Path | None = None  # what the judge was shown: one row a candidate, one column a step

    @property
    def p_yes(self) -> dict[int, float | None]:
        """P(yes) of each candidate to the question that decided; None when dropped."""
        return {candidate.candidate: candidate.p_yes.get(self.question) for candidate in self.candidates}


@dataclass(frozen=True, slots=True, eq=False)
class ReportedImage:
    """One image with its prompt and its verdict."""

    prompt_index: int
    sample: int
    prompt: str
    tag: str
    metadata: str  # the prompt's GenEval metadata as canonical JSON
    path: Path
    correct: bool
    reason: str
    record: GenerationRecord | None
    row: EvaluatedRow  # what was found, its colours, its areas

    @property
    def key(self) -> tuple[str, str]:
        """What makes two prompts the same prompt, in any run."""
        return self.prompt, self.metadata

    @property
    def place(self) -> tuple[int, int]:
        return self.prompt_index, self.sample


@dataclass(frozen=True)
class ReportedRun:
    """One evaluate run; `generate` is the run folder that its images came from, when it is there, `made` its units."""

    number: int
    name: str
    folder: Path
    images: tuple[ReportedImage, ...]
    counts: ledger.Counts
    generate: Path | None
    made: ledger.Counts | None = None
    intervals: Kind = "bootstrap"  # as the run was told

    @property
    def letter(self) -> str:
        """A, B, ... Z, A2, B2, ..."""
        return chr(ord("A") + self.number % 26) + (str(self.number // 26 + 1) if self.number >= 26 else "")

    @property
    def is_rewritten(self) -> bool:
        """Whether images were made from rewritten prompts: a score of another kind."""
        return any(image.row.prompt_source == "rewritten" for image in self.images)

    @cached_property
    def by_prompt(self) -> dict[tuple[str, str], list[ReportedImage]]:
        """The images of each prompt, in the order of the prompt file."""
        groups: dict[tuple[str, str], list[ReportedImage]] = {}
        for image in self.images:
            groups.setdefault(image.key, []).append(image)
        return groups

    @cached_property
    def evaluation(self) -> Evaluation:
        """The same verdicts and their card, as comparisons take them."""
        return Evaluation(self.folder, [judged_image(image.row) for image in self.images], read_card(self.folder))

    @cached_property
    def tags(self) -> list[str]:
        """The tasks of this run in GenEval's order, unknown ones last."""
        found = {image.tag for image in self.images}
        return [tag for tag in TAGS if tag in found] + sorted(found.difference(TAGS))


def check_runs(folders: Sequence[Path], controls: Sequence[tuple[Path, Path]] = ()) -> None:
    """ValueError or FileNotFoundError unless every folder is a run of evaluate with a finished unit.

    `controls` are pairs of these folders.
    """
    if not folders:
        raise ValueError("no run given; name at least one run folder of `evaluate`")
    for folder in folders:
        found = rundir.read_run(folder)
        if found is None:
            raise FileNotFoundError(
                f"{folder} is not a run folder: it has no run.json; name the `out` of an evaluate run"
            )
        if found["job"] != "evaluate":
            hint = f", or judge its images first: images={folder / 'images'}" if found["job"] in DRAWING_JOBS else ""
            raise ValueError(
                f"{folder} is a run of {found['job']}; runs of evaluate have a page together, any other run one of its "
                f"own: `genloop report {folder}`{hint}"
            )
        if not ledger.finished(folder):
            raise ValueError(f"{folder} has no finished unit yet, there is nothing to report")
    known = {folder.resolve() for folder in folders}
    for folder in (folder for pair in controls for folder in pair):
        if folder.resolve() not in known:
            raise ValueError(f"controls: {folder} is not among `runs`")


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """The given evaluate runs, whole or as far as they are; errors of `check_runs`."""
    check_runs(folders)
    names = short_names(folders)
    return [_read_run(folder, number, names[number]) for number, folder in enumerate(folders)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest trailing part of each path that tells it from the others; equal paths stay equal."""
    parts = [folder.resolve().parts for folder in folders]

    def tail(i: int) -> str:
        others = [other for other in parts if other != parts[i]]
        depth = 1
        while depth < len(parts[i]) and any(other[-depth:] == parts[i][-depth:] for other in others):
            depth += 1
        return "/".join(parts[i][-depth:])

    return [tail(i) for i in range(len(parts))]


def _read_run(folder: Path, number: int, name: str) -> ReportedRun:
    config = read_yaml(folder / "config.yaml")
    if not isinstance(config.get("images"), str):
        raise ValueError(f"{folder / 'config.yaml'}: does not say where the images are (`images`)")
    images_folder = locate(Path(config["images"]), folder)
    generate = _generate_run(images_folder)
    records = {row.image: generation_record(generate, row) for row in read_generated(generate)} if generate else {}
    rows = sorted(read_evaluated(folder), key=lambda row: (row.prompt_index, row.sample))
    images = tuple(_image(row, images_folder, records) for row in rows)
    made = _counts(generate) if generate else None
    return ReportedRun(number, name, folder, images, _counts(folder), generate, made, _intervals(folder, config))


def _intervals(folder: Path, config: Mapping[str, Any]) -> Kind:
    """What the evaluation was asked for last: a finished run may be summed up again."""
    path = folder / "summary.json"
    asked = read_json_object(path) if path.is_file() else config
    return asked.get("intervals", ReportedRun.intervals)


def _image(row: EvaluatedRow, images: Path, records: Mapping[str, GenerationRecord]) -> ReportedImage:
    return ReportedImage(
        prompt_index=row.prompt_index,
        sample=row.sample,
        prompt=row.prompt,
        tag=row.tag,
        metadata=json.dumps(row.metadata or {}, sort_keys=True),
        path=images / row.image,
        correct=row.correct,
        reason=row.reason,
        record=records.get(f"{images.name}/{row.image}"),
        row=row,
    )


def _generate_run(images: Path) -> Path | None:
    found = rundir.read_run(images.parent)
    return images.parent if found is not None and found["job"] in DRAWING_JOBS else None


def generation_record(run: Path, row: GeneratedRow) -> GenerationRecord:
    """How the image of a row came about."""
    return GenerationRecord(
        strategy=row.strategy,
        grid=row.grid,
        num_steps=row.num_steps,
        revealed_at=unpack_tokens(row.revealed_at) if row.revealed_at else None,
        chosen=row.chosen,
        candidates=row.candidates,
        cost=row.cost,
        question=row.outcome_question(),
        previews=run / row.previews if row.previews else None,
    )


def _counts(folder: Path) -> ledger.Counts:
    """Units in each state; a run without plan.json counts what is there."""
    return ledger.count(folder, ledger.plan_of(folder).get("units", len(ledger.finished(folder))))
