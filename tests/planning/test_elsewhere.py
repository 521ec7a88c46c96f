"""Plans for a GPU by name, and times for both kinds of processor."""

from __future__ import annotations

import pytest

from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.planning import Machine, machine_with, plan
from mygpt2.planning.machine import GPUS, named_gpu, published
from tests.planning.conftest import config_of


@pytest.mark.parametrize(
    ("word", "name"),
    [("h100", "H100"), ("H100-PCIe", "H100 PCIe"), ("4090", "RTX 4090"), ("rtx_4090", "RTX 4090"),
     ("NVIDIA H200 NVL", "H200 NVL"), ("gh200", "GH200"), ("a100-40gb", "A100 40GB"), ("a6000", "RTX A6000")],
)  # fmt: skip
def test_a_gpu_is_known_by_what_people_call_it(word: str, name: str) -> None:
    assert named_gpu(word).name == name


@pytest.mark.parametrize("name", list(GPUS))
def test_every_gpus_own_name_is_found_before_a_shorter_one(name: str) -> None:
    assert named_gpu(name).name == name
    assert published(f"NVIDIA {name}") is GPUS[name]


@pytest.mark.parametrize("word", ["h1000", "", "gpu", "100"])
def test_an_unknown_gpu_is_refused_with_the_known_ones(word: str) -> None:
    with pytest.raises(UserError, match="known are B200"):
        named_gpu(word)


def test_gpt2_on_h100s_takes_hours_by_a_stated_share_of_the_published_peak() -> None:
    one, eight = (
        plan(load_config("gpt2"), world_size=n, runs=None, device="cuda", machine=machine_with("h100", n))
        for n in (1, 8)
    )
    hours = one["time.total"].value / 3600  # 855e6 FLOPs x 1e10 tokens at 34 % of 989 TFLOP/s
    assert hours == pytest.approx(855e6 * 1e10 / (0.34 * 989e12) / 3600, rel=0.01)
    assert one["time.total"].value == pytest.approx(8 * eight["time.total"].value)
    assert "published 989 TFLOP/s" in one["time.speed"].basis and "not measured" in one["time.speed"].basis
    assert one.precision == "bf16" and one["memory.device"].value == 80e9
    assert one["memory.host"].value is None and one["disk.free"].value is None


def test_a_gpu_without_bfloat16_is_planned_in_float16() -> None:
    found = plan(load_config("gpt2"), world_size=1, runs=None, device="cuda", machine=machine_with("v100", 1))
    assert found.precision == "fp16" and found["time.total"].value


def test_too_large_a_model_for_the_named_gpu_is_a_warning() -> None:
    config = load_config("gpt2-xl", overrides={"train.micro_batch": 8})
    found = plan(config, world_size=1, runs=None, device="cuda", machine=machine_with("t4", 1))
    assert any(n.level == "warning" and n.key == "memory.peak" for n in found.notices)


def test_both_kinds_of_processor_get_a_time_and_this_one_is_named(machine: Machine) -> None:
    found = plan(config_of(), world_size=1, runs=None, machine=machine)
    fast, slow = found["time.bf16"], found["time.fp32"]
    assert 0 < fast.value < slow.value and "measured elsewhere" in fast.basis
    assert slow.label.endswith("as here") and not fast.label.endswith("as here")  # this run asks for fp32


def test_years_on_a_processor_point_to_gpus(machine: Machine) -> None:
    texts = [n.text for n in plan(load_config("gpt2"), world_size=1, runs=None, machine=machine).notices]
    assert any("--on h100" in text for text in texts)
    assert not any("--on" in n.text for n in plan(config_of(), world_size=1, runs=None, machine=machine).notices)
