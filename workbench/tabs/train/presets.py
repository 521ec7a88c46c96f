"""The presets as a row of cards: each with its size and its time on this machine."""

from __future__ import annotations

from importlib import resources

from mygpt2.config import load_config, preset_names
from mygpt2.errors import UserError
from mygpt2.format import estimate as expected
from mygpt2.format import short
from mygpt2.planning import Plan, plan
from workbench import draft as drafts
from workbench.context import Context
from workbench.tabs.train.outlook import takes


def choices(context: Context) -> list[tuple[str, str]]:
    """Label and name of each preset, smallest first: below, its parameters, and its time on this machine.

    The time of a preset that ran here says so.
    """
    return [(f"{name}\n{_in_short(context, name)}", name) for name in preset_names()]


def sentence(name: str) -> str:
    """What a preset is for: the comment its file begins with."""
    text = (resources.files("mygpt2") / "presets" / f"{name}.toml").read_text("utf-8")
    return text.partition("\n")[0].lstrip("# ").strip()


def about(context: Context, name: str) -> str:
    """What a preset is for, and how long it takes on this machine once a run of it tells."""
    found = _planned(context, name)
    time = takes(found) if found else None
    return f"{sentence(name)} {f'On this machine {time.text}, as run {time.run}.' if time and time.alike else ''}"


def _in_short(context: Context, name: str) -> str:
    found = _planned(context, name)
    if found is None:
        return ""
    size, time = short(float(f"{found['parameters.total'].value:.3g}")), takes(found)
    if time.seconds is None:
        return size
    largest = " ".join(expected(time.seconds).split()[:2])  # the larger of two units is enough here
    return f"{size}\n{largest}{chr(10) + 'ran here' if time.alike else ''}"


def _planned(context: Context, name: str) -> Plan | None:
    devices = drafts.first_devices(context)
    kind, ranks = drafts.device_kind(devices), drafts.first_processes(name, devices)
    try:
        return plan(load_config(name), world_size=ranks, runs=context.runs, device=kind)
    except UserError:
        return None
