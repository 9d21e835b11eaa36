"""`detector=mmdet`: GenEval's detector in the software that it was published with, to audit `hf_mask2former` by.

mmdet 3.3 runs one image after the other through its own pipeline, without thresholds. Files of mmdet 2.x, which GenEval
names, hold the same network under other names; mmdet 3.x itself would leave those tensors at random without a word.

    detector.kind=mmdet detector.options.checkpoint=FILE.pth
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from geneval.judging import no_numbers
from geneval.names import OBJECT_NAMES
from geneval.settings import PartMaker
from genloop.checkpoint import compare_manifest
from genloop.compat.pickled import load_pickled
from genloop.config import LAUNCH, Settings
from genloop.factories import Resolve
from genloop.models.mask2former.mmdet_names import BUFFER, class_names, new_name
from genloop.records import Detection, Wanted
from genloop.registry import check_installed, require
from genloop.rundir import BadInput

if TYPE_CHECKING:
    from torch import Tensor

PACKAGED = "mask2former/mask2former_swin-{}-p4-w7-224_8xb2-lsj-50e_coco.py"  # below the configs that mmdet brings along
_SWINS = {6: "t", 18: "s"}  # by the number of blocks in the third stage
_BLOCK = re.compile(r"backbone\.stages\.2\.blocks\.(\d+)\.")
_CLASSIFIER = "panoptic_head.cls_embed.weight"
_THEIR_NAMES = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}


class MmdetOptions(Settings):
    """Which network of mmdet, with which weights."""

    checkpoint: Annotated[str, LAUNCH] = Field(description="the published .pth file, of mmdet 2.x or 3.x")
    config: Annotated[str | None, LAUNCH] = Field(None, description="mmdet 3.x config; null: its own of Swin-S or -T")
    trust_pickle: Annotated[bool, LAUNCH] = Field(False, description="run what is pickled in the file, to read it")


class Mmdet(PartMaker):
    """Makes the detector below."""

    Options = MmdetOptions

    @classmethod
    def check(cls, options: MmdetOptions, resolve: Resolve) -> None:
        """The packages and files are there, the weights are GenEval's, and there is a config for their sizes.

        A file that is to be unpickled is only looked at when it is loaded.
        """
        for path in cls.inputs(options, resolve).values():
            if not path.is_file():
                raise ValueError(f"{path} is a folder; mmdet reads a file, detector=hf_mask2former a converted folder")
        for package in ("mmdet", "mmcv", "mmengine"):
            check_installed(package, "mmdet")
        if not options.trust_pickle:
            config_of(read_weights(resolve(options.checkpoint)), options, resolve)

    @classmethod
    def inputs(cls, options: MmdetOptions, resolve: Resolve) -> dict[str, Path]:
        """The weights, and the config when it is not mmdet's own."""
        given = {"checkpoint": options.checkpoint, "config": options.config}
        return {key: resolve(name) for key, name in given.items() if name is not None}

    @classmethod
    def classes(cls, options: MmdetOptions) -> Sequence[str]:
        """GenEval's names, of which mmdet has 18 in other words."""
        return OBJECT_NAMES

    @classmethod
    def load(cls, options: MmdetOptions, resolve: Resolve, device: str) -> "MmdetDetector":
        source = resolve(options.checkpoint)
        tensors = read_weights(source, trust_pickle=options.trust_pickle)
        return MmdetDetector(*_build(config_of(tensors, options, resolve), tensors, source, device))


def config_of(tensors: "Mapping[str, Tensor]", options: MmdetOptions, resolve: Resolve) -> Path:
    """The config file that is named, or mmdet's own for a backbone of that depth; ValueError when it has none."""
    if options.config is not None:
        return resolve(options.config)
    depth = len({found[1] for key in tensors if (found := _BLOCK.match(key))})
    if depth not in _SWINS:
        raise ValueError(
            f"{options.checkpoint}: its Swin has {depth} blocks in the third stage, mmdet brings configs for "
            "6 (Swin-T) and 18 (Swin-S); name one that fits as detector.options.config"
        )
    return packaged_config(_SWINS[depth])


def packaged_config(size: str) -> Path:
    """mmdet's own config for Swin-T ("t") or Swin-S ("s")."""
    spec = importlib.util.find_spec("mmdet")
    assert spec is not None and spec.origin is not None, "mmdet is not installed"
    return Path(spec.origin).parent / ".mim" / "configs" / PACKAGED.format(size)


class MmdetDetector:
    """Implements the Detector and Selective protocols."""

    classes: Sequence[str] = OBJECT_NAMES
    one_by_one = True

    def __init__(self, model: Any, pipeline: Any) -> None:
        self.model, self.pipeline = model, pipeline

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """Images (H, W, 3) uint8 RGB, sizes may differ -> all that mmdet returns, a hundred of each, unsorted."""
        return self.detect_for(images, [Wanted(float("-inf"), frozenset(OBJECT_NAMES))] * len(images))

    def detect_for(self, images: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[list[Detection]]:
        """As `detect`, one `wanted` an image: only what is above its threshold, masks only of its classes."""
        return [list(self._detect(image, asked)) for image, asked in zip(images, wanted, strict=True)]

    def _detect(self, image: np.ndarray, wanted: Wanted) -> Iterator[Detection]:
        from genloop.models.common.precision import strict_float32

        run = require("mmdet.apis", "mmdet").inference_detector
        with strict_float32(next(self.model.parameters()).device):
            # Without a pipeline of its own it would change the config, so that files could not be read any more.
            found = run(self.model, np.ascontiguousarray(image[..., ::-1]), test_pipeline=self.pipeline).pred_instances
        scores = found.scores.cpu().numpy()  # (N,) float32
        if not np.isfinite(scores).all():
            raise no_numbers("the detector's scores")
        boxes, labels = found.bboxes.tolist(), found.labels.tolist()
        for place in np.flatnonzero(scores > np.float32(wanted.threshold)).tolist():
            name = OBJECT_NAMES[labels[place]]
            mask = found.masks[place].cpu().numpy() if "masks" in found else None  # (H, W) bool
            area = None if mask is None else int(mask.sum())
            x1, y1, x2, y2 = boxes[place]
            kept = mask if name in wanted.masks_of else None
            yield Detection(name, float(scores[place]), (x1, y1, x2, y2), kept, area)


def read_weights(path: Path, *, trust_pickle: bool = False) -> "dict[str, Tensor]":
    """The tensors of a published file under mmdet 3.x's names; ValueError when it is none, or finds other classes."""
    content = load_pickled(path, trust=trust_pickle, how="use trust_pickle=true")
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(hasattr(value, "shape") for value in state.values()):
        raise ValueError(f"{path}: no state_dict of tensors; use a file that mmdet has written")
    tensors = {new_name(key): value for key, value in state.items() if not key.endswith(BUFFER)}
    names = class_names(content.get("meta"))
    if names is not None and [name.replace("_", " ") for name in names] != their_names():
        raise ValueError(f"{path}: finds {len(names)} classes, {', '.join(names[:3])}, ...; GenEval needs COCO's 80")
    if _CLASSIFIER in tensors and len(tensors[_CLASSIFIER]) != len(OBJECT_NAMES) + 1:
        raise ValueError(f"{path}: finds {len(tensors[_CLASSIFIER]) - 1} classes; GenEval needs COCO's 80")
    return tensors


def their_names() -> list[str]:
    """The classes as COCO calls them, in the same order."""
    return [_THEIR_NAMES.get(name, name) for name in OBJECT_NAMES]


def _build(config_file: Path, tensors: "Mapping[str, Tensor]", source: Path, device: str) -> tuple[Any, Any]:
    """The network with its weights, and the pipeline from an array to its input."""
    config = require("mmengine.config").Config.fromfile(config_file)
    config.model.backbone.init_cfg = None  # or it would fetch what the training started from
    require("mmengine.registry").init_default_scope(config.get("default_scope", "mmdet"))
    model = require("mmdet.registry").MODELS.build(config.model)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.endswith(BUFFER)}
    try:
        compare_manifest(shapes, {key: tuple(value.shape) for key, value in tensors.items()}, source, config_file)
    except ValueError as error:
        raise BadInput(str(error)) from None
    model.load_state_dict(tensors, strict=False)  # the buffers alone are not there
    model.cfg = config
    steps = config.copy().test_dataloader.dataset.pipeline
    pipeline = require("mmcv.transforms", "mmdet").Compose(
        [{**steps[0], "type": "mmdet.LoadImageFromNDArray"}, *steps[1:]]
    )
    return model.to(device).eval().requires_grad_(False), pipeline
