"""`certify`: one changed bit is named, wherever it is; parts trained again come out as they were, and a forgery not."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from mygpt2.__main__ import main
from mygpt2.certify import certificate, recheck
from mygpt2.certify.recheck import Found, Segment
from mygpt2.config import load_config
from mygpt2.data.sources.local.watch import watch_over
from mygpt2.data.sources.resolve import resolve_data
from mygpt2.errors import EXIT_STOPPED, UserError
from mygpt2.run_dir import RunDir
from tests.data.corpus import write_jsonl
from tests.forks import Forked
from tests.life import harness
from tests.train.test_attempt import cache, calm, source  # noqa: F401 (fixtures)


@pytest.fixture
def run(calm: Path, tmp_path: Path) -> RunDir:  # noqa: F811
    """A copy of a run of twelve steps that keeps the checkpoints of the steps 8 and 12."""
    return RunDir(Path(shutil.copytree(calm, tmp_path / "runs" / "run")))


@pytest.fixture(autouse=True)
def children(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started finds this code, and takes one core."""
    monkeypatch.setenv("PYTHONPATH", str(harness.REPO))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def flip(path: Path, at: int) -> None:
    """Changes one bit of a byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_the_whole_way_from_a_certificate_to_parts_trained_again(mygpt2, run: RunDir, monkeypatch) -> None:
    """On as many threads as the run had, whatever the environment says now."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    runs = ("--runs", str(run.path.parent))
    made = mygpt2("certify", "run", *runs)
    assert made.code == 0 and "the checkpoints of steps 8, 12 of run" in made.out, made.err
    known = certificate.read(run.path / certificate.NAME)
    assert certificate.differences(run, known) == []
    assert recheck.segments(run, known) == ([Segment(0, 8), Segment(8, 12)], {})
    before = sorted(path.name for path in run.path.iterdir())
    again = mygpt2("certify", "run", *runs, "--recheck", "5")
    assert again.code == 0, again.err
    assert again.out.splitlines()[-3:] == [
        "steps 1 to 8: equal to the bit", "steps 9 to 12: equal to the bit",
        "run: 2 of 2 parts trained again and found as they were",
    ]  # fmt: skip
    assert sorted(path.name for path in run.path.iterdir()) == before, "nothing is written to the run"


# A trainer that does not listen: says in its folder of runs which process it is.
DEAF = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
aside = pathlib.Path(sys.argv[sys.argv.index("--runs") + 1], "new")
aside.write_text(str(os.getpid()))
aside.rename(aside.with_name("pid"))
signal.pause()
"""


def rechecking(runs: Path, place: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as for a command of its own, also where tests run without a terminal
    recheck._launcher = lambda ranks: [sys.executable, "-c", DEAF]
    sys.exit(main(["certify", "run", "--runs", str(runs), "--recheck", "1", "--seed", "0", "--scratch", str(place)]))


@contextmanager
def in_the_middle(mygpt2, run: RunDir) -> Iterator[tuple[Forked, psutil.Process, Path]]:
    """A recheck, the trainer that it waits for, and the folder that holds its scratch folders."""
    assert mygpt2("certify", "run", "--runs", str(run.path.parent)).code == 0
    place = run.path.parents[1] / "scratch"
    place.mkdir()
    process = Forked(rechecking, run.path.parent, place, out=place.with_name("said"))
    harness.wait_for(lambda: bool(list(place.glob("*/pid"))), process)
    (told,) = place.glob("*/pid")
    trainer = psutil.Process(int(told.read_text()))
    try:
        yield process, trainer, place
    finally:
        process.kill()
        with suppress(psutil.NoSuchProcess):
            trainer.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_takes_the_scratch_folder_away_and_waits_for_no_trainer(mygpt2, run: RunDir, number: int) -> None:
    with in_the_middle(mygpt2, run) as (process, trainer, place):
        process.send_signal(number)
        assert process.wait() == EXIT_STOPPED
        assert process.said(errors_only=True).strip() == "stopped; the same command begins again"
        assert list(place.iterdir()) == [] and not trainer.is_running()


def test_what_a_killed_recheck_left_goes_with_the_next_one(mygpt2, run: RunDir) -> None:
    with in_the_middle(mygpt2, run) as (process, _, place):
        with recheck.scratch_runs(1, place):
            assert len(list(place.iterdir())) == 2, "the other one is at work"
        process.kill()
        process.wait()
        assert len(list(place.iterdir())) == 1
        with recheck.scratch_runs(1, place) as own:
            assert list(place.iterdir()) == [own]


def test_a_loss_that_was_made_up_does_not_come_out_again(mygpt2, run: RunDir) -> None:
    rows = run.metrics_file.read_text().splitlines()
    row = json.loads(rows[9])
    rows[9] = json.dumps({**row, "loss": row["loss"] - 0.5})
    run.metrics_file.write_text("\n".join(rows) + "\n")
    runs = ("--runs", str(run.path.parent))
    known = ("--file", str(run.path.parent / "forged.json"))
    assert mygpt2("certify", "run", *runs, *known).code == 0
    again = mygpt2("certify", "run", *runs, *known, "--recheck", "1", "--seed", "0")
    assert again.code == 2 and "steps 9 to 12 came out otherwise: losses differ by at most 0.5 nats" in again.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.toml", "config.toml is not what was certified"),
        ("data.checksums", "data.checksums is not what was certified"),
        ("blocks.checks", "blocks.checks is not what was certified"),
        ("metrics.jsonl", "metrics.jsonl is not what was certified in its lines 1 to 12, steps 1 to 12"),
        ("events.jsonl", "events.jsonl is not what was certified in its first"),
        ("checkpoints/validation.json", "checkpoints/validation.json is not what was certified"),
        ("trace/manifest.json", "trace/manifest.json is not what was certified"),
        ("checkpoints/step-00000008/model.safetensors", "step 8 is not whole: model.safetensors"),
        ("checkpoints/step-00000012/optimizer.safetensors", "step 12 is not whole: optimizer.safetensors"),
        ("checkpoints/step-00000012/state.json", "step 12 is not whole: state.json"),
        ("checkpoints/step-00000012/MANIFEST.json", "step 12 is not whole: MANIFEST.json"),
    ],
)
def test_one_bit_of_the_run_is_named(run: RunDir, name: str, said: str) -> None:
    known = certificate.make(run)
    path = run.path / name
    flip(path, path.stat().st_size // 2)
    (line,) = certificate.differences(run, known)
    assert said in line


def test_the_trace_and_the_validations_are_certified_and_what_comes_after_them_is_no_change(run: RunDir) -> None:
    known = certificate.make(run)
    with run.events_file.open("a") as events:
        events.write('{"kind": "alert"}\n')
    assert certificate.differences(run, known) == []
    some, *_ = sorted(run.trace_dir.glob("*.parquet"))
    flip(some, some.stat().st_size // 2)
    assert certificate.differences(run, known) == [f"trace/{some.name} is not what was certified"]
    some.unlink()
    assert certificate.differences(run, known) == [f"trace/{some.name} is gone"]
    earlier = {key: value for key, value in known.items() if key != "events"}
    earlier["files"] = {name: digest for name, digest in known["files"].items() if "/" not in name}
    assert certificate.differences(run, earlier) == [], "one that an earlier version made"


def test_lines_of_the_losses_are_told_apart(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LINES", 5)
    known = certificate.make(run)
    lines = run.metrics_file.read_bytes().splitlines(keepends=True)
    run.metrics_file.write_bytes(b"".join([*lines[:6], lines[6].replace(b"loss", b"lost"), *lines[7:], lines[-1]]))
    assert certificate.differences(run, known) == [
        "metrics.jsonl is not what was certified in its lines 6 to 10, steps 6 to 10",
        "metrics.jsonl is not what was certified in its lines 11 to 12, steps 11 to 12",
        "metrics.jsonl has lines after its line 12, where it ended",
    ]


def test_another_checkpoint_and_one_that_is_gone_are_named(run: RunDir) -> None:
    known = certificate.make(run)
    at = run.checkpoints_dir
    other = json.loads(json.dumps(known))
    other["checkpoints"]["12"]["files"]["model.safetensors"] = "0" * 64
    assert certificate.differences(run, other) == [
        "the checkpoint of step 12 is another than the one that was certified"
    ]
    shutil.rmtree(at / "step-00000008")
    assert certificate.differences(run, known) == ["the checkpoint of step 8 is gone"]


def test_one_bit_of_the_text_is_named_and_the_run_is_not_written_to(
    run: RunDir, source: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    config = load_config(None, run.config_file)
    kept = (run.path / "data.checksums").read_bytes()
    assert recheck.other_data(run, config) == []
    file = source / "001.parquet"
    original = file.read_bytes()
    try:
        flip(file, len(original) // 3)
        (line,) = [line for line in recheck.other_data(run, config) if "the data changed" in line]
    finally:
        file.write_bytes(original)
    assert "001.parquet" in line and (run.path / "data.checksums").read_bytes() == kept


def test_one_bit_of_a_mixture_is_named_with_its_source(run: RunDir, tmp_path: Path) -> None:
    folders = [write_jsonl(tmp_path / name, documents=count) for name, count in (("edu", 200), ("code", 210))]
    mix = [{"name": folder.name, "source": str(folder)} for folder in folders]
    config = load_config("tiny", None, {"data": {"mix": mix, "cache_dir": str(tmp_path / "cache")}})
    manifest = resolve_data(config.data, cache_dir=tmp_path / "cache")
    watch_over(manifest, tmp_path / "cache", run.path / "data.checksums", print, resumed=False).close()
    (run.path / "blocks-edu.checks").write_bytes(b"checks")
    known = certificate.make(run)
    names = {"data-edu.checksums", "data-code.checksums", "blocks-edu.checks"}
    assert names <= set(known["files"]) and recheck.other_data(run, config) == []
    file = sorted(folders[1].iterdir())[1]
    flip(file, 3000)
    (line,) = recheck.other_data(run, config)
    assert line.startswith("data.mix, source code: the data changed") and file.name in line
    for name in sorted(names):
        flip(run.path / name, 5)
    assert certificate.differences(run, known) == [f"{name} is not what was certified" for name in sorted(names)]


def test_parts_from_before_a_fork_to_other_text_are_left_out_and_not_accused(
    run: RunDir, source: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    """Their text was changed later, on purpose, or is gone."""
    known = certificate.make(run)
    shutil.copytree(source, tmp_path / "text")
    for step in (8, 12):
        path = run.checkpoints_dir / f"step-{step:08d}" / "state.json"
        state = json.loads(path.read_text())
        state["config"]["data"]["source"] = str(tmp_path / "text")
        path.write_text(json.dumps(state))
    assert recheck.segments(run, known)[0] == [Segment(0, 8), Segment(8, 12)]
    gone = dict.fromkeys((Segment(0, 8), Segment(8, 12)), "the data that they were trained on are gone or others now")
    with (tmp_path / "text" / "more.parquet").open("wb") as file:
        file.write((source / "001.parquet").read_bytes())
    assert recheck.segments(run, known) == ([], gone)
    shutil.rmtree(tmp_path / "text")
    assert recheck.segments(run, known) == ([], gone)


def test_settings_that_were_changed_on_purpose_leave_their_part_out(calm: Path, tmp_path: Path) -> None:  # noqa: F811
    run = RunDir(Path(shutil.copytree(calm, tmp_path / "run")))
    known = certificate.make(run)
    path = run.checkpoints_dir / "step-00000008" / "state.json"
    state = json.loads(path.read_text())
    state["config"]["optimizer"]["lr"] = 0.5
    path.write_text(json.dumps(state))
    assert recheck.segments(run, known) == (
        [Segment(0, 8)],
        {Segment(8, 12): "settings or data were changed within them"},
    )
    for changes, first in (({"train.micro_batch": [4, 2]}, 0), ({"data.mix": [[], [1]]}, 1)):
        with run.events_file.open("a") as events:
            events.write(json.dumps({"kind": "resume", "attempt": 2, "step": 3, "changes": changes}) + "\n")
        assert Segment(0, 8) in recheck.segments(run, known)[first], "a change before the first kept checkpoint"


@pytest.mark.parametrize("same", [True, False])
def test_bits_on_the_same_machine_and_a_tolerance_elsewhere(same: bool) -> None:
    near, far = Found(Segment(0, 8), 0.004, 1e-3, False), Found(Segment(8, 12), float("inf"), 0.1, False)
    equal = Found(Segment(0, 8), 0.0, 0.0, True)
    assert recheck.judged([equal], same, 0.01) == []
    assert len(recheck.judged([near, far], same, 0.01)) == (2 if same else 1)
    unknown = Found(Segment(0, 8), 0.004, 1e-3, False, as_trained=False)
    assert recheck.judged([unknown], same, 0.01) == [], "nobody knows on how many threads it was trained"
    assert len(recheck.judged([unknown], same, 0.001)) == 1
    optimizer = Found(Segment(0, 8), 0.0, 0.0, False)
    assert "but not the optimizer's numbers" in recheck.differs(optimizer)
    known = {"with": {"versions": {"torch": "0"}, "machine": certificate.machine() | {"processor": "another"}}}
    assert [line.split()[0] for line in recheck.same_machine(known)] == ["processor", "torch", "numpy"]


def test_parts_are_chosen_by_a_seed_and_in_their_order() -> None:
    some = [Segment(k, k + 1) for k in range(9)]
    assert recheck.chosen(some, 3, 1) == recheck.chosen(some, 3, 1) != recheck.chosen(some, 3, 2)
    assert recheck.chosen(some, 99) == some
    with pytest.raises(UserError, match="give 1 or more"):
        recheck.chosen(some, 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"checkpoints": 5}, {"checkpoints": {}}, {"checkpoints": {"x": {}}}, {"checkpoints": {"8": {"ranks": "two"}}},
        {"files": [1]}, {"metrics": "x"}, {"metrics": [{}]}, {"events": 7}, {"events": {}}, {"with": 3}, {"with": {}},
    ],
)  # fmt: skip
def test_a_certificate_that_somebody_made_up_is_refused_in_a_sentence(run: RunDir, odd: dict[str, object]) -> None:
    body = {key: value for key, value in certificate.make(run).items() if key != "self"} | odd
    file = run.path / "odd.json"
    file.write_text(json.dumps({**body, "self": certificate._digest(certificate.encode_json(body))}))
    with pytest.raises(UserError, match="no certificate that this program made"):
        certificate.read(file)


def test_a_run_without_its_losses_or_settings_is_not_certified(run: RunDir) -> None:
    run.metrics_file.unlink()
    with pytest.raises(UserError, match=r"has no metrics.jsonl, which a certificate is of; restore it"):
        certificate.make(run)


def test_what_is_no_certificate_is_said(mygpt2, run: RunDir, tmp_path: Path) -> None:
    runs = ("--runs", str(run.path.parent))
    ended = mygpt2("certify", "run", *runs, "--recheck", "1")
    assert ended.code == 2 and "make one: python -m mygpt2 certify RUN" in ended.err
    file = tmp_path / "c.json"
    assert mygpt2("certify", "run", *runs, "--file", str(file)).code == 0
    flip(file, 100)
    ended = mygpt2("certify", "run", *runs, "--file", str(file), "--recheck", "1")
    assert ended.code == 2 and "no certificate" in ended.err and "Traceback" not in ended.err
    flip(run.checkpoints_dir / "step-00000008" / "model.safetensors", 2000)
    ended = mygpt2("certify", "run", *runs)
    assert ended.code == 2 and "step-00000008" in ended.err and not (run.path / certificate.NAME).exists()
    assert mygpt2("certify", "nobody", *runs).code == 2
