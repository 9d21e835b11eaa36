"""How often error bars hold what they promise, on simulated evaluations with known rates.

    python benchmarks/geneval_intervals.py [--simulations 500]

A prompt's own rate is drawn from a Beta distribution (alpha + beta = 2: images of one prompt correlate at 1/3), its
images are drawn at that rate. Printed as Markdown: coverage of the nominal 95 % intervals and their mean width in
points; of comparisons the share of false claims without a difference, and of found ones at the detectable difference.
"""

import argparse
import platform
import time
from collections.abc import Iterator

import numpy as np

from genloop.stats.intervals import Interval
from genloop.stats.paired import detectable, mcnemar, sign_flip_test, standard_error
from genloop.stats.rates import FEW, Rates, rates
from genloop.stats.resampling import paired_bootstrap

CONCENTRATION = 2.0
GENEVAL = {  # prompts of each task, and rates as published for models of 2024
    "single_object": (80, 0.98),
    "two_object": (99, 0.80),
    "counting": (80, 0.60),
    "colors": (94, 0.85),
    "position": (100, 0.30),
    "color_attr": (100, 0.50),
}
COLUMNS = ("wilson", "bootstrap", "default")  # default: as evaluate does it, Wilson's below FEW prompts
NUM_RESAMPLES = 1000


def drawn(rng: np.random.Generator, rate: float, num_prompts: int, images: int) -> np.ndarray:
    """Right or wrong: (prompts, images)"""
    own = rng.beta(CONCENTRATION * rate, CONCENTRATION * (1 - rate), num_prompts)
    return rng.random((num_prompts, images)) < own[:, None]


def covered(found: list[Interval], truth: float) -> str:
    """ "94.2 % (12.3)": coverage and mean width in points."""
    hits = np.mean([one.low - 1e-9 <= truth <= one.high + 1e-9 for one in found])
    return f"{100 * hits:.1f} % ({100 * np.mean([one.high - one.low for one in found]):.1f})"


def rates_by(column: str, values: list[float], prompts: list[int], tags: list[str], seed: int) -> Rates:
    """The accuracies with the intervals of one column."""
    if column == "wilson":
        return rates(values, prompts, tags, kind="wilson")
    few = FEW if column == "default" else 0
    return rates(values, prompts, tags, seed=seed, num_resamples=NUM_RESAMPLES, few=few)


def of_a_task(simulations: int) -> Iterator[str]:
    """Coverage of one task's intervals by number of prompts, images a prompt and rate."""
    yield "| prompts | images each | true rate | wilson | bootstrap | default |\n" + "| --- " * 6 + "|"
    for num_prompts in (5, 10, 20, 50, 100):
        for images in (1, 4):
            for rate in (0.1, 0.5, 0.9, 0.98):
                rng = np.random.default_rng([num_prompts, images, int(100 * rate)])
                clusters = np.repeat(np.arange(num_prompts), images).tolist()
                tags = ["colors"] * len(clusters)
                found: dict[str, list[Interval]] = {column: [] for column in COLUMNS}
                for number in range(simulations):
                    values = drawn(rng, rate, num_prompts, images).ravel().astype(float).tolist()
                    for column in COLUMNS:
                        made = rates_by(column, values, clusters, tags, number)
                        found[column].append(made.tasks["colors"].interval)
                cells = " | ".join(covered(found[column], rate) for column in COLUMNS)
                yield f"| {num_prompts} | {images} | {rate} | {cells} |"


def of_the_overall(simulations: int) -> Iterator[str]:
    """Coverage of the mean of six tasks, at GenEval's size and at an eighth of it."""
    yield "| prompts | images each | wilson | bootstrap | default |\n" + "| --- " * 5 + "|"
    truth = float(np.mean([rate for _, rate in GENEVAL.values()]))
    for share in (8, 1):
        sizes = {tag: count // share for tag, (count, _) in GENEVAL.items()}
        for images in (1, 4):
            rng = np.random.default_rng([7, share, images])
            tags = [tag for tag, count in sizes.items() for _ in range(count * images)]
            clusters = np.repeat(np.arange(sum(sizes.values())), images).tolist()
            found: dict[str, list[Interval]] = {column: [] for column in COLUMNS}
            for number in range(simulations):
                parts = [drawn(rng, GENEVAL[tag][1], count, images).ravel() for tag, count in sizes.items()]
                values = np.concatenate(parts).astype(float).tolist()
                for column in COLUMNS:
                    found[column].append(rates_by(column, values, clusters, tags, number).overall.interval)
            cells = " | ".join(covered(found[column], truth) for column in COLUMNS)
            yield f"| {sum(sizes.values())} | {images} | {cells} |"


def of_pairs(simulations: int) -> Iterator[str]:
    """Two runs over the same prompts: each prompt has the same rate in both, or the detectable difference is added."""
    yield (
        "| prompts | images each | coverage of the paired bootstrap | false claims: McNemar over images "
        "| McNemar over prompts | turning prompts around | found at the detectable difference |\n" + "| --- " * 7 + "|"
    )
    for num_prompts in (10, 30, 100):
        for images in (1, 4):
            rng = np.random.default_rng([11, num_prompts, images])
            error = np.mean([_error(*_pair(rng, num_prompts, images, 0.0)) for _ in range(simulations)])
            reach = min(0.4, detectable(float(error), num_prompts - 1, step=1 / (num_prompts * images)))
            held, claims, found = 0, np.zeros(3), 0
            for number in range(simulations):
                a, b = _pair(rng, num_prompts, images, 0.0)
                made = _bootstrapped(a, b, number)
                held += made.low - 1e-9 <= 0 <= made.high + 1e-9
                claims += np.array(_p_values(a, b)) < 0.05
                found += _p_values(*_pair(rng, num_prompts, images, reach))[2] < 0.05
            cells = [held / simulations, *(claims / simulations), found / simulations]
            said = " | ".join(f"{100 * cell:.1f} %" for cell in cells)
            yield f"| {num_prompts} | {images} | {said} (+{100 * reach:.1f}) |"


def _pair(rng: np.random.Generator, num_prompts: int, images: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
    """Two (prompts, images) of right or wrong. A prompt's rates differ between the runs, too: systems have strengths.

    The later run is better by `gain` on average.
    """
    base = rng.uniform(0.1, 0.9 - gain, num_prompts)
    shift = rng.choice([-0.1, 0.1], num_prompts)
    return rng.random((num_prompts, images)) < base[:, None], (
        rng.random((num_prompts, images)) < (base + gain + shift)[:, None]
    )


def _error(a: np.ndarray, b: np.ndarray) -> float:
    steps = b.sum(axis=1) - a.sum(axis=1).astype(int)
    return standard_error(steps.tolist(), [a.shape[1]] * len(a))


def _bootstrapped(a: np.ndarray, b: np.ndarray, seed: int) -> Interval:
    clusters = np.repeat(np.arange(len(a)), a.shape[1]).tolist()
    ours, theirs = b.ravel().astype(float).tolist(), a.ravel().astype(float).tolist()
    return paired_bootstrap(ours, theirs, clusters, seed, num_resamples=NUM_RESAMPLES)


def _p_values(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    steps = b.sum(axis=1) - a.sum(axis=1).astype(int)
    over_images = mcnemar(int((b & ~a).sum()), int((a & ~b).sum()))
    return over_images, mcnemar(int((steps > 0).sum()), int((steps < 0).sum())), sign_flip_test(steps.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500)
    simulations = parser.parse_args().simulations
    started = time.monotonic()
    print(f"{platform.processor() or platform.machine()}, numpy {np.__version__}, {simulations} simulations a row\n")
    parts = (("One task", of_a_task), ("The overall score", of_the_overall), ("Two runs", of_pairs))
    for title, part in parts:
        print(f"## {title}\n")
        for line in part(simulations):
            print(line, flush=True)
        print()
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
