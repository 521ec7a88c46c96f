"""What goes wrong between the hub and us: the batches are those of an undisturbed run, or the loss is named."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import replace

import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.loader import Loader
from mygpt2.data.sources.faults import Outage, Unreadable
from mygpt2.data.sources.hub.client import Changed, HubClient, Refused
from mygpt2.data.sources.hub.dataset import HubSource, open_hub
from mygpt2.data.sources.manifest import SourceFile
from mygpt2.errors import TryAgain, UserError
from tests.data.hub_data import FILES, GROUPS, REPO, ROWS, SOURCE, Bytes, FastClock, document, fineweb_edu
from tests.fake_hub import FakeHub, Fault

LANES = 4
STEPS = 170  # the lanes go through all row groups in these, and then read them from the cache


@pytest.fixture(scope="module", autouse=True)
def no_login():
    with pytest.MonkeyPatch.context() as environment:
        for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def files():
    return fineweb_edu()


@pytest.fixture
def hub(files):
    with FakeHub({REPO: dict(files)}) as hub:
        yield hub


class Run:
    """A training run's view: resolves, reads through the loader, and keeps what it saw."""

    def __init__(self, hub, tmp_path, name, **settings):
        self.clock = FastClock()
        hub.now = self.clock.now
        data = DataConfig(source=SOURCE, text_column="text", encoder="tiktoken", lanes=LANES, window=2, **settings)
        before = hub.count()
        client = HubClient(hub.endpoint, clock=self.clock)
        manifest = HubSource(SOURCE, data, tmp_path / name, client=client, clock=self.clock).manifest()
        reader = open_hub(manifest, tmp_path / name, client=client)
        digest = hashlib.sha256()
        with Loader(
            data, tokenizer=Bytes(), block_size=256, batch_sequences=8, seed=1, cache_dir=tmp_path / name,
            manifest=manifest, reader=reader, clock=self.clock,
        ) as loader:  # fmt: skip
            for _ in range(STEPS):
                while (batch := loader.poll(0.05)) is None:
                    pass
                digest.update(batch.tokens.tobytes())
        self.batches, self.quarantine, self.reasons = digest.hexdigest(), batch.quarantine, loader.quarantine_reasons
        served = {(r.path, r.range) for r in hub.requests[before:] if r.status == 206}
        self.ideal = 2 + len(served)  # a commit, a list, a footer for each file, one for each row group
        self.requests = hub.count() - before


@pytest.fixture(scope="module")
def undisturbed(files, tmp_path_factory):
    with FakeHub({REPO: dict(files)}) as hub:
        return Run(hub, tmp_path_factory.mktemp("hub"), "quiet")


def test_an_undisturbed_run_asks_once_for_everything_and_follows_a_redirect_per_file(undisturbed):
    first_blocks = LANES  # are tokenized in parts and may be read again in the next epoch
    assert undisturbed.ideal <= undisturbed.requests <= undisturbed.ideal + FILES + first_blocks
    assert undisturbed.ideal >= 2 + FILES + FILES * GROUPS


TROUBLES = {
    "429 with Retry-After": [Fault("429", times=2, skip=20, headers={"Retry-After": "20"})],
    "429 with RateLimit": [Fault("429", times=2, skip=20, headers={"RateLimit": '"resolvers";r=0;t=30'})],
    "500": [Fault("500", times=2, skip=15)],
    "502 of the API": [Fault("502", where="api", times=2)],
    "resets": [Fault("reset", times=4, skip=9)],
    "short bodies": [Fault("short", times=4, skip=9)],
    "less than asked": [Fault("cut", times=4, skip=9)],
    "200 for 206": [Fault("200", where="cdn", times=4, skip=9)],
    "another range": [Fault("shift", where="cdn", times=4, skip=9)],
    "wrong bytes": [Fault("garbage", where="cdn", times=2, skip=FILES + 5)],
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_batches_are_those_of_the_undisturbed_run(hub, tmp_path, undisturbed, trouble):
    hub.faults = [Fault(f.kind, f.where, f.times, f.path, f.headers, f.skip) for f in TROUBLES[trouble]]
    run = Run(hub, tmp_path, "a")
    assert all(f.times == 0 for f in hub.faults), "the fault never came"
    assert run.batches == undisturbed.batches and not run.quarantine
    assert run.requests <= 1.2 * run.ideal, f"{run.requests} requests, ideal {run.ideal}"


def test_sixty_seconds_without_the_hub_cost_a_few_requests(hub, tmp_path, undisturbed):
    hub.faults = []
    threshold = 2 + 2 * FILES + 10
    original, state = hub.fault, {"started": False}

    def fault(kind, path):
        if hub.count() >= threshold and not state["started"]:
            state["started"] = True
            hub.outage(60)
        return original(kind, path)

    hub.fault = fault
    run = Run(hub, tmp_path, "a")
    assert state["started"] and sum(r.status == 503 for r in hub.requests) >= 3
    assert run.batches == undisturbed.batches and not run.quarantine
    assert run.requests <= 1.2 * run.ideal, f"{run.requests} requests, ideal {run.ideal}"


def test_an_expired_address_is_asked_for_again(hub, tmp_path, undisturbed):
    original = hub.fault

    def fault(kind, path):
        if hub.count() >= 40:
            hub.signature = "s1"
        return original(kind, path)

    hub.fault = fault
    run = Run(hub, tmp_path, "a")
    assert 403 in {r.status for r in hub.requests}
    assert run.batches == undisturbed.batches and run.requests <= 1.2 * run.ideal


def test_a_file_that_vanishes_or_changes_goes_to_quarantine_the_same_way_each_time(hub, tmp_path, undisturbed):
    gone = "sample/10BT/002_00000.parquet"
    runs = []
    for name, kind in (("a", "404"), ("b", "404"), ("c", "etag")):
        clock = FastClock()
        client = HubClient(hub.endpoint, clock=clock)
        HubSource(SOURCE, DataConfig(source=SOURCE), tmp_path / name, client=client, clock=clock).manifest()
        hub.faults = [Fault(kind, where="resolve", path=gone, times=10_000)]
        runs.append(Run(hub, tmp_path, name, max_quarantine=0.5))
        hub.faults = []
    assert runs[0].quarantine == list(range(2 * GROUPS, 3 * GROUPS)) == runs[2].quarantine
    assert runs[0].batches == runs[1].batches == runs[2].batches != undisturbed.batches
    assert all(gone in reason for reason in runs[0].reasons.values())
    assert "404" in next(iter(runs[0].reasons.values())) and "other bytes" in next(iter(runs[2].reasons.values()))


def test_more_quarantine_than_allowed_stops_with_the_reason(hub, tmp_path):
    HubSource(SOURCE, DataConfig(source=SOURCE), tmp_path / "a", client=HubClient(hub.endpoint)).manifest()
    hub.faults = [Fault("404", where="resolve", path="002_", times=10_000)]
    with pytest.raises(UserError, match=r"are unreadable .*002_00000.*max_quarantine"):
        Run(hub, tmp_path, "a")


def test_an_outage_beyond_the_budget_is_try_again(hub, tmp_path):
    HubSource(SOURCE, DataConfig(source=SOURCE), tmp_path / "a", client=HubClient(hub.endpoint)).manifest()
    hub.faults = [Fault("503", where="resolve|cdn", times=10_000, skip=10)]
    with pytest.raises(TryAgain, match="the hub answers 503"):
        Run(hub, tmp_path, "a", outage_minutes=2)


@pytest.fixture
def reader(hub, tmp_path):
    clock = FastClock()
    client = HubClient(hub.endpoint, clock=clock, timeout_s=0.5)
    manifest = HubSource(SOURCE, DataConfig(source=SOURCE), tmp_path, client=client, clock=clock).manifest()
    return open_hub(manifest, tmp_path, client=client)


@pytest.mark.parametrize("kind", ["404", "410"])
def test_what_is_gone_is_unreadable(hub, reader, kind):
    hub.faults = [Fault(kind, times=9)]
    with pytest.raises(Unreadable, match=f"000_00000.parquet: the hub answers {kind}"):
        reader.read(0)


def test_denied_access_is_no_quarantine(hub, reader):
    hub.faults = [Fault("403", times=9)]
    with pytest.raises(TryAgain, match="denies access"):
        reader.read(0)


def test_bytes_that_stay_wrong_are_fetched_again_and_then_unreadable(hub, reader):
    hub.faults = [Fault("garbage", where="cdn", times=9)]
    before = hub.count("cdn")
    with pytest.raises(Unreadable, match="no parquet, however often"):
        reader.read(0)
    assert hub.count("cdn") - before == 3


def test_a_single_wrong_bit_never_becomes_text(hub, reader):
    for tenth in range(1, 10):
        hub.faults = [Fault("flip", where="cdn", at=tenth / 10)]
        assert reader.read(0) == [document(0, 0, row) for row in range(ROWS)]
        assert hub.faults[0].times == 0


@pytest.mark.parametrize("kind", ["reset", "short", "cut", "200", "shift"])
def test_a_range_is_exactly_what_was_asked_for(hub, files, kind):
    content = files["sample/10BT/000_00000.parquet"]
    url = f"{hub.endpoint}/datasets/{REPO}/resolve/{hub.commit}/sample/10BT/000_00000.parquet"
    client = HubClient(hub.endpoint, clock=FastClock())
    hub.faults = [Fault(kind, where="cdn", times=2)]
    assert client.part(SourceFile("x", len(content), "", url), 7, 4007) == content[7:4007]
    assert hub.faults[0].times == 0


def test_a_server_that_stalls_is_asked_again(hub, reader):
    hub.faults = [Fault("stall", where="cdn", times=1)]
    assert len(reader.read(0)) == ROWS


def test_the_hubs_wish_to_wait_is_honoured(hub, files):
    clock = FastClock(500)
    with FakeHub({REPO: dict(files)}, now=clock.now, cdn=False) as hub:
        client = HubClient(hub.endpoint, clock=clock)
        path = "sample/10BT/000_00000.parquet"
        content = files[path]
        url = f"{hub.endpoint}/datasets/{REPO}/resolve/{hub.commit}/{path}"
        file = SourceFile(path, len(content), hashlib.sha256(content).hexdigest(), url)
        for headers in ({"Retry-After": "90"}, {"RateLimit": '"resolvers";r=0;t=90'}):
            hub.faults = [Fault("429", headers=headers)]
            start = clock.now()
            assert client.part(file, 5, 25) == content[5:25]
            assert 90 <= clock.now() - start < 130
        with pytest.raises(Changed, match=r"has \d+ bytes and was listed with"):
            client.part(replace(file, size=len(content) + 1), 5, 25)
        with pytest.raises(Changed, match="other bytes"):
            client.part(replace(file, identity="0" * 64), 5, 25)
        with pytest.raises(Refused, match="404 EntryNotFound"):
            client.part(replace(file, location=url + "x"), 5, 25)


def test_many_threads_knock_one_at_a_time_while_the_hub_is_out(hub, files):
    from concurrent.futures import ThreadPoolExecutor

    clock = FastClock()
    hub.now = clock.now
    client = HubClient(hub.endpoint, clock=clock, tries=20)
    hub.outage(60)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.json(f"api/datasets/{REPO}")[0]["sha"], range(12)))
    assert set(answers) == {hub.commit}
    assert sum(r.status == 503 for r in hub.requests) <= 12 + math.ceil(math.log2(60 / 0.25))


def test_a_loader_closes_at_once_though_the_hub_asks_to_wait(hub, tmp_path):
    data = DataConfig(source=SOURCE, encoder="tiktoken", lanes=LANES, window=2)
    client = HubClient(hub.endpoint)
    manifest = HubSource(SOURCE, data, tmp_path, client=client).manifest()
    hub.faults = [Fault("429", times=10_000, headers={"Retry-After": "300"})]
    before = hub.count()
    loader = Loader(
        data, tokenizer=Bytes(), block_size=256, batch_sequences=8, seed=1, cache_dir=tmp_path, manifest=manifest,
        reader=open_hub(manifest, tmp_path, client=client),
    )  # fmt: skip
    while hub.count() == before:
        loader.poll(0.01)
    start = time.monotonic()
    loader.close()
    assert time.monotonic() - start < 20


def test_a_closed_client_ends_all_waiting(hub):
    import threading

    client = HubClient(hub.endpoint)
    hub.faults = [Fault("503", where="api", times=99, headers={"Retry-After": "200"})]
    ended: list[BaseException] = []

    def ask():
        try:
            client.json("api/datasets/x/y")
        except Outage as error:
            ended.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while hub.count() < 1:
        pass
    client.close()
    for thread in threads:
        thread.join(5)
    assert len(ended) == 3
