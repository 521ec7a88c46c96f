"""A run's life in one process: what it writes, how it ends, and how it goes on."""

import json
import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest
from safetensors.numpy import load_file

from mygpt2.config import load_config
from mygpt2.data.loader import Loader
from mygpt2.data.trace import read_trace
from mygpt2.errors import TryAgain, UserError
from mygpt2.run_dir import RunWriter
from mygpt2.train import attempt
from mygpt2.train.step import TrainStep
from mygpt2.train.trainer import Trainer
from tests.life import harness

METRIC_KEYS = {
    "schema", "attempt", "step", "tokens", "epoch", "loss", "lr", "grad_norm", "tokens_per_second", "step_ms",
    "data_wait_ms", "mfu", "memory_bytes", "time",
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return harness.corpus(tmp_path_factory.mktemp("corpus") / "parquet")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@contextmanager
def training(source, cache, runs):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more would spin against each other on a busy machine
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)

    def go(name="run", steps=12, resume="auto", plot=False, **changes):
        settings = {
            **harness.SETTINGS, "data.source": str(source), "data.cache_dir": str(cache), "train.steps": steps,
            "schedule.warmup_steps": 2, "eval.interval": 5, "checkpoint.interval": 4,
            **{key.replace("__", "."): value for key, value in changes.items()},
        }  # fmt: skip
        config = load_config("tiny", None, settings)
        with monkeypatch.context() as patch:
            if not plot:
                patch.setattr("mygpt2.plots.draw_loss_plot", lambda run: None)
            return attempt.main(config, name, runs, resume, ["train"])

    go.runs = runs
    with harness.signals():
        yield go
    monkeypatch.undo()


@pytest.fixture
def train(source, cache, tmp_path):
    """train(name, steps=12, resume="auto", **changes) -> exit code; run folders are under train.runs.

    No plot is drawn, which takes longer than the steps, but where `plot` asks for it.
    """
    with training(source, cache, tmp_path / "runs") as go:
        yield go


@pytest.fixture(scope="module")
def calm(source, cache, tmp_path_factory):
    """The folder of an undisturbed run of twelve steps."""
    with training(source, cache, tmp_path_factory.mktemp("calm")) as go:
        assert go() == 0
        return go.runs / "run"


def at_step(monkeypatch, step, act):
    """Calls `act()` right after the metrics of a step are written."""
    written = RunWriter.metrics

    def metrics(self, **values):
        written(self, **values)
        if values["step"] == step:
            act()

    monkeypatch.setattr(RunWriter, "metrics", metrics)


def records(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_run_leaves_every_part_of_its_folder(train):
    assert train(plot=True) == 0
    folder = train.runs / "run"
    rows = records(folder, "metrics.jsonl")
    assert [r["step"] for r in rows] == list(range(1, 13)) and all(set(r) == METRIC_KEYS for r in rows)
    assert [r["tokens"] for r in rows] == [256 * s for s in range(1, 13)]
    assert all(r["mfu"] is None for r in rows)
    evals = [e["step"] for e in records(folder, "events.jsonl") if e["kind"] == "eval"]
    assert evals == [5, 10, 12]
    assert {e["precision"] for e in records(folder, "events.jsonl") if e["kind"] == "eval"} == {"fp32"}
    assert [s["step"] for s in records(folder, "samples.jsonl")] == [12, 12]
    assert json.loads((folder / "exit.json").read_text())["code"] == 0
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    for part in ("config.toml", "command.json", "ranks/0.json", "logs/rank-0.log", "loss_plot.png", "trace"):
        assert (folder / part).exists(), part
    assert sorted(p.name for p in (folder / "checkpoints").glob("step-*")) == ["step-00000008", "step-00000012"]


def test_checkpoint_keys_are_the_plain_modules_and_the_tied_weight_is_there_once(train):
    train(steps=4)
    tensors = load_file(train.runs / "run" / "checkpoints" / "step-00000004" / "model.safetensors")
    assert not [k for k in tensors if k.startswith(("module.", "_orig_mod.")) or "lm_head" in k]
    assert tensors["transformer.wte.weight"].shape[0] == 512
    state = load_file(train.runs / "run" / "checkpoints" / "step-00000004" / "optimizer.safetensors")
    assert len([k for k in state if k.startswith("transformer.wte.weight/exp_avg")]) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_signal_finishes_the_step_saves_and_exits_85_and_the_run_goes_on_as_if_nothing_had_happened(
    train, calm, monkeypatch, number
):
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), number))
        assert train("stopped", steps=12) == 85
    folder = train.runs / "stopped"
    assert (folder / "checkpoints" / "step-00000006" / "MANIFEST.json").exists()
    end = json.loads((folder / "exit.json").read_text())
    assert (end["code"], end["asked"]) == (85, "signal"), "what a scheduler stops it queues again"
    assert json.loads((folder / "status.json").read_text())["state"] == "stopped"
    assert train("stopped", steps=12) == 0
    assert harness.losses(folder) == harness.losses(calm)
    assert harness.weights_hash(folder) == harness.weights_hash(calm)


def test_on_a_gpu_a_step_is_written_down_while_the_next_is_under_way_and_nothing_else_changes(train, calm, monkeypatch):
    late = Trainer.__post_init__

    def begins(self):
        late(self)
        self._notes_late = True

    monkeypatch.setattr(Trainer, "__post_init__", begins)
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train("late", steps=12) == 85
    folder = train.runs / "late"
    assert harness.last_step(folder) == 7, "step 7 was under way; it is written before the end is"
    assert train("late", steps=12) == 0
    assert harness.losses(folder) == harness.losses(calm)
    assert harness.weights_hash(folder) == harness.weights_hash(calm)
    assert sorted(set(read_trace(folder)["step"].to_pylist())) == list(range(1, 13))


def test_sigusr1_and_the_control_files_save_and_sample_without_stopping(train, monkeypatch):
    folder = train.runs / "run"

    def ask():
        os.kill(os.getpid(), signal.SIGUSR1)
        (folder / "control" / "sample").touch()

    at_step(monkeypatch, 6, ask)
    assert train(checkpoint__keep_last=9) == 0
    assert (folder / "checkpoints" / "step-00000006").exists()
    assert [s["step"] for s in records(folder, "samples.jsonl")] == [6, 6, 12, 12]
    assert not list((folder / "control").iterdir())


def test_control_stop_ends_with_85_and_everything_saved(train, monkeypatch):
    folder = train.runs / "run"
    at_step(monkeypatch, 7, lambda: (folder / "control" / "stop").touch())
    assert train() == 85
    assert (folder / "checkpoints" / "step-00000007").exists()
    assert json.loads((folder / "exit.json").read_text())["asked"] == "folder"


def test_under_torchrun_a_stopped_rank_exits_0_lest_it_be_restarted_and_exit_json_says_85(train, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}.items():
        monkeypatch.setenv(name, value)
    folder = train.runs / "run"
    at_step(monkeypatch, 3, lambda: (folder / "control" / "stop").touch())
    assert train() == 0
    assert json.loads((folder / "exit.json").read_text())["code"] == 85


def poison(monkeypatch, step):
    """Makes the loss of one step not a number, as a bad batch or a broken kernel would."""
    accumulate = TrainStep._accumulate
    calls = []

    def bad(self, inputs, targets, valid):
        calls.append(1)
        nll, rows = accumulate(self, inputs, targets, valid)
        return (nll * np.nan if len(calls) == step else nll), rows

    monkeypatch.setattr(TrainStep, "_accumulate", bad)


def test_a_nan_stops_before_the_weights_and_leaves_a_good_checkpoint_and_an_alert(train, monkeypatch, capsys):
    train("calm", steps=6)
    poison(monkeypatch, 7)
    assert train("bad", steps=12) == 70
    folder = train.runs / "bad"
    assert harness.weights_hash(folder) == harness.weights_hash(train.runs / "calm")
    alerts = [e for e in records(folder, "events.jsonl") if e["kind"] == "alert"]
    assert len(alerts) == 1 and "step 6" in alerts[0]["message"]
    assert json.loads((folder / "status.json").read_text())["state"] == "failed"
    assert "Traceback" not in capsys.readouterr().err


def test_a_skipped_step_is_written_down_and_changes_nothing_else(train, monkeypatch):
    poison(monkeypatch, 7)
    assert train(train__nonfinite="skip") == 0
    rows = records(train.runs / "run", "metrics.jsonl")
    assert rows[6]["loss"] is None and all(r["loss"] for r in rows if r["step"] != 7)
    assert [e["step"] for e in records(train.runs / "run", "events.jsonl") if e["kind"] == "skipped"] == [7]


def test_a_source_that_stays_away_saves_and_says_try_again(train, calm, monkeypatch):
    poll = Loader.poll
    given = []

    def failing(self, timeout_s):
        if len(given) == 5:
            raise TryAgain("the hub answers 503 for longer than data.outage_minutes; run the same command again later")
        given.append(1)
        return poll(self, 60)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "poll", failing)
        with pytest.raises(TryAgain):
            train("out")
    assert (train.runs / "out" / "checkpoints" / "step-00000005").exists()
    assert json.loads((train.runs / "out" / "exit.json").read_text())["code"] == 75
    assert train("out") == 0
    assert harness.losses(train.runs / "out") == harness.losses(calm)


def test_a_changed_data_order_is_refused_and_can_be_forked_on_purpose(train):
    train(steps=4)
    with pytest.raises(UserError, match=r"seed.*fork|fork.*seed"):
        train(steps=8, train__seed=99)
    assert train(steps=8, train__seed=99, data__fork=True) == 0
    assert sorted(harness.losses(train.runs / "run")) == list(range(1, 9))


def test_another_model_shape_is_refused_and_the_run_is_as_it_was(train):
    train(steps=4)
    before = harness.weights_hash(train.runs / "run")
    with pytest.raises(UserError):
        train(steps=8, model__n_embd=32)
    assert harness.weights_hash(train.runs / "run") == before


def test_a_damaged_newest_checkpoint_is_passed_over_with_its_reason(train, calm, capsys):
    train("run", steps=8)
    broken = train.runs / "run" / "checkpoints" / "step-00000008" / "model.safetensors"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    assert train("run", steps=12) == 0
    assert "passing over step-00000008" in capsys.readouterr().out
    assert harness.losses(train.runs / "run") == harness.losses(calm)


def test_resume_modes(train):
    with pytest.raises(UserError, match="must"):
        train(resume="must")
    assert not train.runs.exists()
    train(steps=4)
    with pytest.raises(UserError, match="never"):
        train(resume="never")
    assert train(steps=6, resume="must") == 0


def test_validation_does_not_depend_on_its_batch_size(train):
    for batch in (1, 7, 64):
        train(f"b{batch}", steps=3, eval__batch=batch, schedule__warmup_steps=1)
    found = [records(train.runs / f"b{b}", "events.jsonl") for b in (1, 7, 64)]
    values = [next(e["loss"] for e in events if e["kind"] == "eval") for events in found]
    assert max(values) - min(values) < 1e-6


def test_accumulation_changes_neither_batches_nor_losses_beyond_rounding(train):
    train("one", steps=6, train__micro_batch=8, optimizer__name="adamw", model__dropout=0.0)
    train("four", steps=6, train__micro_batch=2, optimizer__name="adamw", model__dropout=0.0)
    one, four = (harness.losses(train.runs / name) for name in ("one", "four"))
    assert max(abs(one[s] - four[s]) for s in one) < 1e-5


def test_profile_leaves_a_trace_of_the_steps_asked_for(train):
    train(steps=5, log__profile="2:3")
    assert (train.runs / "run" / "profile" / "steps-2-3.json").stat().st_size > 1000
    assert "aten::" in (train.runs / "run" / "profile" / "top.txt").read_text()


def test_a_full_disk_keeps_training_and_an_end_without_a_checkpoint_is_not_called_saved(train, monkeypatch, capsys):
    from mygpt2.checkpoint import FileSystem

    full = [True]
    free = FileSystem.free_bytes
    monkeypatch.setattr(FileSystem, "free_bytes", lambda self, path: 1000 if full[0] else free(self, path))
    with pytest.raises(TryAgain, match="free some"):
        train()
    failed = [e for e in records(train.runs / "run", "events.jsonl") if e["kind"] == "save_failed"]
    assert [e["step"] for e in failed] == [4, 8, 12]
    assert "training goes on" in capsys.readouterr().out
    assert json.loads((train.runs / "run" / "exit.json").read_text())["code"] == 75
    full[0] = False
    assert train() == 0
