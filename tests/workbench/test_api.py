"""The public API: what is listed, what it answers, and that launch and stop ask for the password."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt2.data.trace import TraceWriter
from tests.data.corpus import Ranks, config, memory
from tests.workbench.conftest import RunningServer, Start, make_run
from workbench.api import PUBLIC
from workbench.jobs import Tasks

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs, "one", 30)
    return runs


@pytest.fixture(scope="module")
def server(workbench_server: Start, runs: Path) -> RunningServer:
    """Started where every request would go through a proxy that is not there: its own start asks none."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    return workbench_server(runs, env={**nowhere, "all_proxy": "socks5://127.0.0.1:9"}, fresh=True)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    from gradio_client import Client

    yield Client(server.url, verbose=False, analytics_enabled=False)


def refused(call: Any) -> str:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as caught:
        call()
    return str(caught.value)


def test_only_the_curated_endpoints_are_public_and_typed(client: Any) -> None:
    listed = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(listed) == {f"/{name}" for name in PUBLIC}
    names = [parameter["parameter_name"] for parameter in listed["/metrics"]["parameters"]]
    assert names == ["run", "cursor", "limit"]


def test_runs_are_listed_with_their_state(client: Any) -> None:
    (line,) = client.predict(api_name="/list_runs")
    assert line["name"] == "one" and line["state"] == "finished" and line["step"] == 30


def test_metrics_go_on_from_a_cursor_and_are_bounded(client: Any) -> None:
    first = client.predict("one", 0, 20, api_name="/metrics")
    assert [row["step"] for row in first["rows"]] == list(range(1, 21)) and first["cursor"] == 20
    assert first["rows"][0]["mfu"] is None  # null in the file, not NaN
    rest = client.predict("one", first["cursor"], 10**9, api_name="/metrics")
    assert [row["step"] for row in rest["rows"]] == list(range(21, 31))
    assert client.predict("one", 30, 10, api_name="/metrics") == {"rows": [], "cursor": 30}


def test_configuration_and_samples(client: Any) -> None:
    assert client.predict("one", api_name="/configuration")["train"]["batch_tokens"] == 8192
    (sample,) = client.predict("one", 1, api_name="/samples")
    assert sample["text"] == " a sample of text"
    assert client.predict("one", 31, api_name="/samples") == []


def test_spikes_and_why_a_step_stands_out(client: Any, runs: Path) -> None:
    assert client.predict("one", api_name="/spikes") == []
    found = client.predict("one", 25, api_name="/step")
    assert found["stands_out"] is False and "cannot be judged: the run has 30 steps" in found["sentence"]
    assert found["rows"] == [] and "does not hold step 25" in found["untraced"]
    assert "has steps up to 30" in refused(lambda: client.predict("one", 31, api_name="/step"))


def test_a_run_that_is_a_link_to_elsewhere_hides_itself_and_no_other(client: Any, runs: Path, tmp_path: Path) -> None:
    (runs / "link").symlink_to(make_run(tmp_path, "elsewhere", 3))
    try:
        assert [line["name"] for line in client.predict(api_name="/list_runs")] == ["one"]
    finally:
        (runs / "link").unlink()


@pytest.mark.parametrize("cursor", ["x", None, [1]])
def test_a_cursor_that_is_no_number_is_one_line(client: Any, cursor: Any) -> None:
    assert "whole number" in refused(lambda: client.predict("one", cursor, 10, api_name="/metrics"))


@pytest.mark.parametrize("name", ["../one", "/etc", "two", "a;touch x"])
def test_a_name_that_is_no_run_is_one_line(client: Any, name: str) -> None:
    message = refused(lambda: client.predict(name, 0, 10, api_name="/metrics"))
    assert "Traceback" not in message and "run" in message


def test_without_a_password_on_the_server_nothing_can_be_launched_or_stopped(client: Any, runs: Path) -> None:
    launch = lambda: client.predict("", "tiny", "new", {}, 1, api_name="/launch")  # noqa: E731
    assert "--password-file" in refused(launch)
    assert "--password-file" in refused(lambda: client.predict("", "one", "save", api_name="/stop"))
    judge = lambda: client.predict("", "tiny", "", {"optimizer.lr": 3e-3}, {}, api_name="/judge")  # noqa: E731
    assert "--password-file" in refused(judge) and client.predict(api_name="/experiments") == []
    assert "no experiment 'nope'" in refused(lambda: client.predict("nope", api_name="/verdict"))
    assert not (runs / "new").exists()


def _with_checkpoint(runs: Path, name: str, step: int) -> None:
    import torch

    from mygpt2 import checkpoint
    from mygpt2.config import load_config
    from tests.workbench.tabs.monitor.folders import run_folder

    run = run_folder(runs, name)
    state = {"config": load_config("tiny").model_dump(mode="json")}
    checkpoint.write(run.checkpoints_dir, step, {"w": torch.zeros(2)}, {"w/exp_avg": torch.zeros(2)}, state)


def test_with_a_password_it_opens_page_and_launch(workbench_server: Start, tmp_path: Path) -> None:
    from gradio_client import Client

    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    os.chmod(secret, 0o600)
    runs = tmp_path / "runs"
    server = workbench_server(runs, "--password-file", str(secret), "--slots", "cpu")
    with pytest.raises(Exception, match=r"(?i)auth|401|login"):
        Client(server.url, verbose=False, analytics_enabled=False)
    client = Client(server.url, auth=("me", PASSWORD), verbose=False, analytics_enabled=False)
    assert "wrong" in refused(lambda: client.predict("guess", "tiny", "new", {}, 1, api_name="/launch"))
    for settings, told in (
        ({"train.steps": -1}, "train.steps"),
        ({"train.stepz": 5}, "did you mean train.steps"),
        ({"data.source": "../secret"}, "outside the folders"),
        ({"train.steps": {}}, "objects"),
    ):
        assert told in refused(lambda s=settings: client.predict(PASSWORD, "tiny", "new", s, 1, api_name="/launch"))
    assert not (runs / "new").exists()
    assert client.predict(api_name="/list_runs") == []
    (runs / ".workbench" / "paused").touch()  # so that it stays queued and nothing is trained here
    queued = client.predict(PASSWORD, "tiny", "new", {"train.steps": 5}, 1, api_name="/launch")
    assert queued["run"] == "new" and queued["command"][-2:] == ["--train.steps", "5"] and queued["notices"] == []
    old = client.predict(PASSWORD, "tiny", "old", {"train.seed": 5}, 1, api_name="/launch")
    assert old["command"][-4:] == ["--model.seed", "5", "--data.seed", "5"]
    assert old["notices"] == ["train.seed is read as data.seed and model.seed, which took its place"]
    assert {line["state"] for line in client.predict(api_name="/list_runs")} == {"queued"}
    refuse = lambda place: refused(lambda: client.predict(PASSWORD, place, "b", {}, 1, api_name="/branch"))  # noqa: E731
    assert "NAME@STEP" in refuse("new@x") and "no checkpoint of step 3" in refuse("new@3")
    assert "wrong" in refused(lambda: client.predict("guess", "new@3", "b", {}, 1, api_name="/branch"))
    _with_checkpoint(runs, "begun", 4)
    made = client.predict(PASSWORD, "begun@4", "b", {"optimizer.lr": 0.001, "data.seed": 5}, 1, api_name="/branch")
    assert (made["run"], made["branch"]["parent"], made["branch"]["step"]) == ("b", "begun", 4)
    assert made["branch"]["changes"] == {"data.seed": [1337, 5], "optimizer.lr": [0.006, 0.001]}
    assert "batches are no longer those of begun" in made["notices"][0] and "--preset" not in made["command"]
    lines = {line["name"]: line for line in client.predict(api_name="/list_runs")}
    assert lines["b"]["branch"]["parent"] == "begun" and "branch" not in lines["begun"]
    assert client.predict(PASSWORD, "new", "save", api_name="/stop") == {"run": "new", "asked": "save"}
    asked = (PASSWORD, "tiny", "", {"optimizer.lrr": 3e-3}, {})
    assert "did you mean optimizer.lr" in refused(lambda: client.predict(*asked, api_name="/judge"))
    asked = (PASSWORD, "tiny", "", {"optimizer.lr": 3e-3}, {"train.steps": 5}, 1)
    assert "is for mixtures" in refused(lambda: client.predict(*asked, "run", "code", api_name="/judge"))
    found = client.predict(*asked, api_name="/judge")
    assert found["cost"].startswith("2 runs to train, 81,920 tokens") and found["command"][3] == "judge"
    assert client.predict(found["task"], api_name="/verdict")["state"] == "running"
    until = time.monotonic() + 120  # its first run waits in the paused queue
    while len(client.predict(api_name="/list_runs")) < 5 and time.monotonic() < until:
        time.sleep(0.1)
    names = {line["name"]: line["state"] for line in client.predict(api_name="/list_runs")}
    assert names.get(f"{found['experiment']}.base.1") == "queued"
    Tasks(runs / ".workbench" / "tasks").stop(found["task"])
    assert PASSWORD not in server.log


def test_losses_are_told_by_source_and_what_cannot_be_is_a_sentence(client: Any, runs: Path, tmp_path: Path) -> None:
    assert "has no trace" in refused(lambda: client.predict("one", api_name="/losses"))
    with Ranks(config(), tmp_path, source=memory()) as ranks:
        writer = TraceWriter(runs / "one" / "trace", 1, 0, ranks.loaders[0].manifest)
        for step in range(1, 11):
            ranks.step()
            writer.add(step, ranks.last[0], [float(step)] * 8)
        writer.flush()
    found = client.predict("one", "source", 3, None, api_name="/losses")
    (group,) = found["groups"]
    assert (found["first"], found["last"], group["value"], group["loss"]) == (3, 10, "memory", 6.5)
    manifest, secret = runs / "one" / "trace" / "manifest.json", tmp_path / "secret.jsonl"
    content = json.loads(manifest.read_text())
    content["files"][0][3] = str(tmp_path / "gone.parquet")
    manifest.write_text(json.dumps(content))
    assert "cannot be read any more" in refused(lambda: client.predict("one", "dump", api_name="/losses"))
    secret.write_text('{"text": "x", "dump": "secret"}\n')
    content["files"][0][3] = str(secret)
    manifest.with_name("manifest-0123456789ab.json").write_text(json.dumps({**content, "since": 0}))
    said = refused(lambda: client.predict("one", "dump", api_name="/losses"))
    assert "the trace of run 'one'" in said and "secret.jsonl" in said, "what nobody may type here is not read"
