"""The families that peers are compared on: laws drawn, ours, and what is true, by mpmath."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

mp.mp.dps = 60
D = 5  # of the multivariate normal laws
ROWS, COLUMNS = np.tril_indices(D)
FAILED = 4  # r of the negative binomial laws
NEAR = 1e-4  # every other pair of a KL is so near, relatively; the others are drawn apart


class Law(NamedTuple):
    """One family, its points θ as ours has them.

    `draw(rng, count)` is a float64 array (count, n); `shift` says what peers subtract from θ (their
    coordinates are α − 1), so that points are drawn that neither has to round. `value`, `slope` and
    `hessian` are those of ψ, for lists of mpmath's numbers.
    """

    ours: Callable[[], Any]
    draw: Callable[[np.random.Generator, int], np.ndarray]
    value: Callable[[list], Any]
    slope: Callable[[list], list]
    hessian: Callable[[list], list]
    shift: Any = 0.0

    def settled(self, theta: np.ndarray, dtype: Any) -> np.ndarray:
        """θ in this dtype, so that θ and θ − shift are both numbers of it."""
        shift = np.asarray(self.shift, dtype)
        once = ((theta - shift).astype(dtype) + shift).astype(dtype)
        return once if np.any(shift) else theta.astype(dtype)

    def pairs(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """θ and θ′: apart and near, in turn."""
        first, apart = self.draw(rng, count), self.draw(rng, count)
        near = first * (1 + NEAR * rng.uniform(-1, 1, first.shape))
        every = np.arange(count)[:, None] % 2
        return first, np.where(every == 1, near, apart)

    def kl(self, p: list, q: list) -> Any:
        """KL(p ‖ q) at 60 digits."""
        steps = zip(self.slope(p), p, q, strict=True)
        return self.value(q) - self.value(p) - mp.fsum(s * (b - a) for s, a, b in steps)

    def inverse(self, eta: list, start: list) -> list:
        """The θ with ∇ψ(θ) = η, by Newton from a point that is right to a few digits."""
        theta = mp.matrix(start)
        for _ in range(6):
            at = list(theta)
            gap = mp.matrix([e - s for e, s in zip(eta, self.slope(at), strict=True)])
            step = mp.lu_solve(mp.matrix(self.hessian(at)), gap)
            theta = theta + step
            if mp.norm(step) < mp.mpf(10) ** -30 * mp.norm(theta):
                return list(theta)
        raise ArithmeticError("no θ to compare with")


def _uniform(low: float, high: float, n: int = 1) -> Callable:
    return lambda rng, count: rng.uniform(low, high, (count, n))


def _log_uniform(low: float, high: float, n: int = 1) -> Callable:
    return lambda rng, count: np.exp(rng.uniform(np.log(low), np.log(high), (count, n)))


def _diagonal(entries: list) -> list:
    return [[x if i == j else 0 * x for j, _ in enumerate(entries)] for i, x in enumerate(entries)]


def _scalar(value: Callable, slope: Callable, bend: Callable) -> dict[str, Callable]:
    return {
        "value": lambda t: value(t[0]),
        "slope": lambda t: [slope(t[0])],
        "hessian": lambda t: [[bend(t[0])]],
    }


def _odds(theta: list) -> list:
    odds = [mp.exp(t) for t in theta]
    return [x / (1 + mp.fsum(odds)) for x in odds]


def _multinomial(theta: list) -> list:
    p = _odds(theta)
    return [[(a if i == j else 0) - a * b for j, b in enumerate(p)] for i, a in enumerate(p)]


def _gamma_draw(rng: np.random.Generator, count: int) -> np.ndarray:
    shape, rate = _log_uniform(0.1, 50.0, 2)(rng, count).T
    return np.stack([shape, -rate], 1)


def _dirichlet(n: int, ours: Callable) -> Law:
    def slope(alpha):
        whole = mp.digamma(mp.fsum(alpha))
        return [mp.digamma(a) - whole for a in alpha]

    def hessian(alpha):
        whole = mp.psi(1, mp.fsum(alpha))
        return [[x - whole for x in row] for row in _diagonal([mp.psi(1, a) for a in alpha])]

    return Law(
        ours,
        _log_uniform(0.1, 50.0, n),
        lambda a: mp.fsum(map(mp.loggamma, a)) - mp.loggamma(mp.fsum(a)),
        slope,
        hessian,
        shift=np.ones(n),
    )


def _normal_draw(rng: np.random.Generator, count: int) -> np.ndarray:
    mean, std = rng.uniform(-3, 3, count), np.exp(rng.uniform(-1.5, 1.5, count))
    return np.stack([mean / std**2, -0.5 / std**2], 1)


def _normal_hessian(t: list) -> list:
    variance = -1 / (2 * t[1])
    mean = t[0] * variance
    across = 2 * mean * variance
    return [[variance, across], [across, 4 * mean**2 * variance + 2 * variance**2]]


def _gaussian_draw(rng: np.random.Generator, count: int) -> np.ndarray:
    root = rng.normal(size=(count, D, D)) / np.sqrt(D)
    precision = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(D)
    mean = rng.uniform(-2, 2, (count, D))
    entries = -precision[:, ROWS, COLUMNS] * np.where(ROWS == COLUMNS, 0.5, 1.0)
    return np.concatenate([np.einsum("bij,bj->bi", precision, mean), entries], 1)


def gaussian_moments(theta: list) -> tuple[list, Any, Any]:
    """μ, Σ and Λ of the multivariate normal law θ."""
    precision = mp.matrix(D, D)
    for t, i, j in zip(theta[D:], ROWS, COLUMNS, strict=True):
        precision[int(i), int(j)] = precision[int(j), int(i)] = -2 * t if i == j else -t
    covariance = precision**-1
    return list(covariance * mp.matrix(theta[:D])), covariance, precision


def _gaussian_value(theta: list) -> Any:
    mean, _, precision = gaussian_moments(theta)
    whole = mp.fsum(m * t for m, t in zip(mean, theta[:D], strict=True))
    return (whole - mp.log(mp.det(precision))) / 2


def _gaussian_slope(theta: list) -> list:
    m, s, _ = gaussian_moments(theta)
    pairs = [(int(i), int(j)) for i, j in zip(ROWS, COLUMNS, strict=True)]
    return m + [s[i, j] + m[i] * m[j] for i, j in pairs]


def _gaussian_hessian(theta: list) -> list:
    m, s, _ = gaussian_moments(theta)
    pairs = [(int(i), int(j)) for i, j in zip(ROWS, COLUMNS, strict=True)]

    def third(i, j, k):
        return s[i, j] * m[k] + s[i, k] * m[j]

    def fourth(i, j, k, w):
        wick = s[i, k] * s[j, w] + s[i, w] * s[j, k]
        return wick + m[i] * third(j, k, w) + m[j] * third(i, k, w)

    top = [[s[i, j] for j in range(D)] + [third(i, *b) for b in pairs] for i in range(D)]
    low = [[third(i, *a) for i in range(D)] + [fourth(*a, *b) for b in pairs] for a in pairs]
    return top + low


def _sphere_draw(rng: np.random.Generator, count: int) -> np.ndarray:
    mean = rng.normal(size=(count, 3))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean * _log_uniform(0.1, 50.0)(rng, count)


def _sphere(theta: list) -> tuple[Any, Any, Any, Any]:
    """κ, ψ, A and A′ on the sphere in space."""
    kappa = mp.norm(mp.matrix(theta))
    ratio = mp.coth(kappa) - 1 / kappa
    value = mp.log(4 * mp.pi * mp.sinh(kappa) / kappa)
    return kappa, value, ratio, 1 / kappa**2 - 1 / mp.sinh(kappa) ** 2


def _sphere_hessian(theta: list) -> list:
    kappa, _, ratio, slope = _sphere(theta)
    per, mean = ratio / kappa, [t / kappa for t in theta]
    return [
        [(per if i == j else 0) + (slope - per) * a * b for j, b in enumerate(mean)]
        for i, a in enumerate(mean)
    ]


def _inverse_gaussian_hessian(t: list) -> list:
    a, b = -t[0], -t[1]
    return [
        [mp.sqrt(b / a) / a / 2, -1 / mp.sqrt(a * b) / 2],
        [-1 / mp.sqrt(a * b) / 2, mp.sqrt(a / b) / b / 2 + 1 / (2 * b * b)],
    ]


def _ours(module: str, name: str, *args: Any) -> Callable[[], Any]:
    def make():
        import importlib

        return getattr(importlib.import_module(f"dualflat.geometry.families.{module}"), name)(*args)

    return make


LAWS: dict[str, Law] = {
    "bernoulli": Law(
        _ours("binomial", "Bernoulli"),
        _uniform(-6.0, 6.0),
        **_scalar(
            lambda t: mp.log1p(mp.exp(t)),
            lambda t: 1 / (1 + mp.exp(-t)),
            lambda t: 1 / (1 + mp.exp(-t)) / (1 + mp.exp(t)),
        ),
    ),
    "categorical-10": Law(
        _ours("categorical", "Categorical", 9),
        _uniform(-3.0, 3.0, 9),
        lambda t: mp.log(1 + mp.fsum(map(mp.exp, t))),
        _odds,
        _multinomial,
    ),
    "poisson": Law(
        _ours("poisson", "Poisson"), _uniform(-4.0, 6.0), **_scalar(mp.exp, mp.exp, mp.exp)
    ),
    "exponential": Law(
        _ours("rates", "Exponential"),
        lambda rng, count: -_log_uniform(0.02, 50.0)(rng, count),
        **_scalar(lambda t: -mp.log(-t), lambda t: -1 / t, lambda t: 1 / t**2),
    ),
    "gamma": Law(
        _ours("gamma", "Gamma"),
        _gamma_draw,
        lambda t: mp.loggamma(t[0]) - t[0] * mp.log(-t[1]),
        lambda t: [mp.digamma(t[0]) - mp.log(-t[1]), -t[0] / t[1]],
        lambda t: [[mp.psi(1, t[0]), -1 / t[1]], [-1 / t[1], t[0] / t[1] ** 2]],
        shift=np.array([1.0, 0.0]),
    ),
    "dirichlet-10": _dirichlet(10, _ours("dirichlet", "Dirichlet", 10)),
    "beta": _dirichlet(2, _ours("beta", "Beta")),
    "normal": Law(
        _ours("normal", "Normal"),
        _normal_draw,
        lambda t: -(t[0] ** 2) / (4 * t[1]) - mp.log(-2 * t[1]) / 2,
        lambda t: [-t[0] / (2 * t[1]), (t[0] / (2 * t[1])) ** 2 - 1 / (2 * t[1])],
        _normal_hessian,
    ),
    "normal-5d": Law(
        _ours("gaussian", "Gaussian", D),
        _gaussian_draw,
        _gaussian_value,
        _gaussian_slope,
        _gaussian_hessian,
    ),
    "von-mises-fisher-3": Law(
        _ours("von_mises_fisher", "VonMisesFisher", 3),
        _sphere_draw,
        lambda t: _sphere(t)[1],
        lambda t: [_sphere(t)[2] / _sphere(t)[0] * x for x in t],
        _sphere_hessian,
    ),
    "inverse-gaussian": Law(
        _ours("inverse_gaussian", "InverseGaussian"),
        lambda rng, count: -_log_uniform(0.05, 20.0, 2)(rng, count),
        lambda t: -2 * mp.sqrt(t[0] * t[1]) - mp.log(-2 * t[1]) / 2,
        lambda t: [mp.sqrt(t[1] / t[0]), mp.sqrt(t[0] / t[1]) - 1 / (2 * t[1])],
        _inverse_gaussian_hessian,
    ),
    "negative-binomial": Law(
        _ours("negative_binomial", "NegativeBinomial", float(FAILED)),
        lambda rng, count: -_log_uniform(0.02, 5.0)(rng, count),
        **_scalar(
            lambda t: -FAILED * mp.log(-mp.expm1(t)),
            lambda t: FAILED / mp.expm1(-t),
            lambda t: FAILED * mp.exp(t) / mp.expm1(t) ** 2,
        ),
    ),
    "chi-square": Law(
        _ours("gamma", "ChiSquare"),
        _log_uniform(0.1, 50.0),
        **_scalar(
            lambda t: mp.loggamma(t) + t * mp.log(2),
            lambda t: mp.digamma(t) + mp.log(2),
            lambda t: mp.psi(1, t),
        ),
        shift=np.ones(1),
    ),
}
