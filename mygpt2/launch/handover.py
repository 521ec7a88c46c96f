"""The clusters that a launch can be handed to: which file each gets, what it cannot be asked, who takes the file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mygpt2.errors import TryAgain, UserError
from mygpt2.files import replace_file, replace_json
from mygpt2.launch import kubeflow, kubernetes, skypilot, slurm
from mygpt2.launch.spec import LaunchSpec

FOLDER = "_launch"  # within the folder of runs: what was handed over, and the logs of SLURM


@dataclass(frozen=True)
class Target:
    """`submit` goes before the file's name; `needs` and `refuses` are names of options, refused ones with a reason."""

    title: str
    render: Callable[[LaunchSpec], str]
    suffix: str
    submit: tuple[str, ...]
    needs: tuple[str, ...] = ()
    refuses: tuple[tuple[str, str], ...] = ()


NO_IMAGE = ("image", "SLURM starts no image by itself; a site's own way can be asked for by --option KEY=VALUE")
NO_VOLUME = ("volume", "nodes of SLURM share their file systems; leave it out")
NO_SECRET = ("secret", "SLURM passes on the variables of whoever submits; leave it out")
NO_TIME = ("time", "SkyPilot has no limit of time; leave it out")
NO_TYPE = ("gpu_type", "a cluster names its GPUs by labels of its nodes: --option LABEL=VALUE")
TARGETS = {
    "slurm": Target("SLURM", slurm.render, ".sbatch", ("sbatch", "--parsable"),
                    refuses=(NO_IMAGE, NO_VOLUME, NO_SECRET)),
    "skypilot": Target("SkyPilot", skypilot.render, ".sky.yaml", ("sky", "jobs", "launch", "--yes", "--detach-run"),
                       refuses=(NO_TIME,)),
    "kubernetes": Target("Kubernetes", kubernetes.render, ".k8s.yaml", ("kubectl", "apply", "-f"), ("image", "volume"),
                         (NO_TYPE,)),
    "kubeflow": Target("Kubeflow Trainer", kubeflow.render, ".trainjob.yaml", ("kubectl", "apply", "-f"),
                       ("image", "volume"), (NO_TYPE,)),
}  # fmt: skip


def check(target: str, given: dict[str, object]) -> None:
    """UserError where an option is missing or does not go with the target; `given` holds those that were given."""
    of = TARGETS[target]
    if missing := [name for name in of.needs if not given.get(name)]:
        raise UserError(f"--to {target} needs {' and '.join(f'--{name}' for name in missing)}; see launch --help")
    for name, why in of.refuses:
        if given.get(name):
            raise UserError(f"--{name.replace('_', '-')} does not go with --to {target}: {why}")
    if target == "skypilot" and given.get("gpus") and not given.get("gpu_type"):
        raise UserError("--to skypilot needs --gpu-type with --gpus, as it chooses machines by it; for example H100")
    if given.get("gpu_type") and not given.get("gpus"):
        raise UserError("--gpu-type needs --gpus, how many of them each node has")


def write(target: str, spec: LaunchSpec, runs: Path) -> Path:
    """Writes the target's file for this run below `runs`, over an older one. UserError where that cannot be."""
    folder = runs / FOLDER
    path = folder / f"{spec.run}{TARGETS[target].suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, TARGETS[target].render(spec).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --runs") from None
    return path


def submit(target: str, path: Path, spec: LaunchSpec) -> str:
    """Hands the file over by the engine's own program and returns what it said. What was submitted is kept beside the
    file, as JSON. UserError where the program is missing, TryAgain with its words where it refuses."""
    argv = [*TARGETS[target].submit, str(path)]
    said = _said(argv, f"{TARGETS[target].title} takes the file by `{argv[0]}`, which is not installed here; run "
                 f"`{' '.join(argv)}` where it is")  # fmt: skip
    job = said.split(";")[0].strip() if target == "slurm" else spec.label
    kept = path.with_suffix(".json")
    try:
        replace_json(kept, {"schema": 1, "target": target, "job": job, "said": said})
    except OSError as error:  # no failure: who runs the same command again would have the job twice
        return f"{said} (the job is handed over, but {kept} cannot be written: {error.strerror or error})"
    return said


def _said(argv: Sequence[str], missing: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise UserError(missing) from None
    except OSError as error:
        raise UserError(f"{argv[0]} cannot be started: {error.strerror or error}") from None
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[:500] or f"it exited {done.returncode}"
        raise TryAgain(f"{argv[0]} refused: {words}; mend that, then run the same command")
    return done.stdout.strip()
