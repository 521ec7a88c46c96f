"""The ripple laboratory: is there a periodic part in a training loss, where does it come from, what would remove it?

numpy and SciPy; no torch. `analyse` is a pure function from a log to a JSON-ready report.
"""

from mygpt2.ripples.analysis import analyse
from mygpt2.ripples.compare import compare_runs
from mygpt2.ripples.layout import Layout, dataset_layout
from mygpt2.ripples.log import Curve, Log, make_log
from mygpt2.ripples.readers import read_log

__all__ = ["Curve", "Layout", "Log", "analyse", "compare_runs", "dataset_layout", "make_log", "read_log"]
