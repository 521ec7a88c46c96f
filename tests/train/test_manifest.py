"""One rank finds out what the data is, and tells the others: counted by what each opens, lists, looks at and asks."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from mygpt2.board import RankInfo
from mygpt2.config.data import DataConfig
from mygpt2.distributed import World
from mygpt2.train.manifest import manifest_for_all
from tests import forks
from tests.data.hub_data import REPO, Bytes, fineweb_edu
from tests.fake_hub import FakeHub
from tests.life import harness

SIZE = 3


def finding(rank, port, source, place, folder):
    """Writes down the manifest of this rank, and how often it touched the data and the cache or asked the hub."""
    torch.set_num_threads(1)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world = World(RankInfo(rank, SIZE, rank, SIZE), torch.device("cpu"), timeout_s=60, env=env)
    touched, watched, hub = [], (source, place), int(os.environ["HF_ENDPOINT"].rpartition(":")[2])

    def audit(event, arguments):
        if event in ("open", "os.listdir", "os.scandir") and str(arguments[0]).startswith(watched):
            touched.append(event)
        if event == "socket.connect" and arguments[1][1:2] == (hub,):
            touched.append(event)

    def looked(original):
        def look(path, *rest, **more):
            if str(path).startswith(watched):
                touched.append("stat")
            return original(path, *rest, **more)

        return look

    sys.addaudithook(audit)
    os.stat, os.lstat = looked(os.stat), looked(os.lstat)
    found = manifest_for_all(DataConfig(source=source, cache_dir=place), Bytes(), world)
    Path(f"{folder}/{rank}.json").write_text(json.dumps({"manifest": found.to_dict(), "touched": touched}))
    world.close()


@pytest.mark.parametrize("kind", ["local", "hub"])
def test_the_first_rank_alone_touches_the_data_and_all_have_its_manifest(kind, tmp_path, monkeypatch):
    with FakeHub({REPO: fineweb_edu()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        source = str(harness.corpus(tmp_path / "corpus", files=2)) if kind == "local" else "fineweb-edu-10BT"
        given = (forks.free_port(), source, str(tmp_path / "cache"), str(tmp_path))
        ranks = [forks.Forked(finding, rank, *given, out=tmp_path / f"rank-{rank}") for rank in range(SIZE)]
        assert forks.ends(ranks) == [0] * SIZE, "".join(rank.said() for rank in ranks)[-3000:]
    first, *others = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(SIZE)]
    assert first["manifest"]["files"] and {"stat", "open"} <= set(first["touched"])
    assert ("socket.connect" in first["touched"]) == (kind == "hub")
    assert all(each == {"manifest": first["manifest"], "touched": []} for each in others)
