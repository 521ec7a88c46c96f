"""A launch as a batch script of SLURM. Checked against SLURM 22.05."""

from __future__ import annotations

import re
import shlex

from mygpt2.errors import UserError
from mygpt2.launch.spec import LaunchSpec
from mygpt2.run_dir.mentions import HANDED

NOTICE_S = 120  # from SLURM's warning to the limit of time: the step is finished and a checkpoint written in it
PASSING, CRASHES = 50, 3  # how often a job is queued again, after something passing and after a crash on several nodes


def render(spec: LaunchSpec) -> str:
    """The script; `sbatch` takes it as it is. UserError for a value that no directive can hold."""
    directives = "\n".join(_directive(key, value) for key, value in _asked(spec))
    cores = f"--cpus-per-task={spec.cpus}" if spec.cpus else "--cpu-bind=none"
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in spec.environment)
    crash = f"    *) again {CRASHES} ;;  # the end of one node is the end of all\n" if spec.nodes > 1 else ""
    return f"""#!/usr/bin/env bash
{directives}
set -u
cd {shlex.quote(str(spec.workdir))} || exit 2  # this node has no such folder
{exports}
# {NOTICE_S} s before the limit of time SLURM signals this shell. The ranks then finish their step, save, and exit 85.
# srun would kill them if it got the signal itself.
trap 'scancel --signal=TERM "$SLURM_JOB_ID"' USR1

srun --ntasks-per-node=1 {cores} {spec.line} &
step=$!
while wait "$step"; code=$?; [ "$code" -gt 128 ] && kill -0 "$step" 2>/dev/null; do :; done

again() {{ # at most this often; the run goes on from its last checkpoint
    [ "${{SLURM_RESTART_COUNT:-0}}" -ge "$1" ] || scontrol requeue "$SLURM_JOB_ID"
}}
case $code in
    0 | 2) ;;  # finished or stopped by a person; or something has to be mended first
    75 | 85) again {PASSING} ;;
{crash}esac
exit "$code"
"""


def _directive(key: str, value: str) -> str:
    """One line for sbatch, which splits it into words at spaces, ends it at a # and takes double quotes away."""
    if re.search(r'["\\\x00-\x1f\x7f]', value):
        raise UserError(
            f"#SBATCH --{key}={value!a} cannot be written on one line; leave out double quotes, backslashes and "
            "control characters"
        )
    plain = re.fullmatch(r"[\w@%+=:,./-]*", value)
    return f"#SBATCH --{key}" + (f"={value if plain else f'{chr(34)}{value}{chr(34)}'}" if value else "")


def _asked(spec: LaunchSpec) -> list[tuple[str, str]]:
    asked = [
        ("job-name", spec.run),
        ("nodes", str(spec.nodes)),
        ("ntasks-per-node", "1"),
        ("requeue", ""),
        ("open-mode", "append"),
        ("output", str(spec.runs / HANDED / spec.run).replace("%", "%%") + "-%j.log"),
    ]
    asked += [("cpus-per-task", str(spec.cpus))] if spec.cpus else [("exclusive", "")]
    if spec.gpus:
        asked.append(("gpus-per-node", f"{spec.gpu_type}:{spec.gpus}" if spec.gpu_type else str(spec.gpus)))
    if spec.memory:
        asked.append(("mem", f"{spec.memory}G"))
    if spec.clock:
        asked += [("time", spec.clock), ("signal", f"B:USR1@{NOTICE_S}")]
    own = dict(spec.options)
    return [(key, value) for key, value in asked if key not in own] + list(own.items())
