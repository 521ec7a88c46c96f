"""A checkpoint that several ranks write together, each its own rows: whole or nothing, and read by the row."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import threading
from pathlib import Path

import pytest
import torch

from mygpt2.checkpoint import BrokenCheckpoint, Checkpointer, Follower, load, newest, prune, sweep, verify, write
from mygpt2.checkpoint import together as module
from mygpt2.checkpoint.files import FileSystem
from mygpt2.checkpoint.format import (
    MODEL,
    OPTIMIZER,
    encode_json,
    encode_manifest,
    read_model,
    tensor_files,
    weights_sha256,
)  # fmt: skip
from mygpt2.checkpoint.parts import Part, Share
from mygpt2.checkpoint.stored import Stored
from mygpt2.checkpoint.together import Meeting
from mygpt2.config.schema import CheckpointConfig
from tests.checkpoint.faults import DyingFileSystem, FullFileSystem, Killed

COUNT = 3


class Told:
    """Notes within one process."""

    def __init__(self):
        self.kept, self.failed = {}, False

    def write(self, key, text):
        self.kept[key] = text

    def read(self, key):
        return self.kept.get(key)

    def forget(self, key):
        del self.kept[key]

    def over(self):
        return self.failed


def groups(label):
    """Model and optimizer: seven rows, fewer than there are parts, one, none, and a number without rows."""
    make = torch.Generator().manual_seed(label)
    model = {name: torch.randn(shape, generator=make) for name, shape in
             {"wte": (7, 5), "few": (2, 3), "one": (1,), "none": (0, 4)}.items()}  # fmt: skip
    model["half"] = torch.randn(9, 2, generator=make).bfloat16()
    return model, {f"{name}/m": tensor * 2 for name, tensor in model.items()} | {"wte/step": torch.tensor(4.0 + label)}


def dealt(tensors, index, count):
    found, rows = {}, {}
    for name, tensor in tensors.items():
        if tensor.ndim == 0:
            found |= {name: tensor} if index == 0 else {}
            continue
        each = max(1, -(-len(tensor) // count))
        own = tensor[index * each : (index + 1) * each]
        rows[name] = (len(tensor), each)
        if len(own) or index == 0:
            found[name] = own
    return Part(found, rows)


def share(label, index, count=COUNT):
    model, optimizer = groups(label)
    return Share(index, count, dealt(model, index, count), dealt(optimizer, index, count))


def save(folder, step, *, label=None, count=COUNT, files=None, others=None, notes=None):
    """All ranks' work in turn: the others' in threads, rank 0's here."""
    label = step if label is None else label
    meeting = Meeting(notes or Told(), f"{step}", range(count))
    threads = [
        threading.Thread(target=meeting.follow, args=(folder, rank, share(label, rank, count), others or FileSystem()))
        for rank in range(1, count)
    ]
    for thread in threads:
        thread.start()
    try:
        state = encode_json({"step": step, "label": label})
        return meeting.lead(folder, step, share(label, 0, count), state, files or FileSystem())
    finally:
        for thread in threads:
            thread.join()


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.001)
    monkeypatch.setattr(module, "GRACE_S", 0.0)


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in expected.items())


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_what_parts_were_written_by_is_read_back_whole(tmp_path, count):
    notes = Told()
    path = save(tmp_path, 20, count=count, notes=notes)
    assert notes.kept == {}, "nothing is left of what the ranks told each other"
    assert verify(path) == [] and newest(tmp_path) == (path, [])
    names = {f"{kind}-{i + 1:05d}-of-{count:05d}.safetensors" for kind in ("model", "optimizer") for i in range(count)}
    assert {each.name for each in path.iterdir()} == names | {"state.json", "MANIFEST.json"}
    found = load(path)
    model, optimizer = groups(20)
    same(found.model, model)
    same(found.optimizer, optimizer)
    assert (found.step, found.state["label"]) == (20, 20)
    whole = load(write(tmp_path, 30, model, optimizer, {}))
    assert weights_sha256(found) == weights_sha256(whole), "the same weights have the same name, in parts or not"


@pytest.mark.parametrize("first, stop", [(0, 7), (0, 1), (2, 3), (1, 5), (3, 6), (6, 7), (5, 50), (4, 4)])
def test_rows_are_read_without_the_rest(tmp_path, first, stop):
    stored = Stored(tensor_files(save(tmp_path, 20), MODEL))
    head = stored.bytes_read
    wte = groups(20)[0]["wte"]
    assert torch.equal(stored.rows("wte", first, stop), wte[first:stop])
    opened = {row // 3 for row in range(first, min(stop, 7))} - {0}
    data = 4 * 5 * len(wte[first:stop])
    assert data <= stored.bytes_read - head <= data + 1000 * len(opened)


def test_a_reader_of_a_part_reads_a_part(tmp_path):
    """Four ranks that read what eight wrote, or one file, read each byte of it once, besides heads."""
    tensors = {f"layer {i}": torch.randn(64, 256) for i in range(4)}
    total = sum(4 * t.numel() for t in tensors.values())
    meeting = Meeting(Told(), "1", range(8))
    shares = [Share(i, 8, dealt(tensors, i, 8), dealt({}, i, 8)) for i in range(8)]
    threads = [
        threading.Thread(target=meeting.follow, args=(tmp_path, i, shares[i], FileSystem())) for i in range(1, 8)
    ]
    for thread in threads:
        thread.start()
    parts = meeting.lead(tmp_path, 1, shares[0], b"{}\n", FileSystem())
    whole = write(tmp_path, 2, tensors, {}, {})
    for path in (parts, whole):
        read = []
        for rank in range(4):
            stored = Stored(tensor_files(path, MODEL))
            for name, tensor in tensors.items():
                mine = slice(rank * 16, (rank + 1) * 16)
                assert torch.equal(stored.rows(name, mine.start, mine.stop), tensor[mine])
            read.append(stored.bytes_read)
        assert total <= sum(read) <= total + 4 * 4 * 1024 and max(read) < total / 3


FILES = ["model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors", "optimizer-00002-of-00003.safetensors",
         "state.json", "MANIFEST.json"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_part_is_named_and_the_older_checkpoint_loads(tmp_path, name):
    save(tmp_path, 10)
    file = save(tmp_path, 20) / name
    whole = file.read_bytes()
    for position in range(0, len(whole), 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        problems = verify(file.parent)
        assert len(problems) == 1 and problems[0].startswith(name), (position, problems)
    path, skipped = newest(tmp_path)
    assert path == tmp_path / "step-00000010" and name in skipped[0].reason
    file.unlink()
    assert verify(file.parent) == [f"{name} is missing"]
    with pytest.raises(BrokenCheckpoint, match=name):
        load(file.parent)


def test_several_that_verify_together_read_each_file_once_and_find_the_same(tmp_path):
    path = save(tmp_path, 20)
    broken = [FILES[1], FILES[2]]
    for name in broken:
        (path / name).write_bytes(b"")
    found = [verify(path, share=(rank, 2)) for rank in range(2)]
    assert sorted([*found[0], *found[1]]) == sorted(verify(path)) and len(found[0]) + len(found[1]) == 2


@pytest.mark.parametrize("kind", ["torn", "power_cut"])
def test_after_the_end_of_the_first_rank_anywhere_the_last_whole_one_is_there(tmp_path, kind):
    count, outcomes = DyingFileSystem(), set()
    save(tmp_path, 10, count=2)
    save(tmp_path, 20, files=count, count=2)
    for at in range(len(count.log)):
        folder, notes = tmp_path / str(at), Told()
        folder.mkdir()
        shutil.copytree(tmp_path / "step-00000010", folder / "step-00000010")
        dying = DyingFileSystem(at, torn=kind == "torn", power_cut=kind == "power_cut")
        notes.over = lambda dying=dying: dying.dead
        with pytest.raises(Killed):
            save(folder, 20, files=dying, notes=notes, count=2)
        for _ in range(2):
            path, skipped = newest(folder)
            assert path is not None and skipped == []
            found = load(path)
            same(found.model, groups(found.step)[0])
            sweep(folder)
        outcomes.add(found.step)
    assert outcomes == ({10} if kind == "power_cut" else {10, 20})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_what_keeps_another_rank_from_writing_is_told_with_its_rank(tmp_path, number):
    save(tmp_path, 10)
    with pytest.raises(OSError, match=f"rank [12]: {os.strerror(number)}"):
        save(tmp_path, 20, others=FullFileSystem(1, number))
    assert newest(tmp_path)[0] == tmp_path / "step-00000010"
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000010"]


class OneFullOneSlow(FileSystem):
    """Of two ranks the first to write finds no room; the other creates its file while the folder is being removed."""

    def __init__(self):
        self.first, self.removing, self.created = None, threading.Event(), threading.Event()

    def create(self, path):
        self.first = self.first or threading.get_ident()
        if threading.get_ident() == self.first:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.removing.wait(0.3)  # nobody removes it before this one has told, which is when it is over
        found = super().create(path)
        self.created.set()
        return found


class Removing(FileSystem):
    def __init__(self, others):
        self.others = others

    def rmdir(self, path):
        self.others.removing.set()
        self.others.created.wait(1)
        super().rmdir(path)


def test_a_rank_that_still_writes_while_another_has_failed_leaves_nothing(tmp_path):
    others = OneFullOneSlow()
    with pytest.raises(OSError, match=f"rank [12]: {os.strerror(errno.ENOSPC)}"):
        save(tmp_path, 20, files=Removing(others), others=others, count=3)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_does_not_come_is_not_waited_for_once_one_has_failed(tmp_path):
    notes = Told()
    notes.failed = True
    with pytest.raises(OSError, match="rank 1 did not write its part"):
        Meeting(notes, "1", range(2)).lead(tmp_path, 1, share(1, 0, 2), b"{}\n", FileSystem())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_ranks_do_not_share_is_told(tmp_path):
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    notes = Told()
    meeting = Meeting(notes, "1", range(2))
    arguments = (tmp_path / "elsewhere", 1, share(1, 1, 2), FileSystem())
    other = threading.Thread(target=meeting.follow, args=arguments)
    other.start()
    with pytest.raises(OSError, match=r"rank 1: No such file.*which all ranks must share"):
        meeting.lead(tmp_path / "here", 1, share(1, 0, 2), b"{}\n", FileSystem())
    other.join()


class Lying(FileSystem):
    """Stores something else than it is given."""

    def write(self, descriptor, data):
        return super().write(descriptor, memoryview(bytes(len(data))))


def test_a_disk_that_stores_something_else_is_found_out_before_the_checkpoint_counts(tmp_path):
    with pytest.raises(OSError, match=r"rank [12]: model-0000[23]-of-00003.safetensors has other bytes"):
        save(tmp_path, 20, others=Lying())


@pytest.mark.parametrize("background", [True, False])
def test_saves_beside_training_hold_the_values_of_their_moment_and_rotate(tmp_path, background):
    events, notes = [], Told()
    lead = Checkpointer(tmp_path, CheckpointConfig(keep_last=1), events.append)
    follower = Follower(tmp_path, 1)
    for step in (10, 20):
        own = [share(step, index, 2) for index in range(2)]
        meeting = Meeting(notes, str(step), range(2))
        other = threading.Thread(target=follower.save, args=(own[1], meeting), kwargs={"background": background})
        other.start()
        if background:
            other.join()
        lead.save_together(step, own[0], meeting, {"label": step}, 1000, background=background)
        if background:
            for each in own:
                for tensor in (*each.model.tensors.values(), *each.optimizer.tensors.values()):
                    tensor.zero_()
        lead.wait()
        other.join()
        follower.wait()
        same(load(newest(tmp_path)[0]).model, groups(step)[0])
    assert [(event["kind"], event["step"]) for event in events] == [("save", 10), ("save", 20)]
    assert events[1]["deleted"] == [10] and events[1]["bytes"] > 1000
    assert [each.name for each in tmp_path.iterdir()] == ["step-00000020"]


def test_no_part_is_written_where_there_is_no_room(tmp_path):
    events, notes = [], Told()
    lead = Checkpointer(tmp_path, CheckpointConfig(), events.append, files=FullFileSystem(99, free=10))
    meeting = Meeting(notes, "1", range(2))
    lead.save_together(1, share(1, 0, 2), meeting, {}, 1000, background=False)
    meeting.follow(tmp_path, 1, share(1, 1, 2), FileSystem())  # returns: nobody waits for a folder
    assert events[0]["kind"] == "save_failed" and events[0]["reason"] == "not enough space on the disk"
    assert list(tmp_path.iterdir()) == []


def test_rotation_and_sizes_take_parts_like_whole_files(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    assert prune(tmp_path, 2).deleted == [10]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]


def test_what_a_log_grid_keeps_of_parts_are_the_weights(tmp_path):
    for step in (2, 4, 6):
        save(tmp_path, step)
    prune(tmp_path, 1, keep_log=4)
    path = tmp_path / "step-00000002"
    assert verify(path) == [] and not list(path.glob("optimizer*"))
    same(load(path, optimizer=False).model, groups(2)[0])


def rewritten(path: Path, name: str, raw: bytes) -> None:
    """Replaces a file and its entry in the manifest, as who means harm would."""
    import hashlib

    (path / name).write_bytes(raw)
    entries = json.loads((path / "MANIFEST.json").read_text())["files"]
    entries[name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (path / "MANIFEST.json").write_bytes(encode_manifest(20, entries))


def with_notes(raw: bytes, rows) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + length])
    head["__metadata__"]["rows"] = rows if isinstance(rows, str) else json.dumps(rows)
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


@pytest.mark.parametrize(
    "rows", ["", "{", "[]", {"wte": 3}, {"wte": [7]}, {"wte": [10**15, 3]}, {"wte": [7, -3]}, {"wte": [7, 0]},
             {"wte": ["x", 3]}, {"wte": [9, 3]}],
)  # fmt: skip
def test_rows_that_make_no_sense_are_refused_before_anything_is_allocated(tmp_path, rows):
    path = save(tmp_path, 20)
    file = path / FILES[0]
    rewritten(path, FILES[0], with_notes(file.read_bytes(), rows))
    with pytest.raises(BrokenCheckpoint):
        read_model(path)


def test_a_pickle_or_a_part_of_others_is_refused(tmp_path):
    path, other = save(tmp_path, 20), tmp_path / "other"
    other.mkdir()
    rewritten(path, FILES[1], pickle.dumps({"a": 1}))
    assert "safetensors" in verify(path)[0]
    path = save(tmp_path, 20)
    rewritten(path, FILES[1], (save(other, 20, count=2) / "model-00002-of-00002.safetensors").read_bytes())
    assert verify(path) == []
    with pytest.raises(BrokenCheckpoint, match="does not hold its rows"):
        load(path)


def test_a_manifest_that_names_too_few_parts_or_other_files_is_not_whole(tmp_path):
    path = save(tmp_path, 20)
    entries = json.loads((path / "MANIFEST.json").read_text())["files"]
    for gone in (FILES[1], OPTIMIZER.replace(".", "-00001-of-00003."), "state.json"):
        fewer = {name: entry for name, entry in entries.items() if name != gone}
        (path / "MANIFEST.json").write_bytes(encode_manifest(20, fewer))
        assert verify(path) == ["MANIFEST.json does not match its own checksum"]
    more = {**entries, "../x": entries["state.json"]}
    (path / "MANIFEST.json").write_bytes(encode_manifest(20, more))
    assert verify(path) == ["MANIFEST.json does not match its own checksum"]
