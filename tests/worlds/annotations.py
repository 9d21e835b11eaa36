"""People's answers in the form that GenEval published them, for tests."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

URL = "https://huggingface.co/datasets/x/y/resolve/main/images/{model}/{prompt:05d}/samples/{sample:05d}.png"
SIDES = {"left of": "left", "right of": "right", "above": "above", "below": "below"}


def published_row(metadata: Mapping[str, Any], prompt: int, sample: int, kind: str, model: str = "m") -> dict[str, str]:
    """One person's answer: "strict" is a yes by both rules, "loose" by the loose one only, "no" by neither."""
    names = [clause["class"] for clause in metadata["include"]]
    row = {
        "HITId": "x",
        "Input.index": f"{prompt}_{sample}",
        "Input.prompt_id": str(prompt),
        "Input.image_id": str(sample),
        "Input.image_url": URL.format(model=model, prompt=prompt, sample=sample),
        "Input.caption": metadata["prompt"],
        **{f"Input.object_{k}_name": names[k] if k < len(names) else "" for k in (0, 1)},
        "Answer.task-position-x": "neither_x" if len(names) > 1 else "",
        "Answer.task-position-y": "neither_y" if len(names) > 1 else "",
        "Answer.task-quality": "3",
        **{f"Answer.task-{what}-{k}": "" for what in ("count", "color") for k in (0, 1)},
    }
    for k, clause in enumerate(metadata["include"]):
        more = 1 if kind == "loose" and k == 0 else 0
        count = 0 if kind == "no" and k == 0 else clause["count"] + more
        row[f"Answer.task-count-{k}"] = f"{count}.0" if k else str(count)
        row[f"Answer.task-color-{k}"] = "|".join(filter(None, [clause.get("color"), "gray"]))
        if clause.get("position"):
            side = SIDES[clause["position"][0]]
            row[f"Answer.task-position-{'x' if side in ('left', 'right') else 'y'}"] = side
    return row


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """A CSV file with a header."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
