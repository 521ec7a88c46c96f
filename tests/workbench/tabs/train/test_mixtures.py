"""A mixture in the form: one text, problems at its sources, what a run reads of each, and a name for the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.config.fields import toml_value
from mygpt2.errors import UserError
from tests.workbench.tabs.data.data_runs import context_of
from tests.workbench.tabs.train.test_train_handlers import Form
from tests.workbench.tabs.train.test_train_tab import draft
from workbench import draft as drafts
from workbench import forms
from workbench.context import Context
from workbench.live import News
from workbench.survey.passes import Foretold, mixture_problems
from workbench.survey.sample import Survey
from workbench.survey.surveys import Look
from workbench.tabs.train import fill, look, show

HELD = Survey(kind="jsonl", files=1, size=4000, documents=100, counted=True, tokens=10_000, bytes_per_token=4.0,
              held_out=10, pieces=0, looked=100, beginnings=("<b>once</b>",))  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = context_of(tmp_path)
    for name in ("edu", "code"):
        lines = [json.dumps({"text": f"{name} {number} " * 40}) for number in range(60)]
        (made.data_roots[0] / f"{name}.jsonl").write_text("\n".join(lines))
    return made


def mix(*sources: dict[str, Any]) -> str:
    return toml_value(list(sources))


EDU = {"name": "edu", "source": "edu.jsonl", "weight": 3.0}
CODE = {"name": "code", "source": "code.jsonl", "weight": 1.0}


def test_a_mixture_is_checked_planned_and_started_like_one_source(context: Context) -> None:
    given = draft("mixed", data__mix=mix(EDU, CODE))
    checked = drafts.check(context, given)
    assert not checked.reasons and checked.config
    root = context.data_roots[0]
    assert [source.source for source in checked.config.data.mix] == [str(root / "edu.jsonl"), str(root / "code.jsonl")]
    assert "--data.mix" in checked.command and "--data.source" not in checked.command
    job = drafts.launch(context, given, at_once=False)
    loaded = fill.from_job(context, job)
    assert forms.mixture(loaded.values["data.mix"]) == [
        {**EDU, "source": str(root / "edu.jsonl")}, {**CODE, "source": str(root / "code.jsonl")},
    ]  # fmt: skip


def test_a_file_of_settings_and_a_link_bring_a_mixture(context: Context, tmp_path: Path) -> None:
    config = load_config("tiny", None, {"data.mix": mix(EDU, CODE)})
    (tmp_path / "mixed.toml").write_text(to_toml(config))
    assert forms.mixture(forms.from_toml(tmp_path / "mixed.toml").values["data.mix"]) == [EDU, CODE]
    word = 'data.mix=[{name="a",source="edu.jsonl"}]'
    found = fill.from_request(context, {"settings": word}, forms.preset_texts("tiny"), "tiny")
    assert found and forms.mixture(found[0].values["data.mix"]) == [{"name": "a", "source": "edu.jsonl"}]
    alone = fill.from_request(context, {"train_on": "edu.jsonl"}, found[0].values, "tiny")
    assert alone and alone[0].values["data.mix"] == "[]", "a source chosen elsewhere is read alone"


def test_the_one_source_counts_for_nothing_beside_a_mixture(context: Context) -> None:
    checked = drafts.check(context, draft(data__mix=mix(EDU, CODE), data__source="../secret"))
    assert not checked.reasons and checked.config and checked.config.data.source == "pydocs"


def test_what_is_wrong_stands_at_its_source(tmp_path: Path) -> None:
    form = Form(tmp_path)
    bad = [{"name": "a b", "source": "pydocs", "weight": 1.0}, {"name": "out", "source": "/etc/passwd", "weight": 1.0},
           {"name": "none", "source": "gone.jsonl", "weight": -1.0}]  # fmt: skip
    form["data.mix"] = mix(*bad)
    told = json.loads(form.refresh()[form.parts.shown])
    assert [len(told["sources"].get(str(number), ())) for number in range(3)] == [0, 1, 1], "paths first"
    assert "outside the folders" in told["sources"]["1"][0] and "does not exist" in told["sources"]["2"][0]
    assert "data.mix" not in told["notes"] or "outside" not in told["notes"]["data.mix"], "not said twice"
    form["data.mix"] = mix(bad[0], {**bad[2], "source": "pydocs"})
    told = json.loads(form.refresh()[form.parts.shown])
    assert "name = 'a b'" in told["sources"]["0"][0] and "weight = '-1.0'" in told["sources"]["1"][0]
    form["data.mix"] = mix({**EDU, "source": "pydocs"}, {**EDU, "source": "pydocs"})
    told = json.loads(form.refresh()[form.parts.shown])
    assert "names edu more than once" in told["notes"]["data.mix"] and not told["sources"]
    form["data.mix"] = mix({**EDU, "source": "pydocs"}, {**CODE, "source": " "})
    told = json.loads(form.refresh()[form.parts.shown])
    assert told["sources"] == {"1": [forms.EMPTY_SOURCE]}


def test_a_run_is_called_after_its_mixture_until_somebody_names_it(tmp_path: Path) -> None:
    form = Form(tmp_path)
    form.refresh()
    form["data.mix"] = mix({**EDU, "source": "pydocs"}, {**CODE, "source": "pydocs"})
    form.refresh()
    assert form["run"] == "edu-code-1"
    form["data.mix"] = "[]"
    form.refresh()
    assert form["run"] == "tiny-1"


def test_each_source_says_what_the_run_reads_of_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {**forms.texts(load_config("tiny")), "data.mix": mix(EDU, {**CODE, "max_epochs": 9.0}, {"name": "x"})}
    texts |= {"train.steps": "100", "train.batch_tokens": "800"}
    asked = []

    def ask(data: Any, begin: bool = True) -> Look:
        asked.append((Path(data.source).name, begin))
        return Look("done", HELD)

    monkeypatch.setattr(context.surveys, "ask", ask)
    view, news = look.View(context), News()
    view({"values": [texts[name] for name in (*look.SOURCE, *look.LENGTH)]}, news)
    shown = news.changed["markup"]
    assert asked == [("edu.jsonl", True), ("code.jsonl", True)] and shown["look"] == shown["look-2"] == ""
    assert "<b>48k</b> tokens of this run, 5.3 passes" in shown["look-0"] and "teaches little" in shown["look-0"]
    assert "<b>16k</b> tokens of this run, 1.8 passes" in shown["look-1"] and "teaches" not in shown["look-1"]
    assert "<b>once" not in shown["look-0"] and "&lt;b&gt;once" in shown["look-0"]
    with pytest.raises(UserError, match="not in the mixture"):
        view.act("look", "7", texts)


def test_a_source_that_would_be_read_too_often_keeps_start_off(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context.surveys, "found", lambda data: HELD)
    limits = {"data__mix": mix(EDU, {**CODE, "max_epochs": 2.0}), "train__steps": "140"}
    checked = drafts.check(context, draft(**limits))
    (line,) = show.by_source(checked.problems["data.mix"])["1"]
    assert "read it 31.9 times; allowed: max_epochs = 2;" in line and not checked.command
    with pytest.raises(UserError, match="max_epochs"):
        drafts.launch(context, draft(**limits), at_once=True)
    config = load_config("tiny", None, {"data.mix": limits["data__mix"], "train.steps": "8"})
    assert not mixture_problems(context.surveys, config)
    assert Foretold.of(replace(HELD, tokens=0), config.data, 100.0).passes is None


def test_of_a_source_that_nobody_looked_into_its_card_tells_the_passes(context: Context) -> None:
    hub = {"name": "web", "source": "fineweb-edu-10BT", "max_epochs": 0.00001}
    texts = {**forms.texts(load_config("tiny")), "data.mix": mix({**EDU, "source": "pydocs"}, hub)}
    news = News()
    look.View(context)({"values": [texts[name] for name in (*look.SOURCE, *look.LENGTH)]}, news)
    shown = news.changed["markup"]["look-1"]
    assert "Look into it" in shown and "tokens of this run, less than 0.01 passes" in shown and "the card of" in shown
    checked = drafts.check(context, draft(data__mix=mix({**EDU, "source": "pydocs"}, hub)))
    (line,) = show.by_source(checked.problems["data.mix"])["1"]
    assert "times (quoted: the card of" in line
