"""Which tokenizer the tab opens with: that of the run in Monitor, unless somebody has chosen one."""

from __future__ import annotations

import json

import pytest

from tests.workbench.conftest import make_run
from workbench.context import Context
from workbench.tabs.tokenizer.tab import of_monitor

BEGIN = ("gpt2", "gpt2", ["gpt2:8192"])


@pytest.fixture
def context(tmp_path):
    make_run(tmp_path / "runs", "own", 5, settings=("--data.tokenizer", "gpt2:1000"))
    make_run(tmp_path / "runs", "plain", 5, settings=("--data.tokenizer", "gpt2"))
    return Context(tmp_path / "runs", (tmp_path,), jobs=None)


@pytest.mark.parametrize("address", [{"focus": "own"}, {"runs": "own,plain"}, {"runs": "plain", "focus": "own"}])
def test_the_runs_tokenizer_stands_beside_gpt2(context, address):
    assert of_monitor(context, json.dumps(address), *BEGIN) == ("gpt2:1000", "gpt2:1000", ["gpt2"])


def test_another_run_later_is_followed_and_a_choice_stays(context):
    after = ("gpt2:1000", "gpt2:1000", ["gpt2"])
    assert of_monitor(context, json.dumps({"focus": "plain"}), *after) == BEGIN
    chosen = of_monitor(context, json.dumps({"focus": "plain"}), "gpt2:1000", "gpt2:2048", [])
    assert isinstance(chosen, dict), "nothing changes"


@pytest.mark.parametrize("address", [{}, {"focus": "gone"}, {"focus": "own", "tokenizer": "gpt2:4096"},
                                     {"focus": "own", "text": "a"}, {"focus": "../own"}])  # fmt: skip
def test_without_a_run_or_with_something_asked_for_nothing_changes(context, address):
    assert isinstance(of_monitor(context, json.dumps(address), *BEGIN), dict)
