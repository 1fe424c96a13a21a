"""goal-jax: manifolds whose maps are derivatives of ψ and φ by autodiff; a batch is `jax.vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from goal.geometry import PositiveDefinite
from goal.models import Categorical, Normal, Poisson

from benchmarks.peers._cells import UPPER, Cell, only, permuted, whole


def _cells(manifold: Any, order: Any = None) -> dict[str, Cell]:
    def pack(x):
        return whole(x if order is None else np.ascontiguousarray(x[:, order]))

    def read(value):
        value = only(value)
        return value if order is None else value[:, np.argsort(order)]

    def to_eta(theta):
        return manifold.to_mean(manifold.natural_point(theta)).array

    def to_theta(eta):
        return manifold.to_natural(manifold.mean_point(eta)).array

    def kl(p, q):
        mean = manifold.to_mean(manifold.natural_point(p))
        return manifold.relative_entropy(mean, manifold.natural_point(q))

    def potential(theta):
        return manifold.log_partition_function(manifold.natural_point(theta))

    metric = np.asarray if order is None else permuted(order)
    return {
        "to_eta": Cell(pack, jax.vmap(to_eta), read),
        "to_theta": Cell(pack, jax.vmap(to_theta), read),
        "kl": Cell(pack, jax.vmap(kl), np.asarray),
        "fisher": Cell(pack, jax.vmap(jax.hessian(potential)), metric),  # it has none of its own
    }


FAMILIES: dict[str, Callable[[], dict[str, Cell]]] = {
    "categorical-10": lambda: _cells(Categorical(10)),
    "poisson": lambda: _cells(Poisson()),
    "normal": lambda: _cells(Normal(1, PositiveDefinite)),
    "normal-5d": lambda: _cells(Normal(5, PositiveDefinite), UPPER),
}
