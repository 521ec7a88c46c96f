"""The server's side, against workers that are small scripts: order, crashes, closed pages, idle ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from workbench.tabs.sample.client import CLOSED_SECONDS, WAITING, Desk, Sampler, why
from workbench.tabs.sample.generation import Generation
from workbench.tabs.sample.settings import Settings

HEAD = """
import json, os, sys
def say(**event): print(json.dumps(event), flush=True)
def token(id): say(id=id, event="token", pane=0, token=1, bytes="61", logprob=-1.0, rank=1, likeliest=[], seconds=0.1)
def begin(id): say(id=id, event="begin", pane=0, name="m", prompt_ids=[1], fingerprint="f", block_size=8)
"""
TALKS = """
for line in sys.stdin:
    m = json.loads(line)
    if m["do"] == "generate":
        say(id=m["id"], event="start"); begin(m["id"]); token(m["id"])
    elif m["do"] == "stop":
        token(m["id"]); say(id=m["id"], event="end", pane=0, finish="cancelled", text="aa")
        say(id=m["id"], event="done", after_stop=1)
    else:
        say(id=m["id"], event="likeliest", likeliest=[], seen=1, context=1, dropped=0)
"""
DIES = """
m = json.loads(sys.stdin.readline())
say(id=m["id"], event="start"); token(m["id"])
print("cannot go on <b>", file=sys.stderr)
os._exit(3)
"""

Script = Callable[[str], list[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def write(body: str) -> list[str]:
        path = tmp_path / "worker.py"
        path.write_text(HEAD + body)
        return [sys.executable, str(path)]

    return write


@pytest.fixture
def desks() -> Iterator[list[Desk]]:
    made: list[Desk] = []
    yield made
    for desk in made:
        desk.close()


def a_generation(id: str = "g") -> Generation:
    return Generation(id, [("spec", "m")], "Hi", Settings())


def until(done: Callable[[], bool]) -> None:
    """Waits for a condition that other threads bring about."""
    ended, limit = threading.Event(), time.monotonic() + 60
    while not done():
        assert time.monotonic() < limit, "it did not happen"
        ended.wait(0.01)


def test_tokens_arrive_and_a_stop_ends_it(script: Script, desks: list[Desk]) -> None:
    desks.append(desk := Desk(script(TALKS)))
    generation = a_generation()
    desk.start(generation)
    until(lambda: len(generation.panes[0].tokens) == 1)
    desk.stop(generation)
    desk.stop(generation)  # twice is once
    until(lambda: generation.ended)
    assert (generation.state, generation.after_stop, generation.panes[0].text) == ("stopped", 1, "aa")
    assert desk.ask({"do": "likeliest"})["context"] == 1


def test_a_worker_that_dies_is_one_readable_line_and_the_next_is_a_new_one(script: Script, desks: list[Desk]) -> None:
    desks.append(desk := Desk(script(DIES)))
    for _ in range(2):
        generation = a_generation()
        desk.start(generation)
        until(lambda: generation.ended)  # noqa: B023
        assert generation.state == "failed" and len(generation.panes[0].tokens) == 1
        assert generation.problem == "the sampling process ended (exit code 3): cannot go on <b>; try again"


def test_a_killed_worker_speaks_of_memory(script: Script, desks: list[Desk]) -> None:
    desks.append(desk := Desk(script(TALKS)))
    generation = a_generation()
    desk.start(generation)
    until(lambda: generation.state == "running")
    assert desk.process is not None
    desk.process.send_signal(signal.SIGKILL)
    until(lambda: generation.ended)
    assert "killed, perhaps because memory ran out" in generation.problem
    assert why(0, []) == ""


def test_a_closed_page_cancels_its_generation(script: Script, desks: list[Desk]) -> None:
    body = TALKS.replace("begin(m[\"id\"]); token(m[\"id\"])", "begin(m[\"id\"])")  # fmt: skip
    now = [0.0]
    desks.append(desk := Desk(script(body), clock=lambda: now[0]))
    generation = a_generation()
    desk.start(generation)
    until(lambda: bool(generation.panes[0].head))
    now[0] += CLOSED_SECONDS - 1
    desk.seen(generation)
    now[0] += CLOSED_SECONDS - 1
    desk._heard({"id": "g", "event": "loading", "pane": 0})
    assert not generation.asked_to_stop
    now[0] += 2  # nobody has asked for longer than an open page takes
    desk._heard({"id": "g", "event": "loading", "pane": 0})
    until(lambda: generation.ended)
    assert generation.state == "stopped"


def test_what_an_idle_worker_did_not_read_is_asked_again(tmp_path: Path, script: Script, desks: list[Desk]) -> None:
    mark = tmp_path / "was-here"
    body = f"import pathlib; mark = pathlib.Path({str(mark)!r})\nif not mark.exists():\n    mark.touch(); os._exit(0)\n"
    desks.append(desk := Desk(script(body + TALKS)))
    generation = a_generation()
    desk.start(generation)
    until(lambda: generation.state == "running")
    assert mark.exists()


def test_later_ones_wait_in_order_and_not_without_end(script: Script, desks: list[Desk]) -> None:
    desks.append(desk := Desk(script("for line in sys.stdin: pass")))
    waiting = [a_generation(str(number)) for number in range(WAITING + 1)]
    for generation in waiting:
        desk.start(generation)
    assert [desk.before(generation) for generation in waiting] == list(range(WAITING + 1))
    with pytest.raises(UserError, match=f"{WAITING} generations wait"):
        desk.start(a_generation("late"))


def test_a_closed_desk_starts_no_worker_for_who_still_waits(script: Script) -> None:
    desk = Desk(script("for line in sys.stdin: pass"))
    waiting = [a_generation(str(number)) for number in range(2)]
    for generation in waiting:
        desk.start(generation)
    desk.close()
    until(lambda: all(generation.ended for generation in waiting))
    assert desk.process is None


def test_an_answer_that_does_not_come_is_said(script: Script, desks: list[Desk]) -> None:
    desks.append(desk := Desk(script("for line in sys.stdin: pass")))
    with pytest.raises(UserError, match="no answer within"):
        desk.ask({"do": "likeliest"}, seconds=0.05)


def test_a_sampler_forgets_old_generations_and_says_so(script: Script, desks: list[Desk]) -> None:
    desks.append(desk := Desk(script(DIES)))
    sampler = Sampler(lambda device: desk)
    ids = []
    for _ in range(14):
        generation = sampler.start([("spec", "m")], "Hi", Settings())
        until(lambda: generation.ended)  # noqa: B023
        ids.append(generation.id)
    assert sampler.poll(ids[-1], [0])["panes"][0]["tokens"]
    for unknown in (ids[0], "", None, "../x"):
        with pytest.raises(UserError, match="not known any more"):
            sampler.poll(unknown, [0])


def test_the_server_does_not_load_torch() -> None:
    code = "import sys, workbench.tabs.sample.tab, workbench.tabs.compare.tab; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
