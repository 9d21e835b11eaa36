"""`genloop ckpts`: the list, verification, conversion, and what is refused."""

import json
from pathlib import Path

import pytest

from ckpts.resolve import REGISTRY, missing_files, place, registry, state
from tests.runs import genloop
from tests.worlds.tiny_mask2former import mask2former_folder, mmdet_file

WIDE = {"COLUMNS": "1000"}  # no line is wrapped


def test_the_list_names_every_checkpoint_with_its_state_and_licence():
    done = genloop("ckpts", "list", **WIDE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(registry())
    for line, origin, entry in zip(lines[::2], lines[1::2], registry().values()):
        assert line.split(maxsplit=1)[1] == f"{state(entry)}; licence: {entry.licence}"
        assert state(entry) == ("not there" if missing_files(entry) else "there")
        assert origin.strip().startswith(entry.made_by) and origin.endswith(entry.source)


def test_what_an_incomplete_folder_lacks_is_listed_and_refused_by_verify(tmp_path):
    shards = {"weight_map": {"a": "model-00001.safetensors", "b": "model-00002.safetensors"}}
    folder, half = tmp_path / "llava-onevision", tmp_path / "parm.part"
    folder.mkdir()
    half.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps(shards))
    (folder / "model-00002.safetensors").touch()
    done = genloop("ckpts", "list", CHECKPOINT_DIR=str(tmp_path), **WIDE)
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[::2]}
    assert f"incomplete: {folder} lacks config.json, model-00001.safetensors;" in rows["llava-onevision"]
    assert "half fetched" in rows["parm"] and "not there" in rows["show-o"]
    (folder / "config.json").write_text("{}")
    done = genloop("ckpts", "verify", "llava-onevision", CHECKPOINT_DIR=str(tmp_path))
    assert done.returncode == 2 and "lacks model-00001.safetensors" in done.stderr


@pytest.mark.parametrize("text", ["", '{"weight_map": 3}', '{"weight_map": {"a": "/etc/passwd"}}', "{}"])
def test_a_damaged_list_of_files_is_missing_and_not_the_end_of_the_list(tmp_path, monkeypatch, text):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    folder = tmp_path / "llava-onevision"
    folder.mkdir()
    for name in ("fetched.json", "model.safetensors.index.json"):
        (folder / name).write_text(text)
    lacks = state(registry()["llava-onevision"])
    assert "fetched.json (damaged)" in lacks
    assert ("model.safetensors.index.json (damaged)" in lacks) == (text != "{}")


def test_shipped_weights_are_verified_by_name_and_folders_by_their_manifest(tmp_path):
    done = genloop("ckpts", "verify", "shapes/tokenizer", **WIDE)
    assert done.stdout.startswith("shapes/tokenizer: 3 files as registered, 2 files as they were written: "), (
        done.stderr
    )
    folder = mask2former_folder(tmp_path / "a")
    assert genloop("ckpts", "verify", str(folder), **WIDE).stdout == f"{folder}: 3 files as they were written\n"
    (folder / "config.json").write_text("{}")
    done = genloop("ckpts", "verify", str(folder), **WIDE)
    assert done.returncode == 2 and "files missing or changed since they were written: config.json" in done.stderr


def test_a_file_is_converted_and_said_to_be(tmp_path):
    file = mmdet_file(tmp_path / "a.pth", version="2.x")
    done = genloop("ckpts", "convert", "mask2former", str(file), str(tmp_path / "a"), "--preprocess", "mmdet3")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"{file}: mmdet 2.x, sha256 ")
    assert second == "Swin of 8 channels and 1-1-2-1 blocks, 9 queries, 80 classes; images as mmdet3 has them"
    assert third == f"{tmp_path / 'a'}: 200 tensors, every tensor placed"


def test_a_known_name_stands_for_the_folder_where_it_is_looked_for(tmp_path):
    assert place("mask2former-swin-s") == REGISTRY.parent / "mask2former-swin-s"
    assert place(str(tmp_path)) == tmp_path == place(Path(tmp_path))


def test_a_name_of_the_list_is_for_its_own_backbone(tmp_path):
    file = mmdet_file(tmp_path / "a.pth", version="2.x")
    done = genloop("ckpts", "convert", "mask2former", str(file), "mask2former-swin-t")
    assert done.returncode == 2 and done.stdout == ""
    what = "holds a Swin of 8 channels and 1-1-2-1 blocks, mask2former-swin-t is the name of a Swin-T; name another"
    assert done.stderr == f"genloop: {file} {what}\n"
    assert not place("mask2former-swin-t").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "mask3former", "a", "b"], "unknown kind of checkpoint 'mask3former'; did you mean 'mask2former'?"),
        (["convert", "mask2former", "nowhere.pth", "b"], "no file nowhere.pth"),
        (["convert", "mask2former", "README.md", "b"], "README.md: not a PyTorch checkpoint"),
        (
            ["convert", "mask2former", "README.md", "b", "--preprocess", "x"],
            "preprocess is 'x', expected one of mmdet3",
        ),
        (["verify", "shapes/tokeniser"], "did you mean 'shapes/tokenizer'?"),
        (["verify", "mask2former-swin-x"], "no checkpoint named 'mask2former-swin-x'; did you mean"),
        (["lst"], "invalid choice: 'lst'"),
        ([], "required: ACTION"),
    ],
)
def test_what_does_not_go_is_said_in_one_line(words, message):
    done = genloop("ckpts", *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("genloop: ") and done.stderr.count("\n") == 1 and message in done.stderr


def test_fetch_takes_names_or_a_preset_and_refuses_unknown_ones_first(tmp_path):
    done = genloop("ckpts", "fetch")
    assert done.returncode == 2 and "--for JOB/PRESET" in done.stderr
    done = genloop("ckpts", "fetch", "show-o", "sho-o")
    assert done.returncode == 2 and "did you mean 'show-o'" in done.stderr
    done = genloop("ckpts", "fetch", "shapes/showo")
    assert done.returncode == 0 and "shapes/showo: there already" in done.stderr
    done = genloop("ckpts", "fetch", "--for", "generate/shapes")
    assert done.returncode == 0 and "names no checkpoint that has to be fetched" in done.stdout
    done = genloop("ckpts", "fetch", "--for", "pipelines/tiny")
    assert done.returncode == 0 and "names no checkpoint that has to be fetched" in done.stdout
    done = genloop("ckpts", "fetch", "--for", "generate/shape")
    assert done.returncode == 2 and "did you mean" in done.stderr


def test_a_job_whose_weights_are_missing_names_the_command_that_fetches_them(tmp_path):
    prompts = "prompts=configs/prompts/shapes_tiny/generation_prompts.txt"
    done = genloop("run", "generate", "showo_256", f"out={tmp_path / 'a'}", prompts)
    assert done.returncode == 2 and "genloop ckpts fetch" in done.stderr


def test_what_a_pipeline_needs_is_what_it_and_the_presets_of_its_stages_name():
    from launch.commands.ckpts import _texts
    from launch.pipelines.drafts import pipeline_data

    named = set(_texts(pipeline_data("published_table")))
    assert {"show-o", "magvitv2", "parm", "orm_ft", "llava-onevision", "dpo_iter_parm_gudie"} <= named
    assert {"mask2former-swin-s", "clip-vit-large-patch14"} <= named  # of the preset evaluate/geneval
