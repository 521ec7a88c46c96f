"""What the server does beside the queue, whether a page is open or not."""

from workbench.jobs import Jobs, supervisor


def test_a_chore_is_done_every_few_seconds_by_the_owner_alone(tmp_path, monkeypatch):
    done = []
    owner, other = (Jobs(tmp_path / "runs", ["cpu"]) for _ in range(2))
    owner.store.prepare()
    owner.add_chore(lambda: done.append("owner"))
    other.add_chore(lambda: done.append("other"))
    owner._supervisor.tick()
    owner._supervisor.tick()
    assert done == ["owner"]
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.0)
    other._supervisor.tick()
    owner._supervisor.tick()
    assert done == ["owner", "owner"]
    owner.close()
    other.close()
