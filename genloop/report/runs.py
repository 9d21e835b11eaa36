"""Evaluate runs as the report sees them: judged images, how each came about, and what is unfinished or missing.

How an image came about stands in the rows of the generate run that lies around its images folder. Images that were
made elsewhere have none; then the page shows verdicts only.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from genloop import ledger, rundir
from genloop.checkpoint import read_json
from genloop.config import read_yaml
from genloop.records import TAGS, unpack_tokens
from genloop.runs.verdicts import read_verdicts
from genloop.stats.comparison.rows import Evaluation, judged_image, read_card
from genloop.stats.rates import Kind


class Answer(NamedTuple):
    """What a judge said of a candidate after some of its steps; None: no answer."""

    step: int
    question: str
    p_yes: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate on its way: every answer about it, where it was cut, what it was made from, what was wrong."""

    index: int
    p_yes: float | None  # to the question that decides; None when nobody said
    answers: tuple[Answer, ...] = ()
    cut_at: int | None = None
    parent: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Making:
    """One image's row of a generate run: when each token was fixed, and what the judge said of every candidate."""

    strategy: str
    grid: tuple[int, int]
    num_steps: int
    revealed_at: np.ndarray  # (h*w,) step, from 0, that fixed each token
    chosen: int
    candidates: tuple[Candidate, ...]
    cost: Mapping[str, float]
    previews: Path | None = None  # what the judge was shown: one row a candidate, one column a step

    @property
    def p_yes(self) -> dict[int, float | None]:
        """P(yes) of each candidate to the question that decides; None when dropped."""
        return {candidate.index: candidate.p_yes for candidate in self.candidates}


@dataclass(frozen=True, slots=True, eq=False)
class JudgedImage:
    """One image with its prompt and its verdict."""

    prompt_index: int
    sample: int
    prompt: str
    tag: str
    metadata: str  # the prompt's GenEval metadata as canonical JSON
    path: Path
    correct: bool
    reason: str
    making: Making | None
    evidence: Mapping[str, Any] = field(default_factory=dict)  # the row: what was found, its colours, its areas

    @property
    def key(self) -> tuple[str, str]:
        """What makes two prompts the same prompt, in any run."""
        return self.prompt, self.metadata

    @property
    def place(self) -> tuple[int, int]:
        return self.prompt_index, self.sample


@dataclass(frozen=True)
class Run:
    """One evaluate run; `generate` is the run folder that its images came from, when it is there, `made` its units."""

    number: int
    name: str
    folder: Path
    images: tuple[JudgedImage, ...]
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
        return any(image.evidence.get("prompt_source") == "rewritten" for image in self.images)

    @cached_property
    def by_prompt(self) -> dict[tuple[str, str], list[JudgedImage]]:
        """The images of each prompt, in the order of the prompt file."""
        groups: dict[tuple[str, str], list[JudgedImage]] = {}
        for image in self.images:
            groups.setdefault(image.key, []).append(image)
        return groups

    @cached_property
    def evaluation(self) -> Evaluation:
        """The same verdicts and their card, as comparisons take them."""
        return Evaluation(self.folder, [judged_image(image.evidence) for image in self.images], read_card(self.folder))

    @cached_property
    def tags(self) -> list[str]:
        """The tasks of this run in GenEval's order, unknown ones last."""
        found = {image.tag for image in self.images}
        return [tag for tag in TAGS if tag in found] + sorted(found.difference(TAGS))


def check_runs(folders: Sequence[Path]) -> None:
    """ValueError or FileNotFoundError unless every folder is a run of evaluate with a finished unit."""
    if not folders:
        raise ValueError("no run given; name at least one run folder of `evaluate`")
    for folder in folders:
        mark = rundir.read_run(folder)
        if mark is None:
            raise FileNotFoundError(
                f"{folder} is not a run folder: it has no run.json; name the `out` of an evaluate run"
            )
        if mark["job"] != "evaluate":
            hint = f"; judge its images first: images={folder / 'images'}" if mark["job"] == "generate" else ""
            raise ValueError(f"{folder} is a run of {mark['job']}, a report shows runs of evaluate{hint}")
        if not ledger.finished(folder):
            raise ValueError(f"{folder} has no finished unit yet, there is nothing to report")


def read_runs(folders: Sequence[Path]) -> list[Run]:
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


def _read_run(folder: Path, number: int, name: str) -> Run:
    config = read_yaml(folder / "config.yaml")
    if not isinstance(config.get("images"), str):
        raise ValueError(f"{folder / 'config.yaml'}: does not say where the images are (`images`)")
    images_folder = _locate(Path(config["images"]), folder)
    generate = _generate_run(images_folder)
    makings = _makings(generate) if generate else {}
    rows = sorted(read_verdicts(folder), key=lambda row: (row["prompt_index"], row["sample"]))
    images = tuple(_image(row, images_folder, makings) for row in rows)
    made = _counts(generate) if generate else None
    return Run(number, name, folder, images, _counts(folder), generate, made, _intervals(folder, config))


def _intervals(folder: Path, config: Mapping[str, Any]) -> Kind:
    """What the evaluation was asked for last: a finished run may be summed up again."""
    path = folder / "summary.json"
    asked = read_json(path) if path.is_file() else config
    return asked.get("intervals", Run.intervals)


def _image(row: Mapping[str, Any], images: Path, makings: Mapping[str, Making]) -> JudgedImage:
    return JudgedImage(
        prompt_index=row["prompt_index"],
        sample=row["sample"],
        prompt=row["prompt"],
        tag=row["tag"],
        metadata=json.dumps(row.get("metadata") or {}, sort_keys=True),
        path=images / row.get("image", ""),
        correct=row["correct"],
        reason=row["reason"],
        making=makings.get(f"images/{row.get('image')}"),
        evidence=row,
    )


def _locate(images: Path, run: Path) -> Path:
    """The images folder as the config has it; a relative one was most likely meant from a folder above the run."""
    places = [*(above / images for above in run.resolve().parents), images]
    return next((place for place in places if place.is_dir()), images)


def _generate_run(images: Path) -> Path | None:
    mark = rundir.read_run(images.parent)
    return images.parent if mark is not None and mark["job"] == "generate" else None


def _makings(run: Path) -> dict[str, Making]:
    try:
        return {row["image"]: _making(run, row) for row in ledger.read_rows(run)}
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{run}: has rows that are none of generate ({error!r}); run `verify` on it") from None


def _making(run: Path, row: Mapping[str, Any]) -> Making:
    questions = list(dict.fromkeys(question for c in row["candidates"] for question in c.get("p_yes") or {}))
    decides = "outcome" if "outcome" in questions else questions[-1] if questions else ""
    return Making(
        strategy=row["strategy"],
        grid=(row["grid"][0], row["grid"][1]),
        num_steps=row["num_steps"],
        revealed_at=unpack_tokens(row["revealed_at"]),
        chosen=row["chosen"],
        candidates=tuple(_candidate(candidate, decides) for candidate in row["candidates"]),
        cost=row.get("cost") or {},
        previews=run / row["previews"] if row.get("previews") else None,
    )


def _candidate(candidate: Mapping[str, Any], decides: str) -> Candidate:
    """A candidate of a row; rows of older runs say less."""
    return Candidate(
        index=candidate["candidate"],
        p_yes=(candidate.get("p_yes") or {}).get(decides),
        answers=tuple(Answer(*answer) for answer in candidate.get("trace") or ()),
        cut_at=candidate.get("cut_at"),
        parent=candidate.get("parent"),
        reason=candidate.get("reason") or "",
    )


def _counts(folder: Path) -> ledger.Counts:
    """Units in each state; a run without plan.json counts what is there."""
    return ledger.count(folder, ledger.plan_of(folder).get("units", len(ledger.finished(folder))))
