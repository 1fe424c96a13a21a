"""Logarithmic barriers: of the cone of positive-definite matrices, and of a polyhedron."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import _numerics, linalg, operators
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.operators import Dense, Operator


@register
@dataclasses.dataclass(frozen=True)
class LogDet:
    """ψ = −log det X on the positive-definite matrices X of size d × d.

        θ = Xᵢⱼ for i ≥ j, row by row,    η = (−X⁻¹ᵢᵢ; −2X⁻¹ᵢⱼ for i > j),    φ(η) = −d − log det(−H),
        D(θ, θ′) = tr XX′⁻¹ − d − log det XX′⁻¹,    vᵀGv = tr X⁻¹VX⁻¹V,

    where H has the diagonal of η and half of its other entries, so that ⟨θ, η⟩ = tr XH. A point is
    the lower triangle, shape (d(d+1)/2,), as in the families with a covariance matrix. The domain is
    the open cone, the range of ∇ψ the opposite one. Both are tested by pivots and not by a determinant;
    outside everything is NaN, gradients included.

    D is Σ λ − log(1 + λ) over the eigenvalues λ of L⁻¹(X − X′)L⁻ᵀ, X′ = LLᵀ: the difference is taken of
    the matrices, where it is exact for close ones. The metric is an operator of O(d³) a product.

    Attributes:
      d: the size of the matrices, at least 1.

    >>> psi = LogDet(2)
    >>> psi.to_eta(psi.pack(jnp.array([[2.0, 1.0], [1.0, 1.0]]))).round(4)
    Array([-1.,  2., -2.], dtype=float32)
    """

    d: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "d", 1, "the size of the matrices")

    @property
    def dim(self) -> int:
        """The dimension of the manifold, d(d+1)/2."""
        return self.d * (self.d + 1) // 2

    def pack(self, matrix: Array) -> Array:
        """θ from X (d, d), of which the lower triangle is read."""
        return _pack(matrix, 1.0)

    def unpack(self, theta: Array) -> Array:
        """X (d, d) from θ, exactly symmetric."""
        return _unpack(theta, self.d, 1.0)

    def __call__(self, theta: Array, /) -> Array:
        """−log det X, a scalar."""
        return -linalg.logdet_factor(linalg.factor(self.unpack(theta)))

    def in_domain(self, theta: Array) -> Array:
        """Is X finite and positive definite, pivot by pivot?"""
        return jnp.isfinite(linalg.factor(self.unpack(theta))).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is −H finite and positive definite, pivot by pivot?"""
        return jnp.isfinite(linalg.factor(_unpack(-eta, self.d, 0.5))).all()

    def starting_point(self, dtype: Any) -> Array:
        """The identity."""
        return self.pack(jnp.eye(self.d, dtype=dtype))

    def to_eta(self, theta: Array) -> Array:
        """−X⁻¹ as a covector, shape (n,)."""
        return -_pack(linalg.inverse_pd(self.unpack(theta)), 2.0)

    def to_theta(self, eta: Array) -> Array:
        """(−H)⁻¹ as a point, shape (n,); NaN where −H is not positive definite."""
        return self.pack(linalg.inverse_pd(_unpack(-eta, self.d, 0.5)))

    def conjugate(self, eta: Array) -> Array:
        """−d − log det(−H), a scalar."""
        return -self.d - linalg.logdet_factor(linalg.factor(_unpack(-eta, self.d, 0.5)))

    def hessian(self, theta: Array) -> Operator:
        """V ↦ X⁻¹VX⁻¹ in these coordinates."""
        low = linalg.factor(self.unpack(theta))
        return _Congruence(low, _inverse_triangle(low))

    def curvature(self, theta: Array, v: Array) -> Array:
        """tr X⁻¹VX⁻¹V = ‖L⁻¹VL⁻ᵀ‖² for X = LLᵀ."""
        root = _inverse_triangle(linalg.factor(self.unpack(theta)))
        turned = root @ self.unpack(v) @ root.T
        return (turned * turned).sum()

    def divergence(self, theta: Array, base: Array) -> Array:
        """D(θ, θ′) from the eigenvalues of L⁻¹(X − X′)L⁻ᵀ."""
        root = _inverse_triangle(linalg.factor(self.unpack(base)))
        return _spread(root @ self.unpack(theta - base) @ root.T)

    def gap(self, theta: Array, eta: Array) -> Array:
        """tr(−XH) − d − log det(−XH) from the eigenvalues of −LᵀHL − I, X = LLᵀ."""
        low = linalg.factor(self.unpack(theta))
        turned = low.T @ _unpack(-eta, self.d, 0.5) @ low
        return _spread(turned - jnp.eye(self.d, dtype=theta.dtype))


def _pack(matrix: Array, off_diagonal: float) -> Array:
    rows, columns = np.tril_indices(matrix.shape[0])
    return matrix[rows, columns] * jnp.where(rows == columns, 1.0, off_diagonal).astype(
        matrix.dtype
    )


def _unpack(entries: Array, d: int, off_diagonal: float) -> Array:
    rows, columns = np.tril_indices(d)
    weighed = entries * jnp.where(rows == columns, 0.5, off_diagonal).astype(entries.dtype)
    low = jnp.zeros((d, d), entries.dtype).at[rows, columns].set(weighed)
    return low + low.T


def _inverse_triangle(low: Array) -> Array:
    return solve_triangular(low, jnp.eye(low.shape[0], dtype=low.dtype), lower=True)


def _spread(excess: Array) -> Array:
    """Σ λ − log(1 + λ) over the eigenvalues of a symmetric matrix."""
    values = jnp.linalg.eigvalsh((excess + excess.T) / 2)
    return _numerics.log_excess(1 + values, jnp.ones_like(values), values).sum()


@register
@dataclasses.dataclass(frozen=True)
class _Congruence:
    """V ↦ X⁻¹VX⁻¹ on symmetric matrices, from lower triangles to covectors of lower triangles."""

    low: Array  # L with X = LLᵀ
    inverse_low: Array  # L⁻¹

    @property
    def dim(self) -> int:
        d = self.low.shape[0]
        return d * (d + 1) // 2

    def _turned(self, turn: Array, entries: Array, off_diagonal: float) -> Array:
        return turn @ _unpack(entries, turn.shape[0], off_diagonal) @ turn.T

    def apply(self, v: Array) -> Array:
        inverse = self.inverse_low.T @ self.inverse_low
        return _pack(self._turned(inverse, v, 1.0), 2.0)

    def solve(self, w: Array) -> Array:
        return _pack(self._turned(self.low @ self.low.T, w, 0.5), 1.0)

    def spread(self, v: Array) -> Array:
        inverse = jnp.abs(self.inverse_low.T @ self.inverse_low)
        return _pack(self._turned(inverse, jnp.abs(v), 1.0), 2.0)

    def logdet(self) -> Array:
        d = self.low.shape[0]
        off_diagonal = d * (d - 1) / 2 * math.log(2)
        return off_diagonal - (d + 1) * linalg.logdet_factor(self.low)

    def root(self, z: Array) -> Array:
        return _pack(self._turned(self.inverse_low.T, z, math.sqrt(0.5)), 2.0)

    def diagonal(self) -> Array:
        inverse = self.inverse_low.T @ self.inverse_low
        pairs = jnp.diagonal(inverse)[:, None] * jnp.diagonal(inverse)[None, :] + inverse**2
        return _pack(pairs - jnp.diag(jnp.diagonal(pairs)) / 2, 2.0)

    def dense(self) -> Array:
        matrix = jax.vmap(self.apply)(jnp.eye(self.dim, dtype=self.low.dtype))
        return (matrix + matrix.T) / 2


@register
@dataclasses.dataclass(frozen=True)
class LogBarrier:
    """The logarithmic barrier of the open polyhedron {θ : Aθ < b}, with slacks s = b − Aθ.

        ψ(θ) = −Σ log sₖ,    η = Aᵀ(1/s),    G = Aᵀ diag(1/s²) A,
        D(θ, θ′) = Σ sₖ/s′ₖ − 1 − log sₖ/s′ₖ.

    Strictly convex if A has rank n (no line fits into the polyhedron); otherwise the metric is not
    definite and its solves are NaN. The polyhedron is the domain. The range of ∇ψ is ℝⁿ if it is
    bounded, and otherwise the open cone {Aᵀy : y > 0}; neither has a quick test, and φ no closed
    form, so θ(η) is searched. θ(0) is the analytic centre. In D the differences s − s′ = −A(θ − θ′)
    are taken of the points, where they are exact for close ones.

    Attributes:
      matrix: A, shape (m, n).
      bound: b, shape (m,).
      interior: a point (n,) strictly inside, where searches begin. Finding one is a linear program
        (maximise the least slack); where there is none, so that this one is not inside, every search
        says NONFINITE.

    >>> box = LogBarrier(jnp.array([[1.0], [-1.0]]), jnp.array([1.0, 0.0]), jnp.array([0.25]))
    >>> from dualflat.geometry.legendre import to_theta
    >>> to_theta(box, jnp.zeros(1)).round(4)  # the centre of (0, 1)
    Array([0.5], dtype=float32)
    """

    matrix: Array
    bound: Array
    interior: Array

    @property
    def dim(self) -> int:
        """The number of columns, n."""
        return self.matrix.shape[-1]

    def slack(self, theta: Array) -> Array:
        """b − Aθ, shape (m,)."""
        return jnp.asarray(self.bound, theta.dtype) - self._rows(theta) @ theta

    def _rows(self, like: Array) -> Array:
        """A in the dtype of a point, the shapes of everything checked."""
        a, b, x = (jnp.shape(part) for part in (self.matrix, self.bound, self.interior))
        if len(a) != 2 or b != a[:1] or x != a[1:]:
            raise ValueError(
                f"LogBarrier: matrix, bound and interior have shapes {a}, {b}, {x}. Wanted (m, n),"
                " (m,), (n,): m inequalities for n coordinates, and a point that satisfies them."
            )
        return jnp.asarray(self.matrix, like.dtype)

    def _positive_slack(self, theta: Array) -> Array:
        slack = self.slack(theta)
        inside = ((slack > 0) & (slack < jnp.inf)).all()
        return slack * jnp.where(inside, 1.0, jnp.nan).astype(slack.dtype)

    def __call__(self, theta: Array, /) -> Array:
        """−Σ log sₖ, a scalar; NaN outside."""
        return -jnp.log(self._positive_slack(theta)).sum()

    def in_domain(self, theta: Array) -> Array:
        """Is every slack positive?"""
        return jnp.isfinite(self._positive_slack(theta)).all()

    def starting_point(self, dtype: Any) -> Array:
        """The given point."""
        return jnp.asarray(self.interior, dtype)

    def to_eta(self, theta: Array) -> Array:
        """Aᵀ(1/s), shape (n,)."""
        return (1 / self._positive_slack(theta)) @ self._rows(theta)

    def hessian(self, theta: Array) -> Operator:
        """Aᵀ diag(1/s²) A: a matrix up to n = 1024, products beyond."""
        if self.dim > operators.DENSE_LIMIT:
            return operators.jacobian(jax.tree_util.Partial(type(self).to_eta, self), theta)
        rows = self._rows(theta) / self._positive_slack(theta)[:, None]
        return Dense(rows.T @ rows)

    def curvature(self, theta: Array, v: Array) -> Array:
        """Σ (Av)ₖ²/sₖ²."""
        moved = (self._rows(theta) @ v) / self._positive_slack(theta)
        return moved @ moved

    def divergence(self, theta: Array, base: Array) -> Array:
        """Σ sₖ/s′ₖ − 1 − log sₖ/s′ₖ, every term nonnegative and to a few ε."""
        step = self._rows(theta) @ (base - theta)
        slack, reference = self._positive_slack(theta), self._positive_slack(base)
        return _numerics.log_excess(slack, reference, step).sum()
