"""One measurement in two checkouts, in turn: does a change cost anything?

    python benchmarks/trees.py OTHER [--rounds 7] -- training.py --nanogpt PATH --shape small8k --serve eager
    python benchmarks/trees.py OTHER -- sampling.py --batch 1 --serve int8
    python benchmarks/trees.py OTHER -- tokenizer.py --mb 10 --vocab-size 8192 --child mygpt2
    python benchmarks/trees.py OTHER -- data.py --folder FOLDER --cache CACHE --child ours --encoder tiktoken

OTHER is a checkout of another commit (`git worktree add OTHER COMMIT`); what stands behind `--` is a script of
benchmarks/ as its child process is called. Each checkout runs its own copy of the script over its own code. Above 1:
this checkout is the faster one. Mark: 0.97.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from paired import Engine, compare

HERE = Path(__file__).resolve().parents[1]
MARK = 0.97


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("words", nargs="+", help="a script of benchmarks/ and what its child is given")
    args = parser.parse_args()
    script, *words = args.words
    engines = []
    for name, tree in (("other", args.other.resolve()), ("here", HERE)):
        if not (tree / "benchmarks" / script).is_file():
            parser.error(f"{tree} has no benchmarks/{script}; give a checkout and a script of its benchmarks/")
        env = {**os.environ, "PYTHONPATH": str(tree)}
        engines.append(Engine(name, [sys.executable, str(tree / "benchmarks" / script), *words], env=env))
    found = compare(engines, args.rounds)["here"]
    passed = found["ratio"] >= MARK
    print(f"{'pass' if passed else 'FAIL'}  {' '.join(args.words)}")
    print(
        f"      {found['ratio']:.3f} x as fast (mark {MARK}), {found['ratio_cpu']:.3f} x by processor time, "
        f"{found['memory_ratio']:.3f} x the memory"
    )


if __name__ == "__main__":
    main()
