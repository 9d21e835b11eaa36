"""What a student learns from its teacher's images on the embedded world, over training seeds, beside a control.

    python -m benchmarks.teacher_student --out runs/teacher-student --procs 2    # three seeds
    python -m benchmarks.teacher_student --out runs/teacher-student --summary    # no run, only teacher_student.md again

Arms are rows of configs/pipelines/teacher_student.yaml; another seed is the same pipeline with vars.seed, in the same
folder: models, teacher's images and prompts are made once. What is finished stays finished: the same command goes on.
benchmarks/teacher_student.md is written from all that is there: GenEval scores by the exact detector with paired
differences over prompts and seeds, then how much nearer the student's images are to the teacher's.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.learning import Study, arm_line, arms_of, contrast_lines, minutes
from genloop.environment import cpu_model, package_versions
from genloop.reading import read_json
from genloop.rundir import write_atomic
from launch.pipelines.folder import is_done

PIPELINE = "teacher_student"
ARMS = ("base", "control", "student", "lora-control", "lora", "teacher")
CONTRASTS = [
    ("student", "control", "> 0"),
    ("student", "base", "> 0"),
    ("control", "base", ""),
    ("lora", "lora-control", "> 0"),
    ("lora", "base", "> 0"),
    ("student", "lora", ""),
    ("teacher", "student", ""),
]
COMPARED = {  # rows of `pairs`: whose images come nearer to the teacher's, and than whose
    "student-over-base": ("student", "base"),
    "student-over-control": ("student", "control"),
    "lora-over-base": ("lora", "base"),
    "lora-over-control": ("lora", "lora-control"),
}


def markdown(study: Study, seeds: Sequence[int], command: str) -> str:
    """benchmarks/teacher_student.md from all that is there."""
    arms = arms_of(study, seeds)
    first = next(iter(next(iter(arms.values())).images.values()))
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    num_sentences, num_prompts = (len({key[part] for key in first}) for part in (0, 1))
    everything = {run for arm in arms.values() for runs in arm.runs.values() for run in runs}
    lines = [
        "# What a student learns from its teacher's images on the embedded world",
        "",
        f"    {command}",
        "",
        f"{cpu_model()}, {versions}. Arms are rows of `configs/pipelines/{study.pipeline}.yaml`, measured on "
        f"{num_prompts} prompts of {num_sentences} sentences, none of which the student was trained on, with the same "
        "noise for all arms. `base` is the student before; `student` trained all weights of its UNet, `lora` adapters; "
        "their controls took the same steps on the same images with shuffled captions. Scores are means of the six "
        "tasks in %, judged by the exact detector; differences are in "
        "points, paired by image, with 95 % intervals of a bootstrap over prompts and seeds, then each seed alone.",
        "",
        "| arm | score, mean of the seeds | each seed (95 % over prompts) | CPU-minutes of training and its data |",
        "|---|---|---|---|",
        *(arm_line(arms[name]) for name in ARMS if name in arms),
        "",
        "| difference | aimed at | points (95 % interval) | each seed | seeds, images of each | |",
        "|---|---|---|---|---|---|",
        *contrast_lines(arms, CONTRASTS),
        "",
        "How much nearer the student's images are to the teacher's of the same prompt and noise; merits, more is "
        "better. Share: 0 is the teacher with another seed, 1 are equal images. BCa intervals over prompts.",
        "",
        "| seed | whose | metric | over | n | gain (95 % interval) | share (95 % interval) |",
        "|---|---|---|---|---|---|---|",
        *_pair_lines(study, seeds),
        "",
        f"CPU-minutes of all runs together: {minutes(everything):.0f}.",
    ]
    return "\n".join(lines) + "\n"


def _pair_lines(study: Study, seeds: Sequence[int]) -> Iterator[str]:
    for seed in seeds:
        for stage in study.stages(seed):
            name, _, row = stage.name.partition(".")
            if name == "pairs" and row in COMPARED and is_done(study.out, stage):
                for one in read_json(stage.folder / "pairs" / "table.json"):
                    if one["over"] == "baseline":
                        yield _pair_line(seed, *COMPARED[row], one)


def _pair_line(seed: int, whose: str, over: str, one: Mapping[str, Any]) -> str:
    gain, share = (_spanned(found) for found in (one["gain"]["difference"], one["normalised"]))
    return f"| {seed} | {whose} | {one['metric']} | {over} | {one['gain']['prompts']} | {gain} | {share} |"


def _spanned(found: Mapping[str, float | None]) -> str:
    if found["low"] is None:
        return "" if found["estimate"] is None else f"{found['estimate']:+.3f}"
    return f"{found['estimate']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def main() -> None:
    """Run what is asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="what differs from the pipeline's file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the student's training")
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/teacher-student"))
    parser.add_argument("--pipeline", default=PIPELINE, help="teacher_student, or its twin teacher_student_tiny")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--summary", action="store_true", help="run nothing")
    found = parser.parse_args()
    study = Study(found.out, found.pipeline, tuple(found.words))
    command = " ".join(["python -m benchmarks.teacher_student", *sys.argv[1:]]).replace(" --summary", "")
    for seed in found.seeds if not found.summary else []:
        study.run(None, seed, found.procs)
        write_atomic(found.table, markdown(study, found.seeds, command).encode())
    write_atomic(found.table, markdown(study, found.seeds, command).encode())


if __name__ == "__main__":
    main()
