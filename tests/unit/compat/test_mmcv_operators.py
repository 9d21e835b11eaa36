"""The stand-in for mmcv's compiled operators is there when they are not, and only then."""

import os
import subprocess
import sys
from pathlib import Path

from tests.runs import ROOT

SUM = """
def multi_scale_deformable_attn_pytorch(value, shapes, locations, weights):
    return value + shapes + locations + weights
"""


def outcome(folder: Path, code: str, *, compiled: bool) -> subprocess.CompletedProcess[str]:
    (folder / "mmcv" / "ops").mkdir(parents=True)
    for package in ("mmcv", "mmcv/ops", "mmdet"):
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "__init__.py").touch()
    (folder / "mmdet" / "__init__.py").write_text("from mmcv._ext import nms, ms_deform_attn_forward\n")
    (folder / "mmcv" / "ops" / "multi_scale_deform_attn.py").write_text(SUM)
    if compiled:
        (folder / "mmcv" / "_ext.py").write_text("nms = ms_deform_attn_forward = 'compiled'\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    code = f"from genloop.registry import require\nmmdet = require('mmdet', 'mmdet')\n{code}"
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)


def test_mmdet_can_be_imported_without_compiled_operators(tmp_path):
    code = (
        "import importlib.util\n"
        "print(mmdet.ms_deform_attn_forward(1, 20, 'unused', 300, 4000, 64))\n"
        "assert importlib.util.find_spec('mmcv._ext').name == 'mmcv._ext'\n"
        "mmdet.nms(1)"
    )
    done = outcome(tmp_path, code, compiled=False)
    assert done.stdout == "4321\n"
    assert done.stderr.endswith(
        "NotImplementedError: mmcv-lite has no operator nms; build mmcv with its operators to use it\n"
    )


def test_compiled_operators_are_left_alone(tmp_path):
    done = outcome(tmp_path, "print(mmdet.nms, mmdet.ms_deform_attn_forward)", compiled=True)
    assert done.stdout == "compiled compiled\n", done.stderr


def test_without_mmdet_the_extra_is_named():
    code = "from genloop.registry import require; require('mmdet', 'mmdet')"
    blocked = f"import sys; sys.modules['mmdet'] = sys.modules['mmcv'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "mmdet is not installed; run: pip install 'genloop[mmdet]'" in done.stderr
