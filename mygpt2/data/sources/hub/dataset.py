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
from pathlib import Path, PurePosixPath
from threading import Event
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote

import numpy as np
import yaml

from mygpt2.config.schema import DataConfig
from mygpt2.data.checked import keep_checked, load_checked
from mygpt2.data.sources.faults import Clock, Outage, OutageClock
from mygpt2.data.sources.hub.client import OUTAGE_S, Changed, HubClient, Refused
from mygpt2.data.sources.hub.names import common_folder, glob_regex, parse_name, patterns_of
from mygpt2.data.sources.hub.parquet import Footers, HubParquetReader, text_column
from mygpt2.data.sources.manifest import Manifest, SourceFile, make_blocks
from mygpt2.errors import TryAgain, UserError

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with (files resolved, files in all)."""

LAYOUT = 2  # part of the cache's key: a change of how names become blocks raises it
FOOTER_THREADS = 16
MOST_FILES = 2_000_000  # of a repository
LARGE_ROW_GROUP = 32 << 20  # bytes of text; FineWeb-Edu's have 4.7 million
_SHA = re.compile(r"[0-9a-f]{40}")


def resolve_hub(
    source: str,
    data: DataConfig,
    cache_dir: Path,
    *,
    client: HubClient | None = None,
    clock: Clock | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Manifest of a hub dataset at the commit that its revision points to now.

    Raises UserError for what a person has to change, TryAgain when the hub stays out of reach.
    """
    own = None if client else HubClient(clock=clock, budget_s=data.outage_minutes * 60)
    try:
        return HubSource(source, data, cache_dir, client or own, clock).manifest(progress)
    finally:
        if own:
            own.close()


def open_hub(
    manifest: Manifest,
    cache_dir: Path,
    *,
    client: HubClient | None = None,
    clock: Clock | None = None,
    outage_minutes: float | None = None,
) -> HubParquetReader:
    """Reader of a manifest that `resolve_hub` made."""
    budget_s = OUTAGE_S if outage_minutes is None else outage_minutes * 60
    client = client or HubClient(clock=clock, budget_s=budget_s)
    return HubParquetReader(manifest, client, Footers(hub_cache(cache_dir), client))


def hub_cache(cache_dir: Path) -> Path:
    """Where manifests and footers are kept."""
    return Path(cache_dir) / "hub"


class HubSource:
    """A named dataset on the hub, and the steps from there to its files and to a manifest."""

    def __init__(
        self,
        source: str,
        data: DataConfig,
        cache_dir: Path,
        client: HubClient | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = parse_name(source)
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise UserError(
                f"source={source} is on the hub and HF_HUB_OFFLINE forbids to ask it; unset that, or give the path "
                "of a local copy"
            )
        self.data, self.cache = data, hub_cache(cache_dir)
        self.clock = clock or Clock()
        self.client = client or HubClient(clock=self.clock, budget_s=data.outage_minutes * 60)

    def manifest(self, progress: Progress | None) -> Manifest:
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
            (*notes, *more),
        )  # fmt: skip
        keep_checked(path, made.to_dict(), self.cache.parent)
        return made

    def files(self) -> list[SourceFile]:
        """The files of the configuration, whatever their format, sorted by name."""
        info = self._info(whole=True)
        return self._listed(info, str(info["sha"]))[0]

    def _cache_path(self, commit: str) -> Path:
        name, endpoint = self.name, self.client.endpoint
        what = (LAYOUT, endpoint, name.source, self.data.text_column, commit)
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
        """`_files`; UserError when what the server answers has not the hub's form."""
        try:
            files, notes = self._files(info, commit)
            if any(f.size < 0 or ".." in f.name.split("/") or f.name.startswith("/") for f in files):
                raise ValueError("names or sizes that no file has")
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._not_the_hub(f"{type(error).__name__}: {error}") from error
        return files, notes

    def _not_the_hub(self, why: str) -> UserError:
        return UserError(f"{self.client.endpoint} does not answer like the hub ({why[:120]}); check HF_ENDPOINT")

    def _files(self, info: dict[str, Any], commit: str) -> tuple[list[SourceFile], list[str]]:
        """The files that the configuration names, sorted, and notes."""
        names = [str(x.get("rfilename", "")) for x in info.get("siblings") or ()]
        patterns, notes = [self.name.pattern or ""], list[str]()
        if not self.name.pattern:
            card = info.get("cardData") or (self._card(commit) if "README.md" in names else {})
            patterns, notes = patterns_of(self.name, card, names)
        accepts = [glob_regex(p) for p in patterns]
        listed = self._tree(commit, common_folder(patterns))
        chosen = sorted((x for x in listed if any(a.fullmatch(x["path"]) for a in accepts)), key=lambda x: x["path"])
        root = f"{self.client.endpoint}/datasets/{self.name.repo}/resolve/{commit}/"
        identities = [str((x.get("lfs") or {}).get("oid") or x["oid"]) for x in chosen]
        return [
            SourceFile(x["path"], int(x["size"]), identity, root + quote(x["path"]))
            for x, identity in zip(chosen, identities, strict=True)
        ], notes

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

    def _card(self, commit: str) -> dict[str, Any]:
        """The YAML head of README.md."""
        listed, _ = self._ask(f"api/datasets/{self.name.repo}/tree/{commit}")
        size = next((int(x["size"]) for x in listed if x.get("path") == "README.md"), 0)
        url = f"{self.client.endpoint}/datasets/{self.name.repo}/resolve/{commit}/README.md"
        raw = self.patiently(lambda: self.client.range(url, 0, size, size=size, identity="")) if size else b""
        _, _, head = raw.decode(errors="replace").partition("---\n")
        try:
            card = yaml.safe_load(head.partition("\n---")[0])
        except yaml.YAMLError:
            return {}
        return card if isinstance(card, dict) else {}

    def _nothing_readable(self, paths: list[str]) -> NoReturn:
        found = sorted({"".join(PurePosixPath(p).suffixes[-2:]) for p in paths})[:5]
        raise UserError(
            f"source={self.name.source} has no parquet files (found: {', '.join(found) or 'nothing'}); only parquet is "
            f"read from the hub directly; run `python -m mygpt2 data fetch --source {self.name.source}` and give "
            "its folder"
        )

    def _blocks(self, files: list[SourceFile], progress: Progress | None) -> tuple[np.ndarray, list[str]]:
        """((blocks, 5) int64: file, row group, 0, -1, rows; notes). One footer first: it tells the others' size."""
        footers = Footers(self.cache, self.client)

        def one(i: int) -> tuple[list[tuple[int, int, int, int, int]], int]:
            metadata = self.patiently(lambda: footers.get(files[i]))
            column = text_column(metadata, self.data.text_column, files[i].name)
            groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
            largest = max((g.column(column).total_uncompressed_size for g in groups), default=0)
            return [(i, g, 0, -1, group.num_rows) for g, group in enumerate(groups) if group.num_rows], largest

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
        outage = OutageClock(self.data.outage_minutes * 60, self.clock.now)
        while True:
            try:
                return ask()
            except Refused as refusal:
                raise UserError(self._advice(refusal)) from refusal
            except Changed as change:
                raise UserError(f"source={self.name.source}: {change}; start the same command again") from change
            except Outage as problem:
                outage.failed(problem.reason, problem.began)
                if "cannot be reached" in problem.reason or outage.expired:
                    raise TryAgain(
                        f"source={self.name.source}: {problem.reason}; check the network and HF_ENDPOINT, or train on "
                        "source=pydocs or a local folder; the same command may work later"
                    ) from problem
                self.clock.wait(Event(), outage.pause_s(problem.retry_after))

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
                f"source={name.source}: {name.repo} is no dataset at {endpoint}, or a private one ({refusal.status}); "
                "check the name, or log in with `hf auth login` or HF_TOKEN"
            )
        return f"source={name.source}: {refusal}; check HF_ENDPOINT and the name"
