"""No request gets lost, whenever it arrives, and every rank does what one was asked."""

import os
import signal

import pytest

from mygpt2.failures import Stopped
from mygpt2.train.signals import Asked, Requests
from tests.life import harness

NUMBERS = {"stop": signal.SIGTERM, "save": signal.SIGUSR1}


@pytest.fixture
def requests():
    with harness.signals():
        listening = Requests()
        listening.listen()
        yield listening


def alone(flags):
    return list(flags)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_signal_in_the_middle_of_the_exchange_waits_for_the_next(requests, name):
    def interrupted(flags):
        os.kill(os.getpid(), NUMBERS[name])
        return list(flags)

    first, _ = requests.agree(interrupted)
    second, _ = requests.agree(alone)
    assert not getattr(first, name)
    assert getattr(second, name)


def test_a_save_is_asked_once_and_a_stop_stays(requests):
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    requests.sample = True
    assert requests.agree(alone)[0] == Asked(stop=True, save=True, sample=True)
    assert requests.agree(alone)[0] == Asked(stop=True, save=False, sample=False)


def test_what_another_rank_was_asked_is_done_here_and_not_asked_again(requests):
    def with_peer(flags):
        return [own + other for own, other in zip(flags, [0, 1, 0, 1, 1], strict=True)]

    asked, counts = requests.agree(with_peer, True, False)
    assert (asked, counts) == (Asked(stop=False, save=True, sample=False), [2, 1])
    assert requests.agree(alone)[0] == Asked(stop=False, save=False, sample=False)


def test_a_closed_terminal_is_a_stop_and_under_nohup_nothing(requests):
    os.kill(os.getpid(), signal.SIGHUP)
    assert requests.stop
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it to the program it starts
    quiet = Requests()
    quiet.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not quiet.stop


def test_a_stop_ends_at_once_what_has_nothing_to_finish_and_is_not_lost_if_it_came_before(requests):
    with pytest.raises(Stopped), requests.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("not reached")
    with pytest.raises(Stopped), requests.at_once():
        raise AssertionError("not reached either: it was asked already")
