"""CLIPScore (Hessel et al. 2021) as a judge: how near a prompt and an image are in CLIP's space.

CLIPScore is 2.5 max(cos, 0). P(yes) is max(cos, 0), the same without the factor: it grows with the score and lies in
[0, 1], but it is no probability: .2 is poor and .35 excellent. Previews are compared like finished images. The options
are those of the metric of this name, without its factor.

    judge.kind=clip_score judge.options.checkpoint=FOLDER
    judge.kind=clip_score judge.options.checkpoint=FOLDER judge.options.architecture=ViT-L-14 \\
        judge.options.pretrained=openai
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genloop.data.images import to_uint8
from genloop.factories import Resolve
from genloop.metrics.clip_score import ClipComparer, ClipScoreOptions, load_comparer
from genloop.metrics.clip_source import ClipUser
from genloop.records import Prompt
from genloop.rewards.settings import JudgeMaker

if TYPE_CHECKING:
    from torch import Tensor

QUESTIONS = ("outcome", "potential")  # it does not know what a clear image is


class ClipJudgeMaker(ClipUser, JudgeMaker):
    """The maker behind `clip_score`."""

    Options = ClipScoreOptions

    @classmethod
    def questions(cls, options: ClipScoreOptions, resolve: Resolve) -> tuple[str, ...]:
        return QUESTIONS

    @classmethod
    def load(cls, options: ClipScoreOptions, resolve: Resolve, device: str) -> "ClipJudge":
        """In float32."""
        return ClipJudge(load_comparer(options, resolve, device))


class ClipJudge:
    """P(yes) = max(cos, 0); implements the Judge protocol."""

    def __init__(self, comparer: ClipComparer) -> None:
        self.comparer = comparer

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,); the images are judged as 8-bit pixels."""
        if question not in QUESTIONS:
            raise ValueError(f"judge 'clip_score' answers {', '.join(QUESTIONS)}, not {question}")
        return self.comparer.compare(prompts, to_uint8(images)).to(images.device)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """One image and one text, however many questions: they have the same answer."""
        return getattr(self.comparer.embedder, "flops", 0.0)
