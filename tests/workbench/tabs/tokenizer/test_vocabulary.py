"""The vocabulary: every id with its bytes and its merge, found by text, id or bytes, and the same in a file."""

from __future__ import annotations

import csv
import io
import json
import random
from functools import cache

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.base import byte_level_json, printable_bytes, special_token
from mygpt2.tokenizer.patterns import pre_tokenizer
from mygpt2.tokenizer.training.replay import replay
from tests.tokenizer.test_hf import byte_level, llama_like, metaspace, save, word_piece
from tests.workbench.tabs.data.data_runs import HOSTILE, context_of
from workbench.tabs.tokenizer import browse
from workbench.tabs.tokenizer.bench import Bench
from workbench.tabs.tokenizer.vocabulary import Vocabularies, Vocabulary, escaped


@cache
def gpt2() -> Vocabulary:
    return Vocabulary(load_tokenizer("gpt2"))


def pieces(vocabulary, ids):
    return [vocabulary.pieces[id] for id in ids.tolist()]


def test_every_id_has_its_bytes_and_those_of_its_merge():
    v = gpt2()
    assert (len(v), v.merges) == (50257, 50000)
    for id in range(len(v)):
        merge = v.merge(id)
        if merge is None:
            assert id < 256 or id == 50256
        else:
            assert v.pieces[merge.left] + v.pieces[merge.right] == v.pieces[id] and merge.rank == id - 256


def test_a_part_of_the_text_is_found_and_what_is_just_that_goes_first():
    v = gpt2()
    found = v.find("the")
    assert v.pieces[found[0]] == b"the" and found[1:].tolist() == sorted(found[1:].tolist())
    assert sorted(found.tolist()) == [id for id, piece in enumerate(v.pieces) if b"the" in piece]
    assert pieces(v, v.find("\u2423the"))[0] == b" the" == pieces(v, v.find(" the"))[0]
    assert pieces(v, v.find("\u23ce\u23ce"))[0] == b"\n\n"
    assert v.find("\u00fc").tolist() and v.find("\ud800").tolist() == v.find("?").tolist() != []
    assert v.find("no such thing").tolist() == [] and len(v.find("")) == 50257


def test_ids_and_ranges_of_them_are_found():
    v = gpt2()
    assert v.find("262", "id").tolist() == [262]
    assert v.find(" 256-260 ", "id").tolist() == v.find("256..260", "id").tolist() == [*range(256, 261)]
    assert v.find("50256-99999", "id").tolist() == [50256] and v.find("99999", "id").tolist() == []
    assert v.find("9-1", "id").tolist() == []


def test_bytes_are_found_that_are_no_text():
    v = gpt2()
    for query in ("f0 9f 99", "F09F99", r"\xf0\x9f\x99", "0xf0,0x9f,0x99"):
        found = pieces(v, v.find(query, "bytes"))
        assert found and all(b"\xf0\x9f\x99" in piece for piece in found)


UNCLEAR = [("abc", "id"), ("-1", "id"), ("1-2-3", "id"), ("1" * 30, "id"), ("\u0661", "id"), ("f", "bytes"),
           ("xyz1", "bytes"), ("a" * 201, "text")]  # fmt: skip


@pytest.mark.parametrize(("query", "by"), UNCLEAR)
def test_what_cannot_be_searched_for_is_said_in_one_line(query, by):
    with pytest.raises(UserError, match="give") as refused:
        gpt2().find(query, by)
    assert "\n" not in str(refused.value)


def test_rows_are_sorted_by_length_and_use_and_keep_their_order_else():
    v = gpt2()
    ids = v.find("believ")
    for sort, sign in (("shortest", 1), ("longest", -1)):
        keys = [(sign * len(v.pieces[id]), ids.tolist().index(id)) for id in v.ordered(ids, sort).tolist()]
        assert keys == sorted(keys)
    uses = np.zeros(len(v), np.int64)
    uses[ids[3]], uses[ids[1]] = 9, 4
    assert v.ordered(ids, "used", uses)[:3].tolist() == [ids[3], ids[1], ids[0]]


def test_a_tree_of_merges_is_what_a_replay_does():
    v = gpt2()
    (piece,) = replay(v.tokenizer, " unbelievably")
    tree = v.tree(int(v.find(" unbelievably")[0]))
    assert tree[0]["text"] == "\u2423unbelievably" and tree[0]["from"] == 0
    assert sorted(part["rank"] for part in tree if "rank" in part) == sorted(piece.ranks)
    leaves = sorted((part["from"], part["bytes"]) for part in tree if "rank" not in part)
    assert leaves == [(place, 1) for place in range(13)]
    longest = max(range(len(v)), key=lambda id: len(v.pieces[id]))
    assert len(v.tree(longest)) == 2 * len(v.pieces[longest]) - 1 and len(v.tree(0)) == 1


@pytest.mark.parametrize("text", ["plain", " the", "a\nb\t", "\\x", '"q", c;', "\x07", "\u00fc\U0001f642", "=1+1"])
def test_a_token_in_a_file_is_one_line_and_can_be_had_back(text):
    shown = escaped(text.encode())
    assert "\n" not in shown and "\t" not in shown
    assert shown.encode("raw_unicode_escape").decode("unicode_escape") == text if text.isascii() else shown == text


def test_bytes_that_are_no_character_stand_as_escapes():
    assert escaped(b"\xf0\x9f a") == r"\xf0\x9f a" and escaped(b"") == ""


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_the_file_holds_every_id_exactly(delimiter):
    v = gpt2()
    rows = list(csv.reader(io.StringIO(v.as_file(v.find(""), delimiter)), delimiter=delimiter))
    assert rows[0] == ["id", "token", "bytes", "length", "rank", "left", "right"] and len(rows) == 50258
    assert [bytes.fromhex(row[2]) for row in rows[1:]] == v.pieces
    assert rows[263][:2] == ["262", " the"] and rows[263][4] == "6"


@pytest.mark.parametrize("make", [llama_like, metaspace, word_piece, byte_level])
def test_tokenizers_of_other_kinds_are_listed_too(make, tmp_path):
    v = Vocabulary(load_tokenizer(str(save(make(), tmp_path))))
    rows = [v.row(id) for id in range(len(v))]
    assert [row["id"] for row in rows] == [*range(len(v))] and all(row["text"] for row in rows)
    assert all(v.tree(id)[0]["id"] == id for id in range(len(v)))


def test_a_list_of_merges_in_any_order_is_read_once():
    dice, words = random.Random(0), [*printable_bytes()]
    known, merges = set(words), []
    while len(words) < 20_000:
        left, right = dice.choice(words[:4000]), dice.choice(words[:4000])
        if left + right not in known:
            known.add(left + right)
            words.append(left + right)
            merges.append((left, right))
    repeated = (merges[500][0][:1], (merges[500][0] + merges[500][1])[1:])
    content = byte_level_json(merges, pre_tokenizer("gpt2"), [special_token(len(words), "<|endoftext|>")])
    content["model"]["merges"].append(" ".join(repeated))
    v = Vocabulary(_Listed(content, len(words)))
    assert (len(v), v.merges) == (20_001, len(merges)) and v.merge(256 + 500).rank == 500, "the earliest counts"
    assert v.pieces[15_000] in pieces(v, v.find(v.pieces[15_000].hex(), "bytes"))[:1]
    assert v.as_file(v.find("19990-20000", "id"), ",").count("\n") == 12
    kept = Vocabularies()
    assert kept.get(v.tokenizer) is kept.get(v.tokenizer)


class _Listed:
    """A tokenizer as far as a vocabulary looks at it: the engine would prove first that it is a sound one."""

    def __init__(self, content, size):
        self._content, self.vocab_size, self.eot_id, self.fingerprint = json.dumps(content), size + 1, size, "listed"

    def hf_json(self):
        return self._content

    def token_bytes(self):
        alphabet = printable_bytes()
        words = json.loads(self._content)["model"]["vocab"]
        return [*(bytes(alphabet[c] for c in word) for word in words), b""]


# What the page asks


def test_pages_follow_one_another_and_a_token_is_found_on_its_page(tmp_path):
    context, bench = context_of(tmp_path), Bench()
    first, second = (browse.page(context, bench, {"tokenizer": "gpt2:400", "offset": n, "count": 60}) for n in (0, 60))
    assert [row["id"] for row in first["rows"] + second["rows"]] == [*range(120)]
    assert (first["found"], first["size"], first["merges"], first["name"]) == (400, 400, 143, "gpt2:400")
    at = browse.page(context, bench, {"tokenizer": "gpt2:400", "id": 130, "count": 60})
    assert at["offset"] == 120 and 130 in [row["id"] for row in at["rows"]]
    last = browse.page(context, bench, {"tokenizer": "gpt2:400", "offset": 10**9})
    assert last["offset"] == 350 and last["rows"][-1] | {"uses": 0} == {
        "id": 399, "text": "<|endoftext|>", "hex": "", "bytes": 0, "kind": "special", "uses": 0,
    }  # fmt: skip


def test_how_often_a_token_is_used_is_counted_on_the_texts_that_are_compared(tmp_path):
    context, bench = context_of(tmp_path), Bench()
    tokenizer = bench.load(context, "gpt2:400")
    _, texts = bench.texts()
    ids = np.concatenate([tokenizer.encode_array(text) for found in texts.values() for text in found])
    most = browse.page(context, bench, {"tokenizer": "gpt2:400", "sort": "used", "count": 3})["rows"]
    counts = np.bincount(ids, minlength=400)
    assert [row["uses"] for row in most] == sorted(counts.tolist(), reverse=True)[:3]
    shown = browse.token(context, bench, {"tokenizer": "gpt2:400", "id": 262})
    assert shown["row"]["uses"] == counts[262] and shown["tree"][0]["id"] == 262


@pytest.mark.parametrize(
    ("name", "request_", "words"),
    [
        ("vocabulary_page", {"tokenizer": "/etc/passwd"}, "outside the folders"),
        ("vocabulary_page", {"tokenizer": HOSTILE}, "is not there"),
        ("vocabulary_page", {"tokenizer": "gpt2:400", "query": "zz", "by": "bytes"}, "two hexadecimal digits"),
        ("vocabulary_page", {"tokenizer": "gpt2:400", "sort": "luck"}, "sort by id, shortest, longest, used"),
        ("vocabulary_page", {}, "no tokenizer is chosen"),
        ("vocabulary_page", [], "reload it"),
        ("vocabulary_page", {"tokenizer": "gpt2:400", "offset": "x"}, "reload it"),
        ("vocabulary_token", {"tokenizer": "gpt2:400", "id": 400}, "outside 0 to 399"),
        ("vocabulary_token", {"tokenizer": "gpt2:400"}, "reload it"),
        ("vocabulary_file", {"tokenizer": "gpt2:400", "format": "exe"}, "allowed: csv, tsv"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(name, request_, words, tmp_path):
    ask = {each.__name__: each for each in browse.server_functions(context_of(tmp_path), Bench())}[name]
    answer = ask(request_)
    assert list(answer) == ["error"] and words in answer["error"] and "\n" not in answer["error"]


def test_a_file_is_named_after_its_tokenizer_and_holds_what_was_found(tmp_path):
    found = browse.as_file(context_of(tmp_path), Bench(), {"tokenizer": "gpt2:400", "query": "th", "format": "tsv"})
    assert found["name"] == "vocabulary-gpt2-400.tsv"
    assert all("th" in line.split("\t")[1] for line in found["text"].splitlines()[1:])
