"""Values in TOML's notation, as files hold them and as errors show them."""

from __future__ import annotations

import json
import re
from typing import Any

# TOML's basic strings forbid what JSON's leave as it is: DEL (toml.io/en/v1.0.0#string).
CONTROL = re.compile("\x7f")


def toml_value(value: Any) -> str:
    """A scalar or a list of scalars in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return CONTROL.sub(r"\\u007f", json.dumps(value, ensure_ascii=False))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
