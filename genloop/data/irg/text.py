"""Texts of a trace, written from its numbers: visual reasoning, diagnosis, refined prompt, conversation.

Every text is made of the sentences of genloop/data/irg/phrases.py. The conversation has one turn of a user and one of
an assistant for each round whose actions were accepted; an attempt that was taken back is told in the next user turn,
so nothing wrong is ever an answer. The user turn holds all that the answer quotes:

    Diagnose this image.
    Instruction: a red circle left of a blue square
    Objects: a matte red circle at the left and a matte blue square at the right
    Measured: brightness 0.213, contrast 0.104, ...

and the answer is a paragraph and, on the line below, {"diagnosis": [...], "actions": [...], "prompt": "..."}.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from genloop.data.irg.actions import edit_prompt
from genloop.data.irg.diagnose import CHECKED, standings
from genloop.data.irg.phrases import ASPECTS, FEATURES, ISSUE_NAMES, OP_NAMES, PRINTED, SLOTS, choose
from genloop.data.irg.record import (
    Action,
    Diagnosis,
    Evidence,
    Features,
    Intent,
    Message,
    Record,
    Round,
    SceneObject,
    SceneSpec,
    in_one_line,
)
from genloop.data.prompts import with_article
from genloop.reading import parse_json

SYSTEM = (
    "You check generated images. From the instruction and the measurements you name what is wrong, with the numbers "
    "that show it, and the actions that repair it, and you answer with a paragraph and a JSON object."
)
PREFIXES = ("Instruction: ", "Objects: ", "Taken back: ", "Measured: ")  # of the lines of a user turn
_PRINTED = re.compile(r'"\\u0000([^"\\]*)\\u0000"')  # a number in its digits, which no other text looks like
_ACROSS, _DOWN = ("left", "center", "right"), ("upper", "middle", "lower")
_DIRECTIONS = ("the right", "the upper right", "above", "the upper left") + (
    *("the left", "the lower left", "below", "the lower right"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What an assistant says: the paragraph, and the parts of its JSON object."""

    reasoning: str
    diagnosis: tuple[Diagnosis, ...]
    actions: tuple[Action, ...]
    prompt: str


class _AnswerObject(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    diagnosis: tuple[Diagnosis, ...]
    actions: tuple[Action, ...]
    prompt: str


# --- numbers and words -----------------------------------------------------------------------------------------------


def quote(feature: str, value: float) -> str:
    """A value as texts print it."""
    return f"{value:z.{PRINTED[feature]}f}"


def plain_number(value: float) -> str:
    """At most four decimals, without zeros at the end: thresholds and parameters."""
    return f"{value:z.4f}".rstrip("0").rstrip(".")


def quotes_of(features: Features) -> str:
    """ "brightness 0.213, ..., share of detail 0.312": what diagnoses rest on, word for word as the user has it"""
    return ", ".join(f"{FEATURES[name]} {quote(name, getattr(features, name))}" for name in CHECKED)


def standings_of(features: Features, intent: Intent) -> str:
    """ "brightness low, ..., share of detail fine": the same by the limits"""
    return ", ".join(f"{FEATURES[name]} {word}" for name, word in standings(features, intent).items())


def objects_of(scene: SceneSpec) -> str:
    """The things of a scene with material, colour, shape and place."""
    return _listed([_thing(thing) for thing in scene.things]) or "nothing"


def direction_of(scene: SceneSpec) -> str:
    """Where light comes from, in eight directions."""
    return _DIRECTIONS[round(scene.light_angle / 45) % len(_DIRECTIONS)]


def action_text(action: Action) -> str:
    """ "a gamma curve (gamma 0.55)"; texts among the parameters are left to the JSON."""
    numbers = [f"{k} {plain_number(v)}" for k, v in sorted(action.params.items()) if not isinstance(v, str)]
    return OP_NAMES[action.op] + (f" ({', '.join(numbers)})" if numbers else "")


def _thing(thing: SceneObject) -> str:
    across, down = _ACROSS[min(2, int(thing.x * 3))], _DOWN[min(2, int(thing.y * 3))]
    place = across if down == "middle" else f"{down} {across}"
    return f"{with_article(f'{thing.material} {thing.color} {thing.shape}')} at the {place}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


# --- writing ---------------------------------------------------------------------------------------------------------


def write_texts(record: Record, random: np.random.Generator, split: str) -> Record:
    """The record with all its texts and its split; the same generator state gives the same texts."""
    rounds = []
    for place, one in enumerate(record.rounds):
        before = record.rounds[place - 1] if place else None
        reasoning = _reasoning(before, one, record.intent, random, split)
        diagnosis = _diagnosis(one, random, split)
        rounds.append(one.model_copy(update={"reasoning_text": reasoning, "diagnosis_text": diagnosis}))
    found = tuple(diagnosis for one in rounds for diagnosis in one.diagnosis)
    texts = {
        "split": split,
        "reasoning_text": _visual(rounds[0].shown or record.scene, random, split),
        "final_prompt": refined(record.instruction, found, choose("prompt", random, split)),
        "rounds": tuple(rounds),
    }
    whole = record.model_copy(update=texts)
    requests = [choose("request", random, split) for _ in rounds]
    return whole.model_copy(update={"messages": conversation(whole, requests)})


def refined(instruction: str, found: Sequence[Diagnosis], template: str = SLOTS["prompt"].train[0]) -> str:
    """The instruction with what would have prevented the diagnoses; as it is without any."""
    if not found:
        return instruction
    bare = instruction.rstrip(" .")
    return template.format(instruction=bare, edits=edit_prompt(instruction, found).removeprefix(f"{bare}, "))


def conversation(record: Record, requests: Sequence[str]) -> tuple[Message, ...]:
    """System, then a user and an assistant turn a round that was accepted; `requests` open the user turns."""
    messages = [Message(role="system", content=SYSTEM)]
    for place, one in enumerate(record.rounds):
        if one.accepted:
            asked = user_turn(
                record.instruction,
                one.features,
                request=requests[place],
                scene=one.shown or record.scene,
                tried=attempts(record.rounds, place),
            )
            messages.append(Message(role="user", content=asked, images=(one.image,)))
            messages.append(Message(role="assistant", content=answer(one, record.instruction)))
    return tuple(messages) if len(messages) > 1 else ()


def attempts(rounds: Sequence[Round], index: int) -> list[str]:
    """What was taken back just before a round: actions, and what they did to their target."""
    found: list[str] = []
    for before in reversed(rounds[:index]):
        if before.accepted:
            break
        moved = _moved(before)
        did = [f"{FEATURES[moved[0]]} {moved[1]} to {moved[2]}"] if moved else []
        found.insert(0, ", ".join([*map(action_text, before.actions), *did]))
    return found


def user_turn(
    instruction: str,
    features: Features,
    *,
    request: str = SLOTS["request"].train[0],
    scene: SceneSpec | None = None,
    tried: Sequence[str] = (),
) -> str:
    """What the user says about an image: `scene` is what an oracle sees on it, `tried` what was taken back."""
    lines = [request, f"{PREFIXES[0]}{instruction}"]
    lines += [] if scene is None else [f"{PREFIXES[1]}{objects_of(scene)}"]
    lines += [f"{PREFIXES[2]}{attempt}" for attempt in tried]
    return "\n".join([*lines, f"{PREFIXES[3]}{measured_line(features)}"])


def measured_line(features: Features) -> str:
    """Every feature that was measured, by name."""
    values = ((name, getattr(features, name)) for name in FEATURES)
    return ", ".join(f"{FEATURES[name]} {quote(name, value)}" for name, value in values if value is not None)


def answer(one: Round, instruction: str) -> str:
    """The paragraph of a round and its JSON object."""
    paragraph = " ".join(filter(None, [one.reasoning_text, one.diagnosis_text]))
    return f"{paragraph}\n{answer_json(one, instruction)}"


def answer_json(one: Round, instruction: str) -> str:
    """{"diagnosis", "actions", "prompt"} in one line, numbers digit by digit as the paragraph prints them: 0.50."""
    value = {
        "diagnosis": [_plain_diagnosis(diagnosis) for diagnosis in one.diagnosis],
        "actions": [{"op": action.op, "params": _plain_params(action)} for action in one.actions],
        "prompt": refined(instruction, one.diagnosis),
    }
    return _PRINTED.sub(r"\1", json.dumps(value, ensure_ascii=False))


def read_answer(text: str) -> Reply:
    """What an assistant wrote -> its parts; ValueError says in one line what is missing or wrong."""
    start = text.find("{")
    if start < 0:
        raise ValueError("no JSON object in the answer")
    try:
        found = _AnswerObject.model_validate(parse_json(text[start:].strip()))
    except ValidationError as error:
        raise ValueError(in_one_line(error)) from None
    return Reply(text[:start].strip(), found.diagnosis, found.actions, found.prompt)


def _plain_diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    evidence = []
    for one in diagnosis.evidence:
        value, limit = evidence_texts(one)
        told = one.model_dump()
        if not isinstance(one.threshold, str) and not isinstance(one.value, str):
            told |= {"value": _printed(value), "threshold": _printed(limit, one.threshold)}
        evidence.append(told)
    severity = _printed(f"{diagnosis.severity:.2f}", diagnosis.severity)
    return {"issue": diagnosis.issue, "severity": severity, "evidence": evidence}


def _plain_params(action: Action) -> dict[str, str]:
    return {k: v if isinstance(v, str) else _printed(plain_number(v), v) for k, v in action.params.items()}


def _printed(text: str, value: float | None = None) -> str:
    """Marks a number that JSON is to hold in these digits; in those of `value` where they are not enough for it."""
    return f"\0{text if value is None or float(text) == value else value}\0"


def evidence_texts(evidence: Evidence) -> tuple[str, str]:
    """Value and threshold as texts print them; with more decimals where they would look equal."""
    value, threshold = evidence.value, evidence.threshold
    if isinstance(value, str) or isinstance(threshold, str):
        return str(value), str(threshold)
    limit = plain_number(threshold)
    shown = quote(evidence.feature, value) if evidence.feature in FEATURES else plain_number(value)
    if float(shown) == float(limit) != value:
        shown = plain_number(value)
    return shown, limit


def _visual(scene: SceneSpec | None, random: np.random.Generator, split: str) -> str:
    """Composition and lighting of a drawn scene; nothing about photographs."""
    if scene is None:
        return ""
    light = {"direction": direction_of(scene), "strength": f"{scene.light_strength:.2f}"}
    composition = choose("composition", random, split).format(objects=objects_of(scene))
    return f"{composition} " + choose("lighting", random, split).format(**light, exposure=f"{scene.exposure:.2f}")


def _reasoning(before: Round | None, one: Round, intent: Intent, random: np.random.Generator, split: str) -> str:
    """The measurements, what the limits say of them, and what became of the round before."""
    parts = [choose("observation", random, split).format(quotes=quotes_of(one.features))]
    parts.append(choose("standing", random, split).format(standings=standings_of(one.features, intent)))
    if before and (moved := _moved(before)):
        template = choose("kept" if before.accepted else "undone", random, split)
        parts.append(template.format(feature=FEATURES[moved[0]], before=moved[1], after=moved[2]))
    return " ".join(parts)


def _moved(one: Round) -> tuple[str, str, str] | None:
    """The feature that the actions of a round were for, before and after them; None for content."""
    if one.gain is None or one.result_features is None or one.gain.target not in FEATURES:
        return None
    target = one.gain.target
    before, after = (quote(target, getattr(f, target)) for f in (one.features, one.result_features))
    return target, before, after


def _diagnosis(one: Round, random: np.random.Generator, split: str) -> str:
    """A sentence for each issue, one for each further evidence, one for each action."""
    parts = []
    for diagnosis in one.diagnosis:
        for place, evidence in enumerate(diagnosis.evidence):
            slot = "mismatch" if ":" in evidence.feature else "support" if place else "finding"
            parts.append(_evidence_sentence(diagnosis, evidence, choose(slot, random, split)))
    parts += [choose("plan", random, split).format(action=action_text(action)) for action in one.actions]
    return " ".join(parts or [choose("clean", random, split)])


def _evidence_sentence(diagnosis: Diagnosis, evidence: Evidence, template: str) -> str:
    value, threshold = evidence_texts(evidence)
    words = {"issue": ISSUE_NAMES[diagnosis.issue], "severity": f"{diagnosis.severity:.2f}"}
    aspect, _, shape = evidence.feature.partition(":")
    if shape:
        return template.format(**words, aspect=ASPECTS[aspect], shape=shape, found=value, wanted=threshold)
    name = FEATURES[evidence.feature]
    return template.format(**words, feature=name, value=value, threshold=threshold, side=evidence.relation)
