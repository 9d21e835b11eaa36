"""Config keys of masked-token GRPO. No torch."""

from typing import Literal

from pydantic import Field, model_validator

from genloop.bounds import Count, Factor, Repeats, Share, Weight
from genloop.config import Settings, refusal

TOKEN_CLIP, SEQUENCE_CLIP = 0.2, 1e-3


class GroupPolicySettings(Settings):
    """What a rollout is made of, which states of its images are learned from, and the loss."""

    variant: Literal["genloop", "released"] = Field(
        "genloop", description="released: Mask-GRPO's released arithmetic, whose ratio is 1 and whose KL is nothing"
    )
    groups: Count = Field(32, description="prompts of a rollout, over all ranks together")
    group_size: Count = Field(8, description="images of a prompt, which are compared with each other")
    epochs: Repeats = Field(1, description="passes over a rollout before the next one is drawn")
    steps_per_epoch: Repeats = Field(1, description="optimiser steps that a pass is divided into")
    states: Literal["masks", "trajectory", "full"] = Field(
        "masks",
        description="where log-probabilities are taken: behind random masks, at steps that drew the image (of the "
        "tokens that each step fixed), or with everything masked",
    )
    draws: Repeats = Field(4, description="states of an image")
    critical_steps: Repeats | None = Field(
        None, description="states=trajectory: only the first so many steps; null: all of them"
    )
    advantage: Literal["group_std", "group_mean"] = Field(
        "group_std", description="score minus the mean of its group, divided by the group's deviation or not"
    )
    ratio: Literal["token", "sequence"] = Field(
        "token", description="sequence: one ratio a state, the geometric mean over its tokens"
    )
    clip: Factor | None = Field(
        None, description=f"how far a ratio counts below 1; null: {TOKEN_CLIP} of tokens, {SEQUENCE_CLIP} of sequences"
    )
    clip_high: Factor | None = Field(None, description="the same above 1; null: as `clip`")
    kl: Weight = Field(0.01, description="weight of the divergence from the reference; 0: there is none")
    reference_decay: Share = Field(
        0.999, description="the reference is the moving average of the weights with this decay; 1: the start"
    )
    guidance_scale: Weight | None = Field(
        None, description="of the log-probabilities; null: sampling.guidance_scale, under which images are drawn"
    )
    shuffle_scores: bool = Field(
        False, description="control: the scores of a group are dealt out at random, so that there is nothing to learn"
    )

    @model_validator(mode="after")
    def _states_fit(self) -> "GroupPolicySettings":
        if self.group_size < 2:
            raise refusal(".group_size: images are compared with others of their prompt; use 2 or more")
        if self.states == "full" and self.draws != 1:
            raise refusal(f".draws: states=full is one state, found {self.draws}; use draws=1")
        if self.critical_steps is not None and self.states != "trajectory":
            raise refusal(f".critical_steps: states={self.states} has no steps; use states=trajectory")
        return self

    @property
    def clip_range(self) -> tuple[float, float]:
        """Lowest and highest ratio that counts."""
        low = self.clip if self.clip is not None else TOKEN_CLIP if self.ratio == "token" else SEQUENCE_CLIP
        return 1 - low, 1 + (low if self.clip_high is None else self.clip_high)

    @property
    def steps_per_rollout(self) -> int:
        """Optimiser steps that learn from one rollout."""
        return self.epochs * self.steps_per_epoch

    @property
    def has_reference(self) -> bool:
        """Whether log-probabilities of a reference are needed; the published divergence is the policy's from itself."""
        return self.kl > 0 and self.variant == "genloop"
