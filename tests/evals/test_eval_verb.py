"""`python -m mygpt2 eval`: a run or a folder in, a result with its protocol, fingerprint and errors out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mygpt2 import checkpoint
from mygpt2.config import RunConfig, load_config, to_toml
from mygpt2.evals import hellaswag
from mygpt2.evals.loss import GPTScorer
from mygpt2.evals.text import held_out
from mygpt2.exchange import load as exchange
from mygpt2.model import GPT, GPTConfig, state_for_checkpoint
from mygpt2.run_dir import RunDir
from mygpt2.tokenizer import load_tokenizer
from tests import forks
from tests.conftest import Ended
from tests.evals.made_up import write_jsonl

SETTINGS = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 64}
TEXTS = [f"Chapter {i}. " + " ".join(f"word{j * i % 17}" for j in range(5 + i % 60)) for i in range(150)]

Eval = Callable[..., Ended]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs/first and runs/second (a checkpoint each), corpus/ and val.jsonl, and a cache of its own."""
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    data = {"tokenizer": "gpt2:1000", "source": str(corpus), "validation_fraction": 0.3, "validation_tokens": 2048}
    config = RunConfig.model_validate({"model": SETTINGS, "data": data})
    for seed, name in enumerate(("first", "second")):
        run = RunDir.create(tmp_path / "runs", name)
        run.config_file.write_text(to_toml(config))
        model = GPT(GPTConfig(**SETTINGS, vocab_size=1000), seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4.0)
        state = {
            "config": config.model_dump(mode="json"),
            "tokenizer": {"spec": "gpt2:1000", "fingerprint": load_tokenizer("gpt2:1000").fingerprint},
        }
        checkpoint.write(run.checkpoints_dir, 5, state_for_checkpoint(model), {}, state)
    write_jsonl(tmp_path / "val.jsonl")
    return tmp_path


@pytest.fixture
def evaluate(place: Path, mygpt2: Callable[..., Ended]) -> Eval:
    return lambda *words: mygpt2("eval", "--model", "first", "--device", "cpu", *words)


def result(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_a_path_and_hellaswag_in_one_go(evaluate: Eval, place: Path) -> None:
    ended = evaluate("--protocol", "corpus", "--hellaswag", "val.jsonl", "--json", "out.json")
    assert ended.code == 0, ended.err
    found = result(place / "out.json")
    tokens = np.concatenate([[*load_tokenizer("gpt2:1000").encode(t), 999] for t in TEXTS]).astype("<u2")
    assert found["protocol"] == "local:corpus" and found["token_sha256"] == hashlib.sha256(tokens.tobytes()).hexdigest()
    assert found["tokens"] == len(tokens) - 1 and found["documents"] == 150 and found["window"] == 64
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"])) and found["stderr"] > 0
    assert found["bits_per_byte"] == pytest.approx(found["loss"] * found["tokens"] / math.log(2) / found["bytes"])
    assert found["quoted"] == [] and found["yardstick"] is None and found["precision"] == "fp32"
    by = found["by_document"]
    assert len(by["nll"]) == 150 and sum(by["nll"]) / sum(by["targets"]) == pytest.approx(found["loss"], abs=1e-4)
    for protocol in ("completion", "harness"):
        own = found["hellaswag"][protocol]
        assert own["n"] == 20 and 0 <= own["acc"] <= 1 and own["stderr"] == own["acc_norm_stderr"]
    assert len((place / "out.items.jsonl").read_text().splitlines()) == 21
    assert "150 documents" in ended.out and "HellaSwag harness: acc" in ended.out and "quoted" not in ended.out


def test_a_run_s_held_out_set_is_a_protocol_and_its_result_stays_with_the_run(evaluate: Eval, place: Path) -> None:
    assert evaluate("--protocol", "run").code == 0
    own = result(place / "runs" / "first" / "evals" / "step-00000005-run.json")
    assert own["protocol"] == "run" and own["details"]["step"] == 5 and len(own["details"]["weights_sha256"]) == 64
    assert evaluate("--protocol", "run:second", "--json", "b.json", "--batch", "1").code == 0
    other = result(place / "b.json")
    assert other["token_sha256"] == own["token_sha256"]  # the same data and settings
    assert other["loss"] == pytest.approx(own["loss"], abs=1e-6)


def test_a_model_with_another_tokenizer_is_measured_on_the_same_held_out_text(place: Path) -> None:
    config = load_config(file=place / "runs" / "first" / "config.toml")
    data = config.data.model_copy(update={"validation_tokens": 600, "validation_fraction": 0.2})
    own, other = (held_out(data, load_tokenizer(spec), place / "cache") for spec in (data.tokenizer, "gpt2"))
    assert own.targets < 600 and other.targets != own.targets
    assert other.documents == own.documents  # all but the first token is a target: bytes differ by that one
    decoded = [load_tokenizer(s).decode(x.tokens) for s, x in ((data.tokenizer, own), ("gpt2", other))]
    assert decoded[0] == decoded[1]


def test_another_model_s_items_are_a_baseline(evaluate: Eval, place: Path) -> None:
    assert evaluate("--model", "second", "--hellaswag", "val.jsonl", "--json", "second.json").code == 0
    ended = evaluate("--hellaswag", "val.jsonl", "--baseline", "second.items.jsonl", "--json", "first.json")
    assert ended.code == 0, ended.err
    test = result(place / "first.json")["hellaswag"]["against_baseline"]["harness"]["acc_norm"]
    assert set(test) == {"difference", "stderr", "better", "worse", "p_value"} and "McNemar p" in ended.out


def test_an_interruption_keeps_what_is_scored_and_the_same_command_goes_on(
    evaluate: Eval, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--hellaswag", "val.jsonl", "--batch", "16")
    assert evaluate(*words, "--json", "calm.json").code == 0
    nll, calls = GPTScorer.nll, []

    def interrupted(self: GPTScorer, idx: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return nll(self, idx, targets)

    with monkeypatch.context() as patch:
        patch.setattr(GPTScorer, "nll", interrupted)
        ended = evaluate(*words, "--json", "rough.json")
    assert ended.code == 85 and "goes on from there" in ended.out and not (place / "rough.json").exists()
    ended = evaluate(*words, "--json", "rough.json")
    assert ended.code == 0 and re.search(r"going on with \d+ of 20 items", ended.out)
    assert (place / "rough.items.jsonl").read_bytes() == (place / "calm.items.jsonl").read_bytes()
    calm, rough = (result(place / f"{name}.json")["hellaswag"] for name in ("calm", "rough"))
    assert {**calm, "items": ""} == {**rough, "items": ""}


def test_a_folder_is_a_yardstick_measured_once(evaluate: Eval, place: Path, mygpt2: Callable[..., Ended]) -> None:
    assert mygpt2("export", "--model", "runs/second", "--to", str(place / "hf")).code == 0
    ended = evaluate("--protocol", "corpus", "--yardstick", "hf", "--json", "a.json")
    assert ended.code == 0, ended.err
    first = result(place / "a.json")["yardstick"]
    assert first["of"] == "hf" and first["loss"] > 0 and "hf, measured on the same tokens" in ended.out
    with pytest.MonkeyPatch.context() as patch:
        load = exchange.load_model
        patch.setattr(exchange, "load_model", lambda spec, runs: load(spec, runs) if spec == "first" else 1 / 0)
        assert evaluate("--protocol", "corpus", "--yardstick", "hf", "--json", "b.json").code == 0
    assert result(place / "b.json")["yardstick"] == first
    ended = evaluate("--protocol", "corpus", "--yardstick", "second")
    assert ended.code == 2 and "is a run, which changes" in ended.err


def test_two_ranks_give_the_result_of_one(evaluate: Eval, place: Path) -> None:
    words = ["--protocol", "corpus", "--hellaswag", "val.jsonl", "--batch", "7"]
    assert evaluate(*words, "--json", "one.json").code == 0
    ranks = forks.start(["eval", "--model", "first", "--device", "cpu", *words, "--json", "two.json"], place / "two")
    assert forks.ends(ranks) == [0, 0], ranks[0].said()
    one, two = result(place / "one.json"), result(place / "two.json")
    assert two["ranks"] == 2 and two["token_sha256"] == one["token_sha256"]
    for key in ("loss", "stderr", "perplexity", "bits_per_byte"):
        assert two[key] == pytest.approx(one[key], abs=1e-6)
    assert (place / "one.items.jsonl").read_text() == (place / "two.items.jsonl").read_text()
    assert not list(place.glob("*.part-*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to evaluate; give --protocol"),
        (["--protocol", "edu-sed"], "did you mean edu-seed"),
        (["--protocol", "run:third"], "third is none"),
        (["--protocol", "fineweb-10m"], "published as GPT-2's tokens"),
        (["--protocol", "corpus", "--text-column", "body"], "--text-column=body is not a key"),
        (["--protocol", "corpus", "--batch", "0"], "--batch 0 is not allowed"),
        (["--protocol", "corpus", "--json", "no/such/x.json"], "there is no folder no/such"),
        (["--protocol", "corpus", "--json", "corpus"], "is a folder"),
        (["--protocol", "corpus", "--limit", "5"], "--limit belongs to HellaSwag"),
        (["--protocol", "corpus", "--precision", "fp16"], "--precision fp16 needs a GPU"),
        (["--protocol", "corpus", "--device", "mps"], "--device mps is not there; allowed: auto, cpu"),
        (["--protocol", "corpus", "--model", "frist"], "first"),
        (["--hellaswag", "absent.jsonl"], "absent.jsonl does not exist"),
        (["--hellaswag", "val.jsonl", "--limit", "0"], "--limit 0 is not allowed"),
        (["--hellaswag", "val.jsonl", "--baseline", "no.jsonl"], "--baseline no.jsonl does not exist"),
        (["--hellaswag", "val.jsonl", "--baseline", "val.jsonl"], "is not a file of items"),
        (["--hellaswag", "val.jsonl", "--yardstick"], "--yardstick is measured on a text"),
        (["--hellaswag", "val.jsonl", "--zzz"], "is not an option here"),
    ],
)
def test_mistakes_are_one_line(evaluate: Eval, words: list[str], message: str) -> None:
    ended = evaluate(*words)
    assert ended.code == 2 and ended.err.startswith("error: ") and ended.err.count("\n") == 1, ended.err
    assert message in ended.err


def test_figures_of_others_appear_only_beside_the_whole_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mygpt2.evals.items import load_items

    items = load_items(str(place / "val.jsonl"), place)
    table = hellaswag.tabulate(items, load_tokenizer("gpt2:1000"), 256)
    nll = {p: np.random.default_rng(0).random((20, 4)) for p in table.rows}
    assert "quoted" not in hellaswag.words(hellaswag.summary(table, nll))
    monkeypatch.setattr(hellaswag, "WHOLE", 20)
    words = hellaswag.words(hellaswag.summary(table, nll))
    assert "quoted: GPT-2 124M acc_norm 31.14 %" in words and words.count("quoted: ") == 4
