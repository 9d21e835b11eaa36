"""A critic and held-out traces: what it says of the image, and what comes of doing as it says.

The first look is that of the trace, word for word where it has a conversation. Then the actions are executed on the
pixels, or by drawing anew, and the result is measured; it is kept when the composite rises, else taken back, and the
critic is asked again, until it wants nothing more or the rounds are over.

The composite, in [0, 1], is the mean of content (1 where a scene's oracle finds nothing wrong, else 0) and of the
measured quality; of photographs it is the quality.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from genloop.data.image_reader import decode_image
from genloop.data.irg.actions import execute
from genloop.data.irg.diagnose import diagnose_content
from genloop.data.irg.features import measure
from genloop.data.irg.quality import quality
from genloop.data.irg.quotes import faithful, same_at_precision
from genloop.data.irg.record import Action, Diagnosis, Features, Record, Round, SceneSpec
from genloop.data.irg.split import scene_sha
from genloop.data.irg.text import action_text, attempts, quote
from genloop.data.shards import Fields
from genloop.records import Critique
from genloop.rewards.critics.settings import ImageCritic, Sight


class Redrawer(Protocol):
    """Draws a scene that was asked for once more."""

    def __call__(self, scene: SceneSpec, side: int, attempt: int) -> np.ndarray:
        """-> (side, side, 3) uint8"""


@dataclass
class _Now:
    """The image that the loop has kept, what it shows, and what was taken back since."""

    image: np.ndarray
    shown: SceneSpec | None
    tried: list[str] = field(default_factory=list)


def run_cases(
    name: str, critic: ImageCritic, traces: Sequence[tuple[Record, Fields]], rounds: int, redraw: Redrawer
) -> list[dict[str, Any]]:
    """The rows of a critic and some traces, as JSON. All traces wait for the critic together."""
    cases = [_case(name, record, fields, rounds, redraw) for record, fields in traces]
    rows: list[dict[str, Any]] = [{}] * len(cases)
    waiting = {place: next(case) for place, case in enumerate(cases)}
    while waiting:
        critiques = dict(zip(waiting, critic.criticise(list(waiting.values())), strict=True))
        waiting = {}
        for place, critique in critiques.items():
            try:
                waiting[place] = cases[place].send(critique)
            except StopIteration as end:
                rows[place] = end.value
    return rows


def _case(
    name: str, record: Record, fields: Fields, rounds: int, redraw: Redrawer
) -> Generator[Sight, Critique, dict[str, Any]]:
    """Yields what the critic is to see, is sent what it says, and ends in the row."""
    look = _first_look(record)
    if look.image not in fields:
        raise ValueError(f"trace {record.id}: its sample has no {look.image}; run `verify` on the corpus")
    now = _Now(decode_image(fields[look.image]), look.shown or record.scene, attempts(record.rounds, look.index))
    said = critique = yield _sight(record, now, look.features, _asked(record))
    composites, told = [composite(record, now.image, now.shown)], []
    for number in range(rounds):
        if number:
            critique = yield _sight(record, now, measure(now.image))
        if critique.failed or not critique.actions:
            break
        told.append(_act(record, now, critique, composites, number, redraw))
    found = [Diagnosis.model_validate(one) for one in said.diagnosis]
    return {
        "critic": name,
        "id": record.id,
        "scene": scene_sha(record),
        "injected": sorted({fault.kind for fault in look.injected}),
        "bin": max((fault.bin for fault in look.injected), default=None),
        "oracle": {one.issue: one.severity for one in look.diagnosis},
        "said": {one.issue: one.severity for one in found},
        "valid": not said.failed,
        "problems": list(said.problems),
        "quoted": quoted(said.reasoning, found, look.features),
        "rounds": told,
        "composite": composites + composites[-1:] * (rounds + 1 - len(composites)),
    }


def composite(record: Record, image: np.ndarray, shown: SceneSpec | None) -> float:
    """(H, W, 3) uint8 and what it shows -> in [0, 1]"""
    measured = quality(measure(image), record.intent)
    if record.scene is None or shown is None:
        return round(measured, 6)
    return round((float(not diagnose_content(record.scene, shown)) + measured) / 2, 6)


def quoted(reasoning: str, found: Sequence[Diagnosis], features: Features) -> tuple[int, int]:
    """Of the measured values that a paragraph and the evidence quote: how many are right, and how many there are."""
    right, total = faithful(reasoning, features)
    known = features.model_dump()
    for evidence in (one for diagnosis in found for one in diagnosis.evidence):
        if evidence.feature in known and not isinstance(evidence.value, str):
            value = known[evidence.feature]
            text = max(quote(evidence.feature, evidence.value), f"{evidence.value}", key=len)  # JSON has dropped zeros
            right += value is not None and same_at_precision(text, value)
            total += 1
    return right, total


def _act(
    record: Record, now: _Now, critique: Critique, composites: list[float], number: int, redraw: Redrawer
) -> dict[str, Any]:
    """Execute the actions of a critique on `now` -> what came of it; `composites` grows by one."""
    actions = [Action.model_validate(one) for one in critique.actions]
    shown = now.shown

    def draw(image: np.ndarray, prompt: str, strength: float) -> np.ndarray:
        nonlocal shown
        if record.scene is None:
            raise ValueError("regenerate: nothing here draws photographs")
        shown = record.scene
        return redraw(record.scene, image.shape[0], number)

    told: dict[str, Any] = {"ops": [action.op for action in actions]}
    try:
        made = now.image
        for action in actions:
            made = execute(made, action, draw)
    except ValueError as error:
        composites.append(composites[-1])
        now.tried.append(", ".join(map(action_text, actions)))
        return told | {"executed": False, "gained": False, "problem": str(error)}
    after = composite(record, made, shown)
    gained = after > composites[-1]
    composites.append(max(after, composites[-1]))
    if gained:
        now.image, now.shown, now.tried = made, shown, []
    else:
        now.tried.append(", ".join(map(action_text, actions)))
    return told | {"executed": True, "gained": gained}


def _first_look(record: Record) -> Round:
    """The round that the first turn of the conversation is about: the first that was not taken back."""
    return next((one for one in record.rounds if one.accepted), record.rounds[-1])


def _asked(record: Record) -> str | None:
    return next((message.content for message in record.messages if message.role == "user"), None)


def _sight(record: Record, now: _Now, features: Features, asked: str | None = None) -> Sight:
    return Sight(
        record.instruction,
        features,
        intent=record.intent,
        image=now.image,
        wanted=record.scene,
        shown=now.shown,
        tried=tuple(now.tried),
        asked=asked,
    )
