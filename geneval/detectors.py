"""The tables of detectors and colour classifiers: name -> "module:attribute" of a class without required arguments."""

from typing import Any

from genloop.registry import lookup

DETECTORS = {
    "shapes": "genloop.shapes.detector:ShapesDetector",
}
COLOR_CLASSIFIERS = {
    "shapes": "genloop.shapes.detector:ShapesDetector",
}


def detector_class(name: str) -> Any:
    """The class behind a name; its `classes` are known without building it. Raises ValueError with a suggestion."""
    return lookup(DETECTORS, name, "detector")


def color_classifier_class(name: str) -> Any:
    """The class behind a name. Raises ValueError with a suggestion."""
    return lookup(COLOR_CLASSIFIERS, name, "colour classifier")
