"""plotly.js without what no chart here draws.

The installed bundle makes 45 kinds of traces ready as soon as it is there, maps and surfaces among them, while the page
waits: 0.4 s of its thread. The charts draw lines and points, which are a part of plotly's core.
"""

from __future__ import annotations

import re

# The bundle's end: every other kind of trace is made, each by a function without arguments, and told to the core.
_KINDS = re.compile(rb"[\w$]+\.register\(\[(?:[\w$]+\(\),){9,}[\w$]+\(\)\]\);")


def lean(bundle: bytes) -> bytes:
    """plotly.js whose only traces are scatter's; the whole of it where it is not of the known form."""
    found = _KINDS.findall(bundle)
    return bundle.replace(found[0], b"") if len(found) == 1 else bundle
