"""A text as its tokens, its merges, and tokenizers compared: the ids of the command line, every boundary to be seen."""

from __future__ import annotations

import itertools
import json
import re

import gradio as gr
import pytest

from mygpt2.errors import UserError
from mygpt2.generate import Token
from mygpt2.tokenizer import load_tokenizer
from tests.tokenizer.test_hf import byte_level, llama_like, metaspace, save, word_piece
from tests.workbench.tabs.data.data_runs import context_of
from workbench import html
from workbench.page import Act, Page
from workbench.tabs.sample import duet
from workbench.tabs.tokenizer import bench as answers
from workbench.tabs.tokenizer import kinds, merges, tab
from workbench.tabs.tokenizer.bench import Bench
from workbench.tabs.tokenizer.tokens import MOST_CHARS, characters, coloured, tokens_of
from workbench.tokenizers import Tokenizers, tokenizer_of

TEXT = "It's naïve, 你好 🙂🙂 <|endoftext|>\n\n\tdon''t   3.14159 <img src=x onerror=alert(1)>\x07 e\u0301"
KINDS = re.compile(r"<tr><td>([^<]*)<small>")
IDS = re.compile(r'data-t="(\d+) ')


@pytest.mark.parametrize("name", ["gpt2", "gpt2:300"])
def test_ids_are_those_of_the_command_line(name, mygpt2, tmp_path):
    printed = json.loads(mygpt2("tokenizer", "inspect", TEXT, "--tokenizer", name, "--json").out)
    shown = answers.look(context_of(tmp_path), Bench(), name, [], TEXT)
    assert [int(i) for i in IDS.findall(shown)] == printed["ids"]
    assert f"{len(printed['ids']):,} tokens" in shown and f"{len(TEXT.encode()):,} bytes" in shown


def test_totals_are_those_of_the_text():
    found = tokens_of(load_tokenizer("gpt2"), TEXT)
    assert b"".join(found.pieces) == TEXT.encode() and found.bytes == len(TEXT.encode())


def test_another_tokenizer_is_held_against_gpt2(tmp_path):
    shown = answers.look(context_of(tmp_path), Bench(), "gpt2:300", [], "The river and the light")
    assert "GPT-2 takes 5 (+" in shown


def test_each_chosen_tokenizer_has_a_part_of_its_own_and_one_that_is_wrong_leaves_the_others(tmp_path):
    shown = answers.look(context_of(tmp_path), Bench(), "gpt2", ["gpt2:300", "nowhere", "gpt2"], "The river")
    assert re.findall(r'data-spec="([^"]*)"', shown) == ["gpt2", "gpt2:300"]
    assert shown.count('class="wb-problem"') == 1 and "nowhere" in shown


def test_a_line_goes_on_below_where_the_text_does():
    shown = coloured(tokens_of(load_tokenizer("gpt2"), "one\n\ntwo"))
    assert shown.count("<br>") == 2 and "\n" not in shown and shown.count("\u23ce</span><br>") == 2


def test_the_text_comes_back_from_the_boxes_and_markup_in_it_is_text():
    tokens = coloured(tokens_of(load_tokenizer("gpt2"), TEXT))
    assert "<img" not in tokens and "&lt;" in tokens
    boxes = re.findall(r'<span class="wb-tok wb-tok-(\d)"', tokens)
    assert all(a != b for a, b in itertools.pairwise(boxes))
    assert tokens.count('tabindex="0"') == 1  # one stop of the keyboard; arrow keys walk inside


def test_parts_of_a_character_are_shown_as_bytes():
    tokens = coloured(tokens_of(load_tokenizer("gpt2:257"), "🙂"))
    assert re.findall(r'data-t="\d+ (..)"', tokens) == ["f0", "9f", "99", "82"]
    assert tokens.count("wb-byte") == 4 and r"\xf0" in tokens
    assert characters(b"a\n\t\x07\xff") == "a\u23ce\n\u21e5\t\\x07\\xff"


def test_a_long_text_is_cut_and_says_so():
    found = tokens_of(load_tokenizer("gpt2:257"), "a" * (MOST_CHARS + 7))
    assert (len(found.ids), found.cut) == (MOST_CHARS, 7)
    assert "7 further characters are left out" in coloured(found)


@pytest.mark.parametrize("text", ["", None])
def test_without_a_text_it_says_what_to_do(text, tmp_path):
    assert "Type or paste" in answers.look(context_of(tmp_path), Bench(), "gpt2", [], text)


@pytest.mark.parametrize("spec", ["", "nowhere", "../secret", "/etc/passwd", "gpt2:9", "gpt2:../x", "link", "broken"])
def test_what_is_no_tokenizer_inside_the_roots_is_refused_in_its_place(spec, tmp_path):
    context = context_of(tmp_path)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "tokenizer.json").write_text("{}")
    (context.data_roots[0] / "link").symlink_to(tmp_path / "secret")
    (context.data_roots[0] / "broken").mkdir()
    (context.data_roots[0] / "broken" / "tokenizer.json").write_text("{")
    shown = answers.look(context, Bench(), spec, [], "text")
    assert "wb-tok-sum" not in shown and 'class="wb-problem"' in shown
    assert 'class="wb-problem"' in answers.compared(context, Bench(), spec or "nowhere", [])


def test_a_link_to_a_file_outside_the_roots_is_refused(tmp_path):
    context = context_of(tmp_path)
    (tmp_path / "secret.json").write_text("{}")
    folder = context.data_roots[0] / "t"
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UserError, match="outside the folders"):
        tokenizer_of(context, "t")


def test_a_tokenizer_that_changed_on_disk_is_loaded_again(tmp_path):
    path = tmp_path / "tokenizer.json"
    kept, sizes = Tokenizers(), []
    for size in (300, 310):
        content = json.loads(load_tokenizer(f"gpt2:{size}").hf_json())
        content["added_tokens"] = [{"id": size - 1, "content": "<|endoftext|>", "special": True, "single_word": False,
                                    "lstrip": False, "rstrip": False, "normalized": False}]  # fmt: skip
        path.write_text(json.dumps(content))
        sizes.append(kept.get(str(path)).vocab_size)
    assert sizes == [300, 310]


# Merges


@pytest.mark.parametrize("name", ["gpt2", "gpt2:400"])
def test_the_last_state_of_a_replay_is_the_encoding_and_each_step_joins_two(name):
    tokenizer, text = load_tokenizer(name), " unbelievably naïve tokens 🙂"
    told = merges.story(tokenizer, text)
    flat = [[part for parts in told.at(step) for part in parts] for step in range(told.steps + 1)]
    assert [len(parts) for parts in flat] == list(range(len(text.encode()), len(text.encode()) - told.steps - 1, -1))
    assert flat[-1] == [tokenizer.decode_bytes([i]) for i in tokenizer.encode(text)]
    assert all(b"".join(parts) == text.encode() for parts in flat)


def test_merges_are_replayed_in_the_order_in_which_they_were_learnt():
    told = merges.story(load_tokenizer("gpt2"), "the theory of the river")
    ranks = [rank for _, rank in told.path]
    assert ranks == sorted(ranks) and told.steps > 10


def test_the_part_just_joined_is_set_apart():
    told = merges.story(load_tokenizer("gpt2"), " the")
    assert "wb-new" not in merges.shown(told, 0)
    for step in range(1, told.steps + 1):
        shown = merges.shown(told, step)
        piece, place, _ = told.joined(step)
        assert shown.count("wb-new") == 1
        assert told.at(step)[piece][place] not in told.at(step - 1)[piece]
    assert merges.shown(told, 10**6) == merges.shown(told, told.steps)


def test_replay_by_buttons_and_slider(tmp_path):
    context, bench = context_of(tmp_path), Bench()

    def after(act, word, at, waited=False):
        return answers.replayed(context, bench, Act(act, waited), "gpt2", word, at)

    shown, slider = after("begin", " the", 2)
    assert (slider.maximum, slider.value) == (3, 0) and "4 bytes in 1 pieces" in shown
    shown, slider = after("on", " the", 0)
    assert slider.value == 1 and "merge 1 of" in shown
    assert after("back", " the", 0)[1].value == 0
    assert after("at", " the", 2)[1] == gr.skip(), "it is moved just now"
    assert after("at", " the", 2, waited=True)[1].value == 2, "which the answer before it has changed"
    assert "Type a word" in after("begin", "", 0)[0]


def test_a_text_too_long_to_watch_is_refused():
    with pytest.raises(UserError, match="up to 400"):
        merges.story(load_tokenizer("gpt2:257"), "a" * 401)


# Comparison


def test_the_comparison_is_that_of_the_command_line(mygpt2, tmp_path):
    folder = tmp_path / "root" / "prose"
    folder.mkdir(parents=True)
    lines = [json.dumps({"text": f"Document {n} about the river and the light of day {n * n}."}) for n in range(2000)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    words = ["tokenizer", "compare", "--tokenizer", "gpt2:300", "gpt2:1000", "--source", str(folder), "--json"]
    printed = json.loads(mygpt2(*words).out)
    context, bench = context_of(tmp_path), Bench()
    without = answers.compared(context, bench, "gpt2:300", ["gpt2:1000"])
    assert KINDS.findall(without) == [row["kind"] for row in printed["rows"] if row["kind"] != "English prose"]
    *told, said = answers.read_prose(context, bench, str(folder))
    last = answers.compared(context, bench, "gpt2:300", ["gpt2:1000"])
    assert KINDS.findall(last) == [row["kind"] for row in printed["rows"]] and "held-out documents" in said
    for row in printed["rows"]:
        assert f"{row['bytes_per_token']['gpt2:300']:.2f} <span" in last and f"{row['bytes']:,} bytes" in last
    assert any("held-out prose" in str(line) for line in told)
    assert len(list(answers.read_prose(context, bench, str(folder)))) == 1, "read once"
    assert "English prose" in answers.compared(context, bench, "gpt2:300", [])


def test_a_bar_is_as_long_as_its_number(tmp_path):
    shown = answers.compared(context_of(tmp_path), Bench(), "gpt2:300", [])
    found = re.findall(r"([\d.]+)(?: <span[^<]*</span>)?<i class=\"wb-bpt[^>]*width:([\d.]+)%", shown)
    most = max(float(value) for value, _ in found)
    assert len(found) == 2 * len(KINDS.findall(shown)) and max(float(width) for _, width in found) == 100
    assert all(abs(float(value) / most - float(width) / 100) < 0.01 for value, width in found)


def test_a_source_without_held_out_text_says_so_and_leaves_the_comparison(tmp_path):
    context, bench = context_of(tmp_path), Bench()
    (context.data_roots[0] / "a.txt").write_text("one small text")
    with pytest.raises(UserError):
        list(answers.read_prose(context, bench, "a.txt"))
    shown = answers.compared(context, bench, "gpt2:300", [])
    assert "Python code" in shown and "Greek" in shown and "English prose" not in shown


def test_too_many_tokenizers_are_refused():
    with pytest.raises(UserError, match="at most 6"):
        kinds.chosen([f"gpt2:{n}" for n in range(300, 310)])


def test_a_request_fills_the_text():
    page = type("P", (), {"request": staticmethod(Page.request)})
    text, tokenizer = tab.asked(page, Page.ask(text="<b>hello</b>"))
    assert text == "<b>hello</b>" and tokenizer == gr.skip()
    assert isinstance(html.escape(text), str)


@pytest.mark.parametrize("make", [llama_like, metaspace, word_piece, byte_level])
def test_tokens_read_as_the_text_does_whichever_way_a_tokenizer_spells_spaces(make, tmp_path, mygpt2):
    """Decoded each alone, every word of such a tokenizer lost the space before it."""
    tokenizer, text = load_tokenizer(str(save(make(), tmp_path))), "the cat sat on the dog on the mat"
    found = tokens_of(tokenizer, text)
    assert b"".join(found.pieces).decode().lstrip() == text
    printed = json.loads(mygpt2("tokenizer", "inspect", text, "--tokenizer", str(tmp_path), "--json").out)
    assert "".join(token[1:-1] for token in printed["tokens"]).lstrip() == text
    ids = tokenizer.encode(text)
    drawn = Token(0, ids[-1], "", -0.5, 1, tuple((id, -1.0) for id in ids), None, found.pieces[-1])
    listed = {id: bytes.fromhex(data) for id, data, _ in duet._token(drawn, tokenizer, ids[:-1])["likeliest"]}
    assert listed[ids[-1]] == found.pieces[-1], "in the list of the likeliest as in the text"
