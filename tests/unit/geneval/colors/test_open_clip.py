"""Colours by CLIP through open_clip, and that transformers gives the same. Run with: pytest -m open_clip"""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geneval.canary.check import AS_RECORDED, CanaryFailed, observe_colors, run_canary
from geneval.canary.records import Part, write_record
from geneval.colors.clip import ClipColorMaker, ClipOptions
from geneval.colors.zero_shot import color_texts
from geneval.names import OBJECT_NAMES
from geneval.settings import Evaluator
from geneval.verdict import VerdictOptions
from genloop.models.clip.config import ARCHITECTURES
from genloop.models.clip.load import load_clip
from genloop.models.clip.towers import load_clip_transformers
from genloop.records import color_names
from genloop.registry import require
from genloop.shapes.detector import ShapesDetector
from tests.unit.geneval.colors.test_clip import requests
from tests.worlds.tiny_clip import (
    color_tensors,
    transformers_tensors,
    write_clip_folder,
    write_tokenizer,
    write_transformers_folder,
)

pytestmark = pytest.mark.open_clip
MERGES = 49152 - 256 - 2  # how many of the file's merges CLIP uses


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same weights and the whole vocabulary, in both layouts."""
    torch.set_num_threads(1)
    top = tmp_path_factory.mktemp("clip")
    packed = Path(require("open_clip", "clip").__path__[0]) / "bpe_simple_vocab_16e6.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")
    theirs = write_transformers_folder(top / "transformers")
    write_tokenizer(theirs, lines[1 : MERGES + 1])
    return {"open_clip": write_clip_folder(top / "open_clip"), "transformers": theirs}


def test_both_cut_texts_into_the_same_tokens(folders):
    one = load_clip(folders["open_clip"], published_as="openai").tokenizer
    other = load_clip_transformers(folders["transformers"], published_as="openai").tokenizer
    texts = [text for name in OBJECT_NAMES for text in color_texts(name)] + ["It's 3 o'clock,   isn't it?"]
    a, b = one(texts), other(texts)
    ends = a.argmax(dim=1)
    assert torch.equal(ends, b.argmax(dim=1)) and all(
        torch.equal(x[: n + 1], y[: n + 1]) for x, y, n in zip(a, b, ends)
    )


def test_both_give_the_same_vectors(folders):
    one = load_clip(folders["open_clip"], published_as="openai")
    other = load_clip_transformers(folders["transformers"], published_as="openai")
    texts = color_texts("traffic light")
    assert torch.allclose(one.embed_texts(texts), other.embed_texts(texts), atol=1e-6)
    images = [image for image, _ in requests()]
    assert torch.allclose(one.embed_images(images), other.embed_images(images), atol=1e-6)
    assert one.flops == other.flops > 0


def test_both_name_the_same_colours(folders):
    answers = []
    for backend, folder in folders.items():
        options = ClipOptions(checkpoint=str(folder), backend=backend, architecture=None)
        ClipColorMaker.check(options, Path)
        answers.append(ClipColorMaker.load(options, Path, "cpu").scores(requests()))
    for one, other in zip(*answers, strict=True):
        assert np.abs(one - other).max(initial=0) < 1e-4
        assert color_names(one) == color_names(other)


def test_both_pass_the_canary_and_each_is_held_by_the_record_of_the_other(folders, tmp_path, monkeypatch):
    tensors = color_tensors(load_clip_transformers(folders["transformers"]))
    folders = {
        "open_clip": write_clip_folder(tmp_path / "open_clip", tensors=tensors),
        "transformers": shutil.copytree(folders["transformers"], tmp_path / "transformers"),
    }
    save_file(transformers_tensors(tensors), folders["transformers"] / "model.safetensors")
    part = Part("colors", "clip", {}, {"checkpoint": "ab" * 32}, tmp_path / "clip.canary.json")

    def shown(backend):
        options = ClipOptions(checkpoint=str(folders[backend]), backend=backend, architecture=None)
        return Evaluator(ShapesDetector(), ClipColorMaker.load(options, Path, "cpu"), VerdictOptions())

    for recorded, other in (("open_clip", "transformers"), ("transformers", "open_clip")):
        write_record(part, run_canary(shown(recorded), {"colors": part}, recording=True)["colors"].seen, {})
        assert run_canary(shown(other), {"colors": part})["colors"].outcome == AS_RECORDED
    monkeypatch.setattr("genloop.models.clip.load._network", lambda library, config, quick_gelu: library.CLIP(**config))
    monkeypatch.setattr("genloop.models.clip.load._is_quick", lambda library, network: True)
    assert not observe_colors(shown("open_clip").colors).problems  # plain GELU looks as plausible
    with pytest.raises(CanaryFailed, match=r"activation \(QuickGELU\)"):
        run_canary(shown("open_clip"), {"colors": part})


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_sizes_of_openais_models_are_those_of_open_clip(name):
    config = require("open_clip", "clip").get_model_config(name)
    ours = ARCHITECTURES[name]
    assert {**ours["vision_cfg"]}.items() <= config["vision_cfg"].items()
    assert ours["text_cfg"] == config["text_cfg"] and ours["embed_dim"] == config["embed_dim"]


def test_openais_activation_is_forced_and_looked_for(folders, monkeypatch):
    open_clip = require("open_clip", "clip")
    quick = load_clip(folders["open_clip"], published_as="openai").network
    kinds = {type(module).__name__ for module in quick.modules() if "GELU" in type(module).__name__}
    assert kinds == {"QuickGELU"}
    monkeypatch.setattr("genloop.models.clip.load._network", lambda library, config, quick_gelu: library.CLIP(**config))
    with pytest.raises(ValueError, match="'openai' need QuickGELU"):
        load_clip(folders["open_clip"], published_as="openai")
    assert open_clip.get_pretrained_cfg("ViT-L-14", "openai")["quick_gelu"]


def test_the_defaults_are_genevals_clip(tmp_path):
    options = ClipOptions(checkpoint="x")
    assert (options.backend, options.architecture, options.pretrained) == ("open_clip", "ViT-L-14", "openai")
    folder = write_clip_folder(tmp_path / "clip")
    with pytest.raises(ValueError, match=r"does not fit .* misshapen \(positional_embedding is \[77, 32\]"):
        ClipColorMaker.load(options, lambda _: folder, "cpu")
