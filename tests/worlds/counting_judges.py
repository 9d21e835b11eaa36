"""Real judges that write down what they are asked, and a worker that asks them: for tests of the score cache.

python -m tests.worlds.counting_judges CACHE LOG START STOP [DIE_AT]
"""

import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geneval.judge import ShapesOracle
from genloop.config import Settings
from genloop.data.images import to_uint8
from genloop.factories import Resolve
from genloop.records import Prompt
from genloop.rewards.cache import CachedJudge, ScoreStore
from genloop.rewards.settings import JudgeMaker
from genloop.shapes.prompts import prompt_set
from genloop.shapes.render import render
from genloop.shapes.scenes import scene_for

BATCH = 4


class CountingOracle(ShapesOracle):
    """The oracle; every image that it is asked about becomes a line of a file. It may die of its n-th image."""

    def __init__(self, log: Path, die_at: int | None = None) -> None:
        super().__init__()
        self.log, self.die_at, self.num_asked = log, die_at, 0

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        """As the oracle says."""
        answers = super().p_yes(question, prompts, images)
        with open(self.log, "a", encoding="utf-8") as file:
            for prompt, image in zip(prompts, to_uint8(images)):
                file.write(f"{prompt.index} {hashlib.sha256(image.tobytes()).hexdigest()}\n")
        self.num_asked += len(prompts)
        if self.die_at is not None and self.num_asked >= self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return answers


class Brightness:
    """P(yes) is the mean of an image's 8-bit pixels to the power of the question's length; counts the images."""

    def __init__(self) -> None:
        self.num_asked = 0

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B,); NaN for a black image."""
        self.num_asked += len(prompts)
        means = torch.from_numpy(to_uint8(images).astype(np.float32)).flatten(1).mean(1) / 255
        return torch.where(means == 0, torch.nan, means ** len(question))

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """One for each question."""
        return float(len(questions))


class ComparingBrightness(Brightness):
    """The brighter of two images is better; says in words what is wrong."""

    def p_first(self, prompts: Sequence[Prompt], first: Tensor, second: Tensor) -> Tensor:
        """-> (B,)"""
        self.num_asked += len(prompts)
        return torch.sigmoid(first.flatten(1).mean(1) - second.flatten(1).mean(1))

    def reasons(self, prompts: Sequence[Prompt], images: Tensor) -> list[str | None]:
        """Too dark, or "" from a mean of 1/2 on; of a black image it knows nothing."""
        self.num_asked += len(prompts)
        means = images.flatten(1).mean(1).tolist()
        return [None if mean == 0 else "" if mean >= 0.5 else "too dark" for mean in means]


def images_of(prompts: Sequence[Prompt], shift: int = 0) -> Tensor:
    """Scenes that show these prompts, given to those `shift` places later -> (B, 3, 24, 24) in [0, 1]"""
    scenes = [scene_for(prompt, np.random.default_rng([7, prompt.index])) for prompt in prompts]
    return torch.from_numpy(render(scenes)).permute(0, 3, 1, 2).float().roll(shift, dims=0) / 255


def judged(cache: Path, log: Path, start: int, stop: int, die_at: int | None = None) -> list[float]:
    """Ask about prompts [start, stop) in batches, each with its own scene or its neighbour's -> the answers."""
    prompts = prompt_set("test", 3, 10)
    judge = CachedJudge(CountingOracle(log, die_at), ScoreStore(cache, refresh_seconds=0), "oracle", by_metadata=True)
    answers: list[float] = []
    for first in range(start, stop, BATCH):
        batch = prompts[first : first + BATCH]
        answers += judge.p_yes("outcome", batch, images_of(batch, shift=first // BATCH % 2)).tolist()
    return answers


if __name__ == "__main__":
    cache, log, *numbers = sys.argv[1:]
    torch.set_num_threads(1)
    judged(Path(cache), Path(log), *(int(number) for number in numbers))


class BrightnessMaker(JudgeMaker):
    """`judge.kind=tests.worlds.counting_judges:BrightnessMaker`: a reward that is hacked by painting all white."""

    @classmethod
    def questions(cls, options: Settings, resolve: Resolve) -> tuple[str, ...]:
        """The outcome alone."""
        return ("outcome",)

    @classmethod
    def load(cls, options: Settings, resolve: Resolve, device: str) -> Brightness:
        """Needs nothing."""
        return Brightness()
