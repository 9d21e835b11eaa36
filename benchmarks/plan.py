"""Planned against measured memory of the CPU twins, and what is planned for the full-size models.

    python benchmarks/plan.py > benchmarks/plan.md

Twins: the peak of `genloop plan` against the peak of live tensor bytes of the real job in this process. Full size: only
planned, from the published sizes: checkpoints are folders with headers, whose weights are holes in files, and
tokenizers of the embedded world. The exit code is 0 when every twin's plan is within 15 % of what was measured.
"""

import io
import json
import math
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop import job, terminal
from genloop.distributed import World
from genloop.environment import cpu_model, package_versions
from genloop.models.common.footprint import Tracker
from genloop.models.llava.config import LlavaConfig, llava_manifest
from genloop.models.magvit2.config import MagvitConfig, magvit2_manifest
from genloop.models.showo.config import ShowOConfig, showo_manifest
from genloop.planning import Footprint
from launch.catalog import import_job

LIMIT = 0.15
SHIPPED = Path("ckpts/shapes")
PROMPTS = "prompts=configs/prompts/shapes_tiny/evaluation_metadata.jsonl"
JUDGED = ["search.strategy=best_of_n", "search.n=4", "limit=4"]
DATA = ["data.paths.shards=configs/data/shapes/judge", "batch.groups=0", "batch.scenes=64", "train.num_steps=2"]
FULL = [  # job, preset, words, ranks
    ("generate", "showo_256", [PROMPTS], 1),
    ("generate", "showo_512", [PROMPTS], 1),
    ("generate", "showo_256_orm", [PROMPTS], 1),
    ("train_judge", "llava_ov", DATA, 1),
    ("train_judge", "llava_ov", [*DATA, "train.zero_stage=1"], 8),
    ("train_judge", "llava_ov", [*DATA, "train.zero_stage=2"], 8),
    ("train_judge", "llava_ov", [*DATA, "train.zero_stage=3"], 8),
    ("train_judge", "llava_ov", [*DATA, "lora.rank=64", "vision_lr=0"], 1),
]


def main() -> int:
    """Measure and print -> exit code."""
    terminal.out("# Planned memory\n")
    terminal.out(f"{cpu_model()}, {os.cpu_count()} cores, {package_versions()}\n")
    root = Path(tempfile.mkdtemp(prefix="genloop-plan-"))
    worst = _twins(root) if "--full" not in sys.argv else 0.0
    os.environ["CHECKPOINT_DIR"] = str(root / "ckpts")
    _hollow_checkpoints(root / "ckpts")
    terminal.out(
        "\n## Full size, planned only: a GPU, GiB a worker\n\n| job | workers | peak | by part |\n|---|---|---|---|"
    )
    for name, preset, words, ranks in FULL:
        found = _plan(name, [preset, *words, f"out={root}/full"], "cuda", ranks)
        shown = ", ".join(f"{part} {count / 2**30:.2f}" for part, count in _parts(found))
        terminal.out(f"| `{name} {_keys(preset, words)}` | {ranks} | {found.peak / 2**30:.1f} | {shown} |")
    shutil.rmtree(root)
    return int(worst > LIMIT)


def _twins(root: Path) -> float:
    """The table of twins -> the largest share by which a plan is off."""
    terminal.out("## Twins: live tensor bytes on a CPU, MiB\n\n| job | planned | measured | off |\n|---|---|---|---|")
    worst = 0.0
    for number, (name, words) in enumerate(_runs(root)):
        module = import_job(name)
        words = [*words, f"out={root}/{number}"]
        config = job.parse(module, words)
        prepared = job.prepare(module, config, World())
        with redirect_stdout(io.StringIO()), Tracker() as measured:
            job.execute(module, config, World(), prepared.checked)
        planned = _plan(name, words, "cpu", 1).peak
        off = planned / measured.peak - 1
        worst = max(worst, abs(off))
        sizes = f"{planned / 2**20:.2f} | {measured.peak / 2**20:.2f}"
        terminal.out(f"| `{name} {_keys(words[0], words[1:-1])}` | {sizes} | {100 * off:+.1f} % |")
    return worst


def _runs(root: Path) -> Iterator[tuple[str, list[str]]]:
    yield "generate", ["tiny", "device=cpu"]
    yield "generate", ["shapes_search", "device=cpu", *JUDGED]
    yield "evaluate", _detector(root)
    yield "train_showo", ["tiny"]
    yield "train_tokenizer", ["tiny"]
    yield "train_judge", ["tiny"]


def _detector(root: Path) -> list[str]:
    """A very small Mask2Former, and images for it."""
    from tests.worlds.image_folders import write_pictures
    from tests.worlds.tiny_mask2former import mask2former_folder

    write_pictures(root / "images", *(f"00000/samples/{sample:04d}.png" for sample in range(4)))
    bench = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}
    (root / "images/00000/metadata.jsonl").write_text(json.dumps(bench) + "\n")
    checkpoint = mask2former_folder(root / "detector/mask2former")
    words = ["detector.kind=hf_mask2former", f"detector.options.checkpoint={checkpoint}", "colors=shapes"]
    return [*words, f"images={root}/images", "canary=off", "expect.on_missing=report", "device=cpu"]


def _plan(name: str, words: Sequence[str], device: str, ranks: int) -> Footprint:
    module = import_job(name)
    config = job.parse(module, words)
    return module.footprint(config, module.check(config), device=device, ranks=ranks)


def _parts(found: Footprint) -> list[tuple[str, int]]:
    return [*((part, count) for part, count in found.parts.items() if count), ("activations", found.working)]


def _keys(preset: str, words: Sequence[str]) -> str:
    """The words without places."""
    shown = [word for word in (preset, *words) if "/" not in word]
    return " ".join(word for word in shown if word not in DATA)


def _hollow_checkpoints(root: Path) -> None:
    showo, tokenizer = ShowOConfig(), MagvitConfig()
    for name, config in (("show-o", showo), ("show-o-512x512", replace(showo, num_vq_tokens=1024))):
        _hollow(root / name, showo_manifest(config), config.to_json())
        shutil.copytree(SHIPPED / "showo/tokenizer", root / name / "tokenizer")
    _hollow(root / "magvitv2", magvit2_manifest(tokenizer), tokenizer.to_json(), "F32")
    shutil.copytree(SHIPPED / "showo/tokenizer", root / "phi-1_5")
    words = json.loads((SHIPPED / "judge/config.json").read_text())["image_token_index"]
    judge = LlavaConfig(image_token_index=words, video_token_index=words)
    for name in ("orm_ft", "llava-onevision"):
        _hollow(root / name, llava_manifest(judge), judge.to_json())
        for file in ("tokenizer.json", "tokenizer_config.json", "questions.yaml"):
            shutil.copy(SHIPPED / "judge" / file, root / name / file)


def _hollow(folder: Path, shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any], kind: str = "BF16") -> None:
    """A checkpoint whose tensors are a hole in a file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "fetched.json").write_text('{"files": {}}')
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * {"BF16": 2, "F32": 4}[kind]
        header[key] = {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}
    data = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + end)


if __name__ == "__main__":
    sys.exit(main())
