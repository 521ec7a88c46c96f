"""Looks into sources, kept by what the sources are: one thread at work, for whoever still asks."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mygpt2.config.data import DataConfig
from mygpt2.data.scan import Stopped
from mygpt2.data.sources.filters import Filters
from mygpt2.data.sources.local.find import kinds_in
from mygpt2.errors import UserError
from mygpt2.machine import cache_folder, home_path
from mygpt2.tokenizer import load_tokenizer
from workbench.survey.sample import Survey, survey

KEPT = 80  # a mixture's, and those of what was looked at before
FRESH_SECONDS = 10.0  # after which it is looked whether the files are still the same
FORGOTTEN_SECONDS = 8.0  # without a question, after which a look ends
NICENESS = 10
MOST_STATS = 20_000  # files whose size and time tell whether a source has changed

log = logging.getLogger("workbench")
Key = tuple[str, str, str, float, int, Filters | None]


@dataclass(frozen=True)
class Look:
    """The state of one look. state: waiting, working, done, stopped; problem: why it cannot be trained on."""

    state: str
    survey: Survey | None = None
    problem: str = ""
    identity: Any = None
    time: float = 0.0

    @property
    def going(self) -> bool:
        return self.state in ("waiting", "working")


class Surveys:
    """The looks of one server. Usable from any thread; asking never waits."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._cache_dir = cache_dir
        self._looks: OrderedDict[Key, Look] = OrderedDict()
        self._asked: dict[Key, float] = {}
        self._stopped: set[Key] = set()
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def ask(self, data: DataConfig, begin: bool = True) -> Look | None:
        """What is known of a source by now. `begin`: a look begins where nothing is known, or it may have changed.

        Keeps a look alive that is under way: without a question for FORGOTTEN_SECONDS it ends.
        """
        key = _key(data)
        with self._lock:
            now = time.monotonic()
            self._asked[key] = now
            found = self._looks.get(key)
            if key in self._stopped:
                return Look("stopped")
            stale = found is None or (not found.going and now - found.time > FRESH_SECONDS)
            if not stale or not begin:
                return found
            kept = replace(found, time=now) if found else Look("waiting")
            self._looks[key] = kept
            self._looks.move_to_end(key)
            while len(self._looks) > KEPT:
                gone, _ = self._looks.popitem(last=False)
                self._asked.pop(gone, None)
        threading.Thread(target=self._work, args=(key, data), name="look into a source", daemon=True).start()
        return kept

    def stop(self, data: DataConfig) -> None:
        """Ends the look into a source, or keeps it from beginning, until `again` is called."""
        with self._lock:
            self._stopped.add(_key(data))

    def again(self, data: DataConfig) -> None:
        """Forgets what is known of a source, so that the next question looks anew."""
        with self._lock:
            self._stopped.discard(_key(data))
            self._looks.pop(_key(data), None)

    def problem(self, data: DataConfig) -> str:
        """Why a source cannot be trained on, as far as a look has found out; "" otherwise."""
        with self._lock:
            found = self._looks.get(_key(data))
            return found.problem if found else ""

    def found(self, data: DataConfig) -> Survey | None:
        """What is known of a source by now; None where nothing is, or nobody can train on it."""
        with self._lock:
            found = self._looks.get(_key(data))
            return found.survey if found else None

    def documents(self) -> dict[str, int]:
        """How many documents the sources have that were looked into and counted."""
        with self._lock:
            looks = list(self._looks.items())
        return {key[0]: look.survey.documents for key, look in looks if look.survey and look.survey.counted}

    def _work(self, key: Key, data: DataConfig) -> None:
        with contextlib.suppress(OSError, AttributeError):  # this thread's alone, where the system can do that
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        with self._turn:
            before = self._looks.get(key)
            identity = _identity(data)
            if before is not None and not before.going and before.identity == identity:
                return
            if not self._wanted(key):
                self._keep(key, None)
                return
            if before is not None and before.going:
                self._keep(key, Look("working"))
            self._keep(key, self._looked(key, data, identity))

    def _looked(self, key: Key, data: DataConfig, identity: Any) -> Look | None:
        try:
            tokenizer = load_tokenizer(data.tokenizer)
            caches = self._cache_dir or cache_folder(data.cache_dir)
            found = survey(data, tokenizer, caches, lambda: not self._wanted(key))
            return Look("done", found, "", identity, time.monotonic())
        except Stopped:
            return None
        except UserError as error:
            return Look("done", None, str(error), identity, time.monotonic())
        except Exception as error:  # a defect must not leave the page waiting for ever
            log.exception("a look into a source failed", exc_info=error)
            problem = f"the look into {data.source} failed ({error}); the log of the workbench has the details"
            return Look("done", None, problem, identity, time.monotonic())

    def _wanted(self, key: Key) -> bool:
        with self._lock:
            return key not in self._stopped and time.monotonic() - self._asked.get(key, 0.0) < FORGOTTEN_SECONDS

    def _keep(self, key: Key, look: Look | None) -> None:
        with self._lock:
            if look is None:
                self._looks.pop(key, None)
            elif key in self._looks:
                self._looks[key] = look


def _key(data: DataConfig) -> Key:
    settings = data.text_column, data.tokenizer, data.validation_fraction, data.max_document_chars
    return data.source, *settings, Filters.of(data)


def _identity(data: DataConfig) -> Any:
    """What changes when the files of a source or its tokenizer do; None where only a look tells."""
    stats = []
    try:
        path = home_path(data.source)
        kinds = kinds_in(path).values() if path.exists() else ()
        for each in (*[path for paths in kinds for path in paths][:MOST_STATS], *_tokenizer_files(data.tokenizer)):
            status = each.stat()
            stats.append((str(each), status.st_size, status.st_mtime_ns))
    except (OSError, UserError) as error:
        return str(error)
    return tuple(stats)


def _tokenizer_files(name: str) -> list[Path]:
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    return [file] if file.is_file() else []
