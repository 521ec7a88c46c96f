"""Users without a home: a sentence, and no need of one where the folders are named."""

import pwd
from pathlib import Path

import pytest

from mygpt2.data.sources.pydocs.corpus import harvest
from mygpt2.doctor.run import diagnose
from mygpt2.errors import UserError
from mygpt2.machine import cache_folder, home_path


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an account, as `docker run --user 12345` makes one."""

    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "MYGPT2_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def test_a_cache_that_is_named_needs_no_home(homeless, monkeypatch, tmp_path):
    assert cache_folder(str(tmp_path / "a")) == tmp_path / "a"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mygpt2"
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b"


def test_without_any_the_sentence_says_how_to_name_one(homeless):
    with pytest.raises(UserError, match=r"no place for the cache: HOME is not .*MYGPT2_CACHE=DIR or --data.cache_dir"):
        cache_folder()
    with pytest.raises(UserError, match="~/x: there is no home folder of ~ here; write the path in full"):
        home_path("~/x")


def test_a_user_who_does_not_exist_is_named():
    with pytest.raises(UserError, match="~nosuchuser/x: there is no home folder of ~nosuchuser here"):
        home_path("~nosuchuser/x")
    with pytest.raises(UserError, match="~nosuchuser"):
        cache_folder("~nosuchuser/cache")
    assert home_path("a/~b") == Path("a/~b")


@pytest.mark.parametrize(
    "words",
    ["data inspect --source ~nosuchuser/x", "train --data.source ~nosuchuser/x", "train --data.cache_dir ~nosuchuser/x",
     "train --data.tokenizer ~nosuchuser/t.json", "sample --model ~nosuchuser/x",
     "eval --model gpt2 --protocol ~nosuchuser/x",
     "export --model x --to ~nosuchuser/x"],
)  # fmt: skip
def test_every_verb_tells_it_in_a_sentence(mygpt2, words):
    ended = mygpt2(*words.split())
    assert ended.code == 2 and ended.err.startswith("error: ") and "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_doctor_makes_it_a_finding_among_the_others(homeless, tmp_path):
    found = {f.name: f for f in diagnose(tmp_path, compile=False)}
    assert "no place for the cache" in found["cache folder"].detail and len(found) > 5


def test_a_cache_that_cannot_be_written_is_told_with_the_ways_to_name_another(tmp_path):
    """HOME=/ of a user who may not write there, or somebody else's cache."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file.*MYGPT2_CACHE=DIR or --data.cache_dir DIR"):
        harvest(tmp_path / "file")
