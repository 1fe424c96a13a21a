"""TF_CONFIG: every form in the field is read, everything else refused in a line that teaches."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from dualflat.runtime import cluster as module
from dualflat.runtime.cluster import LIMIT, Cluster, Member, Role

read = Cluster.from_tf_config
CHECKED = settings(deadline=None, derandomize=True, database=None, max_examples=200)
REACHED = settings(CHECKED, phases=[Phase.generate])

TF2 = {
    "cluster": {"chief": ["h0:1"], "worker": ["h1:1", "h2:1"], "ps": ["h3:1", "h4:1"]},
    "task": {"type": "worker", "index": 1},
}


def config(cluster=None, task=None, **more) -> str:
    named = {"cluster": cluster, "task": task}
    return json.dumps({**{k: v for k, v in named.items() if v is not None}, **more})


def worker(*addresses, **task) -> str:
    return config({"worker": list(addresses)}, {"type": "worker", "index": 0, **task})


# ---- forms in the field -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " \n\t",
        "{}",
        '{"cluster": {}, "task": {}}',
        '{"cluster": null, "task": null}',
        '{"environment": "cloud"}',
        '{"environment": "cloud", "job": {"package_uris": []}, "task": {"trial": "7"}}',
    ],
)
def test_nothing_said_is_one_process(text):
    me = read(text)
    assert me == Cluster.alone() == Cluster()
    assert (me.is_chief, me.process_id, me.num_processes) == (True, 0, 1)
    assert me.coordinator_address is None
    assert me.members == (Member("chief 0", None),)
    assert str(me) == "chief 0, one process alone"


def test_tf2_chief_workers_ps():
    me = read(json.dumps(TF2))
    assert (me.role, me.index, me.name) == (Role.WORKER, 1, "worker 1")
    assert me.addresses == {
        Role.CHIEF: ("h0:1",),
        Role.WORKER: ("h1:1", "h2:1"),
        Role.PS: ("h3:1", "h4:1"),
        Role.EVALUATOR: (),
    }
    assert (me.process_id, me.num_processes, me.coordinator_address) == (2, 5, "h0:1")
    assert me.members == (
        ("chief 0", "h0:1"),
        ("worker 0", "h1:1"),
        ("worker 1", "h2:1"),
        ("ps 0", "h3:1"),
        ("ps 1", "h4:1"),
    )
    assert me.size(Role.PS) == 2
    assert not me.is_chief
    assert str(me) == ("worker 1, process 2 of 5 (1 chief, 2 worker, 2 ps), coordinator h0:1")


def test_every_process_has_its_own_id_and_all_agree_on_the_rest():
    whole = read(json.dumps(TF2))
    places = [(Role.CHIEF, 0), (Role.WORKER, 0), (Role.WORKER, 1), (Role.PS, 0), (Role.PS, 1)]
    views = [read(whole.to_tf_config(*place)) for place in places]
    assert [view.process_id for view in views] == [0, 1, 2, 3, 4]
    assert [view.is_chief for view in views] == [True, False, False, False, False]
    assert {view.members for view in views} == {whole.members}
    assert {view.coordinator_address for view in views} == {"h0:1"}


def test_tf1_master_is_the_chief_and_keeps_its_name():
    cluster = {"master": ["m:1"], "worker": ["w:1"], "ps": ["p:1"]}
    me = read(config(cluster, {"type": "master", "index": 0}, environment="cloud"))
    assert (me.role, me.is_chief, me.process_id) == (Role.CHIEF, True, 0)
    assert (me.name, me.members[0]) == ("master 0", ("master 0", "m:1"))
    assert json.loads(me.to_tf_config())["cluster"] == cluster
    other = read(config(cluster, {"type": "ps", "index": 0}))
    assert "1 master" in str(other)
    assert not other.is_chief


def test_worker_0_leads_where_nobody_is_called_chief():
    cluster = {"worker": ["a:1", "b:1"], "ps": ["c:1"]}
    first, second = (read(config(cluster, {"type": "worker", "index": k})) for k in (0, 1))
    assert (first.is_chief, second.is_chief) == (True, False)
    assert (first.process_id, second.process_id) == (0, 1)
    assert first.coordinator_address == "a:1"
    assert not read(config({"chief": ["z:1"], **cluster}, {"type": "worker", "index": 0})).is_chief


@pytest.mark.parametrize("listed", [False, True], ids=["unlisted", "listed"])
def test_an_evaluator_stands_beside(listed):
    cluster = {**TF2["cluster"], **({"evaluator": ["e:1"]} if listed else {})}
    me = read(config(cluster, {"type": "evaluator", "index": 0}))
    assert (me.process_id, me.is_chief, me.num_processes) == (None, False, 5)
    assert "evaluator" not in {member.name.split()[0] for member in me.members}
    assert str(me).startswith("evaluator 0, beside 5")


def test_vertex_ai_with_what_it_adds():
    text = config(
        {"chief": ["cmle-training-chief-0:2222"], "worker": ["cmle-training-worker-0:2222"]},
        {"type": "chief", "index": 0, "trial": "7", "cloud": "x"},
        environment="cloud",
        job={"job_args": ["--lr=1e-3"], "scale_tier": "CUSTOM"},
    )
    assert read(text).is_chief
    assert read(text).num_processes == 2


def test_kubeflow_hosts_and_rpc_layer():
    host = "my-job-worker-0.my_namespace.svc.cluster.local:2222"
    assert read(config({"worker": [host]}, {"type": "worker", "index": 0}, rpc_layer="grpc"))


def test_a_cluster_of_one():
    me = read(config({"chief": ["localhost:2222"]}, {"type": "chief", "index": 0}))
    assert (me.num_processes, me.process_id, me.coordinator_address) == (1, 0, "localhost:2222")


def test_numbered_addresses_and_a_quoted_index():
    cluster = {"chief": {"0": "a:1"}, "worker": {"1": "c:1", "0": "b:1"}}
    me = read(config(cluster, {"type": "worker", "index": "1"}))
    assert (me.worker, me.index) == (("b:1", "c:1"), 1)


@pytest.mark.parametrize(
    "address",
    ["[::1]:2222", "[fe80::1%eth0]:1", "127.0.0.1:65535", "HOST.example.:80", "a_b-c.d:1", "x:1"],
)
def test_addresses_that_are_fine(address):
    assert read(worker(address)).worker == (address,)


def test_a_role_that_asks_for_somebody_elses_place():
    whole = read(json.dumps(TF2))
    with pytest.raises(ValueError, match=r"task.index: found 2; wanted 0 to 1"):
        whole.to_tf_config(Role.WORKER, 2)
    with pytest.raises(ValueError, match="role that the cluster lists"):
        Cluster(role=Role.PS, worker=("a:1",))
    with pytest.raises(ValueError, match="'chief' or 'master'"):
        Cluster(chief_name="boss")


def test_a_cluster_is_a_value():
    one, two = read(json.dumps(TF2)), read(json.dumps(TF2))
    assert one == two
    assert hash(one) == hash(two)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.index = 0  # type: ignore[misc]


# ---- broken and hostile values -----------------------------------------------------------------

HOSTILE = {  # name: (text, what the message must say)
    "not JSON": ("{cluster: 1}", r"line 1, column 2: found .*JSON \(Expecting property name"),
    "cut short": ('{"cluster": {', "found the end of the text"),
    "a Python dict": ("{'cluster': {}}", "double quotes, not a Python dict"),
    "backslashes": (r"{\"cluster\": {}}", "one level of quoting"),
    "byte order mark": ("\ufeff{}", "byte order mark"),
    "two values": ("{} {}", r"column 4: found '{}'; wanted JSON \(Extra data\)"),
    "a list": ("[]", "the whole value: found an empty list; wanted an object"),
    "a number": ("3", "the whole value: found 3"),
    "null": ("null", "the whole value: found null"),
    "encoded twice": (json.dumps(json.dumps(TF2)), "encode it once"),
    "a key twice": ('{"cluster": {}, "cluster": {}}', "key 'cluster' more than once"),
    "a role twice": (
        '{"cluster": {"ps": ["a:1"], "ps": ["b:1"]}, "task": {}}',
        "key 'ps' more than once",
    ),
    "NaN": ('{"x": NaN}', "found NaN"),
    "Infinity": ('{"x": -Infinity}', "found -Infinity"),
    "an endless integer": ('{"x": ' + "9" * 5000 + "}", "an integer of 5000 characters"),
    "giant": ('{"x": "' + "a" * LIMIT + '"}', f"at most {LIMIT} bytes"),
    "giant in bytes": ('{"x": "' + "é" * (LIMIT // 2) + '"}', f"at most {LIMIT} bytes"),
    "deep lists": ("[" * 200_000, "nested too deep"),
    "deep objects": ('{"a":' * 100_000, "nested too deep"),
    "a lone surrogate": ('{"x": "\udc80"}', "character 7: .*not valid Unicode"),
    "a raw NUL": ('{"x": "\0"}', r"column 8: found '\\x00"),
    "task without cluster": (
        config(None, {"type": "worker", "index": 0}),
        "cluster: found nothing",
    ),
    "task with an empty cluster": (
        config({}, {"type": "worker", "index": 0}),
        "cluster: found an empty object",
    ),
    "cluster without task": (config({"worker": ["a:1"]}), "task: found nothing"),
    "cluster with an empty task": (config({"worker": ["a:1"]}, {}), "task.type: found nothing"),
    "cluster a list": (config(["a:1"], {"type": "worker", "index": 0}), "cluster: found a list"),
    "task a string": (config({"worker": ["a:1"]}, "worker"), "task: found 'worker'"),
    "a misspelled key": (config(None, None, Cluster={"worker": ["a:1"]}), "key 'Cluster'"),
    "tasks": (config(None, None, tasks={}), "key 'tasks'"),
    "Kubeflow's sparse cluster": (
        config(None, None, sparseCluster={"worker": {"1": "a:1"}}),
        "enableDynamicWorker",
    ),
    "unknown role": (config({"boss": ["a:1"]}, {"type": "boss", "index": 0}), "the role 'boss'"),
    "role in capitals": (
        config({"WORKER": ["a:1"]}, {"type": "WORKER", "index": 0}),
        "Did you mean 'worker'",
    ),
    "role in the plural": (config({"workers": ["a:1"]}, {"type": "x"}), "Did you mean 'worker'"),
    "parameter_server": (
        config({"parameter_server": ["a:1"]}, {"type": "x"}),
        "Did you mean 'ps'",
    ),
    "master and chief": (
        config({"master": ["a:1"], "chief": ["b:1"]}, {"type": "chief", "index": 0}),
        "both 'chief' and 'master'",
    ),
    "two chiefs": (
        config({"chief": ["a:1", "b:1"]}, {"type": "chief", "index": 0}),
        "found 2 addresses; wanted at most one chief",
    ),
    "two evaluators": (
        config({"chief": ["a:1"], "evaluator": ["b:1", "c:1"]}, {"type": "chief", "index": 0}),
        "at most one evaluator",
    ),
    "master asks a chief's place": (
        config({"chief": ["a:1"]}, {"type": "master", "index": 0}),
        "'master', while the cluster says 'chief'",
    ),
    "nobody leads": (
        config({"ps": ["a:1"]}, {"type": "ps", "index": 0}),
        "neither a chief nor a worker",
    ),
    "a role that nobody listed": (
        config({"worker": ["a:1"]}, {"type": "ps", "index": 0}),
        r"role that the cluster lists \(worker\)",
    ),
    "an unknown task type": (worker("a:1", type="boss"), "task.type: found 'boss'"),
    "a task type that is a number": (worker("a:1", type=1), "task.type: found 1"),
    "a task type that is a list": (worker("a:1", type=["worker"]), "task.type: found a list of 1"),
    "index missing": (worker("a:1", index=None), "task.index: found nothing"),
    "index negative": (worker("a:1", index=-1), "task.index: found -1"),
    "index out of range": (worker("a:1", index=1), "found 1; wanted 0 to 0"),
    "index huge": (worker("a:1", index=10**18), f"found {10**18}; wanted 0 to 0"),
    "index a boolean": (worker("a:1", index=False), "task.index: found false"),
    "index a float": (worker("a:1", index=0.0), "task.index: found 0.0"),
    "index an infinite float": (
        '{"cluster":{"ps":["a:1"]},"task":{"type":"ps","index":1e999}}',
        "inf",
    ),
    "index a word": (worker("a:1", index="first"), "the string 'first'"),
    "index a spaced string": (worker("a:1", index=" 0"), "the string ' 0'"),
    "index an Arabic digit": (worker("a:1", index="\u0660"), r"the string '\\u0660'"),
    "index a huge string": (worker("a:1", index="9" * 10_000), r"\(10000 characters\)"),
    "evaluator 1": (
        config({"chief": ["a:1"]}, {"type": "evaluator", "index": 1}),
        "at most one evaluator",
    ),
    "an address that is null": (worker(None), r"cluster.worker\[0\]: found null"),
    "an address that is a number": (worker("a:1", 2222), r"cluster.worker\[1\]: found 2222"),
    "a nested list": (worker(["a:1"]), r"cluster.worker\[0\]: found a list of 1"),
    "an address that is an object": (worker({"host": "a"}), "found an object with 1 keys"),
    "addresses in a string": (config({"worker": "a:1"}, {"type": "worker"}), "the string 'a:1'"),
    "addresses in a number": (config({"worker": 1}, {"type": "worker"}), "worker: found 1;"),
    "an empty list": (config({"worker": []}, {"type": "worker"}), "found an empty list"),
    "an empty object": (config({"worker": {}}, {"type": "worker"}), "found an empty object"),
    "a gap": (
        config({"worker": {"0": "a:1", "2": "b:1"}}, {"type": "worker", "index": 0}),
        "found no index 1 among 2",
    ),
    "a numbered word": (config({"worker": {"first": "a:1"}}, {"type": "worker"}), "key 'first'"),
    "a number with a zero": (config({"worker": {"00": "a:1"}}, {"type": "worker"}), "key '00'"),
    "no port": (worker("host"), "no port"),
    "no port after the colon": (worker("host:"), "no port"),
    "no port after IPv6": (worker("[::1]"), "no port"),
    "port 0": (worker("host:0"), "port 0"),
    "port 65536": (worker("host:65536"), "a port above 65535"),
    "port a word": (worker("host:http"), "not a port"),
    "port negative": (worker("host:-1"), "not a port"),
    "port with a sign": (worker("host:+80"), "not a port"),
    "port with a zero": (worker("host:080"), "not a port"),
    "port endless": (worker("host:" + "1" * 10_000), "not a port"),
    "no host": (worker(":2222"), "no host"),
    "nothing": (worker(""), "empty"),
    "a space": (worker("ho st:1"), "white space"),
    "a line break": (worker("host:1\n"), r"'host:1\\n' \(white space or a control character\)"),
    "an escape sequence": (worker("\x1b[31mhost:1"), r"\\x1b\[31m"),
    "an encoded NUL": (worker("host\0:1"), r"\\x00"),
    "a scheme": (worker("http://host:1"), "a URL"),
    "a path": (worker("host:1/x"), "a path"),
    "user information": (worker("me@host:1"), "user information"),
    "two addresses in one": (worker("a:1,b:1"), "a comma"),
    "bare IPv6": (worker("::1:2222"), "brackets"),
    "two ports": (worker("host:1:2"), "more than one colon"),
    "an open bracket": (worker("[::1:1"), "no closing bracket"),
    "a name in brackets": (worker("[host]:1"), "not an IPv6 address"),
    "a bad zone": (worker("[fe80::1%e;0]:1"), "not an IPv6 address"),
    "rubbish after a bracket": (worker("[::1]x:1"), "between"),
    "IPv4 out of range": (worker("256.1.1.1:1"), "not a host name"),
    "IPv4 too short": (worker("10.1:1"), "not a host name"),
    "every interface": (worker("0.0.0.0:1"), "every interface"),
    "every IPv6 interface": (worker("[::]:1"), "every interface"),
    "an empty label": (worker("a..b:1"), "not a host name"),
    "a dash in front": (worker("-rf:1"), "not a host name"),
    "a shell's words": (worker("$(id):1"), "not a host name"),
    "a name too long": (worker("a" * 64 + ":1"), "not a host name"),
    "names too long": (worker("a." * 130 + "a:1"), "not a host name"),
    "not ASCII": (worker("hôst:1"), "not ASCII"),
    "an encoded surrogate": (worker("\ud800:1"), r"\\ud800"),
    "a role of control characters": (
        config({"\x1b[2J\n": ["a:1"]}, {"type": "worker"}),
        r"\\x1b\[2J\\n",
    ),
    "an address twice": (worker("a:1", "a:1"), r"which is also cluster.worker\[0\]"),
    "an address in two roles": (
        config({"chief": ["a:1"], "ps": ["A.:1"]}, {"type": "chief", "index": 0}),
        r"cluster.ps\[0\]: found 'A.:1', which is also cluster.chief\[0\]",
    ),
    "IPv6 twice": (worker("[::1]:1", "[0:0::1]:1"), "which is also"),
}


def assert_one_bounded_line(message: str) -> None:
    assert message.startswith("TF_CONFIG, ")
    assert message.isprintable(), ascii(message)
    assert len(message) <= 420, len(message)
    assert "; wanted " in message  # and then what to do:
    assert message.rpartition("; wanted ")[2].count(". ") >= 1
    assert message[-1] in ".?"


@pytest.mark.parametrize(("text", "says"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_broken_value_gets_an_error_of_its_own(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        read(text)
    assert type(caught.value) is ValueError  # no JSONDecodeError, no UnicodeError
    assert_one_bounded_line(str(caught.value))


def test_the_errors_are_many_and_distinct():
    messages = set()
    for text, _ in HOSTILE.values():
        with pytest.raises(ValueError) as caught:
            read(text)
        messages.add(str(caught.value))
    assert len(HOSTILE) >= 100
    assert len(messages) >= len(HOSTILE) - 2  # two giants and two depths are alike


def test_what_is_hostile_is_the_change_alone():
    """The negative control: the same texts without their fault are read."""
    assert read(worker("a:1", "b:1")).num_processes == 2
    assert read(config({"worker": {"0": "a:1", "1": "b:1"}}, {"type": "worker", "index": 0}))
    assert read('{"x": "' + "a" * (LIMIT - 20) + '"}') == Cluster.alone()
    assert read('{"x": ' + "[" * 50 + "]" * 50 + "}") == Cluster.alone()
    assert read('{"x": 99999999999999999999}') == Cluster.alone()
    assert read(json.dumps({"x": "\x1b\0é\ud800"})) == Cluster.alone()
    assert read(worker("a." * 126 + "a:1"))


# ---- any text ----------------------------------------------------------------------------------

ADDRESS = st.one_of(
    st.builds(
        "{}:{}".format,
        st.sampled_from(["a", "b.c", "10.0.0.1", "[::1]", "[fe80::2%en0]", "x-y_z.svc."]),
        st.integers(1, 65535),
    ),
    st.text(max_size=12),
)
SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 4), st.floats(), st.text(max_size=8), ADDRESS
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["0", "1", "2", "worker", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)
LISTED = st.one_of(st.lists(ADDRESS, max_size=3), VALUE)
ROLE = st.sampled_from(["chief", "master", "worker", "ps", "evaluator", "Worker", "job"])
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "cluster": st.one_of(st.dictionaries(ROLE, LISTED, max_size=4), VALUE),
        "task": st.one_of(
            st.fixed_dictionaries({"type": ROLE, "index": st.one_of(st.integers(-1, 3), SCALAR)}),
            VALUE,
        ),
        "environment": VALUE,
    },
)


@st.composite
def damaged(draw):
    """A valid text with a piece cut out, doubled or replaced."""
    text = json.dumps(draw(st.one_of(st.just(TF2), DOCUMENT)))
    low, high = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    piece = draw(st.one_of(st.just(""), st.just(text[low:high] * 2), st.text(max_size=4)))
    return text[:low] + piece + text[high:]


ANY_TEXT = st.one_of(
    st.text(alphabet=st.characters(exclude_categories=())),  # surrogates too
    st.text(alphabet='{}[]":,0123456789.eE-+ntfrulasc\\ '),
    DOCUMENT.map(json.dumps),
    damaged(),
)


def attempt(text):
    try:
        return read(text), None
    except ValueError as error:
        return None, error


@CHECKED
@given(ANY_TEXT)
def test_any_text_is_a_cluster_or_a_value_error(text):
    me, error = attempt(text)
    if me is None:
        assert type(error) is ValueError
        assert_one_bounded_line(str(error))
    else:
        assert read(me.to_tf_config()) == me
        assert str(me).isprintable()


def test_the_fuzz_reaches_both_sides():
    """The negative control: the strategy draws texts that are read, clusters among them."""
    find(ANY_TEXT, lambda text: attempt(text)[0] is None, settings=REACHED)
    find(ANY_TEXT, lambda text: (attempt(text)[0] or Cluster()).num_processes > 1, settings=REACHED)


@st.composite
def clusters(draw):
    hosts = st.sampled_from(["localhost", "a.b", "10.0.0.7", "[::1]", "w_0.ns.svc"])
    counts = draw(st.tuples(*[st.integers(0, most) for most in (1, 3, 3, 1)]))
    ports = draw(
        st.lists(st.integers(1, 65535), min_size=sum(counts), max_size=sum(counts), unique=True)
    )
    taken = iter([f"{draw(hosts)}:{port}" for port in ports])
    chief, worker, ps, evaluator = (tuple(next(taken) for _ in range(n)) for n in counts)
    if not chief and not worker:
        return Cluster.alone()
    listed = {Role.CHIEF: chief, Role.WORKER: worker, Role.PS: ps, Role.EVALUATOR: (0,)}
    role = draw(st.sampled_from([role for role, found in listed.items() if found]))
    index = draw(st.integers(0, len(listed[role]) - 1))
    name = draw(st.sampled_from(["chief", "master"])) if chief else "chief"
    return Cluster(role, index, chief, worker, ps, evaluator, name)


@CHECKED
@given(clusters())
def test_reading_what_was_written_is_the_identity(me):
    assert read(me.to_tf_config()) == me
    assert me.process_id is None or me.members[me.process_id].name == me.name
    assert me.is_chief == (me.process_id == 0)
    assert me.num_processes == len(me.members) == max(1, sum(map(me.size, list(Role)[:3])))


# ---- the module itself -------------------------------------------------------------------------


def test_it_imports_the_standard_library_alone():
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_importing_it_and_the_launcher_imports_no_jax():
    """What the street door opens with is quick. The package's own front door is left out here."""
    root = Path(module.__file__).parents[1]
    code = (
        "import sys, types\n"
        "package = sys.modules['dualflat'] = types.ModuleType('dualflat')\n"
        f"package.__path__ = [{str(root)!r}]\n"
        "import dualflat.runtime.cluster, dualflat.runtime.local_cluster\n"
        "print([m for m in ('jax', 'numpy', 'orbax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
