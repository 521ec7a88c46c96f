"""The presets with one sentence each, taken from the first line of their own files."""

from __future__ import annotations

from importlib import resources

from mygpt2.config import preset_names


def preset_choices() -> list[tuple[str, str]]:
    """Label and name of each preset, smallest first."""
    return [(f"{name}: {sentence(name)}", name) for name in preset_names()]


def sentence(name: str) -> str:
    """What a preset is for: the comment its file begins with."""
    text = (resources.files("mygpt2") / "presets" / f"{name}.toml").read_text("utf-8")
    return text.partition("\n")[0].lstrip("# ").strip()
