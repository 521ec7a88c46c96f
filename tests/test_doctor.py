"""The doctor finds what is wrong, says what to do, and leaves nothing behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mygpt2.__main__ import main
from mygpt2.doctor import FAIL, OK, SKIP, WARN, compiled, machine, network
from mygpt2.doctor.run import diagnose
from mygpt2.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "no_compiler", lambda: "no C++ compiler (g++ or clang++)")


def test_a_sound_machine_passes_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    assert main(["doctor", "--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[1] for line in lines[:-1]]
    assert lines[-1] == "all is well"
    assert {"versions", "devices", "tokenizer", "runs", "causality", "learning", "determinism", "precision"} <= {*names}
    assert "skip compile      no C++ compiler" in "\n".join(lines)
    assert not [*tmp_path.iterdir()]


def test_a_failure_is_named_with_what_to_do_and_the_exit_code_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    assert main(["doctor", "--runs", str(tmp_path / "runs")]) == 2
    out = capsys.readouterr().out
    assert "FAIL runs folder" in out and "choose a folder with --runs DIR" in out and "1 of the checks failed" in out
    assert "ok   causality" in out  # the others are not hidden


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "check_causality", lambda device: 1 / 0)
    findings = {f.name: f for f in diagnose(tmp_path, tmp_path, compile=False)}
    assert findings["causality"].status == FAIL and "ZeroDivisionError" in findings["causality"].detail
    assert findings["learning"].status == OK


def test_a_folder_that_refuses_writing_or_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(probe: Path) -> float:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(machine, "_write_and_sync", refuse)
        finding = machine.check_folder("runs folder", tmp_path, "--runs DIR")
        assert finding.status == FAIL and "Permission denied" in finding.detail and "--runs DIR" in finding.advice
    for free, status in ((1 << 20, FAIL), (5 << 30, WARN), (50 << 30, OK)):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
            assert machine.check_folder("runs folder", tmp_path, "--runs DIR").status == status
    assert not [*tmp_path.iterdir()]


def test_damaged_tables_fail_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: str) -> None:
        raise UserError("GPT-2's merges have another SHA-256; install mygpt2 again")

    monkeypatch.setattr("mygpt2.tokenizer.load_tokenizer", refuse)
    finding = machine.check_tokenizer()
    assert finding.status == FAIL and "install mygpt2 again" in finding.detail


def test_a_leak_of_the_future_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout: float) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    assert network.check_causality(CPU).status == OK
    monkeypatch.setattr("mygpt2.model.gpt.causal_attention", leaking)
    assert network.check_causality(CPU).status == FAIL


def test_losses_that_differ_do_not_fall_or_are_not_finite_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([[5.7, 5.6, 5.5], [5.7, 5.6, 5.4]])
    with monkeypatch.context() as patch:
        patch.setattr(network, "train", lambda *args: next(runs))
        assert network.check_determinism(CPU).status == FAIL
    for losses in ([5.7, 5.7], [5.7, float("nan")], [9.0, 2.0]):
        with monkeypatch.context() as patch:
            patch.setattr(network, "train", lambda *args, losses=losses: losses)
            assert network.check_learning(CPU).status == FAIL


def test_a_compilation_that_takes_too_long_is_ended_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "no_compiler", lambda: None)
    check = compiled.CompileCheck(limit_s=0.05)
    finding = check.finish()
    assert finding.status == SKIP and "run doctor again" in finding.advice
    assert check._process is not None and check._process.returncode is not None
