"""Geodesics: between two points or from one along a vector, by closed form or by collocation.

∇ and ∇* of a potential have straight geodesics in θ and in η. For any other connection the equation
ẍᵏ + Γᵢⱼᵏẋⁱẋʲ = 0 is solved at the Gauss-Legendre nodes of a few panels of [0, 1]. The unknowns are
the accelerations there, which vanish with the square of the distance: near points keep their
digits. Both directions of time are treated alike, so that d(p, q) = d(q, p) up to rounding.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.tree_util import Partial

from dualflat.geometry import ode
from dualflat.geometry._remainder import dual_quotient, nan_outside
from dualflat.geometry._tree import as_tree, compiled, register
from dualflat.geometry.connection import (
    Connection,
    Metric,
    contract,
    levi_civita,
)
from dualflat.geometry.legendre import to_eta, to_theta
from dualflat.geometry.linalg import quadratic_form
from dualflat.geometry.metric import lower_index, raise_index
from dualflat.geometry.potential import Potential, checked_points
from dualflat.geometry.solve import Status
from dualflat.geometry.transport import Curve, checked_curve

PANELS = 4
MAX_STEPS = 256

# --- where one connection is flat ------------------------------------------------------------


def e_geodesic(psi: Potential, start: Array, end: Array) -> Curve:
    """The ∇-geodesic between two points, straight in θ: t ↦ (1 − t)θ₀ + tθ₁.

    For laws of an exponential family, the geometric mixture pᵗq¹⁻ᵗ, normalised.

    Args:
      psi: the potential, whose dimension is checked.
      start, end: θ coordinates, shape (n,).
    """
    start, end = checked_points(psi, "e_geodesic", start=start, end=end)
    return Partial(_line, start, end)


def m_geodesic(psi: Potential, start: Array, end: Array) -> Curve:
    """The ∇*-geodesic between two points, straight in η, as a curve in θ: t ↦ θ((1 − t)η₀ + tη₁).

    For the categorical family, the mixture of the laws. Each value is a Legendre transform.

    Args:
      psi: the potential.
      start, end: θ coordinates, shape (n,).

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> curve = m_geodesic(Categorical(1), jnp.zeros(1), jnp.log(jnp.array([3.0])))
    >>> to_eta(Categorical(1), curve(0.5)).round(4)  # half way from ½ to ¾
    Array([0.625], dtype=float32)
    """
    start, end = checked_points(psi, "m_geodesic", start=start, end=end)
    return Partial(_dual_line, as_tree(psi), start, end)


def _line(start: Array, end: Array, t: Array) -> Array:
    return jnp.where(t < 0.5, start + t * (end - start), end - (1 - t) * (end - start))


def _dual_line(psi: Potential, start: Array, end: Array, t: Array) -> Array:
    eta = _line(to_eta(psi, start), to_eta(psi, end), t)
    return to_theta(psi, eta, jax.lax.stop_gradient(_line(start, end, t)))


def m_exponential(psi: Potential, theta: Array, vector: Array) -> Array:
    """Where the ∇*-geodesic from θ along a vector v is at t = 1: θ(η + G(θ)v).

    Its e-counterpart is θ + v.

    Args:
      psi: the potential.
      theta, vector: shape (n,), both in θ coordinates.

    Returns:
      shape (n,); NaN where the straight line has left the range of ∇ψ.
    """
    theta, vector = checked_points(psi, "m_exponential", theta=theta, vector=vector)
    return to_theta(psi, to_eta(psi, theta) + lower_index(psi, theta, vector), theta)


def m_logarithm(psi: Potential, base: Array, theta: Array) -> Array:
    """The vector v at the base along which the ∇*-geodesic reaches θ: G(base)⁻¹(η(θ) − η(base)).

    Its e-counterpart is θ − base.

    The difference of η is ∫₀¹ ∇²ψ(base + tΔ)Δ dt, taken so where the points are near and the
    difference itself would be rounding.

    Args:
      psi: the potential.
      base, theta: shape (n,).

    Returns:
      shape (n,), in θ components.
    """
    base, theta = checked_points(psi, "m_logarithm", base=base, theta=theta)
    moved = dual_quotient(as_tree(psi), base, theta, theta - base)
    return raise_index(psi, base, moved * nan_outside(psi, base, theta))


# --- a geodesic ------------------------------------------------------------------------------


@register
@dataclasses.dataclass(frozen=True)
class Geodesic:
    """A solved geodesic: a curve t ↦ x on [0, 1], and whether to believe it.

    Everything is NaN wherever `status` is not CONVERGED. Inside `jit` the fields are the report; on
    the host, `checked()` turns it into an error.

    Attributes:
      breaks: edges of the panels, shape (K + 1,).
      positions, velocities: at the left edge of each panel, shape (K, n).
      accelerations: at the nodes of each panel, shape (K, 12, n).
      status: shape (), int32, a `Status`.
      steps: shape (), int32, Newton steps taken.
    """

    breaks: Array
    positions: Array
    velocities: Array
    accelerations: Array
    status: Array
    steps: Array

    def __call__(self, t: Array | float) -> Array:
        """The point at time t, shape (n,); NaN outside [0, 1]."""
        panel, h, (_, _, twice) = self._at(t)
        moved = (t - self.breaks[panel]) * self.velocities[panel] + h * h * (
            twice @ self.accelerations[panel]
        )
        return self.positions[panel] + moved

    def velocity(self, t: Array | float) -> Array:
        """The derivative at time t, shape (n,)."""
        panel, h, (_, once, _) = self._at(t)
        return self.velocities[panel] + h * (once @ self.accelerations[panel])

    def at_nodes(self) -> tuple[Array, Array, Array]:
        """Quadrature weights (M,), and points and velocities (M, n) at the nodes of all panels."""
        c, w, once, twice = ode.panel(self.breaks.dtype)
        h = jnp.diff(self.breaks)[:, None, None]
        v, a = self.velocities[:, None], self.accelerations
        x = self.positions[:, None] + h * c[:, None] * v + h * h * (twice @ a)
        flat = (-1, x.shape[-1])
        return (h[:, 0] * w).ravel(), x.reshape(flat), (v + h * (once @ a)).reshape(flat)

    def checked(self) -> "Geodesic":
        """Return the geodesic, or say on the host what went wrong and where.

        Raises:
          RuntimeError: if any geodesic of the batch was not found.
          TypeError: inside `jit`, where there is no value to look at yet.
        """
        if isinstance(self.status, Tracer):
            raise TypeError(
                "Geodesic.checked() reads values, which do not exist inside jit or vmap. There,"
                " read `status` (NaN says the same), and call checked() outside."
            )
        status = np.asarray(self.status)
        failed = np.argwhere(status != Status.CONVERGED)
        if len(failed):
            first = tuple(int(i) for i in failed[0])
            count = f" in {len(failed)} of {status.size}, first at {first}" if status.ndim else ""
            raise RuntimeError(
                f"geodesic ended {Status(int(status[first])).name} after"
                f" {int(np.asarray(self.steps)[first])} steps{count}:"
                f" {_ADVICE[Status(int(status[first]))]}"
            )
        return self

    def _at(self, t: Array | float) -> tuple[Array, Array, Any]:
        t = jnp.asarray(t, self.breaks.dtype)
        t = jnp.where((t >= 0) & (t <= 1), t, jnp.nan)
        panel, s = ode.locate(self.breaks, t)
        return panel, self.breaks[panel + 1] - self.breaks[panel], ode.basis(s)


_UNRESOLVED = (
    "there may be no such geodesic, or it is too far for the panels to resolve. Give more `panels`,"
    " another chart (`change_chart`), or a point between."
)
_ADVICE = {
    Status.MAX_STEPS: _UNRESOLVED,
    Status.STALLED: _UNRESOLVED,
    Status.NONFINITE: "the connection is not finite on the straight line in this chart between the"
    " points, or along the vector: one of them is outside the domain, or the metric is not definite.",
}


def geodesic(connection: Connection, start: Array, end: Array, *, panels: int = PANELS) -> Geodesic:
    """The geodesic of any connection between two points, ẍᵏ + Γᵢⱼᵏẋⁱẋʲ = 0.

    Found by damped Newton on its accelerations, from the straight line in the chart. Where that
    fails, Γ is turned on by degrees, and the panels move to where the path bends. Differentiable
    in both points and in what the connection holds, at every order, by the equation that it solves.

    Args:
      connection: x ↦ Γᵢⱼᵏ, shape (n, n, n).
      start, end: shape (n,). Between them the chart must be convex.
      panels: panels of 12 nodes. Cost grows with the cube of panels · n, reach with panels.

    Returns:
      a `Geodesic`; NaN, with a status, where none was found or the panels do not resolve it to √ε.

    >>> from dualflat.geometry.connection import alpha_connection
    >>> from dualflat.geometry.families.categorical import Categorical
    >>> curve = geodesic(alpha_connection(Categorical(1), 0.0), jnp.zeros(1), jnp.ones(1))
    >>> p = jax.nn.sigmoid(curve.checked()(0.5))
    >>> print(f"{p[0]:.4f}")  # sin² of the mean of arcsin √p at the ends
    0.6189
    """
    start, end = checked_points(connection, "geodesic", start=start, end=end)
    ode.edges(panels, start.dtype, "geodesic")
    return _between_compiled(panels, _as_spray(connection, start), start, end)


def geodesic_from(
    connection: Connection, start: Array, velocity: Array, *, panels: int = PANELS
) -> Geodesic:
    """The geodesic of any connection that leaves a point along a vector.

    One panel after the other, each solved as in `geodesic`. For very long ones see
    `geodesic_path`, whose steps adapt.

    Args:
      connection: x ↦ Γᵢⱼᵏ.
      start, velocity: shape (n,).
      panels: equal panels of 12 nodes.

    Returns:
      a `Geodesic`; NaN, with a status, where it leaves the chart or is not resolved.
    """
    start, velocity = checked_points(connection, "geodesic_from", start=start, velocity=velocity)
    ode.edges(panels, start.dtype, "geodesic_from")
    return _from_compiled(panels, _as_spray(connection, start), start, velocity)


def exponential(
    connection: Connection, base: Array, vector: Array, *, panels: int = PANELS
) -> Array:
    """exp: where the geodesic from the base along a vector is at t = 1. Shape (n,).

    Args, and NaN, as in `geodesic_from`.
    """
    return geodesic_from(connection, base, vector, panels=panels)(1.0)


def logarithm(connection: Connection, base: Array, x: Array, *, panels: int = PANELS) -> Array:
    """log: the vector at the base along which the geodesic reaches x at t = 1. Shape (n,).

    Relatively accurate for near points: it is x − base and a correction of second order.
    Args, and NaN, as in `geodesic`.
    """
    return geodesic(connection, base, x, panels=panels).velocities[0]


def midpoint(connection: Connection, start: Array, end: Array, *, panels: int = PANELS) -> Array:
    """The point of the geodesic at t = ½. Shape (n,). Args, and NaN, as in `geodesic`."""
    return geodesic(connection, start, end, panels=panels)(0.5)


# --- lengths ---------------------------------------------------------------------------------


def length(metric: Metric, curve: Curve, *, panels: int | Array = 8) -> Array:
    """∫₀¹ √g(ẋ, ẋ) dt, the length of a curve, by 12 Gauss-Legendre nodes a panel.

    Args:
      metric: x ↦ (n, n).
      curve: t ↦ x on [0, 1]; a `Geodesic` brings its own panels.
      panels: how many equal panels, or their edges.

    Returns:
      shape (); the derivative is 0 where the curve does not move.
    """
    weights, squares = _squared_speeds(metric, curve, panels, "length")
    still = squares == 0
    return weights @ jnp.where(still, 0.0, jnp.sqrt(jnp.where(still, 1.0, squares)))


def energy(metric: Metric, curve: Curve, *, panels: int | Array = 8) -> Array:
    """½∫₀¹ g(ẋ, ẋ) dt. For a geodesic of the metric, half its length squared. Args as `length`."""
    weights, squares = _squared_speeds(metric, curve, panels, "energy")
    return weights @ squares / 2


def distance(metric: Metric, p: Array, q: Array, *, panels: int = PANELS) -> Array:
    """The length of the Levi-Civita geodesic between two points: Rao's distance, if g is Fisher's.

    Symmetric to the last bit, and relatively accurate for near points. It is the length of the
    geodesic that bends continuously out of the straight line in the chart; where there are several,
    as on a sphere, that need not be the shortest.

    Args:
      metric: x ↦ (n, n).
      p, q: shape (n,).
      panels: as in `geodesic`.

    Returns:
      shape (); NaN where no geodesic was found. At p = q it is 0 with gradient 0;
      `squared_distance` is smooth there.

    >>> normal = lambda x: jnp.diag(jnp.array([1.0, 2.0])) / x[1] ** 2  # (dμ² + 2dσ²)/σ²
    >>> d = distance(normal, jnp.array([0.0, 1.0]), jnp.array([1.0, 1.0]))
    >>> print(f"{d:.4f}")  # √2 arcosh(1 + ¼)
    0.9803
    """
    return length(metric, geodesic(levi_civita(metric), *_ordered(p, q), panels=panels))


def squared_distance(metric: Metric, p: Array, q: Array, *, panels: int = PANELS) -> Array:
    """d(p, q)², smooth also at p = q, where its Hessian in q is 2G. Args as in `distance`."""
    return 2 * energy(metric, geodesic(levi_civita(metric), *_ordered(p, q), panels=panels))


def _ordered(p: Array, q: Array) -> tuple[Array, Array]:
    """The two points, the lexicographically smaller first: then d(p, q) and d(q, p) are one search."""
    p, q = checked_points(jnp.zeros_like, "distance", p=p, q=q)
    differs = p != q
    first = jnp.argmax(differs)
    swap = p[first] > q[first]
    return jnp.where(swap, q, p), jnp.where(swap, p, q)


def _squared_speeds(
    metric: Metric, curve: Curve, panels: int | Array, where: str
) -> tuple[Array, Array]:
    """Weights and g(ẋ, ẋ) at the nodes: (M,) and (M,)."""
    if isinstance(curve, Geodesic):
        return _speeds_at(as_tree(metric), *curve.at_nodes())
    breaks = ode.edges(panels, checked_curve(curve, where).dtype, where)
    return _speeds_along(as_tree(metric), as_tree(curve), breaks)


@compiled
def _speeds_at(metric: Metric, weights: Array, x: Array, v: Array) -> tuple[Array, Array]:
    return weights, jax.vmap(lambda x, v: quadratic_form(metric(x), v))(x, v)


@compiled
def _speeds_along(metric: Metric, curve: Curve, breaks: Array) -> tuple[Array, Array]:
    mesh = ode.mesh(breaks)
    x, v = jax.vmap(lambda t: jax.jvp(curve, (t,), (jnp.ones_like(t),)))(mesh.nodes)
    return _speeds_at(metric, mesh.weights, x, v)


# --- with steps that adapt -------------------------------------------------------------------


def geodesic_path(
    connection: Connection, start: Array, velocity: Array, times: Array, *, max_steps: int = 4096
) -> tuple[Array, Array]:
    """The geodesic from a point along a vector at many times, by diffrax with steps that adapt.

    For geodesics longer than a few panels can hold.

    Args:
      connection: x ↦ Γᵢⱼᵏ.
      start, velocity: shape (n,), at times[0].
      times: shape (k,), increasing.
      max_steps: steps before giving up.

    Returns:
      positions and velocities, shape (k, n) each; NaN after the time that was not reached.

    Raises:
      ImportError: without the extra `ode`.
    """
    start, velocity = checked_points(connection, "geodesic_path", start=start, velocity=velocity)

    def field(_: Array, state: Any) -> Any:
        x, v = state
        return v, -contract(connection, x, v, v)

    times = jnp.asarray(times, start.dtype)
    return ode.integrate(field, (start, velocity), times, max_steps=max_steps)


# --- how it is found -------------------------------------------------------------------------
# The unknowns are the accelerations a at the M nodes. Position and velocity there are
#
#     x = x₀ + t u + A a,    ẋ = u + B a,
#
# with A and B the integrals of the interpolant of a: from x₀ with velocity u ("start"), or taken so
# that x(1) = x₀ + u ("end"). The equation is a + λΓ(x)(ẋ, ẋ) = 0 at λ = 1.

Spray = Callable[[Array, Array], Array]  # (x, v) ↦ Γᵢⱼᵏvⁱvʲ, a pytree


def _as_spray(connection: Connection, x: Array) -> Spray:
    """The connection as a pytree; what a plain function closes over becomes leaves, as ψ's does."""
    tree = as_tree(connection)
    convert: Any = jax.closure_convert  # its stub wants concrete example types
    pure, hidden = convert(_spray, tree, x, x)
    if not hidden:
        return Partial(_spray, tree)
    return Partial(_with_hidden(pure), list(hidden), tree)


def _spray(connection: Connection, x: Array, v: Array) -> Array:
    return contract(connection, x, v, v).astype(x.dtype)


def _with_hidden(pure: Callable[..., Array]) -> Callable[..., Array]:
    return lambda hidden, tree, x, v: pure(tree, x, v, *hidden)


def _integrals(mesh: ode.Mesh, kind: str) -> tuple[Array, Array]:
    """B and A, (M, M) each."""
    if kind == "start":
        return mesh.once, mesh.twice
    back = (1 - mesh.nodes) * mesh.weights
    return mesh.once - back, mesh.twice - mesh.nodes[:, None] * back


def _path(mesh: ode.Mesh, kind: str, start: Array, slope: Array, a: Array) -> tuple[Array, Array]:
    """x and ẋ at the nodes, (M, n) each."""
    once, twice = _integrals(mesh, kind)
    return start + mesh.nodes[:, None] * slope + twice @ a, slope + once @ a


def _system(mesh: ode.Mesh, kind: str, by_x: Array, by_v: Array) -> Array:
    """I + ∂Γ(x)(ẋ, ẋ)/∂a, shape (Mn, Mn), from the two derivatives at the nodes, (M, n, n)."""
    once, twice = _integrals(mesh, kind)
    m, n, _ = by_x.shape
    blocks = by_x[:, :, None, :] * twice[:, None, :, None]
    blocks = blocks + by_v[:, :, None, :] * once[:, None, :, None]
    return jnp.eye(m * n, dtype=by_x.dtype) + blocks.reshape(m * n, m * n)


def _approximate_slopes(spray: Spray, x: Array, v: Array) -> tuple[Array, Array, Array]:
    """Γ(x)(v, v) and its derivatives by x and by v, these by differences.

    Newton's steps need no better, and a derivative of Γ, the fourth of a potential, would be most
    of what there is to compile. The derivatives of the solution do not pass through here.
    """
    n, dtype = x.shape[0], x.dtype
    size = jnp.abs(x) + jnp.abs(v)
    h = float(jnp.finfo(dtype).eps) ** 0.5 * jnp.where(size > 0, size, 1.0)
    moves = jnp.concatenate([jnp.zeros((1, 2 * n), dtype), jnp.diag(jnp.tile(h, 2))])
    values = jax.vmap(lambda move: spray(x + move[:n], v + move[n:]))(moves)
    slopes = (values[1:] - values[0]).T / jnp.tile(h, 2)
    return values[0], slopes[:, :n], slopes[:, n:]


class _Search(NamedTuple):
    breaks: Array  # of the trial
    goal: Array  # λ of the trial
    trial: Array  # a, (M, n)
    residual: Array  # its norm, ∞ where the trial has not been looked at yet
    step: Array  # from the trial, (M, n)
    damping: Array
    solved: tuple[Array, Array, Array]  # breaks, a and λ of what has been found
    jump: Array  # how far λ goes next
    unresolved: Array  # of what has been found
    steps: Array
    status: Array  # −1 while running


def _collocate(
    kind: str, panels: int, spray: Spray, start: Array, slope: Array
) -> tuple[Array, Array, Array, Array]:
    """Breaks, accelerations (M, n; NaN unless converged), status and steps."""
    n, dtype = start.shape[0], start.dtype
    eps = float(jnp.finfo(dtype).eps)

    def small(step, a):
        size = jnp.abs(slope) + jnp.abs(a).max(0)
        return (jnp.abs(step).max(0) <= eps**0.75 * (size + eps**0.5 * size.max())).all()

    def look(s: _Search) -> _Search:
        mesh, fresh = ode.mesh(s.breaks), s.residual == jnp.inf
        a = s.trial + s.damping * s.step
        x, v = _path(mesh, kind, start, slope, a)
        bend, by_x, by_v = jax.vmap(lambda x, v: _approximate_slopes(spray, x, v))(x, v)
        system = _system(mesh, kind, s.goal * by_x, s.goal * by_v)
        residual = a + s.goal * bend
        step = -jnp.linalg.solve(system, residual.ravel()).reshape(a.shape)
        finite, size = jnp.isfinite(step).all(), _norm(residual)
        shorter = size <= (1 - s.damping / 4) * s.residual
        stuck = ~fresh & ~shorter & (_norm(s.step) <= eps**0.5 * (_norm(slope) + _norm(a)))
        done = finite & (small(step, a) | stuck)  # stuck: there is only rounding left
        good = finite & (shorter | done)
        lost = ~good & (fresh | (s.damping < 0.2))

        found = a + step
        wrong = _unresolved(mesh, slope, x - start, found)  # per panel
        unresolved = wrong.max()
        whole = done & (s.goal == 1)
        settled = (unresolved <= eps**0.75) | (unresolved > 0.5 * s.unresolved)
        jump = jnp.where(done, 2.0, jnp.where(lost, 0.25, 1.0)) * s.jump
        status = jnp.where(unresolved <= eps**0.5, Status.CONVERGED, Status.STALLED)
        status = jnp.where(whole & settled, status, -1)
        status = jnp.where(jump < 1e-3, Status.STALLED, status)
        impossible = (s.steps == 0) & ~jnp.isfinite(bend).all()
        status = jnp.where(impossible, Status.NONFINITE, status)

        finer = _finer(s.breaks, wrong)
        moved = ode.interpolated(s.breaks, found, ode.mesh(finer).nodes)
        found = _chosen(whole & settled, (s.breaks, found), (finer, moved))
        solved = _chosen(done, (*found, s.goal), s.solved)
        restart = done | lost
        onward = _chosen(
            good,
            (a, size, step, jnp.minimum(1.0, 2 * s.damping)),
            (s.trial, s.residual, s.step, s.damping / 2),
        )
        afresh = solved[1], jnp.inf, 0.0, 1.0
        trial, residual, step, damping = _chosen(restart, afresh, onward)
        return _Search(
            breaks=jnp.where(restart, solved[0], s.breaks),
            goal=jnp.where(restart, jnp.minimum(1.0, solved[2] + jump), s.goal),
            trial=trial,
            residual=residual,
            step=step,
            damping=damping,
            solved=solved,
            jump=jump,
            unresolved=jnp.where(whole, unresolved, s.unresolved),
            steps=s.steps + 1,
            status=status.astype(jnp.int32),
        )

    one, zero = jnp.ones((), dtype), jnp.zeros((panels * ode.NODES, n), dtype)
    even = ode.uniform(panels, dtype)
    found = jax.lax.while_loop(
        lambda s: (s.status < 0) & (s.steps < MAX_STEPS),
        look,
        _Search(
            breaks=even,
            goal=one,
            trial=zero,
            residual=jnp.inf * one,
            step=zero,
            damping=one,
            solved=(even, zero, 0 * one),
            jump=one,
            unresolved=jnp.inf * one,
            steps=jnp.int32(0),
            status=jnp.int32(-1),
        ),
    )
    status = jnp.where(found.status < 0, Status.MAX_STEPS, found.status).astype(jnp.int32)
    breaks, a, _ = found.solved
    return breaks, jnp.where(status == Status.CONVERGED, a, jnp.nan), status, found.steps


def _norm(x: Array) -> Array:
    return jnp.sqrt((x * x).sum())


def _chosen(where: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(where, a, b), yes, no)


def _unresolved(mesh: ode.Mesh, slope: Array, moved: Array, a: Array) -> Array:
    """Per panel, how wrong the path may be between the nodes, relative to its extent: (K,)."""
    h = jnp.diff(mesh.breaks)[:, None]
    size = jnp.abs(moved).max(0) + jnp.abs(slope)
    size = size + 1e-3 * size.max()
    # The last coefficient, integrated twice, is divided by 4 · NODES².
    error = h * h * ode.tail(a) / (4 * ode.NODES**2)
    return (error / jnp.where(size > 0, size, 1.0)).max(1)


def _finer(breaks: Array, wrong: Array) -> Array:
    """Panels that would all be wrong by as much, if the error is a 12th power of their width."""
    wrong = jnp.maximum(wrong, 1e-6 * wrong.max())
    share = jnp.cumsum(jnp.where(wrong > 0, wrong, 1.0) ** (1 / ode.NODES))
    share = jnp.concatenate([jnp.zeros(1, breaks.dtype), share / share[-1]])
    panel, s = ode.locate(share, ode.uniform(len(breaks) - 1, breaks.dtype))
    return breaks[panel] + s * (breaks[panel + 1] - breaks[panel])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _accelerations(kind: str, panels: int, spray: Spray, start: Array, slope: Array):
    return _collocate(kind, panels, spray, start, slope)


@_accelerations.defjvp
def _accelerations_jvp(kind, panels, primals, tangents):
    spray, start, slope = primals
    breaks, a, status, steps = _accelerations(kind, panels, *primals)
    mesh = ode.mesh(breaks)
    x, v = _path(mesh, kind, start, slope, a)
    by_x, by_v = jax.vmap(jax.jacfwd(spray, argnums=(0, 1)))(x, v)
    # a + Γ(x)(ẋ, ẋ) = 0 holds on any mesh, so the mesh stands still: Fₐȧ = −Ḟ, where at fixed a
    # only x₀, u and what Γ holds move.
    spray_dot, start_dot, slope_dot = tangents
    x_dot = start_dot + mesh.nodes[:, None] * slope_dot
    drift = jnp.einsum("kij,kj->ki", by_x, x_dot) + by_v @ slope_dot
    if jax.tree.leaves(spray):
        drift = drift + jax.jvp(lambda s: jax.vmap(s)(x, v), (spray,), (spray_dot,))[1]
    a_dot = -jnp.linalg.solve(_system(mesh, kind, by_x, by_v), drift.ravel()).reshape(a.shape)
    still = jax.custom_derivatives.zero_from_primal((status, steps))
    return (breaks, a, status, steps), (jnp.zeros_like(breaks), a_dot, *still)


def _between(panels: int, spray: Spray, start: Array, end: Array) -> Geodesic:
    slope = end - start
    breaks, a, status, steps = _accelerations("end", panels, spray, start, slope)
    return _curve(breaks, a, start, slope, status, steps)


def _curve(
    breaks: Array, a: Array, start: Array, slope: Array, status: Array, steps: Array
) -> Geodesic:
    """From `start` to start + slope with the accelerations a (M, n) at the nodes."""
    mesh, left = ode.mesh(breaks), breaks[:-1, None]
    ahead = jnp.where(mesh.nodes < left, mesh.weights, 0.0)  # (K, M): what is left of the edge
    back = (1 - mesh.nodes) * mesh.weights
    return Geodesic(
        breaks,
        start + left * slope + (ahead * (left - mesh.nodes) - left * back) @ a,
        slope + (ahead - back) @ a,
        a.reshape(len(breaks) - 1, ode.NODES, -1),
        status,
        steps,
    )


def _from(panels: int, spray: Spray, start: Array, velocity: Array) -> Geodesic:
    h = 1 / panels
    breaks = ode.uniform(panels, start.dtype)
    mesh = ode.mesh(ode.uniform(1, start.dtype))

    def panel(carry, _):
        x, v = carry
        _, a, status, steps = _accelerations("start", 1, spray, x, h * v)
        ahead = x + h * v + ((1 - mesh.nodes) * mesh.weights) @ a, v + mesh.weights @ a / h
        return ahead, (x, v, a / h**2, status, steps)

    _, (x, v, a, status, steps) = jax.lax.scan(panel, (start, velocity), None, panels)
    first = status[jnp.argmax(status != Status.CONVERGED)]  # later panels only inherit its NaN
    return Geodesic(breaks, x, v, a, first, steps.sum())


_between_compiled = compiled(_between, static=(0,))
_from_compiled = compiled(_from, static=(0,))
