"""How many processes, on how many nodes, meeting where: from options, the environment and the machine. No torch import
unless devices must be counted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mygpt2.config.batch import legal_ranks
from mygpt2.config.schema import RunConfig
from mygpt2.errors import UserError
from mygpt2.launch.spec import NODE_PORT
from mygpt2.machine import ELSEWHERE, address_towards, available_cores

RESTARTS_ON_ONE_NODE = 3
CPU_PROCESSES = 2
PATIENCE_S = 600  # for the nodes to find each other


@dataclass(frozen=True)
class Engine:
    """The variables in which an engine tells a node of the others, each by names to be looked for in this order."""

    nodes: tuple[str, ...] = ()
    rank: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    port: tuple[str, ...] = ()


SLURM = Engine(("SLURM_NNODES",), ("SLURM_NODEID",), ("SLURM_JOB_NODELIST",))
SKYPILOT = Engine(("SKYPILOT_NUM_NODES",), ("SKYPILOT_NODE_RANK",), ("SKYPILOT_NODE_IPS",))
KUBEFLOW = Engine(("PET_NNODES",), ("PET_NODE_RANK",), ("PET_MASTER_ADDR",), ("PET_MASTER_PORT",))
NO_ENGINE = Engine(rank=("JOB_COMPLETION_INDEX",))  # an Indexed Job of Kubernetes; NNODES comes with its file
ENGINES = (SKYPILOT, KUBEFLOW, SLURM)  # SkyPilot may itself run on SLURM


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
    """NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and RDZV_ID win over what a cluster's engine says, which is read of
    one engine only. Raises UserError, also where the other nodes would never come."""
    cores = cores or available_cores()
    engine = _engine(env)
    nodes = _number(env, ("NNODES", *engine.nodes), least=1) or 1
    if nproc is None:
        nproc = _choose_nproc(config, nodes, cores, devices or count_devices)
    if max_restarts is None:
        max_restarts = RESTARTS_ON_ONE_NODE if nodes == 1 else 0
    threads = _number(env, ("OMP_NUM_THREADS",), least=1) or max(1, cores // nproc)
    if nodes == 1:
        return LaunchPlan(nproc, threads, 1, max_restarts)
    node_rank = _number(env, ("NODE_RANK", *engine.rank), least=0)
    if node_rank is not None and node_rank >= nodes:
        raise UserError(f"NODE_RANK={node_rank} must be below NNODES={nodes}; allowed: 0 to {nodes - 1}")
    if engine is SLURM and not env.get("NNODES") and not env.get("SLURM_STEP_ID"):
        raise UserError(
            f"SLURM gave this job {nodes} nodes, but this was not started by srun, so it runs on one of them and would "
            "wait for the others; use srun --ntasks-per-node=1 ./launch_train.sh ..., or NNODES=1 for this node alone"
        )
    port = _number(env, ("MASTER_PORT", *engine.port), least=1) or NODE_PORT
    host = env.get("MASTER_ADDR") or _first_host(env, engine, hostnames or slurm_hostnames)
    job = env.get("RDZV_ID") or "-".join(
        filter(None, (env.get("SLURM_JOB_ID"), env.get("SLURM_RESTART_COUNT")))  # a requeued job must not meet itself
    )
    is_host = None if node_rank is None else node_rank == 0
    patience = _number(env, ("RDZV_TIMEOUT",), least=1) or PATIENCE_S
    own = (address or own_address)(host, port)
    return LaunchPlan(nproc, threads, nodes, max_restarts, f"{host}:{port}", is_host, job or "mygpt2", patience, own)


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


def _engine(env: Mapping[str, str]) -> Engine:
    """The engine whose variables are there."""
    return next((engine for engine in ENGINES if any(env.get(name) for name in engine.nodes)), NO_ENGINE)


def _first_host(env: Mapping[str, str], engine: Engine, hostnames: Callable[[str], list[str]]) -> str:
    """The name of node 0: SLURM has it in a list to be expanded, SkyPilot as the first of its lines."""
    given = next((env[name] for name in engine.host if env.get(name)), "")
    found = hostnames(given) if engine is SLURM and given else given.split()
    if not found:
        raise UserError(
            "several nodes need MASTER_ADDR, the name of node 0, for all of them; for example MASTER_ADDR=n0"
        )
    return found[0]


def _number(env: Mapping[str, str], names: tuple[str, ...], least: int) -> int | None:
    for name in names:
        text = env.get(name, "")
        if text:
            if not text.isdecimal() or int(text) < least:
                raise UserError(f"{name}={text} must be a whole number from {least} up; for example {name}={least}")
            return int(text)
    return None
