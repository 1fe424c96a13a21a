"""The theorems, each as a function that returns by how much it fails.

A residual is an array that is zero in exact arithmetic. It is relative where there is a natural
size to divide by, so that a test can hold it against a few ε times a condition number. Each law
asks only for a potential and points; a new family earns all of them by being named once.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry.divergence import bregman, fenchel_young
from dualflat.geometry.legendre import conjugate, to_eta, to_theta
from dualflat.geometry.metric import inverse_metric, metric
from dualflat.geometry.potential import Potential


def involution(psi: Potential, theta: Array) -> Array:
    """(∇ψ)⁻¹(∇ψ(θ)) = θ: the dual of the dual point is the point. Shape (n,).

    In units of the metric: √Gᵢᵢ δθᵢ, which does not change with the units of the coordinates.
    """
    found = to_theta(psi, to_eta(psi, theta))
    return (found - theta) * jnp.sqrt(jnp.diagonal(metric(psi, theta)))


def biorthogonality(psi: Potential, theta: Array) -> Array:
    """⟨∂/∂θᵢ, ∂/∂ηⱼ⟩ = δᵢⱼ: the two coordinate frames are dual in the metric. Shape (n, n).

    ∂/∂ηⱼ is the derivative of θ(η), taken through the dual map, not an inverse of G.
    """
    frame = jax.jacfwd(lambda eta: to_theta(psi, eta))(to_eta(psi, theta))
    return metric(psi, theta) @ frame - jnp.eye(theta.shape[0], dtype=theta.dtype)


def dual_metrics_are_inverse(psi: Potential, theta: Array) -> Array:
    """∇²φ(η) ∇²ψ(θ) = I at η = ∇ψ(θ). Shape (n, n). Differentiates φ twice, through its search."""
    dual = jax.hessian(lambda eta: conjugate(psi, eta))(to_eta(psi, theta))
    return dual @ metric(psi, theta) - jnp.eye(theta.shape[0], dtype=theta.dtype)


def fenchel_young_equality(psi: Potential, theta: Array) -> Array:
    """ψ(θ) + φ(η) = ⟨θ, η⟩ at η = ∇ψ(θ). Shape (), relative to the terms."""
    eta = to_eta(psi, theta)
    terms = jnp.array([psi(theta), conjugate(psi, eta), -(theta @ eta)])
    size = jnp.abs(terms[:2]).sum() + jnp.abs(theta * eta).sum()
    return terms.sum() / jnp.where(size > 0, size, 1.0)


def legendre_duality(psi: Potential, theta: Array, base: Array) -> Array:
    """D_ψ(θ, θ′) = D_φ(η′, η): the dual divergence is the divergence read backwards. Shape ().

    Relative to the terms of the book's formula for φ, which is the right side.
    """
    forwards = bregman(psi, theta, base)
    eta, eta_base = to_eta(psi, theta), to_eta(psi, base)
    slope = jax.grad(lambda e: conjugate(psi, e))(eta)
    cross = slope * (eta_base - eta)
    terms = jnp.array([conjugate(psi, eta_base), -conjugate(psi, eta), -cross.sum()])
    return (forwards - terms.sum()) / (jnp.abs(terms[:2]).sum() + jnp.abs(cross).sum())


def gap_is_divergence(psi: Potential, theta: Array, base: Array) -> Array:
    """ψ(θ) + φ(η′) − ⟨θ, η′⟩ = D_ψ(θ, θ′) for η′ = ∇ψ(θ′). Shape (), relative to D."""
    divergence = bregman(psi, theta, base)
    return fenchel_young(psi, theta, to_eta(psi, base)) / divergence - 1


def three_points(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """D(p, r) = D(p, q) + D(q, r) + ⟨θ_p − θ_q, η_q − η_r⟩ for any three points. Shape ().

    Relative to the terms. Pythagoras is the case in which the last term vanishes.
    """
    cross = (p - q) * (to_eta(psi, q) - to_eta(psi, r))
    parts = jnp.array([bregman(psi, p, q), bregman(psi, q, r)])
    residual = bregman(psi, p, r) - parts.sum() - cross.sum()
    return residual / (parts.sum() + jnp.abs(cross).sum())


def pythagoras(psi: Potential, p: Array, q: Array, r: Array) -> Array:
    """D(p′, r) = D(p′, q) + D(q, r) where q → p′ is a θ-geodesic orthogonal to q → r. Shape ().

    p′ = q + u, with u the part of p − q that is orthogonal, in the metric at q, to the η-geodesic
    from q to r, whose direction there is G⁻¹(η_r − η_q). Relative to the left side.
    """
    covector = to_eta(psi, r) - to_eta(psi, q)
    direction = inverse_metric(psi, q) @ covector
    toward = p - q
    u = toward - direction * (covector @ toward) / (covector @ direction)
    whole = bregman(psi, q + u, r)
    return (whole - bregman(psi, q + u, q) - bregman(psi, q, r)) / whole


def convexity(psi: Potential, theta: Array, base: Array) -> Array:
    """D(θ, θ′) ≥ 0, and ⟨Δθ, Δη⟩ = D(θ, θ′) + D(θ′, θ) > 0 for distinct points. Shape (2,).

    First the negative part of D in both orders (0 if the law holds), then the equality, relative.
    """
    there, back = bregman(psi, theta, base), bregman(psi, base, theta)
    monotone = (theta - base) @ (to_eta(psi, theta) - to_eta(psi, base))
    negative = jnp.minimum(jnp.minimum(there, back), 0.0)
    return jnp.stack([negative, (there + back) / monotone - 1])
