"""Circularly symmetric complex normal laws."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.algebra import AffineImage
from dualflat.geometry.families._image import Borrowed
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.linalg import inverse_pd


@register
@dataclasses.dataclass(frozen=True)
class ComplexNormal(Borrowed):
    """Circularly symmetric complex normal laws on ℂᵈ with mean μ and Hermitian covariance Γ = E zzᴴ.

        p(x) = exp(−(x − μ)ᴴΓ⁻¹(x − μ))/πᵈ det Γ,    Λ = Γ⁻¹,
        T(x) = (Re x; Im x; |xᵢ|²; Re xᵢx̄ⱼ, i > j; Im xᵢx̄ⱼ, i > j),  h = 1,
        θ = (2 Re Λμ; 2 Im Λμ; −Λᵢᵢ; −2 Re Λᵢⱼ; −2 Im Λᵢⱼ),
        ψ(θ) = μᴴΛμ − log det Λ + d log π,

    with respect to Lebesgue measure of the real and imaginary parts. The real and imaginary parts are
    a normal vector in ℝ²ᵈ with precision 2(Re Λ, −Im Λ; Im Λ, Re Λ): the potential is that of
    `Gaussian(2d)` on a linear subspace. A point has 2d + d² entries; an event is complex, shape (d,).

    Attributes:
      d: dimension of x, at least 1.

    >>> family = ComplexNormal(1)
    >>> theta = family.from_usual(mean=jnp.array([1j]), covariance=jnp.array([[2.0 + 0j]]))
    >>> (family.to_eta(theta) - jnp.array([0.0, 1.0, 3.0])).round(4)
    Array([0., 0., 0.], dtype=float32)
    """

    d: int = dataclasses.field(metadata={"static": True})

    complex_events: ClassVar[bool] = True

    def __post_init__(self):
        settle_size(self, "d", 1, "the dimension of x")

    def _source(self) -> AffineImage:
        return AffineImage(Gaussian(2 * self.d), jnp.asarray(self._embedding()))

    def _embedding(self) -> np.ndarray:
        """From θ to the natural parameters of the real normal law in ℝ²ᵈ."""
        d, real = self.d, Gaussian(2 * self.d)
        rows, columns = np.tril_indices(d, -1)
        place = {pair: k for k, pair in enumerate(zip(*np.tril_indices(2 * d), strict=True))}
        matrix = np.zeros((real.dim, self.dim))
        matrix[: 2 * d, : 2 * d] = np.eye(2 * d)  # 2Λ_ℝ μ_ℝ = (2 Re Λμ; 2 Im Λμ)

        def put(i, j, column, value):  # −Λᵢⱼ for i > j, −½Λᵢᵢ, of the precision 2Λ_ℝ
            matrix[2 * d + place[max(i, j), min(i, j)], column] += value

        for i in range(d):
            put(i, i, 2 * d + i, 1.0)
            put(d + i, d + i, 2 * d + i, 1.0)
        half = len(rows)
        for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
            put(i, j, 3 * d + k, 1.0)
            put(d + i, d + j, 3 * d + k, 1.0)
            put(d + i, j, 3 * d + half + k, 1.0)  # Im Λᵢⱼ below on the left
            put(d + j, i, 3 * d + half + k, -1.0)  # Im Λⱼᵢ = −Im Λᵢⱼ
        return matrix

    @property
    def dim(self) -> int:
        """2d + d²."""
        return 2 * self.d + self.d**2

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(d,), complex."""
        return (self.d,)

    def _hermitian(self, entries: Array, off: float) -> Array:
        """The matrix of (diagonal; real; imaginary parts below it), the latter two times `off`."""
        rows, columns = np.tril_indices(self.d, -1)
        half = len(rows)
        lower = (entries[self.d : self.d + half] + 1j * entries[self.d + half :]) * off
        matrix = jnp.zeros((self.d, self.d), lower.dtype).at[rows, columns].set(lower)
        return matrix + matrix.conj().T + jnp.diag(entries[: self.d])

    def _entries(self, matrix: Array, off: float) -> Array:
        rows, columns = np.tril_indices(self.d, -1)
        below = matrix[rows, columns] * off
        return jnp.concatenate([jnp.diagonal(matrix).real, below.real, below.imag])

    def to_theta(self, eta: Array) -> Array:
        """θ of the law with these moments; NaN unless Γ is positive definite."""
        mean = eta[: self.d] + 1j * eta[self.d : 2 * self.d]
        second = self._hermitian(eta[2 * self.d :], 1.0)
        return self.from_usual(mean, second - jnp.outer(mean, mean.conj()))

    def statistic(self, x: Array) -> Array:
        """(Re x; Im x; |xᵢ|²; Re xᵢx̄ⱼ; Im xᵢx̄ⱼ)."""
        return jnp.concatenate([x.real, x.imag, self._entries(jnp.outer(x, x.conj()), 1.0)])

    def log_base(self, x: Array) -> Array:
        """0."""
        size = jnp.abs(x).sum()
        return on_support(size, jnp.isfinite(size), jnp.zeros_like(size))

    def log_density(self, theta: Array, x: Array) -> Array:
        """That of the real vector (Re x; Im x)."""
        real = jnp.asarray(self._embedding(), theta.dtype) @ theta
        return Gaussian(2 * self.d).log_density(real, jnp.concatenate([x.real, x.imag]))

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Complex events."""
        real = jnp.asarray(self._embedding(), theta.dtype) @ theta
        x = Gaussian(2 * self.d).draw(key, real, shape)
        return x[..., : self.d] + 1j * x[..., self.d :]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` μ (d,) and `covariance` Γ (d, d), both complex."""
        real = jnp.asarray(self._embedding(), theta.dtype) @ theta
        mean, covariance = Gaussian(2 * self.d).to_mean_covariance(real)
        d = self.d
        square = 2 * (covariance[:d, :d] + 1j * covariance[d:, :d])
        return {"mean": mean[:d] + 1j * mean[d:], "covariance": square}

    def from_usual(self, mean: Array, covariance: Array) -> Array:
        """θ; NaN unless Γ is positive definite. Of Γ the lower triangle is read."""
        mean, covariance = jnp.asarray(mean), jnp.asarray(covariance)
        if mean.shape != (self.d,) or covariance.shape != (self.d, self.d):
            raise ValueError(
                f"ComplexNormal: mean has shape {mean.shape}, covariance {covariance.shape}. Wanted"
                f" ({self.d},) and ({self.d}, {self.d})."
            )
        low = jnp.tril(covariance, -1)
        gamma = low + low.conj().T + jnp.diag(jnp.diagonal(covariance).real)
        real = jnp.block([[gamma.real, -gamma.imag], [gamma.imag, gamma.real]])
        inverse = inverse_pd(real)
        precision = inverse[: self.d, : self.d] + 1j * inverse[self.d :, : self.d]
        h = 2 * precision @ mean
        return jnp.concatenate([h.real, h.imag, -self._entries(precision, 2.0)])
