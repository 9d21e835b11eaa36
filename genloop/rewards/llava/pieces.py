"""Chats as chains of pieces: computed in batches under a token budget, with a least-recently-used cache of segments.

B = rows, T = image positions. Rows whose pieces have equal padded lengths share forward passes. When memory runs out,
the cache is cleared, the budget is halved, and the same rows are tried again in smaller batches.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from genloop.models.common.memory import Budget
from genloop.models.llava.config import LlavaConfig
from genloop.models.llava.model import Llava, image_features, tile_features
from genloop.models.llava.pixels import anyres_tiles, best_resolution, pad_tile
from genloop.models.llava.segments import Segment, extend_image, extend_text, padded_length
from genloop.models.showo.prefix import MIN_GEMM_ROWS

Tiling = Literal["pad", "anyres"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TextPiece:
    """At least one token id."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImagePiece:
    """An image, compared by the hash of its pixels."""

    digest: bytes
    pixels: np.ndarray = field(compare=False, repr=False)  # (H, W, 3) uint8


Chain = tuple[TextPiece | ImagePiece, ...]


def image_piece(pixels: np.ndarray) -> ImagePiece:
    """(H, W, 3) uint8 -> its piece; equal pixels give equal pieces."""
    head = str(pixels.shape).encode()
    return ImagePiece(hashlib.blake2b(head + pixels.tobytes(), digest_size=16).digest(), pixels)


class SegmentCache:
    """Chain -> its last segment. The least recently used are dropped when keys and values exceed `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size = capacity, 0
        self._segments: OrderedDict[Chain, Segment] = OrderedDict()

    def __len__(self) -> int:
        return len(self._segments)

    def get(self, chain: Chain) -> Segment | None:
        """The segment of a chain, None when it is not cached."""
        return self._segments.get(chain)

    def add(self, chain: Chain, segment: Segment) -> None:
        """Cache a segment, above the capacity too until `shrink`."""
        if chain not in self._segments:
            self.size += segment.num_bytes
            self._segments[chain] = segment

    def touch(self, chain: Chain) -> None:
        """Mark all prefixes recently used, parents last: a segment is dropped before its parents."""
        for end in range(len(chain), 0, -1):
            if chain[:end] in self._segments:
                self._segments.move_to_end(chain[:end])

    def shrink(self) -> None:
        """Drop the least recently used segments until the capacity is kept."""
        while self.size > self.capacity and self._segments:
            self.size -= self._segments.popitem(last=False)[1].num_bytes

    def clear(self) -> None:
        self._segments.clear()
        self.size = 0


class PieceRunner:
    """Computes the last segment of chains."""

    def __init__(
        self, model: Llava, config: LlavaConfig, tiling: Tiling, tokens_per_forward: int, cache_bytes: int
    ) -> None:
        self.model, self.config, self.tiling = model, config, tiling
        self.cache = SegmentCache(cache_bytes)
        self.budget = Budget(tokens_per_forward, "tokens_per_forward", self.cache.clear)

    def run(
        self, chains: Sequence[Chain], finish: Callable[[list[Segment]], list[R]], *, keep_last: bool = False
    ) -> list[R]:
        """`finish` of every chain's last segment, in order. Segments of all pieces but the last enter the cache.

        `keep_last` caches the last segment too, for chains that continue it.
        """

        def compute(batch: Sequence[Chain]) -> list[R]:
            with torch.inference_mode():
                return finish(self._segments(batch, keep_last))

        return self.budget.run(chains, self._num_positions, compute)

    def _num_positions(self, chain: Chain) -> int:
        return sum(
            len(piece.ids) + MIN_GEMM_ROWS  # with its pads at most
            if isinstance(piece, TextPiece)
            else self.config.num_image_positions * self._num_tiles(piece)
            for piece in chain
        )

    def _num_tiles(self, piece: ImagePiece) -> int:
        if self.tiling == "pad":
            return 1
        height, width = best_resolution(piece.pixels.shape[:2], self.config.pinpoints)
        return 1 + height * width // self.config.vision.image_size**2

    def _segments(self, chains: Sequence[Chain], keep_last: bool) -> list[Segment]:
        """The last segment of every chain, computed piece by piece for all chains together."""
        ready: dict[Chain, Segment] = {}
        pending: set[Chain] = set()
        for chain in chains:
            for end in range(len(chain), 0, -1):
                if (segment := self.cache.get(chain[:end])) is not None:
                    ready[chain[:end]] = segment
                    break
                pending.add(chain[:end])
        for end in range(1, max(map(len, chains)) + 1):
            ready |= self._extended([c for c in dict.fromkeys(c[:end] for c in chains) if c in pending], ready)
        for chain in chains:
            for end in range(1, len(chain) + keep_last):
                if chain[:end] in ready:
                    self.cache.add(chain[:end], ready[chain[:end]])
            self.cache.touch(chain)
        self.cache.shrink()
        return [ready[chain] for chain in chains]

    def _extended(self, chains: Sequence[Chain], ready: dict[Chain, Segment]) -> dict[Chain, Segment]:
        """The last segments of chains of one length whose parents are `ready`."""
        images = [chain[-1] for chain in chains if isinstance(chain[-1], ImagePiece)]
        features = self._features(list(dict.fromkeys(images)))
        groups: dict[tuple[bool, tuple[int, ...], int], list[Chain]] = {}
        for chain in chains:
            piece, parent = chain[-1], ready.get(chain[:-1])
            is_text = isinstance(piece, TextPiece)
            length = padded_length(len(piece.ids), parent) if isinstance(piece, TextPiece) else len(features[piece])
            groups.setdefault((is_text, parent.lengths if parent else (), length), []).append(chain)
        found: dict[Chain, Segment] = {}
        for (is_text, _, _), group in groups.items():
            parents = [ready.get(chain[:-1]) for chain in group]
            if is_text:
                texts = [chain[-1].ids for chain in group if isinstance(chain[-1], TextPiece)]
                segments = extend_text(self.model, parents, texts)
            else:
                rows = torch.stack([features[chain[-1]] for chain in group if isinstance(chain[-1], ImagePiece)])
                segments = extend_image(self.model, parents, rows)
            found |= zip(group, segments)
        return found

    def _features(self, pieces: Sequence[ImagePiece]) -> dict[ImagePiece, Tensor]:
        """The image features of each piece, (T, D)."""
        if not pieces:
            return {}
        size, device = self.config.vision.image_size, self.model.device
        if self.tiling == "pad":
            tiles = torch.stack([pad_tile(piece.pixels, size) for piece in pieces])
            return dict(zip(pieces, image_features(self.model, tiles.to(device))))
        cut = [anyres_tiles(piece.pixels, size, self.config.pinpoints) for piece in pieces]
        patches = tile_features(self.model, torch.cat(cut).to(device)).split([len(tiles) for tiles in cut])
        packed, _ = self.model.model.pack_image_features(
            list(patches),
            [piece.pixels.shape[:2] for piece in pieces],
            image_newline=self.model.model.image_newline,
            vision_aspect_ratio=self.config.vision_aspect_ratio,
        )
        return dict(zip(pieces, packed))
