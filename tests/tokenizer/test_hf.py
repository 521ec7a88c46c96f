"""A Hugging Face tokenizer.json gives its own ids, and treats every document as ordinary text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from mygpt2.errors import UserError
from mygpt2.evals.stream import joined, make_stream
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


def llama_like(vocab_size: int = 400) -> tokenizers.Tokenizer:
    """Spaces spelled as U+2581, one put before every text, bytes for what is unknown: as Llama 2's is."""
    theirs = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    theirs.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    theirs.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[*special, *(f"<0x{i:02X}>" for i in range(256))], show_progress=False
    )
    theirs.train_from_iterator(CORPUS, trainer)
    content = json.loads(theirs.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def metaspace() -> tokenizers.Tokenizer:
    """As T5's and Mistral's newer ones."""
    theirs = tokenizers.Tokenizer(models.Unigram())
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    theirs.train_from_iterator(CORPUS, trainer)
    return theirs


def word_piece() -> tokenizers.Tokenizer:
    """As BERT's: tokens are joined by spaces unless they begin with ##."""
    theirs = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.pre_tokenizer, theirs.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]", "</s>"], show_progress=False)
    theirs.train_from_iterator(CORPUS, trainer)
    return theirs


@pytest.mark.parametrize("make", [llama_like, metaspace, word_piece, byte_level])
def test_a_continuation_keeps_its_spaces(make: Callable[[], tokenizers.Tokenizer], tmp_path: Path) -> None:
    ours = load_tokenizer(str(save(make(), tmp_path)))
    text = "the cat sat on the dog on the mat"
    ids = ours.encode(text)
    for cut in (len(ours.encode("the cat")), len(ids) - 1):
        drawn: list[int] = ids[:cut]
        added = b""
        for id in ids[cut:]:
            added += ours.continuation(id, drawn)
            drawn.append(id)
        assert ours.decode(ids[:cut]).lstrip() + added.decode() == text
    if make is not word_piece:
        assert ours.decode(ids[:3]) + ours.decode(ids[3:]) == ours.decode(ids)


def test_the_space_a_tokenizer_puts_before_a_text_is_no_byte_of_it(tmp_path: Path) -> None:
    ours = load_tokenizer(str(save(llama_like(), tmp_path)))
    texts = ["the cat sat", "on the mat", "\u4f60 dog"]
    tokens, starts = joined((ours.encode_array(text) for text in texts), ours, before=True)
    assert make_stream(tokens, starts, ours).bytes == sum(len(text.encode()) for text in texts)


def changed(**parts: Any) -> dict[str, Any]:
    return json.loads(byte_level().to_str()) | parts


def regex(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def growing(times: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaa"}
    return {"type": "Sequence", "normalizers": [step] * times}


HOSTILE: dict[str, tuple[Any, str]] = {
    "an empty file": (b"", "is not JSON"),
    "deep brackets": (b"[" * 200_000, "is not JSON"),
    "deep objects": (b'{"model":' * 50_000, "is not JSON"),
    "UTF-16": ('{"model": {}}'.encode("utf-16"), "is not JSON"),
    "a number": (b"7", 'no "model" object'),
    "a pickle": (b"\x80\x04\x95\x0b", "is not JSON"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", "is not JSON"),
    "a negative id": (lambda: changed(model={"type": "BPE", "vocab": {"a": -1}, "merges": []}), "not a tokenizer.json"),
    "a text for an id": (lambda: changed(model={"type": "BPE", "vocab": {"a": "1"}, "merges": []}), "not a tokenizer"),
    "an enormous id": (
        lambda: changed(added_tokens=[], model={"type": "BPE", "vocab": {"</s>": 0, "a": 4_000_000_000}, "merges": []}),
        "such gaps are damage|not a tokenizer.json",
    ),
    "a merge of nothing": (lambda: changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}), "not a"),
    "merges of numbers": (lambda: changed(model={"type": "BPE", "vocab": {"a": 0}, "merges": [1]}), "not a tokenizer"),
    "a broken pattern": (lambda: changed(pre_tokenizer=regex("(")), "cannot be used|not a tokenizer.json"),
    "a pattern without end": (lambda: changed(pre_tokenizer=regex(r"(a|a|b|ab)*$|(\s*\s*)*x")), "cannot be used"),
    "a normalizer that grows": (lambda: changed(normalizer=growing(9)), "cannot be used"),
    "a normalizer that grows a little": (lambda: changed(normalizer=growing(2)), "cannot be used"),
    "no unknown token": (
        lambda: changed(added_tokens=[], model={"type": "Unigram", "vocab": [["</s>", 0.0], ["a", -1.0]]}),
        "cannot encode a text",
    ),
    "a word list without unknown": (
        lambda: changed(added_tokens=[], model={"type": "WordLevel", "vocab": {"</s>": 0, "a": 1}, "unk_token": "?"}),
        "cannot encode a text",
    ),
    "an unknown part": (lambda: changed(pre_tokenizer={"type": "Nonsense"}), "cannot be used|not a tokenizer.json"),
    "a list for a vocabulary": (lambda: changed(model={"type": "BPE", "vocab": [], "merges": []}), "not a tokenizer"),
    "no end of text": (
        lambda: changed(added_tokens=[], model={"type": "BPE", "vocab": {"a": 0}, "merges": []}), "no end-of-text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_bad_tokenizer_is_one_line_in_bounded_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mygpt2.tokenizer.trial.SECONDS", 2)
    made, message = HOSTILE[kind]
    content = made if isinstance(made, bytes) else json.dumps(made()).encode()
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_pattern_that_is_only_unknown_is_tried_and_used(tmp_path: Path) -> None:
    theirs = byte_level()
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(r"\p{N}| ?\p{L}+|\s+|."), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ours = load_tokenizer(str(save(theirs, tmp_path)))
    assert ours.encode(PROSE) == theirs.encode(PROSE).ids


def test_a_tokenizer_that_leaves_characters_out_says_so(tmp_path: Path) -> None:
    theirs = tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1, "</s>": 2}, []))
    assert "leaves characters out" in load_tokenizer(str(save(theirs, tmp_path))).note
    assert not load_tokenizer("gpt2:300").note
