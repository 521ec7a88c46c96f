"""Logs of every origin, read at full resolution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.ripples import read_log

LOSSES = [3.5, 3.4, 3.3, 3.2]
CSV = "step,tokens,train_loss,val_loss\n" + "".join(f"{i},{(i + 1) * 10},{x},\n" for i, x in enumerate(LOSSES))
WANDB = (
    '"Step","run-1 - train/loss","run-1 - train/loss__MIN","run-1 - train/loss__MAX"\n'
    + "".join(f'"{i}","{x}","{x - 1}","{x + 1}"\n' for i, x in enumerate(LOSSES))
)  # fmt: skip
FORMS = {
    "a.csv": CSV,
    "semicolons.csv": CSV.replace(",", ";"),
    "wandb.csv": WANDB,
    "tensorboard.csv": "Wall time,Step,Value\n" + "".join(f"1.5,{i},{x}\n" for i, x in enumerate(LOSSES)),
    "tensorboard.json": json.dumps([[1.5, i, x] for i, x in enumerate(LOSSES)]),
    "history.json": json.dumps({"history": [{"_step": i, "train/loss": x, "note": "a"} for i, x in enumerate(LOSSES)]}),
    "columns.json": json.dumps({"step": [0, 1, 2, 3], "loss": LOSSES}),
    "history.jsonl": "".join(json.dumps({"_step": i, "loss": x}) + "\n" for i, x in enumerate(LOSSES)) + "not json\n",
    "log.txt": "0 val 9.9\n0 hella 0.25\n" + "".join(f"{i} train {x}\n" for i, x in enumerate(LOSSES)),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_every_step(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FORMS[name])
    log = read_log(tmp_path / name)
    assert log.step.tolist() == [0, 1, 2, 3] and log.loss.tolist() == LOSSES
    assert (log.tokens is not None) == ("tokens" in FORMS[name])


def test_validation_between_the_steps_is_kept_apart(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(FORMS["log.txt"])
    log = read_log(tmp_path / "log.txt", batch_tokens=100)
    assert log.validation is not None and log.validation.loss.tolist() == [9.9]
    assert log.tokens is not None and log.tokens.tolist() == [100, 200, 300, 400]
    assert not log.notes


def test_a_mean_of_steps_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("step,train_loss_mean_of_600_steps\n600,3.1\n1200,3.0\n")
    assert read_log(tmp_path / "m.csv").averaged == 600


def test_rows_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("step,loss\n0,3.1\n1,NaN\n2,inf\nthree,3\n4\n5,3.0\n")
    log = read_log(tmp_path / "n.csv")
    assert log.step.tolist() == [0, 5] and "4 of 6 rows" in log.notes[0]


def test_a_million_rows_take_seconds_not_gigabytes(tmp_path: Path) -> None:
    steps = np.arange(100_000)
    np.savetxt(tmp_path / "long.csv", np.c_[steps, 3 + 0 * steps], "%d,%.4f", header="step,loss", comments="")
    assert len(read_log(tmp_path / "long.csv")) == 100_000


WRONG = {
    "absent.csv": (None, "No such file"),
    "empty.csv": ("", "is empty"),
    "words.csv": ("step,loss\na,b\nc,d\n", "its columns: step, loss; name the loss with --column"),
    "other.csv": ("step,accuracy\n0,0.5\n", "its columns: step, accuracy"),
    "bare.csv": ("0,3.1\n1,3.0\n", "no header line"),
    "object.json": ("5", "no header line"),
    "binary.csv": ("a\0b", "is not text"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    content, part = WRONG[name]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        read_log(tmp_path / name)
    assert part in str(error.value) and "\n" not in str(error.value)


def test_a_column_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("step,loss,other\n0,3.1,1\n1,3.0,2\n")
    assert read_log(tmp_path / "c.csv", column="other").loss.tolist() == [1, 2]
    with pytest.raises(UserError, match="no column 'absent'"):
        read_log(tmp_path / "c.csv", column="absent")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        read_log(tmp_path)
