"""A training step of DPO: the published one against ours, on the same weights and pairs, in one process.

    python benchmarks/dpo_step.py                      half an hour when quiet, 6 GB
    python benchmarks/dpo_step.py --bits 8 --guided

Width 256, 6 layers, 256 tokens; the image tokenizer in proportion. With 13 bits a code the vocabulary is the published
one and the head takes three quarters of a pass; with 8 it has its share of the full model, a tenth.

The published step, told in our words: both images of every pair are read from PNG files, resized and cut, and encoded;
each side is masked and loses its caption for itself; policy and reference, a second copy, run over the whole padded
sequence with the head over the whole vocabulary at every position; soi and eoi count too. Left out of it is what only
costs there: a Python loop a row for the attention mask. With its guidance on, an image of every prompt is drawn in 18
steps and decoded under no_grad, and a judge samples an answer about each, again until it is yes or no; the result is a
number without gradient. Random weights do not answer: one answer of --answer tokens is sampled (the limit is 4,096).

Ours is the step of train_dpo: pairs hold codes, what the reference says of them was stored before, sequences have no
shared pads, the head runs where something is hidden. Rows: the published loss itself, shared masks, and the default,
which averages four guided draws of each pair and so does eight times the rows. Rounds are interleaved; a ratio is that
of the sums, with a 95 % bootstrap interval over rounds. `+ reference` is the first epoch, when it has to be computed.
Memory is the peak of live tensor bytes in a step beside what was there before it.
"""

import argparse
import copy
import math
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.judge import SIZES, some_images, word_tokenizer
from benchmarks.showo_decode import describe_machine
from genloop.data.images import encode_png, to_uint8
from genloop.data.pairs.pair import CodeSpace, Pair, to_sample
from genloop.data.pairs.shards import PairShards
from genloop.data.shards import write_shard
from genloop.distributed import World
from genloop.models.common.footprint import Tracker
from genloop.models.llava.load import build_llava
from genloop.models.llava.model import embed_tokens, image_features
from genloop.models.llava.pixels import pad_tile
from genloop.models.magvit2.config import MagvitConfig
from genloop.models.magvit2.load import build_magvit2
from genloop.models.magvit2.model import MagvitV2
from genloop.models.showo.config import PhiDims, ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.models.showo.model import ShowO, additive_mask
from genloop.models.showo.prompting import IGNORE, Layout, omni_mask
from genloop.registry import require
from genloop.rewards.questions import Questions
from genloop.sampling.maskgit.schedule import masked_after
from genloop.stats.pace import pace_of
from genloop.training.loading import Loading
from genloop.training.loop import prepare_model
from genloop.training.objectives.preference.estimator import Draw, Estimator
from genloop.training.objectives.preference.objective import Preference
from genloop.training.objectives.preference.reference import Key, estimated, keys_of
from genloop.training.objectives.preference.settings import PreferenceSettings
from genloop.training.replicated import Replicated
from genloop.training.settings import LoopSettings

REDUCED = PhiDims(
    hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4
)
BETA, LR, STEPS = 0.1, 1e-5, 18
PROMPTS = ("a photo of two clocks", "a photo of a red bench", "a photo of a dog right of a teddy bear")


@dataclass(frozen=True)
class Words:
    """A text tokenizer without files: one token a word, about as many as Phi's tokenizer makes of such prompts."""

    bos_id: int = 0
    eos_id: int = 0
    num_tokens: int = 512

    def encode(self, text: str) -> list[int]:
        return [1 + zlib.crc32(word.encode()) % 511 for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass
class Bench:
    """Weights, and pairs as PNG files and as shards of their codes."""

    model: ShowO
    tokenizer: MagvitV2
    folder: Path
    batch: int
    ways: Sequence[str]  # of ours

    @property
    def layout(self) -> Layout:
        return Layout(self.model.config, self.model.text_tokenizer)

    def write(self, num_pairs: int) -> PairShards:
        """Smooth pictures as PNG, their codes as shards."""
        images = some_images(2 * num_pairs)
        pairs = []
        for index in range(num_pairs):
            codes = []
            for side in range(2):
                (pixels,) = to_uint8(images[2 * index + side : 2 * index + side + 1])
                path = self.folder / f"{index:03d}-{side}.png"
                path.write_bytes(encode_png(pixels))
                codes.append(encoded(self.tokenizer, read_image(path)[None])[0].numpy())
            prompt = PROMPTS[index % len(PROMPTS)]
            pairs.append(Pair(f"{index:03d}", prompt, codes[0], codes[1], (1.0, 0.0)))
        space = CodeSpace(self.model.config.codebook_size, "0" * 64)
        write_shard(self.folder / "shards" / "00000.tar", [to_sample(pair, space) for pair in pairs])
        return PairShards(self.folder / "shards")


def read_image(path: Path) -> Tensor:
    """(3, 256, 256) in [-1, 1]: the shortest side resized (bicubic), the middle cut out."""
    pillow = require("PIL.Image")
    with pillow.open(path) as picture:
        image = picture.convert("RGB")
    scale = 256 / min(image.size)
    if scale != 1:
        image = image.resize([round(side * scale) for side in image.size], pillow.Resampling.BICUBIC)
    left, top = (image.width - 256) // 2, (image.height - 256) // 2
    pixels = np.asarray(image.crop((left, top, left + 256, top + 256)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(127.5).sub(1)


@torch.no_grad()
def encoded(tokenizer: MagvitV2, pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, n), all images in one pass."""
    return tokenizer.quantize.codes(tokenizer.encoder(pixels))


class Published:
    """The released step."""

    def __init__(self, bench: Bench, *, answer_tokens: int = 0) -> None:
        self.bench, self.answer_tokens = bench, answer_tokens  # 0: no guidance
        self.policy = copy.deepcopy(bench.model).train()
        self.reference = copy.deepcopy(bench.model).eval().requires_grad_(False)
        for model in (self.policy, self.reference):
            for layer in model.showo.model.layers:  # Phi's activation was not fused there
                layer.mlp.activation_fn = require("transformers.activations").ACT2FN["gelu_new"]
        self.optimizer = torch.optim.AdamW(self.policy.parameters(), lr=LR, betas=(0.9, 0.999), weight_decay=0.01)
        self.image_seconds = 0.0
        if answer_tokens:
            self.judge = build_llava(SIZES["mid"], seed=1).eval()
            self.words = word_tokenizer(bench.folder)

    def step(self, prompts: Sequence[str], rows: Sequence[int], draws: Sequence[Draw]) -> float:
        """One optimiser step on these pairs under these masks -> its loss."""
        began = time.process_time()
        files = [[self.bench.folder / f"{row:03d}-{side}.png" for row in rows] for side in range(2)]
        codes = [encoded(self.bench.tokenizer, torch.stack(list(map(read_image, side)))) for side in files]
        self.image_seconds += time.process_time() - began
        hidden = torch.from_numpy(np.stack([draw.hidden[side] for side in range(2) for draw in draws]))
        dropped = [draw.is_dropped[side] for side in range(2) for draw in draws]
        ids, labels = self._rows([*prompts, *prompts], torch.cat(codes), hidden, dropped)
        loss = -F.logsigmoid(self.log_ratio(ids, labels)).mean()
        if self.answer_tokens:
            loss = loss + 0.1 * self.reward_loss(prompts)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def log_ratio(self, ids: Tensor, labels: Tensor) -> Tensor:
        """ids, labels (2 B, L), chosen rows first -> beta times the difference of log-ratios (B,)"""
        with torch.no_grad():
            reference = self._log_probs(self.reference, ids, labels)
        ratios = self._log_probs(self.policy, ids, labels) - reference
        chosen, rejected = ratios.chunk(2)
        return BETA * (chosen - rejected)

    @torch.no_grad()
    def reward_loss(self, prompts: Sequence[str]) -> Tensor:
        """What images of the prompts are worth to the judge: a constant."""
        images = self.bench.tokenizer.decode(self._generate(prompts))
        p_yes = torch.tensor([self._ask(prompt, pixels) for prompt, pixels in zip(prompts, to_uint8(images))])
        return -p_yes.clamp(min=1e-7).log().mean()

    def _rows(self, prompts: Sequence[str], codes: Tensor, hidden: Tensor, dropped: Sequence[bool]) -> list[Tensor]:
        inputs = codes.masked_fill(hidden, self.bench.model.config.codebook_size)
        return list(self.bench.layout.t2i_training(prompts, inputs, codes.masked_fill(~hidden, IGNORE), dropped))

    def _log_probs(self, model: ShowO, ids: Tensor, labels: Tensor) -> Tensor:
        """-> (2 B,)"""
        logits = model(ids, additive_mask(omni_mask(ids, model.config), model.dtype)).float()
        start = model.config.text_length
        logits, wanted = logits[:, start:], labels[:, start:]
        found = logits.log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        return (found * (wanted != IGNORE)).sum(1)

    def _generate(self, prompts: Sequence[str]) -> Tensor:
        """18 steps of the whole sequence without classifier-free guidance -> codes (B, n)"""
        config, layout = self.bench.model.config, self.bench.layout
        n, first = config.num_vq_tokens, config.text_length + 1
        codes = torch.full((len(prompts), n), config.codebook_size)
        ids = layout.t2i(prompts, codes)
        mask = additive_mask(omni_mask(ids, config), torch.float32)
        for step in range(STEPS):
            ids[:, first : first + n] = codes + config.code_offset
            logits = self.policy(ids, mask).float()[:, first : first + n, config.code_offset : config.mask_token_id]
            probs = logits.softmax(-1)
            drawn = probs.flatten(0, 1).multinomial(1).view(codes.shape)
            unknown = codes == config.codebook_size
            drawn = torch.where(unknown, drawn, codes)
            confidence = probs.gather(-1, drawn[..., None])[..., 0].masked_fill(~unknown, math.inf)
            count = max(1, min(int(unknown[0].sum()) - 1, masked_after("cosine", step, STEPS, n)))
            codes = drawn.masked_fill(confidence < confidence.sort(dim=1).values[:, count, None], config.codebook_size)
        return drawn

    def _ask(self, prompt: str, pixels: np.ndarray) -> float:
        """A sampled answer -> P(its first word)."""
        tile = pad_tile(pixels, self.judge.config.vision_config.image_size)
        first, *rest = Questions().pieces("outcome", prompt)
        texts = [torch.tensor(self.words.encode(text)) for text in (first, "".join(rest))]
        before, behind = (embed_tokens(self.judge, ids) for ids in texts)
        sequence = torch.cat([before, image_features(self.judge, tile[None])[0], behind])[None]
        how = {"do_sample": True, "temperature": 1.0, "max_new_tokens": self.answer_tokens, "pad_token_id": 0}
        how |= {"output_scores": True, "return_dict_in_generate": True}
        mask = torch.ones(sequence.shape[:2], dtype=torch.int64)
        output = self.judge.generate(inputs_embeds=sequence, attention_mask=mask, **how)
        return float(output.scores[0][0].float().softmax(-1)[self.words.word_id("yes")])


class Ours:
    """train_dpo's learner with its loading; `reference` says how long what it stores took."""

    def __init__(self, bench: Bench, pairs: PairShards, settings: PreferenceSettings, steps: int) -> None:
        self.settings, self.pairs, self.model = settings, pairs, copy.deepcopy(bench.model)
        how = settings.variant, settings.draws, settings.guidance_scale, settings.drop_captions
        self.estimator = Estimator(bench.layout, 0, *how)
        self.loop = LoopSettings(
            num_steps=steps, lr=LR, warmup_steps=0, betas=(0.9, 0.999), rows_per_forward=bench.batch, loaders=0
        )
        self.objective = Preference(self.model, pairs, self.estimator, settings, {}, batch_size=bench.batch)
        self.initial, self.batch = bench.model, bench.batch
        prepare_model(self.model, self.loop)
        self.learner = Replicated(self.objective, self.loop, bench.folder, World())
        where = {"first": 1, "device": torch.device("cpu"), "equal_passes": False, "seed": 0}
        self.steps = Loading(self.objective, self.loop, World(), **where).steps(lambda number: LR)

    def keys(self, number: int) -> list[Key]:
        """(epoch, row) of the pairs of a step."""
        return keys_of(self.objective._order, number, self.batch, self.settings.mask_epochs)

    def store(self, number: int) -> None:
        """What the reference says of the pairs of a step."""
        keys = self.keys(number)
        found = estimated(self.estimator, self.initial, self.pairs, keys, self.batch).sum(3)
        self.objective.reference = dict(zip(keys, found, strict=True))

    def step(self) -> float:
        """Load, add up, update -> the loss."""
        step = next(self.steps)
        self.learner.add_up(step)
        return self.learner.step(step).sums["loss"] / step.weight


SAME = "the published loss"
OURS = {
    SAME: PreferenceSettings(variant="released", draws=1, guidance_scale=0),
    "shared masks": PreferenceSettings(draws=1, guidance_scale=0),
    "default (4 draws, guidance 1.75)": PreferenceSettings(),
}


def rounds(bench: Bench, num_pairs: int, number: int, published: Published) -> Iterator[dict[str, float]]:
    """Seconds of one step of each, round by round; the first warms up, and has the relative difference of the loss that
    both have as "check".
    """
    pairs = bench.write(num_pairs)
    ways = {name: Ours(bench, pairs, OURS[name], number) for name in bench.ways}
    same = ways[SAME]
    for step in range(1, number + 1):
        keys = same.keys(step)
        chosen = [pairs.read(row) for _, row in keys]
        draws = [same.estimator.draws_of(pair, row, epoch)[0] for pair, (epoch, row) in zip(chosen, keys)]
        prompts, rows = [pair.prompt for pair in chosen], [row for _, row in keys]
        found: dict[str, float] = {}
        losses = {"published": timed(found, "published", published.step, prompts, rows, draws)}
        for name, ours in ways.items():
            timed(found, f"{name} + reference", ours.store, step)
            losses[name] = timed(found, name, ours.step)
            found[f"{name} + reference"] += found[name]
        if step == 1 and not published.answer_tokens:  # weights are equal
            found["check"] = abs(losses["published"] / losses[SAME] - 1)
        yield found


def timed(found: dict[str, float], name: str, work: Callable[..., float | None], *arguments: Any) -> float:
    """What `work` returns; the seconds of CPU go into `found`."""
    began = time.process_time()
    result = work(*arguments)
    found[name] = time.process_time() - began
    return result or 0.0


def peaks(bench: Bench, num_pairs: int, published: Published) -> dict[str, int]:
    """MiB that a step needs beside what was held before, moments of the optimiser being there already."""
    pairs, found = bench.write(num_pairs), {}
    same = Ours(bench, pairs, OURS[SAME], 1)
    draws = [same.estimator.draws_of(pairs.read(row), row, 0)[0] for row in range(bench.batch)]
    prompts = [pairs.read(row).prompt for row in range(bench.batch)]
    works: dict[str, Callable[[], float]] = {"published": lambda: published.step(prompts, range(bench.batch), draws)}
    for name in bench.ways:
        ours = Ours(bench, pairs, OURS[name], 3)
        ours.store(1)
        ours.step()
        ours.store(2)
        works[name] = ours.step
    for name, work in works.items():
        with Tracker() as tracker:
            work()
        found[name] = tracker.peak >> 20
    return found


def compare(bits: int, options: argparse.Namespace, answer_tokens: int) -> None:
    """Print a table: pairs a CPU second, ratios, memory."""
    codes, text = 2**bits, 50295 >> (13 - bits)
    config = ShowOConfig(codebook_size=codes, llm_vocab_size=text, phi=REDUCED)
    model = build_showo(config, seed=1, text_tokenizer=Words()).eval()
    tokenizer = build_magvit2(MagvitConfig(num_bits=bits, width=8, num_groups=4), seed=2).eval()
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(model, tokenizer, Path(place), options.batch, [SAME, *options.ways])
        published = Published(bench, answer_tokens=answer_tokens)
        first, *found = rounds(bench, options.pairs, options.rounds + 1, published)
        memory = peaks(bench, options.pairs, published)
    with_guidance = f"guidance on, answers of {answer_tokens} tokens" if answer_tokens else "no guidance"
    print(f"\n{config.vocab_size} ids, {options.batch} pairs a step, {len(found)} rounds; published: {with_guidance}")
    images = published.image_seconds / (len(found) + 2) / (sum(row["published"] for row in found) / len(found))
    print(f"share of a published step that is reading and encoding images: {images:.0%}")
    if "check" in first:
        print(f"relative difference of the loss that both have, in the first step: {first['check']:.1e}")
    print()
    print("| step | pairs/s | published / it | memory of a step, MiB |\n|---|---|---|---|")
    seconds = {name: [row[name] for row in found] for name in found[0]}
    for name, each in seconds.items():
        ratio = pace_of(each, seconds["published"])
        shown = "1" if name == "published" else f"{ratio.estimate:.2f} ({ratio.low:.2f} .. {ratio.high:.2f})"
        print(
            f"| {name} | {options.batch * len(each) / sum(each):.2f} | {shown} | {memory.get(name, '')} |", flush=True
        )


def main() -> None:
    """Parse the command line; print the machine and a table a vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, nargs="*", default=[8, 13], help="log2 of the codebook size, see above")
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step; 10 were published, which need 12 GB")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=6)
    others = [name for name in OURS if name != SAME]
    parser.add_argument("--ways", nargs="*", choices=others, default=others, help="of ours, beside the published loss")
    parser.add_argument("--guided", action="store_true", help="the published step with its guidance by a judge")
    parser.add_argument("--answer", type=int, default=2, help="tokens of a sampled answer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    for bits in options.bits:
        compare(bits, options, options.answer if options.guided else 0)


if __name__ == "__main__":
    main()
