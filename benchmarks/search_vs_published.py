"""Searching with a judge: the published loops against ours, on the same weights and the same draws, in one run.

    python benchmarks/search_vs_published.py                       tiny weights, N = 4 and 20; half an hour when quiet
    python benchmarks/search_vs_published.py --candidates 4 --answers 2 --judge mid
    python benchmarks/search_vs_published.py --geometry 128 --bits 8 --candidates 4 --answers 1 --images 2 \\
        --published-images 2 --rounds 5 [--judge mid]     the published code at its best: one judged token, small models

The published loops, told in our words: candidates one after the other, two rows of the whole padded sequence and the
whole head a step; pixels decoded and a PNG written after every step; a judge that reads a PNG, batch 1, and samples its
answer. PARM decodes and writes once more for the judge after every step until one is clear, asks about clarity, then
about potential, decodes the last step a third time, and asks the candidates with potential for their outcome. Ours:
`none`, `best_of_n`, and `parm` as released (nothing is cut), as in the paper (mode=threshold), with clarity by
bisection, and by rank, its default.

Random weights have no opinion and seldom end an answer. So verdicts are read off a hash of the judged pixels, the same
for both: a preview is clear in one of eight cases, half of the clear ones have potential; the judge itself runs all the
same. --answers says how many tokens a published answer has: the released limit of 100, which random weights reach, or
2, the word and the end of the turn, as of a trained judge.
"""

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.judge import SIZES, word_tokenizer
from benchmarks.showo_decode import PROMPT, SETTINGS, WIDTHS, describe_machine, models, published_steps
from genloop.data.images import encode_png, to_uint8
from genloop.models.llava.load import build_llava
from genloop.models.llava.model import Llava, embed_tokens, image_features
from genloop.models.llava.pixels import pad_tile
from genloop.models.llava.text import LlavaTokenizer
from genloop.models.magvit2.model import MagvitV2
from genloop.models.showo.model import ShowO
from genloop.records import Choice, Prompt, Seed
from genloop.registry import lookup, require
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import Questions
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.search import STRATEGIES

SHARE = {"clarity": 1 / 8, "potential": 1 / 2}  # of yes


def verdict(question: str, pixels: np.ndarray) -> float:
    """Pixels (H, W, 3) uint8 -> P(yes), from a hash of them."""
    digest = hashlib.blake2b(question.encode() + pixels.tobytes(), digest_size=8).digest()
    uniform = int.from_bytes(digest, "little") / 2**64
    share = SHARE.get(question)
    if share is None:
        return uniform
    return 1 - 0.5 * uniform / share if uniform < share else 0.5 * (1 - uniform) / (1 - share)


@dataclass
class Published:
    """The released code's judge and loops over one generator."""

    model: ShowO
    pixels: MagvitV2
    judge: Llava
    tokenizer: LlavaTokenizer
    answer_tokens: int
    place: Path

    def none(self, seeds: Sequence[Seed], prompt: Prompt) -> np.ndarray:
        """One candidate, an image of each of its steps; the last one is kept."""
        return _read([self._written(drawn, "step") for drawn in published_steps(self.model, seeds[0], prompt)][-1])

    def orm(self, seeds: Sequence[Seed], prompt: Prompt) -> np.ndarray:
        """All candidates, an image of each step, the last one written twice; then a question about each."""
        paths = []
        for number, seed in enumerate(seeds):
            for drawn in published_steps(self.model, seed, prompt):
                path = self._written(drawn, f"step of {number}")
            paths.append(self._saved(_read(path), f"{number}"))
        scores = [self.ask("outcome", *self._shown(path), prompt) for path in paths]
        return _read(paths[scores.index(max(scores))])

    def parm(self, seeds: Sequence[Seed], prompt: Prompt) -> np.ndarray:
        """Clarity after every step, potential once, nothing is cut; each image for the judge is decoded apart."""
        paths, no, has_potential = [], [], []
        for number, seed in enumerate(seeds):
            p_no, potential, clear = 1.0, False, False
            for drawn in published_steps(self.model, seed, prompt):
                if not clear:
                    shown = self._shown(self._written(drawn, "waiting"))  # once for both questions
                    clear = self.ask("clarity", *shown, prompt) >= 0.5
                    if clear:
                        p_yes = self.ask("potential", *shown, prompt)
                        p_no, potential = 1 - p_yes, p_yes >= 0.5
                self._written(drawn, "step")
            paths.append(self._written(drawn, f"{number}"))
            no.append(p_no)
            has_potential += [number] if potential else []
        if not has_potential:
            return _read(paths[no.index(min(no))])
        scores = [self.ask("outcome", *self._shown(paths[index]), prompt) for index in has_potential]
        return _read(paths[has_potential[scores.index(max(scores))]])

    @torch.inference_mode()
    def ask(self, question: str, read: np.ndarray, tile: Tensor, prompt: Prompt) -> float:
        """Answer by a generation of its own; what it means is `verdict`'s."""
        first, *rest = Questions().pieces(question, prompt.text)
        texts = [torch.tensor(self.tokenizer.encode(text)) for text in (first, "".join(rest))]
        before, behind = (embed_tokens(self.judge, ids) for ids in texts)
        sequence = torch.cat([before, image_features(self.judge, tile[None])[0], behind])[None]
        mask = torch.ones(sequence.shape[:2], dtype=torch.int64)
        torch.manual_seed(0)
        how = {"do_sample": True, "temperature": 1.0, "max_new_tokens": self.answer_tokens, "pad_token_id": 0}
        how |= {"output_scores": True, "return_dict_in_generate": True}
        self.judge.generate(inputs_embeds=sequence, attention_mask=mask, **how)
        return verdict(question, read)

    def _written(self, tokens: Tensor, name: str) -> Path:
        """Tokens (1, n), decoded -> a PNG of them."""
        return self._saved(to_uint8(self.pixels.decode(tokens))[0], name)

    def _saved(self, image: np.ndarray, name: str) -> Path:
        path = self.place / f"{name}.png"
        path.write_bytes(encode_png(image))
        return path

    def _shown(self, path: Path) -> tuple[np.ndarray, Tensor]:
        """A PNG as the judge reads it: pixels (H, W, 3), tile (3, S, S)."""
        read = _read(path)
        return read, pad_tile(read, self.judge.config.vision_config.image_size)


def _read(path: Path) -> np.ndarray:
    with require("PIL.Image").open(path) as picture:
        return np.asarray(picture.convert("RGB"))


class Scripted:
    """Our judge, whose answers are replaced by `verdict`; implements the Judge protocol."""

    def __init__(self, judge: LlavaJudge) -> None:
        self.judge, self.flops = judge, judge.flops

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        """One prompt per image (B, 3, H, W) -> (B,)"""
        self.judge.p_yes(question, prompts, images)
        return torch.tensor([verdict(question, pixels) for pixels in to_uint8(images)], dtype=torch.float64)


OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "orm": ("best_of_n", {}),
    "parm, as released": ("parm", {"mode": "released"}),
    "parm, as in the paper": ("parm", {"mode": "threshold"}),
    "parm, from step 3 on": ("parm", {"mode": "threshold", "start": 3}),
    "parm, by rank": ("parm", {}),
    "parm, clarity by bisection": ("parm", {"mode": "threshold", "start": 3, "clarity": "bisect"}),
}


@dataclass(frozen=True)
class Bench:
    """What is compared: sizes and counts."""

    geometry: str
    bits: int
    judge: str
    candidates: int
    images: int  # kept, our way; the published way is sequential
    published_images: int  # of them

    def prompt(self, index: int) -> Prompt:
        return replace(PROMPT, index=index)

    def published(self, name: str, answer_tokens: int) -> tuple[float, list[np.ndarray]]:
        """Seconds of CPU for each kept image, the images."""
        model, pixels = models(self.geometry, self.bits)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = word_tokenizer(Path(folder))
            judge = build_llava(SIZES[self.judge], seed=1).eval()
            loops = Published(model, pixels, judge, tokenizer, answer_tokens, Path(folder))
            loop: Callable[[Sequence[Seed], Prompt], np.ndarray] = getattr(loops, name)
            loops.ask("outcome", *loops._shown(loops._saved(np.zeros((256, 256, 3), np.uint8), "0")), PROMPT)  # warm-up
            began = time.process_time()
            images = []
            for index in range(self.published_images):
                seeds = [Seed(0, index, 0, candidate) for candidate in range(self.candidates)]
                images.append(loop(seeds, self.prompt(index)))
            return (time.process_time() - began) / len(images), images

    def ours(self, name: str) -> tuple[float, list[np.ndarray], list[Choice]]:
        """Seconds of CPU for each kept image, the images, what was done for them."""
        strategy_name, options = OURS[name]
        model, pixels = models(self.geometry, self.bits)
        sampler = MaskGitSampler(model, pixels, SETTINGS, slots=32)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = word_tokenizer(Path(folder))
        judge = Scripted(LlavaJudge(build_llava(SIZES[self.judge], seed=1), tokenizer, Questions()))
        judge.p_yes("outcome", [PROMPT], torch.zeros(1, 3, 256, 256))  # warm-up
        strategy = lookup(STRATEGIES, strategy_name, "strategy")
        n = 1 if name == "none" else self.candidates
        searching = strategy(sampler, judge, n, strategy.Options(**options))
        began = time.process_time()
        images, choices = [], []
        for choice in searching.search([(self.prompt(index), 0) for index in range(self.images)], 0):
            tokens = torch.from_numpy(choice.candidates[choice.chosen].content)[None]
            (image,) = to_uint8(sampler.decode(tokens))
            encode_png(image)
            images.append(image)
            choices.append(choice)
        return (time.process_time() - began) / len(images), images, choices

    def compare(self, loops: Sequence[str], answers: Sequence[int], rounds: int) -> None:
        """Print a row a strategy of ours: both ways in turn, round after round, then the medians."""
        for loop in loops:
            names = [name for name in OURS if name.partition(",")[0] == loop]
            lengths = answers if loop != "none" else answers[:1]
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
            for _ in range(rounds):
                before = {length: self.published(loop, length) for length in lengths}
                for name in names:
                    found[name].append(self._round(name, before))
            for name, rows in found.items():
                middle = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key != "same_images"}
                spread = {
                    f"{key}_range": [min(row[key] for row in rows), max(row[key] for row in rows)]
                    for key in middle
                    if key.startswith("ratio") and rounds > 1
                }
                n = 1 if loop == "none" else self.candidates
                same = rows[0]["same_images"]
                print(json.dumps({"n": n, "strategy": name} | middle | spread | {"same_images": same}), flush=True)

    def _round(self, name: str, before: Mapping[int, tuple[float, list[np.ndarray]]]) -> dict[str, Any]:
        """One measurement of ours against published ones, by their answers' length."""
        seconds, images, choices = self.ours(name)
        row: dict[str, Any] = {"ours_seconds": round(seconds, 3)}
        for length, (slow, kept) in before.items():
            row[f"published_seconds_{length}"] = round(slow, 3)
            row[f"ratio_{length}"] = round(slow / seconds, 2)
            row["same_images"] = f"{sum(map(np.array_equal, kept, images))} of {len(kept)}"
        row["steps"] = math.fsum(choice.cost.generator_steps for choice in choices) / len(choices)
        row["questions"] = sum(choice.cost.judge_calls for choice in choices) / len(choices)
        return row


def main() -> None:
    """Parse the command line; print a JSON line a comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loops", nargs="*", choices=["none", "orm", "parm"], default=["none", "orm", "parm"])
    parser.add_argument("--candidates", type=int, nargs="*", default=[4, 20])
    parser.add_argument("--answers", type=int, nargs="*", default=[100, 2], help="tokens of a published answer")
    parser.add_argument(
        "--bits", type=int, default=13, help="log2 of the codebook size; 7 gives the head its share of the full model"
    )
    parser.add_argument("--geometry", choices=WIDTHS, default="256", help="pixels; 128: width 256, 6 layers, 64 tokens")
    parser.add_argument("--rounds", type=int, default=1, help="of both ways in turn")
    parser.add_argument("--judge", choices=SIZES, default="tiny", help="see benchmarks/judge.py")
    parser.add_argument("--images", type=int, default=4, help="kept images, our way")
    parser.add_argument("--published-images", type=int, default=1, help="of them, the published way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    phi = WIDTHS[options.geometry]
    print(
        f"Show-o of width {phi.hidden_size} with {phi.num_hidden_layers} layers and {2**options.bits} codes at "
        f"{options.geometry} px, {SETTINGS.steps} steps, judge {options.judge}; float32, one thread; "
        "CPU seconds a kept image",
        flush=True,
    )
    for number, candidates in enumerate(options.candidates):
        loops = [loop for loop in options.loops if loop != "none" or number == 0]  # one candidate whatever N
        few = min(options.images, options.published_images)
        Bench(options.geometry, options.bits, options.judge, candidates, options.images, few).compare(
            loops, options.answers, options.rounds
        )


if __name__ == "__main__":
    main()
