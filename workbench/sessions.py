"""What Gradio remembers of an open page does not grow with the number of its polls."""

from __future__ import annotations

from typing import Any

from mygpt2.errors import UserError


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


def fetch_nothing() -> None:
    """Gradio downloads whatever address a value names that looks like one of its files. None of ours has any.

    Values come from run folders too (samples, settings), and a file must not be able to make the server fetch an
    address. Called once, before the page is built.
    """
    from gradio import processing_utils

    def refuse(*_: Any, **__: Any) -> Any:
        raise UserError("the workbench fetches no files from addresses; upload the file, or name one inside the roots")

    for name in ("ssrf_protected_download", "async_ssrf_protected_download", "save_url_to_cache"):
        getattr(processing_utils, name)  # AttributeError in a Gradio that goes about it otherwise
        setattr(processing_utils, name, refuse)
