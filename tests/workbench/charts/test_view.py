"""A view is read from what a page or an address gives, and nothing in it is trusted."""

import pytest

from workbench.charts.view import MAX_RUNS, SHOWN, read_view


def test_an_address_and_a_page_say_the_same():
    address = {"runs": "a,b", "x": "tokens", "logx": "1", "logy": "0", "smooth": "0.9", "minus": "b",
               "panels": "lr,loss", "range": "10..20.5", "follow": "true"}  # fmt: skip
    page = {"runs": ["a", "b"], "x": "tokens", "logx": True, "logy": False, "smooth": 0.9, "minus": "b",
            "panels": ["loss", "lr"], "range": [10, 20.5], "follow": True}  # fmt: skip
    assert read_view(address) == read_view(page) == page


def test_only_the_keys_that_were_given_are_there():
    assert read_view({"runs": "a"}) == {"runs": ["a"]}
    assert read_view(None) == read_view({}) == read_view({"nonce": 1}) == {}


@pytest.mark.parametrize(
    "key, value",
    [("x", "colour"), ("smooth", "nan"), ("smooth", None), ("range", "5..1"), ("range", "a..b"), ("range", [1, 2, 3]),
     ("range", "1..inf"), ("shade", {"period": 0}), ("shade", {"phase": 1}), ("shade", [[2, 1]]), ("runs", 5)],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(key, value):
    assert read_view({key: value}) == {}


def test_numbers_and_lists_are_clamped():
    assert read_view({"smooth": 1e300})["smooth"] == 100_000 and read_view({"smooth": -1})["smooth"] == 0
    assert read_view({"runs": [f"r{i}" for i in range(50)]})["runs"] == [f"r{i}" for i in range(MAX_RUNS)]
    assert read_view({"runs": "a,a, b ,../c,<img>,"})["runs"] == ["a", "b"]
    assert read_view({"minus": "../x"})["minus"] == ""
    assert read_view({"panels": "nothing"})["panels"] == list(SHOWN)
    assert read_view({"range": ""})["range"] is None


def test_shading_is_intervals_or_a_period():
    assert read_view({"shade": [[1, 2], (3, 4)]})["shade"] == [[1.0, 2.0], [3.0, 4.0]]
    assert read_view({"shade": {"period": 370, "share": 5}})["shade"] == {
        "period": 370.0, "phase": 0.0, "share": 0.99, "unit": "step"}  # fmt: skip
    assert read_view({"shade": None})["shade"] is None
