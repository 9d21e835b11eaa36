"""PARM (Guo et al. 2025): look at previews while paths are decoded, and give up those without potential.

rank       N paths walk to step `at`; within the prompt the `keep` with the highest potential go on, and the outcome of
           the finished ones decides. Several steps make several rungs. Comparing previews of one prompt at one step
           needs neither clarity nor a threshold, which differ from prompt to prompt.
threshold  The paper: is the preview clear enough to be judged? Asked from step `start` on, every `stride` steps. At the
           first clear one: has it potential? A path without (p < `threshold`) is cut at once. The outcome of the
           survivors decides; without survivors the one with the highest potential is finished. A path that was never
           clear is a survivor. clarity=bisect finds the first clear step with a few questions, on the assumption that
           a path stays clear; it walks on to the latest step that it asked about.
released   The published loop: clarity after every step from the first to the last; no path is cut; among those with
           potential the outcome decides, the first of equals; else the lowest P(no), the first of equals. Clear is
           whatever was not answered with no. An invalid answer counts as no potential and P(no) = 50, or outcome 0.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from genloop.bounds import Repeats, Share
from genloop.config import Settings
from genloop.search.image import ImageSearch, Path, PathSnapshot, Steps, ranking
from genloop.search.strategy import Search, check_step

INVALID_NO = 50.0  # P(no) of an invalid answer, as published


def _tuple(value: Any) -> Any:
    """One number is a list of one."""
    return (value,) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


Rungs = Annotated[tuple[Repeats, ...] | None, BeforeValidator(_tuple)]


class Parm(Search):
    """Step-wise judging in three modes."""

    class Options(Settings):
        mode: Literal["rank", "threshold", "released"] = Field("rank", description="who is given up")
        at: Rungs = Field(None, description="rank: step, or list of steps; none: a third of all")
        keep: Rungs = Field(None, description="rank: how many go on from there, or a list; none: a quarter")
        clarity: Literal["stride", "bisect"] = Field(
            "stride", description="threshold: how the first clear step is found"
        )
        start: Repeats = Field(1, description="threshold: the first step at which clarity is asked")
        stride: Repeats = Field(1, description="threshold: steps between two questions")
        clear: Share = Field(0.5, description="threshold: P(yes) that is clear enough")
        threshold: Share = Field(0.5, description="threshold: potential below it cuts a path")

    @classmethod
    def questions(cls, options: Any) -> tuple[str, ...]:
        """Ranking needs no clarity."""
        return ("potential", "outcome") if options.mode == "rank" else ("clarity", "potential", "outcome")

    @classmethod
    def check(cls, num_candidates: int, num_steps: int, options: Any) -> None:
        """Rungs climb and thin out; clarity is asked before the last step."""
        if options.mode == "rank":
            rungs(num_candidates, num_steps, options.at, options.keep)
        elif options.mode == "threshold":
            check_step("start", options.start, num_steps)

    def choose(self, image: ImageSearch) -> Steps[Path]:
        """The search for one image."""
        options = self.options
        if options.mode == "released":
            return (yield from _released(image, self.num_candidates))
        if options.mode == "rank":
            pairs = rungs(self.num_candidates, self.sampler.num_steps, options.at, options.keep)
            alive = yield from climb(image, image.start(self.num_candidates), pairs)
        elif options.clarity == "stride":
            alive = yield from _survivors(image, image.start(self.num_candidates), options)
        else:
            alive = yield from _survivors_by_bisection(image, image.start(self.num_candidates), options)
        return (yield from finish(image, alive))


def rungs(num_paths: int, num_steps: int, at: Rungs, keep: Rungs) -> list[tuple[int, int]]:
    """(step, how many go on) of every rung, filled in and checked."""
    steps = [max(1, min(num_steps - 1, round(num_steps / 3)))] if at is None else list(at)
    kept = [max(1, num_paths // 4)] if keep is None else list(keep)
    if len(steps) != len(kept):
        raise ValueError(f"search.options.keep: {len(kept)} numbers for the {len(steps)} steps of search.options.at")
    for step in steps:
        check_step("at", step, num_steps)
    if steps != sorted(set(steps)):
        raise ValueError(f"search.options.at: the steps {steps} do not climb")
    if kept != sorted(kept, reverse=True) or kept[0] > num_paths:
        raise ValueError(f"search.options.keep: {kept} of search.n={num_paths} paths; expected ever fewer")
    return list(zip(steps, kept))


def climb(
    image: ImageSearch, alive: Sequence[Path], pairs: Sequence[tuple[int, int]], question: str = "potential"
) -> Steps[list[Path]]:
    """Walk to every (step, how many go on) and keep the best by `question` -> those left, unfinished."""
    alive = list(alive)
    for step, keep in pairs:
        yield from image.walk(alive, step)
        if keep < len(alive):
            scores = yield from image.ask(question, alive)
            alive = [alive[i] for i in sorted(ranking(scores)[:keep])]
    return alive


def finish(image: ImageSearch, alive: Sequence[Path]) -> Steps[Path]:
    """Walk to the end; where several are left the outcome decides."""
    yield from image.walk(alive)
    if len(alive) == 1:
        return alive[0]
    yield from image.ask("outcome", alive)
    return image.best("outcome", alive)


def _survivors(image: ImageSearch, paths: Sequence[Path], options: Any) -> Steps[list[Path]]:
    """Ask about clarity every few steps, about potential once -> the paths that go on; one at least."""
    alive, unclear = list(paths), list(paths)
    for step in range(options.start, image.sampler.num_steps, options.stride):
        yield from image.walk(alive, step)
        answers = yield from image.ask("clarity", unclear)
        clear = [path for path, p_yes in zip(unclear, answers) if p_yes >= options.clear]
        unclear = [path for path in unclear if path not in clear]
        if clear:
            cut = yield from _without_potential(image, [path.now for path in clear], options.threshold)
            alive = [path for path in alive if path not in cut]
        if not unclear:
            break
    return alive or [image.best("potential", paths)]


def _survivors_by_bisection(image: ImageSearch, paths: Sequence[Path], options: Any) -> Steps[list[Path]]:
    """The same with the first clear step of each path found by halving what is open."""
    end = image.sampler.num_steps  # stands for: never clear
    unclear = dict.fromkeys(paths, options.start - 1)  # the last step known to be unclear
    clear = dict.fromkeys(paths, end)  # the first step known to be clear
    seen: dict[tuple[Path, int], PathSnapshot] = {}
    while searching := [path for path in paths if clear[path] - unclear[path] > 1]:
        middle = {path: (unclear[path] + clear[path]) // 2 for path in searching}
        for step in range(1, max(middle.values()) + 1):
            going = [path for path in searching if path.steps < step <= middle[path]]
            yield from image.walk(going, step)
            seen |= {(path, step): path.now for path in going}
        answers = yield from image.ask("clarity", [seen[path, middle[path]] for path in searching])
        for path, p_yes in zip(searching, answers):
            (clear if p_yes >= options.clear else unclear)[path] = middle[path]
    snapshots = [seen[path, clear[path]] for path in paths if clear[path] < end]
    cut = (yield from _without_potential(image, snapshots, options.threshold)) if snapshots else []
    return [path for path in paths if path not in cut] or [image.best("potential", paths)]


def _without_potential(image: ImageSearch, snapshots: Sequence[PathSnapshot], threshold: float) -> Steps[list[Path]]:
    """The paths that are answered with no; an unknown answer is none."""
    answers = yield from image.ask("potential", snapshots)
    return [snapshot.path for snapshot, p_yes in zip(snapshots, answers) if p_yes < threshold]


def _released(image: ImageSearch, num_paths: int) -> Steps[Path]:
    """The published loop."""
    paths = image.start(num_paths)
    unclear = list(paths)
    no = dict.fromkeys(paths, 1.0)  # P(no) of those that are never clear
    has_potential: list[Path] = []
    for step in range(1, image.sampler.num_steps + 1):
        yield from image.walk(paths, step)
        if not unclear:
            continue
        answers = yield from image.ask("clarity", unclear)
        clear = [path for path, p_yes in zip(unclear, answers) if not p_yes < 0.5]
        unclear = [path for path in unclear if path not in clear]
        if clear:
            potential = yield from image.ask("potential", clear)
            no |= {path: INVALID_NO if math.isnan(p_yes) else 1 - p_yes for path, p_yes in zip(clear, potential)}
            has_potential += [path for path, p_yes in zip(clear, potential) if p_yes >= 0.5]
    if not has_potential:
        return min(paths, key=lambda path: no[path])
    has_potential.sort(key=lambda path: path.index)
    outcome = yield from image.ask("outcome", has_potential)
    return max(zip(has_potential, outcome), key=lambda pair: 0.0 if math.isnan(pair[1]) else pair[1])[0]
