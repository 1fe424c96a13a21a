"""A task that compiles in a second and has all that a real one has: noise, Adam, ragged leaves."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dualflat.contracts import TrainState

CLASSES, PIXELS = 3, 12


class Blobs:
    """Three noisy blobs in twelve dimensions: example k is a pure function of k and the seed."""

    def __init__(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._label = rng.integers(0, CLASSES, size).astype(np.int32)
        centres = np.eye(CLASSES, PIXELS, dtype=np.float32) * 3
        noise = rng.normal(size=(size, PIXELS)).astype(np.float32)
        self._image = centres[self._label] + noise

    def __len__(self) -> int:
        return len(self._label)

    def __getitem__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self._image[rows], "label": self._label[rows]}


@dataclasses.dataclass(frozen=True)
class Tiny:
    """Softmax regression with a hidden layer of 7 and dropout; 7 and 3 divide by no mesh axis."""

    max_steps: int = 20
    batch_size: int = 16
    optimizer: str = "adam"
    learning_rate_: float = 1e-2
    name: str = "tiny"
    train: Any = dataclasses.field(default_factory=lambda: Blobs(200, 1))
    test: Any = dataclasses.field(default_factory=lambda: Blobs(61, 2))
    poison: int = 2**31 - 1  # the step whose loss is NaN
    inputs: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"key": ((), "int64"), "image": ((PIXELS,), "float32")}
    )

    @property
    def settings(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "optimizer": self.optimizer}

    @property
    def tx(self) -> optax.GradientTransformation:
        return {"adam": optax.adam, "sgd": optax.sgd}[self.optimizer](self.learning_rate_)

    def init(self, key):
        a, b = jax.random.split(key)
        params = {
            "hidden": {"w": 0.3 * jax.random.normal(a, (PIXELS, 7)), "b": jnp.zeros(7)},
            "out": {"w": 0.3 * jax.random.normal(b, (7, CLASSES)), "b": jnp.zeros(CLASSES)},
        }
        return TrainState(params, self.tx.init(params), jnp.int32(0))

    def _logits(self, params, image, key=None):
        h = jnp.tanh(image @ params["hidden"]["w"] + params["hidden"]["b"])
        if key is not None:
            h = jnp.where(jax.random.bernoulli(key, 0.8, h.shape), h / 0.8, 0)
        return h @ params["out"]["w"] + params["out"]["b"]

    def gradient(self, params, batch, key):
        def loss(params):
            logits = self._logits(params, batch["image"], key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        return grads, {"loss": value}

    def apply(self, state, grads, staleness):
        del staleness
        updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = jax.tree.map(lambda x: jnp.where(state.step == self.poison, jnp.nan, x), params)
        return TrainState(params, opt_state, state.step + 1)

    def evaluate(self, params, batch, weight):
        logits = self._logits(params, batch["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        right = logits.argmax(-1) == batch["label"]
        return {"loss": (weight * losses).sum(), "accuracy": (weight * right).sum()}

    def predict(self, params, inputs):
        return {
            "key": inputs["key"],
            "scores": jax.nn.softmax(self._logits(params, inputs["image"])),
        }

    def learning_rate(self, step):
        return self.learning_rate_

    def histograms(self, params):
        return {"hidden": params["hidden"]["w"]}
