"""`train`: trains in this process what was asked, as one rank or the only one."""

from __future__ import annotations

import argparse
import os

from mygpt2.errors import EXIT_OK
from mygpt2.launch.request import add_arguments, only_shown, resolve

__all__ = ["TAKES_SETTINGS", "add_arguments", "run"]

TAKES_SETTINGS = True  # whatever argparse does not know is a --section.key VALUE, checked by load_config


def run(args: argparse.Namespace) -> int:
    request = resolve(args)
    if "RANK" not in os.environ:  # the launcher has said it once for all ranks
        request.tell()
    if only_shown(args, request):
        return EXIT_OK
    from mygpt2.train.attempt import main

    return main(request.config, request.run_name, request.runs_dir, request.resume, args.argv, request.until)
