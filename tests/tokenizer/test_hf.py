"""A Hugging Face tokenizer.json gives its own ids, and treats every document as ordinary text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from tests.tokenizer.test_gpt2 import PROSE, strange_texts

CORPUS = [PROSE, "the cat sat on the mat and the dog sat on the log. " * 20]


def byte_level(vocab_size: int = 400, special: str = "<|endoftext|>") -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def save(tokenizer: tokenizers.Tokenizer, folder: Path, **config: Any) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder / "tokenizer.json"


def test_ids_are_the_librarys_and_a_folder_will_do(tmp_path: Path) -> None:
    theirs = byte_level()
    ours = load_tokenizer(str(save(theirs, tmp_path)))
    assert load_tokenizer(str(tmp_path)).fingerprint == ours.fingerprint
    for text in [PROSE, CORPUS[1], "", "\u4f60\u597d"]:
        assert ours.encode(text) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text
    assert ours.vocab_size == theirs.get_vocab_size() and ours.eot_id == theirs.token_to_id("<|endoftext|>")


def test_gpt2_through_the_library_is_gpt2(tmp_path: Path) -> None:
    gpt2 = load_tokenizer("gpt2:8192")
    theirs = tokenizers.Tokenizer.from_str(gpt2.hf_json())
    theirs.add_special_tokens(["<|endoftext|>"])
    ours = load_tokenizer(str(save(theirs, tmp_path)))
    assert (ours.vocab_size, ours.eot_id) == (8192, 8191)
    assert ours.token_bytes() == gpt2.token_bytes()
    for text in [PROSE, *strange_texts(300)]:
        assert ours.encode(text) == gpt2.encode(text), ascii(text)


def test_special_strings_in_a_text_are_ordinary_and_nothing_is_added(tmp_path: Path) -> None:
    theirs = byte_level()
    theirs.add_special_tokens(["<|im_start|>"])
    theirs.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    theirs.enable_truncation(4)
    theirs.enable_padding(length=3)
    ours = load_tokenizer(str(save(theirs, tmp_path)))
    text = "a<|endoftext|>b <|im_start|>c" + PROSE
    ids = ours.encode(text)
    assert not {ours.eot_id, theirs.token_to_id("<|im_start|>")} & {*ids}
    assert ours.decode(ids) == text


def test_a_vocabulary_that_holds_the_end_of_text_as_a_word_still_never_yields_it(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((c, -3.0) for c in "\u2581abc</s>")]
    theirs = tokenizers.Tokenizer(models.Unigram([*dict(pieces).items()], unk_id=0, byte_fallback=False))
    theirs.pre_tokenizer = pre_tokenizers.Metaspace()
    theirs.decoder = decoders.Metaspace()
    ours = load_tokenizer(str(save(theirs, tmp_path)))
    assert ours.eot_id == 1 and 1 in theirs.encode("ab</s>c").ids  # the trap is set
    ids = ours.encode("ab</s>c</s>")
    assert 1 not in ids and ours.decode(ids).replace(" ", "") == "ab</s>c</s>"


def test_odd_text_and_odd_ids_do_not_fail(tmp_path: Path) -> None:
    ours = load_tokenizer(str(save(byte_level(), tmp_path)))
    for text in strange_texts(200):
        assert ours.decode(ours.encode(text)) == text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert ours.decode([ours.vocab_size, 10**9, -5]) == ""
    assert ours.encode_batch([]) == [] and ours.encode_batch([""])[0].dtype == np.uint16
    assert ours.token_bytes()[ours.eot_id] == b""


def test_end_of_text_is_found_by_name_or_in_the_config(tmp_path: Path) -> None:
    assert load_tokenizer(str(save(byte_level(special="</s>"), tmp_path))).decode([0]) == "<|endoftext|>"
    path = save(byte_level(special="<end>"), tmp_path, eos_token={"content": "<end>"})
    assert load_tokenizer(str(path)).eot_id == 0
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="has no end-of-text token"):
        load_tokenizer(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1, 2]", 'has no "model" object'),
        (b'{"model": {"type": "Nonsense"}}', "not a tokenizer.json the tokenizers library reads"),
    ],
)
def test_files_that_are_no_tokenizer_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json is not a file"):
        load_tokenizer(str(tmp_path))
