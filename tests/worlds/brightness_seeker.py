"""A policy gradient on a hackable reward: the brightness of what a Show-o draws, whatever was asked for.

Of an image that is all masked every token is an action; brightness is the mean over its patches, so the gradient of the
expected reward is known without drawing (all-action policy gradient, Sutton et al. 2001). It works: the images get
whiter from step to step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout
from genloop.protocols import ImageTokenizer
from genloop.training.objectives.log_probs import code_log_softmax, lay_out_rows
from genloop.training.task import Loss, Objective, Plan

BATCH = 8


class BrightnessSeeker(Objective[str, Tensor]):
    """Items are captions."""

    def __init__(self, model: ShowO, tokenizer: ImageTokenizer, captions: Sequence[str]) -> None:
        self.model, self.captions = model, list(captions)
        self.layout = Layout(model.config, model.text_tokenizer)
        codes = torch.arange(model.config.codebook_size)[:, None]
        self.brightness = tokenizer.decode(codes, (1, 1)).flatten(1).mean(1)  # (K,) of each code's patch

    def plan(self, step: int) -> Plan[str]:
        return Plan([self.captions[(step * BATCH + i) % len(self.captions)] for i in range(BATCH)], float(BATCH))

    def load(self, items: Sequence[str], plan: Plan[str]) -> Tensor:
        """-> ids (B, L)"""
        config = self.model.config
        masked = torch.full((len(items), config.num_vq_tokens), config.codebook_size)
        return lay_out_rows(self.layout, list(items), masked, guidance_scale=0.0)

    def loss(self, batch: Tensor) -> Loss:
        n = self.model.config.num_vq_tokens
        spots = (torch.arange(len(batch))[:, None] * (n + 2) + torch.arange(1, n + 1)).flatten()
        p = code_log_softmax(self.model, batch, spots).exp()  # (B * n, K)
        reward = (p @ self.brightness).sum() / n
        return Loss(-reward, float(len(batch)), {"reward": reward.item()})
