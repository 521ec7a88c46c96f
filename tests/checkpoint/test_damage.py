"""Whatever happens to the bytes of a checkpoint, it is skipped with its reason and the older one loads."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mygpt2.checkpoint import BrokenCheckpoint, load, load_newest, newest, read_model, read_state, verify, write
from mygpt2.checkpoint.format import CONTENTS, encode_manifest
from mygpt2.errors import UserError
from tests.checkpoint.faults import tensors

FILES = (*CONTENTS, "MANIFEST.json")


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    for step in (10, 20):
        write(tmp_path, step, *tensors(step), {"step": step})
    return tmp_path


def assert_older_one_loads(checkpoints: Path, *words: str) -> None:
    path, skipped = newest(checkpoints)
    assert path == checkpoints / "step-00000010"
    assert [s.path.name for s in skipped] == ["step-00000020"]
    assert all(word in skipped[0].reason for word in words), skipped[0].reason
    found, also_skipped = load_newest(checkpoints)
    assert found is not None and found.step == 10 and len(also_skipped) == 1
    with pytest.raises(BrokenCheckpoint, match="not whole"):
        load(checkpoints / "step-00000020")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(checkpoints, name):
    (checkpoints / "step-00000020" / name).unlink()
    assert_older_one_loads(checkpoints, name, "missing")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_at_any_length(checkpoints, name):
    file = checkpoints / "step-00000020" / name
    whole = file.read_bytes()
    for length in {0, 1, 7, 8, len(whole) // 2, len(whole) - 1}:
        file.write_bytes(whole[:length])
        assert verify(file.parent), length
    assert_older_one_loads(checkpoints, name)


@pytest.mark.parametrize("name", FILES)
def test_any_single_flipped_bit_of_a_byte(checkpoints, name):
    file = checkpoints / "step-00000020" / name
    whole = file.read_bytes()
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        assert verify(file.parent), position
    assert_older_one_loads(checkpoints, name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_or_a_folder(checkpoints, name):
    file = checkpoints / "step-00000020" / name
    file.rename(checkpoints / "elsewhere")
    file.symlink_to(checkpoints / "elsewhere")
    assert_older_one_loads(checkpoints) if name == "MANIFEST.json" else assert_older_one_loads(checkpoints, "regular")
    file.unlink()
    file.mkdir()
    assert_older_one_loads(checkpoints)


def test_a_folder_of_another_step_or_none_at_all(checkpoints):
    (checkpoints / "step-00000010").rename(checkpoints / "step-00000030")
    (checkpoints / "step-00000040").write_text("a file")
    path, skipped = newest(checkpoints)
    assert path == checkpoints / "step-00000020"
    assert [s.reason for s in skipped] == ["is not a folder", "MANIFEST.json is of step 10"]
    assert newest(checkpoints / "absent") == (None, [])


def test_a_manifest_of_a_later_version_says_so(checkpoints):
    manifest = checkpoints / "step-00000020" / "MANIFEST.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 7}))
    assert_older_one_loads(checkpoints, "schema 7", "reads 2")


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b'{"files": 3, "step": 1}', b"\xff" * 50, b"[" * 100_000])
def test_a_manifest_that_is_something_else(checkpoints, raw):
    (checkpoints / "step-00000020" / "MANIFEST.json").write_bytes(raw)
    assert_older_one_loads(checkpoints, "MANIFEST.json")


class Exploit:
    """Creates a file when unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self):
        return (open, (self.canary, "w"))


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_pickle_under_our_names_is_refused_even_with_a_matching_manifest(checkpoints, name, protocol):
    import hashlib

    canary = checkpoints / "canary"
    folder = checkpoints / "step-00000020"
    evil = pickle.dumps(Exploit(canary), protocol)
    (folder / name).write_bytes(evil)
    entries = json.loads((folder / "MANIFEST.json").read_text())["files"]
    entries[name] = {"bytes": len(evil), "sha256": hashlib.sha256(evil).hexdigest()}
    (folder / "MANIFEST.json").write_bytes(encode_manifest(20, entries))
    if name == "state.json":
        with pytest.raises(BrokenCheckpoint):
            load(folder)
        found, skipped = load_newest(checkpoints)
        assert found is not None and found.step == 10 and "state.json" in skipped[0].reason
    else:
        assert_older_one_loads(checkpoints, name, "safetensors")
    assert not canary.exists()


def test_hostile_safetensors_headers_are_refused_before_anything_is_allocated(tmp_path):
    from mygpt2.checkpoint.layout import layout_problem

    def problem(header: bytes, data: bytes = b"", length: int | None = None) -> str | None:
        file = tmp_path / "x.safetensors"
        file.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
        return layout_problem(file)

    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    assert problem(json.dumps({"a": entry}).encode(), b"x" * 8) is None
    assert problem(json.dumps({"a": entry}).encode(), b"x" * 9)
    assert problem(json.dumps({"a": entry, "b": entry}).encode(), b"x" * 8)
    assert problem(json.dumps({"a": {**entry, "shape": [2**40]}}).encode(), b"x" * 8)
    assert problem(json.dumps({"a": {**entry, "shape": [-2]}}).encode(), b"x" * 8)
    assert problem(json.dumps({"a": {**entry, "dtype": "OBJECT"}}).encode(), b"x" * 8)
    assert problem(b"{}", length=2**63)
    assert problem(b"[" * 100_000)
    assert problem(b"[]") and problem(b'{"a": []}') and problem(b'{"a": null}')


def test_optimizer_damage_does_not_matter_to_who_wants_only_the_weights(checkpoints):
    (checkpoints / "step-00000020" / "optimizer.safetensors").unlink()
    found = load(checkpoints / "step-00000020", optimizer=False)
    assert found.step == 20 and found.optimizer == {}


def test_the_error_of_a_broken_checkpoint_is_one_line_for_the_user(checkpoints):
    (checkpoints / "step-00000020" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load(checkpoints / "step-00000020")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_tensors_of_every_kind_come_back_as_they_were(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    model = {
        "transposed": base.T, "shared": base[1:], "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 7),
        "bf16": base.bfloat16(), "half": base.half(), "double": base.double(), "bool": base > 4,
        "int": base.long(), "bytes": base.to(torch.uint8), "nan": torch.tensor([float("nan"), float("-inf")]),
        "grad": torch.nn.Parameter(base.clone()), "\u00fc \"name\"": base,
    }  # fmt: skip
    path = write(tmp_path, 1, model, {}, {"unicode": "\u00fc", "big": 2**70})
    back = read_model(path)
    assert back.keys() == model.keys()
    for name, tensor in model.items():
        assert back[name].dtype == tensor.dtype
        torch.testing.assert_close(back[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
    assert read_state(path) == {"unicode": "\u00fc", "big": 2**70}


def test_reading_and_verifying_need_no_torch():
    code = "import sys, mygpt2.checkpoint, mygpt2.run_dir; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
