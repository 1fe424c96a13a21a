"""Affine coordinates along straight rays of a chart: one linear equation, and its derivatives.

Everything is integrated for several connections at once, with the coframe the identity where the
ray begins. With v_c the affine coordinates of connection c, P_c = ∂v_c/∂x and c′ the other of a
pair (of one alone, itself),

    v̇_c = P_c ẋ,    Ṗ_c = P_c Mᵀ  with  M[j, k] = Γᵢⱼᵏẋⁱ,    Ṡ_c = v_c′ ⊗ v̇_c.

θ, η, ψ and φ are linear in v, P and S, so that frames, values and the metric at the origin stay
outside. And ψ is the divergence from the origin, ∫ (η − η₀)·dθ, which no cancellation touches: it
is gₐᵦSᵃᵇ with the metric at the origin. That sum is the same along any path; S alone is not.

A connection comes here as `turning`, a pytree (x, u) ↦ M.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.tree_util import Partial

from dualflat.geometry import _numerics, linalg
from dualflat.geometry._tree import as_tree, compiled
from dualflat.geometry.connection import Connection, contract
from dualflat.geometry.solve import Status

NODES = 12  # of a panel: Gauss-Legendre collocation, of order 24 at the panel's end
MAX_PANELS = 128


class Ray(NamedTuple):
    """What has been integrated on the way from an origin to x; NaN unless CONVERGED."""

    x: Array  # (n,)
    value: Array  # (c, n), v
    frame: Array  # (c, n, n), P[c, a, j] = ∂vᵃ/∂xʲ
    moment: Array  # (c, n, n), S[c, a, b] = ∫ vᵃ of the other, dvᵇ of this
    status: Array  # (), a Status
    steps: Array  # ()


def _turning(connection: Connection, x: Array, u: Array) -> Array:
    """M[j, k] = Γᵢⱼᵏuⁱ, shape (n, n), in the dtype of x."""
    basis = jnp.eye(x.shape[0], dtype=x.dtype)
    return jax.vmap(lambda v: contract(connection, x, u, v))(basis).astype(x.dtype)


def as_turning(connection: Connection, x: Array) -> Partial:
    """(x, u) ↦ M as a pytree; what a plain function closes over becomes leaves, as ψ's does."""
    tree = as_tree(connection)
    convert: Any = jax.closure_convert  # its stub wants concrete example types
    pure, hidden = convert(_turning, tree, x, x)
    if not hidden:
        return Partial(_turning, tree)
    return Partial(_with_hidden(pure), list(hidden), tree)


def _with_hidden(pure: Callable[..., Array]) -> Callable[..., Array]:
    return lambda hidden, tree, x, u: pure(tree, x, u, *hidden)


@functools.cache
def _collocation() -> np.ndarray:
    """A[s, r] = ∫ from 0 to node s of the r-th Lagrange polynomial: Gauss's Runge-Kutta matrix."""
    t, _ = _numerics.unit_nodes(NODES)
    orders = np.arange(NODES)
    coefficients = _numerics.legendre_tail(NODES, NODES) * np.sqrt(2 * orders + 1)[:, None]
    legendre = np.polynomial.legendre.legvander(2 * t - 1, NODES)
    # ∫ P_k = (P_{k+1} − P_{k−1}) / (2k + 1) on [−1, ·], and P_{−1} = −1 makes it right for k = 0.
    below = np.concatenate([-np.ones((NODES, 1)), legendre[:, :-2]], axis=1)
    return (legendre[:, 1:] - below) / (2 * (2 * orders + 1)) @ coefficients


class _Panel(NamedTuple):
    value: Array  # v, P and S over the panel, as in a ray
    frame: Array
    moment: Array
    decay: Array  # (), how large the last Legendre coefficients are; ∞ if P was not found
    finite: Array  # (), is Γ finite at every node?


def _panel(turns, x: Array, d: Array, units: Array) -> _Panel:
    """v, P and S over the panel from x to x + d.

    P is found by collocation, P_s = I + Σᵣ Aₛᵣ Pᵣ Mᵣᵀ, and that by iteration: for an integral
    equation of this kind the k-th step is of size |M|ᵏ/k!. Matrix products, and no large system.
    """
    n, dtype = x.shape[0], x.dtype
    t, w = (jnp.asarray(a, dtype) for a in _numerics.unit_nodes(NODES))
    a = jnp.asarray(_collocation(), dtype)
    nodes = x + t[:, None] * d
    turning = jnp.stack([jax.vmap(lambda y, f=f: f(y, d))(nodes) for f in turns])  # [c, s, j, k]
    turned = turning.swapaxes(-1, -2)
    eye = jnp.broadcast_to(jnp.eye(n, dtype=dtype), turning.shape)

    def improve(_, pair):
        frames, _ = pair
        return eye + jnp.einsum("sr,craj->csaj", a, frames @ turned), frames

    count = 24 if dtype == jnp.float64 else 14
    frames, before = jax.lax.fori_loop(0, count, improve, (eye, eye))
    rates = frames @ turned
    speeds = frames @ d  # [c, s, a]
    value = jnp.einsum("s,csa->ca", w, speeds)
    frame = eye[:, 0] + jnp.einsum("s,csaj->caj", w, rates)
    moment = jnp.einsum("s,csa,csb->cab", w, jnp.einsum("sr,cra->csa", a, speeds)[::-1], speeds)

    tail = jnp.asarray(_numerics.legendre_tail(NODES), dtype)
    ratio = units[:, None] / units
    size = jnp.maximum(1.0, jnp.abs(frames * ratio).max())
    decay = jnp.abs(jnp.einsum("ls,csaj->lcaj", tail, rates) * ratio).max() / size
    speed = jnp.abs(speeds * units).max()
    speed_decay = jnp.abs(jnp.einsum("ls,csa->lca", tail, speeds) * units).max()
    decay = decay + speed_decay / jnp.where(speed > 0, speed, 1.0)
    found = jnp.abs((frames - before) * ratio).max() <= 8 * n * jnp.finfo(dtype).eps * size
    return _Panel(
        value, frame, moment, jnp.where(found, decay, jnp.inf), jnp.isfinite(turning).all()
    )


def _joined(ray: Ray, panel: _Panel) -> Ray:
    """The ray continued by a panel, whose own coframe began as the identity. x is not moved."""
    step = jnp.einsum("cab,cb->ca", ray.frame, panel.value)
    turned = ray.frame[::-1] @ panel.moment @ ray.frame.swapaxes(1, 2)
    return ray._replace(
        value=ray.value + step,
        frame=ray.frame @ panel.frame,
        moment=ray.moment + ray.value[::-1, :, None] * step[:, None, :] + turned,
    )


def _start(turns, origin: Array) -> Ray:
    c, n = len(turns), origin.shape[0]
    zero = jnp.zeros((), jnp.int32)
    still = jnp.zeros((c, n, n), origin.dtype)
    eye = jnp.broadcast_to(jnp.eye(n, dtype=origin.dtype), still.shape)
    return Ray(origin, still[:, 0], eye, still, zero, zero)


class _Walk(NamedTuple):
    ray: Ray
    t: Array  # how far along the segment
    h: Array  # the panel to be tried next
    lengths: Array  # (MAX_PANELS,), 0 where a panel was refused


def _follow(turns, ray: Ray, x: Array, units: Array) -> tuple[Ray, Array]:
    """The ray continued along the straight segment to x, by panels as long as resolution allows.

    If a panel's Legendre coefficients fall like ρ^-k, its end is wrong by about ρ^-2·8, the square
    of the last over the first. Γ not finite at a node means that the segment has left the chart.
    Also the lengths of the panels, fractions of the segment.
    """
    enough = 0.3 * float(jnp.finfo(x.dtype).eps) ** 0.5
    begin, delta = ray.x, x - ray.x

    def body(walk: _Walk) -> _Walk:
        ray, t, h, lengths = walk
        last = h >= 1 - t
        h = jnp.where(last, 1 - t, h)
        panel = _panel(turns, begin + t * delta, h * delta, units)
        good = panel.finite & (panel.decay <= enough)
        there = jnp.where(last, 1.0, t + h)
        joined = _joined(ray, panel)._replace(x=jnp.where(last, x, begin + there * delta))
        ray = jax.tree_util.tree_map(lambda new, old: jnp.where(good, new, old), joined, ray)
        status = jnp.where(good & last, Status.CONVERGED, -1)
        status = jnp.where(panel.finite, status, Status.NONFINITE).astype(jnp.int32)
        factor = 0.9 * (enough / jnp.maximum(panel.decay, enough / 1e6)) ** (1 / (NODES - 2))
        return _Walk(
            ray._replace(status=status, steps=ray.steps + 1),
            jnp.where(good, there, t),
            h * jnp.clip(factor, 0.25, 4.0),
            lengths.at[ray.steps].set(jnp.where(good, h, 0.0)),
        )

    zero = jnp.zeros((), x.dtype)
    begun = ray._replace(status=jnp.full((), -1, jnp.int32), steps=jnp.zeros((), jnp.int32))
    start = _Walk(begun, zero, zero + 1, jnp.zeros(MAX_PANELS, x.dtype))
    walk = jax.lax.while_loop(
        lambda s: (s.ray.status < 0) & (s.ray.steps < MAX_PANELS), body, start
    )
    status = jnp.where(walk.ray.status < 0, Status.MAX_STEPS, walk.ray.status).astype(jnp.int32)
    return walk.ray._replace(status=status), walk.lengths


def _nan_unless_converged(ray: Ray) -> Ray:
    good = ray.status == Status.CONVERGED
    kept = {name: jnp.where(good, getattr(ray, name), jnp.nan) for name in Ray._fields[:4]}
    return ray._replace(**kept)


@jax.custom_jvp
def _along(turns, origin: Array, x: Array, units: Array) -> Ray:
    """v, P and S at x, along the straight ray from the origin. NaN where the ray is not resolved.

    Derivatives are not those of the solver but the true ones of a flat connection,

        dv = P dx,    dPᵃⱼ = ΓᵢⱼᵏPᵃₖdxⁱ,    dS = v ⊗ dv (up to what gₐᵦSᵃᵇ does not see),

    which are made of v, P and Γ(x) and so hold at every order. Moving the origin is another affine
    map of the result. Only parameters of Γ need the solver's derivatives, on the panels that it
    chose.
    """
    return _nan_unless_converged(_follow(turns, _start(turns, origin), x, units)[0])


along = compiled(_along)


def _along_jvp(primals, tangents):
    turns, origin, x, units = primals
    turns_dot, origin_dot, x_dot, _ = tangents  # units only steer
    ray = _along(turns, origin, x, units)
    parts = [_by_parameters(turns, turns_dot, origin, x, units)]
    if not isinstance(x_dot, SymbolicZero):
        parts.append(_by_point(turns, ray, x_dot))
    if not isinstance(origin_dot, SymbolicZero):
        parts.append(_by_origin(turns, ray, origin, origin_dot))
    return ray, _tangent(ray, parts)


_along.defjvp(_along_jvp, symbolic_zeros=True)


def _tangent(ray: Ray, parts: list[dict[str, Array]]) -> Ray:
    """The sum of parts of a tangent, each naming the fields that it moves."""
    moved = {
        name: sum(
            (part[name] for part in parts if name in part), jnp.zeros_like(getattr(ray, name))
        )
        for name in Ray._fields[:4]
    }
    still = jax.custom_derivatives.zero_from_primal((ray.status, ray.steps))
    return Ray(*moved.values(), *still)


def _by_point(turns, ray: Ray, x_dot: Array, value_dot: Array | None = None) -> dict[str, Array]:
    """How a ray changes with its end; value_dot is Pẋ where the caller knows it better."""
    turning = jnp.stack([turn(ray.x, x_dot) for turn in turns])
    value_dot = ray.frame @ x_dot if value_dot is None else value_dot
    return {
        "x": x_dot,
        "value": value_dot,
        "frame": ray.frame @ turning.swapaxes(1, 2),
        "moment": ray.value[::-1, :, None] * value_dot[:, None, :],
    }


def _by_origin(turns, ray: Ray, origin: Array, origin_dot: Array) -> dict[str, Array]:
    """How a ray changes with its origin, where P must stay the identity: v ↦ v − Cv − ȯ."""
    c = jnp.stack([turn(origin, origin_dot) for turn in turns]).swapaxes(1, 2)
    return {
        "value": -jnp.einsum("cab,cb->ca", c, ray.value) - origin_dot,
        "frame": -c @ ray.frame,
        "moment": -c[::-1] @ ray.moment
        - ray.moment @ c.swapaxes(1, 2)
        - origin_dot[:, None] * ray.value[:, None, :],
    }


def _by_parameters(turns, turns_dot, origin: Array, x: Array, units: Array) -> dict[str, Array]:
    """How a ray changes with the parameters of Γ; nothing is computed where none of them moves."""
    leaves, tree = jax.tree_util.tree_flatten(
        turns_dot, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero)
    )
    if all(isinstance(leaf, SymbolicZero) for leaf in leaves):
        return {}
    still = jax.lax.stop_gradient((turns, origin, x, units))
    _, lengths = _follow(still[0], _start(turns, still[1]), *still[2:])

    def on_panels(turns):
        def step(carry, h):
            ray, t = carry
            panel = _panel(turns, origin + t * delta, h * delta, units)
            return (_joined(ray, panel), t + h), None

        delta = x - origin
        begun = _start(turns, origin), jnp.zeros((), x.dtype)
        (ray, _), _ = jax.lax.scan(step, begun, lengths)
        return {"value": ray.value, "frame": ray.frame, "moment": ray.moment}

    moved = tree.unflatten([_materialised(leaf) for leaf in leaves])
    return jax.jvp(on_panels, (turns,), (moved,))[1]


def _materialised(tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    aval: Any = tangent.aval
    if aval.dtype == jax.dtypes.float0:
        return np.zeros(aval.shape, jax.dtypes.float0)
    return jnp.zeros(aval.shape, aval.dtype)


@jax.custom_jvp
def _locate(turns, origin: Array, target: Array, pairing: Array) -> Ray:
    """The ray to the x whose coordinates v of the first connection are `target`.

    By Newton, x ← x + P⁻¹(target − v(x)), damped so that |target − v| in the metric at the origin
    falls and every step's segment stays where Γ can be followed. As v is the same along any path,
    each step only continues what is there. The search ends like `solve.newton`: when the residual
    is below ε^¾ of what it is made of, one more step is taken, and that x is followed to from the
    origin: S does depend on the path, and is to be that of the ray.

    The derivative is that of the ray with dx = P⁻¹(dv − ∂ₐv·ȧ): no iterate is differentiated.
    """
    eps = float(jnp.finfo(target.dtype).eps)
    units = jnp.sqrt(jnp.abs(jnp.diagonal(pairing)))

    def look(ray):
        rest = target - ray.value[0]
        scale = jnp.abs(target) + jnp.abs(ray.frame[0]) @ (jnp.abs(ray.x) + jnp.abs(origin))
        small = (jnp.abs(rest) <= eps**0.75 * scale).all()
        return jnp.linalg.solve(ray.frame[0], rest), linalg.quadratic_form(pairing, rest), small

    def body(state):
        ray, (step, norm, small), t = state
        t = jnp.where(small, 1.0, t)
        begin = jax.tree_util.tree_map(lambda a, b: jnp.where(small, a, b), start, ray)
        new, _ = _follow(turns, begin, ray.x + t * step, units)
        seen = look(new)
        good = (new.status == Status.CONVERGED) & jnp.isfinite(seen[0]).all()
        good &= small | (seen[1] <= (1 - t / 4) ** 2 * norm)
        status = jnp.where(good & small, Status.CONVERGED, -1)
        t_next = jnp.where(good, jnp.minimum(4 * t, 1.0), t / 2)
        status = jnp.where(~good & (small | (t_next < eps)), Status.STALLED, status)
        new, seen = jax.tree_util.tree_map(
            lambda a, b: jnp.where(good, a, b), (new, seen), (ray, (step, norm, small))
        )
        status = status.astype(jnp.int32)
        return new._replace(status=status, steps=ray.steps + 1), seen, t_next

    ready = jnp.isfinite(target).all() & jnp.isfinite(pairing).all()
    start = _start(turns, origin)
    start = start._replace(status=jnp.where(ready, -1, Status.NONFINITE).astype(jnp.int32))
    end, *_ = jax.lax.while_loop(
        lambda s: (s[0].status < 0) & (s[0].steps < MAX_PANELS),
        body,
        (start, look(start), jnp.ones((), target.dtype)),
    )
    status = jnp.where(end.status < 0, Status.MAX_STEPS, end.status).astype(jnp.int32)
    end = end._replace(status=status, value=end.value.at[0].set(target))
    return _nan_unless_converged(end)


locate = compiled(_locate)


def _locate_jvp(primals, tangents):
    turns, origin, target, pairing = primals
    turns_dot, origin_dot, target_dot, _ = tangents  # the pairing only steers
    ray = _locate(turns, origin, target, pairing)
    units = jnp.sqrt(jnp.abs(jnp.diagonal(pairing)))
    parts = [_by_parameters(turns, turns_dot, origin, ray.x, units)]
    if not isinstance(origin_dot, SymbolicZero):
        parts.append(_by_origin(turns, ray, origin, origin_dot))
    target_dot = _materialised(target_dot)
    drift = sum((part["value"] for part in parts if part), jnp.zeros_like(ray.value))
    first = target_dot - drift[0]
    x_dot = jnp.linalg.solve(ray.frame[0], first)
    value_dot = (ray.frame @ x_dot).at[0].set(first)
    return ray, _tangent(ray, [*parts, _by_point(turns, ray, x_dot, value_dot)])


_locate.defjvp(_locate_jvp, symbolic_zeros=True)
