"""Potentials made of potentials: affine images, sums, products, multiples, and the dual.

Each knows what its parts know, as far as that carries over, and nothing else: where a part has no
domain test or no closed form, asking for it is an AttributeError, as `potential.knowledge` expects.
Plain functions will do as parts. Derivatives reach the parameters of parts that are pytrees; a
function must not close over what is to be differentiated.
"""

import dataclasses
import functools
import itertools
import math
import operator
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _remainder, legendre, metric, operators
from dualflat.geometry._tree import as_tree, known_numbers, register
from dualflat.geometry.operators import (
    Block,
    Dense,
    Diagonal,
    DiagonalMinusRankOne,
    Inverse,
    Operator,
)
from dualflat.geometry.potential import Potential, in_domain, knowledge, starting_point

F = TypeVar("F", bound=Callable[..., Any])


class _Known:
    """A method that is there only if every part of its owner knows all of some names."""

    def __init__(self, method: Callable[..., Any], names: tuple[str, ...], square: bool):
        self.method, self.names, self.square = method, names, square

    def __get__(self, owner: Any, cls: type | None = None) -> Any:
        if owner is None:
            return self.method
        lacking = [n for part in owner._parts() for n in self.names if knowledge(part, n) is None]
        if lacking or (self.square and not owner._is_square()):
            raise AttributeError(
                f"{type(owner).__name__} has no {self.method.__name__} here:"
                + (
                    f" a part of it has no {lacking[0]}."
                    if lacking
                    else " its matrix is not square."
                )
            )
        return types.MethodType(self.method, owner)


def _known_if(*names: str, square: bool = False) -> Callable[[F], F]:
    return lambda method: cast(F, _Known(method, names, square))


@register
@dataclasses.dataclass(frozen=True)
class AffineImage:
    """θ ↦ ψ(Aθ + b) + ⟨c, θ⟩ + d: another affine chart, a submanifold, or a tilted potential.

        η = Aᵀ∇ψ(Aθ + b) + c,    ∇² = AᵀGA,    φ(η) = φ_ψ(ζ) − ⟨ζ, b⟩ − d with ζ = A⁻ᵀ(η − c).

    It is strictly convex if A has full column rank. The closed forms that ψ has for the dual side
    carry over where A is square; otherwise θ(η) is searched. `divergence` does not carry over:
    rounding Aθ + b would lose the digits of close points, and the remainder form keeps them.

    Attributes:
      psi: ψ on ℝᵐ.
      matrix: A, shape (m, n).
      offset, slope, constant: b (m,), c (n,) and d, or numbers. Like A they are parameters: they
        are differentiated, and take the dtype of θ.

    >>> from dualflat.geometry.potentials.logistic import Softplus
    >>> psi = AffineImage(Softplus(2), jnp.array([[1.0, 1.0], [0.0, 2.0]]), slope=-0.5)
    >>> psi.to_theta(psi.to_eta(jnp.array([1.0, -0.5]))).round(4)
    Array([ 1. , -0.5], dtype=float32)
    """

    psi: Any
    matrix: Array
    offset: Array | float = 0.0
    slope: Array | float = 0.0
    constant: Array | float = 0.0

    def __post_init__(self):
        object.__setattr__(self, "psi", as_tree(self.psi))

    def _parts(self) -> tuple[Any, ...]:
        return (self.psi,)

    def _is_square(self) -> bool:
        return len(set(jnp.shape(self.matrix))) == 1

    @property
    def dim(self) -> int:
        """The number of columns, n."""
        return jnp.shape(self.matrix)[-1]

    def _matrix(self, like: Array) -> Array:
        shape, inner = jnp.shape(self.matrix), getattr(self.psi, "dim", None)
        if len(shape) != 2 or shape[0] < shape[1] or inner not in (None, shape[0]):
            raise ValueError(
                f"AffineImage: matrix has shape {shape}. Wanted ({'m' if inner is None else inner},"
                " n) with n no larger than that: independent columns."
            )
        return jnp.asarray(self.matrix, like.dtype)

    def _image(self, theta: Array) -> Array:
        return self._matrix(theta) @ theta + jnp.asarray(self.offset, theta.dtype)

    def _preimage(self, x: Array) -> Array:
        return jnp.linalg.solve(self._matrix(x), x - jnp.asarray(self.offset, x.dtype))

    def _dual_image(self, eta: Array) -> Array:
        """ζ = A⁻ᵀ(η − c), the dual coordinates of ψ."""
        return jnp.linalg.solve(self._matrix(eta).T, eta - jnp.asarray(self.slope, eta.dtype))

    def __call__(self, theta: Array, /) -> Array:
        """ψ(Aθ + b) + ⟨c, θ⟩ + d, a scalar."""
        slope, constant = (jnp.asarray(x, theta.dtype) for x in (self.slope, self.constant))
        return self.psi(self._image(theta)) + (slope * theta).sum() + constant

    def in_domain(self, theta: Array) -> Array:
        """Is Aθ + b in the domain of ψ?"""
        return in_domain(self.psi, self._image(theta))

    def to_eta(self, theta: Array) -> Array:
        """Aᵀ∇ψ(Aθ + b) + c, shape (n,)."""
        covector = metric.gradient(self.psi, self._image(theta))
        return covector @ self._matrix(theta) + jnp.asarray(self.slope, theta.dtype)

    def curvature(self, theta: Array, v: Array) -> Array:
        """The curvature of ψ along Av."""
        return metric.curvature(self.psi, self._image(theta), self._matrix(v) @ v)

    @_known_if("starting_point")
    def starting_point(self, dtype: Any) -> Array:
        """The θ whose image is nearest to where ψ begins; the origin where that is outside."""
        start = self.psi.starting_point(dtype)
        to_go = start - jnp.asarray(self.offset, dtype)
        nearest = jnp.linalg.lstsq(self._matrix(start), to_go)[0]
        return jnp.where(self.in_domain(nearest), nearest, 0.0)

    @_known_if("hessian")
    def hessian(self, theta: Array) -> Operator:
        """AᵀGA: as a product of three operators where A is square, otherwise as a matrix."""
        known = self.psi.hessian(self._image(theta))
        pulled = _Pulled(known, self._matrix(theta))
        if self._is_square():
            return pulled
        if self.dim > operators.DENSE_LIMIT:
            return operators.jacobian(jax.tree_util.Partial(type(self).to_eta, self), theta)
        return Dense(pulled.dense())

    @_known_if("in_dual_domain", square=True)
    def in_dual_domain(self, eta: Array) -> Array:
        """Is ζ in the range of ∇ψ?"""
        return self.psi.in_dual_domain(self._dual_image(eta))

    @_known_if("guess", square=True)
    def guess(self, eta: Array) -> Array:
        """A⁻¹(x − b) for the x that ψ would guess."""
        return self._preimage(self.psi.guess(self._dual_image(eta)))

    @_known_if("to_theta", square=True)
    def to_theta(self, eta: Array) -> Array:
        """A⁻¹(∇ψ⁻¹(ζ) − b), shape (n,)."""
        return self._preimage(self.psi.to_theta(self._dual_image(eta)))

    @_known_if("conjugate", square=True)
    def conjugate(self, eta: Array) -> Array:
        """φ_ψ(ζ) − ⟨ζ, b⟩ − d, a scalar."""
        zeta = self._dual_image(eta)
        offset, constant = (jnp.asarray(x, eta.dtype) for x in (self.offset, self.constant))
        return self.psi.conjugate(zeta) - (offset * zeta).sum() - constant

    @_known_if("gap", square=True)
    def gap(self, theta: Array, eta: Array) -> Array:
        """The gap of ψ between Aθ + b and ζ."""
        return self.psi.gap(self._image(theta), self._dual_image(eta))


@register
@dataclasses.dataclass(frozen=True)
class Sum:
    """θ ↦ Σ ψₖ(θ), on the intersection of the domains.

        η = Σ ∇ψₖ(θ),    G = Σ Gₖ,    D = Σ Dₖ.

    The dual side has no closed form (φ is an infimal convolution): θ(η) is searched. Diagonal
    metrics add up to a diagonal one, also with a rank-one term in one of them.

    Attributes:
      parts: the ψₖ, all of the same θ.

    >>> from dualflat.geometry.potentials.entropies import Burg, NegativeEntropy
    >>> psi = Sum((NegativeEntropy(2), Burg(2)))
    >>> psi.to_eta(jnp.array([1.0, 2.0])).round(2)  # log θ − 1/θ
    Array([-1.  ,  0.19], dtype=float32)
    """

    parts: tuple[Any, ...]

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(map(as_tree, self.parts)))

    def _parts(self) -> tuple[Any, ...]:
        return self.parts

    @property
    def dim(self) -> int | None:
        """n, if a part knows it."""
        known = {d for part in self.parts if (d := getattr(part, "dim", None)) is not None}
        if len(known) > 1:
            raise ValueError(f"Sum: the parts have dimensions {sorted(known)}. Wanted one.")
        return known.pop() if known else None

    def __call__(self, theta: Array, /) -> Array:
        """Σ ψₖ(θ), a scalar."""
        return _total([part(theta) for part in self.parts])

    def in_domain(self, theta: Array) -> Array:
        """Is θ in every domain?"""
        return _all([in_domain(part, theta) for part in self.parts])

    def to_eta(self, theta: Array) -> Array:
        """Σ ∇ψₖ(θ), shape (n,)."""
        return _total([metric.gradient(part, theta) for part in self.parts])

    def curvature(self, theta: Array, v: Array) -> Array:
        """The sum of the curvatures along v."""
        return _total([metric.curvature(part, theta, v) for part in self.parts])

    @_known_if("starting_point")
    def starting_point(self, dtype: Any) -> Array:
        """The first starting point of a part that is inside every domain; NaN if none is."""
        point = jnp.full(self.dim or (), jnp.nan, dtype)
        for part in reversed(self.parts):
            start = part.starting_point(dtype)
            point = jnp.where(self.in_domain(start), start, point)
        return point

    @_known_if("hessian")
    def hessian(self, theta: Array) -> Operator:
        """Σ Gₖ, with the structure that the sum has."""
        known = [part.hessian(theta) for part in self.parts]
        total = functools.reduce(_added, known)
        if total is not None:
            return total
        if theta.shape[-1] > operators.DENSE_LIMIT:
            return operators.jacobian(jax.tree_util.Partial(type(self).to_eta, self), theta)
        return Dense(_total([g.dense() for g in known]))

    @_known_if("divergence")
    def divergence(self, theta: Array, base: Array) -> Array:
        """Σ Dₖ(θ, θ′)."""
        return _total([part.divergence(theta, base) for part in self.parts])


@register
@dataclasses.dataclass(frozen=True)
class Product:
    """θ = (θ₁, …, θₖ) ↦ Σ ψₖ(θₖ): independent blocks, one after the other.

    Everything is block by block: G is block-diagonal, φ = Σ φₖ, and a part without a closed dual map
    is searched for in its own block, so that one odd block does not cost the others theirs.

    Attributes:
      parts: the ψₖ.
      sizes: how many coordinates each takes; by default what the parts say.

    >>> from dualflat.geometry.potentials.entropies import Burg
    >>> psi = Product((Burg(1), lambda x: jnp.cosh(x).sum()), (1, 2))
    >>> psi.to_theta(psi.to_eta(jnp.array([2.0, -1.0, 0.5]))).round(4)
    Array([ 2. , -1. ,  0.5], dtype=float32)
    """

    parts: tuple[Any, ...]
    sizes: tuple[int, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(map(as_tree, self.parts)))
        known = tuple(getattr(part, "dim", None) for part in self.parts)
        sizes = known if self.sizes is None else tuple(self.sizes)
        if len(sizes) != len(known) or any(
            s is None or k not in (None, s) for s, k in zip(sizes, known, strict=False)
        ):
            raise ValueError(
                f"Product: sizes are {self.sizes} for parts of dimensions {known}. Wanted one for"
                " each part, equal to its dimension where it has one."
            )
        object.__setattr__(self, "sizes", sizes)

    def _parts(self) -> tuple[Any, ...]:
        return self.parts

    def _blocks(self, *points: Array) -> list[tuple[Any, ...]]:
        """(ψₖ, its block of each point), one after the other."""
        edges = list(itertools.accumulate(self.sizes or ()))[:-1]
        return list(zip(self.parts, *(jnp.split(x, edges) for x in points), strict=True))

    @property
    def dim(self) -> int:
        """The sum of the sizes."""
        return sum(self.sizes or ())

    def __call__(self, theta: Array, /) -> Array:
        """Σ ψₖ(θₖ), a scalar."""
        return _total([part(x) for part, x in self._blocks(theta)])

    def in_domain(self, theta: Array) -> Array:
        """Is every block in its domain?"""
        return _all([in_domain(part, x) for part, x in self._blocks(theta)])

    @_known_if("in_dual_domain")
    def in_dual_domain(self, eta: Array) -> Array:
        """Is every block in its range?"""
        return _all([part.in_dual_domain(y) for part, y in self._blocks(eta)])

    def guess(self, eta: Array) -> Array:
        """Where each part would begin."""
        return jnp.concatenate([starting_point(part, y) for part, y in self._blocks(eta)])

    def to_eta(self, theta: Array) -> Array:
        """∇ψₖ(θₖ), one after the other."""
        return jnp.concatenate([metric.gradient(part, x) for part, x in self._blocks(theta)])

    def to_theta(self, eta: Array) -> Array:
        """θₖ(ηₖ), one after the other, each as its part knows it or searched; NaN if one is."""
        blocks = [legendre.to_theta(part, y) for part, y in self._blocks(eta)]
        return jnp.concatenate(blocks)

    def conjugate(self, eta: Array) -> Array:
        """Σ φₖ(ηₖ), a scalar."""
        return _total([legendre.conjugate(part, y) for part, y in self._blocks(eta)])

    def hessian(self, theta: Array) -> Block:
        """The metrics of the parts as blocks."""
        return Block(tuple(metric.metric_operator(part, x) for part, x in self._blocks(theta)))

    def curvature(self, theta: Array, v: Array) -> Array:
        """The sum of the curvatures of the blocks."""
        return _total([metric.curvature(part, x, u) for part, x, u in self._blocks(theta, v)])

    @_known_if("divergence")
    def divergence(self, theta: Array, base: Array) -> Array:
        """Σ Dₖ(θₖ, θ′ₖ)."""
        return _total([part.divergence(x, b) for part, x, b in self._blocks(theta, base)])

    @_known_if("gap")
    def gap(self, theta: Array, eta: Array) -> Array:
        """The sum of the gaps of the blocks."""
        return _total([part.gap(x, y) for part, x, y in self._blocks(theta, eta)])


@register
@dataclasses.dataclass(frozen=True)
class Scaled:
    """θ ↦ aψ(θ) for a number a > 0: a more observations of the same law, or an inverse temperature.

        η = a∇ψ(θ),    θ(η) = θ_ψ(η/a),    φ(η) = aφ_ψ(η/a),    D = aD_ψ.

    Attributes:
      psi: the potential ψ.
      factor: a, a parameter. Where it is not positive, which only a traced number can hide,
        everything is NaN.

    >>> from dualflat.geometry.potentials.entropies import Burg
    >>> Scaled(Burg(2), 3.0).to_theta(jnp.array([-3.0, -6.0]))
    Array([1. , 0.5], dtype=float32)
    """

    psi: Any
    factor: Array | float

    def __post_init__(self):
        object.__setattr__(self, "psi", as_tree(self.psi))
        factor = known_numbers(self.factor)
        if factor is not None and not ((factor > 0) & (factor < math.inf)).all():
            raise ValueError(
                f"Scaled: factor is {self.factor}. Wanted a positive number: a negative multiple of"
                " a convex function is not convex."
            )

    def _parts(self) -> tuple[Any, ...]:
        return (self.psi,)

    @property
    def dim(self) -> int | None:
        """That of ψ, if it knows it."""
        return getattr(self.psi, "dim", None)

    def _factor(self, like: Array) -> Array:
        factor = jnp.asarray(self.factor, like.dtype)
        positive = (factor > 0) & (factor < jnp.inf)
        return factor * jnp.where(positive, 1.0, jnp.nan).astype(like.dtype)

    def __call__(self, theta: Array, /) -> Array:
        """aψ(θ), a scalar."""
        return self._factor(theta) * self.psi(theta)

    def in_domain(self, theta: Array) -> Array:
        """Is θ in the domain of ψ, and a positive?"""
        return in_domain(self.psi, theta) & (self._factor(theta) > 0)

    @_known_if("in_dual_domain")
    def in_dual_domain(self, eta: Array) -> Array:
        """Is η/a in the range of ∇ψ?"""
        return self.psi.in_dual_domain(eta / self._factor(eta))

    @_known_if("starting_point")
    def starting_point(self, dtype: Any) -> Array:
        """Where ψ begins."""
        return self.psi.starting_point(dtype)

    @_known_if("guess")
    def guess(self, eta: Array) -> Array:
        """What ψ would guess for η/a."""
        return self.psi.guess(eta / self._factor(eta))

    def to_eta(self, theta: Array) -> Array:
        """a∇ψ(θ), shape (n,)."""
        return self._factor(theta) * metric.gradient(self.psi, theta)

    @_known_if("to_theta")
    def to_theta(self, eta: Array) -> Array:
        """θ_ψ(η/a), shape (n,)."""
        return self.psi.to_theta(eta / self._factor(eta))

    @_known_if("conjugate")
    def conjugate(self, eta: Array) -> Array:
        """aφ_ψ(η/a), a scalar."""
        factor = self._factor(eta)
        return factor * self.psi.conjugate(eta / factor)

    @_known_if("hessian")
    def hessian(self, theta: Array) -> Operator:
        """aG, with the structure of G."""
        return _times(self._factor(theta), self.psi.hessian(theta))

    def curvature(self, theta: Array, v: Array) -> Array:
        """a times the curvature of ψ."""
        return self._factor(theta) * metric.curvature(self.psi, theta, v)

    @_known_if("divergence")
    def divergence(self, theta: Array, base: Array) -> Array:
        """aD_ψ(θ, θ′)."""
        return self._factor(theta) * self.psi.divergence(theta, base)

    @_known_if("gap")
    def gap(self, theta: Array, eta: Array) -> Array:
        """a times the gap of ψ between θ and η/a."""
        factor = self._factor(theta)
        return factor * self.psi.gap(theta, eta / factor)


@register
@dataclasses.dataclass(frozen=True)
class Dual:
    """The dual manifold: the same points with η for θ, φ for ψ, and G⁻¹ for G; itself a potential.

        Dual(ψ)(η) = φ(η),    ∇φ(η) = θ(η),    its conjugate is ψ,    D_φ(η, η′) = D_ψ(θ′, θ).

    So every m-operation is the e-operation of the dual manifold. Where ψ has no closed θ(η) it is
    searched at every call. D read off ψ subtracts θ(η) from θ(η′), which has lost the digits of
    close η; the remainder form takes η − η′ itself. Where ψ has closed forms of both, the better
    one is taken.

    See `dual`, which undoes itself.

    Attributes:
      psi: the potential ψ.

    >>> from dualflat.geometry.potentials.logistic import Softplus
    >>> phi = Dual(Softplus(1))
    >>> print(f"{phi(jnp.array([0.5])):.4f} {phi.to_eta(jnp.array([0.75]))[0]:.4f}")  # −log 2, log 3
    -0.6931 1.0986
    """

    psi: Any

    def __post_init__(self):
        object.__setattr__(self, "psi", as_tree(self.psi))

    def _parts(self) -> tuple[Any, ...]:
        return (self.psi,)

    @property
    def dim(self) -> int | None:
        """That of ψ, if it knows it."""
        return getattr(self.psi, "dim", None)

    def __call__(self, eta: Array, /) -> Array:
        """φ(η), a scalar."""
        return legendre.conjugate(self.psi, eta)

    def in_domain(self, eta: Array) -> Array:
        """Is η in the range of ∇ψ? Where ψ has no test for it: is θ(η) found?"""
        test = knowledge(self.psi, "in_dual_domain")
        return jnp.isfinite(self.to_eta(eta)).all() if test is None else test(eta)

    def in_dual_domain(self, theta: Array) -> Array:
        """Is θ in the domain of ψ?"""
        return in_domain(self.psi, theta)

    @_known_if("starting_point")
    def starting_point(self, dtype: Any) -> Array:
        """∇ψ where ψ begins."""
        return metric.gradient(self.psi, self.psi.starting_point(dtype))

    def guess(self, theta: Array) -> Array:
        """∇ψ(θ), which is what is looked for."""
        return self.to_theta(theta)

    def to_eta(self, eta: Array) -> Array:
        """∇φ(η) = θ(η), shape (n,)."""
        return legendre.to_theta(self.psi, eta)

    def to_theta(self, theta: Array) -> Array:
        """(∇φ)⁻¹(θ) = ∇ψ(θ), shape (n,); NaN outside the domain of ψ."""
        return legendre.to_eta(self.psi, theta)

    def conjugate(self, theta: Array) -> Array:
        """ψ(θ), a scalar."""
        return self.psi(theta)

    def hessian(self, eta: Array) -> Inverse:
        """G⁻¹ at θ(η)."""
        return Inverse(metric.metric_operator(self.psi, self.to_eta(eta)))

    def curvature(self, eta: Array, v: Array) -> Array:
        """vᵀG⁻¹v at θ(η)."""
        return v @ self.hessian(eta).apply(v)

    @_known_if("divergence", "to_theta")
    def divergence(self, eta: Array, base: Array) -> Array:
        """D_ψ(θ′, θ), or the remainder in η where the first loses too much.

        A rounding δ of θ and θ′ changes it by ⟨δ, η − η′⟩. The remainder loses what ∇²φ does, which
        nobody knows: Categorical's, 1/p₀ with p₀ = 1 − Σ ηᵢ, is as bad as p₀ is small.
        """
        here, there = self.to_eta(eta), self.to_eta(base)
        far = self.psi.divergence(there, here)
        rounding = (jnp.abs(here) + jnp.abs(there)) @ jnp.abs(eta - base)
        lost = float(jnp.finfo(eta.dtype).eps) * (2 * rounding + 4 * far)
        near, _, error = _remainder.quotient(self, base, eta, eta - base)
        fine = lost < _remainder.tolerable(eta.dtype) * far
        return jnp.where(fine | (lost < error), far, near)

    @_known_if("gap")
    def gap(self, eta: Array, theta: Array) -> Array:
        """ψ(θ) + φ(η) − ⟨θ, η⟩, the gap of ψ."""
        return self.psi.gap(theta, eta)


def dual(psi: Potential) -> Potential:
    """The dual manifold of ψ as a potential; the dual of the dual is ψ itself.

    >>> from dualflat.geometry.potentials.entropies import Burg
    >>> dual(dual(Burg(2)))
    Burg(n=2)
    """
    return psi.psi if isinstance(psi, Dual) else Dual(psi)


def _total(terms: list[Array]) -> Array:
    return functools.reduce(operator.add, terms)


def _all(tests: list[Array]) -> Array:
    return functools.reduce(operator.and_, tests)


def _added(a: Operator | None, b: Operator) -> Operator | None:
    """a + b where the sum has a structure, otherwise None."""
    if isinstance(a, DiagonalMinusRankOne):
        a, b = b, a
    if isinstance(a, Diagonal) and isinstance(b, Diagonal):
        return Diagonal(a.entries + b.entries)
    if isinstance(a, Diagonal) and isinstance(b, DiagonalMinusRankOne):
        entries = a.entries + b.entries
        square = b.vector**2
        # 1 − s Σ u²/(d + e), which for s > 0 is c + s Σ (u²/d) e/(d + e): no subtraction either way.
        grown = b.complement + b.weight * (square / b.entries * (a.entries / entries)).sum()
        complement = jnp.where(b.weight > 0, grown, 1 - b.weight * (square / entries).sum())
        return DiagonalMinusRankOne(entries, b.vector, b.weight, complement)
    return None


def _times(factor: Array, g: Operator) -> Operator:
    """factor · G, with the structure of G where it is one that adds up."""
    if isinstance(g, Diagonal):
        return Diagonal(factor * g.entries)
    if isinstance(g, DiagonalMinusRankOne):
        return DiagonalMinusRankOne(factor * g.entries, g.vector, factor * g.weight, g.complement)
    return _Multiple(g, factor)


@register
@dataclasses.dataclass(frozen=True)
class _Multiple:
    """aG."""

    of: Operator
    factor: Array

    @property
    def dim(self) -> int:
        return self.of.dim

    def apply(self, v: Array) -> Array:
        return self.factor * self.of.apply(v)

    def solve(self, w: Array) -> Array:
        return self.of.solve(w) / self.factor

    def spread(self, v: Array) -> Array:
        return self.factor * self.of.spread(v)

    def logdet(self) -> Array:
        return self.of.logdet() + self.dim * jnp.log(self.factor)

    def root(self, z: Array) -> Array:
        return jnp.sqrt(self.factor) * self.of.root(z)

    def diagonal(self) -> Array:
        return self.factor * self.of.diagonal()

    def dense(self) -> Array:
        return self.factor * self.of.dense()


@register
@dataclasses.dataclass(frozen=True)
class _Pulled:
    """AᵀGA."""

    of: Operator
    matrix: Array

    @property
    def dim(self) -> int:
        return self.matrix.shape[-1]

    def apply(self, v: Array) -> Array:
        return self.of.apply(self.matrix @ v) @ self.matrix

    def solve(self, w: Array) -> Array:
        raised = self.of.solve(jnp.linalg.solve(self.matrix.T, w))
        return jnp.linalg.solve(self.matrix, raised)

    def spread(self, v: Array) -> Array:
        size = jnp.abs(self.matrix)
        return self.of.spread(size @ jnp.abs(v)) @ size

    def logdet(self) -> Array:
        return self.of.logdet() + 2 * jnp.linalg.slogdet(self.matrix)[1]

    def root(self, z: Array) -> Array:
        return self.of.root(z) @ self.matrix

    def diagonal(self) -> Array:
        return jnp.diagonal(self.dense())

    def dense(self) -> Array:
        pulled = jax.vmap(self.of.apply, in_axes=1, out_axes=1)(self.matrix)
        g = self.matrix.T @ pulled
        return (g + g.T) / 2
