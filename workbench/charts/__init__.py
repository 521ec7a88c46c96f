"""The live chart: metrics of run folders, every point of them, drawn in the browser and fetched by a cursor."""

from workbench.charts.component import LiveChart
from workbench.charts.view import MAX_RUNS, PANELS, X_AXES, read_view

__all__ = ["MAX_RUNS", "PANELS", "X_AXES", "LiveChart", "read_view"]
