"""Logs of other programs become runs without weights, or a sentence says why not and nothing is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mygpt2.__main__ import main
from mygpt2.errors import UserError
from mygpt2.exchange.load import load_model
from mygpt2.experiments import importing
from mygpt2.experiments.arms import Spec, read_arm
from mygpt2.experiments.importing import import_log
from mygpt2.ripples.compare import compare_runs
from mygpt2.ripples.readers import read_log
from mygpt2.run_dir import RunDir, list_runs, read_events, read_metrics, state_of
from mygpt2.run_dir.ghost import check_weights, ghost_of
from tests.experiments.planted import descent

N = 120
LOSS = np.round(descent(N), 4)


def console(line: str, evaluation: str) -> str:
    rows = []
    for step, loss in enumerate(LOSS):
        if step % 40 == 0:
            rows.append(evaluation.format(step=step, loss=loss + 0.1))
        rows.append(line.format(step=step, loss=loss, tokens=512 * (step + 1)))
    return "\n".join(["loading the data", *rows, "done"]) + "\n"


LOGS = {
    "nanogpt.log": console("iter {step}: loss {loss:.4f}, time 135.5ms, mfu 38.6%",
                           "step {step}: train loss {loss:.4f}, val loss {loss:.4f}"),
    "nanochat.log": console("step {step:05d}/00120 (1.00%) | loss: {loss:.6f} | lrm: 1.00 | dt: 820ms",
                            "Step {step:05d} | Validation loss: {loss:.6f}"),
    "main.log": console("s:{step} trl:{loss:.6f} lr:0.000600 norm:0.5", "s:{step} tel:{loss:.6f}").split("\n", 1)[1],
    "log.txt": "".join(("" if s % 40 else f"{s} val {x + 0.1:.4f}\n") + f"{s} train {x:.4f}\n"
                       for s, x in enumerate(LOSS)),
    "log.jsonl": "".join(json.dumps({"step": s, "loss": x, **({} if s % 40 else {"val_loss": x + 0.1})}) + "\n"
                         for s, x in enumerate(LOSS)),
    "log.csv": "step,tokens,loss,val_loss,lr\n" + "".join(
        f"{s},{512 * (s + 1)},{x},{'' if s % 40 else x + 0.1},6e-4\n" for s, x in enumerate(LOSS)),
}  # fmt: skip


def made(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(LOGS))
def test_each_kind_of_log_becomes_a_run_with_its_losses_and_evaluations(tmp_path, name):
    run, ghost = import_log(made(tmp_path, name, LOGS[name]), tmp_path / "runs", "ghost")
    metrics = read_metrics(run)
    assert metrics["step"].tolist() == list(range(N)) and np.abs(metrics["loss"] - LOSS).max() < 1e-4
    evaluations = read_events(run, ("eval",))
    assert [event["step"] for event in evaluations] == [0, 40, 80]
    assert abs(evaluations[1]["loss"] - LOSS[40] - 0.1) < 2e-4 and evaluations[1]["protocol"] is None
    assert (ghost.log, ghost.steps, ghost.told) == (name, N, "protocol unknown") and ghost_of(run) == ghost
    assert [one.name for one in list_runs(tmp_path / "runs")] == ["ghost"] and state_of(run).state == "finished"
    assert (metrics["tokens"][-1] == 512 * N) == (name == "log.csv")


def test_what_a_person_knows_is_kept_and_tokens_can_be_given(tmp_path):
    log = made(tmp_path, "my log.txt", LOGS["log.txt"])
    run, ghost = import_log(log, tmp_path / "runs", protocol="edu-seed", tokenizer="gpt2", batch_tokens=1000)
    assert run.name == "my-log" and ghost.told == "protocol edu-seed" and ghost.tokenizer == "gpt2"
    assert read_metrics(run)["tokens"][:2].tolist() == [1000, 2000] and len(ghost.sha256) == 64
    assert read_events(run, ("eval",))[0]["protocol"] == "edu-seed"


BAD = {
    "empty": (b"", "is empty"),
    "binary": (bytes(range(256)) * 40, "is not text"),
    "packed": (b"\x1f\x8b" + b"x" * 100, "is packed with gzip"),
    "prose": (b"once upon a time\nthere was no loss\n", "no loss"),
    "not a number": (b"step,loss\n1,nan\n2,nan\n", "no loss"),
    "cut": (b'{"step": 1, "loss": 3}\n{"step": 2, "los', ""),
    "between steps": (b"step,loss\n0.25,4\n0.5,3\n", "no whole numbers"),
    "before zero": (b"step,loss\n-2,4\n-1,3\n", "no whole numbers"),
    "brackets": (b"[" * 100_000, ""),
    "far": (b"step,loss\n1e300,4\n2e300,3\n", "no step with a loss"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_damaged_log_is_one_sentence_and_leaves_nothing(tmp_path, name, capsys):
    content, said = BAD[name]
    (tmp_path / "bad.log").write_bytes(content)
    code = main(["runs", "import", str(tmp_path / "bad.log"), "--name", "g", "--runs", str(tmp_path / "runs")])
    error = capsys.readouterr().err
    if name == "cut":
        assert code == 0 and len(read_metrics(RunDir(tmp_path / "runs" / "g"))) == 1  # the whole line counts
        return
    assert code == 2 and said in error and error.count("\n") == 1 and "Traceback" not in error
    assert list_runs(tmp_path / "runs") == [] and not list(tmp_path.glob("runs/.*"))


def test_a_log_that_is_too_large_is_one_sentence(tmp_path, monkeypatch):
    log = made(tmp_path, "log.csv", LOGS["log.csv"])
    monkeypatch.setattr(importing, "MOST_STEPS", 100)
    with pytest.raises(UserError, match="has 120 steps; at most 100"):
        import_log(log, tmp_path / "runs")
    huge = tmp_path / "huge.log"
    with open(huge, "wb") as file:
        file.truncate(3 << 30)  # a hole
    with pytest.raises(UserError, match="GB are read"):
        import_log(huge, tmp_path / "runs")


def test_names_that_are_taken_or_not_allowed_and_folders_of_runs_are_refused(tmp_path):
    log = made(tmp_path, "log.csv", LOGS["log.csv"])
    run, _ = import_log(log, tmp_path / "runs", "ghost")
    before = sorted(os.listdir(run.path))
    for name, said in (("ghost", "exists"), ("../x", "not allowed")):
        with pytest.raises(UserError, match=said):
            import_log(log, tmp_path / "runs", name)
    with pytest.raises(UserError, match="run folder already"):
        import_log(run.path, tmp_path / "runs", "other")
    with pytest.raises(UserError, match="names the held-out text of a run"):
        import_log(log, tmp_path / "runs", "other", protocol="run")
    with pytest.raises(UserError, match="--protocol"):
        import_log(log, tmp_path / "runs", "other", protocol="x" * 81)
    assert sorted(os.listdir(run.path)) == before and len(list_runs(tmp_path / "runs")) == 1


def test_an_import_that_was_killed_leaves_no_run_and_the_same_command_makes_it(tmp_path, monkeypatch):
    log, runs = made(tmp_path, "log.csv", LOGS["log.csv"]), tmp_path / "runs"

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importing, "_validation", killed)
        with pytest.raises(KeyboardInterrupt):
            import_log(log, runs, "ghost")
    assert os.listdir(runs) == []
    left = runs / ".importing-0"  # as kill -9 leaves it
    left.mkdir()
    os.utime(left, (0, 0))
    import_log(log, runs, "ghost")
    assert os.listdir(runs) == ["ghost"]


def test_what_needs_weights_refuses_a_ghost_with_a_sentence(tmp_path, capsys):
    log, runs = made(tmp_path, "log.csv", LOGS["log.csv"]), tmp_path / "runs"
    run, _ = import_log(log, runs, "ghost")
    said = "is an imported log"
    for refuse in (
        lambda: check_weights(run),
        lambda: load_model("ghost", runs),
        lambda: read_arm(Spec("ghost"), runs),
        lambda: compare_runs(read_log(run.path), read_log(log)),
    ):
        with pytest.raises(UserError, match=said):
            refuse()
    before = sorted(os.listdir(run.path))
    for command in (["train", "--run", "ghost", "--train.steps", "1"], ["sample", "--model", "ghost", "--prompt", "a"]):
        assert main([*command, "--runs", str(runs)]) == 2
        assert said in capsys.readouterr().err
    assert sorted(os.listdir(run.path)) == before


def test_the_terminal_lists_shows_and_verifies_it_as_imported(tmp_path, capsys):
    log, runs = made(tmp_path, "log.csv", LOGS["log.csv"]), tmp_path / "runs"
    assert main(["runs", "import", str(log), "--name", "g", "--runs", str(runs)]) == 0
    assert "120 steps, protocol unknown, without weights" in capsys.readouterr().out
    for action, words in (("list", "imported"), ("show", "without weights and settings"), ("verify", "imported log")):
        assert main(["runs", action, *(["g"] if action == "show" else []), "--runs", str(runs)]) == 0
        assert words in capsys.readouterr().out
    assert main(["runs", "list", "--json", "--runs", str(runs)]) == 0
    assert json.loads(capsys.readouterr().out)[0]["imported"] == "protocol unknown"


def test_a_marker_that_is_damaged_still_marks(tmp_path):
    run, _ = import_log(made(tmp_path, "log.csv", LOGS["log.csv"]), tmp_path / "runs", "g")
    (run.path / "ghost.json").write_text("[")
    ghost = ghost_of(run)
    assert ghost is not None and ghost.told == "protocol unknown" and ghost.steps == 0
