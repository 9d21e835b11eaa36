"""A real Slurm of two nodes on this machine, of four CPUs each: a controller and two node daemons.

They share the loopback interface, or have network namespaces, addresses and host names of their own. No accounting, no
munge, nothing outside of its folder. Partitions: `debug`, and `low`, whose jobs it preempts.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.runs import ROOT, wait_until

NODES = ("n1", "n2")
ADDRESSES = {"ctl": "10.77.0.1", "n1": "10.77.0.11", "n2": "10.77.0.12"}
_CONFIG = """
ClusterName=test
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
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
{more}
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 PriorityTier=10 State=UP
PartitionName=low Nodes=ALL MaxTime=60 PriorityTier=1 State=UP PreemptMode=REQUEUE GraceTime=20
"""


class RealSlurm:
    """Start it, use it, stop it. With `spaces`, made by `Spaces`, every program runs in one of them."""

    def __init__(self, folder: Path, spaces: "Spaces | None" = None) -> None:
        self.folder, self.spaces = folder, spaces
        self.config = folder / "slurm.conf"
        host = "ctl" if spaces else socket.gethostname().partition(".")[0]
        ports = [_free_port() for _ in range(3)]
        lines = [] if spaces else ["CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"]
        for name, port in zip(NODES, ports[1:]):
            place = f"NodeAddr={ADDRESSES[name]}" if spaces else f"NodeHostname={host} NodeAddr=127.0.0.1"
            lines.append(f"NodeName={name} {place} Port={port} CPUs=4 RealMemory=2000 State=UNKNOWN")
        for name in ("state", *(f"spool/{node}" for node in NODES)):
            (folder / name).mkdir(parents=True)
        address = ADDRESSES["ctl"] if spaces else "127.0.0.1"
        text = _CONFIG.format(host=host, address=address, port=ports[0], folder=folder, more="\n".join(lines))
        self.config.write_text(text)
        self.environment = {**os.environ, "SLURM_CONF": str(self.config)}

    def start(self) -> None:
        """Until both nodes are idle."""
        self.run("slurmctld", "-c", "-f", str(self.config))
        for node in NODES:
            self.run("slurmd", "-N", node, "-f", str(self.config), place=node)
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

    def kill_node(self, node: str) -> None:
        """Its daemon and all that runs on it, at once; then the controller is told, as by who watches the machines."""
        os.kill(int((self.folder / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
        mine = f"SLURMD_NODENAME={node}".encode()
        here = f"SLURM_CONF={self.config}".encode()
        found: list[int] = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if {mine, here} <= set((place / "environ").read_bytes().split(b"\0")):
                    parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                    is_step = Path(f"/proc/{parent}/cmdline").read_bytes().startswith(b"slurmstepd")
                    found = [*([parent] if is_step else []), *found, int(place.name)]  # a living one would tell
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def revive_node(self, node: str) -> None:
        """Start its daemon again, until jobs may run there."""
        self.run("slurmd", "-N", node, "-f", str(self.config), place=node)
        wait_until(lambda: self.run("sinfo", "-h", "-n", node, "-o", "%T").split()[0] in {"idle", "mixed", "allocated"})

    def run(self, *words: str, place: str = "ctl") -> str:
        """Standard output of a program that succeeds: one of Slurm's, or one that calls them."""
        command = [*(self.spaces.prefix(place) if self.spaces else []), *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
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


class Spaces:
    """A network namespace for the controller and for each node, bridged in that of the controller; not this machine's.

    OSError where this machine does not let anyone make them. `close` removes them.
    """

    def __init__(self, folder: Path) -> None:
        self.hosts = folder / "hosts"
        self.hosts.write_text(
            "".join(f"{address} {name}\n" for name, address in ADDRESSES.items()) + "127.0.0.1 localhost\n"
        )
        self.names = {name: f"genloop-{os.getpid()}-{name}" for name in ADDRESSES}
        try:
            for name in self.names.values():
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            center = self.names["ctl"]
            _ip("-n", center, "link", "add", "bridge", "type", "bridge")
            _ip("-n", center, "addr", "add", f"{ADDRESSES['ctl']}/24", "dev", "bridge")
            _ip("-n", center, "link", "set", "bridge", "up")
            for node in NODES:
                own = self.names[node]
                _ip("link", "add", f"to-{node}", "netns", center, "type", "veth", "peer", "name", "eth0", "netns", own)
                _ip("-n", center, "link", "set", f"to-{node}", "master", "bridge", "up")
                _ip("-n", own, "addr", "add", f"{ADDRESSES[node]}/24", "dev", "eth0")
                _ip("-n", own, "link", "set", "eth0", "up")
            subprocess.run([*self.prefix("n1"), "true"], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise OSError(f"no network namespaces: {error}") from None

    def prefix(self, name: str) -> list[str]:
        """In front of a command that is to run there, under that host name."""
        script = f'mount --bind {self.hosts} /etc/hosts && hostname {name} && exec "$@"'
        inside = ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        return ["nsenter", f"--net=/var/run/netns/{self.names[name]}", *inside]

    def close(self) -> None:
        """Those that are there."""
        for name in self.names.values():
            with suppress(OSError, subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
