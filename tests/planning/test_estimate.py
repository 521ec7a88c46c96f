"""The plan as a whole: its figures are the model's and the trainer's own, and what is unknown says so."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mygpt2.config import load_config, preset_names
from mygpt2.errors import UserError
from mygpt2.model import GPT, GPTConfig
from mygpt2.planning import Machine, Plan, plan, speed
from mygpt2.planning.machine import Gpu
from mygpt2.planning.trial import Measured
from mygpt2.schedule import lr_scale
from mygpt2.tokenizer import load_tokenizer
from tests.planning.conftest import config_of


def make(config, machine, world_size=1, runs=None, **more) -> Plan:
    return plan(config, world_size=world_size, runs=runs, machine=machine, **more)


@pytest.mark.parametrize("preset", preset_names())
def test_parameters_are_the_models_own(preset, cache, machine):
    config = load_config(preset)
    m = config.model
    vocab_size = load_tokenizer(config.data.tokenizer).vocab_size
    model = GPT(GPTConfig(m.n_layer, m.n_head, m.n_embd, m.block_size, vocab_size, m.bias), device="meta")
    found = make(config, machine)
    assert found["parameters.total"].value == model.num_parameters()
    blocks = [p.numel() for name, p in model.named_parameters() if "wte" not in name and "wpe" not in name]
    assert found["parameters.non_embedding"].value == sum(blocks)


def test_gpt2_has_the_published_number_of_parameters(cache, machine):
    assert make(load_config("gpt2"), machine)["parameters.total"].value == 124_439_808


def test_the_batch_is_divided_as_training_divides_it(cache, machine):
    found = make(config_of(**{"train.batch_tokens": 4096, "train.micro_batch": 8}), machine, world_size=4)
    values = {f.key: f.value for f in found.section("batch")}
    assert values == {
        "batch.tokens": 4096, "batch.sequences": 128, "batch.rows": 32, "batch.micro_batch": 8, "batch.accumulation": 4,
    }  # fmt: skip


def test_a_batch_that_the_ranks_cannot_share_is_refused_with_the_nearest(cache, machine):
    with pytest.raises(UserError, match=r"batch_tokens=512 .* 3 ranks x 32 = 96; nearest: 480, 576"):
        make(config_of(), machine, world_size=3)


def test_a_branch_takes_the_time_of_the_steps_that_are_left(cache, machine):
    config = config_of(**{"train.steps": 140, "train.batch_tokens": 4096})
    told = Measured(speed.Speed(1000.0, 900.0, 1100.0, "measured"), None, None, 8, "measured")
    whole, left = (make(config, machine, measured=told, begun=begun) for begun in (0, 100))
    assert (left["time.total"].value, left["length.left"].value) == (40 * 4096 / 1000, 40 * 4096)
    assert left["length.tokens"].value == whole["length.tokens"].value == 140 * 4096
    assert left["flops.total"].value == pytest.approx((whole["flops.total"].value or 0.0) * 40 / 140)
    assert "after step 100" in left["time.total"].basis and all(f.key != "length.left" for f in whole.figures)


def test_flops_are_6n_and_attention_beside_6nd(cache, machine):
    config = load_config("gpt2")
    found = make(config, machine)
    positions, attention = 1024 * 768, 12 * 12 * 768 * 1024
    assert found["flops.per_token"].value == 6 * (124_439_808 - positions) + attention
    assert found["flops.simple"].value == 6 * 124_439_808 * 19_073 * 524_288
    assert "2204.02311" in found["flops.per_token"].basis


def test_what_nobody_knows_is_none_and_shown_as_not_available(cache, machine):
    found = make(config_of(**{"data.source": "someone/something"}), machine)
    for key in ("length.source", "length.passes", "time.speed", "time.total", "disk.free"):
        assert found[key].value is None, key
        assert found[key].text == "n/a"
        assert "unknown" in found[key].basis


def test_every_figure_says_where_it_comes_from(cache, machine):
    for figure in make(load_config("gpt2"), machine).figures:
        assert figure.basis.startswith(("derived", "measured", "quoted", "from run", "setting", "as asked", "unknown"))


@pytest.mark.parametrize("preset", preset_names())
def test_the_rate_shown_is_the_rate_trained_with(preset, cache, machine):
    config = load_config(preset)
    rates = make(config, machine).rates
    steps = config.train.steps
    assert rates.step[0] == 0 and rates.step[-1] == steps - 1 and len(rates.step) < 300
    assert list(rates.step) == sorted(set(rates.step))
    for step, lr in zip(rates.step, rates.lr, strict=True):
        assert lr == config.optimizer.lr * lr_scale(config.schedule, step, steps)
    assert (rates.muon_lr is not None) == (config.optimizer.name == "muon")
    assert max(rates.lr) == config.optimizer.lr


def test_json_holds_every_figure_and_only_what_json_can(cache, machine):
    found = make(load_config("tiny"), machine)
    text = json.dumps(found.to_json(), allow_nan=False)
    figures = json.loads(text)["figures"]
    assert figures.keys() == {f.key for f in found.figures}
    assert all(isinstance(f["basis"], str) and f["text"] for f in figures.values())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model.n_layer": 48, "model.n_embd": 1600, "model.n_head": 25}, "memory.process"),
        ({"train.steps": 10**6}, "length.passes"),
        ({"train.steps": 20}, "length.tokens_per_parameter"),
    ],
)
def test_too_much_is_noticed(changes, key, cache, machine, tmp_path):
    (tmp_path / "text.bin").write_bytes(b"\0\1" * 10_000_000)
    config = config_of(**{"data.source": str(tmp_path / "text.bin"), **changes})
    notices = make(config, machine).notices
    assert key in [notice.key for notice in notices]


def test_passes_over_the_data_are_counted(cache, machine, tmp_path):
    (tmp_path / "text.bin").write_bytes(b"\0\1" * 10_240)
    config = config_of(**{"data.source": str(tmp_path / "text.bin"), "data.validation_fraction": 0.0})
    found = make(config, machine)
    assert found["length.passes"].value == 5.0
    assert any("read 5 times, before held-out documents" in notice.text for notice in found.notices)


def test_a_full_disk_is_noticed(cache, machine, tmp_path, monkeypatch):
    monkeypatch.setattr("mygpt2.planning.estimate.free_disk", lambda folder: 1000)
    found = make(config_of(), machine, runs=tmp_path / "runs")
    assert "disk.peak" in [notice.key for notice in found.notices if notice.level == "warning"]


def test_a_small_gpu_is_noticed_and_holds_the_ranks_tensors(cache):
    small = Machine(64 * 10**9, 64 * 10**9, (Gpu("a GPU", 4 * 10**9, 8.0),))
    config = load_config("gpt2", overrides={"train.micro_batch": 8})
    found = make(config, small, device="cuda")
    assert found["memory.device"].value == 4 * 10**9
    assert "memory.peak" in [notice.key for notice in found.notices]


def test_earlier_runs_are_read_once_however_often_a_form_asks(cache, machine, record, tmp_path, monkeypatch):
    record("one", config_of(), [1000.0] * 5)
    read, reads = speed._last_rows, []
    monkeypatch.setattr(speed, "_last_rows", lambda path: reads.append(path) or read(path))
    for steps in (100, 200, 300):
        make(config_of(**{"train.steps": steps}), machine, runs=tmp_path / "runs")
    assert len(reads) == 1


def test_planning_never_imports_torch():
    code = (
        "import sys; from pathlib import Path\n"
        "from mygpt2.config import load_config; from mygpt2.planning import plan\n"
        "[plan(load_config(p), world_size=2, runs=Path('none')) for p in ('tiny', 'gpt2')]\n"
        "print(*{'torch', 'pyarrow', 'tiktoken'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def test_the_time_is_one_number_once_a_run_tells_it(cache, machine, record, tmp_path):
    record("one", config_of(), [1.0] * 20)
    found = make(config_of(**{"train.steps": 10**6}), None, runs=tmp_path / "runs")
    assert [figure.key for figure in found.section("time")] == ["time.speed", "time.total"]
    (said,) = [notice.text for notice in found.notices if notice.key == "time.total"]
    assert said.startswith(found["time.total"].text.partition(" (")[0])


def test_the_memory_of_all_processes_has_copies_for_saving_once(cache, machine):
    config = config_of(**{"train.steps": 10**5})
    found = make(config, machine, world_size=2)
    one, copies = found["memory.process"].value, found["memory.snapshot"].value
    assert copies and found["memory.processes"].value == 2 * one - copies
    alone = make(config, machine)
    assert alone["memory.processes"].value == alone["memory.process"].value
