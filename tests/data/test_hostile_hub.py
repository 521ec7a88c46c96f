"""A hub that misbehaves in any way is waited for as long as the budget says, in words, and never longer."""

from __future__ import annotations

import json
import threading

import httpcore
import httpx
import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.loader import Loader
from mygpt2.data.scan import scan
from mygpt2.data.sources import faults
from mygpt2.data.sources.faults import Outage
from mygpt2.data.sources.hub import client as hub_client
from mygpt2.data.sources.hub.client import Changed, HubClient
from mygpt2.data.sources.hub.dataset import HubSource, open_hub
from mygpt2.data.sources.hub.wire import Watched
from mygpt2.data.sources.manifest import SourceFile
from mygpt2.errors import TryAgain, UserError
from tests.data.hub_data import Bytes, FastClock, parquet
from tests.fake_hub import FakeHub, Fault
from tests.hostile_hub import HOSTILE

REPO, COMMIT = "owner/name", "c0ffee" + "0" * 34
SPEED = 800.0  # of the clock; a minute of the budget is 0.08 s
MINUTES = 2.0
OF_LISTS, OF_FILES = {"brackets", "packed_twice", "gzip_bomb"}, {"no ranges", "packed_range", "junk_range"}  # only

WISHES = ["1000000000", "-5", "Wed, 01 Jan 2100 00:00:00 GMT", "Fri, 99 Foo 99999 99:99:99", "soon", "1" * 5000, "\xb2"]


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(faults, "_spoken", [])
    monkeypatch.setattr(hub_client, "MOST_JSON", 1 << 20)


@pytest.fixture(scope="module")
def files():
    return {"data/train.parquet": parquet([[f"document {g} {i}" for i in range(8)] for g in range(6)])}


@pytest.fixture
def hub(files):
    with FakeHub({REPO: dict(files)}) as hub:
        yield hub


def settings(**given):
    return DataConfig(source=REPO, encoder="tiktoken", lanes=2, window=1, outage_minutes=MINUTES, **given)


def client_of(hub, **given):
    clock = FastClock(SPEED)
    return clock, HubClient(hub.endpoint, clock=clock, timeout_s=0.15, budget_s=60 * MINUTES, **given)


def forever(kind, where, **headers):
    return [Fault(kind, where=where, times=10**9, headers=headers)]


TROUBLES = {
    **{name: (name, {}) for name in HOSTILE},
    **{f"429, Retry-After {wish[:12]!a}": ("429", {"Retry-After": wish}) for wish in WISHES},
    "429, RateLimit": ("429", {"RateLimit": f'"api";r=0;t={"9" * 4400}'}),
    "no ranges": ("200", {}),
}


@pytest.mark.parametrize("trouble", [name for name in TROUBLES if name not in OF_FILES])
def test_resolving_ends_within_the_budget_and_says_why(hub, tmp_path, trouble, capsys):
    kind, headers = TROUBLES[trouble]
    clock, client = client_of(hub)
    hub.faults = forever(kind, "api", **headers)
    with pytest.raises(TryAgain, match=r"^source=owner/name: .*the same command may work later") as error:
        HubSource(REPO, settings(), tmp_path, client=client, clock=clock).manifest()
    assert "\n" not in str(error.value)
    assert "waiting for data: " in capsys.readouterr().err


@pytest.mark.parametrize("trouble", [name for name in TROUBLES if name not in OF_LISTS])
def test_reading_ends_within_the_budget_and_says_why(hub, tmp_path, trouble, capsys):
    kind, headers = TROUBLES[trouble]
    clock, client = client_of(hub)
    manifest = HubSource(REPO, settings(), tmp_path, client=client, clock=clock).manifest()
    hub.faults = forever(kind, "cdn|resolve", **headers)
    with (
        Loader(
            settings(), tokenizer=Bytes(), block_size=16, batch_sequences=2, seed=1, cache_dir=tmp_path,
            manifest=manifest, reader=open_hub(manifest, tmp_path, client=client), clock=clock,
        ) as loader,
        pytest.raises(TryAgain, match=rf"^{REPO}: .*data.outage_minutes=2 allows no more"),
    ):  # fmt: skip
        while True:
            loader.poll(0.1)
    assert "waiting for data: " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["trickle_body", "trickle_head", "stall"])
def test_a_closed_client_ends_a_request_that_hangs(hub, kind):
    """With the real time-outs, which are half a minute: only the closing can end it."""
    client, ended = HubClient(hub.endpoint), []
    hub.faults = forever(kind, "api")

    def ask():
        try:
            client.json(f"api/datasets/{REPO}")
        except Outage as error:
            ended.append(str(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    while not client._in_flight:
        pass
    client.close()
    thread.join(20)
    assert ended == ["closed"]


def test_an_answer_that_a_proxy_packed_once_is_read(hub, monkeypatch):
    import gzip

    import tests.fake_hub as fake

    body = gzip.compress(json.dumps({"sha": "x"}).encode())

    def packed(handler):
        handler.reply(200, body, {"Content-Encoding": "gzip"})

    monkeypatch.setitem(fake.HOSTILE, "packed", packed)
    hub.faults = [Fault("packed", where="api")]
    assert client_of(hub)[1].json(f"api/datasets/{REPO}")[0] == {"sha": "x"}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        None,
        7,
        {"sha": 5},
        {"sha": COMMIT, "siblings": 3},
        {"sha": COMMIT, "siblings": [7]},
    ],
)
def test_an_answer_of_another_shape_is_said_to_be_one(hub, tmp_path, answer):
    clock, client = client_of(hub)
    client.json = lambda path: (answer, None)
    with pytest.raises(UserError, match=r"does not answer like the hub .*check HF_ENDPOINT"):
        HubSource(REPO, settings(), tmp_path, client=client, clock=clock).manifest()


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "file"}, {"type": "file", "path": 3, "size": 1, "oid": "x"}, "x",
        {"type": "file", "path": "data/train-1.parquet", "size": -1, "oid": "x"},
        {"type": "file", "path": "data/../../../train.parquet", "size": 9, "oid": "x"},
        {"type": "file", "path": "data/train.parquet", "size": "many", "oid": "x"},
    ],
)  # fmt: skip
def test_a_list_of_files_with_junk_in_it_is_said_to_be_one(hub, tmp_path, entry):
    clock, client = client_of(hub)
    ask = client.json
    client.json = lambda path: ([entry], None) if "/tree/" in path else ask(path)
    hub.cards[REPO] = {"configs": [{"config_name": "default", "data_files": "data/**"}]}
    with pytest.raises(UserError, match=r"does not answer like the hub .*check HF_ENDPOINT"):
        HubSource(REPO, settings(), tmp_path, client=client, clock=clock).manifest()


def test_a_list_of_files_that_leads_back_to_itself_ends(hub, tmp_path):
    clock, client = client_of(hub)
    ask = client.json
    client.json = lambda path: (ask(path)[0], path) if "/tree/" in path else ask(path)
    with pytest.raises(UserError, match="a list of files without end"):
        HubSource(REPO, settings(), tmp_path, client=client, clock=clock).manifest()


def test_more_bytes_than_a_row_group_can_have_are_not_asked_for(hub):
    with pytest.raises(Changed, match="belong together"):
        client_of(hub)[1].part(SourceFile("x", 1 << 51, "", "http://x/"), 0, 1 << 50)


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "foo://x", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(proxy, variable, monkeypatch):
    for name in ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, proxy)
    try:
        client = HubClient("https://huggingface.co")
    except UserError as error:
        assert "proxy" in str(error) and "\n" not in str(error)
    else:  # with the package for it
        pytest.importorskip("socksio")
        assert proxy.startswith("socks5")
        client.close()


def test_this_machine_is_never_asked_through_a_proxy(hub, monkeypatch):
    for name in ("ALL_PROXY", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert HubClient(hub.endpoint).json(f"api/datasets/{REPO}")[0]["id"] == REPO


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9"])
def test_every_connection_is_under_watch(hub, proxy, monkeypatch):
    """httpx names its pools in a private attribute; this fails where a new version has another."""
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("ALL_PROXY", proxy)
    client = HubClient(hub.endpoint)
    transports = {client._http._transport, *client._http._mounts.values()} - {None}
    assert len(transports) >= (2 if proxy else 1)
    for transport in transports:
        assert isinstance(transport, httpx.HTTPTransport)
        assert type(transport._pool._network_backend).__module__ == "mygpt2.data.sources.hub.wire"
    client.json(f"api/datasets/{REPO}")
    stream = client._http._transport._pool.connections[0]._connection._network_stream
    assert isinstance(stream, Watched)


class Paced(httpcore.NetworkStream):
    """Bytes at given times of a clock that stands still otherwise."""

    def __init__(self, pieces, clock) -> None:
        self.pieces, self.clock = list(pieces), clock

    def read(self, max_bytes, timeout=None):
        seconds, size = self.pieces.pop(0)
        self.clock[0] += seconds
        return bytes(size)

    def write(self, buffer, timeout=None):
        pass


@pytest.mark.parametrize(
    ("pieces", "slow"),
    [
        ([(29, 1)] + [(1, 1)] * 40, True),  # a byte a second
        ([(29, 100)] + [(1, 2000)] * 300, False),  # a long thought, then a slow line
        ([(1, 10**7)] + [(1, 1)] * 70, True),  # quick at first
        ([(20, 40_000)] * 10, False),
    ],
)
def test_the_floor_under_the_speed_is_for_trickles_only(pieces, slow, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("mygpt2.data.sources.hub.wire.time.monotonic", lambda: clock[0])
    stream = Watched(Paced(pieces, clock), 30.0, threading.Event())
    stream.write(b"GET / HTTP/1.1")
    if slow:
        with pytest.raises(httpcore.ReadTimeout):
            for _ in pieces:
                stream.read(100)
    else:
        for _ in pieces:
            stream.read(100)


def test_a_stop_while_many_blocks_are_read_ends_the_reading(hub, tmp_path):
    """A thread that waits for a hub, within a budget of half an hour, would keep the process from ending."""
    clock, client = client_of(hub)
    manifest = HubSource(REPO, settings(), tmp_path, client=client, clock=clock).manifest()
    hub.faults = forever("trickle_body", "cdn")
    reader = open_hub(manifest, tmp_path, client=HubClient(hub.endpoint))
    before = set(threading.enumerate())

    def stopped(future):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mygpt2.data.scan.Future.result", stopped)
        list(scan(reader, manifest, range(6), DataConfig(source="x", outage_minutes=30), threads=3))
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("scan"):
            thread.join(20)
            assert not thread.is_alive()
