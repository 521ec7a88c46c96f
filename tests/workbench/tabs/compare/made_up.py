"""Results as `mygpt2 eval` writes them, in a folder of runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from workbench.evaluations.results import Results
from workbench.tabs.compare.groups import sets

SHA = "a" * 64
EVIL = "<img src=x onerror=alert(1)>"
QUOTED = {"quoted": True, "figure": 3.282, "of": "GPT-2 124M", "source": "somewhere"}


def text_result(model: str, loss: float, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1, "model": model, "details": {"kind": "folder", "weights_sha256": f"w-{model}"}, "precision": "fp32",
        "protocol": "edu-seed", "loss": loss, "stderr": 0.01, "perplexity": 2.0, "bits_per_byte": loss / 3,
        "tokens": 1000, "bytes": 4000, "documents": 9, "window": 1024, "token_sha256": SHA,
        "text": {"repo": "r", "file": "f"}, "quoted": [], "yardstick": None, **changes,
    }  # fmt: skip


def items_result(model: str, share: float, n: int = 100, **changes: Any) -> dict[str, Any]:
    part = {"acc": share, "acc_norm": share + 0.02, "acc_stderr": 0.05, "acc_norm_stderr": 0.05, "stderr": 0.05, "n": n}
    found = {"completion": part, "harness": part, "items_sha256": f"items-{n}"}
    details = {"weights_sha256": f"w-{model}"}
    return {"schema": 1, "model": model, "details": details, "precision": "fp32", "hellaswag": found, **changes}


class Place:
    def __init__(self, runs: Path) -> None:
        self.runs, self.results, self._count = runs, Results(runs), 0
        (runs / ".workbench" / "evals").mkdir(parents=True)

    def add(self, record: dict[str, Any], run: str = "") -> Path:
        folder = self.runs / run / "evals" if run else self.runs / ".workbench" / "evals"
        self._count += 1
        path = folder / f"{self._count}.json"
        path.write_text(json.dumps(record))
        os.utime(path, (1000.0 + self._count,) * 2)
        return path

    def sets(self) -> list[Any]:
        return sets(self.results.read())
