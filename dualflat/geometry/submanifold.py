"""Submanifolds: flat in θ, flat in η, or curved; how they bend, and coordinates that mix θ and η.

An affine subspace has two descriptions, and each is the natural one for somebody: spanned by
columns (`EFlat`, `MFlat`), or cut out by equations (`ELevel`, `MLevel`). Functions take either.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import linalg
from dualflat.geometry._tree import compiled, register
from dualflat.geometry.algebra import AffineImage, Dual
from dualflat.geometry.legendre import dual_point, to_eta
from dualflat.geometry.metric import gradient, metric
from dualflat.geometry.potential import (
    Potential,
    as_potential,
    checked_points,
    in_domain,
    knowledge,
)
from dualflat.geometry.solve import Solution

Embedding = Callable[[Array], Array]


# --- affine subspaces ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Span:
    origin: Array
    directions: Array

    def __call__(self, u: Array, /) -> Array:
        """The point origin + directions @ u, for u of shape (k,)."""
        return self.origin + self.directions @ u

    @property
    def dim(self) -> int:
        """The dimension of the subspace, k."""
        return self.directions.shape[1]

    def coordinates(self, point: Array) -> Array:
        """The u (k,) of a point (n,) of the subspace; of another point, that of the nearest one.

        Nearest in the sense of least squares in these coordinates, which no geometry stands behind.
        """
        q, r = _orthonormal(self.directions)
        return solve_triangular(r, q.T @ (point - self.origin))


@dataclasses.dataclass(frozen=True)
class _Level:
    matrix: Array
    values: Array

    @property
    def dim(self) -> int:
        """The dimension of the subspace, n − m."""
        return self.matrix.shape[1] - self.matrix.shape[0]


@register
@dataclasses.dataclass(frozen=True)
class EFlat(_Span):
    """The e-flat subspace θ = origin + directions @ u, and the map u ↦ θ itself.

    For a family of laws it is an exponential family again: log-linear models, graphical models,
    generalised linear models with the canonical link.

    Attributes:
      origin: shape (n,), a θ on the subspace; it need not be inside the domain.
      directions: shape (n, k), 1 ≤ k < n, with independent columns. If they are dependent,
        everything that needs to solve for u is NaN.

    >>> line = EFlat(jnp.array([0.0, 1.0]), jnp.array([[1.0], [2.0]]))
    >>> line(jnp.array([3.0]))
    Array([3., 7.], dtype=float32)
    >>> level = line.constraints()
    >>> print(f"{abs(level.matrix @ jnp.array([3.0, 7.0]) - level.values)[0]:.4f}")
    0.0000
    """

    def span(self) -> "EFlat":
        """The subspace itself, which is spanned already."""
        return self

    def constraints(self) -> "ELevel":
        """The same subspace as {Cθ = c}, with orthonormal rows of C."""
        return ELevel(*_equations(self))

    @classmethod
    def from_constraints(cls, matrix: Array, values: Array) -> "EFlat":
        """The subspace {θ : matrix @ θ = values}, spanned: `ELevel(matrix, values).span()`."""
        return ELevel(matrix, values).span()


@register
@dataclasses.dataclass(frozen=True)
class MFlat(_Span):
    """The m-flat subspace η = origin + directions @ w, and the map w ↦ η itself.

    For a family of laws: mixtures.

    Attributes:
      origin: shape (n,), an η on the subspace; it need not be in the range of ∇ψ.
      directions: shape (n, k), as in `EFlat`.
    """

    def span(self) -> "MFlat":
        """The subspace itself, which is spanned already."""
        return self

    def constraints(self) -> "MLevel":
        """The same subspace as {Cη = c}, with orthonormal rows of C."""
        return MLevel(*_equations(self))

    @classmethod
    def from_constraints(cls, matrix: Array, values: Array) -> "MFlat":
        """The subspace {η : matrix @ η = values}, spanned: `MLevel(matrix, values).span()`."""
        return MLevel(matrix, values).span()


@register
@dataclasses.dataclass(frozen=True)
class ELevel(_Level):
    """The e-flat subspace {θ : Cθ = c}.

    Attributes:
      matrix: C, shape (m, n), 1 ≤ m < n, with independent rows.
      values: c, shape (m,).
    """

    def constraints(self) -> "ELevel":
        """The subspace itself, which is given by equations already."""
        return self

    def span(self) -> EFlat:
        """The same subspace as θ = origin + directions @ u: orthonormal directions, least origin."""
        return EFlat(*_spanned(self))


@register
@dataclasses.dataclass(frozen=True)
class MLevel(_Level):
    """The m-flat subspace {η : Cη = c}: for a family of laws, fixed expectations of CT(x).

    Attributes:
      matrix: C, shape (m, n), 1 ≤ m < n, with independent rows.
      values: c, shape (m,).
    """

    def constraints(self) -> "MLevel":
        """The subspace itself, which is given by equations already."""
        return self

    def span(self) -> MFlat:
        """The same subspace as η = origin + directions @ w: orthonormal directions, least origin."""
        return MFlat(*_spanned(self))


def _orthonormal(columns: Array) -> tuple[Array, Array]:
    """Q, R of `columns` (n, k); NaN where they are dependent up to rounding, whatever their units."""
    q, r = jnp.linalg.qr(columns)
    pivots, lengths = jnp.abs(jnp.diagonal(r)), jnp.linalg.norm(r, axis=0)
    independent = (pivots > columns.shape[0] * jnp.finfo(r.dtype).eps * lengths).all()
    return q * jnp.where(independent, 1.0, jnp.nan).astype(q.dtype), r


def _complement(columns: Array) -> Array:
    """An orthonormal basis N (n, n−k) of what is orthogonal to the columns (n, k).

    Which of the many is chosen must not be a discontinuous function of the columns. N₀, held
    still, is such a basis; N = (I − QQᵀ)N₀ equals it here, and follows when the columns move.
    """
    still = jnp.linalg.qr(jax.lax.stop_gradient(columns), mode="complete")[0][:, columns.shape[1] :]
    q, _ = _orthonormal(columns)
    return still - q @ (q.T @ still)


def _equations(flat: _Span) -> tuple[Array, Array]:
    matrix = _complement(flat.directions).T
    return matrix, matrix @ flat.origin


def _spanned(level: _Level) -> tuple[Array, Array]:
    q, r = _orthonormal(level.matrix.T)
    return q @ solve_triangular(r, level.values, trans=1), _complement(level.matrix.T)


EAffine = EFlat | ELevel
MAffine = MFlat | MLevel


def checked_subspace(
    psi: Potential, where: str, wanted: str, flat: Any, **points: Any
) -> tuple[Any, list[Array]]:
    """The subspace and the points, in the dtype of the points, after checks that need no values.

    Args:
      wanted: "e-flat" or "m-flat".

    Raises:
      ValueError: for a subspace of the other kind or none, for shapes that do not match each other
        or ψ, for complex numbers, and for a subspace that is only a point or the whole space.
    """
    kinds = {"e-flat": (EFlat, ELevel), "m-flat": (MFlat, MLevel)}[wanted]
    if not isinstance(flat, kinds):
        raise ValueError(
            f"{where}: found {type(flat).__name__} where an {wanted} subspace is wanted:"
            f" {kinds[0].__name__}(origin, directions) or {kinds[1].__name__}(matrix, values)."
        )
    (first, a), (second, b) = ((f.name, getattr(flat, f.name)) for f in dataclasses.fields(flat))
    a, b, spanned = jnp.asarray(a), jnp.asarray(b), isinstance(flat, _Span)
    vector, array = (a, b) if spanned else (b, a)
    long, short = (array.shape if spanned else array.shape[::-1]) if array.ndim == 2 else (0, 0)
    if not 1 <= short < long or vector.shape != (long if spanned else short,):
        shapes = "(n,) and (n, k), 1 ≤ k < n" if spanned else "(m, n) and (m,), 1 ≤ m < n"
        raise ValueError(
            f"{where}: {type(flat).__name__} has {first} of shape {a.shape} and {second} of shape"
            f" {b.shape}. Wanted {shapes}; for a batch use jax.vmap."
        )
    if jnp.issubdtype(jnp.result_type(a, b), jnp.complexfloating):
        raise ValueError(f"{where}: {type(flat).__name__} is complex. Coordinates are real.")
    *points_found, _ = checked_points(psi, where, **points, subspace=jnp.zeros(long, bool))
    dtype = points_found[0].dtype
    return type(flat)(a.astype(dtype), b.astype(dtype)), points_found


def contains(psi: Potential, theta: Array, flat: EAffine | MAffine) -> Array:
    """Does the point lie on the subspace, as far as rounding lets one tell? bool ().

    Its equations Cx = c, x being θ or η, hold to 16 ε of the terms they are made of. False outside
    the domain. Not to be differentiated; `distance_to` is.

    Args:
      psi: the potential.
      theta: shape (n,).
      flat: any of the four kinds.
    """
    kind = _kind("contains", flat)
    flat, (theta,) = checked_subspace(psi, "contains", kind, flat, theta=theta)
    level = flat.constraints()
    point = theta if kind == "e-flat" else gradient(psi, theta)
    terms = jnp.abs(level.matrix) @ jnp.abs(point) + jnp.abs(level.values)
    close = jnp.abs(level.matrix @ point - level.values) <= 16 * jnp.finfo(theta.dtype).eps * terms
    return close.all() & in_domain(psi, theta)


def distance_to(psi: Potential, theta: Array, flat: EAffine | MAffine) -> Array:
    """How far the subspace is from θ in the metric at θ: the length of the shortest way there.

        e-flat:  d² = minᵤ ‖θ₀ + Au − θ‖²_G,        m-flat:  d² = rᵀ(CGCᵀ)⁻¹r,  r = Cη − c.

    To first order the Fisher length, and ½d² the divergence, of a projection; unlike either it
    needs no search. It does not change with the coordinates' units.

    Args:
      psi: the potential.
      theta: shape (n,), inside the domain.
      flat: any of the four kinds.

    Returns:
      shape (), ≥ 0; NaN outside the domain. The gradient is 0 on the subspace itself.

    >>> plane = MLevel(jnp.array([[3.0, 4.0]]), jnp.array([5.0]))
    >>> distance_to(lambda t: 0.5 * t @ t, jnp.zeros(2), plane)  # Euclid's: |c|/|C|
    Array(1., dtype=float32)
    """
    kind = _kind("distance_to", flat)
    flat, (theta,) = checked_subspace(psi, "distance_to", kind, flat, theta=theta)
    g = metric(psi, theta)
    if kind == "e-flat":
        spanned = flat.span()
        way, a = spanned.origin - theta, spanned.directions
        way = way - a @ linalg.solve_pd(a.T @ g @ a, a.T @ (g @ way))
        square = linalg.quadratic_form(g, way)
    else:
        level = flat.constraints()
        residual = level.matrix @ gradient(psi, theta) - level.values
        square = residual @ linalg.solve_pd(level.matrix @ g @ level.matrix.T, residual)
    on_it = square <= 0
    return jnp.where(on_it, 0.0, jnp.sqrt(jnp.where(on_it, 1.0, square)))


def _kind(where: str, flat: Any) -> str:
    if isinstance(flat, (EFlat, ELevel)):
        return "e-flat"
    if isinstance(flat, (MFlat, MLevel)):
        return "m-flat"
    raise ValueError(
        f"{where}: found {type(flat).__name__} where a subspace is wanted:"
        " EFlat, ELevel, MFlat or MLevel."
    )


def restricted(psi: Potential, flat: EAffine | MAffine) -> Potential:
    """The potential that a flat subspace inherits: it is a dually flat manifold again.

        e-flat: u ↦ ψ(θ₀ + Au), with dual coordinates Aᵀη;
        m-flat: w ↦ φ(η₀ + Bw), with dual coordinates Bᵀθ.

    Its metric is the induced one, its divergence that of ψ (of φ) between points of the subspace.

    Args:
      psi: the potential.
      flat: any of the four kinds; of a level the coordinates u are those of its `span()`.

    Returns:
      A potential in k variables.
    """
    kind, spanned = _kind("restricted", flat), flat.span()
    psi = as_potential(psi, spanned.origin)
    whole = psi if kind == "e-flat" else Dual(psi)
    return AffineImage(whole, spanned.directions, spanned.origin)


# --- the Legendre transform on an e-flat subspace -----------------------------------------------


def dual_point_on(
    psi: Potential, onto: EAffine, slopes: Array, init: Array | None = None
) -> Solution:
    """The point of an e-flat subspace at which ψ has these slopes along it: Aᵀ∇ψ(θ₀ + Au) = s.

    This is the Legendre transform of `restricted(psi, onto)`, and its derivatives, in s, in the
    subspace and in ψ's parameters, are those of `legendre.dual_point`.

    The search must begin where the subspace meets the domain. If the point nearest to `init`, in the
    sense of least squares, will not do, it is looked for by Newton steps for the constrained
    problem that start off the subspace: they never leave the domain, and end on the subspace with
    the first full step that may be taken.

    Args:
      psi: the potential.
      onto: an `EFlat`, or an `ELevel`, whose slopes are then along the directions of its `span()`.
      slopes: s, shape (k,).
      init: shape (n,), a θ inside the domain, on the subspace or not; without it, the potential's
        starting point, otherwise the origin. It has no part in the result or its derivatives.

    Returns:
      A `Solution` with the value θ, shape (n,). NaN and NONFINITE where no point of the subspace
      inside the domain was found; otherwise as `legendre.dual_point`.
    """
    origin = jnp.asarray(onto.span().origin)
    near = somewhere(psi, origin) if init is None else init
    onto, (near,) = checked_subspace(psi, "dual_point_on", "e-flat", onto, init=near)
    slopes = jnp.asarray(slopes)
    if slopes.shape != (onto.dim,):
        raise ValueError(
            f"dual_point_on: slopes has shape {slopes.shape}. Wanted ({onto.dim},), one for each"
            " direction of the subspace."
        )
    dtype = jnp.result_type(origin, slopes, 1.0)
    onto, near, slopes = jax.tree.map(lambda x: x.astype(dtype), (onto, near, slopes))
    return _dual_point_on_compiled(as_potential(psi, near), onto.span(), slopes, near)


def somewhere(psi: Potential, like: Array) -> Array:
    """A point where ψ is defined, as far as it can say: its starting point, otherwise the origin."""
    start = knowledge(psi, "starting_point")
    dtype = jnp.result_type(like, 1.0)
    return jnp.zeros(like.shape, dtype) if start is None else start(dtype)


@compiled
def _dual_point_on_compiled(psi: Potential, flat: EFlat, slopes: Array, near: Array) -> Solution:
    start = _entry(*jax.lax.stop_gradient((psi, flat, slopes, near)))
    found = dual_point(AffineImage(psi, flat.directions, flat.origin), slopes, start)
    return Solution(flat(found.value), found.status, found.steps)


class _Approach(NamedTuple):
    theta: Array  # (n,), inside the domain
    t: Array  # the multiple of the next step to be tried
    u: Array  # (k,), the candidate
    steps: Array
    done: Array


def _entry(psi: Potential, flat: EFlat, slopes: Array, theta: Array) -> Array:
    """The coordinates u (k,) of a point of the subspace inside the domain, or of one outside it.

    No step goes further than half way to the edge of the domain: near it G is so ill conditioned
    that Newton's method would have nothing to begin with.
    """
    a, k = flat.directions, flat.dim

    def body(state: _Approach) -> _Approach:
        theta, t = state.theta, state.t
        way = flat.origin - theta
        slope, lower = jax.linearize(lambda x: gradient(psi, x), theta)
        lowered = jax.vmap(lower)(jnp.vstack([a.T, way]))
        # Of all steps way + Au that end on the subspace, the one that minimises the quadratic
        # model of ψ(θ) − ⟨θ, η⟩ with Aᵀη = slopes.
        u = linalg.solve_pd(lowered[:k] @ a, slopes - (slope + lowered[k]) @ a)
        step = way + a @ u
        inside = in_domain(psi, theta + t * step)
        landed = inside & (t == 2)
        return _Approach(
            jnp.where(inside, theta + 0.5 * t * step, theta),
            jnp.where(inside, 2.0, 0.5 * t),
            jnp.where(landed, u, state.u),
            state.steps + 1,
            landed | ~jnp.isfinite(step).all(),
        )

    nearest = flat.coordinates(theta)
    two, none = jnp.full((), 2.0, theta.dtype), jnp.zeros((), jnp.int32)
    good = in_domain(psi, 2 * flat(nearest) - theta)
    begin = _Approach(theta, two, nearest, none, good)
    return jax.lax.while_loop(lambda s: ~s.done & (s.steps < 128), body, begin).u


# --- mixed coordinates ---------------------------------------------------------------------------


def to_mixed(psi: Potential, theta: Array, split: int) -> Array:
    """The mixed coordinates (η₁, …, ηₖ; θₖ₊₁, …, θₙ) of a point, k being `split`.

    {θₖ₊₁, …, θₙ fixed} is an e-flat leaf and {η₁, …, ηₖ fixed} an m-flat one. Leaves of the two
    foliations meet in one point at most, and there they are orthogonal.

    Args:
      psi: the potential.
      theta: shape (n,).
      split: k, 1 ≤ k < n.

    Returns:
      shape (n,); NaN outside the domain.
    """
    (theta,) = checked_points(psi, "to_mixed", theta=theta)
    _check_split("to_mixed", split, theta)
    return jnp.concatenate([to_eta(psi, theta)[:split], theta[split:]])


def from_mixed(psi: Potential, mixed: Array, split: int, init: Array | None = None) -> Solution:
    """The θ with the mixed coordinates (η₁, …, ηₖ; θₖ₊₁, …, θₙ): a Legendre transform in k of them.

    θ₁, …, θₖ minimise ψ(θ) − Σ_{i≤k} θᵢηᵢ, which is convex in them. Its derivatives are those of
    the equation solved, at every order.

    Args:
      psi: the potential.
      mixed: shape (n,).
      split: k, 1 ≤ k < n.
      init: as in `dual_point_on`.

    Returns:
      A `Solution` with the value θ, shape (n,).

    >>> from dualflat.geometry.families.gaussian import Gaussian
    >>> mixed = jnp.array([3.0, -0.25])  # mean 3 and precision ½: θ = (Λμ, −½Λ)
    >>> from_mixed(Gaussian(1), mixed, 1).checked().round(4)
    Array([ 1.5 , -0.25], dtype=float32)
    """
    (mixed,) = checked_points(psi, "from_mixed", mixed=mixed)
    _check_split("from_mixed", split, mixed)
    frame = jnp.eye(mixed.shape[0], split, dtype=mixed.dtype)
    return dual_point_on(psi, EFlat(mixed.at[:split].set(0.0), frame), mixed[:split], init)


def mixed_metric(psi: Potential, theta: Array, split: int) -> Array:
    """The metric in mixed coordinates, at θ: of two blocks, because the foliations are orthogonal.

        ⟨∂/∂ηₐ, ∂/∂η_b⟩ = (Gₐ_b)⁻¹,    ⟨∂/∂θ_κ, ∂/∂θ_λ⟩ = G_κλ − G_κₐ (Gₐ_b)⁻¹ G_bλ,    a, b ≤ k < κ, λ.

    Args:
      psi: the potential.
      theta: shape (n,), in θ coordinates.
      split: k, 1 ≤ k < n.

    Returns:
      shape (n, n), symmetric; zero outside the blocks. NaN outside the domain.
    """
    (theta,) = checked_points(psi, "mixed_metric", theta=theta)
    _check_split("mixed_metric", split, theta)
    g = metric(psi, theta)
    head, cross, rest = g[:split, :split], g[:split, split:], g[split:, split:]
    inverse = linalg.inverse_pd(head)
    zero = jnp.zeros_like(cross)
    return jnp.block([[inverse, zero], [zero.T, rest - cross.T @ linalg.solve_pd(head, cross)]])


def _check_split(where: str, split: int, point: Array) -> None:
    if not 1 <= split < point.shape[0]:
        raise ValueError(
            f"{where}: split is {split!r} for points of shape {point.shape}. Wanted an integer k with"
            " 1 ≤ k < n: the first k coordinates are η, the others θ."
        )


# --- curved submanifolds -------------------------------------------------------------------------


def induced_metric(psi: Potential, embedding: Embedding, u: Array) -> Array:
    """gₐ_b(u) = ∂ₐθⁱ ∂_bθʲ Gᵢⱼ: the metric of a submanifold u ↦ θ(u).

    Args:
      psi: the potential.
      embedding: u ↦ θ(u), from (k,) to (n,); an `EFlat` is one.
      u: shape (k,).

    Returns:
      shape (k, k), symmetric; NaN where θ(u) is outside the domain.
    """
    return _induced(*_frame(psi, embedding, _checked_u(embedding, "induced_metric", u)))


def e_curvature(psi: Potential, embedding: Embedding, u: Array) -> Array:
    """The e-embedding curvature: the normal part of ∇_{∂ₐ}∂_b, whose e-connection is flat in θ.

        H⁽ᵉ⁾ₐ_b = (∂ₐ∂_bθ)^⊥,    ⟨H⁽ᵉ⁾ₐ_b, ∂_c⟩ = 0.

    Euler's and Schouten's tensor, as vectors rather than components: it then depends on no frame.
    Its components in a normal frame n_κ are H_{ab κ} = ⟨Hₐ_b, n_κ⟩; `normal_frame` gives one.

    Args:
      psi: the potential.
      embedding: u ↦ θ(u), from (k,) to (n,), with independent ∂ₐθ.
      u: shape (k,).

    Returns:
      shape (k, k, n), vectors in θ coordinates, symmetric in a and b. Zero if and only if the
      submanifold is e-flat. NaN where θ(u) is outside the domain or no immersion.

    >>> circle = lambda u: 2 * jnp.concatenate([jnp.cos(u), jnp.sin(u)])
    >>> e_curvature(lambda t: 0.5 * t @ t, circle, jnp.zeros(1))[0, 0] + 0.0  # not −0.0
    Array([-2.,  0.], dtype=float32)
    """
    u = _checked_u(embedding, "e_curvature", u)
    g, frame = _frame(psi, embedding, u)
    bend = _second_derivatives(embedding, u)
    return bend - _tangent_part(g, frame, bend @ g)


def m_curvature(psi: Potential, embedding: Embedding, u: Array) -> Array:
    """The m-embedding curvature: the normal part of ∇*_{∂ₐ}∂_b, whose m-connection is flat in η.

        H⁽ᵐ⁾ₐ_b = (G⁻¹∂ₐ∂_bη)^⊥,    that is H⁽ᵐ⁾_{ab κ} = ∂ₐ∂_bη · n_κ.

    Args, shapes, NaN: as in `e_curvature`. Zero if and only if the submanifold is m-flat. Since
    connections mix linearly, so do curvatures: H⁽ᵅ⁾ = ½(1+α) H⁽ᵉ⁾ + ½(1−α) H⁽ᵐ⁾.
    """
    u = _checked_u(embedding, "m_curvature", u)
    g, frame = _frame(psi, embedding, u)
    bend = _second_derivatives(lambda u: gradient(psi, embedding(u)), u)
    raised = linalg.solve_pd(g, bend.reshape(-1, g.shape[0]).T).T.reshape(bend.shape)
    return raised - _tangent_part(g, frame, bend)


def normal_frame(psi: Potential, embedding: Embedding, u: Array) -> Array:
    """An orthonormal frame of the normal space at θ(u): ⟨n_κ, ∂ₐ⟩ = 0, ⟨n_κ, n_λ⟩ = δ_κλ.

    One of many, and no continuous choice along the submanifold; its derivatives are those of a
    continuous choice near u.

    Returns:
      shape (n, n − k), vectors n_κ in θ coordinates as columns. NaN as in `e_curvature`.
    """
    u = _checked_u(embedding, "normal_frame", u)
    g, frame = _frame(psi, embedding, u)
    normals = _complement(g @ frame)
    low = linalg.factor(normals.T @ g @ normals)
    return solve_triangular(low, normals.T, lower=True).T


def statistical_curvature(psi: Potential, embedding: Embedding, u: Array) -> Array:
    """Efron's γ², the squared e-curvature in units of the induced metric.

        γ² = gᵃᶜ g^{bd} ⟨H⁽ᵉ⁾ₐ_b, H⁽ᵉ⁾_cd⟩

    It does not change with the parametrisation. For a curve of laws, γ² times the Fisher
    information of one observation is what the maximum-likelihood estimate loses in the limit of
    many. The square is smooth where the submanifold is flat; γ itself is not.

    Args: as in `e_curvature`.

    Returns:
      shape (), ≥ 0.

    Source: Efron 1975 for curves; Reeds 1975 and Amari 1985 for k > 1.

    >>> circle = lambda u: 2 * jnp.concatenate([jnp.cos(u), jnp.sin(u)])
    >>> statistical_curvature(lambda t: 0.5 * t @ t, circle, jnp.zeros(1))  # 1/r²
    Array(0.25, dtype=float32)
    """
    u = _checked_u(embedding, "statistical_curvature", u)
    g, frame = _frame(psi, embedding, u)
    bend = e_curvature(psi, embedding, u)
    low = linalg.factor(_induced(g, frame))
    # In an orthonormal frame eₐ of the tangent space the sum is over squares.
    inverse = solve_triangular(low, jnp.eye(u.shape[0], dtype=u.dtype), lower=True)
    bend = jnp.einsum("ca,db,abi->cdi", inverse, inverse, bend)
    return jnp.einsum("cdi,ij,cdj->", bend, g, bend)


def _checked_u(embedding: Embedding, where: str, u: Array) -> Array:
    (u,) = checked_points(embedding, where, u=u)  # an `EFlat` knows its `dim`
    return u


def _frame(psi: Potential, embedding: Embedding, u: Array) -> tuple[Array, Array]:
    """The metric (n, n) at θ(u) and the tangent frame ∂ₐθ (n, k)."""
    return metric(psi, embedding(u)), jax.jacfwd(embedding)(u)


def _induced(g: Array, frame: Array) -> Array:
    pulled = frame.T @ g @ frame
    return (pulled + pulled.T) / 2


def _second_derivatives(fn: Embedding, u: Array) -> Array:
    """∂ₐ∂_b of a map from (k,) to (n,), shape (k, k, n)."""
    return jnp.moveaxis(jax.jacfwd(jax.jacfwd(fn))(u), 0, -1)


def _tangent_part(g: Array, frame: Array, covectors: Array) -> Array:
    """The tangential parts, as vectors, of covectors w (k, k, n): ∂ₐθ gᵃᵇ ⟨w, ∂_b⟩."""
    k = frame.shape[1]
    along = (covectors @ frame).reshape(k * k, k).T
    parts = frame @ linalg.solve_pd(_induced(g, frame), along)
    return parts.T.reshape(covectors.shape)
