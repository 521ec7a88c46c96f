"""Whether an uploaded file is what its name says: by its first bytes and its last, whatever its size.

What is wrong inside (columns, encodings, empty texts) is told by the look into the source; this only keeps out what
could never be read.
"""

from __future__ import annotations

import struct
from pathlib import Path

from mygpt2.errors import UserError

LOOKED = 64 << 10
TEXT = (".txt", ".jsonl", ".csv", ".tsv", ".log", ".json")
MARKS = {
    b"PK\x03\x04": "a ZIP archive (as Word's .docx is)", b"%PDF": "a PDF", b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture", b"GIF8": "a picture", b"\x7fELF": "a program", b"PAR1": "a parquet file",
    b"ARROW1": "an Arrow file",
    b"\x1f\x8b": "a gzip file", b"\x28\xb5\x2f\xfd": "a zstd file", b"\xd0\xcf\x11\xe0": "an Office document",
    b"\x93NUMPY": "a NumPy array", b"SQLite format 3": "a database", b"7z\xbc\xaf": "a 7-Zip archive",
    b"{\\rtf": "a Rich Text document",
}  # fmt: skip
WANTED: dict[str, bytes | tuple[bytes, ...]] = {
    ".parquet": b"PAR1", ".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".npy": b"\x93NUMPY",
    ".arrow": (b"ARROW1", b"\xff\xff\xff\xff"), ".feather": b"ARROW1",
}  # fmt: skip
WIDE = (b"\xff\xfe", b"\xfe\xff")  # begins with the mark of UTF-16, whose letters hold zeros


def judge(path: Path, name: str, advice: str) -> None:
    """UserError where the content is not what the name says."""
    size = path.stat().st_size
    if not size:
        raise UserError(f"{name} is empty; choose another file")
    with path.open("rb") as file:
        head = file.read(LOOKED)
        file.seek(max(0, size - 4))
        tail = file.read(4)
    ending = Path(name).suffix.lower()
    wanted = WANTED.get(ending)
    if wanted and not (head.startswith(wanted) and (ending != ".parquet" or tail == wanted)):
        raise UserError(f"{name} is {_what(head)} and not what its ending {ending} says; {advice}")
    if ending == ".safetensors" and not _safetensors(head, size):
        raise UserError(f"{name} is {_what(head)} and not a safetensors file; {advice}")
    if ending in TEXT and not _text(head):
        raise UserError(f"{name} is {_what(head)} and not text; {advice}")
    if ending == ".json" and head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in (b"{", b"["):
        raise UserError(f"{name} is not JSON: it begins with neither {{ nor [; {advice}")


def _what(head: bytes) -> str:
    return next((what for mark, what in MARKS.items() if head.startswith(mark)), "of another format")


def _text(head: bytes) -> bool:
    if any(head.startswith(mark) for mark in MARKS):
        return False
    return head.startswith(WIDE) or b"\0" not in head


def _safetensors(head: bytes, size: int) -> bool:
    """An eight-byte length, then as much JSON."""
    return size > 10 and struct.unpack("<Q", head[:8])[0] <= size - 8 and head[8:9] == b"{"
