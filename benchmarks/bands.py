"""The band of a preset: between which losses its runs lie, from replicates that differ in their seeds alone.

    python benchmarks/bands.py tiny                       five replicates, into mygpt2/presets/bands/tiny.json
    python benchmarks/bands.py tiny --cost                what is missing and how long it takes, and nothing else
    python benchmarks/bands.py tiny --here                into the cache of this machine, for its own data

Trains what is missing in --runs, one run after the other: killed, the same command goes on. Replicate k has the
preset's two seeds, data.seed and model.seed, each k - 1 higher. The file is written once all are there.
Settings after the options (--section.key VALUE) make a band of a changed recipe, which needs --out.

Cost on two cores with bfloat16 units: tiny 2 to 4 minutes a replicate. --cost says it of any preset and machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from mygpt2.config import load_config, preset_names
from mygpt2.errors import UserError, shown
from mygpt2.experiments.arms import replicates, run_name
from mygpt2.experiments.bands import FEWEST, FOLDER, check_name, here, make, write
from mygpt2.experiments.cost import cost
from mygpt2.experiments.pieces import Piece
from mygpt2.experiments.running import missing, run_missing
from mygpt2.format import file_size
from mygpt2.run_dir.paths import RunDir


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the replicates (./runs)")
    parser.add_argument("--nproc", type=int, default=1, help="processes of each run")
    parser.add_argument("--cost", action="store_true", help="say what is missing and what it takes, and end")
    parser.add_argument("--here", action="store_true", help="write into the cache of this machine")
    parser.add_argument("--out", type=Path, help="write to this file")
    args, settings = parser.parse_known_args(words)
    try:
        return _band(args, settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _band(args: argparse.Namespace, settings: list[str]) -> int:
    preset = check_name(args.preset, preset_names())
    if settings and not args.out:
        raise UserError(f"{shown(settings[0])} changes the recipe; give --out FILE, the preset's band is not for it")
    if args.replicates < FEWEST:
        raise UserError(f"--replicates {args.replicates} make no band; give {FEWEST} or more")
    base = load_config(preset, None, settings)
    pieces = [
        Piece(run_name("band", preset, one.number), one.of(base), preset) for one in replicates(base, args.replicates)
    ]
    left = missing(pieces, args.runs)
    print(f"{args.replicates} replicates of {preset} in {args.runs}: {cost(left, args.runs, args.nproc)}", flush=True)
    if args.cost:
        return 0
    run_missing(pieces, args.runs, nproc=args.nproc, say=lambda text: print(text, flush=True))
    band = make(preset, [RunDir(args.runs / piece.run) for piece in pieces])
    path = args.out or (here() if args.here else FOLDER) / f"{preset}.json"
    write(band, path)
    low, high = band.limits()
    print(f"wrote {path}, {file_size(path.stat().st_size)}: {len(band.stretches)} stretches")
    first, last = band.stretches[-1]
    print(f"steps {first:,} to {last:,}: one more run is expected between {low[-1]:.4f} and {high[-1]:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
