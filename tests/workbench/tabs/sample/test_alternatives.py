"""The ten likeliest of two models at one token: always of one context, and it is said whose."""

from __future__ import annotations

from typing import Any

import pytest

from mygpt2.errors import UserError
from workbench.tabs.sample.alternatives import alternatives
from workbench.tabs.sample.client import Sampler
from workbench.tabs.sample.generation import Generation
from workbench.tabs.sample.settings import Settings
from workbench.tabs.sample.tab import server_functions


class Asked:
    """A desk that answers every question the same, and remembers it."""

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []
        self.dropped = 0
        self.token: list[Any] | None = None

    def start(self, generation: Generation) -> None:
        self.generation = generation
        generation.hear({"event": "start"})

    def seen(self, generation: Generation) -> None: ...

    def before(self, generation: Generation) -> int:
        return 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self.questions.append(question)
        more = {"token": self.token} if self.token else {}
        return {"likeliest": [[9, "62", -0.25]], "seen": 3, "context": 4, "dropped": self.dropped, **more}


def token(pane: int, id: int, data: bytes | None = b"a", rank: int = 1) -> dict[str, Any]:
    likeliest = [[id, None if data is None else data.hex(), -1.0], [8, "01", -2.0], [7, None, -3.0]]
    drawn = likeliest[0][1]
    likeliest = likeliest[rank > len(likeliest) :]
    return {"event": "token", "pane": pane, "token": id, "bytes": drawn, "logprob": -1.0, "rank": rank,
            "likeliest": likeliest, "seconds": 0.1}  # fmt: skip


def begun(pane: int, fingerprint: str = "same", block_size: int = 4) -> dict[str, Any]:
    return {"event": "begin", "pane": pane, "name": f"m{pane}", "prompt_ids": [1, 2], "fingerprint": fingerprint,
            "block_size": block_size}  # fmt: skip


def drawn(*events: dict[str, Any], fingerprint: str = "same") -> tuple[Sampler, Asked, Generation]:
    desk = Asked()
    sampler = Sampler(lambda device: desk)  # type: ignore[arg-type, return-value]
    generation = sampler.start([("spec-a", "A"), ("spec-b", "B")], "Hi", Settings())
    for event in (begun(0), begun(1, fingerprint), *events):
        generation.hear(event)
    return sampler, desk, generation


def test_where_both_wrote_the_same_the_lists_are_what_each_drew_from() -> None:
    sampler, desk, generation = drawn(token(0, 5), token(1, 5), token(0, 6), token(1, 7))
    found = alternatives(sampler, generation.id, 0, 1)
    assert desk.questions == [] and found["differ"] is False and found["context"] == "Hia"
    assert [one["rows"][0]["id"] for one in found["lists"]] == [6, 7]
    assert [row["chosen"] for row in found["lists"][0]["rows"]] == [True, False, False]


def test_where_they_differ_the_other_is_asked_about_the_clicked_ones_tokens() -> None:
    sampler, desk, generation = drawn(token(0, 5), token(1, 6, b"c"), token(0, 7), token(1, 8))
    found = alternatives(sampler, generation.id, 1, 1)
    assert desk.questions == [{"do": "likeliest", "model": "spec-a", "fingerprint": "same", "ids": [1, 2, 6],
                               "text": b"Hic".hex(), "token": 8}]  # fmt: skip
    assert found["differ"] is True and (found["whose"], found["context"]) == ("B", "Hic")
    assert [one["label"] for one in found["lists"]] == ["A", "B"] and found["lists"][0]["rows"][0]["id"] == 9
    assert found["lists"][0]["note"] == "sees the last 3 of 4 tokens"


def test_a_token_that_is_none_of_the_likeliest_is_the_last_row_with_its_rank_in_both() -> None:
    sampler, desk, generation = drawn(token(0, 5, b"x", rank=34), token(1, 6))
    desk.token = [5, "78", -9.0, 220]
    own, other = (found["rows"] for found in alternatives(sampler, generation.id, 0, 0)["lists"])
    assert [(row["rank"], row["chosen"]) for row in own] == [(1, False), (2, False), (34, True)]
    assert own[-1]["t"] == "x" and own[-1]["n"] == 1.0
    assert [(row["rank"], row["chosen"]) for row in other] == [(1, False), (220, True)]
    assert desk.questions[0]["token"] == 5


def test_another_tokenizer_is_said() -> None:
    sampler, desk, generation = drawn(token(0, 5), token(1, 5), fingerprint="other")
    desk.dropped = 2
    note = alternatives(sampler, generation.id, 0, 0)["lists"][1]["note"]
    assert "4 tokens of its own tokenizer" in note and "beginning of a character" in note


def test_rows_are_text_or_bytes_or_the_end() -> None:
    sampler, _, generation = drawn(token(0, 5, "é".encode()[:1]))
    own = alternatives(sampler, generation.id, 0, 0)["lists"][0]["rows"]
    assert [(row.get("t"), row.get("b"), row.get("e")) for row in own] == [
        (None, "c3", None), (None, "01", None), (None, None, True),
    ]  # fmt: skip


def test_a_context_beyond_the_window_and_a_model_with_a_problem_are_said() -> None:
    sampler, _, generation = drawn(*[token(0, 5) for _ in range(6)], {"event": "problem", "pane": 1, "text": "broken"})
    found = alternatives(sampler, generation.id, 0, 5)
    assert found["lists"][0]["note"] == "sees at most the last 4 of 7 tokens"
    assert found["lists"][1] == {"label": "B", "rows": [], "note": "broken"}
    with pytest.raises(UserError, match="no such token"):
        alternatives(sampler, generation.id, 0, 6)


@pytest.mark.parametrize("request_", [None, [], {}, {"id": 1}, {"id": "x", "pane": "y", "at": 0}, "text", {"id": [1]}])
def test_whatever_a_page_asks_gets_a_word_and_no_traceback(request_: Any) -> None:
    for function in server_functions(Sampler()):
        answer = function(request_)
        assert list(answer) == ["error"] and "\n" not in answer["error"]
