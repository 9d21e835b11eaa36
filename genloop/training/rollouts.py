"""Images drawn and scored inside a training, from the weights as they are: RUN/rollouts/STEP/images-00000.safetensors.

The rows of a rollout are cut into parts of a fixed size, which ranks draw in turn and every rank reads. A row depends
on its prompt, its Seed and the weights alone, so the same rows come of any number of ranks. Each part appears whole or
not at all; a resumed run reads what is there and draws the rest. B = rows, n = image tokens.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genloop.distributed import World
from genloop.protocols import Judge, Sampler
from genloop.records import Prompt, Seed
from genloop.registry import require
from genloop.rundir import write_atomic
from genloop.training.reductions import largest_over_ranks, wait_for_all
from genloop.training.state import checkpoints

if TYPE_CHECKING:
    from genloop.sampling.maskgit.state import MaskGitState

log = logging.getLogger(__name__)
Pair = tuple[Prompt, Seed]
Compute = Callable[[range], Mapping[str, Tensor]]
"""Some rows -> named tensors whose first dimension is theirs."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """Finished images on the CPU, one row each."""

    prompts: tuple[Prompt, ...]
    tokens: Tensor  # (B, n) int64 codes
    revealed_at: Tensor  # (B, n) int64: the step, from 0, that fixed a token
    scores: Tensor  # (B,) float64 in [0, 1], P(yes) to `outcome`; NaN where there is no answer

    def __len__(self) -> int:
        return len(self.prompts)


class Rollouts:
    """Draws and keeps the rollouts of one run. Every method but those that prune is called on all ranks alike."""

    def __init__(
        self,
        run: Path,
        world: World,
        sampler: "Sampler[MaskGitState]",
        judge: Judge,
        *,
        rows_per_part: int = 32,
        keep: int = 2,
    ) -> None:
        """keep: how many checkpoints the run may resume from, the newest ones."""
        self.folder, self.world, self.sampler, self.judge = run / "rollouts", world, sampler, judge
        self.rows_per_part, self.keep = rows_per_part, keep

    def draw(self, step: int, pairs: Sequence[Pair]) -> Rollout:
        """One finished image for each pair, scored; the model must be whole, unless all is stored already."""
        prompts = tuple(prompt for prompt, _ in pairs)
        found = self.rows(step, "images", pairs, lambda rows: self._drawn(pairs[rows.start : rows.stop]))
        return Rollout(prompts, found["tokens"].long(), found["revealed_at"].long(), found["scores"])

    def rows(self, step: int, kind: str, pairs: Sequence[Pair], compute: Compute) -> dict[str, Tensor]:
        """All rows of what `compute` says of some; stored under the rollout of `step` by the name `kind`."""
        for number in self._own(pairs):
            if self._read(step, kind, pairs, number) is None:
                self.world.stop_requested()  # tells the launcher that this rank moves
                path = self._path(step, kind, number)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, _encoded(compute(self._range(pairs, number)), self._digest(pairs, number)))
        wait_for_all(self.world)
        parts = [self._read(step, kind, pairs, number) for number in range(self._num_parts(pairs))]
        if None in parts:
            raise OSError(f"{self._path(step, kind, parts.index(None))}: not readable on rank {self.world.rank}")
        whole = [part for part in parts if part is not None]
        return {name: torch.cat([part[name] for part in whole]) for name in whole[0]}

    def is_stored(self, step: int, kind: str, pairs: Sequence[Pair]) -> bool:
        """Whether all rows of `kind` are there."""
        lacks = any(self._read(step, kind, pairs, number) is None for number in self._own(pairs))
        return not (largest_over_ranks(lacks) if self.world.world_size > 1 else lacks)

    def prune_for_checkpoints(self, every: int) -> None:
        """Delete what no run that resumes from a checkpoint learns from, where images are drawn `every` steps."""
        if self.world.rank == 0 and (found := checkpoints(self.folder.parent)[-self.keep :]):
            done = int(found[0].name.rpartition("-")[2])
            self.prune(before=1 + done // every * every)

    def prune(self, before: int) -> None:
        """Delete the rollouts of steps before this one."""
        for folder in self.folder.glob("[0-9]*"):
            if int(folder.name) < before:
                shutil.rmtree(folder, ignore_errors=True)

    def _drawn(self, pairs: Sequence[Pair]) -> dict[str, Tensor]:
        prompts, seeds = [prompt for prompt, _ in pairs], [seed for _, seed in pairs]
        state = self.sampler.start(prompts, seeds)
        for _ in range(self.sampler.num_steps):
            state = self.sampler.step(state)
        per_pass = getattr(self.sampler, "images_per_decode", 1)
        scores: list[float] = []
        for start in range(0, len(pairs), per_pass):
            part = slice(start, start + per_pass)
            scores += self.judge.p_yes("outcome", prompts[part], self.sampler.decode(state.content[part])).tolist()
        tokens, revealed = state.content.cpu().int(), state.revealed_at.cpu().int()
        return {"tokens": tokens, "revealed_at": revealed, "scores": torch.tensor(scores, dtype=torch.float64)}

    def _own(self, pairs: Sequence[Pair]) -> range:
        """The parts that this rank draws."""
        return range(self.world.rank, self._num_parts(pairs), self.world.world_size)

    def _num_parts(self, pairs: Sequence[Pair]) -> int:
        return -(-len(pairs) // self.rows_per_part)

    def _range(self, pairs: Sequence[Pair], number: int) -> range:
        start = number * self.rows_per_part
        return range(start, min(start + self.rows_per_part, len(pairs)))

    def _path(self, step: int, kind: str, number: int) -> Path:
        return self.folder / f"{step:07d}" / f"{kind}-{number:05d}.safetensors"

    def _digest(self, pairs: Sequence[Pair], number: int) -> str:
        """What a part was drawn for."""
        rows = self._range(pairs, number)
        keys = [(p.condition, s.run, s.prompt, s.sample, s.candidate) for p, s in pairs[rows.start : rows.stop]]
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()

    def _read(self, step: int, kind: str, pairs: Sequence[Pair], number: int) -> dict[str, Tensor] | None:
        """A stored part; None where there is none, or one that is torn or of other pairs."""
        path = self._path(step, kind, number)
        if not path.is_file():
            return None
        safetensors = require("safetensors")
        try:
            with safetensors.safe_open(path, "pt", device="cpu") as file:
                found = {name: file.get_tensor(name) for name in list(file.keys())}
                is_ours = (file.metadata() or {}).get("digest") == self._digest(pairs, number)
        except safetensors.SafetensorError as error:
            log.warning("%s: %s; its rows are drawn again", path, error)
            return None
        return found if is_ours else None


def _encoded(tensors: Mapping[str, Tensor], digest: str) -> bytes:
    found = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return bytes(require("safetensors.torch").save(found, metadata={"digest": digest}))
