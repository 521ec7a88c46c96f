"""A self-test of machine and installation: each check is a function that returns findings and never raises."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL, SKIP = "ok", "warn", "FAIL", "skip"


@dataclass(frozen=True)
class Finding:
    """One line of the report. `advice` is what to do, for everything that is not ok."""

    status: str
    name: str
    detail: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.status:<5}{self.name:<13}{self.detail}{advice}"


def judged(name: str, good: bool, detail: str, advice: str) -> Finding:
    """ok or FAIL, with advice only for a failure."""
    return Finding(OK, name, detail) if good else Finding(FAIL, name, detail, advice)
