"""A launch as a task of SkyPilot, which can also run on a cluster of SLURM or Kubernetes. Checked with 0.14."""

from __future__ import annotations

from typing import Any

from mygpt2.launch.manifest import to_yaml
from mygpt2.launch.spec import LaunchSpec

QUEUED_AGAIN = [75, 85]  # something passing was in the way; stopped from outside with everything saved
CRASHES = 3


def render(spec: LaunchSpec) -> str:
    """The task; `sky jobs launch` takes it as it is."""
    resources: dict[str, Any] = {
        "accelerators": f"{spec.gpu_type}:{spec.gpus}" if spec.gpus else None,
        "cpus": f"{spec.cpus}+" if spec.cpus else None,
        "memory": f"{spec.memory}+" if spec.memory else None,
        "image_id": f"docker:{spec.image}" if spec.image else None,
        "job_recovery": {"max_restarts_on_errors": CRASHES, "recover_on_exit_codes": QUEUED_AGAIN},
        **dict(spec.options),
    }
    task: dict[str, Any] = {
        "name": spec.label,
        "num_nodes": spec.nodes,
        "workdir": str(spec.workdir),
        "resources": {key: value for key, value in resources.items() if value is not None},
        "file_mounts": {place: {"source": source, "mode": "MOUNT"} for source, place in spec.volumes},
        "envs": dict(spec.environment),
        "secrets": dict.fromkeys(spec.secrets),  # from the environment of whoever submits
        "setup": "./launch_train.sh --help > /dev/null  # installs what is missing\n",
        "run": f"exec {spec.line}\n",  # in the copy of workdir
    }
    return to_yaml({key: value for key, value in task.items() if value})
