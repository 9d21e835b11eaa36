"""Image folders in GenEval's layout for tests: drawn scenes of the embedded world, some of them wrong."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from genloop.data.images import encode_png
from genloop.records import Prompt
from genloop.shapes.prompts import prompt_set
from genloop.shapes.render import render
from genloop.shapes.scenes import scene_for


def write_images(folder: Path, prompts: Sequence[Prompt], samples: int = 2) -> Path:
    """One folder a prompt; every sample shows its prompt, but odd samples of odd prompts show nothing -> `folder`."""
    for prompt in prompts:
        place = folder / f"{prompt.index:05d}"
        (place / "samples").mkdir(parents=True)
        (place / "metadata.jsonl").write_text(json.dumps(prompt.metadata()) + "\n")
        for sample in range(samples):
            image = render([scene_for(prompt, np.random.default_rng([prompt.index, sample]))])[0]
            if prompt.index % 2 and sample % 2:
                image = np.zeros_like(image)
            (place / "samples" / f"{sample:04d}.png").write_bytes(encode_png(image))
    return folder


def write_pictures(folder: Path, *names: str) -> Path:
    """The same small black picture under all names -> `folder`."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode_png(np.zeros((4, 4, 3), dtype=np.uint8)))
    return folder


def small_set() -> list[Prompt]:
    """Two prompts of each task."""
    return prompt_set("test", 0, 2)


def torn_avif() -> bytes:
    """Pillow tells of it by another kind of error than of other formats."""
    stream = io.BytesIO()
    Image.fromarray(np.arange(24 * 24 * 3, dtype=np.uint8).reshape(24, 24, 3)).save(stream, "AVIF")
    data = stream.getvalue()
    return data[: data.index(b"mdat") + 8] + bytes(len(data))
