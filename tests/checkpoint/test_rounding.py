"""How a run was trained is kept with the steps from which on it was, so that a part of it can be trained alike."""

from __future__ import annotations

from mygpt2.checkpoint.rounding import one_way, rounded, rounding


def test_each_way_is_kept_with_the_step_after_which_it_was() -> None:
    first = rounding({}, 0, ranks=1, threads=2)
    assert first == {"ranks": 1, "rounding": [{"after": 0, "ranks": 1, "threads": 2}]}
    assert rounding(first, 8, ranks=1, threads=2) == first, "it went on in the same way"
    other = rounding(first, 8, ranks=2, threads=1)
    assert other["ranks"] == 2 and [each["after"] for each in rounded(other)] == [0, 8]
    assert rounding(other, 8, ranks=1, threads=2)["rounding"] == first["rounding"], "no step was taken in between"


def test_a_part_is_trained_alike_only_where_all_of_it_was_trained_in_one_known_way() -> None:
    one, two = {"after": 0, "threads": 2}, {"after": 8, "threads": 1}
    assert one_way([one], 0) == one_way([one], 8) == one
    assert one_way([one, two], 8) == one_way([one, two], 20) == two
    assert one_way([one, two], 0) is one_way([one, two], 7) is None, "it was changed within"
    assert one_way([two], 0) is one_way([], 0) is None, "an earlier version trained the beginning"
    for odd in ({}, {"rounding": 3}, {"rounding": [1, {"after": "8"}, {}]}):
        assert rounded(odd) == []
    assert rounding({"ranks": 1}, 8, ranks=1)["rounding"] == [{"after": 8, "ranks": 1}]
