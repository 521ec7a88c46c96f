"""Named texts: the right documents in the right layout, from the hub or the cache, and nothing else under the name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mygpt2.data.sources.hub.client import HubClient
from mygpt2.errors import TryAgain, UserError
from mygpt2.evals import text as texts
from mygpt2.evals.loss import LossResult
from mygpt2.evals.protocols import PROTOCOLS, WINDOW
from mygpt2.evals.stream import TokenStream
from mygpt2.evals.text import Text, hub_stream, open_text
from mygpt2.evals.yardstick import find, keep
from mygpt2.tokenizer import load_tokenizer
from tests.data.hub_data import FastClock, parquet
from tests.evals.models import EOT, Bytes
from tests.fake_hub import FakeHub, Fault

EDU, SHARD = PROTOCOLS["edu-bn"].repo, PROTOCOLS["fineweb-10m"].repo
DOCUMENTS = [f"Document {i} says something." for i in range(60)]


def published(tokens: np.ndarray, magic: int = 20240520, version: int = 1, count: int | None = None) -> bytes:
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    return header.tobytes() + tokens.astype("<u2").tobytes()


SHARD_TOKENS = np.concatenate([[50256, *range(100, 100 + n)] for n in (5, 30, 2, 17)])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    groups = [["", *DOCUMENTS[:20]], DOCUMENTS[20:40], [*DOCUMENTS[40:], "  \n"]]
    edu = {"sample/100BT/013_00000.parquet": parquet(groups), "sample/10BT/000_00000.parquet": parquet(groups[1:])}
    edu |= {"sample/10BT/001_00000.parquet": parquet([["no"]]), "sample/100BT/000_00000.parquet": parquet([["no"]])}
    shard = {"fineweb_val_000000.bin": published(SHARD_TOKENS), "fineweb_train_000001.bin": b"no"}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with FakeHub({EDU: edu, SHARD: shard}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


def stream(name: str, cache: Path, hub: FakeHub, tokenizer: object = None, **changes: object) -> TokenStream:
    protocol = replace(PROTOCOLS[name], **changes)
    clock = FastClock(4000.0)
    client = HubClient(hub.endpoint, clock=clock)
    return hub_stream(protocol, tokenizer or Bytes(), cache, client=client, clock=clock)


def test_edu_seed_is_the_first_documents_with_end_of_text_appended(hub: FakeHub, tmp_path: Path) -> None:
    found = stream("edu-seed", tmp_path, hub, documents=25)
    expected = [t for d in DOCUMENTS[:25] for t in (*d.encode(), EOT)]
    assert found.tokens.tolist() == expected and found.documents == 25
    assert found.bytes == len("".join(DOCUMENTS[:25]).encode()) - 1  # the first token is not a target
    assert found.sha256 == hashlib.sha256(np.array(expected, "<u2").tobytes()).hexdigest()
    assert found.origin["file"] == "sample/100BT/013_00000.parquet" and found.origin["commit"] == hub.commit


def test_edu_bn_is_so_many_targets_with_end_of_text_prepended(hub: FakeHub, tmp_path: Path) -> None:
    found = stream("edu-bn", tmp_path, hub, targets=100)
    expected = [t for d in DOCUMENTS[20:] for t in (EOT, *d.encode())][:101]
    assert found.tokens.tolist() == expected and found.targets == 100
    assert found.doc_starts.tolist() == [i + 1 for i, t in enumerate(expected[:-1]) if t == EOT]


def test_fineweb_10m_is_the_published_tokens_and_only_their_beginning_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    found = stream("fineweb-10m", tmp_path, hub, load_tokenizer("gpt2"), targets=20)
    assert found.tokens.tolist() == SHARD_TOKENS[:21].tolist() and found.doc_starts.tolist() == [1, 7]
    assert {r.range for r in hub.requests if r.path.endswith(".bin")} == {"bytes=0-1023", "bytes=1024-1065"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (published(SHARD_TOKENS, magic=7), "begins with 7, not with the magic 20240520"),
        (published(SHARD_TOKENS, version=2), "layout version 2; only version 1"),
        (published(SHARD_TOKENS, count=99), "promises 99 tokens"),
        (b"short", "not with the magic"),
    ],
)
def test_a_shard_whose_header_is_wrong_is_refused(hub: FakeHub, tmp_path: Path, content: bytes, problem: str) -> None:
    hub.repos[SHARD]["fineweb_val_000000.bin"] = content
    with pytest.raises(UserError, match=problem):
        stream("fineweb-10m", tmp_path, hub, load_tokenizer("gpt2"))


def test_a_dataset_that_holds_less_than_the_protocol_is_not_the_protocol(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"edu-seed is 12,000 documents and .* holds 60; the dataset was changed"):
        stream("edu-seed", tmp_path, hub)
    del hub.repos[EDU]["sample/10BT/000_00000.parquet"]
    with pytest.raises(UserError, match="it was changed"):
        stream("edu-bn", tmp_path, hub)


def test_damage_on_the_way_is_fetched_again_and_an_outage_ends_in_try_again(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [Fault("flip", where="cdn", times=1, path="cdn", skip=1), Fault("503", times=2)]
    assert stream("edu-bn", tmp_path, hub, targets=500).targets == 500
    hub.outage(10**6)
    with pytest.raises(TryAgain, match="503"):
        stream("edu-bn", tmp_path, hub, targets=500)


def test_a_text_is_made_once_and_asked_for_without_the_network_from_then_on(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**PROTOCOLS, "edu-bn": replace(PROTOCOLS["edu-bn"], targets=200)}
    monkeypatch.setattr(texts, "PROTOCOLS", small)
    gpt2 = load_tokenizer("gpt2")
    first = open_text("edu-bn", gpt2, cache_dir=tmp_path)
    asked = hub.count()
    again = open_text("edu-bn", gpt2, cache_dir=tmp_path)
    assert hub.count() == asked and again.stream.sha256 == first.stream.sha256
    assert again.stream.origin == first.stream.origin and again.stream.bytes == first.stream.bytes
    kept = next((tmp_path / "protocols").glob("*.safetensors"))
    kept.write_bytes(kept.read_bytes()[:-2])
    assert open_text("edu-bn", gpt2, cache_dir=tmp_path).stream.sha256 == first.stream.sha256  # damaged: made again
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        open_text("edu-seed", gpt2, cache_dir=tmp_path)


def test_quoted_figures_stand_only_beside_their_own_windows_and_tokens() -> None:
    gpt2 = load_tokenizer("gpt2")
    made = Text("edu-bn", None, WINDOW, PROTOCOLS["edu-bn"].quoted)  # type: ignore[arg-type]
    assert [q.figure for q in made.quoted_beside(made.window_for(2048), gpt2)] == [3.2924]
    assert made.quoted_beside(made.window_for(512), gpt2) == ()
    assert made.quoted_beside(WINDOW, load_tokenizer("gpt2:4096")) == ()
    assert Text("local:x", None).quoted_beside(WINDOW, gpt2) == ()  # type: ignore[arg-type]
    assert all(q.source and q.to_json()["quoted"] is True for p in PROTOCOLS.values() for q in p.quoted)


def test_a_folder_of_text_a_file_and_tokens_are_protocols_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in (2, 0, 1):
        (folder / f"{i}.txt").write_text(DOCUMENTS[i])
    made = open_text(str(folder), Bytes(), cache_dir=tmp_path / "c")
    assert made.protocol == f"local:{folder}" and made.window is None and made.quoted == ()
    assert made.stream.tokens.tolist() == [t for d in DOCUMENTS[:3] for t in (*d.encode(), EOT)]
    (tmp_path / "x.jsonl").write_text('{"body": "ab"}\n{"body": ""}\n{"body": "<|endoftext|>"}\n')
    made = open_text(str(tmp_path / "x.jsonl"), Bytes(), cache_dir=tmp_path / "c", text_column="body")
    assert made.stream.tokens.tolist() == [*b"ab", EOT, *b"<|endoftext|>", EOT]
    for name, content in (("a.bin", published(SHARD_TOKENS)), ("b.bin", SHARD_TOKENS.astype("<u2").tobytes())):
        (tmp_path / name).write_bytes(content)
        made = open_text(str(tmp_path / name), load_tokenizer("gpt2"), cache_dir=tmp_path / "c")
        assert made.stream.tokens.tolist() == SHARD_TOKENS.tolist() and made.stream.documents == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("edu-bm", "neither a protocol nor a path; allowed: edu-seed, edu-bn, fineweb-10m, run, .*did you mean edu-bn"),
        ("fineweb-10m", "published as GPT-2's tokens and this model's tokenizer is bytes"),
        ("run:absent", "held-out set of a run and absent is none"),
        ("empty", "--protocol .*empty is a folder without"),
        ("wrong.jsonl", "--text-column=text is not a key"),
        ("wrong.bin", "not a pre-tokenized file"),
        ("wrong.parquet", "not a readable parquet file"),
    ],
)
def test_a_wrong_name_or_path_is_one_line_of_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("wrong.jsonl").write_text('{"content": "x"}\n')
    Path("wrong.bin").write_bytes(b"odd")
    Path("wrong.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UserError, match=message) as caught:
        open_text(name, Bytes(), cache_dir=tmp_path / "c")
    assert "\n" not in str(caught.value) and "data.source" not in str(caught.value)


def test_a_yardstick_is_kept_with_revision_and_fingerprint_and_found_under_every_spelling(tmp_path: Path) -> None:
    result = LossResult(3.2926, 0.01, 26.9, 1.0, 100, 400, 9, 1024, "ab" * 32, "fp32")
    details = {"name": "gpt2@607a30d", "revision": "607a30d" + "0" * 33, "weights_sha256": "cd" * 32, "kind": "hub"}
    assert find(tmp_path, "gpt2", "ab" * 32) is None
    keep(tmp_path, "gpt2", details, "edu-bn", result)
    found = find(tmp_path, "openai-community/gpt2", "ab" * 32)
    assert found is not None and found["loss"] == 3.2926 and found["revision"] == details["revision"]
    assert found["weights_sha256"] == "cd" * 32 and found["protocol"] == "edu-bn"
    assert find(tmp_path, "gpt2-medium", "ab" * 32) is None and find(tmp_path, "gpt2", "ac" * 32) is None
