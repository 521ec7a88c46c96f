"""`data inspect`, `data prepare`: what they write and say, also when killed or given nonsense."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mygpt2.__main__ import main
from mygpt2.config.data import DataConfig
from mygpt2.data.batch import loader_state
from mygpt2.data.loader import Loader
from mygpt2.data.prepare import prepare
from mygpt2.data.sources.local.formats import TOKENS_HEADER
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.data.validation import validation_set
from mygpt2.errors import TryAgain, UserError
from tests.data.hub_data import ROWS, Bytes, document

ROOT = Path(__file__).parents[2]
TEXTS = [[[document(f, g, r) for r in range(ROWS)] for g in range(6)] for f in range(2)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path):
    from tests.data.hub_data import parquet

    (tmp_path / "text").mkdir()
    for i, texts in enumerate(TEXTS):
        (tmp_path / "text" / f"{i}.parquet").write_bytes(parquet(texts))
    return tmp_path / "text"


def run(capsys, *words):
    code = main(["data", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_inspect_shows_the_source_and_the_first_documents_in_training_order(folder, tmp_path, capsys):
    code, out, _ = run(capsys, "inspect", "--source", folder, "--documents", 6, "--validation",
                       "--data.validation_fraction", "0.2", "--data.tokenizer", "gpt2:512")  # fmt: skip
    assert code == 0
    assert "12 row groups" in out and f"{12 * ROWS}" in out and "parquet" in out
    assert out.count("lane ") >= 6 and "File " in out
    assert "validation" in out and "none of the 6 training documents shown is in it" in out


def test_inspect_shows_the_documents_of_a_step(tmp_path, capsys, folder):
    from mygpt2.data.trace import TraceWriter

    data = DataConfig(source=str(folder), encoder="tiktoken")
    run_dir = tmp_path / "runs" / "a"
    (run_dir / "attempts").mkdir(parents=True)
    with Loader(data, tokenizer=Bytes(), block_size=64, batch_sequences=4, seed=1, cache_dir=tmp_path / "c") as loader:
        trace = TraceWriter(run_dir / "trace", 1, 0, loader.manifest)
        for step in range(3):
            while (batch := loader.poll(1)) is None:
                pass
            trace.add(step, batch, np.full(4, 2.5 + step))
        trace.flush()
    code, out, _ = run(capsys, "inspect", "--run", "a", "--runs", tmp_path / "runs", "--step", 1)
    assert code == 0 and out.startswith("step 1: 4 rows") and "loss 3.5000" in out and ".parquet row group" in out
    code, _, err = run(capsys, "inspect", "--run", "a", "--runs", tmp_path / "runs", "--step", 9)
    assert code == 2 and "has the steps 0 to 2; give one of them" in err
    (tmp_path / "runs" / "b" / "attempts").mkdir(parents=True)
    code, _, err = run(capsys, "inspect", "--run", "b", "--runs", tmp_path / "runs", "--step", 1)
    assert code == 2 and "has no trace; give a run that was trained with log.trace=true" in err


def prepared(folder, out, cache, **settings):
    data = DataConfig(source=str(folder), encoder="tiktoken", **settings)
    manifest = resolve(str(folder), data, cache_dir=cache)
    reader = open_reader(manifest, cache_dir=cache, eot_id=256)
    return prepare(manifest, reader, Bytes(), data, out, shard_tokens=8000, threads=3)


def digests(out):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir()) if p.name[0] != "."}


def test_prepared_shards_hold_every_document_and_are_read_by_the_loader(folder, tmp_path):
    done = prepared(folder, tmp_path / "out", tmp_path / "c")
    assert done.complete and done.documents == 12 * ROWS and len(done.shards) > 2
    for shard in done.shards:
        tokens = (tmp_path / "out" / shard.name).read_bytes()[TOKENS_HEADER:]
        assert hashlib.sha256(tokens).hexdigest() == shard.sha256 and len(tokens) == 2 * shard.tokens
    manifest = resolve(str(tmp_path / "out"), DataConfig(), cache_dir=tmp_path / "c")
    assert manifest.kind == "tokens"
    reader = open_reader(manifest, cache_dir=tmp_path / "c", eot_id=256)
    texts = [Bytes().decode_bytes(x).decode() for b in range(len(manifest)) for x in reader.read(b)]
    assert texts == [text for file in TEXTS for group in file for text in group]


def test_another_tokenizer_than_it_was_prepared_with_is_refused_and_an_unfinished_one_is_told(folder, tmp_path):
    out, wrong = tmp_path / "out", DataConfig(source=str(tmp_path / "out"), tokenizer="gpt2:512")
    done = prepared(folder, out, tmp_path / "c")
    for source in (out, out / done.shards[0].name):
        with pytest.raises(UserError, match=r"prepared with data.tokenizer=gpt2, and gpt2:512 would read other text"):
            resolve(str(source), wrong, cache_dir=tmp_path / "c")
    state = json.loads((out / "prepare.json").read_text())
    assert not resolve(str(out), DataConfig(), cache_dir=tmp_path / "c").notes
    (out / done.shards[-1].name).unlink()
    (out / "prepare.json").write_text(json.dumps({**state, "shards": state["shards"][:-1]}))
    (note,) = resolve(str(out), DataConfig(), cache_dir=tmp_path / "c").notes
    assert f"{done.shards[-1].first_block} of 12 blocks are there; the same command goes on" in note
    for odd in ([], {"identity": 7}, {"identity": {"tokenizer": "gpt2"}, "shards": [7]}):
        (out / "prepare.json").write_text(json.dumps(odd))
        assert resolve(str(out), DataConfig(), cache_dir=tmp_path / "c").notes == ()


def test_what_was_read_with_another_tokenizer_is_no_change_of_the_file(tmp_path):
    """Its end-of-text cuts a file of tokens into other documents."""

    class Other(Bytes):
        eot_id, fingerprint = 97, "0" * 64

    (tmp_path / "a.bin").write_bytes(np.array([*b"banana and more" * 4000, 256] * 3, "<u2").tobytes())
    for tokenizer in (Other(), Bytes()):
        data = DataConfig(source=str(tmp_path / "a.bin"), token_cache=False, validation_fraction=0.0)
        given = {"block_size": 32, "batch_sequences": 2, "seed": 1, "cache_dir": tmp_path / "c"}
        with Loader(data, tokenizer=tokenizer, **given) as loader:
            assert loader.poll(20.0).quarantine == []


def test_a_killed_preparation_goes_on_and_ends_with_identical_files(folder, tmp_path):
    prepared(folder, tmp_path / "whole", tmp_path / "c")
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from mygpt2.config.data import DataConfig\n"
        "from mygpt2.data.prepare import prepare\n"
        "from mygpt2.data.sources.resolve import open_reader, resolve\n"
        "from tests.data.hub_data import Bytes\n"
        "folder, out, cache, last = sys.argv[1:]\n"
        "data = DataConfig(source=folder, encoder='tiktoken')\n"
        "manifest = resolve(folder, data, cache_dir=Path(cache))\n"
        "reader = open_reader(manifest, cache_dir=Path(cache), eot_id=256)\n"
        "stop = lambda done, _: done == int(last) and os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare(manifest, reader, Bytes(), data, Path(out), shard_tokens=8000, threads=2, progress=stop)\n"
    )
    for last in (1, 7, 12):
        killed = subprocess.run(
            [sys.executable, "-c", script, str(folder), str(tmp_path / "out"), str(tmp_path / "c"), str(last)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    prepared(folder, tmp_path / "out", tmp_path / "c")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_lost_or_short_shard_is_made_again(folder, tmp_path):
    out = tmp_path / "out"
    prepared(folder, out, tmp_path / "c")
    whole = digests(out)
    (out / "shard-00001.bin").write_bytes(b"short")
    assert digests(out) != whole
    prepared(folder, out, tmp_path / "c")
    assert digests(out) == whole


def test_a_disk_that_fills_up_costs_no_shard_and_the_same_command_goes_on(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".shard-00001.bin.part").symlink_to("/dev/full")
    with pytest.raises(TryAgain, match="No space left on device; free some space, then run the same command"):
        prepared(folder, out, tmp_path / "c")
    assert sorted(path.name for path in out.glob("[!.]*")) == ["prepare.json", "shard-00000.bin"]
    (out / ".shard-00001.bin.part").unlink()
    prepared(folder, out, tmp_path / "c")
    prepared(folder, tmp_path / "whole", tmp_path / "c")
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.parametrize("shards", [[7], [{}], [{"name": "../x"}], "x", None])
def test_a_list_of_shards_that_is_none_is_made_anew_or_refused(folder, tmp_path, shards):
    out = tmp_path / "out"
    prepared(folder, out, tmp_path / "c")
    kept, state = digests(out), json.loads((out / "prepare.json").read_text())
    (out / "prepare.json").write_text(json.dumps({**state, "shards": shards}))
    if isinstance(shards, list):
        prepared(folder, out, tmp_path / "c")
        assert digests(out) == kept
    else:
        with pytest.raises(UserError, match="is not what a preparation writes"):
            prepared(folder, out, tmp_path / "c")


def test_documents_left_out_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in ["good text", "", 7, "x" * 500]))
    done = prepared(tmp_path / "a.jsonl", tmp_path / "out", tmp_path / "c", max_document_chars=100)
    assert done.left_out == {"empty": 1, "not_text": 1, "too_long": 1} and done.documents == 1


def test_prepare_refuses_what_is_not_its_own(folder, tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "shard-00000.bin").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="is not empty"):
        prepared(folder, tmp_path / "foreign", tmp_path / "c")
    assert (tmp_path / "foreign" / "shard-00000.bin").read_bytes() == b"somebody's"
    prepared(folder, tmp_path / "out", tmp_path / "c")
    with pytest.raises(UserError, match=r"holds another preparation \(max_document_chars"):
        prepared(folder, tmp_path / "out", tmp_path / "c", max_document_chars=500)
    with pytest.raises(UserError, match="is a file"):
        prepared(folder, folder / "0.parquet", tmp_path / "c")


def test_no_training_row_holds_a_held_out_document(folder, tmp_path):
    data = DataConfig(
        source=str(folder), encoder="tiktoken", validation_fraction=0.2, validation_tokens=10**9, lanes=2, window=2
    )
    manifest = resolve(data.source, data, cache_dir=tmp_path)
    reader = open_reader(manifest, cache_dir=tmp_path, eot_id=256)
    held = validation_set(manifest, reader, Bytes(), data, tmp_path)
    seen: set[tuple[int, int]] = set()
    rows: dict[int, bytes] = {0: b"", 1: b""}
    with Loader(
        data, tokenizer=Bytes(), block_size=64, batch_sequences=2, seed=3, cache_dir=tmp_path, manifest=manifest,
        reader=reader,
    ) as loader:  # fmt: skip
        for _ in range(500):
            while (batch := loader.poll(1)) is None:
                pass
            for lane, row, places in zip(batch.lanes.tolist(), batch.tokens, batch.provenance, strict=True):
                rows[lane] += row[:-1].astype("<u2").tobytes()
                seen.update(places)
    stream = b"".join(rows.values())
    documents = [d.astype("<u2").tobytes() for d in np.split(held.tokens, held.doc_starts[1:])]
    assert held.documents > 10 and not any(d in stream for d in documents)
    texts = {(b, i): t for b in range(len(manifest)) for i, t in enumerate(reader.read(b))}
    chosen = {Bytes().decode_bytes(np.frombuffer(d, "<u2")).decode() for d in documents}
    assert {texts[place] for place in seen} == set(texts.values()) - chosen


def test_paths_are_printed_as_a_shell_takes_them_and_nothing_is_prepared_from_nothing(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"text number {i} " * 9}) + "\n" for i in range(20)))
    out = tmp_path / "my out; rm x"
    code, said, _ = run(capsys, "prepare", tmp_path / "a.jsonl", "--out", out, "--data.tokenizer", "gpt2:512")
    assert code == 0 and said.splitlines()[-1] == (
        f"train on them with --data.source '{out}' --data.tokenizer gpt2:512"
    )  # fmt: skip
    (tmp_path / "b.jsonl").write_text('{"text": null}\n{"text": ""}\n')
    code, said, err = run(capsys, "prepare", tmp_path / "b.jsonl", "--out", tmp_path / "none")
    assert code == 2 and "holds no text to learn from (1 not text, 1 empty)" in err and not said
    assert not [p for p in (tmp_path / "none").iterdir() if p.name != ".lock"]


def test_inspect_tells_how_much_of_its_source_a_run_has_read(folder, tmp_path, capsys):
    run_dir = tmp_path / "runs" / "a"
    for step in (2, 5):
        (run_dir / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (run_dir / "config.toml").write_text(f'[data]\nsource = "{folder}"\ntokenizer = "gpt2:512"\n')
    words = ["inspect", "--run", "a", "--runs", tmp_path / "runs", "--documents", 1]
    assert "read so far  no checkpoint tells" in run(capsys, *words)[1]
    data = DataConfig(source=str(folder), encoder="tiktoken")
    with Loader(data, tokenizer=Bytes(), block_size=64, batch_sequences=4, seed=1, cache_dir=tmp_path) as loader:
        while (batch := loader.poll(1)) is None:
            pass
        state = {"data": loader_state(loader.fingerprint, batch.cursor, batch.quarantine)}
    (run_dir / "checkpoints" / "step-00000002" / "state.json").write_text(json.dumps(state))
    (run_dir / "checkpoints" / "step-00000005" / "state.json").write_text('{"data": {"fingerprint": []}}')
    out = run(capsys, *words)[1]
    assert (
        "read so far  256 tokens; of 12 blocks 0 (0%) were read to their end (0 documents), with 0 repeats (0 "
        "documents); 12 are open, as each lane mixes several at a time; each lane has gone 0.00 to 0.00 times through "
        "its share of the blocks; 0 left out as unreadable (at step-00000002)\n"
    ) in out


def test_inspect_says_by_how_many_blocks_it_estimates_and_sets_sources_under_one_another(tmp_path, capsys):
    for name, count in (("a", 4000), ("longer-name", 3)):
        (tmp_path / name).mkdir()
        lines = (json.dumps({"text": f"text number {i} " * 40}) for i in range(count))
        (tmp_path / name / "x.jsonl").write_text("\n".join(lines) + "\n")
    many, few = tmp_path / "a", tmp_path / "longer-name"
    code, out, _ = run(capsys, "inspect", many, "--data.tokenizer", "gpt2:512", "--documents", 1)
    blocks = re.search(r"blocks       (\d+) byte ranges", out)[1]
    assert code == 0 and int(blocks) > 3
    assert re.search(rf"documents    about [\d,]+, by 3 of its {blocks} byte ranges\n", out)
    assert re.search(
        rf"tokens       about [1-9][\d,]*0,000 of gpt2:512 \(\d+ per document, by 3 of its {blocks} byte", out
    )
    mix = f'[{{name = "a", source = "{many}", weight = 1}}, {{name = "longer-name", source = "{few}", weight = 1}}]'
    code, out, _ = run(capsys, "inspect", "--data.mix", mix, "--data.tokenizer", "gpt2:512", "--documents", 1)
    told = [line for line in out.partition("\nfirst")[0].splitlines() if line]
    assert code == 0 and {line[24] for line in told} == {" "} and all(line[25] != " " for line in told)
    assert re.search(r"longer-name: documents +about 3\n", out), "all of it was read"


def test_inspect_tells_what_it_leaves_out(tmp_path, capsys):
    lines = [*({"text": f"text number {i} " * 9} for i in range(40)), {"text": 7}, {"other": "x"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "b.md").write_text("beside")
    code, out, _ = run(capsys, "inspect", tmp_path, "--data.tokenizer", "gpt2:512")
    assert code == 0 and "left out     of the parts sampled: 2 documents not text" in out
    assert "note         not read: 1 of other formats (1 .md): b.md" in out


@pytest.mark.parametrize(
    "words, said",
    [
        (["inspect", "--source", "/no/such/place"], "does not exist"),
        (["inspect", "--source", "fineweb-edu-10bt"], "did you mean fineweb-edu-10BT"),
        (["inspect", "--step", "3"], "needs a run"),
        (["inspect", "--run", "nothing", "--step", "3"], "no run 'nothing'"),
        (["inspect", "--documents", "0"], "give 1 or more"),
        (["inspect", "--data.text_colum", "x"], "text_colum"),
        (["fetch", "--source", "pydocs"], "on this machine already"),
        (["fetch", "--source", "o/n", "--files", "0"], "give 1 or more"),
        (["prepare"], "needs --out"),
        (["prepare", "--out", "x", "--shard-tokens", "0"], "give 1 or more"),
        (["prepare", "--tokenizer", "gpt5", "--out", "x"], "gpt5"),
        (["burn"], "there is no action 'burn'; allowed: inspect"),
    ],
)
def test_nonsense_is_one_line_and_leaves_nothing(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2 and said in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not [p for p in tmp_path.iterdir() if p.name != "cache"]
