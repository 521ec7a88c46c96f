"""How often a run reads each source of its mixture, as far as the looks into them tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mygpt2.config import RunConfig, load_config
from mygpt2.config.data import DataConfig
from mygpt2.config.mix import shares
from mygpt2.config.summary import GPT2_IDS, vocabulary_size
from mygpt2.data.sources.local.find import kinds_in
from mygpt2.errors import UserError
from mygpt2.machine import cache_folder
from mygpt2.planning.data import source_size
from mygpt2.planning.passes import MANY
from workbench.survey.sample import Survey
from workbench.survey.surveys import Surveys

GOOD_PASSES = int(MANY)


@dataclass(frozen=True)
class Foretold:
    """What a run reads of a source. tokens: targets of the whole run. passes: None where its size is not known.
    basis: how the size is known, where nobody looked into the source."""

    tokens: float
    passes: float | None
    basis: str = ""

    @classmethod
    def of(cls, survey: Survey | None, data: DataConfig, tokens: float) -> Foretold:
        """By the look into the source, else by its card or the size of its files."""
        if survey:
            held = trained(survey)
            return cls(tokens, tokens / held if held > 0 else None)
        alone = load_config("tiny").model_copy(update={"data": data})
        ids = vocabulary_size(data.tokenizer) or GPT2_IDS
        size = source_size(alone, ids, (), cache_folder(data.cache_dir))
        return cls(tokens, tokens / size.tokens if size.tokens else None, size.basis)

    def refusal(self, most: float | None) -> str:
        """Why the source is read too often for a run that may read it so often at `most`; "" where it is not."""
        if most is None or self.passes is None or self.passes <= most:
            return ""
        known = f" ({self.basis})" if self.basis else ""
        return (
            f"this run would read it {self.passes:.3g} times{known}; allowed: max_epochs = {most:g}; give it a smaller "
            "weight or more text, or the run fewer steps"
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
    """What is wrong with a mixture's sources: those that cannot be read, and those that the run would read more often
    than they may be."""
    mix, tokens = config.data.mix, config.train.steps * config.train.batch_tokens
    lines = []
    for number, (source, share) in enumerate(zip(mix, shares(mix), strict=True), 1):
        data = config.data.of(source)
        why = unusable(surveys, data)
        if not why and source.max_epochs is not None:
            why = Foretold.of(surveys.found(data), data, tokens * share).refusal(source.max_epochs)
        if why:
            lines.append(f"data.mix, source {number} ({source.name}): {why}")
    return lines
