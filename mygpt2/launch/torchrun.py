"""`python -m mygpt2.launch`: torchrun of `mygpt2 train`, started by launch_train.sh.

torchrun runs inside this process, so that a signal or a SIGKILL meets one process only, and so that the ranks' exit
code is known: torchrun itself exits 1 for every failure. Three things are done here rather than by torchrun:

- SIGTERM, SIGINT and SIGHUP go to the ranks, which finish their step, save and exit 85, with no 30 s limit; a second
  one kills them. torchrun would kill ranks that save for longer. A SIGHUP that was to be ignored (`nohup`) is ignored.
  Before there are ranks a stop ends this process at once. SIGUSR1 asks for a save through the run folder.
- A restart is a new torchrun with an empty store. Within one, gloo meets the dead attempt's addresses
  (pytorch/pytorch#135712).
- Ranks that ended on purpose (2, 75, 85) are not restarted.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from mygpt2.cli import Help, Parser, guarded
from mygpt2.config.batch import plan_batch
from mygpt2.errors import EXIT_DEFECT, EXIT_OK, EXIT_STOPPED, EXIT_TRY_AGAIN, EXIT_USAGE, TryAgain
from mygpt2.failures import NONFINITE
from mygpt2.files import read_json
from mygpt2.launch.plan import LaunchPlan, plan_launch
from mygpt2.launch.request import add_arguments, only_shown, resolve
from mygpt2.orphans import LAUNCHER
from mygpt2.run_dir import MEANT, ControlFiles, LineWriter, RunDir
from mygpt2.run_dir.scratch import scratch
from mygpt2.steady import steady_console

ON_PURPOSE = (EXIT_OK, EXIT_USAGE, EXIT_TRY_AGAIN, EXIT_STOPPED)
SAME_REQUEST_S = 2.0  # a terminal and a supervisor may both pass on one Ctrl-C
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Launch the ranks, restart them if they die, and return the exit code of the run."""
    words = list(sys.argv[1:] if argv is None else argv)
    with steady_console():
        return guarded(lambda: _launch(words))


def _launch(words: list[str]) -> int:
    own, train_words = _launch_parser(add_help=False).parse_known_args(words)
    parser = _launch_parser(add_help=True)
    add_arguments(parser)
    args, settings = parser.parse_known_args(words)
    args.settings = settings
    args.argv = ["train", *train_words]
    request = resolve(args)
    request.tell()
    if only_shown(args, request):
        return EXIT_OK
    plan = plan_launch(request.config, os.environ, own.nproc, own.max_restarts)
    ranks = plan.nproc * plan.nodes
    model, batch = request.config.model, request.config.train
    plan_batch(batch.batch_tokens, model.block_size, batch.micro_batch, ranks, request.config.data.lanes)
    if args.run is None:
        train_words += ["--run", request.run_name]
    command = ["-m", "--", "mygpt2", "train", *train_words]  # else torchrun takes --run for one of its own
    if own.dry_run_launch:
        print(f"OMP_NUM_THREADS={plan.threads} torchrun {shlex.join(plan.torchrun_options() + command)}")
        return EXIT_OK
    print(f"launch: run {request.run_name} in {request.runs_dir}, {ranks} ranks x {plan.threads} threads", flush=True)
    if plan.host:
        print(f"launch: meeting {plan.nodes} nodes at {plan.host}, for {plan.patience} s at most", flush=True)
    os.environ["OMP_NUM_THREADS"] = str(plan.threads)
    for name in [name for name in os.environ if name.startswith("PET_")]:
        del os.environ[name]  # torchrun takes them for options that were not given, beside those of the plan
    run = RunDir(request.runs_dir / request.run_name)
    code = Launcher(plan, run, command).run()
    return EXIT_OK if own.scheduled and code == EXIT_STOPPED and was_meant(run) else code


def was_meant(run: RunDir) -> bool:
    """Whether the run stopped where it was told to, through its folder or by --until, and not by who started it."""
    return (read_json(run.exit_file) or {}).get("asked") in MEANT


def _launch_parser(add_help: bool) -> argparse.ArgumentParser:
    parser = Parser(
        prog="launch_train.sh",
        description="Train with one process per device under torchrun; goes on with the run if there is one.",
        formatter_class=Help,
        allow_abbrev=False,
        add_help=add_help,
    )
    group = parser.add_argument_group("launch")
    group.add_argument("--nproc", type=_count(1), metavar="N", help="processes on this node (CUDA devices, or 2)")
    group.add_argument(
        "--max-restarts",
        type=_count(0),
        metavar="N",
        help="restarts after a rank died (3 on one node; 0 on several, where the scheduler restarts)",
    )
    group.add_argument(
        "--scheduled",
        action="store_true",
        help="for a scheduler, which queues again what exits 85: a stop asked for in the folder or by --until exits 0",
    )
    group.add_argument("--dry-run-launch", action="store_true", help="print the torchrun command, and end")
    return parser


def _count(least: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return whole


class StoppedAtOnce(Exception):
    """A stop was asked for twice: the ranks were killed."""


class Launcher:
    """One torchrun after the other until the run has ended on purpose or the restarts are used up."""

    def __init__(self, plan: LaunchPlan, run: RunDir, command: list[str]) -> None:
        self.plan = plan
        self.run_folder = run
        self.command = command
        self.asked_at: float | None = None  # when a stop was first asked for
        self.log_dir = ""

    @property
    def stopping(self) -> bool:
        return self.asked_at is not None

    def run(self) -> int:
        """Exit code of the run: of the ranks where they ended on purpose, 85 when stopped, else 70."""
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_save)
        os.environ[LAUNCHER] = str(os.getpid())
        last = None
        try:
            restarts = 0
            while True:
                code, reason = self._attempt()
                if code in ON_PURPOSE:
                    return code
                if self.stopping:
                    print(f"launch: stopping, but {reason}", file=sys.stderr, flush=True)
                    return code
                if self._met_nonfinite():
                    print(f"launch: {reason}; a restart would only meet it again", file=sys.stderr, flush=True)
                    return code
                if restarts == self.plan.max_restarts:
                    print(f"launch: {reason}; {restarts} restarts used, giving up", file=sys.stderr, flush=True)
                    return EXIT_DEFECT
                if (ended := self._end()) is not None and ended == last:
                    print(f"launch: {reason}, in the same way as before; giving up", file=sys.stderr, flush=True)
                    return EXIT_DEFECT
                last = ended
                restarts += 1
                os.environ["MYGPT2_RESTART"] = str(restarts)  # torchrun's own count begins at 0 each time
                print(f"launch: {reason}; restart {restarts} of {self.plan.max_restarts}", file=sys.stderr, flush=True)
        except StoppedAtOnce:
            print("launch: stopped at once; the run goes on from its last checkpoint", file=sys.stderr, flush=True)
            return EXIT_DEFECT

    def _attempt(self) -> tuple[int, str]:
        """One torchrun: the exit code that explains its end, and the reason in words."""
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous import RendezvousError
        from torch.distributed.run import parse_args, run

        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the reason is printed here
        before = self._exit_file_time()
        with scratch("torchrun") as log_dir:  # torchrun makes a folder for every rank's errors
            self.log_dir = str(log_dir)
            options = [*self.plan.torchrun_options(), f"--log-dir={log_dir}"]
            try:
                run(parse_args([*options, *self.command]))
            except RendezvousError as error:
                raise TryAgain(alone(self.plan, error)) from None
            except ChildFailedError as failed:
                codes = {rank: failure.exitcode for rank, failure in failed.failures.items()}
                code, reason = explain(codes, self.stopping)
                if code not in ON_PURPOSE:
                    self._record_crash(*culprit(codes), reason)
                return code, reason
        return self._recorded_code(before), "done"

    def _end(self) -> tuple[object, ...] | None:
        """How the attempt ended, without what differs from one to the next; None where it could not say."""
        ended = read_json(self.run_folder.exit_file)
        return (ended.get("step"), ended.get("rank"), str(ended.get("reason")).partition(";")[0]) if ended else None

    def _met_nonfinite(self) -> bool:
        """Whether the run stopped itself before a non-finite value: the same batch would give the same value."""
        return str((read_json(self.run_folder.exit_file) or {}).get("reason", "")).startswith(NONFINITE)

    def _record_crash(self, rank: int, code: int, reason: str) -> None:
        """An event for whoever watches the run: a rank that was killed cannot write it, and the next attempt goes on
        in the same logs. `log_bytes` is where each rank's log ended."""
        if not self.run_folder.exists():
            return
        logs = {path.stem.removeprefix("rank-"): path.stat().st_size for path in self.run_folder.logs_dir.glob("*.log")}
        status = read_json(self.run_folder.status_file) or {}
        record = {
            "schema": 1, "attempt": status.get("attempt"), "kind": "crash", "step": status.get("step"), "rank": rank,
            "signal": signal.Signals(-code).name if code < 0 else None, "code": code, "message": reason,
            "log_bytes": logs, "time": time.time(),
        }  # fmt: skip
        with contextlib.suppress(OSError):
            events = LineWriter(self.run_folder.events_file)
            events.append(record)
            events.close()

    def _exit_file_time(self) -> int:
        """When exit.json was written, in ns; 0 where there is none."""
        try:
            return self.run_folder.exit_file.stat().st_mtime_ns
        except OSError:
            return 0

    def _recorded_code(self, before: int) -> int:
        """Ranks that were stopped exit 0 under torchrun, lest it kills those still saving; exit.json holds the 85."""
        ended = read_json(self.run_folder.exit_file) if self._exit_file_time() != before else None
        ended = ended or {}
        return (
            EXIT_STOPPED if ended.get("code", EXIT_STOPPED if self.stopping else EXIT_OK) == EXIT_STOPPED else EXIT_OK
        )

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
            if not self._signal_ranks(signal.SIGTERM):
                # Nothing to pass it to and nothing to lose. An exception would have to find its way out of torchrun.
                shutil.rmtree(self.log_dir, ignore_errors=True)
                os._exit(EXIT_STOPPED)
        elif now - self.asked_at > SAME_REQUEST_S:
            self._signal_ranks(signal.SIGKILL)
            raise StoppedAtOnce

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        """A signal would kill a rank that has not installed its handler yet; the control file waits for it."""
        if self.run_folder.exists():
            ControlFiles(self.run_folder).request("save")

    def _signal_ranks(self, number: int) -> int:
        import psutil

        ranks = psutil.Process().children()
        for rank in ranks:
            try:
                rank.send_signal(number)
            except psutil.NoSuchProcess:
                continue  # it ended by itself meanwhile
        return len(ranks)


def alone(plan: LaunchPlan, error: Exception) -> str:
    """Why the nodes of a launch did not find each other, in words."""
    if plan.host is None:
        return f"the processes of this machine could not meet ({error}); run the same command again"
    if isinstance(error, TimeoutError) or type(error).__name__ == "RendezvousTimeoutError":
        return (
            f"of {plan.nodes} nodes not all came to {plan.host} within {plan.patience} s; see that each was started "
            "with the same NNODES, MASTER_ADDR and RDZV_ID, then run the same command on all (RDZV_TIMEOUT=S: wait "
            "longer)"
        )
    return (
        f"node 0 cannot be reached at {plan.host}, or left; see that it runs, that its port is open and that "
        "MASTER_ADDR is its name, then run the same command on all nodes"
    )


def explain(codes: dict[int, int], stopping: bool) -> tuple[int, str]:
    """The exit code that explains why ranks failed, from their exit codes by rank; a negative code is a signal.

    When one rank fails torchrun sends SIGTERM to the others, so beside a crash an 85 (or -15) is a consequence.
    """
    for code in (EXIT_USAGE, EXIT_TRY_AGAIN):
        if code in codes.values():
            return code, "ended on purpose"
    crashed = _crashed(codes)
    if (stopping and not crashed) or (EXIT_STOPPED in codes.values() and (stopping or not crashed)):
        return EXIT_STOPPED, "stopped on request"
    rank, code = culprit(codes)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited {code}"
    return EXIT_DEFECT, f"rank {rank} {how}"


def culprit(codes: dict[int, int]) -> tuple[int, int]:
    """The rank whose end explains the others', and its exit code; a signal comes before a 70."""
    return min((_crashed(codes) or codes).items(), key=lambda item: (item[1] > 0, item[0]))


def _crashed(codes: dict[int, int]) -> dict[int, int]:
    return {rank: code for rank, code in codes.items() if code not in (EXIT_STOPPED, -signal.SIGTERM)}
