"""What a run will take, before it is started: size, length, arithmetic, memory, disk and time. Never imports torch."""

from mygpt2.planning.estimate import plan
from mygpt2.planning.figures import Figure, Notice, Plan, Rates, table
from mygpt2.planning.kept import keep
from mygpt2.planning.machine import Machine, likely_device, machine_with
from mygpt2.planning.trial import Measured, measure

__all__ = [
    "Figure",
    "Machine",
    "Measured",
    "Notice",
    "Plan",
    "Rates",
    "keep",
    "likely_device",
    "machine_with",
    "measure",
    "plan",
    "table",
]
