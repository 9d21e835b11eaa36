"""Folders of transformers: loaded when their tensors are the network's, refused in one line before a weight is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genloop.models.common.pretrained import check_pretrained, load_pretrained
from genloop.registry import require

Change = Callable[[dict[str, Tensor]], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = require("transformers")
    tower = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPTextConfig(**tower, vocab_size=20, max_position_embeddings=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.CLIPTextModel(config)
    model.save_pretrained(path := tmp_path_factory.mktemp("model"))
    return path


def test_a_folder_that_fits_is_loaded_in_eval_mode(folder: Path) -> None:
    model = load_pretrained(require("transformers").AutoModel, folder, dtype=torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    assert not model.training and model.dtype == torch.bfloat16
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == {
        key: tuple(value.shape) for key, value in tensors.items()
    }
    assert all(torch.equal(model.state_dict()[key], value.bfloat16()) for key, value in tensors.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(next(key for key in tensors if "fc1.bias" in key)), "1 missing ("),
        (lambda tensors: tensors.update(strange=torch.ones(1)), "1 unexpected (strange)"),
        (
            lambda tensors: tensors.update(
                {key: torch.ones(3) for key in tensors if key.endswith("final_layer_norm.bias")}
            ),
            "1 mismatched (",
        ),
    ],
)
def test_other_tensors_are_refused_in_one_line(folder: Path, tmp_path: Path, change: Change, said: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"does not fit its config\.json") as refused:
        check_pretrained(require("transformers").AutoModel, tmp_path)
    assert said in str(refused.value) and "\n" not in str(refused.value)
