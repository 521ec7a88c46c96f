"""How many processes, on how many nodes, meeting where: from options, the environment and the machine. No torch import
unless devices must be counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mygpt2.config.batch import legal_ranks
from mygpt2.config.schema import RunConfig
from mygpt2.launch.meeting import PATIENCE_S, Meeting
from mygpt2.machine import ELSEWHERE, address_towards, available_cores

RESTARTS_ON_ONE_NODE = 3
CPU_PROCESSES = 2


@dataclass(frozen=True)
class LaunchPlan:
    """One node's part of a launch. `host` is None on a single node, else where all nodes meet (name:port), which they
    have `patience` seconds for."""

    nproc: int
    threads: int
    nodes: int
    max_restarts: int
    host: str | None = None
    is_host: bool | None = None
    job: str = "mygpt2"
    patience: int = PATIENCE_S
    address: str | None = None  # of this node, as the others reach it

    def torchrun_options(self) -> list[str]:
        """torchrun's own options; restarts are the launcher's, so torchrun gets none."""
        options = [f"--nnodes={self.nodes}", f"--nproc-per-node={self.nproc}", "--max-restarts=0"]
        options.append("--signals-to-handle=SIGQUIT")
        if self.host is None:
            return ["--standalone", *options, "--local-addr=127.0.0.1"]  # a machine may not know its own name
        options += ["--rdzv-backend=c10d", f"--rdzv-endpoint={self.host}", f"--rdzv-id={self.job}"]
        settings = f"join_timeout={self.patience},read_timeout={self.patience}"
        if self.is_host is not None:
            settings += f",is_host={str(self.is_host).lower()}"
        # By itself torchrun tells the others this machine's name, which may stand for another address, or for none.
        local = [f"--local-addr={self.address}"] if self.address else []
        return [*options, *local, f"--rdzv-conf={settings}"]


def plan_launch(
    config: RunConfig,
    env: Mapping[str, str],
    nproc: int | None = None,
    max_restarts: int | None = None,
    *,
    cores: int | None = None,
    devices: Callable[[], int] | None = None,
    hostnames: Callable[[str], list[str]] | None = None,
    address: Callable[[str, int], str | None] | None = None,
) -> LaunchPlan:
    """Where the nodes meet is `Meeting`'s to say. Raises UserError, also where the other nodes would never come."""
    cores = cores or available_cores()
    meeting = Meeting(env)
    nodes = meeting.nodes()
    if nproc is None:
        nproc = _choose_nproc(config, nodes, cores, devices or count_devices)
    if max_restarts is None:
        max_restarts = RESTARTS_ON_ONE_NODE if nodes == 1 else 0
    threads = meeting.number("OMP_NUM_THREADS", least=1) or max(1, cores // nproc)
    if nodes == 1:
        return LaunchPlan(nproc, threads, 1, max_restarts)
    where = meeting.where(hostnames) if hostnames else meeting.where()
    own = (address or own_address)(where.host, where.port)
    return LaunchPlan(
        nproc, threads, nodes, max_restarts, where.endpoint, where.is_host, where.job, where.patience, own
    )


def own_address(host: str, port: int) -> str | None:
    """The address by which the other nodes reach this one; None where that cannot be told. On the first node its own
    name may stand for 127.0.1.1 (Debian's /etc/hosts), by which nobody else reaches it."""
    found = address_towards(host, port)
    return (address_towards(*ELSEWHERE) or found) if found and found.startswith("127.") else found


def count_devices() -> int:
    """CUDA devices; 1 where there is Apple's GPU, which one process uses; 0 for the CPU alone."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return int(torch.backends.mps.is_available())


def _choose_nproc(config: RunConfig, nodes: int, cores: int, devices: Callable[[], int]) -> int:
    """One process per device, else two on a CPU with two cores; fewer where the batch does not divide by that."""
    count = devices() if config.train.device in ("auto", "cuda") else int(config.train.device == "mps")
    most = count or min(CPU_PROCESSES, cores)
    tokens, block = config.train.batch_tokens, config.model.block_size
    legal = legal_ranks(tokens, block, config.train.micro_batch, config.data.lanes, most * nodes, nodes)
    return max(1, legal // nodes)
