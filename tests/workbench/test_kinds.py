"""Every kind of source is handled wherever kinds are told apart: in the engine and on the page."""

from __future__ import annotations

from typing import get_args

import pytest

from mygpt2.data.beside import fields_of
from mygpt2.data.sources.local.find import KINDS as ENDINGS
from mygpt2.data.sources.local.seals import label_of, pieces_of
from mygpt2.data.sources.manifest import COLUMNS, WORDS, Kind
from mygpt2.data.trace import place_of
from mygpt2.tokenizer import load_tokenizer
from tests.data.corpus import WRITERS, config
from workbench.corpus.library import Library
from workbench.picker.kinds import KINDS as CHOICES
from workbench.survey.sample import survey
from workbench.tabs.data import documents
from workbench.tabs.data.columns import figures_of
from workbench.tabs.train.look import KINDS as CALLED
from workbench.tabs.train.look import found as told

FILES = set(get_args(Kind)) - {"mixture"}  # which is of several sources


def test_every_kind_has_its_words_and_its_endings():
    assert set(WORDS) == set(get_args(Kind)) and set(ENDINGS.values()) == FILES and set(CALLED) >= FILES
    assert all(CHOICES["data"].file(f"a{ending}") for ending in ENDINGS)
    assert set(ENDINGS) <= set(CHOICES["data"].endings)
    assert set(COLUMNS) < FILES <= set(WRITERS)


@pytest.mark.parametrize("kind", sorted(FILES))
def test_every_kind_is_opened_looked_into_and_shown(kind, tmp_path):
    data = config(WRITERS[kind](tmp_path / "s"), tokenizer="gpt2:512", max_document_chars=10_000)
    opened = Library(tmp_path / "cache").open(data, load_tokenizer("gpt2:512"))
    manifest = opened.manifest
    assert dict(documents.facts(opened))["format"] == kind == manifest.kind
    last = len(manifest) - 1
    assert WORDS[kind][0] in documents.block_label(manifest, last) and WORDS[kind][0] in manifest.describe(last)
    _, lines = documents.documents_page(opened, last, 0, data)
    assert lines[0].chars > 5 and lines[0].use in ("training", "validation")
    place, text = documents.whole_document(opened, last, 0)
    assert text.strip() and manifest.file_of(last).name in place
    assert place_of(manifest, last, 1)[0] == manifest.files_of(last)[-1 if kind == "txt" else 0].name or kind == "txt"
    assert len(next(iter(figures_of(opened, last).values()))) == len(opened.read(last))
    assert bool(fields_of(opened, last, 0)) == (kind in COLUMNS)
    assert ("id" in figures_of(opened, last) or "n" in figures_of(opened, last)) == (kind in COLUMNS)
    assert label_of(manifest, last)[1] in {piece[2] for piece in pieces_of(manifest, len(manifest.files) - 1)}
    found = survey(data, opened.tokenizer, tmp_path / "cache", lambda: False)
    assert CALLED[kind] in told(found, {}) and found.documents > 3 and found.tokens > 1000
