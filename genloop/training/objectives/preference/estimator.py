"""Log-probabilities of both sides of preference pairs under random masks: what a masked-token model can be asked.

The likelihood of a whole image is not known, so it is estimated: tokens are hidden, log p of the hidden ones is added
up, and draws of a pair are averaged. U = pairs, D = draws, n = image tokens, W = n + 2 places (soi, codes, eoi), R =
rows, S = spots (see log_probs), Q = probabilities that are looked up, L = sequence length.

shared    both sides of a plain pair have the same hidden places and caption, so that what differs are the codes. Of a
          localised pair all places that differ are hidden on both sides, with a random share of the others: both
          sides are one row, and only the places that differ count.
released  the published code's: each side has masks and a dropped caption of its own, soi and eoi count too, and
          probabilities are those among the whole vocabulary.

Policy and reference see the same masks (antithetic, Zhu et al. 2025): draws are keyed by seed, pair, draw and epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.data.pairs.pair import Pair
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import Layout
from genloop.training.objectives.log_probs import code_log_softmax, lay_out_rows, vocabulary_log_softmax
from genloop.training.objectives.masked_tokens import draw_masks
from genloop.training.objectives.preference.settings import Variant

_KEY = 11  # of the random numbers of pairs, beside others of the same seed


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of a pair, chosen side first: what is hidden, what counts (2, n), and who loses its caption."""

    hidden: np.ndarray
    counted: np.ndarray
    is_dropped: tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class PairRows:
    """The sequences of some pairs and what is looked up in them."""

    ids: Tensor  # (R, L), with guidance (2 R, L)
    spots: Tensor  # (S,): the places whose probabilities are computed
    picked: Tensor  # (Q,): in which of the spots a probability is looked up
    targets: Tensor  # (Q,): of which code, or id
    places: Tensor  # (Q,): where it belongs in the flattened (U, D, 2, W)
    num_pairs: int


@dataclass(frozen=True)
class Estimator:
    """How log-probabilities of pairs are estimated."""

    layout: Layout
    seed: int
    variant: Variant = "shared"
    draws: int = 1
    guidance_scale: float = 0.0
    drop_captions: float = 0.0

    def num_labels(self, row: int, epoch: int) -> int:
        """How many tokens of the chosen side the released variant counts: its masks do not depend on the pair."""
        return sum(int(draw.counted[0].sum()) + 2 for draw in self._independent(row, epoch))

    def draws_of(self, pair: Pair, row: int, epoch: int) -> list[Draw]:
        """The draws of the pair that is number `row` of its set."""
        if self.variant == "released":
            return self._independent(row, epoch)
        return [self._shared(pair, rng) for rng in self._generators(row, epoch)]

    def lay_out(self, pairs: Sequence[Pair], draws: Sequence[Sequence[Draw]]) -> PairRows:
        """Sequences for one forward pass."""
        config, width = self.layout.config, self.layout.config.num_vq_tokens + 2
        texts: list[str] = []
        inputs: list[np.ndarray] = []
        spots, targets, places = [], [], []
        sides = 0
        for pair, drawn in zip(pairs, draws, strict=True):
            for draw in drawn:
                for side, codes in enumerate((pair.chosen, pair.rejected)):
                    visible = np.where(draw.hidden[side], config.codebook_size, codes)
                    is_new = side == 0 or draw.is_dropped[0] != draw.is_dropped[1] or (visible != inputs[-1]).any()
                    if is_new:
                        texts.append("" if draw.is_dropped[side] else pair.prompt)
                        inputs.append(visible)
                    at, wanted = self._counted(codes, draw.counted[side])
                    spots.append((len(inputs) - 1) * width + at)
                    targets.append(wanted)
                    places.append(sides * width + at)
                    sides += 1
        unique, picked = np.unique(np.concatenate(spots), return_inverse=True)
        stacked = torch.from_numpy(np.stack(inputs))
        return PairRows(
            lay_out_rows(self.layout, texts, stacked, guidance_scale=self.guidance_scale),
            torch.from_numpy(unique),
            torch.from_numpy(picked),
            torch.from_numpy(np.concatenate(targets)),
            torch.from_numpy(np.concatenate(places)),
            len(pairs),
        )

    def log_probs(self, model: ShowO, rows: PairRows) -> Tensor:
        """-> (U, D, 2, W) float32: log p of what counts, chosen side first; 0 at all other places."""
        if self.variant == "released":
            found = vocabulary_log_softmax(model, rows.ids, rows.spots)
        else:
            found = code_log_softmax(model, rows.ids, rows.spots, guidance_scale=self.guidance_scale)
        shape = (rows.num_pairs, self.draws, 2, self.layout.config.num_vq_tokens + 2)
        empty = torch.zeros(rows.num_pairs * self.draws * 2 * shape[3], device=found.device)
        return empty.index_put((rows.places,), found[rows.picked, rows.targets]).view(shape)

    def _generators(self, row: int, epoch: int) -> list[np.random.Generator]:
        return [np.random.default_rng([self.seed, _KEY, row, epoch, draw]) for draw in range(self.draws)]

    def _independent(self, row: int, epoch: int) -> list[Draw]:
        found = []
        for rng in self._generators(row, epoch):
            hidden = draw_masks(rng, 2, self.layout.config.num_vq_tokens)
            dropped = (rng.random(2) < self.drop_captions).tolist()
            found.append(Draw(hidden, hidden, (dropped[0], dropped[1])))
        return found

    def _shared(self, pair: Pair, rng: np.random.Generator) -> Draw:
        n = self.layout.config.num_vq_tokens
        is_dropped = bool(rng.random() < self.drop_captions)
        if pair.kind == "localised":
            counted = pair.differs
            hidden = counted | (rng.random(n) < rng.random())
        else:
            hidden = counted = draw_masks(rng, 1, n)[0]
        return Draw(np.stack([hidden] * 2), np.stack([counted] * 2), (is_dropped, is_dropped))

    def _counted(self, codes: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places of one side that count, among W, and what is looked up there."""
        at = np.flatnonzero(counted)
        if self.variant == "shared":
            return at + 1, codes[at]
        config = self.layout.config
        ids: list[Any] = [[config.soi_id], codes[at] + config.code_offset, [config.eoi_id]]
        return np.concatenate([[0], at + 1, [len(codes) + 1]]), np.concatenate(ids)
