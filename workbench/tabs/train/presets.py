"""The presets as a row of cards: each with its size and its time on this machine."""

from __future__ import annotations

from importlib import resources

from mygpt2.config import load_config, preset_names
from mygpt2.errors import UserError
from mygpt2.format import estimate as about
from mygpt2.format import short
from mygpt2.planning import plan
from workbench import draft as drafts
from workbench.context import Context
from workbench.tabs.train.outlook import takes


def choices(context: Context) -> list[tuple[str, str]]:
    """Label and name of each preset, smallest first: in a second line its parameters and its time on this machine."""
    return [(f"{name}\n{_in_short(context, name)}", name) for name in preset_names()]


def sentence(name: str) -> str:
    """What a preset is for: the comment its file begins with."""
    text = (resources.files("mygpt2") / "presets" / f"{name}.toml").read_text("utf-8")
    return text.partition("\n")[0].lstrip("# ").strip()


def _in_short(context: Context, name: str) -> str:
    devices = drafts.first_devices(context)
    kind, ranks = drafts.device_kind(devices), drafts.first_processes(name, devices)
    try:
        found = plan(load_config(name), world_size=ranks, runs=context.runs, device=kind)
    except UserError:
        return ""
    size, time = short(float(f"{found['parameters.total'].value:.3g}")), takes(found)
    if time.seconds is None:
        return size
    largest = about(time.seconds).split()[:2]  # the larger of two units is enough here
    return f"{size} · {' '.join(largest)}"
