"""Gradio's modules as they are served: changed where the installed Gradio has what is to be changed, and only there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio
import pytest

from workbench.quicker import CHANGES, quicker

ASSETS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
EVENTS = [{"targets": [[1, "change"], [1, "input"], [2, "click"]]}, {"targets": [[None, "load"]]},
          {"targets": [[2, None]]}, {"targets": [[1, "blur"]]}, {"targets": []}]  # fmt: skip
ATTACHED = """(events) => [1, 2, 3].map((id) => {
  const tree = new (class { %s return e } })();
  const shared_props = {};
  tree.find_attached_events({ id: 0, props: { shared_props: {} } }, events);
  return tree.find_attached_events({ id, props: { shared_props } }, events).props.shared_props.attached_events;
})"""


@pytest.mark.parametrize("begin", CHANGES)
def test_the_installed_gradio_has_what_is_changed_once(begin: str) -> None:
    modules = [path for path in ASSETS.glob(f"{begin}*.js") if CHANGES[begin][0][0] in path.read_text("utf-8")]
    assert len(modules) == 1
    content = modules[0].read_bytes()
    made = quicker(modules[0].name, content).decode()
    assert all(made.count(after) == 1 for _, after in CHANGES[begin])
    for before, after in CHANGES[begin]:
        made = made.replace(after, before)
    assert made.encode() == content  # and nothing else


@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("begin", CHANGES)
def test_a_module_of_another_gradio_is_served_as_it_is(begin: str, times: int) -> None:
    texts = [before for before, _ in CHANGES[begin]]
    content = "".join([*texts[1:], *times * texts[:1]]).encode()
    assert quicker(f"{begin}abc.js", content) == content
    assert quicker("Index-abc.js", "".join(texts).encode()) == "".join(texts).encode()


def test_a_component_knows_the_same_events(browser_page: Any) -> None:
    before, after = next(change for change in CHANGES["core-"] if change[0].startswith("find_attached_events"))
    set_them = "e.props.shared_props.attached_events=n;"
    found = [browser_page.evaluate(ATTACHED % (text + set_them), EVENTS) for text in (before, after)]
    assert found == [[["change", "blur"], ["click"], []]] * 2
