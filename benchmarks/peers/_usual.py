"""TensorFlow Probability on JAX and NumPyro: laws by the parameters of the textbooks, KL alone."""

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np

from benchmarks.peers._cells import Cell, columns, mirrored, whole
from benchmarks.peers._laws import COLUMNS, ROWS, D


def _zero_first(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return (np.concatenate([np.zeros_like(x[:, :1]), x], 1),)


def _mean_std(x: np.ndarray) -> tuple[np.ndarray, ...]:
    wide = x.astype(float)
    variance = -0.5 / wide[:, 1]
    return (wide[:, 0] * variance).astype(x.dtype), np.sqrt(variance).astype(x.dtype)


def _held_normal(parts: tuple) -> list:
    mean, std = (mp.mpf(float(x)) for x in parts)
    return [mean / std**2, -1 / (2 * std**2)]


def _mean_cholesky(x: np.ndarray) -> tuple[np.ndarray, ...]:
    h, half = mirrored(x.astype(float), True)
    covariance = np.linalg.inv(-2 * half)
    mean = np.einsum("bij,bj->bi", covariance, h)
    return mean.astype(x.dtype), np.linalg.cholesky(covariance).astype(x.dtype)


def _held_gaussian(parts: tuple) -> list:
    mean, low = (mp.matrix(np.asarray(x, float).tolist()) for x in parts)
    inverse = low**-1
    precision = inverse.T * inverse
    pairs = [(int(i), int(j)) for i, j in zip(ROWS, COLUMNS, strict=True)]
    entries = [-precision[i, j] / (2 if i == j else 1) for i, j in pairs]
    return [*(precision * mean)[:D], *entries]


def families(peer: str) -> dict[str, Callable[[], dict[str, Cell]]]:
    if peer == "tfp":
        from tensorflow_probability.substrates import jax as tfp

        made: Any = tfp.distributions

        def gap(p, q):
            return p.kl_divergence(q)

        def normal_5d(m, s):
            return made.MultivariateNormalTriL(m, s)

        more = {
            "bernoulli": (columns(0), lambda t: made.Bernoulli(logits=t), None),
            "categorical-10": (_zero_first, lambda t: made.Categorical(logits=t), None),
            "exponential": (lambda x: columns(0)(-x), made.Exponential, None),
            "chi-square": (lambda x: columns(0)(2 * x), made.Chi2, None),
        }
    else:
        import numpyro.distributions as made

        gap = made.kl_divergence

        def normal_5d(m, s):
            return made.MultivariateNormal(m, scale_tril=s)

        more = {}

    def signed(x):
        return columns(0, 1)(np.stack([x[:, 0], -x[:, 1]], 1))

    known = {
        "gamma": (signed, made.Gamma, None),
        "dirichlet-10": (whole, made.Dirichlet, None),
        "beta": (columns(0, 1), made.Beta, None),
        "normal": (_mean_std, made.Normal, _held_normal),
        "normal-5d": (_mean_cholesky, normal_5d, _held_gaussian),
        **more,
    }

    def cells(pack, law, held):
        def kl(*parts):
            half = len(parts) // 2
            return gap(law(*parts[:half]), law(*parts[half:]))

        return lambda: {"kl": Cell(pack, kl, np.asarray, held)}

    return {name: cells(*parts) for name, parts in known.items()}
