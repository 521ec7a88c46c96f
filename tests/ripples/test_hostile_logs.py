"""Logs that were damaged or made up to harm: a sentence or right work, never an exception of another kind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.ripples import analyse, read_log, textfile
from mygpt2.ripples.events import PREFIX

GOOD = "step,loss\n" + "".join(f"{i},{4 - i / 1000 + (i * 7919 % 13) / 100:.4f}\n" for i in range(300))
RECORDS = "".join(json.dumps({"step": i, "loss": 4 - i / 1000 + (i * 7919 % 13) / 100}) + "\n" for i in range(300))

HOSTILE: dict[str, bytes] = {
    "brackets.json": b"[" * 200_000,
    "brackets.jsonl": RECORDS.encode() + b'{"a":' * 100_000,
    "huge numbers.json": b"[" + b",".join(b'{"step": %d, "loss": 1%s}' % (i, b"0" * 400) for i in range(100)) + b"]",
    "digits.jsonl": b'{"step": 1' + b"0" * 6000 + b', "loss": 3}\n' + RECORDS.encode(),
    "huge losses.csv": b"step,loss\n" + b"".join(b"%d,%de300\n" % (i, i * 7919 % 13) for i in range(300)),
    "huge steps.csv": b"step,loss\n" + b"".join(b"%de30%d,%d\n" % (i, i % 8, i * 7919 % 13) for i in range(300)),
    "negative steps.csv": b"step,loss\n" + b"".join(b"-%d,%d.5\n" % (i * i, i * 7919 % 13) for i in range(300)),
    "one far step.csv": GOOD.encode() + b"1e15,3.0\n",
    "steps close together.csv": b"step,loss\n" + b"".join(b"1.%09d,%d\n" % (i, i * 7919 % 13) for i in range(300)),
    "many columns.csv": b",".join(b"c%d" % i for i in range(20_000)) + b"\n" + GOOD.encode(),
    "many names.jsonl": b"".join(b'{"step": %d, "name%d": 1}\n' % (i, i) for i in range(20_000)),
    "a quote.csv": b'step,loss\n"' + GOOD.encode(),
    "a long cell.csv": b"step,loss\n1," + b"x" * 1_000_000 + b"\n" + GOOD.encode(),
    "a long line.log": b"step 1 loss " + b"1" * 1_000_000 + b"\nstep 2 loss 3\nstep 3 loss 3\n",
    "repeated words.log": b"step " * 200_000 + b"\n" + b"loss " * 200_000 + b"\n",
    "dicts.log": b"{'loss': " + b"(" * 4000 + b"}\n" + b"{'loss': 1, 'a': {'b': 2}}\n" * 3,
    "not text.csv": bytes(range(256)) * 40,
    "half utf-16.csv": GOOD.encode("utf-16")[:-1],
    "broken utf-8.csv": b"step,loss\xff\xfe\n" + GOOD.encode(),
    "packed.csv": b"\x1f\x8b\x08\x00" + b"\0" * 100,
    "a sheet.csv": b"PK\x03\x04" + b"\0" * 100,
    "only blank lines.csv": b"\n \n\t\n" * 100,
    "other kinds.json": json.dumps({"a": [1, {"b": 2}], "loss": "x", "step": [[1], [2]]}).encode(),
    "a record of lists.jsonl": b'{"step": [1], "loss": {"x": 1}}\n' * 50,
    "null.json": b"null",
    "a word.json": b'"loss"',
    "tokens that jump.csv": b"step,tokens,loss\n"
    + b"".join(b"%d,%d,%d\n" % (i, 2**62 + i * 7919, i * 7919 % 13) for i in range(300)),
    f"{PREFIX}.1": b"\xff" * 1000,
}  # fmt: skip


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_log_is_read_or_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    try:
        report = analyse(read_log(tmp_path / name))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    json.dumps(report.to_json(), allow_nan=False)
    assert report.verdict and not report.significant


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)]
)
@pytest.mark.parametrize("name", ["log.csv", f"{PREFIX}.1"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(make, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    with pytest.raises(UserError, match=r"not a plain file|cannot be read"):
        read_log(tmp_path / name)


def test_a_file_too_large_to_hold_is_refused_by_its_size(tmp_path: Path) -> None:
    for name in ("log.csv", f"{PREFIX}.1"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(textfile.MOST_BYTES + 1)
        with pytest.raises(UserError, match="at most"):
            read_log(tmp_path / name)


def test_a_csv_of_a_run_that_diverged_keeps_its_finite_steps(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD + "300,nan\n301,inf\n302,-inf\n")
    log = read_log(tmp_path / "a.csv")
    assert len(log) == 300 and np.isfinite(log.loss).all() and "3 of 303 rows" in log.notes[0]


@pytest.mark.parametrize("line", ["step {step} loss {loss}\n", '{{"step": {step}, "loss": {loss}}}\n'])
def test_steps_that_no_float_tells_apart_are_left_out_with_a_sentence(line: str, tmp_path: Path) -> None:
    path = tmp_path / "far.log"
    path.write_text("".join(line.format(step=10**30 * (i % 2) + i, loss=3 + (i * 7919 % 13) / 100) for i in range(300)))
    log = read_log(path)
    assert log.step.tolist() == list(range(0, 300, 2))
    assert log.notes == ("150 of 300 rows have a step beyond 9.01e+15 and are left out",)
