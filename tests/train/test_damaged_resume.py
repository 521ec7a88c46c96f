"""`train` on a damaged run folder goes on, or says in a sentence why not; it never begins anew over checkpoints."""

import json
import shutil
import signal
from contextlib import contextmanager

import pytest

from mygpt2.__main__ import main
from mygpt2.run_dir import RunDir, read_metrics
from tests.life import harness
from tests.run_dir import damage
from tests.train.test_attempt import cache, source, train  # noqa: F401 (fixtures)

STATE = "checkpoints/step-00000003/state.json"
MANIFEST = "checkpoints/step-00000003/MANIFEST.json"
GOES_ON = [
    ("status.json", "link out"), ("status.json", "huge"), ("exit.json", "nested"), ("ranks/0.json", "pid"),
    ("ranks", "full"), ("attempts", "full"), ("control", "full"), ("metrics.jsonl", "junk"), (".lock", "text"),
    ("checkpoints/validation.json", "pipe"), ("config.toml", "missing"),
]  # fmt: skip
REFUSED = [
    ("config.toml", "junk", "config.toml: not TOML"), ("config.toml", "pipe", "is a named pipe, not a file"),
    ("config.toml", "link out", "a link out of the run's folder"), ("config.toml", "100 MB line", "at most"),
    ("config.toml", "folder", "is a folder, not a file"), ("metrics.jsonl", "link out", "a link out of the run's"),
    ("events.jsonl", "pipe", "is a named pipe, not a file"), ("samples.jsonl", "folder", "is a folder, not a file"),
    (".lock", "link out", "a link out of the run's folder"), ("logs", "link out", "a link out of the run's folder"),
    ("ranks", "file", "ranks"), ("attempts", "circle", "attempts"), ("checkpoints", "link out", "a link out of"),
    ("checkpoints", "file", "checkpoints"), (STATE, "junk", "state.json"), (STATE, "pipe", "is not a regular file"),
    (MANIFEST, "text", "MANIFEST.json is not readable"), (MANIFEST, "missing", "MANIFEST.json is missing"),
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(source, cache, tmp_path_factory):  # noqa: F811
    """A run of three steps, made once and copied for each damage."""
    runs = tmp_path_factory.mktemp("trained") / "runs"
    words = [*settings(source, cache), "--train.steps", "3", "--runs", str(runs), "--run", "run"]
    with impatient():
        assert main(["train", "--preset", "tiny", *words]) == 0
    return runs / "run"


def settings(source, cache):  # noqa: F811
    changes = {
        **harness.SETTINGS, "data.source": source, "data.cache_dir": cache, "schedule.warmup_steps": 2,
        "sample.prompts": "[]", "data.validation_fraction": 0.0, "log.trace": "false",
    }  # fmt: skip
    return [word for key, value in changes.items() for word in (f"--{key}", str(value))]


@contextmanager
def impatient():
    """A run that waits for something is ended."""

    def give_up(number, frame):
        raise AssertionError("it waits")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    with harness.signals():
        yield
    signal.alarm(0)


@pytest.fixture
def resume(trained, tmp_path, capfd, monkeypatch):
    """resume(file, damage) -> (exit code, what was said on stderr, the run)."""
    monkeypatch.setattr("mygpt2.plots.draw_loss_plot", lambda run: None)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text("{}")

    def go(name, how):
        run = RunDir(tmp_path / "runs" / "run")
        shutil.copytree(trained, run.path)
        (damage.TO_FOLDERS if (run.path / name).is_dir() else damage.TO_RECORDS)[how](run.path / name, outside)
        with impatient():
            code = main(["train", "--runs", str(run.path.parent), "--run", "run", "--train.steps", "4"])
        assert (outside / "secret.json").read_text() == "{}" and len(list(outside.iterdir())) == 1
        return code, capfd.readouterr().err, run

    return go


@pytest.mark.parametrize("name, how", GOES_ON)
def test_a_damage_that_costs_nothing_is_no_hindrance(resume, name, how):
    code, said, run = resume(name, how)
    assert (code, said) == (0, "")
    assert read_metrics(run)["step"].tolist()[-1] == 4
    ended = json.loads((run.path / "exit.json").read_text())
    assert ended["code"] == 0 and ended["attempt"] >= 2


@pytest.mark.parametrize("name, how, words", REFUSED)
def test_a_damage_that_matters_is_told_in_a_sentence(resume, name, how, words):
    code, said, run = resume(name, how)
    assert code in (2, 75) and said.startswith("error: ") and words in said and "Traceback" not in said
    assert len(said.splitlines()) == 1
    if name != "metrics.jsonl":
        assert read_metrics(run)["step"].tolist() == [1, 2, 3]
