"""Going on with a run: what may have changed, what is told of it, and that checkpoints are never taken for absent."""

import errno
import hashlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from mygpt2.checkpoint import BrokenCheckpoint, UnreadableCheckpoint, load_newest
from mygpt2.checkpoint import format as checkpoint_format
from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.launch.request import resolve
from mygpt2.run_dir import RunDir, read_events, read_metrics
from mygpt2.train import resuming
from tests.life import harness
from tests.train.test_attempt import cache, source, train  # noqa: F401 (fixtures)


@pytest.fixture
def quick(train, monkeypatch):  # noqa: F811
    """`train` without what these tests do not look at."""
    monkeypatch.setattr("mygpt2.plots.draw_loss_plot", lambda run: None)

    def go(name="run", **changes):
        return train(name, **{"sample__prompts": [], "data__validation_fraction": 0.0, "log__trace": False, **changes})

    go.runs = train.runs
    return go


def events(folder, kind):
    return read_events(RunDir(folder), [kind])


@pytest.mark.parametrize("setting, value", [("model.n_head", 4), ("model.bias", False)])
def test_another_model_is_refused_by_the_name_of_the_setting(quick, setting, value):
    assert quick(steps=3) == 0
    with pytest.raises(UserError, match=f"--{setting} {str(value).lower()}: run 'run' has {setting} = .*--run NAME"):
        quick(steps=4, **{setting.replace(".", "__"): value})
    assert quick(steps=4) == 0


def test_an_end_that_is_past_is_refused_with_the_step_the_run_is_at(quick, capsys):
    assert quick(steps=6) == 0
    with pytest.raises(UserError, match=r"--train.steps 4: run 'run' is at step 6 already; give more than 6"):
        quick(steps=4)
    assert "finished: 4" not in capsys.readouterr().out
    assert quick(steps=6) == 0, "at its end it is finished, as before"


@pytest.mark.parametrize("name, jump", [("cosine", True), ("wsd", True), ("constant", False)])
def test_extending_a_run_tells_the_jump_of_the_rate_and_how_to_do_without(quick, capsys, name, jump):
    options = {
        "schedule__name": name,
        "optimizer__name": "adamw",
        "optimizer__lr": 0.01,
        "schedule__min_lr_ratio": 0.05,
    }
    assert quick(steps=8, **options) == 0
    capsys.readouterr()
    assert quick(steps=16, **options) == 0
    said, folder = capsys.readouterr().out, quick.runs / "run"
    lr = read_metrics(RunDir(folder))["lr"]
    (resume,) = events(folder, "resume")
    assert resume["step"] == 8 and resume["changes"] == {"train.steps": [8, 16]}
    assert "changed: train.steps was 8 and is 16" in said
    told = f"because of train.steps: lr was {lr[7]:.3g} in step 8 and will be {lr[8]:.3g} in the next one"
    assert (told in said) == jump
    assert ("--schedule.name constant --schedule.warmup_steps 0 --optimizer.lr 0.0005 instead" in said) == jump
    assert ("from before its decay" in said) == (name == "wsd")
    assert (told in resume.get("message", "")) == jump


def test_the_advice_keeps_the_rate(quick):
    options = {"schedule__name": "cosine", "schedule__min_lr_ratio": 0.05}
    assert quick(steps=6, **options) == 0
    peaks = load_config("tiny", None, harness.SETTINGS).optimizer
    constant = {"schedule__name": "constant", "schedule__warmup_steps": 0}
    assert quick(steps=9, **constant, optimizer__muon_lr=0.05 * peaks.muon_lr, optimizer__lr=0.05 * peaks.lr) == 0
    lr = read_metrics(RunDir(quick.runs / "run"))["lr"]
    np.testing.assert_allclose(lr[6:], lr[5])


def test_config_toml_says_that_it_no_longer_repeats_the_run_and_still_reads(quick):
    assert quick(steps=3, optimizer__beta2=0.95) == 0
    folder = quick.runs / "run"
    first = (folder / "config.toml").read_text()
    assert "# changed" not in first
    assert quick(steps=5, optimizer__beta2=0.9) == 0
    assert quick(steps=5, optimizer__beta2=0.9) == 0  # finished: nothing is written
    assert quick(steps=6, optimizer__beta2=0.9) == 0
    text = (folder / "config.toml").read_text()
    assert text.splitlines()[:3] == [
        "# changed after step 3 (attempts/2/config.toml): optimizer.beta2 was 0.95 and is 0.9",
        "# changed after step 3 (attempts/2/config.toml): train.steps was 3 and is 5",
        "# changed after step 5 (attempts/3/config.toml): train.steps was 5 and is 6",
    ]
    assert load_config(None, folder / "config.toml").train.steps == 6
    assert (folder / "attempts" / "1" / "config.toml").read_text() == first


def test_tokens_are_those_trained_on_after_the_batch_changed(quick):
    assert quick(steps=3) == 0
    assert quick(steps=5, train__batch_tokens=512, data__fork=True) == 0
    folder = quick.runs / "run"
    expected = [256, 512, 768, 768 + 512, 768 + 1024]
    assert read_metrics(RunDir(folder))["tokens"].tolist() == expected
    assert json.loads((folder / "status.json").read_text())["tokens"] == expected[-1]
    assert json.loads((folder / "checkpoints" / "step-00000005" / "state.json").read_text())["tokens"] == expected[-1]
    assert quick(steps=6, train__batch_tokens=512) == 0
    assert read_metrics(RunDir(folder))["tokens"].tolist() == [*expected, expected[-1] + 512]


def test_a_fork_is_allowed_once_by_the_command_that_asks_for_it(quick):
    assert quick(steps=3) == 0
    assert quick(steps=4, train__seed=5, data__fork=True) == 0
    assert "fork = false" in (quick.runs / "run" / "config.toml").read_text()
    with pytest.raises(UserError, match="cannot go on"):
        quick(steps=6, train__seed=6)


def test_a_config_toml_of_an_earlier_version_that_kept_a_fork_does_not_fork(tmp_path):
    run = RunDir.create(tmp_path, "old")
    run.config_file.write_text(to_toml(load_config("tiny", None, {"data.fork": True})))
    args = SimpleNamespace(run="old", runs=tmp_path, preset=None, config=None, resume="auto", settings=[], until=None)
    assert not resolve(args).config.data.fork
    args.settings = ["--data.fork", "true"]
    assert resolve(args).config.data.fork


def unreadable(monkeypatch, number, which=""):
    """Opening a file of a checkpoint fails, as with a sick disk, permissions, or no descriptor left."""
    real = open

    def sick(path, *arguments, **named):
        if isinstance(path, os.PathLike) and str(path).endswith(".safetensors") and which in str(path):
            raise OSError(number, os.strerror(number), str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(checkpoint_format, "open", sick, raising=False)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_checkpoints_that_cannot_be_read_now_end_with_75_and_nothing_is_trained(quick, monkeypatch, number):
    assert quick(steps=4) == 0
    folder = quick.runs / "run"
    with monkeypatch.context() as patch:
        unreadable(patch, number)
        with pytest.raises(UnreadableCheckpoint, match=f"none can be read just now .*{os.strerror(number)}") as told:
            quick(steps=8)
    assert told.value.exit_code == 75
    assert read_metrics(RunDir(folder))["step"].tolist() == [1, 2, 3, 4]
    assert quick(steps=8) == 0
    assert read_metrics(RunDir(folder))["attempt"].tolist() == [1] * 4 + [3] * 4


def test_where_one_can_be_read_the_run_goes_on_from_it(quick, monkeypatch, capsys):
    assert quick(steps=6) == 0
    with monkeypatch.context() as patch:
        unreadable(patch, errno.EIO, "step-00000006")
        assert quick(steps=8) == 0
    assert "passing over step-00000006: model.safetensors cannot be read" in capsys.readouterr().out


def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_anew(quick):
    assert quick(steps=6) == 0
    for path in (quick.runs / "run" / "checkpoints").glob("step-*/state.json"):
        path.write_bytes(b"{}")
    with pytest.raises(
        BrokenCheckpoint, match=r"none of the 2 checkpoints in .* is whole .*restore one, or train anew"
    ):
        quick(steps=8)
    assert read_metrics(RunDir(quick.runs / "run"))["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_folder_of_checkpoints_that_leads_out_of_the_run_is_the_users_error(quick, tmp_path):
    assert quick(steps=3) == 0
    checkpoints = quick.runs / "run" / "checkpoints"
    checkpoints.rename(tmp_path / "elsewhere")
    checkpoints.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="checkpoints is a link out of the run's folder"):
        quick(steps=4)


def test_a_resume_verifies_every_byte_once(quick, monkeypatch):
    assert quick(steps=4) == 0
    hashed = []
    digest = hashlib.file_digest

    def counting(file, name):
        hashed.append(os.path.basename(file.name))
        return digest(file, name)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_format.hashlib, "file_digest", counting)
        patch.setattr(resuming, "_notices", lambda *_: (hashed.append("-"), iter(()))[1])  # all before is the resume
        assert quick(steps=5) == 0
    assert sorted(hashed[: hashed.index("-")]) == ["model.safetensors", "optimizer.safetensors", "state.json"]


@pytest.mark.parametrize("damage", [{}, {"data": {"cursor": [[1e99]], "quarantine": []}}])
def test_a_checkpoint_whose_state_is_none_is_the_users_error(quick, damage):
    """Whole by its checksums, as one that another program has written may be."""
    assert quick(steps=3) == 0
    checkpoints = quick.runs / "run" / "checkpoints"
    found, _ = load_newest(checkpoints)
    state = {**found.state, **damage} if damage else {}
    checkpoint_format.write(checkpoints, 3, found.model, found.optimizer, state)
    with pytest.raises(BrokenCheckpoint, match=r"step-00000003: state.json .*restore it, or train under another"):
        quick(steps=4)
