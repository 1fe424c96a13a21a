"""The same potentials in mpmath, and points at chosen distances."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import mpmath as mp
import numpy as np

from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian

mp.mp.dps = 60


def user_made(theta):
    """What a user writes: no methods, no domain, no closed form of anything."""
    return jnp.exp(theta).sum() + 0.25 * (theta**2).sum() ** 2 + jnp.logaddexp(0.0, theta[0])


@dataclasses.dataclass(frozen=True)
class Exact:
    psi: Any
    base: np.ndarray  # float64, a point well inside the domain
    direction: np.ndarray  # |Δ| = distance · |base| along it stays inside the domain up to 10
    value: Callable[[list], Any]  # mpmath ψ
    gradient: Callable[[list], list]

    def bregman(self, theta, base):
        p, q = [[mp.mpf(float(x)) for x in point] for point in (theta, base)]
        slope = sum(g * (a - b) for g, a, b in zip(self.gradient(q), p, q, strict=True))
        return self.value(p) - self.value(q) - slope


def _categorical_gradient(theta):
    total = 1 + sum(mp.exp(t) for t in theta)
    return [mp.exp(t) / total for t in theta]


def _matrices(theta, d=2):
    h = mp.matrix(theta[:d])
    a = -2 * theta[2], -theta[3], -2 * theta[4]
    return h, mp.matrix([[a[0], a[1]], [a[1], a[2]]])


def _gaussian_value(theta):
    h, precision = _matrices(theta)
    quadratic = (h.T * mp.inverse(precision) * h)[0]
    return (quadratic - mp.log(mp.det(precision)) + 2 * mp.log(2 * mp.pi)) / 2


def _gaussian_gradient(theta):
    h, precision = _matrices(theta)
    covariance = mp.inverse(precision)
    mean = covariance * h
    second = covariance + mean * mean.T
    return [mean[0], mean[1], second[0, 0], second[1, 0], second[1, 1]]


def _user_value(theta):
    square = sum(t * t for t in theta)
    return sum(mp.exp(t) for t in theta) + square**2 / 4 + mp.log1p(mp.exp(theta[0]))


def _user_gradient(theta):
    square = sum(t * t for t in theta)
    slopes = [mp.exp(t) + square * t for t in theta]
    slopes[0] += 1 / (1 + mp.exp(-theta[0]))
    return slopes


EXACT = {
    "categorical": Exact(
        Categorical(3),
        np.array([0.5, -1.25, 2.0]),
        np.array([0.8, -0.3, 0.52]),
        lambda t: mp.log1p(sum(mp.exp(x) for x in t)),
        _categorical_gradient,
    ),
    "gaussian": Exact(
        Gaussian(2),
        np.array([0.75, -0.5, -0.5, 0.25, -1.0]),
        np.array([0.5, 0.3, -0.6, 0.1, -0.5]),  # away from the edge, at any length
        _gaussian_value,
        _gaussian_gradient,
    ),
    "user-made": Exact(
        user_made,
        np.array([0.5, -0.75]),
        np.array([0.6, 0.8]),
        _user_value,
        _user_gradient,
    ),
}
DISTANCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def away(exact, distances, dtype):
    """Points θ (k, n) at the relative distances that survive rounding to dtype, and the base."""
    base = exact.base.astype(dtype)
    step = np.linalg.norm(exact.base) * exact.direction / np.linalg.norm(exact.direction)
    thetas = (exact.base + np.asarray(distances)[:, None] * step).astype(dtype)
    return thetas, base
