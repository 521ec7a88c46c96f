"""A ladder on the page: planned from a run's recipe, and its forecast and cells shown as the engine wrote them."""

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.experiments.ladder import Ladder
from mygpt2.experiments.ladder_file import read_ladder
from mygpt2.experiments.rungs import Plan
from tests.experiments.ladders import Truth
from tests.experiments.made import finished, text
from tests.workbench.tabs.experiments.made import a_base, a_place
from workbench.tabs.experiments import begin, files, show
from workbench.tabs.experiments.look import Seen
from workbench.tabs.experiments.looks import answer

FORM = {"base": "run:tiny", "depths": "1, 2", "tokens": "600k 1.2M", "next": "3", "name": "steps"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run to begin from, and with a ladder from it whose cells follow a known law."""
    context = a_place(tmp_path_factory.mktemp("ladder"))
    runs = context.runs
    a_base(runs)
    made = begin.plan(context, "ladder", FORM)
    with files.on_disk(made.file[1], made.name) as file:
        ladder = Ladder(Plan(read_ladder(file)), runs, say=lambda text: None)
        nll, targets = text()
        nll = nll / (nll.sum() / targets.sum())
        for rung in ladder.all_rungs:
            if rung.trunk:
                finished(runs, rung.trunk.run, rung.trunk.config)
            for cell in rung.cells:
                steps = cell.piece.config.train.steps
                loss = Truth().loss(rung.n, cell.tokens)
                finished(runs, cell.run, cell.piece.config, nll * loss, targets, losses=np.linspace(9, loss, steps))
        ladder.run()
    return context


def test_a_ladder_is_planned_as_a_file_that_the_command_line_reads(place):
    made = begin.plan(place, "ladder", {**FORM, "name": "another"})
    assert made.argv[3] == "ladder" and made.argv[4] == str(made.file[0]) and made.file[0].name == "another.toml"
    assert not made.file[0].exists()  # a plan writes nothing
    with files.on_disk(made.file[1], "another") as file:
        again = read_ladder(file)
    assert (again.name, again.settings.depths, again.settings.tokens) == ("another", [1, 2], [600_000, 1_200_000])
    assert again.settings.next == 3 and again.preset == "tiny"
    assert {name.partition(".")[0] for name in made.pieces} == {"another"} and made.cost.runs == len(made.pieces)
    assert "2 sizes of tiny at 2 budgets, and 3 layers foretold" in made.told


def test_what_a_preset_does_not_say_is_in_the_file(place):
    values = {**FORM, "base": "preset:tiny", "name": "x"}
    assert "[schedule]" not in begin.plan(place, "ladder", values).file[1]
    assert begin.plan(place, "ladder", {**values, "name": ""}).name == "ladder-tiny"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depths": "1, x"}, "'x' is not a number"),
        ({"tokens": "many"}, "'many' is not a number"),
        ({"tokens": "1k 2k"}, "the smallest budget must be at least"),
        ({"depths": "2 1"}, "must rise"),
        ({"next": "1"}, "must be larger than all of depths"),
        ({"foretell": "gpt3@1B"}, "foretell"),
        ({"name": "a b"}, "is not allowed"),
    ],
)
def test_what_cannot_be_a_ladder_is_a_sentence_without_a_path(place, change, told):
    with pytest.raises(UserError, match=told) as caught:
        begin.plan(place, "ladder", {**FORM, **change})
    assert "/tmp" not in str(caught.value)


def test_the_law_its_forecast_and_its_score_are_shown(place):
    seen = Seen(place)
    one = seen.experiments.get("steps")
    found = answer("ladder", one.looks[-1])
    assert (one.kind, found.chip) == ("ladder", "scored") and "measured" in found.headline
    markup = show.card(one, seen.curves, place.runs, True)
    assert "1 layer, 1.1" in markup and "the trunk" in markup and "Loss over text" in markup
    assert markup.count('class="fig-dot') == 5  # four cells, and the next one's
    assert markup.count('<li class="wb-exp-arm') == len({member.arm for member in one.members})


def test_a_damaged_look_of_a_ladder_breaks_nothing(place):
    whole = Seen(place).experiments.get("steps").looks[-1]
    for key in whole:
        for value in (None, 7, "x", [], {}, [1], [{}], float("nan")):
            answer("ladder", {**whole, key: value})
