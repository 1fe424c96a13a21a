"""Counts of rare events: Poisson's law, and the same without the count 0."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, special
from dualflat.geometry._tree import register
from dualflat.geometry.families import _counts
from dualflat.geometry.families._scalar import Scalar, counts_from, number, on_support, point
from dualflat.geometry.families.gamma import Gamma


@register
@dataclasses.dataclass(frozen=True)
class Poisson(Scalar):
    """Poisson's laws of counts x = 0, 1, 2, … with mean λ; with respect to counting.

        T(x) = x,  h = 1/x!,    θ = log λ,    η = λ,    ψ(θ) = exp θ,    φ(η) = η log η − η.

    The domain is ℝ, the range of η (0, ∞). KL(λ′‖λ) = λ((1+u) log(1+u) − u) with u = λ′/λ − 1 taken
    from θ′ − θ, so that close rates keep their digits.

    >>> Poisson().from_usual(rate=2.0).round(4)
    Array([0.6931], dtype=float32)
    """

    range = (0.0, jnp.inf)

    def _value(self, t: Array) -> Array:
        return jnp.exp(t)

    def _slope(self, t: Array) -> Array:
        return jnp.exp(t)

    def _bend(self, t: Array) -> Array:
        return jnp.exp(t)

    def _inverse(self, s: Array) -> Array:
        return jnp.log(s)

    def _conjugate(self, s: Array) -> Array:
        return _numerics.xlogx(s) - s

    def _divergence(self, t: Array, base: Array) -> Array:
        """λ′(exp Δ − 1 − Δ) for Δ = t − base."""
        step, rate = t - base, jnp.exp(base)
        near = jnp.abs(step) < 2
        excess, _ = _numerics.exp_excess_by_halves(jnp.where(near, step, 0.0))
        return jnp.where(near, rate * excess, jnp.exp(t) - rate * (1 + step))

    def _gap(self, t: Array, s: Array) -> Array:
        return _numerics.relative_entropy(s, jnp.exp(t), None, t)

    def log_base(self, x: Array) -> Array:
        """−log x!; −∞ but for whole numbers from 0 on."""
        inside = counts_from(0, x)
        return on_support(x, inside, -special.log_gamma(jnp.where(inside, x, 0.0) + 1))

    def log_saturated(self, x: Array) -> Array:
        """log of the probability of x under the rate x: 0 at 0, −½ log 2πx far out."""
        return -special.log_factorial_excess(jnp.where(x >= 0, x, 0.0))

    def entropy(self, theta: Array) -> Array:
        """−E log p(X), summed over what has any weight."""
        return _counts.entropy_in_window(self, theta, jnp.inf)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Counts; at rates beyond the largest integer of the machine they stay there."""
        rate = jnp.exp(number(theta))
        return jax.random.poisson(key, rate, shape).astype(theta.dtype)

    def prior(self) -> Gamma:
        """Laws of λ."""
        return Gamma()

    def law_of(self, parameter: Array) -> Array:
        """θ at λ."""
        return self.from_usual(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(events, minus the number of observations)."""
        return jnp.stack([total[0], -weight])

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`rate`, λ = exp θ."""
        return {"rate": jnp.exp(number(theta))}

    def from_usual(self, rate: Array) -> Array:
        """θ = log λ; NaN unless 0 < λ < ∞."""
        rate = point(rate)
        return jnp.where((rate > 0) & (rate < jnp.inf), jnp.log(rate), jnp.nan)


@register
@dataclasses.dataclass(frozen=True)
class ZeroTruncatedPoisson(Scalar):
    """Poisson's laws given that the count is not 0: x = 1, 2, …; with respect to counting.

        T(x) = x,  h = 1/x!,    θ = log λ,    η = λ/(1 − exp −λ),    ψ(θ) = log(exp λ − 1).

    The domain is ℝ, the range of η (1, ∞); φ has no closed form, as θ(η) has none but Lambert's W.
    Near η = 1 all that matters is of size λ/2 and is computed by itself: η − 1, ψ − θ and the metric
    keep their relative accuracy for every λ. A bend of the form λ²/2 − (η − 1)λ gives θ(η) to the
    digits that η − 1 has.

    >>> ZeroTruncatedPoisson().to_eta(jnp.array([0.0])).round(4)  # 1/(1 − 1/e)
    Array([1.582], dtype=float32)
    """

    range = (1.0, jnp.inf)

    def _value(self, t: Array) -> Array:
        return t + self._excess(t)

    def _excess(self, t: Array) -> Array:
        """ψ − θ = log((exp λ − 1)/λ), which is λ/2 near 0."""
        rate = jnp.exp(t)
        near = rate < 0.5
        small, large = jnp.where(near, rate, 0.0), jnp.where(near, 1.0, rate)
        close = jnp.log1p(small * _numerics.exp_series(small, 2))
        return jnp.where(near, close, large + _numerics.log1mexp(-large) - jnp.where(near, 0.0, t))

    def _slope(self, t: Array) -> Array:
        return 1 / _numerics.expm1_ratio(-jnp.exp(t))

    def _excess_slope(self, t: Array) -> Array:
        """η − 1 = (λ − 1 + exp −λ)/(1 − exp −λ)."""
        rate = jnp.exp(t)
        near = rate < 0.5
        small, large = jnp.where(near, rate, 0.0), jnp.where(near, 1.0, rate)
        close = small * _numerics.exp_series(-small, 2) / _numerics.exp_series(-small, 1)
        return jnp.where(near, close, _numerics.exp_excess(-large) / -jnp.expm1(-large))

    def _bend(self, t: Array) -> Array:
        rate = jnp.exp(t)
        near = rate < 0.5
        small, large = jnp.where(near, rate, 0.0), jnp.where(near, 1.0, rate)
        share = small * _numerics.exp_series(small, 2) / _numerics.exp_series(small, 1)
        return self._slope(t) * jnp.where(near, share, 1 - large / jnp.expm1(large))

    def _inverse(self, s: Array) -> Array:
        over = s - 1
        rate = over * (1 + 1 / (1 + 2 * over / 3))
        for _ in range(
            5
        ):  # Newton on (exp −λ − 1 + λ) − (η − 1)(1 − exp −λ), convex and increasing
            rest = -jnp.expm1(-rate)
            miss = _numerics.exp_excess(-rate) - over * rest
            rate = rate - miss / (rest - over * jnp.exp(-rate))
        return jnp.log(rate)

    def _conjugate(self, s: Array) -> Array:
        edge = s <= 1  # φ(1) = 0: all mass on x = 1, where h = 1
        t = self._inverse(jnp.where(edge, 2.0, s))
        return jnp.where(edge, 0.0, (s - 1) * t - self._excess(t))

    def _divergence(self, t: Array, base: Array) -> Array:
        near = jnp.abs(t - base) < 1
        close = self._by_quadrature(jnp.where(near, t, base), base)
        # ψ − θ in the place of ψ: the linear part, which is nearly all, drops out
        rise = self._excess(t) - self._excess(base)
        far = rise - self._excess_slope(base) * (t - base)
        return jnp.where(near, close, jnp.maximum(far, 0.0))

    def _gap(self, t: Array, s: Array) -> Array:
        edge = s <= 1
        inside = self._divergence(t, self._inverse(jnp.where(edge, 2.0, s)))
        return jnp.where(edge, self._excess(t), inside)

    def log_base(self, x: Array) -> Array:
        """−log x!; −∞ but for whole numbers from 1 on."""
        inside = counts_from(1, x)
        return on_support(x, inside, -special.log_gamma(jnp.where(inside, x, 1.0) + 1))

    def log_density(self, theta: Array, x: Array) -> Array:
        """log p(x): of the untruncated law, less log(1 − exp −λ)."""
        t = number(theta)
        x = jnp.where(x >= 1, x, 1.0)
        gap = _numerics.relative_entropy(x, jnp.exp(t), None, t)
        rest = _numerics.log1mexp(-jnp.maximum(jnp.exp(t), 1e-6))
        small = jnp.exp(t) < 1e-6  # log(λ(1 − λ/2)), also where λ is no number
        rest = jnp.where(small, t - jnp.exp(t) / 2, rest)
        value = -gap - special.log_factorial_excess(x) - rest
        # Where both are large with opposite signs: (x − 1)θ − (ψ − θ) − log x!.
        plain = (x - 1) * t - self._excess(t) - special.log_gamma(x + 1)
        return jnp.where(t < -1, plain, value)

    def mean_log_base(self, theta: Array) -> Array:
        """−E log X!."""
        return -_counts.mean_log_gamma(self, theta, 1.0)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """One event, which comes first at a time of its own, and a Poisson count after it."""
        rate, keys = jnp.exp(number(theta)), jax.random.split(key)
        u = jax.random.uniform(keys[0], shape, theta.dtype)
        first = -jnp.log1p(u * jnp.expm1(-rate))
        return 1 + jax.random.poisson(keys[1], jnp.maximum(rate - first, 0.0)).astype(theta.dtype)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`rate`, λ of the law before truncation."""
        return {"rate": jnp.exp(number(theta))}

    def from_usual(self, rate: Array) -> Array:
        """θ = log λ; NaN unless 0 < λ < ∞."""
        return Poisson().from_usual(rate)
