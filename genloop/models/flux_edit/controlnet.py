"""A union ControlNet for several controls and rows (diffusers' FluxControlNetModel, with what its pipelines leave out).

The stock pipelines hand a union net one mode for all rows and fail for more than one row; and they stop after as many
controls as there are nets. B = rows, N = image tokens, T = tokens of T5, D = their width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genloop.registry import require

MODES = {"line": 0, "depth": 2}  # control_mode of the union checkpoints


def union_controlnet(net: Any) -> Any:
    """The same net as one that expands its mode to all rows and reads tokens of its own, where it is given some."""
    flux = require("diffusers", "diffusion").FluxControlNetModel

    class UnionControlNet(flux):  # type: ignore[misc, valid-type]
        """See the module."""

        control_tokens: Tensor | None = None  # (B, N + T, D) in place of the transformer's

        def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            """As the base class."""
            rows, mode = hidden_states.shape[0], kwargs.get("controlnet_mode")
            if mode is not None and mode.shape[0] != rows:
                kwargs["controlnet_mode"] = mode.reshape(1, -1)[:, :1].expand(rows, 1)
            if self.control_tokens is not None:
                tokens = self.control_tokens
                kwargs["encoder_hidden_states"] = tokens if tokens.shape[0] == rows else tokens.expand(rows, -1, -1)
                kwargs["txt_ids"] = torch.zeros(tokens.shape[1], 3, device=tokens.device, dtype=tokens.dtype)
            return super().forward(hidden_states, *args, **kwargs)

    net.__class__ = UnionControlNet
    return net


def control_arguments(controls: Sequence[tuple[str, Any, float]]) -> dict[str, Any]:
    """(name, picture, strength) of each control -> arguments of a ControlNet pipeline.

    The window of each control is given as a list: with one number the pipelines stop after the first control.
    """
    names, pictures, scales = zip(*controls, strict=True)
    count = len(controls)
    return {
        "control_image": list(pictures),
        "control_mode": [MODES[name] for name in names],
        "controlnet_conditioning_scale": list(scales),
        "control_guidance_start": [0.0] * count,
        "control_guidance_end": [1.0] * count,
    }
