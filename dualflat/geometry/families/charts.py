"""Laws in coordinates that rounding does not hurt, where natural or mean parameters would be.

Σ = 1e-8·I at the mean 1e4 has no natural parameters in float32: Λμ = 1e12 holds the mean to 1e5
standard deviations. In (μ, L), Σ = LLᵀ, the same law is as good as any other. So it is with
probabilities near 0 or 1, of which the logarithms keep everything.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import _numerics, linalg
from dualflat.geometry._tree import register
from dualflat.geometry.families.gaussian import Gaussian


@register
@dataclasses.dataclass(frozen=True)
class MeanCholesky:
    """A normal law on ℝᵈ by its mean μ and the Cholesky factor L of its covariance.

        KL(μ′, L′ ‖ μ, L) = ½ |L⁻¹(μ′ − μ)|² + Σ_{i>j} ½ Cᵢⱼ² + Σ ½ (Cᵢᵢ² − 1 − log Cᵢᵢ²),  C = L⁻¹L′,
        ds² = |L⁻¹dμ|² + Σ_{i>j} Eᵢⱼ² + 2 Σ Eᵢᵢ²,  E = L⁻¹dL.

    With C = I + L⁻¹(L′ − L), so that near laws keep their digits in any precision.

    Attributes:
      mean: μ, shape (d,).
      low: L, shape (d, d), lower triangular with a positive diagonal; otherwise everything is NaN.

    >>> law = MeanCholesky(jnp.full(2, 1e4), 1e-4 * jnp.eye(2))
    >>> law.kl(MeanCholesky(law.mean + 1e-3, law.low)).round(1)  # a step of about 10 σ in float32
    Array(95.4, dtype=float32)
    """

    mean: Array
    low: Array

    def _parts(self) -> tuple[Array, Array]:
        """μ and L, both NaN unless L is a factor."""
        low = jnp.tril(self.low)
        pivots = jnp.diagonal(low)
        good = ((pivots > 0) & (pivots < jnp.inf)).all() & jnp.isfinite(self.mean).all()
        mark = jnp.where(good, 1.0, jnp.nan).astype(low.dtype)
        return self.mean * mark, low * mark

    def _white(self, x: Array) -> Array:
        return solve_triangular(self._parts()[1], x, lower=True)

    def log_prob(self, x: Array) -> Array:
        """−½|L⁻¹(x − μ)|² − Σ log Lᵢᵢ − ½ d log 2π at one x (d,)."""
        mean, low = self._parts()
        white = self._white(x - mean)
        size = jnp.log(jnp.diagonal(low)).sum()
        return -0.5 * (white @ white + self.mean.shape[0] * math.log(2 * math.pi)) - size

    def entropy(self) -> Array:
        """Σ log Lᵢᵢ + ½ d log 2πe."""
        size = jnp.log(jnp.diagonal(self._parts()[1])).sum()
        return size + 0.5 * self.mean.shape[0] * (math.log(2 * math.pi) + 1)

    def kl(self, other: "MeanCholesky") -> Array:
        """KL(this ‖ other) ≥ 0, in nats, without cancellation."""
        (mean, low), (other_mean, other_low) = self._parts(), other._parts()
        away = other._white(mean - other_mean)
        step = other._white(low - other_low)
        e = jnp.diagonal(step)
        square = e * (2 + e)  # Cᵢᵢ² − 1
        diagonal = _numerics.log_excess(1 + square, jnp.ones_like(square), square)
        below = (jnp.tril(step, -1) ** 2).sum()
        return 0.5 * (away @ away + below + diagonal.sum())

    def inner(self, u: "MeanCholesky", v: "MeanCholesky") -> Array:
        """⟨u, v⟩ of two tangent vectors (dμ, dL) in the Fisher metric."""
        (a, e), (b, f) = ((self._white(w.mean), self._white(jnp.tril(w.low))) for w in (u, v))
        lower = (jnp.tril(e, -1) * jnp.tril(f, -1)).sum()
        return a @ b + lower + 2 * (jnp.diagonal(e) * jnp.diagonal(f)).sum()

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Array:
        """μ + Lz, shape (*shape, d)."""
        noise = jax.random.normal(key, (*shape, self.mean.shape[0]), self.mean.dtype)
        mean, low = self._parts()
        return mean + noise @ low.T

    def theta(self) -> Array:
        """The natural parameters of `Gaussian(d)`, with what rounding leaves of them there."""
        return Gaussian(self.mean.shape[0]).from_mean_cholesky(self.mean, self.low)


@register
@dataclasses.dataclass(frozen=True)
class Moments:
    """The sufficient statistics of a normal sample, about its own mean: they add up over shards.

    Attributes:
      weight: Σ w, shape ().
      mean: shape (d,).
      scatter: Σ w (x − mean)(x − mean)ᵀ, shape (d, d).
    """

    weight: Array
    mean: Array
    scatter: Array

    def __add__(self, other: "Moments") -> "Moments":
        """Of both samples (Chan, Golub and LeVeque 1983)."""
        weight = self.weight + other.weight
        share = jnp.where(weight > 0, other.weight / jnp.where(weight > 0, weight, 1.0), 0.0)
        step = other.mean - self.mean
        scatter = self.scatter + other.scatter + self.weight * share * jnp.outer(step, step)
        return Moments(weight, self.mean + share * step, scatter)

    def fit(self) -> MeanCholesky:
        """The normal law of largest likelihood; NaN where the scatter is not definite."""
        return MeanCholesky(self.mean, linalg.factor(self.scatter / self.weight))


def moments(x: Array, weights: Array | None = None) -> Moments:
    """`Moments` of a batch x (count, d) with weights (count,), 1 each if left out.

    The mean is found from deviations from the first event, and the scatter about it.
    """
    x = jnp.asarray(x)
    w = jnp.ones(x.shape[0], x.dtype) if weights is None else jnp.asarray(weights, x.dtype)
    if x.ndim != 2 or w.shape != x.shape[:1]:
        raise ValueError(
            f"moments: x has shape {x.shape}, weights {w.shape}. Wanted (count, d) and (count,)."
        )
    weight = w.sum()
    share = w / jnp.where(weight > 0, weight, 1.0)
    x = jnp.where(w[:, None] > 0, x, x[:1])
    mean = x[0] + share @ (x - x[0])
    away = x - mean
    rest = share @ away  # what rounding left of the mean
    away = away - rest
    return Moments(weight, mean + rest, (w[:, None] * away).T @ away)


@register
@dataclasses.dataclass(frozen=True)
class LogProbabilities:
    """A categorical law by the logarithms of all its probabilities.

    Attributes:
      log_p: log pⱼ, shape (n + 1,), with Σ pⱼ = 1; −∞ for outcomes that do not happen.

    >>> law = LogProbabilities.of(jnp.array([0.0, -200.0]))
    >>> law.log_p
    Array([   0., -200.], dtype=float32)
    """

    log_p: Array

    @staticmethod
    def of(logits: Array) -> "LogProbabilities":
        """The law with these log-odds, up to a common constant: the largest is subtracted first."""
        top = jnp.argmax(logits)
        lead = logits - logits[top]
        is_top = jnp.arange(logits.shape[0]) == top
        rest = jnp.where(is_top, 0.0, jnp.exp(lead)).sum()
        return LogProbabilities(lead - jnp.log1p(rest))

    def entropy(self) -> Array:
        """−Σ pⱼ log pⱼ."""
        p = jnp.exp(self.log_p)
        return -jnp.where(p > 0, p * self.log_p, 0.0).sum()

    def kl(self, other: "LogProbabilities") -> Array:
        """KL(this ‖ other) = Σ (p log p/q − p + q) ≥ 0; +∞ where q is 0 and p is not."""
        p, q = jnp.exp(self.log_p), jnp.exp(other.log_p)
        gap = jnp.where(p > 0, self.log_p - other.log_p, 0.0)
        near = jnp.abs(gap) < 1
        step = jnp.where(near & (p > 0), q * jnp.expm1(jnp.where(near, gap, 0.0)), p - q)
        terms = _numerics.relative_entropy(p, q, step, other.log_p)
        return jnp.where((p > 0) & (q == 0) & (other.log_p == -jnp.inf), jnp.inf, terms).sum()

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Array:
        """Numbers of outcomes."""
        return jax.random.categorical(key, self.log_p, shape=shape)

    def theta(self) -> Array:
        """log pᵢ/p₀, the natural parameters of `Categorical(n)`."""
        return self.log_p[1:] - self.log_p[0]
