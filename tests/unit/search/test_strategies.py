"""What each strategy does with its budget: whom it cuts, whom it asks, whom it keeps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from genloop.records import Candidate, Choice, Prompt, Seed
from genloop.sampling.noise import half_masks
from genloop.search.adaptive import calibrated
from genloop.search.knockout import bradley_terry
from genloop.search.parm import rungs
from genloop.search.parm_plus_plus import ParmPlusPlus
from tests.worlds.tiny_search import PAIRS, STEPS, OnlyOutcomes, Opinions, build, sampler


class Rule(OnlyOutcomes):
    """A judge that answers by a rule about question and image."""

    def __init__(self, rule: Callable[[str, Tensor], float]) -> None:
        super().__init__()
        self.rule = rule

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        return torch.tensor([self.rule(question, image) for image in images])


def run(name: str, n: int, judge: Any = None, **options: Any) -> list[Choice]:
    return list(build(name, n, judge or Opinions(), **options).search(PAIRS, 5))


def scores(candidate: Candidate, question: str) -> dict[int, float]:
    """{step: P(yes)}"""
    return {seen.step: seen.p_yes for seen in candidate.trace if seen.question == question}


def done(choice: Choice) -> list[Candidate]:
    return [candidate for candidate in choice.candidates if candidate.cut_at is None]


def test_parm_ranks_paths_of_a_prompt_and_finishes_the_best() -> None:
    for choice in run("parm", 6, at=2, keep=2):
        potential = [scores(candidate, "potential")[2] for candidate in choice.candidates]
        kept = sorted(sorted(range(6), key=lambda i: -potential[i])[:2])
        assert [candidate.index for candidate in done(choice)] == kept
        assert {candidate.cut_at for candidate in choice.candidates if candidate.index not in kept} == {2}
        outcome = [scores(choice.candidates[i], "outcome")[STEPS] for i in kept]
        assert choice.chosen == kept[outcome.index(max(outcome))]
        assert choice.cost.generator_steps == 6 * 2 + 2 * (STEPS - 2)
        assert choice.cost.judge_calls == 6 + 2


def test_parm_climbs_several_rungs_and_asks_nobody_when_one_is_left() -> None:
    for choice in run("parm", 6, at=(1, 3), keep=(3, 1)):
        cuts = [candidate.cut_at for candidate in choice.candidates]
        assert (cuts.count(1), cuts.count(3), cuts.count(None)) == (3, 2, 1)
        assert choice.chosen == cuts.index(None)
        assert (choice.cost.generator_steps, choice.cost.judge_calls) == (6 + 3 * 2 + 3, 6 + 3)


def test_parm_by_default_ranks_at_a_third_and_keeps_a_quarter() -> None:
    for choice in run("parm", 8):
        assert sorted(candidate.cut_at or 0 for candidate in choice.candidates) == [0, 0] + [2] * 6


def test_parm_with_a_threshold_cuts_at_the_first_clear_step() -> None:
    clear, threshold = 0.6, 0.5
    fates = set()
    for choice in run("parm", 5, mode="threshold", clear=clear, threshold=threshold):
        survivors = []
        for candidate in choice.candidates:
            clarity, potential = scores(candidate, "clarity"), scores(candidate, "potential")
            first = next((step for step, p_yes in clarity.items() if p_yes >= clear), None)
            assert list(clarity) == list(range(1, (first or STEPS - 1) + 1))
            assert list(potential) == ([] if first is None else [first])
            is_cut = first is not None and potential[first] < threshold
            survivors += [] if is_cut else [candidate.index]
            fates.add((first is None, is_cut))
            if is_cut and candidate.index != choice.chosen:
                assert candidate.cut_at == first
        if survivors:
            assert [candidate.index for candidate in done(choice)] == survivors
        else:
            fates.add("none left")
            potential = [candidate.p_yes["potential"] for candidate in choice.candidates]
            assert choice.chosen == potential.index(max(potential))
            assert [candidate.index for candidate in done(choice)] == [choice.chosen]
        walked = sum(STEPS if one.cut_at is None else one.cut_at for one in choice.candidates)
        assert choice.cost.generator_steps == walked
    assert {(True, False), (False, True), (False, False)} <= fates


def test_parm_finishes_the_most_promising_path_when_all_are_cut() -> None:
    seen = 0
    for choice in run("parm", 3, mode="threshold", clear=0.0, threshold=1.0, start=2):
        potential = [candidate.p_yes["potential"] for candidate in choice.candidates]
        assert choice.chosen == potential.index(max(potential))
        assert [candidate.cut_at for candidate in choice.candidates].count(2) == 2
        seen += 1
    assert seen == len(PAIRS)


@pytest.mark.parametrize("clear_at", [1, 2, 4, 5, 6])
def test_bisection_finds_the_first_clear_step_with_fewer_questions(clear_at: int) -> None:
    """A judge to which images are clear from a step on, whatever they show."""

    class Clears(Opinions):
        steps: dict[bytes, int]

        def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
            if question != "clarity":
                return super().p_yes(question, prompts, images)
            return torch.tensor([float(self.steps[image.numpy().tobytes()] >= clear_at) for image in images])

    judge = Clears()
    judge.steps = {}
    walker = sampler()
    seeds = [Seed(5, prompt.index, sample, i) for prompt, sample in PAIRS for i in range(4)]
    state = walker.start([prompt for prompt, _ in PAIRS for _ in range(4)], seeds)
    for step in range(1, STEPS + 1):
        state = walker.step(state)
        judge.steps |= {image.contiguous().numpy().tobytes(): step for image in walker.preview(state)}
    linear, halved = (
        run("parm", 4, judge, mode="threshold", clarity=how, threshold=0.6) for how in ("stride", "bisect")
    )
    for one, other in zip(linear, halved):
        assert one.chosen == other.chosen
        assert [c.p_yes.get("potential") for c in one.candidates] == [
            c.p_yes.get("potential") for c in other.candidates
        ]
        asked = [sum(len(scores(c, "clarity")) for c in choice.candidates) for choice in (one, other)]
        assert asked[1] <= 4 * 3 and (clear_at < 4 or asked[1] < asked[0])


def test_prm_aggregates_the_scores_of_whole_paths() -> None:
    for how, worth in (("last", lambda p: p[-1]), ("mean", lambda p: sum(p) / len(p)), ("min", min)):
        for choice in run("prm", 4, start=2, stride=2, aggregate=how):
            totals = [worth([seen.p_yes for seen in candidate.trace]) for candidate in choice.candidates]
            assert choice.chosen == totals.index(max(totals))
            assert [[seen.step for seen in candidate.trace] for candidate in choice.candidates] == [[2, 4, 6]] * 4
            assert choice.cost.judge_calls == 12


def test_prm_keeps_the_best_of_every_step() -> None:
    for choice in run("prm", 3, keep="step", start=2, stride=2, question="potential"):
        assert len(choice.candidates) == 3 + 2 + 2
        first = max(choice.candidates[:3], key=lambda one: scores(one, "potential")[2])
        assert {one.parent for one in choice.candidates[3:5]} == {first.index}
        second = max([first, *choice.candidates[3:5]], key=lambda one: scores(one, "potential")[4])
        assert {one.parent for one in choice.candidates[5:]} == {second.index}
        last = [second, *choice.candidates[5:]]
        assert choice.chosen == max(last, key=lambda one: one.p_yes["outcome"]).index
        assert choice.cost.generator_steps == 3 * STEPS
        for child in choice.candidates[5:]:
            shared = second.history["revealed_at"] < 4
            assert (child.content[shared] == second.content[shared]).all()


def test_halving_cuts_a_share_at_every_rung() -> None:
    rungs = [{"step": 1, "share": 0.5}, {"step": 4, "share": 0.3}]
    for choice in run("successive_halving", 9, rungs=rungs):
        cuts = [candidate.cut_at for candidate in choice.candidates]
        assert (cuts.count(1), cuts.count(4), cuts.count(None)) == (4, 3, 2)
        assert choice.cost.generator_steps == 9 + 5 * 3 + 2 * 2
    for choice in run("successive_halving", 8, question="outcome"):
        assert [[c.cut_at for c in choice.candidates].count(step) for step in (2, 3, 4)] == [4, 2, 1]


def test_a_knockout_asks_one_comparison_less_than_there_are_candidates() -> None:
    judge = Opinions()
    for choice in run("knockout", 5, judge):
        assert choice.cost.judge_calls == 2 * 4
        best = choice.candidates[choice.chosen]
        assert all(seen.p_yes >= 0.5 for seen in best.trace)
        assert all(min(seen.p_yes for seen in c.trace) <= 0.5 for c in choice.candidates if c is not best)
    assert {question for question, _ in judge.shown} == {"compare"}


def test_a_knockout_by_outcomes_ends_as_best_of_n_does() -> None:
    ours, theirs = run("knockout", 7, OnlyOutcomes()), run("best_of_n", 7, OnlyOutcomes())
    assert [choice.chosen for choice in ours] == [choice.chosen for choice in theirs]
    assert [choice.cost.judge_calls for choice in ours] == [7] * len(PAIRS)
    assert bradley_terry(0.75, 0.5) == 0.75 and bradley_terry(1.0, 1.0) == bradley_terry(0.0, 0.0) == 0.5
    assert (bradley_terry(0.1, math.nan), bradley_terry(math.nan, 0.1)) == (1.0, 0.0)


def test_adaptive_search_stops_at_the_first_round_that_is_good_enough() -> None:
    rounds = set()
    for choice in run("adaptive", 8, group=2, at=2, error=0.4):
        finished = done(choice)
        outcomes = [candidate.p_yes["outcome"] for candidate in finished]
        assert len(choice.candidates) == 2 * len(finished)
        assert all(p_yes < 0.6 for p_yes in outcomes[:-1])
        assert len(finished) == 4 or outcomes[-1] >= 0.6
        assert choice.chosen == finished[outcomes.index(max(outcomes))].index
        assert choice.cost.generator_steps == len(finished) * (2 * 2 + STEPS - 2)
        rounds.add(len(finished))
    assert len(rounds) > 2


def test_adaptive_search_calibrates_what_it_accepts() -> None:
    sure, never = (run("adaptive", 6, group=1, error=0.4, offset=offset) for offset in (30.0, -30.0))
    assert all(len(choice.candidates) == 1 for choice in sure)
    assert all(len(choice.candidates) == 6 for choice in never)
    assert calibrated(0.3, 1.0, 0.0) == 0.3 and math.isnan(calibrated(math.nan, 2.0, 1.0))
    assert calibrated(0.5, 3.0, 1.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert calibrated(0.0, 1.0, 1.0) < 1e-8 and calibrated(1.0, 1.0, -1.0) > 1 - 1e-8


def test_accepted_images_of_a_calibrated_judge_are_wrong_no_more_often_than_stated() -> None:
    """P(yes) is the share of right ones among images that get it: the docstring's promise, on drawn numbers."""
    chance = torch.Generator().manual_seed(0)
    p_yes = torch.rand(20000, 6, generator=chance) ** 2
    right = torch.rand(20000, 6, generator=chance) < p_yes
    for error in (0.1, 0.3):
        good = p_yes >= 1 - error
        accepted = good.any(1)
        first = good.float().argmax(1)
        wrong = ~right.gather(1, first[:, None])[:, 0][accepted]
        assert 0.3 * error < wrong.float().mean() <= error


def test_a_correction_never_ends_below_its_start_and_keeps_the_rest() -> None:
    improved = 0
    started = run("best_of_n", 2)
    for choice, start in zip(run("parm_plus_plus", 2, start="best_of_n", accept=1.0, rounds=4), started):
        assert [c.content.tolist() for c in choice.candidates[:2]] == [c.content.tolist() for c in start.candidates]
        best = start.chosen
        for child in choice.candidates[2:]:
            parent = choice.candidates[best]
            assert child.parent == best
            changed = child.history["revealed_at"] >= parent.history["revealed_at"].max() + 1
            assert changed.sum() == round(0.3 * 16)
            assert (child.content[~changed] == parent.content[~changed]).all()
            assert (child.history["revealed_at"][~changed] == parent.history["revealed_at"][~changed]).all()
            improved += child.p_yes["outcome"] > parent.p_yes["outcome"]
            best = child.index if child.p_yes["outcome"] > parent.p_yes["outcome"] else best
        assert choice.chosen == best
        assert choice.candidates[best].p_yes["outcome"] >= start.candidates[start.chosen].p_yes["outcome"]
        corrections = len(choice.candidates) - 2
        assert choice.cost.generator_steps == 2 * STEPS + corrections * (4 + 1.5)
    assert improved > 2


def test_reasons_are_asked_once_for_each_image_that_is_not_good_enough() -> None:
    judge = Opinions()
    for choice in run("parm_plus_plus", 1, judge, start="none", region="random", accept=0.7, rounds=3):
        for candidate in choice.candidates:
            is_parent = any(child.parent == candidate.index for child in choice.candidates)
            assert bool(candidate.reason) == is_parent
            assert not is_parent or candidate.p_yes["outcome"] < 0.7
    silent = run("parm_plus_plus", 1, OnlyOutcomes(), start="none", region="random", accept=0.7)
    assert all(candidate.reason == "" for choice in silent for candidate in choice.candidates)


def test_the_least_confident_tokens_are_drawn_again() -> None:
    (choice,) = build("parm_plus_plus", 1, Opinions(), start="none", accept=1.0, rounds=1).search(PAIRS[3:4], 5)
    first, again = choice.candidates
    walker = sampler()
    prompt, sample = PAIRS[3]
    state = walker.start([prompt], [Seed(5, prompt.index, sample, 1)], torch.from_numpy(first.content)[None])
    fit = walker.confidence(state)[0]
    assert half_masks(state.seeds[0], 0, 16).any(0).all()
    changed = torch.from_numpy(again.history["revealed_at"] >= STEPS)
    assert fit[changed].max() <= fit[~changed].min()


def test_occlusion_draws_the_block_again_without_which_the_image_is_liked() -> None:
    def hates_what_is_below_right(question: str, image: Tensor) -> float:
        return 0.4 if (image[:, 4:, 4:] == 0.5).all() else 0.1

    options = {"start": "none", "region": "occlusion", "blocks": 2, "fraction": 0.25, "rounds": 1}
    for choice in run("parm_plus_plus", 1, Rule(hates_what_is_below_right), **options):
        changed = (choice.candidates[1].history["revealed_at"] >= STEPS).reshape(4, 4)
        assert changed[2:, 2:].all() and changed.sum() == 4
        assert choice.cost.judge_calls == 1 + 4 + 1
        assert len(choice.candidates[0].trace) == 1  # images with a hole are nobody's preview


def test_a_tuned_generator_draws_all_anew_behind_the_image_and_the_reason() -> None:
    asked = build("parm_plus_plus", 1, Opinions(), start="none", correction="layout").options
    assert ParmPlusPlus.questions(asked) == ("outcome", "reason")
    options = {"start": "none", "correction": "layout", "accept": 1.0, "rounds": 2}
    words, plain = (run("parm_plus_plus", 1, judge, **options) for judge in (Opinions(), OnlyOutcomes()))
    for choice, other in zip(words, plain):
        first, again, *_ = choice.candidates
        assert first.reason.startswith("reason") and again.parent == 0
        assert again.history["revealed_at"].min() == STEPS and again.history["revealed_at"].max() == 2 * STEPS - 1
        assert choice.cost.generator_steps == STEPS + 2 * (STEPS + 0.5)
        assert (again.content != other.candidates[1].content).any()  # the reason was heard
        assert (first.content == other.candidates[0].content).all()


def test_only_a_finished_image_is_corrected_behind_itself() -> None:
    walker = sampler()
    state = walker.step(walker.start([PAIRS[1][0]], [Seed(0, 0, 0, 0)]))
    with pytest.raises(ValueError, match="only a finished image"):
        walker.correct(state, [PAIRS[1][0]], ["too red"])


def test_a_correction_reads_the_rewritten_prompt() -> None:
    walker, prompt, other = sampler(), PAIRS[1][0], PAIRS[3][0]
    finished = walker.start([prompt], [Seed(0, 0, 0, 0)])
    for _ in range(STEPS):
        finished = walker.step(finished)

    def drawn(asked: Prompt) -> list[int]:
        state = walker.correct(finished, [asked], ["too red"])
        for _ in range(STEPS):
            state = walker.step(state)
        return state.tokens[0].tolist()

    assert drawn(replace(prompt, detailed_caption=other.text)) == drawn(other) != drawn(prompt)


def test_an_unknown_outcome_is_not_corrected() -> None:
    for choice in run("parm_plus_plus", 1, Opinions(unknown=1.0), start="none"):
        assert len(choice.candidates) == 1
        assert choice.candidates[0].reason == "not judged: the judge gave no answer"


@pytest.mark.parametrize(
    ("name", "n", "options", "message"),
    [
        ("parm", 4, {"at": 6}, r"search\.options\.at: step 6"),
        ("parm", 4, {"at": (3, 2), "keep": (2, 1)}, r"search\.options\.at: .*\[3, 2\]"),
        ("parm", 4, {"at": (2, 3)}, r"search\.options\.keep: 1 .*2 steps"),
        ("parm", 4, {"keep": 5}, r"search\.options\.keep: \[5\] .*search\.n=4"),
        ("parm", 4, {"keep": 0}, r"keep\.0: .*, found 0"),
        ("parm", 4, {"mode": "threshold", "start": 9}, "search.options.start: step 9"),
        ("prm", 4, {"start": 6}, "search.options.start: step 6"),
        ("successive_halving", 4, {"rungs": [{"step": 4}, {"step": 4}]}, "search.options.rungs: the steps"),
        ("adaptive", 4, {"keep": 5}, r"search.options.keep: \[5\]"),
        ("parm_plus_plus", 2, {"start": "none"}, "'none' .*found 2"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(name: str, n: int, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, n, Opinions(), **options)


def test_a_single_step_leaves_nothing_to_rank() -> None:
    with pytest.raises(ValueError, match="step 1 is not one of 1 to 0"):
        rungs(4, 1, None, None)


def test_refinement_draws_the_best_again_for_the_refined_prompt_and_never_ends_below_its_start() -> None:
    ends = set()
    options = {"rounds": 4, "strength": 0.5, "decay": 0.5, "guidance_rise": 0.2}
    for place, (choice, start) in enumerate(zip(run("refine", 1, **options), run("none", 1))):
        best = choice.candidates[0]
        assert best.content.tolist() == start.candidates[0].content.tolist()
        failed = 0
        for number, child in enumerate(choice.candidates[1:]):
            assert child.parent == best.index and best.critique is not None and child.redrawn is not None
            asked = PAIRS[place][0].text
            assert child.redrawn.prompt == (asked if failed % 2 else best.critique.prompt)
            failed = 0 if child.p_yes["outcome"] > best.p_yes["outcome"] else failed + 1
            assert (child.redrawn.strength, child.redrawn.guidance) == (0.5**number / 2, 1 + 0.2 * number)
            share = max(1, round(0.5**number / 2 * 16))
            assert (child.history["revealed_at"] >= best.num_steps).sum() == share
            assert child.num_steps - best.num_steps == math.ceil(0.5**number / 2 * STEPS)
            best = child if child.p_yes["outcome"] > best.p_yes["outcome"] else best
        assert choice.chosen == best.index
        last = best.critique
        ends.add("failed" if last and last.failed else "clean" if last and not last.diagnosis else "rounds")
    assert len(ends) > 1


def test_guidance_rises_where_the_generator_has_any() -> None:
    for scale, differs in ((2.0, True), (0.0, False)):
        walker = sampler(guidance_scale=scale)
        state = walker.start([PAIRS[1][0]], [Seed(0, 0, 0, 0)])
        for _ in range(STEPS):
            state = walker.step(state)
        ends = []
        for guidance in (1.0, 3.0):
            again = walker.renoise(state, [PAIRS[3][0]], 1.0, guidance)
            for _ in range(STEPS):
                again = walker.step(again)
            ends.append(again.tokens.tolist())
        assert (ends[0] != ends[1]) == differs
