"""What is written for each cluster, that their own parsers take it, and that nothing is handed over half asked for.

The golden files are `launch --print` of `WORDS`; when one changes on purpose, print it again and read the difference.
"""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mygpt2.__main__ import main
from mygpt2.launch.spec import parse_time

GOLDEN = Path(__file__).parent / "golden"
COMMON = ["--print", "--preset", "gpt2", "--run", "Big_1", "--runs", "/shared/runs", "--workdir", "/shared/my gpt2",
          "--nodes", "2", "--gpus", "8", "--cpus", "64", "--memory", "500", "--env", "NCCL_DEBUG=WARN",
          "--train.seed", "7"]  # fmt: skip
WORDS = {
    "slurm": ["--time", "2-12:00:00", "--gpu-type", "h100", "--option", "partition=long", "--option", "account=me"],
    "skypilot": ["--gpu-type", "H100", "--volume", "s3://bucket:/shared/runs", "--secret", "HF_TOKEN"],
    "kubernetes": ["--time", "60h", "--image", "here/mygpt2:1", "--volume", "runs:/shared/runs", "--secret", "HF_TOKEN",
                   "--option", "gpu=h100"],
    "kubeflow": ["--image", "here/mygpt2:1", "--volume", "runs:/shared/runs"],
}  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], target: str, *words: str) -> str:
    assert main(["launch", "--to", target, *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(["launch", *words])
    said = capsys.readouterr()
    assert (code, said.out) == (2, ""), said.err
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize("target", WORDS)
def test_what_is_written_is_what_it_was(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, target, *COMMON, *WORDS[target]) == (GOLDEN / f"{target}.txt").read_text()


def test_bash_can_read_the_batch_script() -> None:
    assert subprocess.run(["bash", "-n", GOLDEN / "slurm.txt"], check=True).returncode == 0


def test_kubernetes_takes_the_job_and_refuses_a_broken_one() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install -e '.[test]'")
    documents = list(yaml.safe_load_all((GOLDEN / "kubernetes.txt").read_text()))
    assert [document["kind"] for document in documents] == ["Service", "Job"]
    for document in documents:
        validator.validate(document, "1.31", strict=True)
    documents[1]["spec"]["completionmode"] = documents[1]["spec"].pop("completionMode")
    with pytest.raises(validator.ValidationError, match="completionmode"):
        validator.validate(documents[1], "1.31", strict=True)


def test_kubeflow_takes_the_job_and_refuses_a_broken_one() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="pip install -e '.[test]'")
    document = yaml.safe_load((GOLDEN / "kubeflow.txt").read_text())
    parsed = models.TrainerV1alpha1TrainJob.from_dict(document)
    assert parsed.to_dict() == document, "a key that the models do not know would be dropped"
    document["spec"]["trainer"]["numNodes"] = "two"
    with pytest.raises(ValueError, match=r"num_?[nN]odes"):
        models.TrainerV1alpha1TrainJob.from_dict(document)


def test_skypilot_takes_the_task_and_refuses_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "x")
    sky = pytest.importorskip("sky", reason="scripts/test_clusters.sh has SkyPilot in an environment of its own")
    document = yaml.safe_load((GOLDEN / "skypilot.txt").read_text())
    document["workdir"] = str(tmp_path)
    document["file_mounts"] = {"/shared/runs": str(tmp_path)}  # a bucket would be asked for over the network
    task = sky.Task.from_yaml_config(copy.deepcopy(document))  # which takes the keys out as it reads them
    assert (task.num_nodes, [dict(r.accelerators) for r in task.resources]) == (2, [{"H100": 8}])
    document["num_node"] = document.pop("num_nodes")
    with pytest.raises(ValueError, match="num_node"):
        sky.Task.from_yaml_config(document)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--to", "cluster", "--print"], "--to 'cluster' is not known; allowed: slurm"),
        (["--to", "slurm"], "one of the arguments --print --submit is required"),
        (["--to", "slurm", "--print", "--image", "x"], "--image does not go with SLURM"),
        (["--to", "skypilot", "--print", "--time", "2h"], "--time does not go with SkyPilot"),
        (["--to", "skypilot", "--print", "--gpus", "8", "--preset", "gpt2"], "--gpu-type is needed with --gpus"),
        (["--to", "kubernetes", "--print"], "--image is needed by Kubernetes; --volume is needed by Kubernetes"),
        (
            ["--to", "kubeflow", "--print", "--image", "x", "--volume", "x:/r", "--gpus", "1", "--gpu-type", "A"],
            "--gpu-type does not go with Kubeflow Trainer: a cluster names its GPUs by labels",
        ),
        (["--to", "slurm", "--print", "--gpu-type", "A"], "--gpu-type needs --gpus"),
        (["--to", "slurm", "--print", "--nodes", "0"], "--nodes '0' is not a whole number from 1 to 1,000,000"),
        (["--to", "slurm", "--print", "--time", "soon"], "'soon' is not a time"),
        (["--to", "slurm", "--print", "--volume", "x"], "is not WHAT:PATH"),
        (["--to", "slurm", "--print", "--env", "A=b\nc"], "is not NAME=VALUE on one line"),
        (["--to", "slurm", "--print", "--env", "HF_TOKEN=hf_x"], "--secret HF_TOKEN"),
        (["--to", "slurm", "--print", "--env", "a.b=1"], "'a.b' is not a variable's name"),
        (["--to", "skypilot", "--print", "--secret", "A B"], "'A B' is not a variable's name"),
        (["--to", "slurm", "--print", "--runs", "a\n#SBATCH --x"], "--runs 'a\\n#SBATCH --x' holds a line break"),
        (["--to", "slurm", "--print", "--gpus", "1", "--gpu-type", "A\n#SBATCH --x"], "--gpu-type"),
        (["--to", "slurm", "--print", "--option", 'comment="'], "leave out double quotes"),
        (["--to", "slurm", "--print", "--option", "a;b=c"], "--option 'a;b=c' is not NAME=VALUE on one line"),
        (["--to", "slurm", "--print", "--partition", "long; rm"], "--partition 'long; rm' is not a partition's name"),
        (["--to", "slurm", "--print", "--partition", "a", "--option", "partition=b"], "--partition is given twice"),
        (["--to", "kubeflow", "--print", "--image", "x", "--volume", "x:/r", "--partition", "a"], "are SLURM's"),
        (["--to", "slurm", "--print", "--workdir", "here"], "--workdir 'here' is not a whole path"),
        (["--to", "slurm", "--print", "--nodes", "9" * 99], "is not a whole number from 1 to 1,000,000"),
        (["--to", "slurm", "--print", "--nodes", "1000000", "--nproc", "1000000"], "is not a multiple of"),
        (["--to", "slurm", "--print", "--nodes", "x", "--time", "y"], "--nodes 'x' is not a whole number"),
        (["--to", "slurm", "--print", "--nodes", "x", "--time", "y"], "--time 'y' is not a time"),
        (["--to", "slurm", "--print", "--nodes", "3"], "batch_tokens=8192 is not a multiple of"),
        (["--to", "slurm", "--print", "--trian.steps", "3"], "train.steps"),
        (["--to", "slurm", "--print", "--run", "a/b"], "a/b"),
    ],
)
def test_a_wrong_combination_is_one_sentence(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert part in refused(capsys, *words)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12:00:00", 43200), ("2-00:00:30", 172830), ("90m", 5400), ("12h", 43200), ("2d", 172800), ("0h", None),
     ("1:2", None), ("12", None), ("1-2", None)],
)  # fmt: skip
def test_a_time_is_read_as_slurm_writes_it_or_by_a_unit(text: str, seconds: int | None) -> None:
    assert parse_time(text) == seconds


def test_a_source_and_a_config_of_ones_own_become_words_that_hold_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("books").mkdir()
    Path("mine.toml").write_text('[data]\nsource = "books"\n[train]\nsteps = 77\n')
    line = shown(capsys, "slurm", "--print", "--config", "mine.toml")
    assert (
        f"--data.source {tmp_path}/books" in line and "--train.steps 77" in line and f"--runs {tmp_path}/runs" in line
    )
    assert "mine.toml" not in line, "a file of this machine"
    assert not (tmp_path / "runs").exists()


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(stat.S_IRWXU)


def submitted(tmp_path: Path, *words: str, path: Path) -> subprocess.CompletedProcess[str]:
    argv = [
        sys.executable,
        "-m",
        "mygpt2",
        "launch",
        "--submit",
        "--run",
        "r",
        "--runs",
        str(tmp_path / "runs"),
        *words,
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": str(path)})


def test_a_file_is_handed_to_the_engines_own_program_and_what_it_said_is_kept(tmp_path: Path) -> None:
    program(tmp_path / "bin", "sbatch", f'printf "%s\\n" "$@" > {tmp_path}/asked; echo "17;here"')
    done = submitted(tmp_path, "--to", "slurm", path=tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    file = tmp_path / "runs" / "_launch" / "r.sbatch"
    assert (tmp_path / "asked").read_text().splitlines() == ["--parsable", str(file)]
    kept = json.loads(file.with_suffix(".json").read_text())
    assert (kept["target"], kept["job"]) == ("slurm", "17")
    assert file.read_text().startswith("#!/usr/bin/env bash\n#SBATCH --job-name=r\n")


def test_a_directive_holds_its_value_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """sbatch splits at spaces, ends a line at a # and puts the job's number for %j, also where it is a folder's."""
    runs = tmp_path / "my #1 runs" / "100%j"
    said = shown(capsys, "slurm", "--print", "--run", "r", "--runs", str(runs), "--option", "comment=a b # it's c")
    assert f'#SBATCH --output="{tmp_path}/my #1 runs/100%%j/_launch/r-%j.log"\n' in said
    assert '#SBATCH --comment="a b # it\'s c"\n' in said
    assert subprocess.run(["bash", "-n"], input=said, text=True).returncode == 0


def test_a_job_whose_record_cannot_be_kept_is_not_handed_over(tmp_path: Path) -> None:
    (tmp_path / "runs" / "_launch" / "r.json").mkdir(parents=True)
    program(tmp_path / "bin", "sbatch", f"touch {tmp_path}/asked; echo 17")
    done = submitted(tmp_path, "--to", "slurm", path=tmp_path / "bin")
    assert done.returncode == 2 and "r.json: Is a directory" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "asked").exists() and not (tmp_path / "runs" / "r").exists()


def test_an_engine_that_is_not_there_or_refuses_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = submitted(tmp_path, "--to", "slurm", path=tmp_path / "empty")
    assert done.returncode == 2 and "`sbatch`, which is not installed here" in done.stderr
    assert "Traceback" not in done.stderr
    program(tmp_path / "bin", "sbatch", "echo sbatch: error: invalid partition >&2; exit 1")
    done = submitted(tmp_path, "--to", "slurm", path=tmp_path / "bin")
    assert done.returncode == 75 and "sbatch refused: sbatch: error: invalid partition" in done.stderr
    assert not (tmp_path / "runs" / "_launch" / "r.json").exists(), "nothing was submitted"
    assert not (tmp_path / "runs" / "r").exists(), "and there is no run that waits"


def test_every_source_of_a_mixture_is_named_by_its_whole_path(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    mix = '[{name = "code", source = "code"}, {name = "docs", source = "pydocs"}]'
    made = shown(capsys, "slurm", *COMMON, *WORDS["slurm"], "--data.mix", mix)
    assert f'source = "{tmp_path / "code"}"' in made and 'source = "pydocs"' in made
