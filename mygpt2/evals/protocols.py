"""The texts people quote losses on, each under a name that fixes its documents, its layout and its windows.

Three different results are called "3.28". A quoted figure is data with its source, belongs to one protocol, and is
shown only beside a result of that protocol: the same text in the same tokens and the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mygpt2.data.sources.hub.names import FINEWEB_EDU

WINDOW = 1024  # GPT-2's context: with another one the same model has another loss


@dataclass(frozen=True)
class Quoted:
    """A figure somebody else measured: of which model, and where it was published."""

    figure: float
    of: str
    source: str

    def to_json(self) -> dict[str, str | float | bool]:
        return {"quoted": True, "figure": self.figure, "of": self.of, "source": self.source}


@dataclass(frozen=True)
class HubProtocol:
    """A text that is the beginning of one file on the hub.

    end_of_text: "after" or "before" each document, or "in file" for published tokens. Exactly one of `documents` and
    `targets` says how much.
    """

    name: str
    repo: str
    file: str
    end_of_text: Literal["after", "before", "in file"]
    documents: int | None
    targets: int | None
    quoted: tuple[Quoted, ...]
    what: str


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        HubProtocol(
            name="edu-seed",
            repo=FINEWEB_EDU,
            file="sample/100BT/013_00000.parquet",
            end_of_text="after",
            documents=12_000,
            targets=None,
            quoted=(
                Quoted(3.282, "GPT-2 124M", "README of yuxuanwang2009/myGPT2"),
                Quoted(2.935, "the reference run, 36.7 B tokens of FineWeb-Edu", "README of yuxuanwang2009/myGPT2"),
            ),
            what="first 12,000 documents of FineWeb-Edu sample-100BT 013_00000.parquet, end-of-text appended",
        ),
        HubProtocol(
            name="edu-bn",
            repo=FINEWEB_EDU,
            file="sample/10BT/000_00000.parquet",
            end_of_text="before",
            documents=None,
            targets=10_485_760,
            quoted=(Quoted(3.2924, "GPT-2 124M", "play.ipynb of karpathy/build-nanogpt"),),
            what="first 10,485,760 targets of FineWeb-Edu sample-10BT in file order, end-of-text prepended",
        ),
        HubProtocol(
            name="fineweb-10m",
            repo="kjj0/fineweb10B-gpt2",
            file="fineweb_val_000000.bin",
            end_of_text="in file",
            documents=None,
            targets=10_485_760,
            quoted=(
                Quoted(3.4250, "GPT-2 124M", "dev/vislog.ipynb of karpathy/llm.c (3.424958)"),
                Quoted(3.2722, "llm.c, 10.26 B tokens", "records/2024-10-13_llmc of KellerJordan/modded-nanogpt"),
            ),
            what="first 10,485,760 targets of the published FineWeb validation shard",
        ),
    )
}  # fmt: skip
