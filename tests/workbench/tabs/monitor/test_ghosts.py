"""Imported logs in Monitor: told apart everywhere, nothing that needs weights is offered, brought in by the page."""

from __future__ import annotations

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from tests.experiments.test_importing import LOGS
from tests.workbench.conftest import make_run
from tests.workbench.tabs.data.data_runs import context_of
from workbench.charts.points import points
from workbench.evaluations.start import protocol_of, protocols
from workbench.live import News
from workbench.models import choices
from workbench.tabs.monitor.bring import MOST_BYTES, imported
from workbench.tabs.monitor.view import Monitor, look


@pytest.fixture
def context(tmp_path):
    made = context_of(tmp_path)
    (tmp_path / "root" / "log.csv").write_text(LOGS["log.csv"])
    return made


def bring(context, log="log.csv", name="ghost", protocol="", tokenizer="", tokens=""):
    return imported(context, log, name, protocol, tokenizer, tokens)


def test_the_page_imports_a_log_of_the_roots_and_the_list_marks_it(context):
    assert bring(context, tokens="1,000") == "ghost" and bring(context, name="") == "log"
    make_run(context.runs, "own", 40)
    monitor = Monitor.over(context)
    rows = {row["name"]: row for row in monitor.index.changes()["rows"]}
    assert (rows["ghost"]["ghost"], rows["own"]["ghost"]) == ("protocol unknown", "")
    assert rows["ghost"]["val"] is None, "a loss of an unknown protocol is in no column of validation"
    (reply,) = points(context, {"wants": [{"run": "ghost", "cursor": None}], "columns": ["loss"]})
    assert reply["ghost"] == "protocol unknown" and reply["rows"] == 120
    assert [value for _, value in choices(context) if "ghost" in value] == []


def test_its_head_offers_nothing_that_needs_weights(context):
    bring(context, protocol="edu-seed <b>")
    news = News()
    look(Monitor.over(context), {"runs": ["ghost"], "focus": "ghost"}, news)
    head, enabled = str(news.changed["markup"]["head"]), news.changed["data"]["enabled"]
    assert "imported" in head and "edu-seed &lt;b&gt;" in head and "Find its ripples" in head
    for offered in ("wb-do-sample", "wb-do-compare", "wb-do-train", "export-config", "wb-do-resume"):
        assert offered not in head, offered
    assert not any(enabled[f"wb-do-{name}"] for name in ("sample", "compare", "train", "resume", "save"))
    assert enabled["wb-do-ripples"] and enabled["wb-do-star"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"log": ""}, "give a path"),
        ({"log": "/etc/passwd"}, "outside the folders"),
        ({"log": "none.csv"}, "cannot be read"),
        ({"name": "../x"}, "not allowed"),
        ({"tokens": "-1"}, "tokens per step"),
        ({"tokens": "x"}, "tokens per step"),
        ({"protocol": "x" * 99}, "--protocol"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence_and_leaves_nothing(context, asked, said):
    with pytest.raises(UserError, match=said):
        bring(context, **asked)
    assert not (context.runs / "ghost").exists()


def test_a_large_log_is_left_to_the_command_line_and_a_read_only_page_imports_nothing(context, tmp_path):
    with open(tmp_path / "root" / "large.csv", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(UserError, match="runs import takes larger ones"):
        bring(context, log="large.csv")
    closed = context_of(tmp_path, read_only=True)
    with pytest.raises(UserError, match="--read-only"):
        bring(closed)


def test_compare_neither_begins_with_it_nor_offers_its_text(context):
    make_run(context.runs, "own", 40)
    bring(context)
    assert [value for _, value in protocols(context) if value.startswith("run:")] == ["run:own"]
    assert context.runs_at_hand(["ghost", "own"], weights=True) == ["own"]
    assert context.runs_at_hand(["ghost", "own"]) == ["ghost", "own"] and context.runs_at_hand([]) == ["ghost"]
    with pytest.raises(UserError, match="is an imported log"):
        protocol_of(context, "run:ghost")


def test_compare_and_sample_refuse_it(context):
    bring(context)
    for refuse in (lambda: context.model("ghost"), lambda: context.configuration(RunDir(context.runs / "ghost"))):
        with pytest.raises(UserError, match="is an imported log"):
            refuse()
