"""The loss on a text: closed forms to nine digits, every target once, no matter who computes how much at a time."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt2.board import RankInfo
from mygpt2.device import choose
from mygpt2.distributed import World
from mygpt2.errors import UserError
from mygpt2.evals.clustered import clustered_error
from mygpt2.evals.loss import GPTScorer, LossResult, evaluate
from mygpt2.evals.stream import TokenStream, joined, make_stream, split_at
from mygpt2.model import GPT, GPTConfig
from tests.evals.models import EOT, Alone, Bigram, Bytes, Rank, random_bigram, uniform, unigram

CPU = choose("fp32", torch.device("cpu"))


def text(documents: int = 40, before: bool = False, seed: int = 1) -> TokenStream:
    rng = np.random.default_rng(seed)
    made = [rng.integers(0, 256, int(n)).astype(np.uint16) for n in rng.integers(1, 150, documents)]
    tokens, starts = joined(made, Bytes(), before=before)
    return make_stream(tokens, starts, Bytes())


def measure(
    scorer: Bigram | GPTScorer, stream: TokenStream, batch: int = 4, size: int = 1, window: int = 64
) -> LossResult:
    totals: list[np.ndarray] = []
    results = [
        evaluate(scorer, stream, window=window, ranks=Rank(r, size, totals) if size > 1 else Alone(), batch=batch)
        for r in range(size)
    ]
    return results[-1]


def test_a_diverged_models_perplexity_fills_no_lines() -> None:
    found = measure(uniform(), text())
    assert "perplexity 257.00 (" in str(found)
    lost = replace(found, loss=690.8, perplexity=math.exp(690.8))
    assert "perplexity 1.02e+300 (" in str(lost) and len(str(lost)) < 120


def test_a_uniform_model_loses_the_logarithm_of_its_vocabulary() -> None:
    found = measure(uniform(), text())
    assert found.loss == pytest.approx(math.log(257), abs=1e-9) and found.perplexity == pytest.approx(257, abs=1e-6)
    assert found.stderr == pytest.approx(0.0, abs=1e-9)
    assert found.tokens == text().targets


def test_a_unigram_model_loses_the_mean_of_its_logarithms() -> None:
    stream = text()
    probability = np.random.default_rng(2).dirichlet(np.ones(257))
    expected = -np.log(probability[stream.tokens[1:]]).mean()
    assert measure(unigram(probability), stream).loss == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=12), st.integers(1, 64), st.integers(1, 9), st.integers(1, 3),
    st.booleans(),
)  # fmt: skip
def test_every_target_counts_once_and_for_its_own_document(
    lengths: list[int], window: int, batch: int, size: int, before: bool
) -> None:
    rng = np.random.default_rng(sum(lengths))
    made = [rng.integers(0, 256, n).astype(np.uint16) for n in lengths]
    tokens, starts = joined(made, Bytes(), before=before)
    if len(tokens) < 2:
        return
    scorer = random_bigram(257)
    stream = make_stream(tokens, starts, Bytes())
    found = measure(scorer, stream, batch, size, window)
    nll = [0.0] * len(lengths)
    count = [0] * len(lengths)
    owner = 0
    own = np.concatenate([[i] * (n + 1) for i, n in enumerate(lengths)])  # appended: text, then end-of-text
    if before:  # an end-of-text that begins a document ends the one before it
        own = np.concatenate([[0], *[[i] * n + [i] for i, n in enumerate(lengths)]])[: len(tokens)]
    for position in range(1, len(tokens)):
        # the first token of a window follows the last one of the window before: bigrams see no difference
        owner = int(own[position])
        nll[owner] += float(scorer.table[int(tokens[position - 1]), int(tokens[position])])
        count[owner] += 1
    assert found.loss == pytest.approx(sum(nll) / sum(count), abs=1e-12)
    if all(lengths):
        expected = clustered_error(np.array(nll), np.array(count))
        assert found.stderr == (None if expected is None else pytest.approx(expected, abs=1e-12))
        by = found.by_document()
        assert by is not None and by["targets"] == count[: len(by["targets"])] and sum(by["targets"]) == found.tokens
        assert by["nll"] == pytest.approx(nll[: len(by["nll"])], abs=1e-4)
    assert not {"nll", "targets"} & found.to_json().keys(), "an event of a run stays short"


@pytest.fixture(scope="module")
def gpt() -> GPTScorer:
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=257), seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)  # losses that differ from token to token
    return GPTScorer(model, CPU)


def test_batches_and_ranks_do_not_change_a_network_s_result(gpt: GPTScorer) -> None:
    stream = text(60)
    results = [measure(gpt, stream, batch, size) for batch in (1, 7, 64) for size in (1, 2)]
    for found in results[1:]:
        assert found.loss == pytest.approx(results[0].loss, abs=1e-6)
        assert found.stderr == pytest.approx(results[0].stderr, abs=1e-6)
    assert measure(gpt, stream, 7, 1) == measure(gpt, stream, 7, 2)  # to the last bit
    assert results[0].precision == "fp32"


def test_a_network_s_losses_are_those_of_its_logits_and_its_mode_is_kept(gpt: GPTScorer) -> None:
    idx = torch.randint(0, 257, (3, 20), generator=torch.Generator().manual_seed(0))
    targets = torch.randint(0, 257, (3, 20), generator=torch.Generator().manual_seed(1))
    targets[0, :7] = targets[2] = -100
    gpt.model.train()
    found = gpt.nll(idx, targets)
    assert gpt.model.training
    with torch.no_grad():
        log_p = torch.log_softmax(gpt.model.logits(gpt.model(idx)).double(), -1)
    expected = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0].masked_fill(targets < 0, 0.0)
    assert torch.allclose(found, expected, atol=1e-5) and (found[2] == 0).all() and found.dtype == torch.float64


def test_a_world_of_one_rank_serves(gpt: GPTScorer) -> None:
    world = World(RankInfo(), torch.device("cpu"), timeout_s=1)
    assert evaluate(gpt, text(5), window=64, ranks=world).loss == measure(gpt, text(5), 128).loss


def test_bits_per_byte_count_raw_bytes_for_each_of_the_256() -> None:
    """Half of these bytes are no UTF-8 by themselves: decoding would make three bytes of each."""
    tokens = np.concatenate([[EOT], np.arange(256), [EOT]])
    found = measure(uniform(), make_stream(tokens, np.array([1]), Bytes()))
    assert found.bytes == 256
    assert found.bits_per_byte == pytest.approx(257 * math.log2(257) / 256, abs=1e-9)


def test_the_fingerprint_is_the_sha256_of_the_tokens_alone() -> None:
    tokens = np.array([EOT, 104, 105, EOT], dtype=np.uint16)
    stream = make_stream(tokens, np.array([1]), Bytes())
    assert stream.sha256 == hashlib.sha256(bytes([0, 1, 104, 0, 105, 0, 0, 1])).hexdigest()
    assert stream.bytes == 2 and stream.targets == 3


def test_both_layouts_end_a_document_with_its_end_of_text() -> None:
    made = [np.array([1, 2], np.uint16), np.array([3], np.uint16)]
    assert [x.tolist() for x in joined(made, Bytes(), before=False)] == [[1, 2, EOT, 3, EOT], [0, 3]]
    assert [x.tolist() for x in joined(made, Bytes(), before=True)] == [[EOT, 1, 2, EOT, 3], [1, 4]]
    assert [x.tolist() for x in joined(made, Bytes(), before=True, most_targets=2)] == [[EOT, 1, 2], [1]]
    assert [x.tolist() for x in joined(made, Bytes(), before=False, most_documents=1)] == [[1, 2, EOT], [0]]
    for before in (False, True):
        tokens, starts = joined(made, Bytes(), before=before)
        assert split_at(tokens, EOT).tolist() == starts.tolist()


def test_texts_that_cannot_be_measured_say_so() -> None:
    with pytest.raises(UserError, match="no target"):
        make_stream(np.array([5]), np.array([0]), Bytes())
    with pytest.raises(UserError, match="id 300 and tokenizer bytes has 257 ids"):
        make_stream(np.array([5, 300]), np.array([0]), Bytes())
    with pytest.raises(UserError, match="windows of 65 tokens do not fit the model's context of 64"):
        measure(uniform(), text(3), window=65)
    with pytest.raises(UserError, match="not finite"):
        measure(Bigram(np.full((257, 257), np.nan)), text(3))
