"""Optional copies of the metrics: TensorBoard, Weights & Biases, Trackio. The run folder stays the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from mygpt2.config.schema import LogConfig
from mygpt2.errors import UserError


class Sink(Protocol):
    def log(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def open_sinks(config: LogConfig, run: Path, settings: dict[str, Any]) -> list[Sink]:
    """The sinks a run asked for. A missing package is an error at the start, not a silent gap in the records."""
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(_TensorBoard(run))
    if config.wandb:
        sinks.append(_Tracker("wandb", config.project, run, settings))
    if config.trackio:
        sinks.append(_Tracker("trackio", config.project, run, settings))
    return sinks


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a metrics record, without its bookkeeping."""
    left_out = {"schema", "step", "attempt", "time"}
    return {k: v for k, v in record.items() if k not in left_out and isinstance(v, int | float)}


class _TensorBoard:
    def __init__(self, run: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(_missing("tensorboard")) from None
        self.writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def close(self) -> None:
        self.writer.close()


class _Tracker:
    """W&B and Trackio share the calls used here: init, log(values, step), finish."""

    def __init__(self, package: str, project: str, run: Path, settings: dict[str, Any]):
        try:
            self.module = __import__(package)
        except ImportError:
            raise UserError(_missing(package)) from None
        self.module.init(project=project, name=run.name, config=settings, resume="allow")

    def log(self, step: int, values: dict[str, float]) -> None:
        self.module.log(values, step=step)

    def close(self) -> None:
        self.module.finish()


def _missing(package: str) -> str:
    return f"log.{package}=true needs the package {package}; pip install 'mygpt2[trackers]' or leave the option out"
