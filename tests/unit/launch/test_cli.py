"""The command line: what it prints, what it refuses, what it exits with."""

import json
import os
import pty
import subprocess
import sys

import pytest

from tests.runs import ROOT, genloop

COUNT = "tests.worlds.counting_job"


HEAVY = {
    "torch": [["--help"], ["jobs", "--presets"], ["run", "generate", "--help"], ["completion", "zsh"]],
    "pydantic": [["--help"], ["jobs"]],
}


@pytest.mark.parametrize("package", HEAVY)
def test_the_help_and_the_list_of_jobs_do_not_import(package: str) -> None:
    code = (
        "import sys\nfrom launch.cli import command\n"
        f"for words in {HEAVY[package]}:\n"
        "    try:\n        command(words)\n    except SystemExit:\n        pass\n"
        f"    assert {package!r} not in sys.modules, words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: genloop" in done.stdout and "train_judge" in done.stdout


def test_jobs_prints_an_entry_each():
    done = genloop("jobs")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == sorted(
        file.stem for file in ROOT.glob("jobs/[a-z]*.py")
    )


def test_the_whole_config_is_printed_as_a_preset_that_says_the_same(tmp_path):
    printed = genloop("run", "generate", "tiny", "slots=3", f"out={tmp_path}", "--print-config")
    assert printed.returncode == 0 and "slots: 3" in printed.stdout.splitlines()
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    again = genloop("run", "generate", str(tmp_path / "mine.yaml"), "--print-config")
    assert again.stdout == printed.stdout and not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stauts"], "unknown command 'stauts'; did you mean 'status'? (jobs, run, "),
        (["generate", "tiny"], "`genloop run generate tiny`"),
        (["run"], "which job? `genloop jobs` lists them"),
        (["run", "genrate"], "unknown job 'genrate'; did you mean 'generate'?"),
        (["run", "generate", "tinny"], "unknown preset 'tinny' of job 'generate'; did you mean 'tiny'?"),
        (["run", "generate", "tiny", "--procs", "0"], "--procs: 1 to 1024 or auto, found 0"),
        (["run", "generate", "tiny", "--porcs", "2"], "unknown argument '--porcs'"),
        (["run", COUNT, "out=x", "slwo=1"], "slwo: unknown key; did you mean 'slow'?"),
        (["run", COUNT], "out: needs a value"),
        (["run", COUNT, "out=x", "--hang-timeout", "nan"], "--hang-timeout: "),
        (["run", COUNT, "out=x", "--hang-timeout=-1"], "--hang-timeout: "),
        (["run", COUNT, "out=x", "--meet-timeout", "inf"], "--meet-timeout: "),
        (["run", COUNT, "out=x", "--meet-timeout", "soon"], "--meet-timeout: "),
        (["status", "nowhere"], "nowhere is not a run folder"),
        (["status", "a", "b"], "unknown argument 'b'"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_command_gets_one_line_and_exit_2(words, message):
    done = genloop(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("genloop: ") and done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_ctrl_c_before_the_work_is_one_line_too(tmp_path):
    done = genloop("run", COUNT, f"out={tmp_path / 'run'}", "interrupted=true")
    assert (done.returncode, done.stderr) == (75, "genloop: stopped; the same command goes on from here\n")
    assert not (tmp_path / "run").exists()


def test_options_may_stand_anywhere(tmp_path):
    words, out = ["run", COUNT, "limit=3"], f"out={tmp_path / 'a'}"
    said = [genloop(*words, out, "--procs", "2", "--dry-run").stdout]
    said += [genloop(*words, "--procs", "2", out, "--dry-run").stdout]
    said += [genloop("run", "--dry-run", "--procs", "2", COUNT, "limit=3", out).stdout]
    assert len(set(said)) == 1 and said[0].count("launch.backends.worker") == 2


def test_status_shows_a_run_as_text_and_as_json(tmp_path):
    out = str(tmp_path / "run")
    assert genloop("run", COUNT, "limit=4", f"out={out}").returncode == 0
    assert genloop("status", out).stdout.startswith("counting_job done, 2/2 units (100 %), 4/4 items\n  worker 0:")
    assert json.loads(genloop("status", out, "--json").stdout)["units_done"] == 2
    assert genloop("status", out, "--watch").returncode == 0


def test_a_terminal_gets_a_picture_that_redraws_itself(tmp_path):
    master, slave = pty.openpty()
    words = ["run", COUNT, "limit=12", "slow=0.3", f"out={tmp_path / 'run'}", "--procs", "2"]
    command = subprocess.Popen(
        [sys.executable, "-m", "launch", *words],
        cwd=ROOT,
        stderr=slave,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(slave)
    seen = b""
    try:
        while chunk := os.read(master, 65536):
            seen += chunk
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert command.wait() == 0
    text = seen.decode()
    assert "\x1b[" in text and "items/s" in text and "worker" in text
    assert "6/6 units (100 %)" in text


def test_a_debugger_stops_in_the_job_and_the_view_is_out_of_its_way(tmp_path):
    source = (ROOT / "tests" / "worlds" / "counting_job.py").read_text()
    package = tmp_path / "debugged"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "counting.py").write_text(source.replace("rows = []", "rows = []; breakpoint()"))
    done = subprocess.run(
        [sys.executable, "-m", "launch", "run", "debugged.counting", "limit=2", f"out={tmp_path / 'run'}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input="p unit.stop * 1000\nc\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 2000\n" in done.stdout


def test_workers_import_nothing_from_the_current_folder(tmp_path):
    for name in ("pydantic", "numpy", "jobs", "string"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(77)")
    done = subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "launch",
            "run",
            "tests.worlds.counting_job",
            "limit=4",
            "out=run",
            "--procs",
            "2",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
