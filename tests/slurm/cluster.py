"""A real Slurm of two nodes on this machine: controller and two node daemons on the loopback interface, four CPUs each.

No accounting, no munge, nothing outside of its folder. Partitions: `debug`, and `low`, whose jobs it preempts.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.runs import wait_until

NODES = ("n1", "n2")
_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
ReturnToService=2
KillWait=20
MinJobAge=3600
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 PriorityTier=10 State=UP
PartitionName=low Nodes=ALL MaxTime=60 PriorityTier=1 State=UP PreemptMode=REQUEUE GraceTime=20
"""


class RealSlurm:
    """Start it, use it with `environment`, stop it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        ports = [_free_port() for _ in range(3)]
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=2000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:])
        ]
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        self.config.write_text(_CONFIG.format(host=host, port=ports[0], folder=folder, nodes="\n".join(lines)))
        self.environment = {**os.environ, "SLURM_CONF": str(self.config)}

    def start(self) -> None:
        """Until both nodes are idle."""
        self.run("slurmctld", "-c", "-f", str(self.config))
        for node in NODES:
            self.run("slurmd", "-N", node, "-f", str(self.config))
        wait_until(lambda: set(self.run("sinfo", "-h", "-o", "%T").split()) == {"idle"})

    def stop(self) -> None:
        """Jobs first: daemons that end under a job leave its step daemons behind."""
        try:
            self.run("scancel", "--user=root")
            wait_until(lambda: not self.run("squeue", "-h"))
        finally:
            for file in self.folder.glob("*.pid"):
                with suppress(ProcessLookupError):
                    os.kill(int(file.read_text()), signal.SIGTERM)

    def run(self, *words: str) -> str:
        """Standard output of one of Slurm's programs."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def state(self, job: str) -> str:
        """PENDING, RUNNING, ... of each task of a job, one word each."""
        return " ".join(self.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%T").split())

    def hurry(self, job: str) -> None:
        """Let a requeued job start now: Slurm has it wait for two minutes."""
        wait_until(lambda: "PENDING" in self.state(job))
        time.sleep(2)  # until then its nodes take the new start for the old one
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
