"""Evaluating images by GenEval's rules: one at a time, as published, against ours, on the same weights and images.

    python benchmarks/geneval.py                      48 images of 512 px, both ways and ours on two workers
    python benchmarks/geneval.py --images 12          a quick look
    python benchmarks/geneval.py --detector FOLDER --colors FOLDER      weights of your own

As published, told in our words: an image after the other, batch 1; the likeliest hundred masks are all enlarged to the
full image and copied one by one; every colour clause makes a data loader of its own with four processes, batches of 16
crops; the rows are kept until the end. Ours: masks are made for what passes the threshold, one at a time; the crops of
eight images go through CLIP together; images are decoded ahead. Each way runs in processes of its own, so that seconds
and peak memory (theirs and that of the processes they start) are its own. Verdicts, reasons and boxes have to be equal,
scores to the last bits.

The weights are random: a Mask2Former of 100 queries and 80 classes, small but for those, whose "no object" is set so
that an image shows about OBJECTS objects in the mean, of which images with 1 to MOST are taken; a CLIP of two layers.
Each image is judged against a prompt of GenEval's form about what was found on it, the six tasks as often as in the
published set.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ckpts.mask2former import convert
from geneval.clip_colors_zero_shot import ClipColors
from geneval.crops import crop
from geneval.evaluation import judge_samples
from geneval.folder import Sample, find_samples
from geneval.images import ImageReader, read_image
from geneval.mask2former_detector import Mask2FormerDetector
from geneval.names import OBJECT_NAMES
from geneval.settings import Evaluator, EvaluatorKeys, build_evaluator
from geneval.verdict import color_requests, details, judge_objects, keep
from genloop.data.images import encode_png
from genloop.data.prompts import caption
from genloop.models.mask2former import raw_logits
from genloop.models.mask2former_config import HeadDims
from genloop.models.mask2former_pixels import prepare, sizes_of
from genloop.records import COLORS, RELATIONS, Clause, Detection, Prompt, Wanted, color_names
from tests.unit.tiny_clip import write_transformers_folder
from tests.unit.tiny_mask2former import TINY, mmdet_state

ROOT = Path(__file__).resolve().parent.parent
SIZE = 512  # pixels along a side
SHARES = {"single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100}
MOST = 30  # objects on an image that is taken
DRAWN = 2000  # pictures to choose from
OBJECTS = 8  # (query, class) pairs above the threshold that an image has, in the mean
BATCH = 8  # images in one call of ours, the default of `evaluate`
THRESHOLD = 0.3
LIKELY = 0.4  # a class's probability whose mask usually brings the score to the threshold
SMALL = replace(TINY, head=replace(TINY.head, num_queries=HeadDims().num_queries))


# --- as published, in our words --------------------------------------------------------------------------------------


class Crops(Dataset[Tensor]):
    """The objects of one clause, cut out and made ready for CLIP by the loader's processes."""

    def __init__(self, image: np.ndarray, objects: Sequence[Detection], prepare_crop: Any) -> None:
        self.image, self.objects, self.prepare_crop = image, objects, prepare_crop

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, place: int) -> Tensor:
        return self.prepare_crop([crop(self.image, self.objects[place])])[0]


def published(samples: Sequence[Sample], images: Path, evaluator: Evaluator) -> list[dict[str, Any]]:
    """One image at a time."""
    rows = []
    for sample in samples:
        image = read_image(images / sample.image)
        objects = keep(all_detections(evaluator.detector, image), sample.prompt, evaluator.options, OBJECT_NAMES)
        named = {
            clause: published_colors(image, found, evaluator.colors)
            for clause, found in color_requests(sample.prompt, objects).items()
        }
        verdict = judge_objects(sample.prompt, objects, named, evaluator.options)
        rows.append({"correct": verdict.correct, "reason": verdict.reason, "details": details(objects)})
    return rows


@torch.inference_mode()
def all_detections(detector: Any, image: np.ndarray) -> list[Detection]:
    """The likeliest hundred, all masks at once at full size, each copied by itself."""
    sizes = sizes_of(image.shape[:2], detector.preparation.scale)
    pixels = prepare(image, detector.preparation, detector.device)[None]
    (classes,), (logits,) = raw_logits(detector.network, pixels)
    likely = classes.softmax(dim=-1)[:, :-1].flatten()
    values, order = likely.sort(descending=True, stable=True)
    values, order = values[:100], order[:100]
    enlarged = torch.nn.functional.interpolate(logits[None], sizes.padded, mode="bilinear", align_corners=False)
    enlarged = enlarged[:, :, : sizes.resized[0], : sizes.resized[1]]
    planes = torch.nn.functional.interpolate(enlarged, sizes.original, mode="bilinear", align_corners=False)[0]
    planes = planes[order // len(OBJECT_NAMES)]  # (100, H, W)
    masks = planes > 0
    areas = masks.sum(dim=(1, 2))
    factors = (planes.sigmoid() * masks).sum(dim=(1, 2)) / (areas + 1e-6)
    found = []
    for mask, label, score in zip(masks, (order % len(OBJECT_NAMES)).tolist(), (values * factors).tolist()):
        copied = mask.clone().cpu().numpy()
        found.append(Detection(OBJECT_NAMES[label], score, box_of(copied), copied))
    return sorted(found, key=lambda one: -one.score)  # stable: ties as ours


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """(H, W) bool -> x1, y1, x2, y2; zeros when it is empty"""
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def published_colors(image: np.ndarray, objects: Sequence[Detection], classifier: Any) -> list[str]:
    """A loader with four processes for this clause alone."""
    embedder = classifier.embedder
    loader = DataLoader(Crops(image, objects, embedder.preprocessing), batch_size=16, num_workers=4)
    features = torch.cat([embedder._embed(embedder.network.encode_image, batch) for batch in loader])
    return color_names(classifier.compare(features, classifier.weights(objects[0].class_name)))


# --- ours ------------------------------------------------------------------------------------------------------------


def ours(samples: Sequence[Sample], images: Path, evaluator: Evaluator) -> list[dict[str, Any]]:
    """As a worker of `evaluate` does a unit."""
    rows: list[dict[str, Any]] = []
    names = [sample.image for sample in samples]
    with ImageReader(images) as reader:
        for start in range(0, len(samples), BATCH):
            pixels = reader.take(names[start : start + BATCH])
            reader.go_on(names[start + BATCH : start + 2 * BATCH])
            rows += judge_samples(samples[start : start + BATCH], pixels, evaluator)
    return [{key: row[key] for key in ("correct", "reason", "details")} for row in rows]


WAYS = {"published": published, "ours": ours}
RUNS = {  # name -> way, workers, threads of each
    "published, 1 thread": ("published", 1, 1),
    "published, 2 threads": ("published", 1, 2),
    "ours, 1 worker": ("ours", 1, 1),
    "ours, 2 workers": ("ours", 2, 1),
}


# --- weights, images, prompts ----------------------------------------------------------------------------------------


def make_detector(folder: Path, images: Sequence[np.ndarray]) -> Path:
    """A small Mask2Former for which these images show about OBJECTS objects each -> its folder"""
    state, file = mmdet_state(SMALL), folder / "random.pth"
    torch.save({"meta": {}, "state_dict": state}, file)
    detector = load(convert(file, folder / "detector").folder, None)
    pixels = [prepare(image, detector.preparation)[None] for image in images]
    logits = torch.cat([raw_logits(detector.network, one)[0] for one in pixels])  # (N, Q, 81)
    low, high = 0.0, 50.0
    for _ in range(30):
        middle = (low + high) / 2
        raised = torch.cat([logits[..., :-1], logits[..., -1:] + middle], dim=-1)
        count = (raised.softmax(dim=-1)[..., :-1] > LIKELY).sum() / len(images)
        low, high = (middle, high) if count > OBJECTS else (low, middle)
    bias = next(key for key in state if key.endswith("cls_embed.bias"))
    state[bias][-1] += high
    torch.save({"meta": {}, "state_dict": state}, file)
    return convert(file, folder / "detector").folder


def load(detector: Path, colors: Path | None) -> Any:
    """The evaluator over two folders, or the detector alone."""
    kind = {"kind": "hf_mask2former", "options": {"checkpoint": str(detector)}}
    clip = {"kind": "shapes"}
    if colors is not None:
        options = {"checkpoint": str(colors), "backend": "transformers", "architecture": None}
        clip = {"kind": "clip", "options": options}
    keys = EvaluatorKeys.model_validate({"detector": kind, "colors": clip})
    evaluator = build_evaluator(keys, Path)
    return evaluator.detector if colors is None else evaluator


def draw(number: int) -> np.ndarray:
    """Discs and boxes of all colours on a shaded ground: (SIZE, SIZE, 3) uint8"""
    rng = np.random.default_rng([3, number])
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([(x * rng.uniform() + y * rng.uniform()) / 4 + 60 * rng.uniform() for _ in range(3)], axis=-1)
    for _ in range(rng.integers(3, 9)):
        center, radius = rng.integers(0, SIZE, size=2), rng.integers(20, 140)
        inside = np.hypot(x - center[0], y - center[1]) < radius
        if rng.uniform() < 0.5:
            inside = (abs(x - center[0]) < radius) & (abs(y - center[1]) < radius)
        image[inside] = rng.integers(0, 256, size=3)
    return np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)


def with_objects(finder: Mask2FormerDetector) -> Iterator[tuple[np.ndarray, list[Detection]]]:
    """Pictures on which the detector finds something, but not everything: a random one finds all or nothing on many."""
    for number in range(DRAWN):
        picture = draw(number)
        objects = finder.detect_for([picture], [Wanted(THRESHOLD)])[0]
        if 1 <= sum(one.score > THRESHOLD for one in objects) <= MOST:
            yield picture, objects


def prompts_for(found: Sequence[Sequence[Detection]]) -> Iterator[Prompt]:
    """For each image one about what is on it; the tasks as often as in the published set."""
    tasks = [tag for tag, share in SHARES.items() for _ in range(share)]
    for index, objects in enumerate(found):
        rng = np.random.default_rng([4, index])
        tag = tasks[(2 * index + 1) * len(tasks) // (2 * len(found))]
        names = list(dict.fromkeys(one.class_name for one in objects if one.score > THRESHOLD)) or ["dog"]
        first, second = names[0], names[-1] if len(names) > 1 else "zebra"
        one, two = (COLORS[k] for k in rng.choice(len(COLORS), size=2, replace=False))
        include = {
            "single_object": (Clause(first, 1),),
            "two_object": (Clause(first, 1), Clause(second, 1)),
            "counting": (Clause(first, int(rng.integers(2, 5))),),
            "colors": (Clause(first, 1, one),),
            "position": (Clause(first, 1), Clause(second, 1, position=(RELATIONS[int(rng.integers(4))], 0))),
            "color_attr": (Clause(first, 1, one), Clause(second, 1, two)),
        }[tag]
        exclude = tuple(Clause(c.class_name, c.count + 1) for c in include) if tag == "counting" else ()
        yield Prompt(index, caption(tag, include), tag, include, exclude)


def prepare_work(place: Path, num_images: int, detector: Path | None, colors: Path | None) -> tuple[Path, Path]:
    """Images in GenEval's layout below `place`, and weights -> the folders of detector and CLIP"""
    detector = detector or make_detector(place, [draw(number) for number in range(16)])
    colors = colors or write_transformers_folder(place / "clip")
    chosen = list(islice(with_objects(load(detector, None)), num_images))
    if len(chosen) < num_images:
        raise ValueError(f"{detector}: finds 1 to {MOST} objects on {len(chosen)} of {DRAWN} pictures only")
    pictures, found = [picture for picture, _ in chosen], [objects for _, objects in chosen]
    for prompt, picture in zip(prompts_for(found), pictures):
        folder = place / "images" / f"{prompt.index:05d}"
        (folder / "samples").mkdir(parents=True)
        (folder / "samples" / "0000.png").write_bytes(encode_png(picture))
        (folder / "metadata.jsonl").write_text(json.dumps(prompt.metadata()) + "\n")
    counts = [sum(one.score > THRESHOLD for one in ours) for ours in found]
    about = f"{np.mean(counts):.1f} in the mean, {max(counts)} at most"
    print(f"{num_images} images of {SIZE} px; objects above {THRESHOLD}: {about}", flush=True)
    return detector, colors


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(way: str, place: Path, detector: Path, colors: Path, part: int, parts: int, threads: int) -> dict[str, Any]:
    """One way over every `parts`-th image, in this process: seconds from the first image on, peaks, rows."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message="This DataLoader will create 4")  # as published, on any machine
    evaluator: Evaluator = load(detector, colors)
    assert isinstance(evaluator.colors, ClipColors)
    samples = find_samples(place / "images")[part::parts]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, used = time.perf_counter(), _cpu()
    rows = WAYS[way](samples, place / "images", evaluator)
    seconds, cpu = time.perf_counter() - began, _cpu() - used
    return {
        "seconds": seconds,
        "cpu": cpu,
        "loaded_mib": before // 1024,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "child_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "rows": rows,
    }


def _cpu() -> float:
    """Seconds of this process and of those it started and saw end."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_processes(way: str, place: Path, detector: Path, colors: Path, parts: int, threads: int) -> dict[str, Any]:
    """`measure` in `parts` fresh processes side by side -> the slowest one's seconds, the largest peak, all rows."""
    command = [sys.executable, __file__, "--measure", way, "--place", str(place), "--threads", str(threads)]
    command += ["--detector", str(detector), "--colors", str(colors), "--parts", str(parts)]
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen([*command, "--part", str(part)], env=environment, stdout=subprocess.PIPE, text=True)
        for part in range(parts)
    ]
    found = []
    for process in started:
        text = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"{way} failed with exit code {process.returncode}")
        found.append(json.loads(text.splitlines()[-1]))
    rows = [one["rows"] for one in found]
    whole = {key: max(one[key] for one in found) for key in ("seconds", "loaded_mib", "peak_mib", "child_mib")}
    return {
        **whole,
        "cpu": sum(one["cpu"] for one in found),
        "rows": [rows[k % parts][k // parts] for k in range(sum(map(len, rows)))],
    }


def compare(place: Path, detector: Path, colors: Path, repeats: int) -> None:
    """Print all ways, in turns, medians of wall seconds; ratios are to the faster of the published ones."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    for _ in range(repeats):
        for name, (way, parts, threads) in RUNS.items():
            runs[name].append(in_processes(way, place, detector, colors, parts, threads))
    seconds = {name: [run["seconds"] for run in found] for name, found in runs.items()}
    base = min((name for name in RUNS if RUNS[name][0] == "published"), key=lambda name: np.median(seconds[name]))
    expected = runs[base][0]["rows"]
    clauses = sum(clause.color is not None for s in find_samples(place / "images") for clause in s.prompt.include)
    print(f"{clauses} colour clauses; {sum(row['correct'] for row in expected)} of {len(expected)} images correct")
    print("| way | s an image | CPU s an image | peak of a worker | of a process it starts | verdicts equal | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        wall, cpu = float(np.median(seconds[name])), float(np.median([run["cpu"] for run in found]))
        equal = min(sum(map(same, run["rows"], expected)) for run in found)
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds[base], seconds[name]))
        peak, loaded, inner = (max(run[key] for run in found) for key in ("peak_mib", "loaded_mib", "child_mib"))
        print(
            f"| {name} | {wall / len(expected):.3f} | {cpu / len(expected):.3f} | {peak} MiB ({peak - loaded} above "
            f"the weights) | {inner} MiB | {equal} of {len(expected)} | {np.median(seconds[base]) / wall:.1f} x "
            f"({ratios[0]:.1f} to {ratios[-1]:.1f}) |"
        )


def same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Verdict, reason, classes and boxes equal, scores to 1e-5."""
    if (row["correct"], row["reason"], list(row["details"])) != (
        other["correct"],
        other["reason"],
        list(other["details"]),
    ):
        return False
    pairs = [(np.array(found), np.array(other["details"][name])) for name, found in row["details"].items()]
    return all(
        a.shape == b.shape and (a[:, :4] == b[:, :4]).all() and np.allclose(a[:, 4], b[:, 4], rtol=0, atol=1e-5)
        for a, b in pairs
    )


def describe_machine() -> str:
    """Processor, load, versions."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    import transformers

    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )


def main() -> None:
    """Parse the command line; print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--detector", type=Path, help="a Mask2Former folder in place of the small one")
    parser.add_argument("--colors", type=Path, help="a CLIP folder of transformers in place of the small one")
    for name in ("--place", "--measure"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name, default in (("--part", 0), ("--parts", 1), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        place = Path(given.place)
        numbers = (given.part, given.parts, given.threads)
        print(json.dumps(measure(given.measure, place, given.detector, given.colors, *numbers)))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(1)
        weights = prepare_work(Path(folder), given.images, given.detector, given.colors)
        compare(Path(folder), *weights, given.repeats)


if __name__ == "__main__":
    main()
