"""Mask2Former (Cheng et al. 2022) on stock transformers: pixels -> class logits and mask logits, in strict float32.

B = images, Q = queries, C = classes, P, Q = padded height and width. Decoder layers look where the last one's mask is
above one half: a step, at which rounding decides. So there is no TF32 and no half precision here.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genloop.models.common.footprint import kind_of
from genloop.models.common.precision import strict_float32
from genloop.models.common.pretrained import load_pretrained
from genloop.models.mask2former.config import check_mask2former_folder
from genloop.models.mask2former.forward import forward
from genloop.registry import require

Mask2Former = Any  # Mask2FormerForUniversalSegmentation, which is only imported when a model is loaded
_IGNORED = ("model.pixel_level_module.encoder.swin.layernorm.", "criterion.empty_weight")  # decide no answer


def load_mask2former(folder: Path, *, device: str | torch.device = "cpu") -> Mask2Former:
    """A folder in the layout of transformers -> the network in float32 and eval mode.

    Another family, missing, unexpected or misshapen tensors are a ValueError, before any tensor is read.
    """
    transformers = require("transformers")
    config = transformers.Mask2FormerConfig.from_dict(check_mask2former_folder(folder).to_json())
    network_class = transformers.Mask2FormerForUniversalSegmentation
    return load_pretrained(network_class, folder, device=device, config=config, ignored=_IGNORED).requires_grad_(False)


def raw_logits(network: Mask2Former, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised, padded pixels (B, 3, P, Q) -> classes (B, Q, C + 1) and masks (B, Q, P / 4, Q / 4), all float32."""
    alone = kind_of(pixels.device) == "cpu"  # whose convolutions and small products take other kernels for more images
    with torch.inference_mode(), strict_float32(pixels.device):
        found = [forward(network, part) for part in (pixels.split(1) if alone else [pixels])]
    if len(found) == 1:
        return found[0]
    classes, masks = zip(*found)
    return torch.cat(classes), torch.cat(masks)
