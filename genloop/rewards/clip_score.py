"""CLIPScore (Hessel et al. 2021) as a judge: how near a prompt and an image are in CLIP's space.

CLIPScore is 2.5 max(cos, 0). P(yes) is max(cos, 0), the same without the factor: it grows with the score and lies in
[0, 1], but it is no probability: .2 is poor and .35 excellent. Previews are compared like finished images.

    judge.kind=clip_score judge.options.checkpoint=FOLDER
    judge.kind=clip_score judge.options.checkpoint=FOLDER judge.options.model=ViT-L-14 judge.options.pretrained=openai
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np
from pydantic import Field

from genloop.config import LAUNCH, Settings
from genloop.data.images import to_uint8
from genloop.factories import Resolve
from genloop.models.clip.config import check_clip_folder
from genloop.records import Prompt
from genloop.registry import check_installed
from genloop.rewards.settings import JudgeMaker

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 2.5  # CLIPScore = SCALE * P(yes)


class ClipScoreOptions(Settings):
    """Which CLIP, and the words in front of a prompt."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="a folder with open_clip_config.json and weights")
    model: str | None = Field(None, description="open_clip's name of the architecture, for a folder with weights alone")
    pretrained: str | None = Field(None, description="open_clip's tag of the weights; openai: trained with QuickGELU")
    prefix: str = Field("A photo depicts ", description="in front of every prompt, as published")
    rows_per_forward: Annotated[int, LAUNCH] = Field(64, ge=8, description="images in one forward pass of a GPU")


class Embedder(Protocol):
    """Images and texts as unit vectors of one space."""

    def embed_images(self, images: np.ndarray) -> "Tensor":
        """(B, H, W, 3) uint8 -> (B, D)"""

    def embed_texts(self, texts: Sequence[str]) -> "Tensor":
        """-> (T, D)"""


class ClipScore(JudgeMaker):
    """Makes judges that compare vectors."""

    Options = ClipScoreOptions

    @classmethod
    def check(cls, options: ClipScoreOptions, resolve: Resolve) -> None:
        """The folder's config and headers, and the package."""
        check_clip_folder(resolve(options.checkpoint), options.model)
        check_installed("open_clip", "clip")

    @classmethod
    def inputs(cls, options: ClipScoreOptions, resolve: Resolve) -> dict[str, Path]:
        """The weights."""
        return {"checkpoint": resolve(options.checkpoint)}

    @classmethod
    def questions(cls, options: ClipScoreOptions, resolve: Resolve) -> tuple[str, ...]:
        """It does not know what a clear image is."""
        return ("outcome", "potential")

    @classmethod
    def load(cls, options: ClipScoreOptions, resolve: Resolve, device: str) -> "ClipJudge":
        """In float32."""
        from genloop.models.clip.load import load_clip

        embedder = load_clip(
            resolve(options.checkpoint),
            architecture=options.model,
            published_as=options.pretrained,
            device=device,
            rows_per_forward=options.rows_per_forward,
        )
        return ClipJudge(embedder, prefix=options.prefix, flops=embedder.flops)


class ClipJudge:
    """P(yes) = max(cos, 0); implements the Judge protocol."""

    def __init__(self, embedder: Embedder, *, prefix: str = "A photo depicts ", flops: float = 0.0) -> None:
        self.embedder, self.prefix, self._flops = embedder, prefix, flops
        self._texts: dict[str, Tensor] = {}

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,); the images are judged as 8-bit pixels."""
        if question not in ("outcome", "potential"):
            raise ValueError(f"judge 'clip_score' answers outcome, potential, not {question}")
        seen = self.embedder.embed_images(to_uint8(images))  # (B, D)
        meant = self._embed_prompts([prompt.text for prompt in prompts])  # (B, D)
        return (seen * meant).sum(dim=-1).clamp(0, 1).to(images.device)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """One image and one text, however many questions: they have the same answer."""
        return self._flops

    def _embed_prompts(self, texts: Sequence[str]) -> "Tensor":
        """-> (B, D); the prompts of the last call are remembered, they come again and again."""
        import torch

        new = list(dict.fromkeys(text for text in texts if text not in self._texts))
        fresh = dict(zip(new, self.embedder.embed_texts([self.prefix + text for text in new]))) if new else {}
        known = self._texts | fresh
        self._texts = {text: known[text] for text in texts}
        return torch.stack([self._texts[text] for text in texts])
