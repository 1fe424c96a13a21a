"""Means over the laws of counts, for families with T(x) = x."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_NODES = 320  # more than 26 standard deviations and 30, one apart, where that is less than 9


def entropy_in_window(family: Any, theta: Array, largest: float) -> Array:
    """−Σ p log p for a family whose log p is −gap + log_saturated."""

    def surprise(x: Array) -> Array:
        return family._gap(jnp.broadcast_to(theta, x.shape), x) - family.log_saturated(x)

    return mean_in_window(family, theta, largest, surprise)


def mean_in_window(family: Any, theta: Array, largest: float, f: Callable[[Array], Array]) -> Array:
    """E f(X), summed over 13 standard deviations on both sides of the mean, at most 320 terms.

    For laws on 0, …, `largest` that are near a normal one where they are wide (Poisson, binomial).
    There the terms are taken further than one apart: for a function this smooth the sum is the
    integral to the last digit as long as a standard deviation holds two of them (here ten).
    """
    eta, bend = family.to_eta(theta)[0], family.hessian(theta).entries[0]
    width = 13 * jnp.sqrt(bend)
    low = jax.lax.stop_gradient(jnp.floor(jnp.maximum(eta - width, 0.0)))
    width = jax.lax.stop_gradient(width)  # the nodes are where they are, whatever moves
    high = jnp.minimum(low + 2 * width + 30, largest)
    apart = jnp.maximum((high - low) / (_NODES - 1), 1.0)
    x = low + apart * jnp.arange(_NODES, dtype=theta.dtype)
    inside = x <= largest
    x = jnp.where(inside, x, low)
    gap = family._gap(jnp.broadcast_to(theta, x.shape), x)
    p = jnp.exp(jnp.where(inside, family.log_saturated(x) - gap, -jnp.inf))
    return apart * jnp.where(p > 0, p * f(x), 0.0).sum()


def mean_log_gamma(family: Any, theta: Array, shift: float | Array) -> Array:
    """E log Γ(X + a) for a count X with T(x) = x and a > 0, by Malmsten's integral,

        log Γ(z) = ∫₀^∞ [(z − 1) − (1 − e^−(z−1)t)/(1 − e^−t)] e^−t dt/t,

    whose mean needs E e^−tX = exp(ψ(θ − t) − ψ(θ)) and no sum over the support. The trapezoidal rule
    in log t. Absolute error: some ε times η log η.
    """
    return _in_log_t(lambda t, fall: _malmsten(family, theta, shift, t, fall), family, theta)


def mean_log(family: Any, theta: Array) -> Array:
    """E log X for a count X ≥ 1 with T(x) = x: ∫₀^∞ (e^−t − E e^−tX) dt/t (Frullani)."""
    return _in_log_t(lambda t, fall: jnp.expm1(-t) - fall, family, theta)


def _malmsten(family: Any, theta: Array, a: float | Array, t: Array, fall: Array) -> Array:
    eta = family.to_eta(theta)[0]
    shrink = jnp.expm1(-(a - 1) * t)
    both = shrink + fall + shrink * fall  # E e^−(X+a−1)t − 1
    return ((eta + a - 1) + both / -jnp.expm1(-t)) * jnp.exp(-t)


def _in_log_t(integrand: Any, family: Any, theta: Array) -> Array:
    s = np.arange(-44.0, 4.5, 0.125)
    t = jnp.asarray(np.exp(s), theta.dtype)
    # E e^−tX − 1; ψ(θ − t) − ψ(θ) by its tangent and the divergence, or it were rounding for small t
    change = family._divergence(theta - t, jnp.broadcast_to(theta, t.shape))
    fall = jnp.expm1(change - family.to_eta(theta)[0] * t)
    return 0.125 * integrand(t, fall).sum()
