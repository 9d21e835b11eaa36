"""GenEval's evaluation as published (Ghosh et al. 2023), told in our words: the baseline of benchmarks/geneval.py.

One image after the other, batch 1, through the network as transformers has it. Each of the hundred likeliest pairs of a
query and a class gets a mask: all are enlarged to the full image together, and copied one by one. Every colour clause
makes a data loader of its own with four processes, batches of 16 crops. Rows are kept until the end.

What is read is read by our code, and so are the rules: the comparison is about the work, not about who wrote it.
H, W = pixels of an image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from geneval.colors.crops import crop
from geneval.folder import Sample
from geneval.names import OBJECT_NAMES
from geneval.settings import Evaluator
from geneval.verdict import color_requests, details, judge_objects, keep
from genloop.data.image_reader import read_image
from genloop.models.mask2former.pixels import prepare, sizes_of
from genloop.records import Detection, color_names


def published(samples: Sequence[Sample], images: Path, evaluator: Evaluator) -> list[dict[str, Any]]:
    """The rows of all samples."""
    rows = []
    for sample in samples:
        image = read_image(images / sample.image)
        objects = keep(detections(evaluator.detector, image), sample.prompt, evaluator.options, OBJECT_NAMES)
        named = {
            clause: colors(image, found, evaluator.colors)
            for clause, found in color_requests(sample.prompt, objects).items()
        }
        verdict = judge_objects(sample.prompt, objects, named, evaluator.options)
        rows.append({"correct": verdict.correct, "reason": verdict.reason, "details": details(objects)})
    return rows


@torch.inference_mode()
def detections(detector: Any, image: np.ndarray) -> list[Detection]:
    """The likeliest hundred of (H, W, 3), best first; every step for all masks at once."""
    found = detector.network(pixel_values=prepare(image, detector.preparation, detector.device)[None])
    likely = found.class_queries_logits[0].softmax(dim=-1)[:, :-1].flatten()
    values, order = likely.sort(descending=True, stable=True)
    values, order = values[:100], order[:100]
    planes = full_size(found.masks_queries_logits, sizes_of(image.shape[:2], detector.preparation.scale))
    planes = planes[order // len(OBJECT_NAMES)]  # (100, H, W)
    inside = (planes > 0).float()
    factors = (planes.sigmoid() * inside).flatten(1).sum(dim=1) / (inside.flatten(1).sum(dim=1) + 1e-6)
    masks = inside.bool()
    labels, scores = (order % len(OBJECT_NAMES)).tolist(), (values * factors).tolist()
    copies = [mask.clone().cpu().numpy() for mask in masks]
    rows = zip(labels, scores, boxes(masks), copies)
    objects = [Detection(OBJECT_NAMES[label], score, box, mask) for label, score, box, mask in rows]
    return sorted(objects, key=lambda one: -one.score)  # stable: ties as ours


def full_size(logits: Tensor, sizes: Any) -> Tensor:
    """(1, Q, h, w) -> (Q, H, W)"""
    padded = interpolate(logits, sizes.padded, mode="bilinear", align_corners=False)
    resized = padded[:, :, : sizes.resized[0], : sizes.resized[1]]
    return interpolate(resized, sizes.original, mode="bilinear", align_corners=False)[0]


def boxes(masks: Tensor) -> list[tuple[float, float, float, float]]:
    """(N, H, W) bool -> x1, y1, x2, y2 of each; zeros when it is empty"""
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    found = []
    for across, down in zip(columns, rows):
        x, y = torch.where(across)[0], torch.where(down)[0]
        empty = not len(x)
        found.append((0.0, 0.0, 0.0, 0.0) if empty else (float(x[0]), float(y[0]), float(x[-1] + 1), float(y[-1] + 1)))
    return found


def colors(image: np.ndarray, objects: Sequence[Detection], classifier: Any) -> list[str]:
    """A loader with four processes for this clause alone."""
    embedder = classifier.embedder
    loader = DataLoader(Crops(image, objects, embedder.preprocessing), batch_size=16, num_workers=4)
    features = torch.cat([embedder._embed(embedder.network.encode_image, batch) for batch in loader])
    return color_names(classifier.compare(features, classifier.weights(objects[0].class_name)))


class Crops(Dataset[Tensor]):
    """The objects of one clause, cut out and made ready for CLIP by the loader's processes."""

    def __init__(self, image: np.ndarray, objects: Sequence[Detection], prepare_crop: Any) -> None:
        self.image, self.objects, self.prepare_crop = image, objects, prepare_crop

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, place: int) -> Tensor:
        return self.prepare_crop([crop(self.image, self.objects[place])])[0]
