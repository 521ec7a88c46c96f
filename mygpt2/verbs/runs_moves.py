"""`runs rename|delete|restore|trash|archive|unarchive`: what is done to the folder of a run that has ended."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mygpt2.errors import EXIT_OK, UserError, word
from mygpt2.format import file_size
from mygpt2.run_dir import moves
from mygpt2.run_dir.mentions import needed_by
from mygpt2.run_dir.paths import RunDir

ACTIONS = ("rename", "delete", "restore", "trash", "archive", "unarchive")


def run(args: argparse.Namespace) -> int:
    """Does one of ACTIONS; its exit code."""
    runs, names = args.runs, args.names
    if args.action == "trash":
        return _trash(runs, names, empty=args.empty, as_json=args.json)
    if args.action == "rename":
        if len(names) != 2:
            raise UserError("runs rename takes two names: python -m mygpt2 runs rename OLD NEW")
        moves.rename(runs, *names)
        print(f"run {names[0]} is now {names[1]}")
        return EXIT_OK
    if not names:
        raise UserError(
            f"runs {args.action} needs the name of a run; python -m mygpt2 runs list --runs {word(runs)} shows them"
        )
    if args.action == "restore":
        if args.to and len(names) > 1:
            raise UserError("--as gives one run another name; restore the others by themselves")
        return _each(names, lambda name: _restored(runs, name, args.to))
    if args.action == "delete":
        return _each(names, lambda name: _deleted(runs, name))
    return _each(names, lambda name: _archived(runs, name, args.action == "archive"))


def _each(names: list[str], act: Callable[[str], str]) -> int:
    """Does it to every run, whatever becomes of the others; the worst exit code."""
    worst = EXIT_OK
    for name in dict.fromkeys(names):
        try:
            print(act(name), flush=True)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            worst = max(worst, error.exit_code)
    return worst


def _deleted(runs: Path, name: str) -> str:
    needed = needed_by(RunDir.open(runs, name))
    gone = moves.delete(runs, name)
    also = f"; {', '.join(needed)} began from files of it and cannot go on without them" if needed else ""
    return (f"run {name} is in the trash ({file_size(gone.bytes)}){also}; "
            f"python -m mygpt2 runs restore {name} --runs {word(runs)} brings it back")  # fmt: skip


def _restored(runs: Path, name: str, to: str | None) -> str:
    return f"run {moves.restore(runs, name, to).name} is back"


def _archived(runs: Path, name: str, archived: bool) -> str:
    changed = moves.archive(runs, name, archived)
    if not changed:
        return f"run {name} was {'archived' if archived else 'in the list'} already"
    return f"run {name} is {'archived: runs list --all shows it' if archived else 'in the list again'}"


def _trash(runs: Path, names: list[str], *, empty: bool, as_json: bool) -> int:
    if names and not empty:
        raise UserError("runs trash lists all deleted runs and takes no name; with --empty, names of what to remove")
    if empty:
        known = {each.entry for each in moves.trash(runs, sizes=False)}
        if unknown := [name for name in names if name not in known]:
            raise UserError(
                f"{unknown[0]!r} is not in the trash; python -m mygpt2 runs trash --runs {word(runs)} lists it"
            )
        gone = moves.empty_trash(runs, names or None)
        total = file_size(sum(each.bytes for each in gone))
        print(f"removed {len(gone)} deleted {'run' if len(gone) == 1 else 'runs'} for good, {total}")
        return EXIT_OK
    found = moves.trash(runs)
    if as_json:
        keys = ("entry", "name", "time", "bytes")
        print(json.dumps([{key: getattr(each, key) for key in keys} for each in found], indent=1))
        return EXIT_OK
    for each in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.time))
        print(f"{each.entry}  {each.name}  {file_size(each.bytes)}  deleted {when}")
    if not found:
        print(f"the trash of {runs} is empty")
    return EXIT_OK
