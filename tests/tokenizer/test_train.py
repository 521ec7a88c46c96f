"""Learning a tokenizer: exactly the merges of the definition, the same files each time, nothing left when stopped."""

from __future__ import annotations

import importlib.util
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.resolve import open_reader, resolve
from mygpt2.data.validation import validation_set
from mygpt2.errors import UserError
from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.fast import probe_fast_encoder
from mygpt2.tokenizer.huggingface import HFTokenizer
from mygpt2.tokenizer.patterns import PATTERNS, SHARED, for_scanner, pre_tokenizer, scanner
from mygpt2.tokenizer.ranks import LONGEST_RUN
from mygpt2.tokenizer.training.corpus import Budget, Read, documents
from mygpt2.tokenizer.training.create import Progress, Recipe, create
from mygpt2.tokenizer.training.learn import learn
from mygpt2.tokenizer.training.save import Place, save, tokenizer_json
from tests.tokenizer import reference
from tests.tokenizer.test_gpt2 import strange_texts

FULL = os.environ.get("MYGPT2_FULL") == "1"
STRINGS = 100_000 if FULL else 3000
REAL_BYTES = 1_000_000 if FULL else 120_000
# Everything a pattern of either kind treats specially, long s included: the contraction 's takes it as well.
EDGES = " \n\r\t\u2028\u0085\x1c'sSſKlLvVeErRdDtTmM1a!²½."


def real_text(size: int) -> list[str]:
    """Documents of about `size` bytes in all, from the sources of installed packages."""
    files = sorted(Path(json.__file__).parents[1].glob("*.py"))
    found: list[str] = []
    for file in files:
        found.append(file.read_text(encoding="utf-8", errors="replace")[: size // 4])
        if sum(map(len, found)) > size:
            break
    return found


def strings(count: int, seed: int) -> list[str]:
    """Random strings of whole characters: half of anything, half of what patterns look at."""
    dice = random.Random(seed)
    edges = ["".join(dice.choices(EDGES, k=dice.randrange(12))) for _ in range(count // 2)]
    anything = [
        t.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for t in strange_texts(count // 2, seed)
    ]
    return [*anything, *edges]


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return [*real_text(REAL_BYTES), *strings(500, seed=11), "tail \n \n\t ", "x<|endoftext|>y " * 50]


@pytest.fixture
def source(tmp_path: Path, corpus: list[str]) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for number in range(4):
        lines = [
            json.dumps({"text": text[at : at + 500]}) for text in corpus[number::4] for at in range(0, len(text), 500)
        ]
        (folder / f"{number}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: list[str]) -> dict[str, Path]:
    """A tokenizer of either pattern, learnt from the corpus."""
    folder = tmp_path_factory.mktemp("trained")
    for pattern in PATTERNS:
        content = tokenizer_json(learn([corpus], pattern, 1500).merges, pattern, ["<|user|>"])
        save(Place.of(folder / pattern), content, {})
    return {pattern: folder / pattern for pattern in PATTERNS}


def made(source: Path, out: Path, recipe: Recipe, progress: Progress = lambda *_: None, **data: Any) -> dict[str, Any]:
    config = DataConfig(source=str(source), **data)
    manifest = resolve(config.source, config, cache_dir=out.parent / "cache")
    reader = open_reader(manifest, cache_dir=out.parent / "cache", eot_id=0)
    return create(manifest, reader, config, recipe, Place.of(out), progress)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_merges_are_those_of_the_definition_and_of_tokenizers(pattern: str, corpus: list[str]) -> None:
    # `regex` may know more letters than the other programs do, so characters are limited to long-standing ones here.
    texts = [text for text in corpus if all(c < "\u0530" for c in text)]
    merges = 1000 if FULL else 400
    ours = learn([texts[:3], texts[3:]], pattern, merges)
    assert ours.merges == reference.learn(texts, PATTERNS[pattern], merges)
    ours = learn([corpus], pattern, merges)
    library = tokenizers.Tokenizer(models.BPE())
    split = json.dumps({**tokenizer_json([], pattern, []), "pre_tokenizer": pre_tokenizer(pattern)})
    library.pre_tokenizer = tokenizers.Tokenizer.from_str(split).pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(corpus, trainer)
    theirs = json.loads(library.to_str())["model"]["merges"]
    assert ours.merges == [tuple(merge) for merge in theirs]


def test_ties_go_to_the_lowest_ids_in_the_order_of_gpt2s_alphabet() -> None:
    # Equally frequent: "zy", " a" (a space is id 220, behind all letters) and "ab"; and "!" is id 0.
    found = learn([["zy zy", "ab", "ab", "b!b!"]], "gpt2", 3).merges
    assert found[0] == ("a", "b")
    assert found == reference.learn(["zy zy", "ab", "ab", "b!b!"], PATTERNS["gpt2"], 3)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_scanner_cuts_text_as_the_pattern_does(pattern: str) -> None:
    import ffbpe

    content = json.dumps(tokenizer_json([], pattern, []))
    split = tokenizers.Tokenizer.from_str(content).pre_tokenizer
    assert split is not None
    scan = ffbpe.PreTokenizer([], None, scanner(pattern))
    spelling = {byte: character for character, byte in reference.printable_bytes().items()}
    for text in [*strings(STRINGS, seed=3), *every_character()]:
        counted: Counter[str] = Counter()
        for part in for_scanner(pattern, text):
            counted.update(scan.get_words(part))
        ours = Counter({"".join(spelling[b] for b in word.encode()): n for word, n in counted.items()})
        assert ours == Counter(piece for piece, _ in split.pre_tokenize_str(text)), ascii(text)


def every_character() -> list[str]:
    """Each character of Unicode beside a letter, a digit, a sign and a space (a sample of them unless MYGPT2_FULL)."""
    step = 1 if FULL else 211
    characters = [chr(c) for c in range(0, 0x110000, step) if not 0xD800 <= c < 0xE000]
    return ["".join(f"a{c}a1{c}1!{c}! {c}" for c in characters[at : at + 50]) for at in range(0, len(characters), 50)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_equal_those_of_tokenizers(pattern: str, trained: dict[str, Path], corpus: list[str]) -> None:
    ours = load_tokenizer(str(trained[pattern]))
    theirs = tokenizers.Tokenizer.from_file(str(trained[pattern] / "tokenizer.json"))
    theirs.encode_special_tokens = True  # their way to say that special strings in a text are text
    assert isinstance(ours, HFTokenizer) and ours._core is not None
    texts = [*strings(STRINGS, seed=5), *every_character(), *corpus[:20]]
    expected = theirs.encode_batch_fast(texts, add_special_tokens=False)
    for text, row, encoded in zip(texts, ours.encode_batch(texts), expected, strict=True):
        assert row.tolist() == encoded.ids, ascii(text)
        assert ours.decode(row) == text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_fast_encoder_takes_it(pattern: str, trained: dict[str, Path], corpus: list[str]) -> None:
    if importlib.util.find_spec("gigatoken") is None:
        pytest.skip("gigatoken is not installed")
    encoder, reason = probe_fast_encoder(load_tokenizer(str(trained[pattern])), corpus[:5])
    assert encoder is not None, reason


def test_transformers_gives_the_same_ids(trained: dict[str, Path], corpus: list[str]) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.AutoTokenizer.from_pretrained(str(trained["gpt4"]))
    ours = load_tokenizer(str(trained["gpt4"]))
    assert theirs.eos_token_id == ours.eot_id and len(theirs) == ours.vocab_size
    for text in corpus[:10]:
        assert theirs(text, split_special_tokens=True)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text


def test_end_of_text_is_one_token_with_the_stated_id_and_no_text_yields_it(trained: dict[str, Path]) -> None:
    ours = load_tokenizer(str(trained["gpt4"]))
    assert (ours.vocab_size, ours.eot_id) == (1758, 1756)  # 256 bytes, 1500 merges, end-of-text, <|user|>
    ids = ours.encode("one<|endoftext|>two<|user|>three")
    assert not {1756, 1757} & {*ids} and ours.decode(ids) == "one<|endoftext|>two<|user|>three"
    theirs = tokenizers.Tokenizer.from_file(str(trained["gpt4"] / "tokenizer.json"))
    assert theirs.encode("<|endoftext|><|user|>").ids == [1756, 1757]


def test_a_huge_run_of_spaces_is_encoded_all_the_same(trained: dict[str, Path]) -> None:
    ours = load_tokenizer(str(trained["gpt4"]))
    text = "a" + " " * (4 * LONGEST_RUN) + "b"
    assert ours.decode(ours.encode(text)) == text


def test_a_list_that_tiktoken_would_read_otherwise_is_left_to_tokenizers(
    trained: dict[str, Path], tmp_path: Path
) -> None:
    content = json.loads((trained["gpt4"] / "tokenizer.json").read_text())

    def engine(change: Any) -> str:
        changed = json.loads(json.dumps(content))
        change(changed)
        (tmp_path / "tokenizer.json").write_text(json.dumps(changed))
        tokenizer = load_tokenizer(str(tmp_path))
        assert isinstance(tokenizer, HFTokenizer)
        return "tokenizers" if tokenizer._core is None else "tiktoken"

    def unreachable(c: dict[str, Any]) -> None:
        """(ab, c) makes abc, but bc is joined first: alone, "abc" stays in two parts; tiktoken would make it one."""
        alphabet = [word for word, number in c["model"]["vocab"].items() if number < 256]
        c["model"]["merges"] = ["b c", "a b", "ab c"]
        c["model"]["vocab"] = {word: i for i, word in enumerate([*alphabet, "bc", "ab", "abc"])}
        c["added_tokens"] = [{**c["added_tokens"][0], "id": 259}]

    def split(spelling: str) -> Any:
        return lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=spelling)

    assert engine(lambda c: None) == "tiktoken"
    assert engine(unreachable) == "tokenizers"
    assert engine(lambda c: c["model"].update(ignore_merges=True)) == "tokenizers"
    assert engine(lambda c: c["model"]["merges"].reverse()) == "tokenizers"
    assert engine(lambda c: c.update(normalizer={"type": "NFC"})) == "tokenizers"
    assert engine(split(scanner("gpt4"))) == "tokenizers"  # {1,3}+ has another meaning there
    assert {engine(split(spelling)) for spelling in SHARED} == {"tiktoken"}


def test_shared_spellings_cut_alike() -> None:
    cuts = [pre_tokenizers.Split(tokenizers.Regex(spelling), "isolated") for spelling in sorted(SHARED)]
    for text in strings(STRINGS, seed=9):
        assert len({tuple(piece for piece, _ in cut.pre_tokenize_str(text)) for cut in cuts}) == 1, ascii(text)


def test_the_same_recipe_gives_the_same_file(source: Path, tmp_path: Path) -> None:
    recipe = Recipe(600, seed=5, budget=Budget(bytes=60_000))
    reports = [made(source, tmp_path / name, recipe) for name in "ab"]
    files = [(tmp_path / name / "tokenizer.json").read_bytes() for name in "ab"]
    assert files[0] == files[1]
    same = [{k: v for k, v in report.items() if k != "seconds"} for report in reports]
    assert same[0] == same[1] and same[0]["library_version"] and "lowest first id" in same[0]["tie_rule"]
    made(source, tmp_path / "c", Recipe(600, seed=6, budget=Budget(bytes=60_000)))
    assert (tmp_path / "c" / "tokenizer.json").read_bytes() != files[0]
    assert json.loads((tmp_path / "a" / "tokenizer_report.json").read_text()) == json.loads(json.dumps(reports[0]))


def test_budgets_take_what_they_say(source: Path, tmp_path: Path) -> None:
    config = DataConfig(source=str(source), validation_fraction=0.0)
    manifest = resolve(config.source, config, cache_dir=tmp_path)

    def taken(budget: Budget) -> tuple[list[str], Read]:
        read = Read()
        reader = open_reader(manifest, cache_dir=tmp_path, eot_id=0)
        return [text for batch in documents(manifest, reader, config, budget, 1, read) for text in batch], read

    everything, read = taken(Budget())
    assert read.documents == len(everything) and read.bytes == sum(len(t.encode()) for t in everything)
    assert taken(Budget(documents=17))[0] == everything[:17]
    few, read = taken(Budget(bytes=10_000))
    assert few == everything[: len(few)] and 0 <= read.bytes - len(few[-1].encode()) < 10_000 <= read.bytes
    share = len(taken(Budget(share=0.3))[0]) / len(everything)
    assert abs(share - 0.3) < 4 * (0.21 / len(everything)) ** 0.5  # four standard errors; the seed is fixed
    assert {*taken(Budget(share=0.3))[0]} < {*taken(Budget(share=0.6))[0]}


def test_held_out_documents_are_not_learnt_from(source: Path, tmp_path: Path) -> None:
    config = DataConfig(source=str(source), validation_fraction=0.3, validation_tokens=10**6)
    manifest = resolve(config.source, config, cache_dir=tmp_path)
    reader = open_reader(manifest, cache_dir=tmp_path, eot_id=0)
    read = Read()
    texts = {t for batch in documents(manifest, reader, config, Budget(), 1, read) for t in batch}
    gpt2 = load_tokenizer("gpt2:257")
    held = validation_set(manifest, reader, gpt2, config, tmp_path)
    starts = held.doc_starts[1:]
    held_texts = {gpt2.decode(ids[:-1]) for ids in np.split(held.tokens, starts)}
    assert read.left_out["held_out"] >= len(held_texts) > 20 and not texts & held_texts


@pytest.mark.parametrize("stage", ["split", "merge"])
def test_stopped_while_it_works_it_leaves_nothing(stage: str, source: Path, tmp_path: Path) -> None:
    def stop(now: str, done: int, all: int, unit: str) -> None:
        if now == stage and (done > 2 or now == "merge"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(source, tmp_path / "out", Recipe(600), stop)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("calls", range(4))
def test_stopped_at_any_file_it_leaves_a_whole_tokenizer_or_none(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, left = os.replace, [calls]

    def interrupted(a: Any, b: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        replace(a, b)

    monkeypatch.setattr(os, "replace", interrupted)
    content, out = tokenizer_json([("a", "b")], "gpt4", []), tmp_path / "new" / "out"
    if calls == 3:
        save(Place.of(out), content, {"schema": 1})
        assert load_tokenizer(str(out)).vocab_size == 258 and len([*out.iterdir()]) == 3
    else:
        with pytest.raises(KeyboardInterrupt):
            save(Place.of(out), content, {"schema": 1})
        assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device; choose another --out"):
        save(Place.of(tmp_path / "out"), tokenizer_json([], "gpt4", []), {})
    assert not [*tmp_path.iterdir()]


def test_more_merges_than_the_text_has_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"has only 2 pairs to join where 5 were asked for; .* smaller by at least 3 or"
    ):
        learn([["abc"]], "gpt2", 5)
    assert learn(islice([["abc"]], 1), "gpt4", 2).merges == [("a", "b"), ("ab", "c")]


def test_the_smallest_tokenizer_is_the_bytes(source: Path, tmp_path: Path) -> None:
    made(source, tmp_path / "out.json", Recipe(257))
    tokenizer = load_tokenizer(str(tmp_path / "out.json"))
    assert (tokenizer.vocab_size, tokenizer.eot_id) == (257, 256)
    assert len(tokenizer.encode("né\n")) == 4 and (tmp_path / "out.report.json").is_file()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_without_the_fast_library_the_same_is_learnt_by_the_plain_one(
    pattern: str, corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = learn([corpus[:10], corpus[10:40]], pattern, 300)
    monkeypatch.setattr("mygpt2.tokenizer.training.learn.find_spec", lambda name: None)
    told: list[int] = []
    plain = learn([corpus[:10], corpus[10:40]], pattern, 300, lambda done, wanted: told.append(done))
    assert (fast.library, plain.library) == ("ffbpe", "tokenizers")
    assert fast.merges == plain.merges and told[-1] == 300


def test_a_fast_library_that_learns_something_else_is_not_believed(
    corpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mygpt2.tokenizer.training.learn as train

    honest = train._merges_of
    expected = learn([corpus[:20]], "gpt4", 50).merges
    monkeypatch.setattr(train, "_merges_of", lambda trainer: [*honest(trainer)[:-2], ("z", "z"), ("q", "q")])
    found = learn([corpus[:20]], "gpt4", 50)
    assert found.library == "tokenizers" and found.merges == expected


def test_a_problem_in_the_text_ends_the_plain_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mygpt2.tokenizer.training.learn.find_spec", lambda name: None)

    def broken() -> Iterator[list[str]]:
        yield ["some text"]
        raise UserError("the disk is gone")

    with pytest.raises(UserError, match="the disk is gone"):
        learn(broken(), "gpt4", 10)
