"""A sweep's file: one or two settings over a grid, the arms that are made of it, and the steps at which it looks.

base = "tiny"            # a run, a preset or a TOML file
looks = 3                # two or three; or the steps themselves, the last one being the run's last
margin = 0.002           # nats: an arm stops only when it is worse than the best by more than this
[settings]               # of every arm
train.steps = 140
[[axis]]                 # one or two
setting = "optimizer.lr"
from = 1e-3              # on a log grid; or values = [1e-3, 3e-3]
to = 3e-2
arms = 5
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig, from_toml
from mygpt2.config.fields import nearest, nearest_setting, settings, toml_value
from mygpt2.config.mix import MixSource
from mygpt2.config.toml import MAX_BYTES
from mygpt2.config.words import text_of
from mygpt2.errors import UserError, listed, shown
from mygpt2.experiments.arms import MOST_REPLICATES, SEEDS, Arm, Spec, read_arm, recipe
from mygpt2.experiments.folder import check_experiment
from mygpt2.experiments.scores import check_protocol
from mygpt2.experiments.spending import BUDGET
from mygpt2.inside import read_inside
from mygpt2.schedule import decay_begins
from mygpt2.train.branching import FIXED

KEYS = ("name", "base", "looks", "margin", "crossing", "early", "budget", "protocol", "replicates", "settings", "axis")
AXIS_KEYS = ("setting", "values", "from", "to", "arms")
MARGIN = 0.002  # nats
CROSSING = 0.05  # nats by which a neighbour of the best may be behind at a look and still overtake it
EARLY = 0.3  # nats by which a lower rate may be behind early in the run and still come out ahead
RATES = ("optimizer.lr", "optimizer.muon_lr")
WEIGHT = re.compile(r"data\.mix\.(.+)\.weight")  # of a source of the base's mixture
FEWEST, MOST = 2, 9  # arms; five to nine say where an optimum is
SHARES = {2: (0.3, 1.0), 3: (0.2, 0.45, 1.0)}  # of the run, at which a sweep of so many looks looks
EARLY_SHARE = 0.4  # of the run, before which high rates may lead that lose
LOOK_DECAY = 0.2  # of a look's steps: enough to end where long decays do, nearly (Hägele et al. 2024, arXiv 2405.18392)
DECAYING = ("trapezoid", "wsd")  # schedules with a trunk at one rate, from whose steps a short branch decays
TEXT = (  # that losses are of
    "data.validation_fraction", "data.validation_tokens", "data.max_document_chars",
    "data.min_score", "data.score_column", "data.language", "data.language_column",
)  # fmt: skip
NO_AXIS = (*FIXED, *TEXT, "train.steps", "train.batch_tokens")  # arms would not compare


@dataclass(frozen=True)
class Axis:
    """A setting and its values, ascending."""

    setting: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """A sweep as it was asked for. `places` has each arm's value on every axis; `looks` are steps, the last the end."""

    name: str
    base: Arm
    axes: tuple[Axis, ...]
    arms: dict[str, Arm]
    places: dict[str, tuple[float, ...]]
    looks: tuple[int, ...]
    margin: float
    crossing: float
    early: float
    budget: float
    protocol: str
    replicates: int

    @property
    def steps(self) -> int:
        return self.base.config.train.steps

    @property
    def decays(self) -> bool:
        """Whether looks compare decayed ends: with a trunk they do, without one undecayed losses."""
        return self.base.config.schedule.name in DECAYING

    def beside(self, best: str, arms: Iterable[str]) -> set[str]:
        """The arms next to the best one along an axis, of those that are given."""
        found, here = set(), self.places[best]
        for axis in range(len(self.axes)):
            line = [arm for arm in arms if _rest(self.places[arm], axis) == _rest(here, axis) and arm != best]
            below = [arm for arm in line if self.places[arm][axis] < here[axis]]
            above = [arm for arm in line if self.places[arm][axis] > here[axis]]
            found |= {max(below, key=lambda arm: self.places[arm][axis])} if below else set()
            found |= {min(above, key=lambda arm: self.places[arm][axis])} if above else set()
        return found

    def margins(self, step: int, best: str | None, arms: Iterable[str]) -> dict[str, float]:
        """Nats by which each arm has to be worse than the best at a look to be stopped.

        What lies next to the best may overtake it. High rates lead early and lose late, also where looks decay them:
        before two fifths of the run a lower rate than the best's is given more room still.
        """
        arms = list(arms)
        if best is None:
            return dict.fromkeys(arms, self.margin)
        near = self.beside(best, arms)
        found = {arm: max(self.margin, self.crossing) if arm in near else self.margin for arm in arms}
        rates = [axis for axis, each in enumerate(self.axes) if each.setting in RATES]
        for arm in arms if step < EARLY_SHARE * self.steps else ():
            if any(self.places[arm][axis] < self.places[best][axis] for axis in rates):
                found[arm] = max(found[arm], self.early)
        return found

    def at_look(self, config: RunConfig, look: int) -> RunConfig:
        """The branch that decays to a look: a run of so many steps, of which a fifth decays, or less where all does."""
        share = min(LOOK_DECAY, config.schedule.decay_share)
        schedule = config.schedule.model_copy(update={"decay_share": share})
        train = config.train.model_copy(update={"steps": look})
        return config.model_copy(update={"schedule": schedule, "train": train})

    def trunk(self, look: int) -> int:
        """The steps at the peak rate before a look: where the branch that decays to it begins."""
        return decay_begins(self.at_look(self.base.config, look).schedule, look) + 1


def read_plan(data: bytes, runs: Path, name: str) -> Plan:
    """The sweep of a TOML document. UserError with the first thing that is wrong with it."""
    try:
        found = from_toml(data)
    except ValueError as error:
        raise UserError(f"the sweep is not TOML: {error}; see python -m mygpt2 sweep --help") from None
    _known(found, KEYS, "")
    given = found.get("settings", {})
    if not isinstance(given, dict):
        raise UserError("[settings] of a sweep is a table of settings, for example train.steps = 140")
    words = [word for key, value in _dotted(given) for word in (f"--{key}={text_of(value)}",)]
    what = found.get("base", "tiny")
    if not isinstance(what, str):
        raise UserError(f"base = {what!r} is no name; give a run, a preset or a TOML file")
    base = read_arm(Spec(what, tuple(words)), runs)
    axes = _axes(found.get("axis"), base.config.data.mix)
    grid = list(itertools.product(*(axis.values for axis in axes)))
    if not FEWEST <= len(grid) <= MOST:
        raise UserError(f"{len(grid)} arms are asked for; use {FEWEST} to {MOST}, of which 5 to 9 show an optimum")
    arms, places = {}, {}
    for number, place in enumerate(grid, 1):
        arm = _name(axes[0], place[0]) if len(axes) == 1 else f"a{number}"
        more = _changed(words, base.config, {axis.setting: value for axis, value in zip(axes, place, strict=True)})
        arms[arm] = read_arm(Spec(what, tuple(more)), runs, arm)
        places[arm] = place
    if len(arms) < len(grid):
        raise UserError("two values of the axis are the same to three digits; space them further")
    plan = Plan(
        check_experiment(str(found.get("name", name))), base, axes, arms, places, (), _number(found, "margin", MARGIN),
        _number(found, "crossing", CROSSING), _number(found, "early", EARLY),
        _number(found, "budget", BUDGET), str(found.get("protocol", "run")),
        _whole(found, "replicates", 1, MOST_REPLICATES),
    )  # fmt: skip
    if not 0 < plan.budget < 1 or min(plan.margin, plan.crossing, plan.early) < 0:
        raise UserError(
            "budget is a chance between 0 and 1; margin, crossing and early are differences in nats from 0 up"
        )
    check_protocol(plan.protocol, base.config, runs)
    return Plan(**{**vars(plan), "looks": _looks(found.get("looks", 3), plan)})


def read_file(file: Path, runs: Path) -> tuple[bytes, Plan]:
    """(the document, its plan). UserError for a file that cannot be read."""
    try:
        data = read_inside(file.resolve(), most=MAX_BYTES)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror or error}; give the TOML file of a sweep") from None
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_")[:40] or "sweep"
    return data, read_plan(data, runs, stem)


def _changed(words: list[str], base: RunConfig, values: dict[str, float]) -> list[str]:
    """The words of an arm: a mixture with other weights is given as a whole."""
    weights = {found[1]: value for name, value in values.items() if (found := WEIGHT.fullmatch(name))}
    rest = [f"--{name}={value!r}" for name, value in values.items() if not WEIGHT.fullmatch(name)]
    if not weights:
        return [*words, *rest]
    mix = [source.model_copy(update={"weight": weights.get(source.name, source.weight)}) for source in base.data.mix]
    return [*(word for word in words if not word.startswith("--data.mix=")), *rest, f"--data.mix={toml_value(mix)}"]


def _rest(place: tuple[float, ...], axis: int) -> tuple[float, ...]:
    return place[:axis] + place[axis + 1 :]


def _axes(found: Any, mix: Sequence[MixSource]) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    listed = found if isinstance(found, list) else [found]
    if not 1 <= len(listed) <= 2 or not all(isinstance(each, dict) for each in listed):
        raise UserError('a sweep has one or two [[axis]], each with setting = "optimizer.lr" and from, to, arms')
    for each in listed:
        _known(each, AXIS_KEYS, "[[axis]] ")
        name = each.get("setting")
        kind = _kind(name, mix) if isinstance(name, str) else None
        if kind is None:
            close = nearest_setting(str(name))
            hint = f"; did you mean {close}?" if close else ""
            raise UserError(f"[[axis]] setting = {name!r} is no setting with a number{hint}")
        if name in NO_AXIS:
            raise UserError(
                f"{name} is no axis of a sweep: losses of its arms would not compare at equal compute on one text"
            )
        if name in SEEDS:
            raise UserError(
                f"{name} is no axis of a sweep: every arm is trained under the same seeds; replicates = 3 adds pairs"
            )
        if name not in recipe(RunConfig()) and not WEIGHT.fullmatch(name):
            raise UserError(f"{name} is no axis of a sweep: it changes no weight, so that all arms would be one model")
        if any(axis.setting == name for axis in axes):
            raise UserError(f"{name} is the setting of two [[axis]]; give each its own")
        if "values" in each and len(each) > 2:
            raise UserError(f"[[axis]] {name} has values and from, to or arms; give one or the other")
        values = each["values"] if "values" in each else _log_grid(each)
        if not isinstance(values, list) or not all(type(v) in (int, float) and math.isfinite(v) for v in values):
            raise UserError(f"[[axis]] {name}: values is a list of numbers, for example [0.001, 0.003, 0.01]")
        made = [setting_value(v, kind) for v in values]
        if "values" in each and (len(set(made)) < len(made) or made != values):
            raise UserError(
                f"[[axis]] {name}: values = {values} has one twice, or a fraction of what is a whole number; write "
                f"{sorted(set(made))}"
            )
        axes.append(Axis(name, tuple(sorted(set(made)))))
    return tuple(axes)


def _kind(name: str, mix: Sequence[MixSource]) -> str | None:
    """int or float; None for what is no number. UserError for the weight of a source that the base does not have."""
    weight, known = WEIGHT.fullmatch(name), listed((source.name for source in mix), 9)
    if name == "data.mix" or (weight and weight[1] not in {source.name for source in mix}):
        there = f"one of {known}" if mix else "the base has no mixture, so that there is none to sweep"
        raise UserError(
            f'[[axis]] setting = "{shown(name)}": a mixture is swept by the weight of one of its sources, '
            f'setting = "data.mix.NAME.weight"; {there}'
        )
    if weight:
        return "float"
    setting = settings().get(name)
    return setting.kind if setting is not None and setting.kind in ("int", "float") else None


def setting_value(value: float, kind: str) -> float:
    return round(value) if kind == "int" else float(value)


def _log_grid(axis: Mapping[str, Any]) -> list[float]:
    low, high, count = axis.get("from"), axis.get("to"), axis.get("arms")
    low = None if bool in map(type, (low, high, count)) else low
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not isinstance(count, int):
        raise UserError(
            "[[axis]] needs values = [...], or from, to and arms, for example from = 1e-3, to = 1e-1, arms = 5"
        )
    if not 0 < low < high or not 2 <= count <= MOST:
        raise UserError(
            f"[[axis]] from = {low} to = {high} with {count} arms is no log grid; use 0 < from < to, 2 to {MOST}"
        )
    return [float(f"{low * (high / low) ** (i / (count - 1)):.3g}") for i in range(count)]


def _name(axis: Axis, value: float) -> str:
    """lr3e-3: short, without a dot, in which the names of runs part."""
    digits, _, power = f"{value:.2e}".partition("e")
    whole, _, rest = digits.partition(".")
    rest = rest.rstrip("0")
    number = f"{whole}{rest}e{int(power) - len(rest)}"
    weight = WEIGHT.fullmatch(axis.setting)
    word = re.sub(r"[^A-Za-z0-9]", "", weight[1] if weight else axis.setting.rpartition(".")[2])
    return f"{word[:6]}{number}"


def _looks(found: Any, plan: Plan) -> tuple[int, ...]:
    schedule, last = plan.base.config.schedule, plan.steps
    if type(found) is int and found in SHARES:
        looks = tuple(max(number, round(share * last)) for number, share in enumerate(SHARES[found], 1))
    elif isinstance(found, list) and 2 <= len(found) <= 3 and all(type(step) is int for step in found):
        looks = tuple(found)
    else:
        steps = [round(share * last) for share in SHARES[3]]
        raise UserError(f"looks = {found!r}: give 2 or 3, or the steps themselves, for example {steps}")
    if looks[-1] != last or list(looks) != sorted(set(looks)):
        raise UserError(f"looks {list(looks)} must rise to the run's last step, {last}")
    if plan.decays and schedule.decay_share >= 1:
        raise UserError(
            f"schedule.decay_share = {schedule.decay_share:g} leaves no step before its decay, from which a look could "
            "branch; give a smaller share, for example 0.4"
        )
    earliest = _earliest(plan)
    if looks[0] < earliest:
        why = "its decay would begin inside" if plan.decays else "it lies in"
        enough = {
            count: next(steps for steps in itertools.count(earliest) if round(shares[0] * steps) >= earliest)
            for count, shares in SHARES.items()
        }
        raise UserError(
            f"the first look, at step {looks[0]}, is too early: {why} the warm-up of {schedule.warmup_steps} steps; "
            f"the earliest is {earliest}; make the run {enough[3]} steps or longer ({enough[2]} with 2 looks), "
            "or warm up for less"
        )
    return looks


def _earliest(plan: Plan) -> int:
    """The first step a look can be at: past the warm-up, and with a step to decay in where ends are decayed."""
    warm = plan.base.config.schedule.warmup_steps
    return next(step for step in itertools.count(warm + 1) if not plan.decays or warm < plan.trunk(step) < step)


def _known(found: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in found:
        if key not in keys:
            close = nearest(key, keys)
            hint = f"did you mean {close}?" if close else f"allowed: {', '.join(keys)}"
            raise UserError(f"{where}{key} is not a key of a sweep; {hint}")


def _dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _number(found: Mapping[str, Any], key: str, default: float) -> float:
    value = found.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise UserError(f"{key} = {value!r} is not a number; for example {default:g}")
    return float(value)


def _whole(found: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = found.get(key, default)
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"{key} = {value!r} is not possible; use 1 to {most}")
    return value
