"""Why a rank ends before its time, in a form that every rank, the terminal and the run folder can be told."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass

from mygpt2.errors import EXIT_DEFECT, EXIT_STOPPED, EXIT_TRY_AGAIN, EXIT_USAGE
from mygpt2.files import refused

UNSAVED = ": ended without saving"
NONFINITE = "non-finite: "  # how the reason of a run begins that ended for its loss or gradient
NO_LOSS = "the model's losses are not finite"  # how `eval` begins to say that its weights are damaged
MOST = 500  # characters of what an exception says that nobody wrote for a person


@dataclass(frozen=True)
class Failure:
    """`rank` is the one that met it; `code` is the exit code of every rank; `text` is one sentence, and says which rank
    where that is of use. A `defect` is the mistake of nobody but the program: a stack is in that rank's log. `silent`
    is the end of a rank that could not say anything: another one speaks for it."""

    rank: int
    code: int
    text: str
    defect: bool = False
    silent: bool = False

    @property
    def state(self) -> str:
        """The run's state after it."""
        return "stopped" if self.code in (EXIT_TRY_AGAIN, EXIT_STOPPED) else "failed"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: bytes | str) -> Failure:
        return cls(**json.loads(text))


class PeerFailed(BaseException):
    """Another rank met a problem and said so; this one ends with the same code. The message is that rank's.

    It may come at any moment, and whoever retries after an Exception must not retry after this.
    """

    def __init__(self, failure: Failure):
        super().__init__(failure.text)
        self.failure = failure
        self.exit_code = failure.code


class Stopped(KeyboardInterrupt):
    """A stop was asked for while there was nothing to finish and nothing to save."""


def failure_of(problem: BaseException, rank: int = 0, size: int = 1) -> Failure:
    """What an exception on this rank means for all of them."""
    if isinstance(problem, PeerFailed):
        return problem.failure
    code, text = _meaning(problem)
    here = f"rank {rank}: " if size > 1 and (rank or code == EXIT_DEFECT) and _depends_on_the_rank(problem) else ""
    return Failure(rank, code, here + text, code == EXIT_DEFECT and not _code(problem))


def _meaning(problem: BaseException) -> tuple[int, str]:
    words = _words(problem)
    if isinstance(problem, Stopped):
        return EXIT_STOPPED, "stopped on request while it was starting"
    if isinstance(problem, KeyboardInterrupt):
        return EXIT_STOPPED, f"interrupted twice{UNSAVED}"
    if _out_of_memory(problem):
        detail = f" ({words[:200]})" if words else ""
        return EXIT_USAGE, f"out of memory: lower train.micro_batch or model.block_size{detail}"
    if error := refused(problem):
        return error.exit_code, str(error)
    if code := _code(problem):
        return code, str(problem)
    return EXIT_DEFECT, f"{type(problem).__name__}: {words[:MOST]}" if words else type(problem).__name__


def _words(problem: BaseException) -> str:
    """What an exception says, in one line; one that cannot be asked must not hide that it happened."""
    try:
        return " ".join(str(problem).split())
    except Exception:
        return "it has no words"


def _code(problem: BaseException) -> int:
    """The exit code that an exception of this package brings; those of other packages mean something else by theirs."""
    code = getattr(problem, "exit_code", 0)
    return code if type(problem).__module__.partition(".")[0] == __package__ and isinstance(code, int) else 0


def _out_of_memory(problem: BaseException) -> bool:
    if isinstance(problem, MemoryError) or (isinstance(problem, OSError) and problem.errno == errno.ENOMEM):
        return True
    text = "" if not isinstance(problem, RuntimeError) else _words(problem)
    return type(problem).__name__ == "OutOfMemoryError" or "can't allocate memory" in text


def _depends_on_the_rank(problem: BaseException) -> bool:
    """Whether it matters on which rank it happened; sums over the ranks and requests are the same everywhere."""
    return not getattr(problem, "shared", False) and not isinstance(problem, KeyboardInterrupt)
