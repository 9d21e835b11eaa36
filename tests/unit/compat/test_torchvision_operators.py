"""A torchvision that was built for another torch can be imported through `require`, by whatever package needs it."""

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


def test_torchvision_of_another_build_can_be_imported_through_require(tmp_path):
    code = "from genloop.registry import require; print(require('torchvision').LOADED)"
    done = outcome(tmp_path, code)
    assert done.stdout == "True\n", done.stderr


def test_it_cannot_be_imported_without(tmp_path):
    assert "torchvision::nms does not exist" in outcome(tmp_path, "import torchvision").stderr


def test_importing_genloop_imports_and_hooks_nothing(tmp_path):
    code = (
        "import sys; before = list(sys.meta_path); import genloop.registry\n"
        "assert sys.meta_path == before and not {'torch', 'torchvision'} & sys.modules.keys(); print('same')"
    )
    done = outcome(tmp_path, code)
    assert done.stdout == "same\n", done.stderr


@pytest.mark.open_clip
@pytest.mark.parametrize("package", ["torchvision.transforms.v2", "timm", "open_clip", "transformers.models.clip"])
def test_packages_that_need_torchvision_can_be_imported_beside_the_one_installed(package):
    code = (
        f"from genloop.registry import require; require({package!r}); "
        "from transformers import CLIPModel, CLIPImageProcessor; print(CLIPModel.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "CLIPModel\n", done.stderr
