"""What is sent of plotly.js: its core, and nothing that would be made ready or compiled for nobody."""

from __future__ import annotations

import pytest

from workbench.charts.bundle import lean
from workbench.charts.component import plotly

KINDS = ",".join(f"kind{number}()" for number in range(12))
END = "var all=core();all.register([%s]);exports=all"
BUNDLE = f"var a=W;{END % KINDS}"


def test_kinds_of_traces_that_no_chart_draws_are_not_made() -> None:
    assert lean(BUNDLE.encode()) == b"var a=W;var all=core();exports=all"


def module(name: str, body: str) -> str:
    return f"var {name}=W((e,t)=>{{{body}}});"


def bundle(*parts: str) -> bytes:
    kinds = "".join(module(f"kind{number}", "t.exports=only()") for number in range(12))
    return ("var W=(e,t)=>t;" + "".join(parts) + kinds + module("core", "t.exports=deep()") + END % KINDS).encode()


ODD = r"""let a="}) \" }",b='{(',c=`)}`,d=/[/})]\//g;if(a){return/}/.test(b)}e.x={y:(1)}"""


def test_modules_that_only_those_kinds_ask_for_are_not_sent() -> None:
    needed = [module("deep", ODD), "function helper(){return used()}", module("used", "e.x=1")]
    found = lean(bundle(module("only", ODD), *needed, module("nobody", "nobody()")))
    assert found == b"".join([b"var W=(e,t)=>t;", *(part.encode() for part in needed),
                              module("core", "t.exports=deep()").encode(), b"var all=core();exports=all"])  # fmt: skip


@pytest.mark.parametrize("odd", ["var b=W((e)=>{(});", "var b=W(()=>{}),c=1;", "let b=W(()=>{});", module("core", "1"),
                                 "var b=W(()=>{});if(a){});"])  # fmt: skip
def test_where_one_module_is_not_like_the_others_all_are_sent(odd: str) -> None:
    whole = bundle(module("only", "1"), odd)
    assert lean(whole) == whole.replace(f"all.register([{KINDS}]);".encode(), b"")


def test_the_installed_plotly_is_of_the_known_form() -> None:
    whole = plotly().read_bytes()
    assert len(lean(whole)) < 0.6 * len(whole)


@pytest.mark.parametrize("other", [BUNDLE + BUNDLE, "core.register([m1(),m2()]);", f"register({KINDS});", ""])
def test_another_bundle_is_sent_whole(other: str) -> None:
    assert lean(other.encode()) == other.encode()
