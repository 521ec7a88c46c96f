"""A kill costs nothing: after any SIGKILL the same command goes on, and the result is the same to the last bit.

MYGPT2_KILLS sets how many random kills each run survives: 3 in CI (of which one in a save), 20 for the full promise.
"""

import os
import random
import signal

import pytest

from tests.life import harness

KILLS = int(os.environ.get("MYGPT2_KILLS", "3"))
STEPS = 200 if KILLS > 3 else 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a corpus and a cache that the runs share."""
    folder = tmp_path_factory.mktemp("kill")
    harness.corpus(folder / "corpus")
    return folder


@pytest.fixture
def place(folder, launch):
    """Starts a run by its name; what it prints goes beside its folder."""

    def start(name, *, ranks, **changes):
        values = harness.settings(folder / "corpus", folder / "cache", **{"train__steps": STEPS, **changes})
        return launch(harness.command(values, folder / "runs", name), folder / name, ranks)

    start.runs = folder / "runs"
    return start


def done(launched):
    assert launched.wait() == 0, launched.said()[-3000:]


def kill(process, victim, run):
    """SIGKILL to `launcher`, `rank 0`, `rank 1` or `all`; returns everyone who was alive then."""
    everyone = harness.family(process.pid)
    pids = harness.rank_pids(run)
    if victim == "all":
        for other in everyone:
            other.kill()
    elif victim == "launcher":
        process.kill()
    else:
        os.kill(pids[int(victim.removeprefix("rank "))], signal.SIGKILL)
    return everyone


@pytest.mark.parametrize("ranks", [1, 2])
def test_random_sigkills_change_neither_a_loss_nor_a_weight(place, ranks):
    calm, killed = place.runs / f"calm-{ranks}", place.runs / f"killed-{ranks}"
    done(place(calm.name, ranks=ranks))
    rng = random.Random(ranks)
    targets = sorted(rng.randint(1, STEPS - 5) for _ in range(KILLS))
    for number, target in enumerate(targets):
        process = place(killed.name, ranks=ranks)
        # Every third kill waits for a save to begin, the others for a step.
        in_save = number % 3 == 2
        reached = harness.wait_for(
            lambda target=target, in_save=in_save: (
                harness.last_step(killed) >= target and (not in_save or any((killed / "checkpoints").glob(".tmp-*")))
            ),
            process,
        )
        assert reached, f"ended before step {target}: {process.said()[-3000:]}"
        victim = rng.choice(["rank 0", "rank 1", "launcher", "all"][: None if ranks > 1 else 1])
        everyone = kill(process, victim, killed)
        assert not (alive := harness.alive(everyone, 10)), f"orphans 10 s after killing the {victim}: {alive}"
    done(place(killed.name, ranks=ranks))
    assert harness.losses(killed) == harness.losses(calm)
    assert sorted(harness.losses(calm)) == list(range(1, STEPS + 1))
    assert harness.weights_hash(killed) == harness.weights_hash(calm)


def test_ranks_may_change_between_attempts(place):
    """2 ranks for the first third, 1 for the second, 2 to the end: the batches are equal, the losses within 1e-5."""
    # AdamW at an ordinary rate: Muon orthogonalises in bfloat16, which makes 1e-3 of a last-bit difference, and
    # at five times this rate training itself is chaotic enough to grow it a hundredfold within 60 steps.
    still = {
        "model__dropout": 0.0, "schedule__name": "constant", "optimizer__name": "adamw", "optimizer__lr": 6e-4,
    }  # fmt: skip
    done(place("calm", ranks=2, **still))
    for ranks, steps in ((2, STEPS // 3), (1, 2 * STEPS // 3), (2, STEPS)):
        done(place("changed", ranks=ranks, train__steps=steps, **still))
    calm, changed = harness.losses(place.runs / "calm"), harness.losses(place.runs / "changed")
    assert sorted(calm) == sorted(changed) == list(range(1, STEPS + 1))
    assert max(abs(calm[s] - changed[s]) for s in calm) < 1e-5


def test_a_finished_run_is_not_trained_again(place):
    done(place("short", ranks=1, train__steps=12))
    before = (place.runs / "short" / "metrics.jsonl").read_bytes()
    again = place("short", ranks=1, train__steps=12)
    done(again)
    assert "is finished" in again.said()
    assert (place.runs / "short" / "metrics.jsonl").read_bytes() == before
