"""Strategies on the embedded world: what they draw, what they choose, what it costs."""

import re

import pytest
import torch

from ckpts.resolve import resolve
from geneval.judge import ShapesOracle
from genloop.config import Settings
from genloop.models.common.image_tokenizers import load_image_tokenizer
from genloop.models.showo.load import load_showo
from genloop.registry import lookup
from genloop.sampling.maskgit.sampler import MaskGitSampler
from genloop.sampling.maskgit.settings import SamplingConfig
from genloop.search import STRATEGIES
from genloop.search.best_of_n import BestOfN
from genloop.search.none import OneCandidate
from genloop.shapes.prompts import prompt_set
from tests.runs import ROOT


@pytest.fixture(scope="module")
def sampler():
    torch.set_num_threads(1)
    tokenizer = load_image_tokenizer(resolve("shapes/tokenizer"))
    return MaskGitSampler(load_showo(resolve("shapes/showo")), tokenizer, SamplingConfig(steps=6))


@pytest.fixture(scope="module")
def pairs():
    return [(prompt, sample) for prompt in prompt_set("test", 0, 2)[4:10] for sample in range(2)]


def test_candidate_zero_is_the_image_without_a_search(sampler, pairs):
    single = list(OneCandidate(sampler, None, 1, Settings()).search(pairs, run_seed=3))
    best = list(BestOfN(sampler, ShapesOracle(), 4, Settings()).search(pairs, run_seed=3))
    assert len(single) == len(best) == len(pairs)
    for one, many in zip(single, best):
        assert [candidate.index for candidate in many.candidates] == [0, 1, 2, 3]
        assert (one.candidates[0].content == many.candidates[0].content).all()
        assert (one.candidates[0].history["revealed_at"] == many.candidates[0].history["revealed_at"]).all()


def test_the_first_of_the_best_scores_is_chosen(sampler, pairs):
    for choice in BestOfN(sampler, ShapesOracle(), 4, Settings()).search(pairs, run_seed=0):
        scores = [candidate.p_yes["outcome"] for candidate in choice.candidates]
        assert choice.chosen == scores.index(max(scores))


def test_scores_are_the_judges_answers_for_the_decoded_tokens(sampler, pairs):
    judge = ShapesOracle()
    (choice, *_) = BestOfN(sampler, judge, 4, Settings()).search(pairs, run_seed=0)
    tokens = torch.stack([torch.from_numpy(candidate.content) for candidate in choice.candidates])
    expected = judge.p_yes("outcome", [pairs[0][0]] * 4, sampler.decode(tokens)).tolist()
    assert [candidate.p_yes["outcome"] for candidate in choice.candidates] == expected


def test_more_candidates_never_do_worse_with_the_oracle(sampler, pairs):
    few = BestOfN(sampler, ShapesOracle(), 2, Settings()).search(pairs, run_seed=1)
    many = BestOfN(sampler, ShapesOracle(), 6, Settings()).search(pairs, run_seed=1)
    for small, large in zip(few, many):
        low, high = (choice.candidates[choice.chosen].p_yes["outcome"] for choice in (small, large))
        assert high >= low


def test_costs_count_every_step_and_every_question(sampler, pairs):
    (single, *_) = OneCandidate(sampler, None, 1, Settings()).search(pairs[:1], run_seed=0)
    (best, *_) = BestOfN(sampler, ShapesOracle(), 5, Settings()).search(pairs[:1], run_seed=0)
    assert (single.cost.generator_steps, single.cost.judge_calls) == (6, 0)
    assert (best.cost.generator_steps, best.cost.judge_calls) == (30, 5)


def test_the_table_of_strategies_builds(sampler):
    for name in STRATEGIES:
        strategy = lookup(STRATEGIES, name, "strategy")
        options = strategy.Options()
        assert strategy(sampler, ShapesOracle(), 2 if strategy.questions(options) else 1, options)
    with pytest.raises(ValueError, match="BestOfN asks outcome"):
        BestOfN(sampler, None, 2, Settings())
    with pytest.raises(ValueError, match="draws one candidate, found 2"):
        OneCandidate(sampler, None, 2, Settings())


def test_the_page_of_searches_has_every_strategy():
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)`", text.partition("\n## ")[0], re.M)) == set(STRATEGIES)
