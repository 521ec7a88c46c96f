"""`pydocs`, the built-in corpus: the documentation of Python and of the packages that this project installs.

Real English technical prose that needs no network. It has FineWeb-Edu's columns and its structure, one file per package
group in package order, not shuffled, so that everything that can go wrong with the order of the real thing can here.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mygpt2.data.sources.pydocs import prose
from mygpt2.data.sources.pydocs.prose import Pieces
from mygpt2.errors import UserError
from mygpt2.files import cannot_write

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

HARVEST = 1
"""Part of the cache's key: a change of what is harvested from the same packages raises it."""

ROOTS = (
    "torch", "numpy", "pandas", "matplotlib", "plotly", "gradio", "huggingface_hub", "tokenizers",
    "tiktoken", "safetensors", "pyarrow", "pydantic", "scipy", "psutil", "pyyaml", "regex", "tqdm",
)  # fmt: skip
"""Dependencies of the project. What they depend on is read as well; what is installed besides is not."""

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("text", "id", "dump", "url", "date", "file_path", "language")]
    + [
        ("language_score", pa.float64()),
        ("token_count", pa.int64()),
        ("score", pa.float64()),
        ("int_score", pa.int64()),
    ]
)

ROW_GROUP_BYTES = 150_000  # of text: enough blocks for the lanes to shuffle, though the set is small
GROUP_BYTES = 400_000  # a package with less text shares a file with its neighbours
SHORTEST, LONGEST = 300, 8000  # characters of a document
LEAST_PROSE = 0.27  # share of function words below which a document is a list or a table
REPEATS = 2  # a paragraph that was seen more often is boilerplate
PACKAGE_CHARS = 4_000_000  # no package may drown the others,
GENERATED_CHARS = {"plotly": 1_000_000}  # and what is written by a generator says little that is new
BYTES_PER_TOKEN = 3.8  # GPT-2's on this text; `token_count` is an estimate, which nothing but a display relies on

_SKIPPED = re.compile(
    r"(^|/)(tests?|_?testing|validators|graph_objs|node_modules|site-packages|dist-packages|idle_test|__pycache__|_vendor|"
    r"encodings|lib2to3|third_party|templates)(/|$)|(^|/)(test_|conftest|_pydoc|topics\.py)|"
    r"(?i:licen[sc]e|copying|notice|change|history|authors|code_of_conduct|requirements|top_level|entry_points|sources)[^/]*$"
)
_READ = (".py", ".pyx", ".rst", ".md", ".dist-info/METADATA")


@dataclass(frozen=True)
class Package:
    """What is read of one distribution: files below a folder, in sorted order."""

    name: str
    version: str
    root: str
    files: tuple[str, ...]


def harvest(cache_dir: Path, progress: Progress | None = None) -> Path:
    """Folder of parquet files with the corpus; made once per set of package versions, by one process at a time."""
    packages = installed()
    folder = Path(cache_dir) / "pydocs" / _key(packages)
    if (folder / "made.json").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not (folder / "made.json").exists():
                _make(folder, packages, progress)
    except OSError as error:
        problem = cannot_write(Path(error.filename or folder), error)
        raise type(problem)(f"{problem}: the cache is named by MYGPT2_CACHE=DIR or --data.cache_dir DIR") from None
    return folder


def _make(folder: Path, packages: list[Package], progress: Progress | None) -> None:
    aside = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        _write(aside, packages, progress)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def installed() -> list[Package]:
    """The standard library and the project's dependencies with theirs, as far as installed, in the order of reading."""
    found: dict[str, importlib.metadata.Distribution] = {}
    queue = list(ROOTS)
    while queue:
        name = canonicalize_name(queue.pop(0))
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return [_standard_library(), *(_package(name, found[name]) for name in sorted(found))]


def _standard_library() -> Package:
    root = sysconfig.get_path("stdlib")
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [x for x in folders if not _SKIPPED.search(f"{x}/")]
        files += [os.path.relpath(os.path.join(folder, x), root) for x in names if x.endswith(".py")]
    version = ".".join(map(str, sys.version_info[:3]))
    return Package("python", version, root, tuple(sorted(x for x in files if not _SKIPPED.search(x))))


def _package(name: str, distribution: importlib.metadata.Distribution) -> Package:
    files = [str(x) for x in distribution.files or ()]
    files = [x for x in files if x.endswith(_READ) and not x.startswith("..") and not _SKIPPED.search(x)]
    return Package(name, distribution.version, str(distribution.locate_file("")), tuple(sorted(files)))


def _key(packages: Iterable[Package]) -> str:
    names = json.dumps([HARVEST, *([p.name, p.version] for p in packages)])
    return hashlib.sha256(names.encode()).hexdigest()[:16]


Rows = list[dict[str, object]]
"""Documents as rows of the table."""


def _write(folder: Path, packages: list[Package], progress: Progress | None) -> None:
    """All files of the corpus, then `made.json`, which says that it is whole."""
    counts = {"files": 0, "documents": 0, "characters": 0}
    for rows in _files(packages, progress):
        first = str(rows[0]["dump"]).rsplit("-", 1)[0]
        _write_parquet(folder / f"{counts['files']:03d}_{first}.parquet", rows)
        counts["files"] += 1
        counts["documents"] += len(rows)
        counts["characters"] += _characters(rows)
    if not counts["documents"]:
        raise UserError(
            "source=pydocs found no documentation in this Python; give data.source a folder of text instead"
        )
    (folder / "made.json").write_text(
        json.dumps({**counts, "packages": {p.name: p.version for p in packages}}, indent=1)
    )


def _files(packages: list[Package], progress: Progress | None) -> Iterator[Rows]:
    """The rows of each file: those of one large package, or of small ones in a row."""
    seen: Counter[str] = Counter()
    waiting: Rows = []
    for package, modules in _read(packages, progress):
        rows = list(_rows(package, modules, seen))
        if waiting and _characters(rows) >= GROUP_BYTES:
            yield waiting
            waiting = []
        waiting += rows
        if _characters(waiting) >= GROUP_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _characters(rows: Rows) -> int:
    return sum(len(str(row["text"])) for row in rows)


def _read(packages: list[Package], progress: Progress | None) -> Iterator[tuple[Package, list[tuple[str, Pieces]]]]:
    """The modules of each package with their texts; read by several processes, handed out in order."""
    jobs = [(p, list(p.files[i : i + 100])) for p in packages for i in range(0, len(p.files), 100)]
    modules: list[tuple[str, Pieces]] = []
    for i, ((package, _), found) in enumerate(zip(jobs, _pieces([(p.root, files) for p, files in jobs]), strict=True)):
        modules += found
        if progress:
            progress(i + 1, len(jobs))
        if i + 1 == len(jobs) or jobs[i + 1][0] is not package:
            yield package, modules
            modules = []


def _pieces(jobs: list[tuple[str, list[str]]]) -> Iterator[list[tuple[str, Pieces]]]:
    """The texts of the files (root, names) of each job, in the jobs' order.

    By plain child processes that live on their standard input: unlike a pool's workers they end with this process
    however it ends, and they need nothing of its main module.
    """
    home = str(Path(__file__).parents[4])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    own = threading.local()
    children: list[subprocess.Popen[str]] = []

    def begin() -> None:
        own.child = subprocess.Popen(
            [sys.executable, "-m", prose.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}, encoding="utf-8",
        )  # fmt: skip
        children.append(own.child)

    def one(job: tuple[str, list[str]]) -> list[tuple[str, Pieces]]:
        own.child.stdin.write(json.dumps(job) + "\n")
        own.child.stdin.flush()
        answer = own.child.stdout.readline()
        if not answer:
            raise RuntimeError(f"a reader of documentation ended with code {own.child.wait()} at {job[1][0]}")
        return json.loads(answer)

    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)), initializer=begin) as pool:
        try:
            yield from pool.map(one, jobs)
        finally:
            pool.shutdown(cancel_futures=True)
            for child in children:
                child.communicate()


def _rows(package: Package, modules: list[tuple[str, Pieces]], seen: Counter[str]) -> Iterator[dict[str, object]]:
    """The documents of one package as rows of the table."""
    if package.name == "python":
        modules = [*modules, *_topics()]
    for path, pieces in _capped(modules, GENERATED_CHARS.get(package.name, PACKAGE_CHARS)):
        module = re.sub(r"(/__init__)?\.\w+$", "", path).replace("/", ".")
        for i, text in enumerate(documents(module, pieces, seen)):
            share = prose.prose_share(text)
            if len(text) < SHORTEST or share < LEAST_PROSE or seen[text]:
                continue
            seen[text] += 1
            yield {
                "text": text,
                "id": f"<{package.name}:{module}:{i}>",
                "dump": f"{package.name}-{package.version}",
                "url": f"python:{module}#{i}",
                "date": "",
                "file_path": path,
                "language": "en",
                "language_score": round(min(1.0, 2.2 * share), 4),
                "token_count": round(len(text.encode()) / BYTES_PER_TOKEN),
                "score": round(10 * share, 4),
                "int_score": round(10 * share),
            }


def _capped(modules: list[tuple[str, Pieces]], most: int) -> list[tuple[str, Pieces]]:
    """The modules, or as many of them as have `most` characters, drawn by the hash of their paths, in their order."""
    chosen: set[str] = set()
    for path, pieces in sorted(modules, key=lambda m: hashlib.sha256(m[0].encode()).digest()):
        size = sum(len(text) for _, text in pieces)
        if size <= most:
            chosen.add(path)
            most -= size
    return [m for m in modules if m[0] in chosen]


def documents(module: str, pieces: Pieces, seen: Counter[str]) -> Iterator[str]:
    """The texts of a module put together to documents: a class with its methods, or functions that stand together.

    `seen` counts the paragraphs of all modules so far: one that was seen `REPEATS` times is left out.
    """
    parts: list[str] = []
    size = 0
    before = ""
    for name, text in pieces:
        text = _fresh(text, seen)
        top = "." not in name
        if parts and ((size > LONGEST / 4 and top) or size + len(text) > LONGEST):
            yield "\n\n".join(parts)
            parts, size = [], 0
        if len(text) < 40:
            continue
        title = name if name and name != before else ""
        before = name
        if not parts and not title:
            title = module
        for piece in _split(f"{title}\n\n{text}" if title else text):
            if size + len(piece) > LONGEST and parts:
                yield "\n\n".join(parts)
                parts, size = [], 0
            parts.append(piece)
            size += len(piece) + 2
    if parts:
        yield "\n\n".join(parts)


def _fresh(text: str, seen: Counter[str]) -> str:
    """A text without the paragraphs that were met too often."""
    kept: list[str] = []
    for line in text.split("\n"):
        if len(line) > 60:
            seen[line] += 1
            if seen[line] > REPEATS:
                continue
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).strip()


def _split(text: str) -> Iterator[str]:
    """Pieces of at most `LONGEST` characters, cut between paragraphs where that is possible."""
    while len(text) > LONGEST:
        cut = text.rfind("\n", SHORTEST, LONGEST)
        cut = cut if cut > 0 else LONGEST
        yield text[:cut].rstrip()
        text = text[cut:].lstrip()
    yield text


def _topics() -> list[tuple[str, Pieces]]:
    """The language reference that comes with Python for `help()`."""
    from pydoc_data.topics import topics

    return [(f"pydoc_data/topics/{name}.py", [("", prose.clean(text))]) for name, text in sorted(topics.items())]


def _write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    """Row groups of about `ROW_GROUP_BYTES` of text, with page checksums, so that a flipped bit is an error."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        start = size = 0
        for i, row in enumerate(rows):
            size += len(str(row["text"]).encode())
            if size >= ROW_GROUP_BYTES or i + 1 == len(rows):
                writer.write_table(pa.Table.from_pylist(rows[start : i + 1], schema=SCHEMA))
                start, size = i + 1, 0
