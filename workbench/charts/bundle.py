"""plotly.js without what no chart here draws.

The installed bundle makes 45 kinds of traces ready as soon as it is there, maps and surfaces among them, while the page
waits: 0.4 s of its thread. The charts draw lines and points, which are a part of plotly's core. Half of the text is of
modules that only those kinds ask for; to send and to compile it takes time as well.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

# The bundle's end: every other kind of trace is made, each by a function without arguments, and told to the core.
_KINDS = re.compile(rb"[\w$]+\.register\(\[(?:[\w$]+\(\),){9,}[\w$]+\(\)\]\);")
# A module as esbuild writes it: `var name=wrapper((exports,module)=>{...});`, made when somebody calls `name()`.
_MODULE = re.compile(rb"(?<=[;}])var ([\w$]+)=([\w$]+)\((?:\([\w$,]*\)|[\w$]+)=>(?=\{)")
_CALLED = re.compile(rb"(?<![\w$.])([\w$]+)\(\)")
# Brackets, and texts and regular expressions, whose own brackets do not count.
_REGEX = rb"/(?![*/])(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/"
_TEMPLATE = rb"`(?:[^`\\$]|\\.|\$(?!\{)|\$\{(?:[^`{}]|\{[^{}]*\}|`(?:[^`\\]|\\.)*`)*\})*`"
_TOKEN = re.compile(
    rb"""[(){}]|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(?:(?<=[=(,:;!&|?{}\[+\n])|(?<==>)|(?<=return))"""
    + _REGEX + b"|" + _TEMPLATE
)  # fmt: skip


def lean(bundle: bytes) -> bytes:
    """plotly.js whose only traces are scatter's, without modules that nobody calls; whole if not of the known form."""
    found = _KINDS.findall(bundle)
    return _reached(bundle.replace(found[0], b"")) if len(found) == 1 else bundle


def _reached(bundle: bytes) -> bytes:
    """Without the modules that neither the text outside of all nor one of those that it reaches calls by name."""
    modules = _modules(bundle)
    outside = _between(bundle, modules.values())
    if not all(_level(piece) for piece in outside[1:-1]):
        return bundle  # a piece that closes what it did not open: a module has ended elsewhere
    kept, todo = set[bytes](), set(_CALLED.findall(b"".join(outside))) & modules.keys()
    while todo:
        kept |= todo
        todo = {name for one in todo for name in _CALLED.findall(bundle[slice(*modules[one])])} & modules.keys() - kept
    return b"".join(_between(bundle, [place for name, place in modules.items() if name not in kept]))


def _between(bundle: bytes, places: Iterable[tuple[int, int]]) -> list[bytes]:
    """What is left of the text without these places, which do not overlap, piece by piece."""
    cuts = [0, *(at for place in sorted(places) for at in place), len(bundle)]
    return [bundle[a:b] for a, b in zip(cuts[::2], cuts[1::2], strict=True)]


def _modules(bundle: bytes) -> dict[bytes, tuple[int, int]]:
    """Where each module begins and ends, by its name; none at all if any looks otherwise than the rest."""
    heads = list(_MODULE.finditer(bundle))
    wrapper = Counter(head[2] for head in heads).most_common(1)[0][0] if heads else b""
    heads = [head for head in heads if head[2] == wrapper]
    limits = [*(head.start() for head in heads[1:]), len(bundle)]
    found: dict[bytes, tuple[int, int]] = {}
    for head, limit in zip(heads, limits, strict=False):
        end = next((at for depth, at in _depths(bundle, head.end(), limit) if depth == 0), limit)
        if bundle[end : end + 2] != b");" or end + 2 > limit:
            return {}
        found[head[1]] = head.start(), end + 2
    return found if len(found) == len(heads) == bundle.count(b"=" + wrapper + b"(") else {}


def _level(piece: bytes) -> bool:
    """Whether every bracket that is closed was opened, and the other way round."""
    depths = [depth for depth, _ in _depths(piece, 0, len(piece))]
    return not depths or (min(depths) >= 0 and depths[-1] == 0)


def _depths(text: bytes, first: int, last: int) -> Iterator[tuple[int, int]]:
    """How many brackets are open behind each token, and where that is."""
    depth = 0
    for token in _TOKEN.finditer(text, first, last):
        depth += {b"(": 1, b"{": 1, b")": -1, b"}": -1}.get(token[0], 0)
        yield depth, token.end()
