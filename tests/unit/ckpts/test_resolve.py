"""Names of checkpoints lead to folders whose content is what was registered."""

import pytest

from ckpts.resolve import REGISTRY, registry, resolve, verify

SHIPPED = sorted(name for name, entry in registry().items() if entry.source.startswith("shipped"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_checkpoint_is_complete_and_unchanged(name):
    verify(name)
    assert resolve(name) == REGISTRY.parent / name


def test_shipped_weights_stay_small_and_licensed():
    assert all(registry()[name].licence == "Apache-2.0" for name in SHIPPED)
    files = [path for path in (REGISTRY.parent / "shapes").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10 * 2**20


def test_a_path_that_exists_is_itself(tmp_path):
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_an_unknown_name_is_answered_with_the_closest():
    with pytest.raises(FileNotFoundError, match=r"'shapes/tokenizer'\? \(.*shapes/tokenizer"):
        resolve("shapes/tokeniser")
    with pytest.raises(FileNotFoundError, match="no checkpoint named"):
        verify("nowhere")


def own_registry(folder, digest):
    folder.mkdir(exist_ok=True)
    file = folder / "registry.yaml"
    file.write_text(f"a/b:\n  folder: a/b\n  licence: MIT\n  source: example\n  files:\n    w.bin: '{digest}'\n")
    return file


def test_missing_files_are_named_with_the_place_to_put_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"w\.bin .*a/b \(example\)"):
        resolve("a/b", path=own_registry(tmp_path, "0" * 64))


def test_one_that_a_command_makes_is_missed_with_that_command(tmp_path):
    file = own_registry(tmp_path, "0" * 64)
    file.write_text(file.read_text() + "  made_by: genloop ckpts convert FILE a/b\n")
    with pytest.raises(FileNotFoundError, match=r"'a/b' .*ckpts convert FILE a/b"):
        resolve("a/b", path=file)
    assert registry(file)["a/b"].made_by and not any("put " in entry.made_by for entry in registry().values())


def test_changed_files_are_named(tmp_path):
    file = own_registry(tmp_path, "0" * 64)
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/w.bin").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"'a/b': w\.bin"):
        verify("a/b", path=file)


def test_another_name_of_a_checkpoint_stands_for_the_same_folder(tmp_path):
    file = own_registry(tmp_path, "0" * 64)
    file.write_text(file.read_text().replace("'" + "0" * 64 + "'", "null") + "  also: [a/c]\n")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/w.bin").write_bytes(b"as published")
    assert resolve("a/c", path=file) == resolve("a/b", path=file) == tmp_path / "a/b"
    assert registry()["dpo_iter_parm_guide"] is registry()["dpo_iter_parm_gudie"]


def test_published_checkpoints_are_taken_with_whatever_content(tmp_path):
    file = own_registry(tmp_path, "0" * 64)
    file.write_text(file.read_text().replace(f"'{'0' * 64}'", "null"))
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/w.bin").write_bytes(b"as published")
    verify("a/b", path=file)
    assert resolve("a/b", path=file) == tmp_path / "a/b"


def test_a_folder_is_looked_for_in_checkpoint_dir_then_here_then_beside_the_registry(tmp_path, monkeypatch):
    file = own_registry(tmp_path / "package", "0" * 64)
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    monkeypatch.setenv("CHECKPOINT_DIR", str(elsewhere))
    places = [file.parent / "a/b", here / "ckpts/a/b", elsewhere / "a/b"]
    for place in places:
        place.mkdir(parents=True)
    monkeypatch.chdir(here)
    for place in places:  # an incomplete one is passed over
        (place / "w.bin").write_bytes(b"")
        assert resolve("a/b", path=file) == place


def test_a_shipped_model_that_no_registry_knows_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("ckpts/tiny/sd") == resolve("tiny/sd") == REGISTRY.parent / "tiny/sd"
