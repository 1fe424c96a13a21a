"""Laws of the mean and precision, or covariance, of a normal law on ℝᵈ: its conjugate priors."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, linalg
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.families._image import Image
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.wishart import Wishart

_LOG_2PI = math.log(2 * math.pi)


@register
@dataclasses.dataclass(frozen=True)
class NormalWishart:
    """Laws of (μ, Λ): the precision Λ is Wishart, and μ given Λ is normal with precision κΛ.

        T = (log det Λ; Λᵢⱼ for i ≥ j; Λμ; μᵀΛμ),  h = (det Λ)^−d/2 (2π)^−d/2,
        θ = (a; −C's entries as in `Wishart`; κm; −κ/2),  a = ν/2,  C = ½V⁻¹ + ½κ mmᵀ,
        ψ(θ) = ψ of `Wishart(d)` at (a, C − ½κ mmᵀ) − ½ d log κ,

    with respect to Lebesgue measure dμ dΛ. An event has shape (d + 1, d): μ, and the rows of Λ. For
    d = 1 it is `NormalGamma` with α = ν/2.

    Attributes:
      d: dimension of μ, at least 1.

    >>> NormalWishart(2).dim
    7
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 1, "the dimension of the mean")

    @property
    def dim(self) -> int:
        """2 + d + d(d+1)/2."""
        return self._wishart.dim + self.d + 1

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(d + 1, d): μ and the rows of Λ."""
        return (self.d + 1, self.d)

    @property
    def _wishart(self) -> Wishart:
        return Wishart(self.d)

    def _parts(self, theta: Array) -> tuple[Array, Array, Array]:
        """θ of the Wishart law, m and κ."""
        k = self._wishart.dim
        count = -2 * theta[-1]
        mean = theta[k:-1] / count
        a, c = self._wishart.unpack(theta[:k])
        inner = c - 0.5 * jnp.outer(theta[k:-1], mean)
        return self._wishart.pack(a, (inner + inner.T) / 2), mean, count

    def _join(self, wishart: Array, mean: Array, count: Array) -> Array:
        a, b = self._wishart.unpack(wishart)
        c = b + 0.5 * count * jnp.outer(mean, mean)
        half = jnp.reshape(-count / 2, 1)
        return jnp.concatenate([self._wishart.pack(a, c), count * mean, half])

    def in_domain(self, theta: Array) -> Array:
        """Is κ > 0, and the Wishart law one?"""
        wishart, _, count = self._parts(theta)
        return jnp.isfinite(theta).all() & (count > 0) & self._wishart.in_domain(wishart)

    def starting_point(self, dtype: Any) -> Array:
        """m = 0, κ = 1, ν = d + 1, V = I."""
        one = jnp.ones((), dtype)
        return self._join(self._wishart.starting_point(dtype), jnp.zeros(self.d, dtype), one)

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar; NaN outside the domain."""
        wishart, _, count = self._parts(theta)
        return self._wishart(wishart) - 0.5 * self.d * jnp.log(_positive(count))

    def to_eta(self, theta: Array) -> Array:
        """(E log det Λ; E Λ; E Λ m; mᵀE Λ m + d/κ)."""
        wishart, mean, count = self._parts(theta)
        eta = self._wishart.to_eta(wishart)
        moved = self._wishart._symmetric(eta[1:], 1.0) @ mean
        last = mean @ moved + self.d / _positive(count)
        return jnp.concatenate([eta, moved, last[None]])

    def to_theta(self, eta: Array) -> Array:
        """m = (E Λ)⁻¹E Λμ, d/κ = η_last − mᵀE Λμ, and the Wishart law; NaN where there is none."""
        k = self._wishart.dim
        moved = eta[k:-1]
        mean = linalg.solve_pd(self._wishart._symmetric(eta[1:k], 1.0), moved)
        count = self.d / _positive(eta[-1] - mean @ moved)
        theta = self._join(self._wishart.to_theta(eta[:k]), mean, count)
        return theta * jnp.where(jnp.isnan(theta).any(), jnp.nan, 1.0).astype(theta.dtype)

    def divergence(self, theta: Array, base: Array) -> Array:
        """That of the Wishart laws + ½ κ (m − m′)ᵀE′Λ(m − m′) + ½ d (κ/κ′ − 1 − log κ/κ′)."""
        (wishart, _, count), (wishart_base, mean_base, count_base) = (
            self._parts(theta),
            self._parts(base),
        )
        k = self._wishart.dim
        step = theta - base
        away = (step[k:-1] + 2 * step[-1] * mean_base) / count
        level = self._wishart._symmetric(self._wishart.to_eta(wishart_base)[1:], 1.0)
        counts = self.d * _numerics.log_excess(_positive(count), _positive(count_base))
        gap = self._wishart.divergence(wishart, wishart_base)
        return gap + 0.5 * (count * linalg.quadratic_form(level, away) + counts)

    # --- laws ------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(log det Λ; Λ's lower triangle; Λμ; μᵀΛμ)."""
        mean, precision = x[0], x[1:]
        moved = precision @ mean
        return jnp.concatenate([self._wishart.statistic(precision), moved, (mean @ moved)[None]])

    def log_base(self, x: Array) -> Array:
        """−½ d log 2π − ½ d log det Λ; −∞ unless Λ is symmetric and positive definite."""
        mean, precision = x[0], x[1:]
        low = linalg.factor(precision)
        inside = (
            jnp.isfinite(low).all() & (precision == precision.T).all() & jnp.isfinite(mean).all()
        )
        logdet = linalg.logdet_factor(jnp.where(inside, low, jnp.eye(self.d, dtype=x.dtype)))
        return on_support(x.sum(), inside, -0.5 * self.d * (_LOG_2PI + logdet))

    def mean_log_base(self, theta: Array) -> Array:
        """−½ d log 2π − ½ d E log det Λ."""
        return -0.5 * self.d * (_LOG_2PI + self.to_eta(theta)[0])

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """(μ; Λ)."""
        wishart, mean, count = self._parts(theta)
        keys = jax.random.split(key)
        precision = self._wishart.draw(keys[0], wishart, shape)
        noise = jax.random.normal(keys[1], (*shape, self.d, 1), theta.dtype)
        low = jnp.linalg.cholesky(precision)
        away = jax.scipy.linalg.solve_triangular(low, noise, lower=True, trans=1)
        center = mean + jnp.swapaxes(away, -1, -2)[..., 0, :] / jnp.sqrt(count)
        return jnp.concatenate([center[..., None, :], precision], -2)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` m (d,), `count` κ, `degrees` ν and `scale` V (d, d)."""
        wishart, mean, count = self._parts(theta)
        return {"mean": mean, "count": count, **self._wishart.to_usual(wishart)}

    def from_usual(self, mean: Array, count: Array, degrees: Array, scale: Array) -> Array:
        """θ; NaN unless κ > 0, ν > d − 1 and V is positive definite."""
        wishart = self._wishart.from_usual(degrees, scale)
        theta = self._join(
            wishart, jnp.asarray(mean, wishart.dtype), jnp.asarray(count, wishart.dtype)
        )
        return jnp.where(self.in_domain(theta), theta, jnp.nan)


def _positive(x: Array) -> Array:
    return x * jnp.where((x > 0) & (x < jnp.inf), 1.0, jnp.nan).astype(x.dtype)


@register
@dataclasses.dataclass(frozen=True)
class NormalInverseWishart(Image):
    """Laws of (μ, Σ): those of (μ, Λ⁻¹) for a `NormalWishart`; with respect to Lebesgue measure dμ dΣ.

        T = (−log det Σ; (Σ⁻¹)ᵢⱼ for i ≥ j; Σ⁻¹μ; μᵀΣ⁻¹μ),    the potential of `NormalWishart(d)`.

    An event has shape (d + 1, d): μ, and the rows of Σ.

    Attributes:
      d: dimension of μ, at least 1.
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 1, "the dimension of the mean")

    def _source(self) -> NormalWishart:
        return NormalWishart(self.d)

    def _forward(self, y: Array) -> Array:
        inverse = jnp.tril(jnp.linalg.inv(y[..., 1:, :]))
        inverse = inverse + jnp.swapaxes(jnp.tril(inverse, -1), -1, -2)
        return jnp.concatenate([y[..., :1, :], inverse], -2)

    def _backward(self, x: Array) -> Array:
        return jnp.concatenate([x[:1], linalg.inverse_pd(x[1:])])

    def _log_slope(self, x: Array) -> Array:
        return -(self.d + 1) * linalg.logdet_factor(linalg.factor(x[1:]))

    def _supports(self, x: Array) -> Array:
        good = jnp.isfinite(linalg.factor(x[1:])).all() & (x[1:] == x[1:].T).all()
        return good & jnp.isfinite(x[0]).all()

    def _some(self, x: Array) -> Array:
        return jnp.concatenate([jnp.zeros((1, self.d), x.dtype), jnp.eye(self.d, dtype=x.dtype)])

    def _mean_log_slope(self, theta: Array) -> Array:
        return (self.d + 1) * self.to_eta(theta)[0]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` m (d,), `count` κ, `degrees` ν and `scale` Ψ = V⁻¹ (d, d)."""
        usual = self._source().to_usual(theta)
        return {**usual, "scale": linalg.inverse_pd(usual["scale"])}

    def from_usual(self, mean: Array, count: Array, degrees: Array, scale: Array) -> Array:
        """θ; NaN unless κ > 0, ν > d − 1 and Ψ is positive definite."""
        inverse = linalg.inverse_pd(jnp.asarray(scale))
        return self._source().from_usual(mean, count, degrees, inverse)
