"""Divergences of a convex potential, computed without cancellation at every distance.

`jensen` has those that weigh a third point on the line between the two.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero

from dualflat.geometry import _remainder, legendre
from dualflat.geometry._tree import compiled
from dualflat.geometry.metric import gradient
from dualflat.geometry.potential import (
    Potential,
    as_potential,
    checked_points,
    knowledge,
    starting_point,
)


def bregman(psi: Potential, theta: Array, base: Array) -> Array:
    """D(θ, θ′) = ψ(θ) − ψ(θ′) − ⟨θ − θ′, ∇ψ(θ′)⟩, how far ψ lies above its tangent at θ′.

    θ′ is the base. For a family of laws this is KL(p_θ′ ‖ p_θ): the base is the law that averages.
    In dual coordinates it is read backwards, D_ψ(θ, θ′) = D_φ(η′, η).

    The book's formula subtracts numbers of the size of ψ to get one of the size of Δ² (Δ = θ − θ′);
    near the base nothing is left, and the sign is noise. Taylor's remainder has only nonnegative
    terms,

        D = ∫₀¹ (1 − t) Δᵀ∇²ψ(θ′ + tΔ)Δ dt.

    It is as accurate as a few nodes resolve the integrand, which fails far from the base, where
    the book's formula is good. Both are computed, and the smaller estimate of error decides; where
    neither will do, more nodes are taken. A bend between two nodes shows in the slopes at the ends.
    A potential that knows its own `divergence` is asked instead. What a bare ψ cannot give is more
    digits than its second derivative has.

    Derivatives are not those of the formula but the true ones, kept from cancellation alike:

        ∂D = ⟨∇ψ(θ) − ∇ψ(θ′), dθ⟩ − ⟨∇²ψ(θ′)Δ, dθ′⟩ + D[∂ₐψ]·da.

    Args:
      psi: the potential; a plain convex function will do, and its parameters a are differentiated.
      theta, base: shape (n,), inside the domain. Taken as exact.

    Returns:
      shape (), never negative, exactly 0 at theta = base, with gradient 0 and Hessian ∇²ψ there.
      NaN, with a NaN gradient, if a point is outside the domain; NaN where ψ lies below its tangent
      by more than rounding, which no convex function does.

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
    closed = knowledge(psi, "divergence")
    if closed is not None:
        return closed(theta, base) * _remainder.nan_outside(psi, theta, base)
    value, *_ = _remainder.quotient(psi, base, theta, theta - base)
    return value * _remainder.nan_outside(psi, theta, base)


_bregman_compiled = compiled(_bregman)  # a call outside jit compiles once, not op by op


@_bregman.defjvp
def _bregman_jvp(primals, tangents):
    psi, theta, base = primals
    psi_dot, theta_dot, base_dot = tangents
    delta = theta - base
    eta_gap = _remainder.dual_quotient(psi, base, theta, delta)
    lowered = jax.jvp(lambda x: gradient(psi, x), (base,), (delta,))[1]
    change = eta_gap @ theta_dot - lowered @ base_dot
    if jax.tree_util.tree_leaves(psi):

        def of_parameters(p):  # linear in ψ: the form that D takes does not move with a
            return _remainder.quotient(p, base, theta, delta, refine=False)[0]

        change = change + jax.jvp(of_parameters, (psi,), (psi_dot,))[1]
    return _bregman(psi, theta, base), change * _remainder.nan_outside(psi, theta, base)


def jeffreys(psi: Potential, theta: Array, other: Array) -> Array:
    """D(θ, θ′) + D(θ′, θ) = ⟨θ − θ′, η − η′⟩, the same both ways.

    For a family of laws, KL(p‖q) + KL(q‖p). Computed as that sum, of which no part is negative or
    loses digits; the product does both where θ is near θ′.

    Args:
      psi: the potential.
      theta, other: shape (n,), inside the domain.

    Returns:
      shape (), never negative, exactly 0 at equality, with Hessian 2∇²ψ in each point there. NaN,
      with a NaN gradient, outside the domain.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> print(f"{jeffreys(Categorical(1), jnp.array([0.0]), jnp.array([jnp.log(3.0)])):.4f}")
    0.2747
    """
    theta, other = checked_points(psi, "jeffreys", theta=theta, other=other)
    return bregman(psi, theta, other) + bregman(psi, other, theta)


def fenchel_young(psi: Potential, theta: Array, eta: Array, init: Array | None = None) -> Array:
    """The Fenchel-Young gap ψ(θ) + φ(η) − ⟨θ, η⟩ ≥ 0, which is 0 only where ∇ψ(θ) = η.

    A loss: θ is what a model says, η what was seen; KL(seen ‖ said) where η is a law's. It is
    convex in each argument alone, and

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
        return gap(theta, eta) * _remainder.nan_outside(psi, theta)
    dual = legendre.to_theta(psi, eta, init)
    value = bregman(psi, theta, dual)
    if knowledge(psi, "conjugate") is None:
        return value
    edge = psi(theta) + legendre.conjugate(psi, eta, init) - theta @ eta
    edge = jnp.where(edge < 0, 0.0, edge) * _remainder.nan_outside(psi, theta)
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
    return _fenchel_young(psi, theta, eta, init), change * _remainder.nan_outside(psi, theta)


def _materialised(tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    aval: Any = tangent.aval
    return jnp.zeros(aval.shape, aval.dtype)


_fenchel_young.defjvp(_fenchel_young_jvp, symbolic_zeros=True)
_fenchel_young_compiled = compiled(_fenchel_young)


def canonical(psi: Potential, theta: Array, eta: Array, init: Array | None = None) -> Array:
    """The canonical divergence of two points, one given by θ, the other by its dual coordinates η.

    ψ(θ) + φ(η) − ⟨θ, η⟩ = D(θ, θ(η)), for laws KL(p_η ‖ p_θ), as `fenchel_young`; but both must be
    points of the manifold, so that an η on the edge, which no θ reaches, is NaN and not a limit.

    Args:
      psi: the potential.
      theta, eta: shape (n,).
      init: as in `legendre.to_theta`.

    Returns:
      shape (), never negative.
    """
    theta, eta = checked_points(psi, "canonical", theta=theta, eta=eta)
    return bregman(psi, theta, legendre.to_theta(psi, eta, init))
