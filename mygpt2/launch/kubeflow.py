"""A launch as a TrainJob of Kubeflow Trainer 2. Checked with the models of its API, 2.3."""

from __future__ import annotations

from typing import Any

from mygpt2.launch.kubernetes import GRACE_S, mounted, resources, variables
from mygpt2.launch.manifest import to_yaml
from mygpt2.launch.spec import LaunchSpec

RUNTIME, NODE = "torch-distributed", "node"  # the runtime that Trainer brings, its job and its container


def render(spec: LaunchSpec) -> str:
    """The job; `kubectl apply -f` takes it as it is. The runtime says how often a pod that failed is started again,
    and gives each the PET_ variables, which `launch_train.sh` reads."""
    trainer = {
        "image": spec.image,
        "numNodes": spec.nodes,
        "command": ["bash", "-c", spec.script],
        "env": variables(spec, {}),
        "resourcesPerNode": resources(spec),
    }
    job = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": spec.label, "labels": {"app": spec.label}},
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            **({"activeDeadlineSeconds": spec.seconds} if spec.seconds else {}),
            "trainer": {key: value for key, value in trainer.items() if value},
            "runtimePatches": [{"manager": "mygpt2", "trainingRuntimeSpec": _patch(spec)}],
        },
    }
    return to_yaml(job)


def _patch(spec: LaunchSpec) -> dict[str, Any]:
    """What a TrainJob can say of its pods only as a change of the runtime."""
    mounts = mounted(spec)
    pod = {
        "terminationGracePeriodSeconds": GRACE_S,
        "nodeSelector": dict(spec.options),
        "containers": [{"name": NODE, "volumeMounts": mounts["mounts"]}],
        "volumes": mounts["volumes"],
    }
    pods = {
        "metadata": {"labels": {"app": spec.label}},
        "spec": {key: value for key, value in pod.items() if value},
    }
    return {"template": {"spec": {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": pods}}}]}}}
