"""The block order: every block once an epoch, evenly spread, any index at once."""

from __future__ import annotations

import numpy as np
import pytest

from mygpt2.data.order import BlockOrder, permutation, shuffled_index
from mygpt2.data.shape import Shape, choose_shape, owned
from mygpt2.errors import UserError
from tests.data.corpus import Memory, config


def sized(blocks, block_bytes=4 << 20):
    """The manifest of a set of so many blocks of that size."""
    return Memory([[]] * blocks, block_bytes=block_bytes).manifest


SIZES = [*range(1, 40), 63, 64, 65, 127, 128, 129, 500, 997, 1999, 2000]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 255, 1000])
def test_a_keyed_index_permutation_is_a_bijection(count):
    for key in (0, 1, 2**127 + 5):
        assert sorted(shuffled_index(i, count, key) for i in range(count)) == list(range(count))


def test_a_keyed_index_permutation_sends_an_index_everywhere_about_equally_often():
    # 6 cells, 6,000 keys: chi-square with 5 degrees of freedom is above 25.7 once in 10,000 such sets of keys.
    for index in (0, 5):
        counts = np.bincount([shuffled_index(index, 6, key * 0x9E3779B97F4A7C15) for key in range(6000)], minlength=6)
        assert ((counts - 1000.0) ** 2 / 1000.0).sum() < 25.7


@pytest.mark.parametrize(("lanes", "window"), [(1, 1), (1, 128), (2, 4), (8, 3), (16, 8), (64, 2)])
def test_every_epoch_is_a_bijection_of_the_blocks(lanes, window):
    for blocks in SIZES:
        if blocks < lanes:
            continue
        order = BlockOrder(blocks, lanes, max(1, min(window, blocks // lanes)), seed=3)
        for epoch in (0, 1):
            assert sorted(order.block_at(epoch, i) for i in range(blocks)) == list(range(blocks))


@pytest.mark.parametrize(
    ("blocks", "lanes", "window", "first", "share"),
    [
        (1000, 8, 16, 1, 1),
        (1003, 16, 8, 1, 1),
        (640, 4, 1, 1, 8),
        (50, 3, 5, 1, 1),
        (50, 3, 16, 16, 64),
        (1003, 16, 8, 4, 2),
        (162, 16, 10, 8, 32),
    ],
)
def test_lanes_windows_and_epochs_cover_every_block_once(blocks, lanes, window, first, share):
    order = BlockOrder(blocks, lanes, window, seed=9, first=first, share=share)
    for epoch in (0, 1, 2):
        seen = []
        for lane in range(lanes):
            at, read = (epoch, 0), []
            while at[0] == epoch:
                part = order.part_of(*at)
                read += order.window_blocks(lane, *at) if part is None or part[0] == 0 else []
                at = order.following(lane, *at)
            assert len(read) == order.lane_blocks(lane) and at == (epoch + 1, 0)
            seen += read
        assert sorted(seen) == list(range(blocks))


def test_a_window_and_the_windows_of_all_lanes_are_spread_evenly():
    order = BlockOrder(1024, lanes=8, window=16, seed=5)
    stratum = 1024 // (8 * 16)
    for epoch, window in ((0, 15), (1, 2), (1, 5)):
        together = []
        for lane in range(8):
            blocks = order.window_blocks(lane, epoch, window)
            assert sorted(b // (stratum * 8) for b in blocks) == list(range(16))  # one of each of 16 regions
            together += blocks
        assert sorted(b // stratum for b in together) == list(range(128))  # one of each stratum


def test_windows_ramp_in_the_first_epoch_only():
    order = BlockOrder(800, lanes=4, window=16, seed=0)

    def sizes(epoch):
        return [len(order.window_blocks(1, epoch, w)) for w in range(14)]

    assert sizes(0) == [1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 16, 16, 16]  # the first seven are parts of one block
    assert order.parts == (0, 1, 2, 4, 8, 16, 32, 64)
    assert [order.part_of(0, w) for w in (0, 1, 6, 7)] == [(0, 1), (1, 2), (32, 64), None]
    assert sizes(1)[:12] == [16] * 12 and order.part_of(1, 0) is None
    assert [order.progress(1, 0, w, 0.5) * 200 for w in (0, 1, 6, 7)] == [0.5 / 64, 1.5 / 64, 0.75, 1.5]


def test_seeds_and_epochs_give_other_orders():
    def read(seed, epoch):
        order = BlockOrder(200, 4, 8, seed)
        return [order.block_at(epoch, i) for i in range(200)]

    orders = [read(1, 0), read(2, 0), read(1, 1), read(1, 10**6)]
    assert len({tuple(o) for o in orders}) == 4


GOLDEN_BLOCKS = [42, 83, 65, 17, 99, 54, 5, 32, 60, 10, 28, 90]
GOLDEN_DOCUMENTS = [2, 3, 0, 4, 5, 6, 7, 1]


def test_the_order_is_the_same_on_every_machine():
    # Made by this program in version 0.1.0: a change of these numbers breaks the resume of every earlier run.
    order = BlockOrder(100, 4, 4, seed=7)
    assert [order.block_at(1, i) for i in range(12)] == GOLDEN_BLOCKS
    assert permutation(8, "documents", 7, 0, 1, 2).tolist() == GOLDEN_DOCUMENTS


def test_lanes_and_windows_are_chosen_from_data_and_batch():
    assert choose_shape(config(), sized(14_000), 512, 8) == Shape(64, 2)
    assert choose_shape(config(), sized(14_000), 480, 1) == Shape(60, 2)
    assert choose_shape(config(), sized(14_000), 16, 2) == Shape(16, 8, 1, 2)
    assert choose_shape(config(), sized(5), 512, 1) == Shape(4, 1, 1, 8)
    assert choose_shape(config(lanes=8, window=3), sized(14_000), 512, 4) == Shape(8, 3, 1, 4)
    assert choose_shape(config(order="sequential"), sized(14_000), 512, 4) == Shape(64, 1)


def test_of_small_blocks_a_lane_takes_more_and_begins_with_several():
    small = 60_000  # bytes of a block as stored
    assert choose_shape(config(), sized(160, small), 16, 1) == Shape(16, 10, 10, 8), "the whole set is one window"
    assert choose_shape(config(), sized(20_000, small), 16, 1) == Shape(16, 256, 16, 8)
    assert choose_shape(config(), sized(20_000, small), 512, 1) == Shape(64, 64, 4, 8)
    assert choose_shape(config(window=8), sized(20_000, small), 16, 1) == Shape(16, 8, 8, 16)
    assert choose_shape(config(order="buffer"), sized(160, small), 16, 1) == Shape(16, 1)


def test_windows_ramp_from_the_blocks_a_lane_begins_with():
    order = BlockOrder(800, lanes=4, window=16, seed=0, first=4)
    assert [len(order.window_blocks(1, 0, w)) for w in range(11)] == [4] * 8 + [8, 16, 16]
    assert [order.progress(1, 0, w, 0.5) * 200 for w in (0, 1, 6, 7)] == [4 * 0.5 / 64, 4 * 1.5 / 64, 3.0, 6.0]
    quarter = BlockOrder(800, lanes=4, window=10, seed=0, first=10, share=16)
    assert quarter.parts == (0, 16, 32, 64)
    assert [len(quarter.window_blocks(1, 0, w)) for w in range(5)] == [10] * 5
    assert [quarter.progress(1, 0, w, 0.5) * 200 for w in (0, 1, 2, 3)] == [1.25, 3.75, 7.5, 15.0]
    whole = BlockOrder(800, lanes=4, window=10, seed=0, first=10, share=64)
    assert whole.part_of(0, 0) == (0, 64) and whole.part_of(0, 1) is None


@pytest.mark.parametrize(
    ("settings", "blocks", "batch", "ranks", "words"),
    [
        ({"lanes": 100}, 60, 400, 1, ["data.lanes=100", "60 blocks", "nearest legal: 50"]),
        ({"lanes": 6}, 600, 512, 1, ["data.lanes=6", "512", "nearest: 4, 8"]),
        ({}, 600, 512, 3, ["world_size=3", "64 lanes", "nearest numbers of ranks: 2, 4"]),
        ({}, 600, 512, 96, ["world_size=96", "64 lanes", "nearest numbers of ranks: 64, 128"]),
        ({}, 600, 512, 1024, ["world_size=1024", "512 sequences", "nearest numbers of ranks: 512"]),
        ({}, 1, 512, 3, ["world_size=3", "512 sequences", "nearest numbers of ranks: 2, 4"]),
    ],
)
def test_impossible_shapes_name_the_nearest_legal_values(settings, blocks, batch, ranks, words):
    with pytest.raises(UserError) as error:
        choose_shape(config(**settings), sized(blocks), batch, ranks)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)


def test_1024_ranks_have_every_row_once_and_one_of_each_lane_speaks_for_it():
    shape = choose_shape(config(), sized(4096), batch_sequences=1024, world_size=1024)
    each = [owned(shape.lanes, rank, 1024) for rank in range(1024)]
    slots = [row * shape.lanes + lane for mine in each for row in mine.rows(1024 // shape.lanes) for lane in mine.lanes]
    assert sorted(slots) == list(range(1024))
    assert sorted(lane for mine in each if mine.part == 0 for lane in mine.lanes) == list(range(shape.lanes))
    assert all(set(each[i].lanes) == set(each[i ^ 1].lanes) for i in range(1024)), "neighbours read the same text"
