"""Whatever is left out of the data is counted over all ranks, told, and an alert when it is more than a thousandth."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.filters import Filtered
from mygpt2.errors import UserError
from mygpt2.train.left_out import LeftOut
from tests.data.corpus import Memory, Ranks, config, memory, texts


class Together:
    """Ranks as threads: `gather` as World has it."""

    def __init__(self, rank: int, size: int, shared: list, barrier: threading.Barrier) -> None:
        self.rank, self.size, self.lead, self._shared, self._barrier = rank, size, rank == 0, shared, barrier

    def gather(self, array):
        self._shared[self.rank] = array
        self._barrier.wait(20)
        found = list(self._shared)
        self._barrier.wait(20)
        return found


class Written:
    """A recorder of which only rank 0 has a writer."""

    def __init__(self, lead: bool) -> None:
        self.writer = self if lead else None
        self.lines, self.dropped, self.events, self.said = 100, 0, [], []

    def event(self, kind, **fields):
        self.events.append({"kind": kind, **fields})

    def say(self, text):
        self.said.append(text)


class Watched:
    """All ranks of a run with what they tell about it; `step` as the training loop does it."""

    def __init__(self, data, cache, ranks, source) -> None:
        self.run = Ranks(data, cache, ranks, source=source)
        shared, barrier = [None] * ranks, threading.Barrier(ranks)
        self.recorders = [Written(rank == 0) for rank in range(ranks)]
        self.left_out = [
            LeftOut(Together(rank, ranks, shared, barrier), recorder, loader)
            for rank, (recorder, loader) in enumerate(zip(self.recorders, self.run.loaders, strict=True))
        ]
        self.pool, self.steps = ThreadPoolExecutor(ranks), 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.run.__exit__()
        self.pool.shutdown()

    def on_all(self, act) -> None:
        problems = [f.exception() for f in [self.pool.submit(act, one) for one in self.left_out]]
        if any(problems):
            assert len({str(p) for p in problems}) == 1  # every rank ends alike
            raise problems[0]

    def step(self) -> None:
        self.run.step()
        if any([one.news(batch) for one, batch in zip(self.left_out, self.run.last, strict=True)]):
            self.on_all(lambda one: one.tell(self.steps + 1))
            self.on_all(lambda one: one.check())
        self.steps += 1

    def finish(self) -> None:
        self.on_all(lambda one: one.tell(self.steps, last=True))

    def events(self, kind):
        return [event for event in self.recorders[0].events if event["kind"] == kind]


def broken(block, nth):
    if block in (5, 17, 40):
        raise Unreadable(block, "checksum mismatch")


def test_more_unreadable_blocks_than_allowed_stop_the_run_in_the_same_step_on_any_number_of_ranks(tmp_path):
    ends = set()
    for ranks in (1, 2, 4, 8):
        with Watched(config(max_quarantine=0.04), tmp_path, ranks, memory(fail=broken)) as run:
            with pytest.raises(UserError, match=r"3 of 60 blocks .*checksum mismatch.*max_quarantine=0.04 allows 2"):
                for _ in range(200):
                    run.step()
            ends.add(run.steps)
    assert len(ends) == 1


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_quarantine_is_said_names_the_block_and_raises_an_alert(ranks, tmp_path):
    with Watched(config(max_quarantine=0.1), tmp_path, ranks, memory(fail=broken)) as run:
        while len(run.run.state["quarantine"] if run.run.last else ()) < 3:
            run.step()
    last = run.events("left_out")[-1]
    assert last["counts"]["blocks"] == 3 and last["of"]["blocks"] == 60 and last["share"] == 0.05
    assert last["blocks"] == {f"memory, row group {b}": "checksum mismatch" for b in (5, 17, 40)}
    assert "3 of 60 blocks unreadable" in run.recorders[0].said[-1]
    alerts = run.events("alert")
    assert len(alerts) == 1 and alerts[0]["level"] == "warning" and alerts[0]["about"] == "left_out"
    assert not any(recorder.events for recorder in run.recorders[1:])


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_documents_left_out_are_added_up_over_the_ranks(ranks, tmp_path):
    source = Memory([[*texts(4, b * 4), "", None] for b in range(40)])
    with Watched(config(validation_fraction=0.0), tmp_path, ranks, source) as run:
        while not run.run.last or min(batch.epoch for batch in run.run.last) < 1:
            run.step()
        run.finish()
    last = run.events("left_out")[-1]
    assert last["counts"]["empty"] == last["counts"]["not_text"] >= 40
    assert last["of"]["documents"] == 6 * last["counts"]["empty"]
    assert last["share"] == pytest.approx(1 / 6)
    assert len(run.events("left_out")) < 12  # told when it has doubled, not at every step
    assert len(run.events("alert")) == 2  # a kind each


def test_what_a_filter_leaves_out_is_told_with_its_reason_and_raises_no_alert(tmp_path):
    source = Memory([[*texts(4, b * 4), Filtered("score below 3"), Filtered("no score")] for b in range(40)])
    with Watched(config(validation_fraction=0.0), tmp_path, 2, source) as run:
        while not run.run.last or min(batch.epoch for batch in run.run.last) < 1:
            run.step()
        run.finish()
    last = run.events("left_out")[-1]
    assert last["counts"]["score below 3"] == last["counts"]["no score"] >= 40
    assert last["of"]["documents"] == 6 * last["counts"]["no score"] and last["counts"]["empty"] == 0
    assert last["share"] == pytest.approx(1 / 6) and not run.events("alert")
    count = last["counts"]["no score"]
    assert (
        f"{2 * count} of {6 * count} documents ({count} no score, {count} score below 3)" in run.recorders[0].said[-1]
    )


def test_documents_of_which_all_are_left_out_are_counted_though_their_blocks_make_no_window(tmp_path):
    source = Memory([texts(6, b * 6) if b % 2 else [None] * 6 for b in range(40)])
    with Watched(config(validation_fraction=0.0), tmp_path, 1, source) as run:
        while not run.run.last or run.run.last[0].epoch < 3:
            run.step()
        run.finish()
    last = run.events("left_out")[-1]
    assert last["share"] == pytest.approx(0.5, abs=0.05)


def test_a_run_that_leaves_nothing_out_tells_nothing(tmp_path):
    with Watched(config(), tmp_path, 2, memory()) as run:  # some documents are held out on purpose
        for _ in range(30):
            run.step()
        run.finish()
    assert not run.recorders[0].events and not run.recorders[0].said


def test_less_than_a_thousandth_is_told_without_an_alert(tmp_path):
    source = Memory([texts(50, b * 50) for b in range(40)])
    source.blocks[7][3] = ""
    with Watched(config(), tmp_path, 1, source) as run:
        while not run.run.last or run.run.last[0].epoch < 1.2:
            run.step()
        run.finish()
    assert run.events("left_out")[-1]["counts"]["empty"] >= 1 and not run.events("alert")


def test_lines_without_room_are_counted(tmp_path):
    with Watched(config(), tmp_path, 1, memory()) as run:
        run.step()
        run.recorders[0].dropped = 3
        run.step()
    assert run.events("left_out")[-1]["counts"]["log_lines"] == 3


def test_damaged_cache_entries_are_counted(tmp_path):
    data, source = config(token_cache=True), memory()
    with Watched(data, tmp_path, 1, source) as run:
        while not run.run.last or run.run.last[0].epoch < 1:
            run.step()
    for path in list(tmp_path.rglob("*.tokens"))[:5]:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with Watched(data, tmp_path, 2, source) as run:
        while not run.run.last or min(batch.epoch for batch in run.run.last) < 1.5:  # all that the first had read ahead
            run.step()
        run.finish()
        looked_up = sum(loader.cache.hits + loader.cache.corrupt for loader in run.run.loaders)
    last = run.events("left_out")[-1]
    assert looked_up >= 40 and last["counts"]["cache_entries"] == 5
    assert 5 <= last["of"]["cache_entries"] <= looked_up, "of those that were looked up when the fifth was met"
    assert "5 of" in run.events("alert")[-1]["message"]
