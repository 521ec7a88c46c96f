"""`python -m workbench.tabs.sample.worker`: the process that samples. Requests in, events out, a JSON line each.

    in   {"do": "generate", "id", "models": [spec, ...], "prompt", "settings": {...}}
         {"do": "likeliest", "id", "model": spec, "fingerprint", "ids": [...], "text": hex, "token": id}
         {"do": "stop", "id"}
    out  {"id", "event": "start"}, the events of `duet`, {"id", "event": "done", "after_stop"}
         {"id", "event": "likeliest", ...}; {"id", "event": "problem", "text"} ends either

Generations go one after the other; what is likely somewhere is answered between two tokens. The process ends when
nothing was asked for a while, and at once when the other end of its input closes: nothing outlives its server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Any

IDLE_SECONDS = 300.0

Message = dict[str, Any]


class Inbox:
    """Requests as they arrive, from the thread that reads them to the one that works."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._generations: deque[Message] = deque()
        self._questions: deque[Message] = deque()
        self._stopped: set[str] = set()
        self._on_stop: Callable[[str], None] = lambda id: None

    def take(self, message: Message) -> None:
        """A request that has come. A stop counts from here on, before the worker hears of it."""
        with self._changed:
            if message["do"] == "stop":
                self._stopped.add(message["id"])
                self._on_stop(message["id"])
            elif message["do"] == "likeliest":
                self._questions.append(message)
            else:
                self._generations.append(message)
            self._changed.notify()

    def next(self, seconds: float) -> Message | None:
        """What is to be done next, questions first; None when nothing came for so long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._questions or self._generations, seconds):
                return None
            return self._questions.popleft() if self._questions else self._generations.popleft()

    def question(self) -> Message | None:
        """A question that waits, if there is one."""
        with self._changed:
            return self._questions.popleft() if self._questions else None

    def stopped(self, id: str) -> bool:
        return id in self._stopped

    def watch(self, on_stop: Callable[[str], None]) -> None:
        """Whom to tell of a stop, in the reading thread."""
        self._on_stop = on_stop

    def forget(self, id: str) -> None:
        self._stopped.discard(id)


class Worker:
    """Does what the inbox holds. `send` writes one event."""

    def __init__(self, inbox: Inbox, send: Callable[[Message], None], device: str) -> None:
        import torch

        from workbench.tabs.sample.models import Models

        self._inbox, self._send = inbox, send
        self._models = Models(torch.device(device))
        self._drawn = 0
        self._drawn_at_stop: dict[str, int] = {}
        inbox.watch(self._note_stop)

    def _note_stop(self, id: str) -> None:
        self._drawn_at_stop.setdefault(id, self._drawn)

    def run(self, idle: float = IDLE_SECONDS) -> None:
        """Until nothing was asked for `idle` seconds."""
        while (message := self._inbox.next(idle)) is not None:
            self._guarded(message)

    def _guarded(self, message: Message) -> None:
        """One request; whatever goes wrong is one line, and the process stays usable."""
        import torch

        from mygpt2.errors import UserError

        work = self._likeliest if message["do"] == "likeliest" else self._generate
        try:
            work(message)
        except UserError as error:
            self._send({"id": message["id"], "event": "problem", "text": str(error)})
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not is_memory(error):
                raise
            self._models.forget()
            text = f"the memory of {self._models.device} is not enough; choose a smaller model, or another device"
            self._send({"id": message["id"], "event": "problem", "text": text})

    def _generate(self, message: Message) -> None:
        from workbench.tabs.sample.duet import duet
        from workbench.tabs.sample.settings import Settings

        id = message["id"]
        self._drawn = 0
        self._send({"id": id, "event": "start"})
        settings = Settings.from_json(message["settings"])
        stopped = partial(self._inbox.stopped, id)
        for event in duet(self._models, message["models"], message["prompt"], settings, stopped):
            self._drawn += event["event"] == "token"
            self._send({"id": id, **event})
            while (question := self._inbox.question()) is not None:
                self._guarded(question)
        after = self._drawn - self._drawn_at_stop.pop(id, self._drawn)
        self._inbox.forget(id)
        self._send({"id": id, "event": "done", "after_stop": after})

    def _likeliest(self, message: Message) -> None:
        from workbench.tabs.sample.duet import likeliest

        ready = self._models.get(message["model"])
        text = bytes.fromhex(message["text"])
        found = likeliest(ready, message["fingerprint"], message["ids"], text, message.get("token"))
        self._send({"id": message["id"], "event": "likeliest", **found})


def is_memory(error: BaseException) -> bool:
    """Whether an error of torch says that memory ran out: on a CPU that is a plain RuntimeError."""
    return "allocate memory" in str(error) or "out of memory" in str(error)


def read(source: IO[str], inbox: Inbox, ended: Callable[[], None]) -> None:
    """Passes lines on until the source ends. What is not a request is passed over: there is nobody to tell."""
    for line in source:
        try:
            message = json.loads(line)
            if message["do"] in ("generate", "likeliest", "stop") and isinstance(message["id"], str):
                inbox.take(message)
        except (ValueError, KeyError, TypeError):
            continue
    ended()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m workbench.tabs.sample.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, mps")
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, help="seconds without a request until it ends")
    args = parser.parse_args(argv)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")  # whatever a library prints must not get between the events
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    inbox = Inbox()
    # at once, whatever is going on: nothing here is worth finishing without a reader
    threading.Thread(target=read, args=(sys.stdin, inbox, lambda: os._exit(0)), daemon=True).start()

    def send(message: Message) -> None:
        try:
            channel.write(json.dumps(message, separators=(",", ":")) + "\n")
            channel.flush()
        except OSError:
            os._exit(0)

    Worker(inbox, send, args.device).run(args.idle)
    return 0


if __name__ == "__main__":
    sys.exit(main())
