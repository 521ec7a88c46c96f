"""GPT-2 as transformers saves it: read by name, equal in every logit, anything else refused in one line."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mygpt2.errors import UserError
from mygpt2.exchange.huggingface import load_huggingface
from mygpt2.exchange.load import load_model
from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import load_tokenizer
from tests.exchange.folders import randomised, reference, same_weights, transformers, write_folder

SMALL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=300)


@pytest.fixture
def small() -> GPT:
    return randomised(GPT(SMALL))


def logit_error(theirs: Any, ours: GPT, length: int, rows: int = 2) -> float:
    ids = torch.randint(0, ours.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return float((theirs(ids).logits - ours.logits(ours(ids))).abs().max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layer": 3, "n_head": 8, "n_embd": 64, "n_positions": 20, "vocab_size": 1000},
        {"n_inner": 128, "activation_function": "gelu_pytorch_tanh", "n_layer": 1},
        {"activation_function": "gelu"},
    ],
    ids=["small", "wider", "explicit", "erf"],
)
def test_every_logit_is_the_references(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = reference(**changes)
    theirs.save_pretrained(tmp_path)
    ours = load_huggingface(tmp_path)
    assert logit_error(theirs, ours, ours.config.block_size) <= 1e-5


@pytest.mark.skipif(os.environ.get("MYGPT2_FULL") != "1", reason="16 s of one core and 2 GB; MYGPT2_FULL=1 runs it")
def test_every_logit_of_a_full_gpt2_is_the_references(tmp_path: Path) -> None:
    theirs = reference(n_layer=12, n_head=12, n_embd=768, n_positions=1024, vocab_size=50257)
    theirs.save_pretrained(tmp_path)
    ours = load_model(str(tmp_path)).model
    assert ours.num_parameters() == 124_439_808
    assert logit_error(theirs, ours, 1024, rows=1) <= 1e-4


@pytest.mark.parametrize("shard", ["20KB", "5KB"])
def test_shards_are_one_model(tmp_path: Path, shard: str) -> None:
    theirs = reference()
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert not (tmp_path / "model.safetensors").exists() and len(list(tmp_path.glob("model-*"))) > 2
    assert logit_error(theirs, load_huggingface(tmp_path), 48) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_becomes_float32(tmp_path: Path, small: GPT, dtype: torch.dtype) -> None:
    saved = load_file(write_folder(tmp_path, small) / "model.safetensors")
    save_file({name: t.to(dtype) for name, t in saved.items()}, tmp_path / "model.safetensors")
    loaded = load_huggingface(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.wte[:300], small.wte[:300].to(dtype).float()) and not loaded.wte[300:].any()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_of_a_compiled_or_distributed_model_are_read(tmp_path: Path, small: GPT, prefix: str) -> None:
    saved = load_file(write_folder(tmp_path, small) / "model.safetensors")
    save_file({prefix + name: t for name, t in saved.items()}, tmp_path / "model.safetensors")
    assert same_weights(load_huggingface(tmp_path), small)


def test_a_tied_matrix_that_was_saved_as_the_head_alone_is_read(tmp_path: Path, small: GPT) -> None:
    saved = load_file(write_folder(tmp_path, small) / "model.safetensors")
    saved["lm_head.weight"] = saved.pop("transformer.wte.weight")
    save_file(saved, tmp_path / "model.safetensors", metadata={"transformer.wte.weight": "lm_head.weight"})
    assert same_weights(load_huggingface(tmp_path), small)


def test_a_folder_with_a_pickle_only_leads_to_import(tmp_path: Path, small: GPT) -> None:
    (write_folder(tmp_path, small) / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"python -m mygpt2 import .*pytorch_model.bin --to DIR"):
        load_model(str(tmp_path))


def test_masks_a_copied_head_and_names_without_prefix_change_nothing(tmp_path: Path, small: GPT) -> None:
    saved = load_file(write_folder(tmp_path, small) / "model.safetensors")
    saved = {name.removeprefix("transformer."): t for name, t in saved.items()}
    saved |= {"h.0.attn.bias": torch.ones(1, 1, 16, 16), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    saved["lm_head.weight"] = saved["wte.weight"].clone()
    save_file(saved, tmp_path / "model.safetensors")
    assert same_weights(load_huggingface(tmp_path), small)


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "architecture": ({}, {"model_type": "llama"}, "model_type 'llama'; only gpt2"),
    "no shape": ({}, {"n_layer": None}, "n_layer is None, not a number from 1"),
    "text for a number": ({}, {"n_head": "2"}, "n_head is 2, not a number from 1"),
    "heads": ({}, {"n_head": 3}, "n_head=3 does not divide"),
    "activation": ({}, {"activation_function": "relu"}, "'relu', not gelu_new"),
    "a size without end": ({}, {"n_embd": 10**12}, "n_embd is 1000000000000, not a number from 1 to"),
    "layers without end": ({}, {"n_layer": 4000}, "have 1 layers and its config.json says 4000"),
    "a width that only config.json has": ({}, {"n_embd": 200_000, "n_head": 2}, r"config.json makes it"),
    "an activation that is a list": ({}, {"activation_function": ["gelu"]}, "activation_function is"),
    "epsilon": ({}, {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, not 1e-05"),
    "inner": ({}, {"n_inner": 80}, "n_inner is 80, not 64"),
    "scale": ({}, {"scale_attn_weights": False}, "scale_attn_weights is False"),
    "layer scale": ({}, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
    "untied": ({}, {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    "missing": ({"transformer.h.0.mlp.c_fc.bias": None}, {}, "missing transformer.h.0.mlp.c_fc.bias"),
    "unknown": ({"score.weight": torch.ones(2, 2)}, {}, "unknown transformer.score.weight"),
    "another layer": ({"h.1.ln_1.bias": torch.ones(16)}, {}, r"unknown transformer.h.1.ln_1.bias"),
    "orientation": (
        {"transformer.h.0.mlp.c_fc.weight": torch.ones(64, 16)}, {},
        r"c_fc.weight is \[64, 16\], config.json makes it \[16, 64\]",
    ),
    "vocabulary": ({}, {"vocab_size": 301}, r"wte.weight is \[300, 16\], config.json makes it \[301, 16\]"),
    "integers": ({"transformer.ln_f.bias": torch.ones(16, dtype=torch.int8)}, {}, "ln_f.bias is int8"),
    "another head": ({"lm_head.weight": torch.ones(300, 16)}, {}, "an lm_head.weight of its own"),
    "false bias": ({}, {"bias": False}, "is not zero, config.json says bias is false"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_another_model_is_one_line(tmp_path: Path, small: GPT, mistake: str) -> None:
    tensors, config, message = MISTAKES[mistake]
    write_folder(tmp_path, small, tensors, **config)
    if config.get("n_layer", 1) is None:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 2, "n_embd": 16, "vocab_size": 300}')
    with pytest.raises(UserError, match=message) as error:
        load_huggingface(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def header(content: Any, length: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "cut weights": ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "cannot read .*model.safetensors"),
    "a pickle": ("model.safetensors", b"\x80\x02cos\nsystem\n", "cannot read .*model.safetensors"),
    "nothing": ("model.safetensors", b"", "cannot read .*model.safetensors"),
    "a header without end": ("model.safetensors", header({}, 1 << 60), "cannot read .*model.safetensors"),
    "a header that is not JSON": ("model.safetensors", header(b"\xff" * 64), "cannot read .*model.safetensors"),
    "deep brackets": ("model.safetensors", header(b"[" * 100_000), "cannot read .*model.safetensors"),
    "data that is not there": ("model.safetensors", header({"a": ONE}), "cannot read .*model.safetensors"),
    "data that overlaps": ("model.safetensors", header({"a": ONE, "b": ONE}, data=b"\0" * 8), "cannot read"),
    "a hole in the data": ("model.safetensors", header({"a": ONE}, data=b"\0" * 64), "cannot read"),
    "a shape without end": (
        "model.safetensors", header({"a": {**ONE, "shape": [1 << 62, 8]}}, data=b"\0" * 8), "cannot read",
    ),
    "a negative shape": ("model.safetensors", header({"a": {**ONE, "shape": [-2]}}, data=b"\0" * 8), "cannot read"),
    "an unknown dtype": ("model.safetensors", header({"a": {**ONE, "dtype": "F7"}}, data=b"\0" * 8), "cannot read"),
    "offsets in reverse": (
        "model.safetensors", header({"a": {**ONE, "data_offsets": [8, 0]}}, data=b"\0" * 8), "cannot read",
    ),
    "a pointer of Git LFS": ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "cannot read"),
    "a web page": ("model.safetensors", b"<!doctype html><title>401</title>", "cannot read"),
    "another model's tensors": ("model.safetensors", header({"a": ONE}, data=b"\0" * 8), "have 0 layers"),
    "no tensors": ("model.safetensors", header({}), "have 0 layers"),
    "no JSON": ("config.json", b"{", "config.json is not JSON"),
    "a list": ("config.json", b"[]", "config.json is JSON but no object"),
    "not UTF-8": ("config.json", b'{"model_type": "\xff"}', "config.json is not JSON"),
    "deep": ("config.json", b"[" * 100_000, "config.json is not JSON"),
    "a number of 5,000 digits": ("config.json", b'{"n_layer": ' + b"9" * 5000 + b"}", "config.json is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_file_is_one_line(tmp_path: Path, small: GPT, kind: str) -> None:
    name, content, message = BROKEN[kind]
    (write_folder(tmp_path, small) / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_huggingface(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "../model.safetensors"}}, "only safetensors files beside it"),
        ({"weight_map": {"a": "model.bin"}}, "only safetensors files beside it"),
        ({"weight_map": {"a": "model-9-of-9.safetensors"}}, "lacks model-9-of-9.safetensors"),
        ({"weight_map": {}}, "names no files"),
        ({}, "names no files"),
    ],
)
def test_an_index_names_files_beside_it(tmp_path: Path, small: GPT, index: dict[str, Any], message: str) -> None:
    folder = write_folder(tmp_path / "m", small)
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        load_huggingface(folder)


def test_rows_without_a_token_are_left_out(tmp_path: Path) -> None:
    padded = randomised(GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=50304)))
    loaded = load_model(str(write_folder(tmp_path, padded)))
    assert loaded.tokenizer.name == "gpt2" and loaded.details["unused_ids"] == 47
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert loaded.model.logits(loaded.model(ids)).shape == (1, 10, 50257)
        assert torch.equal(loaded.model(ids), padded(ids))


def test_a_folder_that_has_gpt2s_tables_uses_the_built_in_tokenizer(tmp_path: Path) -> None:
    """So that its fingerprint, and with it every cached result, is the same as a run's."""
    library = transformers()
    from mygpt2.tokenizer.folder import write_tokenizer

    model = randomised(GPT(SMALL))
    write_tokenizer(load_tokenizer("gpt2:300"), write_folder(tmp_path / "a", model), 16)
    library.AutoTokenizer.from_pretrained(tmp_path / "a").save_pretrained(write_folder(tmp_path / "b", model))
    (write_folder(tmp_path / "c", model) / "vocab.json").write_bytes((tmp_path / "a" / "vocab.json").read_bytes())
    (tmp_path / "c" / "merges.txt").write_bytes((tmp_path / "a" / "merges.txt").read_bytes())
    for name in "abc":
        loaded = load_model(str(tmp_path / name))
        assert loaded.tokenizer.fingerprint == load_tokenizer("gpt2:300").fingerprint, name
        assert loaded.details["kind"] == "folder" and len(loaded.details["weights_sha256"]) == 64
    changed = json.loads((tmp_path / "a" / "tokenizer.json").read_text())
    changed["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(changed))
    assert load_model(str(tmp_path / "a")).tokenizer.name.endswith("tokenizer.json")


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path: Path, small: GPT) -> None:
    with pytest.raises(UserError, match=r"no tokenizer.json, and its vocabulary of 300 is not GPT-2's 50257"):
        load_model(str(write_folder(tmp_path, small)))
