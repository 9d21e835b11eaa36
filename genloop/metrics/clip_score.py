"""CLIPScore (Hessel et al. 2021): how near a prompt and an image are in CLIP's space, as a metric.

    metrics.clip_score.checkpoint=FOLDER metrics.clip_score.backend=transformers metrics.clip_score.pretrained=openai

The judge `clip_score` (genloop.rewards.clip_score) compares by the same `ClipComparer` and has the same options.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field

from genloop.bounds import Factor
from genloop.factories import Resolve
from genloop.metrics.clip_source import ClipUser, MetricClip, load_clip_source
from genloop.metrics.makers import Line, ScoreMaker, Tools
from genloop.metrics.scores import mean_line
from genloop.records import Prompt

if TYPE_CHECKING:
    from torch import Tensor


class ClipScoreOptions(MetricClip):
    """Which CLIP, and the words in front of a prompt."""

    prefix: str = Field("A photo depicts ", description="in front of every prompt, as published")


class ScaledClipScoreOptions(ClipScoreOptions):
    """Keys of `metrics.clip_score`."""

    scale: Factor = Field(2.5, description="of max(cosine, 0); 2.5 as published, others report 100")


class Embedder(Protocol):
    """Images and texts as unit vectors of one space; `genloop.models.clip.load.ClipEmbedder` is one."""

    def embed_images(self, images: Sequence[np.ndarray] | np.ndarray) -> "Tensor":
        """B times (H, W, 3) uint8 -> (B, D)"""

    def embed_texts(self, texts: Sequence[str]) -> "Tensor":
        """-> (T, D)"""


class ClipComparer:
    """max(cosine, 0) of prompts and images. The texts of the last call are cached: prompts come again and again."""

    def __init__(self, embedder: Embedder, *, prefix: str) -> None:
        self.embedder, self.prefix = embedder, prefix
        self._texts: dict[str, Tensor] = {}

    def compare(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray] | np.ndarray) -> "Tensor":
        """One prompt per image (H, W, 3) uint8 -> (B,) float32 in [0, 1]"""
        seen = self.embedder.embed_images(images)  # (B, D)
        meant = self._embed_prompts([prompt.text for prompt in prompts])  # (B, D)
        return (seen * meant).sum(dim=-1).clamp(0, 1)

    def _embed_prompts(self, texts: Sequence[str]) -> "Tensor":
        """-> (B, D)"""
        import torch

        new = list(dict.fromkeys(text for text in texts if text not in self._texts))
        fresh = dict(zip(new, self.embedder.embed_texts([self.prefix + text for text in new]))) if new else {}
        known = self._texts | fresh
        self._texts = {text: known[text] for text in texts}
        return torch.stack([self._texts[text] for text in texts])


class ClipScore(ClipUser, ScoreMaker):
    """The maker of the metric."""

    Options = ScaledClipScoreOptions
    needs = frozenset({"weights", "prompt"})

    @classmethod
    def load(cls, options: ScaledClipScoreOptions, tools: Tools) -> "ClipScorer":
        """In float32."""
        return ClipScorer(load_comparer(options, tools.resolve, tools.device), options.scale)

    @classmethod
    def conclude(cls, options: Any, name: str, rows: Sequence[Mapping[str, Any]], seed: int) -> list[Line]:
        return [mean_line(name, rows, [row["scores"][name] for row in rows], seed)]


class ClipScorer:
    """scale * max(cosine, 0)"""

    def __init__(self, comparer: ClipComparer, scale: float) -> None:
        self.comparer, self.scale = comparer, scale

    def scores(self, prompts: Sequence[Prompt], images: Sequence[np.ndarray]) -> list[float]:
        """One prompt per image (H, W, 3) uint8 -> its score."""
        return [self.scale * cosine for cosine in self.comparer.compare(prompts, list(images)).tolist()]


def load_comparer(options: ClipScoreOptions, resolve: Resolve, device: str) -> ClipComparer:
    """With weights in float32, on `device`."""
    rows = options.images_per_forward
    return ClipComparer(load_clip_source(options, resolve, device, rows_per_forward=rows), prefix=options.prefix)
