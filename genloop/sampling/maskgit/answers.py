"""Show-o as one that answers questions about images. H, W = pixels, n = image tokens."""

from collections.abc import Sequence

import numpy as np
import torch

from genloop.models.common.memory import Budget
from genloop.models.showo.answer import answer
from genloop.records import Seed
from genloop.sampling.maskgit.inpaint import encode_square
from genloop.sampling.maskgit.passes import ROWS
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.modes import AnswerSettings
from genloop.sampling.noise import word_uniforms


class ShowoAnswers:
    """Implements `genloop.sampling.modes.Answerer`."""

    def __init__(self, sampler: MaskGitSampler) -> None:
        self.sampler = sampler
        self.budget = Budget(sampler.rows_per_forward, ROWS)

    def answer(
        self, images: Sequence[np.ndarray], questions: Sequence[str], seeds: Sequence[Seed], settings: AnswerSettings
    ) -> list[str]:
        """See `Answerer.answer`."""
        codes = torch.stack([encode_square(self.sampler, image) for image in images])
        uniforms = torch.stack([word_uniforms(seed, settings.max_new_tokens) for seed in seeds])

        def compute(rows: Sequence[int]) -> list[str]:
            part = list(rows)
            return answer(
                self.sampler.model,
                codes[part],
                [questions[row] for row in part],
                max_new_tokens=settings.max_new_tokens,
                top_k=settings.top_k,
                temperature=settings.temperature,
                uniforms=uniforms[part],
            )

        return self.budget.run(range(len(images)), 1, compute)
