"""Compiled kernels of one instruction set are never run under another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mygpt2.model.compiled import FOLDER, compiled

ROOT = Path(__file__).parents[2]
KERNEL = """
import torch
from mygpt2.model.loss import _compiled_kernel
torch.manual_seed(0)
logits = torch.randn(64, 128)
print([round(float(x), 4) for x in _compiled_kernel(logits, torch.arange(64), 97, True)])
"""


def test_a_kernel_made_for_other_vectors_is_not_taken(tmp_path: Path) -> None:
    """With one folder for both, the second process printed other numbers, or ended by a corrupted heap."""
    said = []
    for capability in ("avx2", "default"):
        environment = {**os.environ, FOLDER: str(tmp_path), "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(ROOT)}
        if capability == "default":
            del environment["ATEN_CPU_CAPABILITY"]
        done = subprocess.run([sys.executable, "-c", KERNEL], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]


def test_the_folder_is_told_apart_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    compiled(torch.exp)
    first = os.environ[FOLDER]
    compiled(torch.exp)
    assert os.environ[FOLDER] == first and Path(first).parent == tmp_path
