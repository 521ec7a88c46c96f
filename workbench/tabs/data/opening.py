"""Opening a source while telling how far it is: harvesting the built-in corpus, or reading footers, takes a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from mygpt2.config.schema import DataConfig
from mygpt2.tokenizer import Tokenizer
from workbench.tabs.data.library import Library, Opened

LOOK_SECONDS = 0.3


def opening(library: Library, data: DataConfig, tokenizer: Tokenizer | None, fresh: bool) -> Iterator[str | Opened]:
    """What is being done, as long as it lasts, then the source. Raises what `Library.open` raises."""
    at = (0, 0)
    ended: list[Opened | BaseException] = []

    def advance(done: int, total: int) -> None:
        nonlocal at
        at = done, total

    def work() -> None:
        try:
            ended.append(library.open(data, tokenizer, advance, fresh))
        except BaseException as error:  # raised again by whoever waits
            ended.append(error)

    thread = threading.Thread(target=work, name=f"open {data.source}", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        if thread.is_alive():
            yield f"resolving {data.source}" + (f": {at[0]:,} of {at[1]:,} parts" if at[1] else "")
    found = ended[0]
    if isinstance(found, BaseException):
        raise found
    yield found
