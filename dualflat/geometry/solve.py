"""Damped Newton for convex problems, and what a solver has to say for itself."""

import dataclasses
import enum
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from dualflat.geometry import linalg


class Status(enum.IntEnum):
    """How a solver ended. Only CONVERGED comes with a value."""

    CONVERGED = 0
    MAX_STEPS = 1  # still moving: perhaps there is no solution, or the start is very far
    STALLED = 2  # no step helps any more, and the solution is not determined in this precision
    NONFINITE = (
        3  # the start is outside the domain, the target is not finite, or ∇²ψ is not definite
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """What a solver found, and whether to believe it.

    `value` is NaN wherever `status` is not CONVERGED, so that an unread status cannot pass for an
    answer. Inside `jit` the fields are the report; on the host, `checked()` turns it into an error.

    Attributes:
      value: shape (..., n).
      status: shape (...), int32, a `Status`.
      steps: shape (...), int32, steps taken.
    """

    value: Array
    status: Array
    steps: Array

    def checked(self) -> Array:
        """Return `value`, or say on the host what went wrong and where.

        Raises:
          RuntimeError: if any problem of the batch did not converge.
          TypeError: inside `jit`, where there is no value to look at yet.
        """
        if isinstance(self.status, Tracer):
            raise TypeError(
                "Solution.checked() reads values, which do not exist inside jit or vmap. There,"
                " read `status` (NaN in `value` says the same), and call checked() outside."
            )
        status = np.asarray(self.status)
        failed = np.argwhere(status != Status.CONVERGED)
        if len(failed):
            first = tuple(int(i) for i in failed[0])
            count = f" in {len(failed)} of {status.size} problems, first at {first}"
            raise RuntimeError(
                f"solver ended {Status(int(status[first])).name} after"
                f" {int(np.asarray(self.steps)[first])} steps{count if status.ndim else ''}:"
                f" {_ADVICE[Status(int(status[first]))]}"
            )
        return self.value


_ADVICE = {
    Status.MAX_STEPS: "the target may be outside the range of ∇ψ, or very near its edge; if it is"
    " not, start nearer or allow more steps.",
    Status.STALLED: "the target lies on or beyond the edge of the range of ∇ψ, or the solution is"
    " not determined by it in this precision; try float64.",
    Status.NONFINITE: "the start is outside the domain, the target is not finite, or ∇²ψ is not"
    " positive definite on the way.",
}


class _State(NamedTuple):
    x: Array  # (n,), always inside the domain
    grad: Array  # ∇ψ(x) − target
    merit: Array  # ψ(x) − ⟨x, target⟩
    noise: Array  # the rounding that merit may carry
    decrement: Array  # λ² of the step before
    steps: Array
    status: Array  # −1 while running


def newton(
    psi: Callable[[Array], Array],
    target: Array,
    init: Array,
    *,
    in_domain: Callable[[Array], Array] | None = None,
    max_steps: int = 64,
) -> Solution:
    """The x with ∇ψ(x) = target, as the minimum of the convex merit ψ(x) − ⟨x, target⟩.

    Each step solves ∇²ψ(x) d = target − ∇ψ(x) and goes along d, halving until the new point is
    inside the domain, the merit has fallen (up to its own rounding) and so has the slope along d.

    No tolerance is a number with units. The search ends at x when the residual is below ε^¾ of
    what it is made of, |∇ψ(x) − target|ᵢ ≤ ε^¾ (|targetᵢ| + Σⱼ |Gᵢⱼ xⱼ|), and the curvature is the
    same, up to √ε, across the next step; that step is then taken, and leaves √ε of itself undone.
    Or when steps have stopped shrinking and the merit cannot resolve the next one.

    A small residual alone proves nothing: where η tends to the edge of the range of ∇ψ, residuals
    vanish while θ goes to infinity. So x is believed only if the curvature also stays within a
    factor of 1½ across the step that a change of the target by 64ε would cause, about what ∇ψ may
    be wrong by.

    Args:
      psi: strictly convex, twice differentiable, for one point.
      target, init: shape (n,), of one floating dtype; `init` inside the domain.
      in_domain: x ↦ bool (); without it, wherever ψ and ∇ψ are finite.
      max_steps: Newton steps before giving up.

    Returns:
      A `Solution`. Runs under `jit` and `vmap`, where a row that fails leaves the others as they
      are. Not differentiable in reverse mode: hang an implicit rule on what calls it.
    """
    eps = float(jnp.finfo(target.dtype).eps)
    value_and_grad, hessian = jax.value_and_grad(psi), jax.hessian(psi)

    def look(x):
        value, grad = value_and_grad(x)
        inside = jnp.isfinite(value) & jnp.isfinite(grad).all()
        if in_domain is not None:
            inside &= in_domain(x)
        noise = 4 * eps * (jnp.abs(value) + jnp.abs(x * target).sum())
        return inside, value - x @ target, noise, grad - target

    def body(state: _State) -> _State:
        metric = hessian(state.x)
        both = linalg.solve_pd(metric, jnp.stack([-state.grad, 64 * eps * target], axis=-1))
        step, blur = both[:, 0], both[:, 1]
        decrement = -state.grad @ step

        def change(v):
            """How much vᵀ∇²ψv changes from x to x + v, relatively: is v short?"""
            here, there = (linalg.quadratic_form(h, v) for h in (metric, hessian(state.x + v)))
            return jnp.where(here == 0, 0.0, jnp.abs(there / jnp.where(here == 0, 1.0, here) - 1))

        scale = jnp.abs(target) + jnp.abs(metric) @ jnp.abs(state.x)
        small = (jnp.abs(state.grad) <= eps**0.75 * scale).all()
        stuck = (decrement > 0.5 * state.decrement) & (decrement <= state.noise)

        def backtrack(carry):
            t, *_ = carry
            return t / 2, *look(state.x + t / 2 * step)

        def refused(carry):
            t, inside, merit, noise, grad = carry
            slope = grad @ step  # −λ² at t = 0, and 0 where the merit is least along the line
            falls = merit <= state.merit - 1e-4 * t * decrement + jnp.maximum(noise, state.noise)
            fine = inside & falls & (slope <= 0.5 * decrement)
            return ~fine & (t > eps)

        first = look(state.x + step)
        finite = jnp.isfinite(step).all() & jnp.isfinite(blur).all()
        # A row that has nowhere to go must not search: NaN would never be accepted.
        start = (jnp.where(finite, 1.0, 0.0).astype(target.dtype), *first)
        t, inside, merit, noise, grad = jax.lax.while_loop(refused, backtrack, start)

        bend = change(step)  # what the step leaves undone is about bend/2 of it
        done = (small & (bend <= eps**0.5)) | (stuck & (bend <= 0.1))
        done &= (change(blur) <= 0.5) & first[0]
        status = jnp.where(done, Status.CONVERGED, -1)
        status = jnp.where(~done & (stuck | ~inside | (t <= eps)), Status.STALLED, status)
        status = jnp.where(finite, status, Status.NONFINITE)
        moved = jnp.where(done, state.x + step, state.x + t * step)
        return _State(
            jnp.where(finite, moved, state.x),
            grad,
            merit,
            noise,
            decrement,
            state.steps + 1,
            status.astype(jnp.int32),
        )

    inside, merit, noise, grad = look(init)
    ready = inside & jnp.isfinite(target).all()
    start = _State(
        init,
        grad,
        merit,
        noise,
        jnp.full((), jnp.inf, target.dtype),
        jnp.zeros((), jnp.int32),
        jnp.where(ready, -1, Status.NONFINITE).astype(jnp.int32),
    )
    end = jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < max_steps), body, start)
    status = jnp.where(end.status < 0, Status.MAX_STEPS, end.status).astype(jnp.int32)
    return Solution(jnp.where(status == Status.CONVERGED, end.x, jnp.nan), status, end.steps)
