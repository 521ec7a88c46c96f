"""`export --to-gguf`: transformers reads the same logits and ids out of it; what it cannot hold is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from mygpt2.errors import UserError
from mygpt2.exchange.gguf import export_gguf, vocabulary
from mygpt2.exchange.load import load_model
from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.patterns import pre_tokenizer
from tests.conftest import Ended
from tests.exchange.folders import reference, saved_run, transformers

pytest.importorskip("gguf", reason="the package that writes GGUF is not installed")
Call = Callable[..., Ended]
BEGINNINGS = ("The quick", " two  spaces\n\n", "naïve 你好 🙂", "it's We'LL 12345", "\t def f(x):")
TEXTS = [f"{BEGINNINGS[k % 5]} {k} {'word ' * (k % 7)}{chr(200 + k)}" for k in range(100)]


def read_back(path: Path, context: int) -> tuple[Any, Any]:
    """The model and the tokenizer as transformers reads them; it takes the context from GPT-2's default otherwise."""
    library = transformers()
    config = library.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    config.n_positions = context
    model = library.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, config=config, dtype=torch.float32
    )
    return model.eval(), library.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.parametrize(("bias", "dtype", "most"), [(True, "float32", 1e-3), (False, "float16", 0.02)])
def test_logits_and_ids_are_the_same_through_transformers(mygpt2: Call, bias: bool, dtype: str, most: float) -> None:
    saved_run(Path("runs"), block_size=64, bias=bias)
    ended = mygpt2("export", "--model", "first", "--to-gguf", "small.gguf", "--dtype", dtype)
    assert ended.code == 0 and "small.Modelfile" in ended.out, ended.err
    theirs, cut = read_back(Path("small.gguf").resolve(), 64)
    loaded, worst = load_model("first", Path("runs")), 0.0
    for text in TEXTS:
        ids = loaded.tokenizer.encode(text)
        assert cut(text)["input_ids"] == ids, text
        batch = torch.tensor([ids[:64]])
        with torch.no_grad():
            ours = loaded.model.logits(loaded.model(batch))
            worst = max(worst, float((theirs(batch).logits - ours).abs().max()))
    assert worst <= most and (worst > 0 or dtype == "float32")
    said = Path("small.Modelfile").read_text()
    assert "FROM ./small.gguf\n" in said and "num_ctx 64" in said and 'stop "<|endoftext|>"' in said


def own_tokenizer(folder: Path, pattern: str, **changes: Any) -> Path:
    content = json.loads(load_tokenizer("gpt2:300").hf_json())  # type: ignore[attr-defined]
    content["pre_tokenizer"] = pre_tokenizer(pattern) if pattern in ("gpt2", "gpt4") else {
        "type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}  # fmt: skip
    content["model"] |= changes.pop("model", {})
    content["added_tokens"] = [{"id": 299, "content": "<|endoftext|>", "special": True, "single_word": False,
                                "lstrip": False, "rstrip": False, "normalized": False}]  # fmt: skip
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content | changes))
    tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize(
    ("pattern", "changes", "pre"),
    [("gpt2", {}, "gpt-2"), ("gpt4", {}, "dbrx"), ("gpt4", {"model": {"ignore_merges": True}}, "llama-bpe")],
)
def test_the_split_is_named_as_llama_cpp_names_it(
    tmp_path: Path, pattern: str, changes: dict[str, Any], pre: str
) -> None:
    own = load_tokenizer(str(own_tokenizer(tmp_path / "own", pattern, **changes)))
    found = vocabulary(own, 320)
    assert found.pre == pre and len(found.tokens) == 320
    assert found.tokens[299] == "<|endoftext|>" and found.control == {299} and found.tokens[319] == "[PAD319]"
    assert found.merges[0] == "Ġ t"


@pytest.mark.parametrize(
    ("pattern", "changes", "why"),
    [
        (r"\p{N}|\P{N}+", {}, "no name for"),
        ("gpt2", {"model": {"ignore_merges": True}}, "no name for"),
        ("gpt4", {"normalizer": {"type": "NFC"}}, "a normalizer"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(
    tmp_path: Path, pattern: str, changes: dict[str, Any], why: str
) -> None:
    own = load_tokenizer(str(own_tokenizer(tmp_path / "own", pattern, **changes)))
    with pytest.raises(UserError, match=why):
        vocabulary(own, 300)


def test_what_cannot_be_written_is_said_before_and_leaves_nothing(
    mygpt2: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved_run(Path("runs"))
    asked = ("export", "--model", "first", "--to-gguf")
    Path("there.gguf").write_text("mine")
    for words, why in (((*asked, "x.bin"), "ends in .gguf"), ((*asked, "there.gguf"), "nothing is overwritten"),
                       ((*asked, "no/x.gguf"), "there is no folder"), ((*asked, "x.gguf", "--to", "y"), "not allowed"),
                       (("export", "--model", "first", "--to", "y", "--dtype", "float16"), "is for --to-gguf"),
                       (("export", "--model", "first"), "required")):  # fmt: skip
        ended = mygpt2(*words)
        assert ended.code == 2 and why in ended.err and "Traceback" not in ended.err, ended.err
    assert Path("there.gguf").read_text() == "mine"
    loaded, before = load_model("first", Path("runs")), sorted(tmp_path.iterdir())
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left on device"):
        export_gguf(loaded, tmp_path / "x.gguf")
    assert sorted(tmp_path.iterdir()) == before


def test_an_export_that_was_killed_is_made_again_and_what_it_left_goes(mygpt2: Call, tmp_path: Path) -> None:
    """Killed before its model had its name: the Modelfile is there, and both of the files that were built aside."""
    saved_run(Path("runs"))
    asked = ("export", "--model", "first", "--to-gguf", "x.gguf")
    assert mygpt2(*asked).code == 0
    kept = {name: Path(name).read_bytes() for name in ("x.gguf", "x.Modelfile")}
    for name in (".x.gguf.tmp-999999-0-abc", ".x.Modelfile.tmp-999999-0-abc"):
        Path(name).write_text("half")
    Path("x.gguf").unlink()
    assert mygpt2(*asked).code == 0
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == kept
    Path("x.gguf").unlink()
    Path("x.Modelfile").write_text(Path("x.Modelfile").read_text() + "PARAMETER temperature 1\n")
    ended = mygpt2(*asked)
    assert ended.code == 2 and "x.Modelfile is there already" in ended.err, "somebody has written to it"


def test_a_disk_without_room_or_links_and_a_name_that_a_modelfile_cannot_hold(
    mygpt2: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    saved_run(Path("runs"))
    asked = ("export", "--model", "first", "--to-gguf")
    ended = mygpt2(*asked, "a\nb.gguf")
    assert ended.code == 2 and r"'a\nb.gguf': a Modelfile cannot name it" in ended.err
    with monkeypatch.context() as patch:
        patch.setattr("mygpt2.checkpoint.files.FileSystem.free_bytes", lambda *_: 1000)
        ended = mygpt2(*asked, "x.gguf")
        assert ended.code == 2 and "to come; choose another disk or make room" in ended.err
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    assert mygpt2(*asked, "x.gguf").code == 0
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == ["x.Modelfile", "x.gguf"]
    assert mygpt2("export", "--model", "first", "--to", "**").code == 0


def test_another_gelu_is_refused(mygpt2: Call) -> None:
    reference(activation_function="gelu", vocab_size=50257, n_embd=16).save_pretrained("in")
    ended = mygpt2("export", "--model", "in", "--to-gguf", "x.gguf")
    assert ended.code == 2 and "exact GELU" in ended.err and not Path("x.gguf").exists()
