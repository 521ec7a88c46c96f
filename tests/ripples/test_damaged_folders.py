"""Run folders that were damaged: what can be read counts, the rest is said, and nothing else happens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.ripples import analyse, compare_runs, read_log
from tests.ripples.made import run_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("runs") / "run", steps=200)


def config(text: str):
    return lambda run: (run / "config.toml").write_text(text)


def manifest(change):
    def apply(run: Path) -> None:
        path = run / "trace" / "manifest.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return apply


def trace_file(content: bytes | None):
    def apply(run: Path) -> None:
        path = next((run / "trace").glob("*.parquet"))
        path.write_bytes(path.read_bytes()[:2000] if content is None else content)

    return apply


def metrics(line: str):
    def apply(run: Path) -> None:
        with (run / "metrics.jsonl").open("a") as file:
            file.write(line)

    return apply


DAMAGE = {
    "no tables": config("model = 3\ndata = 4\neval = 5\ncheckpoint = 6\nschedule = 7\n"),
    "words for numbers": config(
        '[model]\nblock_size = "x"\n[data]\norder = 7\nlanes = "x"\nwindow = -1\nvalidation_fraction = "x"\n'
        '[schedule]\nwarmup_steps = true\n[eval]\ninterval = "often"\n[checkpoint]\ninterval = 0\n'
    ),
    "huge numbers": config(f"[model]\nblock_size = {10**15}\n[eval]\ninterval = {9**18}\n[data]\nlanes = {9**18}\n"),
    "no toml": config("[[["),
    "deep toml": config("a = " + "[" * 5000),
    "lists for a manifest": manifest(lambda m: [m]),
    "an empty manifest": manifest(lambda m: {}),
    "words in a manifest": manifest(lambda m: {key: "x" for key in m}),
    "fewer blocks than the trace has": manifest(lambda m: {**m, "blocks": {k: v[:1] for k, v in m["blocks"].items()}}
                                                if isinstance(m.get("blocks"), dict) else {**m, "blocks": []}),
    "a trace that is cut": trace_file(None),
    "a trace of noise": trace_file(bytes(range(256)) * 20),
    "an empty trace": trace_file(b""),
    "odd metrics": metrics('{"step": 1e400, "attempt": 1}\n[1]\n{"step": 7, "attempt": 1, "loss": "x"}\nnull\n'),
    "a huge step": metrics('{"step": 1000000000000000000, "attempt": 1, "loss": 3.0, "tokens": 1}\n'),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_folder_is_analysed_as_far_as_it_goes(damage: str, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    DAMAGE[damage](run)
    log = read_log(run)
    report = analyse(log)
    json.dumps(report.to_json(), allow_nan=False)
    assert report.can_say and report.verdict
    json.dumps(compare_runs(log, read_log(whole)), allow_nan=False)
    if damage in ("a trace that is cut", "a trace of noise"):
        assert any("trace cannot be read" in note for note in report.notes)


@pytest.mark.parametrize("content", ["", "null\n", "x" * 5000, '{"step": 1}\n'])
def test_a_run_without_readable_metrics_gets_a_sentence(content: str, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "metrics.jsonl").write_text(content)
    try:
        report = analyse(read_log(run))
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert not report.can_say and "nothing can be said" in report.verdict


def test_the_interval_between_events_stands_in_for_a_configuration_that_is_gone(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "config.toml").write_text("")
    events = [
        {"kind": kind, "step": s, "loss": 3.0}
        for kind, gap in (("eval", 20), ("save", 40))
        for s in range(gap, 201, gap)
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    layout = read_log(run).layout
    assert (layout.eval_interval, layout.save_interval) == (20, 40)
