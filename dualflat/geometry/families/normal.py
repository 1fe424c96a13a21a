"""Normal laws on the line, and log-normal ones. See `gaussian` for ℝᵈ."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import register
from dualflat.geometry.families._image import Image
from dualflat.geometry.families._scalar import on_support, point
from dualflat.geometry.families.normal_gamma import NormalGamma
from dualflat.geometry.operators import Factored

_LOG_2PI = math.log(2 * math.pi)


@register
@dataclasses.dataclass(frozen=True)
class Normal:
    """Normal laws on ℝ with mean μ and standard deviation σ; with respect to Lebesgue measure.

        T(x) = (x, x²),  h = 1,    θ = (μ/σ², −1/2σ²),    η = (μ, μ² + σ²),
        ψ(θ) = μ²/2σ² + ½ log 2πσ²,    φ(η) = −½ log 2πeσ²,
        KL(μ′, σ′ ‖ μ, σ) = (μ′ − μ)²/2σ² + ½ (σ′²/σ² − 1 − log σ′²/σ²).

    The domain is θ₂ < 0. The same potential as `Gaussian(1)`, with events of shape () and in closed
    form. In η the variance is a difference: σ² = η₂ − η₁² is taken with the square in two parts, so
    that it is what the two numbers say, and NaN where they say that there is none.

    >>> Normal().from_usual(mean=1.0, std=2.0)
    Array([ 0.25 , -0.125], dtype=float32)
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
        """Is θ finite and θ₂ < 0?"""
        return jnp.isfinite(theta).all() & (theta[1] < 0)

    def in_dual_domain(self, eta: Array) -> Array:
        """Is η finite and η₂ > η₁²?"""
        return jnp.isfinite(eta).all() & (_variance(eta) > 0)

    def starting_point(self, dtype: Any) -> Array:
        """The standard normal law."""
        return jnp.array([0.0, -0.5], dtype)

    def __call__(self, theta: Array, /) -> Array:
        """½(μθ₁ + log 2πσ²), a scalar."""
        mean, variance = _moments(theta)
        return 0.5 * (mean * theta[0] + (_LOG_2PI + jnp.log(variance)))

    def to_eta(self, theta: Array) -> Array:
        """(μ, μ² + σ²)."""
        mean, variance = _moments(theta)
        return jnp.stack([mean, mean * mean + variance])

    def to_theta(self, eta: Array) -> Array:
        """(μ/σ², −1/2σ²); NaN unless η₂ > η₁²."""
        variance = _variance(eta)
        variance = jnp.where((variance > 0) & jnp.isfinite(eta).all(), variance, jnp.nan)
        return jnp.stack([eta[0] / variance, -0.5 / variance])

    def conjugate(self, eta: Array) -> Array:
        """−½ log 2πeσ²; NaN unless η₂ > η₁²."""
        variance = _variance(eta)
        return -0.5 * (_LOG_2PI + 1 + jnp.log(jnp.where(variance > 0, variance, jnp.nan)))

    def hessian(self, theta: Array) -> Factored:
        """LLᵀ with L₁₁ = σ, L₂₁ = 2μσ, L₂₂ = √2 σ²."""
        mean, variance = _moments(theta)
        std = jnp.sqrt(variance)
        low = [
            jnp.stack([std, jnp.zeros_like(std)]),
            jnp.stack([2 * mean * std, math.sqrt(2) * variance]),
        ]
        return Factored(jnp.stack(low))

    def curvature(self, theta: Array, v: Array) -> Array:
        """σ²(v₁ + 2μv₂)² + 2σ⁴v₂²."""
        mean, variance = _moments(theta)
        moved, last = v[0] + 2 * mean * v[1], variance * v[1]
        return variance * moved * moved + 2 * last * last

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(base ‖ θ), with μ′ − μ = −σ²(Δθ₁ + 2μ′Δθ₂) made of the coordinates' differences."""
        (_, variance), (mean_base, _) = _moments(theta), _moments(base)
        step = theta - base
        moved = step[0] + 2 * mean_base * step[1]
        spread = _numerics.log_excess(-theta[1], -base[1])
        return 0.5 * (moved * moved * variance + spread)

    # --- laws --------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(x, x²)."""
        return jnp.stack([x, x * x])

    def log_base(self, x: Array) -> Array:
        """0 on the line."""
        return on_support(x, jnp.isfinite(x), jnp.zeros_like(x))

    def log_density(self, theta: Array, x: Array) -> Array:
        """−(x − μ)²/2σ² − ½ log 2πσ²."""
        mean, variance = _moments(theta)
        away = (x - mean) / jnp.sqrt(variance)
        return -0.5 * (away * away + (_LOG_2PI + jnp.log(variance)))

    def entropy(self, theta: Array) -> Array:
        """½ log 2πeσ²."""
        return 0.5 * (_LOG_2PI + 1 + jnp.log(_moments(theta)[1]))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """μ + σz."""
        mean, variance = _moments(theta)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, shape, theta.dtype)

    def prior(self) -> NormalGamma:
        """Laws of (μ, τ = 1/σ²)."""
        return NormalGamma()

    def law_of(self, parameter: Array) -> Array:
        """θ at (μ, τ)."""
        mean, precision = parameter
        return jnp.stack([mean * precision, -precision / 2])

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(n/2, −Σx²/2, Σx, −n/2)."""
        return jnp.stack([weight / 2, -total[1] / 2, total[0], -weight / 2])

    def prior_level(self) -> float:
        """−½ log 2π."""
        return -0.5 * _LOG_2PI

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ and `std` σ."""
        mean, variance = _moments(theta)
        return {"mean": mean, "std": jnp.sqrt(variance)}

    def from_usual(self, mean: Array, std: Array) -> Array:
        """θ = (μ/σ², −1/2σ²); NaN unless μ is finite and 0 < σ < ∞."""
        mean, std = point(mean), point(std)
        theta = jnp.concatenate([mean / std / std, -0.5 / std / std])
        return jnp.where(self.in_domain(theta) & (std[0] > 0), theta, jnp.nan)


def _moments(theta: Array) -> tuple[Array, Array]:
    """μ and σ²; NaN outside the domain."""
    good = jnp.isfinite(theta).all() & (theta[1] < 0)
    variance = -0.5 / (theta[1] * jnp.where(good, 1.0, jnp.nan).astype(theta.dtype))
    return theta[0] * variance, variance


def _variance(eta: Array) -> Array:
    """η₂ − η₁², the square as a sum of two numbers (Dekker 1971)."""
    mean = eta[0]
    square = mean * mean
    split = mean * (2.0**27 + 1 if eta.dtype == jnp.float64 else 2.0**12 + 1)
    high = split - (split - mean)
    low = mean - high
    error = ((high * high - square) + 2 * high * low) + low * low
    return (eta[1] - square) - error


@register
@dataclasses.dataclass(frozen=True)
class LogNormal(Image):
    """Log-normal laws on x > 0: log X is normal with mean μ and standard deviation σ.

        T(x) = (log x, log² x),  h = 1/x,    the potential of `Normal`,

    with respect to Lebesgue measure. μ and σ are those of log X.

    >>> LogNormal().from_usual(mean=1.0, std=2.0)
    Array([ 0.25 , -0.125], dtype=float32)
    """

    def _source(self) -> Normal:
        return Normal()

    def _forward(self, y: Array) -> Array:
        return jnp.exp(y)

    def _backward(self, x: Array) -> Array:
        return jnp.log(x)

    def _log_slope(self, x: Array) -> Array:
        return -jnp.log(x)

    def _supports(self, x: Array) -> Array:
        return (x > 0) & (x < jnp.inf)

    def _mean_log_slope(self, theta: Array) -> Array:
        return -_moments(theta)[0]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ and `std` σ of log X."""
        return Normal().to_usual(theta)

    def from_usual(self, mean: Array, std: Array) -> Array:
        """θ of log X; NaN unless μ is finite and 0 < σ < ∞."""
        return Normal().from_usual(mean, std)
