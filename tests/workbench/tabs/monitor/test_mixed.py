"""The table of runs names a mixture in short, where it names the one source of other runs."""

from __future__ import annotations

from workbench.tabs.monitor.index import spread

MIX = [{"name": "docs", "source": "pydocs", "weight": 3.0}, {"name": "code", "source": "/data/code"}]


def test_the_column_of_the_text_says_names_and_shares_of_a_mixture() -> None:
    told = spread({"one": {"data.source": "pydocs"}, "mixed": {"data.mix": MIX}, "unread": {}})
    assert told["differ"]["data.source"] == ["pydocs", "docs 75 %, code 25 %", None]
    assert told["differ"]["data.mix"] == [None, "docs: pydocs, code: /data/code", None]


def test_a_damaged_mixture_is_shown_as_it_is() -> None:
    for damaged in ([{"name": 7}], ["x"], "text"):
        told = spread({"one": {"data.mix": damaged}, "two": {"data.source": "a"}})
        assert told["differ"]["data.source"] == [None, "a"]
