"""Cluster files: configs/cluster/NAME.yaml says what a scheduler is asked for; each kind has keys of its own."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from genloop.config import ConfigError, Settings, find_preset, load_config, preset_roots, read_yaml, refusal
from genloop.reading import read_utf8
from genloop.registry import did_you_mean

_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?|(\d+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: Any) -> int:
    """ "30m", "4h", "2d", "HH:MM[:SS]" or "D-HH:MM[:SS]" -> seconds; refused where it is something else, or nothing."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None or not re.search("[1-9]", str(text)):
        raise refusal(f": a time is 90s, 30m, 4h, 2d, HH:MM:SS or D-HH:MM:SS, found {text!r}")
    days, hours, minutes, rest, number, unit = found.groups()
    if unit:
        return int(number) * _UNITS[unit]
    return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + int(rest or 0)


def _one_line(text: str) -> str:
    if text and text.splitlines() != [text]:
        raise refusal(": must be one line")
    return text


Seconds = Annotated[int, Field(ge=0, le=10**8), BeforeValidator(seconds)]
Line = Annotated[str, AfterValidator(_one_line)]
Word = Annotated[str, Field(pattern=r"^[^\s'\"]+$")]


class ClusterSettings(Settings):
    """Keys of every kind."""

    kind: Literal["slurm", "pbs", "jobset", "hosts"]
    procs: int | None = Field(None, ge=1, le=1024, description="workers a node; null: one a GPU, at least one")
    gpus: int = Field(0, ge=0, le=1024, description="GPUs a node")
    setup: tuple[Line, ...] = Field((), description="shell lines before the job: modules, variables")

    @property
    def workers(self) -> int:
        """Of one node."""
        return self.procs or max(1, self.gpus)


class QueueSettings(ClusterSettings):
    """Keys of the kinds that queue jobs."""

    cpus: int | None = Field(None, ge=1, le=65536, description="CPU cores a node")
    memory: Word | None = Field(None, description="a node's, as the scheduler writes it: 64G")
    requeue_limit: int = Field(
        3, ge=0, le=10_000, description="how often a job that was stopped with work left starts again"
    )


class LimitedSettings(QueueSettings):
    """Keys of the kinds that end a job when its time is over."""

    time: Seconds | None = Field(None, description="limit of one start; null: the partition's own")
    lead: Seconds = Field(120, description="how long before the limit a job is asked to stop")

    @model_validator(mode="after")
    def _check_lead(self) -> "LimitedSettings":
        if self.time is not None and self.lead >= self.time:
            raise refusal(f"lead: {self.lead} s is not shorter than `time`, {self.time} s")
        return self


class SlurmSettings(LimitedSettings):
    """Keys of kind slurm."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    gres: Word = Field("gpu", description="the cluster's name of a GPU: gpu, gpu:a100")
    sbatch: tuple[Line, ...] = Field((), description="further options, as behind #SBATCH")


class PbsSettings(LimitedSettings):
    """Keys of kind pbs."""

    queue: Word | None = None
    account: Word | None = None
    time: Seconds = Field(description="limit of one start")
    pbs: tuple[Line, ...] = Field((), description="further options, as behind #PBS")


class JobSetSettings(QueueSettings):
    """Keys of kind jobset (Kubernetes)."""

    image: Word = Field(description="container image with genloop installed")
    claim: Word = Field(description="persistent volume claim that all nodes can write, with the run folder")
    mount: Path = Field(description="where it is mounted; the same path as where the job is submitted")
    namespace: Word = "default"
    queue: Word | None = Field(None, description="Kueue's local queue")


class HostSettings(ClusterSettings):
    """Keys of kind hosts."""

    hostfile: Path = Field(description="DeepSpeed's syntax: one `host slots=N` a line")
    port: int = Field(29400, ge=1, le=65535, description="where the workers of a collective job meet on the first host")


Cluster = SlurmSettings | PbsSettings | JobSetSettings | HostSettings
_KINDS: dict[str, type[Cluster]] = {
    "slurm": SlurmSettings,
    "pbs": PbsSettings,
    "jobset": JobSetSettings,
    "hosts": HostSettings,
}


def find_cluster(name: str) -> Path:
    """The file of a name of configs/cluster, or itself; ConfigError where there is none."""
    return find_preset("cluster", name, preset_roots(), noun="cluster")


def load_cluster(path: Path, words: Sequence[str] = ()) -> Cluster:
    """A cluster file with `key=value` on top; ConfigError names file and key."""
    try:
        kind = read_yaml(path).get("kind")
        if not isinstance(kind, str) or kind not in _KINDS:
            raise ConfigError(f"kind: {kind!r} is none of {', '.join(_KINDS)}{did_you_mean(str(kind), list(_KINDS))}")
        return load_config(_KINDS[kind], path, words)
    except ConfigError as error:
        line = str(error)
        raise ConfigError(line if str(path) in line else f"{path}: {line}") from None


def read_hosts(path: Path) -> list[tuple[str, int]]:
    """[(host, slots)] of a hostfile; ConfigError names the line that cannot be used."""
    try:
        lines = read_utf8(path).splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"hostfile: cannot read it: {error}") from None
    found: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        entry = re.fullmatch(r"([^\s-]\S*)\s+slots=([1-9]\d{0,3})", text)
        if text and (entry is None or entry[1] in found):
            raise ConfigError(f"{path}:{number}: expected each host once, as `host slots=N`, found {text!r}")
        if entry:
            found[entry[1]] = int(entry[2])
    if not found:
        raise ConfigError(f"{path}: names no host")
    if len(set(found.values())) > 1:
        raise ConfigError(f"{path}: all hosts need the same slots, found {sorted(set(found.values()))}")
    return list(found.items())
