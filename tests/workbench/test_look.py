"""The page's own styles: each rule weighs more in the page than Gradio's, in both themes, and none is lost."""

from __future__ import annotations

import re

import pytest

from workbench import look

IN = ".gradio-container.gradio-container .contain"
MADE = {
    ".a { color: red; }": f".a, {IN} .a{{ color: red; }}",
    ".a, #b:is(i, u) > p { }": f".a, {IN} .a, #b:is(i, u) > p, {IN} #b:is(i, u) > p{{ }}",
    ".dark .a { }": f".dark .a, .dark {IN} .a{{ }}",
    ".dark { }": f".dark, .dark {IN}{{ }}",
    "@media (min-width: 9px) { .a { } b { } }": f"@media (min-width: 9px){{.a, {IN} .a{{ }}b, {IN} b{{ }}}}",
    "@keyframes k { from { top: 0 } to { top: 1px } }": "@keyframes k{ from { top: 0 } to { top: 1px } }",
}


@pytest.mark.parametrize("rule", MADE)
def test_a_rule_holds_anywhere_and_weighs_more_in_the_page(rule: str) -> None:
    assert look.weighty(rule) == MADE[rule]


def test_every_declaration_of_the_stylesheets_is_in_the_page() -> None:
    found = [
        re.findall(r"[\w-]+\s*:[^;{}]+;", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
        for text in (look.css(), look.style())
    ]
    assert len(found[0]) > 1000 and found[0] == found[1]
