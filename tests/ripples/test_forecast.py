"""What another order leaves: the laws against what the orders do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.lane import Buffer
from mygpt2.data.order import BlockOrder
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.data.sources.resolve import resolve
from mygpt2.data.tokenize import TokenBlock
from mygpt2.errors import UserError
from mygpt2.ripples.footer import footer_forecast, forecast_lines, local_footer, read_groups
from mygpt2.ripples.forecast import Profile, buffer_factor, convolved, forecast
from mygpt2.ripples.layout import Layout


@pytest.mark.parametrize(("size", "period"), [(50, 1000), (160, 1000), (300, 600)])
def test_the_buffers_law_is_what_the_buffer_does(size: int, period: int) -> None:
    """A sine along the documents through the engine's own buffer: its amplitude after, against the law."""
    blocks, each = 240, 100
    manifest = Manifest(
        "m", "parquet", None, "text", (SourceFile("m", 1, "m"),), make_blocks(0, range(blocks), 0, -1, each)
    )
    buffer = Buffer(BlockOrder(blocks, 1, 1, 7, False), 0, size, manifest, ())
    order = []
    for number in range(blocks - 1):
        block = TokenBlock(number, np.zeros(each, np.uint16), np.ones(each, np.int64), {})
        window = buffer.arrange(0, number, [block])
        order += (window.blocks.astype(int) * each + window.documents).tolist()
    emitted = np.array(order[2 * size :])[: 20 * period]
    value = np.sin(2 * np.pi * emitted / period)
    left = 2 * abs(np.mean(value * np.exp(-2j * np.pi * np.arange(len(emitted)) / period)))
    assert left == pytest.approx(buffer_factor(size, period), rel=0.08)


def test_a_profile_is_damped_harmonic_by_harmonic() -> None:
    place = np.arange(96) / 96
    profile = np.sin(2 * np.pi * place) + 0.5 * np.sin(6 * np.pi * place)
    left = np.abs(np.fft.rfft(convolved(profile, 100, 1000))) * 2 / 96
    assert left[1] == pytest.approx(buffer_factor(100, 1000)) and left[3] == pytest.approx(
        0.5 * buffer_factor(100, 1000 / 3)
    )


def rows(layout: Layout) -> dict:
    profile = Profile(1e6, np.array([[0.02, 0.0], [0.0, 0.005]]), (0.018, 0.022))
    return {row["order"]: row for row in forecast(profile, layout)}


def test_a_larger_buffer_is_foretold_from_the_source_not_from_what_is_left() -> None:
    layout = Layout(document_tokens=1000, row_group_tokens=1e5, order="buffer", buffer_documents=1000)
    found = rows(layout)
    assert found["as measured"]["amplitude"] == pytest.approx(0.02)
    assert found["file order"]["amplitude"] == pytest.approx(0.02 / buffer_factor(1000, 1000))
    ratio = found["buffer of 10,000 documents"]["amplitude"] / 0.02
    assert ratio == pytest.approx(buffer_factor(10_000, 1000) / buffer_factor(1000, 1000))
    assert found["buffer of 10,000 documents"]["memory_bytes"] == 10_000 * 1000 * 2


def test_files_in_turn_and_lanes() -> None:
    found = rows(Layout(document_tokens=1000, row_group_tokens=1e5))
    assert found["16 files in turn"]["amplitude"] == pytest.approx(0.02 / 4)
    lanes = found["lanes, 64 x 2"]
    assert lanes["amplitude"] == 0 and not lanes["periodic"] and lanes["memory_bytes"] == 128 * 1e5 * 2
    assert rows(Layout(order="lanes")) == {}


def test_footers_alone_foretell_a_planted_period(tmp_path) -> None:
    """Four files of 60 row groups; how well a group's text compresses swings three times per file."""
    rng = np.random.default_rng(0)
    for number in range(4):
        texts = []
        for group in range(60):
            share = 0.5 + 0.4 * np.sin(2 * np.pi * 3 * group / 60)
            texts += [
                "".join(rng.choice(list("abcdefgh"), 200)) if rng.random() < share else "a" * 200 for _ in range(20)
            ]
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{number}.parquet", row_group_size=20, compression="zstd")
    manifest = resolve(str(tmp_path), DataConfig(source=str(tmp_path)), cache_dir=tmp_path / "cache")
    report = footer_forecast(manifest, read_groups(manifest, local_footer))
    best = next(item for item in report["properties"] if item["name"] == "compressibility")
    assert best["p_value"] < 0.01 and best["share_of_file"] == pytest.approx(1 / 3, rel=0.02)
    assert any("compressibility" in line and "0.33" in line for line in forecast_lines(report))
    assert report["forecast"][0]["order"] == "file order" and report["forecast"][0]["amplitude"] > 0.1


def test_footers_are_parquets(tmp_path) -> None:
    (tmp_path / "a.txt").write_text("words\n\n" * 100)
    manifest = resolve(str(tmp_path), DataConfig(source=str(tmp_path)), cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="give a parquet source"):
        read_groups(manifest, local_footer)
