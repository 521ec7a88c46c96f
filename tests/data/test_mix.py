"""Mixtures: the share of every source at every row, and batches that depend on nothing but data, settings and seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mygpt2.__main__ import main
from mygpt2.config.data import DataConfig
from mygpt2.config.mix import MixSource
from mygpt2.data.batch import mean_epoch
from mygpt2.data.heldout import content_hash
from mygpt2.data.ledger import coverage, tokens_had
from mygpt2.data.mix import MixOrder
from mygpt2.data.sources.mixture import Mixture, manifest_from, parts_of
from mygpt2.data.sources.resolve import open_reader, open_settled, resolve_data
from mygpt2.data.validation import validation_set
from mygpt2.errors import UserError
from tests.data.corpus import EOT, Bytes, Ranks, config, memory, sha256, texts, write_jsonl, write_parquet, write_txt

GOLDEN = "2c3e617034cfb6a0892d6ec829b7c814a28e0271888ad665c10a684091b4e41d"  # the first 30 batches of `three`
SHARES = [0.5, 0.3, 0.2]


class Decoding(Bytes):
    def decode_bytes(self, ids):
        return bytes(np.asarray(ids, np.uint8))


def three(folder: Path, weights: tuple[float, ...] = (5, 3, 2), **settings: Any) -> DataConfig:
    """Parquet, jsonl and txt, each of some dozen blocks."""
    if not folder.exists():
        write_parquet(folder / "a", files=4)
        write_jsonl(folder / "b")
        write_txt(folder / "c", paragraphs=30_000)
    mix = [
        MixSource(name=name, source=str(folder / name), weight=weight)
        for name, weight in zip("abc", weights, strict=False)
    ]
    return config(source="pydocs", mix=mix, lanes=4, **settings)


def going(data: DataConfig, folder: Path, ranks: int = 1, **more: Any) -> Ranks:
    return Ranks(data, folder / "cache", ranks, **more)


# The order of the sources


@pytest.mark.parametrize("shares", [[0.7, 0.3], SHARES, [1 / 3] * 3, [0.9, 0.05, 0.05], [0.02] * 50])
def test_after_any_number_of_rows_every_source_has_its_share(shares: list[float]) -> None:
    lanes, rows, parts = 16, 3000, np.arange(len(shares))
    order = MixOrder(shares, lanes, seed=1337)
    found = np.stack([order.sources(lane, 0, rows) for lane in range(lanes)])
    counts = np.cumsum(found[:, :, None] == parts, axis=1)
    due = np.arange(1, rows + 1)[:, None] * np.array(shares)
    most = {2: 1.0, 3: 1.5}.get(len(shares), 4.0)  # a row at each node on the way down, less what halves of it
    assert np.abs(counts - due).max() < most
    assert np.abs(counts.sum(axis=0) - lanes * due).max() < 2 * most, "the lanes together, however many they are"
    for lane, row in ((0, 1), (3, 1234), (15, 2999)):
        assert order.before(lane, row) == counts[lane, row - 1].tolist()
        assert (order.sources(lane, row, 40) == found[lane, row : row + 40]).all() or row > rows - 40


def test_lanes_do_not_fall_into_step_and_far_rows_cost_what_near_ones_cost() -> None:
    order = MixOrder(SHARES, 64, seed=1)
    at_once = np.array([order.sources(lane, 10**9, 1)[0] for lane in range(64)])
    assert np.abs(np.bincount(at_once, minlength=3) - 64 * np.array(SHARES)).max() <= 2
    assert sum(order.before(5, 10**9)) == 10**9
    assert np.abs(np.array(order.before(5, 10**9)) / 10**9 - SHARES).max() < 1e-8
    other = MixOrder(SHARES, 64, seed=2)
    assert [list(order.sources(lane, 0, 8)) for lane in range(64)] != [
        list(other.sources(lane, 0, 8)) for lane in range(64)
    ]


# Batches


@pytest.mark.parametrize("settings", [{}, {"threads": 1, "prefetch_steps": 2}, {"token_cache": True}])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_the_batches_of_three_sources_are_always_the_same(tmp_path, ranks, settings) -> None:
    data = three(tmp_path / "data", **settings)
    for _ in range(2 if "token_cache" in settings else 1):  # a cold cache and a warm one
        with going(data, tmp_path, ranks) as run:
            assert run.loaders[0].manifest.kind == "mixture"
            assert sha256(run.steps(30)) == GOLDEN


def test_a_row_is_of_one_source_and_shares_hold_at_every_step(tmp_path) -> None:
    counts = np.zeros(3, int)
    with going(three(tmp_path / "data"), tmp_path) as run:
        firsts = [part.first for part in run.loaders[0].parts]
        for step in range(1, 60):
            run.step()
            batch = run.last[0]
            for row, pairs in enumerate(batch.provenance):
                own = {int(np.searchsorted(firsts, block, side="right")) - 1 for block, _ in pairs}
                assert own == {int(batch.sources[row])}
            counts += np.bincount(batch.sources, minlength=3)
            assert np.abs(counts - 8 * step * np.array(SHARES)).max() <= 3


def test_a_mixture_of_one_is_its_source(tmp_path) -> None:
    folder = write_parquet(tmp_path / "a")
    mixed = config(source="pydocs", mix=[MixSource(name="a", source=str(folder))])
    with going(mixed, tmp_path) as one, going(config(folder), tmp_path) as alone:
        assert sha256(one.steps(20)) == sha256(alone.steps(20)) and one.state == alone.state


@pytest.mark.parametrize("ranks", [1, 4])
def test_a_run_goes_on_from_its_state_with_the_same_batches(tmp_path, ranks) -> None:
    data = three(tmp_path / "data")
    with going(data, tmp_path, ranks) as run:
        run.steps(13)
        state = run.state
        whole = run.steps(40)
        after = run.state
    assert np.array(state["cursor"]).shape == (4, 15)
    for other in {1, 2, ranks}:
        with going(data, tmp_path, other, state=state) as run:
            assert sha256(run.steps(40)) == sha256(whole) and run.state == after


def test_a_million_steps_ahead_is_opened_where_the_arithmetic_says(tmp_path) -> None:
    """The place of every source of a lane after 10^6 steps follows from the order; the loader goes on from there."""
    data = three(tmp_path / "data")
    with going(data, tmp_path) as run:
        run.steps(1)
        state, mix = run.state, MixOrder(SHARES, 4, 1)
    for lane, cursor in enumerate(state["cursor"]):
        for source, rows in enumerate(mix.before(lane, 2_000_000)):
            cursor[5 * source : 5 * source + 5] = [900 + source, 0, 0, 0, rows]
    with going(data, tmp_path, state=state) as run:
        run.steps(3)
        sources = np.concatenate([mix.sources(lane, 2_000_000, 6) for lane in range(4)])
        assert sum(np.array(run.state["cursor"])[:, 4::5].sum(axis=1)) == 4 * 2_000_006
        assert run.last[0].epoch > 900 and len(set(sources.tolist())) == 3
    state["cursor"][0][4] += 50
    with pytest.raises(ValueError, match="which its order never has"):
        going(data, tmp_path, state=state)


# Forks


def test_another_weight_is_refused_or_forked_and_nothing_is_read_twice(tmp_path) -> None:
    data, other = three(tmp_path / "data"), three(tmp_path / "data", (2, 3, 5))
    with going(data, tmp_path) as run:
        run.steps(12)
        state = run.state
        seen = {place for _, _, places in run.rows() for place in places}
    why = "data order cannot go on: mix was a 50 %, b 30 %, c 20 %, is a 20 %, b 30 %, c 50 %; .*--data.fork true"
    with pytest.raises(UserError, match=why):
        going(other, tmp_path, state=state)
    with going(other, tmp_path, state=state, fork=True) as run:
        run.steps(1)
        first = np.array(run.state["cursor"])
        assert (first[:, 1::5] >= np.array(state["cursor"])[:, 1::5]).all(), "each source goes on from its place"
        assert not {place for _, _, places in run.rows() for place in places[1:-1]} & seen
        run.steps(40)
        assert [entry["fingerprint"]["mix"] for entry in run.state["before"]] == [state["fingerprint"]["mix"]]
        told = coverage(run.state, run.loaders[0].manifest)
        assert told.tokens == 53 * 8 * 32
        shares = [source.tokens / told.tokens for source in told.sources]
        expected = (12 * np.array(SHARES) + 41 * np.array([0.2, 0.3, 0.5])) / 53
        np.testing.assert_allclose(shares, expected, atol=0.02)


def test_a_source_that_is_added_leaves_the_others_where_they_are(tmp_path) -> None:
    two = three(tmp_path / "data", (5, 3))
    with going(two, tmp_path) as run:
        run.steps(10)
        state = run.state
    with going(three(tmp_path / "data"), tmp_path, state=state, fork=True) as run:
        run.steps(1)
        now = np.array(run.state["cursor"])
        assert now.shape == (4, 15) and (now[:, 10] == 0).all()
        assert (now[:, 3] + 100 * now[:, 1] >= np.array(state["cursor"])[:, 3]).all()


def test_a_source_that_comes_back_goes_on_and_the_ledger_knows_it_by_its_data(tmp_path) -> None:
    """From one source to a mixture, to one again and back, under other names: counted once, read on, passes kept."""
    both = three(tmp_path / "data", (1, 1))
    called = both.model_copy(update={"mix": [both.mix[1].model_copy(update={"name": "z"}), both.mix[0]]})
    alone = config(tmp_path / "data" / "a", lanes=4)
    state, places = None, []
    for data in (alone, both, alone, called):
        with going(data, tmp_path, state=state, fork=True) as run:
            run.steps(20)
            state, found = run.state, coverage(run.state, run.loaders[0].manifest)
            places.append(np.array(state["cursor"])[:, 3::5].sum(axis=0).tolist())
    assert places == [[160], [240, 80], [400], [160, 480]], "each goes on, also one that was not there in between"
    assert {source.name: source.tokens // (8 * 32) for source in found.sources} == {"z": 20, "a": 60}
    with going(alone, tmp_path, state={**state, "epochs": [1.5, 0.25]}, fork=True) as run:
        run.steps(1)
        had = {source.name: source for source in coverage(run.state, run.loaders[0].manifest).sources}
    assert had["z"].read is None and had["z"].epochs == 1.5 and had["z"].tokens == 20 * 8 * 32
    assert had[str(tmp_path / "data" / "a")].tokens == 61 * 8 * 32


def test_an_order_that_begins_anew_passes_over_nothing_that_it_did_not_read(tmp_path) -> None:
    """Other lanes begin in an epoch of their own; the one that was left before its end is no pass."""
    both = three(tmp_path / "data", (1, 1), window=1)
    alone = config(tmp_path / "data" / "a", lanes=2, window=1)
    with going(alone, tmp_path) as run:
        run.steps(60)
        state, manifest, progress = run.state, run.loaders[0].manifest, run.last[0].progress
    first = coverage(state, manifest)
    with going(both, tmp_path, state=state, fork=True) as run:
        run.steps(1)
        assert {row[0] for row in run.state["cursor"]} == {1}
        now = {**run.state, "epochs": [1.125, 0.25]}
        found = coverage(now, run.loaders[0].manifest).sources[0]
        earlier = {**now, "before": [{key: value for key, value in now["before"][0].items() if key != "epochs"}]}
        (of_then, _), had_of_then = coverage(earlier, run.loaders[0].manifest).sources, tokens_had(earlier)
    assert first.unique == first.reads == found.read.unique == found.read.reads > 0
    assert found.epochs == pytest.approx(state["epochs"][0] + 0.125) and found.unique_tokens == found.tokens
    assert state["epochs"][0] == pytest.approx(mean_epoch(progress[:, 0])) and not found.at_least
    assert of_then.epochs == pytest.approx(min(first.lane_epochs) + 0.125, abs=0.1), "of a state that kept no epochs"
    assert of_then.at_least and 0.125 < of_then.epochs < found.epochs and "at least" in str(of_then)
    assert of_then.tokens == found.tokens == had_of_then[manifest.fingerprint]


def test_a_source_that_was_alone_and_left_keeps_its_passes(tmp_path) -> None:
    """What kept none, as runs of earlier versions, tells the whole ones, and says that there may be more."""
    three(tmp_path / "data")
    first = config(tmp_path / "data" / "a", lanes=4)
    with going(first, tmp_path) as run:
        run.steps(40)
        state = run.state
    with going(config(tmp_path / "data" / "b", lanes=4), tmp_path, state=state, fork=True) as run:
        run.steps(1)
        assert "before" not in run.state, "a run that never was a mixture has no ledger by source"
    with going(three(tmp_path / "data").model_copy(update={"mix": three(tmp_path / "data").mix[1:]}), tmp_path,
               state=state, fork=True) as run:  # fmt: skip
        run.steps(1)
        now, manifest = run.state, run.loaders[0].manifest
    *_, left = coverage(now, manifest).sources
    assert left.read is None and left.epochs == state["epochs"][0] > 0 and not left.at_least
    assert left.tokens == 40 * 8 * 32 and left.unique_tokens == left.tokens
    kept_none = {**now, "before": [{key: value for key, value in now["before"][0].items() if key != "epochs"}]}
    *_, left = coverage(kept_none, manifest).sources
    assert left.epochs == 0.0 and left.at_least and "at least 0.00 passes" in str(left)


# Held-out documents, manifests, errors


def test_what_is_held_out_of_a_source_does_not_depend_on_the_weights(tmp_path) -> None:
    found = []
    for weights in ((5, 3, 2), (1, 1, 98)):
        data = three(tmp_path / "data", weights, validation_tokens=30_000)
        manifest, reader = open_settled(resolve_data(data, cache_dir=tmp_path), data, cache_dir=tmp_path, eot_id=EOT)
        found.append(validation_set(manifest, reader, Decoding(), data, tmp_path))
        reader.close()
    assert found[0].sha256 == found[1].sha256 and list(found[0].parts) == ["a", "b", "c"]
    assert sum(len(part.tokens) for part in found[0].parts.values()) == len(found[0].tokens) <= 30_000
    alone = data.of(data.mix[1]).model_copy(update={"validation_tokens": 10_000})
    manifest = resolve_data(alone, cache_dir=tmp_path)
    own = validation_set(manifest, open_reader(manifest, cache_dir=tmp_path, eot_id=EOT), Decoding(), alone, tmp_path)
    assert own.sha256 == found[0].parts["b"].sha256, "it is the source's own set"


def test_a_folder_of_several_kinds_is_a_mixture_by_size(tmp_path) -> None:
    folder = write_jsonl(write_parquet(tmp_path / "data"))
    manifest = resolve_data(config(folder), cache_dir=tmp_path)
    assert isinstance(manifest, Mixture)
    sizes = {part.name: part.manifest.size for part in manifest.parts}
    assert list(sizes) == ["jsonl", "parquet"]
    for part in manifest.parts:
        assert part.share == pytest.approx(sizes[part.name] / sum(sizes.values()))
    assert not [note for note in manifest.notes if "alone" in note], "the others are here as well"
    with going(config(folder), tmp_path) as run:
        run.steps(10)
    inside = config(
        source="pydocs", mix=[MixSource(name="x", source=str(folder)), MixSource(name="y", source="pydocs")]
    )
    names = [part.name for part in parts_of(resolve_data(inside, cache_dir=tmp_path), inside)]
    assert names == ["x.jsonl", "x.parquet", "y"]


def test_a_manifest_of_a_mixture_is_written_and_read_and_finds_every_block(tmp_path) -> None:
    data = three(tmp_path / "data")
    manifest = resolve_data(data, cache_dir=tmp_path)
    again = manifest_from(json.loads(json.dumps(manifest.to_dict())))
    assert again == manifest and again.fingerprint == manifest.fingerprint and isinstance(again, Mixture)
    reader = open_reader(again, cache_dir=tmp_path, eot_id=EOT)
    for part in again.parts:
        alone = open_reader(part.manifest, cache_dir=tmp_path, eot_id=EOT)
        last = len(part.manifest) - 1
        assert reader.read(part.first + last) == alone.read(last)
        assert again.describe(part.first).startswith(f"{part.name}: ")
        assert again.at(part.first + last) == (part.manifest, last)
        assert again.block_identity(part.first) == part.manifest.block_identity(0)
        assert all(file.name.startswith(f"{part.name}/") for file in again.files_of(part.first + last))
    heavier = resolve_data(three(tmp_path / "data", (1, 1, 1)), cache_dir=tmp_path)
    assert heavier.fingerprint == manifest.fingerprint, "weights are of the order, not of the data"


def test_errors_name_the_source(tmp_path) -> None:
    data = three(tmp_path / "data")
    gone = data.mix[1].model_copy(update={"source": str(tmp_path / "nowhere.jsonl")})
    with pytest.raises(UserError, match=r"data.mix, source b: data.source=.*nowhere.jsonl does not exist"):
        resolve_data(data.model_copy(update={"mix": [data.mix[0], gone]}), cache_dir=tmp_path)
    with pytest.raises(UserError, match=r"data.lanes=256 is more than the \d+ blocks of source . in data.mix"):
        going(data.model_copy(update={"lanes": 256}), tmp_path, batch_sequences=256)
    (tmp_path / "short.jsonl").write_text('{"text": "short"}\n')
    short = data.model_copy(
        update={"mix": [data.mix[0], gone.model_copy(update={"source": str(tmp_path / "short.jsonl")})]}
    )
    with pytest.raises(UserError, match=r"data.mix, source b: .* holds 5 characters of text"):
        open_settled(resolve_data(short, cache_dir=tmp_path), short, cache_dir=tmp_path, eot_id=EOT)


def test_sources_that_cannot_be_told_apart_are_refused(tmp_path) -> None:
    data = three(tmp_path / "data", (1, 1))
    filtered = [data.mix[0], data.mix[0].model_copy(update={"name": "of-it", "min_score": 3.0, "score_column": "id"})]
    of_one_folder = data.model_copy(update={"mix": filtered})
    parts = parts_of(resolve_data(of_one_folder, cache_dir=tmp_path), of_one_folder)
    assert [part.name for part in parts] == ["a", "of-it"], "another filter makes other data"
    write_jsonl(tmp_path / "data" / "a", documents=400)
    for name, source, said in (
        ("x.jsonl", "b", "two sources are called x.jsonl"),
        ("y", "a", "x.jsonl and y.jsonl are the same"),
    ):
        mix = [
            MixSource(name="x", source=str(tmp_path / "data" / "a")),
            MixSource(name=name, source=str(tmp_path / "data" / source)),
        ]
        with pytest.raises(UserError, match=said):
            resolve_data(data.model_copy(update={"mix": mix}), cache_dir=tmp_path)


@pytest.mark.parametrize("action", [["prepare", "--out", "x"], ["fetch"], ["inspect", "--forecast"]])
def test_a_verb_of_one_source_refuses_a_mixture(action, capsys) -> None:
    mix = '[{name = "a", source = "pydocs"}, {name = "b", source = "/nowhere"}]'
    assert main(["data", *action, "--data.mix", mix]) == 2
    assert "works on one source, and data.mix has 2 (a 50 %, b 50 %); give one of them" in capsys.readouterr().err


def test_each_source_may_leave_out_its_share_of_blocks_and_no_more(tmp_path) -> None:
    good, bad = memory(blocks=400), memory(blocks=4)
    from mygpt2.data.sources.manifest import check_quarantine
    from mygpt2.data.sources.mixture import Part

    mixture = Mixture.of("m", [Part("good", 0.9, good.manifest), Part("bad", 0.1, bad.manifest)])
    check_quarantine(mixture, 0.01, {0: "damaged", 1: "damaged"})
    with pytest.raises(UserError, match="1 of 4 blocks"):
        check_quarantine(mixture, 0.01, {401: "damaged"})


def test_what_a_small_source_holds_out_is_not_trained_on_from_another_that_holds_it_too(tmp_path) -> None:
    """The one document that a source of thirty holds out by a raised share is one of three thousand of the other."""
    documents = texts(3000)
    small = min(
        (documents[first : first + 30] for first in range(0, 600, 30)), key=lambda few: -min(map(content_hash, few))
    )
    held = min(small, key=content_hash)
    for name, some in (("small", small), ("large", documents)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in some))
    mix = [MixSource(name=name, source=str(tmp_path / name)) for name in ("small", "large")]
    data = config(source="pydocs", mix=mix, validation_fraction=0.01, token_cache=True)
    manifest, reader = open_settled(resolve_data(data, cache_dir=tmp_path), data, cache_dir=tmp_path, eot_id=EOT)
    assert isinstance(manifest, Mixture) and content_hash(held) > 0.01 * 2**64
    assert [len(part.elsewhere) for part in manifest.parts] == [0, 1]
    sets = validation_set(manifest, reader, Decoding(), data, tmp_path)
    assert held.encode() in Decoding().decode_bytes(sets.parts["small"].tokens)
    blocks = {block: reader.read(block) for block in range(len(manifest))}
    with going(data, tmp_path, manifest=manifest, reader=reader) as run:
        seen = set()
        while run.last == [] or run.last[0].progress.min() < 1.1:
            run.step()
            seen |= {blocks[block][document] for row in run.last[0].provenance for block, document in row}
    assert held not in seen and len(seen) > 2900
