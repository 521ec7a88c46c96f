"""Non-finite values never reach the weights; the arithmetic is chosen with a reason."""

import math

import pytest
import torch

from mygpt2 import device as precision
from mygpt2.errors import UserError
from mygpt2.train.step import Guard, NonFinite

CPU = torch.device("cpu")


@pytest.mark.parametrize("loss, norm", [(math.nan, 1.0), (2.0, math.inf), (math.inf, math.nan)])
def test_stop_mode_raises_before_the_update(loss, norm):
    with pytest.raises(NonFinite, match="step 37"):
        Guard("stop", 3).allows(37, loss, norm)


def test_skip_mode_leaves_out_single_steps_and_stops_after_too_many_in_a_row():
    guard = Guard("skip", 2)
    assert guard.allows(1, 2.0, 1.0)
    assert not guard.allows(2, math.nan, 1.0)
    assert not guard.allows(3, 2.0, math.inf)
    assert guard.allows(4, 2.0, 1.0)
    assert not guard.allows(5, math.nan, 1.0)
    assert not guard.allows(6, math.nan, 1.0)
    with pytest.raises(NonFinite, match="in a row"):
        guard.allows(7, math.nan, 1.0)


def test_an_overflowing_loss_scale_is_no_reason_to_stop_but_a_nan_loss_is():
    guard = Guard("stop", 3, scaled=True)
    assert not guard.allows(1, 2.0, math.inf)
    with pytest.raises(NonFinite):
        guard.allows(2, math.nan, math.inf)


@pytest.mark.parametrize("unit, name", [("AMX", "bf16"), ("AVX512-BF16", "bf16"), (None, "fp32")])
def test_cpu_takes_bfloat16_only_where_the_hardware_has_it(monkeypatch, unit, name):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(precision, "cpu_bf16_unit", lambda: unit)
    chosen = precision.choose("auto", CPU)
    assert chosen.name == name
    assert (unit or "no bfloat16") in chosen.reason


@pytest.mark.parametrize("has_bf16, name", [(True, "bf16"), (False, "fp16")])
def test_cuda_without_bfloat16_gets_float16_with_a_scaler(monkeypatch, has_bf16, name):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    chosen = precision.choose("auto", torch.device("cuda", 0))
    assert chosen.name == name and chosen.scaled == (name == "fp16")


def test_mps_trains_in_float32():
    assert precision.choose("auto", torch.device("mps")).name == "fp32"


@pytest.mark.parametrize("asked", ["fp16", "tf32"])
def test_a_wish_the_device_cannot_fulfil_is_refused(asked):
    with pytest.raises(UserError, match=asked):
        precision.choose(asked, CPU)
