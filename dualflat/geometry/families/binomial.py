"""Successes among independent trials: Bernoulli's law of one, and the binomial law of many."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _bits, _numerics, special
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.families import _counts
from dualflat.geometry.families._scalar import Scalar, counts_from, number, on_support, point
from dualflat.geometry.families.beta import Beta


@dataclasses.dataclass(frozen=True)
class _Trials(Scalar):
    """ψ(θ) = m log(1 + exp θ) for a number m of trials."""

    def _number(self) -> int:
        raise NotImplementedError

    def _image(self) -> tuple[float, float]:
        return (0.0, float(self._number()))

    def _value(self, t: Array) -> Array:
        return self._number() * jnp.logaddexp(0.0, t)

    def _slope(self, t: Array) -> Array:
        return self._number() * _bits.sigmoid(t)

    def _bend(self, t: Array) -> Array:
        return self._number() * _bits.sigmoid(t) * _bits.sigmoid(-t)

    def _inverse(self, s: Array) -> Array:
        return _bits.log_odds(s, self._number())

    def _conjugate(self, s: Array) -> Array:
        return self._number() * _bits.bit_entropy(s / self._number())

    def _divergence(self, t: Array, base: Array) -> Array:
        return self._number() * _bits.softplus_divergence(t, base)

    def _gap(self, t: Array, s: Array) -> Array:
        m = self._number()
        return m * _bits.bit_gap(t, s / m, (m - s) / m)

    def log_base(self, x: Array) -> Array:
        """log of the binomial coefficient; −∞ but for whole numbers from 0 to m."""
        m = self._number()
        inside = counts_from(0, x) & (x <= m)
        safe = jnp.where(inside, x, 0.0)
        whole = special.log_gamma(jnp.asarray(m + 1.0, x.dtype))
        ways = whole - special.log_gamma(safe + 1) - special.log_gamma(m - safe + 1)
        return on_support(x, inside, ways)

    def log_saturated(self, x: Array) -> Array:
        """log of the probability of x under p = x/m: 0 at both ends."""
        m = self._number()
        x = jnp.where((x >= 0) & (x <= m), x, 0.0)
        whole = special.log_factorial_excess(jnp.asarray(float(m), x.dtype))
        parts = special.log_factorial_excess(x) + special.log_factorial_excess(m - x)
        return whole - parts

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Counts of successes."""
        p = _bits.sigmoid(number(theta))
        return jax.random.binomial(key, float(self._number()), p, shape, dtype=theta.dtype)

    def prior(self) -> Beta:
        """Laws of p."""
        return Beta()

    def law_of(self, parameter: Array) -> Array:
        """θ at p."""
        return self.from_usual(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(successes, failures)."""
        return jnp.stack([total[0], self._number() * weight - total[0]])

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`probability`, p = 1/(1 + exp −θ)."""
        return {"probability": _bits.sigmoid(number(theta))}

    def from_usual(self, probability: Array) -> Array:
        """θ = log p/(1 − p); NaN unless 0 < p < 1."""
        p = number(point(probability))
        return jnp.where((p > 0) & (p < 1), _numerics.log_quotient(p, 1 - p), jnp.nan)[None]


@register
@dataclasses.dataclass(frozen=True)
class Bernoulli(_Trials):
    """One trial, x ∈ {0, 1}, that succeeds with probability p; with respect to counting.

        T(x) = x,  h = 1,    θ = log p/(1 − p),    η = p,    ψ(θ) = log(1 + exp θ).

    The domain is ℝ, the range of η (0, 1). 1 − p is never subtracted: at θ = 800, where p is 1 in
    every precision, log p(0; θ) = −800 and the metric is e^−800. n independent ones are `Softplus(n)`
    as a potential.

    >>> Bernoulli().from_usual(probability=0.25).round(4)  # −log 3
    Array([-1.0986], dtype=float32)
    """

    def _number(self) -> int:
        return 1

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Zeros and ones."""
        return jax.random.bernoulli(key, _bits.sigmoid(number(theta)), shape).astype(theta.dtype)

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Binomial(_Trials):
    """Successes x ∈ {0, …, m} in m independent trials; with respect to counting.

        T(x) = x,  h = m!/x!(m − x)!,    θ = log p/(1 − p),    η = mp,    ψ(θ) = m log(1 + exp θ).

    The domain is ℝ, the range of η (0, m).

    Attributes:
      trials: m, at least 1.

    >>> Binomial(10).to_eta(jnp.array([0.0]))
    Array([5.], dtype=float32)
    """

    trials: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "trials", 1, "the number of trials")

    def _number(self) -> int:
        return self.trials

    def entropy(self, theta: Array) -> Array:
        """−E log p(X), summed over what has any weight."""
        return _counts.entropy_in_window(self, theta, float(self.trials))
