"""A cluster of SLURM on this machine: a controller and two nodes, from Debian's packages, below one folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")
CONF = """\
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdTimeout=5
KillWait=5
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000"


def missing() -> str:
    """Why there can be no cluster here; "" if there can be one."""
    if not os.environ.get("MYGPT2_CLUSTERS"):
        return "scripts/test_clusters.sh installs SLURM and runs it"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "slurmd starts jobs as root only"


class Cluster:
    """Two nodes `n1` and `n2`; `environment` is for the commands of SLURM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] += ":/usr/sbin:/sbin"
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(parents=True)
        host, ports = socket.gethostname().split(".")[0], _free_ports(3)
        nodes = "\n".join(NODE.format(name=f"n{i}", host=host, port=ports[i]) for i in (1, 2))
        (folder / "slurm.conf").write_text(CONF.format(host=host, controller=ports[0], folder=folder, nodes=nodes))
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)

    def start(self) -> None:
        at = self.folder
        self._run("munged", "--force", f"--key-file={at}/munge.key", f"--socket={at}/munge.sock",
                  f"--pid-file={at}/munge.pid", f"--log-file={at}/munge.log",
                  f"--seed-file={at}/munge.seed")  # fmt: skip
        self._run("slurmctld")
        for node in ("n1", "n2"):
            self.start_node(node)
        self.wait(lambda: self.said("sinfo", "-h", "-o", "%t %D") == "idle 2", 30, "two idle nodes")

    def start_node(self, node: str) -> None:
        self._run("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """As if its power went: its daemon and all that runs on it, at once."""
        spool = str(self.folder / f"spool-{node}")
        daemon = psutil.Process(int((self.folder / f"slurmd-{node}.pid").read_text()))
        steps = [p for p in psutil.process_iter(["name", "environ"]) if self._belongs(p, node)]
        steppers = [p for p in psutil.process_iter(["name", "cmdline"]) if p.info["name"] == "slurmstepd"]
        of_node = [p for p in steppers if any(spool in f.path for f in _open_files(p)) or _node_of(p, steps)]
        for process in (daemon, *of_node, *steps):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _belongs(self, process: psutil.Process, node: str) -> bool:
        found = process.info["environ"] or {}
        return found.get("SLURMD_NODENAME") == node and found.get("SLURM_CONF") == self.environment["SLURM_CONF"]

    def state(self, job: str) -> str:
        shown = self.said("scontrol", "show", "job", job)
        return next((word.partition("=")[2] for word in shown.split() if word.startswith("JobState=")), "")

    def said(self, *argv: str) -> str:
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60).stdout.strip()

    def wait(self, until: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not until():
            if time.monotonic() > end:
                raise AssertionError(f"no {what} within {seconds} s; {self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(
            f"{path.name}: {path.read_text()[-1500:]}"
            for path in (*self.folder.glob("*.log"), *self.folder.parent.glob("runs/_launch/*.log"))
        )

    def stop(self) -> None:
        self.said("scancel", "--full", "--signal=KILL", "--user=root")
        for name in ("slurmd-n1", "slurmd-n2", "slurmctld", "munge"):
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGKILL)
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def _run(self, *argv: str) -> None:
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"


def _open_files(process: psutil.Process) -> list[psutil._common.popenfile]:
    with suppress(psutil.Error):
        return list(process.open_files())
    return []


def _node_of(stepper: psutil.Process, steps: list[psutil.Process]) -> bool:
    """Whether one of a node's processes descends from this one."""
    with suppress(psutil.Error):
        return bool({p.pid for p in stepper.children(recursive=True)} & {p.pid for p in steps})
    return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
