"""What generates, judges, detects and embeds gives on a GPU what it gives on a CPU, in memory that does not grow."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ckpts.convert.mask2former import convert
from ckpts.resolve import resolve
from geneval.detectors.mask2former_detector import Mask2FormerDetector
from genloop.job import run_command
from genloop.ledger import read_rows
from genloop.models.clip.towers import load_clip_transformers
from genloop.models.common.memory import Budget
from genloop.models.mask2former.instances import instances
from genloop.models.mask2former.load import load_mask2former, raw_logits
from genloop.models.mask2former.pixels import prepare, sizes_of
from genloop.records import unpack_tokens
from genloop.rewards.build import build_judge
from genloop.rewards.settings import JudgeSettings
from genloop.shapes.prompts import prompt_set
from jobs import generate
from tests.goldens.test_detector import DETECTED, assert_detected, read, weight_files
from tests.worlds.memory_counter import MemoryCounter
from tests.worlds.tiny_clip import write_transformers_folder

FLIPPED = 0.1  # a draw on the other side of a number changes all tokens that are drawn after it
QUESTION = "outcome"


def tokens_of(out: Path, device: str, *words: str) -> np.ndarray:
    words = ("tiny", "limit=4", "sampling.padded=true", f"device={device}", f"out={out}", *words)
    assert run_command(generate, words) == 0
    return np.stack([unpack_tokens(row["tokens"]) for row in read_rows(out)])


@pytest.mark.parametrize("slots", [1, 64])
def test_tokens_are_those_of_the_cpu(device: str, slots: int, out: Path) -> None:
    expected = tokens_of(out / "expected", "cpu")
    found = tokens_of(out / "found", device, f"slots={slots}")
    assert (found != expected).mean() <= (FLIPPED if device == "cuda" else 0)


def test_half_precision_draws_images_too(device: str, out: Path) -> None:
    found = tokens_of(out, device, "generator.options.dtype=bfloat16")
    assert len(np.unique(found, axis=0)) == len(found)


def judged(device: str, images: torch.Tensor) -> list[torch.Tensor]:
    """P(yes) of batches of eight."""
    judge = build_judge(JudgeSettings(kind="llava", options={"checkpoint": "shapes/judge"}), resolve, device=device)
    prompts = list(prompt_set("test", 8, 2))[:8]
    return [judge.p_yes(QUESTION, prompts, batch.to(device)).cpu() for batch in images.split(8)]


def some_images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_p_yes_is_that_of_the_cpu(device: str) -> None:
    images = some_images(16)
    one, other = (torch.cat(judged(place, images)) for place in ("cpu", device))
    assert (one - other).abs().max() <= 1e-4


def test_a_judge_holds_no_more_after_40_batches_than_after_ten(device: str) -> None:
    judge = build_judge(
        JudgeSettings(kind="llava", options={"checkpoint": "shapes/judge", "cache_gb": 0.002}), resolve, device=device
    )
    prompts, held = list(prompt_set("test", 8, 2))[:8], []
    with MemoryCounter() as counter:
        for batch in some_images(320).split(8):
            judge.p_yes(QUESTION, prompts, batch.to(device))
            held.append(torch.cuda.memory_allocated() if device == "cuda" else counter.live)
    assert len(held) == 40 and held[9] > 0
    assert max(held[10:]) <= 1.05 * max(held[:10])


@pytest.mark.parametrize("path", DETECTED[:2], ids=lambda path: path.stem)
def test_the_detector_finds_what_was_recorded(path: Path, device: str, out: Path) -> None:
    image, preparation, recorded = read(path)
    network = load_mask2former(convert(weight_files(path.parent, out)[0], out / "folder").folder, device=device)
    logits = raw_logits(network, prepare(image, preparation, device)[None])
    classes, masks = (part[0].cpu() for part in logits)
    assert_detected(instances(classes, masks, sizes_of(image.shape[:2], preparation.scale)), recorded, image.shape[:2])
    found, expected = (
        Mask2FormerDetector(load_mask2former(out / "folder", device=place), preparation).detect([image])[0]
        for place in (device, "cpu")
    )
    assert [item.class_name for item in found] == [item.class_name for item in expected]


def test_embeddings_are_those_of_the_cpu(device: str, out: Path) -> None:
    folder = write_transformers_folder(out / "clip")
    images = [np.random.default_rng(place).integers(0, 256, (40, 40, 3)).astype(np.uint8) for place in range(4)]
    one, other = (load_clip_transformers(folder, device=place).embed_images(images).cpu() for place in ("cpu", device))
    assert (one - other).abs().max() <= 1e-4


def test_work_that_does_not_fit_goes_on_in_smaller_batches(device: str) -> None:
    everything = torch.cuda.mem_get_info()[0] if device == "cuda" else 1 << 50  # bytes; a CPU's are never touched
    each = everything // 5

    def compute(items: range) -> range:
        torch.empty(each * len(items), dtype=torch.uint8, device=device)
        return items

    budget = Budget(16, "rows")
    if device == "cuda":
        assert budget.run(range(16), 1, compute) == list(range(16)) and budget.limit <= 4
    else:
        with pytest.raises((RuntimeError, MemoryError)) as refused:
            budget.run(range(16), 1, compute)
        assert budget.limit == 1 and "rows: 1 does not fit" in "".join(refused.value.__notes__)
