"""What the machine offers: versions, devices, tokenizer tables, and folders that keep what is written to them."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from mygpt2.doctor import FAIL, OK, WARN, Finding, judged
from mygpt2.errors import UserError
from mygpt2.machine import available_cores

SHOWN = ("torch", "numpy", "tokenizers", "tiktoken", "safetensors", "pyarrow", "datasets")
ROOM_NEEDED = 1 << 30  # bytes; two checkpoints of a small model and its caches
ROOM_WANTED = 10 << 30  # bytes; three checkpoints of GPT-2 124M with optimizer state are 4.5 GB
PROBE = 4 << 20  # bytes written and synced


def check_versions() -> Finding:
    """The packages the engine runs on, against what its own metadata asks for where that is installed."""
    found, missing = [f"Python {platform.python_version()}"], []
    for package in SHOWN:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding(FAIL, "versions", f"not installed: {', '.join(missing)}", "pip install -e . in the repository")
    outside = _outside_requirements()
    if outside:
        return Finding(WARN, "versions", f"outside what was tested: {', '.join(outside)}", "pip install -e . again")
    return Finding(OK, "versions", ", ".join(found))


def _outside_requirements() -> list[str]:
    """Installed packages that the project's metadata does not allow; nothing where packaging or metadata is absent."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(line) for line in requires("mygpt2") or []]
    except (ImportError, PackageNotFoundError):
        return []
    outside = []
    for requirement in wanted:
        with contextlib.suppress(PackageNotFoundError):
            have = version(requirement.name)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and not requirement.specifier.contains(have, prereleases=True):
                outside.append(f"{requirement.name} {have} ({requirement.specifier})")
    return outside


def check_devices() -> list[Finding]:
    """Devices there are, the arithmetic training would choose, and memory."""
    import psutil
    import torch

    from mygpt2.device import choose, choose_device

    device = choose_device("auto")
    names = {"mps": "Apple GPU", "cpu": "no GPU"}.get(device.type)
    names = names or ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    precision = choose("auto", device)
    memory = psutil.virtual_memory().available / 1e9
    findings = [
        Finding(OK, "devices", f"{names}; {available_cores()} CPU cores; {precision.name} because {precision.reason}")
    ]
    low = memory < 2.0
    advice = "close other programs or train a smaller model" if low else ""
    return [*findings, Finding(WARN if low else OK, "memory", f"{memory:.1f} GB free", advice)]


def check_tokenizer() -> Finding:
    """GPT-2's tables are there, are the published ones, and give the published ids."""
    from mygpt2.tokenizer import load_tokenizer

    try:
        ids = load_tokenizer("gpt2").encode("Hello world")
    except UserError as error:
        return Finding(FAIL, "tokenizer", str(error))
    advice = "install tiktoken and mygpt2 again"
    return judged("tokenizer", ids == [15496, 995], f'GPT-2\'s tables verified, "Hello world" is {ids}', advice)


def check_folder(name: str, folder: Path, option: str) -> Finding:
    """Whether a file can be written, synced, renamed and removed in a folder that may not exist yet, and its room.

    Nothing is left behind: the probe lives in the folder, or in its nearest existing parent.
    """
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    if not there.is_dir():
        return Finding(FAIL, name, f"{there} is a file", f"choose a folder with {option}")
    probe = there / f".doctor-{secrets.token_hex(6)}"
    try:
        seconds = _write_and_sync(probe)
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(FAIL, name, f"cannot write in {there}: {error.strerror or error}", f"choose another: {option}")
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            probe.with_suffix(".renamed").unlink(missing_ok=True)
    detail = f"{folder}: {free / 1e9:.1f} GB free, {PROBE >> 20} MB written and synced in {seconds * 1000:.0f} ms"
    if free < ROOM_NEEDED:
        return Finding(FAIL, name, detail, f"free {ROOM_NEEDED / 1e9:.0f} GB or choose another: {option}")
    if free < ROOM_WANTED:
        return Finding(WARN, name, detail, "checkpoints of GPT-2 124M take 1.5 GB each")
    if seconds > 2.0:
        return Finding(WARN, name, detail, f"a slow disk makes saving slow; choose a local one: {option}")
    return Finding(OK, name, detail)


def _write_and_sync(probe: Path) -> float:
    """Seconds for what a checkpoint does: write, sync, rename, sync the folder. The content is read back."""
    began, content = time.perf_counter(), secrets.token_bytes(1 << 10) * (PROBE >> 10)
    with open(probe, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    renamed = probe.rename(probe.with_suffix(".renamed"))
    descriptor = os.open(probe.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    seconds = time.perf_counter() - began
    if renamed.read_bytes() != content:
        raise OSError("what was written is not what is read")
    return seconds
