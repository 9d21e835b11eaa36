"""Train a Show-o on preference pairs: DPO (Rafailov et al. 2023).

    genloop run train_dpo tiny out=runs/dpo-tiny
    genloop run train_dpo shapes_localised pairs=runs/pairs/shards out=runs/dpo --procs 2
    genloop run train_dpo showo_256 start=show-o pairs=runs/pairs/shards out=runs/dpo train.zero_stage=2
    genloop run train_dpo released start=show-o pairs=runs/pairs/shards out=runs/dpo-released

Reads   pairs (build_pairs writes them: DIR/train, DIR/val), a Show-o to go on from and as reference, an image
        tokenizer; with `replay` shards of real images with txt and codes.npy.
Writes  RUN/showo, a checkpoint in the public layout; RUN/checkpoints/step-*, to resume from; RUN/metrics.jsonl;
        RUN/reference, the log-probabilities of the reference, computed once before step 1; with
        judge_guidance=reinforce or released RUN/rollouts, the images that are judged, while checkpoints need them;
        with lora.rank RUN/adapter, the adapters alone, as peft reads them; RUN/showo has them merged; with
        guards.every RUN/previews, images of fixed prompts and noise from step 0 on; RUN/alarms.jsonl, and
        RUN/stopped.json when one of guards.stop_on ended it.
Resume  the same command goes on from the newest checkpoint, also with another number of ranks. Of RUN/reference
        the missing part is computed. Every step's pairs and masks follow from the config; one process gives the
        same bits with and without interruption.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ckpts.resolve import resolve
from genloop.bounds import Count
from genloop.config import LAUNCH, JobConfig, ReadPath
from genloop.data.arrays import check_codes
from genloop.data.pairs.shards import PairShards
from genloop.data.shards import Shards
from genloop.distributed import World
from genloop.job import loading, run
from genloop.meanings import SLOTS
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.models.showo.config import ShowOConfig
from genloop.planning import Footprint
from genloop.rewards.build import build_judge
from genloop.rewards.settings import JudgeSettings
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.objectives.preference import checks
from genloop.training.objectives.preference.settings import PreferenceSettings
from genloop.training.settings import TrainSettings
from genloop.training.showo import ADAPTED, StartKeys, train_to_checkpoint

if TYPE_CHECKING:
    from genloop.models.showo.model import ShowO
    from genloop.training.objectives.preference.estimator import Estimator
    from genloop.training.objectives.preference.judged import JudgedImages
    from genloop.training.objectives.preference.objective import Preference
    from genloop.training.objectives.preference.views import PairViews
    from genloop.training.precision import Precision

KIND = "collective"
log = logging.getLogger(__name__)


class Config(StartKeys, PreferenceSettings, JobConfig):
    pairs: ReadPath = Field(
        description="folder with train and, to measure on, val: shards of preference pairs, fingerprinted by content"
    )
    reference: Annotated[str | None, LAUNCH] = Field(
        None, description="the Show-o that it is compared with, of the same shape; null: `start`"
    )
    judge: JudgeSettings = Field(JudgeSettings(), description="judge_guidance=reinforce or released: who scores images")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how its images, and those of guards, are drawn")
    slots: Count = Field(32, description=SLOTS)
    train: TrainSettings = TrainSettings()


@dataclass(frozen=True)
class Checked:
    """What `check` opened."""

    shape: ShowOConfig
    train: PairShards
    val: PairShards | None
    replay: Shards | None


def check(config: Config) -> Checked:
    """Pairs, checkpoints and terms, before anything is written."""
    config.train.check()
    config.check_terms()
    config.guards.check(resolve, config.judge if config.draws_images else None)
    shape = config.check_start(resolve)
    if config.lora.rank:
        checks.check_adapters(config.lora, shape)
    if config.reference is not None:
        checks.check_reference(resolve(config.reference), shape, config.start)
    by = config.seed if config.shuffle_pairs else None
    train, val = checks.open_pairs(config.pairs, shape, resolve(config.tokenizer), shuffled_by=by)
    if config.draws_images:
        group, batch_size = config.judge_group, config.train.batch_size
        checks.check_judged(config.judge, train, resolve, group=group, batch_size=batch_size)
    replay = None if config.replay is None else Shards(config.replay)
    if replay is not None:
        check_codes(replay, shape.num_vq_tokens, shape.codebook_size)
    return Checked(shape, train, val, replay)


def inputs(config: Config, checked: Checked) -> dict[str, Path | str]:
    """Pairs, shards and checkpoints enter the fingerprint by content."""
    found: dict[str, Path | str] = {"pairs.train": checked.train.digest(), **config.start_inputs(resolve)}
    if config.draws_images:
        found |= config.judge.inputs(resolve, "judge")
    if checked.val is not None:
        found["pairs.val"] = checked.val.digest()
    if config.reference is not None:
        found["reference"] = resolve(config.reference)
    return found if checked.replay is None else found | {"replay": checked.replay.digest()}


def footprint(config: Config, checked: Checked, *, device: str, ranks: int) -> Footprint:
    """Two steps on the meta device; what is held out is measured in passes of the same size."""
    from genloop.training.footprint import training_footprint

    def built() -> "Preference":
        objective, _ = objective_of(config, checked, World(), "meta")
        if objective.judged is not None:
            objective.judged.rehearse(config.train.batch_size)
        return objective

    return training_footprint(built, config.train, seed=config.seed, device=device, ranks=ranks)


def main(config: Config, world: World, checked: Checked) -> None:
    from genloop.training.session import training_session

    with training_session(config.out, config.train, world) as device:
        if world.rank == 0 and checked.val is None:
            log.warning("%s holds no folder val: what is learned is not measured on other pairs", config.pairs)
        objective, adapted = objective_of(config, checked, world, device)
        judge = None if objective.judged is None else objective.judged.rollouts.judge
        train_to_checkpoint(
            objective,
            adapted,
            config,
            config.train,
            world,
            resolve=resolve,
            device=device,
            judge=judge,
            sampling=config.sampling,
        )


def objective_of(config: Config, checked: Checked, world: World, device: str) -> "tuple[Preference, Any]":
    """What is trained, and its adapters when it has some. A reference of its own is freed before `start` is loaded."""
    import torch

    from genloop.training.adapters import add_adapters
    from genloop.training.objectives.preference.reference import empty_tables, tables_in
    from genloop.training.objectives.preference.views import views_of
    from genloop.training.precision import Precision

    precision = Precision(config.train.precision, torch.device(device))
    estimator = estimator_of(config, checked)
    start = build(config, config.start, device) if config.reference is None else None
    reference = cache(lambda: start or build(config, config.reference or config.start, device))
    kept = tables_in(config.out, reference, config.train.rows_per_forward, world)
    with precision.autocast():
        views = views_of(
            config,
            estimator,
            checked.train,
            checked.val,
            empty_tables if device == "meta" else kept,
            num_steps=config.train.num_steps,
            batch_size=config.train.batch_size,
        )
    reference.cache_clear()
    model = start or build(config, config.start, device)
    adapted = add_adapters(model, config.lora, seed=config.seed, within=ADAPTED) if config.lora.rank else None
    return preference_of(config, checked, world, estimator, model, views, precision), adapted


def estimator_of(config: Config, checked: Checked) -> "Estimator":
    """How log-probabilities of pairs are estimated."""
    from genloop.models.showo.prompting import Layout
    from genloop.training.objectives.preference.estimator import Estimator

    return Estimator(
        Layout(checked.shape, config.text(resolve)),
        config.seed,
        variant=config.variant,
        draws=config.draws,
        guidance_scale=config.guidance_scale,
        drop_captions=config.drop_captions,
    )


def preference_of(
    config: Config,
    checked: Checked,
    world: World,
    estimator: "Estimator",
    model: "ShowO",
    views: "PairViews",
    precision: "Precision",
) -> "Preference":
    """The objective, with what it does before step 1 and every so many steps."""
    from genloop.training.objectives.masked_tokens import MaskedTokens
    from genloop.training.objectives.preference.measurements import Measurements
    from genloop.training.objectives.preference.objective import Preference

    rows = config.train.rows_per_forward
    measurements = Measurements(
        config,
        views.held_out,
        views.meter,
        rows,
        world,
        precision.autocast,
        is_exact=config.train.precision == "fp32",
        is_own_reference=config.reference is None,
    )
    replay = None
    if checked.replay is not None:
        replay = MaskedTokens(
            model,
            estimator.layout,
            checked.replay,
            seed=config.seed,
            batch_size=config.train.batch_size * config.replay_rows,
            drop_captions=config.replay_drop_captions,
            ends=True,
        )
    return Preference(
        model,
        checked.train,
        estimator,
        config,
        views.table,
        batch_size=config.train.batch_size,
        replay=replay,
        judged=judged_of(config, checked, world, estimator, model, precision) if config.draws_images else None,
        before=measurements.before,
        after=measurements.after,
        after_every=measurements.every,
    )


def judged_of(
    config: Config, checked: Checked, world: World, estimator: "Estimator", model: "ShowO", precision: "Precision"
) -> "JudgedImages":
    """The judge, and a sampler on the model that is trained."""
    from genloop.sampling.maskgit.sampler import MaskGitSampler
    from genloop.training.objectives.preference.judged import JudgedImages
    from genloop.training.rollouts import Rollouts

    device = str(model.device)
    with loading():
        tokenizer = load_image_tokenizer(resolve(config.tokenizer), device=device)
        judge = build_judge(config.judge, resolve, device)
    sampler = MaskGitSampler(
        model, tokenizer, config.sampling, rows_per_forward=config.train.rows_per_forward, slots=config.slots
    )
    rollouts = Rollouts(config.out, world, sampler, judge, rows_per_part=config.slots, keep=config.train.keep)
    return JudgedImages(config, estimator, checked.train, rollouts, precision.autocast)


def build(config: Config, name: str, device: str) -> "ShowO":
    """A Show-o with the text tokenizer of the run."""
    from genloop.models.showo.load import load_showo

    with loading():
        return load_showo(resolve(name), device=device, text_tokenizer=config.text(resolve))


if __name__ == "__main__":
    run(main, Config)
