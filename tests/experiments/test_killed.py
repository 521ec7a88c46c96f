"""A real run of an experiment, killed in the middle."""

import json
import os
import signal

import pytest

from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.experiments.pieces import Piece
from mygpt2.experiments.running import run_missing
from tests.life.harness import corpus, settings


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("text") / "corpus")


def test_a_killed_run_goes_on_with_the_same_call_and_a_finished_one_is_not_run_again(source, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    values = settings(source, tmp_path / "cache", train__steps=40, eval__interval=0, checkpoint__interval=5)
    piece = Piece("e.base.1", load_config("tiny", None, {key: str(value) for key, value in values.items()}))
    seen = []

    def kill(title, done, total, unit):
        seen.append(done)
        if done >= 10 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            record = json.loads((tmp_path / "runs" / piece.run / "ranks" / "0.json").read_text())
            os.kill(record["pid"], signal.SIGKILL)

    with pytest.raises(UserError, match=r"'e.base.1' is lost at step \d+.*goes on from there"):
        run_missing([piece], tmp_path / "runs", say=lambda _: None, progress=kill)
    found = run_missing([piece], tmp_path / "runs", say=lambda _: None)
    assert (found[piece.run].state, found[piece.run].step) == ("finished", 40)
    told = []
    run_missing([piece], tmp_path / "runs", say=told.append)
    assert told == [] and (tmp_path / "runs" / piece.run / "attempts" / "2").is_dir()
    assert not (tmp_path / "runs" / piece.run / "attempts" / "3").exists()
