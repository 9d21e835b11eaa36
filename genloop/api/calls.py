"""`genloop.generate`, `genloop.evaluate` and `genloop.load_judge`: the jobs' own code, called in this process.

drawn = genloop.generate([{"prompt": "a photo of a red star", ...}], preset="tiny", search={"strategy": "parm", "n": 8})
drawn.images()[0].save("star.png")
genloop.evaluate(drawn, preset="tiny").summary["overall"]

Keys are those of the config, groups of them as mappings: `sampling={"steps": 9}`, or dotted: `**{"sampling.steps": 9}`.
Every call leaves a run folder, which the commands read too; the same call on the same folder goes on from there. Bad
input is a ValueError, FileNotFoundError or ImportError before anything is computed.
"""

import contextlib
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jobs.evaluate
import jobs.generate
from ckpts.resolve import resolve
from genloop import job
from genloop.config import parse_settings, words_of
from genloop.distributed import StopRequested, World, choose_device
from genloop.reading import parse_json, read_json_object, read_utf8
from genloop.rewards.build import build_judge
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import write_atomic
from genloop.runs.rows import EvaluatedRow, GeneratedRow, read_images

if TYPE_CHECKING:
    from PIL.Image import Image

    from genloop.protocols import Judge

Prompts = Sequence[str | Mapping[str, Any]] | str | Path


@dataclass(frozen=True)
class DrawnRun:
    """What `generate` made: its run folder, and a row an image with scores, cost and way."""

    run: Path
    rows: tuple[GeneratedRow, ...]

    def images(self) -> "list[Image]":
        """The images, in the order of the rows."""
        from PIL.Image import fromarray

        from genloop.data.image_reader import decode_image
        from genloop.data.members import read_any

        return [fromarray(decode_image(read_any(self.run / row.image))) for row in self.rows]


@dataclass(frozen=True)
class EvaluatedRun:
    """What `evaluate` found: its run folder, a row an image, the scores with their intervals, the table as text."""

    run: Path
    rows: tuple[EvaluatedRow, ...]
    summary: Mapping[str, Any]
    table: str


def generate(
    prompts: Prompts | None = None, preset: str | Path | None = None, *, out: Path | str | None = None, **keys: Any
) -> DrawnRun:
    """Draw images as `genloop run generate` does.

    Args:
        prompts: texts, or objects of GenEval's metadata, which judges like the exact detector go by; one text; a Path
            of a prompt file; None: those of the preset.
        preset: a name of `genloop jobs --presets`, or a file.
        out: the run folder; None: a new temporary one, which is kept.
        keys: config keys that differ from the preset.
    """
    folder = _folder(out, "generate")
    if isinstance(prompts, Path):
        keys = {"prompts": str(prompts), "metadata": None} | keys
    elif prompts is not None:
        keys = {"prompts": str(_prompt_file(prompts, folder)), "metadata": None} | keys
    _run(jobs.generate, preset, folder, keys)
    return DrawnRun(folder, tuple(read_images(folder, GeneratedRow)))


def evaluate(
    images: DrawnRun | Path | str, preset: str | Path | None = None, *, out: Path | str | None = None, **keys: Any
) -> EvaluatedRun:
    """Judge images as `genloop run evaluate` does.

    Args:
        images: what `generate` returned, a run of it, or a folder in GenEval's layout.
        preset, out, keys: as in `generate`.
    """
    folder = _folder(out, "evaluate")
    _run(jobs.evaluate, preset, folder, {"images": str(images.run if isinstance(images, DrawnRun) else images)} | keys)
    rows = tuple(read_images(folder, EvaluatedRow))
    return EvaluatedRun(folder, rows, read_json_object(folder / "summary.json"), read_utf8(folder / "summary.txt"))


def load_judge(
    kind: str = "shapes_oracle", *, device: str = "auto", cache: Path | None = None, **options: Any
) -> "Judge":
    """A judge by its name, or by "module:class": `judge.p_yes("outcome", prompts, images)`, see genloop.protocols.

    Args:
        kind, options: `judge.kind` and `judge.options` of a config.
        device: auto, cpu or cuda.
        cache: a folder of answers that are never asked for twice.
    """
    given = {"kind": kind, "options": options, "cache": None if cache is None else str(cache)}
    settings = parse_settings(JudgeSettings, parse_json(json.dumps(given, default=os.fspath)))
    settings.check(resolve)
    return build_judge(settings, resolve, choose_device(device, World()))


def _folder(out: Path | str | None, name: str) -> Path:
    return Path(out) if out is not None else Path(tempfile.mkdtemp(prefix=f"genloop-{name}-"))


def _prompt_file(prompts: Sequence[str | Mapping[str, Any]] | str, folder: Path) -> Path:
    """The prompts as a file of the run folder; its name says its content, so that another call changes nothing."""
    given = [prompts] if isinstance(prompts, str) else list(prompts)
    is_text = all(isinstance(prompt, str) for prompt in given)
    if not given or not (is_text or all(isinstance(prompt, Mapping) for prompt in given)):
        raise ValueError("prompts: needs texts, or objects of GenEval's metadata, at least one")
    if split := next((p for p in given if isinstance(p, str) and (not p.strip() or len(p.splitlines()) > 1)), None):
        raise ValueError(f"prompts: a prompt is one line of text, found {split!r}")
    data = "".join(f"{p if isinstance(p, str) else json.dumps(p)}\n" for p in given).encode()
    path = folder / f"prompts-{hashlib.sha256(data).hexdigest()[:12]}.{'txt' if is_text else 'jsonl'}"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
    return path


def _run(module: ModuleType, preset: str | Path | None, folder: Path, keys: Mapping[str, Any]) -> None:
    """The job in this process; what it would print is in its run folder."""
    head = [] if preset is None else [str(preset)]
    config = job.parse(module, [*head, *words_of({**keys, "out": str(folder)})])
    job.check_devices(config)
    prepared = job.prepare(module, config)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            is_over = job.carry_out(module, config, World(), prepared.checked)
    except StopRequested:
        raise KeyboardInterrupt from None
    if not is_over:
        raise RuntimeError(
            f"{folder}: some of its units are in the hands of other workers; call again when they are done"
        )
