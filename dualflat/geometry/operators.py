"""Positive-definite matrices that know their structure, and never become n × n unless asked.

The metric of most potentials is diagonal, diagonal minus a rank-one term, or made of such blocks. A
potential that says so (`hessian(theta)`, see `potential.Potential`) gets products, solves,
determinants and roots in O(n) time and memory, and without the cancellation of a general solve.

Operators are pytrees for one point; a batch is the caller's `jax.vmap`. Where a matrix is not
positive definite in the precision at hand, `solve`, `logdet` and `root` are NaN.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import linalg
from dualflat.geometry._tree import register


@runtime_checkable
class Operator(Protocol):
    """A symmetric positive-definite G on ℝⁿ."""

    @property
    def dim(self) -> int:
        """n."""
        ...

    def apply(self, v: Array) -> Array:
        """Gv, shape (n,)."""
        ...

    def solve(self, w: Array) -> Array:
        """G⁻¹w, shape (n,)."""
        ...

    def spread(self, v: Array) -> Array:
        """Σⱼ |Gᵢⱼ||vⱼ|, or a little more, shape (n,): what rounding v may do to Gv, over ε."""
        ...

    def logdet(self) -> Array:
        """log det G, shape ()."""
        ...

    def root(self, z: Array) -> Array:
        """Sz for one fixed S with SSᵀ = G, shape (n,): turns white noise into a covector at θ."""
        ...

    def diagonal(self) -> Array:
        """Gᵢᵢ, shape (n,)."""
        ...

    def dense(self) -> Array:
        """G, shape (n, n), exactly symmetric."""
        ...


@register
@dataclasses.dataclass(frozen=True)
class Dense:
    """A matrix (n, n) without known structure; its lower triangle counts. O(n³)."""

    matrix: Array

    @property
    def dim(self) -> int:
        """The number of rows, n."""
        return self.matrix.shape[-1]

    def apply(self, v: Array) -> Array:
        """Gv."""
        return self.matrix @ v

    def solve(self, w: Array) -> Array:
        """G⁻¹w by Cholesky, scaled to unit diagonal."""
        return linalg.solve_pd(self.matrix, w)

    def spread(self, v: Array) -> Array:
        """|G||v|."""
        return jnp.abs(self.matrix) @ jnp.abs(v)

    def logdet(self) -> Array:
        """log det G, the scales apart."""
        scale = jnp.sqrt(jnp.diagonal(self.matrix))
        unit = self.matrix / scale[:, None] / scale[None, :]
        return 2 * jnp.log(scale).sum() + linalg.logdet_factor(linalg.factor(unit))

    def root(self, z: Array) -> Array:
        """Lz with the Cholesky factor L."""
        return linalg.factor(self.matrix) @ z

    def diagonal(self) -> Array:
        """Gᵢᵢ."""
        return jnp.diagonal(self.matrix)

    def dense(self) -> Array:
        """G itself."""
        return self.matrix


@register
@dataclasses.dataclass(frozen=True)
class Diagonal:
    """diag(d) with d > 0 of shape (n,): the metric of a separable potential."""

    entries: Array

    @property
    def dim(self) -> int:
        """The number of entries, n."""
        return self.entries.shape[-1]

    def apply(self, v: Array) -> Array:
        """dᵢvᵢ."""
        return self.entries * v

    def solve(self, w: Array) -> Array:
        """wᵢ/dᵢ."""
        return w / _positive(self.entries)

    def spread(self, v: Array) -> Array:
        """dᵢ|vᵢ|."""
        return self.entries * jnp.abs(v)

    def logdet(self) -> Array:
        """Σ log dᵢ."""
        return jnp.log(_positive(self.entries)).sum()

    def root(self, z: Array) -> Array:
        """√dᵢ zᵢ."""
        return jnp.sqrt(_positive(self.entries)) * z

    def diagonal(self) -> Array:
        """The entries d."""
        return self.entries

    def dense(self) -> Array:
        """diag(d)."""
        return jnp.diag(self.entries)


@register
@dataclasses.dataclass(frozen=True)
class Factored:
    """LLᵀ for a lower triangular L (n, n) with a positive diagonal, known without any subtraction.

    For small n: families of two parameters, whose metric a Cholesky factorisation would spoil.
    """

    low: Array

    @property
    def dim(self) -> int:
        """The number of rows, n."""
        return self.low.shape[-1]

    def apply(self, v: Array) -> Array:
        """L(Lᵀv)."""
        return self.low @ (self.low.T @ v)

    def solve(self, w: Array) -> Array:
        """L⁻ᵀ(L⁻¹w)."""
        return linalg.factor_solve(self._positive(), w)

    def spread(self, v: Array) -> Array:
        """|L|(|L|ᵀ|v|)."""
        size = jnp.abs(self.low)
        return size @ (size.T @ jnp.abs(v))

    def logdet(self) -> Array:
        """2 Σ log Lᵢᵢ."""
        return linalg.logdet_factor(self._positive())

    def root(self, z: Array) -> Array:
        """Lz."""
        return self._positive() @ z

    def diagonal(self) -> Array:
        """Σⱼ Lᵢⱼ²."""
        return (self.low * self.low).sum(-1)

    def dense(self) -> Array:
        """LLᵀ, both triangles from one."""
        square = jnp.tril(self.low @ self.low.T)
        return square + jnp.tril(square, -1).T

    def _positive(self) -> Array:
        good = (jnp.diagonal(self.low) > 0).all()
        return self.low * jnp.where(good, 1.0, jnp.nan).astype(self.low.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Paired:
    """d independent pairs of coordinates, i and d + i, each with its own `Factored`: O(d).

    Attributes:
      low: the factors, shape (d, 2, 2), lower triangular.
    """

    low: Array

    def _each(self, method: str, *vectors: Array) -> Array:
        pairs = [v.reshape(2, -1).T for v in vectors]
        return jax.vmap(lambda low, *args: getattr(Factored(low), method)(*args))(self.low, *pairs)

    @property
    def dim(self) -> int:
        """2d."""
        return 2 * self.low.shape[0]

    def apply(self, v: Array) -> Array:
        """Gv."""
        return self._each("apply", v).T.ravel()

    def solve(self, w: Array) -> Array:
        """G⁻¹w."""
        return self._each("solve", w).T.ravel()

    def spread(self, v: Array) -> Array:
        """|G||v|, or a little more."""
        return self._each("spread", v).T.ravel()

    def logdet(self) -> Array:
        """Σ of the pairs' log det."""
        return self._each("logdet").sum()

    def root(self, z: Array) -> Array:
        """Sz, pair by pair."""
        return self._each("root", z).T.ravel()

    def diagonal(self) -> Array:
        """Gᵢᵢ."""
        return self._each("diagonal").T.ravel()

    def dense(self) -> Array:
        """G, shape (2d, 2d)."""
        (a, b), (_, c) = jnp.moveaxis(self._each("dense"), 0, -1)
        return jnp.block([[jnp.diag(a), jnp.diag(b)], [jnp.diag(b), jnp.diag(c)]])


@register
@dataclasses.dataclass(frozen=True)
class DiagonalMinusRankOne:
    """diag(d) − s uuᵀ, with its *complement* c = 1 − s Σ uᵢ²/dᵢ > 0 given, not subtracted.

    With b = u/d the inverse is diag(1/d) + (s/c) bbᵀ (Sherman-Morrison), det = c Π dᵢ, and

        S = diag(√d) (I − s aaᵀ/(1 + √c)),    a = u/√d,    SSᵀ = diag(d) − s uuᵀ.

    Where one rᵢ = s uᵢ²/dᵢ is most of Σ rⱼ = 1 − c, the entry dᵢ(1 − rᵢ) of the diagonal is a
    difference that may lose every digit. There 1 − rᵢ is c plus the sum of the other rⱼ.

    Whoever builds one often knows c without cancellation where the sum above has lost it: for
    log-sum-exp d = u = p, s = 1 and c is the probability of the reference outcome.

    Attributes:
      entries: d, shape (n,), positive.
      vector: u, shape (n,).
      weight: s, shape (), of either sign; negative for a sum.
      complement: c, shape ().
    """

    entries: Array
    vector: Array
    weight: Array
    complement: Array

    @property
    def dim(self) -> int:
        """The number of entries, n."""
        return self.entries.shape[-1]

    def _lead(self) -> tuple[Array, Array]:
        """Which r is more than a half, at most one, and 1 − r; shapes (n,).

        Where d is 0 so is r, as for an outcome of no probability: not 0/0. u/d is formed in units of
        d, of which the derivative of a quotient would take the square.
        """
        d, u = self.entries, self.vector
        lone = (d == 0) | (jnp.abs(d) == jnp.inf)
        unit = jax.lax.stop_gradient(jnp.where(lone, 1.0, d))
        slope = (u / unit) / jnp.where(lone, 1.0, d / unit)
        share = jnp.where(lone, 0.0, self.weight * u * slope)
        lead = share > 0.5
        rest = self.complement + jnp.where(lead, 0.0, share).sum()
        return lead, jnp.where(lead, rest, 1 - share)

    def apply(self, v: Array) -> Array:
        """dᵢvᵢ − s uᵢ ⟨u, v⟩, the own term of a leading entry taken from the diagonal."""
        lead, left = self._lead()
        product = self.vector * v
        others = jnp.where(lead, 0.0, product).sum()
        own = self.entries * v * jnp.where(lead, left, 1.0)
        return own - self.weight * self.vector * jnp.where(lead, others, product.sum())

    def solve(self, w: Array) -> Array:
        """wᵢ/dᵢ + (s/c) bᵢ ⟨b, w⟩."""
        slope = self.vector / _positive(self.entries)
        ratio = self.weight / _positive(self.complement)
        return w / _positive(self.entries) + ratio * slope * (slope @ w)

    def spread(self, v: Array) -> Array:
        """Gᵢᵢ|vᵢ| + |s||uᵢ| Σⱼ |uⱼ||vⱼ| over the others, or a little more."""
        lead, left = self._lead()
        u, size = jnp.abs(self.vector), jnp.abs(v)
        others = jnp.where(lead, 0.0, u * size).sum()
        across = jnp.where(lead, others, (u * size).sum())
        own = self.entries * size * jnp.where(lead, left, 1.0)
        return own + jnp.abs(self.weight) * u * across

    def logdet(self) -> Array:
        """Σ log dᵢ + log c."""
        return jnp.log(_positive(self.entries)).sum() + jnp.log(_positive(self.complement))

    def root(self, z: Array) -> Array:
        """Sz as above."""
        lead, left = self._lead()
        scale, root = jnp.sqrt(_positive(self.entries)), jnp.sqrt(_positive(self.complement))
        a = self.vector / scale
        pull = self.weight / (1 + root) * a
        others = jnp.where(lead, 0.0, a * z).sum()
        own = z * jnp.where(lead, (root + left) / (1 + root), 1.0)
        return scale * (own - pull * jnp.where(lead, others, a @ z))

    def diagonal(self) -> Array:
        """dᵢ(1 − rᵢ)."""
        return self.entries * self._lead()[1]

    def dense(self) -> Array:
        """diag(d) − s uuᵀ."""
        u, eye = self.vector, jnp.eye(self.dim, dtype=bool)
        across = -self.weight * (u[:, None] * u[None, :])
        return jnp.where(eye, self.diagonal()[:, None], across)


@register
@dataclasses.dataclass(frozen=True)
class Block:
    """Blocks along the diagonal, one for each run of coordinates: the metric of a product."""

    parts: tuple[Operator, ...]

    @property
    def dim(self) -> int:
        """The sum of the sizes of the blocks."""
        return sum(part.dim for part in self.parts)

    def _split(self, v: Array) -> list[Array]:
        edges, total = [], 0
        for part in self.parts[:-1]:
            total += part.dim
            edges.append(total)
        return jnp.split(v, edges)

    def apply(self, v: Array) -> Array:
        """Gₖvₖ, block by block."""
        return jnp.concatenate(
            [part.apply(x) for part, x in zip(self.parts, self._split(v), strict=True)]
        )

    def solve(self, w: Array) -> Array:
        """Gₖ⁻¹wₖ, block by block."""
        return jnp.concatenate(
            [part.solve(x) for part, x in zip(self.parts, self._split(w), strict=True)]
        )

    def spread(self, v: Array) -> Array:
        """|Gₖ||vₖ|, block by block."""
        return jnp.concatenate(
            [part.spread(x) for part, x in zip(self.parts, self._split(v), strict=True)]
        )

    def logdet(self) -> Array:
        """Σ log det Gₖ."""
        return jnp.stack([part.logdet() for part in self.parts]).sum()

    def root(self, z: Array) -> Array:
        """Sₖzₖ, block by block."""
        return jnp.concatenate(
            [part.root(x) for part, x in zip(self.parts, self._split(z), strict=True)]
        )

    def diagonal(self) -> Array:
        """The diagonals, one after the other."""
        return jnp.concatenate([part.diagonal() for part in self.parts])

    def dense(self) -> Array:
        """The block-diagonal matrix."""
        return jax.scipy.linalg.block_diag(*[part.dense() for part in self.parts])


@register
@dataclasses.dataclass(frozen=True)
class Inverse:
    """G⁻¹ of an operator G, itself an operator: the metric of the dual coordinates."""

    of: Operator

    @property
    def dim(self) -> int:
        """That of G."""
        return self.of.dim

    def apply(self, v: Array) -> Array:
        """G⁻¹v."""
        return self.of.solve(v)

    def solve(self, w: Array) -> Array:
        """Gw."""
        return self.of.apply(w)

    def spread(self, v: Array) -> Array:
        """|G⁻¹||v|; forms G⁻¹."""
        return jnp.abs(self.dense()) @ jnp.abs(v)

    def logdet(self) -> Array:
        """−log det G."""
        return -self.of.logdet()

    def root(self, z: Array) -> Array:
        """G⁻¹Sz: (G⁻¹S)(G⁻¹S)ᵀ = G⁻¹ since SSᵀ = G."""
        return self.of.solve(self.of.root(z))

    def diagonal(self) -> Array:
        """The diagonal of G⁻¹; forms it."""
        return jnp.diagonal(self.dense())

    def dense(self) -> Array:
        """G⁻¹, exactly symmetric."""
        unit = jnp.eye(self.dim, dtype=self.of.diagonal().dtype)
        inverse = jax.vmap(self.of.solve)(unit)
        return (inverse + inverse.T) / 2


DENSE_LIMIT = 1024  # above, a Jacobian without known structure is no longer formed
CG_STEPS = 2000  # a bound on products in one solve


@register
@dataclasses.dataclass(frozen=True)
class Jacobian:
    """∂f(x), symmetric and positive definite, as products only: for a gradient f and a large n.

    A product is one forward derivative of f, a solve is conjugate gradients. What has to see the
    matrix (`logdet`, `root`, `diagonal`, `dense`) forms it.

    Attributes:
      function: f, a pytree callable from (n,) to (n,); see `jax.tree_util.Partial`.
      point: x, shape (n,).
    """

    function: Callable[[Array], Array]
    point: Array

    @property
    def dim(self) -> int:
        """The length of x, n."""
        return self.point.shape[-1]

    def apply(self, v: Array) -> Array:
        """∂f(x)v, forwards."""
        return jax.jvp(self.function, (self.point,), (v,))[1]

    def solve(self, w: Array) -> Array:
        """G⁻¹w by conjugate gradients; NaN unless the backward error falls below ε^¾.

        That is |Gx − w| ≤ ε^¾ (|w| + λ|x|) with λ = |Gw|/|w|, a size of G.
        """
        rtol = float(jnp.finfo(w.dtype).eps) ** 0.75
        found = self.solve_to(w, rtol / 4)
        length, residual = jnp.linalg.norm(w), jnp.linalg.norm(self.apply(found) - w)
        stretch = jnp.linalg.norm(self.apply(w)) / jnp.where(length > 0, length, 1.0)
        good = residual <= rtol * (length + stretch * jnp.linalg.norm(found))
        return jnp.where(good, found, jnp.nan)

    def solve_to(self, w: Array, rtol: float | Array) -> Array:
        """An approximation of G⁻¹w whose residual, as updated on the way, is below rtol·|w|."""
        cg: Any = jax.scipy.sparse.linalg.cg  # its stub wants a Python float
        return cg(self.apply, w, tol=rtol, maxiter=min(10 * self.dim, CG_STEPS))[0]

    def spread(self, v: Array) -> Array:
        """Not |G||v|, which would take n products, but maxⱼ |Gv|ⱼ for every i."""
        return jnp.full_like(v, jnp.abs(self.apply(v)).max())

    def logdet(self) -> Array:
        """log det G, from the matrix."""
        return Dense(self.dense()).logdet()

    def root(self, z: Array) -> Array:
        """Lz, from the matrix."""
        return Dense(self.dense()).root(z)

    def diagonal(self) -> Array:
        """Gᵢᵢ, from the matrix."""
        return jnp.diagonal(self.dense())

    def dense(self) -> Array:
        """G, exactly symmetric."""
        return _jacobian(self.function, self.point)


def jacobian(function: Callable[[Array], Array], point: Array) -> Operator:
    """∂f(x) of a gradient f as an operator: a matrix up to n = 1024, products beyond."""
    if point.shape[-1] > DENSE_LIMIT:
        return Jacobian(function, point)
    return Dense(_jacobian(function, point))


def _jacobian(function: Callable[[Array], Array], point: Array) -> Array:
    matrix = jax.jacfwd(function)(point)
    return (matrix + matrix.T) / 2


def _positive(x: Array) -> Array:
    """`x` where it is positive and finite, NaN elsewhere, so that nothing indefinite passes."""
    return jnp.where((x > 0) & (x < jnp.inf), x, jnp.nan)
