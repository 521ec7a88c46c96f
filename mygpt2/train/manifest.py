"""The data of a run, resolved once for all its ranks."""

from __future__ import annotations

import json

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture, manifest_from
from mygpt2.data.sources.resolve import open_settled, resolve, resolve_data
from mygpt2.distributed import World
from mygpt2.machine import cache_folder
from mygpt2.progress import progress_bar
from mygpt2.tokenizer import Tokenizer


def manifest_for_all(data: DataConfig, tokenizer: Tokenizer, world: World) -> Manifest:
    """The manifest of `data.source`, which rank 0 alone resolves and sends to the others.

    A hub answers 500 questions in five minutes, and a file system that a thousand ranks list at once answers none:
    the others make no request and look at no file here. `pydocs`, which has no files before it was harvested, is
    harvested on every machine that does not share the cache folder.
    """
    caches = cache_folder(data.cache_dir)
    found: list[Manifest] = []

    def resolved() -> str:
        with progress_bar(f"resolve {data.text}", "parts") as advance:
            first = resolve_data(data, cache_dir=caches, progress=advance)
        settled, reader = open_settled(first, data, cache_dir=caches, eot_id=tokenizer.eot_id)
        reader.close()
        for note in settled.notes:
            print(note if isinstance(settled, Mixture) else f"{data.source}: {note}", flush=True)
        found.append(settled)
        return json.dumps(settled.to_dict()) if world.size > 1 else ""

    text = world.text_from_lead(resolved)
    if "pydocs" in data.named and not world.lead:
        resolve("pydocs", data, cache_dir=caches)
    return found[0] if found else manifest_from(json.loads(text))
