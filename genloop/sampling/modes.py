"""What images are drawn from: a text alone, an image to restyle, to fill or to grow; and answers. No torch.

H, W = pixels. A generator's maker says which modes it has, see `GeneratorMaker.modes`.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from pydantic import Field

from genloop.bounds import Count, CountOrNone, Factor, Repeats, Share
from genloop.config import ADDED, InputPath, Settings
from genloop.factories import PartSettings
from genloop.records import Seed

TEXT = "text"
Direction = Literal["left", "right", "up", "down"]


class GivenImage(NamedTuple):
    """What one prompt starts from."""

    image: np.ndarray  # (H, W, 3) uint8
    hole: np.ndarray | None  # (H, W) uint8, bright where to paint; None without a mask


ReadGiven = Callable[[int], GivenImage]
"""The index of a prompt -> what it starts from."""


class AnswerSettings(Settings):
    """How the words of an answer are drawn."""

    max_new_tokens: Repeats = Field(100, description="an answer ends there at the latest")
    top_k: Count = Field(1, description="draw among so many likeliest tokens; 1: always the likeliest")
    temperature: Factor = Field(1.0, description="divides the logits")


class Answerer(Protocol):
    """Answers questions about images in words; no answer depends on the images beside it."""

    def answer(
        self, images: Sequence[np.ndarray], questions: Sequence[str], seeds: Sequence[Seed], settings: AnswerSettings
    ) -> list[str]:
        """Images (H, W, 3) uint8 of any sizes, a question and a seed for each -> the answers."""


class TextMode:
    """Images of texts alone."""

    Options: ClassVar[type[Settings]] = Settings


class InpaintMode:
    """Images with a hole that is drawn anew."""

    class Options(Settings):
        """Folders; the i-th file by name belongs to line i of the prompts. Images are cropped to squares."""

        images: InputPath = Field(description="folder of images, one a prompt")
        masks: InputPath = Field(description="folder of masks of the same sizes, white where to paint")


class ExtrapolateMode:
    """Images that grow beyond their borders."""

    class Options(Settings):
        """A folder as for inpainting, and where to go; S = side of the grid. A direction adds S/2 + overlap tokens."""

        images: InputPath = Field(description="folder of images, one a prompt")
        directions: tuple[Direction, ...] = Field(("right",), min_length=1, description="one after the other")
        overlap: CountOrNone = Field(0, description="so many more tokens a direction, from as many fewer at the border")


class RestyleMode:
    """Images that are noised in part and drawn from there: their layout stays, their look follows the text."""

    class Options(Settings):
        """A folder as for inpainting; images are scaled to fill the size that is drawn, and cropped to their middle."""

        images: InputPath = Field(description="folder of images, one a prompt")
        strength: Share = Field(0.8, gt=0, description="share of the noise and of the steps; 1: nothing is left of it")

        def num_steps(self, steps: int) -> int:
            """The last ones of a schedule of `steps`, rounded down as diffusers has it; ValueError for none."""
            taken = int(self.strength * steps)
            if not taken:
                raise ValueError(
                    f"mode.options.strength: {self.strength:g} of {steps} steps is less than one; "
                    "raise it or sampling.steps"
                )
            return taken


_MODES = {
    TEXT: "genloop.sampling.modes:TextMode",
    "inpaint": "genloop.sampling.modes:InpaintMode",
    "extrapolate": "genloop.sampling.modes:ExtrapolateMode",
    "restyle": "genloop.sampling.modes:RestyleMode",
}


class ModeSettings(PartSettings):
    """What images are drawn from. After validation `options` is an instance of the mode's `Options`."""

    table: ClassVar = _MODES
    part: ClassVar = "mode"

    kind: Annotated[str, ADDED] = Field(TEXT, description=", ".join(_MODES))

    def num_steps(self, steps: int) -> int:
        """How many of a schedule's steps a path takes; ValueError where that is none."""
        return self.options.num_steps(steps) if isinstance(self.options, RestyleMode.Options) else steps
