"""The same potentials in mpmath, and points at chosen distances."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
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

    def jensen(self, theta, other, s):
        """(1−s)ψ(θ) + sψ(θ′) − ψ((1−s)θ + sθ′)."""
        p, q = [[mp.mpf(float(x)) for x in point] for point in (theta, other)]
        m = [(1 - s) * a + s * b for a, b in zip(p, q, strict=True)]
        return (1 - s) * self.value(p) + s * self.value(q) - self.value(m)

    def renyi(self, theta, other, order):
        if order == 1:
            return self.bregman(other, theta)
        return self.jensen(theta, other, 1 - order) / (1 - order)

    def alpha(self, theta, other, alpha):
        if abs(alpha) == 1:
            return self.bregman(*(theta, other)[:: int(alpha)])
        s = (1 + alpha) / 2
        return -mp.expm1(-self.jensen(theta, other, s)) / (s * (1 - s))

    def chernoff(self, theta, other):
        """The information and the exponent, by bisection on the slope."""
        p, q = [[mp.mpf(float(x)) for x in point] for point in (theta, other)]
        low, high, rise = mp.mpf(0), mp.mpf(1), self.value(q) - self.value(p)
        while high - low > mp.mpf(10) ** -40:
            s = (low + high) / 2
            m = [(1 - s) * a + s * b for a, b in zip(p, q, strict=True)]
            slope = sum(
                g * (b - a) for g, a, b in zip(self.gradient(m), p, q, strict=True)
            )  # of ψ(m); rises from below the chord's to above
            low, high = (s, high) if slope < rise else (low, s)
        return self.jensen(theta, other, s), s


def _categorical_gradient(theta):
    total = 1 + sum(mp.exp(t) for t in theta)
    return [mp.exp(t) / total for t in theta]


def _matrices(theta, d=2):
    h = mp.matrix(theta[:d])
    a = -2 * theta[2], -theta[3], -2 * theta[4]
    return h, mp.matrix([[a[0], a[1]], [a[1], a[2]]])


def _gaussian_value(theta):
    h, precision = _matrices(theta)
    if precision[0, 0] <= 0 or mp.det(precision) <= 0:
        return mp.inf
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


def log_sum_exp(theta):
    return jax.nn.logsumexp(theta)


def burg(theta):
    return -jnp.log(-theta).sum()


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
# Bare functions where the two forms have most to bear: a value of 1e4 with a bend of size 1, and
# coordinates eleven orders of magnitude apart. Steps along `direction`, of its own length.
HARD = {
    "log-sum-exp at 1e4": Exact(
        log_sum_exp,
        np.array([1e4, 1e4 + 0.75, 1e4 - 1.5]),
        np.array([0.5, -0.25, 1.0]),
        lambda t: t[0] + mp.log(sum(mp.exp(x - t[0]) for x in t)),
        lambda t: [1 / sum(mp.exp(y - x) for y in t) for x in t],
    ),
    "burg at many scales": Exact(
        burg,
        np.array([-(2.0**-20), -1.5, -(2.0**17)]),
        np.array([-(2.0**-21), 0.125, -(2.0**15)]),
        lambda t: -sum(mp.log(-x) for x in t),
        lambda t: [-1 / x for x in t],
    ),
}
STEPS = (1e-6, 1e-3, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
DISTANCES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def away(exact, distances, dtype):
    """Points θ (k, n) at the relative distances that survive rounding to dtype, and the base."""
    base = exact.base.astype(dtype)
    step = np.linalg.norm(exact.base) * exact.direction / np.linalg.norm(exact.direction)
    thetas = (exact.base + np.asarray(distances)[:, None] * step).astype(dtype)
    return thetas, base
