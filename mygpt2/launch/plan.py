"""How many processes, on how many nodes, meeting where: from options, the environment and the machine. No torch import
unless devices must be counted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mygpt2.config.batch import legal_ranks
from mygpt2.config.schema import RunConfig
from mygpt2.errors import UserError
from mygpt2.machine import available_cores

RESTARTS_ON_ONE_NODE = 3
CPU_PROCESSES = 2


@dataclass(frozen=True)
class LaunchPlan:
    """One node's part of a launch. `host` is None on a single node, else where all nodes meet (name:port)."""

    nproc: int
    threads: int
    nodes: int
    max_restarts: int
    host: str | None = None
    is_host: bool | None = None
    job: str = "mygpt2"

    def torchrun_options(self) -> list[str]:
        """torchrun's own options; restarts are the launcher's, so torchrun gets none."""
        options = [f"--nnodes={self.nodes}", f"--nproc-per-node={self.nproc}", "--max-restarts=0"]
        options.append("--signals-to-handle=SIGQUIT")
        if self.host is None:
            return ["--standalone", *options, "--local-addr=127.0.0.1"]  # a machine may not know its own name
        options += ["--rdzv-backend=c10d", f"--rdzv-endpoint={self.host}", f"--rdzv-id={self.job}"]
        if self.is_host is not None:
            options.append(f"--rdzv-conf=is_host={str(self.is_host).lower()}")
        return options


def plan_launch(
    config: RunConfig,
    env: Mapping[str, str],
    nproc: int | None = None,
    max_restarts: int | None = None,
    *,
    cores: int | None = None,
    devices: Callable[[], int] | None = None,
    hostnames: Callable[[str], list[str]] | None = None,
) -> LaunchPlan:
    """NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and RDZV_ID win over what SLURM says. Raises UserError."""
    cores = cores or available_cores()
    nodes = _number(env, ("NNODES", "SLURM_NNODES"), least=1) or 1
    if nproc is None:
        nproc = _choose_nproc(config, nodes, cores, devices or count_devices)
    if max_restarts is None:
        max_restarts = RESTARTS_ON_ONE_NODE if nodes == 1 else 0
    threads = _number(env, ("OMP_NUM_THREADS",), least=1) or max(1, cores // nproc)
    if nodes == 1:
        return LaunchPlan(nproc, threads, 1, max_restarts)
    node_rank = _number(env, ("NODE_RANK", "SLURM_NODEID"), least=0)
    if node_rank is not None and node_rank >= nodes:
        raise UserError(f"NODE_RANK={node_rank} must be below NNODES={nodes}; allowed: 0 to {nodes - 1}")
    port = _number(env, ("MASTER_PORT",), least=1) or 29500
    host = env.get("MASTER_ADDR") or _first_slurm_host(env, hostnames or slurm_hostnames)
    job = env.get("RDZV_ID") or "-".join(
        filter(None, (env.get("SLURM_JOB_ID"), env.get("SLURM_RESTART_COUNT")))  # a requeued job must not meet itself
    )
    is_host = None if node_rank is None else node_rank == 0
    return LaunchPlan(nproc, threads, nodes, max_restarts, f"{host}:{port}", is_host, job or "mygpt2")


def count_devices() -> int:
    """CUDA devices; 1 where there is Apple's GPU, which one process uses; 0 for the CPU alone."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return int(torch.backends.mps.is_available())


def slurm_hostnames(nodelist: str) -> list[str]:
    """The hosts of a SLURM node list, expanded by scontrol. Raises UserError where that fails."""
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"scontrol cannot expand SLURM_JOB_NODELIST={nodelist} ({error}); set MASTER_ADDR") from None
    return done.stdout.split()


def _choose_nproc(config: RunConfig, nodes: int, cores: int, devices: Callable[[], int]) -> int:
    """One process per device, else two on a CPU with two cores; fewer where the batch does not divide by that."""
    count = devices() if config.train.device in ("auto", "cuda") else int(config.train.device == "mps")
    most = count or min(CPU_PROCESSES, cores)
    tokens, block = config.train.batch_tokens, config.model.block_size
    legal = legal_ranks(tokens, block, config.train.micro_batch, config.data.lanes, most * nodes, nodes)
    return max(1, legal // nodes)


def _first_slurm_host(env: Mapping[str, str], hostnames: Callable[[str], list[str]]) -> str:
    nodelist = env.get("SLURM_JOB_NODELIST")
    if not nodelist:
        raise UserError(
            "several nodes need MASTER_ADDR, the name of node 0, for all of them; for example MASTER_ADDR=n0"
        )
    return hostnames(nodelist)[0]


def _number(env: Mapping[str, str], names: tuple[str, ...], least: int) -> int | None:
    for name in names:
        text = env.get(name, "")
        if text:
            if not text.isdecimal() or int(text) < least:
                raise UserError(f"{name}={text} must be a whole number from {least} up; for example {name}={least}")
            return int(text)
    return None
