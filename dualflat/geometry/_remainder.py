"""What a convex function leaves over its tangent along a line, by the form that loses fewer digits.

With g(u) = ψ(θ + uΔ), every divergence of the house is a second divided difference of g: Bregman's
is g[0, 0, 1], the skew Jensen one s(1−s) g[0, s, 1]. All of them are made of `quotient`.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry.metric import curvature, gradient
from dualflat.geometry.potential import Potential, in_domain, knowledge

MANY = 16  # nodes where the few and the book both fail
DUAL_NODES = 8


def tolerable(dtype: Any) -> float:
    """The relative error of a divergence that is not worth more nodes: 1e-12, in float32 1e-5."""
    return 1e-5 if float(jnp.finfo(dtype).eps) > 1e-10 else 1e-12


@functools.cache
def taylor_rule(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights for ∫₀¹ (1 − t) h(t) dt, and what tells how well they resolve h.

    Gauss-Lobatto's nodes without the last: at t = 0 the book's formula needs ψ too, and at t = 1
    the factor 1 − t is 0. Exact for polynomials of degree 2·count − 2.

    Returns:
      nodes, weights: shape (count,); `tails`, shape (2, count): maps values of h to its last two
        coefficients in the polynomials orthonormal in the weight 1 − t.
    """
    last = np.polynomial.legendre.Legendre.basis(count)
    x = np.concatenate([[-1.0], np.sort(last.deriv().roots().real)])
    t = (x + 1) / 2
    w = (1 - t) / (count * (count + 1) * last(x) ** 2)
    roots = np.sqrt(w)[:, None]
    basis, _ = np.linalg.qr(roots * np.polynomial.legendre.legvander(x, count - 1))
    return t, w, (basis * roots)[:, -2:].T


def taylor(psi: Potential, x: Array, v: Array) -> tuple[Array, Array, Array]:
    """ψ(x), ∇ψ(x) and vᵀ∇²ψ(x)v, in one pass where ψ has no closed forms of them."""
    if knowledge(psi, "curvature") is not None:
        return psi(x), gradient(psi, x), curvature(psi, x, v)
    (value, slope), (_, turned) = jax.jvp(jax.value_and_grad(psi), (x,), (v,))
    return value, slope, v @ turned


def quotient(
    psi: Potential,
    base: Array,
    end: Array,
    direction: Array,
    scale: Array | float = 1.0,
    refine: bool = True,
) -> tuple[Array, Array, Array]:
    """D(end, base)/scale² for end = base + scale·direction, whether few nodes served, and its error.

    Two forms, each with an estimate of its own error; the smaller one decides:

        (ψ(end) − ψ(base) − scale ⟨∇ψ(base), v⟩)/scale²,    ∫₀¹ (1−t) vᵀ∇²ψ(base + t·scale·v)v dt.

    The first, the book's, is wrong by the rounding of the numbers it subtracts; the second by what
    its nodes do not resolve, which shows in the last coefficients of the integrand. If they fall
    like ρ^−k, the rule with n nodes is wrong by about ρ^−(2n−1). At scale 0 the second is the limit.

    A bend between two nodes is in no coefficient, as that of log(1 + exp 100θ) may be. But it turns
    the slope: what ∫₀¹ vᵀ∇²ψ v dt by the same nodes lacks of ⟨∇ψ(end) − ∇ψ(base), v⟩/scale, beyond
    the rounding of both, counts as an error too.

    Where both fail, as for a bend in a ψ of large value, the integral is taken again with more
    nodes: a loop that ends after one round, and which a batch without such a row does not enter.
    It has no reverse derivative; `refine=False` leaves it out.

    Args:
      end: base + scale·direction, rounded, or as it was given.
      direction: the exact difference, if scale is 1: base may have lost it.
    """
    dtype = base.dtype
    eps = float(jnp.finfo(dtype).eps)
    few_nodes, wanted = (5 if eps > 1e-10 else 6), tolerable(dtype)
    level, slope, bend = taylor(psi, base, direction)
    upper, slope_end, bend_end = taylor(psi, end, direction)
    turn = (slope_end - slope) @ direction
    turn_noise = 8 * eps * ((jnp.abs(slope) + jnp.abs(slope_end)) @ jnp.abs(direction))

    def remainder(count: int, stretch: Array | float) -> tuple[Array, Array]:
        t, w, tails = taylor_rule(count)
        rows = jnp.asarray(np.stack([w, w / (1 - t), *tails]), dtype)  # the second: Lobatto's rule

        def add(sums, node):  # one node after the other: a batch of nodes would fill the memory
            s, *parts = node
            along = curvature(psi, base + (s * stretch) * direction, direction)
            return tuple(x + part * along for x, part in zip(sums, parts, strict=True)), None

        nodes = (jnp.asarray(t[1:], dtype), *rows[:, 1:])
        (value, mean, last, other), _ = jax.lax.scan(add, tuple(rows[:, 0] * bend), nodes)
        mean = mean + bend_end / (count * (count + 1))
        size = math.sqrt(2) * jnp.where(value > 0, value, 1.0)  # the first coefficient
        last, other = jnp.abs(last) / size, jnp.abs(other) / size
        unresolved = jnp.maximum(last * last, other * other * jnp.sqrt(other))
        length = jnp.abs(stretch)
        missed = jnp.abs(stretch * mean - turn)
        missed = missed - turn_noise - length * jnp.abs(mean) * (8 * eps + unresolved)
        missed = jnp.where(missed <= 0, 0.0, missed) / jnp.where(length > 0, length, 1.0)
        missed = jnp.where(length > 0, missed, 0.0)
        return value, jnp.abs(value) * (4 * eps + unresolved / 4) + missed

    few, few_error = remainder(few_nodes, scale)
    rise = scale * (slope @ direction)
    square = jnp.where(jnp.equal(scale, 0), 1.0, scale * scale)
    book = (upper - level - rise) / square
    book_error = eps * (jnp.abs(upper) + jnp.abs(level) + jnp.abs(rise)) / square
    near = (few_error <= book_error) | jnp.equal(scale, 0)
    value = jnp.where(near, few, book)
    error = jnp.where(near, few_error, book_error)
    if refine:

        def again(state):
            # What does not depend on the state XLA would take out of the loop, and always do.
            many, many_error = remainder(MANY, jnp.where(state[2], scale, 0.0))
            better = many_error < error
            best = jnp.where(better, many, value), jnp.where(better, many_error, error)
            return *best, jnp.zeros_like(near)

        start = value, error, error > wanted * value
        value, error, _ = jax.lax.while_loop(lambda state: state[2], again, start)
    concave = (few < 0) & (book < -8 * book_error)
    value = jnp.where(value < 0, jnp.where(concave, jnp.nan, 0.0), value)
    return value, near, error


def dual_quotient(
    psi: Potential, base: Array, end: Array, direction: Array, scale: Array | float = 1.0
) -> Array:
    """(∇ψ(end) − ∇ψ(base))/scale = ∫₀¹ ∇²ψ(base + t·scale·v)v dt, each entry by the better form.

    Arguments as in `quotient`. Plainly differentiable, at every order and forwards and backwards.
    """
    eps = float(jnp.finfo(base.dtype).eps)
    t, w = _numerics.unit_nodes(DUAL_NODES)

    def lowered(s):
        at = base + (s * scale) * direction
        return jax.jvp(lambda x: gradient(psi, x), (at,), (direction,))[1]

    along = jax.lax.map(lowered, jnp.asarray(t, base.dtype))
    mean = jnp.asarray(w, base.dtype) @ along
    here, there = gradient(psi, end), gradient(psi, base)
    # If coefficients fall like ρ^−k, the rule is wrong by about ρ^−16: the square of the last.
    tail = jnp.asarray(_numerics.legendre_tail(DUAL_NODES), base.dtype) @ along
    size = jnp.sqrt(jnp.asarray(w, base.dtype) @ along**2)
    decay = jnp.abs(tail).max(0) / jnp.where(size > 0, size, 1.0)
    mean_error = size * (8 * eps + 8 * decay**2)
    book_error = eps * (jnp.abs(here) + jnp.abs(there))
    near = (mean_error * jnp.abs(scale) <= book_error) | jnp.equal(scale, 0)
    return jnp.where(near, mean, (here - there) / jnp.where(jnp.equal(scale, 0), 1.0, scale))


def nan_outside(psi: Potential, *points: Array) -> Array:
    """1, or NaN if ψ has a domain test and a point fails it: a factor, so that gradients know."""
    if knowledge(psi, "in_domain") is None:
        return jnp.ones((), points[0].dtype)
    inside = jnp.stack([in_domain(psi, point) for point in points]).all()
    return jnp.where(inside, 1.0, jnp.nan).astype(points[0].dtype)
