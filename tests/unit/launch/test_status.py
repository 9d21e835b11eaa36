"""The state of a run is read from its folder alone."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from genloop.config import dump_yaml
from genloop.distributed import World
from genloop.job import execute, parse, plain, prepare, run_command
from genloop.ledger import Ledger, plan_units
from genloop.records import Unit
from genloop.rundir import fingerprint_of, start_run
from genloop.training.session import locked
from jobs import make_prompts, train_showo
from launch.cli import command
from launch.watch.progress import PlainView, table
from launch.watch.status import duration, lines, read_state, totals
from tests.runs import ROOT, wait_until
from tests.worlds import counting_job


def count_to(out, *words):
    """Run the counting job in this process -> the state of its run."""
    config = parse(counting_job, [f"out={out}", *words])
    checked = prepare(counting_job, config).checked
    try:
        execute(counting_job, config, World(), checked)
    except SystemExit as failure:
        assert failure.code == 1
    return read_state(out)


def test_a_finished_run_is_done(tmp_path):
    state = count_to(tmp_path / "run", "limit=5")
    assert (state.job, state.state, state.units, state.units_done) == ("counting_job", "done", 3, 3)
    assert (state.items, state.items_done, state.seconds_left, state.rate) == (5, 5, None, 0)
    assert [(worker.rank, worker.state, worker.items) for worker in state.workers] == [(0, "finished", 5)]
    assert totals(state) == "counting_job done, 3/3 units (100 %), 5/5 items"


def test_a_run_whose_only_unit_has_just_been_taken_is_not_over(tmp_path):
    out, words = tmp_path / "run", ["limit=2", "unit_size=2"]
    config = parse(counting_job, [f"out={out}", *words])
    checked = prepare(counting_job, config).checked
    with Ledger.of(config, plan_units(2, 2), World(rank=0, world_size=2)) as ledger:
        next(ledger.claims())
        execute(counting_job, config, World(rank=1, world_size=2), checked)  # gets nothing, and ends
        state = read_state(out)
        assert (state.state, [worker.state for worker in state.workers]) == ("running", ["looking", "finished"])


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_files_that_a_crash_has_torn_do_not_hide_the_rest(tmp_path, text):
    run = tmp_path / "run"
    count_to(run, "limit=6", "fail_at=3")
    (run / "failed" / "00001.json").write_text(text)
    (run / "logs" / "other.status.json").write_text(text)
    state = read_state(run)
    assert (state.state, state.units_done, len(state.workers)) == ("failed", 1, 1)
    assert lines(state)[-1] == "  unit 00001 failed (attempt 1): reason lost"
    (run / "plan.json").write_text(text)
    assert read_state(run).units == 0


def test_a_failed_unit_is_shown_with_its_reason(tmp_path):
    state = count_to(tmp_path / "run", "limit=6", "fail_at=3")
    assert (state.state, state.units_done, state.units_failed) == ("failed", 1, 1)
    assert lines(state)[-1] == "  unit 00001 failed (attempt 1): ArithmeticError: cannot count to 3"


def test_a_worker_that_went_silent_is_lost_and_a_new_one_has_the_time_left(tmp_path):
    out = tmp_path / "run"
    count_to(out, "limit=6", "fail_at=3")
    path = next((out / "logs").glob("*.status.json"))
    status = json.loads(path.read_text())
    working = {**status, "state": "working", "unit": {"name": "00001"}}
    path.write_text(json.dumps({**working, "updated": status["updated"] - 60}))
    lost = read_state(out)
    assert [worker.state for worker in lost.workers] == ["lost"]
    assert "silent for 1m0" in lines(lost)[1]
    living = {**working, "worker": "another", "rank": 1, "started": status["updated"] - 10, "items": 3, "units": 1}
    living["items_in_unit"] = 1
    path.with_name("another.status.json").write_text(json.dumps(living))
    state = read_state(out)
    assert state.state == "running"
    assert state.rate == pytest.approx(0.3)
    assert state.items_done == 3  # a whole unit and one item of the next
    assert state.seconds_left == pytest.approx((6 - 3 - 2) / 0.3)
    assert totals(state).endswith("0.3 items/s, 3s left, 1 failed, 1 worker")


def test_units_of_different_sizes_count_with_their_own_items(tmp_path):
    out = tmp_path / "run"
    config = parse(counting_job, [f"out={out}", "limit=2"])
    prepare(counting_job, config)
    units = [Unit("00000", 0, 2), Unit("00001", 2, 514), Unit("00002", 514, 1026)]
    with Ledger.of(config, units, World(), rows_per_item=4) as ledger:
        for unit in ledger.claims():
            if unit.name == "00002":
                break
            ledger.complete(unit, [])
        ledger.advance(5)
        ledger._write_status("working")
        state = read_state(out)
    assert (state.items, state.items_done) == (4 * 1026, 4 * 514 + 5)


def test_steps_within_a_unit_are_progress_before_an_image_is_finished(tmp_path):
    out, world = tmp_path / "run", World()
    config = parse(counting_job, [f"out={out}", "limit=2"])
    prepare(counting_job, config)
    with Ledger.of(config, [Unit("00000", 0, 2)], world) as ledger:
        for _ in ledger.claims():
            for _ in range(7):
                world.step()
            ledger._write_status("working")
            state = read_state(out)
            break
    assert state.items_done == 0 and "0/2 items, 7 steps" in totals(state)
    assert lines(state)[1].endswith("7 steps")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        read_state(tmp_path)


def test_the_json_form_holds_every_field(tmp_path, capsys):
    state = count_to(tmp_path / "run", "limit=4")
    capsys.readouterr()
    assert command(["status", str(tmp_path / "run"), "--json"]) == 0
    found, expected = json.loads(capsys.readouterr().out), json.loads(json.dumps(dataclasses.asdict(state)))
    assert found.keys() == expected.keys() and found["units"] == expected["units"]


def test_a_terminal_shows_each_worker_and_each_failure(tmp_path):

    screen = io.StringIO()
    state = count_to(tmp_path / "run", "limit=6", "fail_at=3")
    Console(file=screen, width=100).print(table(state))
    text = screen.getvalue()
    assert "1/3 units (33 %)" in text and "cannot count to 3" in text
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("0")] == [["0", "failed"]]


def test_plain_lines_appear_only_when_something_changed(tmp_path, capsys):
    state = count_to(tmp_path / "run", "limit=4")
    capsys.readouterr()
    view = PlainView()
    for _ in range(3):
        view.show(state, last=False)
    assert capsys.readouterr().err == "counting_job done, 2/2 units (100 %), 4/4 items\n"


def test_waiting_longer_is_no_news_in_a_log(tmp_path, capsys):
    running = dataclasses.replace(count_to(tmp_path / "run", "limit=4"), state="running", items_done=1, items=8)
    view = PlainView()
    for items, rate, left in ((1, 0.1, 70.0), (1, 0.05, 140.0), (2, 0.08, 75.0)):
        view.show(dataclasses.replace(running, items_done=items, rate=rate, seconds_left=left), last=False)
    first, second = capsys.readouterr().err.splitlines()
    assert "1/8 items, 0.1 items/s, 1m10s left" in first and "2/8 items, 0.08 items/s, 1m15s left" in second


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "7s"), (125, "2m05s"), (3725, "1h02m"), (59.6, "1m00s")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_a_job_without_units_is_done_when_it_has_ended(tmp_path):
    assert run_command(make_prompts, ["tiny", f"out={tmp_path / 'prompts'}"]) == 0
    assert totals(read_state(tmp_path / "prompts")) == "make_prompts done"


@pytest.mark.parametrize("action, ending", [("rollback", "done"), ("fail", "failed"), (None, "done")])
def test_alarms_of_a_training_are_shown_by_kind(tmp_path, monkeypatch, action, ending):
    monkeypatch.chdir(ROOT)
    prompts = "guards.prompts=configs/prompts/shapes_heldout/generation_prompts.txt"
    told = ["guards.stop_on=[image_statistics]", f"guards.on_alarm={action}"] if action else []
    guards = [prompts, "guards.every=2", "guards.num_prompts=4", "guards.image_distance=1e-9", "train.lr=0.1", *told]
    words = ["tiny", f"out={tmp_path / 'run'}", *guards, "train.num_steps=6", "train.log_every=2"]
    if action == "fail":
        with pytest.raises(SystemExit):
            run_command(train_showo, words)
    else:
        assert run_command(train_showo, words) == 0
    state = read_state(tmp_path / "run")
    assert state.state == ending and bool(state.stopped) == (action is not None)
    (alarm,) = state.alarms
    assert (alarm.kind, alarm.first_step, alarm.last_step) == ("image_statistics", 2, 2 if action else 6)
    assert any("alarm image statistics" in line for line in lines(state))
    assert f"step {alarm.last_step}/6" in totals(state)
    screen = io.StringIO()
    Console(file=screen, width=200).print(table(state))
    assert "alarm image statistics" in screen.getvalue()


def test_a_training_moves_between_two_lines_of_its_metrics(tmp_path):
    config = parse(train_showo, ["tiny", f"out={tmp_path / 'run'}", "train.num_steps=40"])
    start_run(config.out, dump_yaml(plain(config)), fingerprint_of("train_showo", {}, {}), {})
    world = World()
    with locked(config.out, world):
        wait_until(lambda: read_state(config.out).workers, 20)
        first = read_state(config.out)
        world.at_step(7)
        wait_until(lambda: read_state(config.out).steps.done == 7, 20)
        state = read_state(config.out)
    assert (first.state, first.steps.done, first.steps.loss) == ("running", 0, None)
    assert (
        totals(state).startswith("train_showo running, step 7/40")
        and lines(state)[1] == "  worker 0: training, 7 steps"
    )
    assert read_state(config.out).state == "stopped"  # its 40 steps are not done
