"""Seeded faults on tiny jobs; after each the run is resumed and compared, byte by byte, with an undisturbed one.

    python benchmarks/faults.py                       1,000 faults; prints benchmarks/faults.md
    python benchmarks/faults.py --faults 50 --seed 7 --only "torn row"
    python benchmarks/faults.py --first 123 --faults 1    one of them again

Each trial has a job and a kind of fault from the tables and random numbers of its own. Afterwards no row may be lost or
doubled, and rows, images, checksums and weights must be those of the same config undisturbed. The exit code is 0 when
all are. Faults that mount a small file system are left out where this user may not mount one.
"""

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fault_kinds import FAULTS
from benchmarks.fault_trial import Broken, Subject, Trial, ended
from genloop.environment import cpu_model, package_versions
from tests.runs import ROOT, contents, run_ranks, start

SHORT = ("train.num_steps=6", "train.save_every=2", "train.log_every=1", "train.warmup_steps=2")
DATA = ROOT / "configs" / "data" / "shapes"
PROMPTS = ROOT / "configs" / "prompts" / "shapes_tiny" / "generation_prompts.txt"
METADATA = PROMPTS.with_name("evaluation_metadata.jsonl")


def subjects(root: Path) -> list[Subject]:
    """The jobs; `root` holds the images that `evaluate` looks at, and pairs of them."""
    small = ("tiny", "images_per_prompt=1", "sampling.steps=3", "unit_size=2", "slots=1")
    judged = (f"images={root / 'images'}",)
    checked = ("rows", "images", "checksums")
    published = root / "pairs.jsonl"
    encoded = ("tiny", "source=null", f"published={published}", f"images={root / 'images'}")
    saved = ("training.lock", "checkpoints/step-*", "metrics.jsonl")
    return [
        Subject("generate", small, ("leases/*", "images/*/samples/*.png", "rows/*"), checked, ("prompts", PROMPTS), 4),
        Subject("evaluate", ("tiny", *judged, "unit_size=2"), ("leases/*", "rows/*"), checked, _images(root), 4),
        Subject("train_showo", ("tiny", *SHORT), (*saved, "showo/*"), ("showo",), ("shards", DATA / "shards"), 4),
        Subject(
            "train_judge",
            ("tiny", *SHORT),
            (*saved, "judge/*"),
            ("judge", "tokenizer"),
            ("data.scenes.shards", DATA / "judge"),
            1,
        ),
        Subject(
            "build_pairs",
            (*encoded, "tokenizer=shapes/tokenizer", "resolution=24", "unit_size=2"),
            ("leases/*", "rows/*", "shards/*/*"),
            ("rows", "shards", "checksums"),
            ("published", published),
            1,
        ),
        Subject(
            "train_dpo",
            ("tiny", *SHORT),
            (*saved, "reference/*/*", "showo/*"),
            ("showo",),
            ("pairs", DATA / "pairs"),
            2,
        ),
        Subject(
            "edit",
            ("tiny", "steps=1", "unit_size=1", f"requests={DATA.parent / 'flux_edit' / 'requests.jsonl'}"),
            ("leases/*", "conditions/*", "inputs/*/*", "images/*/samples/*.png", "rows/*"),
            ("rows", "images", "inputs", "conditions", "checksums"),
            ("requests", DATA.parent / "flux_edit" / "requests.jsonl"),
            1,
        ),
        Subject(
            "train_grpo", ("tiny", *SHORT), (*saved, "rollouts/*/*", "showo/*"), ("showo",), ("prompts", METADATA), 2
        ),
    ]


def _images(root: Path) -> tuple[str, Path]:
    return "images", root / "images"


def _published(number: int) -> str:
    """A line of preference pairs about the images."""
    chosen, rejected = (f"{prompt:05d}/samples/0000.png" for prompt in (number, (number + 1) % 12))
    return json.dumps({"prompt": f"prompt {number}", "chosen": chosen, "rejected": rejected}) + "\n"


class Campaign:
    """The undisturbed runs, and the trials that are compared with them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        made = start("generate", "tiny", f"out={root / 'made'}", "images_per_prompt=1", "sampling.steps=2")
        ended(made, {0})
        (root / "made" / "images").rename(root / "images")
        (root / "pairs.jsonl").write_text("".join(map(_published, range(12))))
        self.subjects = subjects(root)
        self.is_root = os.geteuid() == 0 and shutil.which("mount") is not None
        self._quiet: dict[tuple[str, int], dict[str, object]] = {}

    def choose(self, chance: random.Random, only: str = "", job: str = "") -> tuple[Subject, str]:
        """A job and a kind of fault, by their shares."""
        names = [name for name, fault in FAULTS.items() if only in name and (self.is_root or not fault.mounts)]
        kind = chance.choices(names, [FAULTS[name].share for name in names])[0]
        subjects = [subject for subject in self.subjects if job in subject.job]
        return chance.choices(subjects, [subject.share for subject in subjects])[0], kind

    def run(self, subject: Subject, kind: str, chance: random.Random) -> str:
        """One trial -> its outcome: "same", or what is wrong, the kind of it first."""
        place = Path(tempfile.mkdtemp(prefix="trial-", dir=self.root))
        trial = Trial(subject, place, chance)
        try:
            FAULTS[kind].apply(trial)
            kept = place.with_name(f"{place.name}-kept") / "run"
            if not kept.exists():
                trial.resume()
            return self.compare(trial, kept if kept.exists() else trial.run)
        except Broken as error:
            return str(error)
        finally:
            for worker in trial.pool:
                worker.kill()
                worker.wait()
            for folder in (place, place.with_name(f"{place.name}-kept")):
                shutil.rmtree(folder, ignore_errors=True)

    def compare(self, trial: Trial, run: Path) -> str:
        """What of a resumed run differs from the undisturbed one."""
        wanted, found = self.quiet(trial.subject, trial.procs), result(trial.subject, run)
        if lost := sorted(set(wanted) - set(found)):
            return f"lost: {lost[:5]}"
        if more := sorted(set(found) - set(wanted)):
            return f"doubled: {more[:5]}"
        if changed := [name for name in wanted if found[name] != wanted[name]]:
            return f"changed: {changed[:5]}"
        left = [path.name for name in ("leases", "failed", "tmp") for path in run.glob(f"{name}/*")]
        left = [name for name in left if not name.startswith(("status.", "clock."))]
        if left or (run / "training.lock").exists():
            return f"leftover: {left[:5]}"
        return "same"

    def quiet(self, subject: Subject, procs: int) -> Mapping[str, object]:
        """What the job makes undisturbed; a training by two ranks has sums of its own."""
        key = (subject.job, procs if subject.trains else 1)
        if key not in self._quiet:
            out = self.root / f"quiet-{subject.job}-{key[1]}"
            if key[1] > 1:
                run_ranks(subject.job, *subject.words, f"out={out}", world_size=key[1])
            else:
                ended(start(subject.job, *subject.words, f"out={out}"), {0})
            self._quiet[key] = result(subject, out)
        return self._quiet[key]


def result(subject: Subject, run: Path) -> dict[str, object]:
    """{name: content} of all that a run computed: its files, and of a training the losses by step."""
    found: dict[str, object] = dict(contents(run, subject.compared))
    if subject.trains:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for row in rows:
            name = f"loss of step {row['step']}" if "loss" in row else f"evaluation of step {row['step']}"
            found[name + " again" * (name in found)] = row.get("loss")
    return found


def table(outcomes: Sequence[tuple[str, str, str]]) -> str:
    """Markdown: a row a kind of fault, how many of each job, how many ended the same, what else."""
    jobs = list(dict.fromkeys(job for _, job, _ in sorted(outcomes, key=lambda outcome: outcome[1])))
    lines = [f"| fault | {' | '.join(jobs)} | same afterwards | else |", "|---" * (len(jobs) + 3) + "|"]
    for kind in (name for name in FAULTS if any(name == outcome[0] for outcome in outcomes)):
        mine = [outcome for outcome in outcomes if outcome[0] == kind]
        counts = collections.Counter(job for _, job, _ in mine)
        words = collections.Counter(word.partition(":")[0] for _, _, word in mine)
        same = words.pop("same", 0)
        wrong = ", ".join(f"{number} {word}" for word, number in words.items()) or "-"
        lines.append(f"| {kind} | {' | '.join(str(counts[job]) for job in jobs)} | {same} | {wrong} |")
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--faults", type=int, default=1000)
    options.add_argument("--first", type=int, default=0, help="number of the first trial")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="kinds of faults with this in their name")
    options.add_argument("--job", default="", help="jobs with this in their name")
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin no trial after so long")
    choice = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="genloop-faults-"))
    began, outcomes = time.monotonic(), []
    try:
        campaign = Campaign(root)
        for number in range(choice.first, choice.first + choice.faults):
            if time.monotonic() - began > 60 * choice.minutes:
                break
            chance = random.Random(f"{choice.seed} {number}")
            subject, kind = campaign.choose(chance, choice.only, choice.job)
            outcome = campaign.run(subject, kind, chance)
            outcomes.append((kind, subject.job, outcome))
            if outcome != "same":
                print(f"{number} {kind}, {subject.job}: {outcome}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        traceback.print_exc()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    same = sum(outcome == "same" for _, _, outcome in outcomes)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{len(outcomes)} faults, {same} ended the same, {time.monotonic() - began:.0f} s; commit {commit or 'none'}")
    print(f"`python {' '.join(sys.argv)}`; {cpu_model()}, {os.cpu_count()} cores, {package_versions()}\n")
    print(table(outcomes))
    return 0 if outcomes and same == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
