"""Parallel transport: along any curve by any connection, in closed form where one is flat.

A *curve* is a callable t ↦ x on [0, 1], smooth on each panel. ∇ and ∇* transport together keep the
product, g(A, B) = g(A′, B′), which is (5) along a curve; round a loop it is theorem 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import ode
from dualflat.geometry._tree import as_tree, compiled
from dualflat.geometry.connection import Connection, DualStructure, contract
from dualflat.geometry.metric import lower_index, raise_index
from dualflat.geometry.potential import Potential, checked_points

Curve = Callable[[Array], Array]

PANELS = 16


def e_transport(psi: Potential, theta: Array, base: Array, vector: Array) -> Array:
    """The ∇-parallel vector at θ to one at the base: θ components stay, v′ = v, on any path.

    Args:
      psi: the potential, whose dimension is checked.
      theta, base, vector: shape (n,).

    Returns:
      shape (n,), in θ components.
    """
    return checked_points(psi, "e_transport", theta=theta, base=base, vector=vector)[2]


def m_transport(psi: Potential, theta: Array, base: Array, vector: Array) -> Array:
    """The ∇*-parallel vector at θ to one at the base: η components stay, so that

        G(θ) v′ = G(base) v,

    on any path, because ∇* is flat. With `e_transport` it keeps the product: u′ᵀG(θ)v′ = uᵀG v.

    Args:
      psi: the potential.
      theta, base, vector: shape (n,); the vector in θ components, at the base.

    Returns:
      shape (n,), in θ components, at θ; NaN where a point is outside the domain.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> base, theta = jnp.array([0.0]), jnp.log(jnp.array([3.0]))
    >>> m_transport(Categorical(1), theta, base, jnp.array([3.0])).round(3)  # ¼·3 = (3/16)·4
    Array([4.], dtype=float32)
    """
    theta, base, vector = checked_points(psi, "m_transport", theta=theta, base=base, vector=vector)
    return raise_index(psi, theta, lower_index(psi, base, vector))


def transport_matrix(
    connection: Connection, curve: Curve, *, panels: int | Array = PANELS
) -> Array:
    """The matrix that carries every vector at curve(0) to its parallel one at curve(1).

        V̇ᵏ = −Γᵢⱼᵏ ẋⁱ Vʲ.

    By Gauss collocation, 12 nodes a panel: for a smooth curve as good as rounding, with no ODE
    library, and differentiable in every way.

    Args:
      connection: x ↦ Γᵢⱼᵏ.
      curve: t ↦ x on [0, 1], shape (n,), for scalar t.
      panels: how many equal panels, or their edges, increasing from 0 to 1. A corner of the curve
        must be an edge.

    Returns:
      shape (n, n), to be multiplied from the left: V(1) = P V(0). NaN where the panels do not
      resolve the transport to ε^¾: more panels help, or an edge where the curve has a corner.

    >>> to_plane = lambda y: y[0] * jnp.array([jnp.cos(y[1]), jnp.sin(y[1])])
    >>> from dualflat.geometry.connection import change_chart
    >>> polar = change_chart(lambda x: jnp.zeros((2, 2, 2)), to_plane)  # the flat plane
    >>> quarter = lambda t: jnp.array([2.0, jnp.pi / 2 * t])
    >>> transport_matrix(polar, quarter).round(3) + 0.0  # ∂_r becomes −½∂_φ
    Array([[ 0. ,  2. ],
           [-0.5,  0. ]], dtype=float32)
    """
    start = checked_curve(curve, "transport_matrix")
    breaks = ode.edges(panels, start.dtype, "transport_matrix")
    return _matrix_compiled(as_tree(connection), as_tree(curve), breaks)


@compiled
def _matrix_compiled(connection: Connection, curve: Curve, breaks: Array) -> Array:
    def rate(t):
        x, x_dot = jax.jvp(curve, (t,), (jnp.ones_like(t),))
        basis = jnp.eye(x.shape[0], dtype=x.dtype)
        return -jax.vmap(lambda v: contract(connection, x, x_dot, v), out_axes=1)(basis)

    return ode.propagator(rate, breaks)


def transport(
    connection: Connection, curve: Curve, vector: Array, *, panels: int | Array = PANELS
) -> Array:
    """The vector at curve(1) that is parallel, along the curve, to `vector` at curve(0).

    Args:
      connection, curve, panels: as in `transport_matrix`.
      vector: shape (n,).

    Returns:
      shape (n,); NaN as there.
    """
    matrix = transport_matrix(connection, curve, panels=panels)
    return matrix @ jnp.asarray(vector, matrix.dtype)


def holonomy(connection: Connection, loop: Curve, *, panels: int | Array = PANELS) -> Array:
    """What transport once round a closed curve does to the vectors at its beginning, A′ = P A.

    The identity for every loop that can be contracted, if and only if the curvature is 0.

    Args:
      connection, panels: as in `transport_matrix`.
      loop: t ↦ x on [0, 1] with loop(1) = loop(0).

    Returns:
      shape (n, n); NaN if the loop does not close, up to √ε of its size.
    """
    matrix = transport_matrix(connection, loop, panels=panels)
    start, middle, end = (loop(jnp.asarray(t, matrix.dtype)) for t in (0.0, 0.5, 1.0))
    size = jnp.abs(start).max() + jnp.abs(middle - start).max()
    closed = jnp.abs(end - start).max() <= float(jnp.finfo(matrix.dtype).eps) ** 0.5 * size
    return jnp.where(closed, matrix, jnp.nan)


def transport_defect(
    structure: DualStructure, curve: Curve, *, panels: int | Array = PANELS
) -> Array:
    """PᵀG′P* − G: by how much transport with ∇ and ∇* together does not keep products, (n, n).

    g(A, B) = g(A′, B′) for A carried by ∇ and B by ∇* along one curve, at all A and B.
    """
    primal, dual = (
        transport_matrix(c, curve, panels=panels) for c in (structure.primal, structure.dual)
    )
    start, end = (structure.metric(curve(jnp.asarray(t, primal.dtype))) for t in (0.0, 1.0))
    return primal.T @ end @ dual - start


def holonomy_defect(
    structure: DualStructure, loop: Curve, *, panels: int | Array = PANELS
) -> Array:
    """PᵀGP* − G round a closed curve: the lecture's proof of theorem 1, in numbers. Shape (n, n).

    It is 0 for every dual pair, flat or not; so P = I for one exactly where P* = I for the other.
    """
    primal, dual = (holonomy(c, loop, panels=panels) for c in (structure.primal, structure.dual))
    g = structure.metric(loop(jnp.zeros((), primal.dtype)))
    return primal.T @ g @ dual - g


def transport_path(
    connection: Connection, curve: Curve, vector: Array, times: Array, *, max_steps: int = 4096
) -> Array:
    """The parallel vectors at the points curve(times), by diffrax with steps that adapt.

    For curves that no reasonable number of panels resolves, or to see the vectors on the way.

    Args:
      connection, curve: as in `transport_matrix`, but the curve's parameter may have any range.
      vector: shape (n,), at curve(times[0]).
      times: shape (k,), increasing.
      max_steps: steps before giving up.

    Returns:
      shape (k, n); NaN after the time that was not reached.

    Raises:
      ImportError: without the extra `ode`.
    """
    vector = jnp.asarray(vector)
    times = jnp.asarray(times, vector.dtype)

    def field(t: Array, v: Any) -> Any:
        x, x_dot = jax.jvp(curve, (t,), (jnp.ones_like(t),))
        return -contract(connection, x, x_dot, v)

    return ode.integrate(field, vector, times, max_steps=max_steps)


def checked_curve(curve: Curve, where: str) -> Array:
    """curve(0), after checks that need no values; its dtype is that of all that follows.

    Raises:
      ValueError: unless it is a real vector.
    """
    start = curve(jnp.asarray(0.0))  # a weak float, so that the curve's own dtype decides
    if jnp.ndim(start) != 1 or not jnp.issubdtype(start.dtype, jnp.floating):
        raise ValueError(
            f"{where}: the curve returns shape {jnp.shape(start)} of {start.dtype}. Wanted a point"
            " (n,) for a scalar t in [0, 1]; for many t use jax.vmap."
        )
    return start
