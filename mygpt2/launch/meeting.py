"""Where the nodes of a launch meet, and which of them this is: by variables of a person and of a cluster's engine.

Variables that contradict each other are told: nodes that were told different things wait for each other in vain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mygpt2.errors import UserError
from mygpt2.launch.command import ask
from mygpt2.launch.spec import NODE_PORT

PATIENCE_S = 600  # for the nodes to find each other
MOST_NODES = 100_000
LAST_PORT = 65_535
SCONTROL_S = 30.0


@dataclass(frozen=True)
class Engine:
    """The variables in which an engine tells a node of the others, each by names to be looked for in this order."""

    title: str
    nodes: str = "NNODES"
    rank: str = "JOB_COMPLETION_INDEX"
    host: tuple[str, ...] = ()
    port: tuple[str, ...] = ()


SLURM = Engine("SLURM", "SLURM_NNODES", "SLURM_NODEID", ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
SKYPILOT = Engine("SkyPilot", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK", ("SKYPILOT_NODE_IPS",))
KUBEFLOW = Engine("Kubeflow", "PET_NNODES", "PET_NODE_RANK", ("PET_MASTER_ADDR",), ("PET_MASTER_PORT",))
NO_ENGINE = Engine("no engine")  # also an Indexed Job of Kubernetes: NNODES comes with its file
ENGINES = (SKYPILOT, KUBEFLOW, SLURM)  # SkyPilot may itself run on SLURM


@dataclass(frozen=True)
class Where:
    """`host`:`port` is on node 0. `is_host` is None where only the address tells whether this node is that."""

    host: str
    port: int
    is_host: bool | None
    job: str
    patience: int

    @property
    def endpoint(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Meeting:
    """NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT and RDZV_ID win over what a cluster's engine says, which is read of
    one engine only. Every method raises UserError for a value, or for several together, that cannot be right."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._engine = next((engine for engine in ENGINES if env.get(engine.nodes)), NO_ENGINE)

    def number(self, name: str, least: int, most: int | None = None) -> int | None:
        """The variable's value; None where it is not set, or to nothing."""
        text = self._env.get(name, "")
        if not text:
            return None
        short = text if text.isprintable() and len(text) <= 80 else ascii(text[:80])
        if not (text.isascii() and text.isdecimal()) or len(text) > 12 or int(text) < least:
            raise UserError(f"{name}={short} must be a whole number from {least} up; for example {name}={least}")
        if most is not None and int(text) > most:
            raise UserError(f"{name}={short} must be at most {most}; for example {name}={least}")
        return int(text)

    def nodes(self) -> int:
        """How many nodes train together. NODE_RANK says that a person starts each of them, whatever the engine gave."""
        asked, own, engine = self.number("NNODES", 1, MOST_NODES), self.number("NODE_RANK", 0), self._engine
        given = self.number(engine.nodes, 1, MOST_NODES) if engine is not NO_ENGINE else None
        nodes = asked or given or 1
        self._one_engine(asked)
        if asked and given and asked > given and own is None:
            raise UserError(
                f"NNODES={asked}, but {engine.title} gave this job {_nodes(given)} ({engine.nodes}={given}), so the "
                f"others would never come; unset NNODES, or ask {engine.title} for {asked} nodes"
            )
        if not (asked or given):
            self._no_count(own)
        self._rank_fits(own, asked, given, nodes)
        if engine is SLURM and asked != 1 and own is None:
            self._one_per_node(given or nodes)
        return nodes

    def _one_engine(self, asked: int | None) -> None:
        """PET_ variables inside a job of SLURM are a person's, who may have forgotten how many nodes there are."""
        slurm = self.number(SLURM.nodes, 1)
        if self._engine is KUBEFLOW and slurm and not asked and self.number(KUBEFLOW.nodes, 1) != slurm:
            raise UserError(
                f"{KUBEFLOW.nodes}={self._env[KUBEFLOW.nodes]} and {SLURM.nodes}={slurm} contradict each other; unset "
                f"{KUBEFLOW.nodes}, or say with NNODES how many nodes there are"
            )

    def _rank_fits(self, own: int | None, asked: int | None, given: int | None, nodes: int) -> None:
        """A rank beyond the last: the other nodes train, or wait, without this one."""
        engine, counted = self._engine, "NNODES" if asked or not given else self._engine.nodes
        name, rank = ("NODE_RANK", own) if own is not None else (engine.rank, self.number(engine.rank, 0))
        alone = own is None and (asked == 1 or not (asked or given))  # what an engine numbers need not train together
        if rank is not None and rank >= nodes and not alone:
            raise UserError(f"{name}={rank} must be below {counted}={nodes}; allowed: 0 to {nodes - 1}")

    def _no_count(self, own: int | None) -> None:
        """Nothing says how many nodes there are: then nothing may speak of others, who would train by themselves."""
        if own is not None:
            raise UserError(
                f"NODE_RANK={own} is for several nodes, and nothing says how many; set NNODES on all of them "
                "(NNODES=1: this node alone)"
            )
        for engine in ENGINES:
            if self.number(engine.rank, 0):
                raise UserError(
                    f"{engine.rank}={self._env[engine.rank]} says that there are other nodes, and {engine.nodes} is "
                    "not set; pass it on to where this runs, or set NNODES (NNODES=1: this node alone)"
                )
        host = self._env.get("MASTER_ADDR", "").strip()
        if host and not re.fullmatch(r"localhost|127\.[\d.]+|\[?::1\]?", host):
            raise UserError(
                f"MASTER_ADDR={_short(host)} is where several nodes meet, and nothing says how many; set NNODES on all "
                "of them (NNODES=1: this node alone)"
            )

    def _one_per_node(self, nodes: int) -> None:
        """SLURM has to start the launcher once on every node, and on no node twice."""
        if not self._env.get("SLURM_STEP_ID"):
            if nodes > 1:
                raise UserError(
                    f"SLURM gave this job {nodes} nodes, but this was not started by srun, so it runs on one of them "
                    "and would wait for the others; use srun --ntasks-per-node=1 ./launch_train.sh ..., or NNODES=1 "
                    "for this node alone, or NODE_RANK where you start every node by hand"
                )
            return
        tasks = self.number("SLURM_STEP_NUM_TASKS", 1)
        if tasks and tasks != nodes:
            raise UserError(
                f"srun started this {tasks} times on {_nodes(nodes)} (SLURM_STEP_NUM_TASKS={tasks}), and each starts "
                "all processes of its node; use srun --ntasks-per-node=1, or NNODES=1 where each is a run of its own"
            )

    def where(self, hostnames: Callable[[str], list[str]] | None = None) -> Where:
        """Where several nodes meet."""
        ports = (self.number(name, 1, LAST_PORT) for name in ("MASTER_PORT", *self._engine.port))
        port = next((port for port in ports if port), NODE_PORT)
        host = self._host(hostnames or slurm_hostnames)
        ranks = [self.number(name, 0) for name in ("NODE_RANK", self._engine.rank)]
        rank = next((rank for rank in ranks if rank is not None), None)
        # a requeued job must not meet itself
        job = "-".join(filter(None, (self._env.get("SLURM_JOB_ID"), self._env.get("SLURM_RESTART_COUNT"))))
        patience = self.number("RDZV_TIMEOUT", 1, 1_000_000) or PATIENCE_S
        is_host = None if rank is None else rank == 0
        return Where(host, port, is_host, self._env.get("RDZV_ID") or job or "mygpt2", patience)

    def _host(self, hostnames: Callable[[str], list[str]]) -> str:
        """The name of node 0: SLURM has it in a list to be expanded, SkyPilot as the first of its lines."""
        asked = self._env.get("MASTER_ADDR", "").strip()
        if asked:
            return _address("MASTER_ADDR", asked)
        name = next((name for name in self._engine.host if self._env.get(name)), "")
        given = self._env.get(name, "")
        found = hostnames(given) if self._engine is SLURM and given else given.split()
        if not found:
            raise UserError(
                "several nodes need MASTER_ADDR, the name of node 0, for all of them; for example MASTER_ADDR=n0"
            )
        nodes = self.number(self._engine.nodes, 1)
        if self._engine is SKYPILOT and len(found) != nodes:
            raise UserError(
                f"SKYPILOT_NODE_IPS names {_nodes(len(found))} and SKYPILOT_NUM_NODES={nodes}; set NNODES and "
                "MASTER_ADDR by hand"
            )
        return _address(name, found[0])


def slurm_hostnames(nodelist: str) -> list[str]:
    """The hosts of a SLURM node list, expanded by scontrol. Raises UserError where that fails."""
    try:
        answer = ask(["scontrol", "show", "hostnames", nodelist], SCONTROL_S)
    except UserError as error:
        raise UserError(f"the node list {_short(nodelist)} cannot be read: {error}; set MASTER_ADDR") from None
    if answer.code:
        raise UserError(f"scontrol cannot expand the node list {_short(nodelist)} ({answer.words}); set MASTER_ADDR")
    return answer.out.split()


def _address(name: str, text: str) -> str:
    """A host's name or address. UserError for what no host is called, and for one with a port."""
    if found := re.fullmatch(r"([^:\s]+):(\d+)", text):
        raise UserError(
            f"{name}={_short(text)} names a port as well; use MASTER_ADDR={found[1]} MASTER_PORT={found[2]}"
        )
    if not re.fullmatch(r"\[?[\w.:%-]+\]?", text, re.ASCII):
        raise UserError(f"{name}={_short(text)} is no host's name or address; for example MASTER_ADDR=n0")
    return text.strip("[]")


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count != 1 else ''}"


def _short(text: str) -> str:
    return text if text.isprintable() and len(text) <= 200 else ascii(text[:200])
