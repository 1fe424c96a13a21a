"""Divergences of a convex potential, computed without cancellation at every distance."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from dualflat.geometry import _numerics, legendre
from dualflat.geometry.metric import curvature, gradient
from dualflat.geometry.potential import (
    Potential,
    as_potential,
    checked_points,
    in_domain,
    knowledge,
    starting_point,
)

NODES = 8


def bregman(psi: Potential, theta: Array, base: Array) -> Array:
    """D(θ, θ′) = ψ(θ) − ψ(θ′) − ⟨θ − θ′, ∇ψ(θ′)⟩, how far ψ lies above its tangent at θ′.

    θ′ is the base. For a family of laws this is KL(base ‖ θ). The book's formula subtracts numbers
    of the size of ψ to get one of the size of Δ² (Δ = θ − θ′); near the base nothing is left, and
    the sign is noise. Taylor's remainder has only nonnegative terms,

        D = ∫₀¹ (1 − t) Δᵀ∇²ψ(θ′ + tΔ)Δ dt,

    taken here by 8 Gauss-Legendre nodes, each two derivatives of ψ along Δ. It is as accurate as
    those nodes resolve the integrand, which fails far from the base, where the book's formula is
    good. Both are computed; each comes with an estimate of its own error (rounding of the numbers
    subtracted; decay of the integrand's Legendre coefficients), and the smaller one decides.

    Derivatives are not those of the formula but the true ones, kept from cancellation alike:

        ∂D = ⟨∇ψ(θ) − ∇ψ(θ′), dθ⟩ − ⟨∇²ψ(θ′)Δ, dθ′⟩ + D[∂ₐψ]·da.

    Args:
      psi: the potential; a plain convex function will do, and its parameters a are differentiated.
      theta, base: shape (n,), inside the domain. Taken as exact.

    Returns:
      shape (), never negative, exactly 0 at theta = base, with gradient 0 and Hessian ∇²ψ there.
      NaN, with a NaN gradient, if a point is outside the domain.

    Raises:
      ValueError: for shapes that do not match each other or ψ, and for complex points.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> theta, base = jnp.array([1e-4, 0.0]), jnp.zeros(2)
    >>> print(f"{bregman(Categorical(2), theta, base):.4e}")  # the book's formula gives 0 here
    1.1111e-09
    """
    theta, base = checked_points(psi, "bregman", theta=theta, base=base)
    return _bregman_compiled(as_potential(psi, base), theta, base)


@jax.custom_jvp
def _bregman(psi: Potential, theta: Array, base: Array) -> Array:
    return _forms(psi, theta, base)[0]


_bregman_compiled = jax.jit(_bregman)  # a call outside jit compiles once, not op by op


def _forms(psi: Potential, theta: Array, base: Array) -> tuple[Array, Array]:
    """The value, and whether it is the remainder's rather than the book's."""
    eps = float(jnp.finfo(theta.dtype).eps)
    delta = theta - base
    t, w = _numerics.unit_nodes(NODES)
    along = jax.vmap(lambda s: curvature(psi, base + s * delta, delta))(jnp.asarray(t, theta.dtype))
    remainder = jnp.asarray(w * (1 - t), theta.dtype) @ along

    upper, lower, slopes = psi(theta), psi(base), gradient(psi, base) * delta
    book = upper - lower - slopes.sum()
    book_error = eps * (jnp.abs(upper) + jnp.abs(lower) + jnp.abs(slopes).sum())
    # If coefficients fall like ρ^-k, the rule is wrong by about ρ^-2·8: the square of the last over
    # the first. The integrand is nonnegative, so its mean is its first coefficient.
    tail = jnp.asarray(_numerics.legendre_tail(NODES), theta.dtype) @ along
    mean = jnp.asarray(w, theta.dtype) @ along
    decay = jnp.abs(tail).max() / jnp.where(mean > 0, mean, 1.0)
    remainder_error = remainder * (8 * eps + 8 * decay**2)
    near = remainder_error <= book_error
    # One point outside the domain is enough for NaN, though ψ itself may be finite there.
    value = jnp.where(near, remainder, jnp.where(book < 0, 0.0, book))
    return value * _valid(psi, theta, base), near


def _valid(psi: Potential, *points: Array) -> Array:
    """1, or NaN if ψ has a domain test and a point fails it."""
    if knowledge(psi, "in_domain") is None:
        return jnp.ones((), points[0].dtype)
    inside = jnp.stack([in_domain(psi, point) for point in points]).all()
    return jnp.where(inside, 1.0, jnp.nan).astype(points[0].dtype)


@_bregman.defjvp
def _bregman_jvp(primals, tangents):
    psi, theta, base = primals
    psi_dot, theta_dot, base_dot = tangents
    value, near = _forms(psi, theta, base)
    delta = theta - base
    valid = _valid(psi, theta, base)
    eta_gap = _dual_difference(psi, theta, base)
    lowered = jax.jvp(lambda x: gradient(psi, x), (base,), (delta,))[1]
    change = eta_gap @ theta_dot - lowered @ base_dot
    if jax.tree_util.tree_leaves(psi):
        change = change + _parameter_change(psi, psi_dot, theta, base, near)
    return value, change * valid


def _dual_difference(psi: Potential, theta: Array, base: Array) -> Array:
    """∇ψ(θ) − ∇ψ(θ′) = ∫₀¹ ∇²ψ(θ′ + tΔ)Δ dt, entry by entry by the form that loses less."""
    eps = float(jnp.finfo(theta.dtype).eps)
    delta = theta - base
    t, w = _numerics.unit_nodes(NODES)

    def lowered(s):
        return jax.jvp(lambda x: gradient(psi, x), (base + s * delta,), (delta,))[1]

    along = jax.vmap(lowered)(jnp.asarray(t, theta.dtype))
    mean = jnp.asarray(w, theta.dtype) @ along
    here, there = gradient(psi, theta), gradient(psi, base)
    tail = jnp.asarray(_numerics.legendre_tail(NODES), theta.dtype) @ along
    size = jnp.sqrt(jnp.asarray(w, theta.dtype) @ along**2)
    decay = jnp.abs(tail).max(0) / jnp.where(size > 0, size, 1.0)
    mean_error = size * (8 * eps + 8 * decay**2)
    return jnp.where(mean_error <= eps * (jnp.abs(here) + jnp.abs(there)), mean, here - there)


def _parameter_change(
    psi: Potential, psi_dot: Any, theta: Array, base: Array, near: Array
) -> Array:
    """D[ψ̇](θ, θ′) for ψ̇ = ∂ₐψ·ȧ, which is linear in ψ̇, by the form that D itself took."""
    delta = theta - base

    def drift(x):
        return jax.jvp(lambda p: p(x), (psi,), (psi_dot,))[1]

    def twice(s):
        return jax.jvp(lambda x: jax.jvp(drift, (x,), (delta,))[1], (base + s * delta,), (delta,))[
            1
        ]

    t, w = _numerics.unit_nodes(NODES)
    remainder = jnp.asarray(w * (1 - t), theta.dtype) @ jax.vmap(twice)(jnp.asarray(t, theta.dtype))
    slope = jax.jvp(drift, (base,), (delta,))[1]
    return jnp.where(near, remainder, drift(theta) - drift(base) - slope)


def fenchel_young(psi: Potential, theta: Array, eta: Array, init: Array | None = None) -> Array:
    """The Fenchel-Young gap ψ(θ) + φ(η) − ⟨θ, η⟩ ≥ 0, which is 0 only where ∇ψ(θ) = η.

    A loss: θ is what a model says, η what was seen. It is convex in each argument alone, and

        ∂θ = ∇ψ(θ) − η,    ∂η = θ(η) − θ,    ∂ₐ = ∂ₐψ(θ) − ∂ₐψ(θ(η)).

    Computed by the potential's own `gap` where it has one, otherwise as D(θ, θ(η)), free of
    cancellation; on the edge of the range of ∇ψ, where no θ(η) exists but φ does, by the sum above.

    Args:
      psi: the potential.
      theta: shape (n,), inside the domain.
      eta: shape (n,), in the closure of the range of ∇ψ as far as ψ's closed forms go there.
      init: as in `legendre.to_theta`.

    Returns:
      shape (), never negative; NaN where θ or η is impossible. On the edge the derivative in θ
      is right and that in η, which is infinite, is NaN.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> vertex = jnp.array([1.0, 0.0])  # outcome 1 was seen
    >>> print(f"{fenchel_young(Categorical(2), jnp.array([0.0, 0.0]), vertex):.4f}")  # log 3
    1.0986
    """
    theta, eta = checked_points(psi, "fenchel_young", theta=theta, eta=eta)
    init = starting_point(psi, eta) if init is None else init
    eta, init = checked_points(psi, "fenchel_young", eta=eta, init=init)
    return _fenchel_young_compiled(as_potential(psi, init), theta, eta, jax.lax.stop_gradient(init))


@jax.custom_jvp
def _fenchel_young(psi: Potential, theta: Array, eta: Array, init: Array) -> Array:
    gap = knowledge(psi, "gap")
    if gap is not None:
        return gap(theta, eta) * _valid(psi, theta)
    dual = legendre.to_theta(psi, eta, init)
    value = bregman(psi, theta, dual)
    if knowledge(psi, "conjugate") is None:
        return value
    edge = psi(theta) + legendre.conjugate(psi, eta, init) - theta @ eta
    edge = jnp.where(edge < 0, 0.0, edge) * _valid(psi, theta)
    return jnp.where(jnp.isnan(dual).any(), edge, value)


def _fenchel_young_jvp(primals, tangents):
    psi, theta, eta, init = primals
    psi_dot, theta_dot, eta_dot, _ = tangents
    change = jnp.zeros((), theta.dtype)
    if not isinstance(theta_dot, SymbolicZero):
        change = change + (gradient(psi, theta) - eta) @ theta_dot
    moves = [d for d in jax.tree_util.tree_leaves(psi_dot) if not isinstance(d, SymbolicZero)]
    # θ(η) is infinite on the edge. Whoever does not move η must not be given 0 · ∞.
    if moves or not isinstance(eta_dot, SymbolicZero):
        dual = legendre.to_theta(psi, eta, init)
        if not isinstance(eta_dot, SymbolicZero):
            change = change + (dual - theta) @ eta_dot
        if moves:
            psi_dot = jax.tree_util.tree_map(_materialised, psi_dot)
            change = change + jax.jvp(lambda p: p(theta) - p(dual), (psi,), (psi_dot,))[1]
    return _fenchel_young(psi, theta, eta, init), change * _valid(psi, theta)


def _materialised(tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    aval: Any = tangent.aval
    return jnp.zeros(aval.shape, aval.dtype)


_fenchel_young.defjvp(_fenchel_young_jvp, symbolic_zeros=True)
_fenchel_young_compiled = jax.jit(_fenchel_young)


def canonical(psi: Potential, theta: Array, eta: Array, init: Array | None = None) -> Array:
    """The canonical divergence of two points, one given by θ, the other by its dual coordinates η.

    ψ(θ) + φ(η) − ⟨θ, η⟩ = D(θ, θ(η)), as `fenchel_young`; but both must be points of the
    manifold, so that an η on the edge, which no θ reaches, is NaN and not a limit.

    Args:
      psi: the potential.
      theta, eta: shape (n,).
      init: as in `legendre.to_theta`.

    Returns:
      shape (), never negative.
    """
    theta, eta = checked_points(psi, "canonical", theta=theta, eta=eta)
    return bregman(psi, theta, legendre.to_theta(psi, eta, init))
