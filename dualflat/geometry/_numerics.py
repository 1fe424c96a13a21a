"""Scalar formulas that keep their digits, and quadrature nodes."""

import functools
import math

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
    """(1 + u) log(1 + u) − u for u ≥ −1: u²/2 near 0, 1 at −1, never negative; right to 6 ε.

    The difference loses every digit near 0. For −½ < u < 1 it is us(1 + s(1 + s)B) with
    s = u/(2 + u), log(1 + u) = 2 artanh s and artanh s = s + s³B, whose series in s² < 1/9 is
    short; beyond, the difference loses no more than a factor of 4.
    """
    near = _about_one(u, jnp.ones_like(u))
    far = jnp.where(near, 1.0, u)
    return jnp.where(near, _small_log1p_excess(jnp.where(near, u, 0.0)), xlogx(1 + far) - far)


def _small_log1p_excess(u: Array) -> Array:
    """`log1p_excess` for −½ < u < 1."""
    s = u / (2 + u)
    return u * s * (1 + s * (1 + s) * _artanh_rest(s))


def relative_entropy(
    x: Array, y: Array, step: Array | None = None, log_y: Array | None = None
) -> Array:
    """x log(x/y) − x + y ≥ 0 for x ≥ 0 and y ≥ 0, entry by entry, to 8 ε; 0 only where x = y.

    For ½ < x/y < 2 it is y((1+u) log(1+u) − u) with u = (x − y)/y. `step` is x − y and `log_y` is
    log y, for whoever knows them better than a subtraction and a logarithm would.
    """
    step = x - y if step is None else step
    near = _about_one(step, y)
    u = jnp.where(near, step, 0.0) / jnp.where(near, y, 1.0)
    far = ~near & (x != 0)  # where x = 0 there is no cross term, even if y = 0
    cross = x * _log_quotient(x, y, log_y, far)
    # −√x is there for its derivative at 0 only, −∞ as it should be.
    edge = -jnp.sqrt(jnp.where(near | far, 1.0, x))
    return jnp.where(near, y * _small_log1p_excess(u), jnp.where(far, cross, edge) - step)


def log_excess(x: Array, y: Array, step: Array | None = None) -> Array:
    """x/y − 1 − log(x/y) ≥ 0 for x > 0 and y > 0, entry by entry, to 8 ε; 0 only where x = y.

    With u = (x − y)/y and s, B as in `log1p_excess` it is us(1 − 2sB/(2 + u)) for −½ < u < 1. `step`
    is x − y, for whoever knows it better than a subtraction would.
    """
    step = x - y if step is None else step
    u = step / y
    near = _about_one(step, y)
    close = minus_log1p_excess(jnp.where(near, u, 0.0))
    return jnp.where(near, close, u - _log_quotient(x, y, None, ~near))


def minus_log1p_excess(u: Array) -> Array:
    """u − log(1 + u) ≥ 0 for −½ < u < 1 alone, as `log_excess`."""
    s = u / (2 + u)
    return u * s * (1 - 2 * s * _artanh_rest(s) / (2 + u))


def log_quotient(x: Array, y: Array, step: Array | None = None) -> Array:
    """log(x/y) for x > 0 and y > 0, to 3 ε of itself also where x is near y.

    There it is 2 artanh s with s = (x − y)/(x + y): XLA's log1p is wrong by 117 ε in float64 at −0.4.
    `step` is x − y, for whoever knows it better than a subtraction would.
    """
    step = x - y if step is None else step
    near = _about_one(step, y)
    u = jnp.where(near, step, 0.0) / jnp.where(near, y, 1.0)
    return jnp.where(near, twice_artanh(u / (2 + u)), _log_quotient(x, y, None, ~near))


def twice_artanh(s: Array) -> Array:
    """2 artanh s = log (1 + s)/(1 − s) for |s| ≤ ⅓."""
    return 2 * s * (1 + s * s * _artanh_rest(s))


def _about_one(step: Array, y: Array) -> Array:
    """Is y positive and ½ < x/y < 2, where step = x − y?"""
    return (step > -0.5 * y) & (step < y)


def _log_quotient(x: Array, y: Array, log_y: Array | None, where: Array) -> Array:
    """log(x/y) to a few ε, 0 but `where` asked: of the quotient as far as that is a normal number.

    A difference of logarithms is rounded at their size: 70 ε at 1e30. Beyond, it is all there is.
    """
    info = jnp.finfo(x.dtype)
    tiny, big = float(info.tiny), float(info.max)
    x, y = jnp.where(where, x, 1.0), jnp.where(where, y, 1.0)
    probe = jax.lax.stop_gradient(x / y)
    over, under = ~(probe <= big), probe < tiny
    if log_y is not None:
        apart = over | under
        log = jnp.log(jnp.where(apart, x, x / jnp.where(apart, 1.0, y)))
        return log - jnp.where(apart, log_y, 0.0)
    # Beyond, of the quotient by a power of two: there is one logarithm to compute.
    half = math.floor(0.54 * math.log2(big))
    down, up = 2.0**-half, 2.0**half
    scaled = (x * jnp.where(over, down, jnp.where(under, up, 1.0))) / (
        y * jnp.where(over, up, jnp.where(under, down, 1.0))
    )
    rest = 2 * half * math.log(2)
    return jnp.log(scaled) + jnp.where(over, rest, jnp.where(under, -rest, 0.0))


def _artanh_rest(s: Array) -> Array:
    """B = (artanh s − s)/s³ = Σ s²ᵏ/(2k + 3) for |s| ≤ ⅓: s³B to the last digit of s."""
    count = 8 if float(jnp.finfo(s.dtype).eps) > 1e-10 else 16
    return _estrin([1 / (2 * k + 3) for k in range(count)], s * s)


def exp_excess(x: Array) -> Array:
    """exp x − 1 − x: x²/2 near 0, never negative. Near 0 by its series, beyond by the difference."""
    near = jnp.abs(x) < 0.5
    v, far = jnp.where(near, x, 0.0), jnp.where(near, 1.0, x)
    return jnp.where(near, v * v * exp_series(v, 2), jnp.exp(far) - 1 - far)


def exp_excess_by_halves(x: Array) -> tuple[Array, Array]:
    """exp x − 1 − x and exp x − 1 for |x| < 2, without an exponential: all terms are of one sign.

    From x/4, where the series serves, by exp 2y − 1 − 2y = (exp y − 1)² + 2(exp y − 1 − y), twice.
    """
    y = x / 4
    rest = y * y * exp_series(y, 2)
    for _ in range(2):
        rest, y = (y + rest) * (y + rest) + 2 * rest, 2 * y
    return rest, y + rest


def expm1_ratio(x: Array) -> Array:
    """(exp x − 1)/x, which is 1 at 0; smooth there, for autodiff too."""
    near = jnp.abs(x) < 0.5
    v, far = jnp.where(near, x, 0.0), jnp.where(near, 1.0, x)
    return jnp.where(near, exp_series(v, 1), jnp.expm1(far) / far)


def exp_series(x: Array, skip: int) -> Array:
    """Σ xᵏ/(k + skip)! for |x| ≤ ½, to the last digit of float64."""
    return _estrin([1 / math.factorial(k + skip) for k in range(16)], x)


def _estrin(coefficients: list[float], x: Array) -> Array:
    """Σ cₖxᵏ of 2ᵐ terms, by pairs, pairs of pairs and so on: a chain would wait at each step."""
    parts: list = list(coefficients)
    while len(parts) > 1:
        parts = [a + x * b for a, b in zip(parts[::2], parts[1::2], strict=True)]
        x = x * x
    return parts[0]


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
