"""Which value of a setting is best, at a fraction of the full grid's compute: all arms run to a look, losers stop.

High rates lead early and lose late, and a loss at an undecayed rate misleads. With a trunk (trapezoid, wsd) a look
therefore compares decayed ends: from the arm's own checkpoint a branch decays to the look's last step, as a run of that
length with a short decay would; the arm itself goes on at its rate. Without a trunk (cosine and others) looks compare
undecayed losses.

All of it is ordinary runs, `<name>.<arm>.<replicate>` and their branches, and a look is written down before the next
begins: a killed sweep goes on with the same command.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mygpt2.config import load_config
from mygpt2.experiments.arms import Arm, Replicate, changes, replicates, run_name
from mygpt2.experiments.cost import spent
from mygpt2.experiments.estimate import Estimate
from mygpt2.experiments.folder import FOLDER, ExperimentDir
from mygpt2.experiments.grid import Plan
from mygpt2.experiments.optimum import FEWEST, optimum
from mygpt2.experiments.paired import by_document, over_replicates
from mygpt2.experiments.pieces import Outcome, Piece, outcome
from mygpt2.experiments.running import run_missing
from mygpt2.experiments.scores import NoLoss, Scores, scores
from mygpt2.experiments.spending import planned
from mygpt2.failures import NONFINITE
from mygpt2.files import read_json
from mygpt2.progress import Progress, silent
from mygpt2.records import number as finite
from mygpt2.run_dir.family import origin_of
from mygpt2.run_dir.paths import RunDir
from mygpt2.train.branching import draft_as, make

KIND = "sweep"
ENDS, DECAYED, UNDECAYED = "ends", "decayed ends", "undecayed losses"  # what a look compares, as verdict.json says it
COMPARED = {
    ENDS: "at the end of training", DECAYED: "after a short decay of the rate", UNDECAYED: "rate not decayed yet",
}  # fmt: skip
Say = Callable[[str], None]
Record = dict[str, Any]


@dataclass
class Sweep:
    """One sweep under way. `stopped` has the record of each arm that lost, of the look at which it did."""

    plan: Plan
    runs: Path
    nproc: int = 1
    device: str = "auto"
    say: Say = print
    progress: Progress = silent
    stopped: dict[str, Record] = field(default_factory=dict)

    @property
    def pairs(self) -> list[Replicate]:
        return replicates(self.plan.base.config, self.plan.replicates)

    @property
    def alive(self) -> list[str]:
        return [arm for arm in self.plan.arms if arm not in self.stopped]

    def piece(self, arm: str, pair: Replicate, until: int | None = None) -> Piece:
        """The arm's own run under a pair of seeds."""
        made: Arm = self.plan.arms[arm]
        return Piece(run_name(self.plan.name, arm, pair.number), pair.of(made.config), made.preset, until)

    def branch_name(self, arm: str, pair: Replicate, number: int) -> str:
        """The run that decays to a look."""
        return run_name(self.plan.name, f"{arm}-d{number}", pair.number)


def sweep(data: bytes, plan: Plan, runs: Path, *, nproc: int = 1, device: str = "auto", say: Say = print,
          progress: Progress = silent) -> Record:  # fmt: skip
    """Runs and looks until the survivors have their ends; verdict.json as it is then.

    UserError where a run cannot be made or fails otherwise than by diverging, Interrupted after Ctrl-C: the same call
    goes on from there.
    """
    folder = ExperimentDir.begin(runs, plan.name, data)
    at_work = Sweep(plan, Path(runs), nproc, device, say, progress)
    folder.note_arms(_arms(at_work))
    known = _known(folder, plan)
    for number, step in enumerate(plan.looks, 1):
        if number in known:
            _apply(at_work, known[number])
            continue
        if len(at_work.alive) < 2 and number < len(plan.looks):
            continue  # nobody to compare: it goes on to its end
        found = _look(at_work, number, step)
        last = number == len(plan.looks)
        with folder.held():
            known = _known(folder, plan)
            if number in known:  # of the same sweep, given twice at once
                found = known[number]
            else:
                known[number] = found
                folder.append({key: value for key, value in found.items() if key != "arms"})
                folder.add_look(found, kind=KIND, state="finished" if last else "running", **_head(at_work),
                                result=_result(at_work, list(known.values())) if last else None)  # fmt: skip
        _apply(at_work, found)
        say(look_text(found))
    return read_json(folder.verdict_file, folder.path) or {}


def looked(plan: Plan, runs: Path) -> tuple[int, set[str]]:
    """(how many looks there were so far, the arms that they stopped). Reads, and writes nothing."""
    at_work = Sweep(plan, Path(runs))
    looks = _known(ExperimentDir(Path(runs) / FOLDER / plan.name), plan)
    for look in looks.values():
        _apply(at_work, look)
    return len(looks), set(at_work.stopped)


def _known(folder: ExperimentDir, plan: Plan) -> dict[int, Record]:
    """The looks so far, up to the first that is missing or damaged: from there on they are made again from the runs."""
    found = {look["look"]: look for look in folder.looks() if _sound(look, plan)}
    if not isinstance((read_json(folder.verdict_file, folder.path) or {}).get("result"), dict):
        found.pop(len(plan.looks), None)  # it came with the last one
    known = itertools.takewhile(found.__contains__, range(1, len(plan.looks) + 1))
    return {number: found[number] for number in known}


def _sound(look: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a look holds what the next one goes by and what is told of it."""
    arms, best, optimum = look.get("arms"), look.get("best"), look.get("optimum")
    kinds = {"look": int, "step": int, "tokens": int, "compares": str, "spent": dict, "arms": dict}
    if look.get("kind") != KIND or not all(type(look.get(key)) is kind for key, kind in kinds.items()):
        return False
    arm = {"stopped": bool, "why": str}
    return (
        isinstance(arms, dict) and all(name in plan.arms and isinstance(one, dict) for name, one in arms.items())
        and all(type(one.get(key)) is kind for one in arms.values() for key, kind in arm.items())
        and all(key in one and (one[key] is None or finite(one[key]) is not None) for one in arms.values()
                for key in ("loss", "difference", "low", "high", "p"))
        and (best is None or (best in arms and arms[best]["loss"] is not None))
        and (optimum is None or isinstance(optimum, dict))
    )  # fmt: skip


def _apply(at_work: Sweep, look: Mapping[str, Any]) -> None:
    for arm, record in look["arms"].items():
        if record["stopped"] and arm in at_work.plan.arms:
            at_work.stopped[arm] = {"look": look["look"], **record}


def _arms(at_work: Sweep) -> dict[str, Record]:
    """What arms.json says of each arm: in words, its place on the axes, its runs by replicate."""
    plan, found = at_work.plan, {}
    for name, arm in plan.arms.items():
        values = {axis.setting: value for axis, value in zip(plan.axes, plan.places[name], strict=True)}
        found[name] = {
            "told": arm.told, "values": values,
            "changes": {key: list(pair) for key, pair in changes(plan.base.config, arm.config).items()},
            "runs": {str(pair.number): at_work.piece(name, pair).run for pair in at_work.pairs},
        }  # fmt: skip
    return found


# A look


def _look(at_work: Sweep, number: int, step: int) -> Record:
    """Trains every arm that is left to the look, scores it, and says which ones lose."""
    plan, last = at_work.plan, number == len(at_work.plan.looks)
    level = planned(plan.budget, len(plan.looks))[number - 1]
    scored: dict[str, list[Scores]] = {}
    diverged: dict[str, str] = {}
    for arm in at_work.alive:
        found = [_arm_at(at_work, arm, pair, number, step) for pair in at_work.pairs]
        problem = next((each for each in found if isinstance(each, str)), None)
        if problem is not None:
            diverged[arm] = problem
            at_work.say(f"{arm} {problem}")
        else:
            scored[arm] = [each for each in found if isinstance(each, Scores)]
    best = min(scored, key=lambda arm: _loss(scored[arm]), default=None)
    margins = plan.margins(step, best, scored)
    return {
        "kind": KIND, "look": number, "of": len(plan.looks), "step": step,
        "tokens": step * plan.base.config.train.batch_tokens, "level": level, "time": time.time(),
        "compares": ENDS if last else DECAYED if plan.decays else UNDECAYED, "protocol": plan.protocol,
        "best": best, "arms": compared(scored, diverged, level, margins, stops=not last),
        "optimum": _optimum(plan, scored), "spent": _spent(at_work),
    }  # fmt: skip


def _arm_at(at_work: Sweep, arm: str, pair: Replicate, number: int, step: int) -> Scores | str:
    """The scores of an arm at a look, after training what that needs; in words where it diverged."""
    plan, last = at_work.plan, number == len(at_work.plan.looks)
    if last or not plan.decays:
        piece = at_work.piece(arm, pair, None if last else step)
    else:
        branch = RunDir(at_work.runs / at_work.branch_name(arm, pair, number))
        trunk = at_work.piece(arm, pair, plan.trunk(step))
        if not branch.exists():
            if (ended := _run(at_work, trunk)).diverged:
                return _words(ended)
            config = plan.at_look(trunk.config, step)
            make(at_work.runs, draft_as(at_work.runs, trunk.run, plan.trunk(step), config), branch.name)
        piece = Piece(branch.name, load_config(None, branch.config_file))  # also of a sweep begun with longer decays
    if (ended := _run(at_work, piece)).diverged:
        return _words(ended)
    try:
        return scores(at_work.runs, piece.run, step, plan.protocol, say=at_work.say, device=at_work.device,
                      progress=at_work.progress)  # fmt: skip
    except NoLoss as problem:
        return str(problem).removeprefix(f"{piece.run} ")


def _run(at_work: Sweep, piece: Piece) -> Outcome:
    ended = run_missing(
        [piece], at_work.runs, nproc=at_work.nproc, say=at_work.say, progress=at_work.progress, each=False
    )
    return ended[piece.run]


def _words(ended: Outcome) -> str:
    return f"diverged after step {ended.step:,}: {ended.reason.removeprefix(NONFINITE).strip(': ')}"


def compared(
    scored: Mapping[str, Sequence[Scores]], diverged: Mapping[str, str], level: float, margins: Mapping[str, float],
    *, stops: bool,
) -> dict[str, Record]:  # fmt: skip
    """What a look says of each arm. One stops that is worse than the best by more than its margin beyond doubt, or
    diverged.

    The best is chosen by the same losses, so that any two arms may come to be compared: each comparison has the level
    divided by the number of pairs (Bonferroni), whatever they have in common.
    """
    found: dict[str, Record] = {
        arm: {"loss": None, "difference": None, "low": None, "high": None, "p": None, "stopped": True, "why": words}
        for arm, words in diverged.items()
    }
    best = min(scored, key=lambda arm: _loss(scored[arm]), default=None)
    each = level / max(1, len(scored) * (len(scored) - 1) // 2)
    for arm, mine in scored.items():
        record: Record = {"loss": _loss(mine), "run": mine[0].run, "stopped": False, "why": ""}
        if arm == best or best is None:
            found[arm] = {**record, "difference": 0.0, "low": 0.0, "high": 0.0, "p": None}
            continue
        estimate = difference(scored[best], mine)
        low, high = estimate.interval(each)
        beyond = Estimate(estimate.mean - margins[arm], estimate.error, estimate.freedom)
        p = beyond.p if beyond.mean > 0 else 1.0
        record |= {"difference": estimate.mean, "low": low, "high": high, "p": p}
        if stops and p <= each:
            record |= {"stopped": True, "why": f"worse than {best} by {estimate.mean:.4f} [{low:.4f}, {high:.4f}] nats"}
        found[arm] = record
    return found


def difference(best: Sequence[Scores], other: Sequence[Scores]) -> Estimate:
    """Other less best: over replicates, or of one pair of models over documents."""
    each = [by_document(one, two) for one, two in zip(best, other, strict=True)]
    return over_replicates([estimate.mean for estimate in each]) if len(each) > 1 else each[0]


def _loss(found: Sequence[Scores]) -> float:
    return sum(each.loss for each in found) / len(found)


def _optimum(plan: Plan, scored: Mapping[str, Sequence[Scores]]) -> Record | None:
    """Along the one axis, of the arms that are compared; None of too few, or over two axes."""
    if len(plan.axes) != 1 or len(scored) < FEWEST:
        return None
    arms = sorted(scored, key=lambda arm: plan.places[arm][0])
    found = optimum([plan.places[arm][0] for arm in arms], [scored[arm] for arm in arms], grid=plan.axes[0].values)
    return None if found is None else {"setting": plan.axes[0].setting, **found.to_json(), "arms": len(arms)}


# What it cost, and what came of it


def _spent(at_work: Sweep) -> Record:
    """Steps that all runs of the sweep have taken, against those of every arm trained to its end."""
    plan, names, steps = at_work.plan, [], 0
    for arm in plan.arms:
        for pair in at_work.pairs:
            branches = [at_work.branch_name(arm, pair, number) for number in range(1, len(plan.looks))]
            for name in (at_work.piece(arm, pair).run, *branches):
                run = RunDir(at_work.runs / name)
                if run.exists():
                    origin = origin_of(run)
                    steps += max(0, outcome(at_work.runs, name).step - (origin.step if origin else 0))
                    names.append(name)
    full = len(plan.arms) * plan.replicates * plan.steps
    tokens = plan.base.config.train.batch_tokens
    return {"steps": steps, "tokens": steps * tokens, "full_steps": full, "full_tokens": full * tokens,
            "share": steps / full, "seconds": spent(names, at_work.runs).seconds, "runs": len(names)}  # fmt: skip


def _head(at_work: Sweep) -> Record:
    """What verdict.json says beside its looks."""
    plan, schedule = at_work.plan, at_work.plan.base.config.schedule.name
    return {
        "name": plan.name, "base": plan.base.told,
        "axes": [{"setting": axis.setting, "values": list(axis.values)} for axis in plan.axes],
        "look_steps": list(plan.looks), "margin": plan.margin, "crossing": plan.crossing, "early": plan.early,
        "budget": plan.budget, "protocol": plan.protocol,
        "replicates": plan.replicates, "decays": plan.decays, "schedule": schedule,
        "horizon_tokens": plan.steps * plan.base.config.train.batch_tokens,
        "speaks_of": "recipes" if plan.replicates > 1 else "two models",
    }  # fmt: skip


def _result(at_work: Sweep, looks: Sequence[Record]) -> Record:
    """The winner, loss against the axis as each arm was last seen, the optimum, and the compute."""
    plan, last = at_work.plan, looks[-1]
    table = {}
    for look in looks:
        for arm, record in look["arms"].items():
            seen = {"look": look["look"], "step": look["step"], "compares": look["compares"]}
            table[arm] = {**seen, **record, "values": list(plan.places[arm])}
    seen_at = next((look for look in reversed(looks) if look["optimum"]), None)
    best = last["best"]
    where = {key: seen_at[key] for key in ("look", "step", "tokens", "compares")} if seen_at else {}
    return {
        "best": best, "values": list(plan.places[best]) if best else None,
        "loss": last["arms"][best]["loss"] if best else None, "arms": table,
        "optimum": {**seen_at["optimum"], **where} if seen_at else None,
        "spent": last["spent"],
    }  # fmt: skip


def compared_in_words(look: Mapping[str, Any]) -> str:
    """What a look compares, as it stands in brackets."""
    return COMPARED.get(look["compares"], str(look["compares"]))


def look_text(look: Mapping[str, Any]) -> str:
    """A look in one line."""
    lost = [f"{arm} {record['why']}" for arm, record in look["arms"].items() if record["stopped"]]
    best = f"{look['best']} leads with {look['arms'][look['best']]['loss']:.4f}" if look["best"] else "no arm is left"
    place = f"step {look['step']:,} ({compared_in_words(look)})"
    return f"look {look['look']} of {look['of']} at {place}: {best}; {'; '.join(lost) or 'nobody stops'}"
