"""Walk recorded paths again, step by step, to see what lay on the way; and other ways that could be gone from there.

A path follows from its prompt and its Seed alone, so a candidate of any run can be replayed exactly, one that was cut
even beyond its cut; its end is compared with what the run recorded. B = paths, H, W = pixels.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from genloop.protocols import S, Sampler
from genloop.records import Prompt, Seed, branch_seed

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RecordedPath:
    """A candidate of a run: what keyed it and the content it ended in, `known` as far as it got before it was cut."""

    prompt: Prompt
    seed: Seed
    content: np.ndarray
    known: np.ndarray  # bool, of the shape of `content`


@dataclass(slots=True)
class Replayed:
    """Pixels in [0, 1]: the final images (B, 3, H, W), previews by step, and finals of other continuations by step."""

    final: "Tensor"
    previews: "dict[int, Tensor]" = field(default_factory=dict)
    branches: "dict[int, list[Tensor]]" = field(default_factory=dict)


def replay(
    sampler: Sampler[S], paths: Sequence[RecordedPath], steps: Collection[int], *, branches: int = 0, key: int = 0
) -> Replayed:
    """Replay `paths` side by side, with a preview after each of `steps` and `branches` other continuations from there.

    A continuation keeps what is fixed and draws the rest with seeds made from the path's, `key`, the step and its
    number. ValueError names the path that does not end as recorded.
    """
    state = sampler.start([path.prompt for path in paths], [path.seed for path in paths])
    previews, others = {}, {}
    for step in range(1, sampler.num_steps + 1):
        state = sampler.step(state)
        if step in steps:
            previews[step] = sampler.preview(state)
            others[step] = [_other_end(sampler, state, paths, step, number, key) for number in range(branches)]
    for path, content in zip(paths, state.content.cpu().numpy(), strict=True):
        _compare(path, content)
    return Replayed(sampler.decode(state.content), previews, others)


def _other_end(
    sampler: Sampler[S], state: S, paths: Sequence[RecordedPath], step: int, number: int, key: int
) -> "Tensor":
    state = sampler.branch(state, [branch_seed(path.seed, key, step, number) for path in paths])
    for _ in range(step, sampler.num_steps):
        state = sampler.step(state)
    return sampler.decode(state.content)


def _compare(path: RecordedPath, content: np.ndarray) -> None:
    if path.content.shape == content.shape:
        differ = int(((path.content != content) & path.known).sum())
        if not differ:
            return
    else:
        differ = content.size
    seed = path.seed
    raise ValueError(
        f"prompt {path.prompt.index} {path.prompt.text!r}, sample {seed.sample}, candidate {seed.candidate}: the "
        f"replay ends in another content than the run recorded ({differ} of {content.size} values differ); "
        "replay with the same weights, device and version, or generate the run again"
    )
