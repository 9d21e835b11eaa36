"""Reads a trace against itself: every number that its texts quote, diagnoses, actions, images, accepted rounds.

A number holds when the stored one, rounded to as many decimals as are printed, reads the same. Sentences of others are
read as far as a number follows the name of a feature; what is not read is told (kind `unread`) and is no fault.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.image_reader import decode_image
from genloop.data.irg.actions import execute
from genloop.data.irg.diagnose import diagnose, diagnose_content, limit_of
from genloop.data.irg.features import measure
from genloop.data.irg.phrases import FEATURES, ISSUES_BY_NAME, SLOTS, is_held_out, parse, sentences
from genloop.data.irg.quotes import Quote, quotes_of_sentence, same_at_precision
from genloop.data.irg.record import CONTENT_ISSUES, Diagnosis, Features, Record, Round, parse_record
from genloop.data.irg.text import (
    PREFIXES,
    SYSTEM,
    action_text,
    answer,
    attempts,
    direction_of,
    evidence_texts,
    objects_of,
    read_answer,
    refined,
    standings_of,
    user_turn,
)
from genloop.data.shards import Sample, Shards

KINDS = (
    *("schema", "image", "accepted", "evidence", "diagnosis", "number", "text", "action", "scene", "prompt"),
    *("conversation", "split", "features"),
)
UNREAD = "unread"  # told, but no fault


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold: its kind, where in the record, and what was found."""

    kind: str
    where: str
    what: str

    @property
    def is_fault(self) -> bool:
        """Whether the trace is wrong; otherwise a text is of others and not understood."""
        return self.kind != UNREAD


def verify_sample(sample: Sample, *, pixels: bool = False) -> list[Problem]:
    """All problems of a sample of a shard; one of kind `schema` when it holds no record."""
    try:
        record = parse_record(sample.fields["json"])
    except KeyError:
        return [Problem("schema", sample.key, "has no json")]
    except ValueError as error:
        return [Problem("schema", sample.key, str(error))]
    problems = verify_record(record, sample.fields)
    if pixels:
        problems += verify_pixels(record, sample.fields)
    if record.id != sample.key:
        problems.append(Problem("schema", "id", f"{record.id!r} in a sample {sample.key!r}"))
    return problems


def verify_shard(path: Path, *, pixels: bool = False) -> dict[str, Any]:
    """{"traces": how many, "problems": {kind: how many}, "examples": the first of each kind} of one shard.

    With `pixels`, features are measured and actions executed again, too.
    """
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    shards = Shards(path)
    for position in range(len(shards)):
        try:
            problems = verify_sample(shards.read(position), pixels=pixels)
        except ValueError as error:  # bytes that are not those of the index
            problems = [Problem("image", f"sample {position}", str(error))]
        counts.update(problem.kind for problem in problems)
        for problem in problems:
            key = shards.read(position, ()).key
            examples.setdefault(problem.kind, f"{key}: {problem.where}: {problem.what}")
    return {"traces": len(shards), "problems": dict(sorted(counts.items())), "examples": examples}


def verify_record(record: Record, images: Mapping[str, bytes] | None = None) -> list[Problem]:
    """Every problem of a trace; `images` maps fields of the sample to their bytes, None leaves them unread."""
    found = [] if images is None else list(_images(record, images))
    found += _order(record)
    for one in record.rounds:
        found += _accepted(one)
        found += _evidence(record, one)
        found += _round_texts(record, one, f"rounds.{one.index}")
    found += _visual(record)
    found += _prompt(record)
    return found + list(_conversation(record))


def verify_pixels(record: Record, images: Mapping[str, bytes]) -> list[Problem]:
    """Measure every image again, and execute the actions that need no generator."""
    found = []
    for one in record.rounds:
        where = f"rounds.{one.index}"
        try:
            image = decode_image(images[one.image])
            found += _measured(one.features, image, f"{where}.features")
            if one.result and one.result_features:
                after = decode_image(images[one.result])
                found += _measured(one.result_features, after, f"{where}.result_features")
                if not any(action.op == "regenerate" for action in one.actions):
                    again = functools.reduce(execute, one.actions, image)
                    found += [] if np.array_equal(again, after) else [Problem("action", where, "makes another image")]
        except (KeyError, ValueError) as error:
            found.append(Problem("image", where, str(error)))
    return found


def _measured(features: Features, image: np.ndarray, where: str) -> list[Problem]:
    again, told = measure(image, features.clip_similarity).model_dump(), features.model_dump()
    wrong = [f"{name} {told[name]}, measured is {value}" for name, value in again.items() if value != told[name]]
    return [Problem("features", where, what) for what in wrong]


# --- images and rounds -----------------------------------------------------------------------------------------------


def _images(record: Record, images: Mapping[str, bytes]) -> Iterator[Problem]:
    named = {(one.image, one.image_sha256) for one in record.rounds}
    named |= {(one.result, one.result_sha256 or "") for one in record.rounds if one.result}
    for name, sha256 in sorted(named):
        if name not in images:
            yield Problem("image", name, "missing")
        elif hashlib.sha256(images[name]).hexdigest() != sha256:
            yield Problem("image", name, "another sha256")


def _order(record: Record) -> Iterator[Problem]:
    """Rounds are numbered, and each looks at what the one before has left."""
    for place, one in enumerate(record.rounds):
        where = f"rounds.{place}"
        if one.index != place:
            yield Problem("accepted", where, f"index {one.index}")
        if place:
            before = record.rounds[place - 1]
            left = before.result if before.accepted and before.result else before.image
            if one.image != left:
                yield Problem("accepted", where, f"looks at {one.image}, the round before left {left}")


def _accepted(one: Round) -> Iterator[Problem]:
    """A change that was kept came closer to its target, as the features say."""
    gain, after = one.gain, one.result_features
    if gain is None or not one.accepted or one.result is None:
        return
    where = f"rounds.{one.index}.accepted"
    if gain.target_delta < 0:
        yield Problem("accepted", where, f"{gain.target} dropped by {-gain.target_delta:g}")
        return
    limits = [limit_of(diagnosis.issue, "neutral") for diagnosis in one.diagnosis]
    side = next((limit.relation for limit in limits if limit and limit.feature == gain.target), None)
    if side and after is not None:
        moved = getattr(after, gain.target) - getattr(one.features, gain.target)
        if (moved if side == "below" else -moved) < 0:
            yield Problem("accepted", where, f"{gain.target} moved by {moved:g}, away from its limit")


def _evidence(record: Record, one: Round) -> Iterator[Problem]:
    """Each diagnosis against what it rests on: the measured value, the threshold, the severity."""
    where = f"rounds.{one.index}.diagnosis"
    content = _content(record, one)
    for diagnosis in one.diagnosis:
        limit = limit_of(diagnosis.issue, record.intent)
        first = diagnosis.evidence[0]
        if limit and first.feature != limit.feature:
            yield Problem("diagnosis", where, f"{diagnosis.issue} rests on {first.feature}, not on {limit.feature}")
        elif limit and (first.relation != limit.relation or not _severity_holds(diagnosis, limit)):
            yield Problem("diagnosis", where, f"{diagnosis.issue}: severity {diagnosis.severity} or side do not follow")
        elif diagnosis.issue in CONTENT_ISSUES and content is not None and diagnosis not in content:
            yield Problem("diagnosis", where, f"{diagnosis.issue} is not what the scene shows")
        for evidence in diagnosis.evidence:
            if not evidence.holds:
                yield Problem("evidence", where, f"{evidence.feature} is not {evidence.relation} its threshold")
            known = getattr(one.features, evidence.feature, None) if ":" not in evidence.feature else evidence.value
            if known != evidence.value:
                yield Problem("evidence", where, f"{evidence.feature} {evidence.value}, measured is {known}")


def _content(record: Record, one: Round) -> tuple[Diagnosis, ...] | None:
    """What the scene that is shown lacks of the one that was asked for; None of photographs."""
    return None if record.scene is None else diagnose_content(record.scene, one.shown or record.scene)


def _severity_holds(diagnosis: Diagnosis, limit: Any) -> bool:
    """By the rules, where the threshold is theirs; a text is no value."""
    first = diagnosis.evidence[0]
    if isinstance(first.value, str):
        return False
    return first.threshold != limit.threshold or limit.severity(first.value) == diagnosis.severity


# --- texts -----------------------------------------------------------------------------------------------------------


def _round_texts(record: Record, one: Round, where: str) -> Iterator[Problem]:
    """Numbers, issues and actions in the texts of a round."""
    told: list[str] = []
    actions: list[str] = []
    is_read, stored = True, _stored(record, one)
    for sentence in sentences(f"{one.reasoning_text} {one.diagnosis_text}"):
        parsed = parse(sentence)
        if parsed is None:
            is_read = False
            yield Problem(UNREAD, where, sentence)
        elif is_held_out(parsed.template) != (record.split == "test"):
            yield Problem("split", where, f"template {parsed.template} in {record.split}")
        if parsed and parsed.slot == "undone" and not attempts(record.rounds, one.index):
            yield Problem(UNREAD, where, f"what was taken back is not there: {sentence}")
            continue
        found, unread = quotes_of_sentence(sentence, parsed)
        yield from _numbers(stored, found, where)
        yield from (Problem(UNREAD, where, f"the number {number} in: {sentence}") for number in unread)
        if parsed and "issue" in parsed.fields:
            told.append(ISSUES_BY_NAME[parsed.fields["issue"]])
            yield from _finding(one, parsed.fields, where)
        if (
            parsed
            and parsed.slot == "standing"
            and parsed.fields["standings"] != standings_of(one.features, record.intent)
        ):
            yield Problem("text", where, f"told otherwise than by the limits: {sentence}")
        if parsed and parsed.slot == "plan":
            actions.append(parsed.fields["action"])
    if not is_read or not (one.reasoning_text or one.diagnosis_text):
        return
    expected = [d.issue for d in one.diagnosis for e in d.evidence if ":" in e.feature or e is d.evidence[0]]
    if told != expected:
        yield Problem("text", where, f"tells {told}, diagnosed are {expected}")
    if actions != [action_text(action) for action in one.actions]:
        yield Problem("action", where, f"tells {actions}, the actions are {[a.op for a in one.actions]}")
    by_rules = {diagnosis.issue for diagnosis in diagnose(one.features, record.intent)}
    if lacking := sorted(by_rules - {diagnosis.issue for diagnosis in one.diagnosis}):
        yield Problem("diagnosis", where, f"lacks {', '.join(lacking)}, which the rules find")


def _stored(record: Record, one: Round) -> dict[str, Mapping[str, Any]]:
    """By the role of a quote: {feature: the stored number}."""
    before = record.rounds[one.index - 1] if 0 < one.index <= len(record.rounds) else None
    after = before.result_features if before else None
    return {
        "value": one.features.__dict__,
        "threshold": {e.feature: e.threshold for d in one.diagnosis for e in d.evidence},
        "before": before.features.__dict__ if before else {},
        "after": after.__dict__ if after else {},
    }


def _numbers(stored: Mapping[str, Mapping[str, Any]], found: Sequence[Quote], where: str) -> Iterator[Problem]:
    """Each quoted number against the stored one."""
    for quote in found:
        known = stored[quote.role].get(quote.feature)
        if known is None and quote.role in ("before", "after"):
            yield Problem(UNREAD, where, f"{quote.role} of {quote.feature} is told, the round before is not there")
        elif known is None or isinstance(known, str) or not quote.equals(known):
            what = f"{quote.role} of {quote.feature} is told as {quote.text}, stored is {known}"
            yield Problem("number", where, what)


def _finding(one: Round, fields: Mapping[str, str], where: str) -> Iterator[Problem]:
    """The issue of a sentence with the severity and the evidence that it names."""
    issue = ISSUES_BY_NAME[fields["issue"]]
    same = [diagnosis for diagnosis in one.diagnosis if diagnosis.issue == issue]
    if not any(same_at_precision(fields["severity"], diagnosis.severity) for diagnosis in same):
        yield Problem("text", where, f"{issue} of severity {fields['severity']} is not diagnosed")
        return
    if "feature" in fields:
        names = {FEATURES.get(e.feature) for diagnosis in same for e in diagnosis.evidence}
        sides = {e.relation for diagnosis in same for e in diagnosis.evidence}
        if fields["feature"] not in names or fields["side"] not in sides:
            yield Problem("text", where, f"{issue} does not rest on {fields['feature']} {fields['side']} a limit")
    elif "shape" in fields:
        pairs = {evidence_texts(e) for d in same for e in d.evidence if e.feature.endswith(f":{fields['shape']}")}
        if (fields["found"], fields["wanted"]) not in pairs:
            yield Problem("text", where, f"{issue}: {fields['found']} for {fields['wanted']} is not diagnosed")


def _visual(record: Record) -> Iterator[Problem]:
    """Composition and lighting against the scene that is shown at first."""
    scene = record.rounds[0].shown or record.scene
    for sentence in sentences(record.reasoning_text):
        parsed = parse(sentence)
        if parsed is None:
            yield Problem(UNREAD, "reasoning_text", sentence)
            continue
        if is_held_out(parsed.template) != (record.split == "test"):
            yield Problem("split", "reasoning_text", f"template {parsed.template} in {record.split}")
        if scene is None:
            yield Problem(UNREAD, "reasoning_text", "tells of a scene where none is known")
        elif parsed.slot == "composition" and parsed.fields["objects"] != objects_of(scene):
            yield Problem("scene", "reasoning_text", f"tells {parsed.fields['objects']}, shown is {objects_of(scene)}")
        elif parsed.slot == "lighting":
            numbers = (("strength", scene.light_strength), ("exposure", scene.exposure))
            wrong = [name for name, value in numbers if not same_at_precision(parsed.fields[name], value)]
            wrong += ["direction"] if parsed.fields["direction"] != direction_of(scene) else []
            yield from (Problem("scene", "reasoning_text", f"another {name} of the light") for name in wrong)


def _prompt(record: Record) -> Iterator[Problem]:
    found = tuple(diagnosis for one in record.rounds for diagnosis in one.diagnosis)
    known = (refined(record.instruction, found, template) for _, template in SLOTS["prompt"].templates(record.split))
    if record.final_prompt and record.final_prompt not in known:
        is_own = record.instruction.rstrip(" .") in record.final_prompt
        yield Problem(
            "prompt", "final_prompt", "does not follow from the diagnoses" if is_own else "another instruction"
        )


def _conversation(record: Record) -> Iterator[Problem]:
    """Each answer against its round, each question against the measurements; those of others are parsed."""
    by_image: dict[str, Round] = {one.image: one for one in record.rounds if one.accepted}
    current: Round | None = None
    asked = {name for message in record.messages if message.role == "user" for name in message.images}
    if record.messages and (lacking := sorted(by_image.keys() - asked)):
        yield Problem("conversation", "messages", f"no turn of the user shows {lacking[0]}")
    for place, message in enumerate(record.messages):
        where = f"messages.{place}"
        if message.role == "system" and message.content != SYSTEM:
            yield Problem(UNREAD, where, "another system message")
        elif message.role == "user":
            current = by_image.get(message.images[0]) if message.images else None
            yield from _question(record, current, message.content, where)
        elif message.role == "assistant" and current is not None:
            yield from _answer(record, current, message.content, where)
        elif message.role == "assistant":
            yield Problem("conversation", where, "answers about no image of an accepted round")


def _question(record: Record, one: Round | None, content: str, where: str) -> Iterator[Problem]:
    request = content.partition("\n")[0]
    if one is None:
        yield Problem("conversation", where, "asks about no image of an accepted round")
        return
    templates = SLOTS["request"].train + SLOTS["request"].held_out
    if request not in templates:
        yield Problem(UNREAD, where, request)
    elif is_held_out(f"request.{templates.index(request)}") != (record.split == "test"):
        yield Problem("split", where, f"the request {request!r} in {record.split}")
    tried = attempts(record.rounds, one.index)
    scene = one.shown or record.scene
    known = user_turn(record.instruction, one.features, request=request, scene=scene, tried=tried)
    if known == content:
        return
    own = [line for line in content.split("\n")[1:] if line.startswith(PREFIXES)]
    told = "\n".join(line for line in content.split("\n") if not line.startswith(PREFIXES[:3]))
    yield from _numbers(
        _stored(record, one), [q for q in quotes_of_sentence(told, None)[0] if q.role == "value"], where
    )
    unknown = ((PREFIXES[1],) if scene is None else ()) + (() if tried else (PREFIXES[2],))  # told, not in the record
    for line in own:
        if line not in known.split("\n"):
            yield Problem(UNREAD if line.startswith(unknown) else "conversation", where, line)
    if not own:
        yield Problem(UNREAD, where, "worded in another way")


def _answer(record: Record, one: Round, content: str, where: str) -> Iterator[Problem]:
    if content == answer(one, record.instruction):
        return
    paragraph = content.partition("{")[0].strip()
    yield from _round_texts(record, one.model_copy(update={"reasoning_text": paragraph, "diagnosis_text": ""}), where)
    try:
        said = read_answer(content)
    except ValueError as error:
        yield Problem("conversation", where, str(error))
        return
    expected = read_answer(answer(one, record.instruction))
    if said.diagnosis != expected.diagnosis:
        yield Problem("conversation", where, "another diagnosis than the round's")
    if said.actions != expected.actions:
        yield Problem("conversation", where, "other actions than the round's")
    if said.prompt != expected.prompt:
        yield Problem("conversation", where, "another prompt than the round's")
