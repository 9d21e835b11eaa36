"""Models that look at a picture before it is edited: depth (Depth Anything), edges (TEED), a mask of a point (SAM 2).

Each is loaded when it is first asked and stays. H, W = pixels.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.common.pretrained import load_pretrained
from genloop.models.flux_edit.teed import Teed, load_teed
from genloop.registry import require

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Annotators:
    """Over a checkpoint's folders depth/, sam2/ and anyline/."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        self.folder, self.device = folder, device

    @torch.inference_mode()
    def depth(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 -> (H, W, 3) uint8, near is bright; all black where everything is equally far."""
        model, processor = self._depth
        pixels = processor(images=[picture], return_tensors="pt")["pixel_values"].to(self.device)
        found = model(pixel_values=pixels).predicted_depth[:, None].float()
        values = torch.nn.functional.interpolate(found, size=picture.shape[:2], mode="bicubic")[0, 0].cpu().numpy()
        spread = values.max() - values.min()
        scaled = (values - values.min()) / spread * 255 if spread > 0 else np.zeros_like(values)
        return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)

    @torch.inference_mode()
    def mask(
        self,
        picture: np.ndarray,
        points: Sequence[tuple[float, float, int]] = (),
        box: tuple[float, float, float, float] | None = None,
    ) -> np.ndarray:
        """(H, W, 3) uint8, points (x, y, 1 inside or 0 outside) and a box in pixels -> (H, W) bool.

        Of the masks that SAM 2 offers, the one that it trusts most.
        """
        model = self._sam2
        side = model.config.prompt_encoder_config.image_size
        height, width = picture.shape[:2]
        scale = torch.tensor([side / width, side / height])
        given: dict[str, Tensor] = {}
        if points:
            given["input_points"] = (torch.tensor([[[x, y] for x, y, _ in points]]) * scale)[:, None].float()
            given["input_labels"] = torch.tensor([[[label for _, _, label in points]]])
        if box is not None:
            given["input_boxes"] = (torch.tensor(box).view(2, 2) * scale).view(1, 1, 4).float()
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        pixels = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
        pixels = (pixels - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)
        given = {key: value.to(self.device) for key, value in given.items()}
        found = model(pixel_values=pixels.to(self.device), multimask_output=True, **given)
        best = int(found.iou_scores[0, 0].argmax())
        logits = found.pred_masks[:, 0, best : best + 1].float()
        return (torch.nn.functional.interpolate(logits, size=(height, width), mode="bilinear")[0, 0] > 0).cpu().numpy()

    @torch.inference_mode()
    def edges(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, sides multiples of 8 -> (H, W) uint8 in three levels, by TEED as Anyline has it."""
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float().to(self.device)
        probability = self._teed(pixels)[0].double().mean(0).sigmoid().cpu().numpy()
        return (np.floor(probability * 3) / 2 * 255).clip(0, 255).astype(np.uint8)

    @cached_property
    def _depth(self) -> tuple[Any, Any]:
        transformers, place = require("transformers"), self.folder / "depth"
        model = load_pretrained(transformers.DepthAnythingForDepthEstimation, place, device=self.device)
        return model, transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)

    @cached_property
    def _sam2(self) -> Any:
        return load_pretrained(require("transformers").Sam2Model, self.folder / "sam2", device=self.device)

    @cached_property
    def _teed(self) -> Teed:
        return load_teed(self.folder / "anyline" / "MTEED.pth", self.device)
