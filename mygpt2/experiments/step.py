"""Why did the loss of a step stand out? What a run folder says of one of its steps, put together.

Reads metrics.jsonl, events.jsonl and the trace; changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from mygpt2.config.summary import vocabulary_size
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.trace import place_of, read_manifest, read_trace
from mygpt2.errors import UserError
from mygpt2.experiments import cause
from mygpt2.experiments.rows import Shares, common, shares
from mygpt2.experiments.seen import Seen, seen_before
from mygpt2.experiments.spike import LIMIT, NEAR, Judged, Spike, judge, spikes
from mygpt2.records import number, whole
from mygpt2.run_dir.metrics import Metrics, read_events, read_metrics
from mygpt2.run_dir.newest import Newest
from mygpt2.run_dir.paths import RunDir

BEFORE = 8  # steps whose rows are those nearby
AROUND = cause.BEFORE  # steps before an episode whose events are told
WORST = 12  # rows whose documents are looked for in earlier steps
Place = tuple[str, int, int]  # file, row group or part, document in it
BROKEN = (OSError, ValueError, LookupError, TypeError, pa.ArrowException)  # of a trace


@dataclass(frozen=True)
class Row:
    """A row of the batch. `keys`: (block, document) of each document that it touches, in order; `places`: the same for
    a person, empty where the trace's manifest does not have them."""

    slot: int
    lane: int
    epoch: int
    loss: float
    keys: tuple[tuple[int, int], ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class StepReport:
    """What is known of a step. `spike`: the episode that it is in, None where it does not stand out; `z` and `expected`
    are None where it is not judged, and `unjudged` says why. `rows`: worst first, empty with `untraced` saying why.

    `sentence` is what a person reads first.
    """

    run: str
    step: int
    loss: float | None
    lr: float | None
    grad_norm: float | None
    z: float | None
    expected: float | None
    spike: Spike | None
    sentence: str
    causes: tuple[cause.Cause, ...] = ()
    unjudged: str = ""
    rows: tuple[Row, ...] = ()
    untraced: str = ""
    shares: Shares | None = None
    seen: Seen | None = None
    events: tuple[dict[str, Any], ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is no number is null."""
        earlier = self.seen.found if self.seen else {}
        rows = []
        for row in self.rows:
            documents = [
                {"file": file, "part": part, "document": document,
                 "seen": None if (was := earlier.get(key)) is None else _finite(asdict(was))}
                for (file, part, document), key in zip(row.places, row.keys, strict=False)
            ]  # fmt: skip
            rows.append({"slot": row.slot, "lane": row.lane, "epoch": row.epoch, "loss": row.loss,
                         "documents": documents})  # fmt: skip
        found = {
            "run": self.run, "step": self.step, "loss": self.loss, "lr": self.lr, "grad_norm": self.grad_norm,
            "expected": self.expected, "z": self.z, "limit": LIMIT, "stands_out": self.spike is not None,
            "spike": self.spike and asdict(self.spike), "sentence": self.sentence, "unjudged": self.unjudged or None,
            "causes": [asdict(one) for one in self.causes], "rows": rows, "untraced": self.untraced or None,
            "shares": self.shares and asdict(self.shares), "events": list(self.events),
            "seen_since": self.seen.since if self.seen else None,
        }  # fmt: skip
        return dict(_finite(found))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def spikes_of(run: RunDir) -> list[Spike]:
    """The steps of a run that stand out; read once for every state of its file. [] where nothing can be read."""
    known = _known(run)
    return [] if known is None else list(known[2])


def report(run: RunDir, step: int, look_back: bool = True) -> StepReport:
    """`look_back`: also whether the documents of the worst rows were trained on before, which reads much of the trace.

    UserError for a step of which neither metrics nor trace say anything.
    """
    known = _known(run)
    rows, untraced = _rows(run, step)
    metrics, judged, episodes = known if known is not None else (None, None, ())
    place = None if metrics is None else int(np.searchsorted(metrics["step"], step))
    there = metrics is not None and place is not None and place < len(metrics) and metrics["step"][place] == step
    if not there and not rows:
        last = int(metrics["step"][-1]) if metrics is not None and len(metrics) else 0
        raise UserError(
            f"step {step} of run {run.name!r} is not known; it has steps up to {last}"
            if last
            else f"run {run.name!r} has no step yet; its first step makes metrics.jsonl"
        )
    value: dict[str, float] = {}
    if there and metrics is not None and place is not None:
        value = {key: float(metrics[key][place]) for key in ("loss", "lr", "grad_norm")}
    elif rows:
        value = {"loss": float(np.mean([row.loss for row in rows]))}
    found = _judged(run, step, value, rows, untraced, metrics, judged, episodes)
    return replace(found, seen=seen_of(run, step, rows[:WORST])) if look_back else found


def _judged(
    run: RunDir, step: int, value: Mapping[str, float], rows: tuple[Row, ...], untraced: str,
    metrics: Metrics | None, judged: Judged | None, episodes: tuple[Spike, ...],
) -> StepReport:  # fmt: skip
    settings = _settings(run)
    at = judged.at(step) if judged is not None else None
    z = float(judged.z[at]) if judged is not None and at is not None else None
    expected = float(judged.expected[at]) if judged is not None and at is not None else None
    spike = next((one for one in episodes if one.first <= step <= one.last), None)
    first = spike.first if spike else step
    events = [event for event in read_events(run) if _near(event, first, step)]
    loss = value.get("loss", math.nan)
    unjudged = "" if at is not None else _unjudged(metrics, step, settings)
    guessing = cause.of_guessing(loss, _vocabulary(settings))
    causes: list[cause.Cause] = []
    found = _shares(run, rows, step, episodes) if rows else None
    if spike is not None and metrics is not None:
        rate = cause.of_rate(metrics["step"], metrics["lr"], first, _warmup(settings))
        gradient = cause.of_gradient(metrics["step"], metrics["grad_norm"], first)
        causes = [one for one in (cause.of_rows(found, _repeated(rows, found)), *cause.of_events(events, first), rate,
                                  gradient) if one is not None]  # fmt: skip
    causes += [guessing] if guessing else []
    number_of = {key: None if not math.isfinite(one) else one for key, one in value.items()}
    return StepReport(
        run.name, step, number_of.get("loss"), number_of.get("lr"), number_of.get("grad_norm"), z, expected, spike,
        _sentence(step, loss, z, expected, spike, causes, found, unjudged), tuple(causes), unjudged, rows, untraced,
        found if spike else None, None, tuple(events),
    )  # fmt: skip


def _near(event: Mapping[str, Any], first: int, step: int) -> bool:
    at = whole(event.get("step"))
    return at is not None and first - AROUND <= at <= step


def _sentence(
    step: int, loss: float, z: float | None, expected: float | None, spike: Spike | None,
    causes: list[cause.Cause], found: Shares | None, unjudged: str,
) -> str:  # fmt: skip
    if spike is not None:
        more = "" if spike.first == spike.last else f" (steps {spike.first:,} to {spike.last:,}, worst {spike.step:,})"
        height = "is no number" if not math.isfinite(loss) else f"of {loss:.4f} stands out"
        if z is not None and math.isfinite(z) and expected is not None and math.isfinite(loss):
            height += f": {loss - expected:+.4f} nats, {z:.1f} deviations above its neighbours"
        return f"The loss of step {step:,} {height}{more}. {cause.sentence(causes, found)}"
    if unjudged:
        return f"{unjudged[0].upper()}{unjudged[1:]}." + (f" {cause.sentence(causes, None)}" if causes else "")
    assert z is not None and expected is not None
    calm = f"Step {step:,} does not stand out: its loss of {loss:.4f} is {abs(z):.1f} deviations "
    calm += f"{'above' if z >= 0 else 'below'} the {expected:.4f} of its neighbours; {LIMIT:.0f} would be a spike."
    return calm + (f" {cause.sentence(causes, None)}" if causes else "")


def _unjudged(metrics: Metrics | None, step: int, settings: Mapping[str, Any]) -> str:
    warmup = _warmup(settings)
    if step <= warmup:
        return f"step {step:,} lies in the warm-up of {warmup:,} steps, where the loss falls too steeply to be judged"
    if metrics is None or len(metrics) < 2 * NEAR:
        count = 0 if metrics is None else len(metrics)
        return f"step {step:,} cannot be judged: the run has {count:,} steps so far, and {2 * NEAR} are needed"
    return f"step {step:,} cannot be judged: {NEAR} steps before it are needed"


# What the run folder holds


Known = tuple[Metrics, Judged, tuple[Spike, ...]]
_KNOWN: Newest[Known] = Newest(8)  # a chart has as many runs


def _read(run: RunDir) -> Known:
    metrics = read_metrics(run)
    judged = judge(metrics["step"], metrics["loss"], _warmup(_settings(run)))
    return metrics, judged, tuple(spikes(judged))


def _known(run: RunDir) -> Known | None:
    try:
        found = _KNOWN.of(run.metrics_file, lambda: _read(run))
    except OSError:
        return None
    return found if len(found[0]) else None


def _settings(run: RunDir) -> Mapping[str, Any]:
    try:
        return from_toml(run.read(run.config_file, MAX_BYTES))
    except (OSError, ValueError):
        return {}


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _warmup(settings: Mapping[str, Any]) -> int:
    return whole(_section(settings, "schedule").get("warmup_steps")) or 0


def _vocabulary(settings: Mapping[str, Any]) -> int | None:
    """Of GPT-2's ids and their beginnings; the file that a configuration names is not opened."""
    spec = _section(settings, "data").get("tokenizer")
    return vocabulary_size(spec) if isinstance(spec, str) and spec.partition(":")[0] == "gpt2" else None


def _rows(run: RunDir, step: int) -> tuple[tuple[Row, ...], str]:
    """The rows worst first, or why they are not known."""
    try:
        records = read_trace(run.path, step, step).to_pylist()
    except BROKEN as error:
        return (), f"the trace of run {run.name!r} cannot be read ({error})"
    if not records:
        return (), f"the trace of run {run.name!r} does not hold step {step}; one is kept with log.trace=true"
    try:
        manifest: Manifest | None = read_manifest(run.path)
    except BROKEN:
        manifest = None
    rows = [_row(record, manifest) for record in records]
    return tuple(sorted(rows, key=lambda row: (-math.inf if math.isnan(row.loss) else -row.loss, row.slot))), ""


def _row(record: Mapping[str, Any], manifest: Manifest | None) -> Row:
    keys = tuple(zip(record["block"], record["document"], strict=True))
    try:
        places = tuple(place_of(manifest, *key) for key in keys) if manifest is not None else ()
    except (IndexError, TypeError, ValueError):
        places = ()
    loss = number(record["loss"])
    return Row(record["slot"], record["lane"], record["epoch"], math.nan if loss is None else loss, keys, places)


def _shares(run: RunDir, rows: tuple[Row, ...], step: int, episodes: tuple[Spike, ...]) -> Shares | None:
    """Held against the BEFORE steps ahead of the episode that the step is in, without those of other episodes."""
    first = next((one.first for one in episodes if one.first <= step <= one.last), step)
    try:
        table = read_trace(run.path, max(1, first - BEFORE), first - 1)
    except BROKEN:
        return None
    steps, losses = table["step"].to_numpy(), table["loss"].to_numpy().astype(np.float64)
    calm = [at for at in np.unique(steps) if not any(one.first <= at <= one.last for one in episodes)]
    return shares(np.array([row.loss for row in rows]), [losses[steps == at] for at in calm])


def _repeated(rows: tuple[Row, ...], found: Shares | None) -> str:
    if found is None or found.odd < 2:
        return ""
    shared = common([row.places or row.keys for row in rows[: found.odd]])
    if shared is None or shared[1] < found.odd:
        return ""
    place = shared[0]
    if not isinstance(place, tuple) or len(place) != 3:
        return "the same document"
    return f"the same document, {place[0]} part {place[1]} document {place[2]}"


def seen_of(run: RunDir, step: int, rows: Sequence[Row]) -> Seen | None:
    """Where the documents of some rows of a step were trained on before; None where the trace does not say."""
    if not rows:
        return None
    try:
        return seen_before(run.path, step, [(*key, row.epoch) for row in rows for key in row.keys])
    except BROKEN:
        return None
