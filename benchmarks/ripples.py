"""The ripple laboratory against planted lines and against noise that has none, and its speed.

    python benchmarks/ripples.py study [--out study.jsonl] [--series 200] [--steps 20000] [--processes 2]
    python benchmarks/ripples.py events [--series 40] [--seed 0] [--processes 2]
    python benchmarks/ripples.py times [--steps 100000 1000000]

Power: a line of 0.005 nats in 20 cycles, on a falling loss with noise of 0.04 nats that remembers (0.5), must be found
(p < 0.05) 95 times in 100; its period to 2 % and its amplitude to 20 % (in the median, and in 90 of 100 for the
period; the amplitude's own error is then 13 %, so 80 of 100 lie within 20 %).
False alarms: 5 +- 3 in 100 of autoregressive series of several kinds and lengths, and as many of phase-scrambled ones,
whose Fourier phases are drawn anew: of a noise that is neither Gaussian nor autoregressive, and of random walks.
Each series' result is written to --out as it comes; the same command goes on where another was stopped, and what an
other version of the laboratory found is not counted.
Events: pulses of period 50 to 200 (height 0.15 to 0.25 nats, 1 to 5 steps, 2,000 to 10,000 steps) must be named with
their period and, where it is an evaluation or saving interval, that cause, 19 times in 20; data that is read again at
correlations from 0.4, 1.3 to 6.3 passes, 9 times in 10, without a false alarm in 20 of noise, waves, saws and pulses;
stairs of a rate lowered 2 to 4 times, without a column of it, may be called a ripple 3 times in 40.
Times: 100,000 steps under 2 s, 1,000,000 under 20 s, memory in proportion, each in a process of its own. By the clock,
and by the processor time of the process: on a busy machine only the latter means much.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process for each core instead; before numpy reads it

import numpy as np
from scipy.signal import lfilter

import mygpt2.ripples
from mygpt2.cli import guarded
from mygpt2.progress import Bar
from mygpt2.ripples import Layout, Log, analyse, make_log
from mygpt2.ripples.study import study
from mygpt2.terminal import interruptible

NOISE, MEMORY, LINE, CYCLES = 0.04, 0.5, 0.005, 20
MEMORIES = ((0.5,), (0.9,), (0.6, -0.3, 0.2), (-0.4,))
LIMITS = {100_000: 2.0, 1_000_000: 20.0}  # seconds
Judged = Iterator[tuple[str, float, bool]]


def descent(steps: int) -> np.ndarray:
    """A loss that falls as a power of the step."""
    return 2.8 + 8 * (np.arange(1, steps + 1) + 0.003 * steps) ** -0.4


def autoregressive(steps: int, rng: np.random.Generator, memory: tuple[float, ...] = (MEMORY,)) -> np.ndarray:
    """Noise of standard deviation NOISE."""
    e = lfilter([1.0], np.r_[1.0, -np.array(memory)], rng.standard_normal(steps + 500))[500:]
    return NOISE * e / e.std()


def of_some_memory(steps: int, rng: np.random.Generator) -> np.ndarray:
    return autoregressive(steps, rng, MEMORIES[rng.integers(len(MEMORIES))])


def scrambled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With the phases of its transform drawn anew, and standard deviation NOISE."""
    z = np.fft.rfft(x - x.mean())
    z[1:] = np.abs(z[1:]) * np.exp(2j * np.pi * rng.random(len(z) - 1))
    y = np.fft.irfft(z, len(x))
    return NOISE * y / y.std()


def restless(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Heavy-tailed shocks, a slow drift and bursts, scrambled."""
    shocks = rng.standard_t(4, steps + 500)
    bursts = 1 + 0.5 * np.abs(lfilter([0.05], [1, -0.95], rng.standard_normal(steps + 500)))
    slow = lfilter([0.03], [1, -0.998], shocks)[500:]
    return scrambled(lfilter([1.0], [1, -0.6, 0.1], shocks * bursts)[500:] + slow, rng)


def walk(steps: int, rng: np.random.Generator) -> np.ndarray:
    """A random walk, scrambled: all of it is drift."""
    return scrambled(np.cumsum(rng.standard_normal(steps)), rng)


NOISES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "autoregressive": of_some_memory, "phase-scrambled": restless, "phase-scrambled walk": walk,
}  # fmt: skip
POWER = "power"


@dataclass(frozen=True)
class Result:
    """What was found in a series. `period` and `amplitude` as shares of what was planted; null without a finding."""

    kind: str
    number: int
    steps: int
    significant: bool
    p_value: float
    period: float | None = None
    amplitude: float | None = None


def result(job: tuple[str, int, int]) -> Result:
    """Makes a series and looks for a ripple in it; the same on any machine and in any order."""
    kind, number, steps = job
    rng = np.random.default_rng([[POWER, *NOISES].index(kind), number, steps])
    period = steps / CYCLES
    if kind == POWER:
        wave = LINE * np.sin(2 * np.pi * np.arange(steps) / period + rng.uniform(0, 2 * np.pi))
        loss = descent(steps) + autoregressive(steps, rng) + wave
    else:
        loss = descent(steps) + NOISES[kind](steps, rng)
    found = study(make_log("made", np.arange(1, steps + 1), loss))
    if isinstance(found, str):
        raise SystemExit(found)
    line = found.fitted.line
    planted = (line.period / period, line.amplitude / LINE) if kind == POWER and found.significant else (None, None)
    return Result(kind, number, steps, found.significant, found.p_value, *planted)


def jobs(series: int, steps: int) -> list[tuple[str, int, int]]:
    """The longest first, so that the processes end together."""
    lengths = (400, 2000, steps // 4)
    noises = [(kind, number, lengths[number % 3]) for kind in NOISES for number in range(series)]
    return [(POWER, number, steps) for number in range(series)] + sorted(noises, key=lambda job: -job[2])


def version() -> str:
    """Of the laboratory: its source decides what is found."""
    sources = sorted(Path(mygpt2.ripples.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def known(out: Path | None, code: str) -> dict[tuple[str, int, int], Result]:
    """What an earlier call of this version found; a line that was cut off is made again."""
    found = {}
    for line in out.read_text().splitlines() if out is not None and out.exists() else []:
        try:
            record = json.loads(line)
            if record.pop("code") == code:
                one = Result(**record)
                found[one.kind, one.number, one.steps] = one
        except (ValueError, KeyError, TypeError):
            continue
    return found


def run_study(args: argparse.Namespace) -> int:
    code, wanted = version(), jobs(args.series, args.steps)
    found = known(args.out, code)
    left = [job for job in wanted if job not in found]
    if len(left) < len(wanted):
        print(f"{len(wanted) - len(left)} of {len(wanted)} series are known from {args.out}", flush=True)
    start = multiprocessing.get_context("spawn")  # an end from outside must reach no half-made child
    with (
        interruptible(),
        Bar("study", "series") as bar,
        start.Pool(args.processes, _quiet) as pool,
        open(args.out or os.devnull, "a") as file,
    ):
        for done, one in enumerate(pool.imap_unordered(result, left), 1):
            found[one.kind, one.number, one.steps] = one
            file.write(json.dumps({**asdict(one), "code": code}) + "\n")
            file.flush()
            bar.to(done, len(left))
    return told([*power([found[job] for job in wanted if job[0] == POWER], args.steps), *alarms(found, wanted)])


def _quiet() -> None:
    """Ctrl-C goes to all processes of a terminal; the first one ends the others."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def power(results: list[Result], steps: int) -> Judged:
    share = np.mean([one.significant for one in results])
    off = np.abs(np.array([one.period for one in results if one.period is not None]) - 1)
    wrong = np.abs(np.array([one.amplitude for one in results if one.amplitude is not None]) - 1)
    yield f"power at {LINE} nats, {CYCLES} cycles, {steps} steps", float(share), bool(share >= 0.95)
    yield "median error of the period", float(np.median(off)), bool(np.median(off) <= 0.02)
    yield "share with a period within 2 %", float(np.mean(off <= 0.02)), bool(np.mean(off <= 0.02) >= 0.9)
    yield "median error of the amplitude", float(np.median(wrong)), bool(np.median(wrong) <= 0.2)
    yield "share with an amplitude within 20 %", float(np.mean(wrong <= 0.2)), bool(np.mean(wrong <= 0.2) >= 0.8)


def alarms(found: dict[tuple[str, int, int], Result], wanted: list[tuple[str, int, int]]) -> Judged:
    for kind in NOISES:
        share = float(np.mean([found[job].significant for job in wanted if job[0] == kind]))
        yield f"false alarms, {kind}", share, 0.02 <= share <= 0.08


def logged(loss: np.ndarray, **more: Layout) -> Log:
    return make_log("made", np.arange(1, len(loss) + 1), loss, **more)


def pulses(rng: np.random.Generator, number: int) -> bool:
    """Pulses at the evaluation interval, at the saving interval, or at neither."""
    steps, period, width = (
        int(rng.choice([2000, 3000, 5000, 10000])),
        int(rng.integers(50, 201)),
        rng.choice([1, 1, 2, 5]),
    )
    height, memory = rng.choice([0.25, 0.25, 0.15, -0.25]), float(rng.choice([0, 0.5, 0.8]))
    up = (np.arange(steps) - rng.integers(period)) % period < width
    layout, cause = (
        (Layout(eval_interval=period, save_interval=5 * period), "the evaluation interval"),
        (Layout(eval_interval=2 * period, save_interval=period), "the saving interval"),
        (Layout(eval_interval=period + 37), None),
    )[number % 3]
    report = analyse(logged(descent(steps) + autoregressive(steps, rng, (memory,)) + height * up, layout=layout))
    found = report.pulses
    right = report.significant and found is not None and abs(found["period_steps"] / period - 1) < 0.01
    return bool(right and found["cause"] == cause and not (report.repetition or {"found": False})["found"])


def read_again(rng: np.random.Generator, number: int) -> bool:
    """Batches that come again and share 0.4 to 0.8 of the noise's variance; every third with a faint ripple."""
    steps, passes = int(rng.choice([1500, 3000, 6000, 12000])), float(rng.choice([1.3, 1.5, 2, 2.5, 3, 4, 6.3]))
    share, memory = float(rng.choice([0.4, 0.5, 0.65, 0.8])), (float(rng.choice([0, 0.5])),)
    length = int(steps / passes)
    batches = np.tile(autoregressive(length, rng, memory), int(passes) + 1)[:steps]
    loss = descent(steps) + np.sqrt(share) * batches + np.sqrt(1 - share) * autoregressive(steps, rng, memory)
    if number % 3 == 0:
        loss += 0.01 * np.sin(2 * np.pi * np.arange(steps) / (length / 7.3))
    found = analyse(logged(loss)).repetition
    return bool(found and found["found"] and abs(found["lag_steps"] / length - 1) < 0.01)


def not_read_again(rng: np.random.Generator, number: int) -> bool:
    """Whether noise, a wave, one that drifts, a saw or pulses that die away are taken for data that is read again."""
    steps, turn = int(rng.choice([1500, 3000, 6000, 12000])), rng.uniform(30, 300)
    t = np.arange(steps)
    made = (
        lambda: np.zeros(steps),
        lambda: 0.03 * np.sin(2 * np.pi * t / turn),
        lambda: 0.08 * np.sin(2 * np.pi * (t / 60 + 0.3 * (t / steps) ** 2 * steps / 60)),
        lambda: 0.1 * (t / turn % 1 - 0.5),
        lambda: 0.3 * np.exp(-(t % int(turn + 70)) / 10),
    )[number % 5]()
    memory = (float(rng.choice([0, 0.5, 0.9])),)
    found = analyse(logged(descent(steps) + autoregressive(steps, rng, memory) + made)).repetition
    return bool(found and found["found"])


def stairs(rng: np.random.Generator, number: int) -> bool:
    """Whether a loss that falls where its rate is lowered is called a ripple; half of them at even distances."""
    steps, falls = int(rng.choice([1500, 3000, 6000, 20000])), int(rng.integers(2, 5))
    t, depth, time_ = np.arange(steps), rng.uniform(0.05, 0.4), float(rng.choice([1, 20, 60]))
    memory, factor = (float(rng.choice([0, 0.5, 0.8])),), float(rng.choice([0.5, 0.8, 1.0]))
    places = np.arange(1, falls + 1) / (falls + 1) if number % 2 else np.sort(rng.uniform(0.15, 0.95, falls))
    loss = descent(steps) + rng.choice([0.5, 1.0]) * autoregressive(steps, rng, memory)
    for i, place in enumerate(places):
        loss += depth * factor**i * np.expm1(-np.maximum(0, t - place * steps) / time_)
    return bool(analyse(logged(loss)).significant)


EVENTS: dict[str, tuple[Callable[[np.random.Generator, int], bool], float, bool]] = {
    "pulses named, with their cause": (pulses, 0.95, True), "data read again, found": (read_again, 0.9, True),
    "taken for data read again": (not_read_again, 0.0, False), "stairs called a ripple": (stairs, 0.075, False),
}  # fmt: skip


def event(job: tuple[str, int, int]) -> tuple[str, bool]:
    """(kind, what was said of a series); the same on any machine and in any order."""
    kind, number, seed = job
    return kind, EVENTS[kind][0](np.random.default_rng([list(EVENTS).index(kind), number, seed, 77]), number)


def run_events(args: argparse.Namespace) -> int:
    left = [(kind, number, args.seed) for kind in EVENTS for number in range(args.series)]
    count, start = dict.fromkeys(EVENTS, 0), multiprocessing.get_context("spawn")
    with interruptible(), Bar("events", "series") as bar, start.Pool(args.processes, _quiet) as pool:
        for done, (kind, said) in enumerate(pool.imap_unordered(event, left), 1):
            count[kind] += said
            bar.to(done, len(left))
    shares = {kind: count[kind] / args.series for kind in EVENTS}
    return told([
        (f"{kind} (mark {mark:g})", shares[kind], shares[kind] >= mark if least else shares[kind] <= mark)
        for kind, (_, mark, least) in EVENTS.items()
    ])  # fmt: skip


def run_times(args: argparse.Namespace) -> int:
    start = multiprocessing.get_context("spawn")  # a process's peak of memory never falls
    results: list[tuple[str, float, bool]] = []
    with interruptible(), Bar("analyses", "logs") as bar:
        for number, steps in enumerate(args.steps):
            bar.to(number, len(args.steps))
            with start.Pool(1, _quiet) as pool:
                clock, processor, before, peak = pool.apply(timed, (steps,))
            most = LIMITS.get(steps, 20e-6 * steps)
            results += [
                (f"{steps:,} steps, seconds by the clock", clock, clock < most),
                (f"{steps:,} steps, seconds of the processor", processor, processor < most),
                (f"{steps:,} steps, peak MB", peak, True),
                (f"{steps:,} steps, bytes per step above {before:.0f} MB", (peak - before) * 2**20 / steps,
                 (peak - before) * 2**20 / steps < 1500),
            ]  # fmt: skip
    return told(results)


def timed(steps: int) -> tuple[float, float, float, float]:
    """(seconds by the clock, of the processor, peak MB before, peak MB after) of the analysis of a log with a line."""
    analyse(make_log("warm", np.arange(400), descent(400) + autoregressive(400, np.random.default_rng(0))))
    wave = 0.01 * np.sin(2 * np.pi * np.arange(steps) / (steps / 50))
    loss = descent(steps) + autoregressive(steps, np.random.default_rng(9)) + wave
    log = make_log("made", np.arange(1, steps + 1), loss, tokens=np.arange(1, steps + 1) * 524288.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clock, processor = time.perf_counter(), time.process_time()
    analyse(log)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return clock, processor, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def told(results: list[tuple[str, float, bool]]) -> int:
    for name, value, good in results:
        print(f"{'pass' if good else 'FAIL'}  {name:<60} {value:.4g}", flush=True)
    return 0 if all(good for _, _, good in results) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    whole = parts.add_parser("study", help="power and false alarms")
    whole.add_argument("--out", type=Path, help="keeps each series' result; what is there is not made again")
    whole.add_argument("--series", type=int, default=200, help="of each kind (200)")
    whole.add_argument("--steps", type=int, default=20_000, help="of the series with a line (20000)")
    whole.add_argument("--processes", type=int, default=2)
    whole.set_defaults(run=run_study)
    short = parts.add_parser("events", help="pulses, data read again, rates lowered in steps")
    short.add_argument("--series", type=int, default=40, help="of each kind (40)")
    short.add_argument("--seed", type=int, default=0)
    short.add_argument("--processes", type=int, default=2)
    short.set_defaults(run=run_events)
    clock = parts.add_parser("times", help="seconds and memory of long logs")
    clock.add_argument("--steps", type=int, nargs="+", default=list(LIMITS))
    clock.set_defaults(run=run_times)
    args = parser.parse_args()
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(guarded(main))
