"""A sweep's file: what it stands for, and that a mistake in it is one sentence."""

import re

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.experiments.grid import read_plan
from mygpt2.experiments.optimum import SURE, _vertices, optimum
from mygpt2.experiments.scores import Scores
from mygpt2.experiments.swept import result_text

FILE = b"""
base = "tiny"
[settings]
train.steps = 140
[[axis]]
setting = "optimizer.lr"
from = 1e-3
to = 3e-2
arms = 5
"""
GRID = b"from = 1e-3\nto = 3e-2\narms = 5"

WHERE = {"setting": "optimizer.lr", "arms": 3, "look": 2, "step": 20, "tokens": 20, "compares": "ends"}
ARM = {"values": [1e-3], "loss": 3.0, "step": 20, "compares": "ends", "stopped": False, "why": "", "difference": 0.0,
       "low": 0.0, "high": 0.0, "p": None}  # fmt: skip
SPENT = {"tokens": 1, "runs": 1, "share": 1.0, "full_tokens": 1, "seconds": 1.0}
RESULT = {
    "protocol": "run", "margin": 0.002, "horizon_tokens": 20, "decays": True, "replicates": 1, "schedule": "wsd",
    "axes": [{"setting": "optimizer.lr"}],
    "result": {"best": "a", "values": [1e-3], "loss": 3.0, "arms": {"a": ARM}, "spent": SPENT, "optimum": None},
}  # fmt: skip


def test_a_file_is_arms_on_a_log_grid_and_looks_whose_ends_decay(tmp_path):
    plan = read_plan(FILE, tmp_path, "rates")
    assert list(plan.arms) == ["lr1e-3", "lr234e-5", "lr548e-5", "lr128e-4", "lr3e-2"]
    assert [arm.config.optimizer.lr for arm in plan.arms.values()] == [0.001, 0.00234, 0.00548, 0.0128, 0.03]
    assert (plan.name, plan.looks, plan.decays, plan.margin) == ("rates", (28, 63, 140), True, 0.002)
    assert [plan.trunk(look) for look in plan.looks] == [22, 50, 112]
    assert not read_plan(FILE.replace(b"[settings]", b'[settings]\nschedule.name = "cosine"'), tmp_path, "x").decays


MIXED = b"""
base = "tiny"
[settings]
train.steps = 140
data.mix = [{name = "docs", source = "pydocs", weight = 3}, {name = "my-code", source = "/c"}]
[[axis]]
setting = "data.mix.my-code.weight"
values = [1, 3.5]
"""


def test_the_weight_of_a_source_is_an_axis_and_the_others_stay(tmp_path):
    plan = read_plan(MIXED, tmp_path, "mixtures")
    assert list(plan.arms) == ["mycode1e0", "mycode35e-1"]
    mixes = [[(each.name, each.source, each.weight) for each in arm.config.data.mix] for arm in plan.arms.values()]
    assert mixes == [[("docs", "pydocs", 3.0), ("my-code", "/c", weight)] for weight in (1.0, 3.5)]
    both = MIXED + b'[[axis]]\nsetting = "data.mix.docs.weight"\nvalues = [1, 2]\n'
    weights = [[each.weight for each in arm.config.data.mix] for arm in read_plan(both, tmp_path, "x").arms.values()]
    assert sorted(weights) == [[1.0, 1.0], [1.0, 3.5], [2.0, 1.0], [2.0, 3.5]]
    for name in (b"data.mix.web.weight", b"data.mix"):
        with pytest.raises(UserError, match=r"by the weight of one of its sources.*; one of docs, my-code$"):
            read_plan(MIXED.replace(b"data.mix.my-code.weight", name), tmp_path, "x")
    with pytest.raises(UserError, match="the base has no mixture"):
        read_plan(FILE.replace(b"optimizer.lr", b"data.mix.a.weight"), tmp_path, "x")
    with pytest.raises(UserError, match="expected a number above 0"):
        read_plan(MIXED.replace(b"[1, 3.5]", b"[0, 1]"), tmp_path, "x")


def test_two_axes_are_all_pairs(tmp_path):
    more = b'[[axis]]\nsetting = "optimizer.weight_decay"\nvalues = [0.1, 0.0]\n'
    plan = read_plan(FILE.replace(b"arms = 5", b"arms = 3") + more, tmp_path, "two")
    assert list(plan.arms) == ["a1", "a2", "a3", "a4", "a5", "a6"]
    assert plan.beside("a3", plan.arms) == {"a1", "a4", "a5"} and plan.beside("a3", ["a3", "a5", "a6"]) == {"a5"}
    assert plan.places["a2"] == (0.001, 0.1) and plan.arms["a6"].config.optimizer.weight_decay == 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((b"base", b"bass"), "bass is not a key of a sweep; did you mean base?"),
        ((b"arms = 5", b"arms = 12"), "with 12 arms is no log grid"),
        ((b"from = 1e-3", b"from = 1"), "no log grid"),
        ((b"optimizer.lr", b"optimizer.rl"), "is no setting with a number"),
        ((b"optimizer.lr", b"train.steps"), "no axis of a sweep"),
        ((b"optimizer.lr", b"schedule.name"), "is no setting with a number"),
        ((b"train.steps = 140", b"train.steps = 60"), "its decay would begin inside the warm-up of 10 steps"),
        ((b"train.steps = 140", b'train.steps = 12\nschedule.name = "cosine"'), "it lies in the warm-up of 10 steps"),
        ((b"train.steps = 140", b"train.steps = 140\nschedule.decay_share = 1.0"), "no step before its decay"),
        ((b"[settings]", b"looks = 5\n[settings]"), "looks = 5: give 2 or 3"),
        ((b"[settings]", b"looks = [70, 60, 140]\n[settings]"), "must rise to the run's last step, 140"),
        ((b"[settings]", b"margin = nan\n[settings]"), "margin = nan is not a number"),
        ((b"[settings]", b"replicates = 0\n[settings]"), "use 1 to 100"),
        ((b"[[axis]]", b"[[axes]]"), "did you mean axis?"),
        ((b"base = ", b"base = ["), "not TOML"),
        ((b'"tiny"', b'"tinny"'), "did you mean tiny?"),
        ((b"[settings]", b"looks = 5\n[settings]"), "for example [28, 63, 140]"),
        ((b"optimizer.lr", b"model.seed"), "trained under the same seeds; replicates = 3"),
        ((b"optimizer.lr", b"checkpoint.interval"), "changes no weight"),
        ((b"optimizer.lr", b"data.validation_fraction"), "would not compare at equal compute on one text"),
        ((b"[[axis]]", b'[[axis]]\nsetting = "optimizer.lr"\nvalues = [1e-3]\n[[axis]]'), "setting of two [[axis]]"),
        ((b"[[axis]]", b"[[axis]]\nvalues = [1e-3, 2e-3]"), "has values and from, to or arms"),
        ((GRID, b"values = [1e-3, 3e-3, 1e-3]"), "has one twice, or a fraction"),
        ((b'optimizer.lr"\n' + GRID, b'schedule.warmup_steps"\nvalues = [1.4, 5]'), "write [1, 5]"),
        ((b"from = 1e-3", b"from = true"), "needs values = [...], or from, to and arms"),
        ((b"[settings]", b'protocol = "edu"\n[settings]'), "protocol 'edu' is neither a protocol nor a path"),
        ((b"[settings]", b'protocol = ""\n[settings]'), "protocol '' is neither a protocol nor a path"),
        ((b"[settings]", b'protocol = "run:nope"\n[settings]'), "no run 'nope'"),
        ((b"[settings]", b"[settings]\ndata.validation_fraction = 0"), "holds no document out"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, change, words):
    with pytest.raises(UserError) as told:
        read_plan(FILE.replace(*change), tmp_path, "x")
    assert words in str(told.value) and "\n" not in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("looks", "schedule"), [(2, "trapezoid"), (3, "trapezoid"), (2, "cosine"), (3, "cosine")])
def test_a_run_too_short_for_its_looks_is_told_the_least_length_that_is_enough(tmp_path, looks, schedule):
    def file(steps):
        more = f'looks = {looks}\n[settings]\nschedule.name = "{schedule}"'.encode()
        return FILE.replace(b"[settings]", more).replace(b"train.steps = 140", f"train.steps = {steps}".encode())

    with pytest.raises(UserError) as told:
        read_plan(file(20), tmp_path, "x")
    three, two = re.search(r"(\d+) steps or longer \((\d+) with 2 looks\)", str(told.value)).groups()
    least = int(three if looks == 3 else two)
    assert read_plan(file(least), tmp_path, "x").steps == least
    with pytest.raises(UserError, match="too early"):
        read_plan(file(least - 1), tmp_path, "x")


def test_the_lowest_point_is_the_parabolas_or_lies_outside():
    x = np.array([0.0, 1.0, 2.0, 4.0])
    rows = np.array([(x - 1.3) ** 2, (x - 9) ** 2, (x + 2) ** 2, [1, 0, 0, 1], [0, 0, 0, 0]])
    assert _vertices(x, rows).tolist() == pytest.approx([1.3, np.inf, -np.inf, 1.5, -np.inf])


def scored(loss, seed=0, documents=400, tokens=50, noise=0.02):
    rng = np.random.default_rng(seed)
    targets = np.full(documents, tokens, float)
    return Scores("r", 1, "run", 64, "t", "fp32", "w", (loss + noise * rng.normal(size=documents)) * targets, targets)


def test_the_interval_of_an_optimum_holds_the_truth_and_an_edge_is_outside():
    values, truth = [1e-3, 2e-3, 4e-3, 8e-3, 16e-3], np.log(5e-3)
    held = 0
    for seed in range(20):
        arms = [[scored(3 + 0.02 * (np.log(v) - truth) ** 2, seed * 10 + i)] for i, v in enumerate(values)]
        found = optimum(values, arms, seed)
        held += found.low <= 5e-3 <= found.high
    assert held >= 16
    edge = optimum(values, [[scored(3 - 0.1 * i, i)] for i in range(5)])
    assert (edge.value, edge.outside, edge.low, edge.high) == (None, "above", values[-2], None)
    assert optimum(values[:2], [[scored(3)], [scored(3)]]) is None


def test_an_edge_under_the_noise_is_not_called_outside_and_arms_that_are_gone_bound_the_optimum():
    values, one = [1e-3, 2e-3, 4e-3], scored(3, 1)
    same = optimum(values, [[one], [one], [one]])
    tries = ([[scored(3, 3 * k + i)] for i in range(3)] for k in range(20))
    near = next(found for arms in tries if (found := optimum(values, arms)).outside)
    for found in (same, near):
        assert found.value is None and found.low is found.high is None and found.share_outside < SURE
        told = result_text({**RESULT, "result": {**RESULT["result"], "optimum": {**WHERE, **found.to_json()}}})
        assert "the optimum is not told by these losses" in told and "outside" not in told
    gone = optimum(values, [[scored(3 - 0.1 * i, i)] for i in range(3)], grid=[*values, 10.0])
    assert (gone.outside, gone.low, gone.high) == ("", 2e-3, 10.0)


def test_an_arm_that_is_far_off_tells_nothing_of_the_optimum_but_that_it_lies_before_it():
    values = [3e-4, 3e-3, 10.0]
    found = optimum(values, [[scored(5.5, 1)], [scored(4.5, 2)], [scored(400.0, 3)]])
    assert (found.value, found.low, found.high, found.outside) == (None, 3e-4, 10.0, "")
    rates = [1e-3, 2e-3, 4e-3, 8e-3, 1.0]
    arms = [[scored(3 + 0.02 * (np.log(v) - np.log(3e-3)) ** 2, i)] for i, v in enumerate(rates[:4])]
    found = optimum(rates, [*arms, [scored(90.0, 9)]])
    assert found.fitted == 4 and found.low < 3e-3 < found.high < 8e-3


def test_a_loss_that_is_no_parabola_gets_a_wider_interval():
    """Steep beyond the optimum, as rates are: the two parabolas disagree, and both count."""
    values = [1e-3, 2e-3, 4e-3, 8e-3, 16e-3]
    steep = [3.06, 3.02, 3.0, 3.1, 3.45]
    round_ = [3 + 0.06 * (np.log(v / 3.2e-3)) ** 2 for v in values]
    wide, narrow = (
        optimum(values, [[scored(loss, i, noise=0.01)] for i, loss in enumerate(losses)]) for losses in (steep, round_)
    )
    assert np.log(wide.high / wide.low) > 2 * np.log(narrow.high / narrow.low)


def test_early_in_the_run_a_lower_rate_is_given_room_as_high_ones_lead_then(tmp_path):
    plan = read_plan(
        b'base = "tiny"\nlooks = [20, 60, 100]\n[settings]\ntrain.steps = 100\n[[axis]]\nsetting = "optimizer.lr"\n'
        b"values = [1e-4, 1e-3, 1e-2, 1e-1]\n",
        tmp_path, "sweep",
    )  # fmt: skip
    low, lower, best, high = plan.arms
    assert plan.margins(20, best, plan.arms) == {low: 0.3, lower: 0.3, best: 0.002, high: 0.05}
    assert [plan.margins(step, best, plan.arms)[low] for step in (39, 40)] == [0.3, 0.002]
    assert plan.margins(60, best, plan.arms) == {low: 0.002, lower: 0.05, best: 0.002, high: 0.05}
    assert plan.margins(20, None, [low, high]) == {low: 0.002, high: 0.002}
    other = read_plan(
        b'base = "tiny"\n[[axis]]\nsetting = "optimizer.weight_decay"\nvalues = [0.01, 0.1, 1.0]\n', tmp_path, "decay"
    )
    first, _, last = other.arms
    assert other.margins(1, last, other.arms)[first] == 0.002, "of another axis nobody knows which end leads early"
