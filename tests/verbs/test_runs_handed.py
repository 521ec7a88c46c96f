"""`runs` over launches that were handed to a cluster: what waits and why, and taking it back."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import pytest

from mygpt2.__main__ import main
from mygpt2.launch.handover import submit
from mygpt2.launch.spec import LaunchSpec
from tests.launch.programs import asked, putting


def test_a_run_that_waits_on_a_cluster_is_listed_with_the_reason_and_is_stopped_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, put = tmp_path / "runs", putting(tmp_path / "bin", monkeypatch)
    put("sbatch", "echo 17")
    put("squeue", f"echo '17|PENDING|Priority|{runs}/_launch/r.sbatch'")
    put("scancel", "")
    submit("slurm", LaunchSpec("r", PurePosixPath(runs), ("--preset", "tiny"), PurePosixPath("/")), runs)

    def said(*words: str) -> str:
        assert main(["runs", *words, "--runs", str(runs)]) == 0
        return capsys.readouterr().out

    why = "SLURM job 17 is pending: Priority, other jobs come first"
    header, row, reason = said("list").splitlines()
    assert header.startswith("run") and row.split()[:3] == ["r", "queued", "0"] and reason == f"r: {why}"
    assert said("show", "r").startswith(f"r: queued ({why})\n")
    (line,) = json.loads(said("list", "--json"))
    assert (line["state"], line["reason"], line["job"]) == ("queued", why, {"engine": "slurm", "id": "17"})
    assert said("stop", "r") == "SLURM job 17: taken back from SLURM\n"
    assert asked(tmp_path / "bin", "scancel") == ["17"]
    assert said("list").splitlines()[1].split()[:2] == ["r", "stopped"]
    questions = len(asked(tmp_path / "bin", "squeue"))
    assert said("stop", "r") == "run r is not running: stopped\n"
    assert len(asked(tmp_path / "bin", "squeue")) == questions, "what is over is not asked for"


def test_an_engine_that_cannot_be_asked_hides_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, put = tmp_path / "runs", putting(tmp_path / "bin", monkeypatch)
    put("sbatch", "echo 17")
    submit("slurm", LaunchSpec("r", PurePosixPath(runs), ("--preset", "tiny"), PurePosixPath("/")), runs)
    assert main(["runs", "list", "--runs", str(runs)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[1].split()[:2] == ["r", "queued"]
    assert listed[2] == "r: handed to SLURM, which cannot be asked: `squeue` is not installed here"
    assert main(["runs", "stop", "r", "--runs", str(runs)]) == 2
    why = "SLURM job 17 cannot be taken back, as SLURM cannot be asked for it: `squeue` is not installed here"
    assert capsys.readouterr().err == f"error: {why}\n"
