"""A Slurm cluster on this machine for trying and testing: own munged, slurmctld and slurmd, GPUs that are only files.

    python tests/slurm/cluster.py start          needs root and the Debian packages slurm-wlm and munge
    export PATH=/tmp/fake-slurm/bin:$PATH
    snakemake --profile slurm --configfile config/smoke.yaml -- all
    python tests/slurm/cluster.py status
    python tests/slurm/cluster.py stop

Everything is in one folder (--folder), which `stop` removes; a Slurm that the machine may have is not touched. Several
nodes (--nodes 2) are several slurmd on this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FOLDER = Path("/tmp/fake-slurm")
DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scontrol", "sinfo", "scancel", "sacct", "sacctmgr", "sshare")

CONFIGURATION = """\
ClusterName=fake
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is put back into the queue waits until its credential has ended: two minutes by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
# No cgroups: they need more rights than a container has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
# More processors and memory than the machine may have.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=100000
# squeue shows finished jobs this long: there is no accounting.
MinJobAge=86400
JobRequeue=1
ReturnToService=2
KillWait=5
MaxArraySize=1001
MpiDefault=none
PropagateResourceLimits=NONE
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """The cluster in a folder.

    Attributes:
        folder: everything that it has.
        nodes: number of nodes.
        processors: processors of a node, as Slurm counts them.
        gpus: GPUs of a node.
    """

    folder: Path = DEFAULT_FOLDER
    nodes: int = 1
    processors: int = 4
    gpus: int = 4

    @property
    def configuration(self) -> Path:
        """Configuration of the daemons and commands."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which Slurm's commands talk to this cluster: all that is needed is the PATH.

        Commands that set SLURM_CONF come first on it. The variable itself is not enough: Snakemake removes it in jobs.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**kept, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}

    def command(self, *arguments: str) -> str:
        """Standard output of a Slurm command."""
        result = subprocess.run(arguments, env=self.environment, capture_output=True, text=True, timeout=60)
        if result.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def start(self) -> None:
        """Start the daemons and wait until the nodes are idle."""
        missing = [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name) is None]
        if missing:
            sys.exit(f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)")
        if os.geteuid():
            sys.exit("root is needed: munged and slurmd run jobs as the users that submit them")
        self.stop()
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        self._write_commands()
        self._write_configuration()
        self._start_munge()
        self.start_controller()
        for index in range(self.nodes):
            self._run("slurmd", "-f", str(self.configuration), "-N", self._node(index))
        self._wait("nodes to be idle", lambda: self.states() == {"idle": self.nodes})

    def stop(self) -> None:
        """End all processes and remove the folder. Nothing happens if there is none."""
        if not self.folder.is_dir():
            return
        if self.configuration.is_file():
            for pid in self._pids("slurmctld.pid"):
                self._try("scancel", "--user=root")
                self._wait_or_go_on(lambda: not self._try("squeue", "--noheader", "--states=R,CG").strip())
                self._end(pid)
        for pid in self._pids("slurmd-*.pid", "munged.pid"):
            self._end(pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_controller(self) -> None:
        """Start slurmctld, which finds its jobs again."""
        self._run("slurmctld", "-f", str(self.configuration))
        self._wait("slurmctld to answer", lambda: "UP" in self._try("scontrol", "ping"))

    def stop_controller(self) -> None:
        """End slurmctld; jobs go on."""
        for pid in self._pids("slurmctld.pid"):
            self._end(pid)

    def jobs(self, *options: str) -> dict[str, tuple[str, str, str]]:
        """State, node and comment of every job since the start, by id; ``squeue`` options restrict them."""
        lines = self._try("squeue", "--noheader", "--states=all", "--array", "--format=%i|%T|%N|%k", *options)
        rows = (line.split("|") for line in lines.splitlines())
        return {job: (state, node, comment) for job, state, node, comment in rows}

    def running(self, comment: str) -> dict[str, str]:
        """Node of each running job whose comment begins so, by id."""
        return {
            job: node
            for job, (state, node, said) in self.jobs().items()
            if state == "RUNNING" and said.startswith(comment)
        }

    def set_node(self, node: str, state: str) -> None:
        """``down`` ends the jobs of the node, ``drain`` lets them end."""
        self.command("scontrol", "update", f"NodeName={node}", f"State={state}", "Reason=test")

    def resume(self, node: str) -> None:
        """Make a node usable again, whatever its state: one that was down may be back by itself, which is an error."""
        self._try("scontrol", "update", f"NodeName={node}", "State=resume")

    def states(self) -> dict[str, int]:
        """Number of nodes in each state."""
        lines = self._try("sinfo", "--noheader", "--format=%T %D").split("\n")
        return {state: int(count) for state, count in (line.split() for line in lines if line)}

    def _node(self, index: int) -> str:
        return f"fake{index + 1}"

    def _write_configuration(self) -> None:
        (self.folder / "state").mkdir()
        for index in range(self.gpus):
            (self.folder / f"gpu{index}").symlink_to("/dev/null")  # Slurm wants devices, and numbers them by name
        host = socket.gethostname()
        ports = _free_ports(1 + self.nodes)
        memory = 1_000_000
        nodes = [
            f"NodeName={self._node(index)} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1 + index]} "
            f"CPUs={self.processors} RealMemory={memory} State=UNKNOWN"
            + (f" Gres=gpu:fake:{self.gpus}" if self.gpus else "")
            for index in range(self.nodes)
        ]
        text = CONFIGURATION.format(host=host, port=ports[0], folder=self.folder, nodes="\n".join(nodes))
        self.configuration.write_text(text)
        devices = f"File={self.folder}/gpu[0-{self.gpus - 1}]"
        lines = [f"NodeName={self._node(i)} Name=gpu Type=fake {devices}" for i in range(self.nodes) if self.gpus]
        (self.folder / "gres.conf").write_text("\n".join([*lines, ""]))

    def _write_commands(self) -> None:
        (self.folder / "bin").mkdir()
        for name in COMMANDS:
            wrapper = self.folder / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {shutil.which(name)} "$@"\n')
            wrapper.chmod(0o755)

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        options = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        options["seed-file"] = "munged.seed"
        self._run("munged", "--force", *(f"--{option}={self.folder / name}" for option, name in options.items()))

    def _run(self, *arguments: str) -> None:
        """Start a daemon, which leaves its parent by itself."""
        log = self.folder / f"{arguments[0]}.out"
        with log.open("a") as file:
            code = subprocess.run(
                arguments, env=self.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=60
            ).returncode
        if code:
            sys.exit(f"{' '.join(arguments)} failed:\n{log.read_text()}")

    def _try(self, *arguments: str) -> str:
        try:
            return self.command(*arguments)
        except (RuntimeError, subprocess.TimeoutExpired):
            return ""

    def _pids(self, *patterns: str) -> list[int]:
        """Processes of the pid files that still are our daemons."""
        pids = []
        for path in (path for pattern in patterns for path in self.folder.glob(pattern)):
            text = path.read_text().strip()
            if text.isdigit() and _command_of(int(text)) in ("munged", "slurmctld", "slurmd"):
                pids.append(int(text))
        return pids

    def _end(self, pid: int) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return
            if self._wait_or_go_on(lambda: not _command_of(pid)):
                return

    def _wait(self, what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        if not self._wait_or_go_on(condition, seconds):
            logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("slurm*.log"))
            sys.exit(f"waited {seconds:g} s for {what} in vain\n{logs}")

    def _wait_or_go_on(self, condition: Callable[[], bool], seconds: float = 30) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.1)
        return False


def _command_of(pid: int) -> str:
    """Name of a process; empty if there is none, or only what is left of it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    name, _, rest = status.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] == "Z" else name


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop", "status"])
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--processors", type=int, default=4, help="per node, as Slurm counts them")
    parser.add_argument("--gpus", type=int, default=4, help="per node")
    arguments = parser.parse_args()
    cluster = Cluster(arguments.folder, arguments.nodes, arguments.processors, arguments.gpus)
    if arguments.action == "stop":
        cluster.stop()
        return
    if arguments.action == "start":
        cluster.start()
        print(f"export PATH={cluster.folder}/bin:$PATH")
    elif not cluster.configuration.is_file():
        sys.exit(f"no cluster in {cluster.folder}")
    print(cluster.command("sinfo", "--format=%N %T %c %G"), end="")
    print(cluster.command("squeue", "--states=all", "--format=%A %T %M %R %k"), end="")


if __name__ == "__main__":
    main()
