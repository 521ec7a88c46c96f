"""What the table says of a run: validation and its protocol, duration, parameters, group, settings."""

from __future__ import annotations

import json

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.files import replace_json
from mygpt2.run_dir import RunWriter, state_of
from mygpt2.run_dir.settings import settings_of
from tests.workbench.tabs.monitor.folders import run_folder
from workbench.tabs.monitor import index as module
from workbench.tabs.monitor.facts import duration, group_of, measured, parameters, validation
from workbench.tabs.monitor.index import RunIndex, spread


def evaluation(**more):
    return {"protocol": "run", "loss": 4.0, "bits_per_byte": 2.0, "documents": 74, "bytes": 1000, "window": 64, **more}


def test_validation_is_the_latest_and_the_best_of_those_measured_alike(tmp_path):
    run = run_folder(tmp_path, "a")
    assert validation(run)["val"] is None
    with RunWriter(run, 1) as writer:
        writer.event("eval", step=1, **evaluation(loss=1.5, window=32))
        writer.event("eval", step=2, **evaluation(loss=3.0))
        writer.event("save", step=2, path='"eval"')
        writer.event("eval", step=3, **evaluation(loss=3.5, bits_per_byte=1.75))
        writer.event("eval", step=4, **evaluation(loss=float("nan")))
    found = validation(run)
    assert (found["val"], found["best"], found["bpb"]) == (3.5, 3.0, 1.75)
    assert found["measured"] == "held-out text, 74 documents, 1,000 bytes of text, 64 tokens of context"
    assert measured({"protocol": "fineweb", "bytes": -3, "window": None}) == "fineweb"


def test_duration_adds_up_all_attempts(tmp_path):
    run = run_folder(tmp_path, "a")
    for attempt, begun, ended in ((1, 100.0, 160.0), (2, 1000.0, 1005.0)):
        folder = run.attempt_dir(attempt)
        folder.mkdir(exist_ok=True)
        replace_json(folder / "command.json", {"time": begun})
        replace_json(folder / "exit.json", {"time": ended})
    replace_json(run.status_file, {"state": "running", "attempt": 3, "started": 2000.0})
    replace_json(run.exit_file, {"state": "finished", "attempt": 3, "time": 2010.0})
    assert duration(run, state_of(run)) == 75.0
    replace_json(run.exit_file, {"state": "finished", "attempt": 3, "time": 1990.0})
    assert duration(run, state_of(run)) is None


def test_what_came_after_a_runs_version_it_had_as_by_default(tmp_path):
    old = run_folder(tmp_path, "old", toml='[data]\nsource = "pydocs"\n')
    now = run_folder(tmp_path, "now", toml=to_toml(load_config("tiny")))
    for name in ("data.mix", "data.score_column", "data.language_column", "data.min_score"):
        assert settings_of(old).get(name) == settings_of(now).get(name), "no column of the table for these"
    assert settings_of(old)["data.score_column"] == "score" and "train.parallel" not in settings_of(old)


def weights(run, head, name="model.safetensors"):
    folder = run.checkpoints_dir / "step-00000003"
    folder.mkdir(exist_ok=True)
    data = json.dumps(head).encode()
    (folder / name).write_bytes(len(data).to_bytes(8, "little") + data)


def test_parameters_come_from_the_settings_or_else_from_the_weights(tmp_path):
    tiny = run_folder(tmp_path, "tiny", toml=to_toml(load_config("tiny")))
    assert parameters(tiny, settings_of(tiny)) == 4_273_664
    own = run_folder(tmp_path, "own", toml='[data]\ntokenizer = "/x/tokenizer.json"\n')
    assert parameters(own, settings_of(own)) is None
    weights(own, {"__metadata__": {"a": "b"}, "wte": {"shape": [10, 4]}, "ln": {"shape": [4]}})
    assert parameters(own, settings_of(own)) == 44
    parts = run_folder(tmp_path, "parts", toml='[data]\ntokenizer = "/x/tokenizer.json"\n')
    weights(parts, {"wte": {"shape": [6, 4]}, "ln": {"shape": [4]}}, "model-00001-of-00002.safetensors")
    assert parameters(parts, settings_of(parts)) is None, "the other part is not there"
    parts = run_folder(tmp_path, "all", toml='[data]\ntokenizer = "/x/tokenizer.json"\n')
    weights(parts, {"wte": {"shape": [6, 4]}, "ln": {"shape": [4]}}, "model-00001-of-00002.safetensors")
    weights(parts, {"wte": {"shape": [4, 4]}}, "model-00002-of-00002.safetensors")
    assert parameters(parts, settings_of(parts)) == 44
    broken = run_folder(tmp_path, "broken", toml='[data]\ntokenizer = "/x/tokenizer.json"\n')
    weights(broken, {"wte": {"shape": "<b>"}})
    assert parameters(broken, settings_of(broken)) is None


@pytest.mark.parametrize("name, group", [
    ("rates.low.1", "rates"), ("a.b.c.12", "a.b"), ("study-261130abcd-buffer-1k", "study-261130abcd"), ("tiny", ""),
    ("rates.low.x", ""), ("2026-11-30-tiny-001", ""),
])  # fmt: skip
def test_an_experiment_and_a_study_are_groups_by_name_and_a_persons_word_wins(name, group):
    assert group_of(name, {}) == group and group_of(name, {"group": "mine"}) == "mine"


def test_settings_read_quickly_are_those_that_toml_has(tmp_path, monkeypatch):
    config = load_config("tiny", None, ["--sample.prompts", '["a # b", "c \\" d"]', "--data.source", "/x/ä \\ y"])
    for name, toml in (
        ("quick", to_toml(config)),
        ("other", to_toml(config).replace('name = "muon"', "name = 'muon'")),
    ):
        settings = settings_of(run_folder(tmp_path, name, toml=toml))
        assert settings["data.source"] == "/x/ä \\ y" and settings["sample.prompts"] == ["a # b", 'c " d']
        assert settings["optimizer.eps"] == 1e-08 and settings["model.bias"] is True
        assert settings["optimizer.name"] == "muon" and "data.lanes" not in settings
    assert settings_of(run_folder(tmp_path, "damaged", toml="[data\n= 3")) == {}


def test_settings_are_told_by_what_the_runs_share():
    told = spread({"a": {"x.n": 1, "x.b": True, "x.t": [1, "q"]}, "b": {"x.n": 1, "x.b": 1, "x.t": [1, "q"]}, "c": {}})
    assert told["names"] == ["a", "b", "c"] and told["same"] == {"x.n": 1, "x.t": "1, q"}
    assert told["differ"] == {"x.b": [True, 1, None]}


def test_sizes_are_measured_in_the_time_there_is_and_settings_are_told_once_per_change(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_AGE", 0.0)
    for name in ("a", "b"):
        (run_folder(tmp_path, name).path / "big").write_bytes(b"x" * 5000)
    monkeypatch.setattr(module, "SIZE_SECONDS", -1.0)
    index = RunIndex(tmp_path)
    first = index.changes()
    assert [row["bytes"] for row in first["rows"]] == [None, None] and index.measuring == 2
    monkeypatch.setattr(module, "SIZE_SECONDS", 60.0)
    second = index.changes(first["mark"])
    assert all(row["bytes"] > 5000 for row in second["rows"]) and index.measuring == 0 and len(second["rows"]) == 2
    digest = index.settings()[0]
    assert index.changes(second["mark"])["rows"] == [] and index.settings()[0] == digest
    run_folder(tmp_path, "c", toml="[schedule]\nwarmup_steps = 3\n")
    index.changes()
    assert index.settings()[0] != digest and index.settings()[1]["differ"] == {}
    assert index.settings()[1]["same"] == {"schedule.warmup_steps": 3}
