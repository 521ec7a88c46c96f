"""A plan of many ranks, without as many processes: the loaders of all of them in one, and who has what."""

from __future__ import annotations

import numpy as np

from mygpt2.config import load_config
from mygpt2.config.batch import plan_batch
from mygpt2.data.loader import Loader
from mygpt2.data.shape import choose_shape, owned
from tests.data.corpus import Bytes, Ranks, config, memory, sha256
from tests.data.test_order import sized

BATCH = {"batch_sequences": 256, "block_size": 16}
SETTINGS = {"threads": 1, "prefetch_steps": 2, "validation_fraction": 0.0}


def going_on(tmp_path, ranks, state, steps):
    with Ranks(
        config(**SETTINGS), tmp_path / str(ranks), ranks, state=state, source=memory(blocks=200), **BATCH
    ) as run:
        return (
            run.steps(steps),
            run.state,
            [loader.places(part) for loader, part in zip(run.loaders, run.last, strict=True)],
        )


def test_a_run_begun_on_8_ranks_goes_on_with_128_with_the_same_batches_and_ends_at_the_same_place(tmp_path):
    """64 lanes: first 8 of them for each rank, then 2 ranks for each of them."""
    _, state, _ = going_on(tmp_path, 8, None, 2)
    assert state["fingerprint"]["lanes"] == 64
    few, after_few, places_few = going_on(tmp_path, 8, state, 3)
    many, after_many, places_many = going_on(tmp_path, 128, state, 3)
    assert sha256(many) == sha256(few) != sha256(few[:2])
    assert after_many == after_few != state
    np.testing.assert_array_equal(sum(places_many), sum(places_few))
    assert (sum(places_few)[:, :-1] == np.array(after_few["cursor"])).all(), "the sum over the ranks is all's position"
    back, after_back, _ = going_on(tmp_path, 8, after_many, 1)
    on, after_on, _ = going_on(tmp_path, 128, after_few, 1)
    assert sha256(back) == sha256(on) and after_back == after_on


def test_a_plan_of_gpt2_xl_on_1024_ranks_gives_each_its_rows_and_each_lane_one_who_speaks_for_it(tmp_path):
    model = load_config("gpt2-xl", overrides=["--train.batch_tokens", str(1 << 20)])
    plan = plan_batch(1 << 20, model.model.block_size, None, 1024, None, 8)
    assert (plan.sequences, plan.per_rank, plan.micro_batch, plan.accumulation) == (1024, 1, 1, 1)
    source = sized(14_000)
    shapes = [choose_shape(model.data, source, plan.sequences, ranks) for ranks in (1, 8, 128, 1024)]
    assert shapes == [shapes[0]] * 4, "the order of the data does not depend on the ranks"
    slots, spoken = [], np.zeros(shapes[0].lanes, int)
    for rank in range(1024):
        mine = owned(shapes[0].lanes, rank, 1024)
        slots += [row * shapes[0].lanes + lane for row in mine.rows(1024 // shapes[0].lanes) for lane in mine.lanes]
        spoken[mine.lanes] += mine.part == 0
    assert sorted(slots) == list(range(1024)) and (spoken == 1).all()


def test_single_ranks_of_1024_read_what_one_rank_alone_has_in_their_slots(tmp_path):
    given = {"tokenizer": Bytes(), "seed": 1, "block_size": 16, "batch_sequences": 1024, "cache_dir": tmp_path}
    source, data = memory(blocks=70), config(**SETTINGS)
    with Ranks(data, tmp_path, 1, source=source, **{**BATCH, "batch_sequences": 1024}) as run:
        whole = run.steps(2)
    for rank in (0, 511, 1023):
        with Loader(
            data, rank=rank, world_size=1024, manifest=source.manifest, reader=memory(blocks=70), **given
        ) as one:
            for batch in whole:
                part = one.poll(20.0)
                assert part is not None and len(part.slots) == 1
                np.testing.assert_array_equal(part.tokens, batch[part.slots])
