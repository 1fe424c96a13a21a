"""What is done about a state besides training it: evaluate, record, save, and tell whoever watches.

The classical master does these every `checkpoint` steps. Evaluation and saving are collective, every
process takes part; records are written, and the watcher is told, by the chief alone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import jax
import numpy as np

from dualflat.contracts import Batch, PyTree, Task
from dualflat.runtime.feed import evaluation_batches
from dualflat.runtime.placement import WORKER, Layout, Rows
from dualflat.runtime.stop import Stop, never

EVALUATION_BATCH = 1000


@dataclasses.dataclass(frozen=True)
class Report:
    """The state of a run at one step, in numbers.

    Attributes:
      step, max_steps: updates done, and to do in all.
      loss: mean training loss over the steps since the last report.
      test: means over the test examples.
      learning_rate: of the last update.
      steps_per_s, examples_per_s: over the steps since the last report, reports themselves apart.
      elapsed_s: since the run began, earlier processes of it included.
      evaluate_s, save_s: what the evaluation and the blocking part of the save took.
    """

    step: int
    max_steps: int
    loss: float
    test: Mapping[str, float]
    learning_rate: float
    steps_per_s: float
    examples_per_s: float
    elapsed_s: float
    evaluate_s: float
    save_s: float

    def scalars(self) -> dict[str, float]:
        """The numbers that are recorded, under the names they are recorded by."""
        return {
            **test_scalars(self.test),
            "Train_loss": self.loss,
            "Learning_rate": self.learning_rate,
            "Steps_per_second": self.steps_per_s,
            "Examples_per_second": self.examples_per_s,
            "Elapsed_seconds": self.elapsed_s,
        }


def test_scalars(test: Mapping[str, float]) -> dict[str, float]:
    """Means over the test examples, under the names they are recorded by."""
    return {f"Test_{name}": value for name, value in test.items()}


class Watcher(Protocol):
    """Whoever wants to know how a run goes. Progress and reports come in the chief only."""

    def note(self, text: str, /) -> None:
        """Something worth one line has happened."""
        ...

    def progress(self, step: int, max_steps: int, /) -> None:
        """One more step has been started; called often, must return at once."""
        ...

    def report(self, report: Report, /) -> None:
        """The numbers of one report."""
        ...


class Silent:
    """A watcher that looks away."""

    def note(self, text: str, /) -> None:
        """Ignore it."""

    def progress(self, step: int, max_steps: int, /) -> None:
        """Ignore it."""

    def report(self, report: Report, /) -> None:
        """Ignore it."""


class Evaluator:
    """Means over a task's test examples, on a mesh: no example is lost, none counts twice."""

    def __init__(self, task: Task, params: Layout) -> None:
        workers = params.mesh.shape[WORKER]
        size = min(EVALUATION_BATCH, len(task.test))
        self._task = task
        self._rows = Rows(params.batch, -(-size // workers) * workers)
        self._gather = jax.jit(params.gather, out_shardings=params.replicated)

        def sums(params: PyTree, batch: Batch, weight: jax.Array) -> PyTree:
            return {"examples": weight.sum(), **task.evaluate(params, batch, weight)}

        self._sums = jax.jit(sums, out_shardings=params.replicated)

    def __call__(self, params: PyTree, stop: Stop = never) -> dict[str, float] | None:
        """Return name → mean over the test examples; None when `stop` cut it short."""
        whole = self._gather(params)
        parts = []
        rows = self._rows
        for mine in evaluation_batches(self._task.test, rows.batch_size, rows.part):
            if stop():
                return None
            batch, weight = rows.place(mine)
            parts.append(self._sums(whole, batch, weight))
            jax.block_until_ready(parts[-1])  # or a signal would wait for all that is queued
        sums = {name: sum(float(read(part[name])) for part in parts) for name in parts[0]}
        examples = sums.pop("examples")
        return {name: value / examples for name, value in sums.items()}


def read(x: jax.Array) -> np.ndarray:
    """Return a replicated array as numpy, also where other processes hold copies of it."""
    return np.asarray(x.addressable_data(0))
