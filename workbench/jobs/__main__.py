"""`python -m workbench.jobs`: puts a run into the queue of a runs folder. For the engine's programs, which stand below.

The configuration comes as TOML on standard input; a run that has begun goes on from its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mygpt2.cli import Parser, guarded
from mygpt2.config import load_config
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from workbench.jobs.jobs import Jobs, submit_config


def main() -> int:
    parser = Parser(prog="python -m workbench.jobs", description="Queues a run whose TOML comes on standard input.")
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="folder of runs")
    parser.add_argument("--run", required=True, metavar="NAME", help="name of the run")
    parser.add_argument("--preset", metavar="NAME", help="the preset that its command starts from")
    parser.add_argument("--nproc", type=int, metavar="N", help="processes that train together")
    parser.add_argument("--until", type=int, metavar="STEP", help="stop after this step")
    args = parser.parse_args()
    return guarded(lambda: _queue(args))


def _queue(args: argparse.Namespace) -> None:
    jobs = Jobs(args.runs)
    if RunDir(jobs.runs / args.run).config_file.is_file():
        job = jobs.resume_run(args.run, args.nproc, until=args.until)
    else:
        try:
            values = from_toml(sys.stdin.buffer.read(MAX_BYTES + 1))
        except ValueError as error:
            raise UserError(f"standard input is not TOML: {error}; give the run's configuration") from None
        job = submit_config(jobs, load_config(None, None, values), args.preset, args.run, args.nproc, until=args.until)
    print(job.id)


if __name__ == "__main__":
    sys.exit(main())
