"""Ordinary differential equations: Gauss collocation on panels, and diffrax where steps must adapt.

Collocation represents a derivative by its values at Gauss-Legendre nodes, `NODES` on each panel of
[0, 1], and integrates their interpolant exactly. It is symmetric in time, its error at the end of
a panel is the square of what the nodes do not resolve, and what is left is algebra, which has
derivatives of every order, forwards and backwards.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry._numerics import unit_nodes

NODES = 12


def _legendre(s: Any, count: int) -> list[Any]:
    """P₀, …, P_{count−1} on [0, 1] at s."""
    x = 2 * s - 1
    values = [1.0 + 0.0 * x, x]
    for m in range(1, count - 1):
        values.append(((2 * m + 1) * x * values[m] - m * values[m - 1]) / (m + 1))
    return values


@functools.cache
def _coefficients() -> np.ndarray:
    """Values at the nodes ↦ Legendre coefficients, (NODES, NODES)."""
    c, w = unit_nodes(NODES)
    return (2 * np.arange(NODES)[:, None] + 1) * w * np.stack(_legendre(c, NODES))


def basis(s: Any) -> tuple[Any, Any, Any]:
    """Rows that map values at the nodes of a panel to their interpolant at s, and to its integrals.

    Args:
      s: shape (...), in units of the panel, 0 … 1; a numpy or a JAX array.

    Returns:
      three arrays (..., NODES): for the value, for ∫₀ˢ and for ∫₀ˢ(s − r) dr.
    """
    xp: Any = jnp if isinstance(s, jax.Array) else np

    def integrals(values, first):
        # ∫ P_m = (P_{m+1} − P_{m−1}) / (4m + 2) on [0, 1]
        rest = [(values[m + 1] - values[m - 1]) / (4 * m + 2) for m in range(1, len(values) - 1)]
        return [first, *rest]

    values = _legendre(s, NODES + 2)
    once = integrals(values, s)
    twice = integrals(once, s * s / 2)
    table = xp.asarray(_coefficients(), values[0].dtype)
    value, once, twice = (xp.stack(rows[:NODES], -1) @ table for rows in (values, once, twice))
    return value, once, twice


@functools.cache
def _panel() -> tuple[np.ndarray, ...]:
    c, w = unit_nodes(NODES)
    _, once, twice = basis(c)
    return c, w, once, twice


def panel(dtype: Any) -> tuple[Array, Array, Array, Array]:
    """Nodes (N,), weights (N,), and the two integrations from the left edge (N, N), on [0, 1]."""
    c, w, once, twice = (jnp.asarray(part, dtype) for part in _panel())
    return c, w, once, twice


class Mesh(NamedTuple):
    """Panels of [0, 1], with the matrices that integrate values at all their M nodes.

    Attributes:
      breaks: shape (K + 1,), from 0 to 1.
      nodes, weights: shape (M,), M = K · NODES.
      once, twice: shape (M, M): ∫₀ᵗ and ∫₀ᵗ(t − r) dr, taken at the nodes t.
    """

    breaks: Array
    nodes: Array
    weights: Array
    once: Array
    twice: Array


def mesh(breaks: Array) -> Mesh:
    """The mesh with these panel edges, shape (K + 1,), increasing from 0 to 1."""
    c, w, once, twice = panel(breaks.dtype)
    count, h = breaks.shape[0] - 1, jnp.diff(breaks)
    nodes = (breaks[:-1, None] + h[:, None] * c).ravel()
    weights = (h[:, None] * w).ravel()
    index = np.repeat(np.arange(count), NODES)
    same = index[:, None] == index
    earlier = jnp.where(index[:, None] > index, weights, 0.0)
    h = jnp.repeat(h, NODES)[:, None]
    return Mesh(
        breaks,
        nodes,
        weights,
        jnp.where(same, h * jnp.tile(once, (count, count)), earlier),
        jnp.where(
            same, h * h * jnp.tile(twice, (count, count)), earlier * (nodes[:, None] - nodes)
        ),
    )


def uniform(panels: int, dtype: Any) -> Array:
    """The edges of equal panels, shape (panels + 1,)."""
    return jnp.linspace(0.0, 1.0, panels + 1, dtype=dtype)


def edges(breaks: Any, dtype: Any, where: str) -> Array:
    """`breaks` as panel edges: a count of equal panels, or the edges themselves.

    Raises:
      ValueError: for anything but a positive integer or a vector of at least two numbers.
    """
    if isinstance(breaks, int) and breaks >= 1:
        return uniform(breaks, dtype)
    if isinstance(breaks, int) or jnp.ndim(breaks) != 1 or jnp.shape(breaks)[0] < 2:
        raise ValueError(
            f"{where}: panels is {breaks!r}. Wanted a positive integer, or the edges of the panels,"
            " increasing from 0 to 1."
        )
    return jnp.asarray(breaks, dtype)


def locate(breaks: Array, t: Array) -> tuple[Array, Array]:
    """The panel that holds t, and where in it: an index and a number in 0 … 1."""
    passed = (breaks[1:-1] <= t[..., None]).sum(-1)
    index = passed.astype(jnp.int32)
    left, right = breaks[index], breaks[index + 1]
    return index, (t - left) / (right - left)


def interpolated(breaks: Array, values: Array, times: Array) -> Array:
    """The interpolant of nodal values (M, n), panel by panel, at other times (k,): (k, n)."""
    c, others = unit_nodes(NODES)[0], ~np.eye(NODES, dtype=bool)
    gaps = jnp.asarray(np.where(others, c[:, None] - c, 1.0), values.dtype)
    index, s = locate(breaks, times)
    ratios = (s[:, None] - jnp.asarray(c, values.dtype))[:, None, :] / gaps
    rows = jnp.where(others, ratios, 1.0).prod(-1)  # Lagrange's polynomials
    return jnp.einsum("kj,kjn->kn", rows, values.reshape(-1, NODES, values.shape[-1])[index])


def tail(values: Array) -> Array:
    """Per panel, the larger of the last two Legendre coefficients of nodal values (M, n): (K, n).

    About as large as what the nodes do not resolve.
    """
    rows = jnp.asarray(_coefficients()[-2:], values.dtype)
    panels = values.reshape(-1, NODES, values.shape[-1])
    return jnp.abs(jnp.einsum("ck,pkn->pcn", rows, panels)).max(1)


def propagator(rate: Callable[[Array], Array], breaks: Array) -> Array:
    """The P with P(0) = I, Ṗ(t) = A(t)P(t), at t = 1: what a linear equation does to all vectors.

    The panels are solved side by side, each one linear system for Ṗ at its nodes, and multiplied.

    Args:
      rate: t ↦ A(t), shape (n, n), smooth on each panel.
      breaks: shape (K + 1,), from 0 to 1.

    Returns:
      shape (n, n); NaN where a panel might make it wrong by more than ε^¾: measured, it is wrong by
      less than a thousandth of the square of what its nodes do not resolve.
    """
    c, w, once, _ = panel(breaks.dtype)
    eps = float(jnp.finfo(breaks.dtype).eps)
    h = jnp.diff(breaks)

    def across(left, h):
        rates = h * jax.vmap(rate)(left + h * c)  # (N, n, n)
        n = rates.shape[-1]
        size = NODES * n
        # Ṗ_k = A_k (I + Σⱼ B_kj Ṗⱼ)
        coupling = jnp.einsum("kab,kj->kajb", rates, once).reshape(size, size)
        eye = jnp.eye(size, dtype=rates.dtype)
        slopes = jnp.linalg.solve(eye - coupling, rates.reshape(size, n)).reshape(NODES, n, n)
        unresolved = tail(slopes.reshape(NODES, n * n)).max()
        whole = jnp.eye(n, dtype=rates.dtype) + jnp.tensordot(w, slopes, 1)
        resolved = 1e-3 * (unresolved / jnp.abs(whole).max()) ** 2 <= eps**0.75
        return jnp.where(resolved, whole, jnp.nan)

    parts = jax.vmap(across)(breaks[:-1], h)
    start = jnp.eye(parts.shape[-1], dtype=parts.dtype)
    return jax.lax.scan(lambda before, part: (part @ before, None), start, parts)[0]


def integrate(
    field: Callable[[Array, Any], Any], state: Any, times: Array, *, max_steps: int = 4096
) -> Any:
    """ẏ = f(t, y) by diffrax, with steps that adapt: the state at every one of `times`.

    Dormand and Prince's method of order 8, to ε^¾ of the state. Differentiable forwards and
    backwards through its steps.

    Args:
      field: (t, y) ↦ ẏ.
      state: y at times[0], any pytree.
      times: shape (k,), increasing.
      max_steps: steps before giving up.

    Returns:
      a pytree like `state` with a leading axis (k, ...); NaN after the time that was not reached.

    Raises:
      ImportError: without diffrax, which the extra `ode` installs.
    """
    try:
        import diffrax
    except ImportError as error:
        raise ImportError(
            "dualflat.geometry.ode.integrate: adaptive integration needs diffrax, which is not"
            ' installed. Install the extra `ode`: pip install "dualflat[ode]".'
        ) from error
    tolerance = float(jnp.finfo(times.dtype).eps) ** 0.75
    found = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, _: field(jnp.asarray(t), y)),
        diffrax.Dopri8(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=state,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=max_steps,
        throw=False,
    )
    return jax.tree.map(lambda y: jnp.where(jnp.isfinite(y), y, jnp.nan), found.ys)
