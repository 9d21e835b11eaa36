"""An image as InstructBLIP takes it: one size, and the question that the Q-Former reads beside it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genloop.models.common.pretrained import errors_in_one_line
from genloop.models.instructblip.config import QUESTIONS
from genloop.models.qwen.config import ChatFolder
from genloop.models.qwen.images import PatchedImage, Pictures
from genloop.records import ChatTurn
from genloop.registry import require


class InstructPictures(Pictures):
    """Images of any size are resized to the one size of the vision tower, as published."""

    def __init__(self, folder: ChatFolder) -> None:
        place, self._queries = folder.folder, int(folder.config.get("num_query_tokens", 32))
        self._longest = int(folder.config["qformer_config"].get("max_position_embeddings", 512))
        with errors_in_one_line(place / "preprocessor_config.json"):
            kind = require("transformers").BlipImageProcessorPil
            self._processor: Any = kind.from_pretrained(str(place), local_files_only=True)
        with errors_in_one_line(place / QUESTIONS):
            kind = require("transformers").AutoTokenizer
            self._questions: Any = kind.from_pretrained(str(place / QUESTIONS), local_files_only=True)

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """The query tokens in a row, whatever the size."""
        return 1, 1, self._queries

    def num_tokens(self, grid: tuple[int, int, int]) -> int:
        return self._queries

    def take(self, image: np.ndarray) -> PatchedImage:
        """(H, W, 3) uint8 -> a picture that nothing was asked about yet."""
        found = self._processor.preprocess([require("PIL.Image").fromarray(image)], return_tensors="np")
        pixels = torch.from_numpy(np.ascontiguousarray(found["pixel_values"][0]))
        return PatchedImage(pixels, self.grid(*image.shape[:2]), self._queries, self._read(""))

    def asked(self, images: Sequence[PatchedImage], messages: Sequence[ChatTurn]) -> list[PatchedImage]:
        """Pictures with the question about them; its end is cut where the Q-Former has no more places."""
        texts = [message.text for message in messages for _ in message.images]
        return [replace(image, question=self._read(text)) for image, text in zip(images, texts, strict=True)]

    def positions(self, kinds: np.ndarray, grids: Sequence[tuple[int, int, int]]) -> np.ndarray:
        """In line with the text."""
        return np.arange(len(kinds))

    def _read(self, text: str) -> Tensor:
        ids = self._questions(text, truncation=True, max_length=self._longest)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64)
