"""Gamma laws and what comes from them: inverse gamma, chi-square, chi."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, special
from dualflat.geometry._tree import register
from dualflat.geometry.families._image import Image
from dualflat.geometry.families._scalar import Scalar, number, on_support, point
from dualflat.geometry.operators import Factored


@register
@dataclasses.dataclass(frozen=True)
class Gamma:
    """Gamma laws on x > 0 with shape α and rate β; with respect to Lebesgue measure.

        T(x) = (log x, x),  h = 1/x,    θ = (α, −β),    η = (ψ(α) − log β, α/β),
        ψ(θ) = log Γ(α) − α log β,    G = (ψ₁(α), 1/β; 1/β, α/β²),    ψ, ψ₁ = digamma, trigamma.

    With h = 1/x the first coordinate is α and not α − 1, which would lose every shape below ε. The
    domain is α > 0 > −β; η is reached where log η₂ > η₁ (Jensen). With e(α) = log Γ(α) − α log α + α
    and the mean m = α/β,

        ψ = α(log m − 1) + e(α),    η₁ = log m + e′(α),    log η₂ − η₁ = −e′(α),
        KL(α′, m′ ‖ α, m) = α (m′/m − 1 − log m′/m) + D_e(α, α′),

    whose terms are not what Stirling's formula lets cancel: the last line is a sum of two divergences.
    θ(η) is a scalar search for α, three Newton steps; and G = LLᵀ with a root that is known, because
    α ψ₁(α) − 1 = α e″(α).

    >>> Gamma().from_usual(shape=2.0, rate=3.0)
    Array([ 2., -3.], dtype=float32)
    """

    @property
    def dim(self) -> int:
        """2."""
        return 2

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is a number."""
        return ()

    def in_domain(self, theta: Array) -> Array:
        """Are α and β positive and finite?"""
        return (theta[0] > 0) & (theta[1] < 0) & jnp.isfinite(theta).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is η₂ > 0, and log η₂ > η₁?"""
        return jnp.isfinite(eta).all() & (eta[1] > 0) & (jnp.log(eta[1]) > eta[0])

    def starting_point(self, dtype: Any) -> Array:
        """The standard exponential law."""
        return jnp.array([1.0, -1.0], dtype)

    def __call__(self, theta: Array, /) -> Array:
        """α(log α/β − 1) + e(α), a scalar; below α = 3 log Γ(α) − α log β."""
        shape, rate = _shape_and_rate(theta)
        far = shape >= 3
        safe = jnp.where(far, shape, 3.0)
        high = safe * (_numerics.log_quotient(safe, rate) - 1) + special.log_gamma_excess(safe)
        low = special.log_gamma(jnp.where(far, 1.0, shape)) - shape * jnp.log(rate)
        return jnp.where(far, high, low)

    def to_eta(self, theta: Array) -> Array:
        """(log α/β + e′(α), α/β); below α = 3 the first is digamma(α) − log β."""
        shape, rate = _shape_and_rate(theta)
        far = shape >= 3
        safe = jnp.where(far, shape, 3.0)
        high = _numerics.log_quotient(safe, rate) + special.digamma_excess(safe)
        low = special.digamma(jnp.where(far, 1.0, shape)) - jnp.log(rate)
        return jnp.stack([jnp.where(far, high, low), shape / rate])

    def to_theta(self, eta: Array) -> Array:
        """(α, −α/η₂) with log α − digamma(α) = log η₂ − η₁; NaN unless that is positive."""
        good = self.in_dual_domain(eta)
        mean = jnp.where(good, eta[1], 1.0)
        excess = jnp.where(good, jnp.log(mean) - eta[0], 1.0)
        shape = special.inverse_digamma_excess(excess)
        return jnp.stack([shape, -shape / mean]) * jnp.where(good, 1.0, jnp.nan)

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = α e′(α) − e(α) at α = α(η): minus the entropy, less E log X. NaN if unreachable."""
        shape = self.to_theta(eta)[0]
        return _entropy_part(shape)

    def hessian(self, theta: Array) -> Factored:
        """LLᵀ with L₁₁ = √ψ₁, L₂₁ = 1/β√ψ₁, L₂₂² = α e″(α)/β²ψ₁."""
        shape, rate = _shape_and_rate(theta)
        root = jnp.sqrt(special.trigamma(shape))
        last = jnp.sqrt(shape * special.trigamma_excess(shape)) / root
        zero = jnp.zeros_like(root)
        return Factored(
            jnp.stack([jnp.stack([root, zero]), jnp.stack([1 / (rate * root), last / rate])])
        )

    def curvature(self, theta: Array, v: Array) -> Array:
        """e″(α)v₁² + (v₁ + (α/β)v₂)²/α."""
        shape, rate = _shape_and_rate(theta)
        moved = v[0] + shape / rate * v[1]
        return special.trigamma_excess(shape) * v[0] * v[0] + moved * moved / shape

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL of the law `base` from the law θ: α(m′/m − 1 − log m′/m) + D_e(α, α′)."""
        step = theta - base
        return divergence_of(_shape_and_rate(theta), _shape_and_rate(base), (step[0], -step[1]))

    # --- laws --------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(log x, x)."""
        return jnp.stack([jnp.log(x), x])

    def log_base(self, x: Array) -> Array:
        """−log x; −∞ for x ≤ 0."""
        inside = (x > 0) & (x < jnp.inf)
        return on_support(x, inside, -jnp.log(jnp.where(inside, x, 1.0)))

    def log_density(self, theta: Array, x: Array) -> Array:
        """−α(y − 1 − log y) − e(α) − log x with y = x/m; below α = 1 α log βx − βx − log Γ(α) − log x."""
        shape, rate = _shape_and_rate(theta)
        x = jnp.where(x > 0, x, 1.0)
        far = shape >= 1
        safe = jnp.where(far, shape, 1.0)
        high = -safe * _numerics.log_excess(rate * x, safe) - special.log_gamma_excess(safe)
        log_gamma = special.log_gamma(jnp.where(far, 1.0, shape))
        low = shape * (jnp.log(rate) + jnp.log(x)) - rate * x - log_gamma
        return jnp.where(far, high, low) - jnp.log(x)

    def entropy(self, theta: Array) -> Array:
        """E log X + e(α) − α e′(α), in nats."""
        return self.to_eta(theta)[0] - _entropy_part(theta[0])

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Gamma variates over β; by their logarithms, so that small shapes do not end as 0."""
        log = jax.random.loggamma(key, theta[0], shape, theta.dtype)
        return jnp.exp(log) / -theta[1]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`shape` α and `rate` β."""
        shape, rate = _shape_and_rate(theta)
        return {"shape": shape, "rate": rate}

    def from_usual(self, shape: Array, rate: Array) -> Array:
        """θ = (α, −β); NaN unless both are positive and finite."""
        theta = jnp.concatenate([point(shape), -point(rate)])
        return jnp.where(self.in_domain(theta), theta, jnp.nan)


def divergence_of(
    law: tuple[Array, Array], base: tuple[Array, Array], step: tuple[Array, Array]
) -> Array:
    """KL(base ‖ law) of two gamma laws by shape and rate; `step` is law − base, known exactly."""
    (shape, rate), (shape_base, rate_base) = law, base
    # m′/m = α′β/αβ′. Its difference from 1 is made of those of the coordinates.
    up, down = -step[0] / shape, step[1] / rate_base
    change = up + down + up * down
    near = jnp.abs(change) < 0.5
    one = jnp.ones_like(change)
    close = _numerics.log_excess(1 + change, one, jnp.where(near, change, 0.0))
    logs = _numerics.log_quotient(shape_base, shape) + _numerics.log_quotient(rate, rate_base)
    far = shape_base / shape * (rate / rate_base) - 1 - logs
    means = jnp.where(near, close, jnp.maximum(far, 0.0))
    return shape * means + special.log_gamma_excess_gap(shape, shape_base)


def _shape_and_rate(theta: Array) -> tuple[Array, Array]:
    """α and β, NaN where they are not positive and finite."""
    shape, rate = theta[0], -theta[1]
    good = (shape > 0) & (rate > 0) & (shape < jnp.inf) & (rate < jnp.inf)
    mark = jnp.where(good, 1.0, jnp.nan).astype(theta.dtype)
    return shape * mark, rate * mark


def _entropy_part(shape: Array) -> Array:
    """α e′(α) − e(α): −1 + log α at 0, −½ log 2π/α − ½ far out."""
    return shape * special.digamma_excess(shape) - special.log_gamma_excess(shape)


@register
@dataclasses.dataclass(frozen=True)
class InverseGamma(Image):
    """Inverse gamma laws on x > 0, those of 1/Y for a gamma Y, with shape α and scale β.

        T(x) = (−log x, 1/x),  h = 1/x,    θ = (α, −β),    the potential of `Gamma`,

    with respect to Lebesgue measure: p(x) = β^α x^(−α−1) exp(−β/x)/Γ(α).

    >>> InverseGamma().from_usual(shape=2.0, scale=3.0)
    Array([ 2., -3.], dtype=float32)
    """

    def _source(self) -> Gamma:
        return Gamma()

    def _forward(self, y: Array) -> Array:
        return 1 / y

    def _backward(self, x: Array) -> Array:
        return 1 / x

    def _log_slope(self, x: Array) -> Array:
        return -2 * jnp.log(x)

    def _supports(self, x: Array) -> Array:
        return (x > 0) & (x < jnp.inf)

    def _mean_log_slope(self, theta: Array) -> Array:
        return 2 * self.to_eta(theta)[0]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`shape` α and `scale` β."""
        shape, scale = _shape_and_rate(theta)
        return {"shape": shape, "scale": scale}

    def from_usual(self, shape: Array, scale: Array) -> Array:
        """θ = (α, −β); NaN unless both are positive and finite."""
        return Gamma().from_usual(shape, scale)


@register
@dataclasses.dataclass(frozen=True)
class ChiSquare(Scalar):
    """Chi-square laws on x > 0 with k degrees of freedom, k any positive number.

        T(x) = log x,  h = exp(−x/2)/x,    θ = k/2,    η = digamma(θ) + log 2,
        ψ(θ) = log Γ(θ) + θ log 2,    D(θ, θ′) = that of log Γ,

    with respect to Lebesgue measure. The domain is θ > 0, the range of η all of ℝ; θ(η) is the
    inverse of digamma.

    >>> ChiSquare().from_usual(degrees=3.0)
    Array([1.5], dtype=float32)
    """

    domain = (0.0, jnp.inf)
    middle = 1.0

    def _value(self, t: Array) -> Array:
        return special.log_gamma(t) + t * math.log(2)

    def _slope(self, t: Array) -> Array:
        return special.digamma(t) + math.log(2)

    def _bend(self, t: Array) -> Array:
        return special.trigamma(t)

    def _inverse(self, s: Array) -> Array:
        return special.inverse_digamma(s - math.log(2))

    def _conjugate(self, s: Array) -> Array:
        shape = self._inverse(s)
        return shape + _entropy_part(shape)  # θη − ψ(θ) without its leading terms

    def _divergence(self, t: Array, base: Array) -> Array:
        return special.log_gamma_gap(t, base)

    def log_base(self, x: Array) -> Array:
        """−x/2 − log x; −∞ for x ≤ 0."""
        inside = (x > 0) & (x < jnp.inf)
        safe = jnp.where(inside, x, 1.0)
        return on_support(x, inside, -safe / 2 - jnp.log(safe))

    def _statistic(self, x: Array) -> Array:
        return jnp.log(x)

    def log_density(self, theta: Array, x: Array) -> Array:
        """That of the gamma law with rate ½."""
        return Gamma().log_density(self._as_gamma(theta), x)

    def entropy(self, theta: Array) -> Array:
        """That of the gamma law with rate ½."""
        return Gamma().entropy(self._as_gamma(theta))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Twice a gamma variate."""
        return Gamma().draw(key, self._as_gamma(theta), shape)

    def _as_gamma(self, theta: Array) -> Array:
        return jnp.append(theta, -0.5)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`degrees` of freedom, k = 2θ."""
        t = number(theta)
        return {"degrees": jnp.where((t > 0) & (t < jnp.inf), 2 * t, jnp.nan)}

    def from_usual(self, degrees: Array) -> Array:
        """θ = k/2; NaN unless 0 < k < ∞."""
        k = point(degrees)
        return jnp.where((k > 0) & (k < jnp.inf), k / 2, jnp.nan)


@register
@dataclasses.dataclass(frozen=True)
class Chi(Image):
    """Chi laws on x > 0: the length of a standard normal vector in k dimensions, k > 0 any number.

        T(x) = 2 log x,  h = 2 exp(−x²/2)/x,    θ = k/2,    the potential of `ChiSquare`,

    with respect to Lebesgue measure.

    >>> Chi().from_usual(degrees=3.0)
    Array([1.5], dtype=float32)
    """

    def _source(self) -> ChiSquare:
        return ChiSquare()

    def _forward(self, y: Array) -> Array:
        return jnp.sqrt(y)

    def _backward(self, x: Array) -> Array:
        return x * x

    def _log_slope(self, x: Array) -> Array:
        return jnp.log(2 * x)

    def _supports(self, x: Array) -> Array:
        return (x > 0) & (x < jnp.inf)

    def _mean_log_slope(self, theta: Array) -> Array:
        return math.log(2) + number(self.to_eta(theta)) / 2

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`degrees` of freedom, k = 2θ."""
        return ChiSquare().to_usual(theta)

    def from_usual(self, degrees: Array) -> Array:
        """θ = k/2; NaN unless 0 < k < ∞."""
        return ChiSquare().from_usual(degrees)
