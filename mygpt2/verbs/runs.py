"""`runs`: what the runs of a folder are doing, an end to one of them, and what is done to those that have ended."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mygpt2.errors import EXIT_DEFECT, EXIT_OK, EXIT_USAGE, UserError, word
from mygpt2.format import duration, file_size
from mygpt2.run_dir.family import origin_of, parent_of
from mygpt2.run_dir.ghost import ghost_of
from mygpt2.run_dir.paths import RUNS, RunDir, list_runs
from mygpt2.terminal import printable
from mygpt2.verbs import runs_branch, runs_handed, runs_import, runs_losses, runs_moves
from mygpt2.verbs.runs_cells import COLUMNS, cells_of, heading, print_table

ACTIONS = ("list", "show", "step", "losses", "import", "stop", "verify", "branch", *runs_moves.ACTIONS)
PIECE_BYTES = 16 << 20
TAKES_SETTINGS = ("branch",)
MOST_CHARACTERS = 2000  # of a line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help="name of the run; show and verify may go without; delete, restore and archive take several, rename takes "
        "the old name and the new one, step the run and the step, branch NAME@STEP, import a log",
    )  # fmt: skip
    parser.add_argument(
        "--run", metavar="NEW", help="branch: name of the new run; --section.key VALUE changes a setting of it"
    )
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="DIR", help="folder of the runs (default: ./runs)")
    parser.add_argument(
        "--json", action="store_true", help="list, show, step, losses, trash and branch: print JSON instead of text"
    )
    parser.add_argument("--all", action="store_true", help="list: also archived runs")
    parser.add_argument("--empty", action="store_true", help="trash: remove what lies there for good")
    parser.add_argument("--as", dest="to", metavar="NEW", help="restore: under another name")
    parser.add_argument("--now", action="store_true", help="stop: send signals at once, kill what is left")
    parser.add_argument(
        "--grace", type=float, default=60.0, metavar="S", help="stop --now: seconds for a last checkpoint (default: 60)"
    )
    runs_import.add_arguments(parser)
    runs_losses.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.action == "branch":
        return runs_branch.run(args)
    if args.run:
        raise UserError(f"--run belongs to runs branch; runs {args.action} takes names without it")
    if args.action in runs_moves.ACTIONS:
        return runs_moves.run(args)
    if args.action == "import":
        return runs_import.run(args)
    if args.action == "step":
        from mygpt2.verbs import runs_step

        return runs_step.run(args)
    if args.action == "losses":
        return runs_losses.run(args)
    if len(args.names) > 1:
        raise UserError(f"runs {args.action} takes one name, and {len(args.names)} are given: {', '.join(args.names)}")
    name = args.names[0] if args.names else None
    if args.action == "list":
        return _list([RunDir.open(args.runs, name)] if name else _known(args), args)
    if args.action == "verify" and name is None:
        return max((_verified(each) for each in list_runs(args.runs)), default=EXIT_OK)
    if name is None and args.action == "stop":
        raise UserError(
            f"runs stop needs the name of a run; python -m mygpt2 runs list --runs {word(args.runs)} shows them"
        )
    chosen = RunDir.open(args.runs, name) if name else _latest(args.runs)
    if args.action == "show":
        return _show(chosen, as_json=args.json)
    return _stop(chosen, args) if args.action == "stop" else _verify(chosen)


def _known(args: argparse.Namespace) -> list[RunDir]:
    from mygpt2.run_dir.marks import current_runs

    return list_runs(args.runs) if args.all else current_runs(args.runs)


def _latest(runs: Path) -> RunDir:
    known = list_runs(runs)
    if not known:
        raise UserError(
            f"there is no run in {runs}; start one with: python -m mygpt2 train, or name a folder by --runs"
        )
    return max(known, key=_modified)


def _modified(each: RunDir) -> float:
    try:
        return each.path.stat().st_mtime
    except OSError:
        return 0.0


def summary(each: RunDir, told: Any = None) -> dict[str, Any]:
    """What one line of the list says: small files and the end of metrics.jsonl are read, never all of it.

    told: what a cluster's engine says of the run's job, see runs_handed.
    """
    from mygpt2.checkpoint.store import size_bytes, steps
    from mygpt2.run_dir.divergence import diverged
    from mygpt2.run_dir.lines import last_record

    state = runs_handed.state(each, told)
    last = last_record(each.metrics_file) or {}
    try:
        kept = steps(each.checkpoints_dir)
    except UserError:  # verify says why
        kept = []
    eta = state.status.get("eta") if state.alive else None
    beat_ago = state.heartbeat_age or 0.0
    return {
        "run": each.name,
        "state": state.state,
        "imported": ghost.told if (ghost := ghost_of(each)) else None,
        "reason": state.reason,
        "diverged": diverged(each, state) or None,
        "job": {"engine": told.handed.target, "id": told.handed.job} if told else None,
        "step": last.get("step") or state.status.get("step") or 0,
        "steps": state.status.get("steps"),
        "loss": last.get("loss"),
        "tokens": last.get("tokens") or 0,
        "tokens_per_second": last.get("tokens_per_second") if state.alive else None,
        "eta_seconds": None if eta is None else max(0.0, eta - beat_ago),
        "attempt": state.status.get("attempt"),
        "checkpoints": kept,
        "checkpoint_bytes": sum(size_bytes(each.checkpoints_dir / f"step-{step:08d}") for step in kept),
    }


def _list(runs: Sequence[RunDir], args: argparse.Namespace) -> int:
    told = runs_handed.told(args.runs)
    rows = [summary(each, told.get(each.name)) for each in runs]
    if args.json:
        print(json.dumps(rows, indent=1))
        return EXIT_OK
    if not rows:
        print(f"no runs in {args.runs}; start one with: python -m mygpt2 train")
        return EXIT_OK
    print_table([COLUMNS, *(cells_of(row) for row in rows)])
    for line in runs_handed.lines(rows):
        print(_line(line))
    return EXIT_OK


def _show(each: RunDir, *, as_json: bool) -> int:
    from mygpt2.run_dir.liveness import read_record

    told = runs_handed.told(each.path.parent).get(each.name)
    row, state = summary(each, told), runs_handed.state(each, told)
    command = read_record(each, each.command_file) or {}
    events, left_out = _last_events(each)
    if as_json:
        ranks = [
            {"rank": r.rank, "pid": r.process.pid if r.process else None, "device": r.device, "alive": r.alive}
            for r in state.ranks
        ]
        full = {**row, "status": state.status, "exit": state.exit, "ranks": ranks, "command": command}
        origin = origin_of(each)
        full |= {"path": str(each.path), "left_out": left_out, "events": events}
        full |= {"branch": origin.to_json() if origin else None}
        print(json.dumps(full, indent=1))
        return EXIT_OK
    print(_line(heading(row)))
    cells = dict(zip(COLUMNS, cells_of(row), strict=True))
    figures = [(label, text) for label, text in cells.items() if label not in ("run", "state") and text]
    imported = [("imported", f"a log without weights and settings, {row['imported']}")] if row["imported"] else []
    details = [*imported, *_details(each, state, command), *_left_out(left_out), *_unreadable(each)]
    print_table([(f"  {label}", _line(text)) for label, text in [*figures, *details]])
    for event in events[-8:]:
        print(f"  {_event_line(event)}")
    return EXIT_OK


def _last_events(each: RunDir) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The last 20 events, and the last that counts what was left out of the data; the file is read in pieces."""
    from mygpt2.records import checked, tame
    from mygpt2.run_dir.lines import Follower, parse_lines

    follower = Follower(each.events_file)
    last: deque[dict[str, Any]] = deque(maxlen=20)
    left_out = None
    while lines := follower.read(PIECE_BYTES):
        records = parse_lines(lines)[0]
        last.extend(records[-20:])
        left_out = next((record for record in reversed(records) if record.get("kind") == "left_out"), left_out)
    if follower.problem:
        last.append({"kind": "unreadable", "file": each.events_file.name, "message": follower.problem})
    return [checked(tame(event)) for event in last], left_out and checked(tame(left_out))


def _left_out(event: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What was left out of the data, by kind: documents, blocks, cache entries, lines of logs."""
    counts = event.get("counts") if event else None
    if not event or not isinstance(counts, dict):
        return []
    told = [f"{n:,} {kind.replace('_', ' ')}" for kind, n in counts.items() if type(n) is int and n > 0]
    share = event.get("share")
    most = f", at most {share:.2%} of a kind" if type(share) is float and 0 <= share <= 1 else ""
    return [("left out", f"{', '.join(told)}{most} (until step {event.get('step', '?')})")] if told else []


def _unreadable(each: RunDir) -> Iterator[tuple[str, str]]:
    """What is there and cannot be read: nothing of it is shown, and that is not the same as if there were nothing."""
    from mygpt2.checkpoint.store import candidates

    for path in (each.config_file, each.status_file, each.metrics_file, each.command_file, each.notes_file):
        try:
            each.reader(path).close()
        except FileNotFoundError:
            continue
        except OSError as error:
            yield "unreadable", f"{path.name} {error.strerror or error}"
    try:
        candidates(each.checkpoints_dir)
    except UserError as error:
        yield "unreadable", str(error)


def _details(each: RunDir, state: Any, command: dict[str, Any]) -> list[tuple[str, str]]:
    details = [("folder", str(each.path)), ("attempt", str(state.status.get("attempt", "")))]
    if origin := origin_of(each):
        gone = "" if parent_of(each.path.parent, origin) else ", which is no longer here"
        from mygpt2.experiments.arms import changes_words

        changes = changes_words(origin.changes)
        details.append(("branch of", f"{origin.parent}{gone}, at step {origin.step}; {changes} changed"))
    for rank in state.ranks:
        alive = {True: "runs", False: "is gone", None: "is on another machine"}[rank.alive]
        pid = f"pid {rank.process.pid} on {rank.process.host}" if rank.process else "unreadable record"
        details.append((f"rank {rank.rank}", f"{pid}, {rank.device}, {alive}"))
    if state.alive and state.progress_age is not None:
        details.append(("last progress", f"{duration(state.progress_age)} ago"))
    if isinstance(command.get("argv"), list):
        details.append(("command", shlex.join(map(str, command["argv"]))))
    if state.exit:
        details.append(("exit code", str(state.exit.get("code"))))
    return details


def _event_line(event: dict[str, Any]) -> str:
    moment = event.get("time")
    clock = "" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    hidden = ("schema", "kind", "time", "attempt", "message")
    known = {key: value for key, value in event.items() if value not in (None, [], {})}
    rest = [f"{key}={_brief(value)}" for key, value in known.items() if key not in hidden]
    return _line(f"{clock}  {event.get('kind', '?')}  {', '.join([*rest, event.get('message') or ''])}".rstrip(", "))


def _brief(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(each, dict) and "loss" in each for each in value.values()):
        value = {name: each["loss"] for name, each in value.items()}  # of the sources of a mixture, or a yardstick
    if isinstance(value, dict):
        return f"({', '.join(f'{name} {_brief(each)}' for name, each in value.items())})"
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _line(text: str) -> str:
    """Text from a run folder as one line of a terminal, where it moves no cursor."""
    text = printable(text.replace("\n", " "))
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _stop(each: RunDir, args: argparse.Namespace) -> int:
    from mygpt2.run_dir.stop import at_work, stop, where

    if (args.now or not at_work(each)) and (said := runs_handed.take_back(each)):
        print(_line(said), flush=True)
        if not at_work(each):
            return EXIT_OK
    if not at_work(each):
        from mygpt2.run_dir.liveness import state_of

        print(f"run {each.name} is not running: {state_of(each).state}")
        return EXIT_OK
    print(f"asking {each.name} to save and stop" + (" now" if args.now else "; Ctrl-C stops waiting, not the request"))
    said = ""

    def tell(state: Any) -> None:
        nonlocal said
        line = f"  {where(state)}"
        if line != said:
            print(line, flush=True)
            said = line

    try:
        report = stop(each, "now" if args.now else "save", grace=args.grace, on_progress=tell)
    except KeyboardInterrupt:
        print(f"\n{each.name} was asked to stop and will, once its step is done", file=sys.stderr)
        return EXIT_OK
    for outcome in report.outcomes:
        print(f"  {outcome}")
    if report.held and not report.outcomes:
        print("  a trainer that recorded no process holds the folder: end it by hand")
    print(
        _line(f"run {each.name}: {report.final.state}" + (f" ({report.final.reason})" if report.final.reason else ""))
    )
    return EXIT_OK if report.stopped else EXIT_DEFECT


def _verified(each: RunDir) -> int:
    """`_verify` of one run among many: what cannot be read of it does not keep the others from being looked at."""
    try:
        return _verify(each)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _verify(each: RunDir) -> int:
    """Reads every byte of every checkpoint. Exit 2 if there are some and none is whole."""
    from mygpt2.checkpoint.format import verify, weights_alone
    from mygpt2.checkpoint.store import candidates, size_bytes

    if ghost_of(each) is not None:
        print(f"{each.name}  is an imported log without weights")
        return EXIT_OK
    whole = 0
    found = candidates(each.checkpoints_dir)
    for path in found:
        problems = verify(path)
        alone = not problems and weights_alone(path)
        whole += not problems
        told = "; ".join(problems) or ("whole, weights alone" if alone else "whole")
        print(f"{each.name}  {path.name}  {file_size(size_bytes(path))}  {told}", flush=True)
    if not found:
        print(f"{each.name}  has no checkpoint")
        return EXIT_USAGE
    if not whole:
        print(f"error: none of the {len(found)} checkpoints of {each.name} is whole", file=sys.stderr)
    return EXIT_OK if whole else EXIT_USAGE
