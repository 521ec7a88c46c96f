"""A launch as an Indexed Job of Kubernetes, with the headless service by which its pods find each other."""

from __future__ import annotations

from typing import Any

from mygpt2.launch.manifest import to_yaml
from mygpt2.launch.spec import NODE_PORT, LaunchSpec

CRASHES = 3  # of the run: when one pod ends, all do
GRACE_S = 120  # from the signal to the kill: the step is finished and a checkpoint written in it
GPU = "nvidia.com/gpu"


def render(spec: LaunchSpec) -> str:
    """The service and the job; `kubectl apply -f` takes them as they are."""
    name, labels = spec.label, {"app": spec.label}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        # A pod's name must lead to it before the pod is ready, as the pods wait for each other.
        "spec": {"clusterIP": "None", "selector": labels, "publishNotReadyAddresses": True},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},  # by which it is asked for and taken back, with its pods
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.nodes,
            "parallelism": spec.nodes,
            "backoffLimit": CRASHES * spec.nodes,
            **({"activeDeadlineSeconds": spec.seconds} if spec.seconds else {}),
            "podFailurePolicy": {"rules": _rules()},
            "template": {"metadata": {"labels": labels}, "spec": _pod(spec)},
        },
    }
    return to_yaml(service, job) if spec.nodes > 1 else to_yaml(job)


def _rules() -> list[dict[str, Any]]:
    """What ends a pod without counting as its failure, and what no second try would mend."""
    name = {"containerName": "train", "operator": "In"}
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {**name, "values": [75, 85]}},
        {"action": "FailJob", "onExitCodes": {**name, "values": [2]}},
    ]


def _pod(spec: LaunchSpec) -> dict[str, Any]:
    mounts = mounted(spec)
    container = {
        "name": "train",
        "image": spec.image,
        "command": ["bash", "-c", spec.script],
        "env": variables(spec, _meeting(spec)),
        "resources": resources(spec),
        "volumeMounts": mounts["mounts"],
    }
    pod: dict[str, Any] = {
        "subdomain": spec.label if spec.nodes > 1 else None,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "nodeSelector": dict(spec.options),
        "containers": [{key: value for key, value in container.items() if value}],
        "volumes": mounts["volumes"],
    }
    return {key: value for key, value in pod.items() if value}


def _meeting(spec: LaunchSpec) -> dict[str, str]:
    if spec.nodes == 1:
        return {}
    first = f"{spec.label}-0.{spec.label}"
    return {"NNODES": str(spec.nodes), "MASTER_ADDR": first, "MASTER_PORT": str(NODE_PORT)}


def variables(spec: LaunchSpec, own: dict[str, str]) -> list[dict[str, Any]]:
    """The variables of a container: `own`, what was asked for, and secrets from the Secret of the job's name."""
    plain = [{"name": name, "value": value} for name, value in {**own, **dict(spec.environment)}.items()]
    kept = [{"name": n, "valueFrom": {"secretKeyRef": {"name": spec.label, "key": n}}} for n in spec.secrets]
    return plain + kept


def resources(spec: LaunchSpec) -> dict[str, Any]:
    """What a node must have free, for requests; memory and GPUs are limits as well."""
    cores = {"cpu": str(spec.cpus)} if spec.cpus else {}
    hard = {"memory": f"{spec.memory}G"} if spec.memory else {}
    hard |= {GPU: str(spec.gpus)} if spec.gpus else {}
    found = {"requests": cores | hard, "limits": hard}
    return {key: value for key, value in found.items() if value}


def mounted(spec: LaunchSpec) -> dict[str, list[dict[str, Any]]]:
    """The claims of volumes and where the container has them; and memory that ranks share."""
    named = [(f"volume-{i}", claim, place) for i, (claim, place) in enumerate(spec.volumes)]
    volumes: list[dict[str, Any]] = [
        {"name": n, "persistentVolumeClaim": {"claimName": claim}} for n, claim, _ in named
    ]
    shared = {"name": "shm", "emptyDir": {"medium": "Memory"}}  # NCCL's; a container has 64 MB of it otherwise
    mounts = [{"name": n, "mountPath": place} for n, _, place in named]
    return {"volumes": [*volumes, shared], "mounts": [*mounts, {"name": "shm", "mountPath": "/dev/shm"}]}
