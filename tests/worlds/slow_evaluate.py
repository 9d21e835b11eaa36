"""The job `evaluate` with a detector that takes its time, so that a worker can be killed while it looks at a unit.

python -m tests.worlds.slow_evaluate images=RUN out=RUN2 detector=slow colors=shapes detector.options.seconds=0.1
"""

import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from geneval.detectors.tables import DETECTORS
from geneval.settings import PartMaker
from genloop.config import LAUNCH, Settings
from genloop.factories import Resolve
from genloop.job import run
from genloop.records import Detection
from genloop.shapes.detector import ShapesDetector
from genloop.shapes.scenes import SHAPES
from jobs.evaluate import Config, main

DETECTORS["slow"] = "tests.worlds.slow_evaluate:Slow"


class Slow(PartMaker):
    """Makes the detector below."""

    class Options(Settings):
        seconds: Annotated[float, LAUNCH] = Field(0.05, ge=0, description="how long it looks at an image")

    @classmethod
    def classes(cls, options: Any) -> Sequence[str]:
        """The shapes of the world."""
        return SHAPES

    @classmethod
    def load(cls, options: Any, resolve: Resolve, device: str) -> "SlowDetector":
        """Nothing to load."""
        return SlowDetector(options.seconds)


class SlowDetector(ShapesDetector):
    """The exact detector, image by image, each after a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Detection]]:
        """As the exact detector."""
        found = []
        for image in images:
            time.sleep(self.seconds)
            found += super().detect([image])
        return found


if __name__ == "__main__":
    run(main, Config)
