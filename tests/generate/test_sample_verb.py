"""`python -m mygpt2 sample`: a run, a checkpoint or a Hugging Face folder in, text and JSON out."""

from __future__ import annotations

import io
import json
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mygpt2 import checkpoint
from mygpt2.__main__ import main
from mygpt2.config import RunConfig
from mygpt2.exchange.load import load_model
from mygpt2.model import GPT, GPTConfig, state_for_checkpoint
from mygpt2.run_dir import RunDir
from mygpt2.terminal import printable, side_by_side
from mygpt2.tokenizer import load_tokenizer

SETTINGS = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16}


def saved_run(runs: Path, name: str = "first", seed: int = 1, **tokenizer: str) -> Path:
    """A run folder with one checkpoint, written the way a trainer writes it."""
    run = RunDir.create(runs, name)
    config = RunConfig.model_validate({"model": SETTINGS, "data": {"tokenizer": "gpt2:300"}})
    state = {
        "config": config.model_dump(mode="json"),
        "tokenizer": {"spec": "gpt2:300", "fingerprint": load_tokenizer("gpt2:300").fingerprint, **tokenizer},
    }
    model = GPT(GPTConfig(**SETTINGS, vocab_size=300), seed=seed)
    run.config_file.write_text("")
    return checkpoint.write(run.checkpoints_dir, 5, state_for_checkpoint(model), {}, state)


def sample(*words: str) -> int:
    return main(["sample", "--max-new-tokens", "4", "--device", "cpu", *words])


def test_a_run_and_its_checkpoint_give_the_same_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved_run(tmp_path)
    written = []
    for number, model in enumerate(("first", str(tmp_path / "first"), str(folder))):
        out = tmp_path / f"{number}.json"
        words = ["--model", model, "--runs", str(tmp_path), "--prompt", "Hi", "--num-samples", "2", "--json", str(out)]
        assert sample(*words) == 0
        written.append(json.loads(out.read_text()))
    shapes = [(s["prompt"], s["seed"], len(s["ids"]), len(s["logprobs"])) for s in written[0]]
    assert shapes == [("Hi", 1337, 4, 4), ("Hi", 1338, 4, 4)]
    assert written[0] == written[1] == written[2]
    assert "first/step-00000005" in capsys.readouterr().out


def test_a_hugging_face_folder_is_mapped_by_name(tmp_path: Path) -> None:
    model = GPT(GPTConfig(**SETTINGS, vocab_size=50257), seed=4)
    tensors = {}
    for name, tensor in state_for_checkpoint(model).items():
        transposed = tensor.dim() == 2 and ".h." in name
        tensors[name.removeprefix("transformer.")] = (tensor.t() if transposed else tensor).contiguous()
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)  # the mask old files carry
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 16, "vocab_size": 50257}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_model(str(tmp_path))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), loaded.model.parameters(), strict=True))
    assert loaded.tokenizer.name == "gpt2" and not loaded.model.training
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    assert sample("--model", str(tmp_path)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "frist"], "no run 'frist' in .*nearest: first"),
        (["--model", "/no/such/folder"], "is neither a run"),
        (["--model", "first", "--temperature", "-1"], "temperature=-1.0 is not allowed"),
        (["--model", "first", "--top-p", "2"], "top_p=2.0 is not allowed"),
        (["--model", "first", "--max-new-tokens", "0"], "max_new_tokens=0 is not allowed"),
        (["--model", "first", "--max-new-tokens", "many"], "--max-new-tokens 'many': expected a whole number"),
        (["--model", "first", "--json", "/no/such/folder/x.json"], "there is no folder"),
        (["--model", "other"], "not the one .* was trained with"),
        ([], "either --model NAME or --compare A B"),
        (["--model", "first", "--compare", "first", "first"], "either --model NAME or --compare A B"),
        (["--compare", "first"], "expected 2 arguments"),
        (["--compare", "first", "frist"], "no run 'frist' in .*nearest: first"),
        (["--model", "first", "--min-p", "2"], "min_p=2.0 is not allowed"),
        (["--model", "first", "--repetition-penalty", "0"], "repetition_penalty=0.0 is not allowed"),
        (["--model", "first", "--stop", ""], "stop='' is not allowed"),
        (["--model", "first", "--num-samples", "0"], "num_samples=0 is not allowed"),
        (["--model", "first", "--seed", "-3"], "seed=-3 is not allowed"),
        (["--model", "first", "--weights", "int4"], "int4"),
        (["--model", "first", "--out", "/no/such/folder/x.txt"], "there is no folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    saved_run(tmp_path)
    saved_run(tmp_path, "other", fingerprint="0" * 64)
    before = sorted(tmp_path.rglob("*"))
    assert sample("--runs", str(tmp_path), *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error), error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_without_a_whole_checkpoint_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved_run(tmp_path) / "model.safetensors").write_bytes(b"cut")
    assert sample("--runs", str(tmp_path), "--model", "first") == 2
    assert "no whole checkpoint (1 that do not verify)" in capsys.readouterr().err


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2J\tb\nc\u00a0\u4f60\x7f") == "a\ufffd[2J\tb\nc\u00a0\u4f60\ufffd"


def test_without_a_prompt_each_line_of_the_input_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_run(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n\nthere\n"))
    out, texts = tmp_path / "samples.json", tmp_path / "generated.txt"
    words = ["--model", "first", "--runs", str(tmp_path)]
    assert sample(*words, "--json", str(out), "--out", str(texts)) == 0
    talked = json.loads(out.read_text())
    assert [s["prompt"] for s in talked] == ["Hi", "", "there"]
    assert sample(*words, "--prompt", "Hi", "--prompt", "", "--prompt", "there", "--json", str(out)) == 0
    assert [(s["text"], s["ids"], s["seed"]) for s in json.loads(out.read_text())] == [
        (s["text"], s["ids"], s["seed"]) for s in talked
    ]
    shown = capsys.readouterr().out
    for s in talked:
        assert f"{s['prompt']}{s['text']}" in texts.read_bytes().decode()
        assert shown.count(printable(f"{s['prompt']}{s['text']}")) >= 2  # streamed, then as a whole


def test_two_models_are_shown_side_by_side_under_the_same_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_run(tmp_path)
    saved_run(tmp_path, "other", seed=2)
    out = tmp_path / "samples.json"
    words = ["--runs", str(tmp_path), "--prompt", "Hi", "--num-samples", "2", "--json", str(out)]
    assert sample("--compare", "first", "other", *words) == 0
    both = json.loads(out.read_text())
    assert [(s["model"], s["seed"]) for s in both] == [(m, s) for m in ("first", "other") for s in (1337, 1338)]
    assert re.search(r"^first: seed 1338, 4 tokens, length +\| other: seed 1338", capsys.readouterr().out, re.MULTILINE)
    for name in ("first", "other"):
        assert sample("--model", name, *words) == 0
        assert json.loads(out.read_text()) == [
            {k: v for k, v in s.items() if k != "model"} for s in both if s["model"] == name
        ]


def test_ctrl_c_stops_the_sample_and_what_there_is_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_run(tmp_path)
    monkeypatch.setattr("mygpt2.verbs.sample._show", lambda token: signal.raise_signal(signal.SIGINT))
    out = tmp_path / "samples.json"
    words = ["--model", "first", "--runs", str(tmp_path), "--prompt", "Hi", "--json", str(out)]
    assert sample(*words, "--max-new-tokens", "1000") == 130
    (written,) = json.loads(out.read_text())
    assert len(written["ids"]) == 1 and written["finish"] == "cancelled"


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_weights_are_stored_as_asked(tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    saved_run(tmp_path)
    assert sample("--model", "first", "--runs", str(tmp_path), "--prompt", "Hi", "--weights", weights) == 0
    assert "4 tokens" in capsys.readouterr().out


def test_columns_hold_wide_characters_and_every_line() -> None:
    assert side_by_side("abcdefghijkl\nm", "\u4f60" * 6, 23).splitlines() == [
        "abcdefghij | " + "\u4f60" * 5,
        "kl         | \u4f60",
        "m          |",
    ]
