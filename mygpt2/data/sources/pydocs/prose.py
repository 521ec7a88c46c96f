"""Prose out of Python sources: find the texts, take the mark-up and the code away, keep what reads as English.

Sources are read with a small lexer rather than with `ast`: it is several times as fast, reads Cython too, and sees
comments and the documentation that is passed to functions.

Run as `python -m mygpt2.data.sources.pydocs.prose` it reads files: one JSON line in, one out. It ends when its standard
input does, so it cannot outlive the one who asked.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator

Pieces = list[tuple[str, str]]
"""(qualified name, clean text) in the order of a module."""

LARGEST = 2_000_000  # characters; longer sources are generated
LEAST_PROSE = 0.22  # share of function words in a single text

# One pass that steps over everything in which a quote or a hash means something else. Every alternative begins with one
# of four characters, which lets the engine skip what lies between.
_LEX = re.compile(
    r"""\n(?P<indent>[ \t]*)(?:
            (?P<comment>\#[^\n]*(?:\n[ \t]*\#[^\n]*)*)
          | (?:async[ ]+|cp?def[ ]+)?(?:def|class)[ ]+(?P<name>\w+))
      | \#[^\n]*
      | (?P<long>\"{3}(?:[^"\\]+|\\.|"(?!""))*\"{3} | '{3}(?:[^'\\]+|\\.|'(?!''))*'{3})
      | "(?:[^"\\\n]+|\\.)*" | '(?:[^'\\\n]+|\\.)*'""",
    re.VERBOSE | re.DOTALL,
)
_NOT_PROSE = re.compile(
    r"licen[sc]e|copyright|warrant(y|ies)|redistribut|all rights reserved|-\*- coding|type: ignore|@generated|mypy:|"
    r"noqa|pylint|fmt: o",
    re.IGNORECASE,
)

_LEFT_OUT = re.compile(
    r"(?:examples?|references?|see also|usage|doctests?|example usage|todo)\s*:{0,2}$", re.IGNORECASE
)
_KEPT_DIRECTIVE = re.compile(
    r"\.\.\s+(?:note|warning|caution|important|tip|hint|deprecated|versionadded|versionchanged|attention)::\s*(.*)"
)
_UNDERLINE = re.compile(r"([-=~^*#\"'+_.`:])\1{2,}\s*$")
_TABLE = re.compile(r"[|+].*[|+]\s*$|[=-]{3,}(\s+[=-]{3,})+\s*$")
_FIELD = re.compile(r":(?:param|parameter|arg|keyword|attr|ivar|raises?|var|cvar)\s+([^:]*):\s*")
_RETURNS = re.compile(r":returns?:\s*")
_FIELD_LEFT = re.compile(r":(?:r?type|vartype|meta)\b[^:]*:")
_ROLE = re.compile(r":[\w:+.-]+:`~?([^`<]*?)\s*(?:<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}|\[([^\]]+)\]\((?:[^()\s]|\([^()]*\))*\)")
_IMAGE = re.compile(r"!?\[!?\[?[^\]]*\]\([^)]*\)\]\([^)]*\)|!\[[^\]]*\]\([^)]*\)|<[^<>\n]{1,300}>")
_QUOTES = re.compile(r"``([^`]*)``")
_REFERENCE = re.compile(r"`([^`]+)`_{1,2}(?!\w)|\[[0-9A-Z]{1,12}\]_")
_BULLET = re.compile(r"(?:[-*+•]|\d{1,2}[.)]|\([a-z0-9]\)|#\.)\s+\S")
_TYPED = re.compile(r"\*{0,2}[\w.`]+(?:,\s*\*{0,2}[\w.`]+)* : ")  # numpydoc: the description follows below
_NAMED = re.compile(r"\*{0,2}[\w.`]+(?: \(.{1,80}\))?\s?:(?:\s|$)")  # Google style: it follows at once
_TOKEN = re.compile(r"\S+")
_GAP = re.compile(r"\s+")

# The words that hold English together: 0.35 to 0.5 of all words in prose, under 0.15 in code or tables.
_WORDS = """
a about above after all also an and any are as at be because been before being below between both but by can cannot
could do does done each either even every few first for from get given had has have having he her here his how i if in
instead into is it its itself just last less like made make many may means might more most must need never new no nor
not note now of on once one only or other our out over own same see set should since so some still such take than that
the their them then there these they this those through thus to too two under until up upon us use used uses using
was we were what when where whether which while who why will with within without would yet you your
"""
_COMMON = frozenset(_WORDS.split())


def texts(source: str) -> Iterator[tuple[str, str]]:
    """(qualified name, raw text) of every long string and long comment of a Python source, in order.

    The name is that of the class or function around or before the text ("" in a module's head).
    """
    source = f"\n{source}"
    stack: list[tuple[int, str]] = []
    for m in _LEX.finditer(source):
        if m["name"]:
            depth = len(m["indent"].expandtabs())
            while stack and stack[-1][0] >= depth:
                stack.pop()
            stack.append((depth, m["name"]))
        elif (long := m["long"]) and len(long) > 80:
            prefix = "".join(filter(str.isalpha, source[max(0, m.start() - 2) : m.start()])).lower()
            if "f" not in prefix and "b" not in prefix:
                yield ".".join(n for _, n in stack), _value(long, raw="r" in prefix)
        elif (comment := m["comment"]) and len(comment) > 160:
            lines = (line.strip().lstrip("#:!").removeprefix(" ") for line in comment.split("\n"))
            yield ".".join(n for _, n in stack), "\n".join(lines)


def _value(literal: str, raw: bool) -> str:
    if raw or "\\" not in literal:
        return literal[3:-3]
    try:
        return str(ast.literal_eval(literal))
    except (SyntaxError, ValueError):
        return literal[3:-3]


def clean(raw: str) -> str:
    """Paragraphs of plain text: no doctests, code, tables or mark-up, wrapped lines joined; "" if nothing is left."""
    if _NOT_PROSE.search(raw[:600]):
        return ""
    lines: list[str] = []
    for line in _joined(_text_lines(raw.expandtabs(4).split("\n"))):
        if line.startswith(_HEADING):
            while lines and (not lines[-1] or lines[-1].startswith(_HEADING)):  # the section before it is empty
                lines.pop()
            lines.extend(["", line] if lines else [line])
        elif line or (lines and lines[-1]):
            lines.append(line)
    while lines and (not lines[-1] or lines[-1].startswith(_HEADING) or lines[-1].endswith(":")):
        lines.pop()
    return "\n".join(lines).replace(_HEADING, "")


_HEADING = "\0"  # marks a heading between the steps below


def _text_lines(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """(indentation, width, text) of the lines that are text; blank lines as (0, 0, "")."""
    bodies = [len(x) - len(x.lstrip()) for x in lines[1:] if x.strip()]
    margin = min(bodies, default=0)
    left_out: int | None = None  # lines indented more than this belong to a block of code
    example = fence = section = False
    for i, full in enumerate(lines):
        line = full.strip()
        if not line:
            example = False
            yield 0, 0, ""
            continue
        indent = 0 if i == 0 else len(full) - len(full.lstrip()) - margin
        if line.startswith(("```", "~~~")):
            fence = not fence
            continue
        if i + 1 < len(lines) and _UNDERLINE.match(lines[i + 1].strip()) and len(line) < 80:
            section = bool(_LEFT_OUT.match(line))
            left_out = None
            if not section:
                yield 0, 0, f"{_HEADING}{_plain(line)}"
            continue
        example = example or line.startswith(">>>")
        if fence or example or section or (left_out is not None and indent > left_out):
            continue
        left_out = None
        if line.startswith(".."):
            kept = _KEPT_DIRECTIVE.match(line)
            if not kept:
                left_out = indent
            elif kept[1] and not kept[1][0].isdigit():
                yield indent, 0, _plain(kept[1])
        elif _LEFT_OUT.match(line):
            left_out = indent
        elif not (_UNDERLINE.match(line) or _TABLE.match(line) or _FIELD_LEFT.match(line)):
            if line.endswith("::"):
                left_out, line = indent, line[:-1]
            yield indent, len(full), _plain(line)


def _joined(lines: Iterator[tuple[int, int, str]]) -> Iterator[str]:
    """Wrapped lines put together, unreadable ones left out."""
    last = ""
    last_indent = last_width = 0
    for indent, width, line in lines:
        named = bool(_NAMED.match(line)) and not _TYPED.match(line)
        item = not line or line[0] == _HEADING or named or bool(_BULLET.match(line) or _TYPED.match(line))
        wrapped = last_width >= 45 and indent == last_indent
        hanging = indent > last_indent and bool(_BULLET.match(last) or (_NAMED.match(last) and not _TYPED.match(last)))
        if last and not item and (wrapped or hanging):
            last = f"{last} {line}"
            last_width = width
            last_indent = indent if wrapped else last_indent
            if hanging:
                last_indent = indent
            continue
        if not last or _readable(last):
            yield last
        last, last_indent, last_width = line, indent, width
    if _readable(last):
        yield last


def _plain(line: str) -> str:
    """One line without reStructuredText or Markdown mark-up."""
    if line[0] in ":#":
        line = _RETURNS.sub("Returns: ", _FIELD.sub(r"\1: ", line)).lstrip("# ")
    if "`" in line:
        line = _QUOTES.sub(r"`\1`", _LINK.sub(r"\1\2", _ROLE.sub(r"\1", line)))
        line = _REFERENCE.sub(r"\1", line)
    if "](" in line or "<" in line or "]_" in line:
        line = _REFERENCE.sub(r"\1", _LINK.sub(r"\1\2", _IMAGE.sub("", line)))
    if "**" in line:
        line = line.replace("**", "")
    return _GAP.sub(" ", line).strip()


def _readable(line: str) -> bool:
    """Whether a line is mostly letters; the head of a parameter's description may hold more signs."""
    if not line or line[0] == _HEADING:
        return True
    letters = sum(map(str.isalpha, line)) + line.count(" ")
    least = 0.6 if _TYPED.match(line) else 0.78
    return letters >= least * len(line) and line.count("\\") < 2 and line.count("{") < 2 and "://" not in line


def prose_share(text: str) -> float:
    """Share of English function words among the words of a text; what is not a word counts as one word, too."""
    words = _TOKEN.findall(text)
    if not words:
        return 0.0
    return sum(w.strip(".,;:()").lower() in _COMMON for w in words) / len(words)


def read_files(root: str, files: list[str]) -> list[tuple[str, Pieces]]:
    """(path, texts) of each file that holds any, in the order given."""
    found = []
    for name in files:
        try:
            with open(os.path.join(root, name), encoding="utf-8") as f:
                source = f.read(LARGEST + 1)
        except (OSError, UnicodeDecodeError):
            continue  # a package may list files that were removed, or hold other encodings on purpose
        pieces = _pieces(name, source) if len(source) <= LARGEST else []
        if pieces:
            found.append((name, pieces))
    return found


def _pieces(name: str, source: str) -> Pieces:
    if name.endswith("METADATA"):
        source = source.partition("\n\n")[2]
    raw = [("", source)] if name.endswith((".rst", ".md", "METADATA")) else texts(source)
    found = ((n, clean(text)) for n, text in raw)
    return [(n, text) for n, text in found if len(text) > 60 and prose_share(text) >= LEAST_PROSE]


def main() -> None:
    for line in sys.stdin:
        root, files = json.loads(line)
        sys.stdout.write(json.dumps(read_files(root, files)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
