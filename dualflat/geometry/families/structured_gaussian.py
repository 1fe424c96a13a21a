"""Normal laws on ℝᵈ whose covariance has a structure: diagonal, isotropic, fixed, or of a chain."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import _numerics, linalg
from dualflat.geometry._tree import known_numbers, register, settle_size
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.normal import Normal
from dualflat.geometry.operators import Dense, Paired

_LOG_2PI = math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class _OnSpace:
    """Events of ℝᵈ, h = 1."""

    def _size(self) -> int:
        raise NotImplementedError

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(d,)."""
        return (self._size(),)

    def log_base(self, x: Array) -> Array:
        """0."""
        return on_support(x.sum(), jnp.isfinite(x).all(), jnp.zeros((), x.dtype))

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)


@register
@dataclasses.dataclass(frozen=True)
class DiagonalNormal(_OnSpace):
    """d independent normal laws; with respect to Lebesgue measure on ℝᵈ.

        T(x) = (x; x²),  h = 1,    θ = (μᵢ/σᵢ²; −1/2σᵢ²),    η = (μᵢ; μᵢ² + σᵢ²),

    entry by entry what `Normal` is, with its closed forms. A point has 2d entries; the metric is d
    pairs, so that everything is O(d).

    Attributes:
      d: dimension of x, at least 1.

    >>> DiagonalNormal(2).from_usual(mean=jnp.zeros(2), std=jnp.ones(2))
    Array([ 0. ,  0. , -0.5, -0.5], dtype=float32)
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 1, "the dimension of x")

    def _size(self) -> int:
        return self.d

    @property
    def dim(self) -> int:
        """2d."""
        return 2 * self.d

    def _each(self, f: Callable[..., Array], *points: Array) -> Array:
        """f of every pair (i, d + i), shape (d, …)."""
        return jax.vmap(f)(*(p.reshape(2, -1).T for p in points))

    def in_domain(self, theta: Array) -> Array:
        """Is every precision positive, and θ finite?"""
        return self._each(Normal().in_domain, theta).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is every variance positive?"""
        return self._each(Normal().in_dual_domain, eta).all()

    def starting_point(self, dtype: Any) -> Array:
        """The standard normal law."""
        return jnp.repeat(jnp.array([0.0, -0.5], dtype), self.d)

    def __call__(self, theta: Array, /) -> Array:
        """The sum over the entries."""
        return self._each(Normal(), theta).sum()

    def to_eta(self, theta: Array) -> Array:
        """(μ; μ² + σ²)."""
        return self._each(Normal().to_eta, theta).T.ravel()

    def to_theta(self, eta: Array) -> Array:
        """(μ/σ²; −1/2σ²); NaN unless every variance is positive."""
        theta = self._each(Normal().to_theta, eta).T.ravel()
        return theta * jnp.where(jnp.isnan(theta).any(), jnp.nan, 1.0).astype(theta.dtype)

    def conjugate(self, eta: Array) -> Array:
        """The sum over the entries."""
        return self._each(Normal().conjugate, eta).sum()

    def hessian(self, theta: Array) -> Paired:
        """d pairs."""
        return Paired(self._each(lambda t: Normal().hessian(t).low, theta))

    def curvature(self, theta: Array, v: Array) -> Array:
        """The sum over the entries."""
        return self._each(Normal().curvature, theta, v).sum()

    def divergence(self, theta: Array, base: Array) -> Array:
        """The sum over the entries."""
        return self._each(Normal().divergence, theta, base).sum()

    def statistic(self, x: Array) -> Array:
        """(x; x²)."""
        return jnp.concatenate([x, x * x])

    def log_density(self, theta: Array, x: Array) -> Array:
        """The sum over the entries."""
        return jax.vmap(Normal().log_density)(theta.reshape(2, -1).T, x).sum()

    def entropy(self, theta: Array) -> Array:
        """The sum over the entries."""
        return self._each(Normal().entropy, theta).sum()

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """μ + σz."""
        usual = self.to_usual(theta)
        noise = jax.random.normal(key, (*shape, self.d), theta.dtype)
        return usual["mean"] + usual["std"] * noise

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ (d,) and `std` σ (d,)."""
        return jax.vmap(Normal().to_usual)(theta.reshape(2, -1).T)

    def from_usual(self, mean: Array, std: Array) -> Array:
        """θ; NaN unless every μᵢ is finite and 0 < σᵢ < ∞."""
        mean, std = _vectors(type(self).__name__, self.d, mean=mean, std=std)
        theta = jax.vmap(Normal().from_usual)(mean, std).T.ravel()
        return theta * jnp.where(jnp.isnan(theta).any(), jnp.nan, 1.0).astype(theta.dtype)


@register
@dataclasses.dataclass(frozen=True)
class IsotropicNormal(_OnSpace):
    """Normal laws with covariance σ²I; with respect to Lebesgue measure on ℝᵈ.

        T(x) = (x; |x|²),  h = 1,    θ = (μ/σ²; −1/2σ²),    η = (μ; |μ|² + dσ²),
        ψ(θ) = |μ|²/2σ² + ½ d log 2πσ²,    φ(η) = −½ d log 2πeσ²,
        KL(μ′, σ′ ‖ μ, σ) = |μ′ − μ|²/2σ² + ½ d (σ′²/σ² − 1 − log σ′²/σ²).

    A point has d + 1 entries. In η the variance is a difference, with the digits that leaves.

    Attributes:
      d: dimension of x, at least 1.

    >>> IsotropicNormal(2).from_usual(mean=jnp.zeros(2), std=2.0)
    Array([ 0.   ,  0.   , -0.125], dtype=float32)
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 1, "the dimension of x")

    def _size(self) -> int:
        return self.d

    @property
    def dim(self) -> int:
        """d + 1."""
        return self.d + 1

    def in_domain(self, theta: Array) -> Array:
        """Is the precision positive, and θ finite?"""
        return jnp.isfinite(theta).all() & (theta[-1] < 0)

    def starting_point(self, dtype: Any) -> Array:
        """The standard normal law."""
        return jnp.zeros(self.dim, dtype).at[-1].set(-0.5)

    def _moments(self, theta: Array) -> tuple[Array, Array]:
        good = jnp.where(self.in_domain(theta), 1.0, jnp.nan).astype(theta.dtype)
        variance = -0.5 / (theta[-1] * good)
        return theta[:-1] * variance, variance

    def _variance(self, eta: Array) -> Array:
        variance = (eta[-1] - eta[:-1] @ eta[:-1]) / self.d
        return jnp.where((variance > 0) & (variance < jnp.inf), variance, jnp.nan)

    def __call__(self, theta: Array, /) -> Array:
        """½(⟨μ, θ₁⟩ + d log 2πσ²), a scalar."""
        mean, variance = self._moments(theta)
        return 0.5 * (mean @ theta[:-1] + self.d * (_LOG_2PI + jnp.log(variance)))

    def to_eta(self, theta: Array) -> Array:
        """(μ; |μ|² + dσ²)."""
        mean, variance = self._moments(theta)
        return jnp.append(mean, mean @ mean + self.d * variance)

    def to_theta(self, eta: Array) -> Array:
        """(μ/σ²; −1/2σ²); NaN unless η₂ > |η₁|²."""
        variance = self._variance(eta)
        return jnp.append(eta[:-1], -0.5) / variance

    def conjugate(self, eta: Array) -> Array:
        """−½ d log 2πeσ²."""
        return -0.5 * self.d * (_LOG_2PI + 1 + jnp.log(self._variance(eta)))

    def hessian(self, theta: Array) -> Dense:
        """(σ²I, 2σ²μ; ·, 4σ²|μ|² + 2dσ⁴)."""
        mean, variance = self._moments(theta)
        last = 4 * variance * (mean @ mean) + 2 * self.d * variance * variance
        side = 2 * variance * mean
        top = jnp.concatenate([variance * jnp.eye(self.d, dtype=theta.dtype), side[:, None]], 1)
        return Dense(jnp.concatenate([top, jnp.append(side, last)[None]]))

    def curvature(self, theta: Array, v: Array) -> Array:
        """σ²|v₁ + 2μv₂|² + 2dσ⁴v₂²."""
        mean, variance = self._moments(theta)
        moved, last = v[:-1] + 2 * mean * v[-1], variance * v[-1]
        return variance * (moved @ moved) + 2 * self.d * last * last

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(base ‖ θ), with μ′ − μ made of the coordinates' differences."""
        (_, variance), (mean_base, _) = self._moments(theta), self._moments(base)
        step = theta - base
        moved = step[:-1] + 2 * mean_base * step[-1]
        spread = self.d * _numerics.log_excess(-theta[-1], -base[-1])
        return 0.5 * (variance * (moved @ moved) + spread)

    def statistic(self, x: Array) -> Array:
        """(x; |x|²)."""
        return jnp.append(x, x @ x)

    def log_density(self, theta: Array, x: Array) -> Array:
        """−|x − μ|²/2σ² − ½ d log 2πσ²."""
        mean, variance = self._moments(theta)
        away = (x - mean) / jnp.sqrt(variance)
        return -0.5 * (away @ away + self.d * (_LOG_2PI + jnp.log(variance)))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """μ + σz."""
        mean, variance = self._moments(theta)
        return mean + jnp.sqrt(variance) * jax.random.normal(key, (*shape, self.d), theta.dtype)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ (d,) and `std` σ."""
        mean, variance = self._moments(theta)
        return {"mean": mean, "std": jnp.sqrt(variance)}

    def from_usual(self, mean: Array, std: Array) -> Array:
        """θ; NaN unless μ is finite and 0 < σ < ∞."""
        (mean,) = _vectors(type(self).__name__, self.d, mean=mean)
        std = jnp.asarray(std, mean.dtype)
        theta = jnp.append(mean, -0.5) / std / std
        return jnp.where(self.in_domain(theta) & (std > 0), theta, jnp.nan)


@register
@dataclasses.dataclass(frozen=True)
class FixedCovarianceNormal(_OnSpace):
    """Normal laws with a known covariance Σ and any mean μ; with respect to Lebesgue measure on ℝᵈ.

        T(x) = x,  h = N(x; 0, Σ),    θ = Σ⁻¹μ,    η = μ,    ψ(θ) = ½ θᵀΣθ,    φ(η) = ½ ηᵀΣ⁻¹η.

    Euclid's space: the metric is Σ everywhere and KL is half the squared distance.

    Attributes:
      covariance: Σ, shape (d, d), positive definite; a parameter that can be differentiated.

    >>> FixedCovarianceNormal(jnp.eye(2)).to_eta(jnp.array([1.0, 2.0]))
    Array([1., 2.], dtype=float32)
    """

    covariance: Any

    def __post_init__(self):
        shape = jnp.shape(self.covariance)
        known = known_numbers(self.covariance)
        wrong = len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1
        if wrong or (known is not None and not _is_definite(known)):
            raise ValueError(
                f"FixedCovarianceNormal: covariance has shape {shape}, or is not positive definite."
                " Wanted a positive-definite matrix (d, d)."
            )

    def _size(self) -> int:
        return jnp.shape(self.covariance)[0]

    def _sigma(self, like: Array) -> Array:
        return jnp.asarray(self.covariance, like.dtype)

    @property
    def dim(self) -> int:
        """d."""
        return self._size()

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite?"""
        return jnp.isfinite(theta).all()

    def __call__(self, theta: Array, /) -> Array:
        """½ θᵀΣθ."""
        good = jnp.where(self.in_domain(theta), 1.0, jnp.nan).astype(theta.dtype)
        return 0.5 * linalg.quadratic_form(self._sigma(theta), theta * good)

    def to_eta(self, theta: Array) -> Array:
        """Σθ."""
        return self._sigma(theta) @ theta

    def to_theta(self, eta: Array) -> Array:
        """Σ⁻¹η."""
        return linalg.solve_pd(self._sigma(eta), eta)

    def conjugate(self, eta: Array) -> Array:
        """½ ηᵀΣ⁻¹η."""
        return 0.5 * eta @ self.to_theta(eta)

    def hessian(self, theta: Array) -> Dense:
        """Σ."""
        good = jnp.where(self.in_domain(theta), 1.0, jnp.nan).astype(theta.dtype)
        return Dense(self._sigma(theta) * good)

    def curvature(self, theta: Array, v: Array) -> Array:
        """|Lᵀv|² for Σ = LLᵀ."""
        moved = linalg.factor(self._sigma(theta)).T @ v
        return moved @ moved

    def divergence(self, theta: Array, base: Array) -> Array:
        """½ ΔᵀΣΔ."""
        return 0.5 * self.curvature(theta, theta - base)

    def statistic(self, x: Array) -> Array:
        """x."""
        return x

    def log_base(self, x: Array) -> Array:
        """log N(x; 0, Σ)."""
        low = linalg.factor(self._sigma(x))
        white = jax.scipy.linalg.solve_triangular(low, x, lower=True)
        value = -0.5 * (white @ white + linalg.logdet_factor(low) + self._size() * _LOG_2PI)
        return on_support(x.sum(), jnp.isfinite(x).all(), value)

    def log_density(self, theta: Array, x: Array) -> Array:
        """log N(x; μ, Σ)."""
        return self.log_base(x - self.to_eta(theta))

    def entropy(self, theta: Array) -> Array:
        """½ log det 2πeΣ."""
        logdet = linalg.logdet_factor(linalg.factor(self._sigma(theta)))
        return 0.5 * (logdet + self._size() * (_LOG_2PI + 1))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """μ + Lz."""
        noise = jax.random.normal(key, (*shape, self._size()), theta.dtype)
        return self.to_eta(theta) + noise @ linalg.factor(self._sigma(theta)).T

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ (d,)."""
        return {"mean": self.to_eta(theta)}

    def from_usual(self, mean: Array) -> Array:
        """Σ⁻¹μ."""
        (mean,) = _vectors(type(self).__name__, self._size(), mean=mean)
        return self.to_theta(mean)


@register
@dataclasses.dataclass(frozen=True)
class MarkovNormal(_OnSpace):
    """Gaussian Markov chains: normal laws on ℝᵈ with a tridiagonal precision Λ; w.r.t. Lebesgue measure.

        T(x) = (xᵢ; xᵢ²; xᵢxᵢ₊₁),  h = 1,    θ = (Λμ; −½Λᵢᵢ; −Λᵢ,ᵢ₊₁),
        ψ(θ) = ½ μᵀΛμ − ½ log det Λ + ½ d log 2π.

    A point has 3d − 1 entries. The pivots of Λ are a recurrence along the chain, so that ψ, its
    gradient (the means and covariances of neighbours: what Kalman and Rauch's smoothers compute) and
    a draw take O(d). θ(η) is closed: Λ is the sum of the inverse covariances of neighbours less those
    of the points between them.

    Attributes:
      d: length of the chain, at least 2.

    >>> MarkovNormal(3).dim
    8
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 2, "the length of the chain")

    def _size(self) -> int:
        return self.d

    @property
    def dim(self) -> int:
        """3d − 1."""
        return 3 * self.d - 1

    def unpack(self, theta: Array) -> tuple[Array, Array, Array]:
        """Λμ (d,), the diagonal of Λ (d,), and its neighbour (d − 1,)."""
        d = self.d
        return theta[:d], -2 * theta[d : 2 * d], -theta[2 * d :]

    def _pivots(self, theta: Array) -> tuple[Array, Array]:
        """The pivots of Λ = LDLᵀ from the first on, and L⁻¹Λμ; NaN from a pivot that is not positive."""
        h, diagonal, off = self.unpack(theta)

        def step(state, x):
            pivot, white = state
            entry, link, force = x
            gain = link / pivot
            pivot = entry - gain * link
            pivot = jnp.where((pivot > 0) & (pivot < jnp.inf), pivot, jnp.nan)
            white = force - gain * white
            return (pivot, white), (pivot, white)

        first = jnp.where((diagonal[0] > 0) & (diagonal[0] < jnp.inf), diagonal[0], jnp.nan)
        _, rest = jax.lax.scan(step, (first, h[0]), (diagonal[1:], off, h[1:]))
        pivots, white = (
            jnp.concatenate([a[None], b]) for a, b in zip((first, h[0]), rest, strict=True)
        )
        return pivots, white

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite and every pivot of Λ positive?"""
        return jnp.isfinite(theta).all() & jnp.isfinite(self._pivots(theta)[0]).all()

    def starting_point(self, dtype: Any) -> Array:
        """Independent standard normal laws."""
        d = self.d
        return jnp.zeros(self.dim, dtype).at[d : 2 * d].set(-0.5)

    def __call__(self, theta: Array, /) -> Array:
        """½ Σ (white²/pivot − log pivot + log 2π)."""
        pivots, white = self._pivots(theta)
        return 0.5 * (white * (white / pivots) - jnp.log(pivots) + _LOG_2PI).sum()

    def to_theta(self, eta: Array) -> Array:
        """Λ = Σ (inverse covariances of neighbours) − Σ (of inner points); NaN if one is not definite."""
        d = self.d
        mean = eta[:d]
        variance = eta[d : 2 * d] - mean * mean
        shared = eta[2 * d :] - mean[:-1] * mean[1:]
        det = variance[:-1] * variance[1:] - shared * shared
        good = (variance > 0).all() & (det > 0).all() & jnp.isfinite(eta).all()
        det = jnp.where(good, det, jnp.nan)
        left, right = variance[1:] / det, variance[:-1] / det
        diagonal = jnp.append(left, 0.0) + jnp.append(0.0, right)
        diagonal = diagonal - jnp.pad(1 / variance[1:-1], 1)
        off = -shared / det
        h = diagonal * mean + jnp.append(off * mean[1:], 0.0) + jnp.append(0.0, off * mean[:-1])
        return jnp.concatenate([h, -0.5 * diagonal, -off])

    def statistic(self, x: Array) -> Array:
        """(xᵢ; xᵢ²; xᵢxᵢ₊₁)."""
        return jnp.concatenate([x, x * x, x[:-1] * x[1:]])

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """The last point first, then each given the one after it."""
        pivots, white = self._pivots(theta)
        _, _, off = self.unpack(theta)
        noise = jax.random.normal(key, (self.d, *shape), theta.dtype)

        def step(after, x):
            pivot, force, link, z = x
            value = (force - link * after) / pivot + z / jnp.sqrt(pivot)
            return value, value

        links = jnp.append(off, 0.0)
        _, xs = jax.lax.scan(
            step, jnp.zeros(shape, theta.dtype), (pivots, white, links, noise), reverse=True
        )
        return jnp.moveaxis(xs, 0, -1)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ (d,), `diagonal` (d,) and `off_diagonal` (d − 1,) of Λ."""
        _, diagonal, off = self.unpack(theta)
        pivots, white = self._pivots(theta)

        def step(after, x):
            pivot, force, link = x
            value = (force - link * after) / pivot
            return value, value

        _, mean = jax.lax.scan(
            step, jnp.zeros((), theta.dtype), (pivots, white, jnp.append(off, 0.0)), reverse=True
        )
        return {"mean": mean, "diagonal": diagonal, "off_diagonal": off}

    def from_usual(self, mean: Array, diagonal: Array, off_diagonal: Array) -> Array:
        """θ; NaN unless Λ is positive definite."""
        mean, diagonal = _vectors(type(self).__name__, self.d, mean=mean, diagonal=diagonal)
        (off,) = _vectors(type(self).__name__, self.d - 1, off_diagonal=off_diagonal)
        h = diagonal * mean + jnp.append(off * mean[1:], 0.0) + jnp.append(0.0, off * mean[:-1])
        theta = jnp.concatenate([h, -0.5 * diagonal, -off])
        return jnp.where(self.in_domain(theta), theta, jnp.nan)


def _is_definite(matrix: np.ndarray) -> bool:
    return bool(np.isfinite(matrix).all() and np.linalg.eigvalsh(matrix)[0] > 0)


def _vectors(kind: str, size: int, **values: Any) -> list[Array]:
    arrays = {name: jnp.asarray(v) for name, v in values.items()}
    for name, array in arrays.items():
        if array.shape != (size,):
            raise ValueError(f"{kind}: {name} has shape {array.shape}. Wanted ({size},).")
    return [a.astype(jnp.result_type(float, *arrays.values())) for a in arrays.values()]
