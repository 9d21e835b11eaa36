"""Judges of answers that are right by construction, and the files that they judge."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genloop.data.images import encode_png
from genloop.records import Likelihood, Writing


class WordCounter:
    """Prefers the answer with more words that are in `liked`; `first` is added to the log p of a verdict "1"."""

    def __init__(self, liked: Sequence[str], first: float = 0.0) -> None:
        self.liked, self.first = set(liked), first

    def likelihoods(
        self, queries: Sequence[str], responses: Sequence[Sequence[str]], images: Sequence[np.ndarray | None]
    ) -> list[list[Likelihood]]:
        return [self._one(*asked) for asked in zip(queries, responses, images, strict=True)]

    def write(
        self, queries: Sequence[str], images: Sequence[Any], seeds: Sequence[int], writing: Writing
    ) -> list[str | None]:
        return [f"Overall Judgment: Answer {self._better(query)} is better." for query in queries]

    def _one(self, query: str, answers: Sequence[str], image: np.ndarray | None) -> list[Likelihood]:
        if list(answers) == ["1", "2"]:
            bonus = 1.0 if self._better(query) == 1 else -1.0
            return [Likelihood(-2.0 + bonus + self.first, 1), Likelihood(-2.0, 1)]
        seen = 0.0 if image is None else 1.0
        return [Likelihood(-len(a.split()) + seen * self._score(a) * len(a.split()), len(a.split())) for a in answers]

    def _score(self, text: str) -> int:
        return len(self.liked & set(text.split()))

    def _better(self, query: str) -> int:
        first = query.partition("Answer 1:")[2].partition("Answer 2:")[0]
        second = query.partition("Answer 2:")[2].partition("\n")[0]
        return 1 if self._score(first) >= self._score(second) else 2


def vl_rewardbench_rows() -> list[dict[str, Any]]:
    """A row of every data set of VL-RewardBench, as the hub has them; the fourth shares its image with the third."""
    told = [
        ("wildvision-battle-1", "WildVision"),
        ("jailbreak-Fraud-1", "VLFeedback"),
        ("hallucination_pair-1", "POVID"),
        ("RLHF-V-1", "RLHF-V"),
        ("RLAIF-V-1", "rlaif-v"),
        ("mathverse_1", "MathVerse"),
        ("mmmu_pro_1", "MMMU-Pro"),
        ("mmmu_pro_1", "MMMU-Pro"),
    ]
    rows = []
    for number, (name, source) in enumerate(told):
        pixels = np.full((8, 8 + max(number, 3), 3), 20 * max(number, 3), dtype=np.uint8)
        ranking = [0, 1] if number % 2 == 0 else [1, 0]
        row = {
            "id": name,
            "query": f"What is number {number % 3}?",
            "response": ["a good one", "a bad one"][:: 1 - 2 * ranking[0]],
        }
        rows.append(row | {"human_ranking": ranking, "query_source": source, "image": encode_png(pixels)})
    rows[2]["query"] = "<image>\n" + rows[2]["query"]
    return rows


def write_jsonl(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """FOLDER/data.jsonl in the form of VL-RewardBench's repository, images as files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, row in enumerate(rows):
        (folder / f"{number}.png").write_bytes(row["image"])
        lines.append(
            json.dumps({key: value for key, value in row.items() if key != "image"} | {"image": f"{number}.png"})
        )
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "data.jsonl"
