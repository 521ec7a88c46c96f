"""The trace and the coverage ledger: what each batch was made of, and what was read how often."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from mygpt2.data.ledger import coverage
from mygpt2.data.trace import (
    STEPS_PER_FILE,
    TraceWriter,
    documents_of_step,
    read_manifests,
    read_trace,
    trace_files,
)
from tests.data.corpus import EOT, Ranks, config, memory, texts, write_parquet


def losses(step, part):
    return part.slots + step / 1000


def write(run, folder, attempt, steps):
    writers = [
        TraceWriter(folder / "trace", attempt, rank, loader.manifest if rank == 0 else None)
        for rank, loader in enumerate(run.loaders)
    ]
    for step in steps:
        run.step()
        for writer, part in zip(writers, run.last, strict=True):
            writer.add(step, part, losses(step, part))
    for writer in writers:
        writer.flush()


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_documents_of_a_step_are_those_of_its_rows(ranks, tmp_path):
    source = write_parquet(tmp_path / "source")
    known = texts(360)
    with Ranks(config(source), tmp_path, ranks) as run:
        write(run, tmp_path, 0, range(1, 8))
        batch, rows = run.step(), run.rows()
        writer = TraceWriter(tmp_path / "trace", 0, 0)
        for part in run.last:
            writer.add(8, part, losses(8, part))
        writer.flush()
    found = documents_of_step(tmp_path, 8)
    assert [(r.slot, r.lane) for r in found] == [(slot, lane) for slot, lane, _ in rows]
    assert [round(r.loss - r.slot, 3) for r in found] == [0.008] * 8
    for row in found:
        whole = "\0".join(known[120 * int(f[5]) + 8 * group + i] for f, group, i in row.documents) + "\0"
        assert "".join("\0" if t == 256 else chr(t) for t in batch[row.slot].tolist()) in whole
    assert documents_of_step(tmp_path, 9) == []


def test_the_later_attempt_wins_from_its_first_step_on(tmp_path):
    with Ranks(config(), tmp_path, 2, source=memory()) as run:
        write(run, tmp_path, 1, range(1, 11))
        write(run, tmp_path, 2, range(6, 9))
        write(run, tmp_path, 3, range(8, 10))
    table = read_trace(tmp_path)
    attempts = dict(zip(table["step"].to_pylist(), table["attempt"].to_pylist(), strict=True))
    assert attempts == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 3, 9: 3}
    assert table.num_rows == 9 * 8
    assert read_trace(tmp_path, 7, 8)["step"].unique().to_pylist() == [7, 8]
    assert len(trace_files(tmp_path)) == 6  # what was overwritten is still there


def test_files_are_written_by_and_by_and_whole(tmp_path):
    with Ranks(config(), tmp_path, source=memory(), batch_sequences=1) as run:
        writer = TraceWriter(tmp_path / "trace", 0, 0)
        for step in range(STEPS_PER_FILE + 5):
            run.step()
            writer.add(step, run.last[0], np.zeros(1))
            if writer.full:
                writer.flush()
    assert [(f.first, f.last) for f in trace_files(tmp_path)] == [(0, STEPS_PER_FILE - 1)]
    assert not list((tmp_path / "trace").glob("*.part"))


def gathering(sent):
    """As three ranks of a node would: the first comes last, and gets what the others sent."""

    def gather(data):
        sent.append(data)
        return [sent[-1], *sent[:-1]] if len(sent) == 3 else []

    return gather


def test_the_ranks_of_a_node_write_one_file_and_the_rows_of_all_are_read_back(tmp_path, monkeypatch):
    with Ranks(config(lanes=3), tmp_path, 3, source=memory(), batch_sequences=6) as run:
        writers = [TraceWriter(tmp_path / "trace", 1, rank, node=4) for rank in range(3)]

        def trained(steps):
            for step in steps:
                run.step()
                for writer, part in zip(writers, run.last, strict=True):
                    writer.add(step, part, losses(step, part))

        def together():
            gather = gathering([])
            for writer in reversed(writers):
                writer.hand_over(gather)
            for writer in writers:
                writer.flush()

        trained(range(1, 4))
        together()
        trained(range(4, 6))
        with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
            patch.setattr("mygpt2.data.trace.replace_file", full)
            together()
        trained(range(6, 8))
        together()
        trained(range(8, 9))
        for writer in writers:
            writer.flush()  # a rank failed: each by itself
    names = [file.path.name for file in trace_files(tmp_path)]
    node = "attempt-0001-node-0004-step-{:08d}-{:08d}.parquet"
    alone = [f"attempt-0001-rank-{rank:04d}-step-00000008-00000008.parquet" for rank in range(3)]
    assert names == [node.format(1, 3), node.format(4, 7), *alone]
    table = read_trace(tmp_path).to_pydict()
    assert list(zip(table["step"], table["slot"], strict=True)) == [(s, slot) for s in range(1, 9) for slot in range(6)]
    assert [round(loss - slot, 3) for loss, slot in zip(table["loss"], table["slot"], strict=True)] == [
        step / 1000 for step in table["step"]
    ]


def full(*_):
    raise OSError(28, "full")


def test_the_manifest_from_before_a_fork_is_kept(tmp_path):
    for source in (memory(), memory(), memory(blocks=20)):
        TraceWriter(tmp_path / "trace", 0, 0, source.manifest)
    assert sorted(p.name[:9] for p in (tmp_path / "trace").glob("manifest*")) == ["manifest-", "manifest."]


def test_the_ledger_counts_what_was_read_and_repeated(tmp_path):
    source = memory(blocks=50, documents=4)
    with Ranks(config(), tmp_path, source=source) as run:
        run.steps(4)
        early = coverage(run.state, source.manifest)
        while run.last[0].cursor[:, 0].min() < 2:
            run.step()
        late = coverage(run.state, source.manifest)
        steps = int(run.last[0].cursor[0, 4])
    assert early.reads == early.unique < 50 and early.repeated_documents == 0
    assert early.unique_documents == 4 * early.unique
    assert early.tokens == 4 * 8 * 32
    assert late.unique == 50 and late.share == 1.0 and late.unique_documents == 200
    assert late.reads >= 100 and late.repeated_documents == 4 * (late.reads - 50)
    assert late.tokens == steps * 8 * 32 and min(late.lane_epochs) >= 2


def test_the_ledger_refuses_a_state_of_other_data(tmp_path):
    with Ranks(config(), tmp_path, source=memory()) as run:
        run.step()
        with pytest.raises(ValueError, match="other data"):
            coverage(run.state, memory(blocks=9).manifest)


def test_a_row_begins_where_its_offset_says_in_its_first_document(tmp_path):
    source = memory()
    with Ranks(config(), tmp_path, source=source) as run:
        writer = TraceWriter(tmp_path / "trace", 1, 0, source.manifest)
        batches = run_traced(run, writer, 40)
    rows = read_trace(tmp_path).to_pylist()
    assert any(row["offset"] for row in rows) and any(not row["offset"] for row in rows)
    for row in rows:
        documents = [source.blocks[b][i] for b, i in zip(row["block"], row["document"], strict=True)]
        stream = [token for text in documents for token in (*text.encode(), EOT)]
        expected = stream[row["offset"] : row["offset"] + 33]
        assert batches[row["step"]][row["slot"]].tolist() == expected


def test_the_targets_of_a_row_are_divided_among_its_documents(tmp_path):
    source = memory()
    with Ranks(config(), tmp_path, 2, source=source) as run:
        write(run, tmp_path, 1, range(1, 41))
    rows, several = read_trace(tmp_path).to_pylist(), 0
    for row in rows:
        documents = [source.blocks[b][i] for b, i in zip(row["block"], row["document"], strict=True)]
        owners = [number for number, text in enumerate(documents) for _ in range(len(text.encode()) + 1)]
        own = owners[row["offset"] + 1 : row["offset"] + 33]
        assert row["targets"] == [own.count(number) for number in range(len(documents))]
        several += len(documents) > 2
    assert several and any(0 in row["targets"] for row in rows), "also where only an input is a document's"


def test_each_attempt_of_a_trace_has_its_manifest(tmp_path):
    one, two = memory(), memory(blocks=20)
    for attempt, source in enumerate((one, one, two, one, two), 1):
        TraceWriter(tmp_path / "trace", attempt, 0, source.manifest)
    found = read_manifests(tmp_path)
    assert {since: len(manifest) for since, manifest in found.items()} == {
        1: len(one.manifest), 3: 20, 4: len(one.manifest), 5: 20
    }  # fmt: skip


def run_traced(run, writer, steps):
    """Batches by step, each noted in the trace."""
    batches = {}
    for step in range(1, steps + 1):
        batches[step] = run.step()
        writer.add(step, run.last[0], np.zeros(len(batches[step])))
    writer.flush()
    return batches


def test_a_trace_from_before_offsets_were_kept_is_read_beside_a_newer_one(tmp_path):
    with Ranks(config(), tmp_path, source=memory()) as run:
        write(run, tmp_path, 1, range(1, 4))
        for file in trace_files(tmp_path):
            pq.write_table(pq.read_table(file.path).drop_columns(["offset", "targets"]), file.path)
        write(run, tmp_path, 2, range(4, 6))
    targets = read_trace(tmp_path)["targets"].to_pylist()
    assert targets[:24] == [None] * 24 and all(sum(each) == 32 for each in targets[24:])
    offsets = read_trace(tmp_path)["offset"].to_pylist()
    assert offsets[:24] == [None] * 24 and None not in offsets[24:]


@pytest.mark.parametrize("content", ["nonsense", '{"fingerprint": 7}', '{"fingerprint": "../../out"}', "[1]", "link"])
def test_a_damaged_manifest_is_replaced_and_leads_nowhere(tmp_path, content):
    path, elsewhere = tmp_path / "run" / "trace" / "manifest.json", tmp_path / "elsewhere.json"
    path.parent.mkdir(parents=True)
    elsewhere.write_text('{"fingerprint": "0123456789abcdef"}')
    if content == "link":
        path.symlink_to(elsewhere)
    else:
        path.write_text(content)
    source = memory(blocks=4)
    TraceWriter(path.parent, 1, 0, source.manifest)
    assert json.loads(path.read_text())["fingerprint"] == source.manifest.fingerprint and not path.is_symlink()
    assert sorted(p.name for p in tmp_path.rglob("*.json")) == ["elsewhere.json", "manifest.json"]
    assert "0123456789abcdef" in elsewhere.read_text()
