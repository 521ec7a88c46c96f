"""Reads the documentation out of files: a small process of its own, one JSON line in, one out.

Run as `python -m mygpt2.data.sources.pydocs.read`. It ends when its standard input does, so it cannot outlive the one
who asked.
"""

from __future__ import annotations

import json
import os
import sys

from mygpt2.data.sources.pydocs import prose

Pieces = list[tuple[str, str]]
"""(qualified name, clean text) in the order of a module."""

LARGEST = 2_000_000  # characters; longer sources are generated
LEAST_PROSE = 0.22  # share of function words in a single text


def read_files(root: str, files: list[str]) -> list[tuple[str, Pieces]]:
    """(path, texts) of each file that holds any, in the order given."""
    found = []
    for name in files:
        try:
            with open(os.path.join(root, name), encoding="utf-8") as f:
                source = f.read(LARGEST + 1)
        except (OSError, UnicodeDecodeError):
            continue  # a package may list files that were removed, or hold other encodings on purpose
        pieces = _pieces(name, source) if len(source) <= LARGEST else []
        if pieces:
            found.append((name, pieces))
    return found


def _pieces(name: str, source: str) -> Pieces:
    if name.endswith("METADATA"):
        source = source.partition("\n\n")[2]
    raw = [("", source)] if name.endswith((".rst", ".md", "METADATA")) else prose.texts(source)
    clean = ((n, prose.clean(text)) for n, text in raw)
    return [(n, text) for n, text in clean if len(text) > 60 and prose.prose_share(text) >= LEAST_PROSE]


def main() -> None:
    for line in sys.stdin:
        root, files = json.loads(line)
        sys.stdout.write(json.dumps(read_files(root, files)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
