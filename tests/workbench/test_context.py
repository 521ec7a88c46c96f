"""Names and paths that someone types: inside the roots, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from mygpt2.errors import UserError
from tests.workbench.conftest import make_run
from workbench.context import Context

BAD_NAMES = ["../x", "/etc/passwd", "a;touch x", "a b", "", ".", "..", "a/b", "<img onerror=1>", "a\0b", "x" * 65]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    for name in ("runs", "data", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "text.txt").write_text("text")
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    return Context(tmp_path / "runs", (tmp_path / "data",), jobs=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_no_run_name_is_refused(context: Context, name: str) -> None:
    with pytest.raises(UserError):
        context.run(name)
    assert not any(context.runs.iterdir())


def test_a_run_is_found_and_a_link_to_another_folder_is_not_a_run(context: Context, tmp_path: Path) -> None:
    make_run(context.runs, "one", 2)
    assert context.run("one").name == "one"
    (context.runs / "one").rename(tmp_path / "outside" / "one")
    (context.runs / "link").symlink_to(tmp_path / "outside" / "one")
    with pytest.raises(UserError, match="link to another folder"):
        context.run("link")


@pytest.mark.parametrize(
    "text", ["../outside/secret.txt", "/etc/passwd", "~/x", "link/secret.txt", "a\0b", "", "x" * 5000]
)
def test_paths_that_lead_out_of_the_roots_are_refused(context: Context, tmp_path: Path, text: str) -> None:
    (tmp_path / "data" / "link").symlink_to(tmp_path / "outside")
    for look_up in (lambda: context.path(text, "file"), lambda: context.source(text)):
        with pytest.raises(UserError):
            look_up()


def test_paths_inside_are_resolved_relative_and_absolute(context: Context, tmp_path: Path) -> None:
    wanted = tmp_path / "data" / "text.txt"
    assert context.path("text.txt", "file") == wanted == context.path(str(wanted), "file")
    assert context.source("text.txt") == str(wanted)


@pytest.mark.parametrize("name", ["pydocs", "fineweb-edu-10BT", "owner/name", "owner/name:config@main"])
def test_named_sources_are_left_as_they_are(context: Context, name: str) -> None:
    assert context.source(name) == name


def test_models_are_runs_folders_or_gpt2_by_name(context: Context) -> None:
    run = make_run(context.runs, "one", 2)
    assert context.model("one") == str(run)
    assert context.model("gpt2") == "gpt2"
    assert context.model("openai-community/gpt2-xl") == "openai-community/gpt2-xl"
    for text in ("two", "../outside", "evil/model", ""):
        with pytest.raises(UserError):
            context.model(text)


def test_a_watching_workbench_changes_nothing(context: Context) -> None:
    context.changes()
    with pytest.raises(UserError, match="--read-only"):
        Context(context.runs, (), jobs=None, read_only=True).changes()  # type: ignore[arg-type]
