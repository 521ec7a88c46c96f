"""`export` and `import`: what comes out is what went in, transformers reads it, and a mistake leaves nothing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from mygpt2.exchange.load import load_model
from mygpt2.generate.decode import Decoder
from mygpt2.model import GPT, GPTConfig, state_for_checkpoint
from mygpt2.tokenizer import load_tokenizer
from tests.conftest import Ended
from tests.exchange.folders import SHAPE, randomised, reference, same_weights, saved_run, transformers, write_folder

Call = Callable[..., Ended]
TEXTS = ("The quick brown fox", " two  spaces\n\nand 123 numbers", "naïve café 你好 🙂", "\t\x00 it's We'LL", "a" * 50)


def greedy(loaded: Any, start: list[int], count: int) -> list[int]:
    """Greedy tokens from a full pass over all positions each time: no cache that could be at fault."""
    ids = torch.tensor([start])
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, loaded.model.logits(loaded.model(ids)[:, -1]).argmax(-1, keepdim=True)], 1)
    return ids[0].tolist()


@pytest.mark.parametrize("shape", [{}, {"bias": False}, {"n_layer": 3, "n_embd": 48, "dropout": 0.1}],
                         ids=["plain", "no bias", "dropout"])  # fmt: skip
def test_transformers_generates_the_same_greedy_tokens_and_the_way_back_is_exact(
    mygpt2: Call, shape: dict[str, Any]
) -> None:
    library = transformers()
    _, model, _ = saved_run(Path("runs"), block_size=64, **shape)
    ended = mygpt2("export", "--model", "first", "--to", "out")
    assert ended.code == 0 and "first/step-00000005" in ended.out, ended.err
    theirs = library.AutoModelForCausalLM.from_pretrained("out").eval()
    assert theirs.generation_config.eos_token_id == 299
    theirs.generation_config.eos_token_id = None
    start = [5, 17, 250]
    with torch.no_grad():
        found = theirs.generate(torch.tensor([start]), max_new_tokens=50, do_sample=False, pad_token_id=299)
    loaded = load_model("out")
    assert found[0].tolist() == greedy(loaded, start, 50)
    assert same_weights(loaded.model, model) and loaded.model.config.bias == shape.get("bias", True)
    mygpt2("export", "--model", "out", "--to", "again")
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()


def test_a_model_of_transformers_comes_back_bit_equal(mygpt2: Call) -> None:
    theirs = reference(vocab_size=50257, n_embd=16)
    theirs.save_pretrained("in")
    assert mygpt2("export", "--model", "in", "--to", "out").code == 0
    back = transformers().GPT2LMHeadModel.from_pretrained("out").state_dict()
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(t, back[name]) for name, t in theirs.state_dict().items())


@pytest.mark.parametrize("spec", ["gpt2", "gpt2:300", "own"])
def test_transformers_gives_the_same_ids(mygpt2: Call, spec: str) -> None:
    library = transformers()
    tokenizer = load_tokenizer(spec if spec != "own" else own_tokenizer(Path("own")))
    saved_run(Path("runs"), spec=spec, n_embd=8)
    assert mygpt2("export", "--model", "first", "--to", "out").code == 0
    theirs = library.AutoTokenizer.from_pretrained("out")
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text), text
        assert theirs.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert (theirs.eos_token, theirs.eos_token_id) == ("<|endoftext|>", tokenizer.eot_id)
    assert theirs.model_max_length == 48
    assert load_model("out").tokenizer.fingerprint == tokenizer.fingerprint
    assert Path("out/vocab.json").exists() == (spec != "own")


def own_tokenizer(folder: Path) -> str:
    """A byte-level BPE with a split pattern of its own, as a run's configuration may name one."""
    folder.mkdir()
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\p{N}{1,3}| ?\p{L}+|\s+|[^\s\p{L}\p{N}]+"), "isolated"),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(["the quick brown fox and the lazy dog 12345 12345"] * 9, trainer)
    bpe.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_the_card_has_the_runs_figures_up_to_the_checkpoint(mygpt2: Call) -> None:
    run, _, path = saved_run(Path("runs"))
    rows = [{"schema": 1, "attempt": 1, "step": s, "loss": 6.0 - s / 10, "tokens": 256 * s} for s in range(1, 9)]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = [
        {"event": "eval", "kind": "eval", "attempt": 1, "step": step, "protocol": "run", "loss": loss, "tokens": 900}
        for step, loss in ((3, 5.9), (5, 5.75), (8, 1.0))
    ]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    share = {"acc": 0.2811, "acc_norm": 0.2955, "stderr": 0.00455, "n": 10042}
    evaluated = {"protocol": "edu-bn", "loss": 4.5, "stderr": 0.01, "bits_per_byte": 1.2, "tokens": 1000}
    for step, loss in ((5, 4.5), (8, 1.0)):
        result = evaluated | {"details": {"step": step}, "loss": loss, "hellaswag": {"completion": share}}
        (run.evals_dir / f"step-0000000{step}-edu-bn.json").write_text(json.dumps(result))
    run.plot_file.write_bytes(b"a picture")
    assert mygpt2("export", "--model", str(path), "--to", "out").code == 0
    card = Path("out/README.md").read_text()
    assert "| Tokens | 1,280 |" in card and "| Steps | 5 |" in card and "| Data | pydocs |" in card
    assert "mean of the last 5 steps | 5.7000 nats" in card
    assert "| Loss, protocol run | 5.7500 nats per token, 900 targets, at step 5 |" in card
    assert "edu-bn | 4.5000 nats per token (standard error 0.0100), 1.2000 bits per byte, 1,000 targets" in card
    assert "completion | acc 28.11 %, acc_norm 29.55 % (standard error 0.46) of 10,042 items, at step 5 |" in card
    assert "](loss_plot.png)" in card and Path("out/loss_plot.png").read_bytes() == b"a picture"
    assert card.startswith("---\nlibrary_name: transformers\n")


def test_a_folder_that_holds_something_is_never_touched(mygpt2: Call) -> None:
    saved_run(Path("runs"))
    Path("full").mkdir()
    Path("full/keep").write_text("mine")
    Path("file").write_text("mine")
    Path("empty").mkdir()
    for to, message in (("full", "is not empty"), ("file", "is a file"), ("no/such", "there is no folder")):
        ended = mygpt2("export", "--model", "first", "--to", to)
        assert ended.code == 2 and message in ended.err and ended.err.count("\n") == 1
    assert (
        Path("full/keep").read_text() == Path("file").read_text() == "mine" and len(list(Path("full").iterdir())) == 1
    )
    assert mygpt2("export", "--model", "first", "--to", "empty").code == 0


def test_an_export_that_fails_leaves_nothing(mygpt2: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_run(Path("runs"))
    before = sorted(Path().iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mygpt2.exchange.export.write_tokenizer", full)
    ended = mygpt2("export", "--model", "first", "--to", "out")
    assert ended.code == 2 and "No space left" in ended.err
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("frist", "no run 'frist' in runs; nearest: first"),
        ("/no/such/folder", "is neither a run"),
        ("runs/frist", "is neither a run"),
        ("runs", "is neither a run"),
        ("a file", "is a file; give the folder"),
        ("gpt2", "HF_HUB_OFFLINE forbids"),
        ("owner/na me", "is neither a run"),
        ("", "is neither a run"),
    ],
)
def test_what_is_no_model_is_one_line(
    mygpt2: Call, model: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    saved_run(Path("runs"))
    Path("a file").write_text("")
    ended = mygpt2("export", "--model", model, "--to", "out")
    assert (ended.code, ended.err.count("\n")) == (2, 1) and message in ended.err, ended.err
    assert not Path("out").exists()


# import


def nanogpt(path: str, model: GPT, prefix: str = "_orig_mod.", /, **more: Any) -> None:
    """A checkpoint as nanoGPT's train.py writes it: tied head, masks, optimizer, a 0-d tensor among the numbers."""
    state = {f"{prefix}{name}": t.clone() for name, t in state_for_checkpoint(model).items()}
    state[f"{prefix}lm_head.weight"] = state[f"{prefix}transformer.wte.weight"]
    state[f"{prefix}transformer.h.0.attn.bias"] = torch.ones(1, 1, 48, 48)
    settings = {**SHAPE, "vocab_size": model.config.vocab_size, "bias": model.config.bias, "dropout": 0.0}
    content = {"model": state, "model_args": settings, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
               "iter_num": 3, "best_val_loss": torch.tensor(1.5), "config": {"dataset": "x"}}  # fmt: skip
    torch.save(content | more, path)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", ""])
def test_a_nanogpt_checkpoint_becomes_a_folder(mygpt2: Call, bias: bool, prefix: str) -> None:
    model = randomised(GPT(GPTConfig(**SHAPE, vocab_size=300, bias=bias)))
    nanogpt("ckpt.pt", model, prefix)
    ended = mygpt2("import", "ckpt.pt", "--to", "out", "--tokenizer", "gpt2:300")
    assert ended.code == 0 and "--model out" in ended.out, ended.err
    assert same_weights(load_model("out").model, model)


@pytest.mark.parametrize("form", ["erf", "tanh"])
def test_a_nanogpt_checkpoint_keeps_its_form_of_gelu(mygpt2: Call, form: str) -> None:
    model = randomised(GPT(GPTConfig(**SHAPE, vocab_size=300, gelu=form)))
    nanogpt("ckpt.pt", model)
    chosen = [] if form == "erf" else ["--gelu", form]  # erf is nanoGPT's own
    ended = mygpt2("import", "ckpt.pt", "--to", "out", "--tokenizer", "gpt2:300", *chosen)
    assert ended.code == 0 and f"GELU in its {form} form" in ended.out, ended.err
    ids = torch.arange(40)[None]
    with torch.no_grad():
        wanted = model.logits(model(ids))
        loaded = load_model("out").model
        assert torch.equal(loaded.logits(loaded(ids)), wanted)
        theirs = transformers().GPT2LMHeadModel.from_pretrained("out").eval()
        assert float((theirs(ids).logits - wanted).abs().max()) < 1e-5
        decoder = Decoder(loaded)
        sampled = decoder.prefill(ids[0].tolist(), decoder.cache(1, 40))
        assert float((sampled - wanted[0, -1]).abs().max()) < 1e-5


def test_nanogpts_padded_vocabulary_is_cut_to_gpt2s(mygpt2: Call) -> None:
    model = randomised(GPT(GPTConfig(**SHAPE, vocab_size=50304)))
    nanogpt("ckpt.pt", model)
    ended = mygpt2("import", "ckpt.pt", "--to", "out")
    assert ended.code == 0 and "47 unused ids left out" in ended.out, ended.err
    loaded = load_model("out")
    assert loaded.tokenizer.name == "gpt2" and torch.equal(loaded.model.wte[:50257], model.wte[:50257])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pytorch_model_bin_becomes_a_folder(mygpt2: Call, zipped: bool) -> None:
    theirs = reference(vocab_size=50257, n_embd=16)
    theirs.config.save_pretrained("old")
    torch.save(theirs.state_dict(), "old/pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    assert mygpt2("import", "old/pytorch_model.bin", "--to", "out").code == 0
    back = transformers().GPT2LMHeadModel.from_pretrained("out").state_dict()
    assert all(torch.equal(t, back[name]) for name, t in theirs.state_dict().items())


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("attacked"),)


def test_a_file_that_is_not_weights_is_one_line_and_runs_nothing(mygpt2: Call) -> None:
    model = randomised(GPT(GPTConfig(**SHAPE, vocab_size=300)))
    state = state_for_checkpoint(model)
    head = {"model": {**state, "lm_head.weight": torch.ones(300, 32)}}
    nanogpt("evil.pt", model, config=Malicious())
    torch.save(Malicious(), "evil_old.pt", _use_new_zipfile_serialization=False)
    nanogpt("head.pt", model, **head)
    nanogpt("short.pt", model, model={"transformer.wte.weight": state["transformer.wte.weight"]})
    nanogpt("shape.pt", model, model_args={"n_layer": 2})
    nanogpt("odd.pt", model)
    torch.save([1, 2], "list.pt")
    torch.save(state, "bare.pt")
    Path("text.pt").write_text("hello")
    Path("empty.pt").write_bytes(b"")
    with zipfile.ZipFile("zip.pt", "w") as archive:
        archive.writestr("x", "y")
    for file, message in {
        "evil.pt": "is refused (Unsupported", "evil_old.pt": "is refused (Unsupported", "text.pt": "is refused",
        "empty.pt": "is refused", "zip.pt": "is refused", "absent.pt": "is not a file", "list.pt": "neither a nanoGPT",
        "bare.pt": "config.json beside it", "head.pt": "lm_head.weight of its own",
        "short.pt": "missing transformer.wpe.weight", "shape.pt": "n_head is None, not a number from 1",
        "odd.pt": "vocabulary of 300 is not GPT-2's",
    }.items():  # fmt: skip
        ended = mygpt2("import", file, "--to", "out")
        assert (ended.code, ended.err.count("\n")) == (2, 1) and message in ended.err, (file, ended.err)
    assert not Path("attacked").exists() and not Path("out").exists()


def test_import_says_which_tokenizer_does_not_fit(mygpt2: Call) -> None:
    nanogpt("ckpt.pt", randomised(GPT(GPTConfig(**SHAPE, vocab_size=300))))
    ended = mygpt2("import", "ckpt.pt", "--to", "out", "--tokenizer", "gpt2:301")
    assert ended.code == 2 and "gpt2:301 has 301 ids and the model 300" in ended.err


def test_a_folder_of_weights_with_a_tokenizer_too_large_is_refused(mygpt2: Call) -> None:
    model = randomised(GPT(GPTConfig(**SHAPE, vocab_size=280)))
    saved_run(Path("runs"))
    mygpt2("export", "--model", "first", "--to", "out")
    write_folder(Path("out"), model)
    ended = mygpt2("export", "--model", "out", "--to", "again")
    assert ended.code == 2 and "has 300 ids and the model 280" in ended.err
