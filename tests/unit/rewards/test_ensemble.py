"""Ensembles: whose answers count for how much, what happens without an answer, and where the scales come from."""

import math

import pytest
import torch

from ckpts.resolve import resolve
from genloop.records import Prompt
from genloop.registry import load
from genloop.rewards import JUDGES
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.ensemble import EnsembleJudge, Member, scales_of
from genloop.rewards.settings import JudgeMaker, JudgeSettings
from genloop.shapes.prompts import prompt_set
from tests.unit.rewards.remote.test_judge import EXPECTED, IMAGES, PROMPTS
from tests.worlds.chat_server import MODEL, looking_server
from tests.worlds.counting_judges import Brightness, images_of

ORACLE = {"kind": "shapes_oracle"}


class Shade(JudgeMaker):
    """A judge of this test, and its maker: half of the brightness; asked for clarity only."""

    @classmethod
    def questions(cls, options, resolve):
        return ("clarity",)

    @classmethod
    def load(cls, options, resolve, device):
        return cls()

    def p_yes(self, question, prompts, images):
        return Brightness().p_yes("x", prompts, images) / 2

    def flops(self, questions, prompt):
        return 100.0  # one look, however many questions


@pytest.fixture
def shade(monkeypatch):
    monkeypatch.setitem(JUDGES, "shade", f"{__name__}:Shade")
    return Shade


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with looking_server() as running:
        yield running


def remote(server, **options):
    quick = {"url": server.url, "model": MODEL, "pause": 0.01, "patience": 0.2, "concurrency": 1}
    return {"kind": "remote", "options": quick | options}


def ensemble(*members, **keys):
    return JudgeSettings(kind="ensemble", options={"members": list(members)}, **keys)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_answers_are_weighted_means_of_normalised_logits(server):
    bright = {**remote(server), "weight": 3.0, "mean": {"outcome": -1.0}, "std": {"outcome": 2.0}}
    raw = remote(server, probability="raw")
    judge = build_judge(ensemble(bright, raw), resolve)
    expected = [sigmoid((3 * (logit(b) + 1) / 2 + logit(0.9 * b)) / 4) for b in EXPECTED]
    assert judge.p_yes("outcome", PROMPTS, IMAGES).tolist() == pytest.approx(expected, abs=1e-5)
    alone = build_judge(ensemble(remote(server)), resolve).p_yes("outcome", PROMPTS, IMAGES)
    assert alone.tolist() == pytest.approx(EXPECTED, abs=1e-6) and alone.dtype == torch.float32


def test_a_member_without_an_answer_leaves_its_weight_to_the_others(server, caplog):
    members = [{**remote(server), "weight": 3.0}, remote(server, probability="raw")]
    judge = build_judge(ensemble(*members), resolve)
    server.moods = [400, None, None, 400, 400, None]  # three images to the first member, three to the second
    both_failed = judge.p_yes("outcome", PROMPTS[:3], IMAGES[:3]).tolist()
    assert math.isnan(both_failed[0])
    assert both_failed[1] == pytest.approx(EXPECTED[1], abs=1e-6)
    assert both_failed[2] == pytest.approx(sigmoid((3 * logit(EXPECTED[2]) + logit(0.9 * EXPECTED[2])) / 4), abs=1e-6)
    assert len(caplog.records) == 2


def test_an_answer_does_not_depend_on_the_images_beside_it(server):
    judge = build_judge(ensemble(remote(server), {**remote(server, probability="raw"), "weight": 0.3}), resolve)
    together = judge.p_yes("outcome", PROMPTS, IMAGES).tolist()
    assert together == [judge.p_yes("outcome", [p], i[None]).item() for p, i in zip(PROMPTS, IMAGES)]


def test_certain_members_stay_finite_and_decide():
    prompts = prompt_set("test", 3, 2)
    judge = build_judge(ensemble(ORACLE), resolve)
    right, wrong = (judge.p_yes("outcome", prompts, images_of(prompts, shift)) for shift in (0, 2))
    assert right.tolist() == pytest.approx([1.0] * len(prompts)) and wrong.min() < 1e-6
    assert ((wrong > 0) & (wrong < 1)).all()


def test_a_question_goes_to_the_members_that_answer_it(server, shade):
    settings = ensemble(ORACLE, {"kind": "shade", "weight": 5.0})
    assert load(JUDGES["ensemble"]).questions(settings.options, resolve) == ("outcome", "reason", "clarity")
    check_judge(settings, resolve, ("outcome", "clarity"))
    with pytest.raises(ValueError, match=r"'ensemble' .*not potential"):
        check_judge(settings, resolve, ("potential",))
    judge, prompts = build_judge(settings, resolve), prompt_set("test", 3, 2)
    images = images_of(prompts)
    expected = Brightness().p_yes("x", prompts, images) / 2
    assert torch.allclose(judge.p_yes("clarity", prompts, images), expected, atol=1e-6)
    assert judge.p_yes("outcome", prompts, images).tolist() == pytest.approx([1.0] * len(prompts))
    assert judge.flops(("clarity", "outcome"), prompts[0]) == 100.0
    assert judge.flops(("outcome",), prompts[0]) == 0.0  # the other one is not asked
    assert judge.reasons(prompts, images) == [""] * len(prompts) and not hasattr(judge, "p_first")
    with pytest.raises(ValueError, match=r"no member .*'potential'"):
        judge.p_yes("potential", prompts, images)


def test_scales_of_questions_that_a_member_does_not_answer_are_refused(server):
    settings = ensemble(ORACLE, {**ORACLE, "mean": {"outcom": 1.0}})
    with pytest.raises(ValueError) as caught:
        check_judge(settings, resolve)
    assert str(caught.value) == (
        "judge.options.members.1: judge 'shapes_oracle' does not answer 'outcom'; "
        "did you mean 'outcome'? (outcome, reason)"
    )


def test_bad_members_are_refused_before_anything_is_loaded(tmp_path, server):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'nowhere'"):
        check_judge(ensemble(ORACLE, {"kind": "llava", "options": {"checkpoint": "nowhere"}}), resolve)
    with pytest.raises(ValueError, match="does not serve 'tiny/other'"):
        check_judge(ensemble(remote(server, model="tiny/other")), resolve)


def test_the_cache_of_an_ensemble_keeps_its_members_answers(server, tmp_path):
    def ask(weight: float) -> torch.Tensor:
        settings = ensemble({**remote(server), "weight": weight}, remote(server, probability="raw"), cache=tmp_path)
        return build_judge(settings, resolve).p_yes("outcome", PROMPTS, IMAGES)

    server.moods = [400]
    first = ask(1.0)
    assert len(server.requests) == 12
    again = ask(1.0)
    assert len(server.requests) == 13  # what one member could not say; the ensemble's makeshift is not kept
    assert torch.equal(first[1:], again[1:]) and first[0] != again[0]
    assert not torch.equal(ask(7.0), again) and len(server.requests) == 13


def test_scales_are_the_mean_and_the_deviation_within_images():
    images = [
        {"outcome": [sigmoid(-1.0), sigmoid(1.0)]},
        {"outcome": [sigmoid(4.0), math.nan, sigmoid(8.0)]},
        {"clarity": [0.5, sigmoid(2.0)]},
        {"outcome": [math.nan]},
    ]
    found = scales_of(images)
    assert found["outcome"] == pytest.approx((3.0, math.sqrt((2 * 1.0 + 2 * 4.0) / 2)))
    assert found["clarity"] == pytest.approx((1.0, math.sqrt(2.0)))
    with pytest.raises(ValueError, match=r"^outcome: no two candidates .*search\.n=2"):
        scales_of([{"outcome": [0.5]}])
    assert scales_of([]) == {}


def test_normalised_members_have_scale_one(server):
    member = build_judge(JudgeSettings(**remote(server)), resolve)
    mean, std = scales_of([{"outcome": member.p_yes("outcome", PROMPTS, IMAGES).tolist()}])["outcome"]
    scaled = {**remote(server), "mean": {"outcome": mean}, "std": {"outcome": std}}
    p_yes = build_judge(ensemble(scaled), resolve).p_yes("outcome", PROMPTS, IMAGES)
    assert scales_of([{"outcome": p_yes.tolist()}])["outcome"] == pytest.approx((0.0, 1.0), abs=1e-5)


def test_members_of_an_ensemble_see_the_prompts_and_images_as_they_are():
    first, second = Brightness(), Brightness()
    judge = EnsembleJudge([(Member(**ORACLE), first, ["outcome"]), (Member(**ORACLE), second, ["outcome"])])
    p_yes = judge.p_yes("outcome", [Prompt(0, "a dog")] * 6, IMAGES)
    assert (first.num_asked, second.num_asked) == (6, 6)
    assert torch.allclose(p_yes, Brightness().p_yes("outcome", PROMPTS, IMAGES), atol=1e-6)
