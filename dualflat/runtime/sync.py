"""The synchronous trainer: one SPMD program over a mesh, in one process or many.

    gather the parameters → gradient of the global batch → cut the gradient → apply on each shard

The batch is split along the mesh axis `worker`, the state along `ps` (`placement`). A step is the
task's two functions, each one `jit`; the compiler puts in the collectives. So a step means the same
on every mesh, noise included, and its results differ by rounding only.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from dualflat.contracts import Batch, Metrics, PyTree, Task, TrainState
from dualflat.runtime import feed
from dualflat.runtime.checkpoint import Checkpoints, Restored
from dualflat.runtime.duties import Evaluator, Report, Silent, Watcher, read, test_scalars
from dualflat.runtime.placement import Layout, Rows
from dualflat.runtime.stop import Stop, never
from dualflat.runtime.summary import Summary

IN_FLIGHT = 2  # steps handed to the device and not waited for: enough to hide the host's work


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      params: natural and whole, on the host (`numpy`), the same in every process.
      step: updates done.
      stopped_by: the signal that ended it early, or 0.
      resumed_from: the step it began at.
      report: the last one made by this process, if any.
    """

    params: PyTree
    step: int
    stopped_by: int
    resumed_from: int
    report: Report | None


def state_layout(task: Task, mesh: Mesh) -> Layout:
    """Return where a task's training state lives on a mesh."""
    return Layout(mesh, jax.eval_shape(task.init, jax.random.key(0)))


def make_init(task: Task, layout: Layout) -> Callable[[int], tuple[TrainState, jax.Array]]:
    """Return seed ↦ (stored state at step 0, key of the steps)."""

    def init(seed: jax.Array) -> tuple[TrainState, jax.Array]:
        begin, steps = jax.random.split(jax.random.key(seed))
        return layout.pack(task.init(begin)), steps

    program = jax.jit(init, out_shardings=(layout.shardings, layout.replicated))
    return lambda seed: program(np.uint32(seed))


@dataclasses.dataclass(frozen=True)
class Step:
    """One update: (stored state, key, batch) ↦ (stored state, metrics), as two programs.

    Two, not one, because they are two: the asynchronous loops run the same pair in different
    processes. Compiled together, XLA fuses the end of the gradient with the update where the shapes
    of the shards suggest it, multiply-adds round once instead of twice, and the last bit of a
    parameter depends on the mesh. Compiled apart, the number of shards changes no bit, and one
    asynchronous worker can equal this trainer step for step.

    The state given is donated to `apply`. Update number t uses the key folded with t, so that a resumed run
    draws what an uninterrupted one would have drawn.

    Attributes:
      gradient: (stored params, step, key, batch) ↦ (stored gradient, metrics).
      apply: (stored state, stored gradient) ↦ stored state.
    """

    gradient: Any
    apply: Any

    def __call__(
        self, state: TrainState, key: jax.Array, batch: Batch
    ) -> tuple[TrainState, Metrics]:
        """Return the next state and the metrics of the batch."""
        grads, metrics = self.gradient(state.params, state.step, key, batch)
        return self.apply(state, grads), metrics


def make_step(task: Task, layout: Layout) -> Step:
    """Return the step of a task whose state lives as `layout` says."""
    params = layout.part("params")
    whole = layout.replicated

    def gradient(
        stored: PyTree, step: jax.Array, key: jax.Array, batch: Batch
    ) -> tuple[PyTree, Metrics]:
        grads, metrics = task.gradient(params.gather(stored), batch, jax.random.fold_in(key, step))
        return params.pack(grads), metrics

    def apply(state: TrainState, grads: PyTree) -> TrainState:
        fresh = jnp.int32(0)  # nobody else has pushed since the parameters were gathered
        return task.apply(state, grads, fresh)

    return Step(
        jax.jit(
            gradient,
            in_shardings=(params.shardings, whole, whole, layout.batch),
            out_shardings=(params.shardings, whole),
        ),
        jax.jit(
            apply,
            in_shardings=(layout.shardings, params.shardings),
            out_shardings=layout.shardings,
            donate_argnums=0,
        ),
    )


def load_or_initialise(
    task: Task, layout: Layout, checkpoints: Checkpoints, *, seed: int
) -> tuple[TrainState, jax.Array, Restored | None]:
    """Return (stored state, key, what was restored): of the newest whole checkpoint, or of step 0.

    The one way in, for a first start and for every restart, on any mesh.

    Raises:
      ValueError: where the checkpoint belongs to a run with other settings.
      CheckpointError: where checkpoints exist and none can be read.
    """
    found = checkpoints.read_record()
    if found is not None:
        require_same_run(found[1], task, seed, found[0])
    restored = checkpoints.load(saved_form(layout))
    if restored is None:
        state, key = make_init(task, layout)(seed)
        return state, key, None
    return layout.from_saved(restored.state["state"]), restored.state["key"], restored


def train(
    task: Task,
    mesh: Mesh,
    checkpoints: Checkpoints,
    *,
    seed: int = 0,
    every: int = 100,
    watch: Watcher | None = None,
    summary: Callable[[int], Summary] | None = None,
    stop: Stop = never,
) -> Outcome:
    """Train a task to its `max_steps`, from the newest checkpoint or from nothing.

    Every `every` steps, and at the end: evaluate, record, save. A signal saves at once, without an
    evaluation. A run that is already done does nothing.

    Args:
      task: what to train.
      mesh: over every process, axes `worker` and `ps`.
      checkpoints: where the run survives; every process gives its own, of one shared folder.
      seed: of the initial parameters, the noise and the order of the examples.
      every: steps between reports, the `--checkpoint` of the command.
      watch: told how it goes, in process 0.
      summary: start step ↦ where to record, called in process 0.
      stop: asked at every step whether to end early.

    Raises:
      ValueError: a batch that the mesh cannot split, or a checkpoint of another run.
      FloatingPointError: a loss that is not finite; nothing is saved after the last good report.
      CheckpointError: a save that failed.
    """
    if every < 1:
        raise ValueError(f"every: found {every}, wanted at least 1 step between reports.")
    watch = watch if watch is not None and jax.process_index() == 0 else Silent()
    layout = state_layout(task, mesh)
    rows = Rows(layout.batch, task.batch_size)
    state, key, restored = load_or_initialise(task, layout, checkpoints, seed=seed)
    start = int(read(state.step))
    if start:
        watch.note(f"resumed from step {start}")
    done = start >= task.max_steps
    if done and restored and restored.metrics:
        watch.note(f"nothing to do: step {start} of {task.max_steps} is done")
        return Outcome(_whole(layout, state), start, 0, start, None)

    with contextlib.ExitStack() as stack:
        records = None
        if summary and jax.process_index() == 0:
            records = stack.enter_context(summary(start))
        loop = _Loop(task, layout, rows, checkpoints, watch, records, stop, seed, every)
        if done:
            watch.note(
                f"step {start} of {task.max_steps} is done; its evaluation, cut short before, is made up"
            )
            step, stopped_by = start, loop.evaluate_only(state, start)
        else:
            before = float(restored.record.get("elapsed_s", 0.0)) if restored else 0.0
            state, step, stopped_by = loop.run(state, key, start, before)
    checkpoints.wait()
    return Outcome(_whole(layout, state), step, stopped_by, start, loop.last)


class _Loop:
    """The loop and its window: the steps since the last report."""

    def __init__(
        self,
        task: Task,
        layout: Layout,
        rows: Rows,
        checkpoints: Checkpoints,
        watch: Watcher,
        records: Summary | None,
        stop: Stop,
        seed: int,
        every: int,
    ) -> None:
        self.task, self.layout, self.rows = task, layout, rows
        self.checkpoints, self.watch, self.records = checkpoints, watch, records
        self.stop, self.seed, self.every = stop, seed, every
        self.step_program = make_step(task, layout)
        params = layout.part("params")
        self.evaluate = Evaluator(task, params)
        self.histograms = jax.jit(
            lambda stored: task.histograms(params.gather(stored)), out_shardings=params.replicated
        )
        self.last: Report | None = None

    def run(
        self, state: TrainState, key: jax.Array, start: int, before: float
    ) -> tuple[TrainState, int, int]:
        task, step, stopped_by = self.task, start, 0
        began = time.perf_counter()
        waiting: deque[jax.Array] = deque()
        losses: list[jax.Array] = []
        window_began, saved, first = began, start, False
        with feed.Feed(
            task.train, batch_size=task.batch_size, seed=self.seed, start=start, part=self.rows.part
        ) as batches:
            while step < task.max_steps:
                stopped_by = self.stop()
                if stopped_by:
                    break
                _, batch = next(batches)
                state, metrics = self.step_program(state, key, self.rows.place(batch))
                step += 1
                losses.append(metrics["loss"])
                waiting.append(metrics["loss"])
                if len(waiting) > IN_FLIGHT:
                    waiting.popleft().block_until_ready()
                if step == start + 1:  # the first step compiles; throughput is what follows it
                    jax.block_until_ready(state)
                    now = time.perf_counter()
                    self.watch.note(f"first step after {now - began:.1f} s, compilation included")
                    window_began, first = now, True
                self.watch.progress(step, task.max_steps)
                if step % self.every == 0 or step == task.max_steps:
                    jax.block_until_ready(state)
                    now = time.perf_counter()
                    rate = (len(losses) - first) / max(now - window_began, 1e-9)
                    mean = self._mean_loss(losses, step)
                    if not self._report(state, key, step, mean, rate, before - began):
                        stopped_by = self.stop()  # it came in the middle of the evaluation
                        break
                    losses, saved, first, window_began = [], step, False, time.perf_counter()
            if stopped_by and step > saved:
                self._mean_loss(losses, step)
                self._require_finite(state, step)
                self._save(state, key, step, {}, before + time.perf_counter() - began)
        return state, step, stopped_by

    def evaluate_only(self, state: TrainState, step: int) -> int:
        """Evaluate and record a state that is saved already; return the signal that cut it short, or 0."""
        test = self.evaluate(state.params, self.stop)
        if test is None:
            return self.stop()
        self.watch.note(", ".join(f"test {name} {value:.4f}" for name, value in test.items()))
        if self.records:
            self.records.scalars(step, test_scalars(test))
            self.records.flush()
        return 0

    def _mean_loss(self, losses: Sequence[jax.Array], step: int) -> float:
        values = [float(read(loss)) for loss in losses]
        bad = next((k for k, value in enumerate(values) if not math.isfinite(value)), None)
        if bad is not None:
            first = step - len(values) + 1
            raise FloatingPointError(
                f"loss is {values[bad]} at step {first + bad}, in the window of steps {first} to {step}."
                f" {self._newest()} Lower the learning rate, or look at the examples of that step."
            )
        return math.fsum(values) / len(values)

    def _report(
        self, state: TrainState, key: jax.Array, step: int, loss: float, rate: float, offset: float
    ) -> bool:
        """Evaluate, save, record, tell; False where a signal cut the evaluation short, and nothing else was done.

        Evaluation comes first: a state that cannot be evaluated is not saved.
        """
        at = time.perf_counter()
        test = self.evaluate(state.params, self.stop)
        evaluated = time.perf_counter()
        if test is None:
            return False
        bad = [name for name, value in test.items() if not math.isfinite(value)]
        if bad:
            raise FloatingPointError(
                f"test {bad[0]} is {test[bad[0]]} after step {step}. {self._newest()} Lower the learning rate."
            )
        self._save(
            state,
            key,
            step,
            {f"test_{name}": value for name, value in test.items()},
            evaluated + offset,
        )
        self.last = Report(
            step=step,
            max_steps=self.task.max_steps,
            loss=loss,
            test=test,
            learning_rate=self.task.learning_rate(step - 1),
            steps_per_s=rate,
            examples_per_s=rate * self.task.batch_size,
            elapsed_s=evaluated + offset,
            evaluate_s=evaluated - at,
            save_s=time.perf_counter() - evaluated,
        )
        self._record(state, self.last)
        self.watch.report(self.last)
        return True

    def _require_finite(self, state: TrainState, step: int) -> None:
        """What an evaluation would have seen: a spoilt state must not become the newest checkpoint."""
        if not bool(read(_all_finite(state.params))):
            raise FloatingPointError(
                f"a parameter is not finite after step {step}, so the step is not saved."
                f" {self._newest()} Lower the learning rate."
            )

    def _record(self, state: TrainState, report: Report) -> None:
        worth = jax.eval_shape(self.task.histograms, self.layout.part("params").natural)
        if worth:  # a collective: every process gathers, the chief writes
            watched = self.histograms(state.params)
            if self.records:
                self.records.histograms(report.step, {name: read(x) for name, x in watched.items()})
        if self.records:
            self.records.scalars(report.step, report.scalars())
            self.records.flush()

    def _save(
        self,
        state: TrainState,
        key: jax.Array,
        step: int,
        metrics: Mapping[str, float],
        elapsed_s: float,
    ) -> None:
        record = {
            "task": self.task.name,
            "settings": dict(self.task.settings),
            "seed": self.seed,
            "order": {"rule": feed.RULE, "step": step, "batch_size": self.task.batch_size},
            "elapsed_s": elapsed_s,
            "mesh": dict(self.layout.mesh.shape),
            "processes": jax.process_count(),
            "jax": jax.__version__,
        }
        tree = {"state": self.layout.to_saved(state), "key": key}
        self.checkpoints.save(step, tree, record=record, metrics=metrics)

    def _newest(self) -> str:
        steps = self.checkpoints.steps()
        return (
            f"The newest checkpoint is of step {steps[-1]}."
            if steps
            else "No checkpoint was saved yet."
        )


def saved_form(layout: Layout) -> dict[str, PyTree]:
    """Return what a checkpoint of a run holds, as shapes and shardings."""
    return {"state": layout.saved, "key": abstract_key(layout)}


@jax.jit
def _all_finite(params: PyTree) -> jax.Array:
    floating = [x for x in jax.tree.leaves(params) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in floating]).all()


def require_same_run(record: Mapping[str, Any], task: Task, seed: int, step: int) -> None:
    """Refuse to go on with another run's state.

    Raises:
      ValueError: naming what differs.
    """
    now = {"task": task.name, "seed": seed, **task.settings}
    now = json.loads(json.dumps(now))  # a tuple comes back from a checkpoint as a list
    then = {"task": record.get("task"), "seed": record.get("seed"), **record.get("settings", {})}
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    if changed:
        facts = "; ".join(
            f"{name} was {then.get(name)!r} and is now {now.get(name)!r}" for name in changed
        )
        raise ValueError(
            f"the checkpoint of step {step} belongs to another run: {facts}. Give the same words to resume it,"
            " --fresh to set it aside and start anew, or another --log-dir."
        )


def abstract_key(layout: Layout) -> jax.ShapeDtypeStruct:
    """Return what the key of a run looks like in its checkpoints."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=layout.replicated)


def _whole(layout: Layout, state: TrainState) -> PyTree:
    """The parameters, natural, on the host of every process."""
    params = layout.part("params")
    whole = jax.jit(params.gather, out_shardings=params.replicated)(state.params)
    return jax.tree.map(read, whole)
