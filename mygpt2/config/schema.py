"""The one schema of a run: files, command line, form and documentation are all made from these fields.

Each field has a title for a person and a help whose first sentence says what it is; both stand here and nowhere else.
Rules that need two fields live in `rules.py`, so that all problems of a configuration can be reported together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from mygpt2.config.data import DataConfig
from mygpt2.config.section import Section, setting


def _as_word(value: Any) -> Any:
    """A boolean as the word for it: what was a switch once may have become a choice."""
    return str(value).lower() if isinstance(value, bool) else value


class ModelConfig(Section):
    """The shape of the network, in GPT-2's words."""

    n_layer: int = setting(12, "Transformer blocks.", title="Layers", unit="blocks", ge=1, le=200)
    n_head: int = setting(12, "Attention heads; must divide n_embd.", title="Heads", unit="heads", ge=1, le=256)
    n_embd: int = setting(768, "Width of the residual stream.", title="Width", unit="channels", ge=8, le=16384)
    block_size: int = setting(1024, "Longest sequence the model sees.", title="Context", unit="tokens", ge=8, le=131072)
    bias: bool = setting(True, "Biases in the linear layers and norms, as in GPT-2.", title="Biases")
    dropout: float = setting(
        0.0, "Dropout on embeddings, attention and residuals; 0 for pretraining.", title="Dropout", ge=0.0, lt=1.0
    )
    seed: int = setting(
        1337, "Seed of the initial weights and of dropout. Another one leaves the batches as they are.",
        title="Seed of the weights", ge=0, lt=2**31,
    )  # fmt: skip


class OptimizerConfig(Section):
    """AdamW for everything, or Muon for the block matrices and AdamW for the rest."""

    name: Literal["adamw", "muon"] = setting(
        "adamw", "AdamW, or Muon for the matrices of the blocks and AdamW for the rest.", title="Optimizer"
    )
    lr: float = setting(6e-4, "Peak learning rate of AdamW.", title="Learning rate", gt=0, le=10)
    muon_lr: float = setting(0.02, "Peak learning rate of Muon.", title="Muon learning rate", gt=0, le=10)
    muon_momentum: float = setting(0.95, "Muon's momentum.", title="Muon momentum", ge=0, lt=1)
    muon_weight_decay: float | None = setting(
        None,
        "Muon's decoupled decay. Unset: weight_decay, which takes muon_lr / lr times as much off a matrix per step "
        "as it does under AdamW.", title="Muon weight decay",
        ge=0, le=10,
    )  # fmt: skip
    beta1: float = setting(0.9, "AdamW's first decay.", title="Beta 1", ge=0, lt=1)
    beta2: float = setting(0.95, "AdamW's second decay.", title="Beta 2", ge=0, lt=1)
    eps: float = setting(1e-8, "AdamW's epsilon.", title="Epsilon", gt=0, le=1e-2)
    weight_decay: float = setting(
        0.1, "Decoupled decay of matrices; biases and norms have none.", title="Weight decay", ge=0, le=10
    )
    grad_clip: float = setting(
        1.0, "Largest global gradient norm; 0 switches clipping off.", title="Gradient clipping", ge=0
    )


class ScheduleConfig(Section):
    """The learning rate as a pure function of the step (a plateau's state is in the checkpoint)."""

    name: Literal["cosine", "linear", "constant", "wsd", "trapezoid", "plateau"] = setting(
        "cosine", "Shape after the warm-up.", title="Schedule"
    )
    warmup_steps: int = setting(
        700, "Steps of linear warm-up; the first step already learns.", title="Warm-up", unit="steps", ge=0
    )
    min_lr_ratio: float = setting(
        0.1, "Rate at the end, as a share of the peak.", title="Final rate", unit="share", ge=0, le=1
    )
    decay_share: float = setting(
        0.2, "Share of the run that decays (`wsd`, `trapezoid`).", title="Decay share", unit="share", gt=0, le=1
    )
    decay_shape: Literal["linear", "cosine", "sqrt"] = setting(
        "sqrt", "How `wsd` decays: 1 - sqrt, linear or cosine.", title="Decay shape"
    )
    plateau_window: int = setting(
        200, "Steps of the recent window (`plateau`).", title="Plateau window", unit="steps", ge=2
    )
    plateau_patience: int = setting(
        400, "Steps without a new window minimum before the rate falls.", title="Plateau patience", unit="steps", ge=1
    )
    plateau_factor: float = setting(
        0.5, "What the rate is multiplied by on a plateau.", title="Plateau factor", gt=0, lt=1
    )


class TrainConfig(Section):
    """How long, how much at once, and in which arithmetic."""

    steps: int = setting(19_073, "Optimizer steps of the whole run.", title="Steps", unit="steps", ge=1, le=10**9)
    batch_tokens: int = setting(
        524_288, "Tokens per step of all ranks together. Sequences x block_size; accumulation follows from it.",
        title="Batch size", unit="tokens", ge=8, le=2**40,
    )  # fmt: skip
    micro_batch: int | None = setting(
        None, "Sequences per forward pass and rank. Unset: the largest that is known to be fast.", title="Micro-batch",
        unit="sequences", ge=1, le=4096,
    )  # fmt: skip
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Kind of device to train on.", title="Device")
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"] = setting(
        "auto",
        "Arithmetic of the step. `auto` probes the device and says why it chose what it chose.",
        title="Precision",
    )
    residual: Literal["fp32", "bf16"] = setting(
        "fp32", "Numbers between the blocks: `bf16` halves what a GPU moves for norms and additions.", title="Residual"
    )
    parallel: Literal["auto", "ddp", "fsdp2", "hsdp"] = setting(
        "auto", "Who holds the model: `ddp` each rank, `fsdp2` all together, `hsdp` each machine. "
        "`auto`: ddp while it fits a GPU, else fsdp2.", title="Parallelism",
    )  # fmt: skip
    compile: Annotated[Literal["auto", "true", "false"], BeforeValidator(_as_word)] = setting(
        "auto",
        "torch.compile the step: slower start, faster steps. `auto`: on a GPU, and on a CPU for long runs.",
        title="Compile",
    )
    deterministic: bool = setting(False, "Refuse kernels whose result varies from run to run.", title="Deterministic")
    nonfinite: Literal["stop", "skip"] = setting(
        "stop", "What a non-finite loss or gradient does before it can harm.", title="On a non-finite loss"
    )
    max_skips: int = setting(
        10, "Skipped steps in a row before the run stops (`skip`).", title="Most skipped steps", unit="steps", ge=1
    )
    stall_minutes: float = setting(
        20.0, "How long a collective may wait for a rank.", title="Longest stall", unit="minutes", gt=0
    )


class EvalConfig(Section):
    """Validation loss on the held-out set, computed the same way on every device and rank count."""

    interval: int = setting(250, "Steps between validations; one always runs at the end. 0: only then.",
                            title="Validation interval", unit="steps", ge=0)  # fmt: skip
    batch: int | None = setting(
        None, "Sequences per forward pass; does not change the result.", title="Validation batch", unit="sequences",
        ge=1,
    )  # fmt: skip
    yardstick: str = setting(
        "gpt2",
        "Model whose loss on the same tokens, once measured, the run is held against; `off`: none.",
        title="Yardstick",
        min_length=1,
    )
    measure_yardstick: bool = setting(
        False, "Measure the yardstick at the start where no result is cached.", title="Measure the yardstick"
    )
    hellaswag: str | None = setting(None, "Also HellaSwag: `hub`, or the path of its validation set.",
                                    title="HellaSwag", min_length=1, example="hub")  # fmt: skip
    hellaswag_interval: int = setting(
        0, "Steps between HellaSwag runs; 0: only at the end.", title="HellaSwag interval", unit="steps", ge=0
    )
    hellaswag_limit: int | None = setting(
        None,
        "Items of HellaSwag, spread evenly. Unset: all 10,042.",
        title="HellaSwag items",
        unit="items",
        ge=1,
        le=100_000,
    )


class SampleConfig(Section):
    """Fixed prompts under a fixed seed, to be watched as they get better."""

    interval: int = setting(
        500, "Steps between samples; 0: only at the end.", title="Sample interval", unit="steps", ge=0
    )
    prompts: list[Annotated[str, Field(min_length=1, max_length=4096)]] = setting(
        ["The", "In this section we"], "What the samples begin with.", title="Prompts", max_length=32
    )
    max_new_tokens: int = setting(64, "Length of each sample.", title="Sample length", unit="tokens", ge=1, le=4096)
    temperature: float = setting(
        0.8, "How freely the samples are drawn; 0 is greedy.", title="Temperature", ge=0, le=10
    )
    top_k: int = setting(50, "Likeliest tokens to draw from; 0 switches it off.", title="Top-k", ge=0)


class CheckpointConfig(Section):
    """What is kept. At least one verified checkpoint always remains."""

    interval: int = setting(500, "Steps between checkpoints; one is always written at the end.",
                            title="Checkpoint interval", unit="steps", ge=1)  # fmt: skip
    keep_last: int = setting(2, "Newest checkpoints kept.", title="Keep the newest", unit="checkpoints", ge=1)
    keep_every: int = setting(
        0, "Checkpoints of every N-th step are kept for ever; 0: none.", title="Keep every", unit="steps", ge=0
    )
    keep_log: int = setting(
        0, "Also save at steps 1, 2, 4 ..., then every N-th, and keep these. Old ones as weights alone; 0: not.",
        title="Keep on a log grid", unit="steps", ge=0,
    )  # fmt: skip
    keep_best: bool = setting(True, "Keep the checkpoint with the lowest validation loss.", title="Keep the best")
    background: bool = setting(True, "Write checkpoints while training goes on.", title="Save in the background")
    sharded: Literal["auto", "on", "off"] = setting(
        "auto", "Ranks that share a model (`fsdp2`, `hsdp`) each write their own part of a checkpoint. "
        "`auto`: from 4 GB on.", title="Sharded checkpoints",
    )  # fmt: skip


class LogConfig(Section):
    """What is written beside the metrics every run has."""

    tensorboard: bool = setting(False, "Also write TensorBoard files (extra `trackers`).", title="TensorBoard")
    wandb: bool = setting(False, "Also log to Weights & Biases (extra `trackers`).", title="Weights & Biases")
    trackio: bool = setting(False, "Also log to Trackio (extra `trackers`).", title="Trackio")
    project: str = setting(
        "mygpt2", "Project name at the trackers.", title="Tracker project", min_length=1, max_length=128
    )
    plot_interval: int = setting(
        100,
        "Steps between new drawings of loss_plot.png; 0: only at the end.",
        title="Plot interval",
        unit="steps",
        ge=0,
    )
    trace: bool = setting(
        True, "Keep which documents each row came from, with the row's loss.", title="Trace of documents"
    )
    profile: str | None = setting(
        None,
        "`FIRST:LAST` steps to profile into the run folder.",
        title="Profile",
        pattern=r"^\d+:\d+$",
        example="10:12",
    )


class RunConfig(Section):
    """Everything that makes a run what it is."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    sample: SampleConfig = SampleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
