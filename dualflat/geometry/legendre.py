"""The Legendre transform: θ and η = ∇ψ(θ), ψ and its conjugate φ(η) = ⟨θ, η⟩ − ψ(θ).

Where a potential knows no closed form, the dual map is found by damped Newton, and its derivatives
come from the equation that it solves, at every order, in η and in ψ's own parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import solve
from dualflat.geometry._tree import compiled
from dualflat.geometry.metric import gradient, metric_operator
from dualflat.geometry.potential import (
    Potential,
    as_potential,
    checked_points,
    in_domain,
    knowledge,
    starting_point,
)
from dualflat.geometry.solve import Solution, Status


def to_eta(psi: Potential, theta: Array) -> Array:
    """η = ∇ψ(θ): the dual coordinates of the point θ; for a family of laws, the mean of T(x).

    Args:
      psi: the potential.
      theta: shape (n,).

    Returns:
      shape (n,); NaN, with a NaN gradient, outside the domain.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> to_eta(Categorical(3), jnp.array([0.0, 0.0, 0.0]))
    Array([0.25, 0.25, 0.25], dtype=float32)
    """
    (theta,) = checked_points(psi, "to_eta", theta=theta)
    return gradient(psi, theta) * _nan_unless(in_domain(psi, theta), theta.dtype)


def to_theta(psi: Potential, eta: Array, init: Array | None = None) -> Array:
    """The θ with ∇ψ(θ) = η: by closed form where ψ has one, otherwise `dual_point(...).value`.

    Args:
      psi: the potential.
      eta: shape (n,).
      init: shape (n,), inside the domain: where a search begins. Without it, the potential's
        starting point, otherwise the origin. It has no part in the derivatives.

    Returns:
      shape (n,); NaN where η is not the dual coordinate of any point, or was not found. Ask
      `dual_point` to know why.

    >>> import jax
    >>> psi = lambda theta: jnp.logaddexp(0.0, theta).sum()  # any convex function
    >>> jax.jit(lambda eta: to_theta(psi, eta))(jnp.array([0.5, 0.2])).round(4)  # log p/(1−p)
    Array([ 0.    , -1.3863], dtype=float32)
    """
    closed = knowledge(psi, "to_theta")
    if closed is None:
        return dual_point(psi, eta, init).value
    (eta,) = checked_points(psi, "to_theta", eta=eta)
    theta = closed(eta)
    # What a closed form has flagged is NaN in the derivative too.
    return theta + eta * jnp.where(jnp.isnan(theta), jnp.nan, 0.0).astype(eta.dtype)


def dual_point(psi: Potential, eta: Array, init: Array | None = None) -> Solution:
    """The θ with ∇ψ(θ) = η by damped Newton, also where ψ knows a closed form, with its status.

    Let a be the parameters of ψ. Differentiating ∇ψ(θ; a) = η gives

        G θ̇ + ∂ₐ∇ψ·ȧ = η̇,        G = ∇²ψ(θ),

    so no iterate is differentiated; the rule is made of differentiable pieces and holds at every
    order, forwards and backwards.

    Args:
      psi: the potential. Its parameters are differentiated if it is a pytree, and if it is a
        plain function that closes over them.
      eta: shape (n,).
      init: shape (n,), inside the domain. Without it, the potential's starting point, otherwise
        the origin. θ does not depend on it.

    Returns:
      A `Solution`: NaN unless CONVERGED.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> dual_point(Categorical(2), jnp.array([0.2, 0.3])).checked().round(4)
    Array([-0.9163, -0.5108], dtype=float32)
    >>> dual_point(Categorical(2), jnp.array([0.8, 0.3])).checked()
    Traceback (most recent call last):
    ...
    RuntimeError: solver ended ...
    """
    return _dual_point_compiled(*_search(psi, "dual_point", eta, init))


def _search(
    psi: Potential, name: str, eta: Array, init: Array | None
) -> tuple[Potential, Array, Array]:
    """What a search for θ(η) begins with, checked: the potential, η, and where to begin."""
    (eta,) = checked_points(psi, name, eta=eta)
    init = starting_point(psi, eta) if init is None else init
    eta, init = checked_points(psi, name, eta=eta, init=init)
    return as_potential(psi, init), eta, jax.lax.stop_gradient(init)


@jax.custom_jvp
def _dual_point(psi: Potential, eta: Array, init: Array) -> Solution:
    test, reach = knowledge(psi, "in_domain"), knowledge(psi, "in_dual_domain")

    def slope(theta):
        return gradient(psi, theta)

    if eta.shape[0] == 1:
        # ψ′ may well be finite where ψ is not, as that of −log θ is for θ < 0.
        found = solve.bracketed(
            eta, init, gradient=slope, in_domain=lambda theta: in_domain(psi, theta)
        )
    else:
        found = solve.newton(
            psi,
            eta,
            init,
            gradient=None if knowledge(psi, "to_eta") is None else slope,
            hessian=lambda theta: metric_operator(psi, theta),
            in_domain=test,
        )
    if reach is None:
        return found
    return solve.refused(found, ~reach(eta), Status.UNREACHABLE)


_dual_point_compiled = compiled(_dual_point)  # a search outside jit compiles once per ψ and shape


@_dual_point.defjvp
def _dual_point_jvp(primals, tangents):
    psi, eta, init = primals
    psi_dot, eta_dot, _ = tangents
    found = _dual_point(psi, eta, init)
    theta = found.value
    _, drift = jax.jvp(lambda p: gradient(p, theta), (psi,), (psi_dot,))
    theta_dot = metric_operator(psi, theta).solve(eta_dot - drift)
    still = jax.custom_derivatives.zero_from_primal((found.status, found.steps))
    return found, Solution(theta_dot, *still)


def conjugate(psi: Potential, eta: Array, init: Array | None = None) -> Array:
    """φ(η) = supθ ⟨θ, η⟩ − ψ(θ), the potential of the dual coordinates.

        ∇φ(η) = θ,    ∇²φ(η) = G⁻¹,    ∂φ/∂a = −∂ψ/∂a at θ for every parameter a of ψ.

    These are the derivatives computed, at every order; differentiating the value as it was found
    would need the second derivative of a search.

    Args:
      psi: the potential.
      eta: shape (n,).
      init: as in `to_theta`.

    Returns:
      shape (). NaN where η is not reached by ∇ψ, except that a closed form may continue φ to
      the edge (Σ p log p at a vertex of the simplex is 0); the gradient is NaN there.

    >>> import jax
    >>> from dualflat.geometry.families.categorical import Categorical
    >>> value, theta = jax.value_and_grad(lambda eta: conjugate(Categorical(1), eta))(
    ...     jnp.array([0.25])
    ... )
    >>> print(f"{value:.4f} {theta[0]:.4f}")  # −entropy, log p/(1−p)
    -0.5623 -1.0986
    """
    return _conjugate_compiled(*_search(psi, "conjugate", eta, init))


@jax.custom_jvp
def _conjugate(psi: Potential, eta: Array, init: Array) -> Array:
    closed = knowledge(psi, "conjugate")
    if closed is not None:
        return closed(eta)
    theta = to_theta(psi, eta, init)
    return theta @ eta - psi(theta)


_conjugate_compiled = compiled(_conjugate)


@_conjugate.defjvp
def _conjugate_jvp(primals, tangents):
    psi, eta, init = primals
    psi_dot, eta_dot, _ = tangents
    theta = to_theta(psi, eta, init)
    # The envelope theorem: θ̇ drops out, because θ is where the supremum is.
    _, drift = jax.jvp(lambda p: p(theta), (psi,), (psi_dot,))
    return _conjugate(psi, eta, init), theta @ eta_dot - drift


def _nan_unless(condition: Array, dtype: Any) -> Array:
    """1 or NaN, to be multiplied by: unlike `where`, a factor of NaN reaches the gradient too."""
    return jnp.where(condition, 1.0, jnp.nan).astype(dtype)
