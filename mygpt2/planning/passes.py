"""How often a run reads each source of a mixture, foretold from the sizes of the sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mygpt2.config.mix import shares
from mygpt2.config.schema import RunConfig
from mygpt2.planning.data import SourceSize

MANY = 4.0  # passes: up to about four, repeated text is worth nearly as much as new (arXiv 2305.16264)


@dataclass(frozen=True)
class SourcePasses:
    """What a run reads of one source. `size.tokens`: of one pass, None where unknown."""

    name: str
    share: float
    wanted: float  # tokens of the whole run
    size: SourceSize
    most: float | None  # passes that its max_epochs allows

    @property
    def passes(self) -> float | None:
        return self.wanted / self.size.tokens if self.size.tokens else None


def foretold(config: RunConfig, size_of: Callable[[RunConfig], SourceSize]) -> list[SourcePasses]:
    """Of each source of data.mix, as far as can be told without reading it; empty without a mixture."""
    total = config.train.steps * config.train.batch_tokens
    found = []
    for source, share in zip(config.data.mix, shares(config.data.mix), strict=True):
        alone = config.model_copy(update={"data": config.data.of(source)})
        found.append(SourcePasses(source.name, share, total * share, size_of(alone), source.max_epochs))
    return found
