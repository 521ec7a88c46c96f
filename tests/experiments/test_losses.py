"""The losses of a trace by the documents of its rows: every target is counted once, and each figure as by hand."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.__main__ import main
from mygpt2.config import load_config, to_toml
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture
from mygpt2.data.sources.resolve import resolve_data
from mygpt2.data.trace import TraceWriter, read_trace, trace_files
from mygpt2.errors import TryAgain, UserError
from mygpt2.experiments import grouping
from mygpt2.experiments.losses import EQUAL, EXACT, Losses, losses
from mygpt2.run_dir import RunDir
from tests.data.corpus import Ranks, texts

LANGUAGES = ["en", "de", None]


def sources(folder: Path) -> list[dict[str, Any]]:
    """A parquet set with a language, a score and an address, one of jsonl with a language, and one of plain text."""
    for name in ("web", "notes", "plain"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for f in range(3):
        numbers = range(120)
        table = pa.table({
            "text": texts(120, 120 * f), "language": [LANGUAGES[i % 3] for i in numbers],
            "url": [f"https://site{i % 2}.example/{i}" if i % 5 else "no address" for i in numbers],
            "score": [i / 30 for i in numbers], "source": ["there"] * 120,
        })  # fmt: skip
        pq.write_table(table, folder / "web" / f"{f}.parquet", row_group_size=8)
        lines = [json.dumps({"text": t, "language": LANGUAGES[i % 2]}) for i, t in enumerate(texts(3000, 5000 * f))]
        (folder / "notes" / f"{f}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "plain" / "long.txt").write_text("\n\n".join(texts(30_000, 50_000)))
    weights = {"web": 5.0, "notes": 3.0, "plain": 2.0}
    return [{"name": name, "source": str(folder / name), "weight": weight} for name, weight in weights.items()]


def loss_of(step: int, row: int) -> float:
    return float(np.random.default_rng([step, row]).normal(4 - step / 40, 0.5))


def traced(
    folder: Path, loss: Callable[[int, int], float] = loss_of, steps: int = 40, mix: list[dict[str, Any]] | None = None,
    attempt: int = 1, first: int = 1,
) -> RunDir:  # fmt: skip
    """A run of so many steps; its losses are made up, its batches are the loader's."""
    mix = sources(folder / "data") if mix is None else mix
    data = {"data": {"mix": mix, "lanes": 4, "tokenizer": "gpt2", "encoder": "tiktoken"}, "model": {"block_size": 32}}
    run = RunDir(folder / "runs" / "r")
    config = load_config("tiny", None, data)
    run.path.mkdir(parents=True, exist_ok=True)
    run.config_file.write_text(to_toml(config))
    with Ranks(config.data, folder / "cache", 1) as ranks:
        writer = TraceWriter(run.trace_dir, attempt, 0, ranks.loaders[0].manifest)
        for step in range(first, first + steps):
            ranks.step()
            writer.add(step, ranks.last[0], [loss(step, row) for row in range(8)])
            if step % 15 == 0:
                writer.flush()
        writer.flush()
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return traced(tmp_path_factory.mktemp("losses"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))


def manifest_of(run: RunDir) -> Manifest:
    return resolve_data(load_config(None, run.config_file).data, cache_dir=run.path / "cache")


def language(manifest: Manifest, block: int, document: int) -> str:
    """What the file says, looked up a document at a time."""
    assert isinstance(manifest, Mixture)
    own, within = manifest.at(block)
    if own.kind == "txt":
        return "(none)"
    if own.kind == "parquet":
        row = pq.ParquetFile(own.file_of(within).location).read_row_group(int(own.blocks[within]["part"]))
        return row["language"][document].as_py() or "(none)"
    lines = Path(own.file_of(within).location).read_bytes()
    place = own.blocks[within]
    start = 0 if place["start"] == 0 else lines.index(b"\n", int(place["start"]) - 1) + 1
    return json.loads(lines[start:].split(b"\n")[document])["language"] or "(none)"


def by_hand(run: RunDir, name: Callable[[Manifest, int, int], str]) -> dict[str, dict[str, float]]:
    """The same figures a document at a time."""
    manifest, rows = manifest_of(run), read_trace(run.path).to_pylist()
    step_losses = defaultdict(list)
    for row in rows:
        step_losses[row["step"]].append(row["loss"])
    found: dict[str, Any] = defaultdict(lambda: defaultdict(float))
    clusters: dict[str, Any] = defaultdict(lambda: [defaultdict(lambda: [0.0, 0.0]) for _ in range(3)])
    for number, row in enumerate(rows):
        far = row["loss"] - np.mean(step_losses[row["step"]])
        for block, document, weight in zip(row["block"], row["document"], row["targets"], strict=True):
            if not weight:
                continue
            group = found[value := name(manifest, block, document)]
            half = "late" if row["step"] > 20.5 else "early"
            for key, part in (
                ("tokens", 1),
                ("loss", row["loss"]),
                ("far", far),
                (half, 1),
                (f"{half}_loss", row["loss"]),
            ):
                group[key] += weight * part
            for of, key in zip(clusters[value], ((block, document), number, (block, document, number)), strict=True):
                of[key][0] += weight * far
                of[key][1] += weight
    for value, group in found.items():
        mean, variances = group["far"] / group["tokens"], []
        for of in clusters[value]:
            sums = [s - mean * w for s, w in of.values()]
            variances.append(len(sums) / (len(sums) - 1) * np.square(sums).sum() / group["tokens"] ** 2)
        documents, rows_, parts = variances
        group["error"] = max(documents, rows_, documents + rows_ - parts) ** 0.5
    return found


def holds(found: Losses, expected: dict[str, dict[str, float]]) -> None:
    assert {group.value for group in found.groups} == set(expected)
    for group in found.groups:
        own = expected[group.value]
        total = sum(each["tokens"] for each in expected.values())
        change = own["late_loss"] / own["late"] - own["early_loss"] / own["early"]
        assert [group.tokens, group.share, group.loss, group.above, group.error, group.change] == pytest.approx(
            [own["tokens"], own["tokens"] / total, own["loss"] / own["tokens"], own["far"] / own["tokens"],
             own["error"], change], rel=1e-5,
        )  # fmt: skip


def test_by_source_and_by_column_figures_are_those_of_a_document_at_a_time(made):
    found = losses(made, "language")
    holds(found, by_hand(made, language))
    assert found.protocol == EXACT and found.notes == () and found.rows == 40 * 8
    assert sum(group.tokens for group in found.groups) == found.whole.tokens == 40 * 8 * 32
    by_source = losses(made, "source")
    holds(by_source, by_hand(made, lambda manifest, block, _: manifest.parts[manifest.part_of(block)].name))
    assert [group.value for group in by_source.groups] == ["web", "notes", "plain"]


def test_domain_width_and_a_column_that_is_called_like_a_word(made):
    hosts = {group.value: group.tokens for group in losses(made, "domain").groups}
    assert set(hosts) == {"(none)", "site0.example", "site1.example"} and sum(hosts.values()) == 40 * 8 * 32
    ranges = losses(made, "score", width=2.0).groups
    assert {group.value for group in ranges} == {"(none)", "0 to 2", "2 to 4"}
    named = losses(made, "column:source").groups
    assert {group.value for group in named} == {"(none)", "there"}


def test_the_largest_are_shown_and_the_rest_is_counted(made):
    whole, few = losses(made, "score"), losses(made, "score", top=3)
    assert few.groups == whole.groups[:3] and few.more is not None
    assert few.more_values == len(whole.groups) - 3 and few.more.value == f"{few.more_values} more"
    assert few.more.tokens + sum(group.tokens for group in few.groups) == whole.whole.tokens
    some = losses(made, "source", 11, 20)
    assert (some.first, some.last, some.rows) == (11, 20, 80)


def test_values_beyond_what_is_told_apart_are_counted_together(made, monkeypatch):
    monkeypatch.setattr(grouping, "MOST_VALUES", 4)
    found = {group.value: group.tokens for group in losses(made, "score").groups}
    assert len(found) == 6 and found["(further values)"] > 0 and sum(found.values()) == 40 * 8 * 32


def test_a_trace_without_lengths_counts_in_equal_parts_and_says_so(tmp_path):
    run = traced(tmp_path, steps=30)
    for file in trace_files(run.path)[:1]:
        pq.write_table(pq.read_table(file.path).drop_columns("targets"), file.path)
    found = losses(run, "language")
    assert found.protocol == EQUAL and "120 of 240 rows count in equal parts" in found.notes[0]
    assert found.whole.tokens == pytest.approx(30 * 8 * 32)


def test_rows_without_a_number_and_files_that_are_gone_are_counted(tmp_path):
    run = traced(tmp_path, lambda step, row: float("nan") if (step, row) == (3, 2) else 4.0, steps=20)
    for name in ("0.parquet", "1.parquet"):
        (tmp_path / "data" / "web" / name).unlink()
    found = losses(run, "language")
    assert found.no_number == 1 and found.rows == 159 and "1 rows are left out" in found.notes[-1]
    assert "0.parquet" in found.notes[0] and "(unreadable)" in {group.value for group in found.groups}
    assert sum(group.tokens for group in found.groups) == pytest.approx(159 * 32)
    for file in (tmp_path / "data").rglob("*.*"):
        file.unlink()
    with pytest.raises(UserError, match=r"cannot be read any more .*--by source, which needs the trace alone"):
        losses(run, "language")
    assert len(losses(run, "source").groups) == 3


def test_steps_that_the_trace_lost_are_counted_and_a_damaged_file_of_it_is_named(tmp_path):
    run = traced(tmp_path, lambda *_: 4.0)
    file = sorted(run.trace_dir.glob("*.parquet"))[1]
    assert not losses(run, "source").notes
    content = file.read_bytes()
    for damaged in (b"", content[:-30], content[:4] + b"x" * 80 + content[84:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{file.name} is damaged: .*; restore the file from a copy, or delete it"):
            losses(run, "source")
    file.unlink()
    found = losses(run, "source")
    assert found.rows == 25 * 8 and found.notes == ("15 of 40 steps are left out, as the trace does not hold them",)


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '"x"', '{"kind": "mixture", "parts": [[1]]}'])
@pytest.mark.parametrize("by", ["source", "language"])
def test_a_trace_without_a_manifest_that_can_be_read_is_a_sentence(made, tmp_path, by, content):
    run = RunDir(Path(shutil.copytree(made.path, tmp_path / "r")))
    (run.trace_dir / "manifest.json").unlink()
    if content is not None:
        (run.trace_dir / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"no manifest that can be read, .*; restore trace/manifest.json from a copy"):
        losses(run, by)


def test_rows_from_before_a_fork_are_of_the_sources_of_then(tmp_path):
    mix = sources(tmp_path / "data")
    run = traced(tmp_path, lambda *_: 1.0, 10, mix[1:])
    traced(tmp_path, lambda *_: 2.0, 10, mix, attempt=2, first=11)
    found = {group.value: (group.tokens, group.loss) for group in losses(run, "source").groups}
    assert found["web"] == (10 * 8 * 16, 2.0) and found["notes"][0] > found["plain"][0] > 10 * 8 * 32 * 0.5
    assert set(found) == {"web", "notes", "plain"} and sum(tokens for tokens, _ in found.values()) == 20 * 8 * 32
    for file in run.trace_dir.glob("manifest-*.json"):
        file.unlink()
    assert {group.value for group in losses(run, "source").groups} == {"web", "notes", "plain", "(unreadable)"}


def test_what_is_stopped_tells_what_is_known(made):
    asked: list[bool] = []
    whole = losses(made, "language", stopped=lambda: bool(asked.append(True)))
    calls = iter([False] * (len(asked) * 3 // 4))
    found = losses(made, "language", stopped=lambda: next(calls, True))
    assert not whole.stopped and found.stopped and 0 < found.last < 40 and found.rows == found.last * 8
    assert found.whole.loss == losses(made, "source", 1, found.last).whole.loss, "whole steps, each as ever"
    with pytest.raises(UserError, match="before it was stopped"):
        losses(made, "language", stopped=lambda: True)


@pytest.mark.parametrize(
    ("by", "more", "said"),
    [
        ("nope", {}, "no source of run 'r' has a column nope; there are language, url, score, source; --by source"),
        ("source", {"first": 9, "last": 3}, "--first 9 --last 3 are no steps"),
        ("source", {"first": 900}, "holds the steps 1 to 40"),
        ("score", {"width": -1.0}, "--width -1"),
        ("source", {"top": 0}, "--top 0"),
        ("", {}, "source, domain, or a column"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(made, by, more, said):
    with pytest.raises(UserError) as problem:
        losses(made, by, **more)
    assert said in str(problem.value) and "\n" not in str(problem.value)


def test_a_run_without_trace_and_a_hub_out_of_reach_are_sentences(made, tmp_path, monkeypatch):
    bare = RunDir(tmp_path / "runs" / "bare")
    bare.path.mkdir(parents=True)
    with pytest.raises(UserError, match="has no trace; one is kept with log"):
        losses(bare, "source")

    def names(*_: object) -> None:
        raise grouping.Outage("connection refused")

    monkeypatch.setattr(grouping.Columns, "names", names)
    with pytest.raises(TryAgain, match=r"does not answer \(connection refused\); try again"):
        losses(made, "language")


def test_the_command_prints_a_table_or_json(made, capsys):
    words = ["runs", "losses", "r", "--runs", str(made.path.parent), "--by", "language"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for text in ("steps 1 to 40, 320 rows by language", "(none)", "100.00%", "clustered by"):
        assert text in said
    assert main([*words, "--json", "--top", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["by"] == "language" and len(content["groups"]) == 1 and content["more"]["share"] > 0
    assert main(["runs", "losses", "--runs", str(made.path.parent)]) == 2
    assert "takes one run" in capsys.readouterr().err
