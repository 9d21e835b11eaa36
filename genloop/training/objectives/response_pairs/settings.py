"""Config keys of training on pairs of answers. No torch."""

from typing import Literal

from pydantic import Field

from genloop.bounds import Count, Factor, TotalOrNone
from genloop.config import Settings

PairLoss = Literal["bradley_terry", "dpo", "verdict"]


class PairSettings(Settings):
    """How pairs are compared, and which of them are held out."""

    loss: PairLoss = Field(
        "bradley_terry",
        description="bradley_terry: on the mean log p of an answer's tokens; dpo: on their sum against that of the "
        "start; verdict: cross-entropy of 1 or 2 behind the question which answer is better, in both orders",
    )
    beta: Factor = Field(1.0, description="factor on the difference of two answers; for dpo 0.1 is usual")
    num_folds: Count = Field(
        5, ge=2, description="folds of all pairs together; those that share a question or an image are in one"
    )
    fold: TotalOrNone = Field(0, description="the fold that is held out and measured")
    shuffle_labels: bool = Field(
        False, description="control: which answer of a training pair is the better one is drawn by chance"
    )
