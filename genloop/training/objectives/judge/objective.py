"""Training of a judge (Guo et al. 2025; LLaVA-OneVision, Li et al. 2024): yes/no answers, ranking, cells, words.

Terms, each a mean over the batch of all ranks, times its weight:
    outcome, potential, clarity, scenes   soft cross-entropy of the answer's first token over the whole vocabulary:
                                          -(y log p(yes) + (1 - y) log p(no))
    pairs     log(1 + exp(-(m_better - m_worse))), m = logit(yes) - logit(no), times the gap of the labels
    cells     which shape and which colour a patch shows: softmax over the inner products of its projected feature with
              the word embeddings of "background" and the names, so the image is tied to the words from the start
    names     at every name in a sentence: the head's yes against no for "it is in the image"
    reason, words     cross-entropy of the tokens of a reason, of a conversation's answers
B = rows, I = distinct images, T = image positions, D = hidden size, R = reads, V = vocabulary, Q = questions.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genloop.data.judge.conversations import Conversation
from genloop.data.judge.dataset import JudgeSet, decode_png
from genloop.data.judge.examples import QUESTIONS, UNKNOWN
from genloop.distributed import World
from genloop.job import note
from genloop.models.llava.model import Llava, embed_tokens, image_features
from genloop.training.objectives.judge.batches import Asked, Item, JudgeBatch, JudgeBatches, names_in, term
from genloop.training.objectives.judge.branches import ANSWER, NAME, WORD, Branches
from genloop.training.objectives.judge.packing import Row, hidden_at_reads
from genloop.training.reductions import sum_over_ranks
from genloop.training.settings import LossSettings
from genloop.training.task import Loss, Objective, Plan

BACKGROUND = "background"
_ROWS = 128  # rows of one pass when nothing is trained


@dataclass(frozen=True, eq=False)
class JudgeTrainer:
    """A model, its data and how images become pixels: everything but the batches."""

    model: Llava
    sets: Sequence[JudgeSet]
    conversations: Sequence[Conversation]
    branches: Branches
    weights: LossSettings
    pixels_of: Callable[[np.ndarray], Tensor]  # (H, W, 3) uint8 -> normalised (3, S, S)
    names: Sequence[Sequence[str]]  # of each plane of cells
    encode: Callable[[str], list[int]]
    dtype: torch.dtype = torch.float32  # of matrix products
    agree: Callable[[int], int] | None = None  # numbers of passes -> that of all ranks, where layers are shared out

    def loss(self, batch: JudgeBatch, rows: Sequence[int]) -> Loss:
        """The share of some items in the loss of the batch; the weights of all items add up to 1."""
        items = [batch.items[row] for row in rows]
        asked = [(item, one) for item in items for one in item.asked]
        numbers = {image: place for place, image in enumerate(dict.fromkeys(one.image for _, one in asked))}
        reads = _Reads.of(asked, numbers, self.sets)
        packed = [Row(numbers[one.image], one.branches) for _, one in asked]
        with self._computing():
            features = self.features(numbers)
            hidden = hidden_at_reads(self.model, features, packed, agree=self.agree)
            kept = torch.from_numpy(np.flatnonzero(reads.kept)).to(hidden.device)
            logits = self.model.lm_head(hidden[kept]).float()  # (R, V)
        sums = self._answers(reads.only_kept(), logits, items)
        sums["cells"] = self._cells(features, [(numbers[one.image], one.image) for _, one in asked])
        return self._total(sums, batch, len(rows))

    def objective(self, batches: JudgeBatches, lr_scale_of: Callable[[str], float]) -> "JudgeObjective":
        """What the train loop takes."""
        return JudgeObjective(self, batches, lr_scale_of)

    def features(self, images: Iterable[tuple[int, int]]) -> Tensor:
        """(data set, image) pairs -> (I, T, D)."""
        pixels = torch.stack([self.pixels_of(self._picture(source, image)) for source, image in images])
        return image_features(self.model, pixels.to(self.model.device))

    def _computing(self) -> AbstractContextManager[object]:
        """Matrix products in `dtype`; weights, sums and losses stay as they are."""
        if self.dtype == torch.float32:
            return nullcontext()
        # A cache of weights in half precision would keep all layers that are gathered one by one.
        return torch.autocast(self.model.device.type, dtype=self.dtype, cache_enabled=self.agree is None)

    def _picture(self, source: int, image: int) -> np.ndarray:
        if source >= 0:
            return self.sets[source].images[image]
        path = self.conversations[image].image
        with note(f"image {path}"):
            return decode_png(path.read_bytes())

    def all_margins(self, world: World) -> list[np.ndarray]:
        """The margins of all examples of every data set, (E, Q) float64; ranks share the work, all get the result."""
        found = []
        for source, data in enumerate(self.sets):
            mine = range(len(data))[world.rank :: world.world_size]
            margins = np.zeros((len(data), len(QUESTIONS)))
            margins[mine] = np.nan_to_num(self.margins(source, mine))
            is_asked = ~np.isnan(data.labels) & np.isin(QUESTIONS, self.branches.wording.names)
            found.append(np.where(is_asked, sum_over_ranks(margins, world), np.nan))
        return found

    @torch.no_grad()
    def said_margins(self, world: World) -> np.ndarray:
        """Margins where conversations say yes or no, (conversations, turns), NaN elsewhere; all ranks get all."""
        was_training = self.model.training
        self.model.eval()
        branches = [(number, self.branches.answers(one.turns)) for number, one in enumerate(self.conversations)]
        asked = [(number, branch) for number, branch in branches if branch is not None]
        found = np.full((len(branches), max((len(one.turns) for one in self.conversations), default=0)), np.nan)
        for number, branch in asked:
            found[number, branch.targets] = 0
        mine = asked[world.rank :: world.world_size]
        for start in range(0, len(mine), _ROWS):
            part = mine[start : start + _ROWS]
            rows = [Row(place, [branch]) for place, (_, branch) in enumerate(part)]
            with self._computing():
                hidden = hidden_at_reads(self.model, self.features((-1, number) for number, _ in part), rows)
                margin = self._measured(hidden)
            places = [(number, turn) for number, branch in part for turn in branch.targets.tolist()]
            found[tuple(zip(*places))] = margin.double().cpu().numpy()
        self.model.train(was_training)
        total = sum_over_ranks(np.nan_to_num(found), world)
        return np.where(np.isnan(found), np.nan, total)

    @torch.no_grad()
    def margins(self, source: int, examples: Sequence[int]) -> np.ndarray:
        """Examples of one data set -> logit(yes) - logit(no), (len, Q) float64, NaN where a question is not asked."""
        data, was_training = self.sets[source], self.model.training
        self.model.eval()
        asked = [(place, row, self.branches.of(data.examples[row])) for place, row in enumerate(examples)]
        asked = sorted((one for one in asked if one[2]), key=lambda one: sum(len(branch.ids) for branch in one[2]))
        found = np.full((len(examples), len(QUESTIONS)), np.nan)
        for start in range(0, len(asked), _ROWS):
            part = asked[start : start + _ROWS]
            numbers = {
                image: n for n, image in enumerate(dict.fromkeys((source, int(data.image_of[r])) for _, r, _ in part))
            }
            rows = [Row(numbers[source, int(data.image_of[row])], branches) for _, row, branches in part]
            reads = [(place, kind) for place, _, branches in part for branch in branches for kind in branch.kinds]
            answers = [number for number, (_, kind) in enumerate(reads) if kind < len(QUESTIONS)]
            with self._computing():
                hidden = hidden_at_reads(self.model, self.features(numbers), rows)
                margin = self._measured(hidden[answers])
            for number, value in zip(answers, margin.double().cpu().numpy()):
                found[reads[number]] = value
        self.model.train(was_training)
        return found

    def _answers(self, reads: "_Reads", logits: Tensor, items: Sequence[Item]) -> dict[str, Tensor]:
        """Sums over the reads of every term but the cells."""
        log_p = logits.log_softmax(-1)
        yes, no = self.branches.yes, self.branches.no
        label = torch.from_numpy(reads.labels).to(logits)
        said = torch.from_numpy(reads.targets).to(logits.device).clamp(min=0)
        answered = -(label * log_p[:, yes] + (1 - label) * log_p[:, no])
        margin = self._margin(logits)
        present = F.binary_cross_entropy_with_logits(margin, label, reduction="none")
        spoken = -log_p.gather(1, said[:, None])[:, 0]
        kinds = torch.from_numpy(reads.kinds).to(logits.device)
        loss = torch.where((kinds == ANSWER) | (kinds == WORD), spoken, torch.where(kinds == NAME, present, answered))
        sums = {
            name: loss[torch.from_numpy(np.flatnonzero(reads.terms == name)).to(loss.device)].sum()
            for name in np.unique(reads.terms).tolist()
        }
        return sums | {"pairs": self._pairs(reads, margin, items)}

    def _pairs(self, reads: "_Reads", margin: Tensor, items: Sequence[Item]) -> Tensor:
        where = {key: place for place, key in enumerate(zip(reads.owners, reads.kinds.tolist()))}
        better, worse, gaps = [], [], []
        for item in items:
            for (one, other, question), gap in zip(item.pairs.tolist(), item.gaps.tolist()):
                better.append(where[(item.source, one), question])
                worse.append(where[(item.source, other), question])
                gaps.append(gap)
        if not gaps:
            return margin.new_zeros(())
        return (F.softplus(margin[worse] - margin[better]) * margin.new_tensor(gaps)).sum()

    def _cells(self, features: Tensor, images: Sequence[tuple[int, tuple[int, int]]]) -> Tensor:
        """Images, each with its place among the features -> sum over cells of the cross-entropies of all planes."""
        drawn = [(place, self.sets[s].cells.get(image)) for place, (s, image) in images if s >= 0]
        known = [(place, cells) for place, cells in drawn if cells is not None]
        if not known or not self.weights.cells:
            return features.new_zeros((), dtype=torch.float32)
        cells = torch.from_numpy(np.stack([cells.reshape(-1, cells.shape[2]) for _, cells in known])).long()
        patches = features[[place for place, _ in known], :-1].float()
        if cells.shape[1] != patches.shape[1]:
            raise ValueError(
                f"cells.npy has {cells.shape[1]} cells, the vision tower {patches.shape[1]} patches; set loss.cells=0 "
                "or use a tower whose patches are the cells"
            )
        total = patches.new_zeros(())
        for plane, names in enumerate(self.names):
            logits = patches @ self._words(names).T
            target = cells[..., plane].to(logits.device)
            target = target.masked_fill(target == UNKNOWN, -100)
            total = total + F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum")
        return total

    def _words(self, names: Sequence[str]) -> Tensor:
        """Embeddings of "background" and the names (1 + names, D); of several tokens the mean."""
        device = self.model.device
        ids = [torch.tensor(self.encode(name), device=device) for name in (BACKGROUND, *names)]
        return torch.stack([embed_tokens(self.model, word).mean(0) for word in ids]).float()

    def _measured(self, hidden: Tensor) -> Tensor:
        """Hidden states (R, D) -> margins (R,); ValueError where the model gives no number."""
        margin = self._margin(self.model.lm_head(hidden).float())
        if not margin.isfinite().all():
            lost = int((~margin.isfinite()).sum())
            raise ValueError(f"the judge gives no number for {lost} of {len(margin)} held-out answers; lower train.lr")
        return margin

    def _margin(self, logits: Tensor) -> Tensor:
        return logits[:, self.branches.yes] - logits[:, self.branches.no]

    def _total(self, sums: dict[str, Tensor], batch: JudgeBatch, num_items: int) -> Loss:
        weights = self.weights.model_dump()
        means = {name: value / batch.totals[name] for name, value in sums.items() if batch.totals[name]}
        total = sum((weights[name] * value for name, value in means.items()), torch.zeros((), device=self.model.device))
        parts = {f"loss_{name}": float(value.detach()) for name, value in means.items()}
        return Loss(total, num_items / len(batch.items), parts)


class JudgeObjective(Objective[Item, JudgeBatch]):
    """The loss of a judge, item by item."""

    def __init__(self, trainer: JudgeTrainer, batches: JudgeBatches, lr_scale_of: Callable[[str], float]) -> None:
        self.model, self.trainer, self.batches, self._scale = trainer.model, trainer, batches, lr_scale_of

    def plan(self, step: int) -> Plan[Item]:
        """The items of a step; the weights of all of them add up to 1."""
        batch = self.batches(step)
        return Plan(batch.items, 1.0, batch.totals)

    def load(self, items: Sequence[Item], plan: Plan[Item]) -> JudgeBatch:
        """Some items with the counts of the whole batch."""
        return JudgeBatch(items, plan.shared)

    def loss(self, batch: JudgeBatch) -> Loss:
        """Their share in the loss of the whole batch."""
        found = self.trainer.loss(batch, range(len(batch.items)))
        return Loss(found.total, len(batch.items) / self.batches.settings.num_items, found.parts)

    def lr_scale_of(self, name: str) -> float:
        """By the part that a parameter belongs to."""
        return self._scale(name)


@dataclass(frozen=True, eq=False)
class _Reads:
    """Every read of some rows (R,): kind, term, owner (data set, example), label or presence, next id, whether used."""

    kinds: np.ndarray
    terms: np.ndarray
    owners: list[tuple[int, int]]
    labels: np.ndarray
    targets: np.ndarray
    kept: np.ndarray

    @classmethod
    def of(
        cls, asked: Sequence[tuple[Item, Asked]], numbers: dict[tuple[int, int], int], sets: Sequence[JudgeSet]
    ) -> "_Reads":
        kinds: list[int] = []
        terms: list[str] = []
        owners: list[tuple[int, int]] = []
        labels: list[float] = []
        targets: list[int] = []
        present = {image: names_in(sets[image[0]], image[1]) for image in numbers if image[0] >= 0}
        for item, one in asked:
            for branch, example in zip(one.branches, one.examples, strict=True):
                for kind, target in zip(branch.kinds.tolist(), branch.targets.tolist()):
                    kinds.append(kind)
                    terms.append(term(kind, item.kind))
                    owners.append((item.source, example))
                    targets.append(target)
                    labels.append(_label(kind, target, item.source, example, sets, present.get(one.image)))
        found = np.array(labels, dtype=np.float32)
        return cls(np.array(kinds), np.array(terms), owners, found, np.array(targets), ~np.isnan(found))

    def only_kept(self) -> "_Reads":
        """Without reads that nobody has a label for."""
        k = self.kept
        owners = [owner for owner, keep in zip(self.owners, k.tolist()) if keep]
        return _Reads(self.kinds[k], self.terms[k], owners, self.labels[k], self.targets[k], k[k])


def _label(
    kind: int, target: int, source: int, example: int, sets: Sequence[JudgeSet], present: np.ndarray | None
) -> float:
    """The label of a question, whether a name is in the image (NaN: nobody knows), 1 for words."""
    if kind < len(QUESTIONS):
        return float(sets[source].labels[example, kind])
    if kind == NAME:
        return float("nan") if present is None else float(present[target])
    return 1.0
