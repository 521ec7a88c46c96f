"""Every command line of the README and of docs/ is taken by the parser of the program it names."""

from __future__ import annotations

import ast
import importlib
import keyword
import re
import shlex
from pathlib import Path

import pytest

from mygpt2.__main__ import VERBS, main
from mygpt2.config import load_config
from mygpt2.launch.request import add_arguments, resolve
from mygpt2.launch.torchrun import _launch_parser
from mygpt2.verbs import data, judge, tokenizer

ROOT = Path(__file__).parents[1]
TEXT = "\n".join(
    path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if path.name != "CHANGELOG.md"
)
LINES = [line.strip() for line in TEXT.splitlines() if line.startswith("    ")]
SPANS = [span for line in TEXT.splitlines() if not line.startswith("    ") for span in re.findall(r"`([^`]+)`", line)]
FILE = re.compile(r"    # (\w+\.toml)")
PROGRAMS = ("python -m mygpt2 ", "./launch_train.sh", "./launch_workbench.sh")
COMMANDS = sorted({line for line in (*LINES, *SPANS) if any(program in line for program in PROGRAMS)} - set(PROGRAMS))
SCRIPTS = sorted({span for span in SPANS if re.match(r"(python )?(benchmarks|scripts)/\w+\.py", span)})


def words_of(line):
    """The words of a command from its program on, without what a shell would take away or set."""
    words = shlex.split(line, comments=True)
    start = next(i for i, word in enumerate(words) if word in ("python", "./launch_train.sh", "./launch_workbench.sh"))
    return words[start:]


def check(words):
    """Parses words as the program would, and resolves what they mean where that needs no run."""
    if words[0] == "./launch_workbench.sh":
        importlib.import_module("workbench.__main__").parse(words[1:])
    elif words[0] == "./launch_train.sh":
        parser = _launch_parser(add_help=False)
        add_arguments(parser)
        args, args.settings = parser.parse_known_args(words[1:])
        resolve(args)
    else:
        return main(words[3:])
    return 0


@pytest.fixture
def parsed_only(monkeypatch, tmp_path):
    """Verbs that resolve their arguments and do no more, in a folder that holds the README's own TOML files."""
    monkeypatch.chdir(tmp_path)
    lines = TEXT.splitlines()
    for start, name in ((i, found[1]) for i, line in enumerate(lines) if (found := FILE.fullmatch(line))):
        stop = next(i for i in range(start, len(lines)) if not lines[i].startswith("    "))
        (tmp_path / name).write_text("\n".join(line.strip() for line in lines[start:stop]))
    resolved = {"train": resolve, "data": data._config, "tokenizer": tokenizer._data}
    for name in VERBS:
        verb = importlib.import_module(f"mygpt2.verbs.{name}{'_' * keyword.iskeyword(name)}")

        def run(args, name=name):
            if name in resolved and not (name == "tokenizer" and args.action == "inspect"):
                resolved[name](args)
            elif name == "judge":
                for words in judge.split_words(args.settings):
                    load_config("tiny", None, words)
            elif hasattr(args, "settings"):
                load_config(getattr(args, "preset", None) or "tiny", None, args.settings)

        monkeypatch.setattr(verb, "run", run)


def test_the_readme_has_commands():
    assert len(COMMANDS) > 25 and any("data inspect fineweb-edu-10BT" in line for line in COMMANDS)
    assert any("--forecast" in line for line in COMMANDS) and len(SCRIPTS) > 5


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_is_taken(line, parsed_only, capsys):
    code = check(words_of(line))
    assert code == 0, capsys.readouterr().err


def test_a_command_that_is_not_so_would_be_refused(parsed_only, capsys):
    for line in (
        "python -m mygpt2 plan --measured",
        "python -m mygpt2 data inspect a b",
        "python -m mygpt2 runs stopp x",
    ):
        assert check(words_of(line)) == 2, line
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("words, source", [
    (["inspect", "fineweb-edu-10BT"], "fineweb-edu-10BT"),
    (["inspect", "/data/books", "--forecast"], "/data/books"),
    (["inspect", "--documents", "3", "a b.jsonl", "--data.text_column", "body"], "a b.jsonl"),
    (["inspect", "--data.text_column", "body", "--data.lanes=4", "x", "--validation"], "x"),
    (["prepare", "--source", "y", "--out", "z"], "y"),
    (["inspect"], "pydocs"),
])  # fmt: skip
def test_data_takes_its_source_with_and_without_a_word_before_it(words, source, monkeypatch):
    found = []
    monkeypatch.setattr(data, "run", lambda args: found.append(data._config(args)))
    assert main(["data", *words]) == 0 and found[0].data.source == source


@pytest.mark.parametrize("span", SCRIPTS)
def test_a_script_of_the_readme_knows_its_options(span):
    """Read from its source: these programs are run on demand, and import half the world."""
    script, *words = shlex.split(span.removeprefix("python "))
    known = {
        argument.value
        for node in ast.walk(ast.parse((ROOT / script).read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    assert {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"} <= known
