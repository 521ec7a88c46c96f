"""The ripple laboratory against planted lines and against noise that has none, and its speed.

    python benchmarks/ripples.py [--series 200] [--steps 20000] [--skip-times] [--json OUT]

Power: a line of 0.005 nats in 20 cycles, on a falling loss with noise of 0.04 nats that remembers (0.5), must be found
(p < 0.05) 95 times in 100; its period to 2 % and its amplitude to 20 % (in the median, and in 90 of 100 for the
period; the amplitude's own error is then 13 %, so 80 of 100 lie within 20 %).
False alarms: 5 +- 3 in 100 of autoregressive series of several kinds and lengths, and as many of phase-scrambled ones:
a noise that is neither Gaussian nor autoregressive, its Fourier phases drawn anew.
Times: 100,000 steps under 2 s, 1,000,000 under 20 s, memory in proportion. By the clock, and by the processor time of
the process: on a busy machine only the latter means much.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.signal import lfilter

from mygpt2.ripples import analyse, make_log
from mygpt2.ripples.study import Study, study

NOISE, MEMORY, LINE, CYCLES = 0.04, 0.5, 0.005, 20


def descent(steps: int) -> np.ndarray:
    """A loss that falls as a power of the step."""
    return 2.8 + 8 * (np.arange(1, steps + 1) + 0.003 * steps) ** -0.4


def autoregressive(steps: int, rng: np.random.Generator, memory: tuple[float, ...] = (MEMORY,)) -> np.ndarray:
    """Noise of standard deviation NOISE."""
    e = lfilter([1.0], np.r_[1.0, -np.array(memory)], rng.standard_normal(steps + 500))[500:]
    return NOISE * e / e.std()


def scrambled(steps: int, rng: np.random.Generator) -> np.ndarray:
    """Heavy-tailed shocks, a slow drift and bursts, with the phases of its transform drawn anew."""
    shocks = rng.standard_t(4, steps + 500)
    bursts = 1 + 0.5 * np.abs(lfilter([0.05], [1, -0.95], rng.standard_normal(steps + 500)))
    x = lfilter([1.0], [1, -0.6, 0.1], shocks * bursts)[500:] + lfilter([0.03], [1, -0.998], shocks)[500:]
    z = np.fft.rfft(x - x.mean())
    z[1:] = np.abs(z[1:]) * np.exp(2j * np.pi * rng.random(len(z) - 1))
    y = np.fft.irfft(z, steps)
    return NOISE * y / y.std()


def studied(loss: np.ndarray) -> Study:
    found = study(make_log("made", np.arange(1, len(loss) + 1), loss))
    if isinstance(found, str):
        raise SystemExit(found)
    return found


def power(args: argparse.Namespace) -> Iterator[tuple[str, float, bool]]:
    rng = np.random.default_rng(1)
    period = args.steps / CYCLES
    found, periods, amplitudes = 0, [], []
    for _ in range(args.series):
        wave = LINE * np.sin(2 * np.pi * np.arange(args.steps) / period + rng.uniform(0, 2 * np.pi))
        done = studied(descent(args.steps) + autoregressive(args.steps, rng) + wave)
        found += done.significant
        if done.significant:
            periods.append(done.fitted.line.period / period)
            amplitudes.append(done.fitted.line.amplitude / LINE)
    off, wrong = np.abs(np.array(periods) - 1), np.abs(np.array(amplitudes) - 1)
    share = found / args.series
    yield f"power at {LINE} nats, {CYCLES} cycles, {args.steps} steps", share, share >= 0.95
    yield "median error of the period", float(np.median(off)), bool(np.median(off) <= 0.02)
    yield "share with a period within 2 %", float(np.mean(off <= 0.02)), bool(np.mean(off <= 0.02) >= 0.9)
    yield "median error of the amplitude", float(np.median(wrong)), bool(np.median(wrong) <= 0.2)
    yield "share with an amplitude within 20 %", float(np.mean(wrong <= 0.2)), bool(np.mean(wrong <= 0.2) >= 0.8)


def alarms(args: argparse.Namespace) -> Iterator[tuple[str, float, bool]]:
    memories = ((0.5,), (0.9,), (0.6, -0.3, 0.2), (-0.4,))
    kinds: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
        "autoregressive": lambda n, rng: autoregressive(n, rng, memories[rng.integers(len(memories))]),
        "phase-scrambled": scrambled,
    }
    for seed, (name, noise) in enumerate(kinds.items(), 2):
        rng = np.random.default_rng(seed)
        steps = [(400, 2000, args.steps // 4)[i % 3] for i in range(args.series)]
        share = np.mean([studied(descent(n) + noise(n, rng)).significant for n in steps])
        yield f"false alarms, {name}", float(share), bool(0.02 <= share <= 0.08)


def times(_: argparse.Namespace) -> Iterator[tuple[str, float, bool]]:
    rng = np.random.default_rng(9)
    for steps, most in ((100_000, 2.0), (1_000_000, 20.0)):
        wave = 0.01 * np.sin(2 * np.pi * np.arange(steps) / (steps / 50))
        loss = descent(steps) + autoregressive(steps, rng) + wave
        log = make_log("made", np.arange(1, steps + 1), loss, tokens=np.arange(1, steps + 1) * 524288.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        clock, processor = time.perf_counter(), time.process_time()
        analyse(log)
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        yield f"{steps:,} steps, seconds by the clock", clock, clock < most
        yield f"{steps:,} steps, seconds of the processor", processor, processor < most
        yield f"{steps:,} steps, bytes per step", grown * 2**20 / steps, grown * 2**20 / steps < 1500


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--skip-times", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    results: list[dict[str, Any]] = []
    for part in (times, power, alarms)[args.skip_times :]:
        for name, value, good in part(args):
            print(f"{'pass' if good else 'FAIL'}  {name:<56} {value:.4g}", flush=True)
            results.append({"name": name, "value": value, "pass": good})
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)
    return 0 if all(result["pass"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
