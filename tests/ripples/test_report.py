"""The report: fixed keys, valid JSON, a page without a script that is readable and safe."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from mygpt2.ripples import analyse, make_log
from mygpt2.ripples.figures import thinned
from mygpt2.ripples.html import report_html
from mygpt2.ripples.layout import Layout
from mygpt2.ripples.report import Report
from mygpt2.ripples.text import report_text
from tests.ripples.made import TOKENS, descent, log_of, noise, wave

KEYS = {
    "significant", "period_steps", "period_tokens", "period_ci", "amplitude", "amplitude_ci", "p_value",
    "share_of_file", "candidates", "repetition", "forecast", "verdict",
}  # fmt: skip
EVIL = '<script>alert(1)</script>"&\x1b[31m'


@pytest.fixture(scope="module")
def report():
    n = 4000
    log = log_of(descent(n) + noise(n, 1) + wave(n, 80, 0.03), layout=Layout(file_tokens=240 * TOKENS, files=5))
    return analyse(replace(log, name=EVIL, notes=(EVIL,)))


def test_the_fixed_keys_are_there_and_all_is_json(report) -> None:
    found = report.to_json()
    assert found.keys() >= KEYS
    assert json.loads(json.dumps(found, allow_nan=False)) == found and Report.of(found) == report
    assert report.period_ci[0] < report.period_tokens < report.period_ci[1]
    assert report.amplitude_ci[0] < report.amplitude < report.amplitude_ci[1]
    assert report.share_of_file == pytest.approx(1 / 3, rel=0.02)
    assert {"name", "period_tokens", "period_steps", "p_value", "amplitude", "fits"} <= report.candidates[0].keys()
    assert {"order", "amplitude", "memory_bytes"} <= report.forecast[0].keys()


def test_a_report_that_says_nothing_has_the_same_keys(report) -> None:
    empty = analyse(make_log("x", [], []))
    assert empty.to_json().keys() == report.to_json().keys() and not empty.can_say and empty.verdict


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_runs_nothing_fetches_nothing_and_escapes_names(report) -> None:
    page = report_html(report)
    tags = Tags(page).tags
    assert not {tag for tag, _ in tags} & {"script", "img", "link", "iframe", "object", "a"}
    assert not any(name.startswith("on") or name in ("href", "src") for _, attrs in tags for name in attrs)
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page
    assert "default-src 'none'" in page and "prefers-color-scheme:dark" in page
    assert sum(tag == "svg" for tag, _ in tags) >= 6
    assert not re.search(r"\b(nan|inf|None)\b", re.sub(r"<style>.*?</style>", "", page, flags=re.S))


def test_the_text_has_no_control_characters(report) -> None:
    assert "\x1b" not in report_text(report) and "candidates" in report_text(report)


def test_figures_are_thinned_and_keep_the_extremes() -> None:
    x = np.arange(100_000.0)
    y = np.zeros(100_000)
    y[77_777] = 5.0
    shown_x, shown_y = thinned(x, y)
    assert len(shown_x) <= 1700 and max(shown_y) == 5.0 and shown_x[int(np.argmax(shown_y))] == 77_777


def test_every_figure_has_what_it_draws(report) -> None:
    drawn = report.figures
    spectrum = drawn["periodogram"]
    peak = spectrum["period_steps"][int(np.argmax(np.array(spectrum["amplitude"]) / np.array(spectrum["level"])))]
    assert peak == pytest.approx(80, rel=0.02)
    assert len(spectrum["amplitude"]) == len(spectrum["level"]) == len(spectrum["null"])
    sliding = drawn["sliding"]
    assert len(sliding["amplitude"]) == len(sliding["window_steps"]) > 10
    assert all(len(row) == len(sliding["period_steps"]) - 1 for row in sliding["amplitude"])
    folded = drawn["folded"]
    assert max(folded["fit"]) == pytest.approx(0.03, rel=0.3) and len(folded["mean"]) == len(folded["phase"])
    lag = drawn["autocorrelation"]
    assert len(lag["lag_steps"]) == len(lag["value"]) == len(lag["without_line"])
