"""What is sent of plotly.js: its core, and nothing that would be made ready for nobody."""

from __future__ import annotations

import pytest

from workbench.charts.bundle import lean
from workbench.charts.component import plotly

MODULES = ",".join(f"m{number}()" for number in range(12))
BUNDLE = f"var a=W(()=>1);var core=c();core.register([{MODULES}]);exports=core"


def test_kinds_of_traces_that_no_chart_draws_are_not_made() -> None:
    assert lean(BUNDLE.encode()) == b"var a=W(()=>1);var core=c();exports=core"


def test_the_installed_plotly_is_of_the_known_form() -> None:
    whole = plotly().read_bytes()
    assert 0 < len(whole) - len(lean(whole)) < 1000 and lean(lean(whole)) == lean(whole)


@pytest.mark.parametrize("other", [BUNDLE + BUNDLE, "core.register([m1(),m2()]);", f"register({MODULES});", ""])
def test_another_bundle_is_sent_whole(other: str) -> None:
    assert lean(other.encode()) == other.encode()
