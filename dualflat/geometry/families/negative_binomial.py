"""Failures before the r-th success: the geometric law for one success, negative binomial for more."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, special
from dualflat.geometry._tree import known_numbers, register
from dualflat.geometry.families import _counts
from dualflat.geometry.families._scalar import Scalar, counts_from, number, on_support, point
from dualflat.geometry.families.beta import Beta


@dataclasses.dataclass(frozen=True)
class _Failures(Scalar):
    """ψ(θ) = −r log(1 − exp θ), θ < 0, for a number r > 0 of successes."""

    domain = (-jnp.inf, 0.0)
    range = (0.0, jnp.inf)
    middle = -1.0

    def _wanted(self) -> Any:
        raise NotImplementedError

    def _value(self, t: Array) -> Array:
        return -self._wanted() * _numerics.log1mexp(t)

    def _slope(self, t: Array) -> Array:
        return self._wanted() * jnp.exp(t) / -jnp.expm1(t)

    def _bend(self, t: Array) -> Array:
        failure = -jnp.expm1(t)
        return self._wanted() * (jnp.exp(t) / failure) / failure

    def _inverse(self, s: Array) -> Array:
        r = jnp.asarray(self._wanted(), s.dtype)
        return _numerics.log_quotient(s, r + s, -r)

    def _conjugate(self, s: Array) -> Array:
        r = self._wanted()
        at_zero = s == 0
        safe = jnp.where(at_zero, 1.0, s)
        both = safe * jnp.log1p(r / safe) + r * jnp.log1p(safe / r)
        return jnp.where(at_zero, 0.0, -both)

    def _divergence(self, t: Array, base: Array) -> Array:
        """r times p/p′ − 1 − log p/p′ + (q′/p′)(exp Δ − 1 − Δ) for q = 1 − p = exp θ and Δ = t − base."""
        q, p, q_base, p_base = jnp.exp(t), -jnp.expm1(t), jnp.exp(base), -jnp.expm1(base)
        step = t - base
        near = jnp.abs(step) < 2
        excess, rise = _numerics.exp_excess_by_halves(jnp.where(near, step, 0.0))
        excess = jnp.where(near, q_base * excess, q - q_base * (1 + step))
        rise = jnp.where(near, q_base * rise, q - q_base)  # p′ − p
        return self._wanted() * (_numerics.log_excess(p, p_base, -rise) + excess / p_base)

    def _gap(self, t: Array, s: Array) -> Array:
        r = jnp.broadcast_to(jnp.asarray(self._wanted(), s.dtype), s.shape)
        m = r + s
        one = _numerics.relative_entropy(s, m * jnp.exp(t))
        return one + _numerics.relative_entropy(r, m * -jnp.expm1(t))

    def log_saturated(self, x: Array) -> Array:
        """log of the probability of x under the law with mean x: 0 at 0."""
        r = jnp.asarray(self._wanted(), x.dtype)
        at_zero = ~(x > 0)
        x = jnp.where(at_zero, 1.0, x)
        excess = special.log_gamma_excess(x + r) - special.log_gamma_excess(r)
        return jnp.where(at_zero, 0.0, excess - special.log_factorial_excess(x))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """A Poisson count whose rate is a gamma variate: r of them for r successes."""
        keys, t = jax.random.split(key), number(theta)
        r = jnp.asarray(self._wanted(), theta.dtype)
        rate = jax.random.gamma(keys[0], r, shape, theta.dtype) * (jnp.exp(t) / -jnp.expm1(t))
        return jax.random.poisson(keys[1], rate).astype(theta.dtype)

    def prior(self) -> Beta:
        """Laws of p."""
        return Beta()

    def law_of(self, parameter: Array) -> Array:
        """θ at p."""
        return self.from_usual(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(successes, failures)."""
        return jnp.stack([self._wanted() * weight, total[0]])

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`probability` of a success, p = 1 − exp θ."""
        t = number(theta)
        return {"probability": jnp.where(t < 0, -jnp.expm1(t), jnp.nan)}

    def from_usual(self, probability: Array) -> Array:
        """θ = log(1 − p); NaN unless 0 < p < 1."""
        p = point(probability)
        return jnp.where(
            (p > 0) & (p < 1), _numerics.log_quotient(1 - p, jnp.ones_like(p), -p), jnp.nan
        )


@register
@dataclasses.dataclass(frozen=True)
class Geometric(_Failures):
    """Failures x = 0, 1, 2, … before the first success, which has probability p in every trial.

        T(x) = x,  h = 1,    θ = log(1 − p),    η = (1 − p)/p,    ψ(θ) = −log(1 − exp θ) = −log p,

    with respect to counting. The domain is θ < 0, the range of η (0, ∞). Whoever counts the trial
    that succeeds too has x + 1.

    >>> Geometric().to_eta(jnp.log(jnp.array([0.75]))).round(4)
    Array([3.], dtype=float32)
    """

    def _wanted(self) -> Any:
        return 1.0

    def log_base(self, x: Array) -> Array:
        """0; −∞ but for whole numbers from 0 on."""
        return on_support(x, counts_from(0, x), jnp.zeros_like(x))

    def log_saturated(self, x: Array) -> Array:
        """φ(x), as h is 1."""
        return self._conjugate(jnp.where(x >= 0, x, 0.0))

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """The whole part of an exponential variate with the rate −θ."""
        waited = jax.random.exponential(key, shape, theta.dtype)
        return jnp.floor(waited / -number(theta))


@register
@dataclasses.dataclass(frozen=True)
class NegativeBinomial(_Failures):
    """Failures x = 0, 1, 2, … before the r-th success; with respect to counting.

        T(x) = x,  h = Γ(x + r)/x! Γ(r),    θ = log(1 − p),    η = r(1 − p)/p,
        ψ(θ) = −r log(1 − exp θ),    φ(η) = −η log(1 + r/η) − r log(1 + η/r).

    r need not be whole: then it is Poisson's law with a gamma-distributed rate. The domain is θ < 0,
    the range of η (0, ∞).

    Attributes:
      successes: r > 0, a number or a traced scalar; it is a parameter of ψ and can be differentiated.

    >>> NegativeBinomial(2.0).to_eta(jnp.log(jnp.array([0.75]))).round(4)
    Array([6.], dtype=float32)
    """

    successes: Any

    def __post_init__(self):
        known = known_numbers(self.successes)
        if known is not None and not (known.shape == () and 0 < known < jnp.inf):
            raise ValueError(
                f"NegativeBinomial: successes is {self.successes!r}. Wanted one positive number."
            )

    def _wanted(self) -> Any:
        if known_numbers(self.successes) is not None:
            return self.successes
        r = self.successes  # traced: what the constructor could not check is NaN
        return jnp.where((r > 0) & (r < jnp.inf), r, jnp.nan)

    def log_base(self, x: Array) -> Array:
        """log Γ(x + r)/x! Γ(r); −∞ but for whole numbers from 0 on."""
        inside = counts_from(0, x)
        r = jnp.asarray(self.successes, x.dtype)
        safe = jnp.where(inside, x, 0.0)
        ways = special.log_gamma(safe + r) - special.log_gamma(r) - special.log_gamma(safe + 1)
        return on_support(x, inside, jnp.where(safe == 0, 0.0, ways))

    def mean_log_base(self, theta: Array) -> Array:
        """E log Γ(X + r) − E log X! − log Γ(r)."""
        r = jnp.asarray(self.successes, theta.dtype)
        above = _counts.mean_log_gamma(self, theta, r)
        return above - _counts.mean_log_gamma(self, theta, 1.0) - special.log_gamma(r)
