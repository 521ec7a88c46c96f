"""Progress of long work on a terminal: bar, rate and time left; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, all); gone when the work is done."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=f" {unit}", unit_scale=True, disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
