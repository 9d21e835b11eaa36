"""Checkpoint folders: every public form loads, every torn or foreign file is refused in one line, writing is atomic."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from genloop import checkpoint, safetensors_file
from genloop.checkpoint import (
    MANIFEST_FILE,
    WEIGHTS_FILE,
    compare_manifest,
    find_weights,
    load_tensors,
    read_header,
    read_shapes,
    save_folder,
    verify_folder,
)
from genloop.reading import read_json_object
from genloop.rundir import sha256_file

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16), "n": torch.tensor(7)}
SHAPES = {"a.weight": (2, 3), "b": (4,), "n": ()}


def write_index(folder: Path, name: str, owner: dict[str, str]) -> None:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": owner}))


def whole_safetensors(folder: Path) -> None:
    save_file(TENSORS, folder / "model.safetensors")


def public_safetensors(folder: Path) -> None:
    save_file(TENSORS, folder / "pytorch_model.safetensors")


def whole_bin(folder: Path) -> None:
    torch.save(TENSORS, folder / "pytorch_model.bin")


def old_bin(folder: Path) -> None:
    torch.save(TENSORS, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def sharded_safetensors(folder: Path) -> None:
    save_file({"a.weight": TENSORS["a.weight"]}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": TENSORS["b"], "n": TENSORS["n"]}, folder / "model-00002-of-00002.safetensors")
    owner = {key: f"model-0000{1 if key == 'a.weight' else 2}-of-00002.safetensors" for key in TENSORS}
    write_index(folder, "model.safetensors.index.json", owner)


def sharded_bin(folder: Path) -> None:
    torch.save({"a.weight": TENSORS["a.weight"], "n": TENSORS["n"]}, folder / "one.bin")
    torch.save({"b": TENSORS["b"], "n": torch.tensor(0)}, folder / "two.bin")
    write_index(folder, "pytorch_model.bin.index.json", {"a.weight": "one.bin", "n": "one.bin", "b": "two.bin"})


FORMS = [whole_safetensors, public_safetensors, whole_bin, old_bin, sharded_safetensors, sharded_bin]


@pytest.mark.parametrize("write", FORMS)
def test_every_public_form_loads(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    loaded = load_tensors(tmp_path)
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype for key, value in TENSORS.items())


@pytest.mark.parametrize("write", FORMS)
def test_the_shapes_are_known_before_the_values_are_read(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    assert read_shapes(tmp_path) == SHAPES


def test_safetensors_win_over_bin(tmp_path: Path) -> None:
    whole_bin(tmp_path)
    whole_safetensors(tmp_path)
    assert find_weights(tmp_path).files == (tmp_path / "model.safetensors",)


def test_a_folder_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        find_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        find_weights(tmp_path / "nothing")


def torn(data: bytes, header: bytes) -> dict[str, bytes]:
    """Broken versions of a safetensors file."""
    body = data[8 + len(header) :]
    gap = header.replace(b'"data_offsets":[0', b'"data_offsets":[1')
    return {
        "empty": b"",
        "zeros": b"\x00" * 64,
        "cut in its header": data[:20],
        "cut": data[:-3],
        "too long": data + b"xx",
        "garbled": data[:8] + b"#" * len(header) + body,
        "without a shape": struct.pack("<Q", len(header)) + header.replace(b'"shape"', b'"shope"', 1) + body,
        "of other sizes": struct.pack("<Q", len(gap)) + gap + body,
        "with a gap": struct.pack("<Q", len(header)) + _shifted(header) + body + b"\0",
    }


def _shifted(header: bytes) -> bytes:
    """The last tensor one byte further on, in as many characters."""
    entries = json.loads(header)
    last = max((entry for key, entry in entries.items()), key=lambda entry: entry["data_offsets"])
    last["data_offsets"] = [offset + 1 for offset in last["data_offsets"]]
    return json.dumps(entries, separators=(",", ":")).encode().ljust(len(header))


@pytest.mark.parametrize("how", sorted(torn(bytes(64), b'{"a":{"data_offsets":[0,4]}}')))
def test_a_torn_file_is_refused_in_one_line(how: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4), "b": torch.ones(2, 2)}, path)
    data = path.read_bytes()
    header = data[8 : 8 + struct.unpack("<Q", data[:8])[0]]
    path.write_bytes(torn(data, header)[how])
    with pytest.raises(ValueError, match="no safetensors file") as caught:
        load_tensors(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[true],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[' + "9," * 100_000 + '1],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[' + "9" * 400 + '],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":' + "[" * 100_000 + '1,"data_offsets":[0,4]}',
        '{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}',
        '{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}',
        "7",
    ],
    ids=range(11),
)
def test_a_header_whose_sizes_are_none_is_refused_in_one_line(entry: str, tmp_path: Path) -> None:
    header = f'{{"a":{entry}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match=r"model\.safetensors: .*no safetensors file") as caught:
        read_shapes(tmp_path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("size", [0, 3, 100, 400])
def test_a_torn_bin_is_refused(size: int, tmp_path: Path) -> None:
    whole_bin(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="download it again"):
        read_shapes(tmp_path)
    with pytest.raises(ValueError, match="download it again"):
        load_tensors(tmp_path)


class Payload:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("run-by-a-checkpoint"),)


def test_a_bin_that_wants_to_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Payload()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not readable as plain tensors") as caught:
        load_tensors(tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run-by-a-checkpoint").exists()


def test_a_bin_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"state": {"a": torch.ones(1)}, "step": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="named tensors"):
        load_tensors(tmp_path)


def test_an_index_must_name_files_of_its_folder(tmp_path: Path) -> None:
    write_index(tmp_path, "model.safetensors.index.json", {"a": "../secret.safetensors"})
    with pytest.raises(ValueError, match="is not a file name"):
        find_weights(tmp_path)


def test_an_index_names_the_shards_that_are_not_there(tmp_path: Path) -> None:
    sharded_safetensors(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00002\.safetensors"):
        read_shapes(tmp_path)


def test_an_index_that_promises_more_than_its_shards_hold_is_refused(tmp_path: Path) -> None:
    sharded_safetensors(tmp_path)
    owner = read_json_object(tmp_path / "model.safetensors.index.json")["weight_map"]
    write_index(tmp_path, "model.safetensors.index.json", owner | {"more": "model-00001-of-00002.safetensors"})
    for read in (read_shapes, load_tensors):
        with pytest.raises(ValueError, match="index: more"):
            read(tmp_path)


def test_all_tensors_that_do_not_fit_are_listed() -> None:
    expected = {"a": (2, 3), "b": (4,), "c": (1,)}
    found = {"a": (3, 2), "c": (1,), "d": (5,)}
    with pytest.raises(ValueError, match="does not fit") as caught:
        compare_manifest(expected, found, "here")
    message = str(caught.value)
    assert "1 missing (b [4])" in message
    assert "1 unexpected (d [5])" in message
    assert "1 misshapen (a is [3, 2], expected [2, 3])" in message
    assert "\n" not in message


def test_long_lists_are_counted() -> None:
    expected = {f"t{i}": (i,) for i in range(25)}
    with pytest.raises(ValueError, match=r"25 missing \(t0 \[0\], .*t9 \[9\], and 15 more\)"):
        compare_manifest(expected, {}, "here")


def test_what_fits_passes() -> None:
    assert compare_manifest(SHAPES, dict(SHAPES), "here") is None


def test_a_saved_folder_reads_back_and_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "checkpoint"
    save_folder(folder, TENSORS, {"config.json": {"a": 1}, "tokenizer/vocab.txt": b"x\n"})
    assert {key: value.tolist() for key, value in load_tensors(folder).items()} == {
        key: value.tolist() for key, value in TENSORS.items()
    }
    assert read_json_object(folder / "config.json") == {"a": 1}
    assert set(read_json_object(folder / MANIFEST_FILE)) == {
        "config.json",
        "pytorch_model.safetensors",
        "tokenizer/vocab.txt",
    }
    assert verify_folder(folder) is None
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("chunk", [3, 1 << 24])
def test_weights_are_written_as_the_library_writes_them_and_hashed_in_one_pass(tmp_path, monkeypatch, chunk):
    numbers = torch.arange(24).reshape(4, 6) % 2
    tensors = {f"n.{name}": numbers.to(getattr(torch, name)) for name in safetensors_file._DTYPES}
    tensors |= {
        "Z": numbers.float().T,
        'é"\n': torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "a": numbers.half()[:, 2],
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "x", metadata={"format": "pt"})
    read = []
    monkeypatch.setattr(checkpoint, "_CHUNK", chunk)
    monkeypatch.setattr(checkpoint, "sha256_file", lambda path: read.append(path.name) or sha256_file(path))
    save_folder(tmp_path / "c", tensors, {"config.json": {}})
    assert (tmp_path / "c" / WEIGHTS_FILE).read_bytes() == (tmp_path / "x").read_bytes()
    assert read == ["config.json"]
    verify_folder(tmp_path / "c")


def test_a_full_disk_is_named(tmp_path):
    with pytest.raises(OSError) as caught:
        save_folder(tmp_path / "c", {}, weights="../../../../../../../../../../../dev/full")
    assert caught.value.filename


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    save_folder(tmp_path / "c", TENSORS, {"config.json": {"a": 1}})
    (tmp_path / "c" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"changed .*config\.json"):
        verify_folder(tmp_path / "c")


def test_a_manifest_that_names_nothing_verifies_nothing(tmp_path: Path) -> None:
    save_folder(tmp_path / "a", TENSORS)
    (tmp_path / "a" / MANIFEST_FILE).write_text("{}")
    with pytest.raises(ValueError, match=r"manifest\.json: names no files"):
        verify_folder(tmp_path / "a")


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    save_folder(tmp_path / "c", TENSORS, {"old.json": {}})
    save_folder(tmp_path / "c", {"a": torch.zeros(1)})
    assert load_tensors(tmp_path / "c").keys() == {"a"}
    assert not (tmp_path / "c" / "old.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_failed_save_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    save_folder(tmp_path / "c", TENSORS)
    with pytest.raises(TypeError):
        save_folder(tmp_path / "c", {"a": torch.zeros(1)}, {"config.json": {"not": {1, 2}}})
    assert load_tensors(tmp_path / "c").keys() == TENSORS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_two_saves_write_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_folder(tmp_path / name, TENSORS, {"config.json": {"a": 1}})
    assert (tmp_path / "one" / MANIFEST_FILE).read_bytes() == (tmp_path / "two" / MANIFEST_FILE).read_bytes()


def test_a_header_alone_is_read(tmp_path: Path) -> None:
    whole_safetensors(tmp_path)
    assert read_header(tmp_path / "model.safetensors") == SHAPES


@pytest.mark.parametrize("save", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("a.weight", torch.tensor([1.0, float("nan"), 2.0]), "a.weight' holds NaN"),
        ("scale", torch.tensor(float("-inf")), "scale' holds NaN or infinity"),
        ("a.bias", torch.tensor([1.0, float("inf")], dtype=torch.bfloat16), "a.bias' holds NaN or infinity"),
        ("a.weight", torch.ones(3, dtype=torch.int64), "a.weight' holds no floating-point"),
        ("a.bias", torch.ones(3, dtype=torch.bool), "a.bias' holds no floating-point"),
        ("a.weight", torch.ones(0, 4), "a.weight' of shape .0, 4. holds no values"),
    ],
)
def test_weights_that_cannot_be_any_are_refused_with_their_name(
    save: str, key: str, tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    tensors = {"first": torch.ones(2), key: tensor, "last": torch.ones(2)}
    if save == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message) as caught:
        load_tensors(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_large_values_whole_buffers_and_infinite_masks_are_loaded(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.full((9,), 3e38),
        "position_ids": torch.arange(3),
        "attn_mask": torch.tensor(-torch.inf),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    assert load_tensors(tmp_path).keys() == tensors.keys()
