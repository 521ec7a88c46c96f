"""Several sources as one: their manifests side by side with one numbering of files and blocks, and their reader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mygpt2.config.data import DataConfig
from mygpt2.config.mix import shares
from mygpt2.data.sources.faults import Unreadable
from mygpt2.data.sources.manifest import Manifest, SourceFile
from mygpt2.errors import UserError

if TYPE_CHECKING:
    from mygpt2.data.scan import BlockReader


@dataclass(frozen=True)
class Part:
    """One source of a mixture. `entry`: which of data.mix it is of, where a folder of several kinds makes several."""

    name: str
    share: float  # of the tokens
    manifest: Manifest
    entry: int = 0
    first: int = 0  # its block 0 in the mixture's numbering
    elsewhere: tuple[float, ...] = ()  # shares by which small sources beside it hold out one document each

    def own(self, data: DataConfig) -> DataConfig:
        """The settings of the source: its own, and the share that is held out of it where it is small."""
        own = data.of(data.mix[self.entry]) if data.mix else data
        share = self.manifest.share
        return own if share is None else own.model_copy(update={"validation_fraction": share})


@dataclass(frozen=True)
class Mixture(Manifest):
    """Files and blocks of all parts, one after the other; a file's name begins with its part's."""

    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, source: str, parts: Sequence[Part]) -> Mixture:
        """`source` is what the mixture is called; the parts' `first` is set here."""
        files: list[SourceFile] = []
        tables: list[np.ndarray] = []
        placed: list[Part] = []
        blocks = 0
        small = [part.manifest.share for part in parts]
        for number, part in enumerate(parts):
            others = {share for other, share in enumerate(small) if share is not None and other != number}
            placed.append(replace(part, first=blocks, elsewhere=tuple(sorted(others))))
            table = part.manifest.blocks.copy()
            table["file"] += len(files)
            tables.append(table)
            files += [replace(file, name=f"{part.name}/{file.name}") for file in part.manifest.files]
            blocks += len(table)
        notes = dict.fromkeys(f"{part.name}: {note}" for part in parts for note in part.manifest.notes)
        return cls(source, "mixture", None, "", tuple(files), np.concatenate(tables), tuple(notes), parts=tuple(placed))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the parts' names and data; shares change the order, not the data."""
        content = [[part.name, part.manifest.fingerprint] for part in self.parts]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    @property
    def documents(self) -> int | None:
        counts = [part.manifest.documents for part in self.parts]
        return None if None in counts else sum(count or 0 for count in counts)

    def part_of(self, block: int) -> int:
        """The number of the part that a block is of."""
        return int(np.searchsorted([part.first for part in self.parts], block, side="right")) - 1

    def at(self, block: int) -> tuple[Manifest, int]:
        part = self.parts[self.part_of(block)]
        return part.manifest, block - part.first

    def files_of(self, block: int) -> tuple[SourceFile, ...]:
        manifest, within = self.at(block)
        first = int(self.blocks["file"][block])
        return self.files[first : first + len(manifest.files_of(within))]

    def block_identity(self, block: int) -> list[Any]:
        manifest, within = self.at(block)
        return manifest.block_identity(within)

    def describe(self, block: int) -> str:
        manifest, within = self.at(block)
        return f"{self.parts[self.part_of(block)].name}: {manifest.describe(within)}"

    def to_dict(self) -> dict[str, Any]:
        parts = [[part.name, part.share, part.entry, part.manifest.to_dict()] for part in self.parts]
        return {"schema": 2, "source": self.source, "kind": self.kind, "fingerprint": self.fingerprint, "parts": parts}


def manifest_from(content: dict[str, Any]) -> Manifest:
    """The manifest that `to_dict` wrote, of one source or of several."""
    if content.get("kind") != "mixture":
        return Manifest.from_dict(content)
    parts = [Part(name, share, Manifest.from_dict(own), entry) for name, share, entry, own in content["parts"]]
    return Mixture.of(content["source"], parts)


def parts_of(manifest: Manifest, data: DataConfig) -> tuple[Part, ...]:
    """The parts of a mixture; one source is a mixture of one."""
    if isinstance(manifest, Mixture):
        return manifest.parts
    return (Part(data.mix[0].name if data.mix else "", 1.0, manifest),)


def joined(data: DataConfig, found: Sequence[Manifest]) -> Manifest:
    """The manifest of `data.mix`, from those of its sources, each of one source or of a folder of several kinds."""
    if len(found) == 1:
        return found[0]
    parts: list[Part] = []
    for number, (entry, share, manifest) in enumerate(zip(data.mix, shares(data.mix), found, strict=True)):
        if isinstance(manifest, Mixture):
            parts += [
                replace(p, name=f"{entry.name}.{p.name}", share=share * p.share, entry=number) for p in manifest.parts
            ]
        else:
            parts.append(Part(entry.name, share, manifest, number))
    if (problem := _clash(parts)) is not None:
        raise UserError(f"data.mix: {problem}")
    return Mixture.of(data.text, parts)


def _clash(parts: Sequence[Part]) -> str | None:
    """Why sources cannot be told apart, or would be one text that is read in equal order by each."""
    names: set[str] = set()
    data: dict[str, str] = {}
    for part in parts:
        if part.name in names:
            return (
                f"two sources are called {part.name}, a kind of files of one folder among them; give one another name"
            )
        names.add(part.name)
        if (other := data.setdefault(part.manifest.fingerprint, part.name)) != part.name:
            return f"{other} and {part.name} are the same text; give it once, with the sum of their weights"
    return None


def by_size(source: str, found: dict[str, Manifest]) -> Mixture:
    """A folder of several kinds: each has the share of the bytes that its files have."""
    total = sum(manifest.size for manifest in found.values())
    parts = []
    for kind, manifest in found.items():  # the first note says that there are others, which are here as well
        parts.append(Part(kind, manifest.size / total, replace(manifest, notes=manifest.notes[1:])))
    return Mixture.of(source, parts)


class MixedReader:
    """Reads the blocks of a mixture, each from its own source."""

    def __init__(self, mixture: Mixture, readers: Sequence[BlockReader]) -> None:
        self._mixture, self.readers = mixture, tuple(readers)

    def read(self, block: int) -> list[Any]:
        number = self._mixture.part_of(block)
        within = block - self._mixture.parts[number].first
        try:
            return self.readers[number].read(within)
        except Unreadable as fault:
            if fault.block == block:
                raise
            raise Unreadable(block, fault.reason) from fault.__cause__

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
