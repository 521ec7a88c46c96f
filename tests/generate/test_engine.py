"""Continuations: the cache never changes them, neighbours never change them, padded ids never appear in them."""

from __future__ import annotations

import math

import pytest
import torch

from mygpt2.errors import UserError
from mygpt2.generate import generate
from mygpt2.generate.engine import Row
from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import Tokenizer, load_tokenizer

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=300, dropout=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2:300")


@pytest.fixture(scope="module")
def model() -> GPT:
    """Weights large enough for each position to matter, in training mode with dropout, as a trainer would lend it."""
    model, generator = GPT(CONFIG, seed=1), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
        model.wte[300:] = 0.0
    return model.train()


def test_cached_logits_equal_a_full_pass_at_every_position_and_past_the_context(model: GPT) -> None:
    model.eval()
    tokens = torch.randint(0, 300, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    with torch.no_grad():
        row = Row(model, tokens[:3])
        for end in range(3, 40):
            window = torch.tensor([tokens[max(0, end - 16) : end]])
            assert torch.allclose(row.logits, model.logits(model(window))[0, -1], atol=1e-5), end
            row.append(tokens[end])


def test_a_rewound_row_is_a_new_row_even_after_passing_the_context(model: GPT) -> None:
    model.eval()
    with torch.no_grad():
        row = Row(model, [5, 6, 7])
        for token in range(30):
            row.append(token)
        row.rewind()
        row.append(9)
        fresh = Row(model, [5, 6, 7, 9])
    assert torch.allclose(row.logits, fresh.logits, atol=1e-5)


def test_a_sample_depends_on_its_seed_and_on_no_neighbour(model: GPT, tokenizer: Tokenizer) -> None:
    settings = {"max_new_tokens": 20, "temperature": 1.0, "top_k": 50}
    together = generate(model, tokenizer, ["one", "another prompt"], seed=7, num_samples=3, **settings)
    assert [s["seed"] for s in together] == [7, 8, 9, 7, 8, 9]
    for sample in together:
        assert generate(model, tokenizer, [sample["prompt"]], seed=sample["seed"], **settings) == [sample]
    assert len({tuple(s["ids"]) for s in together}) == 6
    assert len({s["ids"][0] for s in generate(model, tokenizer, ["x"], seed=0, num_samples=8, **settings)}) > 1


def test_records_are_consistent(model: GPT, tokenizer: Tokenizer) -> None:
    (sample,) = generate(model, tokenizer, ["in"], max_new_tokens=12, seed=3)
    assert {*sample} == {"prompt", "text", "ids", "logprobs", "seed", "finish"}
    assert sample["text"] == tokenizer.decode(sample["ids"]) and len(sample["ids"]) == len(sample["logprobs"]) == 12
    idx = torch.tensor([tokenizer.encode("in") + sample["ids"]])
    model.eval()
    with torch.no_grad():
        wanted = torch.log_softmax(model.logits(model(idx))[0, :-1], -1)
    start = idx.shape[1] - 13
    for i, (token, logprob) in enumerate(zip(sample["ids"], sample["logprobs"], strict=True)):
        assert math.isclose(wanted[start + i, token].item(), logprob, abs_tol=1e-5)


def test_greedy_is_the_likeliest_token_each_time(model: GPT, tokenizer: Tokenizer) -> None:
    (sample,) = generate(model, tokenizer, ["a prompt"], max_new_tokens=30, temperature=0)
    tokens = tokenizer.encode("a prompt")
    model.eval()
    with torch.no_grad():
        for token in sample["ids"]:
            assert token == model.logits(model(torch.tensor([tokens[-16:]])))[0, -1].argmax()
            tokens.append(token)


def with_favourite(token: int, vocab_size: int = 300) -> GPT:
    """A model that strongly prefers one id after anything."""
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=vocab_size))
    with torch.no_grad():
        model.transformer.ln_f.bias.fill_(1.0)
        model.wte[token] = 50.0
    return model


def test_generation_stops_at_end_of_text_and_leaves_it_out_of_the_text(tokenizer: Tokenizer) -> None:
    (sample,) = generate(with_favourite(299), tokenizer, ["x"], max_new_tokens=9, temperature=0)
    assert (sample["ids"], sample["text"], sample["finish"]) == ([299], "", "end_of_text")


def test_an_id_the_tokenizer_does_not_know_is_never_drawn(tokenizer: Tokenizer) -> None:
    (sample,) = generate(with_favourite(310, vocab_size=315), tokenizer, ["x"], max_new_tokens=20)
    assert max(sample["ids"]) < 300
    padded = GPT(CONFIG)
    with torch.no_grad():
        padded.transformer.ln_f.bias.fill_(1.0)
        padded.wte[305] = 50.0
    (sample,) = generate(padded, tokenizer, ["x"], max_new_tokens=20)
    assert max(sample["ids"]) < 300


def test_an_empty_prompt_starts_from_end_of_text(model: GPT, tokenizer: Tokenizer) -> None:
    (sample,) = generate(model, tokenizer, [""], max_new_tokens=1, temperature=0)
    model.eval()
    with torch.no_grad():
        assert sample["ids"] == [int(model.logits(model(torch.tensor([[299]])))[0, -1].argmax())]


def test_a_prompt_longer_than_the_context_is_read_from_its_end(model: GPT, tokenizer: Tokenizer) -> None:
    long = "a long prompt of many words, " * 10
    (sample,) = generate(model, tokenizer, [long], max_new_tokens=1, temperature=0)
    model.eval()
    with torch.no_grad():
        window = torch.tensor([tokenizer.encode(long)[-16:]])
        assert sample["ids"] == [int(model.logits(model(window))[0, -1].argmax())]


def test_the_models_mode_and_the_global_random_state_are_untouched(model: GPT, tokenizer: Tokenizer) -> None:
    before = torch.get_rng_state()
    model.train()
    a = generate(model, tokenizer, ["x"], max_new_tokens=5)
    assert model.training and torch.equal(before, torch.get_rng_state())
    model.eval()
    assert generate(model, tokenizer, ["x"], max_new_tokens=5) == a and not model.training


def test_half_precision_generates_too(model: GPT, tokenizer: Tokenizer) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (sample,) = generate(model, tokenizer, ["x"], max_new_tokens=20)
    assert len(sample["ids"]) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [({"max_new_tokens": 0}, "max_new_tokens=0"), ({"num_samples": 0}, "num_samples=0"), ({"seed": -1}, "seed=-1")],
)
def test_impossible_requests_say_what_is_allowed(model: GPT, tokenizer: Tokenizer, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"{message} is not allowed; use"):
        generate(model, tokenizer, ["x"], **{"max_new_tokens": 1, **change})


def test_another_tokenizer_and_damaged_weights_are_users_errors(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"gpt2:400 has 400 ids, the model 300"):
        generate(GPT(CONFIG), load_tokenizer("gpt2:400"), ["x"], max_new_tokens=1)
    broken = GPT(CONFIG)
    with torch.no_grad():
        broken.wte.fill_(math.nan)
    with pytest.raises(UserError, match="not finite"):
        generate(broken, tokenizer, ["x"], max_new_tokens=1)
