"""A sweep on the page: planned from a run, followed look by look, and its result as the engine wrote it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.experiments import sweep as engine
from mygpt2.experiments.folder import ExperimentDir
from mygpt2.experiments.grid import read_plan
from mygpt2.run_dir import RunDir
from tests.experiments.made import finished
from tests.experiments.test_grid import scored
from tests.workbench.tabs.experiments.made import a_base, a_place
from workbench.tabs.experiments import begin, export, show
from workbench.tabs.experiments.look import Seen
from workbench.tabs.experiments.looks import answer

FORM = {"base": "run:tiny", "axis": "optimizer.lr", "values": "0.001 0.002, 0.004 0.008", "name": "rates"}
LOSSES = {"lr1e-3": 4.50, "lr2e-3": 4.0, "lr4e-3": 4.003}  # at the end; 0.008 diverges


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a run and a finished sweep from it, whose losses are made up."""
    context = a_place(tmp_path_factory.mktemp("sweep"))
    runs = context.runs
    a_base(runs)
    made = begin.plan(context, "sweep", FORM)
    plan = read_plan(made.file[1].encode(), runs, made.name)

    def at(at_work, arm, pair, number, step):
        piece = at_work.piece(arm, pair)
        if not RunDir(runs / piece.run).exists():
            finished(runs, piece.run, piece.config, losses=np.linspace(9, 4, 40))
        if arm not in LOSSES:
            return "diverged after step 3: the loss is not finite"
        return scored(LOSSES[arm] + 0.5 / number, [*LOSSES].index(arm))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_arm_at", at)
        engine.sweep(made.file[1].encode(), plan, runs, say=lambda said: None)
    return ExperimentDir.open(runs, "rates")


@pytest.fixture
def place(tmp_path, model):
    shutil.copytree(model.runs, tmp_path / "runs")
    return a_place(tmp_path)


def test_five_rates_around_the_bases_own_are_planned_without_a_word(place):
    made = begin.plan(place, "sweep", {"base": "run:tiny"})
    assert made.told == "5 values of optimizer.muon_lr on tiny: 0.005, 0.01, 0.02, 0.04, 0.08"
    assert made.name == "sweep-tiny-muon_lr" and len(made.pieces) == 5 and made.cost.runs == 5
    assert made.argv[3:5] == ("sweep", str(place.runs / ".workbench" / "experiments" / f"{made.name}.toml"))
    assert (
        not Path(made.argv[4]).exists()
        and "looks at steps 8, 18, 40 compare losses after a short decay" in made.notes[0]
    )
    values = {"base": "preset:tiny", "axis": "optimizer.lr", "steps": "60", "replicates": "2", "looks": "2"}
    more = begin.plan(place, "sweep", values)
    assert set(more.pieces.values()) == {60} and len(more.pieces) == 10


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"values": "0.001"}, "1 arms are asked for"),
        ({"values": "0.001 x"}, "'x' is not a number"),
        ({"values": " ".join(["1"] * 13)}, "13 values are too many"),
        ({"axis": "train.steps"}, "no axis of a sweep"),
        ({"axis": "nonsense"}, "no setting with a number|no positive value"),
        ({"axis": "data.source", "values": "1 2"}, "no setting with a number"),
        ({"steps": "3"}, "the first look"),
        ({"values": "1000 2000"}, "optimizer.lr"),
        ({"margin": "much"}, "'much' is not a number"),
        ({"name": "../x"}, "is not allowed"),
    ],
)
def test_what_cannot_be_swept_is_a_sentence(place, change, told):
    with pytest.raises(UserError, match=told) as caught:
        begin.plan(place, "sweep", {**FORM, **change})
    assert "\n" not in str(caught.value).strip() and "mygpt2-" not in str(caught.value)


def test_the_result_names_the_best_the_optimum_and_the_compute(place):
    seen = Seen(place)
    one = seen.experiments.get("rates")
    found = show.last(one)
    assert (one.kind, one.standing, found.chip) == ("sweep", "finished", "best 0.002")
    assert "optimizer.lr = 0.002" in found.headline and "ptimum" in found.headline
    figures = {label: (value, below) for label, value, below in found.figures}
    assert figures["Best optimizer.lr"][0] == "0.002" and "%" in figures["Compute"][0]
    markup = show.card(one, seen.curves, place.runs, True)
    assert "Loss against optimizer.lr" in markup and markup.count('class="fig-dot') == 3 + 2 + 2
    assert [line.label for line in found.intervals] == ["lr 0.001", "lr 0.002", "lr 0.004"]
    assert found.intervals[0].note == "stopped at look 1" and found.intervals[0].low > 0
    assert "One pair of seeds speaks of these models" in markup


def test_arms_that_stopped_are_greyed_with_the_reason(place):
    seen = Seen(place)
    one = seen.experiments.get("rates")
    markup = show.card(one, seen.curves, place.runs, True)
    cells = {cell.partition('"')[0]: cell for cell in markup.split('data-key="')[1:] if "wb-exp-arm-head" in cell[:200]}
    assert list(cells) == ["lr1e-3", "lr2e-3", "lr4e-3", "lr8e-3"]
    assert "diverged after step 3" in cells["lr8e-3"] and "lr 0.008" in cells["lr8e-3"]
    assert "worse than lr 0.002 by" in cells["lr1e-3"] and markup.count("wb-exp-grey") == len(one.lost_arms) == 2


def test_a_look_in_the_middle_says_who_leads(place):
    file = place.runs / "_experiments" / "rates" / "verdict.json"
    record = json.loads(file.read_text())
    record = {**record, "state": "running", "result": None, "looks": record["looks"][:1]}
    file.write_text(json.dumps(record))
    found = show.last(Seen(place).experiments.get("rates"))
    assert (
        found.chip == "look 1 of 3" and "lr 0.002 leads with" in found.headline and "2 of 4 arms stop" in found.headline
    )
    assert dict((label, value) for label, value, _ in found.figures)["Arms that go on"] == "2"


def test_damage_in_a_sweep_breaks_nothing(place):
    one = Seen(place).experiments.get("rates")
    for key in one.looks[-1]:
        for value in (None, 7, "x", [], {}, [1], float("nan")):
            answer("sweep", {**one.looks[-1], key: value}, one.record)
    for key in one.record:
        for value in (None, 7, "x", [], {}, [1], float("nan")):
            answer("sweep", one.looks[-1], {**one.record, key: value})
    file = place.runs / "_experiments" / "rates" / "arms.json"
    file.write_text('{"arms": {"lr1e-3": {"values": [1], "runs": 7, "told": "<q>"}}}')
    seen = Seen(place)
    assert "<q>" not in show.card(seen.experiments.get("rates"), seen.curves, place.runs, True)


def test_arms_of_every_look_are_rows_of_the_table(place):
    one = Seen(place).experiments.get("rates")
    rows = export.as_csv(one).splitlines()
    assert rows[0].startswith("time,look,step") and len(rows) == 1 + sum(len(look["arms"]) for look in one.looks)
    assert "after a short decay of the rate" in rows[1] and "lr 0.008" in rows[1] and "at the end of" in rows[-1]
