"""A disk that is full before a run can begin, or go on, ends it with 75 and a sentence; a restart then works."""

import errno
import os

import pytest

from mygpt2.errors import TryAgain, UserError
from mygpt2.run_dir import RunDir, state_of
from tests.train.test_attempt import cache, source, train  # noqa: F401 (fixtures)


def failing(patch, name, number, nth):
    """The n-th call of that kind on a file of the run fails; all before it succeed. True once it has."""
    real, calls, failed = getattr(os, name.removeprefix("os.")), [], []

    def fail(*arguments, **named):
        calls.append(arguments)
        if len(calls) >= nth:
            failed.append(True)
            raise OSError(number, os.strerror(number))
        return real(*arguments, **named)

    patch.setattr(os, name.removeprefix("os."), fail)
    return failed


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("name", ["mkdir", "pwrite", "replace"])
def test_a_disk_that_is_full_before_the_start_ends_with_75_and_a_sentence(train, monkeypatch, name, nth):  # noqa: F811
    with monkeypatch.context() as patch:
        failed = failing(patch, name, errno.ENOSPC, 1 if name == "pwrite" else nth)
        with pytest.raises(TryAgain, match=r"cannot write .*No space left on device; free some space"):
            train(steps=3)
    assert failed
    assert train(steps=3) == 0 and state_of(RunDir(train.runs / "run")).state == "finished"


@pytest.mark.parametrize("name", ["mkdir", "pwrite", "replace"])
def test_a_disk_that_is_full_before_a_resume_leaves_the_run_to_go_on(train, monkeypatch, name):  # noqa: F811
    assert train(steps=3) == 0
    with monkeypatch.context() as patch:
        failing(patch, name, errno.ENOSPC, 1)
        with pytest.raises(TryAgain, match="No space left on device; free some space"):
            train(steps=5)
    assert train(steps=5) == 0


def test_a_folder_of_somebody_else_is_the_users_error(train, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        failing(patch, "mkdir", errno.EACCES, 1)
        with pytest.raises(UserError, match=r"cannot make a run folder in .*--runs") as told:
            train(steps=3)
    assert told.value.exit_code == 2
