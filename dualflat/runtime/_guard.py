"""The process that stands between a launcher and one command, so that nothing outlives the job.

A program of its own, run by path: `python -I -S _guard.py TF_CONFIG GRACE_S UNSET COMMAND…`, with
its standard input a socket to the launcher and its standard output the pipe that the launcher
reads. It imports a few small modules of the standard library and no package.

Why a process: what a launcher that is killed with SIGKILL leaves behind must end too, and the
launcher can no longer do it. The kernel closes its end of the socket, which the guard sees at
once, whatever the launcher was doing; no instant is left uncovered, as it would be if the launcher
first started a command and then told somebody. The guard is single-threaded from its first
instruction to its last, so it may do between fork and exec what `preexec_fn` may not.

Why Linux is better off: there the guard is also the reaper of its descendants, and therefore finds
and ends those that moved to a session of their own; and its command dies with it even if the guard
itself is killed. Elsewhere it ends the command's process group: a daemon that left the group stays.
"""

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_POLL_S = 0.02  # between two looks at what a command has left behind
_PATIENCE_S = 3.0  # with what even SIGKILL does not end: a device's wait, a zombie without a reaper


def main(config: str, grace_s: float, unset: str, command: list[str]) -> int:
    """Run the command to its end, and everything that it started; its exit status as a shell's."""
    prctl = _prctl()
    reaper = prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
    wake = _wakeups()
    child = _start(config, unset, command, prctl)
    listening = [0, wake]
    status: int | None = None
    end_by = math.inf  # when SIGKILL follows
    forced = False
    while True:
        ended = _reap(child)
        if ended is not None:
            status = ended
            with contextlib.suppress(OSError):  # no launcher is left to be told
                os.write(0, f"{status} {time.monotonic()!r}\n".encode())
            end_by = min(end_by, time.monotonic() + grace_s)
            _signal(_left(child, reaper), signal.SIGTERM)
        left = [] if status is None else _left(child, reaper)
        if status is not None and (not left or time.monotonic() > end_by + _PATIENCE_S):
            return status
        overdue = time.monotonic() >= end_by
        if overdue:
            if not forced:
                forced = True
                _say(f"still running {grace_s:g} s after it was to end: killed")
            _signal(_left(child, reaper), signal.SIGKILL)
        if overdue or status is not None:
            wait = _POLL_S
        else:
            wait = None if math.isinf(end_by) else max(0.0, end_by - time.monotonic())
        ready, _, _ = select.select(listening, [], [], wait)
        for number in _orders(ready, listening, wake):
            end_by = min(end_by, time.monotonic() + grace_s)
            if status is None:  # not reaped, so the number is still the command's
                _signal([child], number)


def _start(config: str, unset: str, command: list[str], prctl: Callable | None) -> int:
    # Signals wait until the child has let go of the guard's handlers: one that came between fork
    # and exec would be swallowed by them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    guard = os.getpid()
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return child
    try:
        os.setsid()
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(128 + signal.SIGKILL)
        for number in (*_ENDING, signal.SIGCHLD):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; a program does not
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.putenv("TF_CONFIG", config)
        if unset:
            os.unsetenv(unset)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(command[0], command)
    except OSError as error:
        _say(f"cannot start {command[0]!r}: {error.strerror}")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    finally:
        os._exit(126)


def _orders(ready: list[int], listening: list[int], wake: int) -> list[int]:
    """Signals to pass on: from the launcher, from its end, and those sent to the guard itself."""
    orders = []
    if wake in ready:
        orders += [number for number in os.read(wake, 4096) if number in _ENDING]
    if 0 in ready:
        try:
            said = os.read(0, 4096)
        except ConnectionResetError:
            said = b""
        if not said:
            listening.remove(0)
            orders.append(signal.SIGTERM)
        orders += list(said)  # one byte an order: the signal's number
    return orders


def _reap(child: int) -> int | None:
    """Collect whoever has ended; the exit status of `child` when it is among them."""
    status = None
    while True:
        try:
            pid, waited = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            code = os.waitstatus_to_exitcode(waited)
            status = code if code >= 0 else 128 - code


def _left(child: int, reaper: bool) -> list[int]:
    """Living descendants; without a reaper, the command's process group (as −number) if any."""
    if not reaper:
        try:
            os.killpg(child, 0)
        except OSError:
            return []
        return [-child]
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    layer = [os.getpid()]
    while layer:
        layer = [pid for parent in layer for pid in children.get(parent, ())]
        found += layer
    return found


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _wakeups() -> int:
    """A pipe into which every signal that matters writes its number, to be waited for."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (*_ENDING, signal.SIGCHLD):
        if number == signal.SIGCHLD or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


def _prctl() -> Callable | None:
    """Linux's prctl; None where there is none, or no /proc to find descendants in."""
    if not sys.platform.startswith("linux") or not os.path.isdir("/proc/self"):
        return None
    try:
        import ctypes  # a Python may be built without it

        return ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode(errors="backslashreplace"))


if __name__ == "__main__":
    os._exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
