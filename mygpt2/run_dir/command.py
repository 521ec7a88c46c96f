"""How a run was started, as a record that can be shown to anybody: no secret is in it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mygpt2 import __version__

BLOT = "***"
PACKAGES = ("torch", "numpy", "tiktoken", "tokenizers", "pyarrow", "safetensors", "pydantic")
# Variables whose values change or explain a run. Nothing is kept of others: no list of what is secret is ever whole.
_KEPT = re.compile(
    r"MYGPT2_(CACHE|RESTART)|HF_(HOME|HUB_CACHE|ENDPOINT|HUB_OFFLINE|DATASETS_OFFLINE|HUB_DISABLE_XET|HUB_DOWNLOAD_TIMEOUT)"
    r"|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|LAUNCH_BLOCKING|MODULE_LOADING|HOME)|CUBLAS_WORKSPACE_CONFIG"
    r"|NVIDIA_TF32_OVERRIDE|NCCL_(DEBUG|DEBUG_SUBSYS|SOCKET_IFNAME|SOCKET_FAMILY|IB_DISABLE|IB_HCA|IB_GID_INDEX|IB_TIMEOUT"
    r"|P2P_DISABLE|P2P_LEVEL|SHM_DISABLE|NET|NET_GDR_LEVEL|CROSS_NIC|ALGO|PROTO|NVLS_ENABLE|CUMEM_ENABLE|BUFFSIZE)"
    r"|(GLOO|TP)_SOCKET_IFNAME|OMP_(NUM_THREADS|PROC_BIND|PLACES)|KMP_(AFFINITY|BLOCKTIME)|MKL_(NUM_THREADS|DYNAMIC)"
    r"|TORCH_(HOME|LOGS|DISTRIBUTED_DEBUG|CPP_LOG_LEVEL)|TORCH_NCCL_(ASYNC_ERROR_HANDLING|BLOCKING_WAIT"
    r"|HEARTBEAT_TIMEOUT_SEC|ENABLE_MONITORING)|TORCHINDUCTOR_(CACHE_DIR|FX_GRAPH_CACHE|COMPILE_THREADS|MAX_AUTOTUNE)"
    r"|TORCHELASTIC_(RUN_ID|RESTART_COUNT|MAX_RESTARTS|USE_AGENT_STORE)|PYTORCH_(ALLOC_CONF|CUDA_ALLOC_CONF"
    r"|ENABLE_MPS_FALLBACK)|(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)"
    r"|SLURM_(JOB_(ID|NAME|PARTITION|NODELIST|NUM_NODES|GPUS)|NNODES|NODEID|NTASKS|NTASKS_PER_NODE|PROCID|LOCALID"
    r"|CPUS_PER_TASK|GPUS|GPUS_ON_NODE|GPUS_PER_NODE|RESTART_COUNT|ARRAY_JOB_ID|ARRAY_TASK_ID|CLUSTER_NAME)"
    r"|WANDB_(MODE|PROJECT|ENTITY|DIR|NAME|RUN_GROUP)|TRACKIO_DIR|TOKENIZERS_PARALLELISM"
)
_TOLD = re.compile(r"(MYGPT2|HF|SLURM|WANDB|TRACKIO)_.*")  # of secrets of these programs it is told that they were set
_SECRET_WORDS = {"AUTH", "BEARER", "COOKIE", "CREDENTIAL", "CREDENTIALS", "CREDS", "DSN", "JWT", "PASS", "PASSPHRASE",
                 "PAT", "SAS"}  # fmt: skip
_SECRET_ENDS = ("TOKEN", "KEY", "SECRET", "SECRETS", "PASSWORD", "PASSWD")  # APIKEY, AUTHTOKEN
_PATTERNS = (
    re.compile(r"\b(?:hf|gh[pousr]|github_pat|glpat|sk|xox[abpr])[_-][A-Za-z0-9_-]{16,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),  # a JSON web token
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),  # user:password in an address
    re.compile(r"(?<=[?&])(?:[\w-]*(?:sig|signature|token|key|credential|policy)[\w-]*)=[^&\s]+", re.IGNORECASE),
)


def describe_command(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """argv, the environment variables that matter here, versions, git commit and host; secrets blotted out."""
    environ = os.environ if environ is None else environ
    secrets = [value for name, value in environ.items() if is_secret_name(name) and len(value) >= 6]
    told = {name: BLOT for name in environ if is_secret_name(name) and _TOLD.fullmatch(name) and environ[name]}
    kept = {name: redact(value, secrets) for name, value in environ.items() if _KEPT.fullmatch(name)}
    return {
        "argv": redact_argv(argv, secrets),
        "environment": dict(sorted({**kept, **told}.items())),
        "versions": versions(),
        "git": git_commit(Path(__file__).parent),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": sys.executable,
        "folder": os.getcwd(),
    }


def is_secret_name(name: str) -> bool:
    """Whether a variable or option is called like a secret: HF_TOKEN is, TOKENIZERS_PARALLELISM is not.

    A setting (--data.token_cache) never is: the configuration holds no secret.
    """
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return "." not in name and any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDS) for word in words)


def redact(text: str, secrets: Sequence[str] = ()) -> str:
    """The text without known secrets and without anything that looks like one."""
    for secret in secrets:
        text = text.replace(secret, BLOT)
    for pattern in _PATTERNS:
        text = pattern.sub(BLOT, text)
    return text


def redact_argv(argv: Sequence[str], secrets: Sequence[str] = ()) -> list[str]:
    """Arguments with the value of secret options blotted out, in both spellings (--option value, --option=value)."""
    out: list[str] = []
    hide_next = False
    for argument in argv:
        name, equals, _ = argument.partition("=")
        secret = argument.startswith("-") and is_secret_name(name)
        if hide_next and not argument.startswith("--"):
            out.append(BLOT)
        elif secret and equals:
            out.append(f"{name}={BLOT}")
        else:
            out.append(redact(argument, secrets))
        hide_next = secret and not equals
    return out


def versions() -> dict[str, str]:
    """Versions of Python, this package and what results depend on, without importing any of them."""
    found = {"python": platform.python_version(), "mygpt2": __version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> dict[str, Any] | None:
    """{"commit", "changed"} of the checkout that holds `folder`; None if there is none or no git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.strip()
