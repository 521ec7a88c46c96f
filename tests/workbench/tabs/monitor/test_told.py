"""Events as sentences: words for people, no keys of files, and nothing a damaged event could break."""

from __future__ import annotations

import pytest

from workbench.tabs.monitor import panes
from workbench.tabs.monitor.told import sentence

SAVE = {"kind": "save", "step": 140, "path": "step-00000140", "bytes": 51_310_446, "seconds": 0.5, "deleted": []}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({**SAVE, "held_seconds": 0.02},
         "Saved the checkpoint of step 140, 51.3 MB in 0.50 s; training was held for 0.02 s."),
        ({**SAVE, "deleted": [20, 40]},
         "Saved the checkpoint of step 140, 51.3 MB in 0.50 s; deleted the checkpoints of steps 20, 40."),
        ({"kind": "eval", "step": 1400, "loss": 3.92, "bits_per_byte": 2.01, "seconds": 2.44},
         "Validation loss 3.9200 (2.0100 bits per byte) at step 1,400, measured in 2.4 s."),
        ({"kind": "resume", "step": 50, "changes": {"train.steps": [100, 200]}},
         "Resumed from the checkpoint of step 50; changed train.steps from 100 to 200."),
        ({"kind": "save_failed", "step": 5, "reason": "no space"},
         "The checkpoint of step 5 was not saved: no space; training goes on."),
        ({"kind": "passed", "step": 9, "loss": 3.0, "yardstick": {"of": "gpt2", "loss": 3.1}},
         "Passed GPT-2 at step 9: 3.0000 against 3.1000."),
        ({"kind": "left_out", "step": 7, "share": 0.125}, "12.50 % of the data was left out up to step 7."),
        ({"kind": "alert", "message": "the loss rose"}, "The loss rose."),
        ({"kind": "new_kind", "message": "something"}, "New kind: something."),
        ({"kind": "passed", "yardstick": 7}, "Passed."),
        ({}, "Event."),
    ],
)  # fmt: skip
def test_an_event_is_one_sentence(event, told):
    assert sentence(event) == told


def test_the_pane_has_the_sentence_and_the_rest_behind_it():
    shown = panes.events([{**SAVE, "held_seconds": 0.02}])
    summary, behind = shown.split("<summary>")[1].split("</summary>")
    assert "training was held for 0.02 s" in summary and "held_seconds" not in summary
    assert "held_seconds 0.02" in behind
