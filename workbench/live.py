"""A tab's live view: the page asks what has changed since it asked last, and is sent only that.

The page remembers, the server does not: with a question comes a digest of every part that the page has. A part whose
digest is still the same is not sent, and where possible not even made. `Page.live` puts a view on the page, and
ui_assets/live.js asks while its tab is looked at and patches what differs, so that focus and selection stay.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mygpt2.errors import UserError
from workbench import html

BUSY_SECONDS = 1.5  # between two questions while something is at work
REST_SECONDS = 300.0  # while nothing is: the page is told when something has changed, see changes.py
FIELD_KEYS = ("choices", "value", "interactive", "visible", "label", "info", "maximum")  # that a view may change

log = logging.getLogger("workbench")
Asked = Mapping[str, Any]


class News:
    """Collects what one answer holds. `busy`: it is worth asking again soon."""

    def __init__(self, digests: Any = None) -> None:
        self._had = digests if isinstance(digests, Mapping) else {}
        self.changed: dict[str, dict[str, Any]] = {"markup": {}, "fields": {}, "data": {}}
        self.digests: dict[str, str] = {}
        self.busy = False

    def show(self, part: str, made: Any, stamp: Any = None) -> None:
        """Markup for the element of that name, see `Page.part`. With a stamp of what it is made of, `made` makes it."""
        self._add("markup", part, made, stamp)

    def set(self, field: str, stamp: Any = None, **made: Any) -> None:
        """Properties of a component of Gradio's, such as choices and value. `stamp`: these only follow from it."""
        self._add("fields", field, made if stamp is None else lambda: made, stamp)

    def tell(self, name: str, made: Any, stamp: Any = None) -> None:
        """Data for the tab's own script; `enabled` is understood by every page: whether to press, by elem_id."""
        self._add("data", name, made, stamp)

    def send(self, name: str, made: Any) -> None:
        """Data for the tab's own script whatever it has: an answer to what it asked."""
        self.changed["data"][name] = made

    def had(self, name: str) -> str:
        """The digest under which the page has a part; "" if it has none."""
        return str(self._had.get(name, ""))

    def differs(self, name: str, stamp: Any, *parts: str) -> bool:
        """Whether these parts have to be made, which only follow from the stamp: the page has none, or of another."""
        if not all(map(self.had, parts)):
            self._had = {key: digest for key, digest in self._had.items() if key != name}
        before = len(self.digests)
        self._add("data", name, lambda: None, stamp)
        self.changed["data"].pop(name, None)
        return len(self.digests) > before

    def known_by(self, kind: str, name: str, digest: str, make: Callable[[], Any]) -> None:
        """A part with a digest that says more than whether it is the same."""
        if self._had.get(name) != digest:
            self.changed[kind][name] = make()
            self.digests[name] = digest

    def _add(self, kind: str, name: str, made: Any, stamp: Any) -> None:
        make: Callable[[], Any] = made if stamp is not None else lambda: made
        of = made if stamp is None else stamp
        self.known_by(kind, name, hashlib.blake2b(repr(of).encode("utf-8", "replace"), digest_size=8).hexdigest(), make)

    def answer(self) -> dict[str, Any]:
        """As the page's script takes it."""
        pause = BUSY_SECONDS if self.busy else REST_SECONDS
        return {**self.changed, "digests": self.digests, "pause": pause, "rests": not self.busy}


View = Callable[[Asked, News], None]


def answered(view: View, request: Any) -> dict[str, Any]:
    """The answer to a page's question. What went wrong is `problem`; the traceback of a defect goes to the log."""
    request = request if isinstance(request, dict) else {}
    asked, news = request.get("asked"), News(request.get("digests"))
    try:
        view(asked if isinstance(asked, dict) else {}, news)
    except UserError as error:
        return {**News().answer(), "problem": html.problem(str(error))}
    except Exception as error:
        log.exception("a view failed", exc_info=error)
        problem = html.problem("This is a defect of the workbench; its log has the details.")
        return {**News().answer(), "problem": problem}
    return {**news.answer(), "problem": ""}


def update(component: Any, properties: Mapping[str, Any]) -> dict[str, Any]:
    """What a view says of a component, as Gradio would send it to the page."""
    found = {key: properties[key] for key in FIELD_KEYS if key in properties}
    if "choices" in found:
        found["choices"] = [each if isinstance(each, list | tuple) else (each, each) for each in found["choices"]]
        component = copy.copy(component)
        component.choices = found["choices"]
    if "value" in found:
        made = component.postprocess(found["value"])
        found["value"] = made.model_dump() if hasattr(made, "model_dump") else made
    return found
