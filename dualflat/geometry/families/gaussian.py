"""Multivariate normal laws with a full covariance matrix."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import linalg


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Normal laws on ℝᵈ with mean μ and positive-definite covariance Σ; Λ = Σ⁻¹ is the precision.

    T(x) = (x, the products xᵢxⱼ for i ≥ j row by row), with respect to Lebesgue measure, so

        θ = (Λμ; −½Λᵢᵢ and −Λᵢⱼ for i > j),    η = (μ; Σᵢⱼ + μᵢμⱼ for i ≥ j),
        ψ(θ) = ½ μᵀΛμ − ½ log det Λ + ½ d log 2π,    φ(η) = −½ log det Σ − ½ d log 2πe.

    A point is an array of shape (n,), n = d + d(d+1)/2: d entries for the linear part, then the
    lower triangle by rows. Every pair i > j occurs once, so that its natural parameter is
    Λᵢⱼ and not half of it: ⟨θ, η⟩ = μ₁ᵀΛ₂μ₂ − ½ tr(Λ₂(Σ₁ + μ₁μ₁ᵀ)).

    The domain is Λ positive definite. It is tested by the pivots of a Cholesky factorisation and
    not by a determinant, which is positive for Λ = −I too; outside it everything is NaN, gradients
    included. In η the covariance is a difference, so that |μ|² ≫ Σ costs its digits: where
    rounding η has left no covariance, the answer is NaN. Keep (μ, Σ) or (μ, L) there.

    Attributes:
      d: dimension of x, at least 1.

    >>> psi = Gaussian(2)
    >>> theta = psi.from_mean_covariance(jnp.array([1.0, 0.0]), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> mean, covariance = psi.to_mean_covariance(theta)
    >>> covariance.round(4)
    Array([[2., 1.],
           [1., 2.]], dtype=float32)
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.d, int) or self.d < 1:
            raise ValueError(
                f"Gaussian: d is {self.d!r}. Wanted an integer of at least 1: the dimension of x."
            )

    @property
    def dim(self) -> int:
        """The dimension of the manifold, d + d(d+1)/2."""
        return self.d + self.d * (self.d + 1) // 2

    # --- coordinates -----------------------------------------------------------------------------

    def unpack(self, theta: Array) -> tuple[Array, Array]:
        """(Λμ, Λ) from θ: shapes (d,) and (d, d), the second exactly symmetric."""
        h, lower = theta[: self.d], -self._lower(theta[self.d :])
        return h, lower + lower.T  # the diagonal was halved, the rest was not doubled

    def pack(self, h: Array, precision: Array) -> Array:
        """θ from h = Λμ (d,) and Λ (d, d), of which the lower triangle is read."""
        rows, columns = np.tril_indices(self.d)
        return jnp.concatenate([h, -precision[rows, columns] * np.where(rows == columns, 0.5, 1.0)])

    def from_mean_covariance(self, mean: Array, covariance: Array) -> Array:
        """θ of the law with this mean (d,) and covariance (d, d); NaN unless it is definite.

        Of the covariance the lower triangle is read.
        """
        return self.from_mean_cholesky(mean, linalg.factor(self._square(covariance)))

    def from_mean_cholesky(self, mean: Array, low: Array) -> Array:
        """θ of the law with mean μ (d,) and covariance LLᵀ, L (d, d) lower triangular.

        Λ = L⁻ᵀL⁻¹ is formed from L⁻¹: no product LLᵀ has squared the condition number. NaN unless
        the diagonal is positive.
        """
        mean, low = jnp.asarray(mean), jnp.tril(self._square(low))
        if mean.shape != (self.d,):
            raise ValueError(f"Gaussian: mean has shape {mean.shape}. Wanted ({self.d},).")
        good = (jnp.diagonal(low) > 0).all()
        inverse = solve_triangular(
            jnp.where(good, low, jnp.nan), jnp.eye(self.d, dtype=low.dtype), lower=True
        )
        return self.pack(inverse.T @ (inverse @ mean), inverse.T @ inverse)

    def to_mean_covariance(self, theta: Array) -> tuple[Array, Array]:
        """(μ, Σ) of the law θ: shapes (d,) and (d, d); NaN outside the domain."""
        mean, root = self._mean_root(theta)
        return mean, root.T @ root

    def to_mean_cholesky(self, theta: Array) -> tuple[Array, Array]:
        """(μ, L) with Σ = LLᵀ, L (d, d) lower triangular: what a sampler wants. NaN outside.

        From the factor of Λ taken in reversed order, Λ = UUᵀ with U upper triangular: L = U⁻ᵀ.
        """
        mean, _ = self._mean_root(theta)
        _, precision = self.unpack(theta)
        upper = linalg.factor(precision[::-1, ::-1])[::-1, ::-1]
        identity = jnp.eye(self.d, dtype=theta.dtype)
        return mean, solve_triangular(upper, identity, lower=False).T

    def _lower(self, entries: Array) -> Array:
        rows, columns = np.tril_indices(self.d)
        return jnp.zeros((self.d, self.d), entries.dtype).at[rows, columns].set(entries)

    def _square(self, matrix: Array) -> Array:
        matrix = jnp.asarray(matrix)
        if matrix.shape != (self.d, self.d):
            raise ValueError(
                f"Gaussian: a matrix has shape {matrix.shape}. Wanted {(self.d, self.d)}."
            )
        return matrix

    def _mean_root(self, theta: Array) -> tuple[Array, Array]:
        """μ, and L⁻¹ for Λ = LLᵀ, so that Σ = L⁻ᵀL⁻¹."""
        h, precision = self.unpack(theta)
        low = linalg.factor(precision)
        root = solve_triangular(low, jnp.eye(self.d, dtype=theta.dtype), lower=True)
        return linalg.factor_solve(low, h), root

    # --- the potential ---------------------------------------------------------------------------

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar; NaN outside the domain."""
        h, precision = self.unpack(theta)
        low = linalg.factor(precision)
        white = solve_triangular(low, h, lower=True)  # |L⁻¹Λμ|² = μᵀΛμ
        return 0.5 * (white @ white - linalg.logdet_factor(low) + self.d * math.log(2 * math.pi))

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite and Λ positive definite, pivot by pivot?"""
        _, precision = self.unpack(theta)
        return jnp.isfinite(theta).all() & jnp.isfinite(linalg.factor(precision)).all()

    def starting_point(self, dtype: Any) -> Array:
        """The standard normal law."""
        return self.pack(jnp.zeros(self.d, dtype), jnp.eye(self.d, dtype=dtype))

    def to_eta(self, theta: Array) -> Array:
        """η = (μ; Σ + μμᵀ, its lower triangle by rows), shape (n,)."""
        mean, covariance = self.to_mean_covariance(theta)
        rows, columns = np.tril_indices(self.d)
        return jnp.concatenate([mean, (covariance + jnp.outer(mean, mean))[rows, columns]])

    def to_theta(self, eta: Array) -> Array:
        """θ of the law with these moments, shape (n,); NaN where Σ is not positive definite."""
        return self.from_mean_covariance(*self._moments(eta))

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = −½ log det Σ − ½ d log 2πe, minus the entropy; NaN where Σ is not definite."""
        _, covariance = self._moments(eta)
        logdet = linalg.logdet_factor(linalg.factor(covariance))
        return -0.5 * (logdet + self.d * (math.log(2 * math.pi) + 1))

    def _moments(self, eta: Array) -> tuple[Array, Array]:
        mean, second = eta[: self.d], self._lower(eta[self.d :])
        return mean, second - jnp.tril(jnp.outer(mean, mean))

    def curvature(self, theta: Array, v: Array) -> Array:
        """vᵀ∇²ψ(θ)v = |L⁻¹(ḣ − Λ̇μ)|² + ½‖L⁻¹Λ̇L⁻ᵀ‖² for v = (ḣ, Λ̇) and Λ = LLᵀ.

        The movement of the mean in its own metric, plus that of the precision: two sums of squares.
        """
        mean, root = self._mean_root(theta)
        h_dot, precision_dot = self.unpack(v)
        white = root @ (h_dot - precision_dot @ mean)
        turned = root @ precision_dot @ root.T
        return white @ white + 0.5 * (turned * turned).sum()
