"""Every family of laws once: one line here earns it the whole of `dualflat.testing` and mpmath's truth."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import mpmath as mp
import numpy as np

from dualflat import testing
from dualflat.geometry.families.beta import Beta
from dualflat.geometry.families.binomial import Bernoulli, Binomial
from dualflat.geometry.families.categorical import Categorical, Multinomial
from dualflat.geometry.families.combined import Independent, Repeated
from dualflat.geometry.families.complex_normal import ComplexNormal
from dualflat.geometry.families.conway_maxwell_poisson import ConwayMaxwellPoisson
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.families.finite import Boltzmann, Ising, LogLinear
from dualflat.geometry.families.from_statistics import counts, from_statistics, interval
from dualflat.geometry.families.gamma import Chi, ChiSquare, Gamma, InverseGamma
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.families.generalized_dirichlet import GeneralizedDirichlet
from dualflat.geometry.families.generalized_inverse_gaussian import GeneralizedInverseGaussian
from dualflat.geometry.families.inverse_gaussian import InverseGaussian
from dualflat.geometry.families.logarithmic import Logarithmic
from dualflat.geometry.families.negative_binomial import Geometric, NegativeBinomial
from dualflat.geometry.families.normal import LogNormal, Normal
from dualflat.geometry.families.normal_gamma import NormalGamma
from dualflat.geometry.families.normal_wishart import NormalInverseWishart, NormalWishart
from dualflat.geometry.families.poisson import Poisson, ZeroTruncatedPoisson
from dualflat.geometry.families.rates import Exponential, Laplace, Pareto, Rayleigh, Weibull
from dualflat.geometry.families.structured_gaussian import (
    DiagonalNormal,
    FixedCovarianceNormal,
    IsotropicNormal,
    MarkovNormal,
)
from dualflat.geometry.families.von_mises_fisher import VonMises, VonMisesFisher
from dualflat.geometry.families.wishart import InverseWishart, Wishart
from dualflat.geometry.special import log_gamma


@dataclasses.dataclass(frozen=True)
class Entry:
    """A family, points of it, what is outside, and its log-density as the textbooks have it.

    `density(x, theta)` is log p in mpmath for lists of mpf.
    """

    family: Any
    thetas: Sequence[Sequence[float]]
    density: Callable[[list, list], Any]
    outside: Sequence[Any] = ()
    unreachable: Sequence[Any] = ()
    off_support: Sequence[Any] = ()
    slack: float = 1.0

    def case(self):
        return testing.Case(
            self.family,
            np.asarray(self.thetas),
            self.outside,
            self.unreachable,
            self.off_support,
            slack=self.slack,
        )


def scalar(family, thetas, density, outside=(), unreachable=(), off_support=()):
    def points(values):
        return [np.array([v]) for v in values]

    return Entry(
        family,
        points(thetas),
        lambda x, t: density(x[0], t[0]),
        points(outside),
        points(unreachable),
        off_support,
    )


def _log_binomial(n, x):
    return mp.loggamma(n + 1) - mp.loggamma(x + 1) - mp.loggamma(n - x + 1)


def _gamma(x, shape, rate):
    return shape * mp.log(rate) + (shape - 1) * mp.log(x) - rate * x - mp.loggamma(shape)


def _normal(x, t):
    variance = -1 / (2 * t[1])
    return -((x - t[0] * variance) ** 2) / (2 * variance) - mp.log(2 * mp.pi * variance) / 2


def _inverse_gaussian(x, t):
    shape, mean = -2 * t[1], mp.sqrt(t[1] / t[0])
    return mp.log(shape / (2 * mp.pi * x**3)) / 2 - shape * (x - mean) ** 2 / (2 * mean**2 * x)


def _categorical(x, t):
    whole = mp.log(1 + sum(mp.exp(v) for v in t))
    return ([mp.mpf(0), *t])[int(x)] - whole


def _multinomial(x, t):
    whole = mp.log(1 + sum(mp.exp(v) for v in t))
    ways = mp.loggamma(sum(x) + 1) - sum(mp.loggamma(v + 1) for v in x)
    return ways + sum(v * (a - whole) for v, a in zip(x, [mp.mpf(0), *t], strict=True))


def _dirichlet(x, t):
    whole = mp.loggamma(sum(t)) - sum(mp.loggamma(a) for a in t)
    return whole + sum((a - 1) * mp.log(v) for a, v in zip(t, x, strict=True))


def _gaussian_plane(x, t):
    precision = mp.matrix([[-2 * t[2], -t[3]], [-t[3], -2 * t[4]]])
    away = mp.matrix(x) - mp.inverse(precision) * mp.matrix(t[:2])
    form = (away.T * precision * away)[0]
    return (mp.log(mp.det(precision)) - form) / 2 - mp.log(2 * mp.pi)


def _normal_gamma(x, t):
    mean, precision = x
    count = -2 * t[3]
    middle = t[2] / count
    rate = -t[1] - count * middle**2 / 2
    given = (
        mp.log(count * precision / (2 * mp.pi)) / 2 - count * precision * (mean - middle) ** 2 / 2
    )
    return given + _gamma(precision, t[0], rate)


def _wishart(x, t, p=2):
    """Of X and ν = 2θ₁, V⁻¹ = 2B."""
    x = mp.matrix(p, p) if not x else mp.matrix(np.reshape(np.array(x, object), (p, p)).tolist())
    b = mp.matrix([[-t[1], -t[2] / 2], [-t[2] / 2, -t[3]]])
    a = t[0]
    log_gamma = p * (p - 1) / mp.mpf(4) * mp.log(mp.pi) + sum(
        mp.loggamma(a - mp.mpf(i) / 2) for i in range(p)
    )
    trace = sum((b * x)[i, i] for i in range(p))
    power = (a - mp.mpf(p + 1) / 2) * mp.log(mp.det(x))
    return power - trace + a * mp.log(mp.det(b)) - log_gamma


def _inverse_wishart(x, t):
    matrix = mp.matrix(np.reshape(np.array(x, object), (2, 2)).tolist())
    inverse = mp.inverse(matrix)
    return _wishart([inverse[i, j] for i in range(2) for j in range(2)], t) - 3 * mp.log(
        mp.det(matrix)
    )


def _enumerated(rows, number):
    def density(x, t):
        weights = [sum(a * mp.mpf(float(b)) for a, b in zip(t, r, strict=True)) for r in rows]
        return weights[number(x)] - mp.log(sum(mp.exp(w) for w in weights))

    return density


_LEVELS = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 4.0], [3.0, 9.0]])
_BITS = [[a, b, a * b] for a in (0, 1) for b in (0, 1)]
_SPINS = [[a, b, a * b] for a in (-1, 1) for b in (-1, 1)]


def _quartic(x, t):
    whole = mp.quad(lambda y: mp.exp(t[0] * y + t[1] * y**4), [-mp.inf, -1, 0, 1, mp.inf])
    return t[0] * x[0] + t[1] * x[0] ** 4 - mp.log(whole)


def _von_mises_fisher(x, t):
    p, kappa = len(t), mp.sqrt(sum(v * v for v in t))
    nu = mp.mpf(p) / 2 - 1
    whole = mp.mpf(p) / 2 * mp.log(2 * mp.pi) + mp.log(mp.besseli(nu, kappa)) - nu * mp.log(kappa)
    return sum(a * b for a, b in zip(x, t, strict=True)) - whole


def _generalized_inverse_gaussian(x, t):
    a, b = -2 * t[1], -2 * t[2]
    whole = mp.log(2 * mp.besselk(t[0], mp.sqrt(a * b))) + t[0] / 2 * mp.log(b / a)
    return (t[0] - 1) * mp.log(x[0]) - (a * x[0] + b / x[0]) / 2 - whole


def _plane_with(covariance, x, t):
    away = mp.matrix(x) - covariance * mp.matrix(t)
    form = (away.T * mp.inverse(covariance) * away)[0]
    return -(form + mp.log(mp.det(covariance))) / 2 - mp.log(2 * mp.pi)


def _complex_normal(x, t):
    """x as (Re, Im) pairs."""
    x = mp.matrix([mp.mpc(x[0], x[1]), mp.mpc(x[2], x[3])])
    link = mp.mpc(t[6], t[7]) / -2  # of the precision, below the diagonal
    precision = mp.matrix([[-t[4], mp.conj(link)], [link, -t[5]]])
    h = mp.matrix([mp.mpc(t[0], t[2]), mp.mpc(t[1], t[3])]) / 2
    away = x - mp.inverse(precision) * h
    form = (away.H * precision * away)[0]
    return (mp.log(mp.det(precision).real) - form.real) - 2 * mp.log(mp.pi)


def _normal_wishart(x, t):
    mean, precision = mp.matrix(x[:2]), mp.matrix([[x[2], x[3]], [x[4], x[5]]])
    count = -2 * t[6]
    middle = mp.matrix(t[4:6]) / count
    away = mean - middle
    given = (
        mp.log(mp.det(count * precision)) / 2
        - count * (away.T * precision * away)[0] / 2
        - mp.log(2 * mp.pi)
    )
    outer = count * middle * middle.T / 2
    wishart = [t[0], t[1] + outer[0, 0], t[2] + 2 * outer[1, 0], t[3] + outer[1, 1]]
    return given + _wishart(x[2:], wishart)


def _normal_inverse_wishart(x, t):
    covariance = mp.matrix([[x[2], x[3]], [x[4], x[5]]])
    inverse = mp.inverse(covariance)
    precision = [inverse[i, j] for i in range(2) for j in range(2)]
    return _normal_wishart([*x[:2], *precision], t) - 3 * mp.log(mp.det(covariance))


def _bit(m):
    return lambda x, t: _log_binomial(m, x) + x * t - m * mp.log1p(mp.exp(t))


def _failures(r):
    return lambda x, t: (
        mp.loggamma(x + r) - mp.loggamma(x + 1) - mp.loggamma(r) + x * t + r * mp.log(-mp.expm1(t))
    )


NOT_COUNTS = (-1.0, 0.5)
NEGATIVE = (0.0, 1.0)

TABLE = {
    "Bernoulli": scalar(
        Bernoulli(), (-2.0, 0.5, 3.0), _bit(1), unreachable=(0.0, 1.0, 1.2), off_support=(2.0, 0.5)
    ),
    "binomial": scalar(
        Binomial(10), (-2.0, 0.5), _bit(10), unreachable=(0.0, 10.0, -1.0), off_support=(11.0, 0.5)
    ),
    "categorical": Entry(
        Categorical(3),
        [[0.5, -1.0, 1.5], [-2.0, 0.25, 0.0]],
        lambda x, t: _categorical(x[0], t),
        unreachable=[[0.6, 0.6, 0.1], [-0.1, 0.3, 0.2], [0.5, 0.5, 0.0]],
        off_support=(4.0, -1.0, 0.5),
    ),
    "multinomial": Entry(
        Multinomial(2, 7),
        [[0.5, -1.0], [-2.0, 0.25]],
        _multinomial,
        unreachable=[[4.0, 4.0], [-0.1, 3.0]],
        off_support=([1.0, 2.0, 3.0], [8.0, -1.0, 0.0]),
    ),
    "geometric": scalar(
        Geometric(), (-2.0, -0.25), _failures(1), NEGATIVE, (0.0, -0.5), NOT_COUNTS
    ),
    "negative binomial": scalar(
        NegativeBinomial(2.5), (-2.0, -0.25), _failures(2.5), NEGATIVE, (0.0, -0.5), NOT_COUNTS
    ),
    "Poisson": scalar(
        Poisson(),
        (-1.0, 1.5, 4.0),
        lambda x, t: x * t - mp.exp(t) - mp.loggamma(x + 1),
        unreachable=(0.0, -1.0),
        off_support=NOT_COUNTS,
    ),
    "zero-truncated Poisson": scalar(
        ZeroTruncatedPoisson(),
        (-2.0, 0.5, 3.0),
        lambda x, t: x * t - mp.log(mp.expm1(mp.exp(t))) - mp.loggamma(x + 1),
        unreachable=(1.0, 0.9),
        off_support=(0.0, 1.5),
    ),
    "logarithmic": scalar(
        Logarithmic(),
        (-3.0, -0.5, -0.05),
        lambda x, t: x * t - mp.log(x) - mp.log(-mp.log(-mp.expm1(t))),
        NEGATIVE,
        (1.0, 0.5),
        (0.0, 1.5),
    ),
    "exponential": scalar(
        Exponential(),
        (-2.0, -0.25),
        lambda x, t: mp.log(-t) + t * x,
        NEGATIVE,
        (0.0, -1.0),
        (-1.0,),
    ),
    "Laplace": scalar(
        Laplace(0.5),
        (-2.0, -0.25),
        lambda x, t: mp.log(-t / 2) + t * abs(x - 0.5),
        NEGATIVE,
        (0.0, -1.0),
    ),
    "Weibull": scalar(
        Weibull(1.5),
        (-2.0, -0.25),
        lambda x, t: mp.log(-1.5 * t) + 0.5 * mp.log(x) + t * x**1.5,
        NEGATIVE,
        (0.0, -1.0),
        (-1.0,),
    ),
    "Rayleigh": scalar(
        Rayleigh(),
        (-2.0, -0.25),
        lambda x, t: mp.log(-2 * t * x) + t * x**2,
        NEGATIVE,
        (0.0, -1.0),
        (-1.0, 0.0),
    ),
    "Pareto": scalar(
        Pareto(2.0),
        (-3.0, -0.75),
        lambda x, t: mp.log(-t) - t * mp.log(2) + (t - 1) * mp.log(x),
        NEGATIVE,
        (0.0, -1.0),
        (1.0, -1.0),
    ),
    "gamma": Entry(
        Gamma(),
        [[2.5, -3.0], [0.5, -0.25], [40.0, -2.0]],
        lambda x, t: _gamma(x[0], t[0], -t[1]),
        outside=[[-0.5, -1.0], [0.0, -1.0], [1.0, 0.0], [1.0, 1.0]],
        unreachable=[[1.0, 1.0], [-1.0, -1.0], [0.0, 1.0]],
        off_support=(0.0, -1.0),
    ),
    "inverse gamma": Entry(
        InverseGamma(),
        [[2.5, -3.0], [0.5, -0.25]],
        lambda x, t: _gamma(1 / x[0], t[0], -t[1]) - 2 * mp.log(x[0]),
        outside=[[-0.5, -1.0], [1.0, 0.0]],
        unreachable=[[1.0, 1.0], [-1.0, -1.0]],
        off_support=(0.0, -1.0),
    ),
    "chi-square": scalar(
        ChiSquare(),
        (0.5, 3.0, 12.0),
        lambda x, t: _gamma(x, t, mp.mpf(1) / 2),
        (0.0, -0.5),
        (),
        (0.0, -1.0),
    ),
    "chi": scalar(
        Chi(),
        (0.5, 3.0),
        lambda x, t: _gamma(x * x, t, mp.mpf(1) / 2) + mp.log(2 * x),
        (0.0, -0.5),
        (),
        (0.0, -1.0),
    ),
    "inverse Gaussian": Entry(
        InverseGaussian(),
        [[-0.5, -2.0], [-3.0, -0.25]],
        lambda x, t: _inverse_gaussian(x[0], t),
        outside=[[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]],
        unreachable=[[2.0, 0.4], [2.0, 0.5], [-1.0, 2.0]],
        off_support=(0.0, -1.0),
    ),
    "normal": Entry(
        Normal(),
        [[0.5, -0.25], [-3.0, -2.0]],
        lambda x, t: _normal(x[0], t),
        outside=[[0.0, 0.0], [1.0, 0.5]],
        unreachable=[[2.0, 4.0], [1.0, 0.5]],
    ),
    "log-normal": Entry(
        LogNormal(),
        [[0.5, -0.25], [-3.0, -2.0]],
        lambda x, t: _normal(mp.log(x[0]), t) - mp.log(x[0]),
        outside=[[0.0, 0.0], [1.0, 0.5]],
        unreachable=[[2.0, 4.0]],
        off_support=(0.0, -1.0),
    ),
    "beta": Entry(
        Beta(),
        [[2.5, 0.75], [0.5, 4.0]],
        lambda x, t: _dirichlet([x[0], 1 - x[0]], t),
        outside=[[-0.5, 2.0], [0.0, 1.0]],
        unreachable=[[-0.5, -0.5], [0.5, -3.0]],
        off_support=(0.0, 1.0, 1.5, -1.0),
    ),
    "Dirichlet": Entry(
        Dirichlet(3),
        [[2.5, 0.75, 1.5], [0.5, 4.0, 2.0]],
        _dirichlet,
        outside=[[-0.5, 2.0, 1.0], [-1.5, -1.5, 10.0]],
        unreachable=[[-0.5, -0.5, -1.0]],
        off_support=([0.5, 0.5, 0.5], [1.5, -0.25, -0.25]),
    ),
    "Gaussian": Entry(
        Gaussian(2),
        [[0.5, -1.0, -0.75, 0.25, -0.5], [2.0, 0.25, -1.5, -0.5, -0.3]],
        _gaussian_plane,
        outside=[[0.0, 0.0, -0.5, -2.0, -0.5], [0.0, 0.0, 0.5, 0.0, 0.5]],
        unreachable=[[1.0, 1.0, 1.0, 1.0, 1.0]],
    ),
    "normal-gamma": Entry(
        NormalGamma(),
        [[2.5, -3.0, 0.5, -0.75], [4.0, -2.0, -1.0, -1.5]],
        _normal_gamma,
        outside=[[-1.0, -1.0, 0.0, -0.5], [1.0, -1.0, 5.0, -0.5], [1.0, -1.0, 0.0, 0.5]],
        off_support=([0.0, -1.0],),
    ),
    "Wishart": Entry(
        Wishart(2),
        [[2.0, -0.75, 0.5, -0.5], [5.5, -1.5, -0.5, -0.3]],
        _wishart,
        outside=[[0.5, -1.0, 0.0, -1.0], [2.0, -1.0, 4.0, -1.0], [2.0, 1.0, 0.0, 1.0]],
        unreachable=[[1.0, 1.0, 0.0, 1.0], [-1.0, 1.0, 2.0, 1.0]],
        off_support=([[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]]),
    ),
    "inverse Wishart": Entry(
        InverseWishart(2),
        [[2.0, -0.75, 0.5, -0.5], [5.5, -1.5, -0.5, -0.3]],
        _inverse_wishart,
        outside=[[0.5, -1.0, 0.0, -1.0], [2.0, -1.0, 4.0, -1.0]],
        off_support=([[1.0, 2.0], [2.0, 1.0]],),
    ),
    "log-linear": Entry(
        LogLinear(_LEVELS),
        [[0.5, -0.25], [-1.0, 0.5]],
        _enumerated(_LEVELS, lambda x: int(x[0])),
        unreachable=[[0.0, 0.0], [1.0, 1.0], [1.0, 5.0]],
        off_support=(4.0, -1.0, 0.5),
    ),
    "Boltzmann": Entry(
        Boltzmann(2),
        [[0.5, -0.25, 1.0], [-1.0, 0.5, -2.0]],
        _enumerated(_BITS, lambda x: 2 * int(x[0]) + int(x[1])),
        unreachable=[[1.0, 0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, 0.6]],
        off_support=([0.5, 1.0],),
    ),
    "Ising": Entry(
        Ising(2),
        [[0.5, -0.25, 1.0], [-1.0, 0.5, -2.0]],
        _enumerated(_SPINS, lambda x: int(x[0] + 1 + (x[1] + 1) / 2)),
        off_support=([0.5, 1.0],),
    ),
    "made, quartic": Entry(
        from_statistics(lambda x: jnp.stack([x, x**4]), interval(), start=[0.0, -1.0]),
        [[0.5, -0.25], [-1.0, -2.0]],
        _quartic,
        outside=[[1.0, 0.5]],
    ),
    "made, counts": Entry(
        from_statistics(lambda x: x, counts(), lambda x: -log_gamma(x + 1)),
        [[0.5], [3.0]],
        lambda x, t: x[0] * t[0] - mp.exp(t[0]) - mp.loggamma(x[0] + 1),
        off_support=NOT_COUNTS,
    ),
    "von Mises-Fisher": Entry(
        VonMisesFisher(3),
        [[0.5, -0.25, 1.0], [-10.0, 5.0, 20.0]],
        _von_mises_fisher,
        unreachable=[[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]],
        off_support=([0.5, 0.5, 0.5],),
    ),
    "von Mises": Entry(
        VonMises(),
        [[0.5, -0.25], [-10.0, 5.0], [0.1, 0.0]],
        lambda x, t: _von_mises_fisher([mp.cos(x[0]), mp.sin(x[0])], t),
        unreachable=[[1.0, 0.0], [1.0, 1.0]],
    ),
    "generalized inverse Gaussian": Entry(
        GeneralizedInverseGaussian(),
        [[0.5, -0.25, -1.0], [-2.0, -3.0, -0.5], [10.0, -1.0, -2.0]],
        _generalized_inverse_gaussian,
        outside=[[-1.0, -1.0, 0.0], [1.0, 1.0, -1.0]],
        unreachable=[[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, -1.0, 2.0]],
        off_support=(0.0, -1.0),
    ),
    "diagonal normal": Entry(
        DiagonalNormal(2),
        [[0.5, -1.0, -0.25, -2.0], [-3.0, 2.0, -2.0, -0.5]],
        lambda x, t: _normal(x[0], [t[0], t[2]]) + _normal(x[1], [t[1], t[3]]),
        outside=[[0.0, 0.0, 0.0, -1.0], [1.0, 0.5, -1.0, 0.5]],
        unreachable=[[2.0, 0.0, 4.0, 1.0]],
    ),
    "isotropic normal": Entry(
        IsotropicNormal(2),
        [[0.5, -1.0, -0.25], [-3.0, 2.0, -2.0]],
        lambda x, t: _normal(x[0], [t[0], t[2]]) + _normal(x[1], [t[1], t[2]]),
        outside=[[0.0, 0.0, 0.0], [1.0, 0.5, 0.5]],
        unreachable=[[2.0, 1.0, 5.0]],
    ),
    "fixed covariance": Entry(
        FixedCovarianceNormal(np.array([[2.0, 0.5], [0.5, 1.0]])),
        [[0.5, -1.0], [-3.0, 2.0]],
        lambda x, t: _plane_with(mp.matrix([[2, 0.5], [0.5, 1]]), x, t),
    ),
    "Markov chain": Entry(
        MarkovNormal(2),
        [[0.5, -1.0, -0.75, -0.5, 0.25], [2.0, 0.25, -1.5, -0.3, -0.5]],
        lambda x, t: _gaussian_plane(x, [t[0], t[1], t[2], t[4], t[3]]),
        outside=[[0.0, 0.0, -0.5, -0.5, -2.0], [0.0, 0.0, 0.5, 0.5, 0.0]],
        unreachable=[[1.0, 1.0, 1.0, 1.0, 1.0]],
    ),
    "independent": Entry(
        Independent((Poisson(), Normal())),
        [[0.5, -1.0, -0.25], [2.0, 2.0, -2.0]],
        lambda x, t: (
            x[0] * t[0] - mp.exp(t[0]) - mp.loggamma(x[0] + 1) + _normal(x[1], [t[1], t[2]])
        ),
        outside=[[0.0, 0.0, 0.0]],
        unreachable=[[-1.0, 0.0, 1.0], [1.0, 2.0, 4.0]],
        off_support=([0.5, 0.0],),
    ),
    "repeated": Entry(
        Repeated(Exponential(), 3),
        [[-2.0], [-0.25]],
        lambda x, t: sum(mp.log(-t[0]) + t[0] * y for y in x),
        outside=[[0.0], [1.0]],
        unreachable=[[0.0]],
        off_support=([1.0, -1.0, 1.0],),
    ),
    "generalized Dirichlet": Entry(
        GeneralizedDirichlet(3),
        [[2.5, 0.75, 1.5, 3.0], [0.5, 4.0, 2.0, 0.75]],
        lambda x, t: (
            _dirichlet([x[0], 1 - x[0]], t[:2])
            + _dirichlet([x[1] / (1 - x[0]), 1 - x[1] / (1 - x[0])], t[2:])
            - mp.log(1 - x[0])
        ),
        outside=[[-0.5, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]],
        unreachable=[[-0.5, -0.5, -1.0, -1.0]],
        off_support=([0.5, 0.5, 0.5], [1.5, -0.25, -0.25]),
    ),
    "Conway-Maxwell-Poisson": Entry(
        ConwayMaxwellPoisson(),
        [[0.5, -0.75], [3.0, -2.0], [-0.5, -0.1]],
        lambda x, t: (
            x[0] * t[0]
            + mp.loggamma(x[0] + 1) * t[1]
            - mp.log(mp.fsum(mp.exp(k * t[0] + mp.loggamma(k + 1) * t[1]) for k in range(400)))
        ),
        outside=[[1.0, 0.5], [0.0, 0.0], [12.0, -1.0]],
        unreachable=[[-1.0, 1.0], [1.0, -0.5]],
        off_support=NOT_COUNTS,
    ),
    "complex normal": Entry(
        ComplexNormal(2),
        [
            [0.5, -1.0, 1.0, 0.25, -0.75, -1.5, 0.5, -0.25],
            [2.0, 0.25, -1.5, -0.5, -2.0, -1.0, -0.5, 1.0],
        ],
        _complex_normal,
        outside=[[0.0, 0.0, 0.0, 0.0, -1.0, -1.0, 4.0, 0.0], [0.0] * 8],
        unreachable=[[1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]],
    ),
    "normal-Wishart": Entry(
        NormalWishart(2),
        [
            [2.0, -0.75, 0.5, -0.75, 0.25, -0.5, -0.5],
            [5.5, -2.5, -0.5, -1.3, -1.0, 0.25, -1.5],
        ],
        _normal_wishart,
        outside=[[2.0, -0.75, 0.5, -0.75, 0.25, -0.5, 0.5], [2.0, -1.0, 0.0, -1.0, 9.0, 0.0, -0.5]],
    ),
    "normal-inverse-Wishart": Entry(
        NormalInverseWishart(2),
        [
            [3.5, -0.75, 0.5, -0.75, 0.25, -0.5, -0.5],
            [5.5, -2.5, -0.5, -1.3, -1.0, 0.25, -1.5],
        ],
        _normal_inverse_wishart,
        outside=[[2.0, -0.75, 0.5, -0.75, 0.25, -0.5, 0.5]],
    ),
}
