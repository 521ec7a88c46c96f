"""Whether a run would read a source of its mixture more often than was allowed: counted before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from mygpt2.config.mix import MixSource, shares
from mygpt2.config.schema import RunConfig
from mygpt2.data.batch import LANES_READ, begins_anew
from mygpt2.data.inspect import estimated_tokens
from mygpt2.data.ledger import tokens_had
from mygpt2.data.loader import Loader
from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture, Part, parts_of
from mygpt2.data.sources.resolve import open_reader
from mygpt2.errors import UserError
from mygpt2.planning.data import SourceSize, source_size
from mygpt2.planning.passes import MANY, SourcePasses
from mygpt2.tokenizer import Tokenizer

FEW_LANES = 8  # below which a batch is made of few places of the text
PLAIN = 0.5  # of what is allowed: below that share the size of the files is enough to go by, which may be off by two


def check_passes(
    config: RunConfig,
    manifest: Manifest,
    tokenizer: Tokenizer,
    cache_dir: Path,
    state: dict[str, Any] | None = None,
    step: int = 0,
) -> list[str]:
    """Warnings of sources that are read more than about four times without a max_epochs that says so.

    UserError where a source would be read more often than its max_epochs allows. A few blocks of a source are read to
    tell its tokens where the size of its files does not make it plain. `state`: of the loader at `step`, where the run
    goes on: what was read until then, in other shares perhaps, counts as it was.
    """
    all_had, warnings, refused = tokens_had(state), list[str](), dict[float, str]()
    for part in parts_of(manifest, config.data) if config.data.mix or isinstance(manifest, Mixture) else ():
        had = all_had[part.manifest.fingerprint]
        found = _counted(config, part, tokenizer, cache_dir, had, config.train.steps - step)
        passes, most = found.passes, found.most
        if passes is None or passes <= (most or MANY):
            continue
        told = f"source {part.name} would be read {passes:.3g} times ({found.size.basis})"
        if most is not None:
            advice = f"its max_epochs={most:g} allows no more; {_advice(config, part, found, had, step)}"
            refused[passes / most] = f"data.mix: {told}; {advice}"
            continue
        warnings.append(
            f"{told}; beyond about four times repeating adds little (arXiv 2305.16264): {_choice(config, part)}"
        )
    if refused:
        raise UserError(refused[max(refused)])  # what is advised for it is enough for other kinds of the same folder
    return warnings


def few_lanes(loader: Loader) -> str | None:
    """That a small source takes lanes, and with them mixing, from all others: each lane reads of every source."""
    if len(loader.parts) < 2 or loader.data.lanes or loader.lanes >= FEW_LANES:
        return None
    small, *others = sorted(loader.parts, key=lambda part: len(part.manifest))
    blocks, beside = len(small.manifest), min(len(part.manifest) for part in others)
    if beside < 2 * blocks:
        return None
    return (
        f"source {small.name} has {blocks} block{'s' * (blocks > 1)}, so that all sources are read in {loader.lanes} "
        f"lane{'s' * (loader.lanes > 1)} and a batch mixes fewer documents; the others alone would allow up to "
        f"{beside}: join it with another source where that matters"
    )


def read_again(loader: Loader, state: dict[str, Any]) -> str | None:
    """That a fork does not go on from the places of a mixture's sources, and what would."""
    again = [loader.parts[n].name or "the text" for n in begins_anew(state, loader.fingerprint)]
    if not again or not ("sources" in state["fingerprint"] or len(loader.parts) > 1):
        return None
    was, fewest = state["fingerprint"]["lanes"], min(len(part.manifest) for part in loader.parts)
    changed = [key for key in LANES_READ if state["fingerprint"][key] != loader.fingerprint[key]]
    why = (
        f"data.lanes was {was} and is {loader.lanes}"
        if "lanes" in changed
        else f"{', '.join(changed) or 'its window or what is held out'} changed"
    )
    way = f"; --data.lanes {was} goes on from there" if changed == ["lanes"] and was <= fewest else ""
    return f"{', '.join(again)}: read from the beginning in a new order, because {why}{way}"


def _counted(config: RunConfig, part: Part, tokenizer: Tokenizer, cache_dir: Path, had: int, left: int) -> SourcePasses:
    """By the size of its files where that makes it plain, else by what a few of its blocks hold. `had`: tokens of it
    that were trained on; `left`: steps."""
    wanted = had + left * config.train.batch_tokens * part.share
    most = config.data.mix[part.entry].max_epochs if config.data.mix else None
    alone = config.model_copy(update={"data": part.own(config.data)})
    rough = source_size(alone, tokenizer.vocab_size, (), cache_dir)
    if rough.tokens and wanted / rough.tokens <= PLAIN * (most or MANY):
        return SourcePasses(part.name, part.share, wanted, rough, most)
    eot_id, minutes = tokenizer.eot_id, config.data.outage_minutes
    with closing(open_reader(part.manifest, cache_dir=cache_dir, eot_id=eot_id, outage_minutes=minutes)) as reader:
        tokens, basis = estimated_tokens(part.manifest, reader, tokenizer, alone)
    tokens *= 1 - alone.data.validation_fraction
    return SourcePasses(part.name, part.share, wanted, SourceSize(tokens or None, basis), most)


def _advice(config: RunConfig, part: Part, found: SourcePasses, had: int, step: int) -> str:
    """What would be allowed instead, in settings that there are: a part may be one kind of the files of a source."""
    assert found.most is not None and found.size.tokens
    room = max(0.0, found.most * found.size.tokens - had)
    share = room * found.share / (found.wanted - had) if found.wanted > had else 0.0
    steps = step + int(room / (config.train.batch_tokens * found.share))
    own, of = config.data.mix[part.entry], shares(config.data.mix)[part.entry]
    whose = f" of {own.name}" if part.name != own.name else ""
    ways = "; ".join(_ways(config, own, share * of / part.share, steps))
    return f"{ways}{', or ' if ways else ''}raise max_epochs{whose}{_apart(part) if whose else ''}"


def _ways(config: RunConfig, own: MixSource, share: float, steps: int) -> Iterator[str]:
    """`share`: the most that the source may have."""
    others = sum(source.weight for source in config.data.mix if source is not own)
    if others and 0 < share < 1:
        yield f"give {own.name} a weight of at most {others * share / (1 - share):.3g}"
    if steps:
        yield f"train for at most {steps:,} steps"


def _choice(config: RunConfig, part: Part) -> str:
    """How to say that many passes are meant, or to have fewer."""
    if not config.data.mix:  # a folder of several kinds, each with the share of its size
        return f"train for fewer steps{_apart(part)}"
    own = config.data.mix[part.entry].name
    if part.name == own:
        return f"set max_epochs of {own} to refuse or allow it"
    return f"set max_epochs of {own} to refuse or allow it{_apart(part)}"


def _apart(part: Part) -> str:
    """Of one kind of a folder's files: how they get a weight by themselves."""
    return (
        f", or put the {part.manifest.kind} files into a folder of their own, as a source in data.mix with its own "
        "weight and max_epochs"
    )
