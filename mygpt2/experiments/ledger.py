"""How often a baseline was challenged, and what is left of its error budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mygpt2.experiments.folder import Lines
from mygpt2.experiments.spending import level, weight
from mygpt2.records import number

DECIDED = ("keep", "drop")


@dataclass(frozen=True)
class Ledger:
    """The tests of one baseline in their order. A line that nobody can read counts as a test that decided nothing."""

    lines: Lines
    budget: float

    @property
    def tests(self) -> list[dict[str, Any]]:
        """Verdicts that rest on a p-value, whatever it reads now; diverged runs, or nothing changed, spend nothing."""
        return [line for line in self.lines.records if line.get("p") is not None]

    @property
    def decided(self) -> list[bool]:
        return [False] * self.lines.damaged + [_hands_on(line) for line in self.tests]

    @property
    def next_number(self) -> int:
        return len(self.decided) + 1

    def level(self, after: Sequence[bool] = ()) -> float:
        """Of the next test; or of the one after those that decided as `after` says."""
        return level([*self.decided, *after], self.budget)

    def spent_with(self, more: int) -> float:
        """The budget's share of the tests so far and of so many more, each its own."""
        return self.budget * sum(weight(n) for n in range(1, self.next_number + more))

    @property
    def challengers(self) -> int:
        """Different variants so far."""
        return len({str(line.get("variant")) for line in self.lines.records})

    def asked(self, question: str) -> dict[str, Any] | None:
        """The line of this very question: the same weights on the same text. Asking it again tells nothing new."""
        same = (line for line in reversed(self.lines.records) if line.get("question") == question)
        return next((line for line in same if _sound(line)), None)


def _hands_on(line: dict[str, Any]) -> bool:
    """Whether a test's level passes to the next one: it decided, and so did whatever else was tested with it."""
    sources = line.get("by_source")
    others = sources.values() if isinstance(sources, dict) else ()
    return line.get("verdict") in DECIDED and all(isinstance(each, dict) and each.get("better") for each in others)


def _sound(line: dict[str, Any]) -> bool:
    """Whether a line holds a verdict that can be told again; else the question is asked anew."""
    kinds = {
        "verdict": str, "reason": str, "speaks_of": str, "told": str, "base": str, "protocol": str, "experiment": str,
        "changes": dict, "validation": dict, "excluded": dict, "ledger": dict, "cost": dict, "notices": list,
        "replicates": list, "horizon_tokens": list,
    }  # fmt: skip
    return number(line.get("time")) is not None and all(isinstance(line.get(key), kind) for key, kind in kinds.items())
