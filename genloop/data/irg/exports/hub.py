"""The shards of traces as the package `datasets` loads them.

Traces have different numbers of images, so the package cannot infer the columns and has to be told:

    datasets.load_dataset("webdataset", data_files={"train": "RUN/shards/train/*.tar"}, features=columns(5))
"""

from typing import Any

from genloop.registry import require


def columns(num_images: int) -> Any:
    """`datasets.Features` of traces of at most so many images; the later ones of a trace that has fewer are None."""
    datasets = require("datasets", "corpus")
    texts = {"__key__": datasets.Value("string"), "json": datasets.Json(), "txt": datasets.Value("string")}
    return datasets.Features(texts | {f"{place}.png": datasets.Image() for place in range(num_images)})
