"""What a step reads: latents and text embeddings, from the caches. C, h, w = channels and sides of a latent."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from genloop.data.latents.cache import EncodedCache
from genloop.data.latents.examples import CaptionedImages
from genloop.models.diffusion.config import DiffusionFolder

MEAN, SPREAD, EMBEDDINGS, POOLED = "mean", "spread", "embeddings", "pooled"  # arrays of entries
TextArrays = Mapping[str, np.ndarray]


class LearningData(Protocol):
    """Images and captions as arrays; travels to the processes that read ahead."""

    examples: CaptionedImages

    def latent(self, position: int) -> tuple[Tensor, Tensor | None]:
        """(C, h, w) float32: the mean of an image's latent, and its standard deviation where samples are drawn."""

    def text(self, position: int | None) -> TextArrays | None:
        """EMBEDDINGS (T, D) and, of SDXL, POOLED (P,); position None: of no caption. None: captions are read anew."""


class PairData(LearningData, Protocol):
    """The same with a second image beside each."""

    def rejected_latent(self, position: int) -> tuple[Tensor, Tensor | None]:
        """What `latent` gives, of the image that is rejected in favour of this one."""


class CachedData:
    """Implements `LearningData` on caches, and `PairData` where images are rejected; without a cache of texts the text
    encoders learn.
    """

    rejected: "CachedData | None" = None
    partners: Sequence[int] = ()  # positions in `rejected`

    def __init__(
        self,
        examples: CaptionedImages,
        latents: EncodedCache,
        latent_keys: list[str],
        texts: EncodedCache | None,
        text_keys: dict[str, str],
    ) -> None:
        """latent_keys: of every position; text_keys: by caption's sha256, that of no caption under ''."""
        self.examples, self._latents, self._latent_keys = examples, latents, latent_keys
        self._texts, self._text_keys = texts, text_keys

    def latent(self, position: int) -> tuple[Tensor, Tensor | None]:
        """See `LearningData.latent`."""
        found = self._latents.read(self._latent_keys[position])
        spread = found.get(SPREAD)
        return torch.from_numpy(found[MEAN]), None if spread is None else torch.from_numpy(spread)

    def rejected_latent(self, position: int) -> tuple[Tensor, Tensor | None]:
        """See `PairData.rejected_latent`."""
        assert self.rejected is not None
        return self.rejected.latent(self.partners[position])

    def text(self, position: int | None) -> TextArrays | None:
        """See `LearningData.text`."""
        if self._texts is None:
            return None
        return self._texts.read(self._text_keys["" if position is None else self.examples[position].caption])


class BlankData:
    """Implements `PairData` with zeros of the right sizes, for plans of memory."""

    def __init__(
        self, examples: CaptionedImages, base: DiffusionFolder, *, width: int, pooled: int, has_texts: bool
    ) -> None:
        """width, pooled: of the embeddings; pooled 0: there is none."""
        self.examples, self.base, self._has_texts = examples, base, has_texts
        self._width, self._pooled = width, pooled

    def latent(self, position: int) -> tuple[Tensor, Tensor | None]:
        """See `LearningData.latent`."""
        size, factor = self.examples[position].crop.size, self.base.factor
        return torch.zeros(self.base.vae["latent_channels"], size.height // factor, size.width // factor), None

    def rejected_latent(self, position: int) -> tuple[Tensor, Tensor | None]:
        """See `PairData.rejected_latent`."""
        return self.latent(position)

    def text(self, position: int | None) -> TextArrays | None:
        """See `LearningData.text`."""
        if not self._has_texts:
            return None
        arrays = {EMBEDDINGS: np.zeros((77, self._width), np.float32)}
        return arrays | ({POOLED: np.zeros(self._pooled, np.float32)} if self._pooled else {})
