"""What a colour classifier sees of an object equals the reference's crops, pixel by pixel, and fails where they do."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from geneval.colors.crops import crop
from genloop.records import Detection
from tests.goldens.roots import golden_name, golden_paths


def ours(case: dict[str, Any], data: Any) -> np.ndarray:
    number, options = case["id"], case["options"]
    with Image.open(io.BytesIO(data[f"png{number}"].tobytes())) as picture:
        image = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    x1, y1, x2, y2 = data[f"box{number}"][:4].tolist()
    mask = data[f"mask{number}"] if case["mask"] else None
    to_box = options.get("crop", "1") == "1"
    found = Detection("bench", 0.5, (x1, y1, x2, y2), mask)
    return crop(image, found, background=options.get("bgcolor", "#999"), to_box=to_box)


@pytest.mark.parametrize("file", golden_paths("geneval/**/crops*.npz"), ids=golden_name)
def test_every_recorded_crop_is_ours(file: Path) -> None:
    with np.load(file) as data:
        cases = json.loads(data["index"].tobytes())
        wrong, num_refused = [], 0
        for case in cases:
            if case["error"]:  # a mask of another size, or a box that ends before it starts
                with pytest.raises(ValueError, match=r"they have to be equal|x1 <= x2 and y1 <= y2"):
                    ours(case, data)
                num_refused += 1
            elif not np.array_equal(ours(case, data), data[f"crop{case['id']}"]):
                wrong.append(case)
    assert cases and wrong == []
    assert num_refused < len(cases)
