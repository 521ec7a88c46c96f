"""Which files of a path are read, and what is passed over and why: nothing is in silence.

Folders that are links are read as well, each folder once. Not read are files of other formats, names that begin with a
dot or an underscore (marks of other programs), and, where a folder holds files named `train`, those of the other
splits: of a copy of a hub dataset what the hub's name would give.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mygpt2.data.sources.local.unpack import COMPRESSION
from mygpt2.data.sources.manifest import Kind
from mygpt2.errors import UserError, listed, shown

KINDS: dict[str, Kind] = {
    ".parquet": "parquet", ".jsonl": "jsonl", ".arrow": "arrow", ".feather": "arrow", ".tar": "tar", ".txt": "txt",
    ".bin": "tokens", ".npy": "tokens",
}  # fmt: skip
FORMATS = "parquet, Arrow, jsonl, txt, tar (the last three also .gz or .zst) or pre-tokenized .bin or .npy"
PACKED: tuple[Kind, ...] = ("jsonl", "txt", "tar")  # kinds that may be compressed as a whole
LARGEST_STATE = 64 << 20  # bytes; a file takes some 60
SAVED = "state.json"  # names the files of a dataset that `datasets` saved
# Beside the built-in text, the shards that `data prepare` writes, and what `datasets` saves.
PREPARED = "prepare.json"  # what `data prepare` writes of its shards
OWN = ("made.json", PREPARED, SAVED, "dataset_info.json", "dataset_dict.json")

_CACHED = re.compile(r"(?:cache-[0-9a-f]{8,}(?:_\d+_of_\d+)?|indices)\.arrow")  # what `datasets` computed from the rest
_SEPARATED = r"(?:^|[/_. 0-9-])(?:{})(?:set|split|data)?(?:[/_. 0-9-]|$)"
_TRAIN = re.compile(_SEPARATED.format("train(?:ing)?"), re.IGNORECASE)
_HELD_OUT = re.compile(
    _SEPARATED.format("test(?:ing)?|val(?:id(?:ation)?)?|dev(?:test)?|eval(?:uation)?|hold[_-]?out|held[_-]?out"),
    re.IGNORECASE,
)
_ADVICE = {
    "pt": "a checkpoint holds weights and no data; `python -m mygpt2 import` takes it",
    "json": "if it holds an object a line, let its name end in .jsonl",
    "csv": "convert it to parquet or jsonl",
    "tgz": "let its name end in .tar.gz",
}
_ADVICE["pth"] = _ADVICE["ckpt"] = _ADVICE["safetensors"] = _ADVICE["pt"]
_ADVICE["tsv"] = _ADVICE["csv"]


@dataclass(frozen=True)
class Found:
    """The files of a source, all of one kind, in order. `root` is what their names are relative to."""

    root: Path
    kind: Kind
    paths: list[Path]
    notes: list[str] = field(default_factory=list)


def kind_of(path: Path) -> Kind | None:
    """The format that a name's ending tells, in capitals or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSION:
        kind = KINDS.get(suffixes[-2]) if len(suffixes) > 1 else None
        return kind if kind in PACKED else None
    return KINDS.get(suffixes[-1]) if suffixes else None


def find(path: Path, only: Kind | None = None) -> Found:
    """The files that a path means, or of these the ones of a kind. UserError where there is none, or several kinds.

    What is told of a folder with several kinds is told with the first of them.
    """
    held, notes = _held(path)
    if only is not None and only not in held:
        raise UserError(
            f"data.source={shown(path)} holds no {only} files, but {_counted(held)}; give a path with {only} files"
        )
    if only is None and len(held) > 1:
        raise UserError(
            f"data.source={shown(path)} mixes formats ({_counted(held)} files); allowed: one per source; give a folder "
            "with one"
        )
    kind = next(iter(held)) if only is None else only
    if len(held) > 1:
        notes = [f"its {kind} files alone, of {_counted(held)} files", *(notes if kind == next(iter(held)) else [])]
    return Found(path.parent if path.is_file() else path, kind, held[kind], notes)


def kinds_in(path: Path) -> dict[Kind, list[Path]]:
    """The files that a path means by their kinds, in the kinds' order: each is a source by `find(path, only=kind)`.

    UserError where there are none.
    """
    return _held(path)[0]


def _counted(held: dict[Kind, list[Path]]) -> str:
    """`2 jsonl, 3 parquet`."""
    return ", ".join(f"{len(paths)} {kind}" for kind, paths in held.items())


def _held(path: Path) -> tuple[dict[Kind, list[Path]], list[str]]:
    """(the files to read by kind, each kind's in order; notes). UserError where there are none."""
    if path.is_file():
        kind = kind_of(path)
        if kind is None:
            advice = _ADVICE.get(path.suffix.lower()[1:], "rename or convert the file")
            raise UserError(f"data.source={shown(path)} has no known format; allowed: {FORMATS}; {advice}")
        return {kind: [path]}, []
    if not path.is_dir():
        raise UserError(
            f"data.source={shown(path)} is {_nature(path)}; allowed: a file or folder of {FORMATS}; give one of these"
        )
    walk = _Walk(path)
    names = sorted(walk.names())
    kinds = Counter(kind for name in names if (kind := kind_of(Path(name))))
    if len(kinds) > 1 and not any(name.lower().endswith(".bin") for name in names):
        kinds.pop("tokens", None)  # arrays beside text, of whatever
    read = [name for name in names if kind_of(Path(name)) in kinds]
    walk.passed_over += [name for name in names if kind_of(Path(name)) not in kinds]
    read, notes = _training_split(read)
    if not read:
        raise UserError(
            f"data.source={shown(path)} is a folder without {FORMATS} files{walk.contents()}; give the folder that "
            "holds them"
        )
    held: dict[Kind, list[Path]] = {}
    for name in read:
        if kind := kind_of(Path(name)):
            held.setdefault(kind, []).append(path / name)
    return dict(sorted(held.items())), notes + walk.notes()


def _nature(path: Path) -> str:
    mode = path.stat().st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return "a pipe, which can be read only once"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "neither a file nor a folder"


def _training_split(names: list[str]) -> tuple[list[str], list[str]]:
    """(what is trained on, a note): with files named `train`, those named like another split are left out."""
    others = [name for name in names if _HELD_OUT.search(name) and not _TRAIN.search(name)]
    if not others:
        return names, []
    if not any(map(_TRAIN.search, names)):
        return names, [f"all splits are read, none is named train: {listed(others)}"] if len(names) > 1 else []
    left = [name for name in names if name not in set(others)]
    return left, [f"only the split train is read; {_files(len(others))} of other splits are not: {listed(others)}"]


class _Walk:
    """All files below a folder by their names relative to it, and what was met that is not read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: set[tuple[int, int]] = set()
        self.passed_over: list[str] = []
        self._hidden: list[str] = []
        self._special: list[str] = []
        self._closed: list[str] = []
        self._again: list[str] = []
        self._caches: list[str] = []

    def names(self) -> Iterator[str]:
        """Names of the files of known formats. Real folders first: a link to one of them adds nothing."""
        links = [""]
        while links:
            links.sort()
            folders = [links.pop(0)]
            if not self._mark(folders[0]):
                self._again.append(folders.pop())
            while folders:
                yield from self._inside(folders.pop(), folders, links)

    def _mark(self, folder: str) -> bool:
        """Note a folder; False for one that was met before."""
        status = os.stat(self._root / folder)
        identity = status.st_dev, status.st_ino
        new = identity not in self._seen
        self._seen.add(identity)
        return new

    def _inside(self, folder: str, folders: list[str], links: list[str]) -> Iterator[str]:
        """The files of a folder; folders inside it are added to the lists of what is still to be visited."""
        try:
            entries = list(os.scandir(self._root / folder))
        except OSError as error:
            self._closed.append(f"{folder or '.'} ({error.strerror})")
            return
        saved = _saved(self._root / folder, {entry.name for entry in entries})
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            is_folder = os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()
            if entry.name.startswith((".", "_")):
                if _holds_data(entry) if is_folder else kind_of(Path(name)):
                    self._hidden.append(name)
            elif is_folder and entry.is_symlink():
                links.append(name)
            elif is_folder:
                if self._mark(name):
                    folders.append(name)
            elif not os.path.isfile(entry) if entry.is_symlink() else not entry.is_file():
                self._special.append(name)
            elif kind_of(Path(name)) == "arrow" and _is_beside(entry.name, saved):
                self._caches.append(name)
            elif kind_of(Path(name)):
                yield name
            elif entry.name not in OWN:
                self.passed_over.append(name)

    def contents(self) -> str:
        """What else lies there, for an error message."""
        found = "; ".join(self.notes())
        return f" ({found})" if found else ""

    def notes(self) -> list[str]:
        """A line for each reason for which something is not read."""
        endings = Counter(Path(name).suffix.lower() or "without an ending" for name in self.passed_over)
        counted = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
        groups = (
            (self.passed_over, f"of other formats ({counted})"),
            (self._hidden, "whose names begin with . or _"),
            (self._special, "that are not files (pipes, devices, links that lead nowhere)"),
            (self._closed, "that cannot be opened"),
            (self._again, "that are links to folders read already"),
            (self._caches, "that `datasets` keeps beside a dataset and that are none of its files"),
        )
        return [f"not read: {len(names):,} {why}: {listed(sorted(names))}" for names, why in groups if names]


def _is_beside(name: str, saved: set[str] | None) -> bool:
    """Whether `datasets` computed an Arrow file from others; `saved`: those of a saved dataset."""
    return bool(_CACHED.fullmatch(name)) if saved is None else name not in saved


def _saved(folder: Path, names: set[str]) -> set[str] | None:
    """The files of a dataset that `datasets` saved in a folder; None where it saved none. UserError for one in part."""
    path = folder / SAVED
    if SAVED not in names or not path.is_file():
        return None
    try:
        with path.open("rb") as f:
            state = json.loads(f.read(LARGEST_STATE))
        files = {str(each["filename"]) for each in state["_data_files"]}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # of another program
        return None
    if state.get("_indices_data_files"):
        raise UserError(
            f"{shown(folder)} is a selection of rows of a dataset, which an old version of `datasets` saved as such; "
            "load it and save it again with a newer one, which writes the rows alone"
        )
    if gone := sorted(files - names):
        raise UserError(
            f"{shown(folder)} is not whole: {SAVED} names {len(files):,} files and {listed(gone)} "
            f"{'is' if len(gone) == 1 else 'are'} not there; copy or save the dataset again"
        )
    return files


def _holds_data(folder: os.DirEntry[str]) -> bool:
    return any(kind_of(Path(name)) for _, _, names in os.walk(folder) for name in names)


def _files(count: int) -> str:
    return f"{count:,} file" + "s" * (count != 1)
