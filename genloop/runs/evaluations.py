"""All verdicts of a finished run of `evaluate`, or of GenEval's own result file, and the card beside them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop import ledger, rundir
from genloop.reading import parse_json, read_bytes, read_json_object
from genloop.runs.provenance import is_upper_bound
from genloop.runs.rows import EvaluatedRow, read_images

CARD = "card.json"  # of a run: how its images were made, and how they were judged
IDENTITY = ("tag", "include", "exclude", "prompt")  # what of a prompt's metadata makes it that prompt
GROUPS = ("detector", "colors", "options", "code", "canary", "images")  # of a card
_PLACE = re.compile(r"(?<![0-9])([0-9]{1,9})/(?:[^/]+/([0-9]{1,9})|final)\.\w+$")  # 00017/samples/0000.png, 00017/final.png


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """One image and its verdict. `prompt` is the metadata that makes it the same prompt in any run, as JSON."""

    prompt: str
    prompt_index: int
    sample: int
    text: str
    tag: str
    correct: bool
    reason: str
    metadata: Mapping[str, Any]
    distance: float | None = None  # of the nearest score to its threshold; None: none is near, or nobody knows
    tells_distance: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All verdicts of a run, in the order of prompts and samples; `card` is None when it has none."""

    path: Path
    images: Sequence[EvaluatedImage]
    card: Mapping[str, Any] | None

    @property
    def is_upper_bound(self) -> bool:
        """Whether the images were chosen by the detector that judged them."""
        return is_upper_bound(self.card)


def read_evaluation(path: Path) -> Evaluation:
    """A run folder of `evaluate`, or a result file as GenEval writes it; an error of one line for anything else."""
    check_evaluation(path)
    rows = read_result_file(path) if path.is_file() else read_evaluated(path)
    images = sorted((judged_image(row) for row in rows), key=lambda image: (image.prompt_index, image.sample))
    if not images:
        raise ValueError(f"{path} holds no verdicts")
    return Evaluation(path, images, read_card(path))


def read_evaluated(run: Path) -> Iterator[EvaluatedRow]:
    """The rows of the finished units of a run of evaluate, in order; errors of `read_images`."""
    return read_images(run, EvaluatedRow)


def check_evaluation(path: Path) -> None:
    """ValueError or FileNotFoundError unless it is a result file, or a run of evaluate whose units are all done."""
    if path.is_file():
        return
    fingerprint = rundir.read_run(path)
    if fingerprint is None:
        raise FileNotFoundError(f"{path} is neither a run of evaluate (no run.json) nor a result file")
    if fingerprint["job"] != "evaluate":
        raise ValueError(f"{path} is a run of {fingerprint['job']}; name the `out` of an evaluate run")
    if not ledger.finished(path):
        raise ValueError(f"{path} has no finished unit; finish the evaluation first")
    if left := ledger.unsettled(path):
        raise ValueError(f"{path} is unfinished, {left} units are left; finish the evaluation first")
    failed = ledger.plan_of(path).get("units", 0) - len(ledger.finished(path))
    if failed > 0:
        raise ValueError(f"{path} has {failed} failed units; evaluate again with retry_failed=true")


def content_of(path: Path, key: str) -> dict[str, Path]:
    """{key: what decides the verdicts' content}, for fingerprints."""
    if path.is_file():
        return {key: path}
    found = {key: path / "rows", f"{key}.card": path / CARD}
    return {name: place for name, place in found.items() if name == key or place.is_file()}


def read_card(path: Path) -> Mapping[str, Any] | None:
    """The card of a run folder, or None; ValueError when it is there and damaged."""
    place = path / CARD
    if not place.is_file():
        return None
    try:
        card = read_json_object(place)
    except ValueError:
        card = {}
    if not card or not all(isinstance(card.get(key), Mapping | None) for key in GROUPS):
        raise ValueError(f"{place} is damaged: not a card; remove it and run the evaluation again, which writes it")
    return card


def judged_image(row: EvaluatedRow) -> EvaluatedImage:
    """A row as comparisons need it; one without metadata is known by its task and its text."""
    metadata = row.metadata or {"tag": row.tag, "prompt": row.prompt}
    own = {key: metadata[key] for key in IDENTITY if key in metadata}
    return EvaluatedImage(
        prompt=json.dumps(own, sort_keys=True),
        prompt_index=row.prompt_index,
        sample=row.sample,
        text=row.prompt,
        tag=row.tag,
        correct=row.correct,
        reason=row.reason,
        metadata=metadata,
        distance=row.distance,
        tells_distance=row.tells_distance,
    )


def read_result_file(path: Path) -> Iterator[EvaluatedRow]:
    """GenEval's result file, also as other projects' copies of its script write it: metadata and details are JSON text
    there, prompt and sample stand in the file's name, in any order, and keys may be missing or more.
    """
    seen: set[tuple[int, int]] = set()
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        if not line.strip():  # files of several processes that were put together
            continue
        where = f"{path}:{number}"
        try:
            row = parse_json(line)
            place = _PLACE.search(row["filename"].replace("\\", "/"))
            if place is None:
                raise ValueError("no number of a prompt and of a sample")
            row |= {key: parse_json(row[key]) for key in ("metadata", "details") if isinstance(row.get(key), str)}
            row |= {"prompt_index": int(place[1]), "sample": int(place[2] or 0), "image": place[0]}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{where}: not a row of GenEval's result file (filename .../00017/samples/0000.png, metadata, ...)"
            ) from None
        try:
            found = EvaluatedRow.from_json(json.dumps(row).encode())
        except ValueError as error:
            raise ValueError(f"{where}: not a row ({error})") from None
        if (image := (found.prompt_index, found.sample)) in seen:
            raise ValueError(f"{where}: a second row of prompt {image[0]}, sample {image[1]}; keep one")
        seen.add(image)
        yield found
