"""Names and paths that someone types: inside the roots, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.data.sources.mixture import Mixture, Part
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
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


def test_an_empty_field_is_told_as_one_and_not_as_a_wrong_path(context: Context) -> None:
    with pytest.raises(UserError, match=r"^no text is named; give pydocs, a hub dataset or a path"):
        context.source("  ")
    with pytest.raises(UserError, match=r"^no log is named; give a path in one of the folders .*data"):
        context.path("", "log")


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


def traced(
    context: Context, name: str, source: str, location: str, revision: str | None = None, mixed: bool = False
) -> RunDir:
    """A run whose trace says that its data is one file at `location`, alone or as the second source of a mixture."""
    run = RunDir(make_run(context.runs, name, 2))
    files = (SourceFile("a.txt", 4, "id", location),)
    manifest = Manifest(source, "txt", revision, "text", files, make_blocks([0], [0], [0], [4], [1]))
    if mixed:
        inside = (SourceFile("b.txt", 4, "id", str(context.data_roots[0] / "text.txt")),)
        sound = Manifest("text.txt", "txt", None, "text", inside, make_blocks([0], [0], [0], [4], [1]))
        manifest = Mixture.of("a mixture", [Part("one", 0.5, sound), Part("two", 0.5, manifest, 1)])
    run.trace_dir.mkdir(exist_ok=True)
    (run.trace_dir / "manifest.json").write_text(json.dumps(manifest.to_dict()))
    return run


HUB = "https://huggingface.co/datasets/owner/name/resolve/abc/a.txt"
FORGED = [("x", "/etc/passwd", None), ("x", "OUTSIDE", None), ("pydocs", "/etc/passwd", None), ("x", "LINK", None),
          ("owner/name", "http://127.0.0.1:1/a", "abc"), ("owner/name", HUB.replace("owner", "other"), "abc"),
          ("owner/name", HUB.replace("/abc/", "/abc/../../../../../"), "abc"), ("/etc/passwd", HUB, "abc"),
          ("owner/name", "https://huggingface.co.evil.com/datasets/owner/name/resolve/abc/a", "abc")]  # fmt: skip


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("source, location, revision", FORGED)
def test_a_forged_manifest_names_nothing_that_nobody_may_type(
    context: Context, tmp_path: Path, source: str, location: str, revision: str | None, mixed: bool
) -> None:
    (tmp_path / "data" / "link.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    places = {"OUTSIDE": tmp_path / "outside" / "secret.txt", "LINK": tmp_path / "data" / "link.txt"}
    run = traced(context, "one", source, str(places.get(location, location)), revision, mixed)
    with pytest.raises(UserError, match="the trace of run 'one'"):
        context.traced_files(run)


def test_a_trace_of_data_inside_the_roots_of_the_hub_or_of_another_machine_is_let_in(
    context: Context, tmp_path: Path
) -> None:
    context.traced_files(traced(context, "one", "text.txt", str(tmp_path / "data" / "text.txt")))
    context.traced_files(traced(context, "two", "owner/name:config", HUB, "abc"))
    context.traced_files(traced(context, "three", "x", "/not/on/this/machine.txt"))
    context.traced_files(traced(context, "four", "owner/name:config", HUB, "abc", mixed=True))


@pytest.mark.parametrize("damage", ["manifest", "part", "folder"])
def test_a_trace_that_is_a_link_out_of_its_run_is_refused(context: Context, tmp_path: Path, damage: str) -> None:
    run = traced(context, "one", "x", "/none")
    if damage == "folder":
        run.trace_dir.rename(tmp_path / "outside" / "trace")
        run.trace_dir.symlink_to(tmp_path / "outside" / "trace")
    else:
        path = run.trace_dir / ("manifest.json" if damage == "manifest" else "r0-a1-000001.parquet")
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "outside" / "secret.txt")
    with pytest.raises(UserError, match="link out of the run's folder"):
        context.traced_files(run)


@pytest.mark.parametrize("name, value", [("data.source", "OUTSIDE"), ("data.tokenizer", "OUTSIDE"),
                                         ("data.cache_dir", "OUTSIDE"), ("eval.hellaswag", "OUTSIDE"),
                                         ("data.source", "http://127.0.0.1:1/x")])  # fmt: skip
def test_settings_of_a_run_name_nothing_that_nobody_may_type(
    context: Context, tmp_path: Path, name: str, value: str
) -> None:
    value = value.replace("OUTSIDE", str(tmp_path / "outside" / "secret.txt"))
    run = RunDir(make_run(context.runs, "one", 2, settings=(f"--{name}", value)))
    with pytest.raises(UserError, match=f"run 'one' names {name}"):
        context.configuration(run)


def test_settings_inside_the_roots_are_read_and_a_link_to_others_is_not(context: Context, tmp_path: Path) -> None:
    text = tmp_path / "data" / "text.txt"
    run = RunDir(make_run(context.runs, "one", 2, settings=("--data.source", str(text))))
    assert context.configuration(run).data.source == str(text)
    run.config_file.rename(tmp_path / "outside" / "config.toml")
    run.config_file.symlink_to(tmp_path / "outside" / "config.toml")
    with pytest.raises(UserError, match="link out of the run's folder"):
        context.configuration(run)


@pytest.mark.parametrize("damage", ["tokenizer", "weights", "state", "folder"])
def test_a_checkpoint_that_leads_out_of_its_run_is_not_loaded(context: Context, tmp_path: Path, damage: str) -> None:
    outside = tmp_path / "outside" / "secret.txt"
    path = make_run(context.runs, "one", 2) / "checkpoints" / "step-00000002"
    path.mkdir(parents=True, exist_ok=True)
    spec = str(outside) if damage == "tokenizer" else "gpt2:300"
    (path / "state.json").write_text(json.dumps({"tokenizer": {"spec": spec}}))
    (path / "model.safetensors").write_bytes(b"weights")
    assert damage == "tokenizer" or context.checkpoint(path) == path
    if damage == "folder":
        path.rename(tmp_path / "outside" / "step")
        path.symlink_to(tmp_path / "outside" / "step")
    elif damage != "tokenizer":
        file = path / {"weights": "model.safetensors", "state": "state.json"}[damage]
        file.unlink()
        file.symlink_to(outside)
    with pytest.raises(UserError, match=r"checkpoint one/step-00000002 (cannot be read|names its tokenizer)"):
        context.checkpoint(path)
