"""Projections onto flat and curved submanifolds, Pythagoras, and projecting in turn.

Which projection goes with which subspace is the content of the projection theorem. Along an
m-geodesic, orthogonally, onto an *e-flat* subspace: the point of it with the least D(·, p), which
for laws is KL(p‖·), and there is exactly one. Along an e-geodesic onto an *m-flat* subspace: the
least D(p, ·), that is KL(·‖p). Both are Legendre transforms in as many variables as the subspace
has directions, or equations; neither needs θ(η).
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import zero_from_primal
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import linalg
from dualflat.geometry._tree import compiled, register
from dualflat.geometry.algebra import AffineImage
from dualflat.geometry.divergence import bregman
from dualflat.geometry.legendre import dual_point, to_eta
from dualflat.geometry.metric import curvature, gradient, lower_index, metric, raise_index
from dualflat.geometry.potential import Potential, as_potential, checked_points
from dualflat.geometry.solve import Solution, Status
from dualflat.geometry.submanifold import (
    EAffine,
    EFlat,
    Embedding,
    MAffine,
    MLevel,
    checked_subspace,
    dual_point_on,
    induced_metric,
)

# --- onto flat subspaces -------------------------------------------------------------------------


def m_projection(psi: Potential, theta: Array, onto: EAffine) -> Solution:
    """The point q of an e-flat subspace E nearest to p: the least D(q, p), for laws KL(p‖q).

        Aᵀ(∇ψ(θ₀ + Au) − η_p) = 0,    q = θ₀ + Au.

    The m-geodesic from p to q meets E orthogonally, and for every r in E

        D(r, p) = D(r, q) + D(q, p).

    It is the dual point, on E, of the slopes Aᵀη_p: see `submanifold.dual_point_on`, whose
    derivatives it has: in p, in E and in the parameters of ψ, at every order.

    Args:
      psi: the potential.
      theta: shape (n,), the point p inside the domain.
      onto: E, an `EFlat` or an `ELevel`.

    Returns:
      A `Solution` with the value θ of q, shape (n,). NaN, with its status, where p is outside the
      domain and where E does not meet it.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> # Two binary variables, θ = log of (p₀₁, p₁₀, p₁₁)/p₀₀; independent where θ₃ = θ₁ + θ₂.
    >>> independent = EFlat(jnp.zeros(3), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> p = jnp.log(jnp.array([0.2, 0.1, 0.3]) / 0.4)
    >>> q = m_projection(Categorical(3), p, independent).checked()
    >>> print(*(f"{x:.4f}" for x in to_eta(Categorical(3), q)))  # products of the marginals
    0.3000 0.2000 0.2000
    """
    onto, (theta,) = checked_subspace(psi, "m_projection", "e-flat", onto, theta=theta)
    psi, onto = as_potential(psi, theta), onto.span()
    return dual_point_on(psi, onto, to_eta(psi, theta) @ onto.directions, theta)


def m_projection_from_eta(
    psi: Potential, eta: Array, onto: EAffine, init: Array | None = None
) -> Solution:
    """The m-projection of a point given by η: the maximum-likelihood estimate in the model E.

    Only the slopes Aᵀη are used, so that η may lie on the edge of the range of ∇ψ, as the mean of
    T(x) over a sample does when cells are empty: what counts is whether the model reaches Aᵀη.

    Args:
      psi: the potential.
      eta: shape (n,).
      onto: E, an `EFlat` or an `ELevel`.
      init: shape (n,), a θ inside the domain where the search begins, as in
        `submanifold.dual_point_on`.

    Returns:
      A `Solution` with the value θ, shape (n,). NaN where the estimate does not exist.
    """
    onto, (eta,) = checked_subspace(psi, "m_projection_from_eta", "e-flat", onto, eta=eta)
    onto = onto.span()
    return dual_point_on(psi, onto, eta @ onto.directions, init)


def e_projection(psi: Potential, theta: Array, onto: MAffine) -> Solution:
    """The point q of an m-flat subspace M nearest to p: the least D(p, q), for laws KL(q‖p).

        C∇ψ(θ_p + Cᵀλ) = c,    q = θ_p + Cᵀλ,    M = {Cη = c}.

    The e-geodesic from p to q meets M orthogonally, and for every r in M

        D(p, r) = D(p, q) + D(q, r).

    It is a Legendre transform in λ, one variable for each equation, that begins at p itself: no
    θ(η) and no start inside M is needed. For laws, q is p tilted until the expectations of CT(x)
    are right; with p uniform, the law of greatest entropy. The derivatives are those of
    `legendre.dual_point`: in p, in M and in the parameters of ψ, at every order.

    Args:
      psi: the potential.
      theta: shape (n,), the point p inside the domain.
      onto: M, an `MLevel` or an `MFlat`.

    Returns:
      A `Solution` with the value θ of q, shape (n,). NaN, with its status, where p is outside the
      domain, where M does not meet the range of ∇ψ, and where its equations are dependent.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> mean = MLevel(jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), jnp.array([3.5]))
    >>> q = e_projection(Categorical(5), jnp.zeros(5), mean).checked()
    >>> print(*(f"{x:.4f}" for x in to_eta(Categorical(5), q)))  # Jaynes' die, faces 2 … 6
    0.0788 0.1142 0.1654 0.2398 0.3475
    """
    onto, (theta,) = checked_subspace(psi, "e_projection", "m-flat", onto, theta=theta)
    return _e_projection(as_potential(psi, theta), theta, onto.constraints())[0]


@compiled
def _e_projection(psi: Potential, theta: Array, onto: MLevel) -> tuple[Solution, Array]:
    """The projection, and its multipliers λ (m,)."""
    tilted = AffineImage(psi, onto.matrix.T, theta)
    found = dual_point(tilted, onto.values, jnp.zeros_like(onto.values))
    q = theta + found.value @ onto.matrix
    return Solution(q, found.status, found.steps), found.value


def orthogonality(psi: Potential, p: Array, q: Array, onto: EAffine | MAffine) -> Array:
    """The cosines of the angles, at q, between the subspace and the geodesic that arrives from p.

        E, along an m-geodesic:  Aᵢᵀ(η_q − η_p) / (|Aᵢ|_G |η_q − η_p|_{G⁻¹}),
        M, along an e-geodesic:  Bᵢᵀ(θ_q − θ_p) / (|Bᵢ|_{G⁻¹} |θ_q − θ_p|_G),      G at q.

    The projection theorem: all are zero if and only if q, a point of the subspace, is the
    projection of p.

    Args:
      psi: the potential.
      p, q: shape (n,), in θ coordinates, inside the domain.
      onto: the subspace, of which the directions are read and not the origin.

    Returns:
      shape (k,), one for each direction of `onto.span()`, in [−1, 1]; 0 where p = q.
    """
    kind = "m-flat" if isinstance(onto, MAffine) else "e-flat"
    onto, (p, q) = checked_subspace(psi, "orthogonality", kind, onto, p=p, q=q)
    directions = onto.span().directions
    if kind == "e-flat":
        covector = to_eta(psi, q) - to_eta(psi, p)
        arrival = raise_index(psi, q, covector)
    else:
        arrival = q - p
        covector = lower_index(psi, q, arrival)
        directions = jax.vmap(lambda w: raise_index(psi, q, w), 1, 1)(directions)
    lengths = jnp.sqrt(jax.vmap(lambda v: curvature(psi, q, v), 1)(directions))
    whole = lengths * jnp.sqrt(covector @ arrival)
    return jnp.where(whole == 0, 0.0, covector @ directions / jnp.where(whole == 0, 1.0, whole))


def pythagoras(psi: Potential, theta: Array, corner: Array, base: Array) -> tuple[Array, Array]:
    """Both sides of D(θ, base) = D(θ, corner) + D(corner, base).

    They are equal if and only if ⟨θ − corner, ∇ψ(corner) − ∇ψ(base)⟩ = 0: the e-geodesic from the
    corner to θ is orthogonal to the m-geodesic from the corner to the base. So

        base = p, corner = `m_projection(p)` onto E, θ any point of E;
        θ = p, corner = `e_projection(p)` onto M, base any point of M.

    Args:
      psi: the potential.
      theta, corner, base: shape (n,), in θ coordinates, inside the domain.

    Returns:
      The left and the right side, shapes ().
    """
    theta, corner, base = checked_points(psi, "pythagoras", theta=theta, corner=corner, base=base)
    legs = bregman(psi, theta, corner) + bregman(psi, corner, base)
    return bregman(psi, theta, base), legs


# --- onto curved submanifolds --------------------------------------------------------------------


def curved_m_projection(
    psi: Potential, theta: Array, embedding: Embedding, init: Array
) -> Solution:
    """A local minimum of u ↦ D(θ(u), p), for laws KL(p‖θ(u)): where the m-geodesic is orthogonal.

        (∂θ/∂u)ᵀ(η(u) − η_p) = 0.

    For laws and η_p the mean of T(x) over a sample: the maximum-likelihood estimate in a curved
    exponential family, by Newton's method where the second derivative is positive definite and by
    Fisher's scoring, which has the induced metric in its place, where it is not. Each step lowers
    D. On an m-curved submanifold there may be several minima, or none: this is the one that the
    way down from `init` leads to, and it is believed only if the second derivative there is positive
    definite.

    Args:
      psi: the potential.
      theta: shape (n,), the point p inside the domain.
      embedding: u ↦ θ(u), from (k,) to (n,), twice differentiable.
      init: shape (k,), a u with θ(u) inside the domain.

    Returns:
      A `Solution` with the value u, shape (k,). Its derivatives, in p and in the parameters of ψ
      and of the embedding, are those of the equation above, at every order; `init` has none.

    >>> circle = lambda u: jnp.concatenate([jnp.cos(u), jnp.sin(u)])
    >>> p = jnp.array([3.0, 3.0])
    >>> curved_m_projection(lambda t: 0.5 * t @ t, p, circle, jnp.zeros(1)).checked().round(4)
    Array([0.7854], dtype=float32)
    """
    return _nearest("curved_m_projection", psi, theta, embedding, init)


def curved_e_projection(
    psi: Potential, theta: Array, embedding: Embedding, init: Array
) -> Solution:
    """A local minimum of u ↦ D(p, θ(u)), for laws KL(θ(u)‖p): where the e-geodesic is orthogonal.

        (∂η/∂u)ᵀ(θ(u) − θ_p) = 0.

    Everything else is as in `curved_m_projection`.
    """
    return _nearest("curved_e_projection", psi, theta, embedding, init)


def _nearest(
    name: str, psi: Potential, theta: Array, embedding: Embedding, init: Array
) -> Solution:
    (theta,) = checked_points(psi, name, theta=theta)
    (init,) = checked_points(embedding, name, init=init)
    dtype = jnp.result_type(theta, init)
    theta, init = theta.astype(dtype), init.astype(dtype)
    found = jax.eval_shape(embedding, init)
    if found.shape != theta.shape:
        raise ValueError(
            f"{name}: the embedding takes u of shape {init.shape} to a point of shape"
            f" {found.shape}. Wanted {theta.shape}, that of theta."
        )
    place = _Place(as_potential(psi, theta), as_potential(embedding, init), theta)
    return _descend_compiled(name, place, jax.lax.stop_gradient(init))


class _Place(NamedTuple):
    """What a projection onto a curved submanifold depends on."""

    psi: Potential
    embedding: Embedding
    theta: Array


def _slope(name: str, place: _Place, u: Array) -> tuple[Array, Array]:
    """∂D/∂u (k,), and the size of the terms it is the sum of."""

    def dual(u):
        return gradient(place.psi, place.embedding(u))

    there = gradient(place.psi, place.theta)
    if name == "curved_m_projection":
        frame, ends = jax.jacfwd(place.embedding)(u), (dual(u), there)
    else:
        frame, ends = jax.jacfwd(dual)(u), (place.embedding(u), place.theta)
    size = (jnp.abs(ends[0]) + jnp.abs(ends[1])) @ jnp.abs(frame)
    return (ends[0] - ends[1]) @ frame, size


class _Descent(NamedTuple):
    u: Array
    divergence: Array
    steps: Array
    status: Array  # −1 while running


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _descend(name: str, place: _Place, init: Array) -> Solution:
    eps = float(jnp.finfo(init.dtype).eps)

    def divergence(u):
        pair = (place.embedding(u), place.theta)
        return bregman(place.psi, *(pair if name == "curved_m_projection" else pair[::-1]))

    def body(state: _Descent) -> _Descent:
        u = state.u
        slope, size = _slope(name, place, u)
        second = jax.jacfwd(lambda u: _slope(name, place, u)[0])(u)
        newton = linalg.solve_pd(second, -slope)
        scoring = linalg.solve_pd(induced_metric(place.psi, place.embedding, u), -slope)
        definite = jnp.isfinite(newton).all()
        step = jnp.where(definite, newton, scoring)
        finite = jnp.isfinite(step).all()
        step = jnp.where(finite, step, 0.0)
        noise = 32 * eps * state.divergence

        def refused(carry):
            t, value = carry
            return ~(value <= state.divergence + 1e-4 * t * (slope @ step) + noise) & (t > eps)

        def halve(carry):
            return carry[0] / 2, divergence(u + carry[0] / 2 * step)

        first = (jnp.ones((), u.dtype), divergence(u + step))
        t, value = jax.lax.while_loop(refused, halve, first)
        small = (jnp.abs(slope) <= eps**0.75 * size).all()
        status = jnp.where((t <= eps) | small, Status.STALLED, -1)
        status = jnp.where(small & definite, Status.CONVERGED, status)
        status = jnp.where(finite, status, Status.NONFINITE).astype(jnp.int32)
        return _Descent(u + t * step, value, state.steps + 1, status)

    begin = divergence(init)
    status = jnp.where(jnp.isfinite(begin), -1, Status.NONFINITE).astype(jnp.int32)
    start = _Descent(init, begin, jnp.zeros((), jnp.int32), status)
    end = jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < 64), body, start)
    return _reported(end.u, end.status, end.steps)


_descend_compiled = compiled(_descend, static=(0,))


@_descend.defjvp
def _descend_jvp(name, primals, tangents):
    place, init = primals
    found = _descend(name, place, init)
    u = found.value
    _, drift = jax.jvp(lambda p: _slope(name, p, u)[0], (place,), (tangents[0],))
    second = jax.jacfwd(lambda u: _slope(name, place, u)[0])(u)
    return found, _still(found, linalg.solve_pd(second, -drift))


# --- in turn ---------------------------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class Alternation:
    """Where projecting in turn onto an e-flat E and an m-flat M has led.

    Attributes:
      e_point, m_point: shape (n,), θ of the point p of E and of the point q of M that are each
        other's projections; NaN unless CONVERGED.
      divergence: shape (), D(p, q), for laws KL(q‖p): 0 where E and M meet.
      history: shape (max_steps,), D(p, q) after every step, NaN from the last one on. Up to
        rounding it never rises. A record, without derivatives.
      status: shape (), int32, a `Status`.
      steps: shape (), int32, pairs of projections.
    """

    e_point: Array
    m_point: Array
    divergence: Array
    history: Array
    status: Array
    steps: Array


def alternating_projections(
    psi: Potential, start: Array, e_flat: EAffine, m_flat: MAffine, max_steps: int = 1000
) -> Alternation:
    """Project onto E, from there onto M, from there onto E, until nothing moves: the em algorithm.

        pₜ = m_projection(qₜ₋₁) onto E,    qₜ = e_projection(pₜ) onto M,    q₋₁ = start.

    Both lower the same D(p, q), for laws KL(q‖p), so that it falls to the distance of E and M; if
    they meet, p and q tend to a point of both. D is convex in p alone and in q alone, not in both:
    where E and M do not meet there may be other pairs of the same kind than the nearest.

    Convergence is linear. The search ends when the way that is left, estimated from the last two
    movements of p as a geometric series, is below ε^¾, or the movement itself below 4ε, of what
    rounding can tell apart in units of the metric. Where E and M meet in the limit only, at the
    edge of the manifold, or where they touch, this is not reached: MAX_STEPS, and `history` tells.

    The derivatives are those of the two conditions that the pair (p, q) solves,

        Aᵀ(η_p − η_q) = 0,    θ_q = θ_p + Cᵀλ,    Cη_q = c,

    in E, M and the parameters of ψ, at every order. They do not know `start`, and are NaN where
    the pair is not isolated (E and M meet in more than a point), because it then depends on it.

    Args:
      psi: the potential.
      start: shape (n,), in θ coordinates, inside the domain.
      e_flat: E, an `EFlat` or an `ELevel`.
      m_flat: M, an `MLevel` or an `MFlat`.
      max_steps: pairs of projections before giving up, the length of `history`; not traced.

    Source: Csiszár and Tusnády 1984; Amari 1995.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> independent = EFlat(jnp.zeros(3), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> cells = MLevel(jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), jnp.array([0.4, 0.4]))
    >>> met = alternating_projections(Categorical(3), jnp.zeros(3), independent, cells)
    >>> Status(int(met.status)).name, bool((jnp.diff(met.history[: met.steps]) <= 0).all())
    ('CONVERGED', True)
    """
    where = "alternating_projections"
    e_flat, (start,) = checked_subspace(psi, where, "e-flat", e_flat, start=start)
    m_flat, _ = checked_subspace(psi, where, "m-flat", m_flat, start=start)
    pair = _Pair(as_potential(psi, start), e_flat.span(), m_flat.constraints())
    return _alternation(pair, start, max_steps)


class _Pair(NamedTuple):
    """What the limit of alternating projections depends on."""

    psi: Potential
    e_flat: EFlat
    m_flat: MLevel

    def points(self, z: Array) -> tuple[Array, Array]:
        """p on E, and q reached from it along the normals of M, from z = (u, λ)."""
        p = self.e_flat(z[: self.e_flat.dim])
        return p, p + z[self.e_flat.dim :] @ self.m_flat.matrix


@partial(compiled, static=(2,))
def _alternation(pair: _Pair, start: Array, max_steps: int) -> Alternation:
    found, history = _alternate(max_steps, pair, jax.lax.stop_gradient(start))
    p, q = pair.points(found.value)
    history = jax.lax.stop_gradient(history)
    return Alternation(p, q, bregman(pair.psi, p, q), history, found.status, found.steps)


class _Turn(NamedTuple):
    z: Array  # (u, λ)
    p: Array
    q: Array
    moved: Array  # the length of the last movement, +∞ before the second step
    history: Array
    steps: Array
    status: Array  # −1 while running


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _alternate(max_steps: int, pair: _Pair, start: Array) -> tuple[Solution, Array]:
    psi, e_flat, m_flat = pair
    a = e_flat.directions

    def body(state: _Turn) -> _Turn:
        down = dual_point_on(psi, e_flat, gradient(psi, state.q) @ a, state.p)
        up, multipliers = _e_projection(psi, down.value, m_flat)
        p, q = down.value, up.value
        moved = _length(psi, state.p, p)
        settled = _settled(moved, state.moved, _blur(psi, p, a))
        status = jnp.where(settled & (state.steps > 0), Status.CONVERGED, -1)
        status = jnp.where(up.status == Status.CONVERGED, status, up.status)
        status = jnp.where(down.status == Status.CONVERGED, status, down.status)
        return _Turn(
            jnp.concatenate([e_flat.coordinates(p), multipliers]),
            p,
            q,
            jnp.where(state.steps > 0, moved, jnp.inf),
            state.history.at[state.steps].set(bregman(psi, p, q)),
            state.steps + 1,
            status.astype(jnp.int32),
        )

    begin = _Turn(
        jnp.full(e_flat.dim + m_flat.values.shape[0], jnp.nan, start.dtype),
        start,
        start,
        jnp.full((), jnp.inf, start.dtype),
        jnp.full(max_steps, jnp.nan, start.dtype),
        jnp.zeros((), jnp.int32),
        jnp.full((), -1, jnp.int32),
    )
    end = jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < max_steps), body, begin)
    return _reported(end.z, end.status, end.steps), end.history


@_alternate.defjvp
def _alternate_jvp(max_steps, primals, tangents):
    pair, start = primals
    found, history = _alternate(max_steps, pair, start)
    z = found.value

    def balance(pair, z):
        p, q = pair.points(z)
        eta_p, eta_q = gradient(pair.psi, p), gradient(pair.psi, q)
        across = (eta_p - eta_q) @ pair.e_flat.directions
        return jnp.concatenate([across, pair.m_flat.matrix @ eta_q - pair.m_flat.values])

    _, drift = jax.jvp(lambda pair: balance(pair, z), (pair,), (tangents[0],))
    jacobian = jax.jacfwd(lambda z: balance(pair, z))(z)
    isolated = _isolated(*jax.lax.stop_gradient((pair, z)))
    z_dot = -jnp.linalg.solve(jacobian, drift) * jnp.where(isolated, 1.0, jnp.nan).astype(z.dtype)
    return (found, history), (_still(found, z_dot), jnp.zeros_like(history))


def _isolated(pair: _Pair, z: Array) -> Array:
    """Does the pair (p, q) determine itself: does alternating contract in every direction of E?

    u ↦ min_q D(p(u), q) has the second derivative Aᵀ(G_p − P)A, P being G_q without what lies
    along the normals of M; relative to AᵀG_pA its eigenvalues are 1 minus the rates of convergence.
    """
    p, q = pair.points(z)
    g_p, g_q = metric(pair.psi, p), metric(pair.psi, q)
    a, c = pair.e_flat.directions, pair.m_flat.matrix
    along = g_q - g_q @ c.T @ linalg.solve_pd(c @ g_q @ c.T, c @ g_q)
    low = linalg.factor(a.T @ g_p @ a)
    half = solve_triangular(low, a.T @ (g_p - along) @ a, lower=True)
    relative = solve_triangular(low, half.T, lower=True)
    return (jnp.linalg.eigvalsh(relative) > jnp.finfo(z.dtype).eps ** 0.5).all()


def cyclic_projections(
    psi: Potential, start: Array, m_flats: Sequence[MAffine], max_steps: int = 1000
) -> tuple[Solution, Array]:
    """Project onto several m-flat subspaces in turn: the e-projection onto their intersection.

    For a table and its margins this is iterative proportional fitting. The limit is

        θ = θ_start + Σᵢ Cᵢᵀλᵢ    with    Cᵢ∇ψ(θ) = cᵢ for every i,

    the point of the intersection with the least D(start, ·), for laws KL(·‖start). By Pythagoras
    the divergences that were moved add up to it. Unlike `e_projection` onto all equations at once
    it may be given equations that are dependent, as margins with a common total are, and solves
    only small systems; but its convergence is linear, and ends as in `alternating_projections`.

    Args:
      psi: the potential.
      start: shape (n,), in θ coordinates, inside the domain.
      m_flats: M₁, M₂, …, each an `MLevel` or an `MFlat`; at least one.
      max_steps: rounds before giving up; not traced.

    Returns:
      A `Solution` with the value θ, shape (n,), and the history of shape (max_steps,): how much
      was moved in each round, Σᵢ D(θᵢ₋₁, θᵢ), NaN from the last one on, without derivatives. NaN
      and MAX_STEPS where the subspaces have no common point. The derivatives of θ are those of the
      equations above, in `start` too.

    Source: Bregman 1967; Csiszár 1975.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> rows = MLevel(jnp.array([[0.0, 1.0, 1.0]]), jnp.array([0.7]))  # p₁₀ + p₁₁
    >>> columns = MLevel(jnp.array([[1.0, 0.0, 1.0]]), jnp.array([0.4]))  # p₀₁ + p₁₁
    >>> found, _ = cyclic_projections(Categorical(3), jnp.zeros(3), [rows, columns])
    >>> print(*(f"{x:.4f}" for x in to_eta(Categorical(3), found.checked())))
    0.1200 0.4200 0.2800
    """
    where = "cyclic_projections"
    if not m_flats:
        raise ValueError(f"{where}: m_flats is empty. Wanted at least one m-flat subspace.")
    levels = []
    for flat in m_flats:
        flat, (start,) = checked_subspace(psi, where, "m-flat", flat, start=start)
        levels.append(flat.constraints())
    return _cyclic(max_steps, _Rounds(as_potential(psi, start), start, tuple(levels)))


class _Rounds(NamedTuple):
    """What the limit of cyclic projections depends on."""

    psi: Potential
    start: Array
    levels: tuple[MLevel, ...]

    def point(self, multipliers: Array) -> Array:
        """θ from all λᵢ, one after the other."""
        return self.start + multipliers @ jnp.concatenate([level.matrix for level in self.levels])


@partial(compiled, static=(0,))
def _cyclic(max_steps: int, rounds: _Rounds) -> tuple[Solution, Array]:
    found, history = _cycle(max_steps, rounds)
    theta = rounds.point(found.value)
    return Solution(theta, found.status, found.steps), jax.lax.stop_gradient(history)


class _Round(NamedTuple):
    multipliers: Array
    theta: Array
    moved: Array
    history: Array
    steps: Array
    status: Array  # −1 while running


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _cycle(max_steps: int, rounds: _Rounds) -> tuple[Solution, Array]:
    psi, start, levels = rounds

    def body(state: _Round) -> _Round:
        theta, parts = state.theta, []
        zero = jnp.zeros((), start.dtype)
        total, moved, blur = zero, zero, zero
        worst = jnp.full((), Status.CONVERGED, jnp.int32)
        for level in levels:
            found, part = _e_projection(psi, theta, level)
            worst = jnp.where(worst == Status.CONVERGED, found.status, worst)
            total += bregman(psi, theta, found.value)
            # Of the way there, not from round to round: that is 0 also where the subspaces do not
            # meet, and the projections go round in a circle.
            moved += _length(psi, theta, found.value)
            blur += _blur(psi, found.value, level.matrix.T)
            theta = found.value
            parts.append(part)
        status = jnp.where(_settled(moved, state.moved, blur), Status.CONVERGED, -1)
        return _Round(
            state.multipliers + jnp.concatenate(parts),
            theta,
            moved,
            state.history.at[state.steps].set(total),
            state.steps + 1,
            jnp.where(worst == Status.CONVERGED, status, worst).astype(jnp.int32),
        )

    begin = _Round(
        jnp.zeros(sum(level.values.shape[0] for level in levels), start.dtype),
        start,
        jnp.full((), jnp.inf, start.dtype),
        jnp.full(max_steps, jnp.nan, start.dtype),
        jnp.zeros((), jnp.int32),
        jnp.full((), -1, jnp.int32),
    )
    end = jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < max_steps), body, begin)
    return _reported(end.multipliers, end.status, end.steps), end.history


@_cycle.defjvp
def _cycle_jvp(max_steps, primals, tangents):
    (rounds,), (rounds_dot,) = primals, tangents
    found, history = _cycle(max_steps, rounds)
    multipliers = found.value

    def excess(rounds):
        eta = gradient(rounds.psi, rounds.point(multipliers))
        return jnp.concatenate([level.matrix @ eta - level.values for level in rounds.levels])

    _, drift = jax.jvp(excess, (rounds,), (rounds_dot,))
    matrix = jnp.concatenate([level.matrix for level in rounds.levels])
    gram = matrix @ metric(rounds.psi, rounds.point(multipliers)) @ matrix.T
    # Of dependent equations the multipliers are not determined, but what they do to θ is: a few ε
    # more on the diagonal choose one of them.
    ridge = 8 * gram.shape[0] * float(jnp.finfo(gram.dtype).eps) * jnp.diag(jnp.diagonal(gram))
    return (found, history), (
        _still(found, linalg.solve_pd(gram + ridge, -drift)),
        jnp.zeros_like(history),
    )


def _length(psi: Potential, theta: Array, other: Array) -> Array:
    """√⟨Δθ, Δη⟩, the root of Jeffreys' divergence: to second order the Fisher distance."""
    square = (theta - other) @ (gradient(psi, theta) - gradient(psi, other))
    return jnp.sqrt(jnp.maximum(square, 0.0))


def _blur(psi: Potential, theta: Array, directions: Array) -> Array:
    """The length, over ε, of what rounding does to a point found by its slopes Aᵀη along A.

    Its slopes are wrong by ε|A|ᵀ|η|, and θ itself by ε|θ|; both are measured in the metric.
    """
    slopes = jnp.abs(gradient(psi, theta)) @ jnp.abs(directions)
    lowered = jax.vmap(lambda v: lower_index(psi, theta, v), 1, 1)(directions)
    square = slopes @ linalg.solve_pd(directions.T @ lowered, slopes)
    return jnp.sqrt(square + curvature(psi, theta, jnp.abs(theta)))


def _settled(moved: Array, before: Array, blur: Array) -> Array:
    """Is the rest of a geometric series, of which these were the last two terms, too small to see?

    `before` is +∞ where there was no earlier term; one term says nothing about the rest.
    """
    eps = float(jnp.finfo(moved.dtype).eps)
    shrinks = (moved < before) & (before < jnp.inf)
    rest = jnp.where(shrinks, moved * moved / jnp.where(shrinks, before - moved, 1.0), jnp.inf)
    return (rest <= eps**0.75 * blur) | (moved <= 4 * eps * blur)


def _reported(value: Array, status: Array, steps: Array) -> Solution:
    """A `Solution`: still running is MAX_STEPS, and what has not converged has no value."""
    status = jnp.where(status < 0, Status.MAX_STEPS, status).astype(jnp.int32)
    return Solution(jnp.where(status == Status.CONVERGED, value, jnp.nan), status, steps)


def _still(found: Solution, value_dot: Array) -> Solution:
    """The tangent of a `Solution` of which only the value moves."""
    return Solution(value_dot, *zero_from_primal((found.status, found.steps)))
