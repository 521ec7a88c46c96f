"""Another future from any kept step: what a branch shares with its parent to the bit, and what it may not change."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest

from mygpt2.checkpoint import steps
from mygpt2.config import load_config
from mygpt2.data.trace import read_trace
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, moves, read_events, state_of
from mygpt2.run_dir.family import Origin, origin_of, parent_of
from mygpt2.train import attempt, branching
from mygpt2.train.branching import changed, draft, lines, make, place_of, reordering
from tests.life import harness
from tests.train.test_attempt import at_step, cache, calm, source, train  # noqa: F401 (fixtures)


@pytest.fixture
def parent(calm, train):  # noqa: F811
    """A copy of the run of twelve steps, with checkpoints of the steps 8 and 12, in `train.runs`."""
    return RunDir(shutil.copytree(calm, train.runs / "parent"))


@pytest.fixture
def go_on(train, monkeypatch):  # noqa: F811
    """go_on(branch) trains it from its own configuration; its exit code."""
    monkeypatch.setattr("mygpt2.plots.draw_loss_plot", lambda run: None)

    def go(branch):
        return attempt.main(branch.config, branch.run.name, train.runs, "auto", ["train"])

    with harness.signals():
        yield go


def branch_of(parent, name="branch", step=8, **changes):
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return make(parent.path.parent, draft(parent.path.parent, parent.name, step, overrides), name)


def test_a_branch_without_changes_equals_its_parent_to_the_bit(parent, go_on):
    branch = branch_of(parent)
    assert branch.notes == () and steps(branch.run.checkpoints_dir) == [8]
    assert state_of(branch.run).state == "stopped" and not harness.last_step(branch.run.path)
    assert go_on(branch) == 0
    assert harness.losses(branch.run.path) == {s: x for s, x in harness.losses(parent.path).items() if s > 8}
    assert harness.weights_hash(branch.run.path) == harness.weights_hash(parent.path)
    for name in ("optimizer.safetensors", "model.safetensors"):
        ours, theirs = (run.checkpoints_dir / "step-00000012" / name for run in (branch.run, parent))
        assert ours.read_bytes() == theirs.read_bytes()
    places = [read_trace(run.path).drop_columns("attempt") for run in (branch.run, parent)]
    assert places[0].equals(places[1].filter([step > 8 for step in places[1]["step"].to_pylist()]))
    (event,) = read_events(branch.run, ["branch"])
    assert (event["parent"], event["step"], event["changes"]) == ("parent", 8, {})


def test_with_another_rate_it_differs_from_the_branching_step_on_only(parent, go_on):
    branch = branch_of(parent, optimizer__lr=0.02)
    assert origin_of(branch.run).changes == {"optimizer.lr": (0.006, 0.02)}
    assert go_on(branch) == 0
    ours, theirs = harness.losses(branch.run.path), harness.losses(parent.path)
    assert set(ours) == {9, 10, 11, 12} and ours[9] == theirs[9], "the loss of a step is of the weights before it"
    assert all(ours[step] != theirs[step] for step in (10, 11, 12))
    (event,) = read_events(branch.run, ["branch"])
    assert event["changes"] == {"optimizer.lr": [0.006, 0.02]} and "lr was" in event["message"]


def test_of_a_mixture_weights_make_other_batches_and_limits_of_passes_do_not():
    now = load_config("tiny", None, {"data": {"mix": [{"name": "a", "source": "pydocs", "weight": 2.0}]}})
    earlier = [{"name": "a", "source": "pydocs", "weight": 2.0, "min_score": None}]  # of a version with fewer keys
    before = now.model_dump(mode="json")
    assert dict(changed({"data": {**before["data"], "mix": earlier}}, now)) == {}
    for changes, batches in (({"max_epochs": 4.0}, []), ({"weight": 1.0}, ["data.mix"])):
        found = dict(changed({"data": {"mix": [{**earlier[0], **changes}]}}, now))
        assert list(found) == ["data.mix"] and reordering(found) == batches
        assert json.loads(json.dumps(found))["data.mix"][1] == [{"name": "a", "source": "pydocs", "weight": 2.0}]


def test_a_setting_that_came_after_the_parents_version_is_a_change_of_its_default():
    mixed = load_config("tiny", None, {"data": {"mix": [{"name": "a", "source": "pydocs", "weight": 2.0}]}})
    before = load_config("tiny").model_dump(mode="json")
    del before["data"]["mix"], before["train"]["parallel"], before["data"]["seed"]
    found = dict(changed(before, mixed))
    assert list(found) == ["data.mix"] and found["data.mix"][0] == [] and reordering(found) == ["data.mix"]
    assert dict(changed(before, load_config("tiny"))) == {} == dict(changed({}, mixed))
    told = Origin("a", 1, found, "", "", None)
    assert lines(told) == ["data.mix was one source and is a 100 %"]
    (table,) = found["data.mix"][1]
    (said,) = lines(replace(told, changes={"data.mix": ([table], [{**table, "max_epochs": 4.0}])}))
    assert "max_epochs = 4" in said and "weight = 2" in said
    assert lines(replace(told, changes={"data.mix": ([], [{"name": 1}])})) == [
        "data.mix was one source and is [{name = 1}]"
    ]


def test_a_branch_that_is_killed_goes_on_to_the_same_end(parent, go_on, monkeypatch):
    calm_branch = branch_of(parent, "calm", train__steps=14)
    assert go_on(calm_branch) == 0
    branch = branch_of(parent, train__steps=14)
    with monkeypatch.context() as patch:
        at_step(patch, 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert go_on(branch) == 85
    assert go_on(branch) == 0
    assert harness.losses(branch.run.path) == harness.losses(calm_branch.run.path)
    assert harness.weights_hash(branch.run.path) == harness.weights_hash(calm_branch.run.path)
    assert [event["step"] for event in read_events(branch.run, ["resume"])] == [10]


def test_a_branch_outlives_what_becomes_of_its_parent(parent, go_on):
    runs, branch = parent.path.parent, branch_of(parent)
    moves.rename(runs, "parent", "renamed")
    assert origin_of(branch.run).parent == "renamed" and parent_of(runs, origin_of(branch.run)).name == "renamed"
    gone = moves.delete(runs, "renamed")
    assert parent_of(runs, origin_of(branch.run)) is None
    shutil.copytree(branch.run.path, runs / "renamed", ignore=shutil.ignore_patterns("branch.json"))
    other = json.dumps({"time": 1.0})
    (runs / "renamed" / "attempts" / "1").mkdir()
    (runs / "renamed" / "attempts" / "1" / "command.json").write_text(other)
    assert parent_of(runs, origin_of(branch.run)) is None, "another run of that name is not the parent"
    moves.restore(runs, gone.entry, "back")
    assert origin_of(branch.run).parent == "back" and parent_of(runs, origin_of(branch.run)).name == "back"
    moves.empty_trash(runs)
    moves.delete(runs, "back")
    moves.empty_trash(runs)
    assert go_on(branch) == 0, "its checkpoint is its own"
    assert harness.last_step(branch.run.path) == 12


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.n_layer": 1}, r"--model.n_layer 1: a branch of 'parent' keeps its model \(model.n_layer = 2\)"),
        ({"data.tokenizer": "gpt2:600"}, r"--data.tokenizer .*keeps its tokens"),
        ({"train.steps": 8}, r"--train.steps 8: the branch begins after step 8; give more than 8"),
    ],
)
def test_what_a_branch_cannot_change_is_a_sentence_and_nothing_is_written(parent, changes, words):
    before = sorted(os.listdir(parent.path.parent))
    with pytest.raises(UserError, match=words):
        draft(parent.path.parent, "parent", 8, changes)
    with pytest.raises(UserError, match=r"no checkpoint of step 5; it has 8, 12"):
        draft(parent.path.parent, "parent", 5, {})
    assert sorted(os.listdir(parent.path.parent)) == before


def test_another_batch_is_told_and_its_data_go_on_in_a_new_order(parent, go_on, monkeypatch):
    branch = branch_of(parent, train__batch_tokens=128, data__seed=5)
    (note,) = branch.notes
    assert "no longer those of parent, because of data.seed, train.batch_tokens" in note
    with monkeypatch.context() as patch:  # stopped before its first step: nothing of its own is to be saved
        patch.setattr(
            "mygpt2.train.trainer.Trainer._read_control_files", lambda self: setattr(self.requests, "stop", True)
        )
        assert go_on(branch) == 85
    assert (
        json.loads((branch.run.checkpoints_dir / "step-00000008" / "state.json").read_text())["config"]["data"]["seed"]
        == 1337
    )
    assert go_on(branch) == 0
    ours, theirs = harness.losses(branch.run.path), harness.losses(parent.path)
    assert set(ours) == {9, 10, 11, 12} and ours[9] != theirs[9]
    assert (
        "data.fork" not in (branch.run.config_file.read_text()) and "fork = false" in branch.run.config_file.read_text()
    )


def test_another_optimizer_begins_anew_and_says_so(parent, go_on):
    branch = branch_of(parent, optimizer__name="adamw")
    assert "the optimizer begins anew, as another optimizer has no use for the state" in branch.notes[0]
    assert go_on(branch) == 0
    assert harness.losses(branch.run.path)[9] == harness.losses(parent.path)[9]


def test_the_same_call_after_a_kill_gives_the_same_branch_and_another_one_is_refused(parent, monkeypatch):
    runs = parent.path.parent

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(branching, "write_queued", killed)
        patch.setattr(branching, "discard", lambda files, path: None)  # a killed process tidies nothing
        patch.setattr("mygpt2.checkpoint.files.is_leftover", lambda name: True)
        with pytest.raises(Killed):
            branch_of(parent)
    left = [name for name in os.listdir(runs) if name.startswith(".tmp-")]
    assert len(left) == 1 and not RunDir(runs / "branch").exists()
    os.rename(runs / left[0], runs / ".tmp-1-0000-abcdef")  # of a process that is no more
    branch = branch_of(parent)
    assert not [name for name in os.listdir(runs) if name.startswith(".tmp-")]
    assert branch_of(parent).run == branch.run
    with pytest.raises(UserError, match=r"run 'branch' exists in .* and is another"):
        branch_of(parent, optimizer__lr=0.02)
    with pytest.raises(UserError, match=r"run 'parent' exists in .* and is another"):
        branch_of(parent, "parent")


def test_two_that_make_the_same_branch_at_once_have_the_same_one_and_another_is_refused(parent, monkeypatch):
    real, runs = branching._fill, parent.path.parent

    def while_the_other_makes(name, **changes):
        def fill(*given):
            real(*given)
            monkeypatch.setattr(branching, "_fill", real)
            branch_of(parent, name, **changes)

        monkeypatch.setattr(branching, "_fill", fill)
        return branch_of(parent, name)

    assert while_the_other_makes("one").origin == origin_of(RunDir(runs / "one"))
    with pytest.raises(UserError, match=r"run 'two' exists in .* and is another"):
        while_the_other_makes("two", optimizer__lr=0.02)
    assert sorted(path.name for path in runs.iterdir()) == ["one", "parent", "two"]


def test_a_damaged_checkpoint_is_refused_and_leaves_nothing(parent):
    (parent.checkpoints_dir / "step-00000008" / "optimizer.safetensors").write_bytes(b"x")
    before = sorted(os.listdir(parent.path.parent))
    with pytest.raises(UserError, match=r"is not whole \(optimizer.safetensors has 1 bytes"):
        branch_of(parent)
    assert sorted(os.listdir(parent.path.parent)) == before


def test_a_place_is_a_name_and_perhaps_a_step():
    assert place_of("tiny@100") == ("tiny", 100) and place_of("tiny") == ("tiny", None)
    for bad in ("tiny@", "tiny@x", "tiny@-1", "../x@1"):
        with pytest.raises(UserError):
            place_of(bad)


def test_the_verb_makes_a_branch_that_train_goes_on_with(parent, capsys):
    from mygpt2.__main__ import main

    runs = str(parent.path.parent)
    words = ["runs", "branch", "parent@8", "--run", "new", "--runs", runs]
    assert main([*words, "--optimizer.lr", "0.01", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["parent"], told["step"], told["changes"]) == ("parent", 8, {"optimizer.lr": [0.006, 0.01]})
    assert main(["train", "--run", "new", "--runs", runs, "--print-config"]) == 0
    assert "\nlr = 0.01\n" in capsys.readouterr().out
    assert main(["runs", "show", "new", "--runs", runs]) == 0
    assert "parent, at step 8; optimizer.lr 0.006 -> 0.01" in capsys.readouterr().out
    assert main(["runs", "branch", "parent@8", "--runs", runs]) == 2
    assert "--run NEW" in capsys.readouterr().err
    assert main(["runs", "list", "--optimizer.lr", "3", "--runs", runs]) == 2
    assert "'--optimizer.lr' is not an option here" in capsys.readouterr().err


def test_a_run_keeps_a_log_grid_and_a_branch_from_weights_alone_begins_its_optimizer_anew(train, go_on):  # noqa: F811
    assert train(steps=9, checkpoint__keep_log=4, checkpoint__keep_last=1, checkpoint__interval=100) == 0
    folder = RunDir(train.runs / "run")
    assert steps(folder.checkpoints_dir) == [1, 2, 4, 8, 9]
    branch = make(train.runs, draft(train.runs, "run", 2, {}), "branch")
    assert origin_of(branch.run).optimizer == "anew" and "as the checkpoint has the weights alone" in branch.notes[0]
    assert go_on(branch) == 0
    ours, theirs = harness.losses(branch.run.path), harness.losses(folder.path)
    assert set(ours) == set(range(3, 10)) and ours[3] == theirs[3] and ours[5] != theirs[5]
