"""Two answers to a question about an image, the better one known, and collections of them."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genloop.data.image_reader import UnreadableImage, decode_image

COMMON = 20  # images that a question of its own is about, at most: MathVerse asks in up to six forms


@dataclass(frozen=True, slots=True)
class ResponsePair:
    """One row. `best` is the place of the answer that people prefer; ids of published sets are not unique.

    Where `is_drawn` the query is a prompt, the answers are images, and their texts are empty.
    """

    id: str
    query: str
    responses: tuple[str, str]
    best: int
    group: str  # accuracies are told for each, and their mean is the macro accuracy
    source: str  # the data set that the question is from
    is_drawn: bool = False


class ResponsePairs:
    """A collection in the order of its file; `left_out` says how many rows it holds that cannot be judged."""

    def __init__(
        self,
        pairs: Sequence[ResponsePair],
        image_bytes: Callable[[int], bytes | None],
        *,
        where: str,
        left_out: int = 0,
        drawn_bytes: Callable[[int], Sequence[bytes]] = lambda number: (),
    ) -> None:
        self._pairs, self.image_bytes, self.where, self.left_out = pairs, image_bytes, where, left_out
        self._drawn_bytes = drawn_bytes

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, number: int) -> ResponsePair:
        return self._pairs[number]

    def __iter__(self) -> Iterator[ResponsePair]:
        return iter(self._pairs)

    def _decoded(self, number: int, data: bytes) -> np.ndarray:
        try:
            return decode_image(data)
        except UnreadableImage as error:
            raise ValueError(f"{self.where}: row {number}, id {self[number].id}: image: {error}") from None

    @cached_property
    def _shas(self) -> list[str | None]:
        images = map(self.image_bytes, range(len(self)))
        return [None if data is None else hashlib.sha256(data).hexdigest() for data in images]

    def image(self, number: int) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB, None for a question without an image; ValueError names the row of a broken one."""
        data = self.image_bytes(number)
        return None if data is None else self._decoded(number, data)

    def drawn(self, number: int) -> list[np.ndarray]:
        """Both answers that are images, (H, W, 3) uint8 RGB; none where they are texts."""
        return [self._decoded(number, data) for data in self._drawn_bytes(number)]

    def image_sha(self, number: int) -> str | None:
        """The sha256 of the image's bytes."""
        return self._shas[number]

    def images_sha(self) -> str:
        """A sha256 of all images in order."""
        shas = [str(self.image_sha(number)) for number in range(len(self))]
        shas += [hashlib.sha256(data).hexdigest() for n in range(len(self)) for data in self._drawn_bytes(n)]
        return hashlib.sha256("\n".join(shas).encode()).hexdigest()

    def clusters(self) -> np.ndarray:
        """(N,) int: rows about one image, or with one question about none, have one number: they are not independent.

        Questions that are asked about many images, such as to describe them, do not join those.
        """
        return _numbered([self.image_sha(number) or _words(pair) for number, pair in enumerate(self)])

    def leak_groups(self) -> np.ndarray:
        """(N,) int: rows that share an image or a question, directly or through other rows, have one number.

        Folds that keep them together leak neither. A question about more than COMMON images, such as to describe them,
        says nothing about its answers and joins no rows: 410 rows of VL-RewardBench ask the same.
        """
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        images, words = self.clusters(), _numbered([_words(pair) for pair in self])
        about = np.unique([words, images], axis=1)[0]  # a question as often as it is asked about another image
        ends = np.array([images, words + len(self)])[:, np.bincount(about)[words] <= COMMON]
        size = 2 * len(self)  # nodes of a graph of images and questions
        links = coo_matrix((np.ones(ends.shape[1]), tuple(ends)), shape=(size, size))
        return _numbered(connected_components(links, directed=False)[1][images].tolist())


def _words(pair: ResponsePair) -> str:
    return " ".join(pair.query.lower().split())


def _numbered(keys: Iterable[object]) -> np.ndarray:
    """Equal keys -> equal numbers, 0 for the first"""
    first: dict[object, int] = {}
    return np.array([first.setdefault(key, len(first)) for key in keys], dtype=np.int64)
