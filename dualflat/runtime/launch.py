"""Role → loop: join the cluster, build the mesh, run what this process is there for.

One program serves every role. `chief`, `worker` and `ps` processes of a cluster join one SPMD job;
an `evaluator` follows its checkpoints from outside.
"""

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import jax

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
      keep, keep_best: how many newest, and how many best checkpoints stay.
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


def run(cluster: Cluster, build: Callable[[], Task], plan: Plan, watch: Watcher) -> int:
    """Do this process's part of the run; return the signal that ended it early, or 0.

    Args:
      cluster: who takes part, and which of them this process is.
      build: makes the task; called once the processes have joined, since it may touch JAX.
      plan: how to run it.
      watch: told how it goes.

    Raises:
      ValueError: what the user can mend: a mesh, a batch size, a checkpoint of another run.
      TimeoutError: where the chief does not answer within `plan.wait_s`.
      CheckpointError, ExportError, FloatingPointError: as `sync.train` and `export.write_export`.
    """
    if cluster.role is Role.EVALUATOR:
        with LocalStop() as stop:
            return evaluator.follow(build(), plan.log_dir, stop=stop, watch=watch)
    with joined(cluster, plan.wait_s, watch) as stop:
        task = build()
        mesh = make_mesh(plan.mesh, jax.devices(), servers=cluster.size(Role.PS))
        watch.note(
            f"{task.name}: {len(task.train)} examples, {len(task.test)} held out; mesh "
            f"worker={mesh.shape['worker']},ps={mesh.shape['ps']} of {jax.device_count()} {jax.default_backend()}"
            f" device(s) in {jax.process_count()} process(es)"
        )
        checkpoints_dir = _prepare(plan, watch)
        with Checkpoints(checkpoints_dir, keep=plan.keep, keep_best=plan.keep_best) as checkpoints:
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
            watch.note(
                f"stopped by signal {outcome.stopped_by}; step {outcome.step} is saved, the same command resumes"
            )
            return outcome.stopped_by
        if jax.process_index() == 0:
            record = {
                "task": task.name,
                "step": outcome.step,
                "settings": dict(task.settings),
                "seed": plan.seed,
            }
            where = export.write_export(
                plan.model_dir,
                task.predict,
                outcome.params,
                task.inputs,
                name=task.name,
                record=record,
            )
            watch.note(f"exported to {where}")
        return 0


@contextmanager
def joined(cluster: Cluster, wait_s: float, watch: Watcher) -> Iterator[Stop]:
    """Join the SPMD job for as long as the context lasts; gives the question when to stop.

    The coordinator, in the chief, binds the chief's own address and no other interface. A process
    that dies is noticed within seconds; the others then end too, and a restart resumes.

    Raises:
      TimeoutError: where the chief's address does not answer in time.
    """
    if cluster.num_processes == 1:
        with LocalStop() as stop:
            yield stop
        return
    address = cluster.coordinator_address
    assert address is not None, "several processes have a chief"
    host, port = address.rsplit(":", 1)
    if cluster.process_id == 0:
        watch.note(
            f"coordinator at {address}, waiting up to {wait_s:.0f} s for {cluster.num_processes - 1} more:"
            f" {_others(cluster)}"
        )
        bind = f"{_own_ip(host)}:{port}"
    else:
        _await_listener(host.strip("[]"), int(port), wait_s, address)
        bind = None
    jax.distributed.initialize(
        address,
        cluster.num_processes,
        cluster.process_id,
        cluster_detection_method="deactivate",  # TF_CONFIG has said it; Slurm and Kubernetes need not
        coordinator_bind_address=bind,
        initialization_timeout=max(1, round(wait_s)),
        heartbeat_timeout_seconds=HEARTBEAT_S,
        shutdown_timeout_seconds=60,
    )
    with AgreedStop() as stop:
        yield stop
    jax.distributed.shutdown()  # not reached after an error: the barrier would wait for the dead


def _prepare(plan: Plan, watch: Watcher) -> Path:
    """Make the folders; set an earlier run aside where the plan is a fresh start."""
    folder = plan.log_dir / CHECKPOINTS
    if plan.resume and not folder.is_dir():
        raise ValueError(
            f"--resume: {folder} does not exist. Check --log-dir, or leave --resume out to start anew."
        )
    if jax.process_index() == 0:
        plan.log_dir.mkdir(parents=True, exist_ok=True)
        if plan.resume is False:
            _set_aside(plan.log_dir, watch)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("folders are ready")
    return folder


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
    aside = log_dir / f"before-{datetime.now():%Y%m%d-%H%M%S-%f}"
    aside.mkdir()
    for path in earlier:
        path.rename(aside / path.name)
    watch.note(f"the earlier run is in {aside}")


def _others(cluster: Cluster) -> str:
    return ", ".join(f"{name} at {address}" for name, address in cluster.members[1:])


def _own_ip(host: str) -> str:
    """The address to bind: the chief's own, and if its name is another machine's, an error with words."""
    try:
        family, *_, where = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((where[0], 0))
    except OSError as error:
        raise ValueError(
            f"TF_CONFIG: the chief's own address {host!r} cannot be bound on this machine ({error.strerror or error})."
            " Give the chief an address of the machine it runs on."
        ) from error
    return f"[{where[0]}]" if family == socket.AF_INET6 else str(where[0])


def _await_listener(host: str, port: int, wait_s: float, address: str) -> None:
    """Wait until the chief listens. Asked first, because JAX aborts the process where it does not."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            socket.create_connection((host, port), timeout=2.0).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"the chief at {address} did not answer within {wait_s:.0f} s ({error}). Is it started, and is its"
                    " address in TF_CONFIG reachable from here? --wait gives it longer."
                ) from error
            time.sleep(0.2)


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path; checkpoints need one."""
    return Path(path).expanduser().absolute()
