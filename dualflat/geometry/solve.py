"""Where a gradient takes a value: damped Newton, a bracket for one variable, and their report."""

import dataclasses
import enum
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from dualflat.geometry import operators
from dualflat.geometry._tree import register
from dualflat.geometry.operators import Operator


class Status(enum.IntEnum):
    """How a solver ended. Only CONVERGED comes with a value."""

    CONVERGED = 0
    MAX_STEPS = 1  # still moving: perhaps there is no solution, or the start is very far
    STALLED = 2  # no step helps any more, and the solution is not determined in this precision
    NONFINITE = 3  # the start or the target is impossible, or ∇²ψ is not positive definite
    UNREACHABLE = 4  # the potential knows that no point has these dual coordinates


@register
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
    Status.NONFINITE: "the start is outside the domain, the target or a parameter of ψ is not finite,"
    " or ∇²ψ is not positive definite on the way, as happens where the target is out of reach.",
    Status.UNREACHABLE: "the target is outside the range of ∇ψ: no point has these dual coordinates.",
}


def refused(found: Solution, where: Array, status: Status) -> Solution:
    """The same solution with NaN and this status where `where` holds."""
    value = jnp.where(where[..., None], jnp.nan, found.value)
    return Solution(value, jnp.where(where, jnp.int32(status), found.status), found.steps)


class _Point(NamedTuple):
    """What a look at x returned."""

    inside: Array  # x is in the domain, and ψ and ∇ψ are finite there
    merit: Array  # ψ(x) − ⟨x, target⟩
    noise: Array  # the rounding that merit may carry
    residual: Array  # ∇ψ(x) − target, (n,)


class _State(NamedTuple):
    x: Array  # (n,), always inside the domain
    here: _Point
    steps: Array
    status: Array  # −1 while running


def newton(
    psi: Callable[[Array], Array],
    target: Array,
    init: Array,
    *,
    gradient: Callable[[Array], Array] | None = None,
    hessian: Callable[[Array], Operator] | None = None,
    in_domain: Callable[[Array], Array] | None = None,
    max_steps: int = 128,
) -> Solution:
    """The x with ∇ψ(x) = target, as the minimum of the convex merit ψ(x) − ⟨x, target⟩.

    Each step solves ∇²ψ(x) d = target − ∇ψ(x) and goes to x + td. The first t is 1. A t is refused
    if x + td is outside the domain, if the merit has not fallen (up to its own rounding), or if the
    slope along d has turned by more than half of λ² = dᵀ∇²ψd. Next is t = 1/(1 + λ), which a
    self-concordant ψ cannot refuse, then halves of it. Where a t leaves more than a quarter of
    the slope, as happens far from the solution, it is doubled while that serves; so the search does
    not depend on the units of ψ, in which self-concordance is stated.

    No tolerance is a number with units either. A residual is measured against what it is made of,

        |∇ψ(x) − target|ᵢ over |targetᵢ| + Σⱼ |Gᵢⱼ||xⱼ|,   and as a whole over max(|target|, |Gx|),

    The search ends when, with the first below √ε, a step brings both down to 2ε or shrinks neither; x
    is then the best one seen.

    A small residual alone proves nothing: where η tends to the edge of the range of ∇ψ, residuals
    vanish while θ goes to infinity. So x is believed only if the curvature also stays within a
    factor of 1½ across the step that a change of the target by 64ε would cause, about what ∇ψ may
    be wrong by.

    Args:
      psi: strictly convex, twice differentiable, for one point.
      target, init: shape (n,), of one floating dtype; `init` inside the domain.
      gradient: x ↦ ∇ψ(x), where there is something better than `jax.grad`.
      hessian: x ↦ ∇²ψ(x) as an operator. Without it a matrix up to n = 1024; beyond, products
        and conjugate gradients that solve no further than the step deserves (Newton-CG).
      in_domain: x ↦ bool (); without it, wherever ψ and ∇ψ are finite.
      max_steps: Newton steps before giving up.

    Returns:
      A `Solution`. Runs under `jit` and `vmap`, where a row that fails leaves the others as they
      are. Not differentiable in reverse mode: hang an implicit rule on what calls it.
    """
    eps = float(jnp.finfo(target.dtype).eps)
    slope_at = jax.grad(psi) if gradient is None else gradient
    metric_at = _hessian_of(slope_at) if hessian is None else hessian

    def look(x: Array) -> _Point:
        if gradient is None:
            value, slope = jax.value_and_grad(psi)(x)
        else:
            value, slope = psi(x), gradient(x)
        inside = jnp.isfinite(value) & jnp.isfinite(slope).all()
        if in_domain is not None:
            inside &= in_domain(x)
        noise = 4 * eps * (jnp.abs(value) + jnp.abs(x * target).sum())
        return _Point(inside, value - x @ target, noise, slope - target)

    def body(state: _State) -> _State:
        x, here = state.x, state.here
        metric = metric_at(x)
        size = jnp.abs(target) + metric.spread(x)
        pull = metric.apply(x)
        unit = jnp.maximum(jnp.abs(target).max(), jnp.abs(pull).max())  # no square overflows
        length = jnp.maximum(jnp.linalg.norm(target / unit), jnp.linalg.norm(pull / unit))

        def error(residual: Array) -> Array:
            """Of the worst entry and of the whole, in ε of what each is made of."""
            entries = jnp.where(residual == 0, 0.0, jnp.abs(residual) / size).max()
            whole = jnp.linalg.norm(residual / unit) / length
            return jnp.stack([entries, jnp.where(entries == 0, 0.0, whole)]) / eps

        before = error(here.residual)
        worst = eps * before[0]
        near = worst <= eps**0.5
        step = _solved(metric, -here.residual, jnp.clip(jnp.sqrt(worst), eps**0.5, 0.1))
        decrement = -here.residual @ step
        finite = jnp.isfinite(step).all() & (decrement >= 0)
        # Under vmap the search for t takes as long as that of the slowest row: one that has nowhere
        # to go, or has arrived, must not search at all, and one that is near need not.
        goes = finite & (state.status < 0)
        step, decrement = jnp.where(goes, step, 0.0), jnp.where(goes, decrement, 0.0)
        blind = decrement <= here.noise
        t, there, found = _along(look, x, step, here, decrement, near | blind)

        after = error(there.residual)
        resting = (after > 0.9 * before).all()
        done = near & ((after <= 2).all() | resting)
        status = jnp.where(found, jnp.where(done, Status.CONVERGED, -1), Status.STALLED)
        # Where no step helps but the residual is rounding, x itself is the answer.
        status = jnp.where(~found & near, Status.CONVERGED, status)
        status = jnp.where(finite, status, Status.NONFINITE)
        moves = found & ~(near & (after > before).all())
        x = jnp.where(moves, x + t * step, x)
        there = _select(moves, there, here)
        return _State(x, there, state.steps + 1, status.astype(jnp.int32))

    # Otherwise a start that is a constant would be looked at by the compiler, slowly if n is large.
    init = jax.lax.optimization_barrier(init)
    here = look(init)
    ready = here.inside & jnp.isfinite(target).all()
    start = _State(
        init,
        here,
        jnp.zeros((), jnp.int32),
        jnp.where(ready, -1, Status.NONFINITE).astype(jnp.int32),
    )
    end = jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < max_steps), body, start)
    status = jnp.where(end.status < 0, Status.MAX_STEPS, end.status)
    blur = _solved(metric_at(end.x), _doubt(target, end.here.residual), 0.1)
    sure = _believable(slope_at, in_domain, end.x, blur, target, end.here.residual)
    return _solution(end.x, status, sure, end.steps)


class _Line(NamedTuple):
    """A search for t in x + td."""

    t: Array  # to be looked at
    best: Array  # the largest t that was accepted and doubled, 0 if none
    best_at: _Point
    refusals: Array
    done: Array


def _along(
    look: Callable[[Array], _Point],
    x: Array,
    step: Array,
    here: _Point,
    decrement: Array,
    trusted: Array,
) -> tuple[Array, _Point, Array]:
    """How far to go along `step`: t, the look at x + t·step, and whether any t was accepted.

    Where the step is trusted, because what merit and slope would say of it is rounding, t = 1
    unless that leaves the domain.
    """
    damped = 1 / (1 + jnp.sqrt(decrement))
    least = float(jnp.finfo(x.dtype).eps) * damped

    def body(line: _Line) -> _Line:
        at = look(x + line.t * step)
        slope = at.residual @ step  # −λ² at t = 0, and 0 where the merit is least
        allowed = -1e-4 * line.t * decrement + jnp.maximum(at.noise, here.noise)
        # How far a ψ of the user's rounds its values nobody knows; slopes know better. The merit is
        # convex, so it has fallen wherever it still falls.
        falls = (at.merit <= here.merit + allowed) | (slope <= 0.1 * decrement)
        fine = at.inside & (trusted | (falls & (slope <= 0.5 * decrement)))
        eager = fine & ~trusted & (slope < -0.25 * decrement) & (line.t < 1e30)
        stop = (fine & ~eager) | (~fine & (line.best > 0)) | (~fine & (line.t <= least))
        best = jnp.where(fine, line.t, line.best)
        best_at = _select(fine, at, line.best_at)
        shorter = jnp.where(line.refusals == 0, jnp.minimum(damped, 0.5 * line.t), line.t / 2)
        t = jnp.where(stop, line.t, jnp.where(fine, 2 * line.t, shorter))
        return _Line(t, best, best_at, line.refusals + ~fine, stop)

    # The first look is inside the loop too: looking twice in the program would double what there is
    # to compile.
    zero = jnp.zeros((), x.dtype)
    start = _Line(zero + 1, zero, here, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    end = jax.lax.while_loop(lambda line: ~line.done, body, start)
    return end.best, end.best_at, end.best > 0


def bracketed(
    target: Array,
    init: Array,
    *,
    gradient: Callable[[Array], Array],
    in_domain: Callable[[Array], Array] | None = None,
    max_steps: int = 256,
) -> Solution:
    """The x with ψ′(x) = target for one variable: Newton inside a bracket that always shrinks.

    ψ′ increases, so every look at x tells on which side the solution is; outside the domain, which
    is an interval, it is the side of `init`. A Newton step that leaves the bracket, or is more than
    half of the step before, is replaced by bisection, and bisection is in the order of the floating
    numbers: it halves exponents first, so that from any start every number of the dtype is
    within 64 (float32: 32) halvings, whatever its size.

    What counts as an answer is as in `newton`.

    Args:
      target, init: shape (1,), of one floating dtype; `init` inside the domain.
      gradient: x ↦ ψ′(x), from (1,) to (1,), increasing.
      in_domain: x ↦ bool (), of an interval; without it, wherever ψ′ is not NaN.
      max_steps: a bound that is not reached; each step looks once.

    Returns:
      A `Solution`, as from `newton`.
    """
    eps, huge = (float(f) for f in (jnp.finfo(target.dtype).eps, jnp.finfo(target.dtype).max))

    def look(x):
        slope, change = jax.jvp(gradient, (x,), (jnp.ones_like(x),))
        side = jnp.where(x > init, jnp.inf, -jnp.inf)
        inside = ~jnp.isnan(slope)
        if in_domain is not None:
            inside &= in_domain(x)
        return jnp.where(inside, slope - target, side), change

    def body(state):
        x, residual, change, low, high, last, best, least, steps, _ = state
        low, high = jnp.where(residual < 0, x, low), jnp.where(residual > 0, x, high)
        nearer = jnp.abs(residual) < least
        best, least = jnp.where(nearer, x, best), jnp.where(nearer, jnp.abs(residual), least)
        step = -residual / change
        wanted = x + step
        good = (wanted > low) & (wanted < high) & (jnp.abs(step) <= 0.5 * last)
        middle = _between(low, high)
        size = jnp.abs(target) + jnp.abs(change * x)
        done = (residual == 0) | (middle <= low) | (middle >= high)
        # The next step would be too small to see: take it, unless it would make things worse.
        done |= good & (jnp.abs(residual) <= eps**0.75 * size) & (jnp.abs(step) <= eps * jnp.abs(x))
        new = jnp.where(residual == 0, x, jnp.where(good, wanted, middle))
        return new, *look(new), low, high, jnp.abs(new - x), best, least, steps + 1, done

    residual, change = look(init)
    ready = jnp.isfinite(residual) & jnp.isfinite(target)
    far = jnp.full_like(init, huge)
    start = (init, residual, change, -far, far, 2 * far, init, jnp.full_like(init, jnp.inf))
    start = (*start, jnp.zeros((), jnp.int32), ~ready)

    def running(state):
        return ~state[-1][0] & (state[-2] < max_steps)

    x, residual, change, *_, best, least, steps, _ = jax.lax.while_loop(running, body, start)
    nearer = jnp.abs(residual) <= least
    x = jnp.where(nearer, x, best)
    residual, change = look(x)
    size = jnp.abs(target) + jnp.abs(change * x)
    close = (jnp.abs(residual) <= eps**0.75 * size)[0]
    status = jnp.where(close, Status.CONVERGED, Status.STALLED)
    status = jnp.where((change > 0)[0], status, Status.NONFINITE)
    status = jnp.where(ready[0], status, Status.NONFINITE)
    blur = _doubt(target, residual) / change
    sure = _believable(gradient, in_domain, x, blur, target, residual)
    return _solution(x, status, sure, steps)


def _between(low: Array, high: Array) -> Array:
    """The number in the middle of low < high in the order of the floating numbers."""
    integer = jnp.int32 if low.dtype == jnp.float32 else jnp.int64
    flip = jnp.iinfo(integer).max  # of negative numbers all bits but the sign are turned

    def rank(x):
        bits = jax.lax.bitcast_convert_type(x, integer)
        return jnp.where(bits < 0, bits ^ flip, bits)

    a, b = rank(low), rank(high)
    middle = (a & b) + ((a ^ b) >> 1)  # (a + b)/2 without overflow
    bits = jnp.where(middle < 0, middle ^ flip, middle)
    return jax.lax.bitcast_convert_type(bits, low.dtype)


def _hessian_of(gradient: Callable[[Array], Array]) -> Callable[[Array], Operator]:
    return lambda x: operators.jacobian(jax.tree_util.Partial(gradient), x)


def _solved(metric: Operator, w: Array, rtol: float | Array) -> Array:
    """G⁻¹w, no more exactly than to rtol where exactness costs products."""
    return metric.solve_to(w, rtol) if isinstance(metric, operators.Jacobian) else metric.solve(w)


def _doubt(target: Array, residual: Array) -> Array:
    """By how much the target may be taken for another one."""
    return 64 * float(jnp.finfo(target.dtype).eps) * target + residual


def _believable(
    gradient: Callable[[Array], Array],
    in_domain: Callable[[Array], Array] | None,
    x: Array,
    blur: Array,
    target: Array,
    residual: Array,
) -> Array:
    """Is ∇²ψ about the same at x and at x + blur, for the blur that a doubt of the target causes?"""
    here = blur @ _doubt(target, residual)  # blurᵀ∇²ψ(x)blur
    there = blur @ jax.jvp(gradient, (x + blur,), (blur,))[1]
    steady = (jnp.abs(there - here) <= 0.5 * here) | (here == 0)
    return steady & (jnp.ones((), bool) if in_domain is None else in_domain(x + blur))


def _solution(x: Array, status: Array, sure: Array, steps: Array) -> Solution:
    status = jnp.where((status == Status.CONVERGED) & ~sure, Status.STALLED, status)
    status = status.astype(jnp.int32)
    return Solution(jnp.where(status == Status.CONVERGED, x, jnp.nan), status, steps)


def _select(where: Array, yes: _Point, no: _Point) -> _Point:
    return _Point(*(jnp.where(where, a, b) for a, b in zip(yes, no, strict=True)))
