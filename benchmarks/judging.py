"""How honest `judge` is, and what pairing is worth.

    python benchmarks/judging.py noise [--runs DIR]     twelve short runs of one recipe: tests/experiments/noise.json
    python benchmarks/judging.py simulate [--times N]   false verdicts and promises, from that noise; two minutes
    python benchmarks/judging.py loop [--runs DIR]      forty random changes, half of them none, through the command
    python benchmarks/judging.py ratio [--runs DIR] [--preset tiny] [--replicates 3]
                                                        what pairing takes from the noise, for equal and other rates

Marks: of 200 pairs of one recipe 5 +- 3 % false keeps and drops, after one question, ten looks and forty challenges; a
planted 0.003 nats found nine times in ten at the promised cost; at most 2 false keeps in a loop of forty.

`noise` takes 12 x 15 s on two idle cores, `loop` 123 runs of 15 s, `ratio` 5 arms x 3 replicates of the preset: for
tiny 15 x 1.5 minutes. All go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
NOISE = ROOT / "tests" / "experiments" / "noise.json"
SEEDS = 12
MICRO = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 64, "model.block_size": 128, "data.tokenizer": "gpt2:1024",
    "data.validation_tokens": 131072, "train.batch_tokens": 2048, "train.steps": 64, "eval.interval": 0,
    "sample.interval": 0, "log.plot_interval": 0, "train.compile": "false",
}  # fmt: skip


def words(values: dict[str, object], head: str = "--") -> list[str]:
    return [word for key, value in values.items() for word in (f"{head}{key}", str(value))]


# The noise of one recipe


def noise(runs: Path) -> None:
    """Per document and per step, the losses of one recipe under twelve seeds of the weights and one of the data."""
    from mygpt2.config import load_config
    from mygpt2.experiments.arms import with_seeds
    from mygpt2.experiments.pieces import Piece
    from mygpt2.experiments.running import run_missing
    from mygpt2.experiments.scores import scores
    from mygpt2.ripples.runs import read_run

    config = load_config("tiny", None, words(MICRO))
    pieces = [Piece(f"noise.micro.{k}", with_seeds(config, 1337, 1337 + k)) for k in range(1, SEEDS + 1)]
    run_missing(pieces, runs)
    found = [scores(runs, piece.run, config.train.steps, "run") for piece in pieces]
    losses = [read_run(runs / piece.run).loss for piece in pieces]
    record = {
        "what": "one recipe under twelve seeds of the weights: nats by held-out document, and training losses by step",
        "settings": MICRO, "protocol": "run", "token_sha256": found[0].token_sha256,
        "targets": found[0].targets.astype(int).tolist(),
        "nll": [np.round(each.nll, 2).tolist() for each in found],
        "losses": [np.round(each, 5).tolist() for each in losses],
    }  # fmt: skip
    NOISE.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(f"{NOISE}: {NOISE.stat().st_size:,} bytes")


# What the noise makes of questions


def simulate(times: int) -> None:
    """The full form of tests/experiments/test_honesty.py."""
    sys.path.insert(0, str(ROOT))
    from tests.experiments import simulated

    found, rng = simulated.Noise.logged(), np.random.default_rng(0)
    print(f"{found.seeds} seeds, {len(found.targets)} documents; two of them differ by {found.spread:.4f} nats (sd)")
    for what, ask in (
        ("two models, over documents, 95 %", simulated.false_on_text),
        ("late training losses, over steps, 95 %", simulated.false_in_training),
        ("a recipe over three replicates, 95 %", simulated.false_once),
        ("ten looks, a replicate more each time, one budget of 5 %", simulated.false_in_looks),
    ):
        _rate(f"false keeps and drops: {what}", [ask(found, rng) for _ in range(times)])
    loops = [simulated.loop(found, rng, np.zeros(40)) for _ in range(times)]
    _rate("loops of forty challenges with a false verdict", [set(told) != {"undecided"} for told in loops])
    effects = np.repeat([0.0, 1.0], 20) * found.spread
    false = []
    for _ in range(times):
        planted = rng.permutation(effects * rng.normal(0, 30, 40))
        told = simulated.loop(found, rng, planted, replicates=4)
        false.append(sum(word == "keep" for word, by in zip(told, planted, strict=True) if by == 0))
    print(f"false keeps in loops of forty, half of them nothing: {np.bincount(false).tolist()} loops with 0, 1, 2 ...")
    for spread in (0.001, 0.002, 0.004):
        kept = [simulated.found_as_promised(found, rng, -0.003, spread) for _ in range(times)]
        _rate(
            f"0.003 nats found at the promised cost, spread {spread}, median {np.median([n for _, n in kept]):.0f} "
            "replicates", [hit for hit, _ in kept],
        )  # fmt: skip


def _rate(what: str, hits: list[bool]) -> None:
    share = float(np.mean(hits))
    print(f"{what}: {share:.1%} +- {(share * (1 - share) / len(hits)) ** 0.5:.1%} of {len(hits)}", flush=True)


# Forty random changes through the command


def loop(runs: Path, count: int) -> None:
    """Half of the changes alter nothing but the rounding of one rate; what is kept of those is false."""
    rng, kept = np.random.default_rng(7), []
    base = words(MICRO, "--base.")
    for number in range(count):
        null = number % 2 == 1
        change = {"optimizer.lr": repr(6e-3 * (1 + 1e-7 * (1 + number)))} if null else _change(rng)
        out = runs.parent / f"{runs.name}-verdict.json"
        command = [sys.executable, "-m", "mygpt2", "judge", "tiny", *base, *words(change, "--variant."),
                   "--replicates", "3", "--runs", str(runs), "--json", str(out)]  # fmt: skip
        done = subprocess.run(command, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"judge ended with {done.returncode}; the same command goes on")
        found = json.loads(out.read_text())
        test = found["validation"]
        difference = f"{test['mean']:+.5f}, p {found['p']:.2g} at {found['level']:.2g}" if test else found["reason"]
        print(
            f"{number + 1:>2} {'nothing' if null else 'change '} {change}: {found['verdict']} ({difference})",
            flush=True,
        )
        kept.append((null, found["verdict"]))
    for word in ("keep", "drop"):
        false, real = (sum(n == null and verdict == word for n, verdict in kept) for null in (True, False))
        print(f"false {word}s: {false} of {count // 2} that are nothing; of real changes: {real} of {-(-count // 2)}")


def _change(rng: np.random.Generator) -> dict[str, object]:
    kinds = {
        "optimizer.lr": 6e-3 * 4 ** rng.normal(), "optimizer.muon_lr": 0.02 * 4 ** rng.normal(),
        "optimizer.weight_decay": 0.1 * 10 ** rng.normal(), "optimizer.muon_momentum": rng.uniform(0.5, 0.98),
        "schedule.decay_share": rng.uniform(0.1, 0.8), "schedule.min_lr_ratio": rng.uniform(0, 0.5),
    }  # fmt: skip
    key = rng.choice(list(kinds))
    return {str(key): f"{kinds[str(key)]:.4g}"}


# What pairing is worth


def ratio(runs: Path, preset: str, replicates: int) -> None:
    """For pairs of equal rate and other weights, and of other rates: the noise that pairing takes from the training
    losses, and what is left on the held-out text between replicates against the spread of single runs."""
    from mygpt2.config import load_config
    from mygpt2.experiments.arms import with_seeds
    from mygpt2.experiments.paired import by_document, training
    from mygpt2.experiments.pieces import Piece
    from mygpt2.experiments.running import run_missing
    from mygpt2.experiments.scores import scores

    rates = {"again": 1.0, "x1.1": 1.1, "x1.5": 1.5, "x0.5": 0.5}
    usual = load_config(preset)
    arms = {"base": usual, **{name: _faster(preset, usual, by) for name, by in rates.items()}}
    pieces = {
        (arm, k): Piece(f"ratio-{preset}.{arm.replace('.', '')}.{k}", with_seeds(
            config, 1337 + k, 1337 + k + (1000 if arm == "again" else 0)), preset)
        for k in range(1, replicates + 1) for arm, config in arms.items()
    }  # fmt: skip
    run_missing(list(pieces.values()), runs)
    text = {key: scores(runs, piece.run, usual.train.steps, "run") for key, piece in pieces.items()}
    single = float(np.std([text["base", k].loss for k in range(1, replicates + 1)], ddof=1)) if replicates > 1 else 0.0
    print(f"{preset}, protocol run: one recipe over {replicates} pairs of seeds spreads by {single:.4f} nats (sd)")
    for arm in rates:
        late, between, within = [], [], []
        for k in range(1, replicates + 1):
            found = training(runs / pieces["base", k].run, runs / pieces[arm, k].run, [])
            late.append(found.noise_ratio if not isinstance(found, str) else float("nan"))
            pair = by_document(text["base", k], text[arm, k])
            between.append(pair.mean)
            within.append(pair.error)
        spread = float(np.std(between, ddof=1)) if replicates > 1 else float("nan")
        print(f"  {arm:>6}: training losses, pairing takes {np.nanmedian(late):.3g} x of the noise", end="; ")
        print(f"held-out difference {np.mean(between):+.4f}, sd between pairs {spread:.4f}, error over documents "
              f"{np.mean(within):.4f}")  # fmt: skip


def _faster(preset: str, usual: object, by: float) -> object:
    from mygpt2.config import load_config

    optimizer = usual.optimizer  # type: ignore[attr-defined]
    return load_config(preset, None, {"optimizer.lr": optimizer.lr * by, "optimizer.muon_lr": optimizer.muon_lr * by})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("noise", "simulate", "loop", "ratio"))
    parser.add_argument("--runs", type=Path, default=Path("runs-judging"), help="folder of runs (./runs-judging)")
    parser.add_argument("--times", type=int, default=2000, help="simulated questions of each kind (2,000)")
    parser.add_argument("--count", type=int, default=40, help="changes of `loop` (40)")
    parser.add_argument("--preset", default="tiny", help="of `ratio` (tiny)")
    parser.add_argument("--replicates", type=int, default=3, help="of `ratio` (3)")
    args = parser.parse_args()
    if args.what == "noise":
        noise(args.runs)
    elif args.what == "simulate":
        simulate(args.times)
    elif args.what == "loop":
        loop(args.runs, args.count)
    else:
        ratio(args.runs, args.preset, args.replicates)


if __name__ == "__main__":
    main()
