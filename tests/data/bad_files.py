"""Bad files of every format, made from a seed: what people's disks, tools and downloads do to data."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXTS = [f"Document {i}: the quick brown fox number {i * 7919} jumps over the lazy dog.\n" * 3 for i in range(80)]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345678\n"
EOT = 50256

Writer = Callable[[Path], None]
BAD: dict[str, Writer] = {}


def bad(name: str) -> Callable[[Writer], Writer]:
    """Note a writer that fills a folder, under a name that begins with the format."""

    def note(write: Writer) -> Writer:
        BAD[name] = write
        return write

    return note


def table(column: pa.Array | None = None, **more: pa.Array) -> pa.Table:
    return pa.table({"text": pa.array(TEXTS) if column is None else column, **more})


def parquet(content: pa.Table | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(table() if content is None else content, out, **{"row_group_size": 20, **options})
    return out.getvalue()


def jsonl(texts: list[object] = TEXTS, key: str = "text") -> bytes:  # type: ignore[assignment]
    return "".join(json.dumps({key: text}) + "\n" for text in texts).encode()


def txt() -> bytes:
    return "\n\n".join(TEXTS * 8).encode()


def ids() -> bytes:
    made = np.random.default_rng(0).integers(0, 500, 8000).astype("<u2")
    made[::100] = EOT
    return made.tobytes()


def shard(magic: int = 20240520, version: int = 1, count: int | None = None, body: bytes | None = None) -> bytes:
    body = ids() if body is None else body
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(body) // 2 if count is None else count
    return header.tobytes() + body


GOOD: dict[str, Callable[[], bytes]] = {
    "parquet": parquet, "jsonl": jsonl, "txt": txt, "bin": shard,
    "jsonl.gz": lambda: gzip.compress(jsonl(), mtime=0), "txt.gz": lambda: gzip.compress(txt(), mtime=0),
    "jsonl.zst": lambda: zstandard.compress(jsonl()), "txt.zst": lambda: zstandard.compress(txt()),
    "npy": lambda: array(np.frombuffer(ids(), "<u2")),
}  # fmt: skip


def array(value: np.ndarray, pickled: bool = False) -> bytes:
    out = io.BytesIO()
    np.save(out, value, allow_pickle=pickled)
    return out.getvalue()


def damages(content: bytes, dice: random.Random) -> dict[str, bytes]:
    """What may befall any file."""
    flipped = bytearray(content)
    for _ in range(20):
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
    hole = len(content) // 3
    return {
        "empty": b"",
        "one byte": b"\x00",
        "cut": content[: dice.randrange(1, len(content))],
        "cut by one": content[:-1],
        "flipped": bytes(flipped),
        "a hole of zeros": content[:hole] + bytes(hole) + content[2 * hole :],
        "zeros behind": content + bytes(len(content)),
        "only zeros": bytes(len(content)),
        "noise": dice.randbytes(5000),
        "rubbish behind": content + b"rubbish",
        "begins wrong": b"XXXX" + content[4:],
        "ends wrong": content[:-4] + b"XXXX",
        "a pointer": LFS,
        "a page": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
        "a zip": _zip(content),
        "a pickle": pickle.dumps({"text": TEXTS}),
        "a checkpoint": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03." + content,
        "gzip inside": gzip.compress(content),
        "twice": content + content,
    }


def _zip(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return out.getvalue()


def _file(name: str, content: bytes) -> Writer:
    return lambda folder: Path(folder / name).write_bytes(content) and None


for _ending, _make in GOOD.items():
    for _what, _content in damages(_make(), random.Random(_ending)).items():
        BAD[f"{_ending}: {_what}"] = _file(f"a.{_ending}", _content)

for _encoding in ("latin-1", "cp1252", "shift-jis", "utf-16", "utf-16-le", "utf-32", "utf-32-be", "euc-jp", "gb18030",
                  "koi8-r", "cp437", "iso2022_jp", "iso2022_kr", "utf-7", "utf-8-sig", "cp037"):  # fmt: skip
    _text = "\n\n".join(f"Text {i}, déjà naïve, 日本語テキスト, русский. " * 4 for i in range(60))
    _lines = "".join(json.dumps({"text": part}, ensure_ascii=False) + "\n" for part in _text.split("\n\n"))
    BAD[f"txt: in {_encoding}"] = _file("a.txt", _text.encode(_encoding, "ignore"))
    BAD[f"jsonl: in {_encoding}"] = _file("a.jsonl", _lines.encode(_encoding, "ignore"))
    BAD[f"txt.gz: in {_encoding}"] = _file("a.txt.gz", gzip.compress(_text.encode(_encoding, "ignore")))

_LINES: dict[str, bytes] = {
    "CRLF": jsonl().replace(b"\n", b"\r\n"),
    "CR": jsonl().replace(b"\n", b"\r"),
    "no final newline": jsonl().rstrip(),
    "blank lines": b"\n \n" + jsonl().replace(b"\n", b"\n\n\n"),
    "an array": json.dumps([{"text": text} for text in TEXTS]).encode(),
    "an indented array": json.dumps([{"text": text} for text in TEXTS], indent=1).encode(),
    "an indented object": json.dumps({"text": TEXTS[0]}, indent=1).encode(),
    "arrays as lines": b"".join(json.dumps([text]).encode() + b"\n" for text in TEXTS),
    "strings as lines": b"".join(json.dumps(text).encode() + b"\n" for text in TEXTS),
    "numbers as text": jsonl(list(range(80))),
    "lists as text": jsonl([[text] for text in TEXTS]),
    "objects as text": jsonl([{"body": text} for text in TEXTS]),
    "null texts": jsonl([None] * 80),
    "empty texts": jsonl([""] * 80),
    "booleans": jsonl([True, False] * 40),
    "another key": jsonl(TEXTS, key="content"),
    "the key later": b'{"id": 1}\n' + jsonl(),
    "keys twice": b"".join(b'{"text": "first", "text": ' + json.dumps(t).encode() + b"}\n" for t in TEXTS),
    "NUL bytes": jsonl().replace(b"fox", b"f\x00x"),
    "escaped NUL": jsonl().replace(b"fox", b"f\\u0000x"),
    "lone surrogates": jsonl().replace(b"fox", b"\\ud83d"),
    "deep": jsonl() + b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "deep first": b'{"a": ' * 50_000 + b"1" + b"}" * 50_000 + b"\n" + jsonl(),
    "deep and open": jsonl() + b"[" * 500_000,
    "huge number": b'{"n": ' + b"9" * 100_000 + b', "text": "x"}\n' + jsonl(),
    "huge exponent": b'{"n": 1e999999, "text": "infinity"}\n' + jsonl(),
    "not a number": b'{"n": NaN, "text": "not a number"}\n' + jsonl(),
    "a huge line": json.dumps({"text": "word " * 180_000}).encode() + b"\n" + jsonl(),
    "bad bytes in a line": jsonl() + b'{"text": "caf\xe9"}\n',
    "single quotes": b"".join(repr({"text": text}).encode() + b"\n" for text in TEXTS),
    "commas behind": jsonl().replace(b"}\n", b"},\n"),
    "csv": b"id,text\n" + b"".join(b"1,some text\n" for _ in TEXTS),
}
for _what, _content in _LINES.items():
    BAD[f"jsonl: {_what}"] = _file("a.jsonl", _content)
    BAD[f"jsonl.zst: {_what}"] = _file("a.jsonl.zst", zstandard.compress(_content))

_PROSE: dict[str, bytes] = {
    "CRLF": txt().replace(b"\n", b"\r\n"),
    "CR": txt().replace(b"\n", b"\r"),
    "NUL bytes": txt().replace(b"fox", b"f\x00x"),
    "a huge line": b"word " * 60_000,
    "no space": b"x" * 200_000,
    "blank": b" \n\n\t\n" * 1000,
    "newlines": b"\n" * 300_000,
    "controls": bytes(range(32)) * 500,
    "a few bad bytes": txt().replace(b"number 7919 ", b"num\xe9ro 7919 "),
    "surrogates in bytes": "a \ud800 b\n\n".encode("utf-8", "surrogatepass") * 400,
    "over-long": b"a \xc0\xaf b\n\n" * 400,
    "separators": "line\u2028line\u2029\x85\x1c\n\n".encode() * 400,
    "one character": b"x",
    "a pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(range(256)) * 20,
    "a program": b"\x7fELF\x02\x01\x01" + bytes(4000),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
    "a database": b"SQLite format 3\0" + bytes(4000),
    "parquet": parquet(),
}
for _what, _content in _PROSE.items():
    BAD[f"txt: {_what}"] = _file("a.txt", _content)
    BAD[f"txt.gz: {_what}"] = _file("a.txt.gz", gzip.compress(_content))

_COLUMNS: dict[str, pa.Array] = {
    "nulls": pa.nulls(80),
    "null strings": pa.array([None] * 80, pa.string()),
    "binary": pa.array([text.encode() for text in TEXTS]),
    "binary that is not text": pa.array([b"\xff\xfe" + bytes([i]) for i in range(80)]),
    "large strings": pa.array(TEXTS, pa.large_string()),
    "string views": pa.array(TEXTS, pa.string_view()),
    "a dictionary": pa.array(TEXTS[:4] * 20).dictionary_encode(),
    "numbers": pa.array(range(80)),
    "floats": pa.array([float(i) for i in range(80)]),
    "lists": pa.array([[text] for text in TEXTS]),
    "structs": pa.array([{"text": text} for text in TEXTS]),
    "maps": pa.array([[(text, 1)] for text in TEXTS], pa.map_(pa.string(), pa.int32())),
    "times": pa.array(range(80), pa.timestamp("us")),
    "decimals": pa.array([str(i) for i in range(80)]).cast(pa.decimal128(10, 2)),
    "fixed bytes": pa.array([b"0123456789abcdef"] * 80, pa.binary(16)),
    "empty strings": pa.array([""] * 80),
    "bytes that claim to be strings": pa.Array.from_buffers(
        pa.string(), 80, pa.array([b"\xff\xfe bad"] * 80, pa.binary()).buffers()
    ),
}
for _what, _column in _COLUMNS.items():
    BAD[f"parquet: {_what}"] = _file("a.parquet", parquet(table(_column), store_schema=_what != "string views"))
BAD["parquet: no rows"] = _file("a.parquet", parquet(table(pa.array([], pa.string()))))
BAD["parquet: no column"] = _file("a.parquet", parquet(pa.table({"body": TEXTS})))
BAD["parquet: no columns"] = _file("a.parquet", parquet(pa.table({})))
BAD["parquet: a column twice"] = _file(
    "a.parquet", parquet(pa.Table.from_arrays([pa.array(TEXTS), pa.array(TEXTS)], names=["text", "text"]))
)
BAD["parquet: dots in names"] = _file("a.parquet", parquet(pa.table({"text": TEXTS, "a.b": TEXTS, "text.x": TEXTS})))


@bad("parquet: a bomb")
def _(folder: Path) -> None:
    column = pa.array(["x" * (1 << 20)]).dictionary_encode().take(pa.array([0] * 3000))
    options = {"compression": "zstd", "row_group_size": 3000, "write_statistics": False}
    (folder / "a.parquet").write_bytes(parquet(table(column), **options))


@bad("parquet: a bomb of plain strings")
def _(folder: Path) -> None:
    column = pa.array(["x" * (1 << 20)]).dictionary_encode().take(pa.array([0] * 3000))
    options = {"compression": "zstd", "row_group_size": 3000, "write_statistics": False, "store_schema": False}
    (folder / "a.parquet").write_bytes(parquet(table(column), **options))


@bad("parquet: prefixes as a bomb")
def _(folder: Path) -> None:
    options = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "write_statistics": False}
    (folder / "a.parquet").write_bytes(parquet(table(pa.array(["x" * (1 << 18)] * 400)), row_group_size=400, **options))


@bad("parquet: pages as a bomb")
def _(folder: Path) -> None:
    packing = {"use_dictionary": False, "compression": "brotli", "compression_level": 1}
    options = {**packing, "row_group_size": 600, "write_statistics": False}
    (folder / "a.parquet").write_bytes(parquet(table(pa.array(["x" * (1 << 20)] * 600)), **options))


@bad("txt.gz: a bomb")
def _(folder: Path) -> None:
    (folder / "a.txt.gz").write_bytes(gzip.compress(bytes(1000) + b"x" * (66 << 20), 1))


@bad("jsonl.gz: a bomb")
def _(folder: Path) -> None:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' + b" " * (66 << 20), 1))


@bad("txt.zst: a bomb")
def _(folder: Path) -> None:
    (folder / "a.txt.zst").write_bytes(zstandard.compress(b"text\n" + b"x" * (66 << 20)))


@bad("jsonl.zst: a bomb")
def _(folder: Path) -> None:
    (folder / "a.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "' + b"x" * (66 << 20)))


_IDS: dict[str, bytes] = {
    "no tokens": shard(body=b""),
    "fewer than promised": shard(count=9000),
    "a negative count": shard(count=-1),
    "another version": shard(version=7),
    "llm.c's Llama 3": shard(20240801, 7, 4000),
    "ids beyond the vocabulary": np.full(5000, 60000, "<u2").tobytes(),
    "no end of text": np.full(5000, 7, "<u2").tobytes(),
    "only end of text": np.full(5000, EOT, "<u2").tobytes(),
    "32 bits bare": np.arange(5000, dtype="<u4").tobytes(),
    "a model of llm.c": shard(20240326, 3),
    "odd": b"123",
    "parquet": parquet(),
    "one id": b"\x01\x00",
}
for _what, _content in _IDS.items():
    BAD[f"bin: {_what}"] = _file("a.bin", _content)
_ARRAYS: dict[str, np.ndarray] = {
    "floats": np.zeros(500),
    "64 bits": np.arange(500),
    "two dimensions": np.zeros((5, 100), np.uint16),
    "big-endian": np.arange(500, dtype=">u2"),
    "objects": np.array([{"a": 1}] * 9, dtype=object),
    "no ids": np.zeros(0, np.uint16),
    "one number": np.array(5, np.uint16),
}
for _what, _value in _ARRAYS.items():
    BAD[f"npy: {_what}"] = _file("a.npy", array(_value, pickled=True))


@bad("parquet: schemas that differ")
def _(folder: Path) -> None:
    (folder / "a.parquet").write_bytes(parquet())
    (folder / "b.parquet").write_bytes(parquet(table(pa.array(range(80)))))


@bad("parquet: encrypted")
def _(folder: Path) -> None:
    (folder / "a.parquet").write_bytes(b"PARE" + bytes(200) + (100).to_bytes(4, "little") + b"PARE")


@bad("jsonl: keys that differ")
def _(folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(jsonl())
    (folder / "b.jsonl").write_bytes(jsonl(key="content"))


@bad("txt: formats mixed")
def _(folder: Path) -> None:
    (folder / "a.txt").write_bytes(txt())
    (folder / "a.jsonl").write_bytes(jsonl())


@bad("txt: a pipe")
def _(folder: Path) -> None:
    os.mkfifo(folder / "a.txt")


@bad("txt: a pipe among files")
def _(folder: Path) -> None:
    os.mkfifo(folder / "a.txt")
    (folder / "b.txt").write_bytes(txt())


@bad("txt: a device among files")
def _(folder: Path) -> None:
    (folder / "a.txt").symlink_to("/dev/zero")
    (folder / "b.txt").write_bytes(txt())


@bad("txt: links that lead nowhere")
def _(folder: Path) -> None:
    (folder / "a.txt").symlink_to(folder / "gone.txt")
    (folder / "b.txt").symlink_to("b.txt")


@bad("txt: folders in a circle")
def _(folder: Path) -> None:
    (folder / "b.txt").write_bytes(txt())
    (folder / "inside").mkdir()
    (folder / "inside" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")


@bad("txt: names of many kinds")
def _(folder: Path) -> None:
    for name in (
        b"new\nline.txt",
        b"\xff\xfe.txt",
        b"tab\t.txt",
        b" .txt",
        "日本.txt".encode(),
        b"'quoted'.txt",
        b"\x1b[31m.txt",
    ):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(txt()[:3000])


@bad("txt: a bad file with a bad name")
def _(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/\xff\n\x1b[31m.txt")).write_bytes(bytes(5000))


@bad("txt: nothing but other formats")
def _(folder: Path) -> None:
    for name in ("a.md", "b.csv", "c.pdf", "d"):
        (folder / name).write_bytes(txt())


@bad("txt: a folder named like a file")
def _(folder: Path) -> None:
    (folder / "a.txt").mkdir()
