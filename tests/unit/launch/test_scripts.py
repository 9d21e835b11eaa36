"""Scripts for schedulers: what is written, letter by letter, and what Slurm's does when it runs."""

import os
import shlex
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from genloop.config import parse_settings, read_yaml
from genloop.reading import parse_yaml
from launch.backends.scripts import Submission, render
from launch.cluster import HostSettings, JobSetSettings, PbsSettings, SlurmSettings, seconds
from tests.runs import wait_until
from tests.worlds.fake_slurm import FakeSlurm

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "cluster"
SLURM = {"kind": "slurm", "gpus": 8, "cpus": 64, "memory": "400G", "time": "1-02:03:04", "lead": "2m"}
PBS = {"kind": "pbs", "gpus": 8, "cpus": 64, "memory": "400gb", "time": "26h", "queue": "gpu", "account": "lab"}
JOBSET = {"kind": "jobset", "gpus": 8, "memory": "400Gi", "image": "lab/genloop:1", "claim": "data", "mount": "/shared"}
MORE = {"partition": "a100", "account": "lab", "qos": "long", "gres": "gpu:a100", "sbatch": ["--exclude=n[3-4]"]}

SRUN = """#!/bin/bash
# As srun does: a signal goes on to every process of the step.
shift
set -m
SLURM_NODEID=0 "$@" &
trap 'again=1; kill -USR2 -- -$!' USR2
again=1
while [ $again = 1 ]; do again=0; wait $!; code=$?; done
exit $code
"""


def submission(cluster, *, together=False, nodes=1, **more) -> Submission:
    model = {"slurm": SlurmSettings, "pbs": PbsSettings, "jobset": JobSetSettings}[cluster["kind"]]
    run = Path("/shared/runs/Tiny 100%")
    places = {
        "run": run,
        "plan": run / "logs/submit-1",
        "folder": Path("/shared/it's here"),
        "python": "/venv/bin/python",
    }
    setup = {"setup": ["module load cuda/12", "export HF_HUB_OFFLINE=1"]}
    settings = parse_settings(model, cluster | setup)
    job = "lab.jobs.train" if together else "generate"
    return Submission(job=job, together=together, cluster=settings, nodes=nodes, **{**places, **more})


CASES = {
    "slurm_array.sh": submission(SLURM | MORE, nodes=8, variables={"PYTHONPATH": "/shared/code"}),
    "slurm_together.sh": submission(SLURM | {"requeue_limit": 0}, together=True, nodes=2, after=("12", "13")),
    "slurm_one.sh": submission({"kind": "slurm"}),
    "pbs_array.sh": submission(PBS, nodes=8),
    "pbs_together.sh": submission(PBS | {"pbs": ["-l filesystems=home"]}, together=True, nodes=2, after=("12.head",)),
    "jobset_array.yaml": submission(JOBSET | {"queue": "lab"}, nodes=8),
    "jobset_together.yaml": submission(JOBSET, together=True, nodes=2, variables={"PYTHONSAFEPATH": "1"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_script_is_the_recorded_one(name):
    assert render(CASES[name]) == (GOLDEN / name).read_text()


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(".sh")])
def test_the_script_is_one_for_bash(name):
    done = subprocess.run(["bash", "-n", str(GOLDEN / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(".yaml")])
def test_a_manifest_is_yaml_whose_command_is_one_for_bash(name):
    found = read_yaml(GOLDEN / name)
    done = subprocess.run(["bash", "-n", "-c", shell_of(found)], check=False)
    assert done.returncode == 0 and found["kind"] == "JobSet"


def shell_of(manifest: dict) -> str:
    """What the container runs once Kubernetes has put one dollar in place of two."""
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (text,) = pod["containers"][0]["args"]
    assert "$(" not in text.replace("$$", "")  # Kubernetes' own variables
    return text.replace("$$", "$")


def test_a_manifest_says_what_was_asked_for_whatever_characters_that_has(tmp_path):
    lines = ["  # modules", "export TMPDIR=/tmp/$$", "echo $(hostname) 'ü😀: #'", "", "set -x"]
    cluster = parse_settings(
        JobSetSettings, JOBSET | {"setup": lines, "queue": "2024", "memory": "64", "namespace": "no"}
    )
    job = replace(
        submission(JOBSET), cluster=cluster, folder=Path("/shared/it's ü😀"), plan=Path("/shared/$(x)/submit-1")
    )
    manifest = parse_yaml(render(job), "")
    assert shell_of(manifest).splitlines()[:-1] == lines
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "2024"}
    assert manifest["metadata"]["namespace"] == "no"
    (container,) = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["memory"] == "64" and container["workingDir"] == "/shared/it's ü😀"
    assert container["env"][0]["value"] == "/shared/$$(x)/submit-1"


def test_jobs_of_two_folders_of_one_name_are_two_for_kubernetes():
    one, other = (replace(submission(JOBSET), run=Path(f"/shared/{place}/{'run' * 20}")) for place in "ab")
    assert one.name != other.name and max(len(one.name), len(other.name)) <= 45


def test_a_host_does_all_setup_and_then_the_job(tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("node0 slots=1\n")
    lines = ["# modules", "export A='b  c'", "true &"]
    cluster = parse_settings(HostSettings, {"kind": "hosts", "hostfile": str(hosts), "setup": lines})
    job = replace(submission(SLURM), cluster=cluster, folder=tmp_path, python="/bin/echo")
    _, host, line = shlex.split(render(job))
    done = subprocess.run(["bash", "-c", f"{line}; printenv A"], capture_output=True, text=True, check=True)
    assert host == "node0" and done.stdout.startswith("-m launch run") and done.stdout.endswith("\nb  c\n")


@pytest.mark.parametrize(
    ("text", "number"), [("90s", 90), ("30m", 1800), ("2d", 172800), ("01:30", 5400), ("1-00:00:10", 86410)]
)
def test_a_time_is_written_in_any_of_the_usual_ways(text, number):
    assert seconds(text) == number


class Started:
    """The script of one job, with a `genloop` that does what `does` says and programs of Slurm that only take notes."""

    def __init__(self, folder: Path, does: str, *, limit: int = 2, attempt: int = 0, state: str = "RUNNING") -> None:
        self.fake = FakeSlurm(folder / "bin")
        self.fake.says("scontrol", f"JobId=7 JobState={state} Reason=None")
        (folder / "bin/srun").write_text(SRUN)
        (folder / "bin/srun").chmod(0o755)
        python = folder / "python"
        python.write_text(f"#!/bin/bash\n{does}\n")
        python.chmod(0o755)
        self.plan = folder / "run/logs/submit-1"
        self.plan.mkdir(parents=True)
        cluster = {"kind": "slurm", "requeue_limit": limit}
        places = {"run": folder / "run", "plan": self.plan, "folder": folder, "python": str(python)}
        job = replace(submission(cluster), **places, cluster=parse_settings(SlurmSettings, cluster))
        job.script.write_text(render(job))
        environment = {**os.environ, "PATH": self.fake.path, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(attempt)}
        self.process = subprocess.Popen(
            ["bash", str(job.script)], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def end(self) -> tuple[int, str, bool]:
        """Exit code, what was noted of it, whether the job was requeued."""
        self.process.communicate(timeout=30)
        noted = "".join(file.read_text().strip() for file in self.plan.glob("7.*.exit"))
        return self.process.returncode, noted, "requeue 7" in self.fake.calls("scontrol")


@pytest.mark.parametrize(
    ("does", "more", "ends"),
    [
        ("exit 0", {}, (0, "0", False)),
        ("exit 1", {}, (1, "1", False)),
        ("exit 2", {}, (2, "2", False)),
        ("exit 75", {}, (75, "75", True)),
        ("exit 75", {"attempt": 1}, (75, "75", True)),
        ("exit 75", {"attempt": 2}, (75, "75", False)),
        ("exit 75", {"limit": 0}, (75, "75", False)),
        ("exit 75", {"state": "COMPLETING"}, (75, "75", False)),
        ("kill -USR2 $$", {}, (75, "75", True)),  # told before it could listen
        ("kill -KILL $$", {}, (137, "137", False)),
    ],
)
def test_a_stop_with_work_left_is_requeued_so_often_and_not_when_cancelled(tmp_path, does, more, ends):
    assert Started(tmp_path, does, **more).end() == ends


def test_the_signal_ahead_of_the_limit_reaches_the_job_which_stops_cleanly(tmp_path):
    ready = tmp_path / "ready"
    job = Started(tmp_path, f"trap 'exit 75' USR2; touch {ready}; for i in $(seq 600); do sleep 0.1; done")
    wait_until(ready.exists)
    os.kill(job.process.pid, signal.SIGUSR1)
    assert job.end() == (75, "75", True)
