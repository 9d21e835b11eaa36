"""Answers that nobody pays for twice: a folder of scores, reasons and critiques by content, shared by all workers.

A key is the sha256 of everything that an answer depends on: the judge (its kind, options and files), the question and
its wording, the prompt, the 8-bit pixels. Every process appends to a segment of its own, FOLDER/HOST-PID-RANDOM.scores,
one line an answer: key, float32 and checksum in hexadecimal; of a reason its words, as JSON, instead of the number;
of a critique its JSON, as a text.
Nothing is locked or rewritten, so that any file system does, and a process that is killed loses the line that it was
writing. "Could not be judged", NaN or None, is never kept.
"""

import hashlib
import json
import logging
import os
import re
import socket
import stat
import struct
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genloop.data.images import to_uint8
from genloop.protocols import Judge
from genloop.reading import parse_json
from genloop.records import Critique, Prompt
from genloop.rewards.questions import Questions

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)
SUFFIX = ".scores"
Answer = float | str
_TEXT = rb'"(?:[ !#-\[\]-\x7f]|\\(?:["\\bfnrt]|u[0-9a-f]{4}))*"'  # as json.dumps writes one
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{8}|" + _TEXT + rb") ([0-9a-f]{8})")  # key, answer, CRC-32 of both


class ScoreStore:
    """Key -> float32 or text, in memory (the least recently used go first) and, with a folder, on disk for all."""

    def __init__(self, folder: Path | None, *, capacity: int = 1_000_000, refresh_seconds: float = 5.0) -> None:
        self.folder, self.capacity, self.refresh_seconds = folder, capacity, refresh_seconds
        self._scores: OrderedDict[bytes, Answer] = OrderedDict()
        self._read: dict[str, int] = {}  # segment -> bytes that were read
        self._passed_over: set[str] = set()  # segments that cannot be read
        self._segment: tuple[int, int, str] | None = None  # (process, file descriptor, name) of what this one writes
        self._writes, self._refreshed, self._is_full = folder is not None, -float("inf"), False
        self._lock = threading.RLock()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.refresh()

    def find(self, keys: Sequence[bytes]) -> list[Answer | None]:
        """The answer to each key; None where nobody has asked yet."""
        with self._lock:
            if any(key not in self._scores for key in keys):
                self._refresh_at_times()
            for key in keys:
                if key in self._scores:
                    self._scores.move_to_end(key)
            return [self._scores.get(key) for key in keys]

    def add(self, scores: Mapping[bytes, Answer | None]) -> None:
        """Keep answers: words and probabilities."""
        kept = {key: score for key, score in scores.items() if score is not None and _is_answer(score)}
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
                names = sorted(e.name for e in entries if e.name.endswith(SUFFIX) and e.name != own)
            for name in names:
                try:
                    self._read_segment(name)
                except OSError as error:
                    self._pass_over(name, error.strerror)

    def _read_segment(self, name: str) -> None:
        """What was added to a segment; OSError for one that cannot be read."""
        assert self.folder is not None
        state = (self.folder / name).stat()
        if not stat.S_ISREG(state.st_mode):
            self._pass_over(name, "not a file")
            return
        if state.st_size <= self._read.get(name, 0):
            return
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

    def _pass_over(self, name: str, why: str | None) -> None:
        """A segment that cannot be read costs what it holds, not the run."""
        assert self.folder is not None
        if name not in self._passed_over:
            log.warning("score cache: %s is passed over (%s)", self.folder / name, why)
            self._passed_over.add(name)

    def _remember(self, scores: Mapping[bytes, Answer]) -> None:
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
    """A judge that remembers its answers; it compares images and gives reasons if the judge does.

    `by_metadata`: its answers depend on a prompt's metadata, not on its text alone.
    """

    def __init__(self, judge: Judge, store: ScoreStore, fingerprint: str, *, by_metadata: bool = False) -> None:
        self.judge, self.store, self.fingerprint, self.by_metadata = judge, store, fingerprint, by_metadata

    def __getattr__(self, name: str) -> Any:
        """What the judge lacks, this one lacks."""
        found = getattr(self.judge, name)
        kept = {"p_first": self._p_first, "reasons": self._reasons, "critiques": self._critiques}
        kept |= {"p_yes_to": self._p_yes_to, "p_answer_to": self._p_answer_to}
        return kept.get(name, found)

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,) float32; only what is not known is asked for."""

        def ask(rows: list[int]) -> list[float]:
            return self.judge.p_yes(question, [prompts[row] for row in rows], images[rows]).float().tolist()

        return _tensor(self._answers(self._keys(question, prompts, images), ask), images)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """What the answers take when they have to be asked for: a cost that does not depend on the cache."""
        return self.judge.flops(questions, prompt)

    def _p_first(self, prompts: Sequence[Prompt], first: "Tensor", second: "Tensor") -> "Tensor":
        """Pairs of images, each (B, 3, H, W) in [0, 1] -> (B,) float32: P(the first is better)"""
        judge: Any = self.judge

        def ask(rows: list[int]) -> list[float]:
            return judge.p_first([prompts[row] for row in rows], first[rows], second[rows]).float().tolist()

        return _tensor(self._answers(self._keys("compare", prompts, first, second), ask), first)

    def _reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> list[str | None]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> why it does not show it, "" where it does, None: unknown."""
        judge: Any = self.judge

        def ask(rows: list[int]) -> list[str | None]:
            return judge.reasons([prompts[row] for row in rows], images[rows])

        return self._answers(self._keys("reason", prompts, images), ask)

    def _critiques(self, prompts: Sequence[Prompt], images: "Tensor") -> list[Critique]:
        """One prompt per image (B, 3, H, W) in [0, 1]; a critique with problems is not kept."""
        judge: Any = self.judge

        def ask(rows: list[int]) -> list[Critique]:
            return judge.critiques([prompts[row] for row in rows], images[rows])

        rows = zip(prompts, to_uint8(images), strict=True)
        keys = [self._digest("refine", [one.condition], self._asked(one), image) for one, image in rows]
        return self._answers(keys, ask, write=_critique_text, read=lambda text: Critique(**parse_json(text)))

    def _p_yes_to(self, texts: Sequence[str], images: "Tensor") -> "Tensor":
        """One yes/no question per image (B, 3, H, W) in [0, 1] -> (B,) float32"""
        judge: Any = self.judge

        def ask(rows: list[int]) -> list[float]:
            return judge.p_yes_to([texts[row] for row in rows], images[rows]).float().tolist()

        return _tensor(self._answers(self._free_keys(texts, [None] * len(texts), images), ask), images)

    def _p_answer_to(self, texts: Sequence[str], answers: Sequence[str], images: "Tensor") -> "Tensor":
        """One question and one answer per image (B, 3, H, W) in [0, 1] -> (B,) float32"""
        judge: Any = self.judge

        def ask(rows: list[int]) -> list[float]:
            return (
                judge.p_answer_to([texts[r] for r in rows], [answers[r] for r in rows], images[rows]).float().tolist()
            )

        return _tensor(self._answers(self._free_keys(texts, answers, images), ask), images)

    def _answers(
        self,
        keys: Sequence[bytes],
        ask: Callable[[list[int]], Sequence[Any]],
        *,
        write: Callable[[Any], Answer | None] = lambda answer: answer,
        read: Callable[[Any], Any] = lambda answer: answer,
    ) -> list[Any]:
        """Keys that are equal are asked for once; `write` and `read` turn answers into what is kept, and back."""
        known = self.store.find(keys)
        rows: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if known[row] is None:
                rows.setdefault(key, row)
        fresh = dict(zip(rows, ask(list(rows.values())), strict=True)) if rows else {}
        self.store.add({key: write(answer) for key, answer in fresh.items()})
        return [fresh[key] if answer is None else read(answer) for key, answer in zip(keys, known)]

    def _keys(self, question: str, prompts: Sequence[Prompt], *images: "Tensor") -> list[bytes]:
        """One prompt and one image of each batch (B, 3, H, W) -> 32 bytes."""
        return [self._key(question, *row) for row in zip(prompts, *map(to_uint8, images), strict=True)]

    def _key(self, question: str, prompt: Prompt, *images: np.ndarray) -> bytes:
        """-> 32 bytes"""
        questions = getattr(self.judge, "questions", None)
        text = questions.pieces(question, prompt.text) if isinstance(questions, Questions) else []
        return self._digest(question, text, self._asked(prompt), *images)

    def _asked(self, prompt: Prompt) -> Any:
        """What answers depend on."""
        return prompt.metadata() if self.by_metadata else prompt.text

    def _free_keys(self, texts: Sequence[str], answers: Sequence[str | None], images: "Tensor") -> list[bytes]:
        """Of questions of any wording; an answer of None stands for P(yes)."""
        questions = getattr(self.judge, "questions", None)
        around = questions.free_pieces if isinstance(questions, Questions) else lambda text: (text,)
        rows = zip(texts, answers, to_uint8(images), strict=True)
        return [self._digest("free", list(around(text)), answer, image) for text, answer, image in rows]

    def _digest(self, question: str, text: Sequence[str], asked: Any, *images: np.ndarray) -> bytes:
        """-> 32 bytes"""
        pixels = [[list(image.shape), hashlib.sha256(image.tobytes()).hexdigest()] for image in images]
        return hashlib.sha256(json.dumps([self.fingerprint, question, text, asked, pixels]).encode()).digest()


def _critique_text(critique: Critique) -> str | None:
    """As JSON; None of one with problems."""
    return None if critique.problems or critique.failed else json.dumps(asdict(critique))


def _tensor(answers: Sequence[float], beside: "Tensor") -> "Tensor":
    """(B,) float32 where `beside` lies"""
    import torch

    return torch.tensor(answers, dtype=torch.float32, device=beside.device)


def _line(key: bytes, answer: Answer) -> bytes:
    value = json.dumps(answer) if isinstance(answer, str) else struct.pack(">f", answer).hex()
    body = f"{key.hex()} {value}".encode()
    return body + f" {zlib.crc32(body):08x}\n".encode()


def _parse(line: bytes) -> tuple[bytes, Answer] | None:
    """The inverse of `_line`, without its newline; None for anything else."""
    found = _LINE.fullmatch(line)
    if found is None or zlib.crc32(line[: found.end(2)]) != int(found[3], 16):
        return None
    key, value = bytes.fromhex(found[1].decode()), found[2].decode()
    answer = parse_json(value) if value.startswith('"') else struct.unpack(">f", bytes.fromhex(value))[0]
    return (key, answer) if _is_answer(answer) else None


def _is_answer(value: Answer) -> bool:
    """Words, or a probability; NaN stands for none."""
    return isinstance(value, str) or 0 <= value <= 1
