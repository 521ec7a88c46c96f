"""What the monitor says of a branch: of which run it is, since which step, with which changes."""

from __future__ import annotations

from typing import Any

from mygpt2.config.fields import toml_value
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.family import Origin, origin_of, parent_of
from workbench import html

MOST = 300  # characters of the changes


def row(run: RunDir) -> dict[str, Any]:
    """{"parent": the run below which it stands, "" for none; "branch": where it branched off, in words}."""
    origin = origin_of(run)
    if origin is None:
        return {"parent": "", "branch": ""}
    return {"parent": origin.parent if parent_of(run.path.parent, origin) else "", "branch": told(origin)}


def told(origin: Origin) -> str:
    """`branch of tiny at step 100: optimizer.lr 0.006 → 0.01`."""
    pairs = (f"{name} {_value(old)} → {_value(new)}" for name, (old, new) in origin.changes.items())
    changes = ", ".join(pairs) or "nothing changed"
    text = f"branch of {origin.parent} at step {origin.step:,}: {changes}"
    return text if len(text) <= MOST else f"{text[: MOST - 1]}…"


def chip(run: RunDir) -> list[html.Markup]:
    """Beside the name of a branch: its parent, which a click shows; a parent that is gone is only named."""
    origin = origin_of(run)
    if origin is None:
        return []
    words, title = html.escape(f"branch of {origin.parent} at step {origin.step:,}"), html.escape(told(origin))
    if parent_of(run.path.parent, origin) is None:
        return [html.Markup(f'<span class="wb-chip wb-branch-of" title="{title}; that run is gone">{words}</span>')]
    return [html.Markup(f'<button type="button" class="wb-chip wb-branch-of" title="{title}" '
                        f'data-wb-run="{html.escape(origin.parent)}">{words}</button>')]  # fmt: skip


def _value(value: Any) -> str:
    return "unset" if value is None else value if isinstance(value, str) else toml_value(value)
