"""GPT-2's ids, exactly, from tables that prove themselves, with no network and no file left behind."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tiktoken_ext import openai_public

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer, load_tokenizer
from mygpt2.tokenizer.base import printable_bytes
from mygpt2.tokenizer.gpt2 import MERGES_FILE, SHA256, read_merges
from mygpt2.tokenizer.patterns import GPT2 as SPLIT

PROSE = (
    "In this section we'll show that the model's loss isn't a power law; it's 3.14159 at step 1,000.\n\n"
    "    def f(x):\n\treturn x ** 2  # squared\n\nNa\u00efve caf\u00e9s \u2014 \u201cquoted\u201d \u2014 "
    "\u4f60\u597d\uff0c\u4e16\u754c \U0001f600 \u0645\u0631\u062d\u0628\u0627 12\u00bd\u00b2\r\n"
)


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    return load_tokenizer("gpt2")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """tiktoken's own definition of gpt2, fed from local files; its file cache is switched off."""
    encoder = tmp_path_factory.mktemp("tables") / "encoder.json"
    encoder.write_text(json.dumps(id_table()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(
            str(MERGES_FILE), str(encoder), SHA256["vocab.bpe"], SHA256["encoder.json"]
        )
    return tiktoken.Encoding(
        "gpt2", pat_str=openai_public.r50k_pat_str, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )


def id_table() -> dict[str, int]:
    """What OpenAI's encoder.json says, in its order."""
    words = [*printable_bytes(), *(first + second for first, second in read_merges()), "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def strange_texts(count: int, seed: int = 0) -> list[str]:
    """Random strings: words, spaces and digits mixed with anything Unicode has, lone surrogates too."""
    rng = random.Random(seed)
    pieces = [*PROSE.split(" "), " ", "  ", "\n", "\n\n", "'s", "'LL", "<|endoftext|>", "0", "99", "\u0301", "\u200d"]

    def piece() -> str:
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(pieces)
        if kind < 0.8:
            return chr(rng.randrange(0x500))
        return chr(rng.randrange(0x110000))

    return ["".join(piece() for _ in range(rng.randrange(24))) for _ in range(count)]


def test_ids_equal_tiktokens_on_strange_strings_and_prose(gpt2: Tokenizer, reference: tiktoken.Encoding) -> None:
    for text in [*strange_texts(100_000 if os.environ.get("MYGPT2_FULL") == "1" else 3000), PROSE * 50]:
        assert gpt2.encode(text) == reference.encode_ordinary(text), ascii(text)


def test_ids_known_by_heart(gpt2: Tokenizer) -> None:
    """Published with GPT-2's model card: "Hello world" is 15496, 995."""
    assert gpt2.encode("Hello world") == [15496, 995]
    assert (gpt2.vocab_size, gpt2.eot_id, gpt2.dtype) == (50257, 50256, np.uint16)


def test_the_split_pattern_is_gpt2s(gpt2: Tokenizer) -> None:
    assert openai_public.r50k_pat_str == SPLIT


def test_a_document_cannot_produce_end_of_text(gpt2: Tokenizer) -> None:
    ids = gpt2.encode("one<|endoftext|>two")
    assert gpt2.eot_id not in ids and gpt2.decode(ids) == "one<|endoftext|>two"


def test_runs_of_a_million_spaces_are_encoded(gpt2: Tokenizer) -> None:
    text = "a" + " " * 1_000_000 + "b" + "\n" * 1_000_000 + "c" + " " * 1_000_000
    assert gpt2.decode(gpt2.encode(text)) == text


def test_cutting_a_text_at_long_runs_changes_no_id(gpt2: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(4)
    texts = ["".join(dice.choices(" \n\x1c\u2028ab1!'s", k=dice.randrange(20))) for _ in range(3000)]
    expected = [gpt2.encode(text) for text in texts]
    monkeypatch.setattr("mygpt2.tokenizer.gpt2.LONGEST_RUN", 2)
    assert [gpt2.encode(text) for text in texts] == expected


def test_decoding_undoes_encoding_and_never_fails(gpt2: Tokenizer) -> None:
    for text in strange_texts(300, seed=1):
        assert gpt2.decode(gpt2.encode(text)) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert gpt2.decode([50256]) == "<|endoftext|>"
    assert gpt2.decode([50257, 50303, 10**9, -1, 0]) == "!"  # padded and impossible ids are empty
    half = gpt2.encode("\U0001f600")[:1]
    assert gpt2.decode(half) == "\ufffd" and len(gpt2.decode_bytes(half)) < 4


def test_a_batch_is_its_texts_and_threads_do_not_matter(gpt2: Tokenizer) -> None:
    texts = strange_texts(200, seed=2)
    expected = [gpt2.encode(text) for text in texts]
    results: dict[int, list[np.ndarray]] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, gpt2.encode_batch(texts)))  # type: ignore[misc]
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for rows in results.values():
        assert [row.tolist() for row in rows] == expected
        assert all(row.dtype == np.uint16 for row in rows)


def test_token_bytes_spell_every_text(gpt2: Tokenizer) -> None:
    pieces = gpt2.token_bytes()
    assert len(pieces) == 50257 and pieces[50256] == b"" and len({*pieces}) == 50257
    assert b"".join(pieces[i] for i in gpt2.encode(PROSE)) == PROSE.encode()


@pytest.mark.parametrize("size", [257, 300, 8192])
def test_a_truncated_vocabulary_is_the_start_of_the_whole(gpt2: Tokenizer, size: int) -> None:
    short = load_tokenizer(f"gpt2:{size}")
    assert (short.vocab_size, short.eot_id) == (size, size - 1)
    assert short.token_bytes()[:-1] == gpt2.token_bytes()[: size - 1]
    for text in [PROSE, *strange_texts(100, seed=3)]:
        ids = short.encode(text)
        assert max(ids, default=0) < size - 1
        assert short.decode(ids) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if all(i < size - 1 for i in gpt2.encode(text)):
            assert ids == gpt2.encode(text)


def test_truncated_ids_are_those_of_merging_by_hand() -> None:
    """Byte-pair encoding by its definition: join the earliest-learned neighbours until none is known."""
    size = 400
    short, ranks = load_tokenizer(f"gpt2:{size}"), {}
    ranks = {piece: i for i, piece in enumerate(short.token_bytes()[:-1])}
    for word in [" the", " section", "hello", " \u4f60"]:
        parts = [bytes([b]) for b in word.encode()]
        while True:
            pairs = [(ranks.get(a + b, size), i) for i, (a, b) in enumerate(pairwise(parts))]
            rank, i = min(pairs, default=(size, 0))
            if rank == size:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        assert short.encode(word) == [ranks[part] for part in parts]


def test_fingerprints_tell_tokenizers_apart(gpt2: Tokenizer) -> None:
    specs = ["gpt2", "gpt2:8192", "gpt2:8193"]
    assert len({load_tokenizer(spec).fingerprint for spec in specs}) == 3
    assert load_tokenizer("gpt2:50257").fingerprint == gpt2.fingerprint == load_tokenizer("gpt2").fingerprint
    assert gpt2.fingerprint == "f9b9430bdad0c7cdb09886dd4448832f2f21e028e5b3f94617be233c7f043083"  # runs depend on it


def test_loading_reaches_no_network_and_writes_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a connection was attempted")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    load_tokenizer("gpt2")
    assert not [*tmp_path.iterdir()]


def test_a_changed_or_missing_table_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "vocab.bpe"
    table.write_bytes(MERGES_FILE.read_bytes().replace(b"h e", b"e h", 1))
    with pytest.raises(UserError, match=r"vocab\.bpe have SHA-256 .* install mygpt2 again"):
        read_merges(table)
    table.unlink()
    with pytest.raises(UserError, match="cannot read GPT-2's merges"):
        read_merges(table)


def test_the_ids_are_those_of_openais_own_table() -> None:
    assert hashlib.sha256(json.dumps(id_table()).encode()).hexdigest() == SHA256["encoder.json"]


@pytest.mark.parametrize(
    "spec", ["gpt2:", "gpt2:x", "gpt2:256", "gpt2:50258", "gpt2:-1", "gpt3", "/no/such/tokenizer.json"]
)
def test_unknown_names_say_what_is_allowed(spec: str) -> None:
    with pytest.raises(UserError, match=r"257|gpt2:N") as caught:
        load_tokenizer(spec)
    assert "\n" not in str(caught.value) and spec in str(caught.value)
