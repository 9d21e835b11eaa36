"""Preference pairs of the tiny Show-o, and the objective that trains it on them."""

from pathlib import Path
from typing import Any

import numpy as np

from ckpts.resolve import resolve
from genloop.data.arrays import read_caption, read_codes
from genloop.data.order import Order
from genloop.data.pairs.pair import CodeSpace, Pair
from genloop.data.pairs.shards import PairShards
from genloop.data.shards import Shards
from genloop.hashing import sha256_tree
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout
from genloop.training.objectives.preference.estimator import Estimator
from genloop.training.objectives.preference.objective import Preference
from genloop.training.objectives.preference.reference import estimated, used_keys
from genloop.training.objectives.preference.settings import PreferenceSettings
from tests.runs import ROOT
from tests.worlds.pairs import write_pairs
from tests.worlds.tiny_showo import tiny_showo

TEXTS = ("red apple", "blue apple", "two dogs and a bird", "a")


def tiny_pair(number: int, model: ShowO, *, localised: bool) -> Pair:
    """A pair of the model's codes; the sides of a localised one differ in its first five tokens."""
    n, size = model.config.num_vq_tokens, model.config.codebook_size
    rng = np.random.default_rng([number, localised])
    chosen, rejected = rng.integers(size, size=(2, n))
    rejected[0] = (chosen[0] + 1) % size
    kept = np.arange(n) >= 5
    if localised:
        rejected = np.where(kept, chosen, rejected)
    return Pair(
        key=f"{number:05d}",
        prompt=TEXTS[number % len(TEXTS)],
        chosen=chosen,
        rejected=rejected,
        scores=(0.5 + number / 40, 0.25),
        kind="localised" if localised else "plain",
        kept=kept if localised else None,
        prompt_index=number,
    )


def tiny_pairs(folder: Path, model: ShowO, kinds: str = "plplpl") -> PairShards:
    """One pair for each letter: p plain, l localised."""
    pairs = [tiny_pair(number, model, localised=kind == "l") for number, kind in enumerate(kinds)]
    write_pairs(folder, pairs, codebook=CodeSpace(model.config.codebook_size, "ab" * 32))
    return PairShards(folder)


def estimator_of(model: ShowO, **changes: Any) -> Estimator:
    layout = Layout(model.config, model.text_tokenizer)
    return Estimator(**({"layout": layout, "seed": 3, "draws": 2, "drop_captions": 0.3} | changes))


def tiny_objective(
    folder: Path, *, kinds: str = "plplpl", reference: ShowO | None = None, guidance: float = 0.0, **settings: Any
) -> Preference:
    """Six steps' worth of references by the tiny model, or by another one."""
    model = tiny_showo()
    pairs = tiny_pairs(folder, model, kinds)
    chosen = PreferenceSettings(guidance_scale=guidance, **settings)
    estimator = estimator_of(model, variant=chosen.variant, guidance_scale=guidance)
    keys = used_keys(Order(pairs.sizes, estimator.seed), 6, len(kinds), chosen.mask_epochs)
    values = estimated(estimator, reference or model, pairs, keys, 4).sum(3)
    return Preference(model, pairs, estimator, chosen, dict(zip(keys, values)), batch_size=len(kinds))


def write_shapes_pairs(folder: Path) -> None:
    """The pairs of configs/data/shapes/pairs: scenes of its shards against others, or against damaged copies."""
    scenes = Shards(ROOT / "configs/data/shapes/shards")
    space = CodeSpace(351, sha256_tree(resolve("shapes/tokenizer")))
    for side, rows in (("train", range(16)), ("val", range(16, 24))):
        write_pairs(folder / side, [_shapes_pair(scenes, row) for row in rows], codebook=space)


def _shapes_pair(scenes: Shards, row: int) -> Pair:
    sample, rng = scenes[row], np.random.default_rng(row)
    chosen = read_codes(sample, None)
    rejected, kept = read_codes(scenes[row + 24], None), None
    if row % 2:
        kept = rng.random(len(chosen)) < 0.7
        rejected = np.where(kept, chosen, rng.permutation(chosen))
    scores = (round(0.6 + rng.random() * 0.4, 3), round(rng.random() * 0.4, 3))
    kind = "plain" if kept is None else "localised"
    return Pair(f"{row:05d}", read_caption(sample), chosen, rejected, scores, kind=kind, kept=kept, prompt_index=row)
