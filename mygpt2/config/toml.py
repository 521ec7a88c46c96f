"""A configuration as TOML, each setting with its unit and help, such that reading it gives the same configuration."""

from __future__ import annotations

from mygpt2.config.fields import sections, settings
from mygpt2.config.schema import RunConfig
from mygpt2.config.values import toml_value


def to_toml(config: RunConfig, comments: bool = True) -> str:
    """The fully resolved configuration. Unset optional settings appear as comments: TOML has no null."""
    lines = ["# Every setting of the run. To repeat it: python -m mygpt2 train --config THIS_FILE"] if comments else []
    for section in sections():
        lines += ["", f"[{section}]"]
        for setting in (s for s in settings().values() if s.section == section):
            value = getattr(getattr(config, section), setting.key)
            line = f"# {setting.key} is unset" if value is None else f"{setting.key} = {toml_value(value)}"
            if comments and setting.unit:
                line += f"  # {setting.unit}"
            lines += [f"# {setting.help}"] if comments else []
            lines.append(line)
    return "\n".join(lines).lstrip("\n") + "\n"
