"""A kill costs nothing: after any SIGKILL the same command goes on, and the result is the same to the last bit.

MYGPT2_KILLS sets how many random kills each run survives: 3 in CI (of which one in a save), 20 for the full promise.
"""

import os
import random

import psutil
import pytest

from tests.life import harness

KILLS = int(os.environ.get("MYGPT2_KILLS", "3"))
STEPS = 200 if KILLS > 3 else 100


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill")
    return harness.corpus(folder / "corpus"), folder / "runs", folder / "cache"


@pytest.mark.parametrize("ranks", [1, 2])
def test_random_sigkills_change_neither_a_loss_nor_a_weight(place, ranks):
    source, runs, cache = place
    calm, killed = runs / f"calm-{ranks}", runs / f"killed-{ranks}"
    harness.run(harness.command(source, runs, calm.name, ranks=ranks, train__steps=STEPS), cache)
    rng = random.Random(ranks)
    targets = sorted(rng.randint(1, STEPS - 5) for _ in range(KILLS))
    words = harness.command(source, runs, killed.name, ranks=ranks, train__steps=STEPS)
    for number, target in enumerate(targets):
        process = harness.start(words, cache)
        # Every third kill waits for a save to begin, the others for a step.
        in_save = number % 3 == 2
        reached = harness.wait_for(
            lambda target=target, in_save=in_save: (
                harness.last_step(killed) >= target and (not in_save or any((killed / "checkpoints").glob(".tmp-*")))
            ),
            process,
        )
        assert reached, f"ended before step {target}: {process.communicate()[0][-3000:]}"
        victim = rng.choice(["rank 0", "rank 1", "launcher", "all"][: None if ranks > 1 else 1])
        everyone = harness.kill(process, victim, killed)
        process.stdout.close()
        _, alive = psutil.wait_procs(everyone, timeout=10)
        assert not alive, f"orphans 10 s after killing the {victim}: {alive}"
    harness.run(words, cache)
    assert harness.losses(killed) == harness.losses(calm)
    assert sorted(harness.losses(calm)) == list(range(1, STEPS + 1))
    assert harness.weights_hash(killed) == harness.weights_hash(calm)


def test_ranks_may_change_between_attempts(place):
    """2 ranks for the first third, 1 for the second, 2 to the end: the batches are equal, the losses within 1e-5."""
    source, runs, cache = place
    # AdamW at an ordinary rate: Muon orthogonalises in bfloat16, which makes 1e-3 of a last-bit difference, and
    # at five times this rate training itself is chaotic enough to grow it a hundredfold within 60 steps.
    still = {
        "model__dropout": 0.0, "schedule__name": "constant", "optimizer__name": "adamw", "optimizer__lr": 6e-4,
    }  # fmt: skip
    harness.run(harness.command(source, runs, "calm", ranks=2, train__steps=STEPS, **still), cache)
    for ranks, steps in ((2, STEPS // 3), (1, 2 * STEPS // 3), (2, STEPS)):
        harness.run(harness.command(source, runs, "changed", ranks=ranks, train__steps=steps, **still), cache)
    calm, changed = harness.losses(runs / "calm"), harness.losses(runs / "changed")
    assert sorted(calm) == sorted(changed) == list(range(1, STEPS + 1))
    assert max(abs(calm[s] - changed[s]) for s in calm) < 1e-5


def test_a_finished_run_is_not_trained_again(place):
    source, runs, cache = place
    words = harness.command(source, runs, "short", ranks=1, train__steps=12)
    harness.run(words, cache)
    before = (runs / "short" / "metrics.jsonl").read_bytes()
    assert "is finished" in harness.run(words, cache)
    assert (runs / "short" / "metrics.jsonl").read_bytes() == before
