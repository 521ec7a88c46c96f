"""What the page is told of a generation: tokens by their count, bytes where a token is no text, totals that add up."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from mygpt2.errors import UserError
from workbench.tabs.sample.generation import Generation, Pane, as_text, joined
from workbench.tabs.sample.settings import Settings

LIKELY = [[1, "61", -0.5], [2, None, -1.0]]


def token(pane: int, data: bytes | None, logprob: float = -1.0, id: int = 1) -> dict[str, Any]:
    return {"event": "token", "pane": pane, "token": id, "bytes": None if data is None else data.hex(),
            "logprob": logprob, "rank": 1, "likeliest": LIKELY, "seconds": 0.5}  # fmt: skip


def generation(*events: dict[str, Any]) -> Generation:
    made = Generation("g", [("spec", "a"), ("spec", "b")], "Hi", Settings())
    for event in ({"event": "start"}, *events):
        made.hear(event)
    return made


@pytest.mark.parametrize("text", ["plain", "né", "日本語", "a😀b", "👨‍👩‍👧"])
def test_bytes_of_any_split_give_the_text_back(text: str) -> None:
    for size in (1, 2, 3):
        raw, got, begun = text.encode(), "", b""
        for at in range(0, len(raw), size):
            piece, begun, _ = joined(begun, raw[at : at + size])
            got += piece
        assert got == text and begun == b""


def test_bytes_that_are_no_text_are_shown_and_hold_nothing_back() -> None:
    assert joined(b"", b"\x80") == ("�", b"", True)
    assert joined(b"\xf0\x9f", b"a") == ("�a", b"", True)
    assert joined(b"", b"\xff\xff") == ("��", b"", True)


def test_a_token_with_half_a_character_is_shown_as_its_bytes() -> None:
    smile = "😀".encode()
    shown = generation(token(0, b"a"), token(0, smile[:2]), token(0, smile[2:])).since([0, 0])["panes"][0]["tokens"]
    assert [(item["t"], item.get("b")) for item in shown] == [("a", None), ("", "f0 9f"), ("😀", "98 80")]


def test_a_control_character_is_shown_as_its_bytes_and_a_line_end_is_not() -> None:
    shown = generation(token(0, b"\x01"), token(0, b"\n")).since([0, 0])["panes"][0]["tokens"]
    assert [(item["t"], item.get("b")) for item in shown] == [("", "01"), ("\n", None)]


def test_the_page_gets_each_token_once_by_its_count() -> None:
    made = generation(token(0, b"a"), token(1, b"b"), token(0, b"c"))
    assert [len(pane["tokens"]) for pane in made.since([0, 0])["panes"]] == [2, 1]
    assert [pane["tokens"] for pane in made.since([2, 1])["panes"]] == [[], []]
    assert [item["t"] for item in made.since([1, 1])["panes"][0]["tokens"]] == ["c"]
    assert made.since([-5, 10**9])["panes"][0]["tokens"]  # whatever a page says


def test_the_total_is_the_sum_of_the_tokens_and_bits_are_per_byte_of_text() -> None:
    pane = Pane("spec", "a")
    for data, logprob in ((b"abc", -0.1), (b"de", -2.3), (None, -0.7)):
        pane.add(token(0, data, logprob))
    assert pane.nats == math.fsum([0.1, 2.3, 0.7]) == math.fsum(item["n"] for item in pane.shown)
    assert pane.size == 5 and pane.bits_per_byte == pytest.approx(3.1 / math.log(2) / 5)
    assert Pane("spec", "a").bits_per_byte is None


def test_a_stopped_one_says_how_many_tokens_came_after_the_request() -> None:
    made = generation(token(0, b"a"))
    made.asked_to_stop = True
    made.hear({"event": "done", "after_stop": 1})
    assert (made.state, made.since([0, 0])["after_stop"]) == ("stopped", 1)


def test_what_is_saved_is_what_the_command_line_writes_and_more() -> None:
    end = {"event": "end", "pane": 0, "finish": "stop", "text": "a"}
    first, second = generation(token(0, b"a", -0.5, 7), end).records()
    assert (first["text"], first["ids"], first["logprobs"], first["finish"]) == ("a", [7], [-0.5], "stop")
    assert first["tokens"] == ["a"] and second["tokens"] == []
    assert second["text"] == "" and json.dumps([first, second])
    assert "--- a: seed 1337, 1 tokens, stop\nHia\n" in as_text([first])


def test_saved_tokens_are_strings_beside_their_ids_also_where_they_are_no_text() -> None:
    smile = "😀".encode()
    record = generation(*(token(0, data) for data in (b" an", smile[:2], "né".encode(), None))).records()[0]
    assert record["tokens"] == [" an", "\\xf0\\x9f", "né", "<|endoftext|>"]
    assert len(record["tokens"]) == len(record["ids"]) == len(record["logprobs"])


def test_a_token_that_is_not_there_is_refused() -> None:
    for pane, at in ((0, 1), (2, 0), (-1, 0), (0, -1)):
        with pytest.raises(UserError, match="no such token"):
            generation(token(0, b"a")).token(pane, at)
