"""Bad files end in a sentence or in right work: never in a traceback, in silence, or in more memory than there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from mygpt2.__main__ import main
from mygpt2.data.loader import Loader
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve
from mygpt2.data.validation import validation_set
from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from tests.data.bad_files import BAD, TEXTS, array, ids, jsonl, txt
from tests.data.corpus import EOT, config

ROOT = Path(__file__).parents[2]
QUICK = [name for name in BAD if "bomb" not in name]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "s").mkdir()
    return tmp_path / "s"


def tokenizer_of(name):
    return "gpt2" if name.startswith(("bin", "npy")) else "gpt2:512"


def verb(capsys, name, *words):
    """(exit code, what it printed), after the check that an error is one line and nothing else."""
    code = main(["data", *map(str, words), "--data.tokenizer", tokenizer_of(name), "--data.encoder", "tiktoken"])
    out, err = capsys.readouterr()
    assert code in (0, 2, 75), err
    lines = err.splitlines()
    assert "Traceback" not in err and (code == 0 or (len(lines) == 1 and lines[0].startswith("error: "))), err
    return code, out, err


@pytest.mark.parametrize("name", QUICK)
def test_a_bad_file_is_prepared_or_refused_in_a_sentence(name, folder, tmp_path, capsys):
    BAD[name](folder)
    code, out, _ = verb(capsys, name, "prepare", folder, "--out", tmp_path / "out")
    if code == 0:
        tokens, documents = map(int, re.match(r"([\d,]+) tokens of ([\d,]+)", out.replace(",", ""))[0].split()[::3])
        assert tokens > documents > 0
    else:
        assert not list((tmp_path / "out").glob("*.bin"))


@pytest.mark.parametrize("name", QUICK)
def test_training_opens_a_bad_file_or_says_why_not(name, folder, tmp_path):
    BAD[name](folder)
    data, tokenizer = config(folder, tokenizer=tokenizer_of(name)), load_tokenizer(tokenizer_of(name))
    try:
        manifest = resolve(str(folder), data, cache_dir=tmp_path / "c")
        manifest, reader = open_settled(manifest, data, cache_dir=tmp_path / "c", eot_id=tokenizer.eot_id)
        held = validation_set(manifest, reader, tokenizer, data, tmp_path / "c")
        with Loader(
            data, tokenizer=tokenizer, block_size=16, batch_sequences=2, seed=1, cache_dir=tmp_path / "c",
            manifest=manifest, reader=reader,
        ) as loader:  # fmt: skip
            batch = loader.poll(60.0)
    except UserError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert batch.tokens.shape == (2, 17) and len(held.tokens) > 1


INSPECTED = ["cut", "flipped", "noise", "utf-16", "latin-1", "deep", "lone surrogates", "nulls", "keys that differ",
             "names of many kinds", "folders in a circle", "a bad file with a bad name", "no end of text",
             "ids beyond the vocabulary"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in BAD if any(name.endswith(": " + part) for part in INSPECTED)])
def test_inspect_shows_a_bad_file_or_says_why_not(name, folder, capsys):
    BAD[name](folder)
    code, out, err = verb(capsys, name, "inspect", folder, "--documents", "2", "--validation")
    assert ("first documents in training order" in out) if code == 0 else err.isprintable() or err.endswith("\n")
    assert all(line.isprintable() for line in out.splitlines())


SAID = {
    "txt: in latin-1": r"a\.txt is not UTF-8 \(byte 0xe9 at 9\); save it as UTF-8, with `iconv",
    "jsonl: in shift-jis": r"a\.jsonl is not UTF-8",
    "txt.gz: in koi8-r": r"a\.txt\.gz is not UTF-8",
    "txt: in utf-16-le": r"looks like UTF-16LE without a byte order mark",
    "jsonl: in utf-32-be": r"looks like UTF-32BE without a byte order mark",
    "txt: in iso2022_jp": r"written in ISO-2022-JP",
    "txt: in iso2022_kr": r"written in ISO-2022-KR",
    "txt: noise": r"not UTF-8|binary",
    "txt: zeros behind": r"50% of it are zero bytes",
    "txt: a pdf": r"a\.txt is a PDF; convert it",
    "txt: parquet": r"let its name end in \.parquet",
    "txt: blank": r"holds no text to learn from",
    "jsonl: CR": r"lines end in a carriage return alone",
    "jsonl: an indented array": r"one JSON value over several lines",
    "jsonl: an array": r"the line is an array",
    "jsonl: numbers as text": r"holds no text to learn from \(80 not text\)",
    "jsonl: another key": r"keys there: content",
    "jsonl: deep first": r"does not begin with a line of JSON: .*recursion",
    "jsonl.gz: cut": r"cannot be unpacked \(Truncated",
    "jsonl.gz: a page": r"cannot be unpacked",
    "parquet: nulls": r"holds no text to learn from \(80 not text\)",
    "parquet: lists": r"holds list<element: string>, not text; no column holds text",
    "parquet: a column twice": r"2 columns named text",
    "parquet: encrypted": r"encrypted parquet file",
    "parquet: a pointer": r"a Git LFS pointer, .*git lfs pull",
    "bin: a pointer": r"a Git LFS pointer",
    "bin: a zip": r"a PyTorch checkpoint, .*mygpt2 import",
    "bin: a checkpoint": r"a PyTorch checkpoint",
    "bin: a model of llm.c": r"a model of llm\.c",
    "bin: 32 bits bare": r"ids of 32 bits without a header",
    "bin: only zeros": r"zeros alone",
    "bin: a page": r"is text \('<!DOCTYPE",
    "npy: objects": r"numpy array of object",
    "npy: cut": r"promises 8000 tokens",
    "txt: a pipe": r"1 that are not files \(pipes",
    "txt: nothing but other formats": r"not read: 4 of other formats",
}


@pytest.mark.parametrize("name", list(SAID))
def test_the_sentence_names_the_fault(name, folder, tmp_path):
    BAD[name](folder)
    with pytest.raises(UserError, match=SAID[name]):
        data = config(folder)
        open_settled(resolve(str(folder), data, cache_dir=tmp_path), data, cache_dir=tmp_path, eot_id=50256)


def documents_of(source, tmp_path):
    manifest = resolve(str(source), config(source), cache_dir=tmp_path / "c")
    reader = open_reader(manifest, cache_dir=tmp_path / "c", eot_id=EOT)
    return [document for block in range(len(manifest)) for document in reader.read(block)], manifest


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("repeated", [1, 300])
def test_a_byte_order_mark_is_believed_and_taken_off(encoding, repeated, folder, tmp_path):
    text = "déjà vu, 日本語, plain words. " * 40 + "\n\n"
    (folder / "a.txt").write_bytes((text * repeated).encode(encoding))
    assert "".join(documents_of(folder, tmp_path)[0]) == text * repeated
    (folder / "a.txt").unlink()
    lines = "".join(json.dumps({"text": f"{i}{text}"}, ensure_ascii=False) + "\n" for i in range(3 * repeated))
    (folder / "a.jsonl").write_bytes(lines.encode(encoding))
    assert documents_of(folder, tmp_path)[0] == [f"{i}{text}" for i in range(3 * repeated)]


def test_a_byte_order_mark_makes_other_data_of_a_text_and_not_of_jsonl(tmp_path):
    def print_of(name, content):
        (tmp_path / name).mkdir(exist_ok=True)
        path = tmp_path / name / "a"
        path = path.with_suffix(f".{name}")
        path.write_bytes(content)
        return resolve(str(path), config(path), cache_dir=tmp_path / "c").files[0].identity

    assert print_of("txt", b"\xef\xbb\xbf" + txt()).endswith("+utf-8-sig")
    assert "+" not in print_of("txt", txt()) and "+" not in print_of("jsonl", b"\xef\xbb\xbf" + jsonl())


RIGHT = ["jsonl: CRLF", "jsonl: no final newline", "jsonl: blank lines", "jsonl: deep", "jsonl: keys twice",
         "jsonl.zst: CRLF", "parquet: binary", "parquet: large strings", "parquet: string views", "txt: formats of one",
         "parquet: dots in names"]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RIGHT if name in BAD])
def test_what_is_only_unusual_is_read(name, folder, tmp_path):
    BAD[name](folder)
    assert [text for text in documents_of(folder, tmp_path)[0] if text is not None] == TEXTS


def test_folders_behind_links_and_endings_in_capitals_are_read_and_the_rest_is_counted(folder, tmp_path):
    for place in ("real", "elsewhere"):
        (tmp_path / place).mkdir()
    for name in ("a.txt", "B.TXT", "_c.txt", "d.md", ".e.txt"):
        (folder / name).write_text(f"{name} " * 30)
    (tmp_path / "elsewhere" / "f.txt").write_text("f " * 30)
    (folder / "part").symlink_to(tmp_path / "elsewhere")
    _, manifest = documents_of(folder, tmp_path)
    assert [file.name for file in manifest.files] == ["B.TXT", "a.txt", "part/f.txt"]
    assert manifest.notes == (
        "not read: 1 of other formats (1 .md): d.md", "not read: 2 whose names begin with . or _: .e.txt, _c.txt"
    )  # fmt: skip


def test_only_the_training_split_of_a_copy_is_read(folder, tmp_path):
    for k, split in enumerate(("train", "validation", "test")):
        table = pa.table({"text": [f"{split} {i} {k}" for i in range(50)]})
        (folder / "data").mkdir(exist_ok=True)
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    documents, manifest = documents_of(folder, tmp_path)
    assert {text.split()[0] for text in documents} == {"train"}
    assert manifest.notes[0].startswith("only the split train is read; 2 files of other splits are not: data/test-")
    (folder / "data" / "train-00000-of-00001.parquet").unlink()
    documents, manifest = documents_of(folder, tmp_path)
    assert len(documents) == 100 and manifest.notes[0].startswith("all splits are read, none is named train")
    (folder / "data" / "test-00000-of-00001.parquet").rename(folder / "data" / "more.parquet")
    assert documents_of(folder, tmp_path)[1].notes[0].startswith("all splits are read, none is named train: data/val")


@pytest.mark.parametrize("names, read", [
    (["contest.txt", "latest-news.txt", "train.txt"], ["contest.txt", "latest-news.txt", "train.txt"]),
    (["fineweb_train_1.txt", "fineweb_val_0.txt"], ["fineweb_train_1.txt"]),
    (["dev/a.txt", "train/a.txt", "train/test-of-time.txt"], ["train/a.txt", "train/test-of-time.txt"]),
    (["test.txt", "other.txt"], ["other.txt", "test.txt"]),
    (["my-trainset.txt", "testset.txt", "devtest.txt"], ["my-trainset.txt"]),
    (["holdout/a.txt", "held_out_2.txt", "heldout.txt", "train/a.txt", "threshold.txt"],
     ["threshold.txt", "train/a.txt"]),
])  # fmt: skip
def test_a_split_is_a_word_of_a_name(names, read, folder, tmp_path):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name * 20)
    assert [file.name for file in documents_of(folder, tmp_path)[1].files] == read


@pytest.mark.parametrize("width", [2, 4])
def test_numpy_shards_and_wide_ids_give_the_documents_of_a_bin(width, folder, tmp_path):
    made = np.frombuffer(ids(), "<u2").copy()
    made[made == 50256] = EOT
    (folder / "a.bin").write_bytes(made.astype("<u2").tobytes())
    expected, _ = documents_of(folder / "a.bin", tmp_path)
    (folder / "b.npy").write_bytes(array(made.astype(f"<u{width}")))
    header = np.zeros(256, "<i4")
    header[:3] = (20240520, 1, len(made)) if width == 2 else (20240801, 7, len(made))
    (folder / "c.bin").write_bytes(header.tobytes() + made.astype(f"<u{width}").tobytes())
    for name in ("b.npy", "c.bin"):
        found, _ = documents_of(folder / name, tmp_path)
        assert [x.tolist() for x in found] == [x.tolist() for x in expected]


def test_a_footer_cannot_promise_more_rows_than_anyone_writes(folder, tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": TEXTS}), folder / "a.parquet")
    monkeypatch.setattr("mygpt2.data.sources.local.cutting.MOST_ROWS", 79)
    with pytest.raises(UserError, match=r"promises 80 rows and 80 texts; allowed: as many of both, at most 79"):
        documents_of(folder, tmp_path)


def test_a_line_that_has_no_end_is_said_and_not_searched_again_and_again(folder, tmp_path, monkeypatch):
    (folder / "a.jsonl").write_bytes(jsonl() * 30 + b'{"text": "' + b"x" * 400_000)
    monkeypatch.setattr("mygpt2.data.sources.local.textfiles.LONGEST_LINE", 100_000)
    with pytest.raises(Unreadable, match="a line of more than 0 MB"):
        documents_of(folder, tmp_path)
    monkeypatch.setattr("mygpt2.data.sources.local.describe.LONGEST_LINE", 100_000)
    (folder / "a.jsonl").write_bytes(b'{"text": "' + b"x" * (2 << 20))
    with pytest.raises(UserError, match="begins with a line of more than 0 MB"):
        documents_of(folder, tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_first_line_of_many_megabytes_is_read(packed, folder, tmp_path):
    content = json.dumps({"text": "word " * 900_000}).encode() + b"\n" + jsonl()
    path = folder / ("a.jsonl.zst" if packed else "a.jsonl")
    settings = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    frame = zstandard.ZstdCompressor(compression_params=settings).compressobj()  # as `zstd --long=31` writes
    path.write_bytes(frame.compress(content) + frame.flush() if packed else content)
    documents, _ = documents_of(folder, tmp_path)
    assert len(documents[0]) == 4_500_000 and documents[1:] == TEXTS
    if packed:
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(UserError, match="truncated compressed stream"):
            documents_of(folder, tmp_path)


def test_one_damaged_file_of_many_is_told_and_the_others_are_read(folder, tmp_path):
    for i in range(5):
        (folder / f"{i}.jsonl").write_bytes(jsonl())
    (folder / "3.jsonl").write_bytes(jsonl() + b'{"text": "caf\xe9"}\n')
    (folder / "4.jsonl").write_bytes(jsonl(key="body"))
    documents, manifest = documents_of(folder, tmp_path)
    assert documents.count(None) == 81 and len(documents) == 401
    assert "1 of 5 files are damaged or not UTF-8 throughout (3.jsonl)" in manifest.notes[0]
    assert "1 of 5 files begin without the key text (4.jsonl; keys there: body)" in manifest.notes[1]


def test_a_small_file_does_not_become_gigabytes(tmp_path):
    """In a process of its own, whose peak is what they took."""
    script = (
        "import sys, resource; from pathlib import Path\n"
        "from tests.data.bad_files import BAD\n"
        "from mygpt2.data.sources.resolve import open_settled, resolve\n"
        "from mygpt2.errors import UserError\n"
        "from tests.data.corpus import config\n"
        "top = Path(sys.argv[1])\n"
        "for i, name in enumerate([n for n in BAD if 'bomb' in n]):\n"
        "    (top / str(i)).mkdir(); BAD[name](top / str(i))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for folder in sorted(top.iterdir()):\n"
        "    data = config(folder)\n"
        "    try:\n"
        "        open_settled(resolve(str(folder), data, cache_dir=top / 'c'), data, cache_dir=top / 'c', eot_id=0)\n"
        "    except UserError as error:\n"
        "        print(error)\n"
        "print(max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    *said, grown = ended.stdout.splitlines()
    assert ended.returncode == 0 and len(said) == sum("bomb" in name for name in BAD), ended.stderr
    unit = 1024 if sys.platform == "linux" else 1
    assert int(grown) * unit < 1 << 29
    assert all("more than 64 MB" in sentence or "Unterminated string" in sentence for sentence in said), said
