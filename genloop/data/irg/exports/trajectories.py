"""Trajectories as the recipe `visual_reflection` of verl-omni reads them: JSON lines, and the images beside.

{"trajectory_id", "manifest_id", "source_dataset", "source_record_id", "prompt", "images": [{"uri", "sha256"}],
"steps": [{"reflection", "action": continue | stop, "edit"}]}: a step for each image, the last one stops without an
edit. `split` and `license` are ours. Identifiers are hashes of the content.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genloop.data.irg.exports import UnitFiles
from genloop.data.irg.exports.lazy import Read, files_of, read_lines
from genloop.data.irg.exports.looks import Seen, looks_of, read_file, read_looks, record_of
from genloop.data.shards import Sample
from genloop.rundir import json_line

NEEDED = ("trajectory_id", "prompt", "images", "steps")


class Trajectories:
    """One line a trace."""

    def write(self, unit: str, samples: Sequence[Sample], sink: UnitFiles) -> list[str]:
        """exported/UNIT.jsonl and images/KEY.0.png, ...; uris are relative to the run folder."""
        lines = []
        for sample in samples:
            record = record_of(sample)
            looks = looks_of(record)
            images = []
            for look in looks:
                uri, data = f"images/{record.id}.{look.image}", sample.fields[look.image]
                sink.file(uri, data)
                images.append({"uri": uri, "sha256": hashlib.sha256(data).hexdigest()})
            actions = ["continue"] * (len(looks) - 1) + ["stop"]
            steps = [
                {"reflection": look.text, "action": action, "edit": look.edit}
                for look, action in zip(looks, actions, strict=True)
            ]
            content = json.dumps([record.instruction, [image["sha256"] for image in images], steps])
            row = {
                "trajectory_id": hashlib.sha256(content.encode()).hexdigest()[:32],
                "manifest_id": record.generator.params_sha[:32],
                "source_dataset": record.generator.name,
                "source_record_id": record.id,
                "prompt": record.instruction,
                "images": images,
                "steps": steps,
            }
            lines.append(json_line(row | {"split": record.split, "license": record.license}))
        sink.file(f"exported/{unit}.jsonl", b"".join(lines))
        return []

    def read(self, source: Path) -> Sequence[Sample]:
        """All trajectories at or below a folder; each line is checked, images when they are asked for."""
        rows = read_lines(files_of(source, ".jsonl"), NEEDED)
        for row, where in rows:
            _check(row, where)
        folder = source if source.is_dir() else source.parent
        return Read(len(rows), lambda place: _trace(folder, *rows[place]))


def _check(row: dict[str, Any], where: str) -> None:
    images, steps = row["images"], row["steps"]
    if not (isinstance(images, list) and isinstance(steps, list) and len(images) == len(steps) > 0):
        raise ValueError(f"{where}: images and steps must be lists of one length")
    for place, step in enumerate(steps):
        is_last = place == len(steps) - 1
        if not isinstance(step, dict) or step.get("action") != ("stop" if is_last else "continue"):
            raise ValueError(f"{where}: steps.{place}.action must be {'stop' if is_last else 'continue'}")
        if is_last and step.get("edit"):
            raise ValueError(f"{where}: steps.{place}.edit must be empty, the trajectory stops there")


def _trace(folder: Path, row: dict[str, Any], where: str) -> Sample:
    seen = []
    for place, (image, step) in enumerate(zip(row["images"], row["steps"], strict=True)):
        data = read_file(folder, image.get("uri") if isinstance(image, dict) else image, where)
        sha256 = image.get("sha256") if isinstance(image, dict) else None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"{where}: images.{place} has another sha256")
        seen.append(Seen(data, str(step.get("reflection") or ""), str(step.get("edit") or "")))
    key = str(row.get("source_record_id") or row["trajectory_id"])
    return read_looks(key, str(row["prompt"]), seen, told=row, source="verl")
