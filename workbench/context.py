"""What handlers may use: the folders the page may touch, and the job runner. Knows nothing of Gradio."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig, load_config
from mygpt2.data.sources.hub.client import DEFAULT_ENDPOINT
from mygpt2.data.sources.hub.names import parse_name
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture
from mygpt2.data.trace import read_manifests
from mygpt2.errors import UserError
from mygpt2.inside import SMALL_BYTES, names_inside, open_inside, read_inside
from mygpt2.machine import cache_folder, home_path
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.ghost import check_weights, ghost_of
from mygpt2.run_dir.marks import current_runs
from mygpt2.run_dir.mentions import present_name
from mygpt2.run_dir.paths import NAME
from workbench import forms
from workbench.jobs import Jobs
from workbench.security import Door
from workbench.survey.surveys import Surveys

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?(:[\w.-]{1,64})?(@[\w.-]{1,64})?", re.ASCII)
GPT2_NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
MAX_TEXT = 4096


@dataclass(frozen=True)
class Context:
    """One server's view. `runs` and `data_roots` are absolute and resolved; a path someone types must lie in one."""

    runs: Path
    data_roots: tuple[Path, ...]
    jobs: Jobs
    door: Door = field(default_factory=lambda: Door(None))
    read_only: bool = False
    surveys: Surveys = field(default_factory=Surveys)

    def run(self, name: str) -> RunDir:
        """An existing run of this folder, also by a name it had.

        UserError for a name that is not allowed, is unknown, or leads elsewhere.
        """
        run = RunDir.open(self.runs, self._now(str(name or "").strip()))
        if run.path.resolve().parent != self.runs:
            raise UserError(f"run {name!r} is a link to another folder; the page opens runs of {self.runs} only")
        return run

    def _now(self, name: str) -> str:
        """The name that a run has now which was renamed: links to it, notes and scripts go on."""
        return present_name(self.runs, name) if NAME.fullmatch(name) else name

    def runs_at_hand(self, ticked: Any, *, weights: bool = False) -> list[str]:
        """Names of runs that a tab begins with where nothing was chosen in it: those that are ticked in Monitor, as the
        page says, or else the one that was written to last. Archived ones are none, and where `weights` are needed
        imported logs."""
        known = [run for run in current_runs(self.runs) if not weights or ghost_of(run) is None]
        names = {run.name for run in known}
        wanted = [str(name) for name in ticked if name in names] if isinstance(ticked, list) else []
        if wanted or not known:
            return wanted
        return [max(known, key=lambda run: _written(run.metrics_file)).name]

    def path(self, text: str, what: str) -> Path:
        """A path someone typed, with links resolved, inside `runs` or a data root.

        Relative paths are looked for in each data root, then in `runs`. It need not exist. UserError otherwise.
        """
        text = str(text or "").strip()
        if not text:
            raise UserError(f"no {what} is named; give a path in one of the folders {self._allowed()}")
        if len(text) > MAX_TEXT or "\0" in text or not is_text(text):
            raise UserError(f"{what}: give a path of 1 to {MAX_TEXT} characters; allowed folders: {self._allowed()}")
        try:
            typed = home_path(text)
            roots = [*self.data_roots, self.runs]
            found = [path.resolve() for path in ([typed] if typed.is_absolute() else [root / typed for root in roots])]
            path = next((path for path in found if path.exists()), found[0])
        except (OSError, RuntimeError) as error:
            raise UserError(f"{what} {text[:80]!r} cannot be looked up: {error.args[-1]}; give another path") from None
        if not any(path.is_relative_to(root) for root in roots):
            folder = path.parent if path.suffix else path  # by its name alone: what lies outside is not looked at
            raise UserError(
                f"{what} {text!r} is outside the folders of this workbench; allowed: {self._allowed()} "
                f"(python -m workbench --data-root {shlex.quote(str(folder))} adds it)"
            )
        return path

    def model(self, text: str) -> str:
        """A model as the command line takes it: a run, a GPT-2 of the hub, or a folder inside the roots."""
        text = str(text or "").strip()
        if not text:
            raise UserError("no model is chosen; give a run, a folder inside the roots, or gpt2")
        name = text.removeprefix("openai-community/")
        if name in GPT2_NAMES:
            return text
        if "/" not in text:
            try:
                found = self.run(text)
                check_weights(found)
                return str(found.path)
            except UserError:
                if not any(_exists(root / text) for root in self.data_roots):
                    raise
        path = self.path(text, "model")
        if not path.exists():
            raise UserError(f"model {text!r} does not exist; give a run, a folder inside the roots, or gpt2")
        return str(path)

    def source(self, text: str) -> str:
        """A data source as `--data.source` takes it; a path must lie inside the roots."""
        text = str(text or "").strip()
        if text == "pydocs":
            return text
        if not text:
            raise UserError("no text is named; give pydocs, a hub dataset or a path inside the roots")
        looks_like_path = text.startswith(("/", "~", ".")) or any(_exists(root / text) for root in self.data_roots)
        named = text.startswith("fineweb-edu") or (not looks_like_path and "/" in text and HUB_NAME.fullmatch(text))
        if named and not _exists(Path(text)):  # the engine takes what exists as a path, before any name of the hub
            return text
        path = self.path(text, "data source")
        if not path.exists():
            raise UserError(
                f"data source {text!r} does not exist; give pydocs, a hub dataset or a path inside the roots"
            )
        return str(path)

    def configuration(self, run: RunDir) -> RunConfig:
        """A run's settings. What they name is allowed as if it were typed: the folder may be somebody else's.

        UserError for settings that cannot be read, or that name data, models or folders which nobody may type here.
        """
        check_weights(run)
        try:
            open_inside(run.config_file, run.path, most=SMALL_BYTES).close()
            config = load_config(None, run.config_file)
        except (OSError, UserError) as error:
            raise UserError(f"the settings of run {run.name!r} cannot be read: {error}") from None
        for name, text in forms.named_in(config):
            try:
                forms.NAMING[name](self, text)
            except UserError as error:
                raise UserError(f"run {run.name!r} names {name}={text[:200]!r}: {error}") from None
        return config

    def checkpoint(self, path: Path) -> Path:
        """A checkpoint of a run, once nothing of it leads out of the run and its tokenizer may be typed here."""
        run, name = path.parents[1], f"{path.parents[1].name}/{path.name}"
        try:
            for inside in names_inside(path, run):
                if not (path / inside).is_dir():
                    open_inside(path / inside, run).close()
            spec = json.loads(read_inside(path / "state.json", run))["tokenizer"]["spec"]
        except OSError as error:
            raise UserError(f"checkpoint {name} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            return path  # the engine says what is wrong with it
        try:
            forms.NAMING["data.tokenizer"](self, str(spec))
        except UserError as error:
            raise UserError(f"checkpoint {name} names its tokenizer: {error}") from None
        return path

    def traced_files(self, run: RunDir) -> None:
        """UserError where a run's trace leads out of its folder, or names data that nobody may type here."""
        try:
            names = names_inside(run.trace_dir, run.path)
            for name in names:
                open_inside(run.trace_dir / name, run.path).close()
            manifests = list(read_manifests(run.path).values()) if names else []
        except OSError as error:
            raise UserError(f"the trace of run {run.name!r} cannot be read: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, LookupError, RecursionError) as error:
            raise UserError(f"the trace of run {run.name!r} has no readable manifest ({error})") from None
        parts = ([part.manifest for part in m.parts] if isinstance(m, Mixture) else [m] for m in manifests)
        for one in chain.from_iterable(parts):
            for file in one.files:
                try:
                    self._stored(file.location, one)
                except UserError as error:
                    raise UserError(f"the trace of run {run.name!r}: {error}") from None

    def _stored(self, location: str, manifest: Manifest) -> None:
        """UserError for a file of a trace that is neither of the hub's dataset it names, nor inside the roots."""
        if manifest.revision is not None:
            endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
            repository = parse_name(self.source(manifest.source)).repo
            if not location.startswith(f"{endpoint}/datasets/{repository}/resolve/") or "/../" in location:
                raise UserError(f"{location[:200]!r} is not a file of {manifest.source}, which it is said to be of")
        elif _exists(Path(location)):  # one that is not there, as after a move, is looked for by the run's settings
            own = manifest.source == "pydocs" and Path(location).resolve().is_relative_to(_pydocs())
            if not own:
                self.path(location, "data")

    def changes(self) -> None:
        """Called first by every handler that changes something."""
        if self.read_only:
            raise UserError("this workbench was started with --read-only; start it without to change anything")

    def _allowed(self) -> str:
        return ", ".join(str(root) for root in dict.fromkeys((*self.data_roots, self.runs)))


def is_text(name: str) -> bool:
    """Whether a name can be written down in UTF-8: a file's may hold any bytes, a request's half a surrogate pair."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pydocs() -> Path:
    """Where the built-in corpus lies once it was made."""
    return (cache_folder() / "pydocs").resolve()


def _written(path: Path) -> float:
    """When a file was last written to; 0 for one that is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _exists(path: Path) -> bool:
    """Whether there is such a path; a name no file system allows is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
