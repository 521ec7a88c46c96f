"""Checkpoints that ranks with one model write together: read back by any, whole after any kill, and saved by whoever is
left when a rank fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from mygpt2.checkpoint import load, newest, verify
from mygpt2.data.trace import trace_files
from mygpt2.distributed import BoardNotes
from tests import forks
from tests.life import harness

STEPS = 6
SIZES = {"alone": 1, "ddp": 2, "fsdp2": 2, "three": 3, "hsdp": 4}
KINDS = {"alone": "auto", "three": "fsdp2"}
HEADS = 20_000  # bytes that every rank reads of the heads of the files that it needs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus; the losses of one rank by itself; a run of two ranks that wrote their parts of it after 3 and 6."""
    folder = tmp_path_factory.mktemp("sharded")
    values = harness.settings(harness.corpus(folder / "corpus", files=2, documents=120), folder / "cache") | {
        "model.n_layer": 1, "model.n_embd": 32, "model.dropout": 0.0, "optimizer.name": "adamw", "optimizer.lr": 3e-3,
        "data.lanes": 12, "data.window": 1, "train.batch_tokens": 384, "train.steps": STEPS, "schedule.name": "cosine",
        "schedule.warmup_steps": 2, "data.validation_fraction": 0, "eval.interval": 0, "checkpoint.interval": 3,
        "checkpoint.sharded": "on", "checkpoint.keep_last": 5,
    }  # fmt: skip
    trained(values, folder, "alone", "alone")
    trained(values, folder, "fsdp2", "written")
    return values, folder


def words_of(values, folder, way, name):
    return harness.command({**values, "train.parallel": KINDS.get(way, way)}, folder / "runs", name)


def trained(values, folder, way, name, meddle=()):
    words, size = words_of(values, folder, way, name), SIZES[way]
    ranks = forks.start(words, folder / name, size=size, nodes=2 if way == "hsdp" else 1, meddle=meddle)
    assert forks.ends(ranks) == [0] * size, "".join(rank.said() for rank in ranks)[-3000:]
    return folder / "runs" / name


def as_alone(folder, run):
    """The losses of every step are those of one rank by itself."""
    expected, found = (harness.losses(each) for each in (folder / "runs" / "alone", run))
    assert found.keys() == expected.keys()
    assert max(abs(found[step] - expected[step]) for step in found) <= 1e-6


def until(folder, source, name, step):
    """A copy of a run that has come no further than to a step."""
    run = shutil.copytree(folder / "runs" / source, folder / "runs" / name)
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    return run


def test_every_rank_writes_its_part_and_nothing_is_a_pickle(place):
    _, folder = place
    run = folder / "runs" / "written"
    as_alone(folder, run)
    for step in (3, 6):
        path = run / "checkpoints" / f"step-{step:08d}"
        kinds = [f"{kind}-0000{i}-of-00002.safetensors" for kind in ("model", "optimizer") for i in (1, 2)]
        assert sorted(each.name for each in path.iterdir()) == sorted([*kinds, "state.json", "MANIFEST.json"])
        assert verify(path) == [] and load(path).state["ranks"] == 2
        sizes = [(path / name).stat().st_size for name in kinds]
        assert max(sizes[0], sizes[1]) < 1.3 * min(sizes[0], sizes[1])
    saves = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines() if '"save"' in line]
    assert [event["step"] for event in saves] == [3, 6]
    assert all(event["bytes"] > sum(sizes) for event in saves)


def counted(rank, out):
    """In a rank's process: how much it reads of tensors, and which of their files it opens, goes to a file."""
    from mygpt2.checkpoint import store
    from mygpt2.checkpoint.stored import Stored
    from mygpt2.train import setup

    made, whole = [], []
    begin, build, read = Stored.__init__, setup.build, setup.read_model

    def init(self, files):
        made.append(self)
        begin(self, files)

    def reading(path):
        whole.append(sum(each.stat().st_size for each in path.glob("model.safetensors")))
        return read(path)

    def built(*given):
        trainer = build(*given)
        found = {"rows": sum(each.bytes_read for each in made), "whole": sum(whole), "verified": sum(verified)}
        Path(f"{out}-{rank}.json").write_text(json.dumps(found))
        return trainer

    verified, digest = [], sys.modules["hashlib"].file_digest

    def digesting(file, kind):
        verified.append(os.fstat(file.fileno()).st_size)
        return digest(file, kind)

    sys.modules["hashlib"].file_digest = digesting
    Stored.__init__, setup.read_model = init, reading
    sys.modules["mygpt2.train.attempt"].build = built
    assert store


@pytest.mark.parametrize("way", ["ddp", "three"])
def test_parts_are_gone_on_from_by_any_ranks_none_of_whom_reads_what_another_has(place, way):
    values, folder = place
    name = f"to-{way}"
    until(folder, "written", name, 3)
    path = folder / "runs" / name / "checkpoints" / "step-00000003"
    total = sum(each.stat().st_size for each in path.glob("*.safetensors"))
    run = trained(values, folder, way, name, (__name__, "counted", str(folder / name)))
    as_alone(folder, run)
    again = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in again if row["attempt"] == 2] == [4, 5, 6]
    read = [json.loads(Path(f"{folder / name}-{rank}.json").read_text()) for rank in range(SIZES[way])]
    tensors = [each["rows"] + each["whole"] for each in read]
    heads = HEADS * SIZES[way]
    assert 0.9 * total <= sum(tensors) <= total + heads, (tensors, total)
    if way == "ddp":
        assert tensors[1:] == [0], "the first rank reads, and sends"
    else:
        assert max(tensors) <= total / 2 + heads / SIZES[way]
    once = sum(each.stat().st_size for each in path.iterdir() if each.name != "MANIFEST.json")
    assert sum(each["verified"] for each in read) <= 1.1 * once + 2 * (path / "state.json").stat().st_size


def test_one_file_is_gone_on_from_in_parts(place):
    values, folder = place
    until(folder, "alone", "from-alone", 3)
    path = folder / "runs" / "from-alone" / "checkpoints" / "step-00000003"
    total = sum(each.stat().st_size for each in path.glob("*.safetensors"))
    run = trained(values, folder, "hsdp", "from-alone", (__name__, "counted", str(folder / "from-alone")))
    as_alone(folder, run)
    read = [json.loads(Path(f"{folder / 'from-alone'}-{rank}.json").read_text())["rows"] for rank in range(4)]
    assert 0.9 * total <= sum(read) <= total + 4 * HEADS and max(read) < 0.75 * total
    traced = {file.path.name[:22] for file in trace_files(run) if file.attempt == 2}
    assert traced == {"attempt-0002-node-0000", "attempt-0002-node-0001"}
    last = run / "checkpoints" / "step-00000006"
    assert len(list(last.glob("model-*-of-00002.safetensors"))) == 2 and verify(last) == []


def kill_in_save(rank, victim, number):
    """The process of a rank dies in the middle of a file of its part, at its so-manieth save."""
    from mygpt2.checkpoint import files

    calls, write_all = [], files.write_all

    def dying(system, descriptor, data):
        calls.append(1)
        if len(calls) == int(number):
            os.write(descriptor, bytes(data[: len(data) // 2]))
            os.kill(os.getpid(), signal.SIGKILL)
        write_all(system, descriptor, data)

    if str(rank) == victim:
        sys.modules["mygpt2.checkpoint.tensors"].write_all = dying


def test_a_kill_within_a_part_leaves_the_last_whole_checkpoint_and_the_same_command_goes_on(place):
    values, folder = place
    run = until(folder, "written", "killed", 3)
    changed = {**values, "checkpoint.interval": 1}
    words = words_of(changed, folder, "fsdp2", "killed")
    ranks = forks.start(words, folder / "killed", meddle=(__name__, "kill_in_save", "1", "90"))
    assert forks.ends(ranks) == [70, -9], ranks[0].said()[-2000:]
    path, skipped = newest(run / "checkpoints")
    assert path is not None and skipped == []
    trained(changed, folder, "fsdp2", "killed")
    as_alone(folder, run)
    assert not list((run / "checkpoints").glob(".tmp*")), "what the dead left is swept"


def failed(place, way, victim, kind, name, what="a step"):
    """The end of a run whose rank fails at its fourth step, and the lines that a person reads."""
    values, folder = place
    shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    changed = {**values, "checkpoint.sharded": "auto", "checkpoint.interval": 2}
    meddle = ("tests.life.test_failures", "break_at", str(victim), what, kind)
    words, size = words_of(changed, folder, way, name), SIZES[way]
    codes = forks.ends(forks.start(words, folder / name, size=size, nodes=2 if way == "hsdp" else 1, meddle=meddle))
    assert codes == [-9 if kind == "killed" and rank == victim else 70 for rank in range(size)]
    errors = [line for rank in range(size) for line in (folder / f"{name}-{rank}-err").read_text().splitlines()]
    assert len(errors) == 1 and f"rank {victim}" in errors[0] and "Traceback" not in errors[0], errors
    ended = json.loads((folder / "runs" / name / "exit.json").read_text())
    assert (ended["code"], ended["rank"]) == (70, victim)
    return changed, ended["reason"]


def test_a_rank_that_fails_and_lives_still_writes_its_part(place):
    folder = place[1]
    _, reason = failed(place, "fsdp2", 1, "defect", "lived")
    assert reason.endswith("ZeroDivisionError: division by zero; step 3 is saved")
    small = folder / "runs" / "lived" / "checkpoints" / "step-00000002"
    assert (small / "model.safetensors").exists(), "a small model is brought together by itself"
    path = small.with_name("step-00000003")
    assert verify(path) == [] and len(list(path.glob("model-*-of-00002*"))) == 2


def test_what_a_killed_rank_alone_had_cannot_be_saved_and_the_sentence_says_from_where_it_goes_on(place):
    folder = place[1]
    _, reason = failed(place, "fsdp2", 1, "killed", "died")
    assert reason.endswith(
        "; rank 1 took a part of the weights that no other rank has, so step 3 is not saved: the same command goes on "
        "from step 2"
    )
    assert newest(folder / "runs" / "died" / "checkpoints")[0].name == "step-00000002"


def test_another_copy_of_the_model_saves_what_a_killed_rank_had(place):
    folder = place[1]
    values, reason = failed(place, "hsdp", 1, "killed", "copied")
    assert reason.endswith("; step 3 is saved"), reason
    path = folder / "runs" / "copied" / "checkpoints" / "step-00000003"
    assert verify(path) == [] and len(list(path.glob("model-*-of-00002*"))) == 2
    logs = folder / "runs" / "copied" / "logs"
    assert sorted(each.name for each in logs.iterdir()) == ["node-0.log", "node-1.log", "rank-0.log"]
    lines = (logs / "node-1.log").read_text().splitlines()
    assert lines and all(line.startswith(("rank 2: ", "rank 3: ")) for line in lines)
    as_alone(folder, trained(values, folder, "alone", "copied"))


def test_weights_that_were_being_changed_are_not_saved(place):
    _, reason = failed(place, "fsdp2", 1, "defect", "changed", what="the update")
    assert "; the weights were being changed, so step 4 is not saved: the same command goes on from step 2" in reason


def test_sampling_exporting_and_the_runs_verbs_take_parts_like_whole_files(place, mygpt2, tmp_path):
    _, folder = place
    runs = folder / "runs"
    for name in ("alone", "written"):
        assert mygpt2("export", "--model", name, "--runs", str(runs), "--to", str(tmp_path / name)).code == 0
    files = [tmp_path / name / "model.safetensors" for name in ("alone", "written")]
    one, other = map(load_file, files)
    assert one.keys() == other.keys()
    assert all(torch.allclose(tensor, other[key], atol=1e-4) for key, tensor in one.items())
    said = mygpt2("sample", "--model", "written", "--runs", str(runs), "--prompt", "lo", "--max-new-tokens", "3")
    assert said.code == 0, said.err
    listed = mygpt2("runs", "verify", "written", "--runs", str(runs))
    assert listed.code == 0 and listed.out.count("whole") == 2
    branched = mygpt2("runs", "branch", "written@3", "--run", "branched", "--runs", str(runs), "--optimizer.lr", "1e-3")
    assert branched.code == 0, branched.err
    assert verify(runs / "branched" / "checkpoints" / "step-00000003") == []
    file = runs / "written" / "checkpoints" / "step-00000006" / "optimizer-00002-of-00002.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        listed = mygpt2("runs", "verify", "written", "--runs", str(runs))
        assert "optimizer-00002-of-00002.safetensors has other bytes than were written" in listed.out
    finally:
        file.write_bytes(kept)


def test_who_waits_for_a_note_does_not_wait_when_the_store_has_gone():
    board = SimpleNamespace(store=dist.TCPStore("127.0.0.1", 0, is_master=True), read=lambda: None)
    notes = BoardNotes(board)
    notes.write("a", "text")
    assert (notes.read("a"), notes.read("b"), notes.over()) == ("text", None, False)
    notes.forget("a")
    assert notes.read("a") is None and not notes.over()

    def gone(*_):
        raise RuntimeError("connection reset")

    notes._store = SimpleNamespace(check=gone, set=gone)
    assert notes.read("a") is None and notes.over()
    notes.write("a", "text")
