"""No request gets lost, whenever it arrives, and every rank does what one was asked."""

import os
import signal

import pytest

from mygpt2.train.signals import Asked, Requests

NUMBERS = {"stop": signal.SIGTERM, "save": signal.SIGUSR1}


@pytest.fixture
def requests():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    listening = Requests()
    listening.listen()
    yield listening
    for number, handler in kept.items():
        signal.signal(number, handler)


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
