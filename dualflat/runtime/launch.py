"""Role → loop: join the cluster, build the mesh, run what this process is there for.

One program serves every role. `chief`, `worker` and `ps` processes of a cluster join one SPMD job;
an `evaluator` follows its checkpoints from outside.
"""

import dataclasses
import hashlib
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from dualflat.contracts import Task
from dualflat.runtime import evaluator, export, sync
from dualflat.runtime.checkpoint import Checkpoints
from dualflat.runtime.cluster import Cluster, Role
from dualflat.runtime.duties import Watcher
from dualflat.runtime.placement import make_mesh
from dualflat.runtime.stop import AgreedStop, LocalStop, Stop
from dualflat.runtime.summary import METRICS_FILE, Summary

HEARTBEAT_S = 10
CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a task is to be run, as the user said it.

    Attributes:
      log_dir: checkpoints, summaries; shared by every process.
      model_dir: receives `export/` when training is done.
      mesh: axis sizes (`placement.parse_mesh`), or None for every device.
      seed: of parameters, noise and the order of the examples.
      every: steps between reports.
      resume: True: there must be a checkpoint; False: what is there is set aside; None: either.
      keep, keep_best: how many of the newest checkpoints stay, and how many of the best by test loss.
      wait_s: how long the processes wait for each other at the start.
    """

    log_dir: Path
    model_dir: Path
    mesh: dict[str, int] | None = None
    seed: int = 0
    every: int = 100
    resume: bool | None = None
    keep: int = 5
    keep_best: int = 1
    wait_s: float = 300.0


def run(
    cluster: Cluster,
    build: Callable[[], Task],
    plan: Plan,
    watch: Watcher,
    give_up: Callable[[str], None] | None = None,
) -> int:
    """Do this process's part of the run; return the signal that ended it early, or 0.

    Args:
      cluster: who takes part, and which of them this process is.
      build: makes the task; called once the processes have joined, since it may touch JAX.
      plan: how to run it.
      watch: told how it goes.
      give_up: told, from another thread, that the others did not come within `plan.wait_s`. It
        should end the process: what waits for them cannot be interrupted. Without it, JAX aborts.

    Raises:
      ValueError: what the user can mend: a mesh, a batch size, a checkpoint of another run,
        processes that were told different things.
      TimeoutError: where the chief does not answer within `plan.wait_s`.
      CheckpointError, ExportError, FloatingPointError: as `sync.train` and `export.write_export`.
    """
    if cluster.role is Role.EVALUATOR:
        return _evaluate(build, plan, watch)
    with joined(cluster, plan.wait_s, watch, give_up) as stop:
        task = build()
        _require_agreement(task, plan)
        servers = cluster.size(Role.PS)
        mesh = make_mesh(plan.mesh, jax.devices(), servers=servers, batch_size=task.batch_size)
        if jax.process_index() == 0:
            watch.note(_who_and_what(task, mesh))
        folder = _prepare(plan, watch)
        with Checkpoints(folder, keep=plan.keep, keep_best=plan.keep_best) as checkpoints:
            outcome = sync.train(
                task,
                mesh,
                checkpoints,
                seed=plan.seed,
                every=plan.every,
                watch=watch,
                summary=lambda start: Summary(plan.log_dir, start=start),
                stop=stop,
            )
        if outcome.stopped_by:
            if jax.process_index() == 0:
                watch.note(_stopped(outcome, plan))
            return outcome.stopped_by
        if jax.process_index() == 0:
            record = {"task": task.name, "step": outcome.step, "seed": plan.seed}
            where = export.write_export(
                plan.model_dir,
                task.predict,
                outcome.params,
                task.inputs,
                name=task.name,
                record={**record, "settings": dict(task.settings)},
            )
            watch.note(f"exported to {where}")
        _meet("the model is exported")  # before that, nobody waits for the chief in vain
        return 0


@contextmanager
def joined(
    cluster: Cluster,
    wait_s: float,
    watch: Watcher,
    give_up: Callable[[str], None] | None = None,
) -> Iterator[Stop]:
    """Join the SPMD job for as long as the context lasts; gives the question when to stop.

    The coordinator, in the chief, binds the chief's own address and no other interface. A process
    that dies is noticed within seconds; the others then end too, and a restart resumes.

    Raises:
      ValueError: where the chief's address is not its own.
      TimeoutError: where the chief's address does not answer in time.
    """
    if cluster.num_processes == 1:
        with LocalStop() as stop:
            yield stop
        return
    address = cluster.coordinator_address
    assert address is not None, "several processes have a chief"
    host, port = address.rsplit(":", 1)
    deadline = time.monotonic() + wait_s
    bind = None
    if cluster.process_id == 0:
        watch.note(
            f"coordinator at {address}, waiting up to {wait_s:.0f} s for {cluster.num_processes - 1} more:"
            f" {_others(cluster)}"
        )
        bind = f"{_own_ip(cluster, host.strip('[]'), deadline)}:{port}"
    else:
        _await_listener(
            host.strip("[]"), int(port), deadline, f"{address} did not answer within {wait_s:.0f} s"
        )
    with _patience(
        deadline,
        f"not every process of the job came within {wait_s:.0f} s: {_others(cluster)}",
        give_up,
    ):
        jax.distributed.initialize(
            address,
            cluster.num_processes,
            cluster.process_id,
            cluster_detection_method="deactivate",  # TF_CONFIG has said it; Slurm and Kubernetes need not
            coordinator_bind_address=bind,
            initialization_timeout=round(wait_s) + (60 if give_up else 1),
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    with AgreedStop() as stop:
        yield stop
    jax.distributed.shutdown()  # not reached after an error: the barrier would wait for the dead


def _evaluate(build: Callable[[], Task], plan: Plan, watch: Watcher) -> int:
    """The evaluator's part."""
    started = time.time() if plan.resume is False else 0.0
    records = plan.log_dir / evaluator.FOLDER
    if plan.resume is False and records.exists():
        records.rename(plan.log_dir / f"{evaluator.FOLDER}-{_now()}")
    with LocalStop() as stop:
        return evaluator.follow(
            build(),
            plan.log_dir / CHECKPOINTS,
            plan.log_dir,
            seed=plan.seed,
            since=started,
            stop=stop,
            watch=watch,
        )


def _require_agreement(task: Task, plan: Plan) -> None:
    """Refuse to start where the processes were told different things: they would part, and hang.

    Every process compares the same digests, so that all refuse, or none.

    Raises:
      ValueError: naming the processes that differ from the chief.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    words = [
        task.name,
        dict(task.settings),
        task.max_steps,
        plan.seed,
        plan.every,
        plan.mesh,
        plan.resume,
    ]
    digest = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).digest()
    told = np.asarray(multihost_utils.process_allgather(np.frombuffer(digest, np.uint8)))
    others = [k for k in range(len(told)) if not np.array_equal(told[k], told[0])]
    if others:
        raise ValueError(
            f"process {', '.join(map(str, others))} of {len(told)} was told something else than the chief: every"
            " process needs the same task, data, seed, --batch-size, --max-steps, --checkpoint, --mesh,"
            " --optimizer, --learning-rate, --precision and --resume or --fresh."
        )


def _prepare(plan: Plan, watch: Watcher) -> Path:
    """Make the folders; set an earlier run aside where the plan is a fresh start.

    Raises:
      ValueError: `--resume` and nothing to resume; or a folder that not all processes see.
    """
    folder = plan.log_dir / CHECKPOINTS
    with Checkpoints(folder, read_only=True) as found:
        missing = plan.resume and found.read_record() is None
    if missing:
        raise ValueError(
            f"--resume: {folder} holds no checkpoint. Check --log-dir, or leave --resume out to start anew."
        )
    sign = plan.log_dir / ".shared"
    if jax.process_index() == 0:
        plan.log_dir.mkdir(parents=True, exist_ok=True)
        if plan.resume is False:
            _set_aside(plan.log_dir, watch)
        if jax.process_count() > 1:
            sign.touch()
    _meet("folders are ready")
    if jax.process_count() > 1:
        _require_everywhere(sign.exists(), f"--log-dir {plan.log_dir}")
        if jax.process_index() == 0:
            sign.unlink()
    return folder


def _require_everywhere(seen: bool, what: str) -> None:
    """Raise in every process where one does not see what the chief has just made."""
    from jax.experimental import multihost_utils

    told = np.asarray(multihost_utils.process_allgather(np.asarray(seen)))
    blind = [str(k) for k in range(len(told)) if not told[k]]
    if blind:
        raise ValueError(
            f"{what}: process {', '.join(blind)} of {len(told)} does not see the chief's folder. Every process"
            " needs the same shared folder, since each saves its own shards there."
        )


def _meet(where: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def _who_and_what(task: Task, mesh: Mesh) -> str:
    workers, ps, devices = mesh.shape["worker"], mesh.shape["ps"], jax.device_count()
    return (
        f"{task.name}: {len(task.train)} examples, {len(task.test)} held out; mesh worker={workers},ps={ps} of"
        f" {devices} {jax.default_backend()} device(s) in {jax.process_count()} process(es)"
    )


def _stopped(outcome: sync.Outcome, plan: Plan) -> str:
    saved = f"step {outcome.step} is saved" if outcome.step else "no step was done yet"
    again = (
        "the same command without --fresh resumes"
        if plan.resume is False
        else "the same command resumes"
    )
    return f"stopped by signal {outcome.stopped_by}; {saved}, {again}"


def _set_aside(log_dir: Path, watch: Watcher) -> None:
    """Move an earlier run's files into a folder of their own: a fresh start loses nothing."""
    earlier = [
        log_dir / CHECKPOINTS,
        log_dir / METRICS_FILE,
        *log_dir.glob("events.out.tfevents.*"),
    ]
    earlier = [path for path in earlier if path.exists()]
    if not earlier:
        return
    aside = log_dir / f"before-{_now()}"
    aside.mkdir()
    for path in earlier:
        path.rename(aside / path.name)
    watch.note(f"the earlier run is in {aside}")


def _others(cluster: Cluster) -> str:
    mine = cluster.process_id
    return ", ".join(
        f"{name} at {address}" for k, (name, address) in enumerate(cluster.members) if k != mine
    )


def _now() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S-%f}"


def _own_ip(cluster: Cluster, host: str, deadline: float) -> str:
    """The address to bind: the chief's own. Its name may take a while to be known, as a new pod's does."""
    while True:
        try:
            family, *_, where = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((where[0], 0))
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"TF_CONFIG: the chief's own address {host!r} cannot be bound on this machine"
                    f" ({error.strerror or error}). Give the chief an address of the machine it runs on."
                ) from error
            time.sleep(0.5)
    hosts = {(address or "").rsplit(":", 1)[0].strip("[]") for _, address in cluster.members} - {
        host
    }
    if ipaddress.ip_address(where[0]).is_loopback and any(
        not _is_loopback(other) for other in hosts
    ):
        raise ValueError(
            f"TF_CONFIG: the chief's address {host!r} is {where[0]} on this machine, which the other machines"
            f" ({', '.join(sorted(hosts))}) cannot reach. Give the chief the address that they reach it by."
        )
    return f"[{where[0]}]" if family == socket.AF_INET6 else str(where[0])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _await_listener(host: str, port: int, deadline: float, said: str) -> None:
    """Wait until the chief listens. Asked first, because JAX aborts the process where it does not."""
    while True:
        try:
            socket.create_connection((host, port), timeout=2.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the chief at {said} ({error}). Is it started, and is its address in TF_CONFIG reachable"
                    " from here? --wait gives it longer."
                ) from error
            time.sleep(0.2)


@contextmanager
def _patience(deadline: float, said: str, give_up: Callable[[str], None] | None) -> Iterator[None]:
    """Say so when the time is up, from another thread: `initialize` waits where Python cannot reach it."""
    if give_up is None:
        yield
        return
    timer = threading.Timer(
        max(deadline - time.monotonic(), 1.0), give_up, [f"{said}. --wait gives them longer."]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path; checkpoints need one."""
    return Path(path).expanduser().absolute()
