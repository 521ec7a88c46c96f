"""What lies in the roots, a page at a time: folders to walk down, with what they hold, and files to choose.

Nothing outside the roots is looked at: links are followed only to where `Context.path` lets someone go. What a folder
holds is counted within a budget, so that a root may be somebody's whole disk.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.format import file_size
from workbench.context import Context, is_text
from workbench.picker.kinds import Kind, Offer, kind_named
from workbench.picker.places import all_places
from workbench.picker.tally import TALLY_ENTRIES, TALLY_LEAST, TALLY_SECONDS, Tally, allowed, tally_of

PAGE = 100
SEARCH_ENTRIES, SEARCH_SECONDS = 50_000, 2.0
MOST_FOUND, MOST_WORDS = 500, 200
MOST_NAMES = 100_000  # of one folder; listing more would hold up whoever waits
LINKS = "link# out of the workbench's folders"
UNWRITABLE = "name# not in UTF-8, which no settings could hold"


@dataclass(frozen=True)
class Page:
    """Which part of a list is shown; `page` counts from 1 and is always one that exists."""

    page: int
    pages: int
    start: int
    stop: int


def page_of(count: int, page: Any) -> Page:
    """The page nearest to the one asked for, whatever was asked."""
    pages = max(1, -(-count // PAGE))
    number = page if isinstance(page, int) and not isinstance(page, bool) else 1
    number = max(1, min(number, pages))
    return Page(number, pages, (number - 1) * PAGE, min(count, number * PAGE))


def listing(context: Context, request: Any) -> dict[str, Any]:
    """What a picker shows: {groups} at the start, {entries} of a folder, what was found by {search}; JSON-ready.

    request: kind, folder ("" for the start), search, page. UserError for a folder outside the roots.
    """
    asked = request if isinstance(request, dict) else {}
    kind = kind_named(asked.get("kind"))
    folder, words = str(asked.get("folder") or ""), str(asked.get("search") or "").strip().lower()[:MOST_WORDS]
    if not folder and not words:
        return {"folder": "", "crumbs": [], "groups": [*_named(context, kind, ""), *_places(context, kind)],
                "entries": [], "notes": [], **_pages(page_of(0, 1), 0)}  # fmt: skip
    if words:
        return _search(context, kind, folder, words, asked.get("page"))
    return _folder(context, kind, context.path(folder, "folder"), asked.get("page"))


def _folder(context: Context, kind: Kind, folder: Path, page: Any) -> dict[str, Any]:
    folders, files, left = _inside(context, kind, folder)
    known = _shown_folders(context, kind, folders)
    barren = len(folders) - len(known)
    shown = page_of(len(known) + len(files), page)
    entries = known[shown.start : shown.stop]
    rest = files[max(0, shown.start - len(known)) : max(0, shown.stop - len(known))]
    entries += [_file(context, kind, path, what) for path, what in rest]
    notes = []
    if barren:
        notes.append(f"{barren:,} folder{'s' * (barren > 1)} without anything to choose: not shown")
    for what, count in left.items():
        notes.append(f"{count:,} {what.replace('#', 's' * (count > 1))}: not shown")
    here = None
    if _choosable(context, kind, folder):
        tally = tally_of(context, kind, folder)
        what = kind.whole(folder) if kind.whole else ""
        if what or (kind.whole is None and tally.count):
            here = {"value": spelled(context, kind, folder), "detail": _sized(tally, what)}
    return {"folder": str(folder), "crumbs": crumbs(context, folder), "groups": [], "entries": entries, "notes": notes,
            "here": here, **_pages(shown, len(known) + len(files))}  # fmt: skip


def _search(context: Context, kind: Kind, folder: str, words: str, page: Any) -> dict[str, Any]:
    """Names that hold the words, in a folder and below it, or everywhere."""
    starts = [context.path(folder, "folder")] if folder else [path for path, _ in _starts(context)]
    found, whole = [], True
    ends, budget = time.monotonic() + SEARCH_SECONDS, [SEARCH_ENTRIES]
    for path, what in _below(context, kind, starts, budget, ends):
        if words in path.name.lower():
            found.append((path, what))
            if len(found) >= MOST_FOUND:
                whole = False
                break
    whole = whole and budget[0] > 0 and time.monotonic() < ends
    shown = page_of(len(found), page)
    entries = [_entry(context, kind, path, what, starts) for path, what in found[shown.start : shown.stop]]
    notes = [] if whole else ["too much to look through all of it: open a folder and search there"]
    groups = [] if folder else _named(context, kind, words)
    trail = crumbs(context, starts[0]) if folder else []
    return {"folder": folder, "crumbs": trail, "groups": groups, "entries": entries, "notes": notes,
            **_pages(shown, len(found))}  # fmt: skip


def _pages(shown: Page, count: int) -> dict[str, Any]:
    return {"page": shown.page, "pages": shown.pages, "first": shown.start + 1, "last": shown.stop, "count": count}


def _named(context: Context, kind: Kind, words: str) -> list[dict[str, Any]]:
    """What goes by a name, in groups."""

    def row(offer: Offer) -> dict[str, Any]:
        return {"name": offer.name, "value": offer.value, "detail": offer.detail, "size": "", "folder": "",
                "choose": True}  # fmt: skip

    groups = []
    for title, offers in kind.named(context):
        rows = [row(offer) for offer in offers if words in f"{offer.name} {offer.value}".lower()]
        if rows:
            groups.append({"title": title, "entries": rows})
    return groups


def _starts(context: Context) -> list[tuple[Path, str]]:
    """The folders that someone begins at, each once, with its group: uploads, then the roots."""
    uploads = [place for place in all_places(context.runs, context.data_roots) if place.is_dir()]
    roots = [root for root in dict.fromkeys(context.data_roots) if root not in uploads]
    return [*((path, "Uploaded") for path in uploads), *((path, "Folders") for path in roots)]


def _places(context: Context, kind: Kind) -> list[dict[str, Any]]:
    """The newest uploads themselves, then the roots as folders."""
    groups: list[dict[str, Any]] = []
    uploads = [path for path, group in _starts(context) if group == "Uploaded"]
    brought = [entry for place in uploads for entry in _newest(context, kind, place)]
    if brought:
        groups.append({"title": "Uploaded", "entries": brought})
    roots = [_entry(context, kind, path, None, [path]) for path, group in _starts(context) if group == "Folders"]
    if roots:
        groups.append({"title": "Folders", "entries": roots})
    return groups


def _newest(context: Context, kind: Kind, place: Path) -> list[dict[str, Any]]:
    """The uploads of this kind, newest first; a page of them, as the folder itself lists all."""
    folders, files, _ = _inside(context, kind, place)
    both: list[tuple[Path, str | None]] = [*((path, None) for path in folders), *files]
    entries = []
    for path, what in sorted(both, key=lambda each: -_time(each[0]))[:PAGE]:
        entry = _entry(context, kind, path, what, [place])
        if entry["choose"]:
            entries.append(entry)
    return entries


def _inside(context: Context, kind: Kind, folder: Path) -> tuple[list[Path], list[tuple[Path, str]], Counter[str]]:
    """(folders, files of the kind with what they are, what is left out), sorted. UserError where it is closed."""
    folders, files, left = [], [], Counter[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in itertools.islice(entries, MOST_NAMES):
                if entry.name.startswith((".", "_")):
                    continue
                if not is_text(entry.name):
                    left[UNWRITABLE] += 1
                elif entry.is_symlink() and not allowed(context, Path(entry.path)):
                    left[LINKS] += 1
                elif entry.is_dir():
                    folders.append(Path(entry.path))
                elif (what := kind.file(entry.name)) and entry.is_file():
                    files.append((Path(entry.path), what))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"folder {str(folder)!r} cannot be read: {reason}; choose another") from None
    runs = [path for path in folders if path == context.runs and path not in context.data_roots]
    known = sorted((path for path in folders if path not in runs), key=_natural)
    return known, sorted(files, key=lambda file: _natural(file[0])), left


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """An order in which 2 comes before 10."""
    pieces = re.findall(r"\d+|\D+", path.name.lower())
    return [(int(p), "") if p.isdecimal() and len(p) < 19 else (-1, p) for p in pieces], path.name


def _shown_folders(context: Context, kind: Kind, folders: list[Path]) -> list[dict[str, Any]]:
    """Entries of the folders that hold something to choose, or so much that nobody can tell in time."""
    ends = time.monotonic() + TALLY_SECONDS
    most = max(TALLY_LEAST, TALLY_ENTRIES // max(1, len(folders)))
    entries = []
    for folder in folders:
        what = kind.whole(folder) if kind.whole else ""
        tally = tally_of(context, kind, folder, most, ends)
        if what or tally.count or not tally.whole:
            entries.append(_folder_entry(context, kind, folder, what, tally))
    return entries


def _below(
    context: Context, kind: Kind, starts: list[Path], budget: list[int], ends: float
) -> Iterator[tuple[Path, str | None]]:
    """Folders (None) and files of the kind below some folders, nearest first, until budget or time is used up."""
    seen: set[tuple[int, int]] = set()
    level = list(starts)
    while level:
        deeper: list[Path] = []
        for folder in level:
            if budget[0] <= 0 or time.monotonic() > ends:
                return
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                folders, files, _ = _inside(context, kind, folder)
            except (OSError, UserError):
                continue  # closed to this user: nothing in it could be chosen
            budget[0] -= 1 + len(folders) + len(files)
            yield from files
            yield from ((path, None) for path in folders)
            deeper += folders
        level = deeper


def _entry(context: Context, kind: Kind, path: Path, what: str | None, starts: list[Path]) -> dict[str, Any]:
    """A file or folder, named by its place below where the looking began."""
    if what is None:
        as_a_whole = kind.whole(path) if kind.whole else ""
        entry = _folder_entry(context, kind, path, as_a_whole, tally_of(context, kind, path))
    else:
        entry = _file(context, kind, path, what)
    start = next((start for start in starts if path != start and path.is_relative_to(start)), None)
    return {**entry, "name": str(path.relative_to(start)) if start else str(path)}


def _folder_entry(context: Context, kind: Kind, folder: Path, what: str, tally: Tally) -> dict[str, Any]:
    usable = bool(what) or (kind.whole is None and bool(tally.count))
    return {"name": folder.name, "value": spelled(context, kind, folder) if usable else "", "folder": str(folder),
            "detail": what or tally.words(), "size": file_size(tally.size) if tally.size else "",
            "choose": usable and _choosable(context, kind, folder)}  # fmt: skip


def _file(context: Context, kind: Kind, path: Path, what: str) -> dict[str, Any]:
    return {"name": path.name, "value": spelled(context, kind, path), "folder": "", "detail": what,
            "size": file_size(_size(path)), "choose": True}  # fmt: skip


def _choosable(context: Context, kind: Kind, folder: Path) -> bool:
    """Whether a folder may be taken as a whole: all uploads together, or all runs, are no source."""
    return folder not in all_places(context.runs, context.data_roots) and folder != context.runs


def _sized(tally: Tally, what: str) -> str:
    size = f", {file_size(tally.size)}" if tally.size else ""
    return f"{what or tally.words()}{size}"


def crumbs(context: Context, folder: Path) -> list[dict[str, str]]:
    """The way from the root to a folder: name and path of each step."""
    roots = [*all_places(context.runs, context.data_roots), *context.data_roots, context.runs]
    root = max((r for r in roots if folder.is_relative_to(r)), key=lambda r: len(r.parts), default=folder)
    steps = [root, *(root.joinpath(*folder.relative_to(root).parts[: n + 1]) for n in
                     range(len(folder.relative_to(root).parts)))]  # fmt: skip
    return [{"name": step.name or str(step), "folder": str(step)} for step in steps]


def spelled(context: Context, kind: Kind, path: Path) -> str:
    """A path as short as it still means the same: below its root, if nothing else goes by that name."""
    for root in (*context.data_roots, context.runs):
        if path != root and path.is_relative_to(root):
            short = str(path.relative_to(root))
            try:
                if not short.startswith(".") and kind.spelled(context, short) == str(path.resolve()):
                    return short
            except (UserError, OSError):
                continue
    return str(path)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
