"""How many digits are right, family by family. Run `python -m benchmarks.accuracy`; `--table` for Markdown.

At every point θ, a number of the precision and so exact, ψ, η, the metric, and KL of a near pair are
compared with the same formulas in mpmath, with as many digits as cancellation takes there. Numbers are
multiples of ε = 2⁻⁵² or 2⁻²³, about a unit in the last place:

    psi, kl    |found − truth| / ε |truth|
    eta        the largest |found − truth| / ε |truth| among the entries
    fisher     the largest |found − truth| / ε √(GᵢᵢGⱼⱼ), which is relative on the diagonal
    theta      the largest |η(θ̂) − η| / ε (|ηᵢ| + Σⱼ |Gᵢⱼθ̂ⱼ|) for the θ̂ found at η, rounded from the truth:
               what rounding the η that is given and the θ that is found may do is about 1

A quantity that the precision cannot hold at a point (p = e⁻⁸⁰⁰) is left out, and so is θ(η) where rounding
has put η on the edge of the range; "lost" is no answer where there is one. `condition` is the largest
Σⱼ |Gᵢⱼθⱼ|/|ηᵢ|: by so much a relative rounding of θ is amplified before anything is computed.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from dualflat.geometry import bessel, special
from dualflat.geometry.families.base import kl
from dualflat.geometry.families.binomial import Bernoulli
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.families.gamma import ChiSquare, Gamma
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.families.generalized_inverse_gaussian import GeneralizedInverseGaussian
from dualflat.geometry.families.inverse_gaussian import InverseGaussian
from dualflat.geometry.families.logarithmic import Logarithmic
from dualflat.geometry.families.negative_binomial import NegativeBinomial
from dualflat.geometry.families.normal import Normal
from dualflat.geometry.families.poisson import Poisson, ZeroTruncatedPoisson
from dualflat.geometry.families.rates import Exponential
from dualflat.geometry.families.von_mises_fisher import VonMisesFisher
from dualflat.geometry.families.wishart import Wishart
from dualflat.geometry.legendre import to_eta, to_theta
from dualflat.geometry.metric import metric

QUANTITIES = ("psi", "eta", "fisher", "theta", "kl")
DTYPES = {"float64": np.float64, "float32": np.float32}


@dataclasses.dataclass(frozen=True)
class Exact:
    """A family, ψ, η and G of it in mpmath for a list of mpf, and points by regime.

    `metric` may leave entries out as None. `near` is the direction of the near pair, relative to θ.
    """

    family: Any
    psi: Callable[[list], Any]
    eta: Callable[[list], list]
    metric: Callable[[list], list]
    points: dict[str, Sequence[Sequence[float]]]
    digits: int = 80
    near: Sequence[float] = (1.0,)


def one(family, psi, slope, bend, points, digits=80):
    """A family of one parameter: functions of a number."""
    return Exact(
        family,
        lambda t: psi(t[0]),
        lambda t: [slope(t[0])],
        lambda t: [[bend(t[0])]],
        {name: [[v] for v in values] for name, values in points.items()},
        digits,
    )


def odds(t):
    whole = 1 + mp.fsum(mp.exp(v) for v in t)
    return [mp.exp(v) / whole for v in t]


def sigmoid(t):
    return 1 / (1 + mp.exp(-t))


def truncated_mean(t):
    return mp.exp(t) / -mp.expm1(-mp.exp(t))


def series(t):
    """−log(1 − q), q = exp t, and η."""
    whole = -mp.log(-mp.expm1(t))
    return whole, mp.exp(t) / (-mp.expm1(t) * whole)


def variance(t):
    return -1 / (2 * t[1]), -t[0] / (2 * t[1])  # σ², μ


def normal_metric(t):
    v, m = variance(t)
    return [[v, 2 * m * v], [2 * m * v, 4 * m * m * v + 2 * v * v]]


def inverse_gaussian_metric(t):
    a, b = -t[0], -t[1]
    cross = -1 / (2 * mp.sqrt(a * b))
    return [
        [mp.sqrt(b / a) / (2 * a), cross],
        [cross, mp.sqrt(a / b) / (2 * b) + 1 / (2 * b * b)],
    ]


def dirichlet_metric(t):
    whole = mp.psi(1, mp.fsum(t))
    return [
        [(mp.psi(1, a) if i == j else 0) - whole for j in range(len(t))] for i, a in enumerate(t)
    ]


def plane(t):
    """μ, Σ, Λ of a normal law on the plane."""
    precision = mp.matrix([[-2 * t[2], -t[3]], [-t[3], -2 * t[4]]])
    covariance = precision**-1
    return covariance * mp.matrix(t[:2]), covariance, precision


def plane_psi(t):
    mean, _, precision = plane(t)
    return ((mean.T * precision * mean)[0] - mp.log(mp.det(precision))) / 2 + mp.log(2 * mp.pi)


_PAIRS = ((0, 0), (1, 0), (1, 1))


def plane_eta(t):
    m, s, _ = plane(t)
    return [m[0], m[1], *(s[i, j] + m[i] * m[j] for i, j in _PAIRS)]


def plane_metric(t):
    m, s, _ = plane(t)

    def entry(p, q):
        if len(p) > len(q):
            p, q = q, p
        if len(q) == 1:
            return s[p[0], q[0]]
        k, n = q
        if len(p) == 1:
            return m[k] * s[p[0], n] + m[n] * s[p[0], k]
        i, j = p
        moved = m[i] * m[k] * s[j, n] + m[i] * m[n] * s[j, k]
        moved += m[j] * m[k] * s[i, n] + m[j] * m[n] * s[i, k]
        return s[i, k] * s[j, n] + s[i, n] * s[j, k] + moved

    kinds = [(0,), (1,), *_PAIRS]
    return [[entry(p, q) for q in kinds] for p in kinds]


def wishart(t):
    b = mp.matrix([[-t[1], -t[2] / 2], [-t[2] / 2, -t[3]]])
    return t[0], b, b**-1


def wishart_psi(t):
    a, b, _ = wishart(t)
    half = mp.mpf(1) / 2
    return mp.log(mp.pi) / 2 + mp.loggamma(a) + mp.loggamma(a - half) - a * mp.log(mp.det(b))


def wishart_eta(t):
    a, b, inverse = wishart(t)
    log = mp.psi(0, a) + mp.psi(0, a - mp.mpf(1) / 2) - mp.log(mp.det(b))
    return [log, *(a * inverse[i, j] for i, j in _PAIRS)]


def wishart_metric(t):
    a, _, w = wishart(t)
    first = [mp.psi(1, a) + mp.psi(1, a - mp.mpf(1) / 2), *(w[i, j] for i, j in _PAIRS)]
    rest = [[a / 2 * (w[i, k] * w[j, m] + w[i, m] * w[j, k]) for k, m in _PAIRS] for i, j in _PAIRS]
    return [first, *([f, *row] for f, row in zip(first[1:], rest, strict=True))]


def ratio(nu, x):
    return mp.besseli(nu + 1, x) / mp.besseli(nu, x)


def sphere(p):
    """ψ, η and G of von Mises and Fisher's laws."""
    nu = mp.mpf(p) / 2 - 1

    def length(t):
        return mp.sqrt(mp.fsum(v * v for v in t))

    def psi(t):
        k = length(t)
        return (nu + 1) * mp.log(2 * mp.pi) + mp.log(mp.besseli(nu, k)) - nu * mp.log(k)

    def eta(t):
        k = length(t)
        return [ratio(nu, k) / k * v for v in t]

    def bend(t):
        k = length(t)
        a = ratio(nu, k)
        slope, per = 1 - a * a - (p - 1) * a / k, a / k
        unit = [v / k for v in t]
        return [
            [(per if i == j else 0) + (slope - per) * u * w for j, w in enumerate(unit)]
            for i, u in enumerate(unit)
        ]

    return psi, eta, bend


def inverse_pair(t):
    """q, ω, √(b/a), and log K as a function of the order."""
    a, b = -2 * t[1], -2 * t[2]
    omega = mp.sqrt(a * b)
    return t[0], omega, mp.sqrt(b / a), lambda q: mp.log(mp.besselk(q, omega))


def gig_psi(t):
    q, _, scale, log_k = inverse_pair(t)
    return mp.log(2) + log_k(q) + q * mp.log(scale)


def gig_eta(t):
    q, w, scale, log_k = inverse_pair(t)
    k = mp.besselk(q, w)
    first = mp.diff(log_k, q) + mp.log(scale)
    return [first, scale * mp.besselk(q + 1, w) / k, mp.besselk(q - 1, w) / k / scale]


def gig_metric(t):
    q, w, scale, log_k = inverse_pair(t)
    k = [mp.besselk(q + i, w) for i in range(-2, 3)]
    up, down = k[3] / k[2], k[1] / k[2]
    diagonal = [
        mp.diff(log_k, q, 2),
        scale**2 * (k[4] / k[2] - up**2),
        (k[0] / k[2] - down**2) / scale**2,
    ]
    return [[d if i == j else None for j in range(3)] for i, d in enumerate(diagonal)]


def _exact() -> dict[str, Exact]:
    r, three, ten = mp.mpf(5) / 2, sphere(3), sphere(10)
    upward = [0.6, 0.0, 0.8]
    return {
        "Bernoulli": one(
            Bernoulli(),
            lambda t: mp.log1p(mp.exp(t)),
            sigmoid,
            lambda t: sigmoid(t) * sigmoid(-t),
            {
                "benign": (0.3, -1.7, 4.0),
                "saturated": (30.0, -30.0, 80.0),
                "huge": (600.0, -600.0),
                "tiny": (1e-9, -1e-20),
            },
            900,
        ),
        "categorical": Exact(
            Categorical(2),
            lambda t: mp.log1p(mp.fsum(mp.exp(v) for v in t)),
            odds,
            lambda t: [
                [(p if i == j else 0) - p * q for j, q in enumerate(odds(t))]
                for i, p in enumerate(odds(t))
            ],
            {
                "benign": ([0.5, -1.25], [2.0, 1.5]),
                "saturated": ([30.0, 0.0], [-30.0, -31.5], [40.0, 39.0]),
                "huge": ([600.0, 0.25], [-600.0, -2.0]),
                "tiny": ([1e-9, -1e-12],),
            },
            900,
            (1.0, -0.5),
        ),
        "Poisson": one(
            Poisson(),
            mp.exp,
            mp.exp,
            mp.exp,
            {"benign": (0.7, -1.3, 3.0), "huge": (25.0, 80.0, 600.0), "tiny": (-40.0, -600.0)},
        ),
        "zero-truncated Poisson": one(
            ZeroTruncatedPoisson(),
            lambda t: mp.log(mp.expm1(mp.exp(t))),
            truncated_mean,
            lambda t: truncated_mean(t) * (1 + mp.exp(t) - truncated_mean(t)),
            {"benign": (0.7, -1.3, 2.0), "huge": (9.0, 25.0), "tiny": (-12.0, -30.0)},
            200,
        ),
        "negative binomial": one(
            NegativeBinomial(2.5),
            lambda t: -r * mp.log(-mp.expm1(t)),
            lambda t: r * mp.exp(t) / -mp.expm1(t),
            lambda t: r * mp.exp(t) / mp.expm1(t) ** 2,
            {"benign": (-0.5, -2.0), "huge": (-1e-6, -1e-12), "tiny": (-40.0, -80.0)},
            200,
        ),
        "logarithmic": one(
            Logarithmic(),
            lambda t: mp.log(series(t)[0]),
            lambda t: series(t)[1],
            lambda t: series(t)[1] * (1 / -mp.expm1(t) - series(t)[1]),
            {"benign": (-0.5, -2.0), "huge": (-1e-6, -1e-12), "tiny": (-15.0, -40.0)},
            200,
        ),
        "exponential": one(
            Exponential(),
            lambda t: -mp.log(-t),
            lambda t: -1 / t,
            lambda t: 1 / t**2,
            {"benign": (-0.3, -7.0), "huge": (-1e-15,), "tiny": (-1e15,)},
        ),
        "chi-square": one(
            ChiSquare(),
            lambda t: mp.loggamma(t) + t * mp.log(2),
            lambda t: mp.psi(0, t) + mp.log(2),
            lambda t: mp.psi(1, t),
            {"benign": (0.5, 1.7, 6.0), "huge": (1e4, 1e9), "tiny": (1e-6, 1e-15)},
        ),
        "gamma": Exact(
            Gamma(),
            lambda t: mp.loggamma(t[0]) - t[0] * mp.log(-t[1]),
            lambda t: [mp.psi(0, t[0]) - mp.log(-t[1]), t[0] / -t[1]],
            lambda t: [[mp.psi(1, t[0]), -1 / t[1]], [-1 / t[1], t[0] / t[1] ** 2]],
            {
                "benign": ([2.5, -3.0], [0.75, -0.25], [12.0, -5.0]),
                "huge shape": ([1e6, -3.0], [1e12, -1e12]),
                "huge and tiny rate": ([2.5, -1e12], [2.5, -1e-12]),
                "tiny shape": ([1e-6, -2.0], [1e-15, -1e-3]),
            },
            near=(1.0, -0.5),
        ),
        "Dirichlet": Exact(
            Dirichlet(3),
            lambda t: mp.fsum(mp.loggamma(a) for a in t) - mp.loggamma(mp.fsum(t)),
            lambda t: [mp.psi(0, a) - mp.psi(0, mp.fsum(t)) for a in t],
            dirichlet_metric,
            {
                "benign": ([2.5, 0.75, 1.5], [12.0, 3.0, 0.25]),
                "huge": ([1e6, 2e6, 5e5], [1e12, 3e12, 1e12]),
                "tiny": ([1e-6, 2e-6, 1e-6], [1e-15, 1e-15, 3e-15]),
                "unequal": ([1e-6, 2.5, 1e6], [1e10, 1.0, 2.0]),
            },
            near=(1.0, -0.5, 0.25),
        ),
        "normal": Exact(
            Normal(),
            lambda t: -(t[0] ** 2) / (4 * t[1]) + mp.log(mp.pi / -t[1]) / 2,
            lambda t: [variance(t)[1], variance(t)[1] ** 2 + variance(t)[0]],
            normal_metric,
            {
                "benign": ([0.5, -0.25], [-3.0, -2.0]),
                "mean far from 0": ([1e4, -0.5], [1e8, -50.0]),
                "huge and tiny σ": ([1e-12, -1e-12], [1e12, -1e12]),
            },
            near=(1.0, -0.5),
        ),
        "inverse Gaussian": Exact(
            InverseGaussian(),
            lambda t: -2 * mp.sqrt(t[0] * t[1]) - mp.log(-2 * t[1]) / 2,
            lambda t: [mp.sqrt(t[1] / t[0]), mp.sqrt(t[0] / t[1]) - 1 / (2 * t[1])],
            inverse_gaussian_metric,
            {
                "benign": ([-0.5, -2.0], [-3.0, -0.25]),
                "huge λ": ([-1e8, -2e8], [-1e3, -1e12]),
                "tiny λ": ([-1e-8, -2e-8], [-1e-12, -1e-3]),
            },
            near=(1.0, -0.5),
        ),
        "generalized inverse Gaussian": Exact(
            GeneralizedInverseGaussian(),
            gig_psi,
            gig_eta,
            gig_metric,
            {
                "benign": ([0.5, -0.25, -1.0], [-2.0, -3.0, -0.5]),
                "huge": ([10.0, -200.0, -300.0], [60.0, -1.0, -2.0]),
                "tiny": ([1.5, -1e-3, -2e-3],),
            },
            near=(1.0, -0.5, 0.25),
        ),
        "Gaussian on the plane": Exact(
            Gaussian(2),
            plane_psi,
            plane_eta,
            plane_metric,
            {
                "benign": ([0.5, -1.0, -0.75, 0.25, -0.5], [2.0, 0.25, -1.5, -0.5, -0.3125]),
                "mean far from 0": ([1e4, -2e4, -0.75, 0.25, -0.5],),
                "nearly singular": ([0.5, -1.0, -0.5, 0.9990234375, -0.5],),
                "huge and tiny σ": ([1.0, 2.0, -1e8, 0.25, -1e-8],),
            },
            120,
            (1.0, -0.5, 0.25, 0.5, 0.25),
        ),
        "von Mises-Fisher, p = 3": Exact(
            VonMisesFisher(3),
            *three,
            {
                "benign": ([0.5, -0.25, 1.0], [-5.0, 2.0, 4.0]),
                "saturated": ([v * 1e3 for v in upward], [v * 1e6 for v in upward]),
                "huge": ([v * 1e12 for v in upward],),
                "tiny": ([v * 1e-6 for v in upward], [v * 1e-15 for v in upward]),
            },
            160,
            (1.0, 0.0, -0.5),
        ),
        "von Mises-Fisher, p = 10": Exact(
            VonMisesFisher(10),
            *ten,
            {
                "benign": ([0.5, -0.25, 1.0, *[0.125] * 7],),
                "saturated": ([300.0, -400.0, *[10.0] * 8],),
                "tiny": ([3e-6, -4e-6, *[1e-7] * 8],),
            },
            120,
            (1.0, -0.5, *[0.25] * 8),
        ),
        "Wishart, p = 2": Exact(
            Wishart(2),
            wishart_psi,
            wishart_eta,
            wishart_metric,
            {
                "benign": ([2.0, -0.75, 0.5, -0.5], [5.5, -1.5, -0.5, -0.3125]),
                "huge": ([1e6, -1.5, -0.5, -0.3125], [1e9, -1.5e9, -5e8, -3e8]),
                "near the edge": ([0.5009765625, -0.75, 0.5, -0.5],),
            },
            120,
            (1.0, -0.5, 0.25, 0.5),
        ),
    }


EXACT = _exact()


def in_epsilons(found, truth, scale, dtype):
    """|found − truth|/ε scale; None where the scale is no normal number of the precision."""
    info = np.finfo(dtype)
    if not 16 * float(info.tiny) < scale < float(info.max) / 16:
        return None
    if not np.isfinite(found):
        return float("inf")
    return float(abs(mp.mpf(float(found)) - truth) / (scale * float(info.eps)))


def worst(errors):
    """The largest; None if there is none."""
    known = [e for e in errors if e is not None]
    return max(known) if known else None


@functools.cache
def programs(family):
    """What is looked at, compiled once per family and precision."""

    def look(theta, other):
        return family(theta), to_eta(family, theta), metric(family, theta), kl(family, theta, other)

    return jax.jit(jax.vmap(look)), jax.jit(jax.vmap(lambda eta: to_theta(family, eta)))


def at_points(exact: Exact, dtype: Any, points: np.ndarray, quantities=QUANTITIES) -> list[dict]:
    """The errors at every point, as dictionaries by quantity."""
    with jax.enable_x64(True), mp.workdps(exact.digits):
        step = 1e-6 if dtype == np.float64 else 1e-3
        points = np.asarray(points, dtype)
        shift = np.resize(np.asarray(exact.near), points.shape[1])
        others = (points.astype(np.float64) * (1 + step * shift)).astype(dtype)
        forward, backward = programs(exact.family)
        values = [np.asarray(v) for v in forward(jnp.asarray(points), jnp.asarray(others))]
        lists = [[mp.mpf(float(v)) for v in p] for p in points]
        etas = [exact.eta(t) for t in lists]
        found = None
        if "theta" in quantities:
            rounded = np.array([[_rounded(e, dtype) for e in eta] for eta in etas], dtype)
            found = np.asarray(backward(jnp.asarray(rounded)))
        rows = []
        for k, (t, eta) in enumerate(zip(lists, etas, strict=True)):
            psi, g = exact.psi(t), exact.metric(t)
            row: dict[str, Any] = {"psi": in_epsilons(values[0][k], psi, abs(psi), dtype)}
            pairs = zip(values[1][k], eta, strict=True)
            row["eta"] = worst(in_epsilons(f, e, abs(e), dtype) for f, e in pairs)
            row["fisher"] = worst(
                in_epsilons(values[2][k][i, j], v, mp.sqrt(g[i][i] * g[j][j]), dtype)
                for i, line in enumerate(g)
                for j, v in enumerate(line)
                if v is not None
            )
            other = [mp.mpf(float(v)) for v in others[k]]
            gap = mp.fsum((a - b) * e for a, b, e in zip(other, t, eta, strict=True))
            truth = exact.psi(other) - psi - gap
            row["kl"] = in_epsilons(values[3][k], truth, truth, dtype)
            if found is not None:
                row["theta"] = _inverse(exact, found[k], rounded[k], dtype)
            amplified = [_moved(line, t) / abs(e) for line, e in zip(g, eta, strict=True) if e != 0]
            row["condition"] = float(max(amplified))
            rows.append(row)
    return rows


def _rounded(value, dtype):
    with np.errstate(all="ignore"):
        return np.asarray(float(value)).astype(dtype)


def _moved(line, theta):
    return mp.fsum(abs(g * v) for g, v in zip(line, theta, strict=True) if g is not None)


def _inverse(exact, theta, eta, dtype):
    """The backward error of θ(η)."""
    if np.isnan(theta).any():
        reach = getattr(exact.family, "in_dual_domain", None)
        inside = reach is not None and bool(reach(jnp.asarray(eta)))
        return float("inf") if inside else None  # None: rounding η has left no such law
    if not exact.family.in_domain(jnp.asarray(theta)):
        return float("inf")  # a number that is no answer
    t = [mp.mpf(float(v)) for v in theta]
    back, g = exact.eta(t), exact.metric(t)
    return worst(
        in_epsilons(float(e), b, abs(b) + _moved(line, t), dtype)
        for e, b, line in zip(eta, back, g, strict=True)
    )


def _log_sum(nu, x):
    """w + ν asinh(ν/x), of which log I and log K are differences."""
    return mp.sqrt(nu * nu + x * x) + nu * mp.asinh(nu / x)


def _one_over_trigamma(x):
    return x - 1 / mp.psi(1, x)


def _log_scaled(n, x):
    return mp.log(mp.besseli(n, x)) + mp.loggamma(n + 1) + n * mp.log(2 / x)


# name: ours, mpmath's, what the error is over
FUNCTIONS = {
    "log_gamma": (special.log_gamma, mp.loggamma, None),
    "digamma": (special.digamma, lambda x: mp.psi(0, x), None),
    "trigamma": (special.trigamma, lambda x: mp.psi(1, x), None),
    "polygamma(2)": (lambda x: special.polygamma(2, x), lambda x: mp.psi(2, x), None),
    "log_gamma_excess": (
        special.log_gamma_excess,
        lambda x: mp.loggamma(x) - x * mp.log(x) + x,
        lambda x, f: max(abs(f), 1),
    ),
    "digamma_excess": (special.digamma_excess, lambda x: mp.psi(0, x) - mp.log(x), None),
    "trigamma_deficit": (special.trigamma_deficit, _one_over_trigamma, None),
}
BESSEL = {
    "log_iv": (
        bessel.log_iv,
        lambda n, x: mp.log(mp.besseli(n, x)),
        lambda n, x, f: max(_log_sum(n, x), 1),
    ),
    "log_iv_scaled": (bessel.log_iv_scaled, _log_scaled, None),
    "bessel_ratio": (bessel.bessel_ratio, ratio, None),
    "bessel_ratio_complement": (
        bessel.bessel_ratio_complement,
        lambda n, x: 1 - ratio(n, x),
        None,
    ),
    "bessel_ratio_slope": (
        bessel.bessel_ratio_slope,
        lambda n, x: 1 - ratio(n, x) ** 2 - (2 * n + 1) * ratio(n, x) / x,
        None,
    ),
    "log_kv": (
        bessel.log_kv,
        lambda n, x: mp.log(mp.besselk(n, x)),
        lambda n, x, f: 1 + _log_sum(n, x),
    ),
}
ORDERS = (0.0, 0.5, 1.0, 4.0, 24.5, 499.0)


def function_errors(name: str, dtype: Any, count: int = 60) -> list[float]:
    """The errors of a special function at `count` arguments, in ε."""
    rng = np.random.default_rng(20275)
    two = name in BESSEL
    ours, exact, scale = (BESSEL if two else FUNCTIONS)[name]
    low, high = (-4, 4) if two else (-8, 9)
    x = np.exp(np.log(10) * rng.uniform(low, high, count)).astype(dtype)
    arguments = [x]
    if two:
        arguments = [np.resize(ORDERS, count).astype(dtype), x]
    with jax.enable_x64(True), mp.workdps(100):
        found = np.asarray(jax.jit(ours)(*(jnp.asarray(a) for a in arguments)))
        errors = []
        for f, *at in zip(found, *arguments, strict=True):
            at = [mp.mpf(float(v)) for v in at]
            truth = exact(*at)
            over = abs(truth) if scale is None else scale(*at, truth)
            errors.append(in_epsilons(f, truth, over, dtype))
    return [e for e in errors if e is not None]


def family_rows():
    for name, exact in EXACT.items():
        for word, dtype in DTYPES.items():
            kinds = [regime for regime, points in exact.points.items() for _ in points]
            points = [p for points in exact.points.values() for p in points]
            held = [k for k, p in enumerate(points) if _held(p, dtype)]
            errors = at_points(exact, dtype, np.array(points)[held])
            for regime in exact.points:
                here = [e for e, k in zip(errors, held, strict=True) if kinds[k] == regime]
                if here:
                    row = {q: _short(worst(e[q] for e in here)) for q in QUANTITIES}
                    condition = float(f"{max(e['condition'] for e in here):.1e}")
                    yield {
                        "family": name,
                        "regime": regime,
                        "dtype": word,
                        "points": len(here),
                        **row,
                        "condition": condition,
                    }


def function_rows():
    for name in (*FUNCTIONS, *BESSEL):
        row: dict[str, Any] = {"function": name}
        for word, dtype in DTYPES.items():
            row[word] = _short(max(function_errors(name, dtype)))
        yield row


def _held(point, dtype):
    """Are all coordinates normal numbers of the precision, and the metric's entries of θ²?"""
    sizes = np.abs([v for v in point if v != 0])
    return bool((sizes > 1e-18).all() and (sizes < 1e18).all()) or dtype == np.float64


def _short(error):
    if error is None or error == float("inf"):
        return error and "lost"
    return float(f"{error:.3g}")


def cell(error):
    """As a table shows it: two digits, — where there is nothing."""
    if error is None or error == "lost":
        return "∞" if error else "—"
    return f"{error:.1f}" if error < 100 else power(error)


def power(number):
    """One digit and a power of ten."""
    digit, exponent = f"{number:.0e}".split("e")
    return f"{digit}e{int(exponent)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--table", action="store_true", help="two Markdown tables, no JSON")
    wanted = parser.parse_args()
    if not wanted.table:
        for row in (*family_rows(), *function_rows()):
            print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    rows = {(r["family"], r["regime"], r["dtype"]): r for r in family_rows()}
    print("| family | regime | precision | ψ | η | G | θ(η) | KL | condition |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (family, regime, dtype), row in rows.items():
        cells = [cell(row[q]) for q in QUANTITIES]
        print(f"| {' | '.join([family, regime, dtype, *cells])} | {power(row['condition'])} |")
    print("\n| function | float64 | float32 |\n| --- | --- | --- |")
    for row in function_rows():
        print(f"| `{row['function']}` | {cell(row['float64'])} | {cell(row['float32'])} |")


if __name__ == "__main__":
    main()
