"""What axe-core finds wrong with a page."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.base import AXE_SCRIPT

COLOURS = ("color-contrast", "link-in-text-block")  # what another theme may change
STILL = """document.getAnimations().every(
    (each) => each.playState !== 'running' || each.effect.getComputedTiming().endTime === Infinity)"""


def violations(page: Any, *rules: str) -> list[tuple[str, str, list[str]]]:
    """What is serious or critical: rule, words, first elements. By these rules only, where some are given.

    A colour that is on its way to that of another theme is waited for.
    """
    page.wait_for_function(STILL)
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    found = page.evaluate("options => axe.run(options)", options)["violations"]
    return [(violation["id"], violation["help"], [node["html"][:160] for node in violation["nodes"][:4]])
            for violation in found if violation["impact"] in ("serious", "critical")]  # fmt: skip
