"""The sources of a mixture: what each holds, and what a run was promised and has had of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mygpt2.checkpoint import candidates
from mygpt2.checkpoint.format import read_state
from mygpt2.data.ledger import Coverage, OfSource, coverage
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture
from mygpt2.errors import UserError
from mygpt2.format import file_size
from mygpt2.records import whole
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.metrics import read_events
from workbench import html
from workbench.context import Context

MET = "met"  # of what was left out: how many documents were met


def parts(manifest: Manifest) -> html.Markup:
    """What each source of an opened mixture holds; nothing of a source that is none."""
    if not isinstance(manifest, Mixture):
        return html.Markup("")
    rows = []
    for place, part in enumerate(manifest.parts):
        own = part.manifest
        documents = "only reading tells" if own.documents is None else f"{own.documents:,}"
        name = html.join([html.dot(place), part.name])
        rows.append((name, f"{part.share:.2%}", own.kind, f"{len(own.files):,}", file_size(own.size), documents))
    return html.table(["source", "share", "format", "files", "size", "documents"], rows, {1, 3, 4, 5}, "its sources")


def of_run(context: Context, run: RunDir, manifest: Manifest) -> html.Markup:
    """What a run has had of each source, as its newest checkpoint says; nothing of a run that never was a mixture."""
    mixed = isinstance(manifest, Mixture)
    found = _covered(context, run, manifest)
    if found is None and mixed:
        return html.note("What this run has had of each source is known from its first checkpoint on.")
    if found is None or not found[0].sources:
        return html.Markup("")
    covered, checkpoint = found
    left_out = _left_out(run, "" if mixed else covered.sources[0].name)
    places = {part.name: place for place, part in enumerate(manifest.parts)} if isinstance(manifest, Mixture) else {}
    rows = [_row(source, places, left_out.get(source.name)) for source in covered.sources]
    headers = ["source", "promised", "had", "tokens", "different tokens", "passes", "documents left out"]
    return html.table(headers, rows, {1, 2, 3, 4, 5}, f"what the run has had of each source, at {checkpoint}")


def _row(source: OfSource, places: Mapping[str, int], left_out: Mapping[str, int] | None) -> tuple[Any, ...]:
    name = html.join([html.dot(places[source.name]), source.name]) if source.name in places else source.name
    promised = f"{source.promised:.2%}" if source.read else "not any more"
    different = f"about {source.unique_tokens:,}"
    return name, promised, f"{source.had:.2%}", f"{source.tokens:,}", different, _passes(source), _reasons(left_out)


def _passes(source: OfSource) -> str:
    if not source.epochs:
        return "less than 1"
    return f"{'at least ' if source.at_least else ''}{source.epochs:.3g}"


def _reasons(left_out: Mapping[str, int] | None) -> str:
    """Of the newest count: by reason, and of how many."""
    if left_out is None:
        return "none counted"
    told = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in left_out.items() if reason != MET and count]
    met = f" of {left_out[MET]:,}" if MET in left_out else ""
    return f"{', '.join(told)}{met}" if told else f"none{met}"


def _left_out(run: RunDir, alone: str) -> dict[str, dict[str, int]]:
    """By source and reason, as the newest event counts them. `alone`: whose its counts are where it has no sources."""
    events = read_events(run, ("left_out",))
    newest = events[-1] if events else {}
    given = newest.get("by_source", {alone: _of_documents(newest)})
    found = given.items() if isinstance(given, dict) else ()
    return {str(name): {str(key): n for key, value in counts.items() if (n := whole(value)) is not None}
            for name, counts in found if isinstance(counts, dict)}  # fmt: skip


def _of_documents(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an event of a run of one source counts of its documents, and how many were met; None without an event."""
    counts, of = event.get("counts"), event.get("of")
    if not isinstance(counts, dict) or not isinstance(of, dict):
        return None
    own = {reason: count for reason, count in counts.items() if reason not in of}  # which has blocks and log lines
    return {**own, MET: of.get("documents")}


def _covered(context: Context, run: RunDir, manifest: Manifest) -> tuple[Coverage, str] | None:
    """The ledger of the newest checkpoint that can be read, and its name."""
    for path in candidates(run.checkpoints_dir):
        try:
            context.checkpoint(path)
            state = read_state(path)["data"]
            if not isinstance(manifest, Mixture) and not state.get("before"):
                return None
            return _coverage(path, path.stat().st_mtime_ns, manifest.fingerprint, _Kept(manifest)), path.name
        except (OSError, LookupError, TypeError, ValueError, UserError):  # damaged, deleted meanwhile, or of other data
            continue
    return None


class _Kept:
    """A manifest that does not count as an argument of what is kept; its fingerprint does."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=8)
def _coverage(path: Path, changed: int, fingerprint: str, kept: _Kept) -> Coverage:
    """Walks over all that was read, so it is kept: a page turns through the rows of a step."""
    state = read_state(path)["data"]
    promised = dict(state["fingerprint"].get("mix", ()))  # the manifest may have other weights, which are no other data
    found = coverage(state, kept.manifest)
    own = (replace(source, promised=promised.get(source.name, source.promised)) for source in found.sources)
    return replace(found, sources=tuple(own))
