"""What the page may ask about its generations while it shows them. Nothing here changes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mygpt2.errors import UserError
from workbench.tabs.sample.alternatives import alternatives
from workbench.tabs.sample.client import Sampler
from workbench.tabs.sample.generation import as_text


def server_functions(sampler: Sampler) -> list[Any]:
    """What the page asks for while it shows a generation; each answers {"error": ...} for what it cannot do."""

    def sample_tokens(request: Any) -> dict[str, Any]:
        return _told(lambda: sampler.poll(request.get("id"), [int(n) for n in request.get("counts", [])][:2]))

    def sample_likeliest(request: Any) -> dict[str, Any]:
        return _told(lambda: alternatives(sampler, request.get("id"), int(request["pane"]), int(request["at"])))

    def sample_saved(request: Any) -> dict[str, Any]:
        return _told(lambda: _saved(sampler, request.get("id"), request.get("kind")))

    return [sample_tokens, sample_likeliest, sample_saved]


def _told(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return answer()
    except UserError as error:
        return {"error": str(error)}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"error": "the page asked for something this server does not know; reload it"}


def _saved(sampler: Sampler, id: Any, kind: Any) -> dict[str, Any]:
    records = sampler.get(id)[0].records()
    name = f"sample-seed-{records[0]['seed']}"
    if kind == "json":
        return {"name": f"{name}.json", "text": json.dumps(records, indent=1, ensure_ascii=False) + "\n"}
    return {"name": f"{name}.txt", "text": as_text(records)}
