"""The components of Train beside the fields of its form, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.tabs.train.fields import Fields


@dataclass
class Parts:
    """The components that handlers read and write. `shown` holds what the page's script knows of the form, `filled`
    changes when the form was written by the server, `kept` is what the browser has of it from before, `file` is a TOML
    on its way to the browser.

    A run's new name is told in `shown` or `filled` beside the one it follows: the browser takes it unless another one
    was typed meanwhile.
    """

    fields: Fields
    shown: Any = None
    filled: Any = None
    kept: Any = None
    file: Any = None
    message: Any = None
    about: Any = None
    changes: Any = None
    line: Any = None
    reasons: Any = None
    estimate: Any = None
    length: Any = None
    schedule: Any = None
    command: Any = None
    start: Any = None
    queue_up: Any = None
    machine: Any = None  # with acts_here: of this machine
    acts_here: Any = None
    there: Any = None  # with acts_there, submit, save_file and handing: of a cluster
    acts_there: Any = None
    submit: Any = None
    save_file: Any = None
    handing: Any = None

    @property
    def form(self) -> set[Any]:
        """All inputs of a draft."""
        return set(self.fields.inputs.values())

    @property
    def filling(self) -> list[Any]:
        """The outputs of a handler that fills the form."""
        return [*self.fields.inputs.values(), self.message, self.filled]

    @property
    def refreshed(self) -> list[Any]:
        """The outputs of `refresh`."""
        return [*self.fields.folds.values(), self.shown, self.about, self.changes, self.line, self.reasons,
                self.estimate, self.length, self.schedule, self.command, self.start, self.queue_up, self.machine,
                self.acts_here, self.there, self.acts_there, self.submit, self.save_file, self.handing]  # fmt: skip
