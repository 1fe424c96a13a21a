"""Wishart laws of positive-definite matrices, and inverse Wishart ones."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import _numerics, linalg, special
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.families._image import Image
from dualflat.geometry.families._scalar import on_support


@register
@dataclasses.dataclass(frozen=True)
class Wishart:
    """Wishart laws of positive-definite X (p, p) with scale V and ν > p − 1 degrees of freedom.

        T(X) = (log det X; Xᵢⱼ for i ≥ j by rows),  h = (det X)^−(p+1)/2,
        θ = (a; −Bᵢᵢ and −2Bᵢⱼ for i > j),  a = ν/2,  B = ½V⁻¹,
        ψ(θ) = log Γ_p(a) − a log det B,    η = (Σᵢ digamma(aᵢ) − log det B; νV),  aᵢ = a − (i − 1)/2,

    with respect to Lebesgue measure on the lower triangle. A point has 1 + p(p+1)/2 entries; every pair
    i > j occurs once, so that its parameter is twice −Bᵢⱼ and ⟨θ, T⟩ = a log det X − tr BX. An event is
    the matrix (p, p).

    The domain is a > (p − 1)/2 and B positive definite, by its pivots. θ(η) is one scalar search, for
    the a with Σ log a/aᵢ + log aᵢ − digamma(aᵢ) = log det E X − E log det X, all of whose terms are
    positive. The divergence of two laws is, as for the gamma laws that p = 1 are, the sum of that of
    the means at fixed a and of that of log Γ_p(a) − p(a log a − a), both convex.

    Attributes:
      p: rows of X, at least 1.

    >>> theta = Wishart(2).from_usual(degrees=4.0, scale=jnp.eye(2))
    >>> Wishart(2).to_eta(theta)[1:].round(4)  # E X = νV
    Array([4., 0., 4.], dtype=float32)
    """

    p: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "p", 1, "the number of rows of X")

    @property
    def dim(self) -> int:
        """1 + p(p+1)/2."""
        return 1 + self.p * (self.p + 1) // 2

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(p, p)."""
        return (self.p, self.p)

    # --- coordinates -----------------------------------------------------------------------------

    def unpack(self, theta: Array) -> tuple[Array, Array]:
        """(a, B) from θ: shapes () and (p, p)."""
        return theta[0], self._symmetric(-theta[1:], 0.5)

    def pack(self, a: Array, b: Array) -> Array:
        """θ from a and B, of which the lower triangle is read."""
        return jnp.concatenate([jnp.reshape(a, 1), -self._entries(b, 2.0)])

    def _symmetric(self, entries: Array, off: float) -> Array:
        rows, columns = np.tril_indices(self.p)
        factor = jnp.asarray(np.where(rows == columns, 1.0, off), entries.dtype)
        lower = jnp.zeros(self.event_shape, entries.dtype).at[rows, columns].set(entries * factor)
        return lower + jnp.tril(lower, -1).T

    def _entries(self, matrix: Array, off: float) -> Array:
        rows, columns = np.tril_indices(self.p)
        factor = jnp.asarray(np.where(rows == columns, 1.0, off), matrix.dtype)
        return matrix[rows, columns] * factor

    def _each(self, a: Array) -> Array:
        """aᵢ = a − (i − 1)/2, NaN throughout unless all are positive."""
        each = a - jnp.arange(self.p, dtype=a.dtype) / 2
        return each * jnp.where((each[-1] > 0) & (a < jnp.inf), 1.0, jnp.nan).astype(a.dtype)

    # --- the potential ---------------------------------------------------------------------------

    def in_domain(self, theta: Array) -> Array:
        """Is a > (p − 1)/2, and B positive definite, pivot by pivot?"""
        a, b = self.unpack(theta)
        good = jnp.isfinite(theta).all() & (a > (self.p - 1) / 2)
        return good & jnp.isfinite(linalg.factor(b)).all()

    def starting_point(self, dtype: Any) -> Array:
        """ν = p + 1, V = I."""
        return self.pack(jnp.asarray((self.p + 1) / 2, dtype), jnp.eye(self.p, dtype=dtype) / 2)

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ) = ¼p(p−1) log π + Σ log Γ(aᵢ) − a log det B, a scalar; NaN outside the domain."""
        a, b = self.unpack(theta)
        logdet = linalg.logdet_factor(linalg.factor(b))
        gammas = special.log_gamma(self._each(a)).sum()
        return self.p * (self.p - 1) / 4 * math.log(math.pi) + gammas - a * logdet

    def to_eta(self, theta: Array) -> Array:
        """(Σ digamma(aᵢ) − log det B; aB⁻¹), shape (1 + p(p+1)/2,)."""
        a, b = self.unpack(theta)
        low = linalg.factor(b)
        root = solve_triangular(low, jnp.eye(self.p, dtype=theta.dtype), lower=True)
        log = special.digamma(self._each(a)).sum() - linalg.logdet_factor(low)
        return jnp.concatenate([log[None], self._entries(a * (root.T @ root), 1.0)])

    def to_theta(self, eta: Array) -> Array:
        """θ with aB⁻¹ = E X; NaN unless E X is positive definite and E log det X < log det E X."""
        low = linalg.factor(self._symmetric(eta[1:], 1.0))
        excess = linalg.logdet_factor(low) - eta[0]
        good = (excess > 0) & (excess < jnp.inf)
        a = self._degrees(jnp.where(good, excess, 1.0))
        root = solve_triangular(low, jnp.eye(self.p, dtype=eta.dtype), lower=True)
        mark = jnp.where(good, 1.0, jnp.nan).astype(eta.dtype)
        return self.pack(a, a * (root.T @ root)) * mark

    def _degrees(self, excess: Array) -> Array:
        """The a with Σ log a − digamma(aᵢ) = excess, by Newton in log(a − (p − 1)/2).

        Both ends of that curve are straight with slope −1: p(p+1)/4a far out, 1/(a − (p−1)/2) near.
        """
        shift = (self.p - 1) / 2
        far = self.p * (self.p + 1) / 4
        over = (1 + (far - 1) / (1 + excess)) / excess
        for _ in range(6):
            each, a = over + jnp.arange(self.p - 1, -1, -1, dtype=excess.dtype) / 2, over + shift
            reached, slope = self._excess_at(a, each)
            over = over * jnp.exp(
                (reached - excess) / (over * slope) * _mean_ratio(reached, excess)
            )
        return over + shift

    def _excess_at(self, a: Array, each: Array) -> tuple[Array, Array]:
        """Σ log a − digamma(aᵢ), and minus its derivative in a."""
        less = (a - each) / each  # a/aᵢ − 1
        value = (jnp.log1p(less) - special.digamma_excess(each)).sum()
        return value, (special.trigamma_excess(each) + less / a).sum()

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = ⟨θ, η⟩ − ψ(θ) = aΣ digamma(aᵢ) − pa − Σ log Γ(aᵢ) − ¼p(p−1) log π."""
        a = self.to_theta(eta)[0]
        each = self._each(a)
        gammas = (a * special.digamma(each) - special.log_gamma(each)).sum()
        return gammas - self.p * a - self.p * (self.p - 1) / 4 * math.log(math.pi)

    def curvature(self, theta: Array, v: Array) -> Array:
        """ȧ²(Σ ψ₁(aᵢ) − p/a) + a tr(B⁻¹Ḃ − ȧ/a)², two sums of squares."""
        a, b = self.unpack(theta)
        a_dot, b_dot = self.unpack(v)
        low = linalg.factor(b)
        root = solve_triangular(low, jnp.eye(self.p, dtype=theta.dtype), lower=True)
        turned = root @ b_dot @ root.T - a_dot / a * jnp.eye(self.p, dtype=theta.dtype)
        _, bend = self._excess_at(a, self._each(a))
        return a_dot * a_dot * bend + a * (turned * turned).sum()

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(base ‖ θ) = a(tr M − log det(I + M)) + D of log Γ_p(a) − p(a log a − a) at a, a′.

        I + M = (a′/a)L⁻¹BL⁻ᵀ with B′ = LLᵀ, and M is made of the differences.
        """
        (a, b), (a_base, b_base) = self.unpack(theta), self.unpack(base)
        a_gap, b_gap = self.unpack(theta - base)
        low = linalg.factor(b_base)
        identity = jnp.eye(self.p, dtype=theta.dtype)
        root = solve_triangular(low, identity, lower=True)
        m = a_base / a * (root @ b_gap @ root.T) - a_gap / a * identity
        means, _ = linalg.log_det_excess(m, a_base / a * (root @ b @ root.T))
        return a * means + self._degrees_gap(a, a_base)

    def _degrees_gap(self, a: Array, base: Array) -> Array:
        """∫ (a − x) E″(x) dx with E″ = Σ ψ₁(xᵢ) − p/x, in the logarithm of x − (p−1)/2."""
        shift = (self.p - 1) / 2
        over, over_base = self._each(a)[-1], self._each(base)[-1]
        level = _numerics.log_quotient(over, over_base)
        near = jnp.abs(level) < 1
        nodes, weights = (jnp.asarray(v, a.dtype) for v in _numerics.unit_nodes(8))
        short = jnp.where(near, level, 0.0)
        at = jnp.where(near, over_base, 1.0) * jnp.exp(short * nodes)

        def bend(x):
            each = x + jnp.arange(self.p - 1, -1, -1, dtype=x.dtype) / 2
            return self._excess_at(x + shift, each)[1]

        rise = at * jnp.expm1(short * (1 - nodes))  # a − x
        close = short * (weights @ (rise * at * jax.vmap(bend)(at)))
        gammas = special.log_gamma_gap(self._each(a), self._each(base)).sum()
        far = gammas - self.p * _numerics.relative_entropy(a, base)
        return jnp.where(near, close, jnp.maximum(far, 0.0))

    # --- laws ------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(log det X; the lower triangle of X by rows)."""
        return jnp.concatenate([_logdet(x)[None], self._entries(x, 1.0)])

    def log_base(self, x: Array) -> Array:
        """−½(p + 1) log det X; −∞ unless X is symmetric and positive definite."""
        inside = jnp.isfinite(_logdet(x)) & (x == x.T).all()
        safe = jnp.where(inside, x, jnp.eye(self.p, dtype=x.dtype))
        return on_support(x.sum(), inside, -(self.p + 1) / 2 * _logdet(safe))

    def mean_log_base(self, theta: Array) -> Array:
        """−½(p + 1) E log det X."""
        return -(self.p + 1) / 2 * self.to_eta(theta)[0]

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """LAAᵀLᵀ with V = LLᵀ and a lower triangular A of chi and normal variates (Bartlett 1933)."""
        a, b = self.unpack(theta)
        keys = jax.random.split(key)
        square = 2 * jax.random.gamma(keys[0], self._each(a), (*shape, self.p), theta.dtype)
        noise = jax.random.normal(keys[1], (*shape, self.p, self.p), theta.dtype)
        own = jnp.tril(noise, -1) + jnp.sqrt(square)[..., None] * jnp.eye(self.p, dtype=theta.dtype)
        # V = ½B⁻¹ = LLᵀ with L lower: from the factor of B in reversed order, B = UUᵀ
        upper = linalg.factor(b[::-1, ::-1])[::-1, ::-1]
        identity = jnp.eye(self.p, dtype=theta.dtype)
        low = solve_triangular(upper, identity, lower=False).T * math.sqrt(0.5)
        root = low @ own
        x = root @ jnp.swapaxes(root, -1, -2)
        return jnp.tril(x) + jnp.swapaxes(jnp.tril(x, -1), -1, -2)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`degrees` of freedom ν and `scale` V (p, p)."""
        a, b = self.unpack(theta)
        return {"degrees": 2 * a, "scale": linalg.inverse_pd(b) / 2}

    def from_usual(self, degrees: Array, scale: Array) -> Array:
        """θ = (ν/2; ½V⁻¹); NaN unless ν > p − 1 and V is positive definite."""
        scale = jnp.asarray(scale)
        if scale.shape != self.event_shape:
            raise ValueError(f"Wishart: scale has shape {scale.shape}. Wanted {self.event_shape}.")
        scale = scale.astype(jnp.result_type(float, scale))
        theta = self.pack(jnp.asarray(degrees, scale.dtype) / 2, linalg.inverse_pd(scale) / 2)
        return jnp.where(self.in_domain(theta), theta, jnp.nan)


def _logdet(x: Array) -> Array:
    return linalg.logdet_factor(linalg.factor(x))


def _mean_ratio(reached: Array, wanted: Array) -> Array:
    """From a step in a value to one in its logarithm: log(r/w)/((r − w)/r), to second order."""
    return 2 * reached / (reached + wanted)


@register
@dataclasses.dataclass(frozen=True)
class InverseWishart(Image):
    """Inverse Wishart laws of X⁻¹ for a Wishart X, with scale Ψ (p, p) and ν > p − 1.

        T(X) = (−log det X; (X⁻¹)ᵢⱼ for i ≥ j),  h = (det X)^−(p+1)/2,    θ = (ν/2; −½Ψ),

    with respect to Lebesgue measure on the lower triangle; the potential of `Wishart(p)`, V = Ψ⁻¹.

    Attributes:
      p: rows of X, at least 1.
    """

    p: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "p", 1, "the number of rows of X")

    def _source(self) -> Wishart:
        return Wishart(self.p)

    def _forward(self, y: Array) -> Array:
        inverse = jnp.linalg.inv(y)
        lower = jnp.tril(inverse)
        return lower + jnp.swapaxes(jnp.tril(inverse, -1), -1, -2)

    def _backward(self, x: Array) -> Array:
        return linalg.inverse_pd(x)

    def _log_slope(self, x: Array) -> Array:
        return -(self.p + 1) * _logdet(x)

    def _supports(self, x: Array) -> Array:
        return jnp.isfinite(_logdet(x)) & (x == x.T).all()

    def _some(self, x: Array) -> Array:
        return jnp.eye(self.p, dtype=x.dtype)

    def _mean_log_slope(self, theta: Array) -> Array:
        return (self.p + 1) * self.to_eta(theta)[0]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`degrees` of freedom ν and `scale` Ψ (p, p)."""
        a, b = self._source().unpack(theta)
        return {"degrees": 2 * a, "scale": 2 * b}

    def from_usual(self, degrees: Array, scale: Array) -> Array:
        """θ = (ν/2; ½Ψ); NaN unless ν > p − 1 and Ψ is positive definite."""
        scale = jnp.asarray(scale)
        if scale.shape != self.event_shape:
            raise ValueError(
                f"InverseWishart: scale has shape {scale.shape}. Wanted {self.event_shape}."
            )
        scale = scale.astype(jnp.result_type(float, scale))
        theta = self._source().pack(jnp.asarray(degrees, scale.dtype) / 2, scale / 2)
        return jnp.where(self.in_domain(theta), theta, jnp.nan)
