"""Score against cost of every strategy on prompts of the embedded world, with one judge and one sampler.

    python -m benchmarks.search --prompts runs/prompts-shapes_search --judge shapes/judge --out runs/search-test
    python -m benchmarks.search --prompts runs/prompts-shapes_search_train --samples 1 --set tune --out runs/search-tune

The strategies themselves run, unchanged, over a sampler and a judge that remember what they computed: a candidate's
path depends on its seed alone, so strategies that draw the same candidate share its steps, and an image is judged once.
What each of them reports as its cost is what it would have spent by itself. Best-of-k is the expectation over all
subsets of one pool. OUT/chunks holds the results of finished prompts: the same command goes on from there.
"""

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.search_sets import PROBED, SETS, Setup
from ckpts.resolve import resolve
from geneval.judge import ShapesOracle
from genloop.config import dump_yaml
from genloop.data.prompts import read_prompts
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.models.showo.load import load_showo
from genloop.protocols import Judge
from genloop.records import Choice, Prompt, Seed
from genloop.rewards.build import build_judge
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import write_atomic
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.maskgit.state import MaskGitState
from genloop.search.settings import SearchSettings, strategy_class

SAMPLING = {"order": "object_first", "token_temperature": 0.7, "preview": "argmax", "temperature_mode": "cumulative"}
CHUNK = 10  # prompts at a time


class Remembering(MaskGitSampler):
    """A sampler that takes every step of every path once."""

    def forget(self) -> None:
        """Empty the memory."""
        self._known: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def step(self, state: MaskGitState) -> MaskGitState:
        """One decoding step for every row, from memory where it was taken before."""
        codes = state.tokens.numpy()
        keys = [
            (*row, tokens.tobytes())
            for *row, tokens in zip(state.seeds, state.rounds, state.before, state.steps, state.horizons, codes)
        ]
        new = [row for row, key in enumerate(keys) if key not in self._known]
        if new:
            done = super().step(state.select(new))
            parts = (done.tokens.numpy(), done.guess.numpy(), done.revealed_at.numpy())
            for place, row in enumerate(new):
                self._known[keys[row]] = tuple(part[place].astype(np.int16) for part in parts)  # type: ignore[assignment]
        found = [torch.from_numpy(np.stack(part).astype(np.int64)) for part in zip(*(self._known[key] for key in keys))]
        fields = {name: getattr(state, name) for name in state.__dataclass_fields__}
        fields |= dict(zip(("tokens", "guess", "revealed_at"), found))
        return MaskGitState(**fields | {"steps": tuple(done + 1 for done in state.steps)})


class Attentive:
    """A judge that is asked every question once."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.flops = judge, judge.flops
        self.known: dict[tuple[str, str, bytes], float] = {}

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: torch.Tensor) -> torch.Tensor:
        """See `genloop.protocols.Judge`."""
        shown = (images * 255).round().to(torch.uint8).numpy()
        keys = [(question, prompt.text, image.tobytes()) for prompt, image in zip(prompts, shown)]
        new = [row for row, key in enumerate(keys) if key not in self.known]
        if new:
            answers = self.judge.p_yes(question, [prompts[row] for row in new], images[new]).tolist()
            self.known |= {keys[row]: answer for row, answer in zip(new, answers)}
        return torch.tensor([self.known[key] for key in keys])


@dataclass(frozen=True)
class Bench:
    """What is measured: prompts, how many images of each, which strategies, by whom they are judged."""

    prompts: Path
    judges: dict[str, str]
    samples: int
    set: str
    out: Path
    showo: str
    seed: int


def work(bench: Bench, first: int, step: int) -> None:
    """Every `step`-th chunk of prompts from `first` on."""
    torch.set_num_threads(1)
    file = bench.prompts / "evaluation_metadata.jsonl"
    prompts = read_prompts(file, None)
    judges = {
        name: build_judge(JudgeSettings(kind="llava", options={"checkpoint": checkpoint}), resolve)  # type: ignore[arg-type]
        for name, checkpoint in bench.judges.items()
    }
    samplers: dict[str, Remembering] = {}
    for start in list(range(0, len(prompts), CHUNK))[first::step]:
        target = bench.out / "chunks" / f"{start:05d}.json"
        if target.is_file():
            continue
        for sampler in samplers.values():
            sampler.forget()
        rows = chunk_rows(bench, prompts[start : start + CHUNK], judges, samplers)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, json.dumps(rows).encode())


def chunk_rows(
    bench: Bench, prompts: Sequence[Prompt], judges: dict[str, Judge], samplers: dict[str, Remembering]
) -> list[dict[str, Any]]:
    """One row for each image: what every strategy chose, whether it is right, what it cost; all of the pools."""
    pairs = [(prompt, sample) for prompt in prompts for sample in range(bench.samples)]
    rows: list[dict[str, Any]] = [
        {"prompt": prompt.index, "text": prompt.text, "tag": prompt.tag, "sample": sample, "choices": {}}
        for prompt, sample in pairs
    ]
    asked = {name: Attentive(judge) for name, judge in judges.items()}
    for setup in SETS[bench.set]:
        sampler = sampler_of(bench, setup, samplers)
        search = SearchSettings(strategy=setup.strategy, n=setup.n, options=setup.options)  # type: ignore[arg-type]
        if setup.judge not in asked:
            continue
        strategy = strategy_class(search.strategy)(sampler, asked[setup.judge], search.n, search.options)
        for row, (prompt, _), choice in zip(rows, pairs, strategy.search(pairs, bench.seed), strict=True):
            row["choices"][setup.label] = outcome(setup, prompt, choice, sampler)
            row["one_image"] = sampler.num_steps * sampler.flops_per_step
    if any(setup.is_pool and setup.label == PROBED.pool for setup in SETS[bench.set]):
        probe(bench, rows, pairs, samplers, asked)
    return rows


def sampler_of(bench: Bench, setup: Setup, samplers: dict[str, Remembering]) -> Remembering:
    """The sampler of a setup; those with equal settings share one."""
    key = json.dumps(setup.sampling, sort_keys=True)
    if key not in samplers:
        settings = SamplingConfig(**(SAMPLING | setup.sampling))
        tokenizer = load_image_tokenizer(resolve("shapes/tokenizer"))
        samplers[key] = Remembering(load_showo(resolve(bench.showo)), tokenizer, settings, slots=256)
        samplers[key].forget()
    return samplers[key]


def outcome(setup: Setup, prompt: Prompt, choice: Choice, sampler: Remembering) -> dict[str, Any]:
    """What is kept of a choice."""
    cost = choice.cost
    found: dict[str, Any] = {"steps": cost.generator_steps, "calls": cost.judge_calls, "flops": cost.flops}
    if setup.is_pool:
        found["p_yes"] = [candidate.p_yes["outcome"] for candidate in choice.candidates]
        found["correct"] = correct(sampler, [prompt] * len(choice.candidates), [c.content for c in choice.candidates])
    else:
        found["correct"] = correct(sampler, [prompt], [choice.candidates[choice.chosen].content])[0]
    return found


def correct(sampler: Remembering, prompts: Sequence[Prompt], tokens: Sequence[np.ndarray]) -> list[float]:
    """Whether finished images show their prompts, by the exact detector and GenEval's rules."""
    images = sampler.decode(torch.from_numpy(np.stack(tokens)))
    return ShapesOracle().p_yes("outcome", prompts, images).tolist()


def probe(
    bench: Bench,
    rows: Sequence[dict[str, Any]],
    pairs: Sequence[tuple[Prompt, int]],
    samplers: dict[str, Remembering],
    asked: dict[str, Attentive],
) -> None:
    """The judges' potential, and the oracle's verdict, of the first paths' previews at several steps."""
    for name, settings in PROBED.sampling.items():
        sampler = sampler_of(bench, Setup("", "", "none", 1, {}, settings), samplers)
        keys = [
            (prompt, Seed(bench.seed, prompt.index, sample, c)) for prompt, sample in pairs for c in range(PROBED.n)
        ]
        prompts = [prompt for prompt, _ in keys]
        state = sampler.start(prompts, [seed for _, seed in keys])
        scores: dict[str, dict[int, list[float]]] = {judge: {} for judge in (*asked, "oracle")}
        while state.steps[0] < sampler.num_steps:
            state = sampler.step(state)
            if state.steps[0] in PROBED.steps:
                images = sampler.preview(state)
                for judge, asks in asked.items():
                    scores[judge][state.steps[0]] = asks.p_yes("potential", prompts, images).tolist()
                scores["oracle"][state.steps[0]] = ShapesOracle().p_yes("outcome", prompts, images).tolist()
        final = correct(sampler, prompts, list(state.tokens.numpy()))
        for number, row in enumerate(rows):
            part = slice(number * PROBED.n, (number + 1) * PROBED.n)
            by_step = {judge: {step: all_[part] for step, all_ in of.items()} for judge, of in scores.items()}
            row.setdefault("probes", {})[name] = {"correct": final[part], "scores": by_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True, help="folder that make_prompts wrote")
    parser.add_argument("--judge", default="shapes/judge")
    parser.add_argument("--zero-shot", help="the judge before it saw generated images")
    parser.add_argument("--showo", default="shapes/showo")
    parser.add_argument("--samples", type=int, default=4, help="images a prompt")
    parser.add_argument("--set", choices=sorted(SETS), default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    found = parser.parse_args()
    judges = {"tuned": found.judge} | ({"zero_shot": found.zero_shot} if found.zero_shot else {})
    bench = Bench(found.prompts, judges, found.samples, found.set, found.out, found.showo, found.seed)
    found.out.mkdir(parents=True, exist_ok=True)
    said = {key: str(value) if isinstance(value, Path) else value for key, value in vars(bench).items()}
    write_atomic(found.out / "bench.yaml", dump_yaml(said).encode())
    with ProcessPoolExecutor(found.procs) as pool:
        for done in [pool.submit(work, bench, rank, found.procs) for rank in range(found.procs)]:
            done.result()


if __name__ == "__main__":
    main()
