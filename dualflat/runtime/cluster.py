"""Who takes part in a job: the text of TF_CONFIG read into a value, strictly.

TF_CONFIG is the launch contract of TensorFlow, Kubeflow and Vertex AI: a JSON object that names
every process of the job (`cluster`) and says which of them this one is (`task`). This module turns
that text into a `Cluster` and back. It touches no device, no socket and no environment, and
imports nothing but the standard library, so that a command may ask it before anything is started.
"""

import dataclasses
import enum
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

LIMIT = 1 << 20  # bytes of text; ten thousand addresses fit, a bomb does not
_SHOWN = 72  # characters of a found value that a message repeats
_JSON_SPACE = " \t\r\n"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_ZONE = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_ADDRESS = "'host:port' or '[IPv6]:port' with a port from 1 to 65535"
_ROLES = "one of chief (or master), worker, ps, evaluator"


class Role(enum.StrEnum):
    """What a process is there for. TensorFlow 1's `master` is a spelling of `chief`."""

    CHIEF = "chief"
    WORKER = "worker"
    PS = "ps"
    EVALUATOR = "evaluator"


_SPELLINGS = {**{str(role): role for role in Role}, "master": Role.CHIEF}
_MESH = (Role.CHIEF, Role.WORKER, Role.PS)  # who joins the one mesh, in the order of process ids


class Member(NamedTuple):
    """One process of the mesh: 'worker 1' and 'host:port'; no address where it is alone."""

    name: str
    address: str | None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Every process of a job by its address, and which of them this one is.

    In the synchronous mode every chief, worker *and* ps process joins the one mesh: a ps task
    lends its devices and computes like the others. Their process ids count the chief first, then
    the workers, then the ps tasks, and process 0 hosts the coordinator. An evaluator stands beside
    the job: it never joins, and by TensorFlow's habit is usually missing from the list.

    A value that breaks a rule of the job cannot be made: the constructor checks what
    `from_tf_config` checks, in the same words.

    Attributes:
      role, index: this process.
      chief, worker, ps, evaluator: addresses, 'host:port', by index. All empty: one process alone.
      chief_name: how the chief is spelled, 'chief' or 'master'.

    Raises:
      ValueError: naming the place, what was found, what was wanted and what to do.
    """

    role: Role = Role.CHIEF
    index: int = 0
    chief: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    ps: tuple[str, ...] = ()
    evaluator: tuple[str, ...] = ()
    chief_name: str = "chief"

    def __post_init__(self) -> None:
        if self.chief_name not in ("chief", "master"):
            raise _bad("chief_name", _shown(self.chief_name), "'chief' or 'master'", "Use 'chief'.")
        seen: dict[tuple[str, int], str] = {}
        for role, addresses in self.addresses.items():
            for index, address in enumerate(addresses):
                where = f"cluster.{self.spelled(role)}[{index}]"
                place = _place(where, address)
                if place in seen:
                    raise _bad(
                        where,
                        f"{_shown(address)}, which is also {seen[place]}",
                        "an address of its own for every process",
                        "Give one of the two another port.",
                    )
                seen[place] = where
        self._check_counts()
        self._check_task()

    def _check_counts(self) -> None:
        for role in (Role.CHIEF, Role.EVALUATOR):
            name, count = self.spelled(role), self.size(role)
            if count > 1:
                raise _bad(
                    f"cluster.{name}",
                    f"{count} addresses",
                    f"at most one {name}",
                    "List the others under 'worker'.",
                )
        if not (self.chief or self.worker) and (self.ps or self.evaluator):
            raise _bad(
                "cluster",
                "neither a chief nor a worker",
                "at least one process that leads the training",
                "Add a 'chief' (or 'master') or a 'worker' with its address.",
            )

    def _check_task(self) -> None:
        name, index = self.spelled(self.role), self.index
        _check_index("task.index", index)
        count = self.size(self.role)
        if self.role is Role.EVALUATOR:
            if index > 0:
                raise _bad(
                    "task.index",
                    f"{index} for an evaluator",
                    "0: a job has at most one evaluator",
                    "Set task.index to 0, or give this process another role.",
                )
            if not (self.chief or self.worker):
                raise _bad(
                    "task.type",
                    "'evaluator' in a job of one process",
                    "a cluster for the evaluator to stand beside",
                    "Add the cluster, or leave TF_CONFIG empty to train in one process.",
                )
        elif not (self.chief or self.worker):  # alone: nothing to be but the chief
            if (self.role, index) != (Role.CHIEF, 0):
                raise _bad(
                    "task",
                    f"{name} {index} without a cluster",
                    "the addresses of the job's processes beside it",
                    "Add 'cluster', or leave TF_CONFIG empty to train in one process.",
                )
        elif count == 0:
            raise _bad(
                "task.type",
                f"'{name}'",
                f"a role that the cluster lists ({', '.join(self._listed())})",
                f"Add '{name}' to the cluster, or correct task.type.",
            )
        elif index >= count:
            raise _bad(
                "task.index",
                f"{index}",
                f"0 to {count - 1}: the cluster lists {count} under '{name}'",
                "Correct the index, or add the missing address.",
            )

    @classmethod
    def alone(cls) -> "Cluster":
        """One process, which is its own chief."""
        return cls()

    @classmethod
    def from_tf_config(cls, text: str | None) -> "Cluster":
        """Read the text of TF_CONFIG.

        Understood: TensorFlow 1 (`master`), TensorFlow 2, Kubeflow and Vertex AI (`chief`,
        `worker`, `ps`, `evaluator`); keys of theirs that say nothing about membership
        (`environment`, `job`, `trial`, `cloud`, `rpc_layer`, …), which are passed over; addresses
        as a list, or numbered as in {"0": "host:port"}; an index written as "0"; an evaluator that
        the cluster does not list. None, nothing but white space, `{}`, and an object that names
        neither a cluster nor a task's role mean one process alone.

        Numbered addresses must count from 0 without a gap. TensorFlow allows gaps, for processes
        that are shown a part of the cluster only; one mesh needs all to see the same whole.

        Raises:
          ValueError: on anything else, in one line of bounded length that names the place, what
            was found, what was wanted and what to do, and repeats no control character.
        """
        if text is None or not text.strip(_JSON_SPACE):
            return cls.alone()
        document = _parse(text)
        _check_top(document)
        cluster, task = document.get("cluster"), document.get("task")
        if _says_nothing(cluster) and _says_nothing(task, "type", "index"):
            return cls.alone()
        if cluster is None:
            raise _bad(
                "cluster",
                "nothing, though a task is given",
                "the addresses of the job's processes",
                'Add "cluster": {"chief": ["host:port"], …}, or leave TF_CONFIG empty to train in'
                " one process.",
            )
        if not isinstance(cluster, dict) or not cluster:
            raise _bad(
                "cluster",
                _shown(cluster),
                "an object from role to addresses",
                'Write {"chief": ["host:port"], "worker": […]}.',
            )
        if task is None:
            raise _bad(
                "task",
                "nothing, though a cluster is given",
                "which of its processes this one is",
                'Add "task": {"type": "worker", "index": 0}.',
            )
        if not isinstance(task, dict):
            raise _bad("task", _shown(task), "an object", 'Write {"type": "worker", "index": 0}.')
        if "chief" in cluster and "master" in cluster:
            raise _bad(
                "cluster",
                "both 'chief' and 'master'",
                "one of them: they are two names of the same role",
                "Keep one, and list the other process under 'worker'.",
            )
        addresses = {_role(key): _addresses(key, value) for key, value in cluster.items()}
        role, index, name = _task(task)
        chief_name = "master" if "master" in cluster else "chief"
        if role is Role.CHIEF and addresses.get(role) and name != chief_name:
            raise _bad(
                "task.type",
                f"'{name}', while the cluster says '{chief_name}'",
                "the same spelling in both",
                f"Write '{chief_name}' in task.type.",
            )
        if role is Role.CHIEF and not addresses.get(role):
            chief_name = name
        listed = {str(role): found for role, found in addresses.items()}
        return cls(role=role, index=index, chief_name=chief_name, **listed)

    def to_tf_config(self, role: Role | None = None, index: int | None = None) -> str:
        """The text from which the process (`role`, `index`) reads its place in this cluster.

        Both default to this process; `from_tf_config(c.to_tf_config()) == c` for every cluster.

        Raises:
          ValueError: the cluster has no such process.
        """
        me = self.at(self.role if role is None else role, self.index if index is None else index)
        if not (me.chief or me.worker):
            return "{}"
        cluster = {self.spelled(r): list(a) for r, a in me.addresses.items() if a}
        task = {"type": self.spelled(me.role), "index": me.index}
        return json.dumps({"cluster": cluster, "task": task})

    def at(self, role: Role, index: int) -> "Cluster":
        """The same cluster as the process (`role`, `index`) sees it; ValueError if it has none."""
        return dataclasses.replace(self, role=role, index=index)

    @property
    def addresses(self) -> Mapping[Role, tuple[str, ...]]:
        """Addresses by role, in the order of the process ids; evaluators last."""
        return {
            Role.CHIEF: self.chief,
            Role.WORKER: self.worker,
            Role.PS: self.ps,
            Role.EVALUATOR: self.evaluator,
        }

    def size(self, role: Role) -> int:
        """How many processes of this role the cluster lists."""
        return len(self.addresses[role])

    @property
    def is_chief(self) -> bool:
        """Whether this process saves, evaluates and reports for all.

        It is the chief (or master), or worker 0 where the cluster names neither, as TensorFlow 2
        has it.
        """
        return self.process_id == 0

    @property
    def members(self) -> tuple[Member, ...]:
        """The processes that form the mesh, by process id: chief, workers, ps."""
        found = tuple(
            Member(f"{self.spelled(role)} {index}", address)
            for role in _MESH
            for index, address in enumerate(self.addresses[role])
        )
        return found or (Member(self.name, None),)

    @property
    def num_processes(self) -> int:
        """How many processes form the mesh."""
        return len(self.members)

    @property
    def process_id(self) -> int | None:
        """This process's number in the mesh; None for an evaluator, which never joins."""
        if self.role is Role.EVALUATOR:
            return None
        before = _MESH[: _MESH.index(self.role)]
        return sum(map(self.size, before)) + self.index

    @property
    def coordinator_address(self) -> str | None:
        """Where process 0 hosts the coordinator; None for one process alone."""
        return self.members[0].address

    @property
    def name(self) -> str:
        """This process as people say it: 'chief 0', 'master 0', 'worker 1', 'ps 0'."""
        return f"{self.spelled(self.role)} {self.index}"

    def spelled(self, role: Role) -> str:
        """The role's name as this cluster's TF_CONFIG writes it."""
        return self.chief_name if role is Role.CHIEF else str(role)

    def _listed(self) -> list[str]:
        return [self.spelled(role) for role, addresses in self.addresses.items() if addresses]

    def __str__(self) -> str:
        if self.coordinator_address is None:
            return f"{self.name}, one process alone"
        counts = (f"{self.size(role)} {self.spelled(role)}" for role in _MESH if self.size(role))
        place = "beside" if self.process_id is None else f"process {self.process_id} of"
        return (
            f"{self.name}, {place} {self.num_processes} ({', '.join(counts)}),"
            f" coordinator {self.coordinator_address}"
        )


def _parse(text: str) -> dict[str, Any]:
    """The text as a JSON object without duplicate keys."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:  # what a shell's invalid UTF-8 becomes in an environment
        raise _bad(
            f"character {error.start}",
            "a byte or surrogate that is not valid Unicode",
            "JSON in UTF-8",
            "Write the value again; role names and addresses are ASCII.",
        ) from None
    if size > LIMIT:
        raise _bad(
            "the whole value",
            f"{size} bytes",
            f"at most {LIMIT} bytes",
            "Leave out what does not describe the cluster.",
        )
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise _bad(
            f"line {error.lineno}, column {error.colno}",
            _shown(text[error.pos :]) if error.pos < len(text) else "the end of the text",
            f"JSON ({_plain(error.msg)})",
            _json_remedy(text),
        ) from None
    except RecursionError:
        raise _bad(
            "the whole value",
            "brackets nested too deep to read",
            "an object of objects of lists",
            "Write the cluster as a plain object.",
        ) from None
    if isinstance(document, str):
        raise _bad(
            "the whole value",
            f"the string {_shown(document)}",
            "an object",
            "If it was encoded to JSON twice, encode it once.",
        )
    if not isinstance(document, dict):
        raise _bad(
            "the whole value",
            _shown(document),
            'an object {"cluster": …, "task": …}',
            "Leave TF_CONFIG empty to train in one process.",
        )
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise _bad(
            "an object",
            f"the key {_shown(twice)} more than once",
            "every key once",
            "Merge the entries; JSON would silently drop all but the last.",
        )
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _bad("a number", name, "JSON, which has no such number", "Write an integer.")


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise _bad(
            "a number",
            f"an integer of {len(digits)} characters",
            "at most 20 characters",
            "No index or port is that large.",
        )
    return int(digits)


def _json_remedy(text: str) -> str:
    if text[:1] == "\ufeff":
        return "Remove the byte order mark at the beginning."
    if re.match(r"\s*\{\s*'", text):
        return "JSON wants double quotes, not a Python dict."
    if re.match(r"\s*\{\s*\\+\"", text):
        return "Remove one level of quoting: the backslashes reached the value."
    return "Check the quotes and commas, and that no shell has eaten any."


def _check_top(document: dict[str, Any]) -> None:
    """A key that almost says `cluster` or `task` is a job that would quietly train alone."""
    if "cluster" in document:
        return
    if "sparseCluster" in document:
        raise _bad(
            "sparseCluster",
            "a part of the cluster (Kubeflow's dynamic workers)",
            "'cluster' with every process",
            "Turn enableDynamicWorker off: one mesh needs all to see the same whole.",
        )
    for key in document:
        near = key.strip().lower().replace("_", "").replace("-", "")
        if near in ("cluster", "clusters", "clusterspec") or (
            key != "task" and near in ("task", "tasks")
        ):
            raise _bad(
                "the top level",
                f"the key {_shown(key)}",
                "'cluster' and 'task', spelled so",
                "Rename the key.",
            )


def _says_nothing(value: Any, *words: str) -> bool:
    """Absent, or an object with none of the words (of any, where none are given)."""
    if not isinstance(value, dict):
        return value is None
    return not any(word in value for word in words or value)


def _role(key: str) -> Role:
    if key not in _SPELLINGS:
        raise _bad("cluster", f"the role {_shown(key)}", _ROLES, _role_remedy(key))
    return _SPELLINGS[key]


def _role_remedy(found: str) -> str:
    near = found.strip().lower()
    near = {"parameter_server": "ps", "parameterserver": "ps", "eval": "evaluator"}.get(
        near, near.removesuffix("s") if near != "ps" else near
    )
    if near in _SPELLINGS:
        return f"Did you mean '{near}'?"
    return "Rename it, or leave the process out of TF_CONFIG."


def _addresses(key: str, value: Any) -> tuple[Any, ...]:
    """Addresses by index, from a list or from {"0": …, "1": …}; their form is checked later."""
    where = f"cluster.{key}"
    if isinstance(value, str):
        raise _bad(where, f"the string {_shown(value)}", "a list", "Put it between [ and ].")
    if not isinstance(value, list | dict):
        raise _bad(where, _shown(value), "a list of addresses", 'Write ["host:port", …].')
    if not value:
        raise _bad(where, _shown(value), "at least one address", f"Remove '{key}', or fill it.")
    if isinstance(value, list):
        return tuple(value)
    numbered = {}
    for number, address in value.items():
        if not _NUMBER.fullmatch(number):
            raise _bad(
                where,
                f"the key {_shown(number)}",
                "indexes '0', '1', … in decimal",
                "Number the addresses, or write them as a list.",
            )
        numbered[int(number)] = address
    gap = next((index for index in range(len(numbered)) if index not in numbered), None)
    if gap is not None:
        raise _bad(
            where,
            f"no index {gap} among {len(numbered)}",
            "indexes 0, 1, … without a gap",
            "Add the missing one: every process must see the same, whole cluster.",
        )
    return tuple(numbered[index] for index in range(len(numbered)))


def _task(task: dict[str, Any]) -> tuple[Role, int, str]:
    """Role, index, and the role as it is spelled."""
    name, index = task.get("type"), task.get("index")
    if name is None:
        raise _bad("task.type", "nothing", _ROLES, "Say which role this process has.")
    if not isinstance(name, str) or name not in _SPELLINGS:
        remedy = _role_remedy(name) if isinstance(name, str) else "Write its name as a string."
        raise _bad("task.type", _shown(name), _ROLES, remedy)
    if index is None:
        raise _bad("task.index", "nothing", "an integer from 0", f"Say which {name} this is.")
    if isinstance(index, str):
        if not _NUMBER.fullmatch(index):
            raise _bad(
                "task.index",
                f"the string {_shown(index)}",
                "an integer from 0 in decimal",
                "Write digits only, such as 0 or 12.",
            )
        index = int(index)
    return _SPELLINGS[name], _check_index("task.index", index), name


def _check_index(where: str, index: Any) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise _bad(where, _shown(index), "an integer from 0", "Write it without quotes or a point.")
    if index < 0:
        raise _bad(where, _shown(index), "an integer from 0", "Count from 0 upwards.")
    return index


def _place(where: str, address: Any) -> tuple[str, int]:
    """Host and port of an address in one spelling, so that equal places compare equal."""

    def bad(what: str, remedy: str) -> ValueError:
        return _bad(where, f"{_shown(address)} ({what})", _ADDRESS, remedy)

    if not isinstance(address, str):
        raise _bad(where, _shown(address), _ADDRESS, "Write the address as one string.")
    if not address:
        raise bad("empty", "Fill it in, or remove the entry.")
    if not address.isascii():
        raise bad("not ASCII", "Write an international name in its xn-- form.")
    if not address.isprintable() or " " in address:
        raise bad("white space or a control character", "Remove it.")
    if "://" in address:
        raise bad("a URL", "Remove the scheme.")
    if "@" in address:
        raise bad("user information", "Remove everything up to '@'.")
    if "/" in address:
        raise bad("a path", "Remove everything from '/' on.")
    if "," in address:
        raise bad("a comma", "Write one address per string.")
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket:
            raise bad("no closing bracket", "Close it before the port.")
        colon, port = rest[:1], rest[1:]
        if rest and colon != ":":
            raise bad("something between ']' and the port", "Write ':' and the port.")
        place = _ipv6(host)
        if place is None:
            raise bad("not an IPv6 address in the brackets", "Brackets are for IPv6 only.")
    else:
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
        if ":" in host:
            raise bad(
                "more than one colon",
                "Write an IPv6 address in brackets, [::1]:2222, and one port.",
            )
        if not host:
            raise bad("no host", "Write the name or the address before the colon.")
        place = _host(host)
        if place is None:
            raise bad("not a host name", "Use letters, digits, '-' and dots, or an IP address.")
    if place in ("0.0.0.0", "::"):
        raise bad("every interface, so nobody's address", "Name the one that others reach.")
    if not port:
        raise bad("no port", "Append ':' and the port.")
    if not _PORT.fullmatch(port):
        zero = port.strip("0") == ""
        remedy = "Choose a port: 0 means any." if zero else "Write a decimal number after ':'."
        raise bad("port 0" if zero else "not a port", remedy)
    if int(port) > 65535:
        raise bad("a port above 65535", "Choose one that exists.")
    return place, int(port)


def _ipv6(host: str) -> str | None:
    number, percent, zone = host.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return None
    try:
        return str(ipaddress.IPv6Address(number)) + percent + zone
    except ValueError:
        return None


def _host(host: str) -> str | None:
    """A host name in lower case, or an IPv4 address; None where it is neither."""
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdigit():  # a name may not end so; 256.1.1.1 is a mistake, not a name
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return ".".join(labels).lower()


def _shown(value: Any) -> str:
    """A found value for a message: ASCII, one line, bounded."""
    if isinstance(value, str):
        shown = ascii(value[:_SHOWN])
        cut = len(shown) > _SHOWN or len(value) > _SHOWN
        return f"{shown[: _SHOWN - 3]}... ({len(value)} characters)" if cut else shown
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return f"an object with {len(value)} keys" if value else "an empty object"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _plain(repr(value))


def _plain(text: str) -> str:
    return ascii(text)[1:-1][:_SHOWN]


def _bad(where: str, found: str, wanted: str, remedy: str) -> ValueError:
    return ValueError(f"TF_CONFIG, {where}: found {found}; wanted {wanted}. {remedy}")
