"""Show-o's image rows behind prefixes of different lengths in one pass: padded on the left, pads masked.

U = rows, G = distinct prefixes, P = padded length of a prefix, Q = image tokens with soi and eoi, D = hidden size, H =
heads, C = head size. Shapes depend on U and G alone. Numbers agree with those of `rows.image_hidden` up to the order
of additions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.models.showo.model import ShowO, additive_mask
from genloop.models.showo.prefix import Prefix, image_ids, run_layers

_ALIGNED = 8  # P + Q is a multiple of it, as fast attention kernels want their masks


class PrefixBank:
    """Distinct prefixes side by side. It keeps them, so that none of them is taken for another one."""

    @torch.inference_mode()
    def __init__(self, model: ShowO, prefixes: Sequence[Prefix]) -> None:
        self.index = {prefix: number for number, prefix in enumerate(dict.fromkeys(prefixes))}
        config, device, distinct = model.config, model.device, list(self.index)
        new = config.num_vq_tokens + 2
        longest = max(config.text_length, *map(len, distinct))
        length = longest + -(longest + new) % _ALIGNED
        self.keys = torch.stack([_padded(prefix.keys, length) for prefix in distinct], dim=1)  # (layers, G, H, P, C)
        self.values = torch.stack([_padded(prefix.values, length) for prefix in distinct], dim=1)
        pads = torch.tensor([length - len(prefix) for prefix in distinct], device=device)
        seen = torch.arange(length + new, device=device) >= pads[:, None]
        self.mask = additive_mask(seen[:, None, None], model.dtype)  # (G, 1, 1, P + Q)
        self.positions = torch.tensor([prefix.position for prefix in distinct], device=device)  # (G,)

    def numbers(self, prefixes: Sequence[Prefix]) -> Tensor:
        """Which of its prefixes each row has: (U,) on the device."""
        return torch.tensor([self.index[prefix] for prefix in prefixes], device=self.keys.device)

    def has(self, prefixes: Sequence[Prefix]) -> bool:
        """Whether all of these are among its prefixes."""
        return self.index.keys() >= set(prefixes)


class _Picked:
    """Puts in front of each row the keys and values of its prefix, stores nothing."""

    def __init__(self, keys: Tensor, values: Tensor, numbers: Tensor) -> None:
        self.keys, self.values, self.numbers = keys, values, numbers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        front_keys = self.keys[layer_idx].index_select(0, self.numbers)
        front_values = self.values[layer_idx].index_select(0, self.numbers)
        return torch.cat([front_keys, keys], dim=2), torch.cat([front_values, values], dim=2)


def padded_hidden(
    model: ShowO, codes: Tensor, numbers: Tensor, keys: Tensor, values: Tensor, mask: Tensor, positions: Tensor
) -> Tensor:
    """Codes (U, n), each behind prefix number (U,) of a bank's tensors -> normalised hidden states (U, n, D).

    Nothing here waits for the device, and no shape depends on a value: it can be compiled.
    """
    cache = _Picked(keys, values, numbers)
    ids = image_ids(model.config, codes)
    return run_layers(model, ids, positions[numbers], cache, is_causal=False, mask=mask[numbers])[:, 1:-1]


def _padded(part: Tensor, length: int) -> Tensor:
    """(layers, H, p, C) -> (layers, H, length, C), zeros in front."""
    return F.pad(part, (0, 0, length - part.shape[2], 0))
