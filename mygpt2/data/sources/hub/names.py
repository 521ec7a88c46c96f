"""What a hub dataset's name means: repository, configuration, revision, and which files that is. Pure functions."""

from __future__ import annotations

import difflib
import glob
import posixpath
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from mygpt2.errors import UserError, listed

FINEWEB_EDU = "HuggingFaceFW/fineweb-edu"
ALIASES = {
    "fineweb-edu-10BT": (FINEWEB_EDU, "sample-10BT", "sample/10BT/*.parquet"),
    "fineweb-edu-100BT": (FINEWEB_EDU, "sample-100BT", "sample/100BT/*.parquet"),
    "fineweb-edu": (FINEWEB_EDU, "default", "data/**/*.parquet"),
}
"""Names that stand for a dataset, a configuration of it, and its files."""

ALLOWED = (
    "pydocs, fineweb-edu-10BT, fineweb-edu-100BT, fineweb-edu, owner/name[:config][@revision] on the hub, "
    "or the path of a file or folder"
)
KINDS = (".parquet", ".jsonl", ".txt", ".arrow", ".feather", ".tar")
"""Endings of files of text. Parquet is read from the hub; the others are once they are fetched."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?::(?P<config>[\w.=+-]{{1,128}}))?(?:@(?P<revision>[\w./-]{{1,128}}))?")
_TRAIN = re.compile(r"(^|[/_.-])train(ing)?([/_.-]|$)")


@dataclass(frozen=True)
class HubName:
    """A dataset as a person named it. `pattern` is set where the configuration's files are known beforehand."""

    source: str
    repo: str
    config: str | None
    revision: str
    pattern: str | None = None


def parse_name(source: str) -> HubName:
    """The hub dataset that a source names. UserError if it cannot be one."""
    alias, _, revision = source.partition("@")
    if alias in ALIASES and (not revision or re.fullmatch(r"[\w./-]{1,128}", revision)):
        repo, config, pattern = ALIASES[alias]
        return HubName(source, repo, config, revision or "main", pattern)
    m = _NAME.fullmatch(source)
    if m and ".." not in source and "--" not in m["repo"]:
        return HubName(source, m["repo"], m["config"], m["revision"] or "main")
    close = difflib.get_close_matches(source, ["pydocs", *ALIASES], n=1, cutoff=0.7)
    raise UserError(
        f"source={source[:200]} is neither the name of a source nor a path that exists; allowed: {ALLOWED}"
        + (f"; did you mean {close[0]}?" if close else "")
    )


def patterns_of(name: HubName, card: dict[str, Any], files: list[str]) -> tuple[list[str], list[str]]:
    """(glob patterns of the files of a configuration, notes for the person).

    From the dataset card's `configs`, as the hub documents them; without a card, a configuration is a folder and what
    has `train` in its path is the training split.
    """
    configs = {str(c.get("config_name", "default")): c for c in card.get("configs") or () if isinstance(c, dict)}
    configs = {k: c for k, c in configs.items() if c.get("data_files") or c.get("data_dir")}
    if not configs:
        return _by_convention(name, files)
    chosen = configs.get((name.config or _default(configs)) or "")
    if chosen is None:
        _unknown_config(name, list(configs))
    return _data_files(chosen)


def _default(configs: dict[str, Any]) -> str | None:
    """The configuration meant by none: the one flagged so, the one named so, or the only one."""
    flagged = [k for k, c in configs.items() if c.get("default")]
    if flagged or "default" in configs:
        return [*flagged, "default"][0]
    return next(iter(configs)) if len(configs) == 1 else None


def _data_files(config: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Patterns of the training split, or of the first split where there is none of that name."""
    folder = str(config.get("data_dir") or "").strip("/")
    prefix = f"{folder}/" if folder else ""
    files = config.get("data_files")
    if not files:
        return [f"{prefix}**"], []
    if isinstance(files, dict):
        files = [{"split": k, "path": v} for k, v in files.items()]
    if isinstance(files, str):
        files = [files]
    splits: dict[str, list[str]] = {}
    for entry in files:
        split, path = (entry.get("split", "train"), entry.get("path")) if isinstance(entry, dict) else ("train", entry)
        splits.setdefault(str(split), []).extend([path] if isinstance(path, str) else path or [])
    split = "train" if "train" in splits else next(iter(splits))
    notes = [] if split == "train" else [f"no split named train: {split} is read"]
    return [prefix + p.removeprefix("./") for p in splits[split]], notes


def _by_convention(name: HubName, files: list[str]) -> tuple[list[str], list[str]]:
    data = [f for f in files if f.endswith((*KINDS, ".gz", ".zst"))]
    if name.config is not None:
        data = [f for f in data if f.startswith(f"{name.config}/")]
        if not data:
            _unknown_config(name, sorted({f.split("/")[0] for f in files if "/" in f}))
    train = [f for f in data if _TRAIN.search(f)]
    note = f"the dataset card names no configurations: {'files named train' if train else 'all files'} are read"
    return [glob.escape(f) for f in train or data], [note]


def _unknown_config(name: HubName, known: list[str]) -> NoReturn:
    close = difflib.get_close_matches(name.config or "", known, n=1)
    said = f"has no configuration {name.config}" if name.config else "has several configurations and no default"
    if not known:
        raise UserError(f"source={name.source}: {name.repo} {said}, it has none at all; give {name.repo}")
    raise UserError(
        f"source={name.source}: {name.repo} {said}; allowed: {listed(known, 10)}; give "
        f"{name.repo}:{close[0] if close else known[0]}"
    )


_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A hub glob: `**` is anything, `*` and `?` stay within a folder, `[...]` is a set; a folder is all in it."""
    out = []
    for token in re.findall(r"\*\*/?|\*|\?|\[[^\]]*\]|[^*?\[]+|\[", pattern):
        if token[0] == "[" and len(token) > 2:
            inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"[^{inner[1:]}]" if inner[0] == "!" else f"[{inner}]")
        else:
            out.append(_WILD.get(token) or re.escape(token))
    return re.compile("".join(out) + "(?:/.*)?")


def common_folder(patterns: list[str]) -> str:
    """The deepest folder that holds everything the patterns can match; "" for the whole repository."""
    heads = [re.split(r"[*?\[]", p)[0].rpartition("/")[0] for p in patterns]
    return posixpath.commonpath(heads) if heads else ""
