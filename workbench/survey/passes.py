"""How often a run reads each source of its mixture, as far as the looks into them tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mygpt2.config import RunConfig
from mygpt2.config.data import DataConfig
from mygpt2.config.mix import shares
from mygpt2.data.sources.local.find import kinds_in
from mygpt2.errors import UserError
from mygpt2.planning.passes import MANY
from workbench.survey.sample import Survey
from workbench.survey.surveys import Surveys

GOOD_PASSES = int(MANY)


@dataclass(frozen=True)
class Foretold:
    """What a run reads of a source. tokens: targets of the whole run. passes: None where its size is not known."""

    tokens: float
    passes: float | None

    @classmethod
    def of(cls, survey: Survey | None, tokens: float) -> Foretold:
        held = trained(survey) if survey else 0
        return cls(tokens, tokens / held if held > 0 else None)

    def refusal(self, most: float | None) -> str:
        """Why the source is read too often for a run that may read it so often at `most`; "" where it is not."""
        if most is None or self.passes is None or self.passes <= most:
            return ""
        return (
            f"this run would read it {self.passes:.3g} times; allowed: max_epochs = {most:g}; give it a smaller weight "
            "or more text, or the run fewer steps"
        )


def trained(survey: Survey) -> float:
    """Tokens of the documents that are not held out."""
    return survey.tokens * (1 - survey.held_out / max(1, survey.documents))


def unusable(surveys: Surveys, data: DataConfig) -> str:
    """Why one source of one's own cannot be trained on, as far as its files and the look into it tell; "" otherwise."""
    path = Path(data.source)
    if not path.is_absolute() or not path.exists():
        return ""
    try:
        kinds_in(path)
    except UserError as error:
        return str(error)
    return surveys.problem(data)


def mixture_problems(surveys: Surveys, config: RunConfig) -> list[str]:
    """What is wrong with a mixture's sources: those that cannot be read, and, of those that were looked into, those
    that the run would read more often than it may."""
    mix, tokens = config.data.mix, config.train.steps * config.train.batch_tokens
    lines = []
    for number, (source, share) in enumerate(zip(mix, shares(mix), strict=True), 1):
        data = config.data.of(source)
        foretold = Foretold.of(surveys.found(data), tokens * share)
        if why := unusable(surveys, data) or foretold.refusal(source.max_epochs):
            lines.append(f"data.mix, source {number} ({source.name}): {why}")
    return lines
