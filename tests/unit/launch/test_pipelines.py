"""Pipelines: order, addresses, what runs again after a change, kills at any place, and what is refused."""

import json
import signal
from pathlib import Path

import pytest

from genloop.job import parse
from genloop.ledger import finished, read_rows
from launch.backends.local import STOPPED, StopRequests
from launch.catalog import import_job
from launch.cli import command
from launch.commands.pipeline import _run
from launch.pipelines.drafts import load_pipeline
from launch.pipelines.folder import read_folders
from launch.pipelines.stages import Stage, resolve_stages
from tests.runs import ROOT, genloop, start_command, wait_until, workers_of

COUNT = "tests.worlds.counting_job"
FILES = sorted((ROOT / "configs/pipelines").glob("*.yaml"))
OWN_DATA = {"judge_sweep": ["vars.pairs=configs/data/responses/pairs.jsonl"]}  # what a user has to bring
THREE = f"""
out: OUT
vars: {{limit: 4, slow: 0.0}}
stages:
  first: {{job: {COUNT}, set: {{limit: "${{vars.limit}}", slow: "${{vars.slow}}"}}}}
  other: {{job: {COUNT}, set: {{limit: 2}}}}
  second: {{job: {COUNT}, set: {{source: "${{stages.first}}/run.json", limit: 6, slow: "${{vars.slow}}"}}}}
"""
ROUNDS = f"""
out: OUT
stages:
  loop:
    repeat: 3
    stages:
      count: {{job: {COUNT}, set: {{source: "${{previous.count/run.json|setup.py}}", limit: "${{round}}"}}}}
  last: {{job: {COUNT}, set: {{source: "${{stages.count}}"}}}}
  middle: {{job: {COUNT}, set: {{source: "${{stages.count.2}}"}}}}
"""


def pipeline_file(folder: Path, text: str) -> str:
    file = folder / "pipeline.yaml"
    file.write_text(text.replace("OUT", json.dumps(str(folder / "out"))))
    return str(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_pipeline_can_be_planned(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    stages = resolve_stages(load_pipeline(str(file), OWN_DATA.get(file.stem, [])), {})
    assert stages and len({stage.address for stage in stages}) == len({stage.folder for stage in stages})


def test_a_change_gives_another_address_to_what_depends_on_it_alone(tmp_path):
    file = pipeline_file(tmp_path, THREE)
    before = {stage.name: stage for stage in resolve_stages(load_pipeline(file), {})}
    folders = {stage.address: stage.folder.name for stage in before.values()}
    assert list(folders.values()) == ["first", "other", "second"]
    after = {stage.name: stage for stage in resolve_stages(load_pipeline(file, ["vars.limit=8"]), folders)}
    assert after["other"] == before["other"]
    assert after["first"].folder.name == f"first-{after['first'].address}"
    assert after["second"].folder.name == f"second-{after['second'].address}"
    assert f"source={after['first'].folder}/run.json" in after["second"].words
    again = resolve_stages(load_pipeline(file), folders)
    assert again == list(before.values())


def test_a_mapping_of_a_stage_is_merged_into_that_of_its_preset(tmp_path):
    (tmp_path / "images").mkdir()
    changes = f"{{images: {tmp_path}/images, metrics: {{pairs: {{size: 64}}}}}}"
    text = f"out: OUT\nstages: {{m: {{job: metrics, preset: tiny, set: {changes}}}}}\n"
    (stage,) = resolve_stages(load_pipeline(pipeline_file(tmp_path, text)), {})
    metrics = parse(import_job("metrics"), list(stage.words)).metrics
    assert set(metrics) == {"vqa_score", "statistics", "pairs"}
    assert metrics["pairs"].size == 64 and metrics["statistics"].features.kind == "pixels"


def test_another_place_leaves_the_addresses_as_they_are(tmp_path):
    file = pipeline_file(tmp_path, THREE)
    here = resolve_stages(load_pipeline(file), {})
    there = resolve_stages(load_pipeline(file, [f"out={tmp_path / 'there'}"]), {})
    assert [stage.address for stage in here] == [stage.address for stage in there]


def test_rounds_read_from_the_round_before_and_from_something_else_in_the_first(tmp_path):
    stages = {stage.name: stage for stage in resolve_stages(load_pipeline(pipeline_file(tmp_path, ROUNDS)), {})}
    assert list(stages) == ["count.1", "count.2", "count.3", "last", "middle"]
    assert "source=setup.py" in stages["count.1"].words
    assert (
        f"source={stages['count.1'].folder}/run.json" in stages["count.2"].words
        and "limit=2" in stages["count.2"].words
    )
    assert stages["last"].needs == ("count.3",) and stages["middle"].needs == ("count.2",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stages: {a: {job: nothing}}", "unknown job 'nothing'"),
        ("stages: {a: {job: generate, preset: tinny}}", "did you mean 'tiny'"),
        (f"stages: {{a: {{job: {COUNT}, set: {{slwo: 1}}}}}}", "stages.a: slwo: unknown key"),
        (f"stages: {{a: {{job: {COUNT}, sett: {{}}}}}}", "stages.a.sett: unknown key"),
        (f"stages: {{a: {{job: {COUNT}, set: {{source: '${{stages.b}}'}}}}}}", "${stages.b} stands for nothing"),
        (f"stages: {{a: {{job: {COUNT}, set: {{source: '${{vars.b}}'}}}}}}", "${vars.b} stands for nothing"),
        (
            "vars: {b: '${vars.c}', c: '${vars.b}'}\n"
            f"stages: {{a: {{job: {COUNT}, set: {{limit: '${{vars.b}}'}}}}}}",
            "${vars.b} stands for nothing",
        ),
        (f"stages: {{a: {{job: {COUNT}, set: {{source: '${{round}}'}}}}}}", "${round} stands for nothing"),
        (f"stages: {{a: {{job: {COUNT}, set: {{source: nowhere}}}}}}", "stages.a: source: no such file"),
        (
            f"stages: {{a: {{job: {COUNT}, set: {{source: '${{stages.b}}'}}}}, "
            f"b: {{job: {COUNT}, set: {{source: '${{stages.a}}'}}}}}}",
            "a circle",
        ),
        (f"stages: {{a: {{job: {COUNT}, procs: 0}}}}", "stages.a.procs"),
        (f"stages: {{a: {{job: {COUNT}}}, b: {{job: {COUNT}, procs: 1025}}}}", "stages.b.procs"),
        (f"stages: {{'a b': {{job: {COUNT}}}}}", "is no name"),
        ("stages: {a: {repeat: 0, stages: {}}}", "stages.a.repeat"),
        ("stages: {a: {repeat: 1, each: {x: {}}, stages: {b: {job: generate}}}}", "repeat, each"),
        ("stages: {a: {each: {x: {c: {}}}, stages: {b: {job: generate}}}}", "each.x.c: no such stage"),
        ("stages: {a: {repeat: 2, stages: {b: {job: generate}}}, b: {job: generate}}", "two are named 'b'"),
        ("stages: {}", "stages:"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path, text, says):
    done = genloop("pipeline", pipeline_file(tmp_path, f"out: OUT\n{text}"))
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_pipeline_runs_once_and_a_changed_key_runs_what_depends_on_it(tmp_path):
    file, out = pipeline_file(tmp_path, THREE), tmp_path / "out"
    done = genloop("pipeline", file)
    assert done.returncode == 0, done.stderr
    assert [row["item"] for row in read_rows(out / "second")] == list(range(6))
    assert genloop("pipeline", file).stderr.count("done already") == 3
    done = genloop("pipeline", file, "vars.limit=6")
    assert done.returncode == 0 and done.stderr.count("done already") == 1
    assert len(read_folders(out)) == 5
    assert genloop("pipeline", file).stderr.count("done already") == 3
    stages = json.loads(genloop("status", str(out), "--json").stdout)["stages"]
    assert [stage["state"] for stage in stages] == ["done"] * 3
    shown = genloop("status", str(out)).stdout
    assert "3/3 stages done" in shown and f"second  done      {out / 'second'}" in shown
    assert f"== {out / 'second'}" in genloop("logs", str(out)).stdout


@pytest.mark.parametrize("stages", ["null", "[1]", '[{"address": "a"}]', '[{"address": ["a"]}]'])
def test_a_damaged_plan_is_one_line(tmp_path, capsys, stages):
    (tmp_path / "pipeline.json").write_text(f'{{"folders": {{"a": "first"}}, "stages": {stages}}}')
    assert command(["status", str(tmp_path)]) == 2
    assert "pipeline.json is damaged" in capsys.readouterr().err


def test_folders_of_any_name_are_handed_over_as_they_are(tmp_path):
    (tmp_path / "a: b #2").mkdir()
    stages = {s.name: s for s in resolve_stages(load_pipeline(pipeline_file(tmp_path / "a: b #2", THREE)), {})}
    config = parse(import_job(COUNT), stages["second"].words)
    assert config.out == stages["second"].folder and config.source == stages["first"].folder / "run.json"


def test_a_failed_stage_ends_it_and_the_same_command_goes_on_from_there(tmp_path):
    mended = tmp_path / "mended"
    text = THREE.replace("limit: 6", f"limit: 6, fail_at: 3, fail_unless: {mended}, max_attempts: 9")
    file, out = pipeline_file(tmp_path, text), tmp_path / "out"
    done = genloop("pipeline", file)
    assert done.returncode == 1 and "stage second failed" in done.stderr and "cannot count to 3" in done.stderr
    assert genloop("status", str(out)).stdout.startswith(f"pipeline {out}: 2/3 stages done")
    assert "cannot count to 3" in genloop("logs", str(out), "--errors").stdout
    assert genloop("report", str(out), "--out", str(tmp_path / "page")).returncode == 0  # of the last that is done
    assert (tmp_path / "page" / "index.html").is_file()
    mended.touch()
    done = genloop("resume", str(out), "stages.second.set.retry_failed=true")
    assert done.returncode == 0 and done.stderr.count("done already") == 2, done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pipeline_that_was_killed_or_stopped_goes_on_where_it_was(tmp_path, number):
    file, out = pipeline_file(tmp_path, THREE), tmp_path / "out"
    words = ["pipeline", file, "vars.slow=0.15", "vars.limit=8"]
    command = start_command(*words)
    wait_until(lambda: finished(out / "second"))
    command.send_signal(number)
    command.communicate(timeout=300)
    assert command.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: workers_of(out / "second") == [])  # they do not outlive it
    done = genloop(*words)
    assert done.returncode == 0 and done.stderr.count("done already") == 2, done.stderr
    assert [row["item"] for row in read_rows(out / "second")] == list(range(6))


def test_the_same_pipeline_runs_with_any_number_of_workers(tmp_path):
    file = pipeline_file(tmp_path, THREE)
    assert genloop("pipeline", file, "--procs", "2").returncode == 0
    assert [row["item"] for row in read_rows(tmp_path / "out/second")] == list(range(6))
    shown = genloop("pipeline", file, "--procs", "2", "--dry-run").stdout
    assert shown.count("(done)") == 3 and shown.count("--procs 2") == 3


TABLE = f"""
out: OUT
vars: {{most: "${{vars.number}}", number: 3}}
stages:
  first: {{job: {COUNT}, set: {{limit: 1}}}}
  table:
    each:
      plain: {{}}
      more: {{count: {{limit: "${{vars.most}}"}}, again: {{limit: 4}}}}
    stages:
      count: {{job: {COUNT}, set: {{source: "${{stages.first}}/run.json", limit: 2}}}}
      again: {{job: {COUNT}, set: {{source: "${{stages.count/run.json}}"}}}}
  last: {{job: {COUNT}, set: {{source: "${{stages.count.more}}"}}}}
"""


def test_each_row_sets_what_it_says_and_reads_its_own_stages(tmp_path):
    stages = {s.name: s for s in resolve_stages(load_pipeline(pipeline_file(tmp_path, TABLE)), {})}
    assert list(stages) == ["first", "count.plain", "again.plain", "count.more", "again.more", "last"]
    assert "limit=2" in stages["count.plain"].words and "limit=3" in stages["count.more"].words
    assert f"source={stages['count.more'].folder}/run.json" in stages["again.more"].words
    assert stages["last"].needs == ("count.more",)


def test_a_twin_has_the_stages_of_its_model_and_says_what_differs(tmp_path):
    pair = [resolve_stages(load_pipeline(name), {}) for name in ("published_table", "tiny_table")]
    rows, twins = ({s.name: s.needs for s in stages if "." in s.name} for stages in pair)
    assert len(rows) == 2 * 19 and rows.keys() == twins.keys()
    assert {s.folder.parts[:2] for s in pair[1]} == {("runs", "tiny-table")}
    folder = pipeline_file(tmp_path, "like: tiny_table\nout: OUT")
    refused = genloop("pipeline", folder)
    assert refused.returncode == 2 and "like: tiny_table" in refused.stderr


@pytest.mark.parametrize("name", ["iterative_dpo", "iterative_dpo_tiny"])
def test_another_beta_runs_the_trainings_again_and_what_follows_them(name):
    before, after = (
        {stage.name: stage.address for stage in resolve_stages(load_pipeline(name, words), {})}
        for words in ([], ["vars.beta=0.2"])
    )
    kept = {stage for stage in before if before[stage] == after[stage]}
    assert kept == {"test", "learn", "start-images", "start-verdicts", "candidates.1", "pairs.1"}


def test_a_round_of_preferences_starts_from_the_checkpoint_of_the_one_before():
    stages = {s.name: s for s in resolve_stages(load_pipeline("iterative_dpo"), {})}
    assert "start=show-o" in stages["train.1"].words
    for stage in ("candidates.2", "train.2"):
        assert "train.1" in stages[stage].needs and any("train.1/showo" in word for word in stages[stage].words)
    assert {"test", "candidates.1"} <= set(stages["pairs.1"].needs)  # held-out prompts, images


def test_every_arm_of_the_study_differs_from_its_control_in_the_preferences_alone():
    stages = {s.name: set(s.words) for s in resolve_stages(load_pipeline("study"), {})}
    off = {"preference_weight=0", "dpop=0"}
    assert {word for word in stages["first.dpo"] ^ stages["first.control"] if not word.startswith("out=")} == off
    odd = stages["group.grpo"] ^ stages["group.grpo-control"]
    assert {word for word in odd if not word.startswith("out=")} == {"shuffle_scores=true"}


def test_a_list_takes_the_folders_of_all_rows(tmp_path):
    text = "out: OUT\nstages:\n  all: {each: {a: {}, b: {}}, stages: {evaluate: {job: evaluate, preset: tiny}}}\n"
    text += '  report: {job: report, set: {runs: ["runs/x", "${stages.evaluate.*}"]}}\n'
    text = text.replace("{a: {}, b: {}}", "{a: {}, b: {evaluate: {unit_size: 9}}}")
    stages = {s.name: s for s in resolve_stages(load_pipeline(pipeline_file(tmp_path, text)), {})}
    folders = [str(stages[f"evaluate.{row}"].folder) for row in "ab"]
    assert f"runs={json.dumps(['runs/x', *folders])}" in stages["report"].words
    assert stages["report"].needs == ("evaluate.a", "evaluate.b")


@pytest.mark.parametrize(
    ("only", "runs"),
    [(["again.plain"], ["first", "count.plain", "again.plain"]), (["more"], ["first", "count.more", "again.more"])],
)
def test_only_a_stage_or_a_row_runs_with_what_it_needs(tmp_path, only, runs):
    file = pipeline_file(tmp_path, TABLE)
    words = [word for name in only for word in ("--only", name)]
    done = genloop("pipeline", file, *words)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert sorted(path.parent.name for path in out.glob("*/run.json")) == sorted(runs)
    assert f"{len(runs)}/6 stages done" in genloop("status", str(out)).stdout
    assert genloop("resume", str(out)).stderr.count("done already") == len(runs)
    refused = genloop("pipeline", file, "--only", "mroe")
    assert refused.returncode == 2 and "did you mean 'more'" in refused.stderr


def test_a_stage_that_is_stopped_before_it_listens_has_not_failed(tmp_path):
    run, job = tmp_path / "run", "tests.worlds.counting_job"
    stage = Stage("first", job, (f"out={run}", "slow=9"), "0", run, (), None, None)
    assert _run(stage, "1", StopRequests(count=1)) == STOPPED
