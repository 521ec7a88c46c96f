"""`tokenizer train`, `inspect`, `compare` from the command line: what they print, how they stop, what they refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models

from mygpt2.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[2]
TEXT = "The cat sat on the mat, and the dog's 12345 fleas sat on the cat. Naïve café!\n\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text").mkdir()
    lines = [json.dumps({"text": f"{i} {TEXT * (1 + i % 3)}", "body": "other"}) for i in range(400)]
    (tmp_path / "text" / "a.jsonl").write_text("\n".join(lines))
    return tmp_path


Run = Callable[..., Any]


def test_train_inspect_and_compare(mygpt2: Run, folder: Path) -> None:
    ended = mygpt2(
        "tokenizer", "train", "--source", "text", "--vocab-size", "300", "--out", "mine", "--special", "<|user|>"
    )
    assert ended.code == 0, ended.err
    assert "42 merges from" in ended.out and "<|endoftext|> is id 298, <|user|> is id 299" in ended.out
    assert "train with --data.tokenizer mine" in ended.out
    assert load_tokenizer(str(folder / "mine")).eot_id == 298
    ended = mygpt2("tokenizer", "inspect", "--tokenizer", "mine", "the cat", "--merges", "--json")
    found = json.loads(ended.out)
    assert found["ids"] == load_tokenizer(str(folder / "mine")).encode("the cat")
    last = [part for piece in found["merges"] for part in piece["steps"][-1]]
    assert last == found["tokens"] and found["merges"][0]["steps"][0] == ['"t"', '"h"', '"e"']
    ended = mygpt2("tokenizer", "compare", "--tokenizer", "mine", "gpt2", "--source", "text", "--json")
    rows = {row["kind"]: row for row in json.loads(ended.out)["rows"]}
    assert rows["Chinese"]["bytes_per_token"].keys() == {"gpt2", "mine"}
    assert rows["English prose"]["tokens"]["mine"] > 0 and len(rows) >= 10
    ended = mygpt2("tokenizer", "compare", "--tokenizer", "mine", "--source", "text")
    assert ended.code == 0 and "300 ids" in ended.out and "Devanagari" in ended.out


def test_compare_uses_documents_that_no_tokenizer_was_learnt_from(mygpt2: Run, folder: Path) -> None:
    from mygpt2.data.heldout import held_out

    texts = [json.loads(line)["text"] for line in (folder / "text" / "a.jsonl").read_text().splitlines()]
    size = sum(len(text.encode()) for text in texts if held_out(text, 0.2))
    words = (
        "tokenizer",
        "compare",
        "--tokenizer",
        "gpt2",
        "--source",
        "text",
        "--data.validation_fraction",
        "0.2",
        "--json",
    )
    rows = {row["kind"]: row for row in json.loads(mygpt2(*words).out)["rows"]}
    assert 0 < rows["English prose"]["bytes"] == size


def test_inspect_shows_every_byte_and_gpt2s_merges(mygpt2: Run) -> None:
    ended = mygpt2("tokenizer", "inspect", "Hello \x1b[31m\U0001f600", "--merges", "--tokenizer", "gpt2")
    assert ended.code == 0 and "\x1b" not in ended.out and '"\\x1b"' in ended.out
    assert '  15496  "Hello"' in ended.out
    assert '"H" "ello"\n' in ended.out or '"He" "llo"\n' in ended.out
    assert '"\\xf0\\x9f\\x98"' in ended.out  # three quarters of a character
    assert mygpt2("tokenizer", "inspect", "--tokenizer", "gpt2", "").out.startswith("0 tokens")


def test_settings_of_the_data_reach_it(mygpt2: Run, folder: Path) -> None:
    words = (
        "tokenizer",
        "train",
        "--source",
        "text",
        "--vocab-size",
        "258",
        "--out",
        "m.json",
        "--data.text_column",
        "body",
    )
    assert mygpt2(*words).code == 0
    assert json.loads((folder / "m.json").read_text())["model"]["merges"] in (["t h"], ["h e"], ["o t"], ["e r"])


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_with_nothing_left(sent: signal.Signals, folder: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "from mygpt2.tokenizer.training import learn as train\n"
        "merged = train._merged\n"
        "def slow(trainer, merges):\n"
        "    print('merging', flush=True)\n"
        "    for done in merged(trainer, merges):\n"
        "        yield done\n"
        "        time.sleep(60)\n"
        "train._merged = slow\n"
        "from mygpt2.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["tokenizer", "train", "--source", "text", "--vocab-size", "300", "--out", "mine"]
    child = subprocess.Popen(
        [sys.executable, "-c", script, *words], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "merging\n"
    began = time.monotonic()
    child.send_signal(sent)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130 and "Traceback" not in said, said
    assert time.monotonic() - began < 10 and not (folder / "mine").exists()


TRAIN = ("train", "--source", "text", "--out", "new", "--vocab-size")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*TRAIN, "256"), "outside 257"),
        ((*TRAIN, "200000"), ".. 100277"),
        ((*TRAIN, "x"), "expected a whole number"),
        ((*TRAIN, "50000"), "make --vocab-size smaller"),
        ((*TRAIN, "300", "--pattern", "gpt5"), "allowed: gpt4, gpt2"),
        ((*TRAIN, "300", "--documents", "0"), "give 1 or more"),
        ((*TRAIN, "300", "--bytes", "-5"), "give 1 or more"),
        ((*TRAIN, "300", "--share", "1.5"), "above 0 to 1"),
        ((*TRAIN, "300", "--share", "nan"), "above 0 to 1"),
        ((*TRAIN, "300", "--share", "0.5", "--bytes", "5"), "two budgets"),
        ((*TRAIN, "300", "--special", "the"), "could be a word"),
        ((*TRAIN, "300", "--special", "<_>"), "could be a word"),
        ((*TRAIN, "300", "--special", "<|endoftext|>"), "is there already"),
        ((*TRAIN, "258", "--special", "<|a|>", "<|b|>"), "outside 259"),
        ((*TRAIN, "300", "--seed", "-1"), "--seed -1"),
        ((*TRAIN, "300", "--data.text_column", "nothing"), "text_column"),
        ((*TRAIN, "300", "--data.nothing", "1"), "nothing"),
        (("train", "--source", "text", "--vocab-size", "300"), "needs --out"),
        (("train", "--source", "text", "--out", "new"), "needs --vocab-size"),
        (("train", "--source", "/no/such", "--vocab-size", "300", "--out", "new"), "does not exist"),
        (("train", "--source", "empty.jsonl", "--vocab-size", "300", "--out", "new"), "holds no data"),
        (("train", "--source", "blank.jsonl", "--vocab-size", "300", "--out", "new"), "no text to learn from"),
        (("train", "--source", "ids.bin", "--vocab-size", "300", "--out", "new"), "holds ids, not text"),
        (("train", "--source", "text", "--vocab-size", "300", "--out", "there"), "is there already"),
        (("train", "--source", "text", "--vocab-size", "300", "--out", "blank.jsonl"), "is a file"),
        (("train", "--source", "text", "--vocab-size", "300", "--out", "blank.jsonl/new"), "is not a folder"),
        (("train", "a text", "--vocab-size", "300", "--out", "new"), "only inspect takes"),
        (("inspect", "--tokenizer", "gpt2"), "needs one --tokenizer T and a text"),
        (("inspect", "a", "--tokenizer", "gpt9"), "gpt9"),
        (("inspect", "a", "--tokenizer", "gpt2", "--lower"), "--lower"),
        (("inspect", "a", "--merges", "--tokenizer", "unigram.json"), "no merges to show"),
        (("compare",), "needs --tokenizer"),
        (("compare", "--tokenizer", "there/tokenizer.json"), "is not JSON"),
        (("burn",), "there is no action 'burn'; allowed: train"),
    ],
)
def test_nonsense_is_one_line_and_leaves_nothing(words: tuple[str, ...], said: str, mygpt2: Run, folder: Path) -> None:
    (folder / "there").mkdir()
    (folder / "there" / "tokenizer.json").write_text("mine")
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.jsonl").write_text('{"text": "  "}\n{"text": ""}\n')
    (folder / "ids.bin").write_bytes(b"\1\0" * 2000)
    vocab = [("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0)]
    tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0)).save(str(folder / "unigram.json"))
    before = {p.name for p in folder.iterdir()} | {"cache"}
    ended = mygpt2("tokenizer", *words)
    assert ended.code == 2 and said in ended.err, ended
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and not ended.out, ended
    assert {p.name for p in folder.iterdir()} <= before and (folder / "there" / "tokenizer.json").read_text() == "mine"


def test_a_place_without_permission_is_one_line(mygpt2: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mygpt2.tokenizer.training.save.os.access", lambda *_: False)
    ended = mygpt2("tokenizer", *TRAIN, "300")
    assert ended.code == 2 and "no permission in" in ended.err and ended.err.count("\n") == 1
