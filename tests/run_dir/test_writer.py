"""What a trainer writes: whole files, whole lines, no secrets, and a heartbeat that needs no disk space."""

import errno
import json
import os
import subprocess
import sys
import threading

import pytest

from mygpt2.files import finite, read_json, replace_file
from mygpt2.run_dir import Process, RunWriter, next_attempt, read_records, write_rank
from mygpt2.run_dir.command import describe_command, redact, redact_argv
from mygpt2.run_dir.lines import LineWriter
from mygpt2.run_dir.writer import METRIC_KEYS
from tests.run_dir.processes import Clock, record_rank, running


def test_a_metrics_line_has_every_key_of_the_contract(run):
    with RunWriter(run, 1, clock=lambda: 5.0) as writer:
        writer.metrics(step=1, tokens=64, loss=10.5)
    (record,) = read_records(run.metrics_file)
    assert set(record) == {"schema", "attempt", "time", *METRIC_KEYS}
    assert record["schema"] == 1 and record["attempt"] == 1 and record["time"] == 5.0 and record["mfu"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_numbers_stay_valid_json_and_are_marked(run, value):
    with RunWriter(run, 1) as writer:
        writer.metrics(step=1, loss=value, grad_norm=1.0)
        writer.event("alert", values=[1.0, value])
    (line,) = run.metrics_file.read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert record["loss"] is None and record["nonfinite"] is True and record["grad_norm"] == 1.0
    assert read_records(run.events_file)[0]["values"] == [1.0, None]


def test_status_is_merged_and_progress_is_told_apart_from_the_heartbeat(run):
    clock = Clock()
    writer = RunWriter(run, 3, clock=clock)
    writer.status(state="running", phase="training", step=7, steps=100, tokens=448, loss=3.25)
    clock.sleep(100)
    writer._write_status()  # a beat in the middle of a long step
    status = read_json(run.status_file)
    assert status is not None
    assert status["heartbeat"] == 1100.0 and status["progress"] == 1000.0
    assert {key: status[key] for key in ("state", "phase", "step", "steps", "attempt", "loss")} == {
        "state": "running", "phase": "training", "step": 7, "steps": 100, "attempt": 3, "loss": 3.25,
    }  # fmt: skip
    with pytest.raises(ValueError, match="not one of"):
        writer.status(state="dancing")
    writer.close()


def test_quick_steps_do_not_each_rewrite_the_status(run):
    clock = Clock()
    writer = RunWriter(run, 1, clock=clock)
    writer.status(state="running", phase="training", step=1)
    writer.status(step=2)
    assert (read_json(run.status_file) or {})["step"] == 1
    clock.sleep(1)
    writer.status(step=3)
    assert (read_json(run.status_file) or {})["step"] == 3
    writer.close()


def test_the_heartbeat_beats_while_nothing_happens(run):
    beats = threading.Semaphore(0)

    def clock() -> float:
        beats.release()
        return 1.0

    with RunWriter(run, 1, clock=clock) as writer:
        writer.start_heartbeat(0.01)
        assert all(beats.acquire(timeout=10) for _ in range(5))
    assert not any(thread.name == "heartbeat" for thread in threading.enumerate())


def test_a_full_disk_still_beats_and_keeps_the_lines_until_there_is_room(run, monkeypatch):
    import mygpt2.run_dir.lines as lines
    import mygpt2.run_dir.writer as module

    writer = RunWriter(run, 1)
    os.utime(run.status_file, (1, 1))
    real = os.write

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(module, "replace_json", full)
    monkeypatch.setattr(lines.os, "write", full)
    writer.status(state="running", phase="training", step=1)
    writer.metrics(step=1)
    writer.metrics(step=2)
    assert writer.problem == "No space left on device"
    assert os.stat(run.status_file).st_mtime > 1
    monkeypatch.setattr(lines.os, "write", lambda fd, data: real(fd, bytes(data[:7])))  # room again, a little at a time
    writer.metrics(step=3)
    assert [record["step"] for record in read_records(run.metrics_file)] == [1, 2, 3]
    monkeypatch.undo()
    writer.status(step=4, phase="evaluating")
    assert writer.problem is None
    writer.close()


def test_lines_that_wait_for_ever_are_bounded_and_counted(run, monkeypatch):
    import mygpt2.run_dir.lines as lines

    monkeypatch.setattr(lines, "MAX_PENDING_BYTES", 100)
    writer = LineWriter(run.metrics_file)
    monkeypatch.setattr(lines.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    for i in range(20):
        writer.append({"step": i})
    assert writer.dropped == 20 - 100 // len('{"step":1}\n')
    monkeypatch.undo()
    writer.close()
    assert len(read_records(run.metrics_file)) == 20 - writer.dropped


def test_a_line_torn_by_a_kill_does_not_swallow_the_next_attempts_first(run):
    run.metrics_file.write_bytes(b'{"step":1}\n{"ste')
    writer = LineWriter(run.metrics_file)
    writer.append({"step": 2})
    writer.close()
    assert run.metrics_file.read_bytes() == b'{"step":1}\n{"ste\n{"step":2}\n'
    assert [record["step"] for record in read_records(run.metrics_file)] == [1, 2]


def test_lines_of_many_threads_never_mix(run):
    def shout(who: int) -> None:
        for _ in range(50):
            writer.event("x", who=who, text="y" * 500)

    with RunWriter(run, 1) as writer:
        threads = [threading.Thread(target=shout, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(read_records(run.events_file)) == 200


def test_every_attempt_keeps_its_configuration_and_its_end(run):
    for expected, toml in ((1, "a = 1\n"), (2, "a = 2\n")):
        assert next_attempt(run) == expected
        writer = RunWriter(run, expected)
        assert not run.exit_file.exists()
        writer.config(toml)
        writer.command(["train"], {})
        writer.status(state="running", phase="training", step=expected * 10)
        writer.finish("stopped", 85, "asked to")
        assert run.config_file.read_text() == toml
    ended = read_json(run.exit_file) or {}
    assert {key: ended[key] for key in ("code", "reason", "step", "state", "attempt")} == {
        "code": 85, "reason": "asked to", "step": 20, "state": "stopped", "attempt": 2,
    }  # fmt: skip
    assert (run.attempt_dir(1) / "config.toml").read_text() == "a = 1\n"
    assert (read_json(run.attempt_dir(1) / "exit.json") or {})["step"] == 10
    assert next_attempt(run) == 3


def test_a_new_attempt_forgets_dead_ranks_of_earlier_ones_but_not_living(run):
    with running() as alive:
        record_rank(run, 0, alive.pid)
        record_rank(run, 1, alive.pid, start="long ago")
        RunWriter(run, 2).close()
        assert sorted(path.name for path in run.ranks_dir.iterdir()) == ["0.json"]


def test_a_rank_records_who_it_is(run, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    write_rank(run, 1, world_size=2, device="cuda:1", attempt=4)
    record = read_json(run.rank_file(1)) or {}
    assert Process.from_json(record) == Process.current()
    assert (record["device"], record["world_size"], record["attempt"]) == ("cuda:1", 2, 4)
    assert record["launcher"]["pid"] == os.getppid()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    write_rank(run, 1, world_size=2, device="cuda:1", attempt=4)
    assert (read_json(run.rank_file(1)) or {})["launcher"] is None


def test_a_replaced_file_is_never_seen_half_written(tmp_path):
    path = tmp_path / "status.json"
    replace_file(path, b"a" * 100_000)
    ended = threading.Event()

    def rewrite() -> None:
        for i in range(100):
            replace_file(path, b"ab"[i % 2 : i % 2 + 1] * 100_000)
        ended.set()

    thread = threading.Thread(target=rewrite)
    thread.start()
    while not ended.is_set():
        content = path.read_bytes()
        assert len(content) == 100_000 and len(set(content)) == 1
    thread.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["status.json"]


def test_finite_values_pass_unchanged():
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": (0.0,)}}
    assert finite(value) == {"a": [1, 2.5, "x", None, True], "b": {"c": [0.0]}}


SECRET = "hf_" + "a1B2" * 8


def test_no_secret_reaches_the_command_record():
    environ = {
        "HF_TOKEN": SECRET, "WANDB_API_KEY": "0123456789abcdef", "MY_PASSWORD": "hunter22", "HF_ENDPOINT":
        "https://me:pw1234@hub.example/x?X-Amz-Signature=deadbeef&a=1", "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "2", "RANK": "0", "EDITOR": "vi", "MYGPT2_CACHE": "/c/hunter22",
    }  # fmt: skip
    argv = ["train", "--run", "x", "--api-key", "zzz", "--password=yyy", "--note", f"see {SECRET}", "--x", "hunter22"]
    record = describe_command(argv, environ)
    text = json.dumps(record)
    for secret in (SECRET, "0123456789abcdef", "hunter22", "zzz", "yyy", "pw1234", "deadbeef"):
        assert secret not in text
    assert record["argv"][:5] == ["train", "--run", "x", "--api-key", "***"]
    assert record["environment"]["OMP_NUM_THREADS"] == "2" and record["environment"]["RANK"] == "0"
    assert record["environment"]["TOKENIZERS_PARALLELISM"] == "false" and record["environment"]["HF_TOKEN"] == "***"
    assert "EDITOR" not in record["environment"] and "MY_PASSWORD" not in record["environment"]
    assert record["versions"]["python"].count(".") == 2 and "torch" in record["versions"] and record["host"]


def test_ordinary_options_are_left_alone():
    argv = [
        "train",
        "--train.batch_tokens",
        "8192",
        "--data.tokenizer",
        "gpt2",
        "--data.text_column=text",
        "--seed",
        "1",
    ]
    assert redact_argv(argv) == argv
    assert redact_argv(["--token", "--next", "v"]) == ["--token", "--next", "v"]
    assert redact("a plain sentence about keys = values") == "a plain sentence about keys = values"


def test_describing_a_command_imports_nothing_heavy():
    code = (
        "import sys; from mygpt2.run_dir.command import describe_command; describe_command(['x']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name",
    ["SLURM_JWT", "HF_AUTHTOKEN", "GITHUB_PAT", "WANDB_APIKEY", "SLURM_ANYTHING_NEW", "NCCL_FUTURE_SECRETISH", "PGPASS",
     "HF_OIDC", "TORCH_SOMETHING", "http_proxy"],
)  # fmt: skip
def test_no_variable_is_kept_that_is_not_known_to_be_harmless(name):
    """What is secret next year has a name that nobody knows today."""
    record = describe_command(["train"], {name: "correct-horse", "OMP_NUM_THREADS": "2"})
    assert "correct-horse" not in json.dumps(record)
    assert record["environment"]["OMP_NUM_THREADS"] == "2"


def test_secrets_are_blotted_out_wherever_they_stand_and_settings_are_not_taken_for_them():
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJqb2UifQ.c2lnbmF0dXJlIQ"
    environ = {"SLURM_JWT": "jwt-value", "HF_ENDPOINT": "https://joe:pw@mirror/x", "AUTHTOKEN": "auth-value"}
    words = {
        "/data/auth-value": "/data/***", "--data.cache_dir=https://u:p@h/c?token=1": "--data.cache_dir=https://***@h/c?***",
        token: "***", "jwt-value": "***", "--data.token_cache": "--data.token_cache", "false": "false",
        "--authtoken": "--authtoken", "q1": "***", "--x-pat=q2": "--x-pat=***",
    }  # fmt: skip
    record = describe_command(list(words), environ)
    assert record["argv"] == list(words.values())
    assert record["environment"] == {"HF_ENDPOINT": "https://***@mirror/x", "SLURM_JWT": "***"}
