"""Conversion of mmdet's files: every tensor finds its place or the file is refused; nothing in it is run unasked."""

import json
import logging
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ckpts.convert.mask2former import convert
from ckpts.convert.mask2former_names import infer_config, source_of, source_shapes
from genloop.checkpoint import load_tensors, verify_folder
from genloop.models.mask2former.config import (
    HeadDims,
    Mask2FormerConfig,
    SwinDims,
    check_mask2former_folder,
    mask2former_manifest,
    read_preparation,
)
from genloop.models.mask2former.load import load_mask2former
from genloop.models.mask2former.mmdet_names import BUFFER, is_old, new_name
from tests.worlds.tiny_mask2former import CLASSES, TINY, mmdet_file, mmdet_state, old_name

QUERIES = "panoptic_head.query_feat.weight"
PUBLIC = Mask2FormerConfig(SwinDims(), HeadDims(), CLASSES)  # Swin-S


@pytest.mark.parametrize(
    "config",
    [
        PUBLIC,
        replace(PUBLIC, swin=SwinDims(depths=(2, 2, 6, 2))),
        replace(TINY, head=replace(TINY.head, feature_size=64)),
        replace(TINY, head=replace(TINY.head, enforce_input_projection=True)),
        replace(TINY, swin=replace(TINY.swin, qkv_bias=False, window_size=4, mlp_ratio=2.0)),
        TINY,
    ],
)
def test_sizes_are_inferred_from_shapes(config: Mask2FormerConfig) -> None:
    assert infer_config(source_shapes(mask2former_manifest(config)), config.class_names) == config


def test_the_public_swin_s_has_the_parameters_and_tensors_that_mmdet_has() -> None:
    shapes = source_shapes(mask2former_manifest(PUBLIC))
    num_blocks = sum(PUBLIC.swin.depths)
    assert len(shapes) + num_blocks == 649  # with the integer buffers
    assert round(sum(torch.Size(shape).numel() for shape in shapes.values()) / 1e6, 2) == 68.74


def test_old_names_become_new_ones_and_nothing_else_changes() -> None:
    new = mmdet_state()
    old = mmdet_state(version="2.x")
    assert is_old(old) and not is_old(new)
    assert [new_name(name) for name in old] == list(new) == [new_name(name) for name in new]
    assert old.keys() != new.keys() and [old_name(name) for name in new] == list(old)


@pytest.mark.parametrize(("version", "preprocess"), [("2.x", "mmdet2"), ("3.x", "mmdet3")])
def test_a_file_of_either_version_becomes_the_same_tensors(tmp_path: Path, version: str, preprocess: str) -> None:
    done = convert(mmdet_file(tmp_path / "old.pth", version=version), tmp_path / "a")
    verify_folder(done.folder)
    assert check_mask2former_folder(done.folder) == TINY
    assert read_preparation(done.folder).preprocess == preprocess
    assert done.record["source"]["file"] == "old.pth" and done.record["source"]["mmdet"] == version
    other = convert(mmdet_file(tmp_path / "new.pth"), tmp_path / "b", preprocess="mmdet2", scale=(96, 160))
    assert read_preparation(other.folder) == read_preparation(other.folder).__class__("mmdet2", (160, 96))
    ours, theirs = load_tensors(done.folder), load_tensors(other.folder)
    assert ours.keys() == theirs.keys() == mask2former_manifest(TINY).keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())


def test_every_tensor_of_the_file_is_used_whole() -> None:
    state = {name: tensor for name, tensor in mmdet_state().items() if not name.endswith(BUFFER)}
    parts: dict[str, set[str]] = {}
    for key in mask2former_manifest(TINY):
        parts.setdefault(source_of(key).name, set()).add(source_of(key).part)
    assert parts.keys() == state.keys()
    assert all(found in ({"whole"}, {"patches"}, {"first", "second", "third"}) for found in parts.values())


def test_merged_patches_give_what_mmdet_computes(tmp_path: Path) -> None:
    """mmdet cuts 2 x 2 patches by unfolding, transformers by strided slices: the same numbers in another order."""
    state, tensors = mmdet_state(), load_tensors(convert(mmdet_file(tmp_path / "a.pth"), tmp_path / "a").folder)
    width = TINY.swin.embed_dim
    image = torch.randn(1, width, 4, 6, generator=torch.Generator().manual_seed(5))
    unfolded = nn.functional.unfold(image, 2, stride=2).transpose(1, 2)
    sliced = torch.cat([image[..., i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=1).flatten(2).transpose(1, 2)
    results = []
    for rows, source, prefix in (
        (unfolded, state, "backbone.stages.0.downsample"),
        (sliced, tensors, "model.pixel_level_module.encoder.encoder.layers.0.downsample"),
    ):
        norm = [source[f"{prefix}.norm.{part}"] for part in ("weight", "bias")]
        normed = nn.functional.layer_norm(rows, (4 * width,), *norm)
        results.append(normed @ source[f"{prefix}.reduction.weight"].T)
    assert torch.allclose(results[0], results[1], atol=1e-5)


def test_transformers_reads_the_folder_and_writes_it_back_under_the_same_names(tmp_path: Path) -> None:
    folder = convert(mmdet_file(tmp_path / "a.pth"), tmp_path / "a").folder
    load_mask2former(folder).save_pretrained(tmp_path / "b")
    ours, theirs = load_tensors(folder), load_tensors(tmp_path / "b")
    extra = {"criterion.empty_weight", *(key for key in theirs if ".encoder.swin.layernorm." in key)}
    assert len(extra) == 3 and theirs.keys() - ours.keys() == extra
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    assert check_mask2former_folder(tmp_path / "b").head == TINY.head


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state.pop("panoptic_head.query_embed.weight"),
            r"1 missing \(panoptic_head\.query_embed\.weight\)",
        ),
        (lambda state: state.pop("panoptic_head.cls_embed.weight"), r"no tensor 'panoptic_head\.cls_embed\.weight'"),
        (lambda state: state.update(extra=torch.zeros(1)), r"1 unknown \(extra\)"),
        (
            lambda state: state.update({"panoptic_head.mask_embed.2.bias": torch.zeros(3)}),
            r"1 misshapen \(panoptic_head\.mask_embed\.2\.bias\)",
        ),
        (lambda state: state.clear(), "no tensor 'backbone.patch_embed"),
        (
            lambda state: state.update({"backbone.patch_embed.projection.weight": torch.ones(0, 3, 4, 4)}),
            "shapes that do not go",
        ),
        (lambda state: state.update({QUERIES: state[QUERIES] / 0}), f"{QUERIES} .*no numbers"),
        (lambda state: state.update({QUERIES: state[QUERIES].char()}), rf"{QUERIES} is torch\.int8"),
        (lambda state: state.update({QUERIES: state[QUERIES].cfloat()}), rf"{QUERIES} is torch\.complex64"),
        (lambda state: state.update({QUERIES: state[QUERIES].to_sparse()}), "no state_dict"),
        (lambda state: state.update({QUERIES: state[QUERIES].to("meta")}), "no state_dict"),
        (lambda state: state.update({1: torch.ones(1)}), "no state_dict"),
        (
            lambda state: state.update(
                {old_name(name): value for name, value in list(state.items()) if "transformer_decoder" in name}
            ),
            r"mmdet 2\.x and 3\.x",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path: Path, change: Any, message: str) -> None:
    state = mmdet_state()
    change(state)
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.pth", tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]


class Log:
    """Something that only full unpickling brings back."""

    def __reduce__(self) -> Any:
        return eval, ("{'ran': True}",)


def test_what_only_full_unpickling_reads_needs_to_be_trusted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.pth"
    torch.save({"meta": {"log": Log()}, "state_dict": mmdet_state()}, file)
    with pytest.raises(ValueError, match=r"\((builtins\.)?eval\).*--trust-pickle") as refused:
        convert(file, tmp_path / "a")
    assert "\n" not in str(refused.value) and not (tmp_path / "a").exists()
    with caplog.at_level(logging.WARNING):
        assert convert(file, tmp_path / "a", trust_pickle=True).config == TINY
    assert "runs code that the file names" in caplog.text


def test_trusted_files_may_name_classes_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("absent_log")
    exec("class History(list):\n    pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "absent_log", module)
    torch.save({"meta": {"log": module.History()}, "state_dict": mmdet_state()}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, "absent_log")
    with pytest.raises(ValueError, match="--trust-pickle"):
        convert(tmp_path / "a.pth", tmp_path / "a")
    assert convert(tmp_path / "a.pth", tmp_path / "a", trust_pickle=True).num_tensors == len(mask2former_manifest(TINY))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "not a PyTorch checkpoint"),
        (b"PK\x03\x04abc", "truncated"),
        (pickle.dumps([1], protocol=2), "not readable as a checkpoint"),
        (b"\x80\x09abc", "not readable as a checkpoint"),
        (b"\x80\x02}q\x00(X\xff\xff\xff\x7f", "not readable as a checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        convert(tmp_path / "a.pth", tmp_path / "a")
    assert "\n" not in str(refused.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = mmdet_file(tmp_path / "a.pth")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="truncated"):
        convert(file, tmp_path / "a")


def test_a_name_with_another_digest_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = mmdet_file(tmp_path / "swin-s_20220504_001756-00000000.pth")
    digest = convert(file, tmp_path / "a").record["source"]["sha256"]
    assert f"begins with {digest[:8]}, not with 00000000" in caplog.text
    caplog.clear()
    convert(file.rename(tmp_path / f"swin-s-{digest[:8]}.pth"), tmp_path / "b")
    assert caplog.text == ""


def test_a_folder_with_other_things_is_left_alone_and_an_earlier_conversion_replaced(tmp_path: Path) -> None:
    file = mmdet_file(tmp_path / "a.pth")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="earlier conversion"):
        convert(file, tmp_path / "own")
    convert(file, tmp_path / "a")
    convert(file, tmp_path / "a", preprocess="mmdet2")
    assert read_preparation(tmp_path / "a").preprocess == "mmdet2"


def test_class_names_of_the_file_stay(tmp_path: Path) -> None:
    names = tuple(f"thing_{index}" for index in range(80))
    for number, meta in enumerate(({"dataset_meta": {"classes": names}}, {"CLASSES": names})):
        torch.save({"meta": meta, "state_dict": mmdet_state()}, tmp_path / "a.pth")
        folder = convert(tmp_path / "a.pth", tmp_path / f"folder{number}").folder
        assert json.loads((folder / "config.json").read_text())["id2label"]["79"] == "thing_79"
