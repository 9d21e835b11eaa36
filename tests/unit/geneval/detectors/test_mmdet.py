"""Files of mmdet, 2.x and 3.x, are read under one set of names, and what is not for GenEval is refused. No mmdet."""

import fractions
import pickle

import pytest
import torch

from geneval.detectors.mmdet import Mmdet, MmdetOptions, config_of, read_weights, their_names
from geneval.names import OBJECT_NAMES
from geneval.settings import DetectorSettings
from genloop.models.mask2former.mmdet_names import new_name
from tests.worlds.tiny_mask2former import TINY, mmdet_file, mmdet_state


def test_both_versions_give_the_same_tensors_without_counted_ones(tmp_path):
    old = read_weights(mmdet_file(tmp_path / "old.pth", version="2.x"))
    new = read_weights(mmdet_file(tmp_path / "new.pth"))
    assert list(old) == list(new) and all(torch.equal(old[key], new[key]) for key in new)
    assert not any("relative_position_index" in key or "attentions" in key or "ffns" in key for key in new)
    assert [new_name(key) for key in new] == list(new)
    state = mmdet_state(TINY)
    assert state.keys() - new.keys() == {key for key in state if "relative_position_index" in key}


def test_the_classes_are_cocos_in_cocos_words():
    assert len(their_names()) == 80
    assert {(ours, theirs) for ours, theirs in zip(OBJECT_NAMES, their_names()) if ours != theirs} == {
        ("computer mouse", "mouse"),
        ("tv remote", "remote"),
        ("computer keyboard", "keyboard"),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no state_dict of tensors"),
        ([1, 2], "no state_dict of tensors"),
        ({"state_dict": {"panoptic_head.cls_embed.weight": torch.zeros(11, 4)}}, "10 classes"),
        (
            {"meta": {"dataset_meta": {"classes": ("cat", "dog")}}, "state_dict": {"a": torch.zeros(1)}},
            r"2 classes, cat, dog, .*80",
        ),
        ({"meta": {"CLASSES": OBJECT_NAMES}, "state_dict": {"a": torch.zeros(1)}}, "80 classes, person, bicycle"),
    ],
)
def test_files_that_are_not_for_geneval_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / "file.pth")


def test_names_with_underscores_are_cocos_too(tmp_path):
    names = tuple(name.replace(" ", "_") for name in their_names())
    torch.save({"meta": {"dataset_meta": {"classes": names}}, "state_dict": {"a": torch.ones(1)}}, tmp_path / "f.pth")
    assert read_weights(tmp_path / "f.pth")["a"].item() == 1


def test_pickled_objects_are_only_read_when_somebody_says_so(tmp_path, caplog):
    file = tmp_path / "file.pth"
    torch.save({"meta": {"share": fractions.Fraction(1, 2)}, "state_dict": {"a": torch.ones(1)}}, file)
    with pytest.raises(ValueError, match=r"plain tensors.*trust_pickle=true"):
        read_weights(file)
    assert caplog.messages == []
    assert read_weights(file, trust_pickle=True)["a"].item() == 1
    assert "unpickled in full, which runs code that the file names" in caplog.text
    file.write_bytes(pickle.dumps(fractions.Fraction(1, 2))[:-10])
    with pytest.raises(ValueError, match=r"file\.pth: not readable"):
        read_weights(file, trust_pickle=True)


def test_torn_files_and_folders_are_refused(tmp_path):
    file = mmdet_file(tmp_path / "file.pth")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"file\.pth: truncated"):
        read_weights(file)
    with pytest.raises(ValueError, match=r"is a folder; .*detector=hf_mask2former"):
        Mmdet.check(MmdetOptions(checkpoint="somewhere"), lambda _: tmp_path)


def test_a_network_of_another_size_needs_a_config_of_its_own(tmp_path):
    tensors, options = read_weights(mmdet_file(tmp_path / "file.pth")), MmdetOptions(checkpoint="file.pth")
    with pytest.raises(ValueError, match=r"file\.pth: .*Swin has 2 blocks .*detector\.options\.config"):
        config_of(tensors, options, tmp_path.joinpath)
    own = MmdetOptions(checkpoint="file.pth", config="own.py")
    assert config_of(tensors, own, tmp_path.joinpath) == tmp_path / "own.py"


def test_its_settings_name_the_files_that_count(tmp_path):
    settings = DetectorSettings.model_validate({"kind": "mmdet", "options": {"checkpoint": "a.pth"}})
    assert Mmdet.inputs(settings.options, tmp_path.joinpath) == {"checkpoint": tmp_path / "a.pth"}
    own = MmdetOptions(checkpoint="a.pth", config="b.py")
    assert Mmdet.inputs(own, tmp_path.joinpath) == {"checkpoint": tmp_path / "a.pth", "config": tmp_path / "b.py"}
    assert Mmdet.classes(own) == OBJECT_NAMES
