"""Costs of models: tied weights count once, packed ones as what they stand for, operations as by hand."""

import numpy as np
import torch
from torch import nn

from genloop.models.common.measure import count_flops, peak_memory, size_of, time_calls, weight_bytes
from genloop.models.qwen.config import check_chat_folder
from genloop.models.qwen.load import load_chat_model
from tests.worlds.tiny_qwen import qwen_folder


def test_tied_weights_count_once_and_frozen_ones_are_not_trainable():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10), nn.LayerNorm(10))
    model[1].weight = model[0].weight
    model[2].requires_grad_(False)
    model.register_buffer("table", torch.zeros(3, dtype=torch.int64))
    size = size_of(model)
    assert (size.parameters, size.trainable) == (70, 50)
    assert size.bytes_by_dtype == {"float32": 280, "int64": 24} and size.num_bytes == 304


def test_parts_of_one_storage_are_told_apart():
    fused = torch.zeros(8, 4)
    model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    for part, layer in zip(fused.chunk(2), model):
        layer.weight = nn.Parameter(part)
    assert size_of(model).num_bytes == 128


def test_four_bits_change_bytes_and_neither_parameters_nor_operations(tmp_path):
    folder = check_chat_folder(qwen_folder(tmp_path / "q"))
    models = [load_chat_model(folder, nf4=nf4) for nf4 in (False, True)]
    full, packed = map(size_of, models)
    for ids in (torch.arange(3, 12)[None], torch.tensor([[5]])):
        with torch.inference_mode():
            counts = [count_flops(lambda model=model, ids=ids: model(input_ids=ids)) for model in models]
        assert counts[0] == counts[1] > 0
    assert full.parameters == packed.parameters and set(full.bytes_by_dtype) == {"float32"}
    assert packed.bytes_by_dtype["uint8"] > 0 and packed.num_bytes < full.num_bytes
    assert abs(weight_bytes(folder.folder) - full.num_bytes) < 8192  # the header


def test_operations_are_those_by_hand_also_in_attention_and_without_values():
    layer = nn.Linear(8, 16)
    q = torch.randn(1, 2, 5, 4)

    def call() -> None:
        layer(torch.zeros(3, 8, device=layer.weight.device))
        torch.nn.functional.scaled_dot_product_attention(q, q, q)

    wanted = 2 * 3 * 8 * 16 + 2 * 2 * 2 * 5 * 5 * 4
    with torch.inference_mode():
        assert count_flops(call) == wanted
    q, layer = q.to("meta"), layer.to("meta")
    assert count_flops(call) == wanted


def test_warm_up_is_not_timed():
    calls = []
    assert len(time_calls(lambda: calls.append(0), warmup=2, repeats=5)) == 5 and len(calls) == 7


def test_peak_memory_is_what_the_body_took_at_the_most():
    with peak_memory() as peak:
        np.ones(96 << 17)
        np.ones(32 << 17)
    assert 0.9 < peak.num_bytes / (96 << 20) < 1.3
