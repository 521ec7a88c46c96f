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
_RELEVANT = re.compile(
    r"(MYGPT2|HF|CUDA|NCCL|GLOO|OMP|MKL|TORCH|TORCHELASTIC|PYTORCH|MASTER|LOCAL|GROUP|SLURM|WANDB|TRACKIO|TOKENIZERS)_.*"
    r"|RANK|WORLD_SIZE"
)
_SECRET_WORDS = {"TOKEN", "KEY", "APIKEY", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS",
                 "AUTH", "COOKIE"}  # fmt: skip
_PATTERNS = (
    re.compile(r"\b(?:hf|gh[pousr]|github_pat|sk|xox[abpr])[_-][A-Za-z0-9_-]{16,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"(?<=://)[^/\s@]+(?=@)"),  # user:password in an address
    re.compile(r"(?<=[?&])(?:[\w-]*(?:sig|signature|token|key|credential|policy)[\w-]*)=[^&\s]+", re.IGNORECASE),
)


def describe_command(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """argv, the environment variables that matter here, versions, git commit and host; secrets blotted out."""
    environ = os.environ if environ is None else environ
    secrets = [value for name, value in environ.items() if is_secret_name(name) and len(value) >= 6]
    chosen = {name: environ[name] for name in sorted(environ) if _RELEVANT.fullmatch(name)}
    return {
        "argv": redact_argv(argv, secrets),
        "environment": {
            name: BLOT if is_secret_name(name) and value else redact(value, secrets) for name, value in chosen.items()
        },
        "versions": versions(),
        "git": git_commit(Path(__file__).parent),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": sys.executable,
        "folder": os.getcwd(),
    }


def is_secret_name(name: str) -> bool:
    """Whether a variable or option is called like a secret: HF_TOKEN is, TOKENIZERS_PARALLELISM is not."""
    return any(word in _SECRET_WORDS for word in re.split(r"[^A-Z0-9]+", name.upper()))


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
