"""A ladder from its file to its score: on runs that are there already, and once with real ones."""

import json
import shlex
import time

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.experiments import running, scores
from mygpt2.experiments.ladder import Ladder, changed_settings
from mygpt2.experiments.ladder_file import read_ladder
from mygpt2.experiments.ladder_plot import ladder_png
from mygpt2.experiments.ladder_words import headline, ladder_text, plan_text
from mygpt2.experiments.rungs import Plan
from mygpt2.planning import Measured
from mygpt2.planning.speed import Speed
from mygpt2.run_dir import RunDir
from tests.experiments.ladders import Truth
from tests.experiments.made import finished, text
from tests.forks import Forked, agent_main
from tests.life.harness import corpus, losses, weights_hash

FILE = """
preset = "tiny"
[ladder]
depths = [1, 2, 3, 4]
tokens = [524_288, 1_048_576, 2_097_152]
next = 5
[train]
batch_tokens = 131_072
[schedule]
warmup_steps = 1
"""


def quiet(_):
    pass


def ladder(folder, content=FILE, say=quiet):
    file = folder / "steps.toml"
    file.write_text(content)
    return Ladder(Plan(read_ladder(file)), folder / "runs", say=say)


@pytest.fixture
def made(tmp_path):
    """made(which): runs of the rungs, finished and scored, as a known law has them, with a chance of 0.2 %."""
    nll, targets = text()
    nll = nll / (nll.sum() / targets.sum())  # per document, for a mean of 1

    def make(rungs, truth=None, reasons=None):
        truth = truth or Truth()
        rng = np.random.default_rng(5)
        for rung in rungs:
            if rung.trunk:
                finished(tmp_path / "runs", rung.trunk.run, rung.trunk.config)
            for cell in rung.cells:
                loss = truth.loss(rung.n, cell.tokens) * np.exp(0.002 * rng.standard_normal())
                reason = (reasons or {}).get(cell.run, "")
                finished(tmp_path / "runs", cell.run, cell.piece.config, nll * loss, targets, reason=reason)

    return make


def later(rung, runs):
    """The first steps of a size's runs, moved to a minute from now: made runs have no times."""
    for piece in rung.pieces:
        rows = [json.loads(line) for line in RunDir(runs / piece.run).metrics_file.read_text().splitlines()]
        lines = [json.dumps({**row, "time": time.time() + 60}) for row in rows]
        RunDir(runs / piece.run).metrics_file.write_text("\n".join(lines) + "\n")


def test_the_forecast_is_frozen_before_the_next_size_begins_and_scored_after(tmp_path, made, monkeypatch):
    found = ladder(tmp_path)
    made(found.plan.rungs)
    frozen_first = []

    def trained_now(pieces, runs, **_):
        if pieces[0].run == found.plan.next.cells[0].run and not frozen_first:
            frozen_first.append((found.folder.path / "forecasts" / "steps-d5-s16-1.json").read_bytes())
            made([found.plan.next])
            later(found.plan.next, runs)
        return {piece.run: running.outcome(runs, piece.run) for piece in pieces}

    monkeypatch.setattr("mygpt2.experiments.ladder.run_missing", trained_now)
    look = found.run()
    (own,) = [one for one in look["forecasts"] if one["score"]]
    assert own["name"] == "steps.d5-s16.1" and own["score"]["counts"] and own["score"]["inside"]
    truth = Truth().loss(found.plan.next.n, 2_097_152)
    assert own["loss"]["value"] == pytest.approx(truth, rel=0.02) and look["stage"] == "scored"
    assert (found.folder.path / own["file"]).read_bytes() == frozen_first[0]
    stages = [each["stage"] for each in found.folder.looks()]
    assert stages == ["foretold", "scored"]
    assert look["law"]["all"]["alpha"]["low"] <= 0.35 <= look["law"]["all"]["alpha"]["high"]
    assert ladder_png(look, "steps").startswith(b"\x89PNG")
    arms = found.folder.arms()
    assert arms["d5-s16"] == {"told": "5 layers, 2.097M tokens", "changes": {}, "runs": {"1": "steps.d5-s16.1"}}
    assert arms["d1"]["told"] == "1 layer, the trunk" and len(arms) == 4 * 4 + 1
    again = ladder(tmp_path).run()
    assert again == look and len(found.folder.looks()) == 2
    said = ladder_text(look)
    assert "not decided" in said or "alpha" in said
    assert "measured" in headline(look) and "inside the 80 % interval" in headline(look)
    assert "steps.d5-s16.1" in said and "gpt2@10B" in said and "losses of other texts or tokenizers" in said


def test_a_next_size_that_has_begun_is_not_foretold_any_more(tmp_path, made):
    found = ladder(tmp_path)
    made([*found.plan.rungs, found.plan.next])
    later(found.plan.next, tmp_path / "runs")
    look = found.run()
    (own,) = [one for one in look["forecasts"] if one["score"]]
    assert not own["score"]["counts"] and "the training of this size began on" in own["score"]["why_not"]
    assert "made after the fact" in ladder_text(look) and "does not count" in headline(look)


def test_too_few_cells_give_bounds_and_a_sentence_and_no_law(tmp_path, made):
    content = FILE.replace("[1, 2, 3, 4]", "[2, 3]").replace("524_288, 1_048_576", "1_048_576").replace("5\n", "4\n")
    found = ladder(tmp_path, content)
    made([*found.plan.rungs, found.plan.next])
    look = found.run()
    own = look["forecasts"][0]
    assert look["law"] is None and "4 cells of 2 sizes and 2 budgets do not decide" in look["undecided"][0]
    assert own["level"] is None and own["loss"]["value"] is None and own["score"]["error"] is None
    assert own["loss"]["low"] <= own["score"]["measured"] <= own["loss"]["high"]
    assert "inside the bounds" in headline(look) and "interval" not in headline(look)
    assert "4 cells of 2 sizes" in ladder_text(look) and ladder_png(look, "few").startswith(b"\x89PNG")


def test_a_cell_that_diverged_is_left_out_and_told(tmp_path, made):
    found = ladder(tmp_path)
    gone = found.plan.rungs[1].cells[0].run
    made([*found.plan.rungs, found.plan.next], reasons={gone: "non-finite: loss at step 3"})
    look = found.run()
    assert gone not in {cell["run"] for cell in look["cells"]} and len(look["cells"]) == 11
    assert look["left_out"] == [f"{gone} diverged at step 4"] and gone in ladder_text(look)


def test_a_cell_whose_last_weights_give_no_loss_is_left_out_and_told(tmp_path, made, monkeypatch):
    found = ladder(tmp_path)
    made([*found.plan.rungs, found.plan.next])
    gone = found.plan.rungs[1].cells[0]
    next((found.runs / gone.run / "evals").iterdir()).unlink()
    monkeypatch.setattr(scores, "call", lambda *_: (2, "the model's losses are not finite, its weights are damaged"))
    look = found.run()
    assert gone.run not in {cell["run"] for cell in look["cells"]} and len(look["cells"]) == 11
    (why,) = look["left_out"]
    assert why.startswith(f"{gone.run} diverged: its weights after step") and why.endswith("give no finite loss")


def test_cells_of_other_texts_are_not_fitted_together(tmp_path, made):
    found = ladder(tmp_path)
    made([*found.plan.rungs, found.plan.next])
    run = RunDir(tmp_path / "runs" / found.plan.rungs[2].cells[1].run)
    (file,) = run.evals_dir.iterdir()
    file.write_text(file.read_text().replace("7" * 64, "8" * 64))
    with pytest.raises(UserError, match="losses of different texts do not compare"):
        found.run()
    assert not (found.folder.path / "forecasts").exists()


def test_what_it_takes_is_told_before(tmp_path, made):
    found = ladder(tmp_path)
    made(found.plan.rungs[:2])
    told = str(found.cost())
    left = [*found.plan.rungs[2:], found.plan.next]
    assert told.startswith(f"{sum(len(rung.pieces) for rung in left)} runs to train, ")
    assert f"{sum(rung.steps for rung in left) * 131_072:,} tokens" in told
    one = found.plan.rungs[2]
    finished(tmp_path / "runs", one.trunk.run, one.trunk.config)
    assert f"{sum(len(rung.pieces) for rung in left) - 1} runs to train" in str(found.cost())
    assert "width = 64 x layers" in plan_text(found.plan) and "4,273,664" in plan_text(found.plan)
    assert not (tmp_path / "runs" / "_experiments").exists()


def test_where_no_run_tells_the_cost_a_few_steps_of_each_size_do(tmp_path, monkeypatch):
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    found, timed = ladder(tmp_path), []

    def measured(config, **_):
        timed.append(config.model.n_layer)
        return Measured(Speed(1000.0, 900.0, 1100.0, "measured"), None, None, 5, "measured")

    monkeypatch.setattr("mygpt2.experiments.ladder.measure", measured)
    assert "is not known" in str(found.cost())
    found.measure()
    told = found.cost()
    assert timed == [1, 2, 3, 4, 5] and told.seconds == pytest.approx(told.tokens / 1000)


def test_a_number_that_stopped_at_its_bound_may_be_anything_and_a_sentence_says_so(tmp_path, made):
    found = ladder(tmp_path)
    made([*found.plan.rungs, found.plan.next], truth=Truth(e=-0.4, a=2.0, b=2.5))
    look = found.run()
    law = look["law"]["all"]
    assert law["at_bounds"] == ["E"] and look["undecided"][0].startswith("E stopped at a bound")
    assert (law["e"]["low"], law["e"]["high"]) == (0.0, min(cell["loss"] for cell in look["cells"]))
    assert "stopped at a bound" in ladder_text(look)


# Real runs


KILLED = ("tests.life.test_failures", "break_at", "0", "a save", "killed")  # as it begins to save


class Commands(list):
    """The runs and checkpoints that commands were called for; the first one for `victim` is killed."""

    victim = ""


@pytest.fixture
def forked(tmp_path, monkeypatch):
    """Commands run as forks of one process that has imported everything, which are real processes."""
    began = Commands()

    def call(words, watch, told=None):
        assert words[1:3] == ["-m", "mygpt2"]
        began.append([word for word in words if word.endswith(".1") or (word.startswith("/") and "step-" in word)][-1])
        meddle = KILLED if began[-1] == began.victim else ()
        began.victim = "" if meddle else began.victim
        child = Forked(agent_main, 1, 0, list(words[3:]), meddle, out=tmp_path / f"said-{len(began)}")
        while child.poll() is None:
            watch()
            time.sleep(0.02)
        return child.wait(), child.said(errors_only=True).strip().rpartition("\n")[2]

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for module in (running, scores):
        monkeypatch.setattr(module, "call", call)
    return began


def real(tmp_path, source):
    return f"""
preset = "tiny"
[ladder]
depths = [1, 2]
width_per_depth = 16
tokens = [1_024, 2_048]
next = 3
[model]
block_size = 32
[data]
source = "{source}"
tokenizer = "gpt2:512"
cache_dir = "{tmp_path / "cache"}"
encoder = "tiktoken"
threads = 1
validation_fraction = 0.05
validation_tokens = 2048
[train]
batch_tokens = 256
precision = "fp32"
device = "cpu"
[schedule]
warmup_steps = 1
"""


@pytest.mark.slow
def test_a_real_ladder_goes_on_after_a_kill_and_each_cell_is_the_run_it_would_be_alone(tmp_path, forked):
    content = real(tmp_path, corpus(tmp_path / "corpus"))
    found = ladder(tmp_path, content)
    runs, victim = tmp_path / "runs", found.plan.rungs[1].cells[1].run

    forked.victim = victim
    with pytest.raises(UserError, match=rf"{victim}' is lost at step \d+.*goes on from there"):
        found.run()
    before, done = len(forked), {file: file.read_bytes() for file in runs.glob("*/metrics.jsonl")}
    look = ladder(tmp_path, content).run()
    again = forked[before:]
    finished_before = [name for name in again if name.startswith("steps.") and name != victim]
    assert finished_before == [found.plan.next.cells[0].run]  # nothing that was over was trained again
    kept = {file: content for file, content in done.items() if file.parent.name != victim}
    assert all(file.read_bytes() == content for file, content in kept.items())
    own = look["forecasts"][0]
    assert own["score"]["counts"] and look["law"] is None and len(look["cells"]) == 4
    branch = found.plan.rungs[0].cells[1]
    assert branch.branch_step and min(losses(runs / branch.run)) == branch.branch_step + 1
    alone = tmp_path / "alone"
    running.run_missing([branch.piece], alone, say=quiet)
    assert weights_hash(alone / branch.run) == weights_hash(runs / branch.run)
    assert ladder(tmp_path, content).run() == look


# The command


def test_the_command_writes_a_file_to_start_from_and_never_over_another(mygpt2, tmp_path):
    code, out, _ = mygpt2("ladder", "--write", str(tmp_path / "a.toml"))
    assert code == 0 and "--dry-run" in out
    before = (tmp_path / "a.toml").read_bytes()
    code, _, err = mygpt2("ladder", "--write", str(tmp_path / "a.toml"))
    assert code == 2 and "exists; choose another name" in err and (tmp_path / "a.toml").read_bytes() == before
    (tmp_path / "o dd").mkdir()
    code, out, _ = mygpt2("ladder", "--write", str(tmp_path / "o dd" / "a.toml"))
    words = shlex.split(out.splitlines()[-1])
    assert words[-2:] == [str(tmp_path / "o dd" / "a.toml"), "--dry-run"], "it can be pasted"
    assert f"ladder '{tmp_path}/o dd/a.toml' --dry-run" in (tmp_path / "o dd" / "a.toml").read_text()
    code, out, _ = mygpt2("ladder", str(tmp_path / "a.toml"), "--dry-run", "--runs", str(tmp_path / "runs"))
    assert code == 0 and "runs to train" in out and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "which ladder?"), (["none.toml"], "give a ladder's TOML file"), (["none.toml", "--nproc", "0"], "--nproc 0"),
     (["none.toml", "--json", "no/where/x"], "there is no folder"), (["--write", "no/where/x"], "there is no folder")],
)  # fmt: skip
def test_bad_words_are_one_sentence(mygpt2, words, said):
    code, _, err = mygpt2("ladder", *words)
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1


def test_a_ladder_of_other_settings_under_the_same_name_is_refused(tmp_path, made):
    found = ladder(tmp_path)
    made([*found.plan.rungs, found.plan.next])
    found.run()
    with pytest.raises(UserError, match="begun with other settings"):
        ladder(tmp_path, FILE.replace("[1, 2, 3, 4]", "[1, 2, 3]")).run()


def test_settings_that_differ_are_those_a_branch_changes(tmp_path):
    rung = ladder(tmp_path).plan.rungs[0]
    changed = changed_settings(rung.trunk.config, rung.cells[0].piece.config)
    assert set(changed) == {"schedule.name", "train.steps", "checkpoint.interval", "checkpoint.keep_every"}
