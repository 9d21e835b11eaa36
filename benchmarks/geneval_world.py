"""What benchmarks/geneval.py measures on: random weights, pictures on which they see something, prompts about it.

A Mask2Former of 100 queries and 80 classes, small but for those or of the published sizes (Swin-S). Its "no object" is
set so that a picture shows about OBJECTS objects in the mean, and pictures with 1 to MOST are taken. A CLIP of two
layers. Each picture is judged against a prompt of GenEval's form about what was found on it, the six tasks as often as
in the published set.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ckpts.convert.mask2former import convert
from geneval.detectors.mask2former_detector import Mask2FormerDetector
from geneval.settings import EvaluatorKeys, build_evaluator
from genloop.data.images import encode_png
from genloop.data.prompts import caption
from genloop.models.mask2former.config import HeadDims, SwinDims
from genloop.models.mask2former.load import raw_logits
from genloop.models.mask2former.pixels import prepare
from genloop.records import COLORS, RELATIONS, Clause, Detection, Prompt, Wanted
from tests.worlds.tiny_clip import write_transformers_folder
from tests.worlds.tiny_mask2former import TINY, mmdet_state

NETWORKS = {  # sizes, and how far queries are spread: the more layers, the more alike random ones become
    "small": (replace(TINY, head=replace(TINY.head, num_queries=HeadDims().num_queries)), 1.0),
    "swin-s": (replace(TINY, swin=SwinDims(), head=HeadDims()), 64.0),
}
SIZE = 512  # pixels along a side
SHARES = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
MOST = 30  # objects on a picture that is taken
DRAWN = 2000  # pictures to choose from
OBJECTS = 8  # (query, class) pairs above the threshold that a picture has, in the mean
THRESHOLD = 0.3
LIKELY = 0.4  # a class's probability whose mask usually brings the score to the threshold


def prepare_work(
    place: Path, num_images: int, network: str, detector: Path | None, colors: Path | None
) -> tuple[Path, Path]:
    """Images in GenEval's layout below `place`, and weights -> the folders of detector and CLIP"""
    detector = detector or make_detector(place, network, [draw(number) for number in range(16)])
    colors = colors or write_transformers_folder(place / "clip")
    chosen = list(islice(with_objects(load(detector, None)), num_images))
    if len(chosen) < num_images:
        raise ValueError(f"{detector}: finds 1 to {MOST} objects on {len(chosen)} of {DRAWN} pictures only")
    pictures, found = [picture for picture, _ in chosen], [objects for _, objects in chosen]
    for prompt, picture in zip(prompts_for(found), pictures):
        folder = place / "images" / f"{prompt.index:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "samples" / "0000.png").write_bytes(encode_png(picture))
        (folder / "metadata.jsonl").write_text(json.dumps(prompt.metadata()) + "\n")
    counts = [sum(one.score > THRESHOLD for one in ours) for ours in found]
    about = f"{np.mean(counts):.1f} in the mean, {max(counts)} at most"
    print(f"{num_images} images of {SIZE} px; objects above {THRESHOLD}: {about}", flush=True)
    return detector, colors


def make_detector(folder: Path, network: str, images: Sequence[np.ndarray]) -> Path:
    """A Mask2Former for which these images show about OBJECTS objects each -> its folder"""
    config, spread = NETWORKS[network]
    state, file = mmdet_state(config), folder / "random.pth"
    for key in state:
        state[key] *= spread if ".query_" in key else 1
    torch.save({"meta": {}, "state_dict": state}, file)
    detector = load(convert(file, folder / "detector").folder, None)
    pixels = [prepare(image, detector.preparation)[None] for image in images]
    logits = torch.cat([raw_logits(detector.network, one)[0] for one in pixels])  # (N, Q, 81)
    low, high = 0.0, 50.0
    for _ in range(30):
        middle = (low + high) / 2
        raised = torch.cat([logits[..., :-1], logits[..., -1:] + middle], dim=-1)
        count = (raised.softmax(dim=-1)[..., :-1] > LIKELY).sum() / len(images)
        low, high = (middle, high) if count > OBJECTS else (low, middle)
    bias = next(key for key in state if key.endswith("cls_embed.bias"))
    state[bias][-1] += high
    torch.save({"meta": {}, "state_dict": state}, file)
    return convert(file, folder / "detector").folder


def load(detector: Path, colors: Path | None) -> Any:
    """The evaluator over two folders, or the detector alone."""
    kind = {"kind": "hf_mask2former", "options": {"checkpoint": str(detector)}}
    clip: dict[str, Any] = {"kind": "shapes"}
    if colors is not None:
        options = {"checkpoint": str(colors), "backend": "transformers", "architecture": None}
        clip = {"kind": "clip", "options": options}
    keys = EvaluatorKeys.model_validate({"detector": kind, "colors": clip})
    evaluator = build_evaluator(keys, Path)
    return evaluator.detector if colors is None else evaluator


def draw(number: int) -> np.ndarray:
    """Discs and boxes of all colours on a shaded ground: (SIZE, SIZE, 3) uint8"""
    rng = np.random.default_rng([3, number])
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([(x * rng.uniform() + y * rng.uniform()) / 4 + 60 * rng.uniform() for _ in range(3)], axis=-1)
    for _ in range(rng.integers(3, 9)):
        center, radius = rng.integers(0, SIZE, size=2), rng.integers(20, 140)
        inside = np.hypot(x - center[0], y - center[1]) < radius
        if rng.uniform() < 0.5:
            inside = (abs(x - center[0]) < radius) & (abs(y - center[1]) < radius)
        image[inside] = rng.integers(0, 256, size=3)
    return np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def with_objects(finder: Mask2FormerDetector) -> Iterator[tuple[np.ndarray, list[Detection]]]:
    """Pictures on which the detector finds something, but not everything: a random one finds all or nothing on many."""
    for number in range(DRAWN):
        picture = draw(number)
        objects = finder.detect_for([picture], [Wanted(THRESHOLD)])[0]
        if 1 <= sum(one.score > THRESHOLD for one in objects) <= MOST:
            yield picture, objects


def prompts_for(found: Sequence[Sequence[Detection]]) -> Iterator[Prompt]:
    """For each image one about what is on it; the tasks as often as in the published set."""
    tasks = [tag for tag, share in SHARES.items() for _ in range(share)]
    for index, objects in enumerate(found):
        rng = np.random.default_rng([4, index])
        tag = tasks[(2 * index + 1) * len(tasks) // (2 * len(found))]
        names = list(dict.fromkeys(one.class_name for one in objects if one.score > THRESHOLD)) or ["dog"]
        first, second = names[0], names[-1] if len(names) > 1 else "zebra"
        one, two = (COLORS[k] for k in rng.choice(len(COLORS), size=2, replace=False))
        include = {
            "single_object": (Clause(first, 1),),
            "two_object": (Clause(first, 1), Clause(second, 1)),
            "counting": (Clause(first, int(rng.integers(2, 5))),),
            "colors": (Clause(first, 1, one),),
            "position": (Clause(first, 1), Clause(second, 1, position=(RELATIONS[int(rng.integers(4))], 0))),
            "color_attr": (Clause(first, 1, one), Clause(second, 1, two)),
        }[tag]
        exclude = tuple(Clause(c.class_name, c.count + 1) for c in include) if tag == "counting" else ()
        yield Prompt(index, caption(tag, include), tag, include, exclude)
