"""Decoding with Show-o: the published loop against ours, on the same weights and the same draws, in one run.

    python benchmarks/showo_decode.py                 both geometries, one CPU thread; the full model where a GPU is
    python benchmarks/showo_decode.py --geometry 256 --candidates 4

The published loop: candidates one after the other, two rows (with and without text) of the whole padded sequence, the
whole head in float32 at every position, pixels decoded after every step. Ours: all candidates in one batch behind a
text prefix that was run once, the head on masked positions and image codes alone, pixels decoded once.
Each variant runs in a process of its own, so that peak memory is its own.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.models.magvit2.config import MagvitConfig
from genloop.models.magvit2.load import build_magvit2
from genloop.models.magvit2.model import MagvitV2
from genloop.models.showo.config import PhiDims, ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.models.showo.model import ShowO, additive_mask
from genloop.models.showo.prompting import Layout, omni_mask
from genloop.records import Prompt, Seed
from genloop.registry import require
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.schedule import choice_temperature, masked_after
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.sampling.noise import KeyedNoise, gumbel

PROMPT = Prompt(0, "a photo of two clocks")
SETTINGS = SamplingConfig(steps=18, guidance_scale=1.75, temperature_mode="maskgit")
REDUCED = PhiDims(
    hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3, num_key_value_heads=3
)
SMALL = PhiDims(
    hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4
)
NUM_TOKENS = {"128": 64, "256": 256, "512": 1024}
WIDTHS = {"128": SMALL, "256": REDUCED, "512": REDUCED}


@dataclass(frozen=True)
class Letters:
    """A text tokenizer without files: one token a letter."""

    bos_id: int = 0
    eos_id: int = 0
    num_tokens: int = 128

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def models(geometry: str, bits: int) -> tuple[ShowO, MagvitV2]:
    """Reduced width, published geometry, 2^bits codes and text in proportion; the same weights in every process."""
    config = ShowOConfig(
        codebook_size=2**bits,
        num_vq_tokens=NUM_TOKENS[geometry],
        llm_vocab_size=50295 >> (13 - bits),
        phi=WIDTHS[geometry],
    )
    tokenizer = MagvitConfig(num_bits=bits, width=8, num_groups=4, resolution=int(geometry))
    return build_showo(config, seed=1, text_tokenizer=Letters()).eval(), build_magvit2(tokenizer, seed=2).eval()


def published(model: ShowO, tokenizer: MagvitV2, seeds: Sequence[Seed]) -> Tensor:
    """The loop of the released code, told in our words -> tokens (N, n); it makes an image after every step."""
    rows = []
    for seed in seeds:
        for drawn in published_steps(model, seed):
            tokenizer.decode(drawn)
        rows.append(drawn)
    return torch.cat(rows)


def published_steps(model: ShowO, seed: Seed, prompt: Prompt = PROMPT) -> Iterator[Tensor]:
    """One candidate of the released code: every token as drawn at each step, (1, n); those of the last are the image.

    Phi's activation was not fused there.
    """
    for layer in model.showo.model.layers:
        layer.mlp.activation_fn = require("transformers.activations").ACT2FN["gelu_new"]
    config, noise, g = model.config, KeyedNoise(), SETTINGS.guidance_scale
    layout, n = Layout(config, model.text_tokenizer), config.num_vq_tokens
    first, last = config.text_length + 1, config.text_length + 1 + n
    codes = torch.full((1, n), config.codebook_size)
    everywhere = torch.zeros(n, dtype=torch.int64), torch.arange(n)
    ids = layout.t2i([prompt.text, ""], codes.repeat(2, 1))  # (2, L), pads and all
    mask = additive_mask(omni_mask(ids, config), model.dtype)
    for step in range(SETTINGS.steps):
        ids[:, first:last] = codes + config.code_offset
        with torch.inference_mode():
            logits = model(ids, mask).float()  # (2, L, V)
        guided = (1 + g) * logits[:1] - g * logits[1:]
        probs = guided[0, first:last, config.code_offset : config.mask_token_id].softmax(-1)  # (n, K)
        unknown = codes == config.codebook_size
        drawn = torch.where(unknown, noise.tokens([seed], n, [step], [0])(probs, everywhere)[None], codes)
        yield drawn
        chosen = probs.gather(1, drawn[0, :, None])[None, :, 0]
        confidence = torch.where(unknown, chosen, torch.finfo(torch.float32).max).clamp(min=1e-20).log()
        temperature = choice_temperature(SETTINGS.temperature_mode, SETTINGS.temperature, step, SETTINGS.steps)
        keys = confidence + temperature * gumbel(noise.uniforms([seed], n, [step], [0]))
        count = max(1, min(int(unknown.sum()) - 1, masked_after(SETTINGS.schedule, step, SETTINGS.steps, n)))
        codes = drawn.masked_fill(keys < keys.sort(dim=1).values[:, count, None], config.codebook_size)


def ours(model: ShowO, tokenizer: MagvitV2, seeds: Sequence[Seed], settings: SamplingConfig = SETTINGS) -> Tensor:
    """The suite's sampler -> tokens (N, n)."""
    sampler = MaskGitSampler(model, tokenizer, settings)
    state = sampler.start([replace(PROMPT, index=seed.prompt) for seed in seeds], seeds)
    for _ in range(sampler.num_steps):
        state = sampler.step(state)
    sampler.decode(state.tokens)
    return state.tokens


VARIANTS = {"published": published, "ours": ours}


def measure(variant: str, geometry: str, bits: int, candidates: int) -> dict[str, Any]:
    """One variant in this process: seconds, peak memory, tokens."""
    torch.set_num_threads(1)
    model, tokenizer = models(geometry, bits)
    seeds = [Seed(0, 0, 0, candidate) for candidate in range(candidates)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    tokens = VARIANTS[variant](model, tokenizer, seeds)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "peak_mib": peak // 1024, "loaded_mib": before // 1024, "tokens": tokens.tolist()}


def in_process(variant: str, geometry: str, bits: int, candidates: int) -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", variant, "--geometry", geometry]
    command += ["--bits", str(bits), "--candidates", str(candidates)]
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(geometry: str, bits: int, candidates: int, published_candidates: int) -> None:
    """Print one comparison: the published loop is sequential, so a few candidates give its time for all."""
    few = min(candidates, published_candidates)
    slow, fast = in_process("published", geometry, bits, few), in_process("ours", geometry, bits, candidates)
    expected, found = torch.tensor(slow["tokens"]), torch.tensor(fast["tokens"])[:few]
    equal = "yes" if torch.equal(expected, found) else f"no ({(expected != found).sum()} of {expected.numel()} differ)"
    total = slow["seconds"] * candidates / few
    measured = "" if few == candidates else f" ({slow['seconds']:.1f} s for {few}, times {candidates / few:g})"
    head = "published vocabulary" if bits == 13 else f"{2**bits} codes: the head costs its share of the full model"
    print(f"\n{geometry} px: {NUM_TOKENS[geometry]} tokens, N = {candidates}, {SETTINGS.steps} steps, {head}")
    print(f"  tokens equal  {equal} ({expected.numel()} compared)")
    print(f"  published     {total:7.1f} s   peak {slow['peak_mib']} MiB{measured}")
    print(f"  ours          {fast['seconds']:7.1f} s   peak {fast['peak_mib']} MiB")
    ratio = total / fast["seconds"]
    print(f"  ratio         {ratio:7.2f} x  (weights and program: {fast['loaded_mib']} MiB)", flush=True)


def step_flops(config: ShowOConfig) -> tuple[float, float]:
    """Floating-point operations of one step of one image: the published loop, ours (mean over the cosine schedule)."""
    phi, n = config.phi, config.num_vq_tokens
    width, length = phi.hidden_size, config.sequence_length
    layers = 2 * phi.num_hidden_layers * (4 * width**2 + 2 * width * phi.intermediate_size)

    def attention(keys: int) -> int:
        return 4 * phi.num_hidden_layers * keys * width

    whole = 2 * length * (layers + attention(length) + 2 * width * config.vocab_size)
    text = len(Layout(config, Letters()).t2i_text(PROMPT.text))
    rows = (n + 2) * (2 * layers + attention(text + n + 2) + attention(3 + n + 2))
    masked = [masked_after(SETTINGS.schedule, step, SETTINGS.steps, n) for step in range(-1, SETTINGS.steps - 1)]
    head = sum(masked) / len(masked) * 2 * width * config.codebook_size
    return float(whole), rows + head


def matmul_peak(dtype: torch.dtype, device: str, size: int) -> float:
    """The best measured rate of a square matrix product, in operations a second."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = _now(device)
        torch.mm(a, b)
        best = min(best, _now(device) - began)
    return 2 * size**3 / best


def full_model(device: str, images: int, config: ShowOConfig, tokenizer: MagvitConfig, matmul_size: int) -> None:
    """Print images a second, eight candidates a prompt, and the share of the measured matrix peak."""
    for dtype in (torch.bfloat16, torch.float32):
        peak = matmul_peak(dtype, device, matmul_size)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        model = build_showo(config, seed=1, dtype=dtype, device=device, text_tokenizer=Letters()).eval()
        pixels = build_magvit2(tokenizer, seed=2, device=device).eval()
        seeds = [Seed(0, index // 8, 0, index % 8) for index in range(images)]
        ours(model, pixels, seeds, replace_steps(2))
        began = _now(device)
        ours(model, pixels, seeds)
        seconds = _now(device) - began
        rate = images / seconds
        share = rate * SETTINGS.steps * step_flops(config)[1] / peak
        memory = torch.cuda.max_memory_allocated() >> 20 if device == "cuda" else 0
        print(
            f"  {str(dtype).removeprefix('torch.'):9} {images} images  {seconds:6.2f} s  {rate:6.2f} images/s  "
            f"{share:.1%} of {peak / 1e12:.1f} TFLOP/s (decoding not counted)  peak {memory} MiB",
            flush=True,
        )
        del model, pixels


def replace_steps(steps: int) -> SamplingConfig:
    """The settings with another number of steps."""
    return SETTINGS.model_copy(update={"steps": steps})


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def describe_machine() -> str:
    """Processor, threads, versions."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = names[0] if names else platform.processor()
    return (
        f"{cpu}, {os.cpu_count()} CPUs ({torch.backends.cpu.get_cpu_capability()}), {gpu}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {require('transformers').__version__}"
    )


def main() -> None:
    """Parse the command line; print the comparison, and the full model where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", choices=list(NUM_TOKENS))
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--published-candidates", type=int, default=2, help="of these, run through the published loop")
    parser.add_argument(
        "--bits", type=int, help="log2 of the codebook size; 7 gives the head its share of the full model"
    )
    parser.add_argument("--images", type=int, default=64, help="images side by side on the GPU")
    parser.add_argument("--measure", choices=list(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.geometry, options.bits, options.candidates)))
        return
    print(describe_machine())
    print(f"reduced model: width {REDUCED.hidden_size}, {REDUCED.num_hidden_layers} layers; float32, one thread")
    for geometry, bits in (("256", 13), ("512", 13), ("256", 7)):
        if options.geometry in {None, geometry} and options.bits in {None, bits}:
            compare(geometry, bits, options.candidates, options.published_candidates)
    print("\nfull width, operations of one step (without pixels): published / ours")
    for geometry, tokens in NUM_TOKENS.items():
        whole, part = step_flops(ShowOConfig(num_vq_tokens=tokens))
        print(f"  {geometry} px  {whole / 1e12:.3f} / {part / 1e12:.3f} TFLOP = {whole / part:.2f} x")
    if torch.cuda.is_available():
        print(f"\nfull model, 256 px, {SETTINGS.steps} steps, {torch.cuda.get_device_name()}")
        full_model("cuda", options.images, ShowOConfig(), MagvitConfig(), 8192)


if __name__ == "__main__":
    main()
