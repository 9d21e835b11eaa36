"""Scores that nobody pays for twice: a folder of answers, keyed by content, shared by any number of workers.

A key is the sha256 of everything that an answer depends on: the judge (its kind, options and files), the question and
its wording, the prompt, the 8-bit pixels. Every process appends to a segment of its own, FOLDER/HOST-PID-RANDOM.scores,
one line an answer: key, float32 and checksum in hexadecimal. Nothing is locked or rewritten, so that any file system
does, and a process that is killed loses the line that it was writing. NaN, "could not be judged", is never kept.
"""

import hashlib
import json
import logging
import os
import socket
import struct
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genloop.data.images import to_uint8
from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.rewards.questions import Questions

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
SUFFIX = ".scores"
_LINE_LENGTH = 64 + 1 + 8 + 1 + 8  # key, float32, CRC-32 of both; without the newline


class ScoreStore:
    """Key -> float32, in memory (the least recently used go first) and, with a folder, on disk for everybody."""

    def __init__(self, folder: Path | None, *, capacity: int = 1_000_000, refresh_seconds: float = 5.0) -> None:
        self.folder, self.capacity, self.refresh_seconds = folder, capacity, refresh_seconds
        self._scores: OrderedDict[bytes, float] = OrderedDict()
        self._read: dict[str, int] = {}  # segment -> bytes that were read
        self._segment: tuple[int, int, str] | None = None  # (process, file descriptor, name) of what this one writes
        self._writes, self._refreshed, self._is_full = folder is not None, -float("inf"), False
        self._lock = threading.RLock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.refresh()

    def find(self, keys: Sequence[bytes]) -> list[float | None]:
        """The score of each key; None where nobody has asked yet."""
        with self._lock:
            if any(key not in self._scores for key in keys):
                self._refresh_at_times()
            for key in keys:
                if key in self._scores:
                    self._scores.move_to_end(key)
            return [self._scores.get(key) for key in keys]

    def add(self, scores: Mapping[bytes, float]) -> None:
        """Keep scores, those that are NaN excepted."""
        kept = {key: score for key, score in scores.items() if score == score}
        with self._lock:
            self._remember(kept)
            if kept and self._writes:
                self._append(b"".join(_line(key, score) for key, score in kept.items()))

    def _refresh_at_times(self) -> None:
        """A folder that cannot be read any more costs what others know, not the run."""
        if self.folder is None or time.monotonic() - self._refreshed < self.refresh_seconds:
            return
        try:
            self.refresh()
        except OSError as error:
            log.warning("score cache: cannot read %s (%s); going on without", self.folder, error.strerror)

    def refresh(self) -> None:
        """Read what other processes have added since the last time."""
        assert self.folder is not None
        with self._lock:
            self._refreshed = time.monotonic()
            own = self._segment[2] if self._segment and self._segment[0] == os.getpid() else None
            with os.scandir(self.folder) as entries:
                sizes = {e.name: e.stat().st_size for e in entries if e.name.endswith(SUFFIX) and e.name != own}
            for name in sorted(sizes):
                if sizes[name] > self._read.get(name, 0):
                    self._read_segment(name)

    def _read_segment(self, name: str) -> None:
        assert self.folder is not None
        with open(self.folder / name, "rb") as file:
            file.seek(self._read.get(name, 0))
            whole = file.read().rpartition(b"\n")[0]  # the last line may still be on its way
        if not whole:
            return
        self._read[name] = self._read.get(name, 0) + len(whole) + 1
        rows = [_parse(line) for line in whole.split(b"\n")]
        self._remember(dict(row for row in rows if row is not None))
        if num_bad := rows.count(None):
            log.warning("score cache: %d damaged lines in %s are ignored", num_bad, self.folder / name)

    def _remember(self, scores: Mapping[bytes, float]) -> None:
        self._scores.update(scores)
        while len(self._scores) > self.capacity:
            self._scores.popitem(last=False)
            if not self._is_full:
                log.warning("score cache: more than %d scores; the oldest will be asked for again", self.capacity)
                self._is_full = True

    def _append(self, lines: bytes) -> None:
        """A full disk costs the cache, not the run."""
        try:
            descriptor = self._own_segment()
            while lines:
                lines = lines[os.write(descriptor, lines) :]
        except OSError as error:
            log.warning("score cache: cannot write to %s (%s); going on without", self.folder, error.strerror)
            self._writes = False

    def _own_segment(self) -> int:
        """The file descriptor of this process's segment; a forked process opens one of its own."""
        assert self.folder is not None
        if self._segment is None or self._segment[0] != os.getpid():
            name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"
            descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            self._segment = (os.getpid(), descriptor, name)
        return self._segment[1]


class CachedJudge:
    """A judge that remembers its answers. What else it can do, it does as before."""

    def __init__(self, judge: Judge, store: ScoreStore, fingerprint: str, *, by_metadata: bool = False) -> None:
        self.judge, self.store, self.fingerprint, self.by_metadata = judge, store, fingerprint, by_metadata

    def __getattr__(self, name: str) -> Any:
        return getattr(self.judge, name)

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,) float32; only what is not known is asked for."""
        keys = [self._key(question, prompt, image) for prompt, image in zip(prompts, to_uint8(images), strict=True)]

        def ask(rows: list[int]) -> "Tensor":
            return self.judge.p_yes(question, [prompts[row] for row in rows], images[rows])

        return self._answers(keys, ask, images)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """What the answers take when they have to be asked for: a cost that does not depend on the cache."""
        return self.judge.flops(questions, prompt)

    def _answers(self, keys: Sequence[bytes], ask: "Callable[[list[int]], Tensor]", images: "Tensor") -> "Tensor":
        """Keys that are equal are asked for once."""
        import torch

        known = self.store.find(keys)
        rows: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if known[row] is None:
                rows.setdefault(key, row)
        fresh = dict(zip(rows, ask(list(rows.values())).float().tolist(), strict=True)) if rows else {}
        self.store.add(fresh)
        answers = [fresh[key] if score is None else score for key, score in zip(keys, known)]
        return torch.tensor(answers, dtype=torch.float32, device=images.device)

    def _key(self, question: str, prompt: Prompt, *images: np.ndarray) -> bytes:
        """-> 32 bytes"""
        questions = getattr(self.judge, "questions", None)
        text = questions.pieces(question, prompt.text) if isinstance(questions, Questions) else []
        asked = prompt.metadata() if self.by_metadata else prompt.text
        pixels = [[list(image.shape), hashlib.sha256(image.tobytes()).hexdigest()] for image in images]
        return hashlib.sha256(json.dumps([self.fingerprint, question, text, asked, pixels]).encode()).digest()


class CachedComparer(CachedJudge):
    """The same for a judge that also compares images."""

    def p_first(self, prompts: Sequence[Prompt], first: "Tensor", second: "Tensor") -> "Tensor":
        """Pairs of images, each (B, 3, H, W) in [0, 1] -> (B,) float32: P(the first is better)"""
        pairs = zip(prompts, to_uint8(first), to_uint8(second), strict=True)
        keys = [self._key("compare", prompt, left, right) for prompt, left, right in pairs]

        def ask(rows: list[int]) -> "Tensor":
            judge: Any = self.judge
            return judge.p_first([prompts[row] for row in rows], first[rows], second[rows])

        return self._answers(keys, ask, first)


def cached(judge: Judge, store: ScoreStore, fingerprint: str, *, by_metadata: bool = False) -> CachedJudge:
    """`judge` with a memory; `by_metadata`: its answers depend on a prompt's metadata, not on its text alone."""
    kind = CachedComparer if hasattr(judge, "p_first") else CachedJudge
    return kind(judge, store, fingerprint, by_metadata=by_metadata)


def _line(key: bytes, score: float) -> bytes:
    body = f"{key.hex()} {struct.pack('>f', score).hex()}".encode()
    return body + f" {zlib.crc32(body):08x}\n".encode()


def _parse(line: bytes) -> tuple[bytes, float] | None:
    """The inverse of `_line`, without its newline; None for anything else."""
    body, _, checksum = line.rpartition(b" ")
    if len(line) != _LINE_LENGTH or f"{zlib.crc32(body):08x}".encode() != checksum:
        return None
    key, _, score = body.decode("ascii").partition(" ")
    return bytes.fromhex(key), struct.unpack(">f", bytes.fromhex(score))[0]
