"""What the chart is told of a mixture: its sources, their losses, what each was promised and has had."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from mygpt2.config import load_config, to_toml
from mygpt2.run_dir import RunDir
from tests.workbench.conftest import make_run
from workbench import columns
from workbench.charts.marks import marks
from workbench.charts.points import points
from workbench.charts.table import points_csv
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.paging import metrics_page

MIX = '[{name = "docs", source = "pydocs", weight = 3.0}, {name = "code", source = "pydocs", weight = 1.0}]'


def mixed(runs: Path, name: str = "mixed", steps: int = 20) -> RunDir:
    run = RunDir(make_run(runs, name, steps))
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    for line in lines:
        line["by_source"] = {"docs": [300.0, 75], "code": [25.0 * line["step"], 25], "<b>": [1.0, 1]}
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.config_file.write_text(to_toml(load_config("tiny", None, {"data.mix": MIX})))
    return run


def context_of(folder: Path) -> Context:
    (folder / "runs").mkdir()
    return Context((folder / "runs").resolve(), (folder.resolve(),), Jobs((folder / "runs").resolve(), ["cpu"]))


def numbers(text: str) -> list[float]:
    return np.frombuffer(base64.b64decode(text), "<f4").tolist()


def ask(context: Context, cursor: object = None, names: tuple[str, ...] = ("loss.docs", "loss.code")) -> dict:
    return points(context, {"wants": [{"run": "mixed", "cursor": cursor}], "columns": ["loss", *names]})[0]


def test_a_mixtures_sources_come_with_its_first_points_and_their_losses_as_columns(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    run = mixed(context.runs)
    reply = ask(context)
    assert reply["sources"] == [{"name": "docs", "promised": 0.75}, {"name": "code", "promised": 0.25}]
    assert numbers(reply["columns"]["loss.docs"]) == [4.0] * 20
    assert numbers(reply["columns"]["loss.code"]) == [float(step) for step in range(1, 21)]
    assert numbers(reply["columns"]["targets.docs"]) == [75.0] * 20, "so that a page leaves out steps taken again"
    assert numbers(reply["columns"]["targets.code"]) == [25.0] * 20
    assert "sources" not in ask(context, reply["cursor"]), "told once for each attempt"
    (first, *_), csv = metrics_page(run, 0, 5)["rows"], points_csv(run).splitlines()
    assert first["by_source"]["code"] == [25.0, 25]
    header = csv[0].split(",")
    assert csv[1].split(",")[header.index("loss.docs")] == "4" and "loss.<b>" not in header


def test_the_columns_of_a_long_run_come_from_the_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(columns, "DIRECT_BYTES", 1000)
    context = context_of(tmp_path)
    mixed(context.runs)
    ask(context)
    monkeypatch.setattr(columns, "_plain", lambda *_: columns.Fresh(columns._joined([]), None))
    again = ask(context)
    assert again["rows"] == 20 and numbers(again["columns"]["loss.code"])[-1] == 20.0
    assert numbers(again["columns"]["targets.docs"]) == [75.0] * 20
    assert list(tmp_path.glob("cache/metrics/*/loss.docs.bin"))


def test_a_run_without_a_mixture_has_no_sources_and_names_that_are_none_no_columns(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    make_run(context.runs, "mixed", 3)
    reply = ask(context, names=("loss.../../x", "loss.<b>", "loss.", "targets.a"))
    assert reply["sources"] == [] and set(reply["columns"]) == {"loss"}


def test_a_validation_has_the_loss_of_each_source() -> None:
    event = {
        "kind": "eval",
        "step": 5,
        "attempt": 1,
        "loss": 3.0,
        "by_source": {
            "docs": {"loss": 2.5, "bits_per_byte": 1.1, "stderr": 0.1},
            "code": {"loss": 4.0},
            "odd": {"loss": "x"},
            "no": 7,
        },
    }
    assert marks([json.dumps(event).encode()])[0]["sources"] == {"docs": [2.5, 1.1], "code": [4.0, None]}
