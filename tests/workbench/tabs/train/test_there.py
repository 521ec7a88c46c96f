"""The target menu of the Train tab: a cluster's fields and file, and that a run is handed over once."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mygpt2.launch.handed import TITLES, read
from mygpt2.run_dir import RunDir, state_of
from tests.launch.programs import Put, asked, putting
from tests.workbench.tabs.train.test_train_handlers import Form
from workbench.draft import RUN
from workbench.elsewhere import FIELDS, TARGET
from workbench.tabs.train import first, handlers, there
from workbench.tabs.train.keep import from_kept


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    return putting(tmp_path / "bin", monkeypatch)


@pytest.fixture
def form(tmp_path: Path) -> Form:
    return Form(tmp_path)


def shown(form: Form, updates: dict[Any, Any]) -> str:
    return str(updates[form.parts.command])


def test_choosing_a_cluster_shows_its_fields_and_its_file(form: Form, put: Put) -> None:
    put("sbatch", "")
    updates = form.refresh()
    parts = form.parts
    assert (updates[parts.there].visible, updates[parts.machine].visible) == (False, True)
    assert "mygpt2.launch" in shown(form, updates)
    form[TARGET] = "slurm"
    form["launch.nodes"], form["launch.nproc"], form["launch.time"] = "2", "4", "12h"
    form["launch.option"] = "account=me\r\n\nqos=a b; c"
    updates = form.refresh()
    assert (updates[parts.there].visible, updates[parts.machine].visible) == (True, False)
    text = shown(form, updates)
    assert "#SBATCH --nodes=2" in text and "#SBATCH --account=me" in text and "--qos=&quot;a b; c&quot;" in text
    assert "--nproc 4" in text and "data-copy" in text and "8 processes on 2 nodes" in str(updates[parts.line])
    assert updates[parts.submit].interactive and updates[parts.submit].value == "Submit to SLURM"
    assert not (form.context.runs / "_launch").exists(), "looking writes nothing"
    saved = json.loads(there.download(form.context, parts, handlers.draft_of(parts, form.data)))
    assert saved["name"] == "tiny-1.sbatch" and saved["text"].startswith("#!/usr/bin/env bash\n")


WRONG = [
    ("slurm", "nodes", "x", "Nodes &#x27;x&#x27; is not a whole number from 1 to 1,000,000"),
    ("slurm", "nodes", "999999999999", "is not a whole number"),
    ("slurm", "time", "soon", "is not a time; for example 12:00:00"),
    ("slurm", "partition", "a;b", "is not a partition&#x27;s name"),
    ("slurm", "option", "a=1\nb", "&#x27;b&#x27; is not NAME=VALUE on one line"),
    ("slurm", "option", 'comment="', "leave out double quotes"),
    ("slurm", "env", "HF_TOKEN=x", "use --secret HF_TOKEN"),
    ("slurm", "workdir", "here", "is not a whole path"),
    ("slurm", "gpu_type", "H100", "Kind of GPU needs --gpus"),
    ("kubernetes", "image", "", "Container image is needed by Kubernetes"),
    ("kubeflow", "volume", "x", "is not WHAT:PATH with a whole path"),
]


def test_what_is_wrong_stands_at_its_field_and_nothing_can_be_handed_over(form: Form, put: Put) -> None:
    put("sbatch", "")
    for target, field, value, words in WRONG:
        form[TARGET] = target
        form[f"launch.{field}"] = value
        updates = form.refresh()
        note = form.note(updates, f"launch.{field}")
        assert words in note and 'role="alert"' in note
        assert not updates[form.parts.submit].interactive and not updates[form.parts.save_file].interactive
        assert "Submit is off" in str(updates[form.parts.reasons])
        name, refused = handlers.hand_over(form.context, form.parts, form.data)
        assert name == "" and list(refused) == [form.parts.handing]
        form[f"launch.{field}"] = ""
    form[TARGET], form["launch.gpus"] = "skypilot", "8"
    assert "Kind of GPU is needed with --gpus" in form.note(form.refresh(), "launch.gpu_type")
    assert not (form.context.runs / "_launch").exists()


def test_a_batch_that_the_nodes_cannot_share_is_told_before_anything_is_handed_over(form: Form, put: Put) -> None:
    form[TARGET], form["launch.nodes"], form["launch.nproc"] = "slurm", "3", "1"
    updates = form.refresh()
    assert "is not a multiple of 3 ranks" in form.note(updates, "train.batch_tokens")
    assert "see" in form.note(updates, "launch.nodes") and not updates[form.parts.submit].interactive


def test_what_does_not_go_with_an_engine_is_left_out_and_comes_back(form: Form, put: Put) -> None:
    form["launch.image"], form["launch.volume"], form["launch.partition"] = "here/x:1", "c:/runs", "long"
    texts = {}
    for target in TITLES:
        form[TARGET] = target
        texts[target] = shown(form, form.refresh())
    assert "here/x:1" not in texts["slurm"] and "--partition=long" in texts["slurm"]
    for target in ("skypilot", "kubernetes", "kubeflow"):
        assert "here/x:1" in texts[target] and "/runs" in texts[target] and "long" not in texts[target]


def test_an_engine_that_is_not_here_gets_its_file_by_hand(form: Form, put: Put) -> None:
    form[TARGET] = "slurm"
    updates = form.refresh()
    assert not updates[form.parts.submit].interactive and updates[form.parts.save_file].interactive
    assert "There is no sbatch where this workbench runs: copy or download" in str(updates[form.parts.handing])


def test_of_two_clicks_one_hands_the_run_over(form: Form, put: Put, tmp_path: Path) -> None:
    put("sbatch", "sleep 0.5; echo 17")
    put("squeue", f"echo '17|PENDING|Priority|{form.context.runs}/_launch/tiny-1.sbatch'")
    form[TARGET] = "slurm"
    form.refresh()
    found: list[tuple[str, dict[Any, Any]]] = []
    clicks = [
        threading.Thread(target=lambda: found.append(handlers.hand_over(form.context, form.parts, dict(form.data))))
        for _ in range(2)
    ]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    assert sorted(name for name, _ in found) == ["", "tiny-1"] and len(asked(tmp_path / "bin", "sbatch")) == 1
    taken = next(updates for name, updates in found if name)
    form.apply(taken)
    assert form[RUN] == "tiny-2", "the form is ready for the next"
    record = read(form.context.runs, "tiny-1")
    assert record is not None and record.job == "17"
    assert state_of(RunDir(form.context.runs / "tiny-1")).state == "queued"
    assert "tiny-1 is handed over" in first.card(form.context), "and does not train yet"


def test_the_engines_own_words_stay_on_the_page(form: Form, put: Put) -> None:
    put("sbatch", "echo 'sbatch: error: <b>no</b> such account' >&2; exit 1")
    form[TARGET] = "slurm"
    name, updates = handlers.hand_over(form.context, form.parts, form.data)
    assert name == "" and "sbatch: error: &lt;b&gt;no&lt;/b&gt; such account" in str(updates[form.parts.handing])
    assert not (form.context.runs / "tiny-1").exists()


def test_a_page_that_only_reads_hands_nothing_over(form: Form, put: Put, tmp_path: Path) -> None:
    put("sbatch", "echo 17")
    form[TARGET] = "slurm"
    context = type(form.context)(**{**vars(form.context), "read_only": True})
    updates = handlers.refresh(context, form.parts, form.data)
    assert "--read-only" in str(updates[form.parts.reasons])
    name, _ = handlers.hand_over(context, form.parts, form.data)
    assert name == "" and asked(tmp_path / "bin", "sbatch") == []


def test_where_and_what_for_is_kept_over_a_reload(form: Form, put: Put) -> None:
    form[TARGET], form["launch.nodes"], form["launch.env"] = "slurm", "2", "A=1\nB=2"
    kept = json.dumps(json.loads(form.refresh()[form.parts.shown])["form"])
    other = handlers.restore(form.context, form.parts, kept)
    own = form.parts.fields.inputs
    assert [other[own[name]] for name in (TARGET, "launch.nodes", "launch.env")] == ["slurm", "2", "A=1\nB=2"]
    damaged = json.loads(kept) | {"launch": {TARGET: "x", "launch.nodes": 3, "other": "y"}}
    found = from_kept(json.dumps(damaged))
    assert found is not None and found.launch == {}


def test_every_option_of_the_command_line_has_a_field(form: Form) -> None:
    from mygpt2.launch.asked import FIELDS as OPTIONS

    assert sorted(each.option for each in FIELDS) == sorted(OPTIONS)
    assert all(isinstance(form.parts.fields.inputs[each.name], gr.Textbox) for each in FIELDS)
