"""docs/architecture.md names the rooms from bottom to top: nothing imports upward, and no imports run in a circle."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mygpt2", "workbench")
SUBROOM = "mygpt2.tokenizer.training"  # stands higher than the room it is in


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> list[tuple[str, bool]]:
    """Modules of ours that a module imports, and whether as it is loaded; those for the type checker do not count."""
    found = []

    def visit(node: ast.AST, loading: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, loading) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                names = [f"{child.module}.{alias.name}" for alias in child.names]
                found.extend((name if name in modules() else str(child.module), loading) for name in names)
            visit(child, loading and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(modules()[module].read_text("utf-8")), True)
    return [(name, loading) for name, loading in found if name in modules()]


def room(module: str) -> str:
    if module == SUBROOM or module.startswith(f"{SUBROOM}."):
        return SUBROOM
    package, _, rest = module.partition(".")
    return f"{package}.{rest.partition('.')[0] or '__init__'}"


@cache
def order() -> dict[str, int]:
    """The place of every room, from the lists in docs/architecture.md."""
    rooms, package = [], ""
    for line in (ROOT / "docs" / "architecture.md").read_text("utf-8").splitlines():
        if heading := re.match(r"## .*`(\w+)`", line):
            package = heading[1]
        elif package and (item := re.match(r"- ((?:`[\w.]+`,? ?)+):", line)):
            rooms += [f"{package}.{name}" for name in re.findall(r"`([\w.]+)`", item[1])]
    return {name: place for place, name in enumerate(rooms)}


def test_the_document_names_every_room_once_and_no_other():
    assert sorted(order()) == sorted({room(module) for module in modules()})


def test_nothing_imports_upward():
    upward = {
        f"{module} imports {name}"
        for module in modules()
        for name, _ in imports(module)
        if order().get(room(name), 0) > order().get(room(module), 999)  # one without a place fails above
    }
    assert upward == set()


def test_the_network_imports_nothing_of_ours_but_errors():
    found = {room(name) for module in modules() if room(module) == "mygpt2.model" for name, _ in imports(module)}
    assert found <= {"mygpt2.model", "mygpt2.errors"}


def test_no_tab_imports_another():
    tabs = {module: module.split(".")[2] for module in modules() if module.startswith("workbench.tabs.")}
    assert {(m, name) for m, tab in tabs.items() for name, _ in imports(m) if tabs.get(name, tab) != tab} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_no_files_import_each_other_in_a_circle_as_they_are_loaded(package):
    graph = {
        module: {name for name, loading in imports(module) if loading and name != module}
        for module in modules()
        if module.startswith(package)
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' <- '.join(error.args[1])}")
