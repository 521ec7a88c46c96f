"""Gradio's modules as they are served: what they do several hundred times over while a page opens, they do once.

Each change is a piece of text and what stands in its place, by the beginning of the module's name. A module of another
Gradio, in which a text does not occur exactly once, is served as it is: it works, and opens the page later.
"""

from __future__ import annotations

# The tree of all components was made again as soon as it had been made, though nothing had been reloaded.
_NO_SECOND_TREE = ("v(),oe(()=>{O.reload(", "v()>0&&oe(()=>{O.reload(")
# Each event looked its component up in the whole tree, to set arguments that it had none of.
_NO_ARGUMENTS = (
    "async set_event_args(e,t){let n={},",
    "async set_event_args(e,t){if(!Object.keys(t).length)return()=>{};let n={},",
)
# Each component looked through the targets of all events: of one event the first that is its own.
_EVENTS_OF_ALL = (
    "find_attached_events(e,t){let n=t.filter(t=>t.targets.find(([t])=>t===e.id))"
    ".map(t=>{let n=t.targets.find(([t])=>t===e.id);return n?n[1]:null}).filter(Boolean);",
    "find_attached_events(e,t){if(this.eventsOf!==t){this.eventsOf=t;this.eventsBy=new Map;for(let e of t){"
    "let t=new Set;for(let[n,r]of e.targets)if(!t.has(n)){t.add(n);if(r){"
    "let e=this.eventsBy.get(n);e?e.push(r):this.eventsBy.set(n,[r])}}}}let n=[...this.eventsBy.get(e.id)||[]];",
)
# The page's styles were taken apart and put together twice.
_STYLES_ONCE = (
    "n.remove();let r=new CSSStyleSheet;r.replaceSync(e);",
    "n.remove();if(B.made&&B.from===e&&B.by===t)return B.made;B.made=``;B.from=e;B.by=t;"
    "let r=new CSSStyleSheet;r.replaceSync(e);",
)
_STYLES_KEPT = (
    "(o+=`@font-face { ${t.style.cssText} }`)}return i+o}",
    "(o+=`@font-face { ${t.style.cssText} }`)}return B.made=i+o}",
)
CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "Blocks-": (_NO_SECOND_TREE, _NO_ARGUMENTS),
    "core-": (_EVENTS_OF_ALL, _STYLES_ONCE, _STYLES_KEPT),
}


def quicker(name: str, content: bytes) -> bytes:
    """A module of Gradio's by its file name, as it is served."""
    changes = next((found for begin, found in CHANGES.items() if name.startswith(begin) and name.endswith(".js")), ())
    if any(content.count(before.encode()) != 1 for before, _ in changes):
        return content
    for before, after in changes:
        content = content.replace(before.encode(), after.encode())
    return content
