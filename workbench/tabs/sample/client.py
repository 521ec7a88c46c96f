"""The server's side of the workers: starts one for a device when it is needed, and hears what it says."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

from mygpt2.errors import UserError
from workbench.jobs.spawn import child_environment
from workbench.tabs.sample.generation import Generation
from workbench.tabs.sample.settings import Settings

SAMPLING = "sampling"  # what the ledger of devices says of it
KEPT = 12  # generations whose tokens can still be looked at
WAITING = 8  # that may wait for one device
CLOSED_SECONDS = 15.0  # a page that has not asked for so long is taken for closed
ANSWER_SECONDS = 120.0
ERRORS = 20  # last lines a worker wrote before it ended

Message = dict[str, Any]


class Connection:
    """One worker process. `heard` gets every event, `ended` what to say when the process is gone."""

    def __init__(self, argv: Sequence[str], heard: Callable[[Message], None], ended: Callable[[str], None]) -> None:
        self.process = subprocess.Popen(
            list(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", env=child_environment({}), start_new_session=True,
        )  # fmt: skip
        self._heard, self._ended = heard, ended
        self._said: deque[str] = deque(maxlen=ERRORS)
        self._errors = threading.Thread(target=self._drain, daemon=True)
        self._errors.start()
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: Message) -> bool:
        """False when the process is gone."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def close(self) -> None:
        """The worker ends by itself when nobody can write to it any more."""
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def _drain(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said.append(line.rstrip())

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self._heard(json.loads(line))
        code = self.process.wait()
        self._errors.join(5)
        self._ended(why(code, [line for line in self._said if line.strip()]))


def why(code: int, said: Sequence[str]) -> str:
    """What to tell of a worker that is gone; "" for one that ended because there was nothing to do."""
    if code == 0:
        return ""
    if code == -signal.SIGKILL:
        return "the sampling process was killed, perhaps because memory ran out; choose a smaller model or try again"
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = f": {said[-1][:300]}" if said else ""
    return f"the sampling process ended ({how}){last}; try again"


class Desk:
    """Generations on one device, one at a time, in the order they came."""

    def __init__(self, argv: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._argv, self._clock = argv, clock
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._closed = False
        self._active: OrderedDict[str, Generation] = OrderedDict()
        self._answers: dict[str, Future[Message]] = {}
        self._carriers: dict[str, Connection] = {}  # which process was asked

    @property
    def process(self) -> subprocess.Popen[str] | None:
        return self._connection.process if self._connection else None

    @property
    def busy(self) -> bool:
        """Whether a generation goes on, or waits."""
        return bool(self._active)

    def start(self, generation: Generation) -> None:
        """UserError when too many wait already, or no process can be started."""
        with self._lock:
            if len(self._active) > WAITING:
                raise UserError(f"{WAITING} generations wait for this device already; try again when some are done")
            self.seen(generation)
            self._active[generation.id] = generation
            try:
                self._send(generation.request())
            except UserError:
                self._drop(generation)
                raise

    def seen(self, generation: Generation) -> None:
        """The page of a generation has just asked for it."""
        generation.polled = self._clock()

    def before(self, generation: Generation) -> int:
        """How many have to end before it begins."""
        with self._lock:
            ids = list(self._active)
            return ids.index(generation.id) if generation.id in ids else 0

    def stop(self, generation: Generation) -> None:
        with self._lock:
            if generation.id in self._active and not generation.asked_to_stop:
                generation.asked_to_stop = True
                if self._connection is not None:
                    self._connection.send({"do": "stop", "id": generation.id})

    def ask(self, message: Message, seconds: float = ANSWER_SECONDS) -> Message:
        """The answer to a question; UserError for a problem or when none comes in time."""
        id = secrets.token_hex(8)
        answer: Future[Message] = Future()
        with self._lock:
            self._answers[id] = answer
            self._send({**message, "id": id})
        try:
            found = answer.result(seconds)
        except NotInTime:
            raise UserError(f"no answer within {seconds:g} s; the device is busy, try again later") from None
        finally:
            with self._lock:
                self._answers.pop(id, None)
                self._carriers.pop(id, None)
        if found["event"] == "problem":
            raise UserError(found["text"])
        return found

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._connection is not None:
                self._connection.close()

    def _send(self, message: Message) -> None:
        """To the worker, which is started if there is none, or it ended just now because it had nothing to do."""
        for _ in range(2):
            if self._connection is None:
                self._connection = self._connect()
            if self._connection.send(message):
                self._carriers[message["id"]] = self._connection
                return
            self._connection = None
        raise UserError("the sampling process ends as soon as it is started; the server's log may say why")

    def _connect(self) -> Connection:
        connection: Connection

        def ended(reason: str) -> None:
            self._gone(connection, reason)

        try:
            connection = Connection(self._argv, self._heard, ended)
        except OSError as error:
            raise UserError(f"the sampling process cannot be started: {error.strerror or error}; try again") from None
        return connection

    def _heard(self, event: Message) -> None:
        with self._lock:
            if event.get("id") in self._answers:
                self._answers.pop(event["id"]).set_result(event)
                return
            generation = self._active.get(event.get("id", ""))
            if generation is None:
                return
            generation.hear(event)
            if generation.ended:
                self._drop(generation)
            elif self._clock() - generation.polled > CLOSED_SECONDS:
                self.stop(generation)

    def _gone(self, connection: Connection, reason: str) -> None:
        """What was going on is over; what an idle worker did not get to read is asked again."""
        problem = reason or "the sampling process ended; try again"
        with self._lock:
            if self._connection is connection:
                self._connection = None
            lost = [id for id, carrier in self._carriers.items() if carrier is connection]
            for id in [id for id in lost if id in self._answers]:
                self._answers.pop(id).set_result({"event": "problem", "text": problem})
            for generation in [self._active[id] for id in lost if id in self._active]:
                if not reason and generation.state == "waiting" and not self._closed:
                    with contextlib.suppress(UserError):
                        self._send(generation.request())
                        continue
                generation.fail(problem)
                self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        self._active.pop(generation.id, None)
        self._carriers.pop(generation.id, None)


class Sampler:
    """All generations of one server, each on the desk of its device. Nothing is started before the first."""

    def __init__(self, desk: Callable[[str], Desk] | None = None) -> None:
        self._make = desk or (lambda device: Desk(worker_command(device)))
        self._desks: dict[str, Desk] = {}
        self._kept: OrderedDict[str, tuple[Generation, Desk]] = OrderedDict()
        self._lock = threading.Lock()

    def start(
        self, models: Sequence[tuple[str, str]], prompt: str, settings: Settings, device: str = "cpu"
    ) -> Generation:
        """models: (what the engine loads, what people call it). UserError when the device has too many waiting."""
        generation = Generation(secrets.token_hex(8), models, prompt, settings)
        with self._lock:
            if device not in self._desks:
                self._desks[device] = self._make(device)
            desk = self._desks[device]
        desk.start(generation)
        with self._lock:
            self._kept[generation.id] = generation, desk
            for id, (old, _) in list(self._kept.items())[: max(0, len(self._kept) - KEPT)]:
                if old.ended:
                    del self._kept[id]
        return generation

    def get(self, id: Any) -> tuple[Generation, Desk]:
        """UserError for one that is not known, or not any more."""
        with self._lock:
            found = self._kept.get(str(id or ""))
        if found is None:
            raise UserError("this generation is not known any more; press Generate again")
        return found

    def stop(self, id: Any) -> None:
        generation, desk = self.get(id)
        desk.stop(generation)

    def poll(self, id: Any, counts: Sequence[int]) -> dict[str, Any]:
        """What the page does not have yet. That it asks says that it is still open."""
        generation, desk = self.get(id)
        desk.seen(generation)
        return {**generation.since(counts), "before": desk.before(generation)}

    def at_work(self) -> dict[str, str]:
        """The devices on which something is being generated."""
        with self._lock:
            return {device: SAMPLING for device, desk in self._desks.items() if desk.busy}

    def release(self, devices: Sequence[str]) -> None:
        """Ends the processes that keep models on these devices while nobody generates there."""
        with self._lock:
            idle = [desk for device, desk in self._desks.items() if device in devices and not desk.busy]
        for desk in idle:
            desk.close()

    def close(self) -> None:
        for desk in self._desks.values():
            desk.close()


def worker_command(device: str) -> list[str]:
    return [sys.executable, "-m", "workbench.tabs.sample.worker", "--device", device]
