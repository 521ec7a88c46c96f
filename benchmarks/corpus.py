"""Text for measurements where none is given: made of the built-in corpus, in the shape of FineWeb-Edu's files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def make_corpus(folder: Path, files: int, groups: int, rows: int = 1000) -> None:
    """FineWeb-like parquet: documents of log-normal length, 4.6 kB on average, joined from built-in ones, `groups` row
    groups of `rows` documents in each file."""
    from mygpt2.data.sources.pydocs.corpus import harvest

    source = harvest(Path(os.environ.get("MYGPT2_CACHE", Path.home() / ".cache" / "mygpt2")))
    pieces = [t for p in sorted(source.glob("*.parquet")) for t in pq.read_table(p, columns=["text"])[0].to_pylist()]
    pieces = [paragraph for text in pieces for paragraph in text.split("\n\n")]
    dice = np.random.default_rng(0)
    for number in range(files):
        texts = []
        for length in dice.lognormal(np.log(4600) - 0.5, 1.0, groups * rows):
            text: list[str] = []
            while sum(map(len, text)) < length:
                text.append(pieces[dice.integers(len(pieces))])
            texts.append("\n\n".join(text))
        pq.write_table(
            pa.table({"text": texts, "id": [str(i) for i in range(len(texts))]}),
            folder / f"{number:03d}.parquet",
            row_group_size=rows,
            use_dictionary=False,
        )
