"""How a launch is planned, and that signals, deaths and exit codes of ranks end as promised."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch.distributed.run

from mygpt2 import distributed
from mygpt2.board import RankInfo
from mygpt2.config import load_config
from mygpt2.distributed import choose_interface
from mygpt2.errors import EXIT_DEFECT, EXIT_STOPPED, EXIT_TRY_AGAIN, EXIT_USAGE
from mygpt2.launch import plan as launch_plan
from mygpt2.launch import torchrun
from mygpt2.launch.plan import LaunchPlan, own_address, plan_launch
from mygpt2.launch.torchrun import Launcher, explain
from mygpt2.run_dir import RunDir, read_events
from tests.forks import Forked

ROOT = Path(__file__).parents[2]
TINY = load_config("tiny")


def plan(
    env: dict[str, str] | None = None, *, config=TINY, nproc=None, restarts=None, cores=8, devices=0
) -> LaunchPlan:  # type: ignore[no-untyped-def]
    return plan_launch(
        config, env or {}, nproc, restarts, cores=cores, devices=lambda: devices,
        hostnames=lambda _: ["node7", "node8"],
        address=lambda host, port: "10.0.0.9",
    )  # fmt: skip


def test_one_process_per_device_or_two_on_a_cpu_but_never_more_than_cores() -> None:
    assert plan(devices=4).nproc == 4
    assert plan(devices=0).nproc == 2
    assert plan(devices=0, cores=1).nproc == 1
    assert plan(devices=8, nproc=2).nproc == 2
    assert plan(devices=4, config=load_config("tiny", None, ["--train.device", "cpu"])).nproc == 2


def test_the_chosen_processes_divide_the_batch() -> None:
    assert plan(devices=6).nproc == 4
    assert plan(devices=6, config=load_config("tiny", None, ["--train.batch_tokens", "7680"])).nproc == 6


def test_cores_are_shared_by_the_processes_unless_threads_are_given() -> None:
    assert plan(cores=8).threads == 4
    assert plan(cores=2, nproc=4).threads == 1
    assert plan({"OMP_NUM_THREADS": "3"}).threads == 3


def test_one_node_stands_alone_and_restarts() -> None:
    single = plan()
    assert single.torchrun_options()[0] == "--standalone" and single.max_restarts == 3
    assert plan(restarts=7).max_restarts == 7


def test_several_nodes_meet_at_the_first_and_leave_restarts_to_the_scheduler() -> None:
    env = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "n0", "MASTER_PORT": "4000", "RDZV_ID": "job9"}
    multi = plan(env)
    assert multi == LaunchPlan(2, 4, 2, 0, "n0:4000", False, "job9", 600, "10.0.0.9")
    options = multi.torchrun_options()
    assert "--standalone" not in options
    for option in ("--nnodes=2", "--rdzv-endpoint=n0:4000", "--rdzv-id=job9", "--local-addr=10.0.0.9"):
        assert option in options
    assert options[-1] == "--rdzv-conf=join_timeout=600,read_timeout=600,is_host=false"


def test_slurm_says_the_same_in_its_own_words() -> None:
    slurm = {"SLURM_NNODES": "2", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "12"}
    slurm["SLURM_STEP_ID"] = "0"
    assert plan(slurm) == LaunchPlan(2, 4, 2, 0, "node7:29500", True, "12", 600, "10.0.0.9")
    assert plan(slurm | {"SLURM_RESTART_COUNT": "3"}).job == "12-3"
    assert plan(slurm | {"NNODES": "1"}).host is None, "the plain variables win"


def test_the_other_engines_say_it_too() -> None:
    sky = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5"}
    assert plan(sky | {"SLURM_NNODES": "2", "SLURM_JOB_ID": "3"}).host == "10.0.0.4:29500", "SkyPilot on SLURM"
    assert plan(sky).is_host is False
    kubeflow = {"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "job-0", "PET_MASTER_PORT": "29400"}
    assert (plan(kubeflow).host, plan(kubeflow).is_host) == ("job-0:29400", True)
    indexed = {"NNODES": "2", "JOB_COMPLETION_INDEX": "1", "MASTER_ADDR": "job-0.job"}
    assert (plan(indexed).host, plan(indexed).is_host) == ("job-0.job:29500", False)
    assert plan({"JOB_COMPLETION_INDEX": "1"}).host is None, "one of many jobs of one node each"


def test_a_first_node_whose_own_name_is_a_loopback_tells_the_others_another_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Debian writes `127.0.1.1 NAME` to /etc/hosts; torchrun would tell the others `localhost`."""
    known = {"n0": "127.0.1.1", "n1": "10.0.0.5", "192.0.2.1": "10.0.0.4"}
    monkeypatch.setattr(launch_plan, "address_towards", lambda host, port: known.get(host))
    assert own_address("n0", 29500) == "10.0.0.4"
    assert own_address("n1", 29500) == "10.0.0.5"
    assert own_address("unknown", 29500) is None
    del known["192.0.2.1"]
    assert own_address("n0", 29500) == "127.0.1.1", "a machine without a network: all nodes are on it"


def test_the_exit_code_tells_why_ranks_ended() -> None:
    assert explain({0: EXIT_USAGE, 1: EXIT_DEFECT}, stopping=False)[0] == EXIT_USAGE
    assert explain({0: EXIT_STOPPED, 1: EXIT_TRY_AGAIN}, stopping=False)[0] == EXIT_TRY_AGAIN
    assert explain({0: EXIT_STOPPED, 1: EXIT_STOPPED}, stopping=False)[0] == EXIT_STOPPED
    assert explain({0: EXIT_STOPPED, 1: EXIT_DEFECT}, stopping=True)[0] == EXIT_STOPPED
    assert explain({0: -15, 1: -15}, stopping=True)[0] == EXIT_STOPPED, "stopped before there was anything to save"
    assert explain({0: EXIT_STOPPED, 1: EXIT_DEFECT}, stopping=False) == (EXIT_DEFECT, "rank 1 exited 70")
    assert explain({0: EXIT_DEFECT, 1: -9}, stopping=False) == (EXIT_DEFECT, "rank 1 was killed by SIGKILL")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def script(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "launch_train.sh"), *args], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHON": sys.executable, **env},
    )  # fmt: skip


def test_the_script_shows_the_command_it_would_run(tmp_path: Path) -> None:
    done = script(
        "--nproc", "2", "--runs", str(tmp_path), "--data.source", "a b", "--dry-run-launch", OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("OMP_NUM_THREADS=1 torchrun --standalone --nnodes=1 --nproc-per-node=2 ")
    assert " -m -- mygpt2 train " in done.stdout and "--data.source 'a b' --run tiny-" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rank", "words"), [("0", "not all came to 127.0.0.1:"), ("1", "cannot be reached at 127.0.0.1:")]
)
def test_no_launch_waits_for_a_node_that_does_not_come(tmp_path: Path, rank: str, words: str) -> None:
    where = {"NNODES": "2", "NODE_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    where["PET_MONITOR_INTERVAL"] = "soon"  # torchrun would take it for its own option, and end
    done = script("--nproc", "1", "--runs", str(tmp_path), **where, RDZV_TIMEOUT="2")
    assert done.returncode == EXIT_TRY_AGAIN, done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_reported_once_before_any_rank_starts(tmp_path: Path) -> None:
    done = script("--nproc", "3", "--runs", str(tmp_path))
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert done.stderr == "error: batch_tokens=8192 is not a multiple of 3 ranks x 256 = 768; nearest: 7680, 8448\n"
    assert list(tmp_path.iterdir()) == []


# A rank for the launcher: says it is ready, then behaves as its role asks. It saves for `save` seconds when stopped.
RANK = """
import ctypes, json, os, pathlib, signal, sys, time
folder, rank, attempt = pathlib.Path(sys.argv[1]), int(os.environ["RANK"]), os.environ.get("MYGPT2_RESTART", "0")
ctypes.CDLL(None).prctl(1, 9)
def stop(*_):
    (folder / f"saved-{rank}").touch()
    (folder / "run" / "exit.json").write_text(json.dumps({"code": 85}))
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[2] == "same" else stop)
(folder / f"ready-{attempt}-{rank}").write_text(str(os.getpid()))
if sys.argv[2] == "wait":
    signal.pause()
if sys.argv[2] == "die-once" and attempt == "0":
    while not (folder / "ready-0-0").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else signal.pause()
if sys.argv[2] == "nan":
    (folder / "run" / "exit.json").write_text(json.dumps({"code": 70, "reason": "non-finite: loss nan"}))
    sys.exit(70)
if sys.argv[2] == "same":
    (folder / "run" / "exit.json").write_text(json.dumps({"code": 70, "step": 5, "rank": 0, "reason": "KeyError"}))
    sys.exit(70)
sys.exit(0 if sys.argv[2] == "die-once" else int(sys.argv[2]))
"""


def drive(folder: Path, role: str, restarts: int) -> None:
    command = [f"{folder}/rank.py", str(folder), role]
    sys.exit(Launcher(LaunchPlan(2, 1, 1, restarts), RunDir(folder / "run"), command).run())


@contextmanager
def launched(folder: Path, role: str, restarts: int = 1) -> Iterator[Forked]:
    (folder / "rank.py").write_text(textwrap.dedent(RANK))
    (folder / "run" / "control").mkdir(parents=True)
    (folder / "run" / "config.toml").touch()
    process = Forked(drive, folder, role, restarts, out=folder / "said")
    try:
        yield process
    finally:
        process.kill()


def wait_for(*files: Path, process: Forked) -> list[int]:
    """The pids that the ranks wrote, once all have."""
    waiting = set(files)
    while waiting := {file for file in waiting if not (file.exists() and file.read_text())}:
        assert process.poll() is None
        time.sleep(0.01)
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("code", [0, EXIT_USAGE, EXIT_TRY_AGAIN])
def test_ranks_that_end_on_purpose_are_not_restarted(code: int, tmp_path: Path) -> None:
    with launched(tmp_path, str(code)) as process:
        assert process.wait() == code
    assert not list(tmp_path.glob("ready-1-*"))


def test_a_rank_that_dies_is_restarted_with_the_others(tmp_path: Path) -> None:
    with launched(tmp_path, "die-once") as process:
        assert process.wait() == 0
        errors = process.said(errors_only=True)
    assert "rank 1 was killed by SIGKILL; restart 1 of 1" in errors
    assert len(list(tmp_path.glob("ready-1-*"))) == 2
    (event,) = read_events(RunDir(tmp_path / "run"))
    assert {key: event[key] for key in ("kind", "rank", "signal", "message")} == {
        "kind": "crash", "rank": 1, "signal": "SIGKILL", "message": "rank 1 was killed by SIGKILL",
    }  # fmt: skip


def test_a_run_that_stopped_before_a_non_finite_value_is_not_restarted(tmp_path: Path) -> None:
    with launched(tmp_path, "nan") as process:
        assert process.wait() == EXIT_DEFECT
        errors = process.said(errors_only=True)
    assert "would only meet it again" in errors and not list(tmp_path.glob("ready-1-*"))


def test_a_defect_that_comes_back_is_given_up(tmp_path: Path) -> None:
    with launched(tmp_path, "70") as process:
        assert process.wait() == EXIT_DEFECT
        errors = process.said(errors_only=True)
    assert "exited 70; 1 restarts used, giving up" in errors


def test_stop_lets_every_rank_save_and_a_save_request_lets_them_run(tmp_path: Path) -> None:
    with launched(tmp_path, "wait") as process:
        wait_for(tmp_path / "ready-0-0", tmp_path / "ready-0-1", process=process)
        process.send_signal(signal.SIGUSR1)
        while not (tmp_path / "run" / "control" / "save").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == EXIT_STOPPED
    assert (tmp_path / "saved-0").exists() and (tmp_path / "saved-1").exists()
    assert json.loads((tmp_path / "run" / "exit.json").read_text()) == {"code": 85}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a rank finds out within a second by itself")
def test_no_rank_outlives_a_killed_launcher(tmp_path: Path) -> None:
    with launched(tmp_path, "wait") as process:
        pids = wait_for(tmp_path / "ready-0-0", tmp_path / "ready-0-1", process=process)
        ranks = [psutil.Process(pid) for pid in pids]
        process.kill()
        assert psutil.wait_procs(ranks, timeout=10)[1] == []


def aside(folder: Path, role: str) -> None:
    tempfile.tempdir = str(folder / "scratch")
    drive(folder, role, 0)


def test_the_next_launcher_takes_away_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "rank.py").write_text(textwrap.dedent(RANK))
    (tmp_path / "run" / "control").mkdir(parents=True)
    killed = Forked(aside, tmp_path, "wait", out=tmp_path / "said")
    wait_for(tmp_path / "ready-0-0", tmp_path / "ready-0-1", process=killed)
    killed.kill()
    killed.wait()
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    assert Forked(aside, tmp_path, "0", out=tmp_path / "said").wait() == 0
    assert list((tmp_path / "scratch").iterdir()) == []


def stopped_early(folder: Path) -> None:
    tempfile.tempdir = str(folder / "scratch")
    torch.distributed.run.run = lambda args: os.kill(os.getpid(), signal.SIGINT)
    Launcher(LaunchPlan(2, 1, 1, 1), RunDir(folder / "run"), ["rank.py"]).run()


def test_a_stop_before_there_are_ranks_ends_the_launcher_at_once(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    process = Forked(stopped_early, tmp_path, out=tmp_path / "said")
    assert (process.wait(), process.said()) == (EXIT_STOPPED, "")
    assert list((tmp_path / "scratch").iterdir()) == [] and not (tmp_path / "run").exists(), "nothing is left of it"


def test_a_failure_that_comes_back_at_the_same_step_is_not_tried_a_third_time(tmp_path: Path) -> None:
    with launched(tmp_path, "same", restarts=3) as process:
        assert process.wait() == EXIT_DEFECT
        errors = process.said(errors_only=True)
    assert "in the same way as before; giving up" in errors
    assert list(tmp_path.glob("ready-1-*")) and not list(tmp_path.glob("ready-2-*"))


@pytest.mark.parametrize(
    ("asked", "code"), [("folder", 0), ("step", 0), ("signal", EXIT_STOPPED), (None, EXIT_STOPPED)]
)
def test_a_scheduler_does_not_queue_a_stop_again_that_was_meant(
    asked: str | None, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(launcher: Launcher) -> int:
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "exit.json").write_text(json.dumps({"code": EXIT_STOPPED, "asked": asked}))
        return EXIT_STOPPED

    monkeypatch.setattr(Launcher, "run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the launcher sets it
    words = ["--runs", str(tmp_path), "--run", "r", "--preset", "tiny", "--nproc", "2"]
    assert torchrun.main([*words, "--scheduled"]) == code
    shutil.rmtree(tmp_path / "r")
    assert torchrun.main(words) == EXIT_STOPPED, "a person is told"


def test_one_machine_need_not_know_its_own_name() -> None:
    assert "--local-addr=127.0.0.1" in plan().torchrun_options()
    name = choose_interface(RankInfo(0, 2, 0, 2), {})
    assert name is not None and any(a.address == "127.0.0.1" for a in psutil.net_if_addrs()[name])


def test_several_machines_talk_by_the_interface_that_leads_to_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"lo": "127.0.0.1", "eth0": "10.1.0.5", "ib0": "10.2.0.5"}
    sources = {"10.2.0.1": "10.2.0.5", "n0": "127.0.0.1", "127.0.0.1": "127.0.0.1", "192.0.2.1": "10.1.0.5"}
    found = {name: [SimpleNamespace(address=address)] for name, address in addresses.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    monkeypatch.setattr(distributed, "address_towards", lambda host, port: sources[host])
    info = RankInfo(0, 4, 0, 2)
    assert choose_interface(info, {"MASTER_ADDR": "10.2.0.1", "MASTER_PORT": "4000"}) == "ib0"
    own_name_is_loopback = {"MASTER_ADDR": "n0", "MASTER_PORT": "4000"}  # as Debian's /etc/hosts has it on the first
    assert choose_interface(info, own_name_is_loopback) == "eth0"


def test_ranks_of_a_machine_know_it_also_where_machines_have_unequally_many():
    """Ranks 0 and 1 on one machine, 2 to 5 on another; torchrun numbers machines."""
    given = {"WORLD_SIZE": "6", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    found = [
        RankInfo.from_environment(
            {**given, "RANK": str(rank), "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(size), "GROUP_RANK": group}
        )
        for rank, local, size, group in [(1, 1, 2, "0"), (2, 0, 4, "1"), (5, 3, 4, "1")]
    ]
    assert [info.node for info in found] == [0, 1, 1]
    assert [info.together for info in found] == [range(2), range(2, 6), range(2, 6)]
    assert (
        RankInfo(9, 16, 1, 8).node == 1 and RankInfo(9, 16, 1, 8).spans_nodes and not RankInfo(1, 2, 1, 2).spans_nodes
    )
