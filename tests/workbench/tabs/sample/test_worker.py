"""The worker: the same text twice, a stop within one token, lists of one context, and an end when nobody listens."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt2.exchange.load import load_model
from mygpt2.generate import Engine, Sampling
from tests.workbench.tabs.sample.places import REQUEST, small_place
from workbench.tabs.sample.worker import Inbox, Worker, is_memory


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    runs, data = small_place(tmp_path_factory.mktemp("place"))
    return {"first": str(runs / "first"), "other": str(data / "other"), "wide": str(data / "wide")}


class Bench:
    """A worker in this process. `on_event` may answer an event with a new request, as the page would."""

    def __init__(self) -> None:
        self.inbox, self.events = Inbox(), []  # type: tuple[Inbox, list[dict[str, Any]]]
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        self.worker = Worker(self.inbox, self._send, "cpu")

    def _send(self, event: dict[str, Any]) -> None:
        json.dumps(event)  # everything is JSON
        self.events.append(event)
        self.on_event(event)

    def ask(self, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        self.events.clear()
        for message in messages:
            self.inbox.take(message)
        self.worker.run(idle=0.0)
        return list(self.events)


@pytest.fixture(scope="module")
def shared() -> Bench:
    return Bench()


@pytest.fixture
def bench(shared: Bench) -> Bench:
    shared.on_event = lambda event: None
    return shared


def request(*models: str, prompt: str = "Hi", id: str = "g", **settings: Any) -> dict[str, Any]:
    return {"do": "generate", "id": id, "models": list(models), "prompt": prompt, "settings": REQUEST | settings}


def ids(events: list[dict[str, Any]], pane: int) -> list[int]:
    return [event["token"] for event in events if event["event"] == "token" and event["pane"] == pane]


def one(events: list[dict[str, Any]], kind: str, pane: int = 0) -> dict[str, Any]:
    return next(event for event in events if event["event"] == kind and event.get("pane", pane) == pane)


def test_twice_and_in_both_panes_the_text_is_the_engines(bench: Bench, place: dict[str, str]) -> None:
    loaded = load_model(place["first"])
    record = Engine(loaded.model, loaded.tokenizer).generate(["Hi"], Sampling(), max_new_tokens=12, seed=5)[0]
    once, again = (bench.ask(request(place["first"], place["first"])) for _ in range(2))
    for events in (once, again):
        for pane in (0, 1):
            assert ids(events, pane) == record["ids"]
            assert one(events, "end", pane)["text"] == record["text"]
    assert ids(bench.ask(request(place["first"], seed=6)), 0) != record["ids"]


def test_models_take_turns(bench: Bench, place: dict[str, str]) -> None:
    events = bench.ask(request(place["first"], place["other"]))
    panes = [event["pane"] for event in events if event["event"] == "token"]
    both = 2 * min(panes.count(0), panes.count(1))
    assert panes[:both] == [0, 1] * (both // 2) and both > 2


def test_after_a_stop_at_most_one_token_is_drawn(bench: Bench, place: dict[str, str]) -> None:
    seen: list[dict[str, Any]] = []

    def stop_at_five(event: dict[str, Any]) -> None:
        if event["event"] == "token":
            seen.append(event)
            if len(seen) == 5:
                bench.inbox.take({"do": "stop", "id": "g"})

    bench.on_event = stop_at_five
    events = bench.ask(request(place["first"], place["other"], max_new_tokens=500))
    assert len(seen) - 5 <= 1 and one(events, "done")["after_stop"] == len(seen) - 5
    assert one(events, "end", 0)["finish"] == one(events, "end", 1)["finish"] == "cancelled"


def test_one_stopped_while_it_waits_draws_nothing(bench: Bench, place: dict[str, str]) -> None:
    first, second = request(place["first"], id="a"), request(place["first"], id="b")
    events = bench.ask(first, second, {"do": "stop", "id": "b"})
    assert ids([event for event in events if event["id"] == "a"], 0)
    assert [event["event"] for event in events if event["id"] == "b"] == ["start", "done"]


def test_a_model_that_cannot_be_loaded_is_its_panes_problem(
    bench: Bench, place: dict[str, str], tmp_path: Path
) -> None:
    events = bench.ask(request(str(tmp_path / "none"), place["first"]))
    assert "none" in one(events, "problem", 0)["text"] and "\n" not in one(events, "problem", 0)["text"]
    assert ids(events, 1) and events[-1]["event"] == "done"


def test_no_prompt_begins_with_end_of_text_and_a_long_one_says_its_length(bench: Bench, place: dict[str, str]) -> None:
    begin = one(bench.ask(request(place["first"], prompt="")), "begin")
    assert begin["prompt_tokens"] == 0 and len(begin["prompt_ids"]) == 1
    events = bench.ask(request(place["first"], prompt="word " * 1500))
    assert one(events, "begin")["prompt_tokens"] > 3000 > one(events, "begin")["block_size"] == 48
    assert ids(events, 0)


def test_an_emoji_keeps_its_bytes(bench: Bench, place: dict[str, str]) -> None:
    events = bench.ask(request(place["first"], prompt="😀", max_new_tokens=64))
    assert one(events, "begin")["prompt_tokens"] > 1
    raw = b"".join(bytes.fromhex(e["bytes"] or "") for e in events if e["event"] == "token")
    assert one(events, "end")["text"] == raw.decode("utf-8", "replace")


def likeliest(model: str, fingerprint: str, ids: list[int], text: bytes = b"") -> dict[str, Any]:
    return {"do": "likeliest", "id": "q", "model": model, "fingerprint": fingerprint, "ids": ids, "text": text.hex()}


def test_the_list_of_a_context_is_what_the_model_drew_from_there(bench: Bench, place: dict[str, str]) -> None:
    events = bench.ask(request(place["first"]))
    begin, drawn = one(events, "begin"), [event for event in events if event["event"] == "token"]
    at = 3
    context = begin["prompt_ids"] + ids(events, 0)[:at]
    found = one(bench.ask(likeliest(place["first"], begin["fingerprint"], context)), "likeliest")
    assert [row[0] for row in found["likeliest"]] == [row[0] for row in drawn[at]["likeliest"]]
    assert "token" not in found
    asked = likeliest(place["first"], begin["fingerprint"], context) | {"token": drawn[at]["token"]}
    id, data, logprob, rank = one(bench.ask(asked), "likeliest")["token"]
    assert (id, data, rank) == (drawn[at]["token"], drawn[at]["bytes"], drawn[at]["rank"])
    assert math.isclose(logprob, drawn[at]["logprob"], abs_tol=1e-4)
    for mine, theirs in zip(found["likeliest"], drawn[at]["likeliest"], strict=True):
        assert math.isclose(mine[2], theirs[2], abs_tol=1e-4)


def test_another_tokenizer_reads_the_text_without_half_a_character(bench: Bench, place: dict[str, str]) -> None:
    loaded = load_model(place["wide"])
    text = b"the cat " + "😀".encode()[:2]
    found = one(bench.ask(likeliest(place["wide"], "of another", [1, 2, 3], text)), "likeliest")
    own = loaded.tokenizer.encode("the cat ")
    with torch.no_grad():
        logits = loaded.model.logits(loaded.model(torch.tensor([own]))[0, -1])
    assert found["likeliest"][0][0] == int(logits.argmax()) and found["dropped"] == 2
    assert found["context"] == len(own)


def test_a_question_is_answered_between_two_tokens(bench: Bench, place: dict[str, str]) -> None:
    def ask_once(event: dict[str, Any]) -> None:
        if event["event"] == "token" and not any(e["event"] == "likeliest" for e in bench.events):
            bench.inbox.take(likeliest(place["first"], "of another", [1], b"a"))

    bench.on_event = ask_once
    kinds = [event["event"] for event in bench.ask(request(place["first"]))]
    assert kinds.index("likeliest") < len(kinds) - 1 - kinds[::-1].index("token")


def test_memory_that_runs_out_is_one_line_and_the_worker_goes_on(
    bench: Bench, place: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(spec: str) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patched:
        patched.setattr(bench.worker._models, "get", full)
        events = bench.ask(request(place["first"]))
    assert events[-1]["event"] == "problem" and "memory of cpu is not enough" in events[-1]["text"]
    assert not is_memory(RuntimeError("shapes do not match"))
    assert ids(bench.ask(request(place["first"])), 0)


def test_the_process_speaks_lines_and_ends_with_its_input(place: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.tabs.sample.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    process.stdin.write("no JSON\n[]\n" + json.dumps(request(place["first"], max_new_tokens=3)) + "\n")
    process.stdin.flush()
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "done":
            break
    assert [event["event"] for event in events] == ["start", "loading", "begin", *["token"] * 3, "end", "done"]
    process.stdin.close()  # the server has gone
    assert process.wait(60) == 0
