"""Local clusters of real processes: tags, ends, signals, and that nothing is left behind.

The children are small programs without jax. Every program of a test lies in, and is named after,
the test's own folder; a fixture looks for processes that mention it when the test is over.
"""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dualflat.runtime import local_cluster
from dualflat.runtime.cluster import Cluster
from dualflat.runtime.local_cluster import LINE_LIMIT, _Lines, free_ports, local_clusters, run_local

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="local clusters need POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl and /proc")
ROOT = Path(local_cluster.__file__).parents[2]
PYTHON = [sys.executable, "-I", "-S"]

PRELUDE = """
import json, os, signal, subprocess, sys, time
place = json.loads(os.environ["TF_CONFIG"])["task"]
me = f"{place['type']} {place['index']}"
folder = os.path.dirname(os.path.abspath(__file__))
def mark(name):
    open(os.path.join(folder, name.replace(" ", "_")), "x").close()
def wait_for(name):
    while not os.path.exists(os.path.join(folder, name.replace(" ", "_"))):
        time.sleep(0.01)
def say(*words):
    # One write, which a signal's handler may interrupt and repeat; print may not be re-entered.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def rest():
    # Python runs a handler between bytecodes: of a signal that comes just before a sleep begins,
    # only when the sleep is over.
    while True:
        time.sleep(0.05)
"""


def mentioning(folder: Path) -> dict[int, str]:
    """Living processes with the folder in their command line."""
    found = {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit() and int(each.name) != os.getpid():
            try:
                words = (each / "cmdline").read_bytes()
                state = (each / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if os.fsencode(folder) in words and state != "Z":
                found[int(each.name)] = words.replace(b"\0", b" ").decode(errors="replace")
    return found


def gone(folder: Path, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while mentioning(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def program(tmp_path):
    """Write a program; after the test, no process may mention the test's folder."""

    def write(source: str, name: str = "child.py") -> list[str]:
        path = tmp_path / name
        path.write_text(PRELUDE + textwrap.dedent(source), encoding="utf-8")
        return [*PYTHON, str(path)]

    yield write
    if sys.platform.startswith("linux"):
        left = mentioning(tmp_path)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left


def launch(command, *, workers=1, ps=0, evaluator=False, grace_s=10.0, **more):
    """The status and the lines."""
    lines: list[str] = []
    status = run_local(
        command,
        workers=workers,
        ps=ps,
        evaluator=evaluator,
        grace_s=grace_s,
        **{"output": lines.append, **more},
    )
    return status, lines


def wait_until(condition, within_s=20.0):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# ---- who is started ----------------------------------------------------------------------------


def test_every_process_reads_its_own_place_in_one_cluster(program):
    status, lines = launch(program("say(os.environ['TF_CONFIG'])"), workers=3, ps=1, evaluator=True)
    assert status == 0
    said = dict(line[1:].split("] ", 1) for line in lines)
    assert sorted(said) == ["chief 0", "evaluator 0", "ps 0", "worker 0", "worker 1"]
    views = {name: Cluster.from_tf_config(text) for name, text in said.items()}
    assert {name: view.name for name, view in views.items()} == {name: name for name in said}
    assert {view.members for view in views.values()} == {views["ps 0"].members}
    assert [views[name].process_id for name in ("chief 0", "worker 1", "ps 0")] == [0, 2, 3]
    assert views["evaluator 0"].process_id is None
    assert all(address.startswith("127.0.0.1:") for _, address in views["ps 0"].members)


def test_local_clusters_and_ports():
    views = local_clusters(2, 1)
    assert [view.name for view in views] == ["chief 0", "worker 0", "ps 0"]
    assert [view.name for view in local_clusters(1)] == ["chief 0"]
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert all(0 < port < 65536 for port in ports)


def test_the_environment_is_handed_on_but_for_tf_config(program):
    command = program("say(json.dumps(dict(os.environ)))")
    env = {"PATH": os.defpath, "ONLY": "this", "TF_CONFIG": "an older one", "LC_ALL": "C"}
    status, [line] = launch(command, env=env)
    assert status == 0
    found = json.loads(line.removeprefix("[chief 0] "))
    found.pop("LC_CTYPE", None)  # the child is a Python, which adds it for itself
    assert Cluster.from_tf_config(found.pop("TF_CONFIG")).num_processes == 1
    assert found == {"PATH": os.defpath, "ONLY": "this", "LC_ALL": "C"}


def test_the_environment_of_a_program_that_is_no_python():
    status, lines = launch(["/usr/bin/env"], env={"PATH": os.defpath, "ONLY": "this"})
    assert status == 0
    names = {line.removeprefix("[chief 0] ").partition("=")[0] for line in lines}
    assert names == {"PATH", "ONLY", "TF_CONFIG"}


def test_this_processs_environment_by_default(program, monkeypatch):
    monkeypatch.setenv("DUALFLAT_TEST", "é or not")
    _, lines = launch(program("say(ascii(os.environ.get('DUALFLAT_TEST')))"))
    assert lines == [r"[chief 0] '\xe9 or not'"]


def test_standard_input_is_at_its_end_and_no_terminal(program):
    source = """
    say(repr(sys.stdin.read()), os.isatty(1), os.getsid(0) == os.getpid())
    say(sorted(signal.getsignal(s) == signal.SIG_IGN for s in (signal.SIGTERM, signal.SIGINT)))
    say(signal.pthread_sigmask(signal.SIG_BLOCK, []), os.listdir("/dev/fd").__len__() <= 4)
    """
    status, lines = launch(program(source))
    assert status == 0
    assert lines == ["[chief 0] '' False True", "[chief 0] [False, False]", "[chief 0] set() True"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workers": 0}, "workers: found 0; wanted an integer from 1"),
        ({"workers": True}, "workers: found True"),
        ({"workers": 1.0}, "workers: found 1.0"),
        ({"ps": -1}, "ps: found -1; wanted an integer from 0"),
        ({"grace_s": -1.0}, "grace_s: found -1.0"),
        ({"grace_s": float("nan")}, "grace_s: found nan"),
        ({"grace_s": float("inf")}, "grace_s: found inf"),
        ({"command": []}, "command: found none"),
        ({"command": [""]}, "command: found none"),
        ({"command": "python x.py"}, "command: found the string 'python x.py'"),
        ({"command": ["a", "b\0"]}, "without NUL"),
        ({"command": ["a", 1]}, "wanted strings"),
    ],
)
def test_arguments_that_make_no_cluster(change, says):
    lines: list[str] = []
    words = {"command": ["true"], "workers": 1, "output": lines.append, **change}
    with pytest.raises(ValueError, match=says):
        run_local(words.pop("command"), **words)
    assert lines == []


@pytest.mark.parametrize(
    ("word", "status", "says"),
    [("no-such-program-here", 127, "No such file"), ("/", 126, "Permission denied")],
)
def test_a_program_that_cannot_be_started(word, status, says):
    found, lines = launch([word])
    assert found == status
    assert lines[0].startswith(f"[chief 0] cannot start '{word}': {says}")
    assert lines[1] == f"[launch] chief 0 ended with status {status}"


# ---- lines -------------------------------------------------------------------------------------


def test_lines_of_many_processes_stay_whole(program):
    source = """
    for k in range(200):
        for piece in (f"{k} ", me, " x" * 50, "\\n"):
            sys.stdout.write(piece); sys.stdout.flush()
    sys.stderr.write("and no end")
    """
    status, lines = launch(program(source), workers=3)
    assert status == 0
    for name in ("chief 0", "worker 0", "worker 1"):
        mine = [line for line in lines if line.startswith(f"[{name}] ")]
        wanted = [f"[{name}] {k} {name}{' x' * 50}" for k in range(200)]
        assert mine == [*wanted, f"[{name}] and no end"]
    assert len(lines) == 3 * 201


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\ntwo\n"], ["one", "two"]),
        ([b"o", b"ne\n", b"\n", b"end"], ["one", "", "end"]),
        ([b"dos\r\n", b"split\r", b"\nnext\n"], ["dos", "split", "next"]),
        ([b"\r 10%\r 20%", b"\r 30%\n"], [" 10%", " 20%", " 30%"]),
        ([b" 10%\r", b" 20%\r"], [" 10%", " 20%"]),
        ([b"a\r\r\nb\r"], ["a", "b"]),
        ([b"a\r\n\r\n\rb\n\n"], ["a", "", "b", ""]),
        ([b"\xe2\x82", b"\xac\n"], ["€"]),
        ([b"\xff\xfe ok\n", b"\xe2\x82"], ["\ufffd\ufffd ok", "\ufffd"]),
        ([b"a\0b\x1b[1m\n"], ["a\0b\x1b[1m"]),
        ([], []),
        ([b"\n"], [""]),
        ([b"\r"], []),
    ],
)
def test_bytes_become_lines(pieces, lines):
    for cut in (pieces, [bytes([b]) for piece in pieces for b in piece]):  # whole, and bytewise
        buffer = _Lines()
        found = [line for piece in cut for line in buffer.feed(piece)]
        assert [*found, *buffer.feed(b"", final=True)] == lines


@pytest.mark.parametrize("length", [LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 5 * LINE_LIMIT + 7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("step", [1000, LINE_LIMIT, 1 << 17])
def test_a_long_line_is_cut_and_none_of_it_lost(length, end, step):
    text = "".join(chr(ord("a") + k % 26) for k in range(length))
    data, buffer, found = text.encode() + end, _Lines(), []
    for start in range(0, len(data), step):
        found += buffer.feed(data[start : start + step])
        assert len(buffer._rest) <= LINE_LIMIT  # bounded, whatever comes
    found += buffer.feed(b"", final=True)
    assert "".join(found) == text
    assert len(found) == -(-length // LINE_LIMIT)
    assert max(map(len, found)) <= LINE_LIMIT


def test_a_flood_without_a_line_end_arrives(program):
    status, lines = launch(program("os.write(1, b'x' * 3_000_000) and None"), workers=1)
    assert status == 0
    assert sum(len(line.removeprefix("[chief 0] ")) for line in lines) == 3_000_000


def test_a_text_stream_will_do(program):
    stream = io.StringIO()
    assert launch(program("say('hello')"), output=stream)[0] == 0
    assert stream.getvalue() == "[chief 0] hello\n"


def test_what_the_output_raises_ends_everyone(program, tmp_path):
    def refuse(line):
        raise BrokenPipeError("the reader left")

    started = time.monotonic()
    with pytest.raises(BrokenPipeError, match="the reader left"):
        launch(program("say('hello'); time.sleep(60)"), workers=2, output=refuse)
    assert time.monotonic() - started < 20
    assert not mentioning(tmp_path)


# ---- ends --------------------------------------------------------------------------------------

GRANDCHILD = """
import os, signal, sys, time
path, daemon, deaf = sys.argv[1], *map(int, sys.argv[2:])
if deaf:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if daemon:
    os.setsid()
    if os.fork():
        os._exit(0)
open(path, "x").close()
time.sleep(60)
"""


def test_one_that_fails_ends_the_others_and_names_itself(program):
    source = """
    def saved(*_):
        say("saved"); time.sleep(0.05); sys.exit(143)
    signal.signal(signal.SIGTERM, saved)
    mark(me)
    if me == "worker 0":
        for each in ("chief 0", "ps 0"):
            wait_for(each)
        sys.exit(7)
    rest()
    """
    status, lines = launch(program(source), workers=2, ps=1)
    assert status == 7
    assert lines[0] == "[launch] worker 0 ended with status 7; ending the others"
    assert sorted(lines[1:]) == ["[chief 0] saved", "[ps 0] saved"]


@linux
def test_the_first_failure_counts_not_the_first_guard_to_be_gone(program, tmp_path):
    """The ps fails first, but what it leaves behind keeps its guard busy; the chief is deaf."""
    (tmp_path / "grandchild.py").write_text(GRANDCHILD, encoding="utf-8")
    source = """
    if me == "ps 0":
        words = [sys.executable, "-I", "-S", os.path.join(folder, "grandchild.py")]
        subprocess.Popen([*words, os.path.join(folder, "up"), "0", "1"])
        wait_for("up"); wait_for("ready"); sys.exit(5)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark("ready")
    time.sleep(0.3)
    sys.exit(9)
    """
    status, lines = launch(program(source), workers=1, ps=1, grace_s=1.0)
    assert status == 5
    assert lines[0] == "[launch] ps 0 ended with status 5; ending the others"


def test_a_death_by_signal_is_128_and_the_signal(program):
    status, lines = launch(program("os.kill(os.getpid(), signal.SIGSEGV)"))
    assert status == 128 + signal.SIGSEGV
    assert lines == ["[launch] chief 0 ended with status 139 (SIGSEGV)"]


def test_all_well_waits_for_the_slowest(program):
    source = "time.sleep(0.3 if me == 'worker 0' else 0); say('done')"
    assert launch(program(source), workers=2) == (0, ["[chief 0] done", "[worker 0] done"])


@linux
def test_one_that_ignores_sigterm_is_killed_after_the_grace(program):
    source = """
    if me == "chief 0":
        wait_for("deaf"); sys.exit(3)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark("deaf"); time.sleep(60)
    """
    started = time.monotonic()
    status, lines = launch(program(source), workers=2, grace_s=0.5)
    assert 0.5 <= time.monotonic() - started < 15
    assert status == 3
    assert "[worker 0] still running 0.5 s after it was to end: killed" in lines


@linux
@pytest.mark.parametrize("deaf", [0, 1], ids=["mild", "deaf"])
@pytest.mark.parametrize("end", ["pass", "sys.exit(4)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_grandchildren_end_too_even_daemons(program, tmp_path, end, deaf):
    """One stays in the process group; one forks, starts a session and is nobody's child."""
    (tmp_path / "grandchild.py").write_text(GRANDCHILD, encoding="utf-8")
    source = f"""
    for daemon in (0, 1):
        words = [sys.executable, "-I", "-S", os.path.join(folder, "grandchild.py")]
        path = os.path.join(folder, f"up{{daemon}}")
        subprocess.Popen([*words, path, str(daemon), "{deaf}"])
        wait_for(f"up{{daemon}}")
    {end}
    """
    started = time.monotonic()
    status, _ = launch(program(source), grace_s=0.4)
    assert status == {"pass": 0, "sys.exit(4)": 4}.get(end, 137)
    assert (time.monotonic() - started >= 0.4) or not deaf
    assert (tmp_path / "up1").exists()
    assert not mentioning(tmp_path)


@linux
def test_a_command_dies_with_its_guard(program, tmp_path):
    source = """
    if me == "worker 0":
        wait_for("ready"); os.kill(os.getppid(), signal.SIGKILL)
    else:
        mark("ready")
    time.sleep(60)
    """
    status, lines = launch(program(source), workers=2)
    assert status == 137
    assert lines == ["[launch] worker 0 ended with status 137 (SIGKILL); ending the others"]
    assert gone(tmp_path, 5.0)


def test_a_signal_to_the_guard_is_for_its_command(program):
    source = """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(21))
    os.kill(os.getppid(), signal.SIGTERM)
    rest()
    """
    assert launch(program(source))[0] == 21


@linux  # where what the fallback does not reach can be found and ended
def test_without_prctl_the_process_group_ends(program, tmp_path, monkeypatch):
    """The guard elsewhere than on Linux: what leaves the group stays, all else as ever."""
    code = (
        "import runpy, sys\n"
        "del sys.argv[0]\n"
        "sys.platform = 'elsewhere'\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    monkeypatch.setattr(local_cluster, "_GUARD", ("-I", "-S", "-c", code, local_cluster._GUARD[-1]))
    (tmp_path / "grandchild.py").write_text(GRANDCHILD, encoding="utf-8")
    source = """
    for daemon in (0, 1):
        words = [sys.executable, "-I", "-S", os.path.join(folder, "grandchild.py")]
        path = os.path.join(folder, f"up{daemon}")
        subprocess.Popen([*words, path, str(daemon), "0"])
        wait_for(f"up{daemon}")
    sys.exit(4)
    """
    status, _ = launch(program(source), grace_s=1.0)
    assert status == 4
    left = mentioning(tmp_path)
    assert [str(tmp_path / "up1") in words for words in left.values()] == [True]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert gone(tmp_path, 5.0)


# ---- signals -----------------------------------------------------------------------------------

LAUNCHER = """
import sys, types
package = sys.modules["dualflat"] = types.ModuleType("dualflat")  # without its front door: quick
package.__path__ = [{package!r}]
from dualflat.runtime.local_cluster import run_local
command = [sys.executable, "-I", "-S", sys.argv[1]]
sys.exit(run_local(command, workers=2, ps=1, output=sys.stdout, grace_s={grace_s}))
"""


@pytest.fixture
def launcher(tmp_path):
    """A launcher that is a process of its own, as a user's is."""
    started = []

    def start(command: list[str], grace_s: float = 5.0, **more) -> subprocess.Popen:
        path = tmp_path / "launcher.py"
        source = LAUNCHER.format(package=str(ROOT / "dualflat"), grace_s=grace_s)
        path.write_text(source, encoding="utf-8")
        words = [sys.executable, str(path), command[-1]]
        started.append(
            subprocess.Popen(words, stdout=subprocess.PIPE, text=True, bufsize=1, **more)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def until_ready(process: subprocess.Popen, count: int = 3) -> None:
    for _ in range(count):
        assert process.stdout.readline().endswith("ready\n")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_signals_are_passed_on(program, launcher, number, status):
    source = """
    def ended(number, frame):
        say("got", signal.Signals(number).name); time.sleep(0.1); say("saved"); sys.exit(0)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ended)
    say("ready")
    rest()
    """
    process = launcher(program(source))
    until_ready(process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == status  # though every command ended well
    name = signal.Signals(number).name
    first, *lines = said.splitlines()
    assert first == f"[launch] {name}: passed on to every process"
    wanted = [
        f"[{me}] {text}"
        for me in ("chief 0", "worker 0", "ps 0")
        for text in (f"got {name}", "saved")
    ]
    assert sorted(lines) == sorted(wanted)  # once each: who is saving is not asked twice


@linux
def test_a_signal_to_the_deaf_ends_in_sigkill(program, launcher):
    source = "signal.signal(signal.SIGINT, signal.SIG_IGN); say('ready'); time.sleep(60)"
    process = launcher(program(source), grace_s=0.3)
    until_ready(process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.count("still running 0.3 s after it was to end: killed") == 3


def test_a_failure_before_the_signal_is_the_answer(program, launcher):
    source = """
    signal.signal(signal.SIGTERM, lambda *_: say("ready"))
    if me == "ps 0":
        sys.exit(6)
    rest()
    """
    process = launcher(program(source), grace_s=0.5)
    while "ending the others" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 6


def test_an_ignored_signal_stays_ignored(program, launcher):
    source = """
    say("ready")
    wait_for("go")
    say(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
    """
    command = program(source)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background job
    try:
        process = launcher(command)
    finally:
        signal.signal(signal.SIGINT, before)
    until_ready(process)
    process.send_signal(signal.SIGINT)
    Path(command[-1]).with_name("go").touch()
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert sorted(said.splitlines()) == [f"[{me}] True" for me in ("chief 0", "ps 0", "worker 0")]


@linux
@pytest.mark.parametrize("kind", ["mild", "deaf"])
def test_a_launcher_killed_with_sigkill_leaves_no_orphan(program, launcher, tmp_path, kind):
    deaf = "" if kind == "mild" else "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    source = f"""
    {deaf}
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", folder])
    say("ready")
    time.sleep(60)
    """
    process = launcher(program(source), grace_s=0.5)
    until_ready(process)
    # The launcher; for each of three places guard, command and its own child. A process just
    # started is seen by its command line only once the kernel has laid it out.
    wait_until(lambda: len(mentioning(tmp_path)) >= 1 + 3 * 3)
    assert len(mentioning(tmp_path)) == 1 + 3 * 3
    process.kill()
    process.wait()
    assert gone(tmp_path, 10.0), mentioning(tmp_path)


@linux
def test_a_launcher_killed_while_it_starts_leaves_no_orphan(program, launcher, tmp_path):
    command = program("time.sleep(60)")
    for delay in (0.05, 0.1, 0.15, 0.2):
        process = launcher(command, grace_s=0.2)
        time.sleep(delay)
        process.kill()
        process.wait()
    assert gone(tmp_path, 10.0), mentioning(tmp_path)


def test_outside_the_main_thread_and_handlers_are_put_back(program):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    command = program("say(me)")
    found = []
    thread = threading.Thread(target=lambda: found.append(launch(command)))
    thread.start()
    thread.join(30)
    assert found == [(0, ["[chief 0] chief 0"])]
    assert launch(command)[0] == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@linux
def test_the_orphan_watch_sees_an_orphan(tmp_path):
    """The negative control of every assertion about orphans here."""
    words = [*PYTHON, "-c", "import time; time.sleep(60)", str(tmp_path)]
    with subprocess.Popen(words) as process:
        wait_until(lambda: process.pid in mentioning(tmp_path))
        assert not gone(tmp_path, 0.1)
        process.kill()
    assert gone(tmp_path, 5.0)
