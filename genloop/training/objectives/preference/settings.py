"""Config keys of train_dpo's loss. No torch."""

from typing import Literal

from pydantic import Field

from genloop.bounds import Count, Factor, Repeats, Share, Total, TotalOrNone, Weight
from genloop.config import ReadPath, Settings
from genloop.meanings import EVAL_EVERY

Variant = Literal["shared", "released"]
JudgeGuidance = Literal["none", "margin", "reinforce", "released"]


class PreferenceSettings(Settings):
    """What is compared, and which terms the loss has."""

    variant: Variant = Field(
        "shared",
        description="shared: both sides of a pair have the same masks and caption, codes alone count; released: the "
        "published loss, with independent masks, soi and eoi, the whole vocabulary",
    )
    beta: Factor = Field(0.1, description="how strongly the policy is held to the reference")
    draws: Repeats = Field(4, description="random masks of a pair in a step, averaged")
    mask_epochs: Repeats = Field(4, description="epochs with masks of their own; then these come again")
    guidance_scale: Weight = Field(
        1.75,
        description="guidance of the log-probabilities, as generate has it; 0: the conditional branch alone, half as "
        "many rows",
    )
    drop_captions: Share = Field(0.1, description="share of draws without the caption, the same for both sides")
    preference_weight: Weight = Field(
        1.0,
        description="weight of all terms that learn from pairs (DPO, dpop, sft); 0 is a control: the same steps, "
        "learning rate and replay without them",
    )
    shuffle_pairs: bool = Field(
        False, description="control: which side of a training pair is the chosen one is drawn by chance"
    )
    dpop: Weight = Field(0.0, description="weight of DPOP's term: how far log p of the chosen side has fallen")
    sft: Weight = Field(0.0, description="variant=released: weight of the cross-entropy of the chosen side")
    replay: ReadPath | None = Field(
        None, description="shards of real images with captions, trained on beside the pairs; fingerprinted by content"
    )
    replay_weight: Weight = Field(1.0, description="weight of the replay's cross-entropy")
    replay_rows: Count = Field(1, description="replayed images for each pair")
    replay_drop_captions: Share = Field(0.1, description="share of replayed captions dropped, for guidance")
    judge_guidance: JudgeGuidance = Field(
        "none",
        description="margin: the margin wanted of a pair grows with its gap of scores; reinforce: images sampled by "
        "the policy, judged; released: their judgement as a constant without gradient, as published",
    )
    judge_weight: Weight = Field(0.1, description="weight of the judge's term, or the margin wanted for a gap of 1")
    judge_group: Count = Field(4, description="judged images of a prompt; there are as many in a step as pairs")
    judge_every: Total = Field(1, description="steps that learn from the same judged images")
    eval_every: TotalOrNone = Field(50, description=EVAL_EVERY)
    eval_pairs: Count = Field(256, description="held-out pairs that are measured, the first ones")
    meter_every: TotalOrNone = Field(
        0, description="steps between two measurements of how the log-ratio varies with the masks; 0: none"
    )
    meter_pairs: Count = Field(8, description="pairs that are measured for it")
    meter_draws: Repeats = Field(16, description="masks of each of them")
    log_gradients_every: TotalOrNone = Field(
        0, description="steps between two lines with the gradient norms of preference and replay apart; 0: none"
    )

    @property
    def draws_images(self) -> bool:
        """Whether the policy draws images that a judge scores."""
        return self.judge_guidance in ("reinforce", "released")

    def check_terms(self) -> None:
        """ValueError for keys that do not go together."""
        if self.variant == "released" and self.guidance_scale > 0:
            raise ValueError(f"guidance_scale: {self.guidance_scale:g}, but variant=released knows none; set it to 0")
        if self.meter_every and self.meter_draws < 2:
            raise ValueError("meter_draws: needs 2 or more")
        if self.draws_images and self.judge_group < 2:
            raise ValueError("judge_group: needs 2 or more images to compare")
        if self.variant == "shared" and self.sft > 0:
            raise ValueError("sft: is a term of variant=released; use dpop or replay")
