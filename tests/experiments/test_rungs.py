"""From a ladder's file to its runs."""

import argparse
import itertools
import re

import pytest

from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.experiments.ladder import Ladder
from mygpt2.experiments.ladder_file import TEMPLATE, foretold, read_ladder
from mygpt2.experiments.rungs import MOST_KEPT, Plan, keeping, leaving
from mygpt2.schedule import lr_scale
from mygpt2.verbs.ladder import add_arguments


def plan(tmp_path, text=TEMPLATE):
    file = tmp_path / "my ladder.toml"
    file.write_text(text)
    return Plan(read_ladder(file))


def test_the_file_to_start_from_is_a_ladder(tmp_path):
    found = plan(tmp_path)
    assert found.file.name == "my-ladder" and [rung.depth for rung in found.rungs] == [1, 2, 3, 4]
    assert found.next.depth == 5 and [cell.tokens for cell in found.next.cells] == [found.rungs[0].cells[-1].tokens]
    assert all(len(rung.cells) == 4 and rung.trunk for rung in found.rungs)
    assert found.file.base.eval.interval == 0 and found.file.base.optimizer == load_config("tiny").optimizer


def test_a_next_size_of_several_budgets_has_a_trunk_of_its_own(tmp_path):
    found = plan(tmp_path, TEMPLATE.replace("next = 5", "next = 6\nnext_tokens = [2_000_000, 8_000_000]")).next
    assert found.trunk.run == "my-ladder.d6.1" and [cell.depth for cell in found.cells] == [6, 6]
    assert [cell.tokens for cell in found.cells] == [488 * 4096, 1953 * 4096]


def test_the_shape_rule_is_that_of_the_presets(tmp_path):
    found = plan(tmp_path)
    for preset in ("tiny", "small", "gpt2"):
        own = load_config(preset).model
        ruled = found.model(own.n_layer)
        assert (ruled.n_embd, ruled.n_head) == (own.n_embd, own.n_head)
    assert found.rungs[-1].n == 4_273_664  # tiny, as its preset says
    assert found.rungs[-1].n_blocks == 4_273_664 - (4096 + 256) * 256


@pytest.mark.parametrize("schedule", ["trapezoid", "wsd"])
def test_until_a_branch_leaves_its_rate_is_the_trunks_and_then_it_falls(schedule):
    for steps, share, warmup in itertools.product((2, 3, 10, 97, 400), (0.1, 0.4, 1.0), (0, 1, 5)):
        words = ["--train.steps", str(steps), "--schedule.name", schedule, "--schedule.warmup_steps", str(warmup)]
        if warmup >= steps:
            continue
        config = load_config("tiny", None, [*words, "--schedule.decay_share", str(share)]).schedule
        trunk = config.model_copy(update={"name": "constant"})
        step = leaving(config, steps)
        assert all(lr_scale(config, k, steps) == lr_scale(trunk, k, 10**6) for k in range(step))
        assert step == steps or lr_scale(config, step, steps) < 1


def test_budgets_that_double_are_left_where_their_decay_begins_and_hardly_a_step_is_trained_twice(tmp_path):
    for rung in plan(tmp_path).rungs:
        early = [leaving(c.piece.config.schedule, c.piece.config.train.steps) - c.branch_step for c in rung.cells]
        assert sum(early) <= 4 < 0.01 * rung.steps


@pytest.mark.parametrize(("points", "interval"), [([30, 60, 120, 240], 30), ([74, 147, 293, 586], 73), ([7], 7)])
def test_a_trunk_keeps_what_branches_leave_from_and_not_much_more(points, interval):
    assert keeping(points) == interval
    assert max(points) // interval <= MOST_KEPT


def test_every_branch_begins_at_a_kept_step_no_later_than_it_leaves(tmp_path):
    for rung in plan(tmp_path, TEMPLATE.replace("500_000, 1_000_000", "450_000, 1_130_000")).rungs:
        kept = rung.trunk.config.checkpoint.keep_every
        for cell in rung.cells:
            config = cell.piece.config
            assert 0 < cell.branch_step <= leaving(config.schedule, config.train.steps)
            assert cell.branch_step % kept == 0 and cell.branch_step <= rung.trunk.config.train.steps
            assert cell.tokens == config.train.steps * config.train.batch_tokens


def test_settings_of_runs_may_stand_in_the_file_and_win_over_what_the_ladder_would_choose(tmp_path):
    found = plan(tmp_path, TEMPLATE + "[eval]\ninterval = 9\n[data]\nseed = 3\n")
    assert (found.file.base.eval.interval, found.file.base.data.seed) == (9, 3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("depths =", "depth =", "depth is not a setting; did you mean depths?"),
     ("[1, 2, 3, 4]", "[2, 1]", "must rise; write [1, 2]"),
     ("[1, 2, 3, 4]", "[0, 2]", "numbers of layers (layers); 2 to 12 whole numbers from 1 to 200"),
     ("next = 5", "next = 3", "must be larger than all of depths"),
     ("next = 5", 'next = "big"', "next = 'big'"),
     ("500_000,", "5_000,", "the smallest budget must be at least 49,152"),
     ("[1, 2, 3, 4]", "[1, 200]", "next = 5: must be larger"),
     ("next = 5", "next = 150\nwidth_per_depth = 256", "38,400 channels; n_embd is at most 16,384"),
     ("500_000, 1_000_000", "500_000, 500_100", "each budget needs a number of steps of its own"),
     ("4_000_000", "900_000_000_000_000", "at most 1,000,000,000"),
     ('["gpt2@10B"]', '["gpt2"]', "'gpt2' is not PRESET@TOKENS"),
     ('["gpt2@10B"]', '["gpt9@1M"]', 'there is no preset "gpt9"'),
     ("[train]", "[model]\nn_layer = 3\n[train]", "model.n_layer is set by the ladder"),
     ("[train]", "[schedule]\nname = 'cosine'\n[train]", "use trapezoid or wsd"),
     ("[train]", "[trian]", "did you mean"),
     ("[ladder]", "[ladder", "not TOML"),
     ("next = 5", "next = 5\nname = 3", "for example 'sizes'"),
     ("next = 5", "next = 5\nnext_tokens = [1]", "from 8 to 10^15, rising, for example [4000000]"),
     ('preset = "tiny"', "ladder = 3", "")],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_line_by_line(tmp_path, old, new, said):
    assert old in TEMPLATE
    with pytest.raises(UserError) as told:
        plan(tmp_path, TEMPLATE.replace(old, new, 1))
    assert said in str(told.value) and all("my ladder.toml: " in line for line in str(told.value).splitlines())


@pytest.mark.parametrize("text", ['preset = "tiny"\n[train]\nsteps = 7\n', "", 'base = "tiny"\n[[axis]]\nsteps = 7\n'])
def test_a_file_without_its_section_begins_no_ladder_that_nobody_asked_for(tmp_path, text):
    with pytest.raises(UserError, match=r"^[^\n]*my ladder.toml: there is no section \[ladder\].* --write FILE makes$"):
        plan(tmp_path, text)


def test_the_file_to_start_from_names_options_that_there_are():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    named = re.findall(r"mygpt2 ladder FILE (--[a-z-]+)", TEMPLATE)
    assert named and all(parser.parse_args(["x.toml", word]) for word in named)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [('protocol = "run"', 'protocol = "edu"', "neither a protocol nor a path"),
     ('protocol = "run"', 'protocol = "run:nope"', "no run 'nope'"),
     ("[train]", "[data]\nvalidation_fraction = 0\n[train]", "holds no document out")],
)  # fmt: skip
def test_a_text_that_cannot_be_had_is_told_before_anything_is_trained(tmp_path, old, new, said):
    with pytest.raises(UserError, match=said):
        Ladder(plan(tmp_path, TEMPLATE.replace(old, new, 1)), tmp_path)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="--write FILE makes one to start from"):
        read_ladder(tmp_path / "none.toml")


def test_tokens_are_read_with_their_suffix():
    assert foretold("gpt2@10B")[2] == 10**10 and foretold("small@65.5M")[2] == 65_500_000
    for bad in ("gpt2@", "gpt2@-1", "gpt2@1e9", "@1B", "gpt2@99999999999T"):
        with pytest.raises(UserError):
            foretold(bad)
