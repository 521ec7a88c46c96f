"""Uploads: what they are called, where they end up, and everything somebody may try with them."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

from mygpt2.data.sources.local.find import find
from mygpt2.errors import UserError
from workbench.picker import incoming as uploads
from workbench.picker.incoming import Incoming, clean
from workbench.picker.kinds import KINDS
from workbench.picker.places import STAGING

DATA = KINDS["data"]
BATCH = "0123456789abcdef" * 2
TEXT = b"The quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture
def incoming(tmp_path: Path) -> Incoming:
    for name in ("runs", "root", "elsewhere"):
        (tmp_path / name).mkdir()
    return Incoming(tmp_path / "runs", [tmp_path / "root"])


def bring(incoming: Incoming, name: str, content: bytes = TEXT, batch: str = BATCH, kind: Any = DATA) -> str:
    """One whole file of a batch; the name it got."""
    part = incoming.open(batch, kind, name, len(content))
    try:
        part.write(content)
        return part.keep(len(content))
    except UserError:
        part.discard()
        raise


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink())


def test_a_single_file_keeps_its_name_and_is_private(incoming: Incoming, tmp_path: Path) -> None:
    bring(incoming, "book.txt")
    assert not find_all(tmp_path), "nothing is there before the batch is complete"
    path = incoming.finish(BATCH, DATA, "book")
    assert path == tmp_path / "runs" / ".workbench" / "uploads" / "book.txt" and path.read_bytes() == TEXT
    assert path.stat().st_mode & 0o077 == 0
    assert everything(path.parent) == ["book.txt"]


def find_all(tmp_path: Path) -> list[str]:
    """Uploads that anybody could choose."""
    folder = tmp_path / "runs" / ".workbench" / "uploads"
    return [name for name in everything(folder) if not name.startswith(STAGING)] if folder.is_dir() else []


def test_several_files_become_a_folder_that_is_one_source(incoming: Incoming) -> None:
    for number in range(3):
        bring(incoming, f"chapter {number}.txt")
    folder = incoming.finish(BATCH, DATA, "../my book")
    assert folder.name == "my-book" and everything(folder) == [f"chapter-{n}.txt" for n in range(3)]
    assert len(find(folder).paths) == 3


def test_a_folder_uploads_in_a_root_is_used_where_there_is_one(incoming: Incoming, tmp_path: Path) -> None:
    (tmp_path / "root" / "uploads").mkdir()
    bring(incoming, "book.txt")
    assert incoming.finish(BATCH, DATA, "").parent == tmp_path / "root" / "uploads"


NAMES = [
    ("../../etc/passwd.txt", "passwd.txt"), ("/etc/cron.d/x.txt", "x.txt"), ("..\\..\\windows\\x.txt", "x.txt"),
    ("a\0b.txt", "a-b.txt"), ("\0.txt", "txt"), (".hidden.txt", "hidden.txt"), ("_x.txt", "x.txt"),
    ("-rf.txt", "rf.txt"), ("a\nb\x1b[31m.txt", "a-b-31m.txt"), ("naïve 日本.txt", "naïve-日本.txt"),
    ("<img src=x onerror=1>.txt", "img-src-x-onerror-1-.txt"), ("CAPITALS.TXT", "CAPITALS.TXT"), ("..", ""), ("", ""),
    ("a.txt/", ""), ("x" * 400 + ".jsonl.gz", "x" * 111 + ".jsonl.gz"), ("a." + "b" * 400, ""),
    ("\ud800x.txt", "x.txt"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), NAMES)
def test_a_name_is_cleaned_to_one_that_stays_in_its_folder(given: str, expected: str) -> None:
    found = clean(given)
    assert found == expected or (given.startswith("a.b") and len(found.encode()) <= 120)
    assert "/" not in found and "\0" not in found and not found.startswith((".", "_", "-"))
    assert len(found.encode()) <= uploads.MOST_NAME and clean(found) == found


@pytest.mark.parametrize("name", ["../../out.txt", "/tmp/out.txt", "..\\out.txt", "sub/../../out.txt"])
def test_a_name_that_climbs_lands_in_the_uploads(incoming: Incoming, tmp_path: Path, name: str) -> None:
    bring(incoming, name)
    assert incoming.finish(BATCH, DATA, name) == tmp_path / "runs" / ".workbench" / "uploads" / "out.txt"


@pytest.mark.parametrize("batch", ["", "..", "../../x", "0" * 31, "0" * 33, "G" * 32, f"{'0' * 31}\n", f"{'0' * 30}/x"])
def test_a_batch_is_a_number_and_no_path(incoming: Incoming, tmp_path: Path, batch: str) -> None:
    for act in (lambda: incoming.open(batch, DATA, "a.txt", 1), lambda: incoming.finish(batch, DATA, "a"),
                lambda: incoming.drop(batch)):  # fmt: skip
        with pytest.raises(UserError, match="hexadecimal"):
            act()
    assert not find_all(tmp_path)


@pytest.mark.parametrize("name", ["book.docx", "x.pdf", "run.sh", "x.pickle", "x.pt", "x", "x.txt.exe", "x.parquet.gz"])
def test_other_kinds_of_files_are_refused_with_what_is_allowed(incoming: Incoming, name: str) -> None:
    with pytest.raises(UserError, match=r"allowed: \.txt, \.jsonl"):
        incoming.open(BATCH, DATA, name, 10)


WRONG = [
    ("a.txt", b"PK\x03\x04" + bytes(90), "ZIP archive"), ("a.jsonl", b"%PDF-1.7 ...", "a PDF"),
    ("a.txt", b"text" + bytes(200), "not text"), ("a.parquet", TEXT, "not what its ending"),
    ("a.parquet", b"PAR1" + TEXT, "not what its ending"), ("a.txt.gz", TEXT, "not what its ending"),
    ("a.jsonl.zst", gzip.compress(TEXT, mtime=0), "a gzip file"), ("a.npy", TEXT, "not what its ending"),
    ("a.txt", b"", "is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), WRONG)
def test_a_file_that_is_not_what_its_name_says_is_not_kept(
    incoming: Incoming, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        bring(incoming, name, content)
    with pytest.raises(UserError, match="nothing was uploaded"):
        incoming.finish(BATCH, DATA, "x")
    assert not everything(tmp_path)


def test_texts_in_utf_16_and_whole_files_of_other_kinds_are_taken(incoming: Incoming) -> None:
    bring(incoming, "wide.txt", "Grüße".encode("utf-16"))
    bring(incoming, "a.txt.gz", gzip.compress(TEXT, mtime=0))
    header = json.dumps({"__metadata__": {}}).encode()
    safe = struct.pack("<Q", len(header)) + header
    assert bring(incoming, "model.safetensors", safe, kind=KINDS["model"]) == "model.safetensors"
    with pytest.raises(UserError, match="not a safetensors file"):
        bring(incoming, "model.safetensors", struct.pack("<Q", 10**12) + header, kind=KINDS["model"])
    with pytest.raises(UserError, match="not JSON"):
        bring(incoming, "tokenizer.json", b"hello", kind=KINDS["tokenizer"])


def test_what_is_too_large_is_refused_before_and_while_it_arrives(
    incoming: Incoming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="too large to upload: at most 100 B"):
        incoming.open(BATCH, DATA, "a.txt", 101)
    part = incoming.open(BATCH, DATA, "a.txt", None)  # a body without a length
    part.write(b"x" * 100)
    with pytest.raises(UserError, match="too large"):
        part.write(b"x")
    part.discard()
    bring(incoming, "b.txt", b"x" * 60)
    with pytest.raises(UserError, match="too large"):  # the batch as a whole
        incoming.open(BATCH, DATA, "c.txt", 60)
    assert len(everything(tmp_path)) == 1


def test_all_uploads_together_and_the_free_disk_have_their_limits(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(incoming, "a.txt")
    incoming.finish(BATCH, DATA, "a")
    monkeypatch.setattr(uploads, "MOST_TOGETHER", len(TEXT) + 10)
    with pytest.raises(UserError, match="uploads hold 900 B of at most 910 B"):
        incoming.open(BATCH, DATA, "b.txt", 11)
    monkeypatch.setattr(uploads, "RESERVE", shutil.disk_usage(incoming.place()).total)
    with pytest.raises(UserError, match="the disk has room for 0 B; make room"):
        incoming.open(BATCH, DATA, "b.txt", 5)
    monkeypatch.setattr(uploads, "RESERVE", 0)
    monkeypatch.setattr(uploads, "MOST_FILES", 1)
    bring(incoming, "b.txt", b"12345")
    with pytest.raises(UserError, match="at once"):
        incoming.open(BATCH, DATA, "c.txt", 1)


def test_a_file_of_a_batch_does_not_count_all_uploads_again(
    incoming: Incoming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thousand files are as many countings: of their own batch, once each, and of nothing else."""
    for number in range(3):
        batch = f"{number:032x}"
        for name in ("a.txt", "b.txt"):
            bring(incoming, name, batch=batch)
        incoming.finish(batch, DATA, "books")
    bring(incoming, "first.txt")
    counted, inventory = [], uploads._inventory
    monkeypatch.setattr(uploads, "_inventory", lambda folder: counted.append(folder.name) or inventory(folder))
    bring(incoming, "second.txt")
    assert counted == [BATCH]
    monkeypatch.setattr(uploads, "MOST_TOGETHER", 8 * len(TEXT) + 10)
    with pytest.raises(UserError, match="the uploads hold"):  # what the batch has brought counts as well
        incoming.open(BATCH, DATA, "third.txt", 11)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_fills_up_is_told_and_nothing_stays(incoming: Incoming, tmp_path: Path) -> None:
    part = incoming.open(BATCH, DATA, "a.txt", None)
    part._file.close()
    part._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115  # discard closes it
    with pytest.raises(UserError, match="is full; make room"):
        part.write(TEXT)
    part.discard()
    assert not everything(tmp_path)


def test_a_file_that_ends_early_is_not_kept(incoming: Incoming, tmp_path: Path) -> None:
    part = incoming.open(BATCH, DATA, "a.txt", 100)
    part.write(b"half")
    with pytest.raises(UserError, match="ended after 4 of 100 bytes"):
        part.keep(100)
    part.discard()
    assert not everything(tmp_path)


def test_what_was_killed_in_the_middle_is_never_listed_and_swept_later(
    incoming: Incoming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = incoming.open(BATCH, DATA, "a.txt", None)
    part.write(TEXT)
    part._file.close()  # as a killed server leaves it
    bring(incoming, "whole.txt")
    assert not find_all(tmp_path)
    assert incoming.finish(BATCH, DATA, "a").name == "whole.txt", "half a file is no file of the batch"
    part = incoming.open("f" * 32, DATA, "a.txt", None)
    part._file.close()
    incoming.sweep()
    assert len(everything(tmp_path)) == 2, "it may still be under way"
    monkeypatch.setattr(uploads, "STALE_SECONDS", -1.0)
    incoming.sweep()
    assert everything(tmp_path) == ["runs/.workbench/uploads/whole.txt"]


def test_what_was_left_behind_is_swept_when_the_next_batch_begins(
    incoming: Incoming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(incoming, "left.txt", batch="1" * 32)
    monkeypatch.setattr(uploads, "STALE_SECONDS", -1.0)
    bring(incoming, "new.txt")
    assert everything(tmp_path) == [f"runs/.workbench/uploads/{STAGING}/{BATCH}/new.txt"]


def test_two_at_once_of_one_name_both_stay(incoming: Incoming) -> None:
    batches = [f"{number:032x}" for number in range(8)]
    for number, batch in enumerate(batches):
        bring(incoming, "book.txt", TEXT + str(number).encode(), batch)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda batch=batch: found.append(incoming.finish(batch, DATA, "book")))
        for batch in batches
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in found) == sorted(["book.txt", *(f"book-{n}.txt" for n in range(2, 9))])
    assert len({path.read_bytes() for path in found}) == 8


def test_two_folders_of_one_name_and_two_files_of_one_batch_both_stay(incoming: Incoming) -> None:
    for batch in ("1" * 32, "2" * 32):
        names = [bring(incoming, "a.txt", batch=batch), bring(incoming, "a.txt", batch=batch)]
        assert names == ["a.txt", "a-2.txt"]
    folders = [incoming.finish(batch, DATA, "books").name for batch in ("1" * 32, "2" * 32)]
    assert folders == ["books", "books-2"]


def test_without_hard_links_nothing_is_overwritten_either(incoming: Incoming, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    names = []
    for batch in ("1" * 32, "2" * 32):
        bring(incoming, "a.txt", batch.encode(), batch)
        names.append(incoming.finish(batch, DATA, ""))
    assert [path.name for path in names] == ["a.txt", "a-2.txt"]
    assert [path.read_bytes() for path in names] == [b"1" * 32, b"2" * 32]


def test_a_link_in_place_of_the_uploads_is_not_followed(incoming: Incoming, tmp_path: Path) -> None:
    (tmp_path / "root" / "uploads").symlink_to(tmp_path / "elsewhere")
    assert incoming.place() == tmp_path / "runs" / ".workbench" / "uploads"
    shutil.rmtree(tmp_path / "runs" / ".workbench")
    (tmp_path / "runs" / ".workbench").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link out of the folder of runs"):
        incoming.open(BATCH, DATA, "a.txt", 5)
    assert not everything(tmp_path / "elsewhere")


def test_links_within_the_staging_lead_nowhere(incoming: Incoming, tmp_path: Path) -> None:
    staging = incoming.place() / STAGING
    staging.mkdir()
    (staging / BATCH).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="cannot be written"):
        incoming.open(BATCH, DATA, "a.txt", 5)
    (tmp_path / "target").write_bytes(b"safe")
    (incoming.place() / "a.txt").symlink_to(tmp_path / "target")
    bring(incoming, "a.txt", batch="1" * 32)
    assert incoming.finish("1" * 32, DATA, "a").name == "a-2.txt" and (tmp_path / "target").read_bytes() == b"safe"


def test_a_link_where_batches_lie_is_neither_swept_nor_written_to(incoming: Incoming, tmp_path: Path) -> None:
    letters = tmp_path / "elsewhere" / "letters"
    letters.mkdir()
    (letters / "old.txt").write_text("dear")
    for path in (letters / "old.txt", letters):
        os.utime(path, (1, 1))
    (tmp_path / "root" / "uploads").mkdir()
    (tmp_path / "root" / "uploads" / STAGING).symlink_to(tmp_path / "elsewhere")
    for act in (lambda: bring(incoming, "book.txt"), incoming.sweep, lambda: incoming.drop(BATCH)):
        with pytest.raises(UserError, match="is a link"):
            act()
    assert everything(tmp_path / "elsewhere") == ["letters/old.txt"]
