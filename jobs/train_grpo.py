"""Train a Show-o on images that it draws itself, scored by a judge: GRPO.

    genloop run train_grpo tiny out=runs/grpo-tiny
    genloop run train_grpo shapes out=runs/grpo --procs 2
    genloop run train_grpo shapes out=runs/grpo-control shuffle_scores=true
    genloop run train_grpo shapes out=runs/grpo-strict judge.kind=geneval judge.options.detector=shapes \\
        judge.options.colors=shapes judge.options.credit=strict
    genloop run train_grpo showo_256 prompts=PROMPTS held_out='[TEST]' judge.options.checkpoint=JUDGE out=runs/grpo

Reads   a Show-o, an image tokenizer, training prompts (with GenEval metadata where the judge goes by it), prompt
        files of evaluations: a training prompt that is in one of these is refused.
Writes  RUN/showo, a checkpoint in the public layout; RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl:
        reward (mean over prompts, with its standard error), groups dropped, ratio, clip_share, kl;
        RUN/rollouts/STEP, the images of the steps to come with their scores and log-probabilities, kept as long as
        a checkpoint needs them; with lora.rank RUN/adapter, the adapters alone, as peft reads them; RUN/showo has
        them merged; with guards.every RUN/previews, images of fixed prompts and noise from step 0 on;
        RUN/alarms.jsonl, and RUN/stopped.json when one of guards.stop_on ended it.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Images that are
        drawn are not drawn again. Every step's prompts and noise follow from the config; one process gives the
        same bits with and without interruption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Count
from genloop.config import HeldOutKeys, JobConfig, PromptKeys
from genloop.data.prompts import check_held_out, read_prompts
from genloop.distributed import World
from genloop.job import loading, run
from genloop.meanings import SLOTS
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.planning import Footprint
from genloop.records import Prompt
from genloop.rewards.build import build_judge, check_judge, check_prompts, judge_classes
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.objectives.group_policy.settings import GroupPolicySettings
from genloop.training.settings import LoopSettings
from genloop.training.showo import ADAPTED, StartKeys, train_to_checkpoint

if TYPE_CHECKING:
    from genloop.training.objectives.group_policy.objective import GroupPolicy

KIND = "collective"


class Config(GroupPolicySettings, StartKeys, HeldOutKeys, PromptKeys, JobConfig):
    judge: JudgeSettings = Field(JudgeSettings(), description="who scores the images, by its answer to `outcome`")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how images are drawn")
    slots: Count = Field(32, description=SLOTS)
    train: LoopSettings = LoopSettings()

    @property
    def loop(self) -> LoopSettings:
        """`train`, whose moving average is the reference too, where there is one."""
        if not self.has_reference:
            return self.train
        update = {"ema": self.reference_decay, "use_ema": self.train.use_ema and self.train.ema > 0}
        return self.train.model_copy(update=update)


@dataclass(frozen=True)
class Checked:
    """What there is to draw."""

    prompts: Sequence[Prompt]


def check(config: Config) -> Checked:
    """Prompts, names, sizes and checkpoint headers, before anything is loaded or written."""
    _check_keys(config)
    check_judge(config.judge, resolve, ["outcome"])
    prompts = read_prompts(config.prompts, config.metadata, classes=judge_classes(config.judge))
    check_prompts(config.judge, prompts)
    check_held_out(prompts, config.held_out)
    config.check_start(resolve)
    return Checked(prompts)


def _check_keys(config: Config) -> None:
    """Keys that do not fit each other."""
    config.train.check()
    config.guards.check(resolve, config.judge)
    if config.lora.dropout:
        raise ValueError("lora.dropout: the policy must give the same log-probabilities twice; use 0")
    if config.sampling.token_temperature != 1:
        raise ValueError(
            f"sampling.token_temperature: images are drawn from the probabilities that are trained; use 1, not "
            f"{config.sampling.token_temperature}"
        )
    if config.states == "trajectory" and config.draws > (steps := config.critical_steps or config.sampling.num_steps):
        raise ValueError(f"draws: there are {steps} steps to choose states from, not {config.draws}")
    if (rows := config.groups * config.group_size * config.draws) < config.steps_per_epoch:
        raise ValueError(
            f"steps_per_epoch: a rollout has {rows} states, which cannot be {config.steps_per_epoch} steps"
        )
    if config.has_reference and config.train.ema not in (0, config.reference_decay):
        raise ValueError(
            f"train.ema: the reference is the one moving average there is; use {config.reference_decay} as "
            "reference_decay says, or 0 to save the last weights"
        )


def inputs(config: Config, checked: Checked) -> dict[str, Path]:
    """Checkpoints, held-out prompts and what the reward reads enter the fingerprint by content."""
    return config.start_inputs(resolve) | config.held_out_inputs() | config.judge.inputs(resolve, "judge")


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device, with who scores beside the model; images are drawn in smaller passes."""
    from genloop.training.footprint import training_footprint

    def built() -> "GroupPolicy":
        objective, _ = objective_of(config, checked, "meta", World())
        objective.rehearse()
        return objective

    return training_footprint(built, config.loop, seed=config.seed, device=device, ranks=ranks)


def main(config: Config, world: World, checked: Checked) -> None:
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        objective, adapted = objective_of(config, checked, device, world)
        judge = objective.rollouts.judge
        train_to_checkpoint(
            objective,
            adapted,
            config,
            config.loop,
            world,
            resolve=resolve,
            device=device,
            judge=judge,
            sampling=config.sampling,
        )


def objective_of(config: Config, checked: Checked, device: str, world: World) -> "tuple[GroupPolicy, Any]":
    """What is trained, and its adapters when it has some."""
    from genloop.models.showo.load import load_showo
    from genloop.models.showo.prompting import Layout
    from genloop.sampling.maskgit.sampler import MaskGitSampler
    from genloop.training.adapters import add_adapters
    from genloop.training.objectives.group_policy.objective import GroupPolicy
    from genloop.training.precision import Precision
    from genloop.training.rollouts import Rollouts

    with loading():
        model = load_showo(resolve(config.start), device=device, text_tokenizer=config.text(resolve))
        adapted = add_adapters(model, config.lora, seed=config.seed, within=ADAPTED) if config.lora.rank else None
        tokenizer = load_image_tokenizer(resolve(config.tokenizer), device=device)
        sampler = MaskGitSampler(
            model,
            tokenizer,
            config.sampling,
            rows_per_forward=config.train.rows_per_forward,
            slots=config.slots,
            # a rank that stops alone would leave the others waiting
            before_step=world.check_stop if world.world_size == 1 else lambda: None,
        )
        judge = build_judge(config.judge, resolve, device)
    given = config.guidance_scale
    objective = GroupPolicy(
        model,
        Layout(model.config, model.text_tokenizer),
        config,
        checked.prompts,
        Rollouts(config.out, world, sampler, judge, rows_per_part=config.slots, keep=config.train.keep),
        seed=config.seed,
        guidance_scale=config.sampling.guidance_scale if given is None else given,
        rows_per_forward=config.train.rows_per_forward,
        autocast=Precision(config.train.precision, model.device).autocast,
        is_exact=config.train.precision == "fp32",
    )
    return objective, adapted


if __name__ == "__main__":
    run(main, Config)
