"""How honest `judge` is, and what pairing is worth.

    python benchmarks/judging.py noise [--runs DIR]     twelve short runs of one recipe: tests/experiments/noise.json
    python benchmarks/judging.py simulate [--times N]   false verdicts and promises, from that noise; two minutes
    python benchmarks/judging.py loop [--runs DIR]      forty random changes, half of them none, through the command
    python benchmarks/judging.py ratio [--runs DIR] [--preset tiny] [--replicates 3]
                                                        what pairing takes from the noise, for equal and other rates

Marks: of 200 pairs of one recipe 5 +- 3 % false keeps and drops, after one question, ten looks and forty challenges; a
planted 0.003 nats found nine times in ten at the promised cost; at most 2 false keeps in a loop of forty.

`noise` takes 12 x 15 s on two idle cores, `loop` 120 runs of 15 s, `ratio` 4 arms x 3 replicates of the preset: for
tiny 12 x 1.5 minutes. All go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("noise", "simulate", "loop", "ratio"))
    parser.add_argument("--runs", type=Path, default=Path("runs-judging"), help="folder of runs (./runs-judging)")
    args = parser.parse_args()
    if args.what == "noise":
        noise(args.runs)


if __name__ == "__main__":
    main()
