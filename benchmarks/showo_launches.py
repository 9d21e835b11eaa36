"""Operations of one decoding step, rows grouped by the length of their text against rows padded to one length.

    python benchmarks/showo_launches.py            # about a minute

64 paths of 8 prompts of four lengths behind the layers of the published model (24), guided, half of the tokens drawn.
Counted are torch's operations that write memory: on a GPU about one kernel each. Their number does not depend on the
width, so the model is thin. `nonzero` and reading a value make the host wait for the device; so does every copy between
the two, which a CPU does not show.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.showo_decode import Letters
from genloop.models.magvit2.config import MagvitConfig
from genloop.models.magvit2.load import build_magvit2
from genloop.models.showo.config import PhiDims, ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.records import Prompt, Seed
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig

PROMPTS = [
    Prompt(index, text)
    for index, text in enumerate(
        ["a cat", "a dog", "a red bus", "two cups", "a red bed", "two dogs", "a blue car", "a pink cup"]
    )
]
STEPS = 18


class Operations(TorchDispatchMode):
    """Counts by name what writes memory."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        if not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        """Operations whose result the host has to know."""
        return sum(count for name, count in self.counts.items() if "nonzero" in name or name == "_local_scalar_dense")


def operations(sampler: MaskGitSampler, paths: int, steps: int) -> Operations:
    """Of the step after `steps` steps."""
    prompts = [PROMPTS[path % len(PROMPTS)] for path in range(paths)]
    state = sampler.start(prompts, [Seed(0, prompt.index, 0, path) for path, prompt in enumerate(prompts)])
    for _ in range(steps):
        state = sampler.step(state)
    with Operations() as found:
        sampler.step(state)
    return found


def main() -> None:
    """Parse the command line; print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", type=int, default=64)
    parser.add_argument("--layers", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    thin = PhiDims(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=options.layers,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    config = ShowOConfig(codebook_size=256, num_vq_tokens=64, llm_vocab_size=1000, phi=thin)
    model = build_showo(config, seed=1, text_tokenizer=Letters()).eval()
    pixels = build_magvit2(MagvitConfig(num_bits=8, width=8, num_groups=4, resolution=128), seed=2).eval()
    found = {}
    for padded in (False, True):
        sampler = MaskGitSampler(model, pixels, SamplingConfig(steps=STEPS, padded=padded), slots=options.paths)
        found[padded] = operations(sampler, options.paths, STEPS // 2)
    print(f"{options.paths} paths, {len(PROMPTS)} prompts, {options.layers} layers; torch {torch.__version__}")
    for padded, one in found.items():
        most = ", ".join(f"{name} {count}" for name, count in one.counts.most_common(5))
        print(f"  padded={padded!s:5}  {one.counts.total():6} operations, {one.waits:3} waits  ({most})")
    print(f"  ratio         {found[False].counts.total() / found[True].counts.total():6.2f} x", flush=True)


if __name__ == "__main__":
    main()
