"""Rows of `generate` and `evaluate` as models: jobs write them, the readers of this folder read them, nobody else.

A row is one line of RUN/rows/*.jsonl. Keys that a row does not have take the defaults below and are not written again
(`model_fields_set` tells them apart). Unknown keys are ignored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from genloop import ledger
from genloop.records import unpack_tokens
from genloop.rundir import check_inside

Number = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]


def _is_inside(name: str) -> str:
    try:
        return check_inside(name)
    except ValueError as error:
        raise PydanticCustomError("inside", "{problem}", {"problem": str(error)}) from None


Inside = Annotated[str, AfterValidator(_is_inside)]  # a path below a folder, which nothing in a row leads out of


class RowPart(BaseModel):
    """A frozen part of a row. Types are strict: a text is never taken for a number."""

    model_config = ConfigDict(frozen=True, strict=True)

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Parse JSON; ValueError, one line that names the key, for anything else."""
        try:
            return cls.model_validate_json(line)
        except ValidationError as error:
            raise ValueError(problem(error)) from None

    def to_json(self) -> dict[str, Any]:
        """The keys that were set, as plain values in the order of the fields."""
        return self.model_dump(exclude_unset=True)


class Answer(NamedTuple):
    """What a judge said about a candidate after `step` of its steps; `p_yes` None: it gave no answer."""

    step: int
    question: str
    p_yes: float | None


class CritiqueRow(RowPart):
    """What a critic said of a candidate; see `genloop.records.Critique`."""

    features: dict[str, float]  # measured
    reasoning: str = ""
    diagnosis: tuple[dict[str, Any], ...] = ()  # of genloop/data/irg/record.py
    actions: tuple[dict[str, Any], ...] = ()
    prompt: str = ""  # the refined prompt
    problems: tuple[str, ...] = ()  # why answers were refused, one an attempt
    failed: bool = False  # the last attempt too: nothing was changed


class RedrawingRow(RowPart):
    """How a candidate was noised again from its parent."""

    prompt: str  # that it was then drawn for
    strength: float
    guidance: float  # factor of the guidance scale


class RecordedCandidate(RowPart):
    """One candidate of an image: what it ended in, and every answer about it on the way."""

    candidate: Number  # its number among all of this image
    tokens: str = ""  # packed image tokens (n,), see `genloop.records.pack_tokens`
    latents_sha256: str = ""  # of a diffusion model: of the float32 latents that the path ended in
    p_yes: dict[str, float | None] = {}  # the last answer to each question; None: the judge gave none
    trace: tuple[Answer, ...] = ()  # all answers, in order
    cut_at: int | None = None  # steps after which it was given up; None: it was finished
    parent: int | None = None  # the candidate that it branched off
    reason: str = ""  # what was found wrong with it, in words
    critique: CritiqueRow | None = None
    redrawn: RedrawingRow | None = None

    def unpacked(self) -> np.ndarray:
        """Its image tokens: -> (n,) int64; ValueError when it has none."""
        if not self.tokens:
            raise ValueError(f"candidate {self.candidate} holds no image tokens; only runs of Show-o do")
        return unpack_tokens(self.tokens)

    def answers(self) -> list[tuple[str, float | None]]:
        """(question, P(yes)) of all that it was asked; rows without a trace know the last answers only."""
        return [(answer.question, answer.p_yes) for answer in self.trace] or list(self.p_yes.items())


class GenerationCost(RowPart):
    """What one image took. Flops are floating-point operations of generator, decoder and judge; 0: not known."""

    generator_steps: int | float = 0  # decoding steps of single candidates
    judge_calls: int = 0  # images shown to a judge
    flops: int | float = 0.0
    flops_without_search: int | float = 0.0  # of one candidate that nobody judges


class EditRecord(RowPart):
    """What an image of `edit` was drawn from, and what can be checked about it without a judge."""

    mode: str
    input_image: str
    width: Size
    height: Size
    steps: Size
    guidance_scale: float | None = None  # null: a row of an earlier version
    strength: float | None = None  # null: a variation, which is drawn from noise
    notes: tuple[str, ...] = ()  # what was changed about the input
    controls: dict[str, float] = {}  # strength of each, in their order
    inputs: dict[str, Inside] = {}  # picture, mask, line, depth, ...: path below the run folder
    checks: dict[str, float | None] = {}  # null: not defined for this image


class GeneratedRow(RowPart):
    """One image of `generate`; n = image tokens.

    Tokens are kept as they are; latents of a diffusion model follow from the seed, and rows keep their hash alone.
    """

    prompt_index: Number
    sample: Number
    prompt: str
    rewritten_prompt: str | None = None  # what the generator read instead of `prompt`
    tag: str | None = None  # task of GenEval's metadata
    image: Inside  # path below the run folder
    sha256: str = ""  # of the PNG
    grid: tuple[Size, Size]  # rows and columns of image tokens
    strategy: str
    chosen: int  # number of the chosen candidate
    tokens: str = ""  # packed (n,), of the chosen candidate
    revealed_at: str = ""  # packed (n,): the step, from 0, that fixed each token
    latents_sha256: str = ""  # of the chosen candidate
    num_steps: Number
    cost: GenerationCost
    candidates: Annotated[tuple[RecordedCandidate, ...], Field(min_length=1)]
    previews: Inside | None = None  # contact sheet of what judges were shown, below the run folder
    given: str | None = None  # the image that it was drawn from, below mode.options.images
    edit: EditRecord | None = None

    @model_validator(mode="after")
    def _fills_its_grid(self) -> Self:
        if self.latents_sha256 and all(candidate.latents_sha256 for candidate in self.candidates):
            return self
        packed = {"tokens": self.tokens, "revealed_at": self.revealed_at}
        packed |= {f"candidates.{i}.tokens": candidate.tokens for i, candidate in enumerate(self.candidates)}
        for key, text in packed.items():
            try:
                found = len(unpack_tokens(text))
            except ValueError as error:
                raise PydanticCustomError("packed", "{key}: {problem}", {"key": key, "problem": str(error)}) from None
            if found != self.grid[0] * self.grid[1]:
                facts = {"key": key, "found": found, "rows": self.grid[0], "columns": self.grid[1]}
                raise PydanticCustomError("packed", "{key}: {found} tokens for a grid of {rows} x {columns}", facts)
        return self

    def outcome_question(self) -> str:
        """The question that decided: the outcome, else the last one that was asked; "" when nobody was."""
        questions = list(dict.fromkeys(question for one in self.candidates for question in one.p_yes))
        return "outcome" if "outcome" in questions else questions[-1] if questions else ""

    def answers(self) -> dict[str, list[float]]:
        """{question: P(yes) of all candidates of this image}, without what a judge did not answer."""
        found: dict[str, list[float]] = {}
        for question, p_yes in (answer for candidate in self.candidates for answer in candidate.answers()):
            if p_yes is not None:
                found.setdefault(question, []).append(p_yes)
        return found


class ColorRow(RowPart):
    """The colours of the objects that one clause of a prompt asks for."""

    clause: int  # its place in the metadata's `include`
    named: list[str]
    margins: list[float] = []  # of the best colour's score to the second


class _Clause(BaseModel):
    """What of a clause is looked at."""

    model_config = ConfigDict(strict=True)

    class_name: str = Field(alias="class")
    count: int
    color: str | None = None
    position: list[Any] | None = None

    def stands_by(self, clauses: int) -> bool:
        """Whether its position, if any, is one to another of so many clauses."""
        if self.position is None:
            return True
        relation, target = self.position if len(self.position) == 2 else (None, None)
        return isinstance(relation, str) and type(target) is int and 0 <= target < clauses


class _Metadata(BaseModel):
    """What of a prompt's metadata is looked at; other keys may be anything."""

    model_config = ConfigDict(strict=True)

    tag: str | None = None
    include: list[_Clause] = []
    exclude: list[_Clause] | None = None

    @field_validator("include")
    @classmethod
    def _has_its_targets(cls, include: list[_Clause]) -> list[_Clause]:
        for number, clause in enumerate(include):
            if not clause.stands_by(len(include)):
                facts = {"number": number, "found": repr(clause.position)[:60]}
                raise PydanticCustomError(
                    "position", "{number}: position must be [relation, clause], found {found}", facts
                )
        return include


Box = Annotated[list[float], Field(min_length=5, max_length=5)]  # x1, y1, x2, y2 in pixels, score


class EvaluatedRow(RowPart):
    """The verdict on one image; docs/run-folder.md explains it. Rows of other tools hold fewer keys."""

    prompt_index: Number
    sample: Number
    prompt: str
    tag: str
    image: Inside = ""  # path below the folder of images
    size: tuple[int, int] | None = None  # width and height in pixels; None: it does not decode
    correct: bool
    reason: str  # a line for each failed clause
    details: dict[str, list[Box]] | None = None  # {class: its kept objects}
    areas: dict[str, list[int | None]] = {}  # {class: pixels of each object's mask}
    colors: list[ColorRow] = []
    distance: float | None = None  # of the nearest score to its threshold; None: none is near, or it is not known
    prompt_source: str = "prompt"  # rewritten: images were made from the prompt in other words
    masks: dict[str, list[str | None]] = {}  # {class: run-length code of each object's mask}
    rewritten_prompt: str | None = None
    metadata: dict[str, Any] | None = None  # of the prompt, in GenEval's form

    @field_validator("metadata", mode="after")
    @classmethod
    def _is_metadata(cls, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            _Metadata.model_validate(metadata or {})
        except ValidationError as error:
            raise PydanticCustomError("metadata", "{problem}", {"problem": problem(error)}) from None
        return metadata

    @model_validator(mode="after")
    def _has_one_tag(self) -> Self:
        tag = (self.metadata or {}).get("tag")
        if tag not in (None, self.tag):
            raise PydanticCustomError(
                "tag", "tag is '{ours}', its metadata's '{other}'", {"ours": self.tag, "other": tag}
            )
        return self

    @model_validator(mode="after")
    def _colors_are_of_its_clauses(self) -> Self:
        include = (self.metadata or {}).get("include") or []
        for part in self.colors:
            if not 0 <= part.clause < len(include):
                facts = {"found": part.clause, "clauses": len(include)}
                raise PydanticCustomError("colors", "colors: clause {found} of {clauses}", facts)
        return self

    @property
    def tells_distance(self) -> bool:
        """Whether `distance` was recorded at all."""
        return "distance" in self.model_fields_set


ImageRow = TypeVar("ImageRow", GeneratedRow, EvaluatedRow)


def read_images(run: Path, kind: type[ImageRow]) -> Iterator[ImageRow]:
    """The rows of a run's finished units in order, one an image.

    DamagedRows in one line for rows of another form, two of one image, and a run that is over with fewer or more rows
    than it has images.
    """
    seen: set[tuple[int, int]] = set()
    names = sorted(ledger.finished(run), key=int)
    for name in names:
        for number, row in enumerate(ledger.rows_of_unit(run, name, kind.from_json), start=1):
            place = row.prompt_index, row.sample
            if place in seen:
                raise ledger.DamagedRows(
                    f"{run / 'rows' / name}.jsonl:{number}: a second row of prompt {place[0]}, sample {place[1]}; run "
                    f"`verify` on {run}"
                )
            seen.add(place)
            yield row
    plan = ledger.plan_of(run)
    if plan and len(names) >= plan["units"] and len(seen) != plan["items"]:
        raise ledger.DamagedRows(
            f"{run} holds {len(seen)} rows, not {plan['items']}; remove the files of rows/ that are short and run its "
            "command again"
        )


def problem(error: ValidationError) -> str:
    """The first thing that is wrong, as one line that begins with the key."""
    first = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"] and first["type"] in ("model_type", "model_attributes_type"):
        return "no JSON object"
    key, what = ".".join(map(str, first["loc"])), f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return " ".join((f"{key}: {what}" if key else what).split())
