"""The logarithmic-series law of counts from 1 on."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import register
from dualflat.geometry.families import _counts
from dualflat.geometry.families._scalar import Scalar, counts_from, number, on_support, point


@register
@dataclasses.dataclass(frozen=True)
class Logarithmic(Scalar):
    """Fisher's logarithmic laws of counts x = 1, 2, …, p(x) ∝ qˣ/x; with respect to counting.

        T(x) = x,  h = 1/x,    θ = log q,    ψ(θ) = log L,  L = −log(1 − q),
        η = q/((1 − q)L) = (exp L − 1)/L,    G = r/((1 − q)²(1 + r)²),  r = L/q − 1.

    The domain is θ < 0, the range of η (1, ∞). r is of size q/2 and is not subtracted, so that
    ψ − θ, η − 1 and G keep their relative accuracy for every q. θ(η) is found in L, where
    log((exp L − 1)/L) = log η is nearly straight: Newton from log η + log(1 + log η).

    >>> (eta,) = Logarithmic().to_eta(jnp.log(jnp.array([0.5])))
    >>> print(f"{eta:.4f}")  # 1/log 2
    1.4427
    """

    domain = (-jnp.inf, 0.0)
    range = (1.0, jnp.inf)
    middle = -1.0

    def _rest(self, t: Array) -> Array:
        """r = (L − q)/q for q < 0.95, where it is of size q/2."""
        q = jnp.minimum(jnp.exp(t), 0.95)
        tiny = q < float(jnp.finfo(t.dtype).eps) ** 0.5 / 4
        safe = jnp.where(tiny, 0.5, q)
        excess = _numerics.log_excess(1 - safe, jnp.ones_like(safe), -safe)
        return jnp.where(tiny, q / 2 + q * q / 3, excess / safe)

    def _value(self, t: Array) -> Array:
        return jnp.where(t < -0.7, t + self._excess(t), jnp.log(self._whole(t)))

    def _whole(self, t: Array) -> Array:
        """L, for q that is not small."""
        return -_numerics.log1mexp(jnp.maximum(t, -1.0))

    def _excess(self, t: Array) -> Array:
        """ψ − θ = log(L/q)."""
        near = t < -0.7
        far = jnp.log(self._whole(t)) - jnp.where(near, -0.5, t)
        return jnp.where(near, jnp.log1p(self._rest(t)), far)

    def _slope(self, t: Array) -> Array:
        near = t < -0.7
        far = jnp.where(near, -0.5, t)
        return jnp.where(
            near,
            1 / (-jnp.expm1(t) * (1 + self._rest(t))),
            jnp.exp(far) / -jnp.expm1(far) / self._whole(far),
        )

    def _excess_slope(self, t: Array) -> Array:
        """η − 1 = (q − r(1 − q))/((1 − q)(1 + r)): q less half of it."""
        near = t < -0.7
        r, p = self._rest(t), -jnp.expm1(t)
        return jnp.where(near, (jnp.exp(t) - r * p) / (p * (1 + r)), self._slope(t) - 1)

    def _bend(self, t: Array) -> Array:
        near = t < -0.05
        far = jnp.where(near, -0.01, t)
        r, whole, p = self._rest(t), self._whole(far), -jnp.expm1(far)
        beyond = (whole - jnp.exp(far)) * jnp.exp(far) / (p * whole) / (p * whole)
        p = -jnp.expm1(t)
        return jnp.where(near, r / (p * (1 + r)) / (p * (1 + r)), beyond)

    def _inverse(self, s: Array) -> Array:
        level = _numerics.log_quotient(s, jnp.ones_like(s))
        whole = level + jnp.log1p(level)
        for _ in range(4):
            near = whole < 1
            small, large = jnp.where(near, whole, 0.0), jnp.where(near, 1.0, whole)
            rise = jnp.log1p(small * jnp.where(near, _over(small), 0.0))
            reached = jnp.where(near, rise, large + jnp.log(-jnp.expm1(-large) / large))
            slope_near = _gain(small)
            slope_far = -1 / jnp.expm1(-large) - 1 / large
            whole = whole - (reached - level) / jnp.where(near, slope_near, slope_far)
        # q near 1: 1 − q = q/ηL keeps the digits that exp −L would lose
        far = whole > 1.5
        large = jnp.where(far, whole, 2.0)
        left = -jnp.expm1(-large) / (jnp.where(far, s, 4.0) * large)
        return jnp.where(far, jnp.log1p(-left), _numerics.log1mexp(-jnp.where(far, 1.0, whole)))

    def _conjugate(self, s: Array) -> Array:
        edge = s <= 1  # φ(1) = 0: all mass on x = 1
        t = self._inverse(jnp.where(edge, 2.0, s))
        return jnp.where(edge, 0.0, (s - 1) * t - self._excess(t))

    def _divergence(self, t: Array, base: Array) -> Array:
        # f″ is nearly a power of −θ near 0: there the step must be short against it.
        near = jnp.abs(t - base) < jnp.minimum(1.0, -0.5 * jnp.maximum(t, base))
        close = self._by_quadrature(jnp.where(near, t, base), base)
        far = self._excess(t) - self._excess(base) - self._excess_slope(base) * (t - base)
        return jnp.where(near, close, jnp.maximum(far, 0.0))

    def _gap(self, t: Array, s: Array) -> Array:
        edge = s <= 1
        inside = self._divergence(t, self._inverse(jnp.where(edge, 2.0, s)))
        return jnp.where(edge, self._excess(t), inside)

    def log_base(self, x: Array) -> Array:
        """−log x; −∞ but for whole numbers from 1 on."""
        inside = counts_from(1, x)
        return on_support(x, inside, -jnp.log(jnp.where(inside, x, 1.0)))

    def log_density(self, theta: Array, x: Array) -> Array:
        """(x − 1)θ − (ψ − θ) − log x."""
        t = number(theta)
        return (x - 1) * t - self._excess(t) - jnp.log(jnp.where(x >= 1, x, 1.0))

    def mean_log_base(self, theta: Array) -> Array:
        """−E log X."""
        return -_counts.mean_log(self, theta)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Kemp's mixture (1981): a geometric count whose own q is 1 − (1 − q)^U."""
        keys = jax.random.split(key)
        least = float(jnp.finfo(theta.dtype).tiny)
        u, v = (jax.random.uniform(k, shape, theta.dtype, minval=least) for k in keys)
        own = _numerics.log1mexp(u * _numerics.log1mexp(number(theta)))
        return 1 + jnp.floor(jnp.log(v) / own)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`probability`, q = exp θ."""
        t = number(theta)
        return {"probability": jnp.where(t < 0, jnp.exp(t), jnp.nan)}

    def from_usual(self, probability: Array) -> Array:
        """θ = log q; NaN unless 0 < q < 1."""
        q = point(probability)
        return jnp.where((q > 0) & (q < 1), _numerics.log_quotient(q, jnp.ones_like(q)), jnp.nan)


def _over(y: Array) -> Array:
    """((exp y − 1)/y − 1)/y for 0 ≤ y ≤ 1."""
    half = y / 2  # the series is good to ½: exp y − 1 − y from exp ½y
    e = half * _numerics.exp_series(half, 1)
    excess = half * half * _numerics.exp_series(half, 2)
    return (2 * excess + e * e) / jnp.where(y == 0, 1.0, y) ** 2 * jnp.where(y == 0, 0.0, 1.0)


def _gain(y: Array) -> Array:
    """1/(1 − exp −y) − 1/y for 0 ≤ y ≤ 1: ½ + y/12 − …."""
    safe = jnp.where(y > 0, y, 1.0)
    # (exp −y − 1 + y)/(y(1 − exp −y))
    half = safe / 2
    e = -half * _numerics.exp_series(-half, 1)
    excess = half * half * _numerics.exp_series(-half, 2)
    return jnp.where(y > 0, (2 * excess + e * e) / (safe * -jnp.expm1(-safe)), 0.5)
