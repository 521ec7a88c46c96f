from collections.abc import Callable, Iterator

import pytest

from tests import forks


@pytest.fixture
def launch() -> Iterator[Callable[..., forks.Forked]]:
    """forks.launch, and nothing of it is left when a test fails."""
    started: list[forks.Forked] = []

    def start(*given: object, **named: object) -> forks.Forked:
        started.append(forks.launch(*given, **named))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.kill()
