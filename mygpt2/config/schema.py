"""The one schema of a run: files, command line, form and documentation are all made from these fields.

A field's `json_schema_extra` may hold `unit` (what one of it is), `essential` (shown open in a form) and `example`.
Rules that need two fields live in `rules.py`, so that all problems of a configuration can be reported together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def setting(
    default: Any, help: str, *, unit: str = "", essential: bool = False, example: str = "", **limits: Any
) -> Any:
    """A field with its help, unit and range in one place. `example` is for errors, where the default does not serve."""
    extra: dict[str, Any] = {"unit": unit, "essential": essential, "example": example}
    return Field(default, description=help, json_schema_extra={k: v for k, v in extra.items() if v}, **limits)


def _as_word(value: Any) -> Any:
    """A boolean as the word for it: what was a switch once may have become a choice."""
    return str(value).lower() if isinstance(value, bool) else value


class Section(BaseModel):
    """Unknown keys, other types, NaN and infinities are errors; values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


class ModelConfig(Section):
    """The shape of the network, in GPT-2's words."""

    n_layer: int = setting(12, "Transformer blocks.", unit="blocks", essential=True, ge=1, le=200)
    n_head: int = setting(12, "Attention heads; must divide n_embd.", unit="heads", essential=True, ge=1, le=256)
    n_embd: int = setting(768, "Width of the residual stream.", unit="channels", essential=True, ge=8, le=16384)
    block_size: int = setting(1024, "Context length.", unit="tokens", essential=True, ge=8, le=131072)
    bias: bool = setting(True, "Biases in the linear layers and norms, as in GPT-2.")
    dropout: float = setting(0.0, "Dropout on embeddings, attention and residuals; 0 for pretraining.", ge=0.0, lt=1.0)


class DataConfig(Section):
    """Where the text comes from and in which order it is read."""

    source: str = setting(
        "pydocs",
        "`pydocs` (built in), `fineweb-edu-10BT`, `fineweb-edu-100BT`, `fineweb-edu`, `owner/name[:config][@revision]` "
        "on the hub, or a file or folder of parquet, jsonl, txt (optionally .gz/.zst) or pre-tokenized .bin.",
        essential=True,
        min_length=1,
    )
    text_column: str = setting("text", "Column (parquet) or key (jsonl) that holds the document.", min_length=1)
    tokenizer: str = setting(
        "gpt2",
        "`gpt2`, `gpt2:N` (GPT-2's first merges, N ids in all), or the path of a Hugging Face tokenizer.json.",
        essential=True,
        min_length=1,
    )
    order: Literal["lanes", "buffer", "sequential"] = setting(
        "lanes", "Document order: `lanes` shuffles almost globally; `buffer` and `sequential` are kept for study."
    )
    lanes: int | None = setting(
        None, "Independent document streams; divides the batch, is divided by the ranks. Unset: chosen from the data.",
        ge=1, le=65536,
    )  # fmt: skip
    window: int | None = setting(
        None,
        "Blocks each lane shuffles together. Unset: lanes x window is about 128 row groups of FineWeb-Edu, or as much "
        "in smaller blocks.",
        unit="blocks",
        ge=1,
        le=4096,
    )
    buffer_documents: int = setting(
        10_000, "Size of the shuffle buffer, all lanes together, for order = `buffer`.", unit="documents", ge=1
    )
    threads: int | None = setting(
        None, "Threads that fetch and tokenize, per rank. Unset: from the cores.", unit="threads", ge=1, le=256
    )
    encoder: Literal["auto", "tiktoken", "fast"] = setting(
        "auto", "`auto` uses the optional fast encoder when its ids equal the reference's on the run's own text."
    )
    prefetch_steps: int = setting(4, "Batches made ahead of the step that uses them.", unit="steps", ge=2, le=1024)
    token_cache: bool = setting(True, "Keep tokenized blocks on disk, checksummed, so nothing is tokenized twice.")
    cache_gb: float = setting(20.0, "Size the cache may take; the least recently used goes first.", unit="GB", gt=0)
    cache_dir: str | None = setting(None, "Where caches live. Unset: $MYGPT2_CACHE or ~/.cache/mygpt2.")
    outage_minutes: float = setting(
        30.0, "How long a source may stay out of reach before the run saves and exits 75.", unit="minutes", ge=0
    )
    max_quarantine: float = setting(
        0.01, "Share of the blocks that may be unreadable before the run stops.", unit="share", ge=0.0, le=1.0
    )
    max_document_chars: int = setting(
        10_000_000, "Longer documents are left out and counted.", unit="characters", ge=100
    )
    fork: bool = setting(False, "Go on from a checkpoint although data, tokenizer, batch or order changed.")
    validation_fraction: float = setting(
        0.01, "Share of the documents, by a hash of their text, kept out of training.", unit="share", ge=0.0, le=0.5
    )
    validation_tokens: int = setting(
        1_048_576, "Size of the validation set made from the held-out documents, at most.", unit="tokens", ge=1024
    )


class OptimizerConfig(Section):
    """AdamW for everything, or Muon for the block matrices and AdamW for the rest."""

    name: Literal["adamw", "muon"] = setting("adamw", "`muon`: 2-D block matrices by Muon.", essential=True)
    lr: float = setting(6e-4, "Peak learning rate of AdamW.", essential=True, gt=0, le=10)
    muon_lr: float = setting(0.02, "Peak learning rate of Muon.", gt=0, le=10)
    muon_momentum: float = setting(0.95, "Muon's momentum.", ge=0, lt=1)
    muon_weight_decay: float | None = setting(
        None,
        "Muon's decoupled decay. Unset: weight_decay, which takes muon_lr / lr times as much off a matrix per step "
        "as it does under AdamW.",
        ge=0, le=10,
    )  # fmt: skip
    beta1: float = setting(0.9, "AdamW's first decay.", ge=0, lt=1)
    beta2: float = setting(0.95, "AdamW's second decay.", ge=0, lt=1)
    eps: float = setting(1e-8, "AdamW's epsilon.", gt=0, le=1e-2)
    weight_decay: float = setting(0.1, "Decoupled decay of matrices; biases and norms have none.", ge=0, le=10)
    grad_clip: float = setting(1.0, "Largest global gradient norm; 0 switches clipping off.", ge=0)


class ScheduleConfig(Section):
    """The learning rate as a pure function of the step (a plateau's state is in the checkpoint)."""

    name: Literal["cosine", "linear", "constant", "wsd", "trapezoid", "plateau"] = setting(
        "cosine", "Shape after the warm-up.", essential=True
    )
    warmup_steps: int = setting(700, "Steps of linear warm-up; the first step already learns.", unit="steps", ge=0)
    min_lr_ratio: float = setting(0.1, "Final rate as a share of the peak.", unit="share", ge=0, le=1)
    decay_share: float = setting(0.2, "Share of the run that decays (`wsd`, `trapezoid`).", unit="share", gt=0, le=1)
    decay_shape: Literal["linear", "cosine", "sqrt"] = setting("sqrt", "How `wsd` decays: 1 - sqrt, linear or cosine.")
    plateau_window: int = setting(200, "Steps of the recent window (`plateau`).", unit="steps", ge=2)
    plateau_patience: int = setting(
        400, "Steps without a new window minimum before the rate falls.", unit="steps", ge=1
    )
    plateau_factor: float = setting(0.5, "What the rate is multiplied by on a plateau.", gt=0, lt=1)


class TrainConfig(Section):
    """How long, how much at once, and in which arithmetic."""

    steps: int = setting(19_073, "Optimizer steps of the whole run.", unit="steps", essential=True, ge=1, le=10**9)
    batch_tokens: int = setting(
        524_288, "Global batch; sequences x block_size. Accumulation follows from it.",
        unit="tokens", essential=True, ge=8, le=2**40,
    )  # fmt: skip
    micro_batch: int | None = setting(
        None, "Sequences per forward pass and rank. Unset: the largest that is known to be fast.",
        unit="sequences", essential=True, ge=1, le=4096,
    )  # fmt: skip
    seed: int = setting(1337, "Seed of weights, data order and dropout.", ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "Where to train.")
    precision: Literal["auto", "bf16", "fp16", "tf32", "fp32"] = setting(
        "auto", "`auto` probes the device and says why it chose what it chose."
    )
    compile: Annotated[Literal["auto", "true", "false"], BeforeValidator(_as_word)] = setting(
        "auto", "torch.compile the step: slower start, faster steps. `auto`: on a GPU, and on a CPU for long runs."
    )
    deterministic: bool = setting(False, "Refuse kernels whose result varies from run to run.")
    nonfinite: Literal["stop", "skip"] = setting("stop", "What a non-finite loss or gradient does before it can harm.")
    max_skips: int = setting(10, "Skipped steps in a row before the run stops (`skip`).", unit="steps", ge=1)
    stall_minutes: float = setting(20.0, "How long a collective may wait for a rank.", unit="minutes", gt=0)


class EvalConfig(Section):
    """Validation loss on the held-out set, computed the same way on every device and rank count."""

    interval: int = setting(
        250, "Steps between validations; one always runs at the end. 0: only then.", unit="steps", ge=0
    )
    batch: int | None = setting(None, "Sequences per forward pass; does not change the result.", unit="sequences", ge=1)
    yardstick: str = setting(
        "gpt2",
        "Model whose loss on the same tokens, once measured, the run is held against; `off`: none.",
        min_length=1,
    )
    measure_yardstick: bool = setting(False, "Fetch that model and measure it at the start where no result is cached.")
    hellaswag: str | None = setting(
        None, "Also HellaSwag: `hub`, or the path of its validation set.", min_length=1, example="hub"
    )
    hellaswag_interval: int = setting(0, "Steps between HellaSwag runs; 0: only at the end.", unit="steps", ge=0)
    hellaswag_limit: int | None = setting(
        None, "Items of HellaSwag, spread evenly. Unset: all 10,042.", unit="items", ge=1, le=100_000
    )


class SampleConfig(Section):
    """Fixed prompts under a fixed seed, to be watched as they get better."""

    interval: int = setting(500, "Steps between samples; 0: only at the end.", unit="steps", ge=0)
    prompts: list[Annotated[str, Field(min_length=1, max_length=4096)]] = setting(
        ["The", "In this section we"], "What the samples begin with.", max_length=32
    )
    max_new_tokens: int = setting(64, "Length of each sample.", unit="tokens", ge=1, le=4096)
    temperature: float = setting(0.8, "0 is greedy.", ge=0, le=10)
    top_k: int = setting(50, "0 switches it off.", ge=0)


class CheckpointConfig(Section):
    """What is kept. At least one verified checkpoint always remains."""

    interval: int = setting(500, "Steps between checkpoints; one is always written at the end.", unit="steps", ge=1)
    keep_last: int = setting(2, "Newest checkpoints kept.", unit="checkpoints", ge=1)
    keep_every: int = setting(0, "Checkpoints of every N-th step are kept for ever; 0: none.", unit="steps", ge=0)
    keep_best: bool = setting(True, "Keep the one with the lowest validation loss.")
    background: bool = setting(True, "Write while training goes on.")


class LogConfig(Section):
    """What is written beside the metrics every run has."""

    tensorboard: bool = setting(False, "Also write TensorBoard files (extra `trackers`).")
    wandb: bool = setting(False, "Also log to Weights & Biases (extra `trackers`).")
    trackio: bool = setting(False, "Also log to Trackio (extra `trackers`).")
    project: str = setting("mygpt2", "Project name at the trackers.", min_length=1, max_length=128)
    plot_interval: int = setting(
        100, "Steps between new drawings of loss_plot.png; 0: only at the end.", unit="steps", ge=0
    )
    trace: bool = setting(True, "Keep which documents each row came from, with the row's loss.")
    profile: str | None = setting(
        None, "`FIRST:LAST` steps to profile into the run folder.", pattern=r"^\d+:\d+$", example="10:12"
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
