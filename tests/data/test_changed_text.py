"""Text that changed since it was read is never trained on unnoticed; nothing in the cache is believed unseen."""

from __future__ import annotations

import errno
import random
import threading

import numpy as np
import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data import cache as cache_module
from mygpt2.data import checked, validation
from mygpt2.data.cache import TokenCache
from mygpt2.data.checked import BlockChecks, content_check, load_checked, save_checked
from mygpt2.data.heldout import hashes_of
from mygpt2.data.sources.hub.client import HubClient
from mygpt2.data.sources.hub.dataset import HubSource
from mygpt2.data.sources.local.folder import resolve_local
from mygpt2.data.sources.resolve import open_reader
from mygpt2.data.tokenize import REFERENCE, TokenBlock
from mygpt2.data.validation import validation_set
from tests.data.corpus import EOT, Bytes, Ranks, config, memory, sha256, write_parquet
from tests.data.hub_data import REPO, parquet
from tests.fake_hub import FakeHub


def run_an_epoch(run):
    while run.last == [] or min(batch.epoch for batch in run.last) < 1:
        run.step()


class Rotting:
    """A source in which the text of one block is another from now on, though its manifest is the same."""

    def __init__(self) -> None:
        self.inner = memory(blocks=24)
        self.manifest, self.close = self.inner.manifest, self.inner.close
        self.changed: set[int] = set()

    def read(self, block):
        documents = self.inner.read(block)
        return [documents[0].swapcase(), *documents[1:]] if block in self.changed else documents


@pytest.mark.parametrize("token_cache", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_block_that_is_another_when_it_is_read_again_is_not_trained_on(token_cache, ranks, tmp_path):
    source, data = Rotting(), config(token_cache=token_cache, max_quarantine=0.1)
    with Ranks(data, tmp_path / "a", ranks, source=source) as run:
        run_an_epoch(run)
    source.changed = {7}
    if token_cache:  # the tokens are of the text as it was; without them it is read again
        with Ranks(data, tmp_path / "a", 2, source=source) as run:
            run_an_epoch(run)
            assert run.state["quarantine"] == []
        for path in (tmp_path / "a" / "tokens").rglob("*.tokens"):
            path.unlink()
    with Ranks(data, tmp_path / "a", 2, source=source) as run:
        run_an_epoch(run)
        assert run.state["quarantine"] == [7]
        why = next(loader.quarantine_reasons[7] for loader in run.loaders if 7 in loader.quarantine_reasons)
    assert "not the one that was read before" in why and "--data.fork true" in why


def test_it_is_noticed_with_another_cache_as_well_where_the_run_keeps_the_checksums(tmp_path):
    source, data, kept = Rotting(), config(max_quarantine=0.1), tmp_path / "run" / "blocks.checks"
    with Ranks(data, tmp_path / "a", source=source, checks_file=kept) as run:
        run_an_epoch(run)
    source.changed = {7}
    with Ranks(data, tmp_path / "b", source=source, checks_file=kept) as run:
        run_an_epoch(run)
        assert run.state["quarantine"] == [7]


def test_a_fork_takes_the_text_as_it_is(tmp_path):
    source = Rotting()
    with Ranks(config(), tmp_path, source=source) as run:
        run_an_epoch(run)
    source.changed = {7}
    for fork in (True, False):
        with Ranks(config(fork=fork), tmp_path, source=source) as run:
            run_an_epoch(run)
            assert run.state["quarantine"] == []


def test_a_block_that_was_damaged_on_its_way_is_read_once_more(tmp_path):
    source = memory(blocks=24)
    with Ranks(config(), tmp_path, source=source) as run:
        run_an_epoch(run)
        expected = sha256(run.steps(20))

    read, damaged = source.read, set()

    def once(block):
        first = block not in damaged
        damaged.add(block)
        return [None, *read(block)[1:]] if first else read(block)

    source.read = once
    with Ranks(config(), tmp_path, source=source) as run:
        run_an_epoch(run)
        assert sha256(run.steps(20)) == expected and run.state["quarantine"] == []


def test_tokens_of_another_text_are_made_anew(tmp_path):
    """The cache is shared by two runs; what one of them left there is not what the other has read."""
    source, data = Rotting(), config(token_cache=True, max_quarantine=0.0)
    kept = tmp_path / "run" / "blocks.checks"
    with Ranks(config(), tmp_path / "a", source=source, checks_file=kept) as run:
        run_an_epoch(run)
        expected = sha256(run.steps(10))
    source.changed = {7}
    with Ranks(data, tmp_path / "b", source=source) as run:
        run_an_epoch(run)
    source.changed = set()
    (tmp_path / "b" / "checks").rename(tmp_path / "b" / "elsewhere")
    with Ranks(data, tmp_path / "b", source=source, checks_file=kept) as run:
        run_an_epoch(run)
        assert sha256(run.steps(10)) == expected


@pytest.mark.parametrize(
    ("documents", "others"),
    [
        (["a", None, "b"], [["a", "", "b"], ["b", None, "a"], ["a", None], ["a", None, "b", None], ["a", None, "B"]]),
        (
            [np.arange(3), np.arange(5)],
            [[np.arange(3)], [np.arange(3), np.arange(5) + 1], [np.arange(4), np.arange(4)]],
        ),
        ([], [[None], [""]]),
    ],
)
def test_a_checksum_tells_any_change_of_the_documents(documents, others):
    check = content_check(hashes_of(documents))
    assert check == content_check(hashes_of(list(documents)))
    assert check not in [content_check(hashes_of(other)) for other in others]


def test_no_flipped_bit_of_the_checksums_is_believed_and_the_whole_ones_are_kept(tmp_path):
    path = tmp_path / "x.checks"
    checks = BlockChecks("ab" * 32, run_file=path)
    assert all(checks.agrees(block, block * 77) for block in range(50))
    whole, rng = path.read_bytes(), random.Random(3)
    for _ in range(200):
        content = bytearray(whole)
        at = rng.randrange(len(content))
        content[at] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        found = BlockChecks("ab" * 32, run_file=path)
        assert sum(found.get(block) == block * 77 for block in range(50)) == 49
        assert found.get(at // 16) is None
    path.write_bytes(whole[:-5])  # torn
    again = BlockChecks("ab" * 32, run_file=path)
    assert again.get(49) is None and again.agrees(49, 5)
    assert BlockChecks("ab" * 32, run_file=path).get(49) == 5
    assert BlockChecks("cd" * 32, run_file=path).get(7) is None  # of another source


def test_no_flipped_bit_of_a_checked_file_is_believed_and_it_is_said_once(tmp_path, capfd):
    path, value = tmp_path / "x.json", {"a": [1, 2, {"b": None}], "c": "text"}
    save_checked(path, value)
    whole = path.read_bytes()
    assert load_checked(path) == value
    for bit in range(0, 8 * len(whole), 3):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert load_checked(path) is None
    for cut in (0, 5, 32, 33, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert load_checked(path) is None
    assert load_checked(tmp_path / "none") is None
    assert capfd.readouterr().err == f"{path} in the cache is damaged: what it held is made anew\n"


def test_the_tokens_of_the_fast_encoder_are_not_taken_for_the_references(tmp_path):
    """encoder=tiktoken asks for the reference: what another encoder left in the cache does not count."""
    source = memory(blocks=24)
    with Ranks(config(token_cache=True), tmp_path, source=source) as run:
        run_an_epoch(run)
        expected = sha256(run.steps(20))
        maker = run.loaders[0]._sources[0].maker
        assert {key for block in range(24) for key in [maker._key(block, REFERENCE), maker._key(block, "other 1.0")]}
        cache = run.loaders[0].cache
        for block in range(24):  # the same blocks, made by an encoder that gives other ids
            wrong = TokenBlock(block, np.zeros(60, np.uint16), np.array([10] * 6), encoder="other 1.0", check=1)
            cache.put(maker._key(block, "other 1.0"), wrong)
    with Ranks(config(token_cache=True), tmp_path, source=source) as run:
        run_an_epoch(run)
        assert sha256(run.steps(20)) == expected


def tokens(count: int) -> TokenBlock:
    return TokenBlock(0, np.arange(count, dtype=np.uint16), np.array([count], np.int64))


def test_the_cap_holds_for_all_processes_that_share_a_cache(tmp_path):
    cap, sharers = 60_000, [TokenCache(tmp_path, cap_bytes=60_000) for _ in range(8)]
    peak, watching = 0, threading.Lock()

    def fill(number: int, cache: TokenCache) -> None:
        nonlocal peak
        for i in range(20):
            cache.put(TokenCache.key(number, i), tokens(500))
            with watching:
                peak = max(peak, sum(path.stat().st_size for path in tmp_path.rglob("*.tokens")))

    for number, cache in enumerate(sharers):  # each opened before any wrote, as ranks are
        fill(number, cache)
    assert cap * 0.5 < peak <= cap
    assert not any(cache.failure for cache in sharers)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_said_once_and_the_batches_stay_what_they_are(
    code, tmp_path, monkeypatch, capfd
):
    with Ranks(config(), tmp_path / "a", source=memory()) as run:
        expected = sha256(run.steps(30))

    def fails(*_, **__):
        raise OSError(code, "cannot")

    monkeypatch.setattr(cache_module, "replace_file", fails)
    monkeypatch.setattr(checked, "replace_file", fails)
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "checks").write_text("a file where the folder should be")
    with Ranks(config(token_cache=True), folder, 2, source=memory()) as run:
        assert sha256(run.steps(30)) == expected
    said = capfd.readouterr().err
    assert said.count(f"the cache folder {folder} cannot be written (cannot)") == 1


def flipped(content: bytes, rng: random.Random) -> bytes:
    """The same with one bit another."""
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def test_no_flipped_bit_in_a_kept_manifest_of_the_hub_is_believed(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with FakeHub({REPO: {"data/train.parquet": parquet([["a", "b"], ["c"]])}}) as hub:
        client = HubClient(hub.endpoint)
        source = f"{REPO}@{hub.commit}"
        data = DataConfig(source=source)
        expected = HubSource(source, data, tmp_path, client=client).manifest().to_dict()
        path = next((tmp_path / "hub" / "manifests").iterdir())
        whole, rng, asked = path.read_bytes(), random.Random(5), hub.count()
        for n in range(40):
            path.write_bytes(flipped(whole, rng))
            assert HubSource(source, data, tmp_path, client=client).manifest().to_dict() == expected
            assert hub.count() > asked + n  # asked again


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_the_held_out_set_needs_no_cache(code, tmp_path, monkeypatch, capfd):
    source = write_parquet(tmp_path / "source")
    data = config(source, validation_fraction=0.1)

    def held_out_set(folder):
        manifest = resolve_local("x", source, data)
        return validation_set(manifest, open_reader(manifest, cache_dir=folder, eot_id=EOT), Bytes(), data, folder)

    expected = held_out_set(tmp_path / "good").sha256

    def fails(*_, **__):
        raise OSError(code, "cannot")

    monkeypatch.setattr(checked, "replace_file", fails)
    monkeypatch.setattr(validation, "replace_file", fails)
    assert held_out_set(tmp_path / "bad").sha256 == expected
    (tmp_path / "file").write_text("")
    assert held_out_set(tmp_path / "file" / "folder").sha256 == expected  # it cannot be locked either
    said = capfd.readouterr().err
    assert said.count(f"the cache folder {tmp_path / 'bad'} cannot be written") == 1


def test_no_flipped_bit_in_the_held_out_set_is_believed_and_it_is_said(tmp_path, capfd):
    source = write_parquet(tmp_path / "source")
    data, cache = config(source, validation_fraction=0.1), tmp_path / "cache"
    manifest = resolve_local("x", source, data)

    def held_out_set():
        return validation_set(manifest, open_reader(manifest, cache_dir=cache, eot_id=EOT), Bytes(), data, cache)

    expected, rng = held_out_set(), random.Random(8)
    path = next((cache / "validation").glob("*.safetensors"))
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    for place in [*rng.sample(range(head), 50), *rng.sample(range(head, len(whole)), 15)]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        found = held_out_set()
        assert found.sha256 == expected.sha256 and found.tokens.dtype == expected.tokens.dtype
        assert np.array_equal(found.tokens, expected.tokens)
    assert f"{path} in the cache is damaged: what it held is made anew" in capfd.readouterr().err
