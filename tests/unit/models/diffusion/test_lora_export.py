"""One LoRA in diffusers' layout and in kohya's: both load here and in diffusers, and give the same weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from genloop.models.diffusion.config import COMPONENTS, DiffusionFolder, check_diffusion_folder
from genloop.models.diffusion.load import load_diffusion
from genloop.models.diffusion.lora import LoraFile, check_lora
from genloop.models.diffusion.lora_export import (
    DIFFUSERS_FILE,
    KOHYA_FILE,
    Lora,
    adapted_layers,
    read_lora,
    write_lora,
)
from genloop.models.diffusion.lora_metadata import check_hashes, hashes_of, read_metadata
from genloop.models.diffusion.unet_names import original_name
from genloop.registry import require
from tests.worlds.tiny_diffusion import write_pipeline

RANK, ALPHA = 4, 16.0
PARTS = {False: ["unet", "text_encoder"], True: ["unet", "text_encoder", "text_encoder_2"]}
CASES = {  # xl, components, mixed
    "sd": (False, 1, False),
    "sd text": (False, 2, False),
    "sd mixed": (False, 2, True),
    "xl": (True, 1, False),
    "xl text": (True, 3, False),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, DiffusionFolder]:
    folder = tmp_path_factory.mktemp("bases")
    return {xl: check_diffusion_folder(write_pipeline(folder / f"base{xl:d}", xl=xl)) for xl in (False, True)}


def pipeline(base: DiffusionFolder) -> Any:
    return getattr(require("diffusers"), base.pipeline).from_pretrained(base.folder)


def adapted(base: DiffusionFolder, parts: list[str], *, mixed: bool = False) -> Lora:
    """Random adapters by peft: attention and a convolution of the UNet, projections of the text encoders.

    mixed: two ranks and alphas, and layers beside attention, of which diffusers loads no kohya file whole.
    """
    peft, pipe, lora = require("peft"), pipeline(base), {}
    for number, part in enumerate(parts):
        targets = ["to_q", "to_out.0", "conv1"] if part == "unet" else ["q_proj", "fc1" if mixed else "out_proj"]
        pattern = {targets[0]: 2} if mixed else {}
        config = peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=targets, rank_pattern=pattern, alpha_pattern=pattern
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            model = peft.LoraModel(getattr(pipe, part), config, "default")
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter)
        lora[part] = adapted_layers(model, "model.")
    return lora


def write(folder: Path, lora: Lora, base: DiffusionFolder) -> tuple[Path, Path]:
    write_lora(folder, lora, base, title="ours", training={"seed": 3, "steps": 7, "min_snr_gamma": 5.0, "epoch": None})
    return folder / DIFFUSERS_FILE, folder / KOHYA_FILE


def same(one: Lora, other: Lora) -> bool:
    return one.keys() == other.keys() and all(
        layers.keys() == other[part].keys()
        and all(
            torch.equal(layer.down, other[part][name].down)
            and torch.equal(layer.up, other[part][name].up)
            and layer.alpha == other[part][name].alpha
            for name, layer in layers.items()
        )
        for part, layers in one.items()
    )


def state_of(pipe: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{key}": value
        for part in ("unet", "text_encoder", "text_encoder_2")
        if hasattr(pipe, part)
        for key, value in getattr(pipe, part).state_dict().items()
    }


@pytest.mark.parametrize("case", CASES)
def test_both_files_are_read_back_to_the_last_bit_and_by_diffusers_too(
    tmp_path: Path, bases: dict[bool, DiffusionFolder], case: str
) -> None:
    xl, num_parts, mixed = CASES[case]
    base = bases[xl]
    lora = adapted(base, PARTS[xl][:num_parts], mixed=mixed)
    files = write(tmp_path / "lora", lora, base)
    for file in files:
        assert same(read_lora(file, base), lora)
        assert check_lora(file, base, COMPONENTS[base.pipeline]) == sum(map(len, lora.values()))
    plain = state_of(pipeline(base))
    ours = [state_of(load_diffusion(base, [LoraFile(file, 1.0)], grid=(16, 16)).pipeline) for file in files]
    theirs = []
    for file in files:
        pipe = pipeline(base)
        pipe.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
        pipe.fuse_lora()
        pipe.unload_lora_weights()
        theirs.append(state_of(pipe))
    for part, layers in lora.items():
        for name, layer in layers.items():
            key = f"{part}.{name}.weight"
            torch.testing.assert_close(ours[0][key], plain[key] + layer.delta.view_as(plain[key]), rtol=0, atol=1e-5)
    for state in (ours[1], *(theirs if not mixed else theirs[:1])):
        assert state.keys() == ours[0].keys() and all(torch.equal(state[key], ours[0][key]) for key in state)
    changed = {key for key in plain if not torch.equal(plain[key], ours[0][key])}
    assert changed == {f"{part}.{name}.weight" for part, layers in lora.items() for name in layers}


@pytest.fixture(scope="module")
def written(
    bases: dict[bool, DiffusionFolder], tmp_path_factory: pytest.TempPathFactory
) -> dict[bool, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("written")
    return {xl: write(folder / f"lora{xl:d}", adapted(base, PARTS[xl], mixed=True), base) for xl, base in bases.items()}


@pytest.mark.parametrize("xl", [False, True])
def test_conversion_there_and_back_gives_the_same_bytes(
    tmp_path: Path, bases: dict[bool, DiffusionFolder], written: dict[bool, tuple[Path, Path]], xl: bool
) -> None:
    for number, file in enumerate(written[xl]):
        again = write(tmp_path / str(number), read_lora(file, bases[xl]), bases[xl])
        for one, other in zip(again, written[xl], strict=True):
            assert read_metadata(one) == read_metadata(other)
            assert one.read_bytes() == other.read_bytes()


def test_keys_and_settings_are_those_that_diffusers_saves(tmp_path: Path, bases: dict[bool, DiffusionFolder]) -> None:
    diffusers, peft, training = require("diffusers"), require("peft"), require("diffusers.training_utils")
    pipe = pipeline(bases[False])
    pipe.unet.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["to_q", "to_out.0"]))
    state = require("diffusers.utils").convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(pipe.unet))
    metadata = training._collate_lora_metadata({"unet": pipe.unet})
    diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path / "theirs", unet_lora_layers=state, **metadata)
    theirs = tmp_path / "theirs" / DIFFUSERS_FILE
    ours, _ = write(tmp_path / "ours", read_lora(theirs, bases[False]), bases[False])
    one, other = load_file(ours), load_file(theirs)
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    settings = [json.loads(read_metadata(file)["lora_adapter_metadata"]) for file in (ours, theirs)]
    assert settings[0].keys() == settings[1].keys()
    assert [found["unet.lora_alpha"] for found in settings] == [ALPHA, ALPHA]


@pytest.mark.parametrize("xl", [False, True])
def test_kohya_metadata_tells_what_is_known(written: dict[bool, tuple[Path, Path]], xl: bool) -> None:
    _, file = written[xl]
    metadata, tensors = read_metadata(file), load_file(file)
    expected = {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0" if xl else "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "Dynamic",
        "ss_network_alpha": "Dynamic",
        "ss_seed": "3",
        "ss_steps": "7",
        "ss_min_snr_gamma": "5",
        "ss_output_name": "ours",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"stable-diffusion-{'xl-v1-base' if xl else 'v1'}/lora",
        "modelspec.prediction_type": "epsilon",
        "modelspec.resolution": "32x32",
        "modelspec.hash_sha256": f"0x{metadata['sshs_model_hash']}",
    }
    assert {key: metadata[key] for key in expected} == expected
    assert "ss_epoch" not in metadata
    first = {key.split("_text_model")[0].split("_down_blocks")[0] for key in tensors if "text_model" in key}
    assert first == ({"lora_te1", "lora_te2"} if xl else {"lora_te"})
    assert {float(value) for key, value in tensors.items() if key.endswith(".alpha")} == {ALPHA, 2.0}


def test_hashes_are_those_of_sd_scripts_and_notice_a_changed_tensor(
    tmp_path: Path, written: dict[bool, tuple[Path, Path]]
) -> None:
    _, file = written[False]
    check_hashes(file)
    tensors, metadata = load_file(file), read_metadata(file)
    content = save({key: tensors[key] for key in tensors}, {k: v for k, v in metadata.items() if k.startswith("ss_")})
    header = 8 + int.from_bytes(content[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(content[header:]).hexdigest()
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    tensors[min(tensors)] = tensors[min(tensors)] + 1
    save_file(tensors, tmp_path / "changed.safetensors", metadata)
    with pytest.raises(ValueError, match="sshs_model_hash"):
        check_hashes(tmp_path / "changed.safetensors")


def test_the_legacy_hash_covers_64_kib_behind_the_first_mib() -> None:
    tensors = {"a": torch.arange(400_000, dtype=torch.float32), "b": torch.ones(7)}
    content = save(tensors, {"ss_v2": "False"})
    expected = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    assert hashes_of(tensors, {"ss_v2": "False", "modelspec.title": "x"})[1] == expected


def test_names_of_the_original_code_are_read_too(
    tmp_path: Path, bases: dict[bool, DiffusionFolder], written: dict[bool, tuple[Path, Path]]
) -> None:
    base, (_, file) = bases[True], written[True]
    lora = read_lora(file, base)
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in lora["unet"].items():
        stem = f"lora_unet_{original_name(name, base.unet).replace('.', '_')}"
        tensors |= {f"{stem}.lora_down.weight": layer.down, f"{stem}.lora_up.weight": layer.up}
        tensors[f"{stem}.alpha"] = torch.tensor(layer.alpha)
    assert any("input_blocks" in key for key in tensors) and any("output_blocks" in key for key in tensors)
    save_file(tensors, tmp_path / "sgm.safetensors")
    assert same(read_lora(tmp_path / "sgm.safetensors", base), {"unet": lora["unet"]})


@pytest.mark.parametrize(
    ("layer", "original"),
    [
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.2.resnets.1.conv1", "input_blocks.8.0.in_layers.2"),
        ("mid_block.attentions.0.proj_out", "middle_block.1.proj_out"),
        ("mid_block.resnets.1.conv2", "middle_block.2.out_layers.3"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.0.conv_shortcut", "output_blocks.6.0.skip_connection"),
        ("add_embedding.linear_2", "label_emb.0.2"),
    ],
)
def test_blocks_of_sdxl_have_their_published_places(layer: str, original: str) -> None:
    unet = {"layers_per_block": 2, "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]}
    assert original_name(layer, unet) == original


STEM = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({f"{STEM}.lora_up.weight": None}, "lora_up|up"),
        ({f"{STEM}.lora_down.weight": None}, "down"),
        ({"lora_unet_nowhere.alpha": torch.tensor(1.0)}, "nowhere"),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}, "te2"),
        ({f"{STEM}.dora_scale": torch.ones(1)}, "dora_scale"),
        ({f"{STEM}.alpha": torch.ones(2)}, "alpha"),
        ({f"{STEM}.lora_up.weight": torch.ones(16, 3)}, "shapes"),
        ({f"{STEM}.lora_up.weight": torch.full((16, 2), torch.nan)}, "NaN"),
    ],
)
def test_a_file_with_a_key_too_many_or_too_few_is_refused(
    tmp_path: Path,
    bases: dict[bool, DiffusionFolder],
    written: dict[bool, tuple[Path, Path]],
    change: dict[str, torch.Tensor | None],
    said: str,
) -> None:
    tensors = {key: value for key, value in (load_file(written[False][1]) | change).items() if value is not None}
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(ValueError, match=said) as caught:
        read_lora(tmp_path / "bad.safetensors", bases[False])
    assert "bad.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_of_another_base_is_refused(
    bases: dict[bool, DiffusionFolder], written: dict[bool, tuple[Path, Path]]
) -> None:
    for xl, file in ((True, written[True][0]), (True, written[True][1]), (False, written[False][1])):
        with pytest.raises(ValueError, match=r"another base|no layer"):
            read_lora(file, bases[not xl])


@pytest.mark.parametrize("settings", ["[", "[1]", '{"unet.r": 0}', '{"unet.r": 4, "unet.lora_alpha": "16"}'])
def test_garbled_settings_are_refused(
    tmp_path: Path, bases: dict[bool, DiffusionFolder], written: dict[bool, tuple[Path, Path]], settings: str
) -> None:
    save_file(load_file(written[False][0]), tmp_path / "bad.safetensors", {"lora_adapter_metadata": settings})
    with pytest.raises(ValueError, match="lora_adapter_metadata"):
        check_lora(tmp_path / "bad.safetensors", bases[False], COMPONENTS[bases[False].pipeline])
