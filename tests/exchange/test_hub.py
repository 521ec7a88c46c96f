"""Models by name: resolved to a commit, fetched once, checked against the hub's checksums."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import close_session

from mygpt2.errors import TryAgain, UserError
from mygpt2.exchange.hub import HubModel, hub_model
from mygpt2.exchange.load import load_model
from mygpt2.model import GPT, GPTConfig
from mygpt2.tokenizer import load_tokenizer
from mygpt2.tokenizer.folder import write_tokenizer
from tests.conftest import Ended
from tests.exchange.folders import randomised, same_weights, saved_run, write_folder
from tests.exchange.model_hub import ModelHub
from tests.fake_hub import Fault

REPO = "openai-community/gpt2-medium"
MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=300)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = write_folder(tmp_path_factory.mktemp("hub") / "m", randomised(GPT(MODEL)))
    write_tokenizer(load_tokenizer("gpt2:300"), folder, 16)
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    return found | {"pytorch_model.bin": b"x" * 1000, "README.md": b"hello"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> Iterator[ModelHub]:
    """A hub with one model, an empty cache, and huggingface_hub set to ask it."""
    hub = ModelHub({REPO: dict(files), "someone/old": {"config.json": b"{}", "pytorch_model.bin": b"x"}})
    with hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("time.sleep", lambda _: None)  # huggingface_hub pauses before it tries again
        monkeypatch.chdir(tmp_path)
        yield hub


def test_names_that_may_be_models() -> None:
    assert hub_model("gpt2") == HubModel("openai-community/gpt2", "main")
    assert hub_model("gpt2-xl@607a30d") == HubModel("openai-community/gpt2-xl", "607a30d")
    assert str(hub_model("owner/name@refs/pr/1")) == "owner/name@refs/pr/1"
    for other in ("gpt3", "a/b/c", "/tmp/x", "../x", "a/..", "a b/c", "owner/name@", "", "./gpt2", "a--b/c"):
        assert hub_model(other) is None, other


def test_a_model_is_fetched_once_at_the_commit_its_name_points_to(hub: ModelHub) -> None:
    loaded = load_model("gpt2-medium")
    assert same_weights(loaded.model, randomised(GPT(MODEL))) and loaded.tokenizer.name == "gpt2:300"
    assert loaded.name == f"{REPO}@c0ffee0"
    assert (loaded.details["repo"], loaded.details["revision"]) == (REPO, hub.commit)
    resolved = [r.path for r in hub.requests if r.kind == "resolve"]
    assert resolved and all(f"/resolve/{hub.commit}/" in path for path in resolved)
    assert not any("pytorch_model.bin" in path or "README" in path for path in resolved)
    before = hub.count("cdn")
    assert load_model(REPO).details == loaded.details
    assert hub.count("cdn") == before


def test_a_known_commit_and_the_cache_ask_nobody(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_model("gpt2-medium")
    before = hub.count()
    assert load_model(f"gpt2-medium@{hub.commit}").details == first.details
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_model("gpt2-medium").details == first.details
    assert hub.count() == before
    with pytest.raises(UserError, match="not in the cache and HF_HUB_OFFLINE forbids"):
        load_model("gpt2-xl")


def test_shards_are_fetched_together(hub: ModelHub, files: dict[str, bytes]) -> None:
    from safetensors.torch import load, save

    tensors = load(files["model.safetensors"])
    names = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    repo = {name: content for name, content in files.items() if name != "model.safetensors"}
    for shard in set(names.values()):
        repo[shard] = save({name: t for name, t in tensors.items() if names[name] == shard})
    hub.repos["someone/large"] = repo | {"model.safetensors.index.json": json.dumps({"weight_map": names}).encode()}
    assert same_weights(load_model("someone/large").model, randomised(GPT(MODEL)))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_byte_that_changed_is_found_removed_and_fetched_again(hub: ModelHub, name: str) -> None:
    folder = Path(load_model("gpt2-medium").details["path"])
    blob = (folder / name).resolve()
    content = bytearray(blob.read_bytes())
    content[-2] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(content)
    with pytest.raises(UserError, match=f"{name} of {REPO} did not have the hub's checksum and was removed"):
        load_model("gpt2-medium")
    assert same_weights(load_model("gpt2-medium").model, randomised(GPT(MODEL)))


def test_a_wrong_byte_on_the_way_never_becomes_a_model(hub: ModelHub, files: dict[str, bytes]) -> None:
    good = hub.repos[REPO]["model.safetensors"]
    wrong = good[:-1] + bytes([good[-1] ^ 1])
    listed = hub.entry("model.safetensors", good)
    hub.entry = lambda path, content: listed if content == wrong else ModelHub.entry(hub, path, content)  # type: ignore[method-assign]
    hub.cdn = False
    hub.repos[REPO]["model.safetensors"] = wrong
    with pytest.raises(UserError, match=r"did not have the hub's checksum"):
        load_model("gpt2-medium")


def test_trouble_on_the_way_is_ridden_out_or_may_be_tried_again(hub: ModelHub) -> None:
    hub.faults = [Fault("reset", "cdn")]
    assert same_weights(load_model("gpt2-medium").model, randomised(GPT(MODEL)))
    hub.faults = [Fault("503", "api", times=50)]
    with pytest.raises(TryAgain, match=f"{REPO}: {hub.endpoint} answers 503; check the network"):
        load_model("gpt2-medium")


def test_a_hub_out_of_reach_is_never_an_older_copy_in_silence(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    load_model("gpt2-medium")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(TryAgain, match=r"cannot be reached; .*HF_HUB_OFFLINE=1"):
        load_model("gpt2-medium")


def test_a_hub_that_goes_away_half_way_is_no_older_copy_either(hub: ModelHub) -> None:
    load_model("gpt2-medium")
    hub.commit = "d" * 40
    hub.faults = [Fault("503", "api", times=50, skip=1)]  # the commit is told, its files are not
    with pytest.raises(TryAgain, match=f"{REPO}"):
        load_model("gpt2-medium")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("gpt2-large", None, "not a run, a folder or a model at .*, or a private one"),
        ("gpt2-medium@v9", None, "has no revision v9"),
        ("gpt2-medium", (403, "GatedRepo"), "is gated; accept its conditions"),
        ("someone/old", None, "python -m mygpt2 import pytorch_model.bin --to DIR"),
    ],
)
def test_a_name_the_hub_refuses_is_one_line(
    hub: ModelHub, spec: str, error: tuple[int, str] | None, message: str
) -> None:
    if error:
        hub.errors[REPO] = error
    with pytest.raises(UserError, match=message) as refused:
        load_model(spec)
    assert "\n" not in str(refused.value)


def test_a_run_goes_before_a_model_of_the_same_name(hub: ModelHub) -> None:
    saved_run(Path("runs"), "gpt2-medium")
    assert load_model("gpt2-medium").name == "gpt2-medium/step-00000005"
    assert load_model(REPO).details["kind"] == "hub"


def test_the_verbs_take_a_name_on_the_hub(hub: ModelHub, mygpt2: Callable[..., Ended]) -> None:
    ended = mygpt2("export", "--model", "gpt2-medium", "--to", "out")
    assert ended.code == 0, ended.err
    assert f"| From | {REPO} at {hub.commit} |" in Path("out/README.md").read_text()
    assert Path("out/model.safetensors").read_bytes()[-64:] == hub.repos[REPO]["model.safetensors"][-64:]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "foo://x"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(
    hub: ModelHub, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    if proxy.startswith("socks") and find_spec("socksio"):
        pytest.skip("the package for SOCKS proxies is installed")
    for name in ("ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    close_session()  # huggingface_hub keeps one with the proxies that were there at its beginning
    try:
        with pytest.raises(UserError, match=r"^the (environment names a SOCKS proxy|proxy that the environment names)"):
            load_model("gpt2-medium")
    finally:
        monkeypatch.undo()
        close_session()
