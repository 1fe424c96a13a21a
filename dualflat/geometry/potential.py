"""What a potential is: a strictly convex function, and whatever else it happens to know."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import as_tree


@runtime_checkable
class Potential(Protocol):
    """A strictly convex, smooth ψ on an open convex set of ℝⁿ. All of the geometry follows from it.

    Implementations are pytrees, so that their own parameters can be differentiated; a plain
    function will do as well. A point is an array of shape (n,), and so is a covector; a batch is
    the caller's `jax.vmap`. What is compiled for a ψ that is no pytree is found again by its hash:
    attributes of such an object that change afterwards are not seen.

    A potential may know more than its values. What it knows is found by attribute, is never
    required, and only makes things faster, safer or more accurate:

    | attribute | what it says |
    | --- | --- |
    | `dim` | n; shapes are then checked before tracing |
    | `in_domain(theta)` | bool (): is θ inside the open convex set? NaN must answer False |
    | `in_dual_domain(eta)` | bool (): is η in the open image of ∇ψ? NaN must answer False |
    | `starting_point(dtype)` | a θ (n,) inside the domain where a search may begin |
    | `guess(eta)` | a better one: a θ (n,) inside the domain, near the one with ∇ψ(θ) = η |
    | `to_eta(theta)` | ∇ψ(θ) |
    | `to_theta(eta)` | the θ with ∇ψ(θ) = η; NaN where there is none |
    | `conjugate(eta)` | φ(η) = sup ⟨θ,η⟩ − ψ(θ), on the closure of the range of ∇ψ; NaN beyond |
    | `hessian(theta)` | ∇²ψ(θ) as a structured operator, see `operators` |
    | `curvature(theta, v)` | vᵀ∇²ψ(θ)v, as a sum of nonnegative terms |
    | `divergence(theta, base)` | D(θ, θ′) ≥ 0, free of cancellation, 0 only at equality |
    | `gap(theta, eta)` | ψ(θ) + φ(η) − ⟨θ,η⟩, free of cancellation |

    Outside its domain ψ should be NaN (or +∞ if the limit is). `in_domain` is asked as well,
    because a formula such as log|det Λ| is finite where it means nothing.
    """

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar, in the dtype of θ."""
        ...


def knowledge(psi: Potential, name: str) -> Callable[..., Any] | None:
    """The method of ψ called `name`, or None if ψ does not know it."""
    return getattr(psi, name, None)


def in_domain(psi: Potential, theta: Array) -> Array:
    """Is θ inside the domain of ψ, as far as ψ can tell? Without a test: is ψ(θ) finite?"""
    test = knowledge(psi, "in_domain")
    return jnp.isfinite(psi(theta)) if test is None else test(theta)


def starting_point(psi: Potential, eta: Array) -> Array:
    """Where a search for θ(η) begins: the potential's guess or starting point, else the origin."""
    guess, start = knowledge(psi, "guess"), knowledge(psi, "starting_point")
    if guess is not None:
        return guess(eta)
    return jnp.zeros_like(eta) if start is None else start(eta.dtype)


def as_potential(psi: Potential, point: Array) -> Potential:
    """ψ as a pytree: itself if it is one, otherwise a function with what it closes over as leaves.

    Derivative rules take ψ as an argument, so that its parameters can be differentiated. Traced
    values that a plain function closes over would be invisible to them.
    """
    if not jax.tree_util.all_leaves([psi]):
        return as_tree(psi)
    try:
        hash(psi)
    except TypeError as error:
        raise TypeError(
            f"ψ is a {type(psi).__name__}, which has no hash: what is compiled for it could not be"
            " found again. Register its class as a pytree (`jax.tree_util.register_dataclass`), or"
            " make it a frozen dataclass."
        ) from error
    convert: Any = jax.closure_convert  # its stub wants concrete example types
    pure, constants = convert(psi, point)
    if not constants:
        return jax.tree_util.Partial(psi)
    return jax.tree_util.Partial(_swapped(pure), list(constants))


def _swapped(pure: Callable[..., Array]) -> Callable[[list[Array], Array], Array]:
    return lambda constants, theta: pure(theta, *constants)


def checked_points(psi: Potential, where: str, **points: Any) -> list[Array]:
    """The arrays in `points`, in one floating dtype, after checks that need no values.

    Raises:
      ValueError: for anything but real arrays of one common shape (n,), n ≥ 1, and n = ψ.dim
        where ψ knows it. Raised before tracing, and inside `jit` while tracing.
    """
    arrays = {name: jnp.asarray(value) for name, value in points.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    dim = getattr(psi, "dim", None)
    wanted = f"({'n' if dim is None else dim},)"
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise ValueError(f"{where}: {name} is {array.dtype}. Coordinates are real.")
        if array.ndim != 1 or array.shape[0] < 1 or dim not in (None, array.shape[0]):
            raise ValueError(
                f"{where}: {name} has shape {array.shape}. Wanted {wanted}, one point;"
                " for a batch use jax.vmap."
            )
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{where}: shapes differ: {shapes}. Wanted one shape {wanted}.")
    # A Python number or an integer array follows the others; all integers become the default float.
    dtype = jnp.result_type(float, *arrays.values())
    floats = [a.dtype for a in arrays.values() if jnp.issubdtype(a.dtype, jnp.floating)]
    dtype = jnp.result_type(*floats) if floats else dtype
    return [array.astype(dtype) for array in arrays.values()]
