"""What the page asks of a vocabulary: a page of rows, one token with its merges, all of it as a file. Only reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mygpt2.errors import UserError
from workbench.context import Context
from workbench.tabs.tokenizer.bench import Bench, name_of
from workbench.tabs.tokenizer.vocabulary import MOST_PAGE, PAGE, SEARCHES, SORTS, Vocabulary

FORMATS = {"csv": ",", "tsv": "\t"}


def server_functions(context: Context, bench: Bench) -> list[Any]:
    """Each answers {"error": ...} for what it cannot do. A request names a tokenizer, and `query`, `by`, `sort`."""

    def vocabulary_page(request: Any) -> dict[str, Any]:
        return _told(lambda: page(context, bench, request))

    def vocabulary_token(request: Any) -> dict[str, Any]:
        return _told(lambda: token(context, bench, request))

    def vocabulary_file(request: Any) -> dict[str, Any]:
        return _told(lambda: as_file(context, bench, request))

    return [vocabulary_page, vocabulary_token, vocabulary_file]


def page(context: Context, bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """Rows from `offset` on. With `id` instead: from the beginning of the page that it stands on, if it was found."""
    vocabulary, uses, ids = _found(context, bench, request)
    count = max(1, min(int(request.get("count") or PAGE), MOST_PAGE))
    offset = max(0, int(request.get("offset") or 0))
    if request.get("id") is not None:
        places = np.flatnonzero(ids == int(request["id"]))
        offset = int(places[0]) if len(places) else 0
    offset = min(offset, max(0, len(ids) - 1)) // count * count
    rows = [vocabulary.row(id, uses) for id in ids[offset : offset + count].tolist()]
    return {
        "rows": rows, "found": len(ids), "size": len(vocabulary), "offset": offset, "merges": vocabulary.merges,
        "name": name_of(str(request.get("tokenizer"))),
    }  # fmt: skip


def token(context: Context, bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """One id, and the parts that merges made it of."""
    tokenizer = bench.load(context, str(request.get("tokenizer") or ""))
    vocabulary, id = bench.vocabularies.get(tokenizer), int(request["id"])
    if not 0 <= id < len(vocabulary):
        raise UserError(f"id {id} is outside 0 to {len(vocabulary) - 1}, the ids of {name_of(tokenizer.name)}")
    row = vocabulary.row(id, bench.uses(tokenizer))
    return {"row": row, "tree": vocabulary.tree(id), "merges": vocabulary.merges}


def as_file(context: Context, bench: Bench, request: dict[str, Any]) -> dict[str, Any]:
    """What was found, all of it, as comma- or tab-separated values."""
    kind = str(request.get("format"))
    if kind not in FORMATS:
        raise UserError(f"format {kind[:20]!r} is not known; allowed: {', '.join(FORMATS)}")
    vocabulary, uses, ids = _found(context, bench, request)
    name = name_of(str(request.get("tokenizer"))).replace(":", "-")
    return {"name": f"vocabulary-{name}.{kind}", "text": vocabulary.as_file(ids, FORMATS[kind], uses)}


def _found(context: Context, bench: Bench, request: dict[str, Any]) -> tuple[Vocabulary, np.ndarray, np.ndarray]:
    tokenizer = bench.load(context, str(request.get("tokenizer") or ""))
    by, sort = str(request.get("by") or "text"), str(request.get("sort") or "id")
    if by not in SEARCHES or sort not in SORTS:
        raise UserError(
            f"search by {', '.join(SEARCHES)} and sort by {', '.join(SORTS)}, not {by[:20]!r}, {sort[:20]!r}"
        )
    vocabulary, uses = bench.vocabularies.get(tokenizer), bench.uses(tokenizer)
    ids = vocabulary.find(str(request.get("query") or ""), by)
    return vocabulary, uses, vocabulary.ordered(ids, sort, uses)


def _told(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return answer()
    except UserError as error:
        return {"error": str(error)}
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return {"error": "the page asked for something this server does not know; reload it"}
