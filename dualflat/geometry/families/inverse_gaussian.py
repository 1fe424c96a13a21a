"""Inverse Gaussian laws: when a Brownian motion with drift first reaches a level."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import register
from dualflat.geometry.families._scalar import on_support, point
from dualflat.geometry.operators import Factored


@register
@dataclasses.dataclass(frozen=True)
class InverseGaussian:
    """Inverse Gaussian (Wald's) laws on x > 0 with mean μ and shape λ; w.r.t. Lebesgue measure.

        T(x) = (x, 1/x),  h = (2πx³)^−½,    θ = (−λ/2μ², −λ/2),    η = (μ, 1/μ + 1/λ),
        ψ(θ) = −2√(θ₁θ₂) − ½ log(−2θ₂) = −λ/μ − ½ log λ,    φ(η) = ½ log λ − ½,
        KL(μ′, λ′ ‖ μ, λ) = ½ (λ/λ′ − 1 − log λ/λ′) + λ(μ − μ′)²/2μ²μ′.

    The domain is θ₁ < 0, θ₂ < 0, both: their product alone is positive in the wrong quadrant too. η is
    reached where η₁ > 0 and η₁η₂ > 1. μ − μ′ is made of the differences of the coordinates.

    >>> InverseGaussian().from_usual(mean=2.0, shape=4.0)
    Array([-0.5, -2. ], dtype=float32)
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
        """Are both coordinates negative and finite?"""
        return ((theta < 0) & (theta > -jnp.inf)).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is η₁ > 0 and η₂ > 1/η₁?"""
        return jnp.isfinite(eta).all() & (eta[0] > 0) & (eta[1] > 1 / eta[0])

    def starting_point(self, dtype: Any) -> Array:
        """μ = λ = 1."""
        return jnp.array([-0.5, -0.5], dtype)

    def __call__(self, theta: Array, /) -> Array:
        """−λ/μ − ½ log λ, a scalar."""
        a, b = _positive_pair(theta)
        return -2 * jnp.sqrt(a) * jnp.sqrt(b) - 0.5 * jnp.log(2 * b)

    def to_eta(self, theta: Array) -> Array:
        """(μ, 1/μ + 1/λ)."""
        a, b = _positive_pair(theta)
        return jnp.stack([jnp.sqrt(b) / jnp.sqrt(a), jnp.sqrt(a) / jnp.sqrt(b) + 0.5 / b])

    def to_theta(self, eta: Array) -> Array:
        """θ with 1/λ = η₂ − 1/η₁; NaN unless that is positive."""
        mean = jnp.where(eta[0] > 0, eta[0], jnp.nan)
        inverse = eta[1] - 1 / mean
        half = 0.5 / jnp.where((inverse > 0) & (inverse < jnp.inf), inverse, jnp.nan)
        return -jnp.stack([half / mean / mean, half])

    def conjugate(self, eta: Array) -> Array:
        """½ log λ − ½; NaN where η is not reached."""
        return 0.5 * jnp.log(-2 * self.to_theta(eta)[1]) - 0.5

    def hessian(self, theta: Array) -> Factored:
        """LLᵀ with L₁₁ = √(μ³/λ), L₂₁ = −1/√(μλ), L₂₂ = √2/λ."""
        a, b = _positive_pair(theta)
        mean, root = jnp.sqrt(b) / jnp.sqrt(a), jnp.sqrt(2 * b)
        first = jnp.sqrt(mean) / root
        low = [
            jnp.stack([mean * first, jnp.zeros_like(a)]),
            jnp.stack([-first / mean, math.sqrt(0.5) / b]),
        ]
        return Factored(jnp.stack(low))

    def curvature(self, theta: Array, v: Array) -> Array:
        """(μ³/λ)(v₁ − v₂/μ²)² + 2v₂²/λ²."""
        a, b = _positive_pair(theta)
        first = jnp.sqrt(jnp.sqrt(b) / jnp.sqrt(a)) / jnp.sqrt(2 * b)  # √(μ/λ)
        moved = first * (jnp.sqrt(b) / jnp.sqrt(a) * v[0] - jnp.sqrt(a) / jnp.sqrt(b) * v[1])
        last = math.sqrt(0.5) / b * v[1]
        return moved * moved + last * last

    def divergence(self, theta: Array, base: Array) -> Array:
        """½(λ/λ′ − 1 − log λ/λ′) + λ(μ − μ′)²/2μ²μ′, two terms that are not negative."""
        (a, b), (a_base, b_base) = _positive_pair(theta), _positive_pair(base)
        mean, mean_base = jnp.sqrt(b) / jnp.sqrt(a), jnp.sqrt(b_base) / jnp.sqrt(a_base)
        # 1 − μ′/μ from 1 − μ′²/μ², and that from the relative steps of the coordinates
        up, down = (a - a_base) / a_base, (b - b_base) / b
        square = down - up + up * down  # 1 − (b′/b)(a/a′)
        near = (jnp.abs(up) < 0.5) & (jnp.abs(down) < 0.5)
        lead = jnp.where(near, square / (1 + mean_base / mean), 1 - mean_base / mean)
        shapes = 0.5 * _numerics.log_excess(b, b_base)
        return shapes + b / mean_base * lead * lead

    # --- laws --------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(x, 1/x)."""
        return jnp.stack([x, 1 / x])

    def log_base(self, x: Array) -> Array:
        """−½ log 2πx³; −∞ for x ≤ 0."""
        inside = (x > 0) & (x < jnp.inf)
        safe = jnp.where(inside, x, 1.0)
        return on_support(x, inside, -1.5 * jnp.log(safe) - 0.5 * math.log(2 * math.pi))

    def log_density(self, theta: Array, x: Array) -> Array:
        """½ log λ/2πx³ − λ(x − μ)²/2μ²x."""
        a, b = _positive_pair(theta)
        x = jnp.where(x > 0, x, 1.0)
        mean = jnp.sqrt(b) / jnp.sqrt(a)
        away = (x - mean) / mean
        return 0.5 * jnp.log(2 * b) + self.log_base(x) - b / x * away * away

    def entropy(self, theta: Array) -> Array:
        """½ log(2πe/λ) + 3/2 E log X, with E log X = log μ − exp(2λ/μ) E₁(2λ/μ)."""
        a, b = _positive_pair(theta)
        log_mean = jnp.log(jnp.sqrt(b) / jnp.sqrt(a)) - _scaled_exponential_integral(
            4 * jnp.sqrt(a) * jnp.sqrt(b)
        )
        return 0.5 * (math.log(2 * math.pi) + 1 - jnp.log(2 * b)) + 1.5 * log_mean

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """The method of Michael, Schucany and Haas (1976), its smaller root without a subtraction."""
        a, b = _positive_pair(theta)
        mean = jnp.sqrt(b) / jnp.sqrt(a)
        keys = jax.random.split(key)
        y = jax.random.normal(keys[0], shape, theta.dtype) ** 2 * mean / (4 * b)  # μν²/2λ
        ratio = 1 / (1 + y + jnp.sqrt(y * (2 + y)))
        u = jax.random.uniform(keys[1], shape, theta.dtype)
        return mean * jnp.where(u * (1 + ratio) <= 1, ratio, 1 / ratio)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ and `shape` λ."""
        a, b = _positive_pair(theta)
        return {"mean": jnp.sqrt(b) / jnp.sqrt(a), "shape": 2 * b}

    def from_usual(self, mean: Array, shape: Array) -> Array:
        """θ = (−λ/2μ², −λ/2); NaN unless both are positive and finite."""
        mean, shape = point(mean), point(shape)
        theta = jnp.concatenate([-shape / 2 / mean / mean, -shape / 2])
        good = self.in_domain(theta) & (mean[0] > 0)
        return jnp.where(good, theta, jnp.nan)


def _positive_pair(theta: Array) -> tuple[Array, Array]:
    """−θ, NaN where an entry is not positive and finite."""
    good = ((theta < 0) & (theta > -jnp.inf)).all()
    a, b = -theta * jnp.where(good, 1.0, jnp.nan).astype(theta.dtype)
    return a, b


def _scaled_exponential_integral(x: Array) -> Array:
    """exp(x) E₁(x) = ∫₀^∞ exp(−x s)/(1 + s) ds for x > 0, by the trapezoidal rule in log s."""
    u = jnp.arange(-48.0, 12.0, 0.125, dtype=x.dtype)
    s = jnp.exp(u)
    # s runs in units of 1/(1 + x), so that the nodes are where exp(−xs)/(1 + s) is
    scaled = s / (1 + x)
    return 0.125 * (jnp.exp(-x * scaled) * (scaled / (1 + scaled))).sum()
