"""Config keys of the guards of a training. No torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from genloop.bounds import Count, Factor, TotalOrNone
from genloop.config import ADDED, LAUNCH, InputPath, Settings
from genloop.data.prompts import read_prompts
from genloop.factories import Resolve
from genloop.records import Prompt
from genloop.rewards.build import check_judge, check_prompts
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.maskgit.settings import SamplingConfig

Alarm = Literal["divergence", "chosen_log_prob", "reward_hacking", "image_statistics"]
Action = Literal["rollback", "fail", "report"]


class AlarmSettings(Settings):
    """What counts as an alarm, and what an alarm does. Nothing here changes a step of the training."""

    best_by: Annotated[str | None, LAUNCH] = Field(
        None,
        min_length=1,
        description="key of metrics.jsonl whose highest value marks the best checkpoint, after a - the lowest; null: "
        "the held-out judge's mean, without one the newest checkpoint before an alarm",
    )
    stop_on: Annotated[tuple[str, ...], LAUNCH] = Field((), description="alarms that end the training")
    on_alarm: Annotated[Action, LAUNCH] = Field(
        "rollback", description="what such an alarm does: the best checkpoint becomes the result; exit 1; or nothing"
    )
    window: Annotated[int, LAUNCH] = Field(
        20, ge=3, le=10**6, description="lines of metrics.jsonl that make a running level"
    )
    divergence: Annotated[Factor, LAUNCH] = Field(
        10.0, description="loss or kl above its running median by so many of its deviations (MAD, scaled)"
    )

    @property
    def keeps_best(self) -> bool:
        """Whether an alarm may end the training, so that the best checkpoint has to be there."""
        return bool(self.stop_on) and self.on_alarm != "report"


class LineGuardSettings(AlarmSettings):
    """Guards of a training that draws no images: they go by the lines of metrics.jsonl alone."""

    stop_on: Annotated[tuple[Literal["divergence"], ...], LAUNCH] = Field(
        (), description="alarms that end the training"
    )


class GuardSettings(AlarmSettings):
    """Guards of a training of a generator, which look at images of fixed prompts too."""

    stop_on: Annotated[tuple[Alarm, ...], LAUNCH] = Field((), description="alarms that end the training")
    chosen_fall: Annotated[Factor, LAUNCH] = Field(
        0.2, description="fall of the chosen log-probability, as a share of it at first"
    )
    every: Annotated[TotalOrNone, LAUNCH] = Field(
        0, description="steps between two looks at images of `prompts`; 0: at none"
    )
    prompts: InputPath | None = Field(None, description="prompt file, or metadata (.jsonl); the first `num_prompts`")
    metadata: InputPath | None = Field(None, description="GenEval metadata beside `prompts`")
    num_prompts: Annotated[Count, ADDED] = Field(16, description="fixed prompts, one image each, of fixed noise")
    sampling: Annotated[SamplingConfig | None, ADDED] = Field(
        None, description="how their images are drawn; null: as the job samples, else with the defaults"
    )
    held_out_judge: Annotated[JudgeSettings | None, ADDED] = Field(
        None, description="a judge that the training does not follow"
    )
    image_distance: Annotated[Factor | None, LAUNCH] = Field(
        1.0, description="distance of a statistic from the images of step 0, in deviations between those; null: any"
    )
    level: Annotated[float, LAUNCH] = Field(0.99, ge=0.5, lt=1, description="of the intervals that alarms go by")

    @property
    def has_images(self) -> bool:
        """Whether images are drawn at all."""
        return self.every > 0

    def check(self, resolve: Resolve, judge: JudgeSettings | None = None) -> None:
        """Refuse what does not fit together, before anything is spent. `judge`: that of the training."""
        if not self.has_images:
            if self.held_out_judge is not None or self.prompts is not None:
                raise ValueError("guards.every: 0 looks at no images; set it, or leave prompts and held_out_judge out")
            return
        prompts = self.read_prompts()
        for key, asked in (("guards.held_out_judge", self.held_out_judge), ("judge", judge)):
            if asked is not None:
                try:
                    check_judge(asked, resolve, ("outcome",))
                    check_prompts(asked, prompts)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None

    def read_prompts(self) -> list[Prompt]:
        """The fixed prompts; ValueError without a file of some."""
        if self.prompts is None:
            raise ValueError("guards.prompts: needs a file of prompts when guards.every is not 0")
        return read_prompts(self.prompts, self.metadata, limit=self.num_prompts)

    def inputs(self, resolve: Resolve) -> dict[str, Path]:
        """The files of the held-out judge, by key, for the fingerprint."""
        judge = self.held_out_judge
        return {} if judge is None else judge.inputs(resolve, "guards.held_out_judge")
