"""A task made of a model and labelled examples: what most users need to write their own."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dualflat.contracts import Apply, Batch, Gradient, Metrics, PyTree, TrainState
from dualflat.learn import optim
from dualflat.learn.losses import classification_gap
from dualflat.learn.step import init_state, make_apply, make_gradient

Initialise = Callable[[Array], PyTree]
Model = Callable[[PyTree, Array, Array | None], Array]
Precision = Literal["float32", "bfloat16"]


class ArrayExamples:
    """Examples held in memory: arrays whose leading axes all count the same examples.

        train = ArrayExamples({"image": images, "label": labels})

    Meets `contracts.Examples`. The arrays are not copied; leave them as they are.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        """Take name → array.

        Raises:
          ValueError: there is no array, or no example, or the arrays differ in how many they hold.
        """
        self._arrays = {name: np.asarray(array) for name, array in arrays.items()}
        sizes = {name: array.shape[0] if array.ndim else 0 for name, array in self._arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                f"ArrayExamples: the arrays hold {sizes} examples;"
                " give at least one array, and as many examples in each, at least one."
            )
        self._size = next(iter(sizes.values()))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, rows: np.ndarray, /) -> dict[str, np.ndarray]:
        return {name: array[rows] for name, array in self._arrays.items()}

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        # Without this, Python would try [0], [1], … and never meet the end it looks for.
        raise TypeError("ArrayExamples are read by rows: examples[np.arange(10)].")

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the names, types, shapes and bytes of all arrays."""
        found = hashlib.sha256()
        for name in sorted(self._arrays):
            array = self._arrays[name]
            found.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


class RecordExamples:
    """Examples read one by one, for what does not fit in memory: a `grain.MapDataset`, a list, ….

        train = RecordExamples(grain.MapDataset.source(files).map(decode))

    Meets `contracts.Examples`. `records` has a length, and `records[k]` is the example k, a mapping
    from names to numbers or arrays, the same whenever it is asked for. The feed's thread reads it.
    """

    def __init__(self, records: Any):
        """Take the records.

        Raises:
          ValueError: there are none.
        """
        if len(records) < 1:
            raise ValueError("RecordExamples: there are no records; give at least one.")
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, rows: np.ndarray, /) -> dict[str, np.ndarray]:
        found = [self._records[int(row)] for row in rows]
        return {name: np.stack([record[name] for record in found]) for name in found[0]}

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        raise TypeError("RecordExamples are read by rows: examples[np.arange(10)].")


def of_module(module: Any, shape: tuple[int, ...]) -> tuple[Initialise, Model]:
    """The two functions of a `flax.linen` module, as `Supervised` takes them.

    Args:
      module: its `__call__(x, *, train)` gives scores; in training it may draw from the random
        stream `dropout`. Parameters only: no batch statistics or other state.
      shape: of one input, without the batch axis.

    Returns:
      (key → params, (params, inputs, key or None) → scores). A key means training.
    """

    def initialise(key: Array) -> PyTree:
        return module.init(key, jnp.zeros((1, *shape)), train=False)["params"]

    def model(params: PyTree, inputs: Array, key: Array | None) -> Array:
        streams = None if key is None else {"dropout": key}
        return module.apply({"params": params}, inputs, train=key is not None, rngs=streams)

    return initialise, model


@dataclasses.dataclass(frozen=True)
class Supervised:
    """Learn to tell the label of an image, or of any array, from examples. A `contracts.Task`.

    Examples hold `image`, any shape, uint8 (taken as 0 to 255, and scaled to [0, 1] where the step
    is computed: bytes travel four times lighter than floats) or floating (taken as it is); and
    `label`, integers.

    A training loss is the mean over the batch of the Fenchel-Young gap between the categorical law
    that the scores name and the label, which is the cross entropy of the softmax.

    Attributes:
      name: what the task is called.
      initialise: key → params, a pytree of arrays.
      model: (params, image, key) → scores (logits) of shape (batch, classes). `image` is floating
        with a batch axis; `key` is the source of randomness in training, None otherwise.
      train, test: the examples.
      batch_size, max_steps: numbers of the run.
      optimizer: a name in `optim.NAMES`, or an optax transformation, elementwise in the leaves.
      rate: learning rate, or a schedule step → rate. With a transformation of your own it is only
        reported.
      precision: what the model computes in; parameters and loss are float32 either way.
      watch: params → named arrays whose distribution is worth watching.
    """

    name: str
    initialise: Initialise
    model: Model
    train: ArrayExamples | Any
    test: ArrayExamples | Any
    batch_size: int = 100
    max_steps: int = 10_000
    optimizer: str | optax.GradientTransformation = "adam"
    rate: float | Callable[[Any], Any] = 1e-3
    precision: Precision = "float32"
    watch: Callable[[PyTree], Metrics] | None = None

    def __post_init__(self):
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision {self.precision!r}: choose float32 or bfloat16.")
        if self.batch_size < 1 or self.max_steps < 1:
            raise ValueError(
                f"batch_size {self.batch_size}, max_steps {self.max_steps}: both are at least 1."
            )
        for role, examples in (("train", self.train), ("test", self.test)):
            first = examples[np.arange(1)]
            missing = {"image", "label"} - set(first)
            if missing:
                raise ValueError(
                    f"{role} examples hold {sorted(first)}; {sorted(missing)} is missing."
                )
        _ = self.tx  # an unknown optimizer is an error here, not in the middle of a trace

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        """The update rule."""
        if isinstance(self.optimizer, str):
            return optim.by_name(self.optimizer, self.rate)
        return self.optimizer

    @functools.cached_property
    def settings(self) -> Mapping[str, Any]:
        """What must be the same when a run is resumed; the data by their SHA-256."""
        return {
            "task": self.name,
            "data": {"train": _identity(self.train), "test": _identity(self.test)},
            "batch_size": self.batch_size,
            "optimizer": self.optimizer if isinstance(self.optimizer, str) else "custom",
            "learning_rate": "schedule" if callable(self.rate) else self.rate,
            "precision": self.precision,
        }

    @functools.cached_property
    def inputs(self) -> Mapping[str, tuple[tuple[int, ...], str]]:
        """`key` passes through `predict`; `image` has the shape of a training image."""
        shape = np.shape(self.train[np.arange(1)]["image"])[1:]
        return {"key": ((), "int64"), "image": (shape, "float32")}

    @functools.cached_property
    def gradient(self) -> Gradient:
        """(params, batch, key) → (gradient of the mean loss, {loss, accuracy})."""

        def loss(params: PyTree, batch: Batch, key: Array) -> tuple[Array, Metrics]:
            scores = self._scores(params, batch["image"], key)
            gap = classification_gap(scores, batch["label"])
            return gap.mean(), {"accuracy": _correct(scores, batch["label"]).mean()}

        return make_gradient(loss)

    @functools.cached_property
    def apply(self) -> Apply:
        """(state, grads, staleness) → state, by the update rule."""
        return make_apply(self.tx)

    def init(self, key: Array, /) -> TrainState:
        """The state at step 0, a pure function of the key."""
        return init_state(self.tx, self.initialise(key))

    def evaluate(self, params: PyTree, batch: Batch, weight: Array, /) -> Metrics:
        """Sums over the batch of weight × loss and of weight × [the best score is the label's]."""
        scores = self._scores(params, batch["image"], None)
        gap = classification_gap(scores, batch["label"])
        # A row of weight 0 is padding: whatever its loss, also NaN, it must not count.
        return {
            "loss": jnp.where(weight > 0, weight * gap, 0.0).sum(),
            "accuracy": (weight * _correct(scores, batch["label"])).sum(),
        }

    def predict(self, params: PyTree, inputs: Batch, /) -> Metrics:
        """Name → array: `key` as given, `scores` the probability of each class."""
        scores = self._scores(params, inputs["image"], None)
        return {"key": inputs["key"], "scores": jax.nn.softmax(scores)}

    def learning_rate(self, step: int, /) -> float:
        """The learning rate of update `step`, for the record."""
        return float(self.rate(step)) if callable(self.rate) else float(self.rate)

    def histograms(self, params: PyTree, /) -> Metrics:
        """Named arrays whose distribution is worth watching."""
        return {} if self.watch is None else self.watch(params)

    def _scores(self, params: PyTree, image: Array, key: Array | None) -> Array:
        dtype = jnp.dtype(self.precision)
        if image.dtype == jnp.uint8:
            image = image.astype(jnp.float32) / 255
        if dtype != jnp.float32:
            image = image.astype(dtype)
            params = jax.tree.map(lambda p: p.astype(dtype), params)
        return self.model(params, image, key).astype(jnp.float32)


def _correct(scores: Array, labels: Array) -> Array:
    return (scores.argmax(-1) == labels).astype(jnp.float32)


def _identity(examples: Any) -> str:
    """What names the data in the record of a run; their number where they carry no digest."""
    return getattr(examples, "digest", None) or f"{len(examples)} examples"
