"""Jobs on a GPU that is emulated (tests/worlds/emulated_gpu.py): no tensor is left on the other device.

Numbers are a CPU's, so results are those of the CPU, to the bit where the same kernels run. Gradients are not computed:
without CUDA torch's engine has no threads for the device.
"""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from geneval.detectors.mask2former_detector import Mask2FormerDetector
from genloop.distributed import World, choose_device
from genloop.job import run_command
from genloop.models.mask2former.config import Preparation
from genloop.models.mask2former.load import load_mask2former
from genloop.models.showo.load import build_showo
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from jobs import answer, generate, train_grpo, train_judge, train_showo, train_tokenizer
from tests.runs import ROOT, contents
from tests.worlds.emulated_gpu import EmulatedGpu, GpuTensor
from tests.worlds.tiny_mask2former import SCALE, mask2former_folder
from tests.worlds.tiny_showo import PROMPTS, LetterTokenizer, pixels_of, seeds_of, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatedGpu]:
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)
    with EmulatedGpu() as emulated:
        yield emulated


def test_a_tensor_on_the_other_device_is_an_error_and_a_copy_is_counted(gpu: EmulatedGpu) -> None:
    device = choose_device("auto", World(local_rank=3))
    here, there = torch.arange(3.0), torch.arange(3.0, device=device)
    assert isinstance(there, GpuTensor) and there.device == torch.device("cuda:0") and there.dtype == torch.float32
    for mix in (lambda: here + there, lambda: torch.cat([here, there]), lambda: there.gather(0, here.long())):
        with pytest.raises(RuntimeError, match="on the CPU"):
            mix()
    there[0] = 5
    assert (there + torch.tensor(1.0)).tolist() == [6, 2, 3]  # a single number may come from the CPU
    assert gpu.waits.total() == 1
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert (there[:, None] @ there[None]).dtype == torch.bfloat16


SEARCHES = [["tiny", "limit=2"], ["shapes_search", "search.strategy=parm", "search.n=4", "limit=2"]]


@pytest.mark.parametrize("words", SEARCHES)
def test_generate_has_the_images_of_the_cpu(tmp_path, monkeypatch, words) -> None:
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)
    words = [*words, "sampling.padded=true"]
    with EmulatedGpu():
        assert run_command(generate, [*words, f"out={tmp_path / 'gpu'}", "device=cuda"]) == 0
    with sdpa_kernel(SDPBackend.MATH):
        assert run_command(generate, [*words, f"out={tmp_path / 'cpu'}", "device=cpu"]) == 0
    found = [contents(tmp_path / name, ["images"]) for name in ("gpu", "cpu")]
    assert found[0] == found[1] != {}


def test_a_step_waits_for_no_value(gpu: EmulatedGpu) -> None:
    model = build_showo(tiny_config(), seed=5, device="cuda:0", text_tokenizer=LetterTokenizer()).eval()
    sampler = MaskGitSampler(model, pixels_of(model), SamplingConfig(steps=4), slots=len(PROMPTS))
    state = sampler.start(PROMPTS, seeds_of(PROMPTS))
    begun = gpu.waits.copy()
    for _ in range(sampler.num_steps):
        state = sampler.step(state)
    assert gpu.waits == begun
    assert state.tokens.device.type == sampler.preview(state).device.type == "cuda"


def give_ones(loss: torch.Tensor) -> None:
    """In place of gradients, so that they are clipped and a step is taken."""
    seen, nodes = set(), [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [other for other, _ in node.next_functions]
            if hasattr(node, "variable"):
                node.variable.grad = torch.ones_like(node.variable)


@pytest.mark.parametrize("job", [train_showo, train_judge, train_tokenizer, train_grpo])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trainings_run_but_for_their_gradients(tmp_path, gpu, monkeypatch, job: ModuleType, precision) -> None:
    monkeypatch.setattr(torch.Tensor, "backward", give_ones)
    words = [f"train.{key}" for key in ("device=cuda", "num_steps=1", "ema=0.999", f"precision={precision}")]
    assert run_command(job, ["tiny", *words, f"out={tmp_path / 'run'}"]) == 0


def test_answers_are_those_of_the_cpu(tmp_path, gpu) -> None:
    for device in ("cuda", "cpu"):
        assert run_command(answer, ["tiny", f"out={tmp_path / device}", f"device={device}"]) == 0
    assert contents(tmp_path / "cuda", ["rows"]) == contents(tmp_path / "cpu", ["rows"])


def test_the_detector_finds_what_it_finds_on_the_cpu(tmp_path, gpu) -> None:
    images = [np.random.default_rng(3).integers(0, 256, (61, 40 + 9 * wide, 3)).astype(np.uint8) for wide in range(3)]
    folder = mask2former_folder(tmp_path / "network")
    found = [
        Mask2FormerDetector(load_mask2former(folder, device=device), Preparation("mmdet3", SCALE)).detect(images)
        for device in ("cuda:0", "cpu")
    ]
    for one, other in zip(*found, strict=True):
        assert [(item.class_name, item.box) for item in one] == [(item.class_name, item.box) for item in other]
