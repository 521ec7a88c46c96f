"""GPT-2 beside a run: found only where it was measured on that text, and measured by the ordinary evaluation."""

import json
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from tests.workbench.charts.made_up import new_run, write_event
from workbench.context import Context
from workbench.evaluations import yardstick
from workbench.jobs import Jobs

TEXT, OTHER = "a" * 64, "b" * 64
EVAL = {"loss": 4.0, "bits_per_byte": 2.0, "tokens": 500, "bytes": 1440, "documents": 7, "seconds": 2.0, "window": 64,
        "precision": "bf16", "token_sha256": TEXT}  # fmt: skip


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("own", "same", "other"):
        run = new_run(tmp_path, name)
        write_event(run, "eval", step=10, **EVAL | {"token_sha256": OTHER if name == "other" else TEXT})
    new_run(tmp_path, "early")
    return Context(tmp_path.resolve(), (), Jobs(tmp_path.resolve(), ("cpu",)))


def measured(context: Context, **changed: object) -> None:
    folder = context.runs / ".workbench" / "evals"
    folder.mkdir(parents=True, exist_ok=True)
    result = {"schema": 1, "model": "gpt2", "details": {"weights_sha256": "w"}, "precision": "fp32",
              "protocol": "run:own", "loss": 3.5, "bits_per_byte": 1.5, "tokens": 300, "bytes": 1436, "documents": 7,
              "window": 1024, "token_sha256": "c" * 64} | changed  # fmt: skip
    (folder / "gpt2.json").write_text(json.dumps(result))


def test_a_result_counts_for_every_run_with_that_text_and_for_no_other(context):
    measured(context)
    found = yardstick.known(context, {"runs": ["own", "same", "other", "early", "nobody"]})
    assert set(found) == {"own", "same", "other"}
    assert found["own"]["found"] == found["same"]["found"]
    assert found["own"]["found"] | {"text": ""} == {
        "of": "GPT-2 124M", "loss": 3.5, "bits": 1.5, "window": 1024, "same": False, "text": ""}  # fmt: skip
    assert found["other"]["found"] is None and found["own"]["cost"] == ""


@pytest.mark.parametrize(
    "changed", [{"model": "gpt2-medium"}, {"documents": 9}, {"bytes": 2500}, {"protocol": "edu-seed"}, {"loss": None}]
)
def test_another_model_or_another_text_does_not_count(context, changed):
    measured(context, **changed)
    assert yardstick.known(context, {"runs": ["own"]})["own"]["found"] is None


def test_the_same_tokens_count_whatever_they_were_called(context):
    measured(context, protocol="run", token_sha256=TEXT)
    assert yardstick.known(context, {"runs": ["own"]})["own"]["found"]["same"] is True


def test_what_it_takes_is_told_before_and_a_read_only_page_offers_nothing(context):
    own = yardstick.known(context, {"runs": ["own"]})["own"]
    assert own["can"] and "548 MB" in own["cost"] and "HF_HUB_OFFLINE" in own["cost"] and "7 documents" in own["cost"]
    quiet = Context(context.runs, (), context.jobs, read_only=True)
    assert yardstick.known(quiet, {"runs": ["own"]})["own"]["can"] is False
    with pytest.raises(UserError, match="read-only"):
        yardstick.measure(quiet, "own")
    assert yardstick.known(context, None) == yardstick.known(context, {"runs": 5}) == {}


def test_measuring_is_the_evaluation_a_person_could_type_and_its_failure_is_told(context):
    with pytest.raises(UserError, match="has not validated yet"):
        yardstick.measure(context, "early")
    yardstick.measure(context, "own")
    [task] = context.jobs.tasks.list("eval")
    assert "--model gpt2 --protocol run:own" in " ".join(task.argv) and "--precision bf16" in " ".join(task.argv)
    assert yardstick.known(context, {"runs": ["own"]})["own"]["running"] or not context.jobs.tasks.get(task.id).running
    context.jobs.tasks.stop(task.id, grace=0.1)
