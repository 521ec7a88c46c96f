"""Questions to `judge` through the workbench: what may be asked there, and what comes back."""

import json
import time
from dataclasses import replace

import pytest

from mygpt2.errors import UserError
from mygpt2.experiments.judge import Question, prepare
from mygpt2.verbs.judge import split_words
from tests.data.corpus import write_jsonl
from tests.experiments.made import finished, shifted, text, tiny
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.judging import Asked, ask, command, experiments, prepared, verdict
from workbench.tabs.experiments.found import Experiments


@pytest.fixture
def context(tmp_path):
    runs, data = (tmp_path / name for name in ("runs", "data"))
    runs.mkdir()
    data.mkdir()
    return Context(runs.resolve(), (data.resolve(),), Jobs(runs, ["cpu"]))


def test_a_question_becomes_the_command_that_a_person_would_type(context):
    asked = Asked("tiny", "", {"train.steps": 60}, {"optimizer.lr": 0.003, "data.lanes": None}, 2)
    words = command(context, prepared(context, asked))[4:]
    assert words[:2] == ["preset:tiny", "preset:tiny"] and words[words.index("--replicates") + 1] == "2"
    base, variant = split_words([word for word in words[2:] if word.startswith(("--base.", "--variant."))])
    assert base == ["--train.steps=60"]
    assert variant == ["--train.steps=60", "--optimizer.lr=0.003", "--data.lanes=none"]


def test_of_mixtures_the_verdict_may_be_on_one_source(context):
    folders = [write_jsonl(context.data_roots[0] / name, documents=20) for name in ("docs", "code")]
    mixes = [[{"name": each.name, "source": str(each), "weight": float(weight)}
              for each, weight in zip(folders, weights, strict=True)] for weights in ((3, 1), (1, 1))]  # fmt: skip
    asked = Asked("tiny", "tiny", {"data.mix": mixes[0]}, {"data.mix": mixes[1]}, 1, source="code")
    words = command(context, prepared(context, asked))
    assert words[words.index("--source") + 1] == "code"
    assert "--source" not in command(context, prepared(context, replace(asked, source="")))
    with pytest.raises(UserError, match="--source web is no source of either mixture; there are: docs, code"):
        ask(context, replace(asked, source="web"))
    assert context.jobs.tasks.list() == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [(Asked("nope", "tiny"), "no run 'nope'"), (Asked("../x", "tiny"), "neither a run nor a preset"),
     (Asked("/etc/passwd.toml", "tiny"), "neither a run nor a preset"), (Asked("tiny"), "there is no variant"),
     (Asked("tiny", "", {}, {"optimizer.lrr": 1}), "did you mean optimizer.lr"),
     (Asked("tiny", "", {}, {"optimizer.lr": {}}), "is an object"),
     (Asked("tiny", "", {}, 3), "settings are an object"),
     (Asked("tiny", "", {}, {"data.source": "/etc"}), "outside the folders"),
     (Asked("tiny", "small"), "different tokenizers"), (Asked("tiny", "tiny", {}, {}, 0), "0 replicates"),
     (Asked("tiny", "tiny", {}, {}, "3"), "not a whole number"),
     (Asked("tiny", "", {}, {"optimizer.lr": 1e-3}, 3, "/etc/hosts"), "protocol '/etc/hosts' is not known"),
     (Asked("tiny", "", {}, {"optimizer.lr": 1e-3}, 3, "run:nope"), "no run 'nope'"),
     (Asked("tiny", "", {}, {"optimizer.lr": 1e-3}, source="code"), "is for mixtures"),
     (Asked("tiny", "", {}, {"optimizer.lr": 1e-3}, source=3), "source='3' is no name of a source"),
     (Asked("tiny", "", {}, {"optimizer.lr": 1e-3}, source="--json=/etc/x"), "is no name of a source")],
)  # fmt: skip
def test_what_may_not_be_asked_starts_nothing(context, asked, said):
    with pytest.raises(UserError) as told:
        ask(context, asked)
    assert said in str(told.value) and "\n" not in str(told.value)
    assert context.jobs.tasks.list() == [] and experiments(context) == []


def test_a_run_that_is_a_link_to_elsewhere_is_no_arm(context, tmp_path):
    finished(tmp_path / "elsewhere", "other", tiny())
    (context.runs / "other").symlink_to(tmp_path / "elsewhere" / "other")
    with pytest.raises(UserError, match="is a link to another folder"):
        ask(context, Asked("other", "tiny"))


def test_a_question_is_answered_by_a_task_and_its_looks_are_found_by_the_experiments_name(context):
    nll, targets = text()
    finished(context.runs, "mine", tiny(), nll, targets)
    finished(context.runs, "other", tiny("--optimizer.lr", "3e-3"), shifted(nll, targets, -0.05, 0.001, 1), targets)
    task, found = ask(context, Asked("mine", "other", replicates=1))
    assert Experiments(context).get(found.experiment).task.id == task.id, "the page shows it, with a way to stop it"
    until = time.monotonic() + 120
    while verdict(context, task.id)["state"] == "running" and time.monotonic() < until:
        time.sleep(0.1)
    told = verdict(context, task.id)
    assert (told["state"], told["error"], told["verdict"]["verdict"]) == ("done", "", "keep")
    assert told["words"].startswith("KEEP: other against mine (optimizer.lr 0.006 -> 0.003)")
    assert experiments(context) == [found.experiment]
    whole = verdict(context, found.experiment)
    assert (whole["questions"], whole["damaged_lines"], len(whole["looks"])) == (1, 0, 1)
    json.dumps(whole)
    for name in ("nope", "../x", "20260101-000000-00000000"):
        with pytest.raises(UserError):
            verdict(context, name)


def test_what_the_page_asks_is_what_the_command_asks(context):
    asked = prepared(context, Asked("tiny", "", {}, {"optimizer.lr": 0.003}))
    question = asked.question
    again = prepare(Question(question.base, question.variant, context.runs, 3))
    assert (again.experiment, again.variant.name) == (asked.experiment, asked.variant.name)
