"""FLOPs per token from a configuration are the trainer's own."""

import json

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.model import GPT, GPTConfig
from mygpt2.planning.compute import flops_per_token as of_trainer
from tests.workbench.charts.made_up import Folder, new_run
from workbench.charts.points import flops_per_token


@pytest.mark.parametrize("bias", [True, False])
def test_the_figure_is_the_trainers(tmp_path, bias):
    words = ["--model.n_layer", "3", "--model.n_embd", "48", "--model.n_head", "4", "--model.block_size", "64"]
    config = load_config("tiny", None, [*words, "--model.bias", str(bias).lower(), "--data.tokenizer", "gpt2:400"])
    run = new_run(tmp_path, "r")
    run.config_file.write_text(to_toml(config))
    m = config.model
    model = GPT(GPTConfig(m.n_layer, m.n_head, m.n_embd, m.block_size, 400, m.bias, m.dropout), seed=0)
    matrices = model.num_parameters() - m.block_size * m.n_embd
    expected = of_trainer(matrices, m.n_layer, m.n_embd, m.block_size)
    found = flops_per_token(Folder(tmp_path), {"runs": ["r", "nobody", "../x"]})
    assert found == {"r": expected, "nobody": None, "../x": None}


def test_a_damaged_configuration_has_no_figure(tmp_path):
    new_run(tmp_path, "r").config_file.write_text("nonsense")
    assert flops_per_token(Folder(tmp_path), {"runs": ["r"]}) == {"r": None}
    assert flops_per_token(Folder(tmp_path), None) == {}


def test_a_tokenizer_that_a_configuration_names_is_read_inside_the_roots_only(tmp_path):
    runs, outside = tmp_path / "runs", tmp_path / "tokenizer.json"
    runs.mkdir()
    content = json.dumps({"model": {"vocab": {str(i): i for i in range(500)}}})
    outside.write_text(content)
    (runs / "tokenizer.json").write_text(content)
    run = new_run(runs, "r")
    for place, known in ((outside, False), (runs / "tokenizer.json", True)):
        run.config_file.write_text(to_toml(load_config("tiny", None, ["--data.tokenizer", str(place)])))
        assert (flops_per_token(Folder(runs), {"runs": ["r"]})["r"] is not None) == known
