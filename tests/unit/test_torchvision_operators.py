"""A torchvision that was built for another torch can be imported once genloop was, by whatever package needs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT

BROKEN = """
import torch


@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty(0)


LOADED = True
"""


def outcome(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    (tmp_path / "torchvision" / "_C.so").write_bytes(b"made for another torch")
    (tmp_path / "user.py").write_text("import torchvision\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", ["", "from genloop.registry import require; require('user'); "])
def test_torchvision_of_another_build_can_be_imported_after_genloop(tmp_path, first):
    code = f"import genloop; {first}import user, torchvision; print(torchvision.LOADED, torchvision.__loader__)"
    done = outcome(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True <_frozen_importlib_external.SourceFileLoader")


def test_it_cannot_be_imported_without(tmp_path):
    assert "torchvision::nms does not exist" in outcome(tmp_path, "import torchvision").stderr


def test_neither_torch_nor_torchvision_is_imported_before_somebody_does(tmp_path):
    code = (
        "import sys, importlib.util, genloop, genloop.torchvision_operators as t; t.declare_before_torchvision()\n"
        "assert importlib.util.find_spec('torchvision') and not {'torch', 'torchvision'} & sys.modules.keys()\n"
        "print(sum(type(finder).__module__ == t.__name__ for finder in sys.meta_path))"
    )
    done = outcome(tmp_path, code)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.open_clip
@pytest.mark.parametrize("package", ["torchvision.transforms.v2", "timm", "open_clip", "transformers.models.clip"])
def test_packages_that_need_torchvision_can_be_imported_beside_the_one_installed(package):
    code = (
        f"import genloop, {package}; from transformers import CLIPModel, CLIPImageProcessor; print(CLIPModel.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "CLIPModel\n", done.stderr
