"""What the released code, or the stock pipelines under it, get wrong: a test a defect, named after what went wrong."""

import gc
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from genloop.models.flux_edit import config, load
from genloop.models.flux_edit.drawing import Control
from genloop.models.flux_edit.embedder import DualContextEmbedder, prompt_embeddings
from genloop.models.flux_edit.encode import picture_tokens
from genloop.models.flux_edit.needs import COMPONENTS, MODES, Mode, Wish, needed
from genloop.sampling.flux_edit.conditions import Encoders
from genloop.sampling.flux_edit.prepare import PreparedEdit
from genloop.sampling.flux_edit.requests import EditKeys
from tests.unit.models.flux_edit.test_drawing import (
    FOLDER,
    SAME,
    SIZE,
    conditions,
    difference,
    draw,
    drawer,
    drawing,
    picture,
    qwen,
)

CONTROLLED: list[Mode] = ["controlnet", "controlnet-inpaint"]
FROM_A_PICTURE: list[Mode] = ["img2img", "inpaint", "controlnet", "controlnet-inpaint"]


def only(name: str, seed: int, strength: float) -> tuple[Control, ...]:
    return (Control(name, picture(seed), strength),)


@pytest.mark.parametrize("mode", CONTROLLED)
@pytest.mark.parametrize("name", ["line", "depth"])
def test_the_users_strength_of_a_control_counts_rather_than_a_fixed_one(mode: Mode, name: str) -> None:
    """The released code drew with 0.2 and 0.4 whenever both controls were on, whatever was asked."""
    base = {control.name: control for control in drawing(mode).controls}
    both = [tuple((base | {name: Control(name, base[name].map, s)}).values()) for s in (0.1, 0.9)]
    assert difference(draw(mode, controls=both[0]), draw(mode, controls=both[1])) > 1e-3


@pytest.mark.parametrize("mode", CONTROLLED)
def test_one_control_alone_needs_no_model_of_the_other(mode: Mode) -> None:
    """Without flags the released code asked both annotators, neither of which it had loaded."""
    assert "depth" not in needed(Wish(mode, line="canny"))
    assert not {"anyline"} & {*needed(Wish(mode, depth=True))}
    assert torch.isfinite(draw(mode, controls=only("line", 3, 0.4))).all()


def test_a_given_mask_needs_no_segmentation_model() -> None:
    """The released code loaded SAM 2 for every inpainting, and never asked it."""
    assert "sam2" not in needed(Wish("inpaint")) and "sam2" in needed(Wish("inpaint", mask_from_points=True))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_seed_gives_the_same_image_and_another_one_another(mode: Mode) -> None:
    """The released code took no seed, so nothing could be drawn again; the global state must not count either."""
    first = draw(mode, (5,))
    torch.rand(7)
    assert torch.equal(first, draw(mode, (5,))) and difference(first, draw(mode, (6,))) > 0.1


@pytest.mark.parametrize("mode", CONTROLLED)
@pytest.mark.parametrize("count", [1, 2])
def test_a_union_net_takes_several_rows_with_one_or_two_controls(mode: Mode, count: int) -> None:
    """The stock pipelines hand it one mode for all rows and fail for more than one row."""
    controls = drawing(mode).controls[:count]
    rows = draw(mode, (1, 2), controls=controls)
    torch.testing.assert_close(rows[1:], draw(mode, (2,), controls=controls), **SAME)


@pytest.mark.parametrize("mode", CONTROLLED)
def test_the_second_control_is_not_dropped(mode: Mode) -> None:
    """With one net for two controls the stock pipelines stop after the first: the second one changed nothing."""
    first = drawing(mode).controls[0]
    one, other = ((first, Control("line", picture(seed), 0.9)) for seed in (7, 8))
    assert difference(draw(mode, controls=one), draw(mode, controls=other)) > 1e-3


@pytest.mark.parametrize("mode", FROM_A_PICTURE)
@pytest.mark.parametrize("size", [(64, 32), (32, 64)])
def test_width_and_height_are_not_swapped(mode: Mode, size: tuple[int, int]) -> None:
    """The released pipeline took the width of a control map for its height, which only a square survives."""
    mask = np.ones((size[1], size[0]), dtype=bool)
    controls = tuple(Control(name, picture(seed, size), 0.4) for name, seed in (("depth", 2), ("line", 3)))
    wanted = drawing(mode, size=size, picture=picture(0, size), mask=mask, controls=controls)
    drawn = drawer().decode(wanted, drawer().draw(wanted, conditions(), (1,)))
    assert drawn.shape[2:] == (size[1], size[0])


@pytest.mark.parametrize("mode", CONTROLLED)
def test_no_image_token_is_cut_off_where_the_pictures_have_different_numbers_of_them(mode: Mode) -> None:
    """The released code cut the longer of two pictures' tokens to the length of the shorter one."""
    given = conditions()
    assert given.reference is not None and len(given.reference) > len(given.picture)
    last = given.reference.clone()
    last[-1] *= 3
    assert difference(draw(mode), draw(mode, given=replace(given, reference=last))) > 1e-5
    longer = replace(given, picture=given.reference, reference=given.picture)
    last = longer.picture.clone()
    last[-1] *= 3
    assert difference(draw(mode, given=longer), draw(mode, given=replace(longer, picture=last))) > 1e-6


@pytest.mark.parametrize("mode", FROM_A_PICTURE)
def test_the_first_row_does_not_use_up_the_noise_of_the_others(mode: Mode) -> None:
    """One picture for all rows let the VAE draw with the first row's generator alone, and all other rows differed."""
    pair = draw(mode, (3, 4))
    torch.testing.assert_close(pair[1:], draw(mode, (4,)), **SAME)


@pytest.mark.parametrize("width", [0, 5])
def test_both_kinds_of_tokens_are_embedded_as_published(width: int) -> None:
    """The published transformer puts embedded tokens of T5 behind embedded image tokens; to the bit."""
    image, text = nn.Linear(6, 4), nn.Linear(6, 4)
    tokens, words = torch.randn(2, 3, 6), torch.randn(2, width, 6)
    both = DualContextEmbedder(image, text)
    both.num_image_tokens = 3
    published = torch.cat([image(tokens), text(words)], dim=1)
    assert torch.equal(both(prompt_embeddings(tokens, words)), published)


@pytest.mark.parametrize("mode", CONTROLLED)
def test_controls_of_strength_0_are_no_control(mode: Mode) -> None:
    plain: Mode = "img2img" if mode == "controlnet" else "inpaint"
    none = tuple(replace(control, strength=0.0) for control in drawing(mode).controls)
    torch.testing.assert_close(draw(mode, controls=none), draw(plain), **SAME)


@pytest.mark.parametrize("mode", FROM_A_PICTURE)
def test_at_full_strength_without_controls_it_is_text_to_image(mode: Mode) -> None:
    """With the same seed: what the VAE encodes takes nothing from the noise that is drawn from."""
    everywhere, none = np.ones((SIZE[1], SIZE[0]), dtype=bool), drawing(mode).controls
    found = draw(mode, strength=1.0, mask=everywhere, controls=tuple(replace(one, strength=0.0) for one in none))
    torch.testing.assert_close(found, draw("variation"), **SAME)


def test_old_key_names_and_the_flat_config_of_the_published_model_load(tmp_path: Path) -> None:
    """The checkpoint was saved by an early transformers: visual.*, model.*, and one config for both parts."""
    folder = tmp_path / "old"
    shutil.copytree(FOLDER / "qwen2-vl", folder / "qwen2-vl")
    file = folder / "qwen2-vl" / "model.safetensors"
    old = {key.replace("language_model.", "model."): value for key, value in load_file(file).items()}
    assert any(key.startswith("visual.") for key in old) and any(key.startswith("model.layers") for key in old)
    save_file(old, file, {"format": "pt"})
    about = json.loads((folder / "qwen2-vl" / "config.json").read_text())
    flat = about | about.pop("text_config") | {"model_type": "qwen2_vl", "architectures": ["Qwen2VLModel"]}
    (folder / "qwen2-vl" / "config.json").write_text(json.dumps(flat))
    loaded = load.load_qwen(folder, dtype=torch.float32, device="cpu")
    found, wanted = (picture_tokens(*one, picture(0), num_tokens=8) for one in (loaded, qwen()))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", [config.CONNECTOR, config.T5_EMBEDDER])
def test_a_missing_connector_is_an_error_and_no_random_one(tmp_path: Path, name: str) -> None:
    """The released code went on with a connector of random numbers."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "tiny"))
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        config.check_edit_folder(folder, [part for part in COMPONENTS if part != "anyline"])


def test_the_folder_of_checkpoints_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released code read CHECKPOINT_DIR once, when its module was imported."""
    for place in ("one", "two"):
        monkeypatch.setenv(config.CHECKPOINT_DIR, place)
        assert config.edit_folder(None) == Path(place)


def wanted_edit(seed: int, prompt: str) -> PreparedEdit:
    request = EditKeys(mode="variation", prompt=prompt, image_tokens=8)
    return PreparedEdit(request, drawing("variation"), picture(seed), None, ())


def encoders(**options: Any) -> Encoders:
    return Encoders(FOLDER, dtype=torch.float32, device="cpu", **options)


def test_nothing_keeps_a_graph() -> None:
    """Connector and T5's embedder still asked for gradients, so that every image kept its graph."""
    (found,) = encoders(one_at_a_time=True).encode([wanted_edit(0, "a dog")])
    assert found.text is not None
    assert not any(tensor.requires_grad for tensor in (found.picture, found.text, found.pooled))
    parts = [load.load_connector(FOLDER), load.load_t5_embedder(FOLDER), drawer().transformer]
    assert not any(parameter.requires_grad for part in parts for parameter in part.parameters())


def test_models_and_processors_are_loaded_once_for_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The released code made its processor anew for every picture."""
    loaded: list[str] = []

    def counted(name: str) -> None:
        original = getattr(load, name)
        monkeypatch.setattr(load, name, lambda *args, **more: (loaded.append(name), original(*args, **more))[1])

    for name in ("load_qwen", "load_text_encoder", "load_connector"):
        counted(name)
    encoders(one_at_a_time=True).encode([wanted_edit(seed, f"dog {seed}") for seed in range(3)])
    assert sorted(loaded) == ["load_connector", "load_qwen", "load_text_encoder", "load_text_encoder"]


@pytest.mark.parametrize(("alone", "alive"), [(True, 0), (False, 3)])
def test_encoders_leave_memory_before_the_transformer_comes(
    monkeypatch: pytest.MonkeyPatch, alone: bool, alive: int
) -> None:
    """The released code kept everything: 48 GB."""
    seen: list[weakref.ref[Any]] = []
    for name in ("load_qwen", "load_text_encoder"):
        original = getattr(load, name)

        def remembered(*args: Any, _original: Any = original, **more: Any) -> Any:
            gc.collect()
            assert not alone or not any(one() is not None for one in seen), "two encoders at a time"
            found = _original(*args, **more)
            seen.append(weakref.ref(found[0]))
            return found

        monkeypatch.setattr(load, name, remembered)
    kept = encoders(one_at_a_time=alone)
    kept.encode([wanted_edit(0, "a dog")])
    gc.collect()
    assert len(seen) == 3 and sum(one() is not None for one in seen) == alive


def test_the_mask_and_every_map_have_the_size_of_the_picture(tmp_path: Path) -> None:
    """The released code sized picture and mask apart from each other, and they did not fit."""
    from PIL import Image

    from genloop.models.flux_edit.annotators import Annotators
    from genloop.sampling.flux_edit.prepare import prepare

    sizes = {"input_image": (77, 43), "mask_image": (50, 91), "line_image": (33, 20), "depth_image": (128, 128)}
    files = {name: tmp_path / f"{name}.png" for name in sizes}
    for name, size in sizes.items():
        Image.new("RGB", size, "white").save(files[name])
    found = prepare(EditKeys(mode="controlnet-inpaint", **files), Annotators(FOLDER))
    assert found.drawing.size == (64, 32) and found.drawing.mask is not None and found.drawing.picture is not None
    maps = [control.map for control in found.drawing.controls]
    assert {found.drawing.picture.shape, *(one.shape for one in maps)} == {(32, 64, 3)}
    assert found.drawing.mask.shape == (32, 64)
    assert {note.partition(":")[0] for note in found.notes} == {*sizes}
