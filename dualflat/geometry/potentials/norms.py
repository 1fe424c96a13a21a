"""Quadratic forms and powers of norms."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import _numerics, linalg
from dualflat.geometry._tree import known_numbers, register
from dualflat.geometry.operators import Dense, Diagonal, Operator
from dualflat.geometry.potentials.separable import Separable


@register
@dataclasses.dataclass(frozen=True)
class QuadraticForm:
    """ψ(θ) = ½θᵀQθ, the flat space in which both coordinate systems are one up to a linear map.

        η = Qθ,    φ(η) = ½ηᵀQ⁻¹η,    G = Q,    D(θ, θ′) = ½(θ − θ′)ᵀQ(θ − θ′).

    Domain and range are ℝⁿ. Where Q is not positive definite, everything is NaN, gradients included.

    Attributes:
      matrix: Q, shape (n, n), of which the symmetric part counts; or its diagonal, shape (n,),
        and then everything is O(n). A parameter: it is differentiated, and takes the dtype of θ.

    >>> psi = QuadraticForm(jnp.array([1.0, 4.0]))
    >>> psi(jnp.array([2.0, 1.0])), psi.to_theta(jnp.array([2.0, 4.0]))
    (Array(4., dtype=float32), Array([2., 1.], dtype=float32))
    """

    matrix: Array

    @property
    def dim(self) -> int:
        """The number of rows, n."""
        return self.matrix.shape[-1]

    def hessian(self, theta: Array) -> Operator:
        """Q, NaN unless it is positive definite."""
        matrix = jnp.asarray(self.matrix, theta.dtype)
        if matrix.ndim not in (1, 2) or len(set(matrix.shape)) != 1:
            raise ValueError(
                f"QuadraticForm: matrix has shape {matrix.shape}. Wanted (n, n), or (n,) for a"
                " diagonal."
            )
        if matrix.ndim == 1:
            definite = (matrix > 0) & (matrix < jnp.inf)
            return Diagonal(matrix * _nan_unless(definite.all(), theta))
        matrix = (matrix + matrix.T) / 2
        definite = jnp.isfinite(linalg.factor(jax.lax.stop_gradient(matrix))).all()
        return Dense(matrix * _nan_unless(definite, theta))

    def __call__(self, theta: Array, /) -> Array:
        """½θᵀQθ, a scalar."""
        return 0.5 * self.curvature(theta, theta)

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite, and Q positive definite?"""
        return jnp.isfinite(self.to_eta(theta)).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is η finite, and Q positive definite?"""
        return self.in_domain(eta)

    def starting_point(self, dtype: Any) -> Array:
        """The origin."""
        return jnp.zeros(self.dim, dtype)

    def to_eta(self, theta: Array) -> Array:
        """Qθ, shape (n,)."""
        return self.hessian(theta).apply(theta)

    def to_theta(self, eta: Array) -> Array:
        """Q⁻¹η, shape (n,)."""
        return self.hessian(eta).solve(eta)

    def conjugate(self, eta: Array) -> Array:
        """½ηᵀQ⁻¹η, a scalar."""
        return 0.5 * (eta @ self.to_theta(eta))

    def curvature(self, theta: Array, v: Array) -> Array:
        """vᵀQv, the same everywhere."""
        return v @ self.hessian(theta).apply(v)

    def divergence(self, theta: Array, base: Array) -> Array:
        """½(θ − θ′)ᵀQ(θ − θ′)."""
        return self(theta - base)

    def gap(self, theta: Array, eta: Array) -> Array:
        """½(θ − Q⁻¹η)ᵀQ(θ − Q⁻¹η)."""
        return self(theta - self.to_theta(eta))


def _nan_unless(condition: Array, like: Array) -> Array:
    return jnp.where(condition, 1.0, jnp.nan).astype(like.dtype)


@register
@dataclasses.dataclass(frozen=True)
class PNorm(Separable):
    """ψ(θ) = (1/p) Σ |θᵢ|ᵖ for 1 < p < ∞; its dual is the same with 1/p + 1/q = 1.

        ηᵢ = sign θᵢ |θᵢ|ᵖ⁻¹,    θᵢ = sign ηᵢ |ηᵢ|^(q−1),    φ(η) = (1/q) Σ |ηᵢ|^q,
        G = diag (p−1)|θᵢ|ᵖ⁻²,    D(θ, θ′) = Σ |θᵢ|ᵖ/p + |θ′ᵢ|ᵖ/q − θᵢη′ᵢ.

    Domain and range are ℝⁿ, and an entry 0 belongs to it: ψ is strictly convex and once
    differentiable there. But its metric is 0 there for p > 2 and infinite for p < 2, so `solve`,
    `logdet` and `root` of it are NaN unless p = 2, and a search from the origin says NONFINITE: the
    starting point is (1, …, 1). With k = p − 1, x = |θᵢ|, y = |θ′ᵢ| of one sign, a term of D is

        yᵏ (k (x log x/y − x + y) + x (eˡ − 1 − l))/p,    l = k log x/y,

    of which no part is negative: it keeps its digits near θ′ and near p = 1 alike. Across 0 all
    three terms above are positive.

    Attributes:
      n: how many entries.
      p: the exponent in (1, ∞), a parameter; if it is traced, everything is NaN outside.

    >>> psi = PNorm(2, 3.0)
    >>> psi.to_eta(jnp.array([2.0, -1.0]))
    Array([ 4., -1.], dtype=float32)
    """

    p: float | Array

    middle = 1.0

    def __post_init__(self):
        super().__post_init__()
        p = known_numbers(self.p)
        if p is not None and (p.ndim or not 1 < p < np.inf):
            raise ValueError(
                f"PNorm: p is {self.p!r}. Wanted one finite number above 1: up to 1, |θ|ᵖ is not"
                " strictly convex."
            )

    def _powers(self, t: Array) -> tuple[Array, Array]:
        p = jnp.asarray(self.p, t.dtype)
        p = p * jnp.where((p > 1) & (p < jnp.inf), 1.0, jnp.nan)
        return p, p / (p - 1)

    def _value(self, t: Array) -> Array:
        p, _ = self._powers(t)
        return jnp.abs(t) ** p / p

    def _slope(self, t: Array) -> Array:
        p, _ = self._powers(t)
        return jnp.sign(t) * jnp.abs(t) ** (p - 1)

    def _bend(self, t: Array) -> Array:
        p, _ = self._powers(t)
        return (p - 1) * jnp.abs(t) ** (p - 2)

    def _inverse(self, s: Array) -> Array:
        p, _ = self._powers(s)
        return jnp.sign(s) * jnp.abs(s) ** (1 / (p - 1))

    def _conjugate(self, s: Array) -> Array:
        _, q = self._powers(s)
        return jnp.abs(s) ** q / q

    def _divergence(self, t: Array, base: Array) -> Array:
        p, _ = self._powers(t)
        k, x, y = p - 1, jnp.abs(t), jnp.abs(base)
        apart = x**p / p + y**p * (k / p) - t * self._slope(base)
        same = ((t > 0) & (base > 0)) | ((t < 0) & (base < 0))
        x, y = jnp.where(same, x, 1.0), jnp.where(same, y, 1.0)
        power, rise = y**k, k * _numerics.log_quotient(x, y)
        # Where |θ′|ᵏ may underflow and the excess overflow, their product is a difference of powers.
        steep = rise > 1
        short = power * _numerics.exp_excess(jnp.where(steep, 0.0, rise))
        long = jnp.where(steep, x, 1.0) ** k - power * (1 + rise)
        along = x * jnp.where(steep, long, short)
        return jnp.where(same, (k * power * _numerics.relative_entropy(x, y) + along) / p, apart)
