"""Show-o: its config, its loading and saving in the public layout, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from genloop.models.showo.config import PhiDims, ShowOConfig, check_showo_folder, read_showo_config, showo_manifest
from genloop.models.showo.load import build_showo, load_showo, save_showo
from genloop.models.showo.model import ShowO
from genloop.models.showo.prompting import omni_mask
from tests.goldens.roots import SAMPLES
from tests.worlds.tiny_showo import LetterTokenizer, random_codes, tiny_config, tiny_showo

PUBLIC = {
    "_class_name": "Showo",
    "_diffusers_version": "0.30.1",
    "codebook_size": 8192,
    "llm_model_path": "microsoft/phi-1_5",
    "llm_vocab_size": 50295,
    "mask_token_id": 58497,
    "num_vq_tokens": 256,
    "vocab_size": 58498,
    "w_clip_vit": False,
}


def write_config(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**PUBLIC, **changes}))
    return folder


def saved(folder: Path, config: ShowOConfig | None = None) -> tuple[ShowO, Path]:
    model = build_showo(config or tiny_config(), seed=1)
    save_showo(model, folder)
    return model, folder


def test_the_public_config_gives_the_published_ids(tmp_path: Path) -> None:
    config = read_showo_config(write_config(tmp_path))
    assert config == ShowOConfig()
    assert (config.pad_id, config.soi_id, config.eoi_id) == (50295, 50296, 50297)
    assert (config.t2i_id, config.mmu_id, config.code_offset) == (50300, 50301, 50305)
    assert (config.mask_token_id, config.vocab_size) == (58497, 58498)
    assert (config.text_length, config.sequence_length, config.grid) == (129, 387, (16, 16))


def test_the_512_config_differs_in_its_tokens_only(tmp_path: Path) -> None:
    folder = write_config(tmp_path, num_vq_tokens=1024, load_from_showo=False, _name_or_path="somewhere")
    config = read_showo_config(folder)
    assert config == ShowOConfig(num_vq_tokens=1024)
    assert (config.sequence_length, config.grid) == (1155, (32, 32))


def test_what_is_written_is_what_the_public_files_hold() -> None:
    assert ShowOConfig().to_json() == PUBLIC


def test_phi_sizes_come_from_its_own_config(tmp_path: Path) -> None:
    write_config(tmp_path, llm_model_path="someone/else")
    (tmp_path / "phi").mkdir()
    rope = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25}
    sizes = {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 5, "rope_parameters": rope}
    (tmp_path / "phi" / "config.json").write_text(json.dumps(sizes))
    phi = read_showo_config(tmp_path).phi
    assert phi == PhiDims(
        hidden_size=48,
        num_attention_heads=3,
        num_key_value_heads=3,
        num_hidden_layers=5,
        rope_theta=500.0,
        partial_rotary_factor=0.25,
    )


@pytest.mark.parametrize("w_clip_vit", [False, True])
def test_the_manifest_is_the_state_dict(w_clip_vit: bool) -> None:
    tiny = tiny_config()
    config = ShowOConfig(
        tiny.codebook_size, tiny.num_vq_tokens, tiny.llm_vocab_size, w_clip_vit, clip_hidden_size=20, phi=tiny.phi
    )
    model = build_showo(config, seed=0)
    assert showo_manifest(config) == {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_a_saved_model_loads_as_it_was(tmp_path: Path) -> None:
    model, folder = saved(tmp_path / "showo")
    loaded = load_showo(folder)
    assert loaded.config == model.config
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values()))
    ids = torch.randint(loaded.config.vocab_size, (2, 30), generator=torch.Generator().manual_seed(0))
    mask = omni_mask(ids, loaded.config)
    assert torch.equal(loaded(ids, mask), model.eval()(ids, mask))


def test_a_saved_tokenizer_travels_with_the_model(tmp_path: Path) -> None:
    source = SAMPLES / "showo" / "dev" / "A"
    model = load_showo(source, max_seq_length=16)
    save_showo(model, tmp_path / "copy")
    copy = load_showo(tmp_path / "copy")
    assert copy.config == model.config
    assert copy.text_tokenizer.encode("a red bench") == model.text_tokenizer.encode("a red bench")
    assert copy.text_tokenizer.decode(copy.text_tokenizer.encode("a red bench")) == "a red bench"


def test_a_clip_variant_loads_with_its_projector(tmp_path: Path) -> None:
    tiny = tiny_config()
    config = ShowOConfig(tiny.codebook_size, tiny.num_vq_tokens, tiny.llm_vocab_size, True, phi=tiny.phi)
    model, folder = saved(tmp_path / "clip", config)
    loaded = load_showo(folder)
    assert torch.equal(loaded.mm_projector[2].weight, model.mm_projector[2].weight)
    assert loaded.mm_projector(torch.zeros(1, 576, 1024)).shape == (1, 576, 32)


def test_a_bin_checkpoint_in_half_precision_loads(tmp_path: Path) -> None:
    model, folder = saved(tmp_path / "showo")
    (folder / "pytorch_model.safetensors").unlink()
    torch.save({key: value.bfloat16() for key, value in model.state_dict().items()}, folder / "pytorch_model.bin")
    loaded = load_showo(folder)
    assert loaded.dtype == torch.float32
    head = model.showo.lm_head.weight.bfloat16().float()
    assert torch.equal(loaded.showo.lm_head.weight, head)
    assert check_showo_folder(folder) == model.config


def test_dtype_is_a_choice(tmp_path: Path) -> None:
    _, folder = saved(tmp_path / "showo")
    model = load_showo(folder, dtype=torch.bfloat16)
    ids = torch.zeros(1, 30, dtype=torch.int64)
    logits = model(ids, omni_mask(ids, model.config))
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_tensors_that_do_not_fit_are_all_listed(tmp_path: Path) -> None:
    model, folder = saved(tmp_path / "showo")
    tensors = model.state_dict()
    tensors["showo.extra"] = torch.zeros(2)
    del tensors["showo.lm_head.bias"]
    tensors["showo.model.final_layernorm.weight"] = torch.zeros(5)
    (folder / "pytorch_model.safetensors").unlink()
    torch.save(dict(tensors), folder / "pytorch_model.bin")
    for read in (load_showo, check_showo_folder):
        with pytest.raises(ValueError, match="does not fit") as caught:
            read(folder)
        for part in (
            "1 missing (showo.lm_head.bias",
            "1 unexpected (showo.extra [2])",
            "final_layernorm.weight is [5]",
        ):
            assert part in str(caught.value)


def test_a_checkpoint_of_another_shape_is_refused_from_its_header(tmp_path: Path) -> None:
    _, folder = saved(tmp_path / "showo")
    _, other = saved(tmp_path / "other", tiny_config(width=48))
    shutil.copy(folder / "config.json", other / "config.json")
    shutil.copy(folder / "phi" / "config.json", other / "phi" / "config.json")
    with pytest.raises(ValueError, match=r"misshapen \(showo\.model\.embed_tokens\.weight is \[63, 48\]"):
        check_showo_folder(other)


def test_a_tokenizer_with_too_many_words_is_refused(tmp_path: Path) -> None:
    _, folder = saved(tmp_path / "showo")
    with pytest.raises(ValueError, match=r"290 tokens, config\.json .*28"):
        load_showo(folder, text_tokenizer=SAMPLES / "showo" / "dev" / "A" / "tokenizer")


def test_a_model_without_a_tokenizer_says_so_when_asked(tmp_path: Path) -> None:
    _, folder = saved(tmp_path / "showo")
    with pytest.raises(ValueError, match="no text tokenizer"):
        _ = load_showo(folder).text_tokenizer
    assert load_showo(folder, text_tokenizer=LetterTokenizer()).text_tokenizer.num_tokens == 28


def test_fresh_weights_are_keyed_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_showo(tiny_config(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.showo.model.layers[0].mlp.fc1.weight for model in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].requires_grad


@torch.inference_mode()
def test_the_head_can_start_behind_the_text() -> None:
    model = tiny_showo()
    ids = torch.randint(model.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = omni_mask(ids, model.config)
    torch.testing.assert_close(model(ids, mask, start=25), model(ids, mask)[:, 25:])


@torch.inference_mode()
def test_code_logits_are_the_codebook_columns_of_the_head() -> None:
    model = tiny_showo()
    ids = random_codes(model, 2) + model.config.code_offset
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    columns = slice(model.config.code_offset, model.config.mask_token_id)
    torch.testing.assert_close(model.code_logits(model.hidden(ids, mask)), model(ids, mask)[..., columns])


@pytest.mark.parametrize(("num_tokens", "grid"), [(36, (6, 6)), (12, (3, 4)), (7, (1, 7)), (1024, (32, 32))])
def test_the_grid_is_as_nearly_square_as_the_tokens_allow(num_tokens, grid):
    assert ShowOConfig(num_vq_tokens=num_tokens).grid == grid
