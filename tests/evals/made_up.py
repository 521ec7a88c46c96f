"""Twenty items of our own in HellaSwag's fields, with every oddity the real set has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ODD = [
    ("[header] How to peel an egg [title] Boil it first. [step] Use a pan.", "", "[substeps] Wait for ten minutes."),
    ("A woman holds a rope.", "she", "pulls it  towards the boat."),
    ("[header] How to wait [title] Sit. [step]", "", "[title] Stand up. [step] Walk."),
    ("Two men stand there.", "the MAN on the left", "waves [sic] at the camera."),
    ("  A dog runs", "it", "barks!  [step]"),
    ("The café is open.", "a waiter", "brings crêpes — and tea."),
]


def records(count: int = 20) -> list[dict[str, Any]]:
    made = []
    for i in range(count):
        ctx_a, ctx_b, ending = ODD[i % len(ODD)]
        endings = [
            f"{ending} {word}" if i % 3 else f"{word} {ending}" for word in ("so", "then it ends", "no", "x" * i)
        ]
        made.append(
            {
                "ind": 100 + i,
                "activity_label": ("Cooking eggs", "Tug of war")[i % 2],
                "ctx_a": ctx_a,
                "ctx_b": ctx_b,
                "ctx": f"{ctx_a} {ctx_b}" if ctx_b else ctx_a,
                "split": "val",
                "split_type": "indomain",
                "label": i * 7 % 4,
                "endings": endings,
                "source_id": f"made~{i}",
            }
        )
    return made


def write_jsonl(path: Path, count: int = 20) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records(count)))
    return path
