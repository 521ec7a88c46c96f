"""A sweep from its file to its result, on models that train in a second: who stops, what it cost, and kills."""

import json
import shutil

import numpy as np
import pytest

from mygpt2.__main__ import main
from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.experiments import scores as scoring
from mygpt2.experiments import sweep as sweeping
from mygpt2.experiments.folder import ExperimentDir
from mygpt2.experiments.grid import read_plan
from mygpt2.experiments.pieces import outcome
from mygpt2.experiments.spending import planned
from mygpt2.experiments.stopped import Stopped, stopped_by
from mygpt2.experiments.sweep import compared, sweep
from mygpt2.experiments.swept import asked_text, result_text
from mygpt2.run_dir import RunDir, state_of
from mygpt2.run_dir.family import origin_of
from mygpt2.train.trainer import Trainer
from tests.experiments.test_grid import scored
from tests.life import harness

SETTINGS = {
    "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 32, "model.block_size": 32, "data.tokenizer": "gpt2:300",
    "data.lanes": 4, "data.window": 2, "data.encoder": "tiktoken", "data.threads": 2, "data.validation_fraction": 0.1,
    "data.validation_tokens": 4096, "optimizer.name": "adamw", "train.batch_tokens": 256, "train.precision": "fp32",
    "train.device": "cpu", "train.compile": "false", "eval.interval": 0, "sample.prompts": [], "log.plot_interval": 0,
    "checkpoint.interval": 1000, "schedule.warmup_steps": 2, "train.steps": 30, "log.trace": False,
    "schedule.decay_share": 0.4, "schedule.min_lr_ratio": 0.0,
}  # fmt: skip
CALM = {}  # by file: the losses of a sweep
RATES = "[0.0001, 0.003, 0.02, 10.0]"


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    own = {**SETTINGS, "data.source": str(harness.corpus(folder / "corpus")), "data.cache_dir": str(folder / "cache")}
    (folder / "base.toml").write_text(to_toml(load_config("tiny", None, own)))
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """The commands of a sweep run in this process; `here.calls` has them."""
    calls = []

    def call(words, watch, told=None):
        calls.append(list(words))
        with harness.signals():
            return main(words[3:]), ""

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("mygpt2.plots.draw_loss_plot", lambda run: None)
    monkeypatch.setattr("mygpt2.experiments.running.call", call)
    monkeypatch.setattr(scoring, "call", call)
    monkeypatch.setattr("mygpt2.orphans.die_with_launcher", lambda *_: None)

    def file(values=RATES, more="", settings=""):
        text = f'base = "{place}/base.toml"\nlooks = 2\n{more}\n[settings]\n{settings}\n'
        return (text + f'[[axis]]\nsetting = "optimizer.lr"\nvalues = {values}\n').encode()

    def go(data=None, name="s"):
        data = data or file()
        said = []
        found = sweep(data, read_plan(data, tmp_path, name), tmp_path, say=said.append)
        return found, said

    def calm(data):
        """The losses of the same sweep undisturbed, trained once for all tests."""
        if data not in CALM:
            CALM[data] = {arm: each["loss"] for arm, each in go(data, "calm")[0]["result"]["arms"].items()}
        return CALM[data]

    go.calls, go.file, go.runs, go.calm = calls, file, tmp_path, calm
    return go


def test_a_sweep_stops_its_losers_takes_a_diverging_arm_for_one_and_ends_as_a_run_of_its_own_would(here, place):
    found, _ = here()
    result = found["result"]
    assert found["state"] == "finished" and [look["compares"] for look in found["looks"]] == ["decayed ends", "ends"]
    first = found["looks"][0]["arms"]
    assert first["lr1e-4"]["stopped"] and "worse than" in first["lr1e-4"]["why"]
    assert first["lr1e1"]["stopped"], "a rate of 10 diverges, or is far worse"
    lost = RunDir(here.runs / "s.lr1e-4.1")
    assert stopped_by(lost, state_of(lost)) == Stopped("s", 1, 2, first["lr1e-4"]["why"])
    assert result["best"] in ("lr3e-3", "lr2e-2") and result["spent"]["share"] < 0.8
    assert result["optimum"]["setting"] == "optimizer.lr"
    branch = RunDir(here.runs / f"s.{result['best']}-d1.1")
    changes = {"schedule.decay_share": (0.4, 0.2), "train.steps": (30, 9)}
    assert (origin_of(branch).parent, origin_of(branch).changes) == (f"s.{result['best']}.1", changes)
    over = asked_text(read_plan(here.file(), here.runs, "s"), here.runs)
    assert "it is over: nothing is to be trained" in over and "to train" not in over
    text = result_text(found)
    assert f"best: optimizer.lr = {result['values'][0]:g}" in text and "of the full grid's" in text
    assert "speaks of these models" in text
    told = {"setting": "optimizer.lr", "value": 2e-3, "low": 1e-3, "high": 3e-3, "outside": "", "share_outside": 0.0,
            "fitted": 3, "step": 9, "tokens": 2304, "compares": "decayed ends"}  # fmt: skip
    ended = {**found, "result": {**result, "optimum": told}}
    assert (
        "0.001 to 0.003, a parabola over 3 arms (at step 9, after a short decay of the rate); at the full length"
        in result_text(ended)
    )

    lr = str(result["values"][0])  # the same, trained straight
    words = ["train", "--config", f"{place}/base.toml", "--runs", str(here.runs), "--optimizer.lr", lr]
    with harness.signals():
        assert main([*words, "--run", "straight"]) == 0
        assert main([*words, "--run", "short", "--train.steps", "9", "--schedule.decay_share", "0.2"]) == 0
    assert harness.weights_hash(here.runs / "straight") == harness.weights_hash(here.runs / f"s.{result['best']}.1")
    assert harness.weights_hash(here.runs / "short") == harness.weights_hash(branch.path), (
        "a decayed end is a run's end"
    )

    before = len(here.calls)
    again, _ = here()
    assert again["result"] == result and len(here.calls) == before, "what is done is not done again"
    shutil.rmtree(here.runs / "_experiments")
    anew, _ = here()
    assert len(here.calls) == before and anew["result"]["best"] == result["best"], "the runs say it all again"
    assert anew["looks"][0]["arms"] == found["looks"][0]["arms"]


def test_a_sweep_that_was_begun_with_longer_decays_goes_on_with_them(here, monkeypatch):
    data = here.file("[0.003, 0.02]", "margin = 5.0")
    with monkeypatch.context() as before:
        before.setattr("mygpt2.experiments.grid.LOOK_DECAY", 1.0)
        then, _ = here(data)
    shutil.rmtree(here.runs / "_experiments")
    trained = len(here.calls)
    now, _ = here(data)
    assert len(here.calls) == trained and now["looks"][0]["arms"] == then["looks"][0]["arms"]


@pytest.mark.parametrize("at", [2, 6], ids=["in a branch", "in the last end"])
def test_killed_at_any_moment_the_same_call_comes_to_the_same_end(here, monkeypatch, at):
    """Of six trainings: two trunks, a branch of each, two ends. The killed one is cut short in its middle."""
    data, real, left = here.file("[0.003, 0.02]", "margin = 5.0"), Trainer._step, at

    def dies(self, *given):
        nonlocal left
        real(self, *given)
        if self.state.step == self.requests_at + 2:
            left -= 1
            if left == 0:
                raise Killed

    began = Trainer.__post_init__

    def counted(self):
        began(self)
        self.requests_at = self.state.step

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__post_init__", counted)
        patch.setattr(Trainer, "_step", dies)
        patch.setattr(Trainer, "rescue", lambda self: "")  # what a kill saves
        with pytest.raises((Killed, UserError)):
            here(data)
    assert left == 0
    found, _ = here(data)
    assert [look["compares"] for look in found["looks"]] == ["decayed ends", "ends"]
    straight = here.calm(data)
    assert {arm: each["loss"] for arm, each in found["result"]["arms"].items()} == straight


def test_a_run_that_is_taken_up_at_the_step_it_was_to_reach_says_that_step(here, place):
    words = ["train", "--config", f"{place}/base.toml", "--runs", str(here.runs), "--run", "u", "--until", "9"]
    for _ in range(2):
        with harness.signals():
            assert main(words) == 85
        assert outcome(here.runs, "u").step == 9
        ended = json.loads(RunDir(here.runs / "u").exit_file.read_bytes())
        assert (ended["asked"], ended["reason"]) == ("step", "stopped after step 9, as asked; everything is saved")
    assert RunDir(here.runs / "u").read(RunDir(here.runs / "u").status_file, 9999).count(b'"tokens": 2304') == 1


def test_the_same_sweep_twice_at_once_has_every_look_once(here, monkeypatch):
    """The other one comes to its end while this one is at its first look."""
    data, other, real = here.file("[0.003, 0.02]", "margin = 5.0"), [], sweeping._look

    def look(*given):
        found = real(*given)
        if not other:
            other.append(None)
            other.append(here(data)[0])
        return found

    monkeypatch.setattr(sweeping, "_look", look)
    found, _ = here(data)
    assert found == other[1] and [each["look"] for each in found["looks"]] == [1, 2]
    assert len(ExperimentDir(here.runs / "_experiments" / "s").ledger()) == 2


def test_an_arm_whose_weights_give_no_loss_is_a_loser(here, monkeypatch):
    real = scoring.call

    def call(words, watch, told=None):
        gone = any("lr2e-2" in word for word in words)
        return (2, "the model's losses are not finite, its weights are damaged") if gone else real(words, watch, told)

    monkeypatch.setattr(scoring, "call", call)
    found, _ = here(here.file("[0.003, 0.02]", "margin = 5.0"))
    assert found["result"]["best"] == "lr3e-3"
    assert found["looks"][0]["arms"]["lr2e-2"]["why"] == "diverged: its weights after step 9 give no finite loss"


def test_identical_arms_stop_nobody(here):
    data = here.file("[0.01, 0.02]").replace(b"optimizer.lr", b"optimizer.muon_lr")  # which adamw has no use for
    found, _ = here(data)
    each = [record for look in found["looks"] for record in look["arms"].values()]
    assert {record["difference"] for record in each} == {0.0} and not any(record["stopped"] for record in each)


def test_with_cosine_looks_compare_undecayed_losses_and_say_so(here):
    data = here.file("[0.0001, 0.01]", settings='schedule.name = "cosine"')
    plan = read_plan(data, here.runs, "c")
    assert "losses whose rate has not decayed yet, as cosine has no trunk" in asked_text(plan, here.runs)
    found, _ = here(data, "c")
    assert [look["compares"] for look in found["looks"]] == ["undecayed losses", "ends"]
    assert not list(here.runs.glob("c.*-d1.1")) and "may have stopped" in result_text(found)
    assert found["looks"][0]["arms"]["lr1e-4"]["stopped"]


def test_a_look_that_is_damaged_is_made_again_from_the_runs_also_from_a_step_that_they_went_past(here):
    data = here.file("[0.003, 0.01]", "margin = 5.0", settings='schedule.name = "cosine"')
    found, _ = here(data)
    for went_past in here.runs.glob("s.*/checkpoints/step-00000009"):
        shutil.rmtree(went_past)
    before, file = len(here.calls), ExperimentDir(here.runs / "_experiments" / "s").verdict_file
    whole = json.loads(file.read_text())
    for damage in ({"arms": None}, {"arms": {"lr3e-3": 3}}, {"best": "x"}, {"optimum": 3}, {"look": "1"}, {"spent": 1}):
        looks = [{**whole["looks"][0], **damage}, whole["looks"][1]]
        file.write_text(json.dumps({**whole, "looks": looks}))
        again, _ = here(data)
        assert again["result"]["best"] == found["result"]["best"] and result_text(again)
        assert again["looks"][-2]["arms"] == found["looks"][0]["arms"]
    file.write_text(json.dumps({**whole, "result": 3}))
    assert here(data)[0]["result"]["arms"] == found["result"]["arms"]
    file.unlink()
    assert here(data)[0]["result"]["arms"] == found["result"]["arms"]
    assert len(here.calls) == before, "nothing is trained or scored again"


def test_a_file_that_was_changed_is_another_sweep(here):
    ExperimentDir.begin(here.runs, "s", here.file())
    with pytest.raises(UserError, match="begun with other settings"):
        here(here.file("[0.003, 0.02]"))


def test_arms_that_are_equal_but_for_chance_stop_in_less_than_one_sweep_of_twenty():
    stopped = 0
    for seed in range(60):
        arms = {f"a{i}": [scored(3.0, seed * 100 + i, noise=0.05)] for i in range(5)}
        level = planned(0.05, 3)
        stopped += any(
            each["stopped"]
            for k in range(2)
            for each in compared(arms, {}, level[k], dict.fromkeys(arms, 0.0), stops=True).values()
        )  # fmt: skip
    assert stopped <= 3


def test_a_margin_keeps_what_is_worse_by_less_and_a_diverged_arm_is_the_loser():
    arms = {
        name: [scored(loss, seed, noise=0.005)] for name, loss, seed in (("a", 3.0, 1), ("b", 3.01, 2), ("c", 3.1, 3))
    }
    tight, wide = dict.fromkeys(arms, 0.002), dict.fromkeys(arms, 0.05)

    def lost(margins, diverged=(), stops=True):
        found = compared(arms, dict(diverged), 0.02, margins, stops=stops)
        return [arm for arm, each in found.items() if each["stopped"]], found

    assert lost(tight)[0] == ["b", "c"]
    assert lost({**tight, "b": 0.05})[0] == ["c"], "a neighbour may still overtake the best"
    names, found = lost(wide, {"d": "diverged after step 3: a loss"})
    assert names == ["d", "c"] and lost(tight, stops=False)[0] == []
    assert found["a"]["difference"] == 0.0 and found["b"]["low"] < 0.01 < found["b"]["high"]
    assert np.isclose(found["c"]["difference"], 0.1, atol=0.002)
