"""The metric G = ∇²ψ, which is the Jacobian from θ to η: it turns vectors into covectors."""

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import linalg
from dualflat.geometry.potential import Potential, checked_points, in_domain, knowledge


def gradient(psi: Potential, theta: Array) -> Array:
    """∇ψ(θ), by the closed form where ψ has one. No checks: `to_eta` is the public door."""
    closed = knowledge(psi, "to_eta")
    return jax.grad(psi)(theta) if closed is None else closed(theta)


def metric(psi: Potential, theta: Array) -> Array:
    """G(θ) = ∇²ψ(θ), the Fisher metric if ψ is a log-partition function.

    Args:
      psi: the potential.
      theta: shape (n,).

    Returns:
      shape (n, n), exactly symmetric; NaN outside the domain.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> metric(Categorical(2), jnp.log(jnp.array([0.4, 0.6]))).round(4)  # diag(p) − p pᵀ
    Array([[ 0.16, -0.06],
           [-0.06,  0.21]], dtype=float32)
    """
    (theta,) = checked_points(psi, "metric", theta=theta)
    g = jax.jacfwd(lambda t: gradient(psi, t))(theta)
    return jnp.where(in_domain(psi, theta), (g + g.T) / 2, jnp.nan)


def inverse_metric(psi: Potential, theta: Array) -> Array:
    """G(θ)⁻¹, the metric of the dual coordinates: ∇²φ at η = ∇ψ(θ). Shape (n, n), symmetric.

    NaN where G is not positive definite in the precision at hand.
    """
    return linalg.inverse_pd(metric(psi, theta))


def curvature(psi: Potential, theta: Array, v: Array) -> Array:
    """vᵀG(θ)v, by the potential's own sum of squares where it has one. No checks.

    Otherwise two forward derivatives along the line θ + tv, which cost a few evaluations of ψ.
    """
    closed = knowledge(psi, "curvature")
    if closed is not None:
        return closed(theta, v)
    return jax.jvp(lambda t: jax.jvp(psi, (t,), (v,))[1], (theta,), (v,))[1]


def inner(psi: Potential, theta: Array, u: Array, v: Array) -> Array:
    """⟨u, v⟩ = uᵀG(θ)v for two vectors at θ, shapes (n,); NaN outside the domain."""
    theta, u, v = checked_points(psi, "inner", theta=theta, u=u, v=v)
    return u @ lower_index(psi, theta, v)


def lower_index(psi: Potential, theta: Array, vector: Array) -> Array:
    """The covector Gv of a vector v at θ: how η moves when θ moves along v. Forms no matrix.

    Args:
      psi: the potential.
      theta, vector: shape (n,).

    Returns:
      shape (n,); NaN outside the domain.
    """
    theta, vector = checked_points(psi, "lower_index", theta=theta, vector=vector)
    lowered = jax.jvp(lambda t: gradient(psi, t), (theta,), (vector,))[1]
    return jnp.where(in_domain(psi, theta), lowered, jnp.nan)


def raise_index(psi: Potential, theta: Array, covector: Array) -> Array:
    """The vector G⁻¹w of a covector w at θ: the natural gradient, if w is a gradient.

    Args:
      psi: the potential.
      theta, covector: shape (n,).

    Returns:
      shape (n,); NaN outside the domain and where G is not positive definite in this precision.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> psi, theta = Categorical(2), jnp.array([1.0, -2.0])
    >>> raise_index(psi, theta, lower_index(psi, theta, jnp.array([3.0, 4.0]))).round(4)
    Array([3., 4.], dtype=float32)
    """
    theta, covector = checked_points(psi, "raise_index", theta=theta, covector=covector)
    return linalg.solve_pd(metric(psi, theta), covector)
