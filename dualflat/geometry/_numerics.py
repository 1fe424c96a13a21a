"""Scalar formulas that keep their digits, and quadrature nodes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def log1mexp(x: Array) -> Array:
    """log(1 − exp x) for x < 0, to a few ε relative; NaN for x > 0, −∞ at 0.

    Neither log(−expm1 x) nor log1p(−exp x) is right everywhere; they change over at −log 2
    (Mächler 2012). Both branches get an argument they like, so that gradients stay finite.
    """
    near = x > -0.6931
    return jnp.where(
        near,
        jnp.log(-jnp.expm1(jnp.where(near, x, -0.5))),
        jnp.log1p(-jnp.exp(jnp.where(near, -1.0, x))),
    )


def xlogx(x: Array) -> Array:
    """x log x, continued by 0 at 0; NaN for x < 0. Its derivative at 0 is −∞, as it should be."""
    return jnp.where(x == 0, 0.0, x * jnp.log(x))


def log1p_excess(u: Array) -> Array:
    """(1 + u) log(1 + u) − u for u ≥ −1: u²/2 near 0, 1 at −1, never negative.

    The difference loses every digit near 0. There it is u² ∫₀¹ (1−t)/(1+tu) dt by quadrature, whose
    error for |u| < ¼ is below ε; beyond, the difference loses at most a factor of 30.
    """
    t, w = unit_nodes(8)
    near = jnp.abs(u) < 0.25
    v = jnp.where(near, u, 0.0)
    inner = sum(float(wk * (1 - tk)) / (1 + float(tk) * v) for tk, wk in zip(t, w, strict=True))
    far = jnp.where(near, 1.0, u)
    return jnp.where(near, v * v * inner, xlogx(1 + far) - far)


def logsumexp0(x: Array) -> Array:
    """log(1 + Σ exp xᵢ) over the last axis, with small relative error also where it is tiny.

    With m = max(0, maxᵢ xᵢ) it is m + log1p(Σ exp(xᵢ − m) + expm1(−m)), and for x ≪ 0 that is
    log1p(Σ exp xᵢ). −∞ is allowed and contributes nothing, also to derivatives; +∞ and NaN give
    NaN, in the gradient too.
    """
    top = jnp.max(x, axis=-1, initial=0.0)
    # The sum does not depend on m, so derivatives are exact with m held still.
    m = jax.lax.stop_gradient(jnp.where(top < jnp.inf, top, jnp.nan))
    return m + jnp.log1p(jnp.exp(x - m[..., None]).sum(-1) + jnp.expm1(-m))


def one_minus_sum(x: Array) -> Array:
    """1 − Σ xᵢ over the only axis, by pairs, the rounding of each addition carried along.

    Correctly rounded up to ε² times Σ|xᵢ|, so that a small rest keeps its digits. log₂ n steps.
    """
    high = jnp.append(1.0 - jnp.zeros((), x.dtype), -x)
    low = jnp.zeros_like(high)
    while high.size > 1:
        if high.size % 2:
            high, low = jnp.append(high, 0.0), jnp.append(low, 0.0)
        a, b = high[0::2], high[1::2]
        total = a + b
        back = total - a
        low = low[0::2] + low[1::2] + ((a - (total - back)) + (b - back))  # Knuth's two-sum
        high = total
    return (high + low)[0]


@functools.cache
def unit_nodes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1], as float64 numpy arrays of length `count`."""
    x, w = np.polynomial.legendre.leggauss(count)
    return (x + 1) / 2, w / 2


@functools.cache
def legendre_tail(count: int, keep: int = 2) -> np.ndarray:
    """Rows that map values at `unit_nodes(count)` to their Legendre coefficients, last `keep`.

    Row j holds √(2k+1) w P_k for k = count−keep+j: orthonormal, so that the coefficients compare
    with the root mean square of the values. How fast they decay says how well the nodes resolve
    the function, at no evaluation more.
    """
    t, w = unit_nodes(count)
    basis = np.polynomial.legendre.legvander(2 * t - 1, count - 1).T
    orders = np.arange(count)[:, None]
    return (np.sqrt(2 * orders + 1) * w * basis)[-keep:]
