"""`python -m workbench`: the options, then the server."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from mygpt2.cli import Parser, guarded
from workbench.server import Options, serve


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the workbench and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: serve(parse(words)))


def parse(words: Sequence[str]) -> Options:
    """The options of the command line; UserError for one that is not known."""
    parser = Parser(prog="python -m workbench", description="The browser application over a folder of runs.",
                    allow_abbrev=False)  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of runs (./runs)")
    parser.add_argument("--data-root", type=Path, action="append", metavar="DIR",
                        help="a folder that data, models and tokenizers may come from; may be repeated "
                             "(default: the folder it is started in)")  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", metavar="H",
                        help="address to listen on (127.0.0.1); any other needs --password-file")  # fmt: skip
    parser.add_argument("--port", type=_port, metavar="P", help="port (the first free one from 7860 up; 0: any)")
    parser.add_argument("--password-file", type=Path, metavar="F",
                        help="its first line is the password of the page and of the API's launch and stop")  # fmt: skip
    parser.add_argument(
        "--read-only", action="store_true", help="watch only: nothing can be started, stopped or written"
    )
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="another name this server is reached by, behind a proxy; may be repeated")  # fmt: skip
    parser.add_argument("--root-path", type=_prefix, default="", metavar="/PREFIX",
                        help="path under which a proxy serves it")  # fmt: skip
    parser.add_argument("--slots", metavar="NAMES", help="devices for the queue, such as cuda:0,cuda:1 (all there are)")
    args = parser.parse_args(words)
    slots = tuple(s.strip() for s in args.slots.split(",") if s.strip()) if args.slots else None
    roots = tuple(args.data_root) if args.data_root else (Path.cwd(),)
    return Options(args.runs, roots, args.host, args.port, args.password_file, args.read_only,
                   tuple(args.allow_host), args.root_path, slots)  # fmt: skip


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _prefix(text: str) -> str:
    """The path under which a proxy serves the page, with a slash before and none behind it; "" for none."""
    path = text.strip("/")
    if not re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*|", path, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a path; give the part of the address after the host, such as /wb (the host: --allow-host)"
        )
    return f"/{path}" if path else ""


if __name__ == "__main__":
    sys.exit(main())
