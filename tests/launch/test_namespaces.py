"""Two nodes without a scheduler, each in a network of its own: they meet, one dies, both are started again."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mygpt2.errors import EXIT_OK
from tests.life import harness

NAMES = [f"mygpt2-{secrets.token_hex(2)}-{i}" for i in (0, 1)]
ADDRESSES = ["10.87.0.1", "10.87.0.2"]
STARTED: list[subprocess.Popen[bytes]] = []


def missing() -> str:
    if not os.environ.get("MYGPT2_CLUSTERS"):
        return "scripts/test_clusters.sh runs it"
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "needs root and iproute2"
    return ""


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def networks() -> Iterator[None]:
    """Two namespaces with a cable between them; each has a network of its own and no other way out."""
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", "cable0", "netns", NAMES[0], "type", "veth", "peer", "name", "cable1", "netns", NAMES[1])
        for i, name in enumerate(NAMES):
            ip("-n", name, "addr", "add", f"{ADDRESSES[i]}/24", "dev", f"cable{i}")
            for device in ("lo", f"cable{i}"):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for process in STARTED:
            for each in harness.family(process.pid) if process.poll() is None else []:
                each.kill()
        for name in NAMES:
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


def start(node: int, folder: Path, name: str, steps: int) -> subprocess.Popen[bytes]:
    values = harness.settings(folder / "corpus", folder / "cache", train__steps=steps)
    words = harness.command(values, folder / "runs", name)[1:]
    where = {"NNODES": "2", "NODE_RANK": str(node), "MASTER_ADDR": ADDRESSES[0], "RDZV_ID": name}
    environment = {**harness.environment(folder / "cache"), **where, "PYTHON": sys.executable}
    argv = ["ip", "netns", "exec", NAMES[node], str(harness.REPO / "launch_train.sh"), "--nproc", "1", *words]
    with open(folder / f"{name}-{node}.log", "ab") as log:
        STARTED.append(subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True))
    return STARTED[-1]


def both(folder: Path, name: str, steps: int) -> list[subprocess.Popen[bytes]]:
    return [start(node, folder, name, steps) for node in (0, 1)]


def test_a_node_dies_and_both_are_started_again(networks: None, tmp_path: Path) -> None:
    harness.corpus(tmp_path / "corpus")
    calm, lost = tmp_path / "runs" / "calm", tmp_path / "runs" / "lost"
    assert [node.wait(400) for node in both(tmp_path, "calm", 40)] == [EXIT_OK] * 2, said(tmp_path, "calm")
    nodes = both(tmp_path, "lost", 40)
    assert harness.wait_for(lambda: harness.last_step(lost) >= 10, nodes[0]), said(tmp_path, "lost")
    for process in harness.family(nodes[1].pid):
        process.kill()
    assert nodes[0].wait(120) not in (EXIT_OK, None), "the node that is left ends, and waits for nobody"
    assert "Traceback" not in said(tmp_path, "lost")
    assert [node.wait(400) for node in both(tmp_path, "lost", 40)] == [EXIT_OK] * 2, said(tmp_path, "lost")
    assert harness.losses(lost) == harness.losses(calm)
    assert harness.weights_hash(lost) == harness.weights_hash(calm)


def said(folder: Path, name: str) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob(f"{name}-*.log")))
