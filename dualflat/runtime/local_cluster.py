"""A cluster of real processes on this machine: the same command in each, each with its TF_CONFIG.

Every command runs under a guard process (see `_guard`), which ends the command and whatever it
started when it is told to, and also when the launcher is gone, be it by SIGKILL. POSIX only; on
Linux nothing escapes, elsewhere only what leaves its process group does.
"""

import codecs
import contextlib
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from dualflat.runtime.cluster import Cluster, Role

HOST = "127.0.0.1"
LINE_LIMIT = 16384  # characters; a longer line is cut into several, and none of it is lost
_PATIENCE_S = 5.0  # beyond the grace: what a guard itself may take to end
_GUARD = ("-I", "-S", str(Path(__file__).with_name("_guard.py")))  # quick, and by itself
_FORWARDED = (signal.SIGINT, signal.SIGTERM)


def run_local(
    command: Sequence[str],
    *,
    workers: int,
    ps: int = 0,
    evaluator: bool = False,
    env: Mapping[str, str] | None = None,
    output: Callable[[str], object] | TextIO,
    grace_s: float = 10.0,
) -> int:
    """Run `command` in every process of a local cluster; the exit status that a shell should see.

    Every process is started in a session of its own, with standard input at its end, with its own
    TF_CONFIG, and otherwise with the environment as it is. Standard output and standard error of
    all arrive as whole lines, each behind a tag such as `[chief 0]`; the launcher's own remarks
    come behind `[launch]`. A line ends at '\\n' or '\\r\\n', or at a '\\r' that has text before it
    (a progress bar); the last one may lack its end. Bytes that are not UTF-8 become U+FFFD, and
    lines beyond `LINE_LIMIT` characters are cut into several.

    SIGINT and SIGTERM are passed on to every command (when called in the main thread; a signal
    that is ignored stays ignored). A command that fails ends all others with SIGTERM. Whoever is
    still there `grace_s` seconds after such a request is killed. What a command leaves running is
    asked to end when the command ends, and killed after the same grace: it gets SIGTERM then and
    not before, so that a trainer's helpers serve it while it saves.

    The ports are free when they are chosen and nobody holds them until the processes bind them (in
    the synchronous mode only the chief binds its own). A stranger may take one in between; the
    process that wanted it then fails, and with it the run. Run it again. (To hold a port would
    need every server to be willing to share it.)

    Args:
      command: program and arguments; the program is looked up on PATH.
      workers: training processes. The first of them is the chief: 3 make chief 0, worker 0 and
        worker 1.
      ps: parameter-server processes beside them.
      evaluator: whether one more process evaluates.
      env: the environment of the processes, TF_CONFIG aside; None hands on this process's own.
      output: called with each line, without its end; or a text stream, which is flushed.
      grace_s: seconds from the request to end until SIGKILL.

    Returns:
      0 when all end well; otherwise the exit status of the one that failed first, where a death by
      signal n counts as 128 + n and a program that cannot be started as 127 or 126. 128 + n after
      signal n was passed on to running processes none of which had failed: 130, 143.

    Raises:
      ValueError: arguments that make no cluster, or a command that is none.
      OSError: a guard cannot be started, or this system lacks fork.
      Exception: whatever `output` raises, after every process has been ended.
    """
    command = _checked_command(command)
    if not isinstance(grace_s, int | float) or not (math.isfinite(grace_s) and grace_s >= 0):
        raise ValueError(f"grace_s: found {grace_s!r}; wanted seconds, finite and not negative.")
    clusters = local_clusters(workers, ps, evaluator)
    if not hasattr(os, "fork"):
        raise OSError("a local cluster needs a POSIX system (fork, sessions); this one has none.")
    emit = output if callable(output) else _writer(output)
    children: list[_Child] = []
    with _signals() as (wake, heard):
        try:
            for me in clusters:
                children.append(_Child(me, command, env, grace_s))
            return _Watch(children, emit, grace_s, wake, heard).run()
        finally:
            _close(children, grace_s)


def local_clusters(workers: int, ps: int = 0, evaluator: bool = False) -> tuple[Cluster, ...]:
    """The views that the processes of a local cluster have of it, in the order of process ids.

    Loopback addresses with ports that were free a moment ago. The evaluator, if any, comes last;
    as TensorFlow has it, the cluster does not list it.

    Raises:
      ValueError: not at least one worker, or a negative number of parameter servers.
    """
    for name, count, least in (("workers", workers, 1), ("ps", ps, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(f"{name}: found {count!r}; wanted an integer from {least}.")
    chief, *others = [f"{HOST}:{port}" for port in free_ports(workers + ps)]
    whole = Cluster(
        chief=(chief,), worker=tuple(others[: workers - 1]), ps=tuple(others[workers - 1 :])
    )
    views = [
        whole.at(role, index)
        for role in (Role.CHIEF, Role.WORKER, Role.PS)
        for index in range(whole.size(role))
    ]
    return (*views, whole.at(Role.EVALUATOR, 0)) if evaluator else tuple(views)


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Different ports that nobody has bound just now; all are held until the last is found."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]


class _Lines:
    """Bytes as they come → whole lines of text, of bounded length."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._begun = False  # of the line that is under way, something has been handed on

    def feed(self, data: bytes, *, final: bool = False) -> Iterator[str]:
        *whole, rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        for line in whole:
            pieces = _pieces(line)
            yield from pieces if pieces or self._begun else [""]
            self._begun = False
        *shown, rest = rest.split("\r")
        pieces = [piece for line in shown for piece in _pieces(line)]
        *early, rest = _pieces(rest) or [""]
        pieces += early
        if final and rest:
            pieces.append(rest)
        self._begun |= bool(pieces)
        self._rest = "" if final else rest
        yield from pieces


def _pieces(line: str) -> list[str]:
    """A line's pieces between '\\r', the empty ones aside, in bounded lengths."""
    return [
        piece[start : start + LINE_LIMIT]
        for piece in line.split("\r")
        for start in range(0, len(piece), LINE_LIMIT)
    ]


class _Child:
    """One process of the cluster: its guard, the socket to it, and what it prints."""

    def __init__(
        self, me: Cluster, command: Sequence[str], env: Mapping[str, str] | None, grace_s: float
    ) -> None:
        self.name = me.name
        self.status: int | None = None
        self.ended_at = math.inf
        self.lines = _Lines()
        self._said = b""
        # A Python in the C locale sets LC_CTYPE for its children. The guard takes that back where
        # the caller's environment has none.
        unset = "LC_CTYPE" if env is not None and "LC_CTYPE" not in env else ""
        words = [me.to_tf_config(), repr(float(grace_s)), unset, *command]
        self.control, theirs = socket.socketpair()
        try:
            with theirs:
                self.guard = subprocess.Popen(
                    [sys.executable, *_GUARD, *words],
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    bufsize=0,
                    env=env,
                    start_new_session=True,
                )
        except BaseException:
            self.control.close()
            raise
        assert self.guard.stdout is not None
        self.out = self.guard.stdout
        os.set_blocking(self.out.fileno(), False)
        self.control.setblocking(False)

    def order(self, number: int) -> None:
        """Have the signal sent to the command; nothing happens if it has ended."""
        with contextlib.suppress(OSError):
            self.control.send(bytes([number]))

    def read(self) -> bytes | None:
        """What is there to read; b'' at the end, None where there is nothing yet."""
        try:
            return os.read(self.out.fileno(), 1 << 16)
        except BlockingIOError:
            return None

    def listen(self) -> bool:
        """Hear the guard; False once it is gone."""
        try:
            said = self.control.recv(4096)
        except BlockingIOError:
            return True
        except ConnectionError:
            said = b""
        self._said += said
        if self.status is None and self._said.endswith(b"\n"):
            status, at = self._said.split()
            self.status, self.ended_at = int(status), float(at)
        if said:
            return True
        code = self.guard.wait()
        if self.status is None:  # the guard was killed, and on Linux its command with it
            self.status, self.ended_at = (code if code > 0 else 128 - code), time.monotonic()
        return False


class _Watch:
    """The loop: lines, ends and signals as they come, until every process has ended."""

    def __init__(
        self,
        children: Sequence[_Child],
        emit: Callable[[str], object],
        grace_s: float,
        wake: int | None,
        heard: Sequence[tuple[int, float]],
    ) -> None:
        self.children = children
        self.emit = emit
        self.grace_s = grace_s
        self.wake = wake
        self.heard = heard
        self.passed_on = 0
        self.failed = False
        self.give_up_at = math.inf

    def run(self) -> int:
        running = list(self.children)
        with selectors.DefaultSelector() as selector:
            if self.wake is not None:
                selector.register(self.wake, selectors.EVENT_READ)
            for child in running:
                selector.register(child.out, selectors.EVENT_READ, child)
                selector.register(child.control, selectors.EVENT_READ, child)
            while running:
                left = self.give_up_at - time.monotonic()
                ready = selector.select(None if math.isinf(left) else max(left, 0))
                for key, _ in ready:
                    child = key.data
                    if child is None:
                        os.read(key.fd, 4096)
                    elif key.fileobj is child.out:
                        self._print(child, selector)
                    elif not child.listen():
                        selector.unregister(child.control)
                        while self._print(child, selector):
                            pass
                        self._tell(child, child.lines.feed(b"", final=True))
                        running.remove(child)
                self._pass_signals_on(running)
                self._end_others(running)
                if time.monotonic() >= self.give_up_at:
                    self.give_up_at = math.inf
                    for child in running:
                        child.guard.kill()
        return self._status()

    def _print(self, child: _Child, selector: selectors.BaseSelector) -> bool:
        """Hand on what is there; False where there is nothing."""
        if child.out not in selector.get_map():
            return False
        data = child.read()
        if data:
            self._tell(child, child.lines.feed(data))
        elif data is not None:
            selector.unregister(child.out)
        return bool(data)

    def _tell(self, child: _Child, lines: Iterable[str]) -> None:
        for line in lines:
            self.emit(f"[{child.name}] {line}")

    def _pass_signals_on(self, running: Sequence[_Child]) -> None:
        for number, _ in self.heard[self.passed_on :]:
            self.passed_on += 1
            self._end_by()
            self.emit(f"[launch] {signal.Signals(number).name}: passed on to every process")
            for child in running:
                child.order(number)

    def _end_others(self, running: Sequence[_Child]) -> None:
        first = self._first_failure()
        if first is None or self.failed or self.heard:
            return  # who has been asked to end, and is saving perhaps, is not asked twice
        self.failed = True
        others = [child for child in running if child.status is None]
        rest = "; ending the others" if others else ""
        self.emit(f"[launch] {first.name} ended with {_words(first.status)}{rest}")
        if others:
            self._end_by()
        for child in others:
            child.order(signal.SIGTERM)

    def _end_by(self) -> None:
        """Something was asked to end. Its guard sees to that; this is for a guard that does not."""
        if math.isinf(self.give_up_at):
            self.give_up_at = time.monotonic() + self.grace_s + _PATIENCE_S

    def _first_failure(self) -> _Child | None:
        failures = [child for child in self.children if child.status]
        return min(failures, key=lambda child: child.ended_at, default=None)

    def _status(self) -> int:
        first = self._first_failure()
        if self.heard:
            number, at = self.heard[0]
            if first is not None and first.ended_at < at:
                return first.status or 0
            if any(child.ended_at > at for child in self.children):
                return 128 + number
        return 0 if first is None else first.status or 0


@contextlib.contextmanager
def _signals() -> Iterator[tuple[int | None, list[tuple[int, float]]]]:
    """Collect SIGINT and SIGTERM with their times, and a descriptor that wakes a `select`."""
    heard: list[tuple[int, float]] = []
    if threading.current_thread() is not threading.main_thread():
        yield None, heard
        return
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)

    def hear(number: int, frame: object) -> None:
        heard.append((number, time.monotonic()))
        with contextlib.suppress(BlockingIOError):
            os.write(writing, b"!")

    before = {}
    try:
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, hear)
        yield reading, heard
    finally:
        for number, handler in before.items():
            # None: set by C code, which Python cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(reading)
        os.close(writing)


def _close(children: Sequence[_Child], grace_s: float) -> None:
    """End whoever is left: a guard that loses its launcher ends its command."""
    for child in children:
        child.control.close()
    give_up_at = time.monotonic() + grace_s + _PATIENCE_S
    while left := [child for child in children if child.guard.poll() is None]:
        for child in left:
            while child.read():  # a trainer that cannot print cannot save
                pass
            if time.monotonic() >= give_up_at:
                child.guard.kill()
        time.sleep(0.02)
    for child in children:
        child.out.close()


def _checked_command(command: Sequence[str]) -> list[str]:
    if isinstance(command, str):
        raise ValueError(
            f"command: found the string {command[:40]!r}; wanted a sequence of words."
            " Put the program first and each argument in a string of its own."
        )
    words = list(command)
    if not words or not words[0]:
        raise ValueError("command: found none; wanted a program and its arguments.")
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ValueError(f"command: found {word!r:.60}; wanted strings without NUL.")
    return words


def _writer(stream: TextIO) -> Callable[[str], object]:
    def write(line: str) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write


def _words(status: int | None) -> str:
    if status is not None and status > 128:
        with contextlib.suppress(ValueError):
            return f"status {status} ({signal.Signals(status - 128).name})"
    return f"status {status}"
