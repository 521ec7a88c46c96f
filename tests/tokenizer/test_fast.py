"""The fast encoder is used where it gives the reference's ids, and nowhere else."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest

from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.fast import FastEncoder, fast_encoder, is_settled, probe_fast_encoder
from tests.tokenizer.test_gpt2 import PROSE, strange_texts
from tests.tokenizer.test_hf import byte_level, save

needs_gigatoken = pytest.mark.skipif(importlib.util.find_spec("gigatoken") is None, reason="gigatoken is not installed")


@needs_gigatoken
@pytest.mark.parametrize("spec", ["gpt2", "gpt2:8192", "gpt2:257", "file"])
def test_ids_equal_the_references(spec: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(save(byte_level(), tmp_path)) if spec == "file" else spec)
    encoder, reason = probe_fast_encoder(tokenizer, [PROSE])
    assert encoder is not None, reason
    texts = strange_texts(1000, seed=7)
    for text, ours, fast in zip(texts, tokenizer.encode_batch(texts), encoder.encode_batch(texts), strict=True):
        assert np.array_equal(ours, fast) and fast.dtype == tokenizer.dtype, ascii(text)


@needs_gigatoken
def test_no_character_of_unicode_is_cut_otherwise_before_a_contraction() -> None:
    tokenizer = load_tokenizer("gpt2")
    texts = [chr(c) + "'s" for c in range(0x80, 0x40000, 3) if not 0xD800 <= c < 0xE000]
    pairs = zip(texts, tokenizer.encode_batch(texts), FastEncoder(tokenizer).encode_batch(texts), strict=True)
    assert not [ascii(text) for text, ours, fast in pairs if not np.array_equal(ours, fast)]


@pytest.mark.parametrize("text", ["plain", "“café” — 你好 😀 𝐀", "𠀀", "\ud800"])
def test_common_text_is_left_to_the_fast_one(text: str) -> None:
    assert is_settled(text)


@pytest.mark.parametrize("text", ["\U00030000", "x\U00010942's", "\u0cdc", "\u0378", "\U0010ffff"])
def test_text_whose_letters_depend_on_the_version_of_unicode_is_not(text: str) -> None:
    assert not is_settled(text)


@needs_gigatoken
def test_threads_share_one_encoder() -> None:
    encoder, texts = FastEncoder(load_tokenizer("gpt2:300")), strange_texts(200, seed=8)
    alone, rows = encoder.encode_batch(texts), []
    threads = [threading.Thread(target=lambda: rows.append(encoder.encode_batch(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rows) == 4
    assert all(np.array_equal(a, b) for row in rows for a, b in zip(alone, row, strict=True))


@needs_gigatoken
def test_one_different_id_rules_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FastEncoder._encode
    monkeypatch.setattr(
        FastEncoder, "_encode", lambda self, t: honest(self, t)[::-1] if t == "the odd one" else honest(self, t)
    )
    encoder, reason = probe_fast_encoder(load_tokenizer("gpt2:300"), ["fine", "the odd one"])
    assert encoder is None and "gives other ids than gpt2:300 on 1 of" in reason


def test_without_the_package_the_reason_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mygpt2.tokenizer.fast.find_spec", lambda name: None)
    encoder, reason = probe_fast_encoder(load_tokenizer("gpt2:300"), [])
    assert encoder is None and "not installed" in reason
    assert fast_encoder(load_tokenizer("gpt2:300"), []) is None
