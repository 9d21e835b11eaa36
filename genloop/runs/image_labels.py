"""Ask a judge and a detector about images that are given as codes. B = images, n = image tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genloop.job import note
from genloop.protocols import ImageTokenizer, Judge
from genloop.records import Prompt, Verdict
from genloop.runs.pairing import Label

Verdicts = Callable[[Sequence[Prompt], np.ndarray], Sequence[Verdict]]  # prompts, (B, H, W, 3) uint8 -> B verdicts


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """What a judge (of the outcome) and a detector say, as far as there are some."""

    tokenizer: ImageTokenizer
    judge: Judge | None
    verdicts: Verdicts | None
    batch: int
    check_stop: Callable[[], None]
    device: str

    def __call__(self, prompts: Sequence[Prompt], codes: np.ndarray) -> list[Label]:
        """prompts (B), codes (B, n) -> what is asked about each image."""
        found: list[Label] = []
        for start in range(0, len(prompts), self.batch):
            self.check_stop()
            part = prompts[start : start + self.batch]
            with note(f"prompts {', '.join(sorted({repr(prompt.text) for prompt in part}))}"):
                found += self._ask(part, codes[start : start + self.batch])
        return found

    def _ask(self, prompts: Sequence[Prompt], codes: np.ndarray) -> list[Label]:
        import torch

        from genloop.data.images import to_uint8

        images = self.tokenizer.decode(torch.from_numpy(codes).to(self.device))
        p_yes = self.judge.p_yes("outcome", prompts, images).tolist() if self.judge else [None] * len(prompts)
        rights: Sequence[bool | None] = [None] * len(prompts)
        if self.verdicts:
            rights = [verdict.correct for verdict in self.verdicts(prompts, to_uint8(images))]
        return [Label(*label) for label in zip(p_yes, rights, strict=True)]
