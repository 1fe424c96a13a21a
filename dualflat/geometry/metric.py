"""The metric G = ∇²ψ, which is the Jacobian from θ to η: it turns vectors into covectors."""

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import operators
from dualflat.geometry.operators import Operator
from dualflat.geometry.potential import Potential, checked_points, in_domain, knowledge


def gradient(psi: Potential, theta: Array) -> Array:
    """∇ψ(θ), by the closed form where ψ has one. No checks: `to_eta` is the public door."""
    closed = knowledge(psi, "to_eta")
    return jax.grad(psi)(theta) if closed is None else closed(theta)


def metric_operator(psi: Potential, theta: Array) -> Operator:
    """G(θ) as an operator: the potential's own where it knows the structure of ∇²ψ. No checks.

    Otherwise the Jacobian of ∇ψ: a matrix up to n = 1024, and beyond that products Gv by one
    forward derivative, with G⁻¹w by conjugate gradients. Nothing of size n² is then formed.
    """
    known = knowledge(psi, "hessian")
    if known is not None:
        return known(theta)
    return operators.jacobian(jax.tree_util.Partial(gradient, psi), theta)


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
    return jnp.where(in_domain(psi, theta), metric_operator(psi, theta).dense(), jnp.nan)


def inverse_metric(psi: Potential, theta: Array) -> Array:
    """G(θ)⁻¹, the metric of the dual coordinates: ∇²φ at η = ∇ψ(θ). Shape (n, n), symmetric.

    NaN where G is not positive definite in the precision at hand.
    """
    (theta,) = checked_points(psi, "inverse_metric", theta=theta)
    inverse = operators.Inverse(metric_operator(psi, theta)).dense()
    return jnp.where(in_domain(psi, theta), inverse, jnp.nan)


def log_det_metric(psi: Potential, theta: Array) -> Array:
    """log det G(θ), shape (): twice the log density of Jeffreys' prior, up to a constant.

    From pivots, never from a determinant, which over- and underflows. NaN outside the domain and
    where G is not positive definite in this precision.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> log_det_metric(Categorical(2), jnp.log(jnp.array([0.4, 0.6]))).round(4)  # Σ log pⱼ
    Array(-3.5066, dtype=float32)
    """
    (theta,) = checked_points(psi, "log_det_metric", theta=theta)
    return jnp.where(in_domain(psi, theta), metric_operator(psi, theta).logdet(), jnp.nan)


def metric_root(psi: Potential, theta: Array, z: Array) -> Array:
    """Sz for a square root of the metric, SSᵀ = G(θ): white noise z becomes a covector at θ.

    S is the Cholesky factor, or the root of the structure that ψ knows; it is one fixed linear
    map at θ. `raise_index` of the result is a vector whose covariance is G⁻¹.

    Args:
      psi: the potential.
      theta, z: shape (n,).

    Returns:
      shape (n,); NaN outside the domain and where G is not positive definite in this precision.
    """
    theta, z = checked_points(psi, "metric_root", theta=theta, z=z)
    return jnp.where(in_domain(psi, theta), metric_operator(psi, theta).root(z), jnp.nan)


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
      theta, vector: shape (n,). O(n) where ψ knows the structure of G, otherwise one derivative
        of ∇ψ along v.

    Returns:
      shape (n,); NaN outside the domain.
    """
    theta, vector = checked_points(psi, "lower_index", theta=theta, vector=vector)
    known = knowledge(psi, "hessian")
    if known is None:
        lowered = jax.jvp(lambda t: gradient(psi, t), (theta,), (vector,))[1]
    else:
        lowered = known(theta).apply(vector)
    return jnp.where(in_domain(psi, theta), lowered, jnp.nan)


def raise_index(psi: Potential, theta: Array, covector: Array) -> Array:
    """The vector G⁻¹w of a covector w at θ: the natural gradient, if w is a gradient.

    Args:
      psi: the potential.
      theta, covector: shape (n,). O(n) where ψ knows the structure of G; otherwise a Cholesky
        solve up to n = 1024, and conjugate gradients beyond, without any matrix.

    Returns:
      shape (n,); NaN outside the domain and where G is not positive definite in this precision.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> psi, theta = Categorical(2), jnp.array([1.0, -2.0])
    >>> raise_index(psi, theta, lower_index(psi, theta, jnp.array([3.0, 4.0]))).round(4)
    Array([3., 4.], dtype=float32)
    """
    theta, covector = checked_points(psi, "raise_index", theta=theta, covector=covector)
    raised = metric_operator(psi, theta).solve(covector)
    return jnp.where(in_domain(psi, theta), raised, jnp.nan)
