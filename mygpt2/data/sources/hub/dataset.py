"""Datasets of the Hugging Face hub as sources: from a name to a manifest and a reader.

A name resolves to a commit first and everything after that asks for this commit. What was learnt about it (the list of
files, their footers) is kept on disk, so that a second start asks for the commit only.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import numpy as np
import pyarrow.parquet as pq
import yaml

from mygpt2.config.data import DataConfig
from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.sources.faults import Clock, Outage, OutageClock
from mygpt2.data.sources.filters import Filters
from mygpt2.data.sources.hub.client import OUTAGE_S, Changed, HubClient, Refused
from mygpt2.data.sources.hub.names import common_folder, glob_regex, parse_name, patterns_of
from mygpt2.data.sources.hub.parquet import Footers, HubParquetReader
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.data.sources.parquet import check_text_column, text_chunk
from mygpt2.errors import TryAgain, UserError, word

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (files resolved, files in all)."""

LAYOUT = 2  # part of the cache's key: a change of how names become blocks raises it
FOOTER_THREADS = 16
MOST_FILES = 2_000_000  # of a repository
LARGE_ROW_GROUP = 32 << 20  # bytes of text; FineWeb-Edu's have 4.7 million
_SHA = re.compile(r"[0-9a-f]{40}")


def open_hub(
    manifest: Manifest, cache_dir: Path, client: HubClient | None = None, outage_minutes: float | None = None
) -> HubParquetReader:
    """Reader of a manifest that `HubSource` made."""
    client = client or HubClient(budget_s=OUTAGE_S if outage_minutes is None else outage_minutes * 60)
    return HubParquetReader(manifest, client, Footers(hub_cache(cache_dir), client))


def hub_cache(cache_dir: Path) -> Path:
    """Where manifests and footers are kept."""
    return Path(cache_dir) / "hub"


class HubSource:
    """A named dataset on the hub, and the steps from there to its files and to a manifest.

    As a context it closes the client that it made itself.
    """

    def __init__(
        self,
        source: str,
        data: DataConfig,
        cache_dir: Path,
        client: HubClient | None = None,
        clock: Clock | None = None,
        pattern: str | None = None,
    ) -> None:
        """`pattern`: of the files, in place of those of the configuration."""
        name = parse_name(source)
        self.name = replace(name, pattern=pattern or name.pattern)
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise UserError(
                f"source={source} is on the hub and HF_HUB_OFFLINE forbids to ask it; unset that, or give the path "
                "of a local copy"
            )
        self.data, self.cache, self.filters = data, hub_cache(cache_dir), Filters.of(data)
        self.clock = clock or Clock()
        self._own = client is None
        self.client = client or HubClient(clock=self.clock, budget_s=data.outage_minutes * 60)
        self.footers = Footers(self.cache, self.client)

    def __enter__(self) -> HubSource:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own:
            self.client.close()

    def manifest(self, progress: Progress | None = None) -> Manifest:
        """The manifest of the commit that the revision points to now.

        Raises UserError for what a person has to change, TryAgain when the hub stays out of reach.
        """
        info = self._info()
        commit = str(info["sha"])
        path = self._cache_path(commit)
        known = load_checked(path)
        if known is not None:
            return Manifest.from_dict(known)
        found, notes = self._listed(info, commit)
        files = [f for f in found if f.name.endswith(".parquet")]
        if not files:
            self._nothing_readable([f.name for f in found])
        if len(files) < len(found):
            notes.append(f"{len(found) - len(files)} files that are not parquet are left out")
        blocks, more = self._blocks(files, progress)
        made = Manifest(
            self.name.source, "parquet", commit, self.data.text_column, tuple(files), make_blocks(*blocks.T),
            (*notes, *more), filters=self.filters,
        )  # fmt: skip
        keep_checked(path, made.to_dict(), self.cache.parent)
        return made

    def files(self) -> list[SourceFile]:
        """The files of the configuration, whatever their format, sorted by name."""
        info = self._info(whole=True)
        return self._listed(info, str(info["sha"]))[0]

    def only_file(self) -> SourceFile:
        """The file, where the pattern means one. UserError where it means none or several."""
        found = self.files()
        if len(found) != 1:
            raise UserError(
                f"{self.name.repo} has {len(found) or 'no'} files {self.name.pattern} at {self.name.revision}; it was "
                "changed"
            )
        return found[0]

    def footer(self, file: SourceFile) -> pq.FileMetaData:
        return self.patiently(lambda: self.footers.get(file))

    def part(self, file: SourceFile, start: int, stop: int) -> bytes:
        """Bytes start .. stop of a file."""
        return self.patiently(lambda: self.client.part(file, start, stop))

    def one_file(self, file: SourceFile) -> Manifest:
        """A manifest of a parquet file by itself, a block for each row group."""
        groups = range((metadata := self.footer(file)).num_row_groups)
        rows = [metadata.row_group(g).num_rows for g in groups]
        blocks = make_blocks(0, groups, 0, -1, rows)
        return Manifest(self.name.source, "parquet", "", self.data.text_column, (file,), blocks)

    def _cache_path(self, commit: str) -> Path:
        name, endpoint = self.name, self.client.endpoint
        filters = (str(self.filters.identity),) if self.filters else ()
        what = (LAYOUT, endpoint, name.source, self.data.text_column, commit, *filters)
        return self.cache / "manifests" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:32]}.json"

    def _info(self, whole: bool = False) -> dict[str, Any]:
        """The hub's description of the dataset at the revision; nothing is asked where a known commit was given."""
        if not whole and _SHA.fullmatch(self.name.revision) and load_checked(self._cache_path(self.name.revision)):
            return {"sha": self.name.revision}
        answer, _ = self._ask(f"api/datasets/{self.name.repo}/revision/{quote(self.name.revision, safe='')}")
        if not isinstance(answer, dict) or not _SHA.fullmatch(str(answer.get("sha"))):
            raise self._not_the_hub("no commit for the revision")
        return answer

    def _listed(self, info: dict[str, Any], commit: str) -> tuple[list[SourceFile], list[str]]:
        """The files that the configuration names, sorted, and notes.

        UserError when what the server answers has not the hub's form.
        """
        root = f"{self.client.endpoint}/datasets/{self.name.repo}/resolve/{commit}/"
        try:
            patterns, notes = self._patterns(info, root)
            accepts = [glob_regex(p) for p in patterns]
            files = [
                SourceFile(
                    x["path"], int(x["size"]), str((x.get("lfs") or {}).get("oid") or x["oid"]), root + quote(x["path"])
                )
                for x in sorted(self._tree(commit, common_folder(patterns)), key=lambda x: x["path"])
                if any(a.fullmatch(x["path"]) for a in accepts)
            ]
            if any(f.size < 0 or ".." in f.name.split("/") or f.name.startswith("/") for f in files):
                raise ValueError("names or sizes that no file has")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._not_the_hub(f"{type(error).__name__}: {error}") from error
        return files, notes

    def _not_the_hub(self, why: str) -> UserError:
        return UserError(f"{self.client.endpoint} does not answer like the hub ({why[:120]}); check HF_ENDPOINT")

    def _patterns(self, info: dict[str, Any], root: str) -> tuple[list[str], list[str]]:
        """Globs of the configuration's files, and notes; from the card, in the README where the answer has none."""
        names = [str(x.get("rfilename", "")) for x in info.get("siblings") or ()]
        if self.name.pattern:
            return [self.name.pattern], []
        card = info.get("cardData")
        if not card and "README.md" in names:
            _, _, head = self.patiently(lambda: self.client.text(f"{root}README.md")).partition("---\n")
            with suppress(yaml.YAMLError):
                card = yaml.safe_load(head.partition("\n---")[0])
        return patterns_of(self.name, card if isinstance(card, dict) else {}, names)

    def _tree(self, commit: str, folder: str) -> list[dict[str, Any]]:
        """All files below a folder, with sizes and object ids; as many requests as the hub makes pages of it."""
        path = quote(f"/{folder}") if folder else ""
        page: str | None = f"api/datasets/{self.name.repo}/tree/{commit}{path}?recursive=true"
        listed: list[dict[str, Any]] = []
        asked = set[str]()
        while page:
            asked.add(page)
            answer, page = self._ask(page)
            listed += [x for x in answer if x.get("type") == "file"]
            if page in asked or len(listed) > MOST_FILES:
                raise ValueError("a list of files without end")
        return listed

    def _nothing_readable(self, paths: list[str]) -> NoReturn:
        found = sorted({"".join(PurePosixPath(p).suffixes[-2:]) for p in paths})[:5]
        raise UserError(
            f"source={self.name.source} has no parquet files (found: {', '.join(found) or 'nothing'}); only parquet is "
            f"read from the hub directly; run `python -m mygpt2 data fetch --source {word(self.name.source)}` and give "
            "its folder"
        )

    def _blocks(self, files: list[SourceFile], progress: Progress | None) -> tuple[np.ndarray, list[str]]:
        """((blocks, 5) int64: file, row group, 0, -1, rows; notes). One footer first: it tells the others' size."""
        column = self.data.text_column

        def one(i: int) -> tuple[list[tuple[int, int, int, int, int]], int]:
            metadata = self.footer(files[i])
            schema = metadata.schema.to_arrow_schema()
            check_text_column(schema, column, files[i].name)
            if self.filters:
                self.filters.check(schema, files[i].name)
            rows = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            sizes = [text_chunk(metadata, g, column).total_uncompressed_size for g in range(len(rows))]
            return [(i, g, 0, -1, n) for g, n in enumerate(rows) if n], max(sizes, default=0)

        blocks, largest = one(0)
        with ThreadPoolExecutor(FOOTER_THREADS) as pool:
            try:
                for done, (found, size) in enumerate(pool.map(one, range(1, len(files))), start=2):
                    blocks += found
                    largest = max(largest, size)
                    if progress:
                        progress(done, len(files))
            finally:
                pool.shutdown(cancel_futures=True)
        if not blocks:
            raise UserError(f"source={self.name.source} holds no rows; give a source with text")
        large = (
            f"row groups of up to {largest >> 20} MB of text: a block takes that much memory, set data.window to 1 or 2"
        )
        return np.array(blocks, dtype=np.int64), [large] if largest > LARGE_ROW_GROUP else []

    def _ask(self, path: str) -> tuple[Any, str | None]:
        return self.patiently(lambda: self.client.json(path))

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask until the hub answers, within the outage budget; what it refuses becomes advice."""
        outage = OutageClock(self.data.outage_minutes * 60, self.clock)
        try:
            return outage.wait_out(ask, Event(), hopeless=lambda fault: "cannot be reached" in fault.reason)
        except Refused as refusal:
            raise UserError(self._advice(refusal)) from refusal
        except Changed as change:
            raise UserError(f"source={self.name.source}: {change}; start the same command again") from change
        except Outage as problem:
            raise TryAgain(
                f"source={self.name.source}: {problem.reason}; check the network and HF_ENDPOINT, or train on "
                "source=pydocs or a local folder; the same command may work later"
            ) from problem

    def _advice(self, refusal: Refused) -> str:
        name, endpoint = self.name, self.client.endpoint
        if refusal.code == "GatedRepo":
            return (
                f"source={name.source} is gated; accept its conditions at {endpoint}/datasets/{name.repo} and log in "
                "with `hf auth login` or HF_TOKEN"
            )
        if refusal.code == "RevisionNotFound":
            return (
                f"source={name.source}: {name.repo} has no revision {name.revision}; give a branch, tag or commit, or "
                "leave it out"
            )
        if refusal.status in (401, 403, 404):
            return (
                f"source={name.source}: {name.repo} is not a dataset at {endpoint}, or a private one "
                f"({refusal.status}); check the name, or log in with `hf auth login` or HF_TOKEN"
            )
        return f"source={name.source}: {refusal}; check HF_ENDPOINT and the name"
