"""Laws of the mean and precision of a normal law: its conjugate priors."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import register
from dualflat.geometry.families._scalar import on_support, point
from dualflat.geometry.families.gamma import Gamma, divergence_of


@register
@dataclasses.dataclass(frozen=True)
class NormalGamma:
    """Laws of (μ, τ): the precision τ > 0 is gamma, and μ given τ is normal with precision κτ.

        T = (log τ, τ, τμ, τμ²),  h = 1/√(2πτ),    θ = (α, −β − κm²/2, κm, −κ/2),
        ψ(θ) = log Γ(α) − α log β − ½ log κ,
        η = (ψ(α) − log β, α/β, mα/β, m²α/β + 1/κ),

    with respect to Lebesgue measure dμ dτ. The domain is α, κ, β > 0. An event is (μ, τ), shape (2,).
    β = −θ₂ + θ₃²/4θ₄ is a difference: with |m| far from 0 it has the digits that θ leaves it.

    >>> NormalGamma().from_usual(mean=0.0, count=1.0, shape=2.0, rate=3.0)
    Array([ 2. , -3. ,  0. , -0.5], dtype=float32)
    """

    @property
    def dim(self) -> int:
        """4."""
        return 4

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(2,): μ and τ."""
        return (2,)

    def in_domain(self, theta: Array) -> Array:
        """Are α, β and κ positive, and θ finite?"""
        shape, rate, _, count = _parts(theta)
        return jnp.isfinite(theta).all() & (shape > 0) & (rate > 0) & (count > 0)

    def starting_point(self, dtype: Any) -> Array:
        """α = β = κ = 1, m = 0."""
        return jnp.array([1.0, -1.0, 0.0, -0.5], dtype)

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar; NaN outside the domain."""
        shape, rate, _, count = _parts(theta)
        return Gamma()(jnp.stack([shape, -rate])) - 0.5 * jnp.log(_good(count))

    def to_eta(self, theta: Array) -> Array:
        """(digamma(α) − log β, α/β, mα/β, m²α/β + 1/κ)."""
        shape, rate, mean, count = _parts(theta)
        log, level = Gamma().to_eta(jnp.stack([shape, -rate]))
        return jnp.stack([log, level, mean * level, mean * mean * level + 1 / _good(count)])

    def to_theta(self, eta: Array) -> Array:
        """m = η₃/η₂, 1/κ = η₄ − mη₃, and the gamma law of (η₁, η₂); NaN where there is none."""
        mean = eta[2] / eta[1]
        count = 1 / _good(eta[3] - mean * eta[2])
        shape, minus_rate = Gamma().to_theta(eta[:2])
        half = -0.5 * count
        return jnp.stack([shape, minus_rate + half * mean * mean, count * mean, half]) * _mark(
            jnp.isfinite(shape) & jnp.isfinite(count), eta.dtype
        )

    def conjugate(self, eta: Array) -> Array:
        """φ(η): that of the gamma law, less ½ + ½ log 1/κ."""
        count = 1 / _good(eta[3] - eta[2] * (eta[2] / eta[1]))
        return Gamma().conjugate(eta[:2]) - 0.5 + 0.5 * jnp.log(count)

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(base ‖ θ) = that of the gamma laws + ½ κ(m − m′)²α′/β′ + ½(κ/κ′ − 1 − log κ/κ′).

        The differences of m and β are made of those of the coordinates.
        """
        shape, rate, mean, count = _parts(theta)
        shape_base, rate_base, mean_base, count_base = _parts(base)
        step = theta - base
        moved = (step[2] + 2 * step[3] * mean_base) / count
        rise = -step[1] - (step[2] * mean + base[2] * moved) / 2
        laws = (shape, _good(rate)), (shape_base, _good(rate_base))
        gammas = divergence_of(*laws, (step[0], rise))
        counts = _numerics.log_excess(_good(count), _good(count_base))
        return gammas + 0.5 * (count * moved * moved * (shape_base / rate_base) + counts)

    # --- laws ------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(log τ, τ, τμ, τμ²)."""
        mean, precision = x
        moved = precision * mean
        return jnp.stack([jnp.log(precision), precision, moved, moved * mean])

    def log_base(self, x: Array) -> Array:
        """−½ log 2πτ; −∞ for τ ≤ 0."""
        inside = (x[1] > 0) & jnp.isfinite(x).all()
        base = -0.5 * (math.log(2 * math.pi) + jnp.log(jnp.where(inside, x[1], 1.0)))
        return on_support(x.sum(), inside, base)

    def mean_log_base(self, theta: Array) -> Array:
        """−½ log 2π − ½ E log τ."""
        return -0.5 * (math.log(2 * math.pi) + self.to_eta(theta)[0])

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """(μ, τ)."""
        alpha, rate, mean, count = _parts(theta)
        keys = jax.random.split(key)
        precision = Gamma().draw(keys[0], jnp.stack([alpha, -rate]), shape)
        noise = jax.random.normal(keys[1], shape, theta.dtype)
        return jnp.stack([mean + noise / jnp.sqrt(count * precision), precision], -1)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` m, `count` κ, `shape` α and `rate` β."""
        shape, rate, mean, count = _parts(theta)
        return {"mean": mean, "count": count, "shape": shape, "rate": rate}

    def from_usual(self, mean: Array, count: Array, shape: Array, rate: Array) -> Array:
        """θ; NaN unless m is finite and the others are positive and finite."""
        mean, count, shape, rate = (point(v) for v in (mean, count, shape, rate))
        parts = [shape, -rate - count * mean * mean / 2, count * mean, -count / 2]
        theta = jnp.concatenate(parts)
        good = (rate > 0) & (count > 0) & (shape > 0) & jnp.isfinite(theta).all()
        return jnp.where(good, theta, jnp.nan)


def _parts(theta: Array) -> tuple[Array, Array, Array, Array]:
    """α, β, m, κ."""
    count = -2 * theta[3]
    mean = theta[2] / count
    return theta[0], -theta[1] - mean * theta[2] / 2, mean, count


def _good(x: Array) -> Array:
    return x * _mark((x > 0) & (x < jnp.inf), x.dtype)


def _mark(good: Array, dtype: Any) -> Array:
    return jnp.where(good, 1.0, jnp.nan).astype(dtype)
