"""A signal becomes an answer: once given, it stays; and what handled the signal before comes back."""

import os
import signal

import pytest

from dualflat.runtime.stop import AgreedStop, LocalStop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with LocalStop() as stop:
        assert stop() == 0
        os.kill(os.getpid(), number)
        assert stop() == stop() == number
        assert signal.getsignal(number) is signal.SIG_DFL, "a second one ends the process at once"
    assert signal.getsignal(number) is before


def test_an_agreed_stop_is_for_good(monkeypatch):
    """The service says yes in one call and no in the next, as JAX's does."""
    from jax.experimental import multihost_utils

    asked = []
    monkeypatch.setattr(
        multihost_utils, "reached_preemption_sync_point", lambda n: asked.append(n) or n == 3
    )
    stop = AgreedStop()
    assert [stop() for _ in range(5)] == [0, 0, *[signal.SIGTERM] * 3]
    assert asked == [1, 2, 3, 4, 5], "every process asks equally often, before and after"


def test_control_c_is_told_on_as_sigterm():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with AgreedStop():
            os.kill(os.getpid(), signal.SIGINT)
        assert heard == ["SIGTERM"]
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)
