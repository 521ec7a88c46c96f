"""One bit that changes in the data between a start and a resume is noticed, and its place named."""

from __future__ import annotations

import gzip
import random
import re
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.data.sources.local.folder import resolve_local
from mygpt2.data.sources.local.seals import REST, SealFile, label_of, seal
from mygpt2.data.sources.local.watch import SourceWatch
from mygpt2.data.sources.resolve import open_reader
from mygpt2.errors import TryAgain, UserError
from tests.data.corpus import (
    EOT,
    Ranks,
    config,
    texts,
    write_arrow,
    write_jsonl,
    write_parquet,
    write_tar,
    write_tokens,
    write_txt,
)

CODECS = ["none", "snappy", "zstd", "gzip", "lz4", "brotli"]
FLIPS = 30


def parquet_of(codec):
    def write(folder):
        folder.mkdir()
        for f in range(3):  # an `id` beside the text, no page checksums: most files are like this
            table = pa.table({"id": list(range(120)), "text": texts(120, 120 * f)})
            pq.write_table(table, folder / f"part-{f}.parquet", row_group_size=8, compression=codec)
        return folder

    return write


def write_gzipped(folder):
    folder.mkdir()
    for f in range(4):
        (folder / f"part-{f}.txt.gz").write_bytes(gzip.compress("\n\n".join(texts(60, 60 * f)).encode()))
    return folder


SOURCES = {
    **{f"parquet {codec}": parquet_of(codec) for codec in CODECS}, "arrow": write_arrow, "jsonl": write_jsonl,
    "tar": write_tar,
    "txt": write_txt, "bin": write_tokens, "bin with a header": lambda folder: write_tokens(folder, header=True),
    "gz": write_gzipped,
}  # fmt: skip


def flip(folder, rng) -> tuple:
    """Change one bit of one file in place; returns the file, the place, and how to change it back."""
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    content = path.read_bytes()
    at = rng.randrange(len(content))
    with open(path, "r+b") as f:
        f.seek(at)
        f.write(bytes([content[at] ^ 1 << rng.randrange(8)]))
    return path, at, lambda: path.write_bytes(content)


def watch(source, data, cache, run, said=None, **settings):
    manifest = resolve_local(str(source), source, data)
    tell = (said if said is not None else []).append
    return SourceWatch(manifest, cache, run / "data.checksums", tell, **{"resumed": False, **settings})


@pytest.mark.parametrize("kind", SOURCES)
def test_each_flipped_bit_between_start_and_resume_is_noticed_and_its_file_named(kind, tmp_path):
    source, run, rng = SOURCES[kind](tmp_path / "source"), tmp_path / "run", random.Random(kind)
    run.mkdir()
    data = config(source)
    watch(source, data, tmp_path / "a", run).close()
    watch(source, data, tmp_path / "none", run, resumed=True).close()  # nothing changed, the cache is another
    for number in range(FLIPS):
        path, at, restore = flip(source, rng)
        cache = tmp_path / ("a" if number % 2 else f"other-{number}")
        with pytest.raises(UserError) as error:  # a footer may be damaged so that the file is none any more
            watch(source, data, cache, run, resumed=True)
        assert path.name in str(error.value)
        if "changed since this run read them" in str(error.value):
            assert "--data.fork true" in str(error.value)
            for start, stop in re.findall(rf"{re.escape(path.name)}: bytes (\d+) to (\d+)", str(error.value)):
                assert int(start) <= at <= int(stop)
        restore()
    watch(source, data, tmp_path / "a", run, resumed=True).close()


def test_the_row_group_is_named(tmp_path):
    source, run = parquet_of("zstd")(tmp_path / "source"), tmp_path
    watch(source, config(source), tmp_path / "a", run).close()
    path = source / "part-1.parquet"
    content = bytearray(path.read_bytes())
    for group in (4, 11):
        content[pq.read_metadata(path).row_group(group).column(1).data_page_offset + 30] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"part-1.parquet: row group 4, row group 11; restore the files"):
        watch(source, config(source), tmp_path / "a", run, resumed=True)


def test_a_block_in_quarantine_may_be_anything(tmp_path):
    source, run = parquet_of("zstd")(tmp_path / "source"), tmp_path
    before = watch(source, config(source), tmp_path / "a", run)
    before.close()
    path = source / "part-1.parquet"
    content = bytearray(path.read_bytes())
    content[pq.read_metadata(path).row_group(4).column(1).data_page_offset + 30] ^= 1
    path.write_bytes(content)
    block = next(b for b in range(45) if label_of(before._manifest, b) == ("part-1.parquet", "row group 4"))
    watch(source, config(source), tmp_path / "a", run, resumed=True, quarantine=(block,)).close()


def test_files_copied_elsewhere_with_other_times_are_the_same_data(tmp_path):
    source, run = write_parquet(tmp_path / "source"), tmp_path
    watch(source, config(source), tmp_path / "a", run).close()
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    said = []
    watch(tmp_path / "copy", config(source), tmp_path / "a", run, said, resumed=True).close()
    assert not said


def test_a_new_run_says_what_changed_since_the_files_were_read_before_and_goes_on(tmp_path):
    source, said = write_jsonl(tmp_path / "source"), []
    for name in ("one", "two", "three", "four"):
        (tmp_path / name).mkdir()
    watch(source, config(source), tmp_path / "a", tmp_path / "one", said).close()
    watch(source, config(source), tmp_path / "a", tmp_path / "two", said).close()
    assert not said
    flip(source, random.Random(2))
    watch(source, config(source), tmp_path / "a", tmp_path / "three", said).close()
    assert len(said) == 1 and re.search(r"part-\d.jsonl: bytes \d+ to \d+; they are taken as they are now", said[0])
    watch(source, config(source), tmp_path / "a", tmp_path / "four", said).close()
    watch(source, config(source), tmp_path / "a", tmp_path / "three", said, resumed=True).close()
    assert len(said) == 1  # said once


def test_a_refused_resume_stays_refused_until_the_run_forks(tmp_path):
    source, said = write_jsonl(tmp_path / "source"), []
    watch(source, config(source), tmp_path / "a", tmp_path).close()
    flip(source, random.Random(2))
    for _ in range(2):
        with pytest.raises(UserError, match="the data changed since this run read them"):
            watch(source, config(source), tmp_path / "a", tmp_path, resumed=True)
    watch(source, config(source), tmp_path / "a", tmp_path, said, resumed=True, fork=True).close()
    assert len(said) == 1
    watch(source, config(source), tmp_path / "a", tmp_path, said, resumed=True).close()
    assert len(said) == 1


def test_what_the_start_had_no_time_for_is_read_beside_the_training(tmp_path):
    source, said = write_jsonl(tmp_path / "source"), []
    first = watch(source, config(source), tmp_path / "a", tmp_path, sync_bytes=0)
    first._thread.join(20)
    flip(source, random.Random(2))
    with pytest.raises(UserError, match="part-"):  # written in place: looked at before anything is trained on
        watch(source, config(source), tmp_path / "a", tmp_path, resumed=True, sync_bytes=0)
    shutil.copytree(source, tmp_path / "copy")
    again = watch(tmp_path / "copy", config(source), tmp_path / "a", tmp_path, said, resumed=True, sync_bytes=0)
    again._thread.join(20)
    assert len(said) == 1 and re.search(r"changed since they were read before: part-\d.jsonl: bytes", said[0])


def test_a_file_that_was_written_to_before_its_checksums_were_known_is_said(tmp_path):
    source, said = write_jsonl(tmp_path / "source"), []
    manifest = resolve_local("x", source, config(source))
    kept = SealFile(tmp_path / "data.checksums")
    for number, file in enumerate(manifest.files):
        whole = seal(manifest, number)
        kept.add(type(whole)(file.name, whole.size, whole.stat, {}))
    flip(source, random.Random(2))
    watch(source, config(source), tmp_path / "a", tmp_path, said, resumed=True).close()
    assert len(said) == 1 and "was written to since this run began" in said[0]


def test_no_flipped_bit_of_the_record_is_believed(tmp_path):
    source, rng = write_parquet(tmp_path / "source", files=2), random.Random(7)
    watch(source, config(source), tmp_path / "a", tmp_path).close()
    path = tmp_path / "data.checksums"
    whole, known = path.read_bytes(), SealFile(path).seals
    for _ in range(60):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        found = SealFile(path)
        assert found.damaged >= 1 and all(known[name] == one for name, one in found.seals.items())
    path.write_bytes(whole[:-9])  # torn: what is added then is on a line of its own
    torn = SealFile(path)
    torn.add(known["part-1.parquet"])
    assert SealFile(path).seals["part-1.parquet"] == known["part-1.parquet"]


def test_the_held_out_set_of_a_run_is_the_same_after_a_resume(tmp_path):
    source = write_parquet(tmp_path / "source")
    watch(source, config(source), tmp_path / "a", tmp_path).held_out("a" * 64, "of 10 tokens")
    watch(source, config(source), tmp_path / "a", tmp_path, resumed=True).held_out("a" * 64, "of 10 tokens")
    watch(source, config(source), tmp_path / "a", tmp_path, resumed=True).held_out("b" * 64, "of 20 tokens")
    with pytest.raises(UserError, match="the held-out documents are others"):
        watch(source, config(source), tmp_path / "a", tmp_path, resumed=True).held_out("b" * 64, "of 10 tokens")


def test_every_byte_of_a_file_is_in_one_part(tmp_path):
    source = parquet_of("snappy")(tmp_path / "source")
    manifest = resolve_local("x", source, config(source))
    found = seal(manifest, 0)
    assert [*found.parts] == [*(f"row group {g}" for g in range(15)), REST]


@pytest.mark.parametrize("token_cache", [True, False])
def test_after_a_change_that_was_said_the_cached_tokens_are_not_those_of_the_old_text(token_cache, tmp_path):
    """Of a large file some pages are looked at only: here none, so that only the checksums tell."""
    source, said = parquet_of("none")(tmp_path / "source"), []
    data = config(source, token_cache=token_cache)

    def batches(cache, run):
        known = watch(source, data, tmp_path / cache, tmp_path / run, said)
        files = [replace(file, identity=file.name) for file in known._manifest.files]
        manifest = replace(known._manifest, files=files)
        reader = open_reader(manifest, cache_dir=tmp_path, eot_id=EOT)
        with Ranks(data, tmp_path / cache, watch=known, manifest=manifest, reader=reader) as run:
            return [batch.tobytes() for batch in run.steps(150)]

    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    before = batches("a", "one")
    path = source / "part-1.parquet"
    path.write_bytes(path.read_bytes().replace(b"<00125>", b"<00X25>"))
    assert not said
    expected = batches("b", "two")
    assert batches("a", "three") == expected != before
    assert len(said) == 1 and "part-1.parquet: row group 0" in said[0]


def test_a_record_that_cannot_be_read_now_is_not_taken_for_nothing(tmp_path):
    source = write_parquet(tmp_path / "source")
    (tmp_path / "run" / "data.checksums").mkdir(parents=True)  # as with EIO: it is there and cannot be read
    with pytest.raises(TryAgain, match=r"cannot be read .* the data cannot be compared"):
        watch(source, config(source), tmp_path / "a", tmp_path / "run", resumed=True)
