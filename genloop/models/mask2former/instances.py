"""From Mask2Former's logits to instances, as mmdet's test configuration of COCO has it: no threshold, no suppression.

The hundred likeliest (query, class) pairs each become one instance. Its mask is where the query's logits, enlarged to
the input and then resized to the image, are positive; its score is the class's probability times the mean probability
of the mask. A mask's factor is below 1, so that a class's probability alone says which masks are not worth the work.
One mask is enlarged at a time: numbers of a mask do not depend on which others are looked at, and memory stays small.

Q = queries, C = classes, h, w = the logits' size, H, W = the image's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genloop.models.mask2former.pixels import Sizes

MAX_INSTANCES = 100
_SLACK = 1 + 1e-5  # rounding of a mask's factor


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One of the likeliest pairs. `mask` (H, W) bool, on the device of the logits, or None when nobody asked for it."""

    query: int
    label: int
    score: float
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the image; zeros for an empty mask
    area: int
    mask: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Region:
    """What is needed of one query's mask."""

    factor: Tensor  # () float32: its mean probability
    numbers: tuple[Tensor, ...]  # 5 x () int64: x1, y1, x2, y2, pixels
    mask: Tensor | None  # (H, W) bool


def instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    sizes: Sizes,
    *,
    threshold: float = -1.0,
    needs_mask: Callable[[int], bool] = lambda label: True,
    max_instances: int = MAX_INSTANCES,
) -> list[Instance]:
    """(Q, C + 1) and (Q, h, w) float32 -> instances with a score above `threshold` (compared in float32), best first.

    Masks come with the labels that `needs_mask` says yes to. Ties are broken by query, then class.
    """
    num_classes = class_logits.shape[1] - 1
    likely = class_logits.softmax(dim=-1)[:, :num_classes].flatten()
    order = likely.sort(descending=True, stable=True).indices[:max_instances]
    limit = torch.tensor(threshold, dtype=torch.float32, device=likely.device)
    order = order[likely[order] * _SLACK > limit]
    pairs = [divmod(place, num_classes) for place in order.tolist()]
    if not pairs:
        return []
    masked = {query for query, label in pairs if needs_mask(label)}
    regions = {query: _region(mask_logits[query], sizes, keep=query in masked) for query, _ in pairs}
    scores = likely[order] * torch.stack([regions[query].factor for query, _ in pairs])
    numbers = torch.stack([torch.stack(region.numbers) for region in regions.values()]).tolist()  # one transfer
    known = dict(zip(regions, numbers))
    values, above = scores.tolist(), (scores > limit).tolist()
    found = []
    for place in scores.sort(descending=True, stable=True).indices.tolist():
        if above[place]:
            query, label = pairs[place]
            x1, y1, x2, y2, area = known[query]
            mask = regions[query].mask if needs_mask(label) else None
            box = (float(x1), float(y1), float(x2), float(y2))
            found.append(Instance(query, label, values[place], box, area, mask))
    return found


def _region(logits: Tensor, sizes: Sizes, *, keep: bool) -> _Region:
    """(h, w) -> the mask of one query in the image's own pixels"""
    height, width = sizes.resized
    enlarged = _resize(logits, sizes.padded)[:height, :width]
    inside = _resize(enlarged, sizes.original)  # (H, W) logits
    mask = inside > 0
    area = mask.sum()
    factor = (inside.sigmoid() * mask).sum() / (area + 1e-6)
    return _Region(factor, (*_box(inside), area), mask if keep else None)


def _resize(plane: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(plane[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _box(plane: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(H, W) logits -> x1, y1, x2, y2 around what is positive, zeros when nothing is"""
    (top, bottom), (left, right) = (_span(plane.amax(dim=axis) > 0) for axis in (1, 0))
    return left, top, right, bottom


def _span(hit: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) bool -> first index, last index + 1; 0, 0 when there is none"""
    some = hit.any()
    return hit.int().argmax() * some, (len(hit) - hit.flip(0).int().argmax()) * some
