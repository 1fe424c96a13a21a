"""The hall: what learning and the runtime say to each other.

`learn` says what one step computes, `runtime` says who computes it, when, and what survives. They
never import each other; they meet here, as pure functions on pytrees:

    gradient(params, batch, key)   → (grads, metrics)     runs where the batch is
    apply(state, grads, staleness) → state                runs where the parameters live

Every loop (synchronous, replayed, truly asynchronous) uses the same two.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

PyTree = Any
Batch = Mapping[str, Any]  # name → array whose leading axis counts examples
Metrics = dict[str, jax.Array]  # name → scalar


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """What training changes: nothing else has to survive a crash but the seed and the data's name.

    Attributes:
      params: pytree of arrays, the primal coordinates.
      opt_state: pytree of arrays, whatever the update rule keeps.
      step: int32 scalar, how many updates have been applied (TensorFlow's global_step; the
        version of a parameter store).
    """

    params: PyTree
    opt_state: PyTree
    step: jax.Array


class Gradient(Protocol):
    """The covector of one batch: ∂(mean loss over the batch)/∂params, and scalars to report.

    A pure function of its arguments, so that a stale, a repeated and a replayed call agree. `key`
    is the only source of randomness. `metrics` holds at least `loss`.
    """

    def __call__(self, params: PyTree, batch: Batch, key: jax.Array, /) -> tuple[PyTree, Metrics]:
        """Return the gradient and the metrics."""
        ...


class Apply(Protocol):
    """One update of the parameters by a covector that is `staleness` versions old.

    Elementwise in the leaves: it may be given a shard of the state and the same shard of the
    gradients. Adds one to `state.step`.
    """

    def __call__(self, state: TrainState, grads: PyTree, staleness: jax.Array, /) -> TrainState:
        """Return the next state."""
        ...


@runtime_checkable
class Examples(Protocol):
    """Examples by number: `len(examples)`, and `examples[rows]` for an int64 array of rows.

    The answer maps names to numpy arrays whose leading axis is `len(rows)`. The same rows give the
    same bytes in every process, today and after a restart.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> Mapping[str, np.ndarray]: ...


class Task(Protocol):
    """A model, its loss, its data and its numbers: all that a loop needs to train it.

    `learn.tasks.Supervised` is the one to build; anything with these attributes will do.

    Attributes:
      name: what the task is called in logs, checkpoints and exports.
      train, test: the examples.
      batch_size: examples in one global batch.
      max_steps: updates after which training ends.
      settings: JSON-able facts that must not change when a run is resumed.
      inputs: name → (shape without the batch axis, dtype name) of what `predict` takes.
    """

    name: str
    train: Examples
    test: Examples
    batch_size: int
    max_steps: int
    settings: Mapping[str, Any]
    inputs: Mapping[str, tuple[tuple[int, ...], str]]
    gradient: Gradient
    apply: Apply

    def init(self, key: jax.Array, /) -> TrainState:
        """The state at step 0, a pure function of the key."""
        ...

    def evaluate(self, params: PyTree, batch: Batch, weight: jax.Array, /) -> Metrics:
        """Sums over the batch of weight × (loss, accuracy, …); a padded row has weight 0."""
        ...

    def predict(self, params: PyTree, inputs: Batch, /) -> Metrics:
        """What the exported artefact computes: named arrays from named arrays, row by row."""
        ...

    def learning_rate(self, step: int, /) -> float:
        """The learning rate of update `step`, for the record."""
        ...

    def histograms(self, params: PyTree, /) -> Metrics:
        """Named arrays whose distribution is worth watching; may be empty."""
        ...


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user says about a run, as a task is told it; None leaves a number to the task."""

    data: str | None = None
    batch_size: int | None = None
    max_steps: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    precision: str = "float32"


TaskFactory = Callable[[Options], Task]
