"""What trainings on preferences gain on the embedded world: arms x training seeds, each beside its honest control.

    python -m benchmarks.learning --out runs/learning --procs 2                      # everything, three seeds
    python -m benchmarks.learning --out runs/learning --arms dpo control --seeds 0   # some of it
    python -m benchmarks.learning --out runs/learning --summary                      # no run, only learning.md again

An arm is a row of configs/pipelines/study.yaml; another seed is the same pipeline with vars.seed, in the same folder:
prompts, images to learn from, and pairs are made once. What is finished stays finished: the same command goes on.
After every arm benchmarks/learning.md is written from all that is there: scores, paired differences with 95 % intervals
over prompts and seeds, what each seed gives alone, CPU-minutes.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from genloop.environment import cpu_model, package_versions
from genloop.rundir import write_atomic
from genloop.runs.evaluations import EvaluatedImage, read_evaluation
from genloop.runs.lineage import cpu_seconds
from genloop.stats.intervals import Interval
from genloop.stats.over_seeds import over_prompts_and_seeds
from genloop.stats.rates import rates
from launch.pipelines.drafts import load_pipeline
from launch.pipelines.folder import is_done, read_folders
from launch.pipelines.stages import Stage, chosen_stages, resolve_stages

PIPELINE = "study"
ARMS = (
    ["baseline", "parm", "control", "shuffled", "dpo", "plain-control", "plain", "iterative-control", "iterative"]
    + ["guided", "grpo-control", "grpo"]
    + ["dpo-parm", "iterative-parm", "guided-parm", "grpo-parm"]
)
# (arm, what it is compared with, what was aimed at)
CONTRASTS = [
    ("dpo", "control", "> 0"),
    ("dpo", "shuffled", "> 0"),
    ("dpo", "baseline", ""),
    ("control", "baseline", ""),
    ("shuffled", "control", ""),
    ("plain", "plain-control", ""),
    ("dpo", "plain", ""),
    ("iterative", "dpo", ">= 0"),
    ("iterative", "iterative-control", "> 0"),
    ("guided", "iterative", ">= 0"),
    ("guided", "iterative-control", "> 0"),
    ("grpo", "grpo-control", "> 0"),
    ("grpo", "baseline", ""),
    *((f"{arm}-parm", arm, "> 0") for arm in ("dpo", "iterative", "guided", "grpo")),
    *((f"{arm}-parm", "parm", "> 0") for arm in ("dpo", "iterative", "guided", "grpo")),
]


@dataclass(frozen=True)
class Study:
    """Where everything lies and how it is run."""

    out: Path
    pipeline: str
    words: tuple[str, ...]

    def words_of(self, seed: int) -> list[str]:
        """What makes the pipeline that of a seed."""
        return [*self.words, f"out={self.out}", f"vars.seed={seed}"]

    def stages(self, seed: int) -> list[Stage]:
        """Its stages, each in the folder that it has or would have."""
        return resolve_stages(load_pipeline(self.pipeline, self.words_of(seed)), read_folders(self.out))

    def run(self, arm: str | None, seed: int, procs: int) -> None:
        """An arm with all that it needs, None: everything; SystemExit with its code when a stage fails."""
        command = [sys.executable, "-m", "launch", "pipeline", self.pipeline, *self.words_of(seed)]
        command += ["--only", arm] if arm else []
        done = subprocess.run([*command, "--procs", str(procs)], check=False)
        if done.returncode:
            raise SystemExit(done.returncode)


@dataclass(frozen=True)
class Arm:
    """The verdicts of an arm by training seed, and the runs that each took."""

    name: str
    evaluations: Mapping[int, Path]
    runs: Mapping[int, Sequence[Path]]

    @cached_property
    def images(self) -> dict[int, dict[tuple[str, int, int], EvaluatedImage]]:
        """By seed, then by what makes an image that of the same prompt and noise."""
        return {
            seed: {(i.prompt, i.prompt_index, i.sample): i for i in read_evaluation(folder).images}
            for seed, folder in self.evaluations.items()
        }

    @property
    def is_trained(self) -> bool:
        """Whether seeds differ; an arm without a training has the same verdicts for all."""
        return len(set(self.evaluations.values())) == len(self.evaluations)

    def score(self, seed: int) -> Interval:
        """The mean of the tasks of one seed."""
        images = list(self.images[seed].values())
        values = [float(image.correct) for image in images]
        return rates(values, [image.prompt for image in images], [image.tag for image in images]).overall.interval


def arms_of(study: Study, seeds: Sequence[int]) -> dict[str, Arm]:
    """Every arm whose verdicts are there for a seed or more; SystemExit where there is none."""
    found: dict[str, tuple[dict[int, Path], dict[int, Sequence[Path]]]] = {}
    for seed in seeds:
        stages = study.stages(seed)
        for stage in stages:
            name, _, arm = stage.name.partition(".")
            if name == "verdicts" and is_done(study.out, stage):
                evaluations, runs = found.setdefault(arm, ({}, {}))
                evaluations[seed] = stage.folder
                runs[seed] = [needed.folder for needed in chosen_stages(stages, [stage.name])]
    if not found:
        raise SystemExit(f"{study.out} holds no finished arm")
    return {arm: Arm(arm, *both) for arm, both in found.items()}


def difference(arm: Arm, base: Arm) -> tuple[Interval, list[float], int]:
    """Over prompts and the seeds that both have -> the interval, each seed alone, images a seed."""
    seeds = sorted(arm.images.keys() & base.images.keys())
    places = sorted(set.intersection(*(set(one.images[seed]) for one in (arm, base) for seed in seeds)))
    images = [arm.images[seeds[0]][place] for place in places]
    values = np.array(
        [[float(arm.images[s][p].correct) - float(base.images[s][p].correct) for p in places] for s in seeds]
    )
    prompts, tags = [image.prompt for image in images], [image.tag for image in images]
    alone = [
        over_prompts_and_seeds(values[i : i + 1], prompts, tags, 0, num_resamples=10).estimate
        for i in range(len(seeds))
    ]
    return over_prompts_and_seeds(values, prompts, tags, 0), alone, len(places)


def result(aim: str, found: Interval) -> str:
    """Whether an order that was aimed at holds."""
    if not aim:
        return ""
    if found.low > 0:
        return "holds"
    if found.high < 0:
        return "does not hold"
    return "not told apart" if aim == "> 0" or found.estimate < 0 else "holds, not told apart"


def markdown(study: Study, seeds: Sequence[int], command: str) -> str:
    """benchmarks/learning.md from all that is there."""
    arms = arms_of(study, seeds)
    first = next(iter(next(iter(arms.values())).images.values()))
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    everything = {run for arm in arms.values() for runs in arm.runs.values() for run in runs}
    prompts, sentences = ({key[part] for key in first} for part in (1, 0))
    lines = [
        "# What trainings on preferences gain on the embedded world",
        "",
        f"    {command}",
        "",
        f"{cpu_model()}, {versions}; training seeds {_listed(arms)}. Arms are rows of "
        f"`configs/pipelines/{study.pipeline}.yaml`. Each is measured on {len(prompts)} prompts of "
        f"{len(sentences)} sentences with {len(first) / len(prompts):.3g} images each, the same noise for all; "
        "sentences of small tasks come up several times and count as one cluster. No sentence, in any order of its "
        "words, is among those that pairs and GRPO's images were drawn for. Scores are means of the six tasks in %; "
        "differences are in points, paired by image, with 95 % intervals of a bootstrap over prompts and seeds "
        "(`genloop/stats/over_seeds.py`), then each seed alone. The exact detector judges, labels the pairs and "
        "rewards GRPO; `parm` goes by `shapes/judge`.",
        "",
        "| arm | score, mean of the seeds | each seed (95 % over prompts) | CPU-minutes of training and its data |",
        "|---|---|---|---|",
        *(arm_line(arms[name]) for name in ARMS if name in arms),
        "",
        "| difference | aimed at | points (95 % interval) | each seed | seeds, images of each | |",
        "|---|---|---|---|---|---|",
        *contrast_lines(arms, CONTRASTS),
        "",
        f"CPU-minutes of all runs together: {minutes(everything):.0f}.",
    ]
    return "\n".join(lines) + "\n"


def _listed(arms: Mapping[str, Arm]) -> str:
    trained = [arm for arm in arms.values() if arm.is_trained] or list(arms.values())
    return ", ".join(map(str, sorted({seed for arm in trained for seed in arm.evaluations})))


def arm_line(arm: Arm) -> str:
    """A row of a table: scores by seed, CPU-minutes."""
    scores = [arm.score(seed) for seed in sorted(arm.images)][: None if arm.is_trained else 1]
    each = "; ".join(f"{100 * s.estimate:.1f} ({100 * s.low:.1f} to {100 * s.high:.1f})" for s in scores)
    spent = np.mean([minutes(set(runs) - set(runs[-2:])) for runs in arm.runs.values()])
    return f"| {arm.name} | {100 * np.mean([s.estimate for s in scores]):.1f} | {each} | {spent:.1f} |"


def contrast_lines(arms: Mapping[str, Arm], contrasts: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """A row of a table for each (arm, base, aim) of which both are there."""
    for name, base, aim in contrasts:
        if name not in arms or base not in arms or not arms[name].images.keys() & arms[base].images.keys():
            continue
        found, alone, number = difference(arms[name], arms[base])
        points = f"**{100 * found.estimate:+.1f}** ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        each = ", ".join(f"{100 * value:+.1f}" for value in alone)
        yield f"| {name} - {base} | {aim} | {points} | {each} | {len(alone)}, {number:,} | {result(aim, found)} |"


def minutes(runs: set[Path]) -> float:
    """CPU-minutes of some runs."""
    return sum(cpu_seconds(run) or 0.0 for run in runs) / 60


def main() -> None:
    """Run what is asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="what differs from the pipeline's file")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="training seeds")
    parser.add_argument("--images", type=int, default=4, help="a prompt")
    parser.add_argument("--procs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--pipeline", default=PIPELINE, help="study, or its twin study_tiny")
    parser.add_argument("--table", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--summary", action="store_true", help="run nothing")
    found = parser.parse_args()
    study = Study(found.out, found.pipeline, (*found.words, f"vars.images={found.images}"))
    command = " ".join(["python -m benchmarks.learning", *sys.argv[1:]]).replace(" --summary", "")
    seeds = range(max([*found.seeds, 2]) + 1)  # all that may be there
    for seed, arm in [(seed, arm) for seed in found.seeds for arm in found.arms] if not found.summary else []:
        study.run(arm, seed, found.procs)
        write_atomic(found.table, markdown(study, seeds, command).encode())
    write_atomic(found.table, markdown(study, seeds, command).encode())


if __name__ == "__main__":
    main()
