"""lm-evaluation-harness itself, on the same small model and items, gives the numbers of our harness protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt2.device import choose
from mygpt2.evals.hellaswag import score, summary, tabulate
from mygpt2.evals.items import load_items
from mygpt2.evals.loss import GPTScorer
from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import load_tokenizer
from tests.evals.made_up import write_jsonl
from tests.evals.models import Alone


def test_the_harness_gives_the_same_accuracies_and_likelihoods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed (pip install lm-eval)")
    from lm_eval.api.model import TemplateLM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.hellaswag.utils import process_docs

    tokenizer = load_tokenizer("gpt2:1000")
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=56, vocab_size=1000), seed=6).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5.0)

    class Ours(TemplateLM):
        """The model as the harness sees it: whole rows, one at a time, from plain logits."""

        eot_token_id = tokenizer.eot_id
        backend = "causal"

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
            return tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
            found = []
            for _, context, continuation in requests:
                row = torch.tensor((context + continuation)[-(56 + 1) :])
                with torch.no_grad():
                    log_p = torch.log_softmax(model.logits(model(row[None, :-1]))[0].double(), -1)
                own = log_p[torch.arange(len(row) - 1), row[1:]][-len(continuation) :]
                found.append((float(own.sum()), False))
            return found

        def loglikelihood_rolling(self, requests: Any, **_: Any) -> Any:
            raise NotImplementedError

        def generate_until(self, requests: Any, **_: Any) -> Any:
            raise NotImplementedError

    path = write_jsonl(tmp_path / "validation.jsonl", 40)
    task = {
        "task": "hellaswag_here", "dataset_path": "json", "dataset_kwargs": {"data_files": {"validation": str(path)}},
        "validation_split": "validation", "output_type": "multiple_choice", "process_docs": process_docs,
        "doc_to_text": "{{query}}", "doc_to_target": "{{label}}", "doc_to_choice": "choices",
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")],
    }  # fmt: skip
    theirs = simple_evaluate(
        model=Ours(), tasks=[task], bootstrap_iters=0, log_samples=True,
        task_manager=TaskManager(include_defaults=False),  # else it reads thousands of descriptions of tasks
    )  # fmt: skip
    assert theirs is not None

    items = load_items(str(path), tmp_path)
    table = tabulate(items, tokenizer, 56)
    scorer = GPTScorer(model, choose("fp32", torch.device("cpu")))
    nll = score(scorer, table, ranks=Alone())
    ours = summary(table, nll)["harness"]
    result = theirs["results"]["hellaswag_here"]
    assert ours["acc"] == pytest.approx(result["acc,none"], abs=1e-12)
    assert ours["acc_norm"] == pytest.approx(result["acc_norm,none"], abs=1e-12)
    for sample in theirs["samples"]["hellaswag_here"]:
        likelihoods = [float(answer[0]) for answer in sample["filtered_resps"]]
        assert nll["harness"][sample["doc_id"]].tolist() == pytest.approx([-x for x in likelihoods], abs=1e-4)
