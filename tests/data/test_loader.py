"""The loader's promises: one sequence of batches whatever the ranks, threads and caches, and exact resume."""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from mygpt2.data.batch import mean_epoch
from mygpt2.data.heldout import held_out
from mygpt2.errors import UserError
from tests.data.corpus import EOT, WRITERS, Bytes, Memory, Ranks, config, memory, poll, sha256, texts

ORDERS = ["lanes", "sequential", "buffer"]


@pytest.mark.parametrize("kind", list(WRITERS))
def test_batches_do_not_depend_on_ranks_threads_or_cache(kind, tmp_path):
    source = WRITERS[kind](tmp_path / "source")
    found = set()
    for ranks in (1, 2, 4):
        for threads in (1, 4):
            cache = tmp_path / f"cache-{ranks}-{threads}"
            for token_cache in (False, True, True):  # without, cold, warm
                data = config(source, threads=threads, token_cache=token_cache)
                with Ranks(data, cache, ranks) as run:
                    found.add(sha256(run.steps(200)))
    assert len(found) == 1


def test_other_seeds_and_epochs_give_other_batches(tmp_path):
    def batches(seed):
        with Ranks(config(), tmp_path, source=memory(), seed=seed, batch_sequences=4) as run:
            return run.steps(400), run.last[0].epoch

    first, epochs = batches(1)
    assert sha256(first) != sha256(batches(2)[0])
    assert epochs > 2
    assert len({batch.tobytes() for batch in first}) == len(first)  # no epoch repeats the batches of another


@pytest.mark.parametrize("order", ["lanes", "buffer"])
def test_the_same_window_has_another_document_order_in_every_epoch(order, tmp_path):
    source = memory(blocks=1, documents=40)
    data = config(order=order, buffer_documents=10, validation_fraction=0.0)
    read: dict[int, list[tuple[int, int]]] = defaultdict(list)
    with Ranks(data, tmp_path, source=source, batch_sequences=1) as run:
        while run.last == [] or run.last[0].epoch < 4:
            run.step()
            found = run.last[0].documents()
            for epoch, document in zip(found.epochs.tolist(), found.documents.tolist(), strict=True):
                if document not in read[epoch]:
                    read[epoch].append(document)
    orders = {tuple(read[epoch]) for epoch in (1, 2, 3)}
    assert len(orders) == 3 and all(sorted(o) == list(range(40)) for o in orders)


@pytest.mark.parametrize("order", ORDERS)
def test_three_epochs_see_every_document_exactly_once_per_lane_epoch(order, tmp_path):
    source = memory(blocks=37, documents=5, block_bytes=1 << 20)
    seen: Counter[tuple[int, int, int, int]] = Counter()  # (epoch, block, document, token of it)
    with Ranks(config(order=order, buffer_documents=64, validation_fraction=0.0), tmp_path, source=source) as run:
        while run.last == [] or run.last[0].cursor[:, 0].min() < 3:
            run.step()
            found = run.last[0].documents()
            entries = list(zip(found.epochs.tolist(), found.blocks.tolist(), found.documents.tolist(), strict=True))
            for start, (a, b) in zip(found.starts.tolist(), pairwise(found.offsets), strict=True):
                tokens = [(*e, i) for e in entries[a:b] for i in range(len(source.blocks[e[1]][e[2]]) + 1)]
                seen.update(tokens[start : start + 32])
    everything = {(b, d, i) for b in range(37) for d in range(5) for i in range(len(source.blocks[b][d]) + 1)}
    for epoch in range(3):
        together = {place[1:]: count for place, count in seen.items() if place[0] == epoch}
        assert set(together) == everything and set(together.values()) == {1}


def test_rows_of_a_document_do_not_follow_one_another(tmp_path):
    source = Memory([["abcdefghij" * 64 + f"<{b}>"] * 4 for b in range(32)], block_bytes=1 << 16)
    following = 0
    with Ranks(config(validation_fraction=0.0), tmp_path, source=source) as run:
        before = run.step()
        for _ in range(200):
            after = run.step()
            following += sum(row[-1] == next_row[0] for row, next_row in zip(before, after, strict=True))
            before = after
    assert following < 200 * 8 * 0.3, "ten letters: one in ten by chance, all of them in file order"


def test_rows_in_file_order_have_stride_block_size_so_every_token_is_a_target_once(tmp_path):
    source = memory(blocks=8, documents=6)
    data = config(order="sequential", lanes=1, validation_fraction=0.0)
    with Ranks(data, tmp_path, source=source, batch_sequences=1) as run:
        rows = np.stack([batch[0] for batch in run.steps(300)])
        assert (rows[1:, 0] == rows[:-1, -1]).all()
        stream = np.concatenate([rows[0], *rows[1:, 1:]])
        parts = np.split(stream, np.flatnonzero(stream == EOT) + 1)[:-1]
    documents = [bytes(part[:-1].tolist()).decode() for part in parts]
    known = texts(48)
    for epoch in range(len(documents) // 48):  # nothing dropped, padded or cut at an epoch's end
        assert sorted(documents[epoch * 48 : (epoch + 1) * 48]) == known


def test_provenance_names_the_documents_that_are_in_the_row(tmp_path):
    source = memory()
    with Ranks(config(), tmp_path, 2, source=source) as run:
        for _ in range(40):
            batch = run.step()
            for slot, lane, documents in run.rows():
                assert lane == slot % 8
                whole = b"\0".join(source.blocks[block][i].encode() for block, i in documents) + b"\0"
                assert bytes(0 if t == EOT else t for t in batch[slot].tolist()) in whole


@pytest.mark.parametrize("order", ORDERS)
def test_resume_is_exact_at_any_point_and_for_any_rank_count(order, tmp_path):
    dice = random.Random(order)
    data = config(order=order, buffer_documents=80)
    with Ranks(data, tmp_path, 1, source=memory(blocks=29)) as run:
        expected = run.steps(150)
    at, state = 0, None
    while at < len(expected):  # kill after kill, across epochs, twice in a row
        ranks = dice.choice([1, 2, 4, 8])
        with Ranks(data, tmp_path, ranks, state=state, source=memory(blocks=29)) as run:
            for _ in range(min(dice.randrange(1, 40), len(expected) - at)):
                assert np.array_equal(run.step(), expected[at])
                at += 1
            state = run.state


@pytest.mark.parametrize("order", ORDERS)
def test_the_cursor_is_that_of_the_consumed_batch_not_of_the_prefetched(order, tmp_path):
    cursors = []
    for prefetch in (2, 64):
        with Ranks(config(order=order, prefetch_steps=prefetch), tmp_path, source=memory()) as run:
            run.steps(30)
            cursors.append(run.state["cursor"])
    assert cursors[0] == cursors[1]


def test_a_start_deep_in_the_data_reads_no_more_than_a_start_at_zero(tmp_path):
    reads = []
    for epoch, window in ((0, 0), (10**6, 2)):
        source = memory(blocks=256, documents=40)
        with Ranks(config(), tmp_path, source=source) as run:
            run.step()
            state = run.state
        state["cursor"] = [[epoch, window, 0, 0, epoch * 1000] for _ in state["cursor"]]
        source.reads.clear()
        with Ranks(config(), tmp_path, source=source, state=state) as run:
            run.step()
        reads.append(len(source.reads))
    assert reads[1] <= 3 * 128  # the window each lane is in, and the one after it being asked for


def test_the_first_batch_needs_one_block_per_lane(tmp_path):
    gate = threading.Event()
    lock, begun = threading.Lock(), []

    def fail(block, nth):
        with lock:
            begun.append(block)
            late = len(begun) > 8
        if late:
            gate.wait(20)

    source = memory(blocks=256, documents=40, fail=fail)
    with Ranks(config(threads=4), tmp_path, source=source) as run:
        try:
            run.step()
        finally:
            gate.set()


def test_the_first_batch_needs_only_a_small_part_of_a_block_per_lane_tokenized(tmp_path):
    gate = threading.Event()

    class Slow(Bytes):
        encoded = 0

        def encode_batch(self, texts):
            self.encoded += len(texts)
            if self.encoded > 8 * 100:  # a sixteenth of each block of 4 MB: 2 MB in all
                gate.wait(20)
            return super().encode_batch(texts)

    source = memory(blocks=64, documents=1600)
    with Ranks(config(threads=1), tmp_path, source=source, tokenizer=Slow()) as run:
        try:
            run.step()
        finally:
            gate.set()


def test_text_that_spells_end_of_text_never_gives_its_id(tmp_path):
    from mygpt2.tokenizer import load_tokenizer

    tokenizer = load_tokenizer("gpt2")
    source = Memory([["one <|endoftext|> two", "<|endoftext|>"] for _ in range(8)])
    for encoder in ("tiktoken", "auto"):
        data = config(validation_fraction=0.0, encoder=encoder)
        with Ranks(data, tmp_path, source=source, tokenizer=tokenizer) as run:
            stream = np.concatenate([batch.ravel() for batch in run.steps(20)])
        cut = np.split(stream, np.flatnonzero(stream == tokenizer.eot_id))
        inner = {tokenizer.decode([t for t in part.tolist() if t != tokenizer.eot_id]) for part in cut[1:-1]}
        assert {"one <|endoftext|> two", "<|endoftext|>"} <= inner


def test_held_out_documents_never_appear(tmp_path):
    source = memory(blocks=40, documents=20)
    kept_out = {t for block in source.blocks for t in block if held_out(t, 0.2)}
    assert 100 < len(kept_out) < 220  # 800 documents at 0.2: 160, five standard deviations of 11.3
    with Ranks(config(validation_fraction=0.2), tmp_path, source=source) as run:
        while run.last == [] or run.last[0].epoch < 1.5:
            run.step()
            for _, _, documents in run.rows():
                assert not kept_out & {source.blocks[b][i] for b, i in documents}
        assert run.last[0].left_out["held_out"] >= len(kept_out)


def test_bad_documents_are_left_out_and_counted(tmp_path):
    good = texts(8)
    bad = ["", "  \n", None, 7, "x" * 200, "\ud800"]
    source = Memory([[g, *bad] for g in good])
    with Ranks(config(max_document_chars=150, validation_fraction=0.0), tmp_path, source=source) as run:
        seen = set()
        while run.last == [] or run.last[0].epoch < 1.5:
            run.step()
            seen |= {source.blocks[b][i] for _, _, documents in run.rows() for b, i in documents}
        counts = run.last[0].left_out
    assert seen == set(good)
    assert counts["not_text"] >= 24 and counts["empty"] >= 16 and counts["too_long"] >= 8


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_source_without_a_training_document_ends_with_an_error(order, ranks, tmp_path):
    source = Memory([["", " "] for _ in range(16)])
    with Ranks(config(order=order), tmp_path, ranks, source=source) as run:
        for loader in run.loaders:
            with pytest.raises(UserError, match="no training document"):
                for _ in range(200):
                    loader.poll(0.1)


def test_a_few_documents_among_empty_blocks_are_found(tmp_path):
    source = Memory([[f"document {b}" * 9] if b % 16 == 3 else [""] for b in range(64)])
    with Ranks(config(validation_fraction=0.0), tmp_path, 2, source=source) as run:
        run.steps(50)


def test_the_fast_encoder_is_refused_where_it_differs_and_used_where_it_agrees(tmp_path, monkeypatch):
    import mygpt2.tokenizer.fast as fast

    class Quick(Bytes):
        pass

    with Ranks(config(), tmp_path, source=memory()) as run:
        expected = run.steps(60)
    for found, mode, name in ((Quick(), "auto", "Quick"), (None, "auto", "Bytes"), (Quick(), "fast", "Quick")):
        monkeypatch.setattr(fast, "fast_encoder", lambda tokenizer, sample, found=found: found)
        with Ranks(config(encoder=mode), tmp_path, source=memory()) as run:
            assert sha256(run.steps(60)) == sha256(expected)
            while run.loaders[0].encoder_name != name:
                run.step()
    monkeypatch.setattr(fast, "fast_encoder", lambda tokenizer, sample: None)
    with (
        Ranks(config(encoder="fast"), tmp_path, source=memory()) as run,
        pytest.raises(UserError, match="encoder=fast"),
    ):
        run.step()


def test_two_loaders_in_one_process_share_nothing(tmp_path):
    with Ranks(config(), tmp_path, source=memory(), seed=1) as alone:
        expected = alone.steps(20)
    with (
        Ranks(config(), tmp_path, source=memory(), seed=1) as one,
        Ranks(config(), tmp_path, source=memory(), seed=2, block_size=16) as other,
    ):
        for batch in expected:
            other.step()
            assert np.array_equal(one.step(), batch)


def test_close_ends_all_threads_even_while_a_read_is_under_way(tmp_path):
    before = set(threading.enumerate())
    gate = threading.Event()
    run = Ranks(config(threads=3), tmp_path, source=memory(fail=lambda block, nth: gate.wait(0.2)))
    assert run.loaders[0].poll(0) is None
    run.__exit__()
    run.__exit__()
    assert set(threading.enumerate()) <= before


def test_batches_are_made_ahead_and_the_first_poll_may_come_late(tmp_path):
    with Ranks(config(prefetch_steps=6), tmp_path, source=memory()) as run:
        loader = run.loaders[0]
        poll(loader)
        while loader._ready.qsize() < 6:
            pass


@pytest.mark.parametrize("ranks", [4, 8])
def test_more_ranks_than_lanes_share_the_rows_of_one(ranks, tmp_path):
    """Also in the middle: a run that began on one rank goes on with many, and back."""
    data, source = config(lanes=2, max_document_chars=100), memory(blocks=9)
    with Ranks(data, tmp_path / "one", 1, source=source) as run:
        calm, rows = [], []
        for _ in range(9):
            calm.append(run.step())
            rows.append(run.rows())
        left_out = run.last[0].left_out
    assert left_out.total() > left_out["met"] > 0
    state, seen = None, []
    for count, steps in ((1, 3), (ranks, 3), (2, 2), (ranks, 1)):
        with Ranks(data, tmp_path / f"{count}-{len(seen)}", count, state=state, source=memory(blocks=9)) as run:
            for _ in range(steps):
                seen.append(run.step())
                assert run.rows() == rows[len(seen) - 1]
            state = run.state
    assert sha256(seen) == sha256(calm)
    with Ranks(data, tmp_path / "count", ranks, source=memory(blocks=9)) as run:
        run.steps(9)
        assert sum((part.left_out for part in run.last), Counter()) == left_out, "what is shared is counted once"


def test_the_epoch_of_all_lanes_does_not_depend_on_the_ranks(tmp_path):
    source, found = memory(), []
    for ranks in (1, 2, 4):
        with Ranks(config(), tmp_path, ranks, source=source) as run:
            run.steps(7)
            progress = np.empty(8)
            for rank, batch in enumerate(run.last):
                progress[rank::ranks] = batch.progress[:, 0]
        found.append(mean_epoch(progress))
    assert found[0] == found[1] == found[2] > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_epoch_is_the_share_of_the_tokens_from_early_in_the_first_pass_on(seed, tmp_path):
    """Documents of very different lengths: one lane alone would be off by half, the mean of all by a tenth."""
    lengths = np.random.default_rng(seed).lognormal(np.log(300), 1.0, (300, 20)).astype(int) + 1
    source = Memory([["x" * length for length in block] for block in lengths.tolist()])
    with Ranks(config(validation_fraction=0.0, lanes=16), tmp_path, source=source, batch_sequences=16) as run:
        steps = int((lengths + 1).sum()) // (16 * 32)
        for step in range(1, steps // 2):
            run.step()
            if step >= steps // 20:
                assert run.last[0].epoch == pytest.approx(step / steps, rel=0.12)
