"""What the tab reads of experiments on disk: verdicts in words and numbers, damage told, text escaped."""

import csv
import io
import json
import shutil
import sys
import time
from dataclasses import replace

import pytest

from mygpt2.config.toml import from_toml
from mygpt2.errors import UserError
from mygpt2.experiments.cost import Cost
from mygpt2.experiments.folder import ExperimentDir
from mygpt2.run_dir import RunDir, state_of
from tests.data.corpus import write_jsonl
from tests.workbench.tabs.experiments.made import STEPS, a_base, a_place, judged
from tests.workbench.tabs.experiments.test_experiments_page import until
from workbench.changes import stamp
from workbench.jobs import Task, TaskProgress
from workbench.live import News
from workbench.tabs.experiments import act, begin, export, show
from workbench.tabs.experiments.found import KIND
from workbench.tabs.experiments.look import Seen, look
from workbench.tabs.experiments.looks import answer
from workbench.tabs.monitor.view import NEEDS

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of runs with one experiment, made once."""
    runs = tmp_path_factory.mktemp("model") / "runs"
    a_base(runs)
    return judged(runs, "--optimizer.lr", "3e-3")


@pytest.fixture
def place(tmp_path, monkeypatch, model):
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    shutil.copytree(model.runs, tmp_path / "runs")
    return a_place(tmp_path)


@pytest.fixture
def folder(place, model):
    return ExperimentDir(place.runs / "_experiments" / model.name)


def seen_of(place, name):
    return Seen(place).experiments.get(name)


def card(place, name):
    seen = Seen(place)
    return show.card(seen.experiments.get(name), seen.curves, place.runs, True)


def parts(place, **asked):
    news = News()
    look(Seen(place), asked, news)
    return news.changed


def test_a_verdict_is_told_in_words_numbers_and_a_drawing(place, folder):
    one = seen_of(place, folder.name)
    found = answer(one.kind, one.looks[-1])
    assert (one.kind, one.standing, found.chip, found.tone) == ("judge", "finished", "keep", "good")
    assert "optimizer.lr 0.006 -> 0.003" in found.headline and "better by" in found.headline
    assert [line.label for line in found.intervals] == [
        "Held-out text",
        "Pair 1",
        "Pair 2",
        "Pair 3",
        "Training losses",
    ]
    assert found.intervals[0].low <= found.intervals[0].mean <= found.intervals[0].high < 0
    markup = card(place, folder.name)
    assert markup.count('class="wb-exp-dot"') == 5 and f"{found.intervals[0].mean:+.4f}" in markup
    assert "<dt>Questions about this base</dt><dd>1</dd>" in markup and "1 different variants" not in markup


def test_the_named_run_is_the_base_arm_and_every_arm_has_its_cell(place, folder):
    one = seen_of(place, folder.name)
    assert (one.members[0].run, one.members[0].arm, one.members[0].replicate) == ("tiny", "base", 1)
    markup = card(place, folder.name)
    assert markup.count('<li class="wb-exp-arm') == 2 and markup.count('class="wb-exp-own"') == 6
    assert "120 of 120 steps" in markup  # three runs of forty


def test_what_would_decide_is_said_where_nothing_is_decided(place):
    folder = judged(place.runs, "--optimizer.weight_decay", "0.2", by=-0.02, spread=0.03)
    found = answer("judge", seen_of(place, folder.name).looks[-1])
    assert found.chip == "undecided" and len(found.decide) == 2 and "more replicates" in found.decide[0]
    assert "What would decide it" in card(place, folder.name)


def test_the_second_question_about_a_base_is_counted(place, folder):
    judged(place.runs, "--optimizer.lr", "2e-3")
    one = seen_of(place, folder.name)
    figures = {label: (value, below) for label, value, below in answer("judge", one.looks[-1]).figures}
    asked, below = figures["Questions about this base"]
    assert asked == "2" and "2 different variants" in below and "5 % chance of any false verdict" in below
    assert len(one.ledger) == 2 and "Ledger (2)" in card(place, folder.name)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("experiment.toml", "kind = [", "experiment.toml cannot be read"),
        ("verdict.json", "{", "verdict.json cannot be read"),
        ("verdict.json", '{"looks": 3}', "verdict.json cannot be read"),
        ("verdict.json", '{"looks": [7, {"verdict": "keep"}]}', "1 of the looks in verdict.json cannot be read"),
        ("ledger.jsonl", "nonsense\n", "1 line of the ledger is damaged"),
    ],
)
def test_a_damaged_file_is_told_and_the_rest_is_shown(place, folder, file, text, told):
    (folder.path / file).write_text(text)
    assert told in card(place, folder.name)
    assert folder.name in parts(place)["markup"]["list"]


def test_a_ledger_that_was_removed_is_told(place, folder):
    assert "has lost" not in card(place, folder.name)
    folder.ledger_file.unlink()
    assert "The ledger has lost 1 of its questions; the next one puts them back" in card(place, folder.name)


def test_a_look_whose_values_are_damaged_breaks_nothing(place, folder):
    whole = json.loads(folder.verdict_file.read_text())
    for key in whole["looks"][0]:
        for value in (None, 7, "x", [], {}, [1, 2], [[1], {"base": 3}], float("nan"), True):
            folder.verdict_file.write_text(json.dumps({**whole, "looks": [{**whole["looks"][0], key: value}]}))
            assert 'class="wb-exp-arms"' in card(place, folder.name), (key, value)
            export.as_csv(seen_of(place, folder.name))


def test_an_experiment_without_its_file_is_told_and_can_be_deleted(place, folder):
    folder.settings_file.unlink()
    folder.verdict_file.unlink()
    folder.ledger_file.unlink()
    assert "damaged" in parts(place)["markup"]["list"] and "experiment.toml is missing" in card(place, folder.name)
    act.delete(place, Seen(place).experiments, folder.name, False)
    assert Seen(place).experiments.names() == []


def test_foreign_text_is_escaped_everywhere(place, folder):
    record = json.loads(folder.verdict_file.read_text())
    for key in ("told", "base", "variant", "protocol", "reason", "training_why", "speaks_of"):
        record["looks"][0][key] = HOSTILE
    record["looks"][0]["notices"] = [HOSTILE]
    record["looks"][0]["changes"] = {HOSTILE: [HOSTILE, HOSTILE]}
    folder.verdict_file.write_text(json.dumps(record))
    with open(folder.ledger_file, "a") as file:
        file.write(json.dumps({"told": HOSTILE, "verdict": HOSTILE, "time": 1.0}) + "\n")
    folder.settings_file.write_text(f"kind = 'judge'\nx = '{HOSTILE}'\n")
    markup = parts(place, name=folder.name)["markup"]
    for text in (
        markup["list"],
        markup["card"],
        export.report(seen_of(place, folder.name), Seen(place).curves, place.runs),
    ):
        assert "&lt;img" in text and "<img" not in text


def test_no_experiment_yet_shows_the_questions(place, folder):
    shutil.rmtree(folder.path)
    markup = parts(place)["markup"]["list"]
    assert all(f'data-ask="{kind}"' in markup for kind in begin.PLANS) and "Is this better than" in markup


def test_an_unknown_name_is_told(place, folder):
    assert "There is no experiment nowhere" in parts(place, name="nowhere")["markup"]["card"]


def test_a_page_at_rest_is_told_of_a_new_look(place, folder):
    before = stamp(place.runs)
    time.sleep(0.01)
    with folder.held():
        folder.add_look({"verdict": "keep"})
    assert stamp(place.runs) != before


# Beginning one


def test_a_question_is_planned_with_its_cost_and_the_command_that_asks_it(place):
    values = {"base": "run:tiny", "changes": "optimizer.lr = 0.003\n--optimizer.weight_decay 0.2", "replicates": 2}
    made = begin.plan(place, "judge", values)
    assert made.argv[3:] == (
        "judge", "run:tiny", "--replicates", "2", "--protocol", "run", "--runs", str(place.runs),
        "--variant.optimizer.lr", "0.003", "--variant.optimizer.weight_decay", "0.2",
    )  # fmt: skip
    assert made.cost.runs == 2 and list(made.pieces.values()) == [40] * 4  # the base's are there
    told = " ".join(begin.cost_told(place, made))
    assert "2 runs to train" in told and "no earlier run" in told and "all of this machine's cpu" in told
    known = replace(made, cost=Cost(90.0, 80.0, 100.0, 3, 983_040, "from run tiny"))
    assert begin.cost_told(place, known)[0] == (
        "About 1 min 30 s (1 min 20 s to 1 min 40 s): 3 runs to train, 983k tokens; from run tiny."
    )
    done = replace(made, cost=Cost(0.0, 0.0, 0.0, 0, 0))
    assert begin.cost_told(place, done) == ["Nothing is to be trained: all of its runs are there."]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"base": "run:nothing", "changes": "optimizer.lr = 1"}, "nothing"),
        ({"base": "", "changes": "optimizer.lr = 1"}, "no run is chosen"),
        ({"base": "../../etc/passwd", "changes": "optimizer.lr = 1"}, "not allowed"),
        ({"base": "run:tiny"}, "choose what to compare with"),
        ({"base": "run:tiny", "changes": "nonsense"}, "is not a setting"),
        ({"base": "run:tiny", "changes": "optimizer.lrr = 1"}, "optimizer.lr"),
        ({"base": "run:tiny", "changes": "data.source = /etc"}, "outside the folders"),
        ({"base": "run:tiny", "changes": "data.tokenizer = gpt2:999"}, "data.tokenizer"),
        ({"base": "run:tiny", "changes": "optimizer.lr = 1", "replicates": 1000}, "from 1 to 100"),
        ({"base": "run:tiny", "changes": "optimizer.lr = 1", "protocol": "/etc/passwd"}, "outside the folders"),
        ({"base": "run:tiny", "changes": "optimizer.lr = 1", "source": "code"}, "is for mixtures"),
        ({"base": "run:tiny", "changes": "optimizer.lr = 1", "source": "--x"}, "is no name of a source"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(place, values, told):
    with pytest.raises(UserError, match=told):
        begin.plan(place, "judge", values)
    assert not values["base"] or "disabled>Start" in parts(place, form=values, open="judge")["markup"]["cost-judge"]


def test_of_mixtures_the_form_can_ask_for_one_source(place):
    folders = [write_jsonl(place.data_roots[0] / name, documents=20) for name in ("docs", "code")]
    mix = "[" + ", ".join(f'{{name = "{each.name}", source = "{each}"}}' for each in folders) + "]"
    made = begin.plan(place, "judge", {"base": "preset:tiny", "changes": f"data.mix = {mix}", "source": "code"})
    assert made.argv[made.argv.index("--source") + 1] == "code"


def test_the_form_begins_with_the_latest_run_that_is_no_arm(place, folder):
    told = parts(place)["data"]["choices"]
    assert told["usual"] == "run:tiny" and ("preset tiny", "preset:tiny") in told["base"]
    a_base(place.runs, "other")
    assert parts(place)["data"]["choices"]["usual"] == "run:other"
    assert parts(place, ticked=["gone", "tiny"])["data"]["choices"]["usual"] == "run:tiny"


def test_nothing_begins_or_changes_on_a_read_only_page(tmp_path, place, folder):
    watching = a_place(tmp_path, read_only=True)
    experiments = Seen(watching).experiments
    made = begin.plan(watching, "judge", {"base": "run:tiny", "changes": "optimizer.lr = 0.01"})
    name = folder.name
    for forbidden in (
        lambda: begin.start(watching, experiments, made),
        lambda: act.delete(watching, experiments, name, True),
        lambda: act.go(watching, experiments, name),
        lambda: act.stop(watching, experiments, name),
    ):
        with pytest.raises(UserError, match="read-only"):
            forbidden()


# Deleting, taking away


def test_deleting_keeps_the_runs_or_takes_its_own_along_and_can_be_taken_back(place, folder):
    experiments = Seen(place).experiments
    own = act.own_runs(experiments.get(folder.name))
    assert len(own) == 5 and "tiny" not in own
    act.delete(place, experiments, folder.name, False)
    assert experiments.names() == [] and all(RunDir(place.runs / name).exists() for name in own)
    (entry,) = act.removal.removed(place.runs)
    assert "Restore" in parts(place)["markup"]["deleted"]
    act.restore(place, experiments, entry.entry)
    assert seen_of(place, folder.name).standing == "finished"
    said = act.delete(place, experiments, folder.name, True)
    assert "5 of its runs" in said and RunDir(place.runs / "tiny").exists()
    assert not any(RunDir(place.runs / name).exists() for name in own)
    assert act.empty(place, experiments, "") == "1 deleted experiment removed for good"
    assert act.removal.removed(place.runs) == [] and not list((place.runs / "_trash" / "_experiments").iterdir())


def test_exports_hold_what_the_engine_wrote(place, folder):
    one, curves = seen_of(place, folder.name), Seen(place).curves
    told = json.loads(export.as_json(one))
    assert told["looks"][0]["validation"] == json.loads(folder.verdict_file.read_text())["looks"][0]["validation"]
    assert told["settings"] == from_toml(folder.settings_file.read_bytes())
    (row,) = csv.DictReader(io.StringIO(export.as_csv(one)))
    assert float(row["mean"]) == one.looks[0]["validation"]["mean"] and row["verdict"] == "keep"
    assert row["variant"] == one.looks[0]["told"] and row["arm"] == one.looks[0]["variant"] and row["base"] == "tiny"
    page = export.report(one, curves, place.runs)
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "") and "<svg" in page
    assert STEPS[1] in page


# From Monitor


def test_monitor_asks_about_a_finished_run_and_opens_the_experiment_of_an_arm(place, folder):
    from workbench.tabs.monitor.glance import glance
    from workbench.tabs.monitor.head import Place, head

    def menu(name):
        run = place.run(name)
        return head(glance(run, state_of(run), []), Place(dict.fromkeys(NEEDS.values(), True)))

    assert 'data-id="judge tiny"' in menu("tiny") and "Open experiment" not in menu("tiny")
    assert f'data-id="name {folder.name}"' in menu(f"{folder.name}.base.2")


def at_work_on(place, folder, state, done, rate=0.02, title="x.base.1", run_left=60.0):
    """The card while a run is at work, its experiment's task in `state`."""
    one = seen_of(place, folder.name)
    first, *rest = one.members
    going = replace(first, run="x.base.1", state="running", step=done, steps=100)
    ended = None if state == "running" else 1.0
    progress = TaskProgress(title, done, 100, "steps", rate, run_left, 0.0) if ended is None else None
    task = Task("20260101-000000-00000000", "experiment", f"experiment {one.name}", state, ("x",), 0.0, ended,
                progress, (), None, None, "", None)  # fmt: skip
    asked = replace(one.asked, pieces={"x.base.1": 100}, seconds=300.0)
    return show._progress(replace(one, members=[going, *rest], task=task, asked=asked))


def test_the_first_slow_steps_do_not_say_how_long_all_will_take(place, folder):
    assert "about 4 min 57 s left in all" in at_work_on(place, folder, "running", 1)
    assert "about 1 h 15 min left in all" in at_work_on(place, folder, "running", 10)
    assert "10 min 0 s left · about 10 min 0 s left in all" in at_work_on(place, folder, "running", 1, run_left=600.0)


def test_what_follows_the_last_run_is_not_told_as_a_start_or_as_time_left(place, folder):
    told = at_work_on(place, folder, "running", 100, title="scoring x.base.1")
    assert "scoring x.base.1" in told and "left in all" not in told and "starting" not in told


def test_a_question_of_another_program_and_one_of_a_terminal_can_be_stopped(place, folder, monkeypatch):
    """A task of the API has the experiment's name; what a terminal began is stopped by its runs."""
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    others = [place.jobs.tasks.start(kind, sleeping, label=f"experiment {folder.name}") for kind in ("judge", KIND)]
    seen = Seen(place)
    assert f'data-act="stop" data-id="{folder.name}"' in show._head(seen.experiments.get(folder.name), True)
    act.stop(place, seen.experiments, folder.name)
    until(lambda: not any(place.jobs.tasks.get(task.id).running for task in others))  # a stop waits for nobody
    one = seen.experiments.get(folder.name)
    words = (sys.executable, "-m", "mygpt2", "judge", "run:tiny", "--replicates", "1")
    stopped = replace(one.task, argv=(*words, "--json", "result.json"), ended=time.time())
    later = replace(one, task=stopped)
    assert later.argv == words and 'data-act="go"' in show._head(later, True)
    going = replace(one, task=None, members=[replace(one.members[0], state="running")])
    assert 'data-act="stop"' in show._head(going, True) and 'data-act="stop"' not in show._head(going, False)


def test_a_stopped_experiment_whose_run_still_saves_is_not_at_work_from_a_terminal(place, folder):
    told = at_work_on(place, folder, "stopped", 10)
    assert "a run of it is still at work: it saves first" in told
    assert "terminal" not in told and "left in all" not in told
    assert "at work from a terminal" in at_work_on(place, folder, "done", 10)
