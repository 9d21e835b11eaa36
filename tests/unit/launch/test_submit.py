"""`genloop submit` and what follows it, with programs of Slurm that say what the test wants to be heard."""

import json
from pathlib import Path

import pytest

from genloop.rundir import json_bytes
from launch.backends import slurm
from launch.backends.slurm import UNKNOWN, Task, task_lines, tasks
from launch.cli import command
from launch.cluster import find_cluster, load_cluster
from tests.worlds.fake_slurm import RECORDED, FakeSlurm

COUNT, AVERAGE = "tests.worlds.counting_job", "tests.worlds.averaging_job"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    found = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", found.path)
    return found


@pytest.fixture
def cluster(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("kind: slurm\nprocs: 2\ntime: 1h\n")
    return str(path)


def submit(*words: str) -> int:
    return command(["submit", *words])


def test_a_submission_freezes_config_script_and_plan_and_remembers_the_job(tmp_path, fake, cluster, capsys):
    run = tmp_path / "run"
    more = ["--array", "3", "--time", "30m", "--partition", "007"]
    assert submit(COUNT, f"out={run}", "limit=8", "--cluster", cluster, *more) == 0
    assert "job 11, 3 tasks" in capsys.readouterr().err
    plan = run / "logs" / "submit-1"
    assert fake.calls("sbatch") == [f"--parsable {plan}/job.sh"]
    assert "limit: 8" in (plan / "config.yaml").read_text()
    kept = json.loads((plan / "plan.json").read_text())
    assert kept["cluster"]["time"] == 1800 and kept["nodes"] == 3 and kept["environment"]["code"]
    launch = json.loads((run / "logs/launch.json").read_text())
    assert (launch["backend"], launch["jobs"], launch["nodes"], launch["procs"]) == ("slurm", ["11"], 3, 2)
    script = (plan / "job.sh").read_text()
    assert "#SBATCH --partition=007\n" in script
    assert "#SBATCH --array=0-2\n" in script and '--nodes 3 --node-rank "$SLURM_ARRAY_TASK_ID"' in script
    assert (run / "run.json").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["forbidden=true"], "forbidden: this config is forbidden"),
        (["limit=zero"], "limit: "),
        (["--nodes", "2"], "--array K"),
        (["--array", "0"], "--array: at least 1"),
        (["--cluster", "slrum"], "unknown cluster 'slrum'; did you mean 'slurm'?"),
        (["--cluster", "no/such.yaml"], "no cluster file no/such.yaml"),
        (["--partition", "a b"], "partition: "),
        (["--time", "60"], "time: a time is "),
        (["--requeue-limit", "-1"], "requeue_limit: "),
        (["--after", "nowhere"], "nowhere was not started by"),
        (["--cluster", "jobset", "--after", "12"], "--after: "),
        (["--cluster", "hosts", "--array", "2"], "hostfile says how many"),
        (["--cluster", "hosts"], "hostfile: cannot read it"),
        (['out="a\\nb"'], "no line break"),
        (["--cluster", "jobset"], "is not below `mount`"),
        (["--cluster", "jobset", "--partition", "p"], "partition: unknown key"),
    ],
)
def test_what_cannot_be_submitted_is_one_line_and_leaves_nothing(tmp_path, fake, cluster, capsys, words, says):
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "--cluster", cluster, *words) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert not run.exists() and fake.calls("sbatch") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: slrum\n", "kind: 'slrum' is none of slurm, pbs, jobset, hosts; did you mean 'slurm'?"),
        ("kind: slurm\npartitoin: p\n", "partitoin: unknown key; did you mean 'partition'?"),
        ("kind: [slurm]\n", "is none of slurm, pbs, jobset, hosts"),
        ("kind: slurm\nsetup: module load x\n", "setup: "),
        ('kind: slurm\nsetup: ["a\\rb"]\n', "setup.0: must be one line"),
        ('kind: slurm\nsetup: ["a\\nb"]\n', "setup.0: must be one line"),
        ("kind: slurm\ntime: 0:00\n", "time: a time is "),
        ("kind: pbs\n", "time: needs a value"),
        ("kind: slurm\ntime: 2m\n", "lead: 120 s is not shorter"),
        ("- 1\n", "expected keys and values"),
    ],
)
def test_a_cluster_file_that_cannot_be_used_is_named_with_its_key(tmp_path, fake, capsys, text, says):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert submit(COUNT, f"out={tmp_path / 'run'}", "--cluster", str(path)) == 2
    error = capsys.readouterr().err
    assert f"{path}: " in error and says in error and error.count("\n") == 1


@pytest.mark.parametrize(("name", "says"), [("partition", "nowhere; Batch job"), ("account", "Invalid account or")])
def test_a_refusal_is_slurms_message_in_one_line_and_nothing_stays_behind(tmp_path, fake, cluster, capsys, name, says):
    fake.refuses("sbatch", (RECORDED / f"{name}.err").read_text())
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "--cluster", cluster) == 2
    error = capsys.readouterr().err
    assert error.startswith("genloop: sbatch: ") and says in error and error.count("\n") == 1
    assert not run.exists()


def test_a_refused_submission_leaves_what_another_has_put_into_the_same_folder(tmp_path, fake, cluster):
    run = tmp_path / "run"
    (fake.folder / "sbatch").write_text(f"#!/bin/bash\nmkdir {run}/logs/submit-2\nexit 1\n")  # at the same moment
    assert submit(COUNT, f"out={run}", "--cluster", cluster) == 2
    assert [path.name for path in (run / "logs").glob("submit-*")] == ["submit-2"] and (run / "run.json").is_file()


def test_a_job_of_which_no_record_can_be_kept_is_taken_back(tmp_path, fake, cluster):
    run = tmp_path / "run"
    (fake.folder / "sbatch").write_text(f"#!/bin/bash\nmkdir {run}/logs/launch.json\necho 11\n")
    assert submit(COUNT, f"out={run}", "--cluster", cluster) == 2
    assert fake.calls("scancel") == ["11"] and not (run / "logs/submit-1").exists()


def test_a_program_that_gives_no_answer_is_said_and_status_shows_the_folder_all_the_same(
    tmp_path, fake, cluster, capsys, monkeypatch
):
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "--cluster", cluster) == 0
    monkeypatch.setattr(slurm, "CALL_SECONDS", 0.3)
    fake.hangs("squeue", 5)
    assert command(["status", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "counting_job starting" in shown and "squeue gave no answer within" in shown
    assert command(["cancel", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("genloop: squeue gave no answer") and fake.calls("scancel") == []


def test_variables_of_the_environment_do_not_overrule_what_was_asked_for(tmp_path, fake, cluster, monkeypatch):
    asked = ("SBATCH_TIMELIMIT", "SBATCH_PARTITION", "SBATCH_SIGNAL", "SBATCH_NO_REQUEUE", "SLURM_JOB_ID", "SLURM_CPUS")
    for name in (*asked, "SBATCH_ACCOUNT", "SLURM_CONF"):
        monkeypatch.setenv(name, "1")
    assert submit(COUNT, f"out={tmp_path / 'run'}", "--cluster", cluster, "--partition", "p") == 0
    assert [name for name in asked if fake.heard("sbatch", name)] == []
    assert fake.heard("sbatch", "SBATCH_ACCOUNT") and fake.heard("sbatch", "SLURM_CONF")


def test_a_machine_without_slurm_is_said(tmp_path, cluster, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert submit(COUNT, f"out={tmp_path / 'run'}", "--cluster", cluster) == 2
    assert "sbatch is not to be found" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_the_queue_is_read_task_by_task(tmp_path, fake):
    fake.says("squeue", (RECORDED / "squeue.txt").read_text())
    (tmp_path / "11_0.0.exit").write_text("75\n")
    (tmp_path / "11_0.1.exit").write_text("")  # being written
    found = tasks("11", tmp_path)
    assert [(task.id, task.state, task.is_live) for task in found] == [
        ("11_0", "RUNNING", True),
        ("11_1", "PENDING", True),
        ("11_2", "PENDING", True),
    ]
    assert found[0].line == "job 11_0: RUNNING on n1 for 0:01; exit codes of its starts: 75"
    assert found[1].line == "job 11_1: PENDING (JobArrayTaskLimit)"


def test_a_large_array_is_a_line_a_state():
    found = [Task(f"11_{i}", "RUNNING" if i < 30 else "PENDING", "" if i < 30 else "Priority") for i in range(100)]
    assert task_lines(found) == ["30 tasks: RUNNING", "70 tasks: PENDING (Priority)"]


def test_watching_ends_when_no_task_lives(tmp_path, fake, cluster, capsys):
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "--cluster", cluster) == 0
    fake.says("squeue", "11|FAILED|NonZeroExitCode|n1|0:05\n")
    assert command(["status", str(run), "--watch"]) == 0 and command(["logs", str(run), "--follow"]) == 0
    assert "job 11: FAILED (NonZeroExitCode)" in capsys.readouterr().out


def test_a_script_that_failed_before_its_workers_began_is_the_cause(tmp_path, fake, cluster, capsys):
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "--cluster", cluster) == 0
    log = run / "logs/slurm-11.log"
    log.write_text("genloop: no such file\n== job 11, attempt 0: exit code 2\n")
    capsys.readouterr()
    assert command(["logs", str(run), "--errors"]) == 0
    assert "slurm-11: genloop: no such file\n" in capsys.readouterr().out
    log.write_text("slurmstepd: error: *** JOB 11 ON n1 CANCELLED DUE TO TIME LIMIT ***\n")
    assert command(["logs", str(run), "--errors"]) == 0 and "DUE TO TIME LIMIT" in capsys.readouterr().out
    log.write_text("== job 11, attempt 0: exit code 75\n")
    assert command(["logs", str(run), "--errors"]) == 0 and capsys.readouterr().out == "no failures\n"


def test_what_accounting_does_not_know_yet_is_unknown_never_done(tmp_path, fake):
    fake.refuses("squeue", (RECORDED / "forgotten.err").read_text())
    fake.says("sacct", (RECORDED / "sacct.txt").read_text())
    assert [task.state for task in tasks("11", tmp_path)] == ["COMPLETED", "CANCELLED", UNKNOWN]
    assert "accounting still says RUNNING" in tasks("11", tmp_path)[2].line


def test_without_accounting_a_forgotten_job_is_unknown_beside_its_own_exit_codes(tmp_path, fake):
    fake.refuses("squeue", (RECORDED / "forgotten.err").read_text())
    assert [task.state for task in tasks("11", tmp_path)] == [UNKNOWN]
    (tmp_path / "11_1.0.exit").write_text("0\n")
    assert [(task.id, task.state, task.exits) for task in tasks("11", tmp_path)] == [("11_1", UNKNOWN, (0,))]


def test_a_run_that_is_in_the_queue_is_not_submitted_again_until_it_is_not(
    tmp_path, fake, cluster, capsys, monkeypatch
):
    run = tmp_path / "run"
    words = [COUNT, f"out={run}", "limit=4", "--cluster", cluster, "--array", "2", "--partition", "12"]
    assert submit(*words) == 0
    fake.says("squeue", "11_0|PENDING|Priority||0:00\n")
    assert submit(*words) == 2 and command(["resume", str(run)]) == 2
    assert command(["run", COUNT, f"out={run}", "limit=4"]) == 2
    assert capsys.readouterr().err.count("is in the queue already (job 11_0: PENDING (Priority))") == 3
    assert command(["cancel", str(run)]) == 0
    assert fake.calls("scancel") == ["11"]
    fake.says("squeue", "11_0|CANCELLED|None||0:00\n")
    fake.says("sbatch", "12;cluster")
    assert command(["cancel", str(run)]) == 0 and "is not in the queue" in capsys.readouterr().err
    began_in = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert command(["resume", run.name, "retry_failed=true"]) == 0
    script = run / "logs/submit-2/job.sh"
    assert fake.calls("sbatch")[-1] == f"--parsable {script}"
    assert "--array=0-1\n" in script.read_text() and "--partition=12\n" in script.read_text()
    assert f"cd {began_in} || exit 1\n" in script.read_text()
    assert "retry_failed: true" in (run / "logs/submit-2/config.yaml").read_text()
    assert json.loads((run / "logs/launch.json").read_text())["jobs"] == ["12"]


def test_a_run_waits_for_another_and_is_shown_before_it_has_begun(tmp_path, fake, cluster, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    assert submit(COUNT, f"out={first}", "--cluster", cluster) == 0
    after = [COUNT, f"out={second}", f"source={first / 'rows'}", "--cluster", cluster, "--after", str(first)]
    fake.says("squeue", "11|FAILED|NonZeroExitCode|n1|0:05\n")
    assert submit(*after) == 2 and "is neither done nor in the queue" in capsys.readouterr().err
    fake.says("squeue", "11|RUNNING|None|n1|0:05\n")
    fake.says("sbatch", "12")
    assert submit(*after, "--after", "7") == 0
    script = (second / "logs/submit-1/job.sh").read_text()
    assert "--dependency=afterok:11:7\n" in script and "--kill-on-invalid-dep=yes\n" in script
    assert not (second / "run.json").exists()
    fake.says("squeue", "12|PENDING|Dependency||0:00\n")
    capsys.readouterr()
    assert command(["status", str(second)]) == 0
    assert capsys.readouterr().out == f"{COUNT} waiting\n  job 12: PENDING (Dependency)\n"
    assert command(["status", str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queue"][0]["reason"] == "Dependency"
    fake.says("squeue", "12|CANCELLED|DependencyNeverSatisfied||0:00\n")
    assert command(["logs", str(second)]) == 0 and command(["resume", str(second)]) == 2
    assert "source: no such file or folder" in capsys.readouterr().err


def test_a_run_that_is_done_need_not_be_waited_for(tmp_path, fake, cluster):
    first = tmp_path / "first"
    assert command(["run", COUNT, f"out={first}", "limit=2"]) == 0
    words = [COUNT, f"out={tmp_path / 'second'}", f"source={first / 'rows'}", "--cluster", cluster]
    assert submit(*words, "--after", str(first)) == 0
    assert "--dependency" not in (tmp_path / "second/logs/submit-1/job.sh").read_text()


def test_a_dry_run_prints_the_script_and_writes_nothing(tmp_path, fake, cluster, capsys):
    words = [AVERAGE, f"out={tmp_path / 'run'}", "numbers=setup.py", "--cluster", cluster, "--nodes", "2"]
    assert submit(*words, "--dry-run") == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n") and "#SBATCH --nodes=2\n" in script
    assert not (tmp_path / "run").exists() and fake.calls("sbatch") == []


def test_what_is_written_but_not_submitted_says_which_command_does_it(tmp_path, fake, capsys):
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "limit=2", "--cluster", "pbs", "--after", "7.server") == 0
    assert capsys.readouterr().out == f"qsub {run}/logs/submit-1/job.sh\n"
    assert command(["cancel", str(run)]) == 2 and "was written for pbs" in capsys.readouterr().err
    assert fake.calls("sbatch") == []


def test_a_host_list_gives_one_command_a_host(tmp_path, fake, capsys):
    (tmp_path / "hostfile").write_text("# ours\nnode0 slots=4\nnode1 slots=4  # slow\n")
    (tmp_path / "hosts.yaml").write_text(f"kind: hosts\nhostfile: {tmp_path / 'hostfile'}\n")
    words = [AVERAGE, f"out={tmp_path / 'run'}", "numbers=setup.py", "--cluster", str(tmp_path / "hosts.yaml")]
    assert submit(*words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("ssh node0 ") and "--procs 4 --nodes 2 --node-rank 0 --master node0:29400" in first
    assert second.startswith("ssh node1 ") and "--node-rank 1 --master node0:29400" in second
    for text in ("a\n", "a slots=0\n", "a slots=1\na slots=1\n", "a slots=1\nb slots=2\n", "", "\0", "-oA=b slots=1\n"):
        (tmp_path / "hostfile").write_text(text)
        assert submit(*words) == 2 and capsys.readouterr().err.count(f"{tmp_path / 'hostfile'}") == 1


def test_a_submitted_job_keeps_the_record_of_its_submission_and_says_when_the_code_has_changed(
    tmp_path, fake, cluster, monkeypatch, capsys
):
    run = tmp_path / "run"
    assert submit(COUNT, f"out={run}", "limit=2", "--cluster", cluster) == 0
    plan = run / "logs/submit-1"
    kept = json.loads((plan / "plan.json").read_text())
    kept["environment"]["code"] = "another"
    (plan / "plan.json").write_bytes(json_bytes(kept))
    monkeypatch.setenv("GENLOOP_PLAN", str(plan))
    assert command(["run", COUNT, str(plan / "config.yaml")]) == 0
    assert "the code has changed since the submission of submit-1" in capsys.readouterr().err
    assert json.loads((run / "logs/launch.json").read_text())["backend"] == "slurm"
    assert (run / "logs/worker-0.log").is_file()


def test_shipped_cluster_files_are_usable() -> None:
    for name in ("slurm", "pbs", "jobset", "hosts"):
        assert load_cluster(find_cluster(name)).kind == name


CHAIN = f"""
out: OUT
stages:
  first: {{job: {COUNT}, set: {{limit: 4}}, nodes: 2}}
  other: {{job: {COUNT}, set: {{limit: 2}}}}
  second: {{job: {COUNT}, set: {{source: "${{stages.first}}/run.json", limit: 6}}}}
"""


def chain(folder) -> str:
    file = folder / "pipeline.yaml"
    file.write_text(CHAIN.replace("OUT", str(folder / "out")))
    return str(file)


def test_a_pipeline_is_a_chain_of_jobs_each_behind_those_it_needs(tmp_path, fake, cluster, capsys):
    out = tmp_path / "out"
    fake.says("squeue", "11|PENDING|Priority||0:00\n")
    assert command(["pipeline", chain(tmp_path), "--cluster", cluster]) == 0
    scripts = {name: (out / name / "logs/submit-1/job.sh").read_text() for name in ("first", "other", "second")}
    assert "#SBATCH --array=0-1\n" in scripts["first"] and "#SBATCH --dependency=afterok:11" in scripts["second"]
    assert "--dependency" not in scripts["first"] + scripts["other"]
    assert "3 jobs" in capsys.readouterr().err
    assert command(["status", str(out)]) == 0
    assert "0/3 stages done" in capsys.readouterr().out
    assert command(["pipeline", chain(tmp_path), "--cluster", cluster]) == 0
    assert capsys.readouterr().err.count("in the queue already") == 3 and len(fake.calls("sbatch")) == 3
    assert command(["cancel", str(out)]) == 0
    assert fake.calls("scancel")


@pytest.mark.parametrize("kind", ["pbs", "jobset"])
def test_a_pipeline_whose_stages_could_not_wait_for_each_other_is_refused_before_the_first(
    tmp_path, fake, capsys, kind
):
    assert command(["pipeline", chain(tmp_path), "--cluster", kind]) == 2
    assert "--cluster: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_pipeline_of_which_one_stage_is_refused_leaves_no_job_behind(tmp_path, fake, cluster, capsys):
    file = chain(tmp_path)
    bad = CHAIN.replace("OUT", str(tmp_path / "out")).replace("limit: 6", "limit: 6, forbidden: true")
    (tmp_path / "pipeline.yaml").write_text(bad.replace('source: "${stages.first}/run.json", ', ""))
    assert command(["pipeline", file, "--cluster", cluster]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == "genloop: forbidden: this config is forbidden"
    assert fake.calls("scancel") == ["11 11"]
