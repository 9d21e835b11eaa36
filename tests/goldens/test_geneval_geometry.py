"""Relations and overlaps of boxes equal the reference's on every recorded pair."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from geneval.geometry import iou, relative_position
from tests.goldens.roots import golden_name, golden_paths

TOLERANCE = 1e-6


@pytest.mark.parametrize("file", golden_paths("geneval/**/geometry*.jsonl.gz"), ids=golden_name)
def test_every_recorded_pair_of_boxes_is_ours(file: Path) -> None:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    assert pairs
    wrong = []
    for pair in pairs:
        a, b = (np.array(pair[key], dtype=np.float32) for key in "ab")
        relations = sorted(relative_position(a, b, pair["position_threshold"]))
        overlap = float(iou(a, b[None])[0])
        if relations != sorted(pair["relations"]) or abs(overlap - pair["iou"]) > TOLERANCE:
            wrong.append((pair, relations, overlap))
    assert wrong == []
