"""Models the page offers and what typed names lead to: inside the roots, by step, never anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mygpt2.errors import UserError
from tests.workbench.tabs.sample.places import small_place
from workbench.context import Context
from workbench.models import choices, defaults, is_model, resolve, short

OUTSIDE = ("../other", "/etc", "first/step-00000009", "a;touch x", "<img onerror=1>", "", "link", "none/step-00000005")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    runs, data = small_place(tmp_path)
    return Context(runs, (data,), jobs=None)  # type: ignore[arg-type]


def test_runs_with_their_steps_folders_and_the_hub_are_offered(context: Context) -> None:
    values = [value for _, value in choices(context)]
    assert values[:4] == ["first", "first/step-00000005", "other", "wide"] and "gpt2" in values
    assert choices(context)[0][0] == "first · newest (step 5)"


def test_every_choice_leads_somewhere_and_has_a_short_name(context: Context) -> None:
    newest = str(context.runs / "first" / "checkpoints" / "step-00000005")
    assert resolve(context, "first") == resolve(context, "first/step-00000005") == newest
    assert resolve(context, "other") == str(context.data_roots[0] / "other")
    assert resolve(context, "gpt2") == "gpt2"
    assert [short(context, resolve(context, name)) for name in ("first", "other", "gpt2")] == [
        "first/step-00000005", "other", "gpt2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["../other", "/etc", "first/step-00000009", "a;touch x", "<img onerror=1>", "", "link", "none/step-00000005"],
)
def test_what_leads_elsewhere_is_refused_in_one_line(context: Context, tmp_path: Path, text: str) -> None:
    (tmp_path / "outside").mkdir()
    (context.data_roots[0] / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError) as refused:
        resolve(context, text)
    assert "\n" not in str(refused.value)


def test_a_step_that_is_not_there_names_those_that_are(context: Context) -> None:
    with pytest.raises(UserError, match=r"no checkpoint of step 9; there are: 5"):
        resolve(context, "first/step-00000009")


@pytest.mark.parametrize("config", ["", "{", "[" * 100_000, "7", '{"model_type": "bert"}'])
def test_a_folder_with_a_damaged_config_is_no_model(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").touch()
    assert not is_model(tmp_path)


def test_the_model_beside_is_none_that_came_to_nothing() -> None:
    known = [(f"{name} · newest (step 5)", name) for name in ("newest", "diverged", "good")]
    assert defaults(known, "newest", lambda run: run != "diverged") == ("newest", "good")
    assert defaults(known[:2], "newest", lambda run: run != "diverged") == ("newest", "")
    assert defaults(known, "diverged", lambda run: run != "diverged") == ("diverged", "newest"), (
        "who asks for it gets it"
    )
