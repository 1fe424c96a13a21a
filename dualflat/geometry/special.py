"""Special functions of positive numbers, to a few ε, with derivatives of every order.

JAX's own lose digits where the geometry needs them: digamma near its root, log Γ near 1 and 2,
trigamma beyond 1e154, and every difference of two of them. All functions here are elementwise, follow
the dtype of their argument, and are NaN, as are their derivatives, for x ≤ 0 and for NaN.

The gamma function and its logarithmic derivatives rest on one split. For x ≥ 9 the expansions of
Stirling, whose terms are below ε/4 from the ninth to the eleventh on; for x < 9 the recurrence. It
goes *down* to [1, 2) where a sum could cancel (log Γ, digamma: there they are polynomials, divided
by what vanishes in that interval), and up to [9, 18) where all terms are positive (trigamma and its
derivatives). The polynomials interpolate at Chebyshev's points, computed with 60 digits.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import _numerics

_FAR = 9  # from here on Stirling's expansions serve
# B₂, B₄, …, Bernoulli's numbers
_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510,
    43867 / 798, -174611 / 330, 854513 / 138,
)  # fmt: skip
_ROOT = (0.46163214496836236, -1.5522348162858677e-17)  # of digamma, minus one, in two parts
_SLOPE = 0.9676722454476212  # of digamma there
# digamma(z)/(z − root) and log Γ(z)/((z − 1)(z − 2)) on [1, 2], in powers of 2z − 3
_DIGAMMA = (
    0.9510558760318328,
    -0.21181371064072865,
    0.060135621060196195,
    -0.01855061538185726,
    0.005936795278346364,
    -0.001935066662210221,
    0.0006368880294427922,
    -0.00021074843772854427,
    6.995019751413975e-05,
    -2.3258098660110816e-05,
    7.741184312154647e-06,
    -2.5785659502395533e-06,
    8.590699307116732e-07,
    -2.8534578211707985e-07,
    9.509734580818946e-08,
    -3.288837880625679e-08,
    1.0962078810190396e-08,
    -2.7066308634469587e-09,
    9.021824538932729e-10,
    -7.217231554506031e-10,
    2.4057297773026326e-10,
)
_LOG_GAMMA = (
    0.4831289505409809,
    -0.07297994795715304,
    0.01572785026864542,
    -0.003913560937627712,
    0.0010498186643114226,
    -0.00029455070147065866,
    8.510090557578434e-05,
    -2.5094329288815257e-05,
    7.511379855481206e-06,
    -2.274243403133106e-06,
    6.948877197562772e-07,
    -2.138781508158277e-07,
    6.613648184278213e-08,
    -2.0587178010528767e-08,
    6.5744295616983814e-09,
    -2.0645205106753336e-09,
    5.338892309612246e-10,
    -1.6832632347974095e-10,
    1.0811060848639768e-10,
    -3.44138388395326e-11,
)

_Rational = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
# k(x) = x²(ψ₁(x) − 1/x), r(x) and (1 + x)r′(x) of `log_gamma_excess_gap` over y = 1/(1 + x), as numerators and
# denominators in powers of y; for float32, for float64. Least squares, weighted until all errors are alike, 60 digits.
_BEND: _Rational = (
    (
        (
            0.500000033527193, 0.031152949564577252, 0.402792094584522, 0.09092652767667837,
            0.11799038855603505,
        ),
        (
            1.0, -0.2710169010125769, 0.5622933161787201, -0.1787090510461783,
            0.030294667406086447,
        ),
    ),
    (
        (
            0.49999999999999994, 3.879105970211306, 15.542795512865704, 38.20326660193591,
            62.433502439804585, 70.73829098754533, 59.16436873288174, 40.31891475364069,
            23.04422820995457, 8.503897375299166,
        ),
        (
            1.0, 7.424878607089139, 28.277298156730623, 64.23914094689842,
            91.91489098520748, 80.9136862788349, 40.055179023040395, 8.503231280530795,
            6.530580727255822e-05,
        ),
    ),
)  # fmt: skip
_REST: _Rational = (
    (
        (
            -0.08106146798983395, 0.016166543534173412, 0.033785293898995546,
            0.031109632815122436,
        ),
        (
            1.0, 0.82859286025554, 0.4349820109379617, 0.029559872861764865,
        ),
    ),
    (
        (
            -0.08106146679532726, -0.3423196447365259, -0.8031538664827684,
            -0.8004932522830582, -0.034446786654880344, 0.881037671201797,
            0.8519701485846599, 0.30857242933121704, 0.019894767834886088,
        ),
        (
            1.0, 5.250990327433772, 15.306118218930171, 25.575966091324283,
            26.53777800204468, 15.898065154326023, 5.008443037611305, 0.5752965747042443,
            0.013007795298720305,
        ),
    ),
)  # fmt: skip
_REST_SLOPE: _Rational = (
    (
        (
            0.0, -0.08333397983684952, -0.09651043921498828, -0.05712477300733917,
        ),
        (
            1.0, 1.1583617530023786, 0.783103704395696, 0.1274606679337521,
        ),
    ),
    (
        (
            0.0, -0.08333333333332853, -0.49942766270309513, -1.654326564494277,
            -3.1996634738794625, -3.8825171781629737, -2.7554370931174517,
            -0.9875029168211703, -0.08097351016823331,
        ),
        (
            1.0, 5.993131952428696, 19.951918774313196, 38.99527487607239,
            48.537778905522515, 36.6793891857684, 15.80365024964381, 3.0831572777107144,
            0.16962815984486276,
        ),
    ),
)  # fmt: skip


def log_gamma(x: Array) -> Array:
    """log Γ(x) for x > 0. Relative error: 4 ε (measured, 1e-300 … 1e300), also near 1 and 2.

    Derivatives: `digamma`, then `polygamma`. +∞ at +∞.

    >>> print(f"{log_gamma(jnp.float32(1.0001)):.2e}")  # −γ·1e-4
    -5.77e-05
    """
    return _log_gamma(_positive(x))


def digamma(x: Array) -> Array:
    """ψ(x) = (log Γ)′(x) for x > 0. Relative error: 4 ε (measured), also near its root 1.4616….

    >>> digamma(jnp.array([1.0, 1.4616321])).round(4)  # −γ, 0
    Array([-0.5772, -0.    ], dtype=float32)
    """
    return _digamma(_positive(x))


def trigamma(x: Array) -> Array:
    """ψ₁(x) = ψ′(x) = Σₖ 1/(x + k)² for x > 0, from +∞ down to 0. Relative error: 3 ε (measured)."""
    return _polygamma(1, _positive(x))


def polygamma(order: int, x: Array) -> Array:
    """The derivative of digamma of this order, at x > 0; order 0 is `digamma` itself.

    (−1)^(m+1) m! Σₖ 1/(x + k)^(m+1) for order m ≥ 1: nine or more terms of that sum, then Euler and
    Maclaurin's expansion. Relative error: 2(m + 1) ε (measured up to m = 8), which is what rounding
    x + k costs.

    Raises:
      ValueError: unless `order` is a nonnegative Python integer.
    """
    if not isinstance(order, int) or order < 0:
        raise ValueError(f"polygamma: order is {order!r}. Wanted an integer of at least 0.")
    return _digamma(_positive(x)) if order == 0 else _polygamma(order, _positive(x))


def log_gamma_excess(x: Array) -> Array:
    """log Γ(x) − x log x + x, which is what Stirling's leading terms leave: ½ log 2π/x + 1/12x − ….

    For x ≥ 9 that is the expansion, so that sums and differences of log Γ whose leading terms are
    combined by hand keep their digits. Its derivative is `digamma_excess`.
    """
    return _log_gamma_excess(_positive(x))


def log_factorial_excess(x: Array) -> Array:
    """log x! − x log x + x for x ≥ 0: 0 at 0, ½ log 2πx + 1/12x − … far out, never subtracted.

    Minus the log-probability of a count x under the Poisson law whose mean it is. NaN for x < 0.
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.result_type(float, x))
    at_zero = x == 0
    safe = jnp.where(at_zero, 1.0, x)
    return jnp.where(at_zero, 0.0, log_gamma_excess(safe) + jnp.log(safe))


def digamma_excess(x: Array) -> Array:
    """ψ(x) − log x, which is −1/2x − 1/12x² + … for x ≥ 9 without any subtraction."""
    return _digamma_excess(_positive(x))


def trigamma_excess(x: Array) -> Array:
    """ψ₁(x) − 1/x > 0, which is 1/2x² + 1/6x³ − … for x ≥ 9 without any subtraction."""
    return _trigamma_excess(_positive(x))


def trigamma_deficit(x: Array) -> Array:
    """x − 1/ψ₁(x): x − x² + … near 0, ½ at infinity, increasing. Relative error: 15 ε (measured).

    For x ≥ 9 it is computed from Stirling's expansion of ψ₁ without the subtraction, and so are its
    derivatives, which are those of this formula.
    """
    x = _positive(x)
    return deficit_of(x, _polygamma(1, jnp.where(x >= _FAR, 1.0, x)))


def deficit_of(x: Array, bend: Array) -> Array:
    """`trigamma_deficit` of x > 0 for whoever knows ψ₁(x); where x ≥ 9 `bend` is not looked at."""
    far = x >= _FAR
    expanded = _far_deficit(1 / jnp.where(far, x, 1.0))
    near = jnp.where(far, 1.0, x)
    return jnp.where(far, expanded, near - 1 / jnp.where(far, 1.0, bend))


def _far_deficit(r: Array) -> Array:
    half = 0.5 + r * _series(_BERNOULLI, r * r)
    return half / (1 + r * half)


def reciprocal_trigamma_slope(x: Array) -> tuple[Array, Array]:
    """h′ = −ψ₂/ψ₁² for h = 1/ψ₁, from 0 (2x) to 1, and 1 − h′ = `trigamma_deficit`′, for x > 0.

    Relative error: 15 ε (measured), but that of 1 − h′ between 1 and 9 grows to 2000 ε. For x ≥ 9 both
    are from Stirling's expansion of ψ₁, below by the sums of both over the same reciprocals.
    """
    x = _positive(x)
    far = x >= _FAR
    r = 1 / jnp.where(far, x, 1.0)
    rest = -r * r * jax.jvp(_far_deficit, (r,), (jnp.ones_like(r),))[1]
    # ψ₁ and −ψ₂/2 in units of 1/x² and 1/x³, which overflow first.
    near = jnp.where(far, 1.0, x)
    shares = [near / (near + k) for k in reversed(range(1, _FAR))]
    s = 1 / (near + _FAR)
    tail = s * (1 + s * (0.5 + s * _series(_BERNOULLI, s * s)))
    after = s * s * (0.5 + s * (0.5 + s * _series(_FOR_THIRD, s * s)))
    bend = 1 + (near * near * tail + sum(x * x for x in shares))
    third = 1 + (near * near * near * after + sum(x * x * x for x in shares))
    slope = 2 * near * (third / bend) / bend
    return jnp.where(far, 1 - rest, slope), jnp.where(far, rest, 1 - slope)


def inverse_digamma(y: Array) -> Array:
    """The x > 0 with ψ(x) = y, for any real y. Relative error: 4 ε (measured) plus ε|y|/(x ψ₁(x)),
    which is what rounding y does to x. +∞ where x is beyond the largest number.

    Newton's steps on a concave function, three of them from a start that is right to 3e-3:
    1/log(1 + e^−y) is a lower bound with both asymptotes right (Batir 2011), here corrected at both
    ends by one term more. The derivative is 1/ψ₁(x), at every order.

    >>> inverse_digamma(digamma(jnp.array([0.01, 1.0, 50.0]))).round(4)
    Array([1.e-02, 1.e+00, 5.e+01], dtype=float32)
    """
    y = jnp.asarray(y)
    return _inverse_digamma(y.astype(jnp.result_type(float, y)))


def inverse_digamma_excess(y: Array) -> Array:
    """The x > 0 with log x − ψ(x) = y, for y > 0: the shape of the gamma law with log E X − E log X = y.

    Minka's start (2002), (3 − y + √((y − 3)² + 24y))/12y without its subtraction, is right to 1.5 %.
    Three of Newton's steps in log x, along which the logarithm of the left side is nearly straight.
    Relative error: 4 ε (measured). NaN for y ≤ 0. The derivative is that of the inverse function.

    >>> inverse_digamma_excess(-digamma_excess(jnp.array([0.01, 1.0, 50.0]))).round(4)
    Array([1.e-02, 1.e+00, 5.e+01], dtype=float32)
    """
    return _inverse_digamma_excess(_positive(y))


def log_gamma_gap(x: Array, base: Array) -> Array:
    """The Bregman divergence of log Γ: log Γ(x) − log Γ(x′) − (x − x′)ψ(x′) ≥ 0, to 5 ε (measured).

    log Γ is x log x − x, whose divergence is x log x/x′ − x + x′, and an `excess`, convex too.
    """
    x, base = _positive(x), _positive(base)
    return _numerics.relative_entropy(x, base) + log_gamma_excess_gap(x, base)


def log_gamma_excess_gap(x: Array, base: Array, step: Array | None = None) -> Array:
    """The Bregman divergence of e = `log_gamma_excess`, which is convex; never negative, to 10 ε (measured).

    With k(x) = x²e″(x), which falls from 1 at 0 to ½ at infinity, and L = log x/x′ it is

        ∫₀^L (exp(L − s) − 1) k(x′ exp s) ds,

    by Gauss and Legendre with eight nodes, in float32 four, for |L| < 1: those of L − s are those of
    s, so there is one exponential a node. Beyond, e = −log x + ½ log(1 + x) + x log(1 + 1/x) + r,
    each term by itself; r(x) = log Γ(1 + x) − (x + ½) log(1 + x) + x is between −0.082 and 0. k, r
    and (1 + x)r′ are rational functions of 1/(1 + x), right to ε. `step` is x − x′, for whoever knows
    it better than a subtraction would.
    """
    x, base = _positive(x), _positive(base)
    step = x - base if step is None else step
    level = _numerics.log_quotient(x, base, step)
    near = jnp.abs(level) < 1
    short = jnp.where(near, level, 0.0)
    nodes, weights = _numerics.unit_nodes(4 if float(jnp.finfo(x.dtype).eps) > 1e-10 else 8)
    rises = [jnp.expm1(short * float(t)) for t in nodes]
    bends = [_rational(_BEND, 1 / (1 + (base + base * rise))) for rise in rises]
    parts = zip(weights, rises[::-1], bends, strict=True)
    close = short * sum(float(w) * rise * bend for w, rise, bend in parts)
    at_x, at_base = 1 / (1 + x), 1 / (1 + base)
    drop = step / x * at_base  # (1 + 1/x)/(1 + 1/x′) is 1 − drop
    logs = _numerics.log_quotient(base * at_base * (1 + 1 / x), jnp.ones_like(x), -drop)
    rest = _rational(_REST, at_x) - _rational(_REST, at_base)
    rest = rest - step * at_base * _rational(_REST_SLOPE, at_base)
    far = step / base + 0.5 * (step * at_base - level) + (x + 0.5) * logs + rest
    return jnp.where(near, close, far)


def digamma_excess_gaps(x: Array, base: Array, step: Array) -> tuple[Array, Array]:
    """e′(x) − e′(x′) and (x − x′)e″(x′) − e′(x) + e′(x′) ≥ 0 for e′ = `digamma_excess`; `step` is x − x′.

    e′ increases and is concave. With k as in `log_gamma_excess_gap` and j = −x³e‴(x) = 2k − xk′(x), which
    falls from 2 at 0 to 1, they are 1/x′ times

        ∫₀^L exp(−s) k(x′ exp s) ds,    ∫₀^L (exp(L − s) − 1) exp(−s) j(x′ exp s) ds,

    for |L| < 1, by the same nodes; beyond, differences. Relative error: 5 ε (measured).
    """
    x, base = _positive(x), _positive(base)
    level = _numerics.log_quotient(x, base, step)
    near = jnp.abs(level) < 1
    short = jnp.where(near, level, 0.0)
    nodes, weights = _numerics.unit_nodes(4 if float(jnp.finfo(x.dtype).eps) > 1e-10 else 8)
    rises = [jnp.expm1(short * float(t)) for t in nodes]
    turn = lack = jnp.zeros_like(x)
    for w, rise, other in zip(weights, rises, rises[::-1], strict=True):
        y = 1 / (1 + (base + base * rise))
        bend, slope = jax.jvp(lambda y: _rational(_BEND, y), (y,), (jnp.ones_like(y),))
        turn = turn + float(w) * bend / (1 + rise)
        lack = lack + float(w) * other * (2 * bend + y * (1 - y) * slope) / (1 + rise)
    far_turn = digamma_excess(x) - digamma_excess(base)
    far_lack = step / base * (_rational(_BEND, 1 / (1 + base)) / base) - far_turn
    turn = jnp.where(near, short * turn / base, far_turn)
    return turn, jnp.where(near, short * lack / base, far_lack)


def _rational(coefficients: _Rational, y: Array) -> Array:
    above, below = coefficients[float(jnp.finfo(y.dtype).eps) < 1e-10]
    return _series(above, y) / _series(below, y)


def _positive(x: Array) -> Array:
    """x as a float where it is positive, NaN, in the derivative too, elsewhere."""
    x = jnp.asarray(x)
    x = x.astype(jnp.result_type(float, x))
    return x * jnp.where(x > 0, 1.0, jnp.nan).astype(x.dtype)


def _series(coefficients: tuple[float, ...], x: Array) -> Array:
    """Σ cₖxᵏ by Horner's rule."""
    value = jnp.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value = value * x + c
    return value


def _scaled_bernoulli(scale: Callable[[int], float]) -> tuple[float, ...]:
    return tuple(b * scale(2 * k + 2) for k, b in enumerate(_BERNOULLI))


_FOR_DIGAMMA = _scaled_bernoulli(lambda n: 1 / n)
_FOR_THIRD = _scaled_bernoulli(lambda n: (n + 1) / 2)
_FOR_LOG_GAMMA = _scaled_bernoulli(lambda n: 1 / (n * (n - 1)))


def _split(x: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Which x are ≥ 9; the others (1.5 in their place) as x = z + steps, and z − 1; 1/x of the first.

    z is in [1, 2). Below 1, z = x + 1 would be rounded, but z − 1 is x itself.
    """
    far = x >= _FAR
    near = jnp.where(far, 1.5, x)
    steps = jnp.floor(near) - 1  # −1 below 1
    over = jnp.where(near < 1, near, near - (steps + 1))
    return far, near, over, steps, 1 / jnp.where(far, x, 1.0)


@jax.custom_jvp
def _log_gamma(x: Array) -> Array:
    far, near_value, excess = _log_gamma_parts(x)
    big = jnp.where(far, x, 1.0)
    return jnp.where(far, big * (jnp.log(big) - 1) + excess, near_value)


@jax.custom_jvp
def _log_gamma_excess(x: Array) -> Array:
    far, near_value, excess = _log_gamma_parts(x)
    near = jnp.where(far, 1.0, x)
    low = near_value + near * (1 - jnp.log(near))
    middle, safe, steps, r = _lifted(x)
    product = jnp.ones_like(x)  # of (x + k)/(x + steps)
    for k in range(1, _FAR - 2):
        product = jnp.where(k <= steps, product * (1 - k * r), product)
    lifted = safe * jnp.log1p(steps / safe) - steps - jnp.log(product) + _log_gamma_tail(r)
    return jnp.where(far, excess, jnp.where(middle, lifted, low))


def _lifted(x: Array) -> tuple[Array, Array, Array, Array]:
    """Which x are in [3, 9); these (5 for the others); how many steps lift them to z in [9, 10); 1/z.

    There the leading terms of Stirling are 30 times what they leave, but of one step they are not.
    """
    middle = (x >= 3) & (x < _FAR)
    safe = jnp.where(middle, x, 5.0)
    steps = _FAR - jnp.floor(safe)
    return middle, safe, steps, 1 / (safe + steps)


def _log_gamma_parts(x: Array) -> tuple[Array, Array, Array]:
    """Which x are ≥ 9, log Γ of the others, and Stirling's remainder of the first."""
    far, near, over, steps, r = _split(x)
    product = jnp.where(near < 1, near, 1.0)
    for k in range(_FAR - 2):
        product = jnp.where(k < steps, product * (over + (1 + k)), product)
    log = jnp.log(product)
    inner = over * (over - 1) * _series(_LOG_GAMMA, 2 * over - 1)
    return far, inner + jnp.where(near < 1, -log, log), _log_gamma_tail(r)


def _log_gamma_tail(r: Array) -> Array:
    """Stirling's remainder ½ log 2πr + r/12 − … for r = 1/x, x ≥ 9."""
    return 0.5 * (math.log(2 * math.pi) + jnp.log(r)) + r * _series(_FOR_LOG_GAMMA, r * r)


@jax.custom_jvp
def _digamma(x: Array) -> Array:
    far, near_value, excess = _digamma_parts(x)
    return jnp.where(far, jnp.log(jnp.where(far, x, 1.0)) + excess, near_value)


@jax.custom_jvp
def _digamma_excess(x: Array) -> Array:
    far, near_value, excess = _digamma_parts(x)
    low = near_value - jnp.log(jnp.where(far, 1.0, x))
    middle, safe, steps, r = _lifted(x)
    above, below = jnp.zeros_like(x), jnp.ones_like(x)  # Σ 1/(x + k) as a fraction
    for k in range(_FAR - 3):
        more, term = k < steps, safe + k
        above = jnp.where(more, above * term + below, above)
        below = jnp.where(more, below * term, below)
    lifted = (jnp.log1p(steps / safe) - above / below) + _digamma_tail(r)
    return jnp.where(far, excess, jnp.where(middle, lifted, low))


def _digamma_parts(x: Array) -> tuple[Array, Array, Array]:
    """Which x are ≥ 9, ψ of the others, and ψ(x) − log x of the first."""
    far, near, over, steps, r = _split(x)
    above = jnp.where(near < 1, -1.0, 0.0)  # the sum of 1/(z + k), or −1/x below 1, as a fraction
    below = jnp.where(near < 1, near, 1.0)
    for k in range(_FAR - 2):
        more = k < steps
        above = jnp.where(more, above * (over + (1 + k)) + below, above)
        below = jnp.where(more, below * (over + (1 + k)), below)
    high = np.asarray(_ROOT[0], x.dtype)
    low = _ROOT[0] - float(high) + _ROOT[1]
    # (z − high − low)·P, but a compiler would add the two constants first. P is ψ₁ at the root.
    inner = (over - high) * _series(_DIGAMMA, 2 * over - 1) - low * _SLOPE
    return far, inner + above / below, _digamma_tail(r)


def _digamma_tail(r: Array) -> Array:
    """ψ(x) − log x for r = 1/x, x ≥ 9."""
    return -r * (0.5 + r * _series(_FOR_DIGAMMA, r * r))


def _trigamma_excess(x: Array) -> Array:
    far = x >= _FAR
    near, r = jnp.where(far, 1.0, x), 1 / jnp.where(far, x, 1.0)
    expanded = r * r * (0.5 + r * _series(_BERNOULLI, r * r))
    return jnp.where(far, expanded, _polygamma(1, near) - 1 / near)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _polygamma(order: int, x: Array) -> Array:
    m, far = order, _FAR + order // 2  # the expansion's terms grow with the order
    small = x < far
    near = jnp.where(small, x, 1.0)
    r = 1 / jnp.where(small, x + far, x)
    # B₂ₖ (2k+m−1)!/((2k)! (m−1)!)
    coefficients = _scaled_bernoulli(lambda n: math.comb(n + m - 1, m - 1))
    tail = r**m * (1 + r * (m / 2 + r * _series(coefficients, r * r)))
    terms = [(1 / (near + k)) ** (m + 1) for k in reversed(range(far))]  # the small ones first
    whole = math.factorial(m - 1) * (tail + jnp.where(small, m * sum(terms), 0.0))
    return whole if m % 2 else -whole


@jax.custom_jvp
def _inverse_digamma(y: Array) -> Array:
    a = 1 / jnp.logaddexp(0.0, -y)
    bounded = jnp.minimum(a, 1e3)  # beyond, the correction is below what Newton's steps mend
    correction = _series((1.0, 2.27, 8.45, 13.85), bounded)
    x = a * (1 + 0.5772 * bounded / correction)
    reachable = (x > 0) & (x < jnp.inf)
    x = jnp.where(reachable, x, 1.0)
    for _ in range(3):
        x = x - (_digamma(x) - y) / _polygamma(1, x)
    return jnp.where(reachable, x, jnp.where(a == jnp.inf, a, jnp.nan))


@jax.custom_jvp
def _inverse_digamma_excess(y: Array) -> Array:
    root = jnp.sqrt((y - 3) * (y - 3) + 24 * y)
    small = y < 3
    low = jnp.where(small, y, 1.0)
    x = jnp.where(small, (3 - low + root) / (12 * low), 2 / (root + (y - 3)))
    x = jnp.where(y > 1e15, 1 / jnp.where(y > 1e15, y, 1.0), x)  # (y − 3)² may overflow
    usable = (x > 0) & (x < jnp.inf)
    x = jnp.where(usable, x, 1.0)
    for _ in range(3):
        reached = -_digamma_excess(x)
        x = x * jnp.exp(_log_ratio(reached, y) * reached / (x * _trigamma_excess(x)))
    return jnp.where(usable, x, jnp.where(y > 0, 1 / y, jnp.nan))


def _log_ratio(a: Array, b: Array) -> Array:
    """log a/b where it is small, to first order in 1 − a/b twice over."""
    s = (a - b) / (a + b)
    return 2 * s


@_inverse_digamma_excess.defjvp
def _inverse_digamma_excess_jvp(primals, tangents):
    x = _inverse_digamma_excess(*primals)
    return x, -tangents[0] / _trigamma_excess(x)


_log_gamma.defjvp(lambda p, t: (_log_gamma(p[0]), _digamma(p[0]) * t[0]))
_log_gamma_excess.defjvp(lambda p, t: (_log_gamma_excess(p[0]), _digamma_excess(p[0]) * t[0]))
_digamma.defjvp(lambda p, t: (_digamma(p[0]), _polygamma(1, p[0]) * t[0]))
_digamma_excess.defjvp(lambda p, t: (_digamma_excess(p[0]), _trigamma_excess(p[0]) * t[0]))
_polygamma.defjvp(lambda m, p, t: (_polygamma(m, p[0]), _polygamma(m + 1, p[0]) * t[0]))


@_inverse_digamma.defjvp
def _inverse_digamma_jvp(primals, tangents):
    x = _inverse_digamma(*primals)
    return x, tangents[0] / _polygamma(1, x)
