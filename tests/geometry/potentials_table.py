"""Every potential once: one line here earns it every law and every comparison with the truth."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import mpmath as mp
import numpy as np

from dualflat.geometry.algebra import AffineImage, Dual, Product, Scaled, Sum
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.potentials.barriers import LogBarrier, LogDet
from dualflat.geometry.potentials.entropies import Burg, Hellinger, NegativeEntropy
from dualflat.geometry.potentials.logistic import BitEntropy, LogCosh, Softplus
from dualflat.geometry.potentials.norms import PNorm, QuadraticForm
from dualflat.geometry.potentials.simplex import LogSumExp, SimplexEntropy

mp.mp.dps = 60


@dataclasses.dataclass(frozen=True)
class Entry:
    """A potential, points well inside its domain, the same ψ and ∇ψ in mpmath, and what is outside.

    `draw(rng, count)` gives float64 points (count, n). `value` and `gradient` take lists of mpf.
    """

    psi: Any
    draw: Callable[[np.random.Generator, int], np.ndarray]
    value: Callable[[list], Any]
    gradient: Callable[[list], list]
    outside: tuple = ()  # points that are in no domain
    unreachable: tuple = ()  # dual coordinates that no point has


def uniform(low, high, n):
    return lambda rng, count: rng.uniform(low, high, (count, n))


def separable(psi, low, high, f, slope, outside=(), unreachable=()):
    """An entry for Σ f(θᵢ). `outside` and `unreachable` are numbers; the other entries are good."""
    n = psi.dim

    def spoilt(numbers, good):
        return tuple(np.array([x, *[good] * (n - 1)]) for x in (*numbers, np.nan, np.inf))

    middle = (low + high) / 2
    return Entry(
        psi,
        uniform(low, high, n),
        lambda theta: mp.fsum(f(t) for t in theta),
        lambda theta: [slope(t) for t in theta],
        spoilt(outside, middle),
        spoilt(unreachable, float(slope(mp.mpf(middle)))),
    )


def symmetric(entries, d):
    x = mp.matrix(d, d)
    for value, i, j in zip(entries, *np.tril_indices(d), strict=True):
        x[int(i), int(j)] = x[int(j), int(i)] = value
    return x


def minus_twice_inverse(theta, d):
    inverse = mp.inverse(symmetric(theta, d))
    pairs = zip(*np.tril_indices(d), strict=True)
    return [-inverse[int(i), int(j)] * (1 if i == j else 2) for i, j in pairs]


def definite_points(d):
    def draw(rng, count):
        roots = rng.normal(size=(count, d, d)) * 0.4 + np.eye(d)
        matrices = roots @ np.swapaxes(roots, 1, 2) + 0.2 * np.eye(d)
        return matrices[:, *np.tril_indices(d)]

    return draw


SQUARE = np.array([[2.0, 0.5, -0.25], [0.5, 1.0, 0.125], [-0.25, 0.125, 4.0]])
DIAGONAL = np.array([0.25, 3.0, 16.0])
# A triangle with one corner cut off, and one inequality that is never tight.
SIDES = np.array([[1.0, 1.0], [-1.0, 0.5], [0.25, -1.0], [1.0, 0.0], [0.0, 1.0]])
BOUNDS = np.array([1.0, 1.0, 1.5, 0.75, 8.0])


def form(matrix):
    exact = mp.matrix(matrix.tolist())

    def gradient(theta):
        return list(exact * mp.matrix(theta))

    def value(theta):
        return mp.fsum(t * e for t, e in zip(theta, gradient(theta), strict=True)) / 2

    return value, gradient


def slacks(theta):
    rows = zip(SIDES, BOUNDS, strict=True)
    return [
        mp.mpf(b) - mp.fsum(float(a) * t for a, t in zip(row, theta, strict=True))
        for row, b in rows
    ]


def barrier_gradient(theta):
    s = slacks(theta)
    return [mp.fsum(float(a) / x for a, x in zip(column, s, strict=True)) for column in SIDES.T]


def softplus(t):
    return mp.log1p(mp.exp(t)) if t < 0 else t + mp.log1p(mp.exp(-t))


def power(p):
    p = mp.mpf(p)
    return lambda t: abs(t) ** p / p, lambda t: mp.sign(t) * abs(t) ** (p - 1)


def bit_entropy(t):
    return t * mp.log(t) + (1 - t) * mp.log1p(-t)


def simplex_points(n):
    return lambda rng, count: rng.dirichlet(np.full(n + 1, 3.0), count)[:, 1:]


def log_sum_exp(theta):
    return mp.log1p(mp.fsum(mp.exp(t) for t in theta))


def probabilities(theta):
    total = mp.exp(log_sum_exp(theta))
    return [mp.exp(t) / total for t in theta]


def simplex_entropy(theta):
    return mp.fsum(t * mp.log(t) for t in [1 - mp.fsum(theta), *theta])


def logits(theta):
    rest = 1 - mp.fsum(theta)
    return [mp.log(t / rest) for t in theta]


def dirichlet(theta):
    return mp.fsum(mp.loggamma(t) for t in theta) - mp.loggamma(mp.fsum(theta))


def dirichlet_means(theta):
    total = mp.digamma(mp.fsum(theta))
    return [mp.digamma(t) - total for t in theta]


def log_odds(t):
    return mp.log(t) - mp.log1p(-t)


def bare(theta):
    """Softplus as a user writes it, knowing nothing."""
    return jnp.logaddexp(0.0, theta).sum()


def affine(entry, matrix, offset, slope):
    """The entry's ψ after θ ↦ Aθ + b, plus ⟨c, θ⟩ + 0.5."""
    rows, columns = matrix.tolist(), matrix.T.tolist()

    def dot(a, b):
        return mp.fsum(x * y for x, y in zip(a, b, strict=True))

    def image(theta):
        return [dot(row, theta) + b for row, b in zip(rows, offset.tolist(), strict=True)]

    def gradient(theta):
        eta = entry.gradient(image(theta))
        return [dot(column, eta) + c for column, c in zip(columns, slope.tolist(), strict=True)]

    return Entry(
        AffineImage(entry.psi, matrix, offset, slope, 0.5),
        uniform(-0.5, 0.5, matrix.shape[1]),
        lambda theta: entry.value(image(theta)) + dot(slope.tolist(), theta) + mp.mpf("0.5"),
        gradient,
    )


def added(psi, entries, outside=()):
    """The sum of these entries."""

    def gradient(theta):
        rows = (entry.gradient(theta) for entry in entries)
        return [mp.fsum(column) for column in zip(*rows, strict=True)]

    return Entry(
        psi,
        entries[0].draw,
        lambda theta: mp.fsum(entry.value(theta) for entry in entries),
        gradient,
        outside,
    )


def multiplied(factor, entry):
    def gradient(theta):
        return [factor * e for e in entry.gradient(theta)]

    return Entry(
        Scaled(entry.psi, factor),
        entry.draw,
        lambda theta: factor * entry.value(theta),
        gradient,
        entry.outside,
        entry.unreachable,
    )


def side_by_side(psi, entries, sizes):
    """The product of these entries."""

    def blocks(theta):
        edges = np.cumsum([0, *sizes])
        ranges = zip(entries, edges[:-1], edges[1:], strict=True)
        return [(entry, theta[a:b]) for entry, a, b in ranges]

    return Entry(
        psi,
        lambda rng, count: np.concatenate([entry.draw(rng, count) for entry in entries], axis=1),
        lambda theta: mp.fsum(entry.value(x) for entry, x in blocks(theta)),
        lambda theta: [e for entry, x in blocks(theta) for e in entry.gradient(x)],
        tuple(np.concatenate([x, np.ones(sum(sizes[1:]))]) for x in entries[0].outside),
    )


TABLE = {
    "quadratic form": Entry(
        QuadraticForm(SQUARE), uniform(-2, 2, 3), *form(SQUARE), ([np.nan, 0, 0],)
    ),
    "diagonal form": Entry(
        QuadraticForm(DIAGONAL),
        uniform(-2, 2, 3),
        *form(np.diag(DIAGONAL)),
        ([np.inf, 0, 0],),
    ),
    "negative entropy": separable(
        NegativeEntropy(3), 0.1, 3, lambda t: t * mp.log(t) - t, mp.log, (-1.0, -np.inf)
    ),
    "burg": separable(Burg(3), 0.1, 3, lambda t: -mp.log(t), lambda t: -1 / t, (-1.0,), (0.5, 0.0)),
    "hellinger": separable(
        Hellinger(3),
        0.1,
        3,
        lambda t: -2 * mp.sqrt(t),
        lambda t: -1 / mp.sqrt(t),
        (-1.0,),
        (0.5, 0.0),
    ),
    "softplus": separable(
        Softplus(3), -3, 3, softplus, lambda t: 1 / (1 + mp.exp(-t)), (), (-0.1, 0.0, 1.0, 1.5)
    ),
    "log cosh": separable(
        LogCosh(3), -2, 2, lambda t: mp.log(mp.cosh(t)), mp.tanh, (), (-1.0, 1.0, 1.5)
    ),
    "bit entropy": separable(BitEntropy(3), 0.05, 0.95, bit_entropy, log_odds, (-0.5, 0.0, 1.5)),
    "p-norm, 1.5": separable(PNorm(3, 1.5), 0.2, 2, *power(1.5)),
    "p-norm, 4": separable(PNorm(3, 4.0), -2, -0.2, *power(4)),
    "log-sum-exp": Entry(
        LogSumExp(3),
        uniform(-3, 3, 3),
        log_sum_exp,
        probabilities,
        ([np.inf, 0, 0], [np.nan, 0, 0]),
        ([0.5, 0.5, 0.5], [-0.1, 0.5, 0.5], [0.5, 0.25, 0.25], [np.nan, 0.1, 0.1]),
    ),
    "simplex entropy": Entry(
        SimplexEntropy(3),
        simplex_points(3),
        simplex_entropy,
        logits,
        ([0.5, 0.5, 0.5], [-0.1, 0.5, 0.5], [np.nan, 0.1, 0.1]),
        ([np.inf, 0, 0], [np.nan, 0, 0]),
    ),
    "dirichlet": Entry(
        Dirichlet(3),
        uniform(0.1, 6, 3),
        dirichlet,
        dirichlet_means,
        ([-0.5, 2.0, 1.0], [0.0, 1.0, 1.0], [np.nan, 1.0, 1.0]),
        ([-0.5, -1.0, -3.0], [0.1, -5.0, -5.0], [np.nan, -2.0, -2.0]),
    ),
    "log det": Entry(
        LogDet(2),
        definite_points(2),
        lambda t: -mp.log(mp.det(symmetric(t, 2))),
        lambda t: minus_twice_inverse(t, 2),
        ([-1.0, 0.0, -1.0], [1.0, 2.0, 1.0], [np.nan, 0.0, 1.0]),
        ([1.0, 0.0, 1.0], [-1.0, 4.0, -1.0], [np.nan, 0.0, -1.0]),
    ),
    "log barrier": Entry(
        LogBarrier(SIDES, BOUNDS, np.zeros(2)),
        uniform(-0.3, 0.3, 2),
        lambda theta: -mp.fsum(mp.log(s) for s in slacks(theta)),
        barrier_gradient,
        ([1.0, 0.0], [2.0, 2.0], [np.nan, 0.0]),
    ),
}
TABLE |= {
    "affine, square": affine(TABLE["softplus"], SQUARE, np.array([0.5, -1.0, 0.25]), np.ones(3)),
    "affine, of a barrier": affine(
        TABLE["log barrier"], np.array([[0.5, 0.25], [0.0, 0.5]]), np.zeros(2), np.array([1.0, 0.0])
    ),
    "affine, a submanifold": affine(
        TABLE["log cosh"], SQUARE[:, :2], np.array([0.0, 0.5, 0.0]), np.array([0.25, 0.0])
    ),
    "sum, diagonal": added(
        Sum((TABLE["negative entropy"].psi, TABLE["burg"].psi)),
        (TABLE["negative entropy"], TABLE["burg"]),
        TABLE["burg"].outside,
    ),
    "sum, with a function": added(
        Sum((TABLE["quadratic form"].psi, bare)), (TABLE["quadratic form"], TABLE["softplus"])
    ),
    "scaled": multiplied(2.5, TABLE["burg"]),
    "product": side_by_side(
        Product((TABLE["burg"].psi, bare, TABLE["log det"].psi), (3, 3, 3)),
        (TABLE["burg"], TABLE["softplus"], TABLE["log det"]),
        (3, 3, 3),
    ),
    "dual": separable(Dual(Burg(3)), -3, -0.1, lambda s: -1 - mp.log(-s), lambda s: -1 / s, (1.0,)),
    "dual, searched": separable(
        Dual(Product((bare,), (3,))), 0.05, 0.95, bit_entropy, log_odds, (-0.5, 1.5)
    ),
}
