"""Two models by source: each source's losses, their difference with its error, and results that have none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workbench.tabs.compare.made_up import Place, text_result
from workbench.tabs.compare.groups import bars
from workbench.tabs.compare.view import results_view

TARGETS = [100, 200, 300, 50, 60]


def result(model: str, losses: list[float], **more: Any) -> dict[str, Any]:
    """Three documents of docs and two of code, with these losses per target."""
    nll = [loss * count for loss, count in zip(losses, TARGETS, strict=True)]

    def of(first: int, last: int, sha: str) -> dict[str, Any]:
        loss = sum(nll[first:last]) / sum(TARGETS[first:last])
        return {"loss": loss, "stderr": 0.2, "bits_per_byte": loss / 3, "tokens": sum(TARGETS[first:last]),
                "bytes": 1000, "documents": last - first, "token_sha256": sha * 64}  # fmt: skip

    return text_result(model, sum(nll) / sum(TARGETS), by_document={"nll": nll, "targets": TARGETS},
                       by_source={"docs": of(0, 3, "d"), "code": of(3, 5, "c")}, **more)  # fmt: skip


def shown(place: Place) -> tuple[str, list[list[str]]]:
    (one,) = place.sets()
    markup = results_view(one)
    section = markup[markup.index('aria-label="By source"') :]
    rows = re.findall(r"<tr>(<td.*?)</tr>", section)
    return section, [[re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row)] for row in rows]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_source_has_both_losses_and_their_difference_document_by_document(place: Place) -> None:
    place.add(result("a", [3.0, 3.1, 2.9, 2.0, 2.0]))
    place.add(result("b", [3.2, 3.3, 3.1, 1.5, 1.7]))
    _, rows = shown(place)
    assert [row[0] for row in rows] == ["docs", "code"]
    best, other = bars(place.sets()[0])
    assert best.result and best.result.loss and other.result and other.result.loss
    for source, targets in (("docs", TARGETS[:3]), ("code", TARGETS[3:])):
        own = best.result.loss.sources[source].documents
        assert own is not None and np.array_equal(own.targets, targets), "its own documents' sums"
    assert rows[0][4] == "+0.2000 ± 0.0000", "the same on every document: far below the error of either, 0.2"
    assert rows[1][4].startswith("-0.39") and "± 0.0" in rows[1][4], "and the other is better on code"


def test_without_the_sums_of_documents_the_errors_are_those_of_independent_results(place: Place) -> None:
    for name, step in (("a", 0.0), ("b", 0.5)):
        record = result(name, [3.0 + step] * 3 + [2.0 + step] * 2)
        place.add({key: value for key, value in record.items() if key != "by_document"})
    _, rows = shown(place)
    assert rows[0][4] == "+0.5000 ± 0.2828, not clear"


def test_results_without_sources_are_named_and_other_documents_are_not_compared(place: Place) -> None:
    place.add(result("a", [3.0] * 5))
    place.add(text_result("<b>", 3.5))
    section, rows = shown(place)
    assert "Not known by source: &lt;b&gt;." in section and len(rows[0]) == 3
    changed = result("c", [3.2] * 5)
    changed["by_source"]["code"]["token_sha256"] = "e" * 64
    del changed["by_source"]["docs"]
    place.add(changed)
    _, rows = shown(place)
    assert [row[4] for row in rows] == ["not known of both", "of other documents: they do not compare"]


def test_results_of_one_source_have_no_such_table(place: Place) -> None:
    place.add(text_result("a", 3.0))
    place.add(text_result("b", 3.1, by_source={"x": "damaged", "y": {"loss": "no"}}))
    assert "By source" not in results_view(place.sets()[0])
