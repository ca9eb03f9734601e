"""The pace of requests, on a clock that moves only while somebody waits."""

import pytest

from parrot_runtime.pace import Pace, StoppedError


class Clock:
    def __init__(self):
        self.now, self.over = 100.0, False

    def __call__(self):
        return self.now

    def rest(self, seconds):
        self.now += seconds
        return self.over


def pace(clock, requests=None, tokens=None):
    return Pace(requests_per_minute=requests, tokens_per_minute=tokens, rest=clock.rest, clock=clock)


def test_requests_keep_their_distance():
    clock = Clock()
    limited, starts = pace(clock, requests=120), []
    for _ in range(5):
        limited.wait()
        starts.append(clock.now)
    assert starts == [100.0, 100.5, 101.0, 101.5, 102.0]
    clock.now = 200.0  # what was not used is not made up for at once
    limited.wait()
    limited.wait()
    assert clock.now == 200.5


def test_tokens_put_the_next_request_off():
    clock = Clock()
    limited = pace(clock, tokens=6000)
    limited.wait()
    limited.spent(250)
    limited.wait()
    assert clock.now == pytest.approx(102.5)


def test_a_pause_holds_everybody_and_never_shortens_another():
    clock = Clock()
    limited = pace(clock)
    limited.pause(7)
    limited.pause(3)
    limited.wait()
    assert clock.now == 107.0


def test_no_limit_does_not_wait_and_the_end_is_noticed():
    clock = Clock()
    free = pace(clock)
    for _ in range(3):
        free.wait()
    assert clock.now == 100.0
    clock.over = True
    for wait in (free.wait, lambda: free.rest(1)):
        with pytest.raises(StoppedError):
            wait()
