"""normix: one law an object, in float64 only; a batch is `jax.vmap`."""

from collections.abc import Callable
from typing import Any

import jax
import normix
import numpy as np

from benchmarks.peers._cells import Cell, halves, mirrored, only, whole
from benchmarks.peers._laws import D


def _cells(law: Any, shift: Any, pack: Callable = whole, read: Callable = only) -> dict[str, Cell]:
    def packed(theta):
        return pack(theta - np.asarray(shift, theta.dtype))

    def batched(one):
        return lambda *parts: jax.vmap(one)(*parts)

    def kl(p, q):
        return law.from_natural(p).kl_divergence(law.from_natural(q))

    def to_theta(eta):
        return law.from_expectation(eta).natural_params()

    cells = {
        "to_eta": Cell(packed, batched(law._grad_log_partition), read),
        "to_theta": Cell(pack, batched(to_theta), lambda v: read(v) + shift),
        "kl": Cell(packed, batched(kl), np.asarray),
        "fisher": Cell(packed, batched(law._hessian_log_partition), np.asarray),
    }
    if law is normix.MultivariateNormal:
        del cells["fisher"]  # all d² entries are its coordinates: the matrix is singular
    return cells


def _flat(halved: bool) -> Callable:
    def pack(x):
        first, matrix = mirrored(x, halved)
        return (np.concatenate([first, matrix.reshape(len(x), -1)], 1),)

    return pack


def _gaussian() -> dict[str, Cell]:
    def read(doubled):
        return lambda v: halves((v[:, :D], np.asarray(v)[:, D:].reshape(-1, D, D)), doubled)

    law = normix.MultivariateNormal
    cells = _cells(law, 0.0, _flat(True), read(True))
    return cells | {
        "to_eta": cells["to_eta"]._replace(read=read(False)),
        "to_theta": cells["to_theta"]._replace(pack=_flat(False)),
    }


FAMILIES: dict[str, Callable[[], dict[str, Cell]]] = {
    "gamma": lambda: _cells(normix.Gamma, np.array([1.0, 0.0])),
    "inverse-gaussian": lambda: _cells(normix.InverseGaussian, 0.0),
    "normal-5d": _gaussian,
}
