"""The settings of the text: where it comes from, in which order it is read, what is held out."""

from __future__ import annotations

from typing import Literal

from mygpt2.config.mix import MixSource, mix_words
from mygpt2.config.section import Section, setting


class DataConfig(Section):
    """Where the text comes from and in which order it is read."""

    source: str = setting(
        "pydocs",
        "Text to train on. `pydocs` (built in), `fineweb-edu-10BT`, `fineweb-edu-100BT`, `fineweb-edu`, "
        "`owner/name[:config][@revision]` on the hub, or a file or folder of parquet, Arrow, jsonl, txt, tar (these "
        "three also .gz/.zst) or pre-tokenized .bin.",
        title="Text",
        min_length=1,
    )
    mix: list[MixSource] = setting(
        [], "Several sources with exact shares, in place of one. Tables [[data.mix]] with name, source, weight and, "
        "where they differ, max_epochs and text_column.", title="Mixture",
        example='[{name = "edu", source = "fineweb-edu-10BT", weight = 0.7}, '
        '{name = "code", source = "/data/code", weight = 0.3}]',
    )  # fmt: skip
    text_column: str = setting(
        "text",
        "Field that holds the text. A column of parquet and Arrow, a key of JSON.",
        title="Text column",
        min_length=1,
    )
    min_score: float | None = setting(
        None, "Documents with a lower score are left out, and counted. So are those without one.",
        title="Lowest score",
    )  # fmt: skip
    score_column: str = setting(
        "score", "Column of the score that data.min_score asks for. FineWeb-Edu has `score` and `int_score`.",
        title="Score column", min_length=1,
    )  # fmt: skip
    language: str | None = setting(
        None, "Documents of another language are left out, and counted. As the column spells it: `en`.",
        title="Language", min_length=1,
    )  # fmt: skip
    language_column: str = setting(
        "language", "Column of the language that data.language asks for.", title="Language column", min_length=1
    )
    tokenizer: str = setting(
        "gpt2",
        "How text becomes tokens. `gpt2`, `gpt2:N` (GPT-2's first merges, N ids in all), or the path of a Hugging Face "
        "tokenizer.json.",
        title="Tokenizer",
        min_length=1,
    )
    order: Literal["lanes", "buffer", "sequential"] = setting(
        "lanes",
        "Order of the documents. `lanes` shuffles almost globally; `buffer` and `sequential` are kept for study.",
        title="Document order",
    )
    seed: int = setting(
        1337, "Seed of the data's order. Equal data, batch and context under an equal seed give equal batches.",
        title="Seed of the data order", ge=0, lt=2**31,
    )  # fmt: skip
    lanes: int | None = setting(
        None, "Independent document streams; divides the batch, is divided by the ranks. Unset: chosen from the data.",
        title="Lanes", ge=1, le=65536,
    )  # fmt: skip
    window: int | None = setting(
        None, "Blocks each lane shuffles together. Unset: lanes x window is about 128 row groups of FineWeb-Edu, or as "
        "much in smaller blocks.", title="Shuffle window", unit="blocks", ge=1, le=4096,
    )  # fmt: skip
    buffer_documents: int = setting(
        10_000, "Size of the shuffle buffer, all lanes together, for order = `buffer`.",
        title="Shuffle buffer", unit="documents", ge=1,
    )  # fmt: skip
    threads: int | None = setting(
        None, "Threads that fetch and tokenize, per rank. Unset: from the cores.",
        title="Reading threads", unit="threads", ge=1, le=256,
    )  # fmt: skip
    encoder: Literal["auto", "tiktoken", "fast"] = setting(
        "auto",
        "Which encoder tokenizes. `auto`: the fast one, if its ids equal the reference's on the run's text.",
        title="Encoder",
    )
    prefetch_steps: int = setting(
        4, "Batches made ahead of the step that uses them.", title="Batches made ahead", unit="steps", ge=2, le=1024
    )
    token_cache: bool = setting(
        True, "Keep tokenized blocks on disk, checksummed, so nothing is tokenized twice.", title="Token cache"
    )
    cache_gb: float = setting(
        20.0, "Size the cache may take; the least recently used goes first.", title="Cache size", unit="GB", gt=0
    )
    cache_dir: str | None = setting(
        None, "Where caches live. Unset: $MYGPT2_CACHE or ~/.cache/mygpt2.", title="Cache folder"
    )
    outage_minutes: float = setting(
        30.0,
        "How long a source may stay out of reach before the run saves and exits 75.",
        title="Longest outage",
        unit="minutes",
        ge=0,
    )
    max_quarantine: float = setting(
        0.01,
        "Share of the blocks that may be unreadable before the run stops.",
        title="Unreadable share",
        unit="share",
        ge=0.0,
        le=1.0,
    )
    max_document_chars: int = setting(
        10_000_000,
        "Documents longer than this are left out, and counted.",
        title="Longest document",
        unit="characters",
        ge=100,
    )
    fork: bool = setting(
        False, "Resume from a checkpoint although data, tokenizer, batch or order changed.", title="Allow a fork"
    )
    validation_fraction: float = setting(
        0.01,
        "Share of the documents, by a hash of their text, kept out of training.",
        title="Held-out share",
        unit="share",
        ge=0.0,
        le=0.5,
    )
    validation_tokens: int = setting(
        1_048_576,
        "Size of the validation set made from the held-out documents, at most.",
        title="Validation size",
        unit="tokens",
        ge=1024,
    )

    @property
    def text(self) -> str:
        """What is trained on, for a person: the source, or the mixture with its shares."""
        return mix_words(self.mix) if self.mix else self.source

    @property
    def filtered(self) -> bool:
        """Whether documents are chosen by what stands beside their text."""
        return self.min_score is not None or self.language is not None

    @property
    def named(self) -> list[str]:
        """The sources as they are named: of the mixture, or the one."""
        return [source.source for source in self.mix] or [self.source]

    def of(self, source: MixSource) -> DataConfig:
        """The settings of one source of the mixture."""
        own = source.model_dump(exclude_none=True, exclude={"name", "weight", "max_epochs"})
        return self.model_copy(update={"mix": [], **own})
