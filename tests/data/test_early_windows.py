"""Windows enter a loader before they are needed where they are at hand; nothing that is told with a batch shows it."""

from __future__ import annotations

from concurrent.futures import wait
from typing import Any

import pytest

from mygpt2.config.mix import MixSource
from mygpt2.data.lane import Windows
from mygpt2.data.loader import Loader
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.mixture import MixedReader, Mixture, Part
from mygpt2.errors import TryAgain, UserError
from tests.data.corpus import Memory, Ranks, Virtual, config, memory, texts
from tests.data.test_mix import going, three


def when_waited_for(windows: Windows) -> bool:
    """As on a machine whose threads are always ahead."""
    wait(windows._asked[0][2])
    return bool(AT_HAND.fget(windows))


AT_HAND: Any = Windows.at_hand
EARLY = {"never": property(lambda _: False), "always": property(when_waited_for), "by chance": AT_HAND}


def told(run: Ranks, steps: int) -> list[Any]:
    """All that is told with each of the next batches."""
    found = []
    for _ in range(steps):
        tokens = run.step()
        found.append([tokens.tolist(), run.rows()])
        for part in run.last:
            found[-1] += [part.cursor.tolist(), part.progress.tolist(), part.quarantine, part.left_out]
            found[-1] += [list(part.left_out_of)]
    return found


def damaged() -> Memory:
    """Sixty blocks, a few of which cannot be read, with empty documents in each."""

    def fail(block: int, nth: int) -> None:
        if block % 9 == 4:
            raise Unreadable(block, "checksum mismatch")

    return Memory([[*texts(6, 6 * block), "", " "] for block in range(60)], fail)


@pytest.mark.parametrize("order", ["lanes", "sequential", "buffer"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_a_batch_tells_does_not_depend_on_when_its_windows_came(tmp_path, monkeypatch, order, ranks) -> None:
    found = {}
    for name, at_hand in EARLY.items():
        monkeypatch.setattr(Windows, "at_hand", at_hand)
        data = config(order=order, max_quarantine=0.2)
        with Ranks(data, tmp_path, ranks, source=damaged()) as run:
            found[name] = told(run, 90)
    assert found["always"] == found["never"] == found["by chance"]
    quarantine = [step[4] for step in found["never"]]
    assert len(set(map(tuple, quarantine))) > 2 or order == "buffer", "blocks are met one by one"


def test_nor_does_it_in_a_mixture_that_is_stopped_and_goes_on(tmp_path, monkeypatch) -> None:
    data = three(tmp_path / "data", weights=(40, 3, 1))  # most steps have no row of the last source
    monkeypatch.setattr(Windows, "at_hand", EARLY["never"])
    with going(data, tmp_path) as run:
        before = told(run, 30)
        state = run.state
        after = told(run, 60)
    for at_hand in EARLY.values():
        monkeypatch.setattr(Windows, "at_hand", at_hand)
        with going(data, tmp_path) as run:
            assert told(run, 30) == before
        with going(data, tmp_path, state=state) as run:
            for now, then in zip(told(run, 60), after, strict=True):
                assert now[:5] == then[:5]  # documents left out are counted by attempt


def uneven() -> dict[str, Any]:
    """Three sources as a loader takes them: of one long document, of many tiny ones, and one with empty and unreadable
    blocks in between."""
    few = Memory([["<long>" + "x" * 9000]] * 3 + [[""]] * 3, block_bytes=1024)
    tiny = Memory([["y" * (1 + i % 3)] for i in range(60)], block_bytes=1024)
    sources = [few, tiny, damaged()]
    parts = [
        Part(name, share, each.manifest) for name, share, each in zip("abc", (0.1, 0.3, 0.6), sources, strict=True)
    ]
    mixture = Mixture.of("uneven", parts)
    return {"manifest": mixture, "reader": MixedReader(mixture, sources)}


def test_every_step_of_uneven_sources_is_gone_on_from_as_if_it_had_not_been_stopped(tmp_path, monkeypatch) -> None:
    data = config(
        source="pydocs", mix=[MixSource(name=name, source=name) for name in "abc"], lanes=2, max_quarantine=0.9
    )
    whole, states = [], []
    monkeypatch.setattr(Windows, "at_hand", EARLY["never"])
    with Ranks(data, tmp_path, **uneven()) as run:
        for _ in range(60):
            whole += told(run, 1)
            states.append(run.state)
    assert len({tuple(step[4]) for step in whole}) > 2, "blocks are met one by one"
    for k, at_hand in zip(range(1, 57), 19 * list(EARLY.values()), strict=False):
        monkeypatch.setattr(Windows, "at_hand", at_hand)
        with Ranks(data, tmp_path, state=states[k - 1], **uneven()) as run:
            for now, then in zip(told(run, 3), whole[k : k + 3], strict=True):
                assert now[:5] == then[:5], f"after step {k}"


def test_windows_that_are_at_hand_make_longer_cuts(tmp_path, monkeypatch) -> None:
    cuts: dict[str, list[int]] = {"never": [], "always": []}
    cut = Loader._cut
    for name, counted in cuts.items():
        monkeypatch.setattr(Windows, "at_hand", EARLY[name])
        monkeypatch.setattr(Loader, "_cut", lambda self, steps, to=counted: to.append(steps) or cut(self, steps))
        with Ranks(config(lanes=8), tmp_path, source=memory(blocks=400)) as run:
            run.steps(300)
    mean = {name: sum(each) / len(each) for name, each in cuts.items()}
    assert mean["always"] > 3 * mean["never"], mean


def test_an_error_of_a_window_that_is_not_needed_yet_waits_for_its_batch(tmp_path, monkeypatch) -> None:
    from mygpt2.data.sources.faults import Outage

    def dies(block: int, nth: int) -> None:
        if block in (20, 41):
            raise Outage("hub answers 503", retry_after=40.0)

    def broken(block: int, nth: int) -> None:
        if block in (20, 41):
            raise Unreadable(block, "checksum mismatch")

    made: dict[str, list[int]] = {}
    for fail, error in ((dies, TryAgain), (broken, UserError)):
        for name, at_hand in EARLY.items():
            monkeypatch.setattr(Windows, "at_hand", at_hand)
            source = Memory([texts(6, 6 * block) for block in range(60)], fail)
            data = config(outage_minutes=2.0, max_quarantine=0.02)
            with Ranks(data, tmp_path, source=source, clock=Virtual()) as run, pytest.raises(error):
                for _ in range(400):
                    run.step()
                    made.setdefault(f"{error.__name__} {name}", []).append(1)
    counts = {name: len(steps) for name, steps in made.items()}
    for error in ("TryAgain", "UserError"):
        assert counts[f"{error} always"] == counts[f"{error} never"] == counts[f"{error} by chance"] > 3, counts
