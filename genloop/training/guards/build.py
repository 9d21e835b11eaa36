"""From settings to a guard: loads the held-out judge, puts a sampler on the model that is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from genloop.distributed import World
from genloop.factories import Resolve
from genloop.protocols import ImageTokenizer, Judge, Sampler
from genloop.rewards.build import build_judge
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.training.guards.guard import HELD_OUT, JUDGE, Guard
from genloop.training.guards.previews import Previews
from genloop.training.guards.settings import GuardSettings


def build_guard(
    settings: GuardSettings,
    run: Path,
    world: World,
    *,
    model: Any,
    tokenizer: ImageTokenizer | None,
    resolve: Resolve,
    judge: Judge | None = None,
    sampling: SamplingConfig | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Guard:
    """The guard of a training of a Show-o: `judge` is what the training follows, `sampling` how the job samples.

    Without `guards.every` nothing is loaded and it only reads lines of metrics.
    """
    if not settings.has_images:
        return Guard(settings, run, world)
    assert tokenizer is not None
    sampler = MaskGitSampler(model, tokenizer, settings.sampling or sampling or SamplingConfig())
    return guard_over(
        settings, run, world, make_sampler=lambda: sampler, resolve=resolve, judge=judge, device=device, seed=seed
    )


def guard_over(
    settings: GuardSettings,
    run: Path,
    world: World,
    *,
    make_sampler: Callable[[], Sampler[Any]],
    resolve: Resolve,
    judge: Judge | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Guard:
    """The guard of a training of any generator; `make_sampler` gives one on the weights as they are now."""
    if not settings.has_images:
        return Guard(settings, run, world)
    judges = {JUDGE: judge} if judge is not None else {}
    if settings.held_out_judge is not None:
        judges[HELD_OUT] = build_judge(settings.held_out_judge, resolve, device)
    return Guard(settings, run, world, Previews(run, world, make_sampler, settings.read_prompts(), judges, seed=seed))
