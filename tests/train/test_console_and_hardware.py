"""Figures a person plans by: speed, time left, and a peak that is known or not claimed."""

import pytest
import torch

from mygpt2.format import clock
from mygpt2.model import GPT, GPTConfig, products
from mygpt2.planning.compute import flops_per_token
from mygpt2.train.record import Meter, step_line
from mygpt2.train.setup import peak_flops


def test_time_left_comes_from_this_sessions_recent_steps_and_not_from_the_step_number():
    meter = Meter(batch_tokens=1000, window=4)
    assert meter.eta(10) is None and meter.tokens_per_second is None
    for seconds in (9.0, 9.0, 1.0, 1.0, 1.0, 1.0):  # the first two were slow: compilation, cold caches
        meter.add(seconds, wait_s=0.0)
    assert meter.eta(900) == pytest.approx(900.0)
    assert meter.tokens_per_second == pytest.approx(1000.0)


def test_waiting_for_data_counts_into_speed_and_time_left():
    meter = Meter(batch_tokens=1000)
    meter.add(1.0, wait_s=1.0)
    assert meter.tokens_per_second == pytest.approx(500.0) and meter.eta(3) == pytest.approx(6.0)


def test_the_line_says_step_share_loss_speed_and_time_left():
    meter = Meter(batch_tokens=1000)
    meter.add(2.0, wait_s=0.0)
    line = step_line({"step": 25, "loss": 3.14159, "lr": 1e-3, "grad_norm": 0.5}, 100, meter)
    assert all(part in line for part in ("25/100", "25%", "3.1416", "500 tok/s", "2:30"))
    assert "not finite" in step_line({"step": 1, "loss": None, "lr": 1e-3, "grad_norm": None}, 9, meter)


@pytest.mark.parametrize("seconds, text", [(None, "?"), (0, "0:00"), (61.4, "1:01"), (3600 * 3 + 250, "3:04:10")])
def test_durations(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    "name, peak",
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("Tesla T4", 65e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA T400 4GB", None),
        ("Some New GPU", None),
    ],
)
def test_the_peak_is_the_devices_own_or_unknown(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda", 0), "bf16") == peak
    assert peak_flops(torch.device("cuda", 0), "fp32") is None
    assert peak_flops(torch.device("cpu"), "bf16") is None


def test_flops_of_the_matrices_are_what_pytorch_counts(monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    shape = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=32, vocab_size=128)
    monkeypatch.setattr(products, "ON_AMD", False)  # the counter does not see oneDNN's products
    model = GPT(shape)
    tokens = torch.zeros(4, 32, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(tokens)).sum().backward()
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "wpe" not in n)
    # PyTorch's counter does not see the CPU's fused attention: what it counts is the matrix part of the formula.
    attention = 12 * 2 * 64 * 32
    assert counter.get_total_flops() == tokens.numel() * (flops_per_token(matrices, 2, 64, 32) - attention)
