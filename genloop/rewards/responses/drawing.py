"""Drawing tokens at a temperature from the smallest set of the most probable ones (nucleus, Holtzman et al. 2020).

B = rows, V = vocabulary. Every row has numbers of its own, keyed by its seed: no draw depends on the rows beside it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from genloop.records import Writing


def chooser(seeds: Sequence[int], writing: Writing) -> Callable[[Tensor], Tensor]:
    """What takes the next token of each row: logits (B, V) float32 -> ids (B,); each call uses up one number a row."""
    if not writing.temperature:
        return lambda logits: logits.argmax(-1)
    streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]

    def choose(logits: Tensor) -> Tensor:
        at = torch.tensor([stream.random() for stream in streams], dtype=torch.float64, device=logits.device)
        p, ids = (logits.double() / writing.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
        mass = p.cumsum(-1)
        p = p.where(mass - p < writing.top_p, 0.0)  # the first one always stays
        mass = p.cumsum(-1)
        place = torch.searchsorted(mass, (at * mass[:, -1])[:, None], right=True)[:, 0]
        last = (p > 0).sum(-1) - 1
        return ids.gather(1, torch.minimum(place, last)[:, None])[:, 0]

    return choose
