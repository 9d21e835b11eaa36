"""Traces in the closed loop: what ends them, what is taken back, what cannot be executed."""

import numpy as np
import pytest

from genloop.data.irg.diagnose import diagnose
from genloop.data.irg.faults import FAULTS
from genloop.data.irg.features import measure
from genloop.data.irg.loop import Beginning, Drawn, Loop, Trace, is_gain
from genloop.data.irg.plan import FaultShares, TracePlan, draw_plan
from genloop.data.irg.record import Effect, Issue
from genloop.metrics.paired.single import compare_images
from genloop.shapes.scene_traces import SceneTraces

LOOP = Loop(compare_images)


def run(monkeypatch: pytest.MonkeyPatch, plan: TracePlan, seed: int = 1) -> tuple[Beginning, Trace]:
    monkeypatch.setattr("genloop.shapes.scene_traces.draw_plan", lambda *_, **__: plan)
    start, _ = SceneTraces(seed, FaultShares(), 128).start(0)
    return start, LOOP.run(start)


def test_a_clean_image_is_left_alone(monkeypatch):
    _, trace = run(monkeypatch, TracePlan("clean", "neutral"))
    (only,) = trace.rounds
    assert not only.diagnosis and not only.actions and only.result is None and list(trace.images) == ["0.png"]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found_repaired_and_measured(monkeypatch, kind: Issue):
    start, trace = run(monkeypatch, TracePlan("single", "neutral", ((kind, 1),)))
    first = trace.rounds[0]
    assert kind in {one.issue for one in first.diagnosis} and first.injected[0].kind == kind
    last = trace.rounds[-1]
    assert last.diagnosis == () and not any(one.actions for one in trace.rounds[-1:])
    for one in trace.rounds:
        assert one.gain is None or one.accepted == is_gain(one.gain)
    assert start.reference is not None


def test_a_wrong_first_action_is_taken_back(monkeypatch):
    _, trace = run(monkeypatch, TracePlan("single", "neutral", (("underexposed", 1),), begins_wrong=True))
    wrong, right = trace.rounds[:2]
    assert not wrong.accepted and right.accepted and wrong.actions != right.actions
    assert right.image == wrong.image == "0.png" and wrong.result == "1.png" and right.result == "2.png"


@pytest.mark.parametrize("kind", ["content", "irreversible"])
def test_what_cannot_be_repaired_is_made_again(monkeypatch, kind):
    faults = (("overexposed", 2),) if kind == "irreversible" else ()
    _, trace = run(monkeypatch, TracePlan(kind, "neutral", faults))
    first = trace.rounds[0]
    assert [action.op for action in first.actions] == ["regenerate"] and first.accepted
    assert not any(fault.is_reversible for fault in first.injected) and first.gain.psnr > 0
    assert trace.rounds[-1].diagnosis == ()


def test_without_anything_that_draws_the_advice_has_no_result():
    bright = np.full((64, 64, 3), 255, np.uint8)
    trace = LOOP.run(Beginning(Drawn(bright), "a lamp"))
    assert [one.actions[0].op for one in trace.rounds] == ["regenerate"]
    assert trace.rounds[0].result is None and trace.rounds[0].accepted


@pytest.mark.parametrize("change", [{"psnr": -0.1}, {"ssim": -0.1}, {"delta_e": 0.2}, {"target_delta": 0.0}])
def test_a_drop_is_never_accepted(change):
    good = {"psnr": 1.0, "ssim": 0.1, "delta_e": -1.0, "target": "brightness", "target_delta": 0.1}
    assert is_gain(Effect(**good)) and not is_gain(Effect(**(good | change)))


def test_shares_are_kept():
    shares = FaultShares(clean=0.3, content=0.2, double=0.2, irreversible=0.1, wrong=0.5)
    plans = [draw_plan(np.random.default_rng([3, i]), shares, is_scene=True) for i in range(2000)]
    for kind in ("clean", "content", "double", "irreversible"):
        assert np.mean([plan.kind == kind for plan in plans]) == pytest.approx(getattr(shares, kind), abs=0.04)
    assert np.mean([plan.begins_wrong for plan in plans]) == pytest.approx(0.35, abs=0.04)
    assert all(len(plan.faults) == 2 for plan in plans if plan.kind == "double")
    others = [draw_plan(np.random.default_rng(i), shares, is_scene=False) for i in range(50)]
    assert "content" not in {plan.kind for plan in others} and {plan.intent for plan in others} == {"neutral"}


def test_drawn_scenes_begin_clean():
    for index in range(8):
        start, _ = SceneTraces(5, FaultShares(), 64).start(index)
        assert start.reference is not None and diagnose(measure(start.reference), start.intent) == ()
