"""`doctor`: check this machine and installation, a line for each check."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (./runs)")


def run(args: argparse.Namespace) -> int:
    from mygpt2.doctor import FAIL
    from mygpt2.doctor.run import diagnose

    failed = 0
    for finding in diagnose(args.runs):
        print(finding, flush=True)
        failed += finding.status == FAIL
    print("all is well" if not failed else f"{failed} of the checks failed")
    return 2 if failed else 0
