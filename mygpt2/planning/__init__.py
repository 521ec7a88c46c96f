"""What a run will take, before it is started: size, length, arithmetic, memory, disk and time. Never imports torch."""

from mygpt2.planning.estimate import plan
from mygpt2.planning.figures import Figure, Notice, Plan, Rates
from mygpt2.planning.machine import likely_device
from mygpt2.planning.measure import Measured, measure
from mygpt2.planning.table import table

__all__ = ["Figure", "Measured", "Notice", "Plan", "Rates", "likely_device", "measure", "plan", "table"]
