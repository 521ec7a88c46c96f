"""A stop in a thread of its own, for whoever has a page to serve meanwhile."""

from __future__ import annotations

import threading

from mygpt2.errors import UserError
from mygpt2.run_dir.liveness import RunState, state_of
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.stop import GRACE_SECONDS, Find, How, Outcome, StopReport, check_how, stop, where
from mygpt2.run_dir.writer import next_attempt


class BackgroundStop:
    """A stop under way, in a thread of its own. `lines` grows until `done`; then `stopped` and `report` tell the end.

    `find` as for `stop`; no function at all for a run that only waited in a queue and has left it.
    """

    def __init__(
        self, run: RunDir, how: How, find: Find | None = lambda: (None, []), grace: float = GRACE_SECONDS
    ) -> None:
        check_how(how)
        self.run, self.how = run.name, how
        self.report: StopReport | None = None
        self.attempt = 0  # the run's last one when the stop was over
        self._run, self._find, self._grace = run, find, grace
        self._lines: list[str] = []
        self._where = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name=f"stop {run.name}", daemon=True)

    @property
    def lines(self) -> list[str]:
        """What happened so far, a line each."""
        return list(self._lines)

    @property
    def outcomes(self) -> list[Outcome]:
        return self.report.outcomes if self.report else []

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def stopped(self) -> bool:
        """Whether it is over and no process of the run is left that this machine can see."""
        return self.done and self.report is not None and self.report.stopped

    def start(self) -> BackgroundStop:
        self._thread.start()
        return self

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it ended within that time."""
        return self._ended.wait(seconds)

    def _guarded(self) -> None:
        try:
            self._work()
        except (UserError, OSError) as error:
            self._lines.append(f"could not stop it: {error}")
        except Exception as error:  # whoever watches must see the end of every stop, a defect's too
            self._lines.append(f"a defect while stopping: {type(error).__name__}: {error}")
            raise
        finally:
            self._ended.set()

    def _work(self) -> None:
        opening = {
            "save": "asked to finish the step, save and end",
            "now": f"sending SIGTERM; {self._grace:.0f} s for a last checkpoint",
            "kill": "sending SIGKILL to the launcher and every rank",
        }[self.how]
        if self._find is None:
            self._lines.append("it waited in the queue and was taken out")
            report = StopReport([], state_of(self._run))
        else:
            self._lines.append(opening)
            report = stop(
                self._run, self.how, find=self._find, grace=self._grace, on_progress=self._tell, say=self._lines.append
            )
        self.attempt = next_attempt(self._run) - 1
        self._lines += [str(outcome) for outcome in report.outcomes]
        reason = f" ({report.final.reason})" if report.final.reason else ""
        left = [outcome.who for outcome in report.outcomes if not outcome.gone]
        still = f"; still there: {', '.join(left)}" if left else ""
        self._lines.append(f"run {self.run}: {report.final.state}{reason}{still}")
        self.report = report

    def _tell(self, state: RunState) -> None:
        """Keeps one line about where the run is, that moves on: not one per step."""
        if self._lines[-1] == self._where:
            self._lines.pop()
        self._where = where(state)
        self._lines.append(self._where)
