"""`python -m mygpt2 plan`: what it prints and writes, how it refuses, and that its help needs nothing heavy."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))


def test_the_table_names_size_length_memory_disk_and_rate(mygpt2):
    ended = mygpt2("plan", "--preset", "gpt2")
    assert ended.code == 0 and ended.err == ""
    for words in ("124,439,808", "524,288", "9,999,745,024", "Optimizer state", "One checkpoint", "Learning rate"):
        assert words in ended.out
    assert "n/a" in ended.out  # no run tells a speed here


def test_settings_and_files_count_as_in_train(mygpt2, tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "tiny"\n[train]\nsteps = 300\n')
    ended = mygpt2(
        "plan", "--config", "mine.toml", "--train.batch_tokens", "4096", "--nproc", "2", "--json", "out.json"
    )
    assert ended.code == 0
    figures = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert figures["length.tokens"]["value"] == 300 * 4096
    assert figures["batch.rows"]["value"] == 4096 // 256 // 2


def test_nothing_is_made_but_the_file_asked_for(mygpt2, tmp_path):
    mygpt2("plan", "--json", "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nproc", "0"], "--nproc 0 is not allowed"),
        (["--nproc", "3"], "nearest"),
        (["--preset", "gpt3"], "did you mean gpt2"),
        (["--train.stepz", "3"], "did you mean"),
        (["--json", "nowhere/out.json"], "there is no folder nowhere"),
        (["--data.tokenizer", "gpt2:3"], "N from 257 to 50257"),
        (["--nproc"], "expected one argument"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_exit_2(words, said, mygpt2):
    ended = mygpt2("plan", *words)
    assert ended.code == 2 and ended.out == ""
    assert said in ended.err and ended.err.count("\n") == 1 and ended.err.startswith("error: ")


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from mygpt2.__main__ import main; main(['plan', '--help'])\n"
        "print(*{'torch', 'numpy', 'pyarrow', 'psutil'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "--measure" in done.stdout and "--train.steps" in done.stdout
    assert done.stderr.split() == []
