"""A trace as formats of others see it: a row of images, a text about each, an edit that leads to the next one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genloop.data.image_reader import UnreadableImage, as_png, decode_image
from genloop.data.irg.actions import edit_prompt
from genloop.data.irg.features import measure
from genloop.data.irg.phrases import ASPECTS, FEATURES, ISSUES_BY_NAME, NUMBER, OP_NAMES, parse, sentences
from genloop.data.irg.quality import intent_of
from genloop.data.irg.quotes import same_at_precision
from genloop.data.irg.record import (
    Action,
    Diagnosis,
    Evidence,
    Features,
    Generator,
    Record,
    Round,
    in_one_line,
    parse_record,
)
from genloop.data.irg.split import SPLITS
from genloop.data.irg.text import action_text, plain_number
from genloop.data.shards import Sample
from genloop.reading import read_bytes
from genloop.rundir import check_inside

_FEATURES = {name: feature for feature, name in FEATURES.items()}
_ASPECTS = {name: aspect for aspect, name in ASPECTS.items()}


@dataclass(frozen=True, slots=True)
class Shown:
    """One image (field of the sample), what is said about it, what is done then; the last one has no edit."""

    image: str
    text: str
    edit: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A look that is read from elsewhere: the bytes of the image, text and edit, and what is known beside."""

    image: bytes
    text: str
    edit: str = ""
    diagnosis: tuple[Diagnosis, ...] = ()
    actions: tuple[Action, ...] = ()


def record_of(sample: Sample) -> Record:
    """The record of a sample; ValueError names shard and key."""
    if "json" not in sample.fields:
        raise ValueError(f"{sample.name} has {', '.join(sample.fields)}; needs json")
    return parse_record(sample.fields["json"], sample.name)


def looks_of(record: Record) -> list[Shown]:
    """The accepted rounds, then the image that the trace ends with."""
    found = [
        Shown(one.image, text_of(one), edit_of(record, one))
        for one in record.rounds
        if one.accepted and one.result is not None
    ]
    last = record.rounds[-1]
    closing = text_of(last) if last.result is None else ""
    return [*found, Shown(record.final, closing, "")]


def text_of(one: Round) -> str:
    """What is said about the image of a round."""
    return " ".join(filter(None, [one.reasoning_text, one.diagnosis_text]))


def edit_of(record: Record, one: Round) -> str:
    """The actions in words; of a new image its prompt."""
    texts = [action.params.get("prompt") for action in one.actions if action.op == "regenerate"]
    if texts:
        return str(texts[0] or edit_prompt(record.instruction, one.diagnosis))
    return ", then ".join(map(action_text, one.actions))


def sample_of(record: Record, images: Mapping[str, bytes]) -> Sample:
    """As it lies in a shard of this suite."""
    return Sample(record.id, {"json": record.to_json(), "txt": record.instruction.encode(), **images})


def read_looks(
    key: str, instruction: str, seen: Sequence[Seen], *, told: Mapping[str, Any], source: str, reasoning: str = ""
) -> Sample:
    """A trace of accepted rounds from looks of elsewhere; features are measured on the images.

    `told`: "split", which is train where it is none of ours, and "license", where a row has them.
    Diagnoses and actions that are not given are read from the sentences of this suite; an edit of others becomes a
    `regenerate` with the edit as its prompt. The exposure that is asked for is told by the words of the instruction.
    ValueError names the trace where an image does not decode or nothing is asked for.
    """
    if not instruction.strip() or not seen:
        raise ValueError(f"{key}: has no {'images' if instruction.strip() else 'instruction'}")
    key = key.encode(errors="replace").decode().replace(".", "-").replace("/", "-")  # as names of samples allow
    images = {f"{place}.png": _png(look.image, f"{key}: image {place}") for place, look in enumerate(seen)}
    try:
        record = Record(
            id=key,
            split=told["split"] if told.get("split") in SPLITS else "train",
            generator=Generator(name=source, seed=0, params_sha="0" * 64),
            instruction=instruction,
            intent=intent_of(instruction),
            reasoning_text=reasoning,
            rounds=tuple(_rounds(seen, images)),
            license=str(told.get("license") or ""),
            provenance={"source": source},
        )
    except ValidationError as error:  # half of a character, which JSON may hold
        raise ValueError(f"{key}: {in_one_line(error)}") from None
    return sample_of(record, images)


def _rounds(seen: Sequence[Seen], images: Mapping[str, bytes]) -> list[Round]:
    """Of looks and their images, in the same order."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in images.items()}
    features = {name: measure(decode_image(data)) for name, data in images.items()}
    names = list(images)
    rounds: list[Round] = []
    for place, look in enumerate(seen):
        is_last = place == len(seen) - 1
        if is_last and not look.text and rounds:
            break
        after: dict[str, Any] = {}
        if not is_last:
            result = names[place + 1]
            after = {"result": result, "result_sha256": hashes[result], "result_features": features[result]}
        diagnosis, actions = (look.diagnosis, look.actions) if look.diagnosis or look.actions else said(look)
        measured = features[names[place]]
        rounds.append(
            Round(
                index=place,
                image=names[place],
                image_sha256=hashes[names[place]],
                features=measured,
                diagnosis=tuple(_precise(one, measured) for one in diagnosis),
                actions=actions,
                reasoning_text=look.text,
                **after,
            )
        )
    return rounds


def said(look: Seen) -> tuple[tuple[Diagnosis, ...], tuple[Action, ...]]:
    """Diagnoses and actions that the sentences of this suite in a text tell, and else the edit."""
    found: list[Diagnosis] = []
    actions: list[Action] = []
    for parsed in filter(None, map(parse, sentences(look.text))):
        if "issue" in parsed.fields:
            issue, severity = ISSUES_BY_NAME[parsed.fields["issue"]], float(parsed.fields["severity"])
            found.append(Diagnosis(issue=issue, severity=severity, evidence=(_evidence(parsed.fields),)))
        elif parsed.slot == "support" and found:
            both = (*found[-1].evidence, _evidence(parsed.fields))
            found[-1] = found[-1].model_copy(update={"evidence": both})
        elif parsed.slot == "plan":
            actions += _actions(parsed.fields["action"], look.edit)
    if look.edit and not actions:
        actions = [Action(op="regenerate", params={"prompt": look.edit})]
    return tuple(found), tuple(actions)


def _evidence(fields: Mapping[str, str]) -> Evidence:
    """Of a finding or a support, or of a mismatch of content."""
    if "shape" not in fields:
        value, threshold = float(fields["value"]), float(fields["threshold"])
        feature = _FEATURES[fields["feature"]]
        return Evidence(
            feature=feature,
            value=value,
            threshold=threshold,
            relation="below" if fields["side"] == "below" else "above",
        )
    feature = f"{_ASPECTS[fields['aspect']]}:{fields['shape']}"
    found, wanted = fields["found"], fields["wanted"]
    if not (NUMBER.fullmatch(found) and NUMBER.fullmatch(wanted)):
        return Evidence(feature=feature, value=found, threshold=wanted, relation="differs")
    relation = "below" if float(found) < float(wanted) else "above"
    return Evidence.model_validate(
        {"feature": feature, "value": float(found), "threshold": float(wanted), "relation": relation}
    )


def _actions(text: str, edit: str) -> list[Action]:
    name, _, rest = text.partition(" (")
    ops = [op for op, words in OP_NAMES.items() if words == name]
    pairs = [pair.split(" ") for pair in rest.removesuffix(")").split(", ") if pair]
    params: dict[str, float | str] = {pair[0]: float(pair[-1]) for pair in pairs if NUMBER.fullmatch(pair[-1])}
    if ops == ["regenerate"] and edit:
        params["prompt"] = edit
    return [Action(op=op, params=params) for op in ops]


def _precise(diagnosis: Diagnosis, features: Features) -> Diagnosis:
    """With the measured values in place of those that a text has rounded."""
    evidence = []
    for one in diagnosis.evidence:
        value = getattr(features, one.feature, None)
        is_same = value is not None and same_at_precision(plain_number(float(one.value)), value)
        evidence.append(one.model_copy(update={"value": value}) if is_same else one)
    return diagnosis.model_copy(update={"evidence": tuple(evidence)})


def read_file(folder: Path, name: object, where: str) -> bytes:
    """An image that a row names below its folder; ValueError or FileNotFoundError with where it is named."""
    if not isinstance(name, str):
        raise ValueError(f"{where}: an image must be named by a text, found {name!r}")
    try:
        return read_bytes(folder / check_inside(name))
    except (ValueError, OSError) as error:
        raise ValueError(f"{where}: {error}") from None


def _png(data: bytes, where: str) -> bytes:
    """The bytes of a PNG as they are, other images as one."""
    try:
        return as_png(data)
    except UnreadableImage as error:
        raise ValueError(f"{where}: {error}") from None
