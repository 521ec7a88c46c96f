from collections.abc import Callable, Iterator

import pytest

from tests.life.together import Launched


@pytest.fixture
def launch() -> Iterator[Callable[..., Launched]]:
    """Launched(...), and nothing of it is left when a test fails."""
    started: list[Launched] = []

    def start(*given: object, **named: object) -> Launched:
        started.append(Launched(*given, **named))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for each in started:
        each.kill()
