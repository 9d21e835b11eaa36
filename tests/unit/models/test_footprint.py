"""Bytes of live tensors, measured and rehearsed."""

import pytest
import torch
from torch import nn

from genloop.models.common.footprint import Tracker, autocast_on_meta, kind_of, rehearsal

KIB = 256  # floats


def test_a_storage_counts_once_and_until_its_last_view_is_gone():
    with Tracker() as tracker:
        whole = torch.zeros(KIB)
        part = whole[: KIB // 2] + 0
        view = whole[1:]
        assert tracker.live == 1024 + 512
        del whole
        assert tracker.live == 1024 + 512
        del view
        assert tracker.live == 512
    assert tracker.peak >= 1024 + 512 and part.numel()


def step(device: str, *, checkpoint: bool = False) -> None:
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 8)).to(device)
    x = torch.ones(32, 64, device=device)
    hidden = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False) if checkpoint else model(x)
    nn.functional.cross_entropy(hidden, torch.zeros(32, dtype=torch.int64, device=device)).backward()
    torch.optim.AdamW(model.parameters(), foreach=True).step()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_rehearsal_takes_what_the_step_takes(checkpoint):
    with Tracker() as measured:
        step("cpu", checkpoint=checkpoint)
    with rehearsal("cpu") as predicted:
        step("meta", checkpoint=checkpoint)
    assert predicted.peak == pytest.approx(measured.peak, rel=0.02)


def attend(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(x, x, x).sin()


def test_attention_that_is_computed_again_is_the_same():
    with rehearsal("cpu"):
        x = torch.ones(1, 2, 8, 16, device="meta", requires_grad=True)
        torch.utils.checkpoint.checkpoint(attend, x, use_reentrant=False).sum().backward()
        assert x.grad is not None


def test_what_whole_numbers_select_has_its_true_size():
    ids = torch.tensor([[3, 0, 5], [0, 0, 7]])
    with rehearsal("cpu"):
        there = ids.to("meta")
        chosen = torch.ones(2, 3, 4, device="meta")[there != 0]
        rows, _ = (there.clone() > 4).nonzero(as_tuple=True)
        count = int((there[:, 1:] > 0).sum())
    assert (len(chosen), len(rows), count) == (3, 2, 2)


def test_what_nobody_knows_takes_the_most():
    with rehearsal("cpu"):
        scores = torch.ones(5, device="meta")
        assert len((scores > 0.5).nonzero()) == 5
        assert 0 <= float(scores.sum()) <= 1 and len(set(scores.tolist())) == 5


def test_attention_holds_no_matrix():
    with rehearsal("cuda") as tracker:
        q = torch.ones(1, 2, 512, 16, device="meta")
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert tracker.peak < 512 * 512 * 4


def test_half_precision_copies_of_weights_stay_for_the_pass():
    weight = nn.Parameter(torch.empty(64, 64, device="meta"))
    peaks = []
    for caches in (True, False):
        with rehearsal("cpu") as tracker, autocast_on_meta(torch.bfloat16, caches=caches):
            out = [nn.functional.linear(torch.ones(1, 64, device="meta"), weight) for _ in range(2)]
            peaks.append(tracker.live)
        assert out[0].dtype == torch.bfloat16
    assert peaks[0] - peaks[1] == 64 * 64 * 2


def test_the_meta_device_stands_for_another():
    device = torch.device("meta")
    with rehearsal("cuda"):
        assert kind_of(device) == "cuda"
    assert kind_of(device) == kind_of(torch.device("cpu")) == "cpu"
