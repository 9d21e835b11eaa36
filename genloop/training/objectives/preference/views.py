"""What a training on pairs has computed before step 1: the reference's view of all pairs that are used or measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from genloop.data.order import Order
from genloop.data.pairs.shards import PairShards
from genloop.training.objectives.preference.estimator import Estimator
from genloop.training.objectives.preference.measurements import MeasuredPairs
from genloop.training.objectives.preference.reference import TRAIN, Key, Tables, used_keys
from genloop.training.objectives.preference.settings import PreferenceSettings


@dataclass(frozen=True)
class PairViews:
    """The reference's log-probabilities of every pair and mask in a step, and what is measured beside the loss."""

    table: Mapping[Key, np.ndarray]  # -> (D, 2)
    held_out: MeasuredPairs | None
    meter: MeasuredPairs | None


def views_of(
    settings: PreferenceSettings,
    estimator: Estimator,
    train: PairShards,
    val: PairShards | None,
    tables: Tables,
    *,
    num_steps: int,
    batch_size: int,
) -> PairViews:
    """Ask the reference, or read what it has said. The meter looks at held-out pairs if there are some."""
    keys = used_keys(Order(train.sizes, estimator.seed), num_steps, batch_size, settings.mask_epochs)
    table = dict(zip(keys, tables(TRAIN, estimator, train, keys), strict=True))
    held_out = meter = None
    if val is not None and settings.eval_every:
        held_out = MeasuredPairs.of("held_out", estimator, val, settings.eval_pairs, tables)
    if settings.meter_every:
        often = replace(estimator, draws=settings.meter_draws)
        meter = MeasuredPairs.of("meter", often, val or train, settings.meter_pairs, tables)
    return PairViews(table, held_out, meter)
