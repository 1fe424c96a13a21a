"""When to end early: a signal becomes a question that every process answers alike.

One process asks its own Python handler. Several must stop at the *same* step, or the next collective
hangs; there JAX's preemption service (which installs its own SIGTERM handler when the processes
join) agrees on the step, as soon as any one of them has been told.
"""

import os
import signal
from collections.abc import Callable
from types import FrameType

Stop = Callable[[], int]
"""Asked at every step and between evaluation batches: the signal that ends the run, or 0."""


def never() -> int:
    """Return 0: nothing ends the run early."""
    return 0


class LocalStop:
    """Remembers the first SIGTERM or SIGINT; a second one ends the process at once.

    A context manager: the handlers that were there before come back at its end. Only the main
    thread may enter it, as Python's signals demand.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "LocalStop":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def __call__(self) -> int:
        """Return the signal that came, or 0."""
        return self._signal

    def _remember(self, number: int, _: FrameType | None) -> None:
        self._signal = number
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)


class AgreedStop:
    """The same answer in every process of a `jax.distributed` job, in the same call.

    Every process must call it equally often: the number of the call is what they agree on. A
    context manager, entered by the main thread: while it lasts, Ctrl-C counts as SIGTERM.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._reached = False  # the service says so in one call only; a stop is for good

    def __enter__(self) -> "AgreedStop":
        # Ctrl-C reaches each process at another step. Told on as SIGTERM, it is agreed upon too.
        self._before = signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def __call__(self) -> int:
        """Return SIGTERM where any process has been told to end, or 0."""
        from jax.experimental import multihost_utils

        self._calls += 1
        reached = multihost_utils.reached_preemption_sync_point(self._calls)
        self._reached = self._reached or reached
        return signal.SIGTERM if self._reached else 0
