"""Tars of texts: read where they lie, never extracted; what is not text is counted, what is no tar is refused."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile

import pyarrow as pa
import pytest

from mygpt2.data.heldout import chosen
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.filters import Filtered
from mygpt2.data.sources.local import tar
from mygpt2.data.sources.local.tar import NO_TEXT, contents_of
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.errors import UserError
from tests.data.corpus import EOT, check_ranks, config, texts

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}


def write(path, members, form="ustar"):
    """`members`: (name, content), or a TarInfo of another kind."""
    with tarfile.open(path, "w", format=FORMATS[form]) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def shard(count=240, start=0):
    return [(f"{i:06d}.txt", text.encode()) for i, text in enumerate(texts(count, start), start)]


def read(source, tmp_path, **settings):
    manifest = resolve(str(source), config(source, **settings), cache_dir=tmp_path / "cache")
    reader = open_reader(manifest, cache_dir=tmp_path / "cache", eot_id=EOT)
    order = random.Random(1).sample(range(len(manifest)), len(manifest))  # at random, as training reads
    found = {block: reader.read(block) for block in order}
    return manifest, [text for block in range(len(manifest)) for text in found[block]]


@pytest.mark.parametrize("form", list(FORMATS))
def test_every_member_is_a_document_whatever_wrote_the_tar(form, tmp_path):
    long = "folder/" * 30 + "ünïcode" * 5  # needs an extended head; too long for ustar
    members = [(f"{long if form != 'ustar' else 'plain'}/{name}", content) for name, content in shard()]
    manifest, found = read(write(tmp_path / "a.tar", members, form), tmp_path)
    assert (manifest.kind, manifest.documents, manifest.notes) == ("tar", 240, ())
    assert found == texts(240)


def test_blocks_are_runs_of_members_of_about_the_size_of_others(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    long = [f"{i} " + "y" * 3000 for i in range(600)]
    for part in range(2):
        pictures = [(f"{i:04d}.jpg", b"\xff\xd8" * 5000) for i in range(300)]
        captions = [(f"{i:04d}.txt", long[300 * part + i].encode()) for i in range(300)]
        write(folder / f"{part}.tar", sorted([*pictures, *captions]))
    manifest, found = read(folder, tmp_path)
    assert found == long and 20 < len(manifest) < 40  # 64 kB of text each, whatever lies between
    assert manifest.notes == ("not read: 600 members of tars beside 600 that are texts (600 .jpg)",)


def test_of_a_documents_members_the_txt_is_read_else_the_json(tmp_path):
    record = json.dumps({"text": "of the json", "n": 1}).encode()
    members = [
        ("0/a.json", record), ("0/a.txt", b"of the txt"), ("0/a.cls", b"3"),
        ("0/b.JSON", record),
        ("0/c.cls", b"3"),
        ("1/c.txt", b"another c"),
        ("1/d.v2.txt", b"a name with dots"),
        ("noending", b"?"),
        ("1/e.json", b"{torn"), ("1/f.json", b'{"other": 1}'), ("1/g.json", b'{"text": 5}'),
    ]  # fmt: skip
    manifest, found = read(write(tmp_path / "a.tar", members), tmp_path)
    assert found == ["of the txt", "of the json", NO_TEXT, "another c", "a name with dots", NO_TEXT, None, None, 5]
    assert manifest.notes[0] == (
        "not read: 4 members of tars beside 7 that are texts (2 .cls, 1 .json, 1 without an ending)"
    )
    kept, left_out = chosen(found, config(validation_fraction=0.0))
    assert len(kept) + sum(left_out.values()) == len(found) and left_out == {"no text member": 2, "not_text": 3}


def test_links_devices_and_sparse_files_are_counted_and_nothing_is_ever_written(tmp_path):
    members = [
        special("folder", tarfile.DIRTYPE),
        ("/etc/absolute.txt", b"an absolute name"),
        ("../../up.txt", b"a name that leads out"),
        special("a.txt", tarfile.SYMTYPE, "/etc/passwd"),
        special("b.txt", tarfile.LNKTYPE, "../../up.txt"),
        special("c.txt", tarfile.CHRTYPE), special("d.txt", tarfile.FIFOTYPE), special("e.txt", b"Z"),
        ("last.txt", b"the last"),
    ]  # fmt: skip
    (tmp_path / "in").mkdir()
    manifest, found = read(write(tmp_path / "in" / "a.tar", members), tmp_path)
    assert found == ["an absolute name", "a name that leads out", *[NO_TEXT] * 5, "the last"]
    assert (
        "5 members of tars beside 3 that are texts (2 links, 1 devices, 1 pipes, 1 members of the kind b'Z')"
        in (manifest.notes[0])
    )
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.tar"]


@pytest.mark.parametrize("form", ["old", "pax"])
def test_sparse_files_are_passed_over_with_their_maps(form, tmp_path):
    path = write(tmp_path / "a.tar", [("before.txt", b"before"), ("hole.txt", b"x" * 700), ("after.txt", b"after")])
    content = bytearray(path.read_bytes())
    if form == "old":  # its map goes on in one more record before the content
        content[1024 + 156] = ord("S")
        content[1024 + 482] = 1
        content[1536:1536] = bytes(512)
        head = content[1024:1536]
        head[148:156] = b" " * 8
        content[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(head)
        path.write_bytes(content)
    else:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in ("before", "hole", "after"):
                info = tarfile.TarInfo(f"{name}.txt")
                info.size = len(name)
                info.pax_headers = {"GNU.sparse.major": "1"} if name == "hole" else {}
                tar.addfile(info, io.BytesIO(name.encode()))
    manifest, found = read(path, tmp_path)
    assert found == ["before", NO_TEXT, "after"] and "1 sparse files" in manifest.notes[0]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_packed_tar_is_one_block_and_the_manifest_says_so(suffix, tmp_path):
    content = write(tmp_path / "a", [*shard(50), ("x.jpg", b"\xff")]).read_bytes()
    packed = gzip.compress(content) if suffix == "gz" else pa.compress(content, "zstd", asbytes=True)
    (tmp_path / f"a.tar.{suffix}").write_bytes(packed)
    manifest, found = read(tmp_path / f"a.tar.{suffix}", tmp_path)
    assert (
        len(manifest) == 1 and manifest.documents is None and "one block each: not random-access" in manifest.notes[0]
    )
    assert found == [*texts(50), NO_TEXT]
    (tmp_path / f"a.tar.{suffix}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises((Unreadable, UserError)):
        read(tmp_path / f"a.tar.{suffix}", tmp_path)


TORN = {
    "in a member": (lambda content: content[: 7 * 512 + 100], "the member at byte 3,072, which is to have 28 bytes"),
    "in a head": (lambda content: content[: 6 * 512 + 100], "ends within the head at byte 3,072"),
    "no tar": (lambda content: b"some text " * 400, "there is no head of a tar's member at byte 0"),
    "noise": (lambda content: content[: 6 * 512] + b"\x07" * 4096, "no head of a tar's member at byte 3,072"),
    "two tars": (lambda content: content + content, "something follows its end at byte"),
    "ten gigabytes": (lambda content: resized(content, b"%011o\0" % (10 << 30)), "to have 10,737,418,240 bytes"),
    "negative": (lambda content: resized(content, b"\xff" * 12), "no head of a tar's member at byte 0"),
    "binary size": (lambda content: resized(content, b"\x80" + (1 << 61).to_bytes(11, "big")), "have 2,305,843,009"),
}  # fmt: skip


def resized(content, size):
    """The first member with another size, and the checksum that goes with it."""
    head = bytearray(content[:512])
    head[124:136], head[148:156] = size, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content[512:]


@pytest.mark.parametrize("name", list(TORN))
def test_what_is_no_whole_tar_is_refused_in_one_line(name, tmp_path):
    path = write(tmp_path / "a.tar", shard(20))
    torn, words = TORN[name]
    path.write_bytes(torn(path.read_bytes()))
    with pytest.raises(UserError, match=r"a\.tar is not a readable tar \(.*\); remove it, or write or fetch") as error:
        read(path, tmp_path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_head_whose_checksum_does_not_hold_is_no_head(tmp_path):
    path = write(tmp_path / "a.tar", shard(20))
    content = bytearray(path.read_bytes())
    content[3 * 1024 + 2] ^= 1  # a letter of a name
    path.write_bytes(content)
    with pytest.raises(UserError, match="no head of a tar's member at byte 3,072"):
        read(path, tmp_path)
    signed = write(tmp_path / "b.tar", [("é.txt".encode().decode("latin-1"), b"text")])
    head = bytearray(signed.read_bytes())
    total = sum(head[:148]) + 8 * 32 + sum(head[156:512])
    head[148:156] = b"%06o\0 " % (total - 256 * sum(byte >= 128 for byte in head[:512]))  # as some old tars sum
    signed.write_bytes(head)
    assert read(signed, tmp_path)[1] == ["text"]


@pytest.mark.parametrize("records", [b"30 path=x\n", b"nothing", b"12 size=abc\n", b"99999999 path=a\n"])
def test_an_extended_head_that_lies_is_refused(records, tmp_path):
    extended = special("pax", tarfile.XHDTYPE)
    extended.size = len(records)
    head = extended.tobuf(tarfile.USTAR_FORMAT)
    path = write(tmp_path / "a.tar", shard(5))
    path.write_bytes(head + records.ljust(512, b"\0") + path.read_bytes())
    with pytest.raises(UserError, match="the extended head at byte 0"):
        read(path, tmp_path)


def test_a_tar_that_just_stops_is_noted(tmp_path):
    path = write(tmp_path / "a.tar", shard(4))
    path.write_bytes(path.read_bytes()[: 8 * 512])
    manifest, found = read(path, tmp_path)
    assert found == texts(4) and "1 of 1 tars do not say where they end (a.tar)" in manifest.notes[0]


def test_a_json_without_the_text_names_the_keys_that_there_are(tmp_path):
    path = write(tmp_path / "a.tar", [("0.cls", b"1"), ("1.json", b'{"caption": "a", "url": "b"}')])
    with pytest.raises(UserError, match=r"text is not a key of 1.json in .*; keys there: caption, url; set data.text_"):
        read(path, tmp_path)
    assert read(path, tmp_path, text_column="caption")[1] == [NO_TEXT, "a"]
    one, other = (resolve(str(path), config(path, text_column=c), cache_dir=tmp_path) for c in ("caption", "url"))
    assert one.fingerprint != other.fingerprint and one.block_identity(0) != other.block_identity(0)


def test_a_text_of_another_encoding_or_too_long_to_hold_is_one_document_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("mygpt2.data.sources.local.tar.LONGEST_LINE", 1000)
    members = [("a.txt", b"\xff\xfe" + "wide".encode("utf-16-le")), ("b.txt", b"\xe4"), ("c.txt", b"\xff\xfe\x00"),
               ("d.txt", b"x" * 1001), ("e.txt", b"")]  # fmt: skip
    found = read(write(tmp_path / "a.tar", members), tmp_path)[1]
    assert found[:3] == ["wide", None, None] and found[4] == ""
    assert isinstance(found[3], Filtered) and found[3].reason.startswith("text member of more than")


def test_filters_are_refused_for_a_tar(tmp_path):
    with pytest.raises(UserError, match=r"data.min_score=3.0 cannot be asked of .* its tar files have no columns"):
        read(write(tmp_path / "a.tar", shard(5)), tmp_path, min_score=3.0)


def test_training_on_tars_gives_the_batches_of_any_rank_count_and_goes_on_where_it_stopped(tmp_path):
    path = write(tmp_path / "a.tar", shard(2000))
    check_ranks(path, tmp_path)


@pytest.mark.parametrize("form", list(FORMATS))
def test_any_damaged_byte_is_read_as_text_or_told(form, tmp_path):
    members = [("folder/" * 20 + name, content) for name, content in shard(40)] if form != "ustar" else shard(40)
    path = write(tmp_path / "a.tar", members, form)
    content, rng, refused = path.read_bytes(), random.Random(5), 0
    for _ in range(120):
        damaged = bytearray(content)
        for _ in range(rng.choice([1, 4])):
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read(path, tmp_path)[1]
            assert all(isinstance(text, str | None | Filtered) for text in found)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert 0 < refused < 120


def test_what_a_large_tar_holds_is_kept_in_the_cache_and_read_again_when_the_tar_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(tar, "MANY", 50)
    members = [*shard(60), ("a.json", b'{"text": "of json"}'), special("link", tarfile.SYMTYPE, "a")]
    path = write(tmp_path / "a.tar", members)
    first, found = read(path, tmp_path)
    [kept] = (tmp_path / "cache" / "tars").iterdir()
    monkeypatch.setattr(tar, "members", None)  # which would be needed to look again
    again = resolve(str(path), config(path), cache_dir=tmp_path / "cache")
    assert again == first and (again.blocks == first.blocks).all() and again.notes == first.notes
    monkeypatch.undo()
    monkeypatch.setattr(tar, "MANY", 50)
    kept.write_bytes(kept.read_bytes()[:-3])  # damaged: made anew
    assert read(path, tmp_path)[1] == found
    write(path, [*shard(60, 100), ("a.json", b'{"text": "of JSON"}'), special("link", tarfile.SYMTYPE, "b")])
    assert read(path, tmp_path)[1] == [*texts(60, 100), "of JSON", NO_TEXT]
    write(tmp_path / "small.tar", shard(20))
    before = len(list((tmp_path / "cache" / "tars").iterdir()))
    read(tmp_path / "small.tar", tmp_path)
    assert len(list((tmp_path / "cache" / "tars").iterdir())) == before


def test_members_are_found_as_the_standard_library_finds_them(tmp_path):
    path = write(tmp_path / "a.tar", shard(30), "pax")
    with tarfile.open(path) as tar:
        expected = [(member.offset_data, member.size) for member in tar]
    found = contents_of(str(path))
    assert [(start + 512, size) for start, _, size in found.samples.tolist()] == expected
