"""`export --to hub:OWNER/NAME` against a hub that speaks its protocol: a whole revision per checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from mygpt2 import checkpoint
from mygpt2.checkpoint.format import read_model, read_optimizer, read_state
from mygpt2.exchange.load import load_model
from mygpt2.run_dir import RunDir
from tests.conftest import Ended
from tests.exchange.folders import same_weights, saved_run
from tests.exchange.written_hub import TOKEN, WrittenHub

Call = Callable[..., Ended]
TO = ("--to", "hub:me/small")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WrittenHub]:
    with WrittenHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


@pytest.fixture
def two(tmp_path: Path) -> Any:
    """A run with checkpoints of the steps 5 and 9, of other weights, and the models of either."""
    run, first, place = saved_run(Path("runs"))
    weights = {name: tensor + 1.0 for name, tensor in read_model(place).items()}
    checkpoint.write(run.checkpoints_dir, 9, weights, read_optimizer(place), read_state(place))
    return run, first, load_model(str(run.checkpoints_dir / "step-00000009")).model


def test_every_checkpoint_is_a_revision_that_verifies_when_it_is_downloaded_again(
    mygpt2: Call, hub: WrittenHub, two: Any
) -> None:
    _run, first, second = two
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 0, ended.err
    known = hub.repos["me/small"]
    assert known["private"] and sorted(known["tags"]) == ["step-00000005", "step-00000009"]
    assert hub.files("me/small", "main") == hub.files("me/small", "step-00000009"), "the newest is what comes first"
    for tag, model in (("step-00000005", first), ("step-00000009", second)):
        loaded = load_model(f"me/small@{tag}")
        assert same_weights(loaded.model, model)
        files = hub.files("me/small", tag)
        manifest = json.loads(files["manifest.json"])
        assert manifest["step"] == int(tag[-2:]) and set(manifest["files"]) == set(files) - {
            "manifest.json", ".gitattributes"}  # fmt: skip
        for name, told in manifest["files"].items():
            assert told == {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}


def test_what_is_there_is_not_sent_again_and_a_cut_off_upload_goes_on(mygpt2: Call, hub: WrittenHub, two: Any) -> None:
    hub.fail["tag"] = (503, 1)
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 75 and "the same command goes on" in ended.err and not hub.repos["me/small"]["tags"]
    assert mygpt2("export", "--model", "first", *TO).code == 0
    uploads = [line for line in hub.seen if line.startswith("PUT")]
    assert len(uploads) == 2 and sorted(hub.repos["me/small"]["tags"]) == ["step-00000005", "step-00000009"]
    before = len([line for line in hub.seen if "/commit/" in line])
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 0 and ended.out.count("which was there") == 2
    assert len([line for line in hub.seen if "/commit/" in line]) == before


def test_a_revision_of_other_weights_is_never_replaced(mygpt2: Call, hub: WrittenHub, two: Any) -> None:
    assert mygpt2("export", "--model", "first", *TO, "--public").code == 0
    kept = dict(hub.repos["me/small"]["tags"])
    assert not hub.repos["me/small"]["private"]
    shutil.rmtree("runs/first")
    saved_run(Path("runs"), bias=False)
    place = RunDir(Path("runs/first")).checkpoints_dir / "step-00000005"
    checkpoint.write(place.parent, 3, read_model(place), read_optimizer(place), read_state(place))
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 2 and "a revision step-00000005 of other weights" in ended.err
    assert hub.repos["me/small"]["tags"] == kept, "nor is another of its revisions put beside"


def test_what_others_have_put_into_a_repository_is_neither_deleted_nor_overwritten(
    mygpt2: Call, hub: WrittenHub, two: Any
) -> None:
    def holds(**files: bytes) -> None:
        known = {"private": True, "commits": {"1" * 40: {k.replace("_", "."): v for k, v in files.items()}}, "tags": {}}
        hub.repos["me/small"] = {**known, "main": "1" * 40}

    holds(README_md=b"# made on the page", LICENSE=b"MIT", notes_txt=b"mine")
    assert mygpt2("export", "--model", "first", *TO).code == 0
    for tag in hub.repos["me/small"]["tags"]:
        files = hub.files("me/small", tag)
        assert files["LICENSE"] == b"MIT" and files["notes.txt"] == b"mine" and "model.safetensors" in files
    holds(config_json=b"{}", model_safetensors=b"theirs")
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 2 and "not of this program (config.json, model.safetensors)" in ended.err
    assert hub.files("me/small", "main") == {"config.json": b"{}", "model.safetensors": b"theirs"}


def test_a_model_without_steps_and_a_damaged_checkpoint(mygpt2: Call, hub: WrittenHub, two: Any) -> None:
    run = two[0]
    damaged = run.checkpoints_dir / "step-00000009" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 0 and "left out, as they are not whole: step-00000009" in ended.out
    assert mygpt2("export", "--model", "first", "--to", "folder").code == 0
    assert mygpt2("export", "--model", "folder", "--to", "hub:me/folder").code == 0
    (tag,) = hub.repos["me/folder"]["tags"]
    assert tag.startswith("weights-")


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("--to", "hub:me"), "give hub:OWNER/NAME", 2),
        (("--to", "hub:me/../x"), "give hub:OWNER/NAME", 2),
        (("--to", "folder", "--public"), "--public is for", 2),
    ],
)
def test_bad_names_are_said(mygpt2: Call, hub: WrittenHub, two: Any, words: Any, said: str, code: int) -> None:
    ended = mygpt2("export", "--model", "first", *words)
    assert ended.code == code and said in ended.err and not hub.seen


def test_a_hub_that_refuses_or_is_away_is_a_sentence(
    mygpt2: Call, hub: WrittenHub, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 2 and "does not let you write to me/small" in ended.err and "hf_of" not in ended.err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    ended = mygpt2("export", "--model", "first", *TO)
    assert ended.code == 75 and "cannot be reached" in ended.err and "Traceback" not in ended.err
