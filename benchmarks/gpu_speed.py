"""What gpu_check.py measures of whole models at their published sizes, with random weights: rates, shares, memory.

On a CPU the same rows are filled at a small size, so that the script is known to run. A share is that of the rate of a
square matrix product of the same dtype, measured beside it. Images a second are extrapolated from a few steps.
"""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.judge import SIZES, word_tokenizer
from benchmarks.showo_decode import REDUCED, Letters, matmul_peak
from geneval.detectors.mask2former_detector import Mask2FormerDetector
from genloop.checkpoint import load_tensors, save_folder
from genloop.models.llava.config import LlavaConfig
from genloop.models.llava.load import build_llava
from genloop.models.llava.model import embed_tokens, image_features, language_hidden
from genloop.models.magvit2.config import MagvitConfig
from genloop.models.magvit2.load import build_magvit2
from genloop.models.mask2former.config import HeadDims, Mask2FormerConfig, Preparation, SwinDims
from genloop.models.showo.config import ShowOConfig
from genloop.models.showo.load import build_showo
from genloop.records import Prompt, Seed
from genloop.registry import lookup, require
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import Questions
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.search import STRATEGIES
from genloop.training.adapters import add_adapters, is_adapter
from genloop.training.settings import LoraSettings

PROMPTS = [Prompt(index, text) for index, text in enumerate(["a cat", "two red cups", "a blue car", "a dog"])]
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaGraphLaunch")
ATTENTION = ("flash", "fmha", "cudnn", "efficient_attention", "softmax")  # in the names of kernels


class Row(NamedTuple):
    """A line of the table; `holds` is None where nothing is promised."""

    check: str
    found: str
    wanted: str = "-"
    holds: bool | None = None


@dataclass(frozen=True)
class Sizes:
    """Of everything that is measured on a device."""

    matrix: int
    showo: dict[int, tuple[ShowOConfig, MagvitConfig, int]]  # pixels -> sizes and steps
    slots: tuple[int, ...]
    judge: LlavaConfig
    judged: int  # images a batch
    candidates: int
    detector: Mask2FormerConfig
    scale: tuple[int, int]


def sizes_on(device: str) -> Sizes:
    """The published ones on a GPU, small ones on a CPU."""
    names = tuple(f"class {index}" for index in range(80))
    if device == "cuda":
        showo = {
            256: (ShowOConfig(), MagvitConfig(), 18),
            512: (ShowOConfig(num_vq_tokens=1024), MagvitConfig(resolution=512), 50),
        }
        detector = Mask2FormerConfig(SwinDims(), HeadDims(), names)
        return Sizes(8192, showo, (1, 16, 64, 128), LlavaConfig(), 16, 20, detector, (1333, 800))
    small = ShowOConfig(256, 16, 1000, phi=REDUCED), MagvitConfig(num_bits=8, width=8, num_groups=4, resolution=64), 4
    head = HeadDims(
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_layers=1, encoder_feedforward_dim=24,
        decoder_layers=3, dim_feedforward=40, num_attention_heads=4, num_queries=9,
    )  # fmt: skip
    detector = Mask2FormerConfig(SwinDims(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 2, 2, 4)), head, names)
    return Sizes(256, {64: small}, (1, 4), SIZES["tiny"], 4, 4, detector, (160, 96))


def machine(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """Versions, the state of TensorFloat-32, and that nothing needs CUDA's toolkit."""
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if device == "cuda" else "none"
    yield Row("torch, CUDA, NCCL", f"{torch.__version__}, {torch.version.cuda}, {nccl}")
    kept = torch.backends.cuda.matmul.fp32_precision
    yield Row("matrix products of float32 are made in", kept, "not tf32", kept != "tf32")
    compiler = shutil.which("nvcc")
    require("deepspeed", "train")
    yield Row("deepspeed imports; CUDA's toolkit is not needed", f"nvcc: {compiler or 'not here'}", "imports", True)
    if device == "cuda":
        command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        yield Row("GPUs", subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def generation(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """Show-o at each size of image, in both dtypes, at several numbers of paths; MAGVIT-v2's decoding."""
    sizes = sizes_on(device)
    for dtype, slots, most_pixels in ((torch.bfloat16, sizes.slots, 512), (torch.float32, sizes.slots[1:2], 256)):
        most = matmul_peak(dtype, device, sizes.matrix)
        for pixels, (config, magvit, steps) in sizes.showo.items():
            if pixels > most_pixels:
                continue
            model = build_showo(config, seed=1, dtype=dtype, device=device, text_tokenizer=Letters()).eval()
            decoder = build_magvit2(magvit, seed=2, device=device).eval()
            for paths in slots:
                sampler = MaskGitSampler(model, decoder, SamplingConfig(steps=steps), slots=paths)
                yield _rate(device, f"Show-o {pixels} px, {_name(dtype)}, {paths} paths", sampler, steps, most)
            tokens = torch.randint(0, config.codebook_size, (sizes.judged, config.num_vq_tokens), device=device)
            seconds = timed(device, lambda sampler=sampler, tokens=tokens: sampler.decode(tokens))
            yield Row(f"MAGVIT-v2 {pixels} px: images a second", f"{len(tokens) / seconds:.1f}")
            del model, decoder, sampler


def _rate(device: str, name: str, sampler: MaskGitSampler, steps: int, most: float) -> Row:
    """A step in the middle of decoding."""
    prompts = [PROMPTS[path % len(PROMPTS)] for path in range(sampler.slots)]
    state = sampler.start(prompts, [Seed(0, prompt.index, 0, path) for path, prompt in enumerate(prompts)])
    state = sampler.step(state)
    clear_peak(device)
    seconds = timed(device, lambda: sampler.step(state))
    memory = peak(device)
    images = sampler.slots / (steps * seconds + timed(device, lambda: sampler.decode(state.guess)))
    rate = sampler.slots * sampler.flops_per_step / seconds
    found = f"{images:.2f} images/s, {rate / 1e12:.2f} TFLOP/s ({rate / most:.0%} of {most / 1e12:.1f}), {memory}"
    return Row(name, found + kernels(device, lambda: sampler.step(state)))


def judging(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """The 7B judge with random weights: rate, and memory after 1, 10 and 40 batches."""
    sizes = sizes_on(device)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = build_llava(sizes.judge, seed=1, dtype=dtype, device=device, drawn_on=device).eval()
    text = sizes.judge.text
    image = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * sizes.judge.num_image_positions
    room = 3 * sizes.judged * image * dtype.itemsize  # of the cache: three batches of images
    tokenizer = word_tokenizer(Path(mkdtemp(dir=folder)))
    judge = LlavaJudge(model, tokenizer, Questions(), cache_bytes=room)
    generator, held = torch.Generator().manual_seed(0), {}

    def ask() -> Tensor:
        images = torch.rand(sizes.judged, 3, 256, 256, generator=generator).to(device)
        return judge.p_yes("outcome", [PROMPTS[0]] * sizes.judged, images)

    for batch in range(1, 41):
        assert ask().isfinite().all()
        if batch in (1, 10, 40):
            held[batch] = torch.cuda.memory_allocated() if device == "cuda" else judge.segments.size
    seconds = timed(device, ask)
    rate, most = sizes.judged * judge.flops(["outcome"], PROMPTS[0]) / seconds, matmul_peak(dtype, device, sizes.matrix)
    found = f"{sizes.judged / seconds:.2f} images/s, {rate / most:.0%} of {most / 1e12:.1f} TFLOP/s"
    yield Row(f"judge, {_name(dtype)}, batches of {sizes.judged}", found + kernels(device, ask))
    grown = held[40] / held[10]
    told = ", ".join(f"{count / 2**30:.2f} GiB after {batch}" for batch, count in held.items())
    yield Row("memory held by the judge, batches", told, "no more after 40 than after 10", grown <= 1.05)
    yield from _adapters(device, model, sizes)
    yield from _search(device, judge, sizes)


def _search(device: str, judge: LlavaJudge, sizes: Sizes) -> Iterator[Row]:
    """PARM by rank over 20 candidates: who takes how much of the time."""
    config, magvit, steps = next(iter(sizes.showo.values()))
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = build_showo(config, seed=1, dtype=dtype, device=device, text_tokenizer=Letters()).eval()
    sampler = MaskGitSampler(model, build_magvit2(magvit, seed=2, device=device).eval(), SamplingConfig(steps=steps))
    parm = lookup(STRATEGIES, "parm", "strategy")
    spent: dict[str, float] = {}
    with ExitStack() as stack:
        for owner, method, name in ((sampler, "step", "generator"), (judge, "p_yes", "judge"), (sampler, "decode", "")):
            work = _clocked(device, getattr(owner, method), spent, name or "decoding")
            stack.enter_context(patch.object(owner, method, work))
        began = now(device)
        search = parm(sampler, judge, sizes.candidates, parm.Options())
        count = len(list(search.search([(prompt, 0) for prompt in PROMPTS[:2]], 0)))
        whole = now(device) - began
    spent["host"] = whole - sum(spent.values())
    shares = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in spent.items())
    yield Row(f"PARM, N = {sizes.candidates}: {whole / count:.2f} s an image", shares)


def _clocked(device: str, work: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """The same work, its seconds added up."""

    def clocked(*given: Any, **options: Any) -> Any:
        began = now(device)
        found = work(*given, **options)
        spent[name] = spent.get(name, 0.0) + now(device) - began
        return found

    return clocked


def _adapters(device: str, model: Any, sizes: Sizes) -> Iterator[Row]:
    """One step of adapters on the judge: forward, backward, AdamW; then they are taken off again."""
    adapted = add_adapters(model, LoraSettings(rank=8, targets=("q_proj", "v_proj")), seed=1)
    learned = [parameter for name, parameter in model.named_parameters() if is_adapter(name)]
    optimizer = torch.optim.AdamW(learned, lr=1e-4)
    size = sizes.judge.vision.image_size
    tile = torch.zeros(1, 3, size, size, device=device, dtype=next(model.parameters()).dtype)
    words = torch.arange(32, device=device)[None]

    def step() -> None:
        row = torch.cat([image_features(model, tile), embed_tokens(model, words)], dim=1)
        with torch.autocast(device, dtype=torch.bfloat16):
            language_hidden(model, row).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    clear_peak(device)
    seconds = timed(device, step)
    yield Row(f"a step of adapters, {sum(map(torch.numel, learned))} weights", f"{seconds:.3f} s, {peak(device)}")
    adapted.unload()
    model.requires_grad_(False)


def seeing(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """The detector at its published size."""
    sizes, transformers = sizes_on(device), require("transformers")
    torch.manual_seed(0)
    network = transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig.from_dict(sizes.detector.to_json())
    )
    network = network.eval().requires_grad_(False).to(device)
    images = [np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)] * 8
    detector = Mask2FormerDetector(network, Preparation("mmdet3", sizes.scale))
    clear_peak(device)
    seconds = timed(device, lambda: detector.detect(images))
    yield Row("Mask2Former, float32", f"{len(images) / seconds:.2f} images/s, {peak(device)}")


def checkpoints(device: str, folder: Path, *, compiled: bool) -> Iterator[Row]:
    """Writing and reading of weights."""
    count, width = (16, 8192) if device == "cuda" else (2, 256)
    tensors = {f"weight{number}": torch.ones(width, width, device=device) for number in range(count)}
    size = sum(tensor.nbytes for tensor in tensors.values()) / 1e9
    began = now(device)
    save_folder(folder / "weights", tensors, {"config.json": {}})
    written = now(device)
    load_tensors(folder / "weights", device=device)
    yield Row(
        f"a checkpoint of {size:.3f} GB", f"written {size / (written - began):.2f} GB/s, read "
        f"{size / (now(device) - written):.2f} GB/s"
    )  # fmt: skip


def kernels(device: str, work: Callable[[], Any]) -> str:
    """Launches and waits of the host, and which kernels attention takes; nothing on a CPU."""
    if device == "cpu":
        return ""
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as profile:
        work()
        torch.cuda.synchronize()
    events = profile.key_averages()
    counts = [sum(event.count for event in events if event.key in names) for names in (LAUNCHES, WAITS)]
    seen = {event.key[:60] for event in events if any(name in event.key.lower() for name in ATTENTION)}
    return f"; {counts[0]} launches, {counts[1]} waits; attention: {'; '.join(sorted(seen)[:2]) or 'plain'}"


def timed(device: str, work: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds, the median of a few after one that is not counted."""
    work()
    found = []
    for _ in range(repeats):
        began = now(device)
        work()
        found.append(now(device) - began)
    return float(np.median(found))


def now(device: str) -> float:
    """Seconds, when the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def clear_peak(device: str) -> None:
    """Begin to measure memory."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak(device: str) -> str:
    """The most memory since `clear_peak`; a CPU keeps no such number."""
    return f"peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if device == "cuda" else "peak not known"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


SPEED: dict[str, Callable[..., Iterator[Row]]] = {
    "machine": machine,
    "generation": generation,
    "judging": judging,
    "seeing": seeing,
    "checkpoints": checkpoints,
}
