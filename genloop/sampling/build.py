"""From settings to a sampler: what it needs is checked before anything is written, what it reads is fingerprinted."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.config import read_yaml
from genloop.factories import Resolve
from genloop.hashing import sha256_tree
from genloop.protocols import Sampler
from genloop.records import Prompt
from genloop.sampling.modes import TEXT, ModeSettings
from genloop.sampling.settings import GeneratorKeys, GeneratorSettings, Runtime

log = logging.getLogger(__name__)
_OLD_INPUT = "model."  # of runs from before there was more than one generator


def build_generator(
    keys: GeneratorKeys, resolve: Resolve, device: str = "cpu", before_step: Callable[[], None] = lambda: None
) -> Sampler[Any]:
    """The sampler over the configured weights, on `device`."""
    import torch

    torch.set_num_threads(keys.threads)
    runtime = Runtime(device, keys.slots, keys.rows_per_forward, before_step)
    return keys.generator.maker.load(keys.generator.options, keys.sampling, resolve, runtime)


def check_generator(keys: GeneratorKeys, resolve: Resolve, questions: Sequence[str] = ()) -> None:
    """Refuse a generator whose checkpoint, `sampling` keys or abilities do not fit; `questions`: of the search."""
    generator = keys.generator
    generator.check(resolve)
    generator.maker.check_sampling(generator.options, keys.sampling, resolve)
    if "reason" in questions and not generator.maker.corrects:
        raise ValueError(f"search.options.correction: generator {generator.kind!r} cannot read an image and a reason")


def check_mode(settings: GeneratorSettings, mode: ModeSettings, resolve: Resolve) -> None:
    """Refuse a mode that this kind of generator does not have, or that its checkpoint does not fit."""
    if mode.kind != TEXT:
        settings.mode(mode.kind)
        settings.maker.check_mode(settings.options, mode, resolve)


def warn_of_cuts(settings: GeneratorSettings, resolve: Resolve, prompts: Sequence[Prompt]) -> None:
    """Log which texts the generator will not read to their ends; rewritten prompts are easily too long."""
    limit = settings.maker.text_limit(settings.options, resolve, [p.condition for p in prompts])
    if limit is None or not limit.longer:
        return
    indices = [prompts[place].index for place in limit.longer]
    log.warning(
        "%d of %d texts are longer than the %d tokens that the generator reads; their ends are cut off: prompts %s",
        len(indices),
        len(prompts),
        limit.num_tokens,
        ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else ""),
    )


def read_generator(run: Path) -> GeneratorKeys:
    """The generator that a run of `generate` used, from its config.yaml; ValueError when it cannot be read."""
    wanted = {*GeneratorKeys.model_fields, "model"}
    config = read_yaml(run / "config.yaml")
    mode = config.get("mode")
    if isinstance(mode, dict) and mode.get("kind", TEXT) != TEXT:
        raise ValueError(f"{run} was made with mode.kind={mode['kind']}; only images of texts can be drawn again")
    given = {key: value for key, value in config.items() if key in wanted}
    return GeneratorKeys.model_validate(given)


def check_same_weights(
    made: GeneratorKeys,
    recorded: Mapping[str, str],
    run: Path | None,
    resolve: Resolve,
    *,
    only: Collection[str] | None = None,
) -> None:
    """ValueError when a generator's files (`only`: these keys) are not those whose sha256 a run recorded."""
    for key, path in made.generator.inputs(resolve, "generator").items():
        if (only is None or key in only) and sha256_tree(path) != recorded_hash(recorded, key):
            raise ValueError(f"{run}: {key} has another content now ({path}); its images need the same weights")


def recorded_hash(inputs: Mapping[str, str], key: str) -> str | None:
    """The sha256 of a generator's input in a run's fingerprint, by its key now, also of runs that call it model.*."""
    return inputs.get(key) or inputs.get(key.replace("generator.options.", _OLD_INPUT, 1))
