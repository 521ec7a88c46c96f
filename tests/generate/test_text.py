"""A stream's pieces are the text: whole characters only, nothing of a stop string, nothing lost."""

from __future__ import annotations

import random

import pytest

from mygpt2.generate.text import TextStream


def pieces(data: list[bytes], *stop: str) -> tuple[list[str], bool]:
    stream = TextStream(stop)
    out = [stream.push(piece) for piece in data]
    return [*out, stream.end()], stream.stopped


def test_a_character_split_over_tokens_comes_whole_with_its_last_byte() -> None:
    out, _ = pieces([b"a\xf0", b"\x9f\x98", b"\x80b", b"\xe4\xbd"])
    assert out == ["a", "", "\U0001f600b", "", "\ufffd"]


@pytest.mark.parametrize(
    ("data", "stop", "text", "stopped"),
    [
        ([b"one ST", b"OP two"], ["STOP"], "one ", True),
        ([b"one ST", b"ONE"], ["STOP"], "one STONE", False),
        ([b"one ST"], ["STOP"], "one ST", False),
        ([b"aaaa", b"ab"], ["aaab"], "aa", True),
        ([b"x\n", b"\ny"], ["\n\n"], "x", True),
        ([b"ab", b"cd"], ["cd", "bc"], "a", True),
        ([b"\xc3", b"\xa9."], ["é"], "", True),
    ],
)
def test_a_stop_string_ends_the_text_before_it_however_tokens_cut_it(
    data: list[bytes], stop: list[str], text: str, stopped: bool
) -> None:
    out, was_stopped = pieces(data, *stop)
    assert ("".join(out), was_stopped) == (text, stopped)


def test_nothing_follows_a_stop_string() -> None:
    stream = TextStream(["."])
    assert stream.push(b"end. more") == "end" and stream.push(b"even more") == "" and stream.end() == ""


def test_pieces_of_any_cut_are_the_whole_text_up_to_the_stop_string() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        data = bytes(rng.choice(b"ab\n.\xf0\x9f\x98\x80\xc3\xa9\xff") for _ in range(rng.randrange(30)))
        stop = "".join(rng.choice("ab\n.") for _ in range(rng.randrange(1, 4)))
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(8)))
        parts = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        out, _ = pieces(parts, stop)
        assert "".join(out) == data.decode("utf-8", "replace").partition(stop)[0]
