"""Training a tokenizer from the page: what is refused, stopped and started again, listed, and handed to a new run."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from functools import partial

import pytest

from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from tests.workbench.tabs.data.data_runs import HOSTILE, context_of, slow_text
from workbench.live import answered
from workbench.tabs.tokenizer import tab, training
from workbench.tabs.tokenizer.trained import (
    BESIDE_RUNS,
    choices,
    new_place,
    own_folder,
    places,
    trained,
    trained_list,
)
from workbench.tabs.tokenizer.training import Order

ORDER = Order("words.txt", "text", 300, "gpt4", "the first gigabyte", None, "", BESIDE_RUNS, "mine")


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    context = context_of(tmp_path)
    dice = random.Random(0)
    words = ["".join(dice.choice("abcdefgh") for _ in range(dice.randrange(2, 9))) for _ in range(300)]
    text = "\n\n".join(" ".join(dice.choices(words, k=60)) for _ in range(200))
    (context.data_roots[0] / "words.txt").write_text(text)
    return context


def order(**changes):
    return dataclasses.replace(ORDER, **changes)


def until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


def ended(context, task):
    return until(lambda: (now := context.jobs.tasks.get(task.id)).running is False and now)


def test_trained_listed_looked_at_and_used(context):
    task = ended(context, training.start(context, order(specials="<|user|>, <|bot|>")))
    assert (task.state, task.error) == ("done", "")
    found = trained(context)
    assert [t.name for t in found] == ["mine"] and found[0].path == own_folder(context) / "mine"
    assert found[0].report["vocab_size"] == 300 == load_tokenizer(str(found[0].path)).vocab_size
    assert list(found[0].report["special_tokens"]) == ["<|endoftext|>", "<|user|>", "<|bot|>"]
    assert ("mine (300 ids)", str(found[0].path)) in choices(found)
    assert "mine" in trained_list(found) and "bytes per token" in training.listed([task])
    chosen = str(found[0].path)
    assert tab.act(context, {"act": "use", "id": chosen}) == {"tokenizer": chosen}
    assert tab.act(context, {"act": "look", "id": chosen}) == chosen


def test_stopped_leaves_nothing_and_starts_again(context):
    (context.data_roots[0] / "large.txt").write_text(slow_text())
    task = training.start(context, order(source="large.txt", vocab_size=60_000))
    until(lambda: context.jobs.tasks.get(task.id).progress)
    assert "wb-going" in training.listed(context.jobs.tasks.list(training.KIND))
    with pytest.raises(UserError, match="being trained already"):
        training.start(context, order())
    with pytest.raises(UserError, match="still running"):
        training.again(context, task.id)
    training.stop(context, task.id)
    assert ended(context, task).state == "stopped"
    assert not list(own_folder(context).glob("*")) and trained(context) == []
    second = training.again(context, task.id)
    assert second.argv[1:] == task.argv[1:] and second.running
    training.stop(context, second.id)
    assert ended(context, second).state == "stopped"
    training.forget(context, second.id)
    assert [t.id for t in context.jobs.tasks.list(training.KIND)] == [task.id]


def test_a_text_too_small_for_the_size_fails_with_its_reason_and_leaves_nothing(context):
    task = ended(context, training.start(context, order(vocab_size=50_000)))
    assert task.state == "failed" and "--vocab-size smaller" in task.error
    assert "vocabulary size smaller" in training.listed([task]) and "--vocab-size" not in training.listed([task])
    assert trained(context) == []


BAD = {
    "name with a path": ({"name": "../mine"}, "name '../mine' is not allowed"),
    "no name": ({"name": ""}, "name '' is not allowed"),
    "name like a file": ({"name": "a.json"}, "not ending in .json"),
    "name with a command": ({"name": "a;touch x"}, "is not allowed"),
    "foreign place": ({"place": "/etc"}, "is not one of this workbench's"),
    "foreign source": ({"source": "/etc/passwd"}, "outside the folders"),
    "source above": ({"source": "../words.txt"}, "outside the folders"),
    "no source": ({"source": "nothing.txt"}, "does not exist"),
    "size too small": ({"vocab_size": 12}, "12"),
    "size too large": ({"vocab_size": 10**9}, "1000000000"),
    "size no number": ({"vocab_size": None}, "vocabulary size: None is not a number"),
    "size not whole": ({"vocab_size": 300.5}, "not a whole number"),
    "pattern": ({"pattern": "gpt9"}, "pattern"),
    "budget": ({"budget": "all"}, "budget 'all' is not known"),
    "no amount": ({"budget": "documents"}, "is not a number"),
    "share": ({"budget": "share of all documents (0 to 1)", "amount": 3}, "not a share"),
    "special like a word": ({"specials": "hello"}, "could be a word"),
    "special twice": ({"specials": "<|endoftext|>"}, "is there already"),
    "too many specials": ({"specials": " ".join(f"<|{n}|>" for n in range(99))}, "at most 64"),
    "seed": ({"seed": -1}, "seed -1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_said_beside_the_form_and_start_nothing(name, context):
    changes, words = BAD[name]
    assert words in training.check(context, order(**changes)).replace("&#x27;", "'")
    said = tab.start(context, order(**changes)).replace("&#x27;", "'")
    assert words in said and "--" not in said.replace("--data-root", "")
    assert context.jobs.tasks.list() == [] and not own_folder(context).exists()


def test_the_command_shown_is_the_command_started(context):
    made = order(budget="documents", amount=5, specials="<|x|>")
    shown = training.check(context, made)
    task = ended(context, training.start(context, made))
    for word in ("tokenizer train", "--documents 5", "--vocab-size 300", f"--out {own_folder(context) / 'mine'}"):
        assert word in shown and word in " ".join(task.argv)
    assert trained(context)[0].report["documents"] == 5


def test_a_name_that_is_taken_is_refused(context):
    folder = own_folder(context) / "mine"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is there already"):
        training.start(context, order())


def test_a_link_in_the_tokenizers_place_is_refused(context, tmp_path):
    own_folder(context).mkdir(parents=True)
    (own_folder(context) / "mine").symlink_to(tmp_path)
    with pytest.raises(UserError, match="outside the folders"):
        new_place(context, BESIDE_RUNS, "mine")


def test_a_data_root_is_a_place_too(context):
    root = str(context.data_roots[0])
    assert places(context) == [BESIDE_RUNS, root]
    assert new_place(context, root, "mine") == context.data_roots[0] / "mine"


def test_read_only_changes_nothing(context):
    closed = dataclasses.replace(context, read_only=True)
    for act in (training.stop, training.again, training.forget):
        with pytest.raises(UserError, match="read-only"):
            act(closed, "x")
    with pytest.raises(UserError, match="read-only"):
        training.start(closed, order())


def test_tasks_of_other_kinds_are_not_started_again_as_trainings(context):
    other = ended(context, context.jobs.tasks.start("eval", ["true"], label="other"))
    with pytest.raises(UserError, match="not the training of a tokenizer"):
        training.again(context, other.id)


def test_the_roots_are_looked_through_when_the_tab_is_opened_and_when_a_training_ended(context, monkeypatch):
    walks = []
    monkeypatch.setattr(tab, "trained", lambda context: walks.append(1) or [])
    view, had = partial(tab.look, context), {}

    def news(opened=0):
        found = answered(view, {"asked": {"opened": opened}, "digests": had})
        had.update(found["digests"])
        return found

    first = news()
    assert first["markup"]["tasks"] == "" and "Train one" in first["markup"]["trained"]
    offered = [value for _, value in first["fields"]["tokenizer"]["choices"]]
    assert offered[0] == "gpt2" and "gpt2:8192" in offered and first["fields"]["beside"] == first["fields"]["tokenizer"]
    assert not any(news()[kind] for kind in ("markup", "fields", "data")) and len(walks) == 1
    assert not news(opened=1)["markup"] and len(walks) == 2
    task = ended(context, context.jobs.tasks.start(training.KIND, ["true"], label="x"))
    assert task.label in news(1)["markup"]["tasks"] and len(walks) == 3
    del had["trained"]
    assert "trained" in news(1)["markup"] and len(walks) == 4, "its place was put up anew"


def test_a_report_with_markup_shows_as_text(context):
    folder = own_folder(context) / "odd"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_report.json").write_text(json.dumps({"source": HOSTILE, "bytes": "x"}))
    shown = trained_list(trained(context))
    assert "<img" not in shown and "&lt;img" in shown and "n/a" in shown


def test_without_any_it_says_what_to_do(context):
    assert training.listed([]) == "" and "Train one" in trained_list([]) and "data-tok-open" in trained_list([])
    for act in ("use", "look"):
        with pytest.raises(UserError, match="outside the folders"):
            tab.act(context, {"act": act, "id": "/etc"})
    with pytest.raises(UserError, match="allowed: stop, again, forget"):
        tab.act(context, {"act": "burn", "id": "x"})
