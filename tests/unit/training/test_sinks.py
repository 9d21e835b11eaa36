"""Sinks get every line of metrics.jsonl once, whatever is stopped, killed and resumed, and on rank 0 alone."""

import pytest

from genloop.distributed import StopRequested, World, process_group
from genloop.registry import MissingPackage
from genloop.training import sinks
from genloop.training.sinks import Followers, check_sinks
from jobs import train_showo
from tests.runs import ROOT, refusal
from tests.worlds.own_sink import FileSink, received
from tests.worlds.ranks import on_two_ranks
from tests.worlds.regression import SETTINGS, Regression, fit, metrics

OWN = "tests.worlds.own_sink:FileSink"
SENDING = SETTINGS.model_copy(update={"sinks": (OWN,), "log_every": 1, "save_every": 4})


class Measured(Regression):
    """Two lines at every third step, of which one holds more than numbers."""

    after_every = 3

    def after_step(self, step):
        return {"held_out": step / 10, "text": "no number", "nested": {"a": 1}, "flag": True}


def numbers(run) -> list[dict]:
    return [{k: v for k, v in row.items() if type(v) in (int, float)} for row in metrics(run)]


def test_a_sink_gets_every_number_once(tmp_path):
    fit(Measured(SENDING), tmp_path)
    assert received(tmp_path) == numbers(tmp_path)
    assert len(received(tmp_path)) == 16


@pytest.mark.parametrize("stop_at", [3, 5, 6])
def test_a_resumed_run_doubles_no_point(tmp_path, stop_at):
    world = World()
    with pytest.raises(StopRequested):
        fit(Measured(SENDING, lambda step: world.request_stop() if step == stop_at else None), tmp_path, world)
    fit(Measured(SENDING), tmp_path)
    assert received(tmp_path) == numbers(tmp_path)


@pytest.mark.parametrize("die_at", [1, 7, 11])
def test_steps_done_again_after_a_kill_are_not_sent_again(tmp_path, monkeypatch, die_at):
    monkeypatch.setattr(FileSink, "die_at", die_at)
    with pytest.raises(KeyboardInterrupt):
        fit(Measured(SENDING), tmp_path)
    monkeypatch.setattr(FileSink, "die_at", None)
    fit(Measured(SENDING), tmp_path)
    expected = numbers(tmp_path)
    assert received(tmp_path) == expected[: die_at - 1] + expected[die_at:]  # the one on its way is lost


def test_a_sink_that_is_named_later_gets_all_lines(tmp_path):
    fit(Measured(SENDING.model_copy(update={"sinks": (), "num_steps": 6})), tmp_path)
    fit(Measured(SENDING), tmp_path)
    assert received(tmp_path) == numbers(tmp_path)


def test_rank_0_alone_sends(tmp_path, monkeypatch):
    def work() -> int:
        world = World.from_environment()
        with process_group(world, timeout=60):
            fit(Measured(SENDING), tmp_path, world)
        return 0

    assert on_two_ranks(monkeypatch, work) == [0, 0]
    assert received(tmp_path) == numbers(tmp_path)


@pytest.mark.parametrize("name", ["tensorbord", "tests.worlds.own_sink:Nothing", "nowhere:Sink"])
def test_an_unknown_sink_is_refused(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    words = ["tiny", f"out={tmp_path / 'run'}", f"train.sinks=['{name}']"]
    assert "train.sinks" in refusal(train_showo, words, tmp_path, capsys)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sinks.SINKS, "gone", "tests.unit.training.test_sinks:Gone")
    with pytest.raises(MissingPackage, match=r"\[sinks\]"):
        check_sinks(["gone"])


class Gone(FileSink):
    """Of a package that nobody has."""

    package = "genloop_no_such_package"


@pytest.mark.tensorboard
def test_tensorboard_holds_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(Measured(SENDING.model_copy(update={"sinks": ("tensorboard",)})), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("held_out")] == [3, 6, 9, 12]
    assert [p.value for p in events.Scalars("loss")] == pytest.approx(
        [r["loss"] for r in metrics(tmp_path) if "loss" in r]
    )


def test_no_sink_leaves_no_trace(tmp_path):
    Followers((), tmp_path).follow()
    assert list(tmp_path.iterdir()) == []
