"""The built-in corpus: what is taken out of a source, and how it becomes files."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
import pytest

from mygpt2.data.sources.pydocs import corpus as pydocs
from mygpt2.data.sources.pydocs import prose
from mygpt2.errors import TryAgain, UserError

SOURCE = '''# Copyright: nobody in particular, all rights reserved, and so on for more than eighty characters
"""The module speaks first, and what it says is long enough to be worth reading by somebody."""
NAME = "a # is not a comment in a string and this string is not a long one, is it, not at all"
class Garden:
    r"""A garden is a place where things grow, and \\d in a raw string stays what it is for ever."""
    def water(self):
        # The next lines explain, in more than one line of comment, why the garden has to be watered
        # in the evening rather than at noon: the water would be gone before it could reach the roots.
        return f"""an f-string is left out, however long it may be, because its holes are no text at all"""
def leave(): "short"
'''


def test_texts_are_found_with_the_name_they_belong_to():
    found = dict(prose.texts(SOURCE))
    assert found[""].startswith("The module speaks first")
    assert found["Garden"].startswith("A garden") and r"\d" in found["Garden"]
    assert found["Garden.water"].startswith("The next lines explain")
    assert set(found) == {"", "Garden", "Garden.water"}


DOC = """Solve an equation, whatever the equation may be, in as
    many unknowns as there are rows in the matrix.

    Parameters
    ----------
    a : (M, M) array_like
        Coefficients of the :class:`~pkg.Matrix` that ``solve`` is
        given by the one who calls it.

    Returns
    -------

    Notes
    -----
    See [1]_ and `the guide <https://example.org>`_ for more::

        code = is_not(text)

    .. versionadded:: 1.2
    .. code-block:: python

        x = y
    >>> solve(a)
    array([1])

    Examples
    --------
    Some example that would be read without its code.
    """


def test_markup_code_and_empty_sections_go_and_wrapped_lines_are_joined():
    assert prose.clean(DOC) == (
        "Solve an equation, whatever the equation may be, in as many unknowns as there are rows in the matrix.\n\n"
        "Parameters\na : (M, M) array_like\n"
        "Coefficients of the pkg.Matrix that `solve` is given by the one who calls it."
    )


def test_licences_are_not_prose():
    assert prose.clean("Licensed under the Apache License, Version 2.0, and so on and so forth.") == ""


def test_prose_share_tells_text_from_code():
    assert prose.prose_share("It is one of the things that we can say about the way in which they are made.") > 0.5
    assert prose.prose_share("def f(x): return x.y[z] + foo(bar, baz) * quux -> None") < 0.15


def test_a_paragraph_seen_too_often_is_left_out():
    seen: Counter[str] = Counter()
    line = "The same sentence stands in very many places, which makes it boilerplate."
    kept = ["".join(pydocs.documents("m", [("f", line)], seen)) for _ in range(4)]
    assert [line in x for x in kept] == [True, True, False, False]


def test_documents_stay_within_the_longest_length():
    pieces = [(f"f{i}", "\n".join(f"Paragraph {i}.{j} " + "of words " * 30 for j in range(40))) for i in range(5)]
    texts = list(pydocs.documents("m", pieces, Counter()))
    assert len(texts) > 4 and max(map(len, texts)) <= pydocs.LONGEST + 2
    assert sum(t.count("Paragraph") for t in texts) == 200


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "site"
    root.mkdir()
    for i in range(8):
        text = " ".join(f"In part {i} of the book it is said that there are {j} ways to do it." for j in range(90))
        (root / f"m{i}.py").write_text(f'"""{text}"""\n')
    packages = [pydocs.Package("python", "1.0", str(root), tuple(f"m{i}.py" for i in range(8)))]
    monkeypatch.setattr(pydocs, "installed", lambda: packages)
    monkeypatch.setattr(pydocs, "_topics", list)
    monkeypatch.setattr(pydocs, "ROW_GROUP_BYTES", 10_000)
    return packages


def test_the_corpus_is_made_once_with_fineweb_edus_columns(package, tmp_path):
    seen: list[tuple[int, int]] = []
    folder = pydocs.harvest(tmp_path / "cache", lambda *x: seen.append(x))
    assert seen[-1][0] == seen[-1][1] > 0
    (path,) = folder.glob("*.parquet")
    file = pq.ParquetFile(path, page_checksum_verification=True)
    assert file.schema_arrow.names == [
        "text", "id", "dump", "url", "date", "file_path", "language", "language_score", "token_count", "score",
        "int_score",
    ]  # fmt: skip
    table = file.read()
    assert table.num_rows == 8 and file.num_row_groups == 4
    assert len(set(table["id"].to_pylist())) == 8
    before = path.stat().st_mtime_ns
    assert pydocs.harvest(tmp_path / "cache") == folder and path.stat().st_mtime_ns == before
    assert [p.name for p in folder.parent.iterdir() if p.name.startswith(".making")] == []


def test_the_corpus_is_the_same_wherever_it_is_made(package, tmp_path):
    a, b = (pydocs.harvest(tmp_path / x) for x in "ab")
    assert [p.read_bytes() for p in sorted(a.iterdir())] == [p.read_bytes() for p in sorted(b.iterdir())]


def test_other_versions_are_another_corpus(package, tmp_path):
    first = pydocs.harvest(tmp_path)
    package[0] = pydocs.Package("python", "1.1", package[0].root, package[0].files)
    assert pydocs.harvest(tmp_path) != first


def test_an_interrupted_harvest_leaves_nothing_that_would_be_used(package, tmp_path, monkeypatch):
    monkeypatch.setattr(pydocs, "_write_parquet", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(TryAgain, match=r"No space left.*MYGPT2_CACHE"):
        pydocs.harvest(tmp_path)
    assert not [p for p in (tmp_path / "pydocs").iterdir() if p.is_dir()]


def test_no_documentation_at_all_says_what_to_do(package, tmp_path):
    package[0] = pydocs.Package("python", "1.0", str(tmp_path), ())
    with pytest.raises(UserError, match="source=pydocs found no documentation"):
        pydocs.harvest(tmp_path)


def test_the_project_itself_is_read_from_what_is_installed():
    names = {p.name: p for p in pydocs.installed()}
    assert {"python", "numpy", "torch"} <= set(names)
    assert not [f for p in names.values() for f in p.files if "/tests/" in f]
