"""The scheduler: results depend on the pair alone, the batch stays full, and every image pays for itself only."""

import gc
import math
import weakref

import pytest

from genloop.records import Prompt
from genloop.search.image import ImageSearch, Path, Steps, ranking
from genloop.search.schedule import Scheduler
from tests.worlds.tiny_search import PAIRS, STEPS, OnlyOutcomes, Opinions, build, content, sampler


def explore(image: ImageSearch) -> Steps[Path]:
    """A strategy that uses every request, and takes another way for every image."""
    paths = image.start(1 + image.prompt.index % 3)
    yield from image.walk(paths, 2)
    scores = yield from image.ask("potential", paths)
    best = paths[ranking(scores)[0]]
    branches = image.branch(best, 2)
    yield from image.walk(branches, 3 + image.sample)
    pixels = yield from image.look(branches)
    greyer = yield from image.ask("outcome", branches, pixels * 0.5)
    if sum(greyer) > 1:
        (first,) = yield from image.compare(branches[:1], branches[1:])
        best = branches[0] if first >= 0.5 else branches[1]
    yield from image.walk([best])
    (reason,) = yield from image.explain([best])
    (again,) = image.branch(best)
    fit = yield from image.confidence([again])
    image.remask(again, fit[0] <= fit[0].sort().values[4], 2 + len(reason) % 2)
    yield from image.walk([again])
    yield from image.ask("outcome", [best, again])
    return image.best("outcome", [best, again])


def run(pairs, slots=64, judge=None, choose=explore):
    walker = sampler(slots)
    choices = list(Scheduler(walker, judge or Opinions(), choose).run(pairs, 3))
    return choices, walker


@pytest.fixture(scope="module")
def reference():
    choices, _ = run(PAIRS)
    return [content(choice) for choice in choices]


@pytest.mark.parametrize("slots", [1, 3, 7])
def test_slots_change_nothing(reference, slots):
    choices, walker = run(PAIRS, slots)
    assert [content(choice) for choice in choices] == reference
    assert max(walker.walked) == slots


def test_neighbours_and_order_change_nothing(reference):
    assert [content(choice) for choice in run(PAIRS[::-1], 5)[0]][::-1] == reference
    assert [content(run([pair])[0][0]) for pair in PAIRS] == reference
    assert len({str(row["candidates"]) for row in reference}) == len(PAIRS)


def test_unknown_answers_change_nothing_for_others(reference):
    choices, _ = run(PAIRS, judge=Opinions(unknown=0.3))
    alone = [run([pair], judge=Opinions(unknown=0.3))[0][0] for pair in PAIRS]
    assert [content(choice) for choice in choices] == [content(choice) for choice in alone]


def test_choices_come_as_soon_as_they_are_made():
    walker = sampler(slots=1)
    choices = Scheduler(walker, None, build("none", 1, None).choose).run(PAIRS, 0)
    next(choices)
    assert len(walker.walked) == STEPS
    next(choices)
    assert len(walker.walked) == 2 * STEPS


def test_an_image_that_is_done_is_forgotten_without_the_cycle_collector():
    """Decoded pixels and text prefixes of a whole unit would not fit into memory."""
    seen = []

    def choose(image: ImageSearch) -> Steps[Path]:
        steps = explore(image)
        request = next(steps)
        seen.append([weakref.ref(image), *map(weakref.ref, image.paths)])
        while True:
            try:
                request = steps.send((yield request))
            except StopIteration as end:
                seen[-1] += map(weakref.ref, image.paths)
                return end.value

    gc.collect()
    gc.disable()
    try:
        for number, _ in enumerate(Scheduler(sampler(slots=2), Opinions(), choose).run(PAIRS, 0)):
            assert [ref() for refs in seen[: number + 1] for ref in refs if ref() is not None] == []
    finally:
        gc.enable()
    assert len(seen) == len(PAIRS)


def test_a_search_stops_in_front_of_its_next_step():
    class Enough(BaseException):
        pass

    def stop():
        if len(walker.walked) == 3:
            raise Enough

    walker = sampler(slots=4)
    walker.walked, walker.before_step = [], stop
    with pytest.raises(Enough):
        list(Scheduler(walker, Opinions(), build("best_of_n", 4, Opinions()).choose).run(PAIRS, 0))
    assert len(walker.walked) == 3  # the third was asked for, not taken


@pytest.mark.parametrize("slots", [4, 6, 11])
def test_the_batch_stays_full_while_there_is_work(slots):
    """Half of the paths are cut after two steps; their slots go to the next at once."""

    def choose(image: ImageSearch) -> Steps[Path]:
        paths = image.start(4)
        yield from image.walk(paths, 2)
        scores = yield from image.ask("potential", paths)
        kept = [paths[i] for i in ranking(scores)[:2]]
        yield from image.walk(kept)
        return kept[0]

    choices, walker = run(PAIRS, slots, choose=choose)
    assert sum(walker.walked) == len(PAIRS) * (4 * 2 + 2 * (STEPS - 2))
    assert all(choice.cost.generator_steps == 16 for choice in choices)
    tail = next((i for i, rows in enumerate(walker.walked) if rows < slots), len(walker.walked))
    assert sum(walker.walked[tail:]) <= 2 * slots * STEPS  # only the last images leave slots empty
    assert tail >= 0.5 * len(walker.walked)


def test_the_same_questions_of_many_images_are_asked_together():
    judge = Opinions()
    run(PAIRS, 64, judge, build("best_of_n", 4, judge).choose)
    assert judge.shown == [("outcome", 32)]
    judge = Opinions()
    run(PAIRS, 16, judge, build("best_of_n", 4, judge).choose)
    assert judge.shown == [("outcome", 16)] * 2


def test_an_image_pays_for_its_own_steps_decodes_and_questions():
    def choose(image: ImageSearch) -> Steps[Path]:
        one, other = image.start(2)
        yield from image.walk([one, other], 2)
        yield from image.ask("clarity", [one, other])
        yield from image.ask("potential", [one])  # the second question about the same pixels
        yield from image.walk([one])
        yield from image.confidence([one])
        yield from image.ask("outcome", [one])
        return one

    (choice, *_), walker = run(PAIRS[2:4], judge=Opinions(), choose=choose)
    assert choice.cost.generator_steps == 2 + STEPS + 1.5
    assert choice.cost.judge_calls == 4
    prompt = PAIRS[2][0]
    judged = (110 + prompt.index) * 3 + 10  # three images, one of them with a second question
    assert choice.cost.flops == pytest.approx(choice.cost.generator_steps * walker.flops_per_step + judged)
    cut = choice.candidates[1]
    assert (cut.cut_at, choice.candidates[0].cut_at) == (2, None)
    revealed_at = cut.history["revealed_at"]
    assert (cut.content == walker.mask_code).any() and (revealed_at.max(), revealed_at.min()) == (1, -1)
    assert [(seen.step, seen.question) for seen in choice.candidates[0].trace] == [
        (2, "clarity"),
        (2, "potential"),
        (STEPS, "outcome"),
    ]


def test_decodes_are_paid_once_for_each_thing_that_is_looked_at():
    class Priced(type(sampler())):
        flops_per_decode = 7.0

        def __init__(self, other):
            self.__dict__ = other.__dict__ | {"flops_per_decode": 7.0, "flops_per_step": 0.0}

    def choose(image: ImageSearch) -> Steps[Path]:
        paths = image.start(2)
        yield from image.walk(paths, 2)
        yield from image.look(paths)
        yield from image.look(paths[:1])
        yield from image.walk(paths[:1])
        return paths[0]

    (choice,) = Scheduler(Priced(sampler()), Opinions(), choose).run(PAIRS[:1], 0)
    assert choice.cost.flops == 3 * 7.0  # two previews, and the image itself


def test_a_child_says_where_it_comes_from_and_goes_on_counting(reference):
    for row in reference:
        child = row["candidates"][-1]
        cut_at, origin, reason = child["rest"][:3]
        assert (cut_at, reason) == (None, "") and row["candidates"][origin]["rest"][2].startswith("reason")
        assert max(child["history"]["revealed_at"]) >= STEPS + 1
        assert child["trace"][-1][0] > STEPS


def test_errors_name_the_images_they_are_about():
    def choose(image: ImageSearch) -> Steps[Path]:
        (path,) = image.start()
        if image.prompt.index == 2:
            raise RuntimeError("no way")
        yield from image.walk([path], 1)
        yield from image.ask("outcome", [path])
        return path

    with pytest.raises(RuntimeError, match="no way") as caught:
        run(PAIRS, choose=choose)
    assert caught.value.__notes__ == ["prompt 2 'red apple', sample 0"]

    class Broken(OnlyOutcomes):
        def p_yes(self, question, prompts, images):
            raise ConnectionError("down")

    with pytest.raises(ConnectionError) as caught:
        run([(Prompt(5, "a cat"), 1)], judge=Broken(), choose=choose)
    assert caught.value.__notes__ == ["asking 'outcome' about prompt 5 'a cat', sample 1"]


def test_there_is_nothing_to_look_at_before_the_first_step():
    def choose(image: ImageSearch) -> Steps[Path]:
        (path,) = image.start()
        yield from image.ask("outcome", [path])
        return path

    with pytest.raises(ValueError, match="before a path's first step"):
        run(PAIRS[:1], choose=choose)


def test_ranking_puts_the_first_of_equals_first_and_the_unknown_last():
    assert ranking([0.2, math.nan, 0.9, 0.2, 0.9]) == [2, 4, 0, 3, 1]
    assert ranking([math.nan, math.nan]) == [0, 1]
