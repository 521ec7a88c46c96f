"""Quarantine, outages, damaged caches, changed data: the batches stay what they are, or an error says why."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mygpt2.data.cache import TokenCache
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.tokenize import TokenBlock
from mygpt2.errors import TryAgain, UserError
from tests.data.corpus import Ranks, Virtual, config, memory, sha256, write_parquet

BAD = {5, 17, 40}


def broken(block, nth):
    if block in BAD:
        raise Unreadable(block, "checksum mismatch")


@pytest.mark.parametrize("order", ["lanes", "sequential", "buffer"])
def test_quarantine_is_the_same_for_all_ranks_and_on_resume(order, tmp_path):
    data = config(order=order, max_quarantine=0.1)
    with Ranks(data, tmp_path, 1, source=memory(fail=broken)) as run:
        expected = run.steps(90)
        assert set(run.state["quarantine"]) == BAD
    for ranks in (2, 4):
        with Ranks(data, tmp_path, ranks, source=memory(fail=broken)) as run:
            assert sha256(run.steps(40)) == sha256(expected[:40])
            state = run.state
        source = memory(fail=broken)
        with Ranks(data, tmp_path, 2, source=source, state=state) as run:
            assert sha256(run.steps(50)) == sha256(expected[40:])
        assert not set(source.reads) & set(state["quarantine"])  # not even tried


def test_a_block_enters_the_quarantine_with_the_batch_that_needs_it_not_with_its_prefetch(tmp_path):
    lists = []
    for prefetch in (2, 64):
        with Ranks(config(prefetch_steps=prefetch, max_quarantine=0.1), tmp_path, source=memory(fail=broken)) as run:
            found = []
            for _ in range(60):
                run.step()
                found.append(tuple(run.last[0].quarantine))
            lists.append(found)
    assert lists[0] == lists[1]
    assert len(set(lists[0])) > 2


def test_documents_of_a_quarantined_block_never_appear_and_all_others_do(tmp_path):
    seen = set()
    with Ranks(config(max_quarantine=0.1, validation_fraction=0.0), tmp_path, source=memory(fail=broken)) as run:
        while run.last == [] or run.last[0].epoch < 1.5:
            run.step()
            seen |= {pair for _, _, documents in run.rows() for pair in documents}
    assert seen == {(b, i) for b in range(60) for i in range(6) if b not in BAD}


def test_more_unreadable_blocks_than_allowed_stop_the_run_and_name_one(tmp_path):
    with (
        Ranks(config(max_quarantine=0.04), tmp_path, source=memory(fail=broken)) as run,
        pytest.raises(UserError, match=r"3 of 60 blocks .*memory, row group .*checksum mismatch.*max_quarantine=0.04"),
    ):
        run.steps(200)


def test_an_outage_is_waited_out_and_changes_nothing(tmp_path):
    def flaky(block, nth):
        if nth <= block % 4:
            raise Outage("hub answers 503")

    with Ranks(config(), tmp_path, source=memory()) as run:
        expected = run.steps(60)
    with Ranks(config(), tmp_path, 2, source=memory(fail=flaky), clock=Virtual()) as run:
        assert sha256(run.steps(60)) == sha256(expected)


def test_an_outage_beyond_its_budget_ends_in_try_again_after_the_batches_made_before(tmp_path):
    def dies(block, nth):
        if block == 40:
            raise Outage("hub answers 503", retry_after=40.0)

    clock = Virtual()
    with Ranks(config(outage_minutes=2.0, order="sequential"), tmp_path, source=memory(fail=dies), clock=clock) as run:
        loader, made = run.loaders[0], 0
        with pytest.raises(TryAgain, match=r"hub answers 503, out of reach for 1\d\d s; data.outage_minutes=2"):
            for _ in range(400):
                made += loader.poll(0.05) is not None
        with pytest.raises(TryAgain):
            loader.poll(0.0)
    assert made > 0
    assert clock.time >= 120.0


def test_waiting_says_why_the_batch_is_late(tmp_path):
    class Frozen(Virtual):
        def wait(self, stop, seconds):
            return stop.wait()  # until the loader is closed

    def dies(block, nth):
        raise Outage("hub answers 503")

    with Ranks(config(), tmp_path, source=memory(fail=dies), clock=Frozen()) as run:
        loader = run.loaders[0]
        while loader.waiting is None:
            assert loader.poll(0.0) is None
        assert loader.waiting == "hub answers 503, retrying, 0 s of 1800 s"


def cached_files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.tokens"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "header"])
def test_a_damaged_cache_file_is_noticed_and_made_anew(damage, tmp_path):
    source = write_parquet(tmp_path / "source")
    data = config(source, token_cache=True, threads=1)
    with Ranks(data, tmp_path) as run:
        expected = sha256(run.steps(200))
    files = cached_files(tmp_path)
    for path in files[::3]:
        content = bytearray(path.read_bytes())
        if damage == "truncate":
            content = content[:-5]
        elif damage == "empty":
            content = bytearray()
        else:
            content[20 if damage == "header" else -3] ^= 4
        path.write_bytes(content)
    with Ranks(data, tmp_path) as run:
        assert sha256(run.steps(200)) == expected
        cache = run.loaders[0].cache
        assert cache.corrupt == len(files[::3]) and cache.hits > 0
    with Ranks(data, tmp_path) as run:
        assert sha256(run.steps(200)) == expected
        assert run.loaders[0].cache.corrupt == 0


def test_a_warm_cache_reads_no_text(tmp_path):
    for expected in (45, 0):
        source = memory(blocks=45)
        with Ranks(config(token_cache=True), tmp_path, source=source) as run:
            while run.last == [] or run.last[0].epoch < 1.1:
                run.step()
        assert len(set(source.reads)) == expected


@pytest.mark.parametrize("change", [{"validation_fraction": 0.2}, {"max_document_chars": 101}])
def test_the_cache_keeps_apart_what_other_settings_made(change, tmp_path):
    with Ranks(config(token_cache=True), tmp_path, source=memory()) as run:
        run.steps(30)
    with Ranks(config(**change), tmp_path / "other", source=memory()) as run:
        expected = sha256(run.steps(30))
    with Ranks(config(token_cache=True, **change), tmp_path, source=memory()) as run:
        assert sha256(run.steps(30)) == expected


def token_block(tokens: int) -> TokenBlock:
    return TokenBlock(0, np.arange(tokens, dtype=np.uint16), np.array([tokens], np.int64), {"empty": 2})


def test_the_cache_stays_below_its_cap_and_drops_the_least_recently_used(tmp_path):
    cache = TokenCache(tmp_path, cap_bytes=10_500)
    keys = [TokenCache.key(i) for i in range(12)]
    for i, key in enumerate(keys[:9]):
        cache.put(key, token_block(500))
        path = next(tmp_path.rglob(key + "*"))
        os.utime(path, (i, i))
    assert cache.get(keys[0], 7) is not None  # used just now
    for key in keys[9:]:
        cache.put(key, token_block(500))
    kept = [i for i, key in enumerate(keys) if cache.get(key, 0) is not None]
    assert sum(path.stat().st_size for path in cached_files(tmp_path)) <= 10_500
    assert 0 in kept and 1 not in kept and 11 in kept


def test_the_cache_gives_back_what_was_put(tmp_path):
    cache = TokenCache(tmp_path, cap_bytes=10**6)
    for dtype in (np.uint16, np.uint32):
        block = TokenBlock(3, np.array([1, 65_000, 7], dtype), np.array([0, 2, 1]), {"held_out": 1})
        cache.put("ab" * 20, block)
        found = cache.get("ab" * 20, 3)
        assert found is not None and found.ids.dtype == dtype
        assert found.ids.tolist() == [1, 65_000, 7] and found.lengths.tolist() == [0, 2, 1]
        assert found.left_out == {"held_out": 1} and found.block == 3


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path):
    (tmp_path / "tokens").write_text("a file where the folder should be")
    with Ranks(config(token_cache=True), tmp_path, source=memory()) as run:
        run.steps(20)
        assert f"the cache folder {tmp_path} cannot be written" in run.loaders[0].cache.failure


def state_and_next(tmp_path, **given):
    with Ranks(config(), tmp_path, source=memory(), **given) as run:
        run.steps(20)
        state = run.state
        return state, run.steps(5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 2}, "seed was 1, is 2"),
        ({"block_size": 16}, "block_size was 32, is 16"),
        ({"batch_sequences": 16}, "16"),
    ],
)
def test_a_changed_setting_is_refused_with_its_name_and_the_way_to_fork(change, word, tmp_path):
    state, _ = state_and_next(tmp_path)
    with pytest.raises(UserError) as error:
        Ranks(config(), tmp_path, source=memory(), state=state, **change)
    assert word in str(error.value) and "--data.fork true" in str(error.value)


def test_changed_data_is_refused(tmp_path):
    state, _ = state_and_next(tmp_path)
    other = memory()
    other.blocks[3][2] = "another text"
    with pytest.raises(UserError, match="data was"):
        Ranks(config(), tmp_path, source=other, state=state)
    with Ranks(config(fork=True), tmp_path, source=other, state=state) as run:
        run.steps(5)
        assert run.last[0].cursor[:, 0].tolist() == [0] * 8


def test_a_fork_of_the_batch_alone_keeps_the_place_of_every_lane(tmp_path):
    state, following = state_and_next(tmp_path)
    with Ranks(config(lanes=8), tmp_path, source=memory(), state=state, batch_sequences=16, fork=True) as run:
        batch = run.step()
    assert np.array_equal(batch[:8], following[0]) and np.array_equal(batch[8:], following[1])


def test_a_fork_of_the_seed_goes_on_in_an_epoch_not_yet_begun(tmp_path):
    state, _ = state_and_next(tmp_path)
    with Ranks(config(), tmp_path, source=memory(), state=state, seed=2, fork=True) as run:
        run.step()
        assert run.last[0].cursor[:, 0].min() == max(row[0] for row in state["cursor"]) + 1
