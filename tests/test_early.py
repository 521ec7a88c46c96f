"""What a command sets before its imports."""

import pytest

from mygpt2 import early


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
    ids=["nothing said", "a count of one's own", "a policy of one's own"],
)
def test_idle_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch, given, spins):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that both are put back afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    early.wait_briefly()
    assert early.os.environ.get("GOMP_SPINCOUNT") == spins
