"""What the handlers of a tab share that shows documents; made once per server and tab."""

from __future__ import annotations

from mygpt2.run_dir import RunDir
from workbench.context import Context
from workbench.corpus.library import Library
from workbench.corpus.step import Traced, traced
from workbench.tokenizers import Tokenizers


class Reading:
    """Sources and tokenizers that stay open between two clicks."""

    def __init__(self) -> None:
        self.library = Library()
        self.tokenizers = Tokenizers()

    def traced(self, context: Context, run: RunDir, step: int | None = None) -> Traced:
        """A run's data, of a step or of the newest one, and its tokenizer, once all that its folder names is allowed
        here. UserError where one is not."""
        context.traced_files(run)
        context.configuration(run)
        return traced(run, self.library, self.tokenizers, step)
