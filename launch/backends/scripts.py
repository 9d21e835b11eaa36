"""Scripts for schedulers: what `genloop submit` hands to sbatch or writes for PBS, Kubernetes and host lists."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.cluster import Cluster, HostSettings, PbsSettings, SlurmSettings, read_hosts
from launch.record import PLAN

SUFFIX = {"slurm": "sh", "pbs": "sh", "jobset": "yaml", "hosts": "txt"}


@dataclass(frozen=True)
class Submission:
    """One job for a cluster. Its `nodes` work on one run folder: each task of an array for itself, or all together."""

    job: str  # a job's name, or its dotted module path
    together: bool  # the workers of a collective job meet
    run: Path
    plan: Path  # RUN/logs/submit-N
    cluster: Cluster
    nodes: int
    folder: Path  # where relative paths of the config begin
    python: str
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment: where Python imports from
    after: tuple[str, ...] = ()  # the scheduler's ids of jobs that have to succeed first

    @property
    def name(self) -> str:
        """Of the job, as schedulers take it; for Kubernetes, which knows a job by its name, another for each folder."""
        text = f"genloop-{self.job.rpartition('.')[2]}-{self.run.name}".lower()
        place = hashlib.sha256(str(self.run).encode()).hexdigest()[:6]
        more = f"-{place}" if self.cluster.kind == "jobset" else ""
        stem = re.sub(r"[^a-z0-9]+", "-", text)[: 40 - len(more)].strip("-")
        return f"{stem}{more}{self.plan.name.removeprefix('submit')}"

    @property
    def is_array(self) -> bool:
        """Whether every node is a task of its own."""
        return self.nodes > 1 and not self.together

    @property
    def script(self) -> Path:
        """Where `render` belongs."""
        return self.plan / f"job.{SUFFIX[self.cluster.kind]}"

    def command(self, rank: str, master: str, *, procs: int | None = None) -> str:
        """The shell command of one node; `rank` and `master` are shell words, for jobs on several nodes."""
        words = [self.python, "-m", "launch", "run", self.job, str(self.plan / "config.yaml")]
        line = shlex.join([*words, "--procs", str(procs or self.cluster.workers)])
        if self.nodes > 1:
            line += f" --nodes {self.nodes} --node-rank {rank}"
        return f"{line} --master {master}" if self.nodes > 1 and self.together else line


def render(submission: Submission) -> str:
    """The script, manifest or list of commands of a submission."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("launch"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "quote": lambda value: shlex.quote(str(value)),
        "json": lambda value: json.dumps(value, ensure_ascii=False),  # YAML has no pairs of \u escapes
        "dollars": lambda text: text.replace(
            "$", "$$"
        ),  # which Kubernetes takes for one, as it does $(NAME) for a value
    }
    cluster = submission.cluster
    more: dict[str, Any] = {}
    if isinstance(cluster, SlurmSettings):
        more = {"options": _slurm_options(submission, cluster)}
    elif isinstance(cluster, PbsSettings):
        more = {"options": _pbs_options(submission, cluster)}
    elif isinstance(cluster, HostSettings):
        more = {"commands": _host_commands(submission, cluster)}
    template = environment.get_template(f"{cluster.kind}.{SUFFIX[cluster.kind]}")
    return template.render(it=submission, cluster=cluster, PLAN=PLAN, **more)


def _slurm_options(it: Submission, cluster: SlurmSettings) -> list[str]:
    """What stands behind #SBATCH: spellings that Slurm knows from 20.11 on."""
    log = str(it.run / "logs" / "slurm-").replace("%", "%%") + ("%A_%a.log" if it.is_array else "%j.log")
    options: dict[str, Any] = {
        "job-name": it.name,
        "output": log,
        "open-mode": "append",
        "nodes": it.nodes if it.together else 1,
        "ntasks-per-node": 1,
        "gres": f"{cluster.gres}:{cluster.gpus}" if cluster.gpus else None,
        "cpus-per-task": cluster.cpus,
        "mem": cluster.memory,
        "time": _clock(cluster.time) if cluster.time else None,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "signal": f"B:USR1@{cluster.lead}",
        "array": f"0-{it.nodes - 1}" if it.is_array else None,
        "dependency": f"afterok:{':'.join(it.after)}" if it.after else None,
        "kill-on-invalid-dep": "yes" if it.after else None,
    }
    lines = [f"--{key}={shlex.quote(str(value))}" for key, value in options.items() if value is not None]
    return [*lines, "--requeue" if cluster.requeue_limit else "--no-requeue", *cluster.sbatch]


def _pbs_options(it: Submission, cluster: PbsSettings) -> list[str]:
    """What stands behind #PBS."""
    chunk = {"ncpus": cluster.cpus, "ngpus": cluster.gpus or None, "mem": cluster.memory}
    nodes = it.nodes if it.together else 1
    select = ":".join([str(nodes), *(f"{key}={value}" for key, value in chunk.items() if value)])
    lines = [f"-N {it.name}", f"-o {shlex.quote(f'{it.run}/logs/')}", "-j oe", f"-l select={select}"]
    lines += ["-l place=scatter", f"-l walltime={_clock(cluster.time, days=False)}"]
    lines += [f"-q {cluster.queue}"] if cluster.queue else []
    lines += [f"-A {cluster.account}"] if cluster.account else []
    lines += [f"-J 0-{it.nodes - 1}"] if it.is_array else []
    lines += [f"-W depend=afterok:{':'.join(it.after)}"] if it.after else []
    return [*lines, *cluster.pbs]


def _host_commands(it: Submission, cluster: HostSettings) -> list[str]:
    """One command line a host."""
    hosts = read_hosts(cluster.hostfile)
    before = "".join(f"eval {shlex.quote(line)} && " for line in cluster.setup)  # a line may be a comment
    variables = "".join(f"{key}={shlex.quote(value)} " for key, value in it.variables.items())
    found = []
    for rank, (host, slots) in enumerate(hosts):
        command = it.command(str(rank), f"{hosts[0][0]}:{cluster.port}", procs=cluster.procs or slots)
        line = f"cd {shlex.quote(str(it.folder))} && {before}{variables}{command}"
        found.append(f"ssh {shlex.quote(host)} {shlex.quote(line)}")
    return found


def _clock(seconds: int, *, days: bool = True) -> str:
    """93784 -> 1-02:03:04, or 26:03:04 without days."""
    whole, rest = divmod(seconds, 86400) if days else (0, seconds)
    text = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{whole}-{text}" if whole else text
