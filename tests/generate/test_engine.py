"""Continuations: the cache never changes them, neighbours never change them, padded ids never appear in them."""

from __future__ import annotations

import itertools
import math
import threading

import pytest
import torch

from mygpt2.errors import UserError
from mygpt2.generate import Engine, Sampling, Token, generate
from mygpt2.generate.engine import _Sample
from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import Tokenizer, load_tokenizer

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=300, dropout=0.3)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2:300")


@pytest.fixture(scope="module")
def model() -> GPT:
    """Weights large enough for each position to matter, in training mode with dropout, as a trainer would lend it."""
    return lively(GPT(CONFIG, seed=1)).train()


def lively(model: GPT) -> GPT:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.1)
        model.wte[model.config.vocab_size :] = 0.0
    return model


def window(tokens: list[int], prompt: int, limit: int = 16) -> list[int]:
    """What the model sees of a row: the prompt's last `limit` tokens, and a quarter less whenever that is too much."""
    start = max(0, prompt - limit)
    while len(tokens) - start > limit:
        start += limit // 4
    return tokens[start:]


def same(records: list[dict], wanted: list[dict]) -> bool:
    """Equal but for the last bits of log-probabilities, which a product of more rows rounds otherwise."""
    return len(records) == len(wanted) and all(
        {**a, "logprobs": None} == {**b, "logprobs": None} and a["logprobs"] == pytest.approx(b["logprobs"], abs=1e-5)
        for a, b in zip(records, wanted, strict=True)
    )


@torch.no_grad()
def full_pass(model: GPT, tokens: list[int]) -> torch.Tensor:
    model.eval()
    return model.logits(model(torch.tensor([tokens])))[0, -1]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lengths", [[3], [1, 7, 16, 30]], ids=["one row", "ragged rows"])
def test_cached_logits_equal_a_full_pass_at_every_position_and_past_the_context(
    tokenizer: Tokenizer, lengths: list[int], bias: bool
) -> None:
    model = lively(GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=300, bias=bias)))
    tokens = torch.randint(0, 300, (len(lengths), 80), generator=torch.Generator().manual_seed(2)).tolist()
    samples = [_Sample("", 0, row[:n], ()) for row, n in zip(tokens, lengths, strict=True)]
    engine = Engine(model, tokenizer)
    cache, logits = engine._start(samples, 45)
    for _ in range(45):
        for sample, row, length, got in zip(samples, tokens, lengths, logits, strict=True):
            assert torch.allclose(got, full_pass(model, window(sample.tokens, length)), atol=1e-5), len(sample.tokens)
            sample.tokens.append(row[len(sample.tokens)])
        logits = engine._advance(samples, cache)


def test_a_sample_is_the_same_alone_and_in_any_batch_and_order(model: GPT, tokenizer: Tokenizer) -> None:
    prompts = ["one", "another, longer prompt", "", "one", "far more text than this little context has room for"]
    settings = {"max_new_tokens": 30, "temperature": 1.0, "top_k": 50}
    alone = {p: generate(model, tokenizer, [p], seed=7, **settings)[0] for p in prompts}
    for order in itertools.islice(itertools.permutations(prompts), 0, 120, 17):
        assert same(generate(model, tokenizer, order, seed=7, **settings), [alone[p] for p in order])
    for size in (1, 2, 3):
        engine = Engine(model, tokenizer, batch_size=size)
        sampling = Sampling(temperature=1.0, top_k=50)
        assert same(engine.generate(prompts, sampling, max_new_tokens=30, seed=7), [alone[p] for p in prompts])


def test_each_sample_has_its_own_seed(model: GPT, tokenizer: Tokenizer) -> None:
    settings = {"max_new_tokens": 20, "temperature": 1.0, "top_k": 50}
    together = generate(model, tokenizer, ["one", "another prompt"], seed=7, num_samples=3, **settings)
    assert [s["seed"] for s in together] == [7, 8, 9, 7, 8, 9]
    for sample in together:
        assert same(generate(model, tokenizer, [sample["prompt"]], seed=sample["seed"], **settings), [sample])
    assert len({tuple(s["ids"]) for s in together}) == 6
    assert len({s["ids"][0] for s in generate(model, tokenizer, ["x"], seed=0, num_samples=8, **settings)}) > 1


def test_a_stream_tells_each_token_its_probability_and_the_ten_likeliest(model: GPT, tokenizer: Tokenizer) -> None:
    stream = Engine(model, tokenizer).stream(["ab", "c"], Sampling(0.7, 20), max_new_tokens=25, num_samples=2)
    tokens: list[Token] = list(stream)
    for number, record in enumerate(stream.records()):
        mine = [t for t in tokens if t.sample == number]
        assert [t.id for t in mine] == record["ids"] and [t.logprob for t in mine] == record["logprobs"]
        assert "".join(t.text for t in mine) == record["text"] == tokenizer.decode(record["ids"])
        assert [t.finish for t in mine] == [None] * 24 + ["length"] and record["finish"] == "length"
        row = tokenizer.encode(record["prompt"])
        prompt = len(row)
        for token in mine:
            wanted = torch.log_softmax(full_pass(model, window(row, prompt)), 0)
            best, ids = wanted.topk(10)
            assert [i for i, _ in token.likeliest] == ids.tolist()
            assert [p for _, p in token.likeliest] == pytest.approx(best.tolist(), abs=1e-5)
            assert token.probability == pytest.approx(wanted[token.id].exp().item(), abs=1e-5)
            low, high = (int((wanted > wanted[token.id] + by).sum()) + 1 for by in (1e-5, -1e-5))
            assert low <= token.rank <= high
            row.append(token.id)


def test_a_callback_or_an_event_stops_before_the_next_token(model: GPT, tokenizer: Tokenizer) -> None:
    whole = generate(model, tokenizer, ["ab"], max_new_tokens=20)[0]
    for last in (1, 5):
        heard: list[Token] = []

        def stop(token: Token, heard: list[Token] = heard, last: int = last) -> bool:
            heard.append(token)
            return len(heard) < last

        (record,) = generate(model, tokenizer, ["ab"], max_new_tokens=20, on_token=stop)
        assert len(heard) == last and record["ids"] == whole["ids"][:last] and record["finish"] == "cancelled"
        assert record["text"] == tokenizer.decode(record["ids"])
    event = threading.Event()
    records = generate(
        model, tokenizer, ["ab", "c"], max_new_tokens=20, cancel=event, on_token=lambda token: event.set()
    )
    assert [len(r["ids"]) for r in records] == [1, 0] and records[1]["text"] == ""


def test_a_stop_string_ends_a_sample_and_leaves_the_text(model: GPT, tokenizer: Tokenizer) -> None:
    (whole,) = generate(model, tokenizer, ["ab"], max_new_tokens=40, seed=5)
    text = whole["text"]
    stop = next(text[i : i + 3] for i in range(10, 40) if "\ufffd" not in text[i : i + 3])
    heard: list[str] = []
    (cut,) = generate(
        model, tokenizer, ["ab"], max_new_tokens=40, seed=5, stop=["never this", stop],
        on_token=lambda token: heard.append(token.text),
    )  # fmt: skip
    assert cut["finish"] == "stop" and cut["text"] == text.partition(stop)[0] == "".join(heard)
    assert cut["ids"] == whole["ids"][: len(cut["ids"])] and len(cut["ids"]) < 40


def test_a_repetition_penalty_reaches_prompt_and_continuation(model: GPT, tokenizer: Tokenizer) -> None:
    (plain,) = generate(model, tokenizer, ["ab"], max_new_tokens=60, temperature=0)
    (varied,) = generate(model, tokenizer, ["ab"], max_new_tokens=60, temperature=0, repetition_penalty=100.0)
    assert len(set(plain["ids"])) < 40  # greedy goes round in circles
    assert len({*varied["ids"], *tokenizer.encode("ab")}) > 55


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
    prompt = len(tokens)
    for token in sample["ids"]:
        assert token == full_pass(model, window(tokens, prompt)).argmax()
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
    assert sample["ids"] == [int(full_pass(model, [299]).argmax())]


@pytest.mark.parametrize("prompt", ["word " * 3000, "\U0001f600\U0001f468\u200d\U0001f469 \u4f60\u597d", "\udcff"])
def test_long_prompts_and_strange_ones_are_read_from_their_end(model: GPT, tokenizer: Tokenizer, prompt: str) -> None:
    (sample,) = generate(model, tokenizer, [prompt], max_new_tokens=9, temperature=0)
    assert sample["ids"][0] == int(full_pass(model, tokenizer.encode(prompt)[-16:]).argmax())
    assert len(sample["ids"]) == 9 and sample["prompt"] == prompt


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
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"seed": -1}, "seed=-1"),
        ({"stop": ["a", ""]}, "stop=''"),
        ({"min_p": 2.0}, "min_p=2.0"),
    ],
)
def test_impossible_requests_say_what_is_allowed(model: GPT, tokenizer: Tokenizer, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"{message} is not allowed[;,]"):
        generate(model, tokenizer, ["x"], **{"max_new_tokens": 1, **change})


def test_another_tokenizer_and_damaged_weights_are_users_errors(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"gpt2:400 has 400 ids, the model 300"):
        generate(GPT(CONFIG), load_tokenizer("gpt2:400"), ["x"], max_new_tokens=1)
    broken = GPT(CONFIG)
    with torch.no_grad():
        broken.wte.fill_(math.nan)
    with pytest.raises(UserError, match="not finite"):
        generate(broken, tokenizer, ["x"], max_new_tokens=1)
