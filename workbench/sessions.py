"""What Gradio remembers of an open page does not grow with the number of its polls."""

from __future__ import annotations

from typing import Any


def keep_ids() -> None:
    """A component made anew by an update keeps its id within its page's state. Called once, before the page is built.

    Gradio gives it the next free id, and at the next event that has it among its inputs files it under that one as
    well: some 6 kB for each poll, as long as the page is open.
    """
    from gradio.blocks import Block
    from gradio.state_holder import SessionState

    put = SessionState.__setitem__
    if getattr(put, "keeps_ids", False):
        return

    def put_under_its_id(self: SessionState, key: int, value: Any) -> None:
        if isinstance(value, Block):
            value._id = key
        put(self, key, value)

    put_under_its_id.keeps_ids = True  # type: ignore[attr-defined]
    SessionState.__setitem__ = put_under_its_id  # type: ignore[method-assign]
