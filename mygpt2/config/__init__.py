"""Configuration: the schema, where values come from, and the arithmetic of a batch."""

from mygpt2.config.batch import BatchPlan, plan_batch
from mygpt2.config.load import ConfigError, config_hash, load_config, preset_names, without_fork
from mygpt2.config.schema import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SampleConfig,
    ScheduleConfig,
    TrainConfig,
)
from mygpt2.config.toml import from_toml, to_toml

__all__ = [
    "BatchPlan",
    "CheckpointConfig",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "LogConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "SampleConfig",
    "ScheduleConfig",
    "TrainConfig",
    "config_hash",
    "from_toml",
    "load_config",
    "plan_batch",
    "preset_names",
    "to_toml",
    "without_fork",
]
