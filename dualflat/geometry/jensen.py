"""Divergences that weigh a third point on the line between the two: Jensen's, Rényi's, Amari's.

With g(u) = ψ((1−u)θ + uθ′) all of them are made of one number, the second divided difference

    g[0, s, 1] = ((1−s)ψ(θ) + sψ(θ′) − ψ(m))/(s(1−s)),    m = (1−s)θ + sθ′,

which is nonnegative and smooth for every s: D(θ′, θ) at s = 0, D(θ, θ′) at s = 1. Where ψ is the
log-partition of laws p_θ,

    log ∫ p^(1−s) q^s = ψ(m) − (1−s)ψ(θ) − sψ(θ′),    p = p_θ, q = p_θ′,

which gives the names to what follows. For a ψ without laws these are functions of two points all
the same, nonnegative and 0 only at equality; only the integrals mean nothing.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, _remainder
from dualflat.geometry._tree import compiled
from dualflat.geometry.metric import curvature
from dualflat.geometry.potential import (
    Potential,
    as_potential,
    checked_points,
    in_domain,
    knowledge,
)


def skew_jensen(psi: Potential, theta: Array, other: Array, skew: Array | float) -> Array:
    """J_s(θ, θ′) = (1−s)ψ(θ) + sψ(θ′) − ψ((1−s)θ + sθ′), Burbea and Rao's divergence with weights.

    For laws p = p_θ, q = p_θ′ it is the skew Bhattacharyya distance −log ∫ p^(1−s) q^s, and

        J_s/s → KL(p‖q) for s → 0,    J_s/(1−s) → KL(q‖p) for s → 1.

    Computed as (1−s) D(θ, m) + s D(θ′, m), m the point between, each divergence by the form that
    loses less, and along exact multiples of θ′ − θ, which m has rounded away.

    Args:
      psi: the potential.
      theta, other: shape (n,), inside the domain.
      skew: s in [0, 1], the weight of `other`; may be traced.

    Returns:
      shape (), never negative, exactly 0 at equality and for s = 0 or 1, with Hessian s(1−s)∇²ψ at
      equality. NaN, with a NaN gradient, outside the domain and for s outside [0, 1].

    Source: Burbea and Rao 1982; for exponential families Nielsen and Boltz 2011.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> p, q = jnp.array([0.0]), jnp.log(jnp.array([9.0]))  # (½, ½) and (1/10, 9/10)
    >>> print(f"{jnp.exp(-skew_jensen(Categorical(1), p, q, 0.5)):.4f}")  # (√0.05 + √0.45)
    0.8944
    """
    psi, theta, other, s = _checked(psi, "skew_jensen", theta, other, "skew", skew)
    return _skew(psi, theta, other, s) * _nan_unless((s >= 0) & (s <= 1), s)


def bhattacharyya(psi: Potential, theta: Array, other: Array) -> Array:
    """−log ∫ √(p q) for the laws p = p_θ, q = p_θ′: the skew Jensen divergence at s = ½.

    Symmetric. The affinity is exp(−it), Hellinger's squared distance 2(1 − affinity) is
    ½ `alpha_divergence` at α = 0. Arguments and edges as in `skew_jensen`; Hessian ¼∇²ψ.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> p, q = jnp.array([0.0]), jnp.array([1e-4])
    >>> print(f"{bhattacharyya(Categorical(1), p, q):.4e}")  # ψ''/8 · 1e-8
    3.1250e-10
    """
    return skew_jensen(psi, theta, other, 0.5)


def jensen_bregman(psi: Potential, theta: Array, other: Array) -> Array:
    """½D(θ, m) + ½D(θ′, m), m = ½(θ + θ′): the mean divergence of two points to their middle.

    D(θ, m) is KL(p_m ‖ p_θ). The slopes at m cancel, which leaves ½(ψ(θ) + ψ(θ′)) − ψ(m): it is the
    same number as `bhattacharyya`, and needs no laws. Arguments and edges as in `skew_jensen`.

    Source: Nielsen and Nock 2011.

    >>> print(jensen_bregman(lambda t: t @ t, jnp.array([0.0]), jnp.array([2.0])))  # ¼|Δ|²
    1.0
    """
    return skew_jensen(psi, theta, other, 0.5)


def renyi(psi: Potential, theta: Array, other: Array, order: Array | float) -> Array:
    """Rényi's divergence of p = p_θ from q = p_θ′, 1/(a−1) log ∫ p^a q^(1−a), for the order a > 0.

    KL(p‖q) = D(θ′, θ) at a = 1, and smooth there: it is a g[0, 1−a, 1], see the head of this
    module, of which no part is negative for any a.

    Args:
      psi: the log-partition function of the laws.
      theta, other: shape (n,), inside the domain.
      order: a > 0, finite; may be traced.

    Returns:
      shape (), never negative, exactly 0 at equality, with Hessian a∇²ψ there. For a > 1 the
      integral may diverge, because aθ + (1−a)θ′ is outside the domain: then +∞, if ψ has a domain
      test. NaN, with a NaN gradient, if a point is outside, and for an impossible order.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> p, q = jnp.array([0.0]), jnp.log(jnp.array([9.0]))
    >>> print(f"{renyi(Categorical(1), p, q, 2.0):.4f}")  # log(0.25/0.1 + 0.25/0.9)
    1.0217
    """
    psi, theta, other, a = _checked(psi, "renyi", theta, other, "order", order)
    value = a * _ratio_compiled(psi, theta, other, 1 - a)
    return value * _nan_unless((a > 0) & (a < jnp.inf), a)


def alpha_divergence(psi: Potential, theta: Array, other: Array, alpha: Array | float) -> Array:
    """Amari's D^(α)(p‖q) = 4/(1−α²) (1 − ∫ p^((1−α)/2) q^((1+α)/2)) for p = p_θ, q = p_θ′.

        α = −1: KL(p‖q) = D(θ′, θ),    α = 1: KL(q‖p) = D(θ, θ′),    α = 0: 4(1 − affinity),

    and D^(α)(p‖q) = D^(−α)(q‖p). With s = (1+α)/2 it is (1 − exp(−J_s))/(s(1−s)), computed as
    g[0, s, 1] (1 − exp(−J))/J, both factors smooth: the limits at ±1 are no special cases.

    Args:
      psi: the log-partition function of the laws.
      theta, other: shape (n,), inside the domain.
      alpha: any finite α; may be traced.

    Returns:
      shape (), never negative, exactly 0 at equality, with Hessian ∇²ψ there for every α. For
      |α| > 1 the integral may diverge: then +∞, if ψ has a domain test. NaN, with a NaN gradient,
      if a point is outside the domain, and for an α that is not finite.

    Source: Amari 1985; Amari and Nagaoka 2000, section 3.2.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> p, q = jnp.array([0.0]), jnp.log(jnp.array([9.0]))
    >>> print(f"{alpha_divergence(Categorical(1), p, q, -1.0):.4f}")  # ½ log 0.5/0.1 + ½ log 0.5/0.9
    0.5108
    """
    psi, theta, other, alpha = _checked(psi, "alpha_divergence", theta, other, "alpha", alpha)
    s, rest = (1 + alpha) / 2, (1 - alpha) / 2
    ratio = _ratio_compiled(psi, theta, other, s)
    exponent = jnp.minimum(-s * rest * ratio, 1e4)  # beyond, exp is +∞ in any case
    value = ratio * _numerics.expm1_ratio(exponent)
    return value * _nan_unless(jnp.abs(alpha) < jnp.inf, alpha)


class Chernoff(NamedTuple):
    """What `chernoff_information` returns: the information, shape (), and the exponent s."""

    value: Array
    exponent: Array


def chernoff_information(psi: Potential, theta: Array, other: Array) -> Chernoff:
    """max_s J_s(θ, θ′) = −log min_s ∫ p^(1−s) q^s: the best rate of telling p_θ from p_θ′.

    Symmetric; the exponent s is the weight of `other`, and m = (1−s)θ + sθ′ is where the e-geodesic
    meets the bisector, KL(m‖p) = KL(m‖q), that is D(θ, m) = D(θ′, m). That equation in one unknown,
    monotone and bracketed by 0 and 1, is solved by Newton's method, halving where it would leave the
    bracket: at most 64 steps. By the envelope theorem the derivative is that of J_s at fixed s;
    that of s comes from the equation.

    Args:
      psi: the potential.
      theta, other: shape (n,), inside the domain.

    Returns:
      A `Chernoff`: `value`, never negative, exactly 0 at equality, with Hessian ¼∇²ψ there;
      `exponent`, in (0, 1), ½ at equality, where it has no derivative and 0 is given. NaN, with NaN
      gradients, outside the domain.

    Source: Chernoff 1952; for exponential families Nielsen 2013.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> p, q = jnp.array([0.0]), jnp.log(jnp.array([9.0]))
    >>> value, s = chernoff_information(Categorical(1), p, q)
    >>> print(f"{value:.4f} {s:.4f}")
    0.1124 0.4584
    """
    theta, other = checked_points(psi, "chernoff_information", theta=theta, other=other)
    psi = as_potential(psi, theta)
    return Chernoff(*_chernoff_compiled(psi, theta, other))


# --- the second divided difference ---------------------------------------------------------------


@jax.custom_jvp
def _ratio(psi: Potential, theta: Array, other: Array, s: Array) -> Array:
    ratio = _ratio_forms(psi, theta, other, s)
    if knowledge(psi, "in_domain") is not None:
        beyond = ((s < 0) | (s > 1)) & ~in_domain(psi, _between(theta, other, s))
        ratio = jnp.where(beyond, jnp.inf, ratio)  # ψ is +∞ outside its domain
    return ratio * _remainder.nan_outside(psi, theta, other)


_ratio_compiled = compiled(_ratio)


def _ratio_forms(
    psi: Potential, theta: Array, other: Array, s: Array, refine: bool = True
) -> Array:
    """g[0, s, 1], from the middle one of the three to both sides: nothing negative is added."""
    low, high = jnp.where(s < 0, s, 0.0), jnp.where(s > 1, s, 1.0)
    mid = jnp.where(s < 0, 0.0, jnp.where(s > 1, 1.0, s))
    base, delta = _between(theta, other, mid), other - theta

    def side(u):
        return _remainder.quotient(
            psi, base, _between(theta, other, u), delta, u - mid, refine=refine
        )[0]

    return ((mid - low) * side(low) + (high - mid) * side(high)) / (high - low)


@_ratio.defjvp
def _ratio_jvp(primals, tangents):
    psi, theta, other, s = primals
    psi_dot, theta_dot, other_dot, s_dot = tangents
    # ∂θ g[0, s, 1] = −(∇ψ(m) − ∇ψ(θ))/s, ∂θ′ = (∇ψ(θ′) − ∇ψ(m))/(1−s), ∂s = g[s, s, 1] − g[0, s, s].
    # (m moves too, but the slopes at m cancel.)
    m, delta = _between(theta, other, s), other - theta
    change = (
        _remainder.dual_quotient(psi, m, other, delta, 1 - s) @ other_dot
        - _remainder.dual_quotient(psi, m, theta, delta, -s) @ theta_dot
        + _bend(psi, theta, other, s) * s_dot
    )
    if jax.tree_util.tree_leaves(psi):

        def of_parameters(p):  # linear in ψ
            return _ratio_forms(p, theta, other, s, refine=False)

        change = change + jax.jvp(of_parameters, (psi,), (psi_dot,))[1]
    return _ratio(psi, theta, other, s), change * _remainder.nan_outside(psi, theta, m, other)


def _bend(psi: Potential, theta: Array, other: Array, s: Array) -> Array:
    """∂g[0, s, 1]/∂s = g[s, s, 1] − g[0, s, s], to the rounding of these two."""
    forwards, backwards = _sides(psi, theta, other, s)
    return forwards - backwards


def _sides(psi: Potential, theta: Array, other: Array, s: Array) -> tuple[Array, Array]:
    """D(θ′, m)/(1−s)² and D(θ, m)/s²."""
    m, delta = _between(theta, other, s), other - theta
    forwards = _remainder.quotient(psi, m, other, delta, 1 - s, refine=False)[0]
    return forwards, _remainder.quotient(psi, m, theta, delta, -s, refine=False)[0]


def _between(theta: Array, other: Array, u: Array) -> Array:
    return (1 - u) * theta + u * other  # exact at both ends


@compiled
def _skew(psi: Potential, theta: Array, other: Array, s: Array) -> Array:
    return s * (1 - s) * _ratio(psi, theta, other, s)


def _checked(
    psi: Potential, where: str, theta: Array, other: Array, name: str, number: Any
) -> tuple[Potential, Array, Array, Array]:
    theta, other = checked_points(psi, where, theta=theta, other=other)
    number = jnp.asarray(number)
    if number.ndim or not jnp.issubdtype(number.dtype, jnp.number) or jnp.iscomplexobj(number):
        raise ValueError(
            f"{where}: {name} is {number.dtype} of shape {number.shape}. Wanted one real number;"
            " for many use jax.vmap."
        )
    return as_potential(psi, theta), theta, other, number.astype(theta.dtype)


def _nan_unless(condition: Array, like: Array) -> Array:
    return jnp.where(condition, 1.0, jnp.nan).astype(like.dtype)


# --- Chernoff ------------------------------------------------------------------------------------


@jax.custom_jvp
def _chernoff(psi: Potential, theta: Array, other: Array) -> tuple[Array, Array]:
    s = _exponent(psi, theta, other)
    return _skew(psi, theta, other, s), s


_chernoff_compiled = compiled(_chernoff)


@_chernoff.defjvp
def _chernoff_jvp(primals, tangents):
    psi, theta, other = primals
    value, s = _chernoff(psi, theta, other)

    def at_fixed(function):
        return jax.jvp(lambda *points: function(*points, s), primals, tangents)[1]

    # s is where ∂J/∂s is 0, so its motion drops out of J's; and ∂²J/∂s² = −ΔᵀG(m)Δ.
    delta = other - theta
    bend = curvature(psi, _between(theta, other, s), delta)
    s_dot = jnp.where(bend > 0, at_fixed(_balance) / jnp.where(bend > 0, bend, 1.0), 0.0)
    valid = _remainder.nan_outside(psi, theta, other)
    return (value, s), (at_fixed(_skew), s_dot * valid)


def _balance(psi: Potential, theta: Array, other: Array, s: Array) -> Array:
    """∂J/∂s = D(θ′, m) − D(θ, m), which falls from D(θ′, θ) at 0 to −D(θ, θ′) at 1."""
    forwards, backwards = _sides(psi, theta, other, s)
    return (1 - s) ** 2 * forwards - s**2 * backwards


def _exponent(psi: Potential, theta: Array, other: Array) -> Array:
    eps, delta = float(jnp.finfo(theta.dtype).eps), other - theta

    def step(state):
        low, high, s, _, count = state
        balance = _balance(psi, theta, other, s)
        low, high = jnp.where(balance > 0, s, low), jnp.where(balance > 0, high, s)
        bend = curvature(psi, _between(theta, other, s), delta)
        newton = s + jnp.where(balance == 0, 0.0, balance / jnp.where(bend > 0, bend, jnp.nan))
        # Newton where it stays inside; halving there too in every third step, lest it creep.
        good = (newton > low) & (newton < high) & (count % 3 != 2)
        after = jnp.where(good | (balance == 0), newton, (low + high) / 2)
        moving = jnp.abs(after - s) > 2 * eps * jnp.minimum(after, 1 - after)
        return low, high, after, moving & (balance != 0), count + 1

    half = jnp.full((), 0.5, theta.dtype)
    start = (jnp.zeros_like(half), jnp.ones_like(half), half, jnp.ones((), bool), 0)
    end = jax.lax.while_loop(lambda state: state[3] & (state[4] < 64), step, start)
    return end[2] * _remainder.nan_outside(psi, theta, other)
