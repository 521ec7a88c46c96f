"""The clusters that a run can be handed to from the page: their fields, what is wrong there, and the file they get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig
from mygpt2.errors import UserError
from mygpt2.launch.asked import ROOT, SEVERAL, Asked, Refused, read, spec_of
from mygpt2.launch.handed import TITLES
from mygpt2.launch.handover import TARGETS, is_here, program
from mygpt2.launch.spec import LaunchSpec

HERE = "here"
TARGET = "target"  # the field that says where
PREFIX = "launch."  # of the others, before the name of the option
CHOICES = (("This machine", HERE), *((title, target) for target, title in TITLES.items()))


@dataclass(frozen=True)
class Field:
    """One field of a launch elsewhere. `several`: a value on each line. `folded`: rarely wanted."""

    option: str
    label: str
    info: str
    empty: str = ""  # what stands in it while nothing does
    folded: bool = False

    @property
    def name(self) -> str:
        return PREFIX + self.option

    @property
    def several(self) -> bool:
        return self.option in SEVERAL


FIELDS = (
    Field("nodes", "Nodes", "machines of one kind", "1"),
    Field("gpus", "GPUs per node", "0: processors alone", "0"),
    Field("gpu_type", "Kind of GPU", "as the engine names it", "H100"),
    Field("nproc", "Processes per node", "one per GPU, else 2", "automatic"),
    Field("time", "Limit of time", "12:00:00, 90m, 12h, 2d", "none"),
    Field("partition", "Partition", "of the cluster", "its default"),
    Field("image", "Container image", "which holds this checkout", "registry/mygpt2:1"),
    Field("volume", "Volumes", "WHAT:/path, one a line", "claim:/runs"),
    Field("cpus", "Cores per node", "", "automatic", folded=True),
    Field("memory", "GB per node", "", "automatic", folded=True),
    Field("workdir", "Checkout on the nodes", "its whole path there", str(ROOT), folded=True),
    Field("env", "Variables", "NAME=VALUE, one a line; no secrets", "none", folded=True),
    Field("secret", "Secrets", "names of variables in the engine's own store, one a line", "none", folded=True),
    Field("option", "Options of the engine", "KEY=VALUE, one a line", "account=me", folded=True),
)
FOLD = "fold-launch"
LABELS = {TARGET: "Where", **{each.name: each.label for each in FIELDS}}


@dataclass(frozen=True)
class Elsewhere:
    """What the page asks of a cluster, as it came."""

    target: str = HERE
    texts: Mapping[str, Any] = field(default_factory=dict)  # by option

    @property
    def is_cluster(self) -> bool:
        return self.target in TITLES

    @property
    def title(self) -> str:
        return TITLES.get(self.target, "this machine")


def check(asked: Elsewhere, tell: Callable[..., None]) -> Asked | None:
    """What is asked for; None where something of it is wrong, which is told at its field."""
    hidden = {name for name, _ in TARGETS[asked.target].refuses}  # a value from before, for another engine
    texts: dict[str, str | list[str]] = {}
    for each in FIELDS:
        text = str(asked.texts.get(each.option) or "")
        if each.option not in hidden:
            texts[each.option] = text.splitlines() if each.several else text
    try:
        return read(asked.target, texts)
    except Refused as error:
        for option, line in error.problems:
            tell(f"{LABELS[PREFIX + option]} {line}", PREFIX + option)
    return None


def describe(
    asked: Elsewhere, wanted: Asked, config: RunConfig, preset: str, run: str, runs: Path, tell: Callable[..., None]
) -> tuple[LaunchSpec, str] | None:
    """The launch and the file that the engine gets; None where no file can hold it, which is told."""
    try:
        spec = spec_of(wanted, config, preset, run, runs)
        return spec, TARGETS[asked.target].render(spec)
    except UserError as error:
        keys = (f"#SBATCH --{key}=" for key, _ in wanted.options)
        tell(str(error), *([PREFIX + "option"] if str(error).startswith(tuple(keys)) else []))
        return None


def missing(target: str) -> str:
    """Why the page cannot hand over to this cluster itself, with what can be done; "" where it can."""
    if is_here(target):
        return ""
    return (
        f"there is no {program(target)} where this workbench runs: copy or download the file, and run "
        f"{' '.join(TARGETS[target].submit)} FILE where it is"
    )
