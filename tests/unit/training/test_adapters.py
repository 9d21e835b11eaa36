"""Adapters stand beside linear layers of any model, start as nothing, and can be merged, saved and drawn again."""

import json

import pytest
import torch
from torch import nn

from genloop.registry import require
from genloop.training.adapters import add_adapters, check_adapters, is_adapter, merge_adapters, save_adapters
from genloop.training.settings import LoraSettings

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return x + self.fc2(self.fc1(x).relu())


def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.ModuleDict({"body": Block(), "head": nn.Linear(6, 3)}))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return model


def answer(model: nn.Module) -> torch.Tensor:
    return model[0]["head"](model[0]["body"](X))


def adapted_network(*, seed: int = 0, within: str = "", **settings):
    model = network()
    return model, add_adapters(model, LoraSettings(**{"rank": 2, "alpha": 6.0} | settings), seed=seed, within=within)


def disturb(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(2))


def adapters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if is_adapter(name)}


def test_fresh_adapters_change_nothing_and_are_all_that_is_trained():
    model, _ = adapted_network()
    assert torch.equal(answer(model), answer(network()))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(adapters(model))
    assert len(adapters(model)) == 2 * 3


def test_a_merged_model_gives_what_the_adapted_one_gave():
    model, adapted = adapted_network()
    disturb(model)
    before = answer(model).detach()
    merged = merge_adapters(adapted)
    assert not torch.allclose(before, answer(network()))
    assert torch.allclose(answer(merged), before, atol=1e-5)
    assert merged.state_dict().keys() == network().state_dict().keys()


def test_adapters_follow_from_the_seed_and_leave_the_global_generator_alone():
    one, again, other = network(), network(), network()
    state = torch.get_rng_state()
    for model, seed in ((one, 3), (again, 3), (other, 4)):
        add_adapters(model, LoraSettings(rank=2), seed=seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, adapters(again)[name]) for name, value in adapters(one).items())
    assert not any(torch.equal(v, adapters(other)[n]) for n, v in adapters(one).items() if ".lora_A." in n)


@pytest.mark.parametrize(
    ("targets", "within", "count"),
    [(("fc1",), "", 1), (("body.fc1", "head"), "", 2), ((), "0.body", 2), (("0.head",), "", 1)],
)
def test_layers_are_named_by_the_end_of_their_name(targets, within, count):
    model, _ = adapted_network(targets=targets, within=within)
    assert len(adapters(model)) == 2 * count


def test_an_unknown_layer_is_refused_with_close_names():
    with pytest.raises(ValueError, match=r"lora\.targets: .*'fc'; .*'fc2'\? \(fc1, fc2\)"):
        adapted_network(targets=("fc",), within="0.body")


def test_adapters_of_a_half_precision_model_are_float32():
    model = network().bfloat16()
    add_adapters(model, LoraSettings(rank=2), seed=0)
    assert {value.dtype for value in adapters(model).values()} == {torch.float32}
    assert model[0]["head"].base_layer.weight.dtype == torch.bfloat16


def test_saved_adapters_keep_their_scale_and_are_read_by_peft(tmp_path):
    model, adapted = adapted_network()
    disturb(model)
    save_adapters(adapted, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 6.0)
    loaded = require("peft").PeftModel.from_pretrained(network(), tmp_path / "adapter")
    assert torch.equal(answer(loaded.base_model.model), answer(model))


@pytest.mark.parametrize("change", [{"use_rslora": True}, {"use_dora": True}, {"alpha_pattern": {"fc1": 9}}])
def test_adapters_whose_scale_is_another_one_are_not_gone_on_from(tmp_path, change):
    model, adapted = adapted_network()
    save_adapters(adapted, tmp_path / "a")
    settings, path = LoraSettings(rank=2, alpha=6.0), tmp_path / "a/adapter_config.json"
    check_adapters(tmp_path / "a", model, settings, base="")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"adapter_config.json: {next(iter(change))}="):
        check_adapters(tmp_path / "a", model, settings, base="")
