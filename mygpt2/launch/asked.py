"""What is asked of a cluster, as text from options or from a form: read, checked, and made a LaunchSpec."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mygpt2.config import RunConfig
from mygpt2.config.words import words_of
from mygpt2.errors import UserError
from mygpt2.launch.handed import TITLES
from mygpt2.launch.handover import TARGETS
from mygpt2.launch.spec import LaunchSpec, parse_time

ROOT = Path(__file__).resolve().parents[2]
MOST = 1_000_000
MOST_TEXT = 4096  # characters of a value
MOST_VALUES = 200
SEVERAL = ("volume", "env", "secret", "option")
FIELDS = ("nodes", "gpus", "gpu_type", "nproc", "cpus", "memory", "time", "partition", "image", "workdir", *SEVERAL)
CPU_PROCESSES = 2
Problem = tuple[str, str]  # field, and what is wrong with it
T = TypeVar("T")
Texts = Mapping[str, str | Sequence[str]]


class Refused(UserError):
    """What was asked cannot be: `problems` are a line each, with the field it is about."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"--{field.replace('_', '-')} {line}" for field, line in problems))


@dataclass(frozen=True)
class Asked:
    """Machines of one kind and what is wanted of them; see `LaunchSpec`."""

    nodes: int
    gpus: int
    gpu_type: str | None
    processes: int  # on each node
    cpus: int | None
    memory: int | None
    seconds: int | None
    image: str | None
    workdir: str
    volumes: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    options: tuple[tuple[str, str], ...]

    @property
    def ranks(self) -> int:
        return self.nodes * self.processes


def read(target: str, texts: Texts) -> Asked:
    """What the texts of FIELDS ask for; an empty or missing one asks for nothing. Raises Refused with every problem."""
    reader = _Reader(texts)
    nodes, gpus = reader.count("nodes", 1) or 1, reader.count("gpus", 0) or 0
    nproc, cpus, memory = (reader.count(name, 1) for name in ("nproc", "cpus", "memory"))
    seconds = reader.one("time", _time)
    gpu_type, image = (reader.one(name, _plain) for name in ("gpu_type", "image"))
    partition, workdir = reader.one("partition", _partition), reader.one("workdir", _folder) or str(ROOT)
    volumes, environment = reader.several("volume", _volume), reader.several("env", _variable)
    secrets, options = reader.several("secret", _name), reader.several("option", _pair)
    problems = [*reader.problems, *_combination(target, texts)]
    if partition and any(key == "partition" for key, _ in options):
        problems.append(("partition", "is given twice; leave it out here or among the options"))
    if problems:
        raise Refused(problems)
    options = [*([("partition", partition)] if partition else []), *options]
    return Asked(nodes, gpus, gpu_type, nproc or gpus or min(CPU_PROCESSES, cpus or CPU_PROCESSES), cpus, memory,
                 seconds, image, workdir, tuple(volumes), tuple(environment), tuple(secrets),
                 tuple(options))  # fmt: skip


def spec_of(asked: Asked, config: RunConfig, preset: str, run: str, runs: Path) -> LaunchSpec:
    """The description of the launch. UserError for a folder of runs that no file of a cluster can name."""
    if re.search(r"[\x00-\x1f\x7f]", str(runs)):
        raise UserError(f"--runs {str(runs)!a} holds a line break or control character; give it without")
    words = ("--preset", preset, *words_of(_absolute(config), preset))
    return LaunchSpec(
        run=run, runs=PurePosixPath(runs.absolute()), words=words, workdir=PurePosixPath(asked.workdir),
        nodes=asked.nodes, processes=asked.processes, gpus=asked.gpus, gpu_type=asked.gpu_type, cpus=asked.cpus,
        memory=asked.memory, seconds=asked.seconds, image=asked.image, volumes=asked.volumes,
        environment=asked.environment, secrets=asked.secrets, options=asked.options,
    )  # fmt: skip


def _absolute(config: RunConfig) -> RunConfig:
    """Sources and a tokenizer that are files here, by their whole path: a node starts elsewhere."""
    data = config.data
    mix = [source.model_copy(update={"source": _whole(source.source)}) for source in data.mix]
    whole = {"source": _whole(data.source), "tokenizer": _whole(data.tokenizer), "mix": mix}
    return config.model_copy(update={"data": data.model_copy(update=whole)})


def _whole(name: str) -> str:
    path = Path(name).expanduser()
    return str(path.absolute()) if name != "pydocs" and path.exists() else name


def _combination(target: str, texts: Texts) -> list[Problem]:
    """What is missing, or does not go with the target or without another field."""
    of = TARGETS[target]
    given = {name for name in FIELDS if _values(texts.get(name))}
    found = [(name, f"is needed by {TITLES[target]}") for name in of.needs if name not in given]
    found += [(name, f"does not go with {TITLES[target]}: {why}") for name, why in of.refuses if name in given]
    gpus = bool(set(_values(texts.get("gpus"))) - {"0"})
    if target == "skypilot" and gpus and "gpu_type" not in given:
        found.append(("gpu_type", f"is needed with --gpus, as {TITLES[target]} chooses machines by it; such as H100"))
    if "gpu_type" in given and not gpus and target not in ("kubernetes", "kubeflow"):
        found.append(("gpu_type", "needs --gpus, how many of them each node has"))
    return found


class _Reader:
    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self.problems: list[Problem] = []

    def several(self, name: str, reading: Callable[[str], T]) -> list[T]:
        values, found = _values(self._texts.get(name)), []
        if len(values) > MOST_VALUES:
            self.problems.append((name, f"has {len(values):,} values; allowed: {MOST_VALUES}"))
            return []
        for text in values:
            try:
                if len(text) > MOST_TEXT:
                    raise UserError(f"has {len(text):,} characters; allowed: {MOST_TEXT:,}")
                found.append(reading(text))
            except UserError as error:
                self.problems.append((name, str(error)))
        return found

    def one(self, name: str, reading: Callable[[str], T]) -> T | None:
        found = self.several(name, reading)
        return found[-1] if found else None

    def count(self, name: str, least: int) -> int | None:
        return self.one(name, lambda text: _count(text, least))


def _values(given: str | Sequence[str] | None) -> list[str]:
    """The values of an option that was given once, several times, or not, without those of nothing."""
    texts = [given] if isinstance(given, str) else list(given or ())
    return [text for text in texts if text.strip()]


def _count(text: str, least: int) -> int:
    plain = text.strip()
    if not (plain.isascii() and plain.isdecimal() and len(plain) < 8 and least <= int(plain) <= MOST):
        raise UserError(f"{_quoted(text)} is not a whole number from {least} to {MOST:,}")
    return int(plain)


def _time(text: str) -> int:
    seconds = parse_time(text.strip())
    if seconds is None:
        raise UserError(f"{_quoted(text)} is not a time; for example 12:00:00, 2-00:00:00, 90m, 12h or 2d")
    return seconds


def _plain(text: str) -> str:
    if _unwritable(text):
        raise UserError(f"{_quoted(text)} holds a line break or control character; give it without")
    return text.strip()


def _folder(text: str) -> str:
    plain = _plain(text)
    if not plain.startswith("/"):
        raise UserError(f"{_quoted(text)} is not a whole path; nodes start elsewhere, so begin with /")
    return plain


def _partition(text: str) -> str:
    if not re.fullmatch(r"[\w.,-]+", text.strip(), re.ASCII):
        raise UserError(f"{_quoted(text)} is not a partition's name, or several with commas between them")
    return text.strip()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.strip("\r\n ").partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", name) or _unwritable(value):
        raise UserError(f"{_quoted(text)} is not NAME=VALUE on one line")
    return name, value


def _variable(text: str) -> tuple[str, str]:
    """Stricter than `_pair`: a shell cannot export a name with a dot, and the run would go on without it."""
    name, value = _pair(text)
    if re.search(r"TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL", _name(name).upper()):
        raise UserError(
            f"{name} would stand in a file that others can read; use --secret {name}, or under SLURM the environment "
            "of the shell that submits"
        )
    return name, value


def _name(text: str) -> str:
    plain = text.strip()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", plain):
        raise UserError(f"{_quoted(text)} is not a variable's name; use letters, digits and _, as in HF_HOME")
    return plain


def _volume(text: str) -> tuple[str, str]:
    what, colon, place = text.strip().rpartition(":")
    if not colon or not what or not place.startswith("/") or _unwritable(text):
        raise UserError(f"{_quoted(text)} is not WHAT:PATH with a whole path; for example claim:/runs")
    return what, place


def _quoted(text: str) -> str:
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return repr(short) if short.isprintable() else ascii(short)


def _unwritable(text: str) -> bool:
    return re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text) is not None
