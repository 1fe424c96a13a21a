"""Modified Bessel functions of real order: logarithms, ratios and their inverse, to a few ε.

I serves the laws of von Mises and Fisher, K the generalized inverse Gaussian ones. All functions are
elementwise, follow the dtype of their arguments (a Python number as order has none), and are NaN, as
are their derivatives, outside their domain and for NaN. Measured errors are the largest over grids
with orders up to 2e5 and x from 1e-300 (float32: 1e-30) to 1e12, in either precision.

I rests on two expansions. Debye's goes in powers of 1/w, w = √(ν² + x²), with polynomials in
q = ν²/w²: Stirling's at q = 1, Hankel's at q = 0. It serves all that is far from the origin, that is
ν or x above 25. Near it there are series of positive terms. What cancels in the textbook's formulas
for A = I_{ν+1}/I_ν, which are 1 − A and A′, has its own expansion here in both places; near,

    A′ = ₁F₂(ν + ½; 2ν + 2, ν + 2; x²) / (2(ν + 1) ₀F₁(ν + 1; x²/4)²),
    1 − A = ((2ν + 1)A/x + A′)/(1 + A).

K is an integral over the line of what is positive there, and its derivatives in ν and x are moments
of the same. The trapezoidal rule is right to the last digit.

An order that is one number costs least. Many orders are best given as an array beside that of x:
they are slow, about 2 µs each, where `jax.vmap` runs over them.

Sources: DLMF 10.32, 10.41; Amos 1974 for bounds of A; Trefethen and Weideman 2014 for the rule.
"""

import functools
import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dualflat.geometry import special
from dualflat.geometry._numerics import exp_excess

_LOG_2PI = math.log(2 * math.pi)


class _Plan(NamedTuple):
    """Up to where the power series serve, and how long they and the expansions are."""

    edge: float
    value: int  # terms of ₀F₁
    slope: int  # terms of ₁F₂
    debye: int  # powers of 1/w
    debye_slope: int

    @property
    def ratio(self) -> "tuple[_Series, _Series]":
        """The series of f and of its neighbour of order ν + 1, that is the factors of order ν + 1."""
        return (_value_factor, 1, self.value), (_next_factor, 1, self.value)

    @property
    def rise(self) -> "_Series":
        return _slope_factor, 1, self.slope


_DOUBLE = _Plan(25.0, 42, 70, 20, 24)
_SINGLE = _Plan(14.0, 22, 36, 9, 11)
_ROUGH = _Plan(10.0, 16, 24, 6, 6)  # to 1e-6, for the first step of the inverse


class _Rule(NamedTuple):
    """The trapezoidal rule for K: its nodes, where the integrand counts as 0, and its longest stretch."""

    nodes: int  # even
    drop: float  # in logarithm below the peak
    reach: float


_RULES = {True: _Rule(128, 42.0, 28.0), False: _Rule(72, 20.0, 26.0)}


def log_iv(nu: ArrayLike, x: Array) -> Array:
    """log I_ν(x) for ν ≥ 0 and x ≥ 0: log 0 = −∞ at x = 0 unless ν = 0.

    Error: 2 ε (w + ν asinh(ν/x)), w = √(ν² + x²) (measured), to which its terms are rounded; that is
    2 ε relative but beside its zeros. Its derivative in x is A + ν/x, in ν it is NaN.

    >>> print(f"{log_iv(0.5, jnp.float32(1.0)):.4f}")  # log(√(2/π) sinh 1)
    -0.0644
    """
    return _log_iv(*_arguments(nu, x))


def log_iv_scaled(nu: ArrayLike, x: Array) -> Array:
    """log(I_ν(x) Γ(ν + 1) (2/x)^ν) = log ₀F₁(ν + 1; x²/4) ≥ 0 for ν ≥ 0 and x ≥ 0.

    x²/(4(ν + 1)) for small x, x − (ν + ½) log x + … for large. Relative error: 2 ε (measured), also
    where it is tiny. Its derivative in x is `bessel_ratio`, in ν it is NaN.
    """
    return _log_iv_scaled(*_arguments(nu, x))


def log_iv_excess(nu: ArrayLike, x: Array) -> Array:
    """`log_iv_scaled` − x ≤ 0, which is −(ν + ½) log x + … far out, never the difference of two x.

    What is left of the logarithm where laws of large x are compared. The derivative is A − 1.
    """
    return _log_iv_excess(*_arguments(nu, x))


def bessel_ratio(nu: ArrayLike, x: Array) -> Array:
    """A = I_{ν+1}(x)/I_ν(x), in [0, 1), for ν ≥ 0 and x ≥ 0. Relative error: 3 ε (measured).

    x/(2(ν + 1)) for small x; 1 − (ν + ½)/x for large, where it rounds to 1 and 1 − A says more. Its
    derivative in x is `bessel_ratio_slope`, in ν it is NaN.

    >>> print(f"{bessel_ratio(0.5, jnp.float32(2.0)):.4f}")  # coth 2 − 1/2
    0.5373
    """
    return _ratio(*_arguments(nu, x))


def bessel_ratio_complement(nu: ArrayLike, x: Array) -> Array:
    """1 − A, in (0, 1], for A = `bessel_ratio`. Relative error: 3 ε (measured)."""
    return _complement(*_arguments(nu, x))


def bessel_ratio_slope(nu: ArrayLike, x: Array) -> Array:
    """A′ = 1 − A² − (2ν + 1)A/x > 0 for A = `bessel_ratio`, without those differences.

    1/(2(ν + 1)) at x = 0, (ν + ½)/x² for large x. Relative error: 9 ε (measured). The derivative
    A″ ≤ 0 has expansions of its own too, right to 140 ε (measured, at the border of the two); higher
    ones are those of its formula.
    """
    return _slope(*_arguments(nu, x))


def inverse_bessel_ratio(nu: ArrayLike, r: Array, complement: Array | None = None) -> Array:
    """The x ≥ 0 with I_{ν+1}(x)/I_ν(x) = r, for ν ≥ 0 and 0 ≤ r < 1.

    Two of Halley's steps, in A where r < ½ and in 1/(1 − A) beyond, which are nearly linear there;
    The start is Amos' x/A = ν + ½ + √(x² + β²) with a fitted β, right to 1e-2, and the first step
    takes short expansions. Error: 6 ε times the condition of the problem (measured), which is
    r/(x A′), about 1/(1 − r), or with `complement` (1 − r)/(x A′) for r ≥ ½, below 2.

    Args:
      complement: 1 − r, for whoever knows it better than a subtraction would. Then r may round to 1,
        and what is solved for r ≥ ½ is 1 − A(x) = complement. It is taken to say what r says: the
        derivative, 1/A′ at every order, goes by r alone.
    """
    dtype = jnp.result_type(float, nu, r, *(() if complement is None else (complement,)))
    (nu, known), r = _order(nu, dtype), jnp.asarray(r, dtype)
    rest = 1 - r if complement is None else jnp.asarray(complement, dtype)
    valid = (r >= 0) & (r <= 1) & (rest > 0) & (rest <= 1)
    return _inverse(nu, r * jnp.where(valid, known, jnp.nan), jax.lax.stop_gradient(rest))


def log_kv(nu: ArrayLike, x: Array) -> Array:
    """log K_ν(x) for any real ν and x > 0; even in ν.

    Error: 4 ε (1 + w + |ν| asinh(|ν|/x)), w = √(ν² + x²) (measured), to which its terms are rounded;
    that is a few ε relative but beside its zeros. It has derivatives in ν and x of every order. The
    first and second are relatively right, to 60 ε in ν and 150 ε in x (measured), as far as
    (K_{ν+1}/K_ν)² is a number; from the third on they are differences, right to the size of their terms.

    >>> print(f"{log_kv(0.5, jnp.float32(1.0)):.4f}")  # log(√(π/2) exp −1)
    -0.7742
    """
    nu, x = _orders(nu, x)
    return _log_kv(jnp.where(nu < 0, -nu, nu), x)


def log_kv_moments(nu: ArrayLike, x: Array) -> tuple[Array, Array, Array]:
    """log K_ν(x), and mean and covariance of (log y, y, 1/y) for y ∝ y^(ν−1) exp(−x(y + 1/y)/2).

    That is the generalized inverse Gaussian law of scale 1, whose integral over y > 0 is 2K_ν(x).

    Returns:
      shapes (…), (…, 3) and (…, 3, 3). Relative error: 150 ε (measured), entry by entry: all are
      sums of positive terms, or of differences from the mode (500 ε where x < 1e-100). +∞ or NaN
      where a second moment of y or 1/y, as it is or over that of the mode, is beyond the largest
      number. Not meant to be differentiated, as `log_kv` is.
    """
    nu, x = _orders(nu, x)
    size = jnp.where(nu < 0, -nu, nu)
    frame = _kv_frame(size, x)
    scale = jnp.exp(frame.mode)

    def terms(node: _Node) -> list[Array]:
        # y/y* = exp u at t and exp −a at −t, where y* = exp t* = (w + ν)/x; y and r are that less 1.
        # y*/y may be so large where the mass is so small that they belong together: once and twice.
        u, a = node.shift, node.t + frame.mode
        y, r = jnp.expm1(u), jnp.expm1(-a)
        up, down, log, back = node.up, node.down, node.here, node.there
        under = -2 * frame.nu * node.t - node.fall
        once, twice = (node.speed * jnp.exp(-k * u - node.fall) for k in (1, 2))
        once_, twice_ = (node.speed * jnp.exp(k * a + under) for k in (1, 2))
        return [
            node.t * node.odd,
            up * (y + 1) + down * jnp.exp(-a),
            once + once_,
            up * log + down * back,
            up * y + down * r,
            -(once * y + once_ * r),
            up * log * log + down * back * back,
            up * log * y + down * back * r,
            -(once * log * y + once_ * back * r),
            up * y * y + down * r * r,
            -(once * y * y + once_ * r * r),
            twice * y * y + twice_ * r * r,
        ]

    log, y, z, *rest = _kv_means(frame, terms)
    firsts, seconds = rest[:3], rest[3:]
    units = (1.0, scale, 1 / scale)
    pairs = itertools.combinations_with_replacement(range(3), 2)
    cov: list[list] = [[None] * 3 for _ in range(3)]
    for (i, j), both in zip(pairs, seconds, strict=True):
        value = both - firsts[i] * firsts[j]
        if i == j or 0 in (i, j):  # else they cancel
            value = value * units[i] * units[j]
        cov[i][j] = cov[j][i] = value
    mean = [log, y * scale, z / scale]
    # the negative orders: y and 1/y change places
    turn = nu < 0
    swap, sign = (0, 2, 1), (-1, 1, 1)
    mean = [jnp.where(turn, sign[i] * mean[swap[i]], mean[i]) for i in range(3)]
    cov = [
        [jnp.where(turn, sign[i] * sign[j] * cov[swap[i]][swap[j]], cov[i][j]) for j in range(3)]
        for i in range(3)
    ]
    covariance = jnp.stack([jnp.stack(row, -1) for row in cov], -2)
    return _log_kv(size, x), jnp.stack(mean, -1), covariance


@jax.custom_jvp
def _fixed(nu: Array) -> Array:
    """An order in which nothing is differentiated: whoever tries is told NaN."""
    return nu


_fixed.defjvp(lambda p, t: (p[0], jnp.nan * t[0]))


def _arguments(nu: ArrayLike, x: Array) -> tuple[Array, Array]:
    """ν and x of one dtype, 0 and NaN, in the derivative too, where they are not in the domain."""
    dtype = jnp.result_type(float, nu, x)
    x = jnp.asarray(x, dtype)
    nu, known = _order(nu, dtype)
    return nu, x * jnp.where((x >= 0) & (x < jnp.inf), known, jnp.nan)


def _order(nu: ArrayLike, dtype: jnp.dtype) -> tuple[Array, Array]:
    """The order, and 1; 0 and NaN where it is none. Its shape is its own: a scalar's series are too."""
    nu = _fixed(jnp.asarray(nu, dtype))
    valid = (nu >= 0) & (nu < jnp.inf)
    return jnp.where(valid, nu, 0.0), jnp.where(valid, 1.0, jnp.nan).astype(dtype)


def _plan(x: Array) -> _Plan:
    return _DOUBLE if float(jnp.finfo(x.dtype).eps) < 1e-10 else _SINGLE


_Rows = tuple[tuple[float, ...], ...]


@functools.cache
def _debye(count: int) -> tuple[_Rows, _Rows, _Rows, _Rows]:
    """Debye's polynomials in q = ν²/w², w² = ν² + x²: Q, R, T, U, a row for each power of 1/w.

    With E = x (log I_ν)′ = w + Σ (1 − q)Rₖ(q)/wᵏ, Bessel's equation is x E′ + E² = w², and
    x d/dx (P(q)/wᵏ) = −(1 − q)(k P + 2q P′)/wᵏ: that gives Rₖ₊₁ from the ones before. Then

        log I_ν = w + ν log(x/(w + ν)) − ½ log(2πw) + Σ Q/wᵏ⁺¹,    A = x/(w + ν) + (x/w²) Σ R/wᵏ,
        A′ = ν/(w(w + ν)) + Σ T/wᵏ⁺²,    A″ = −νx(2w + ν)/(w³(w + ν)²) + (x/w⁴) Σ U/wᵏ,   k ≥ 0.
    """

    def times(a, b):
        product = [Fraction(0)] * (len(a) + len(b) - 1)
        for i, p in enumerate(a):
            for j, q in enumerate(b):
                product[i + j] += p * q
        return product

    def plus(*parts):
        length = max(map(len, parts))
        return [sum((p[i] for p in parts if i < len(p)), Fraction(0)) for i in range(length)]

    def drift(k, row):  # −(k P + 2q P′)
        return [-(k + 2 * j) * c for j, c in enumerate(row)]

    rest = [Fraction(1), Fraction(-1)]  # 1 − q
    ratio = [[Fraction(-1, 2)]]
    for k in range(count):
        squares = plus(*(times(ratio[i], ratio[k - i]) for i in range(k + 1)))
        whole = plus(drift(k, times(rest, ratio[k])), times(rest, squares))
        ratio.append([-c / 2 for c in whole][: k + 2])  # the power k + 2 cancels
    log = [[-c / (k + 2 * j) for j, c in enumerate(row)] for k, row in enumerate(ratio) if k]
    slope = [plus(row, times(rest, drift(k + 2, row))) for k, row in enumerate(ratio)]
    bend = [drift(k + 2, row) for k, row in enumerate(slope)]
    tables = (log, ratio, slope, bend)
    log, ratio, slope, bend = (tuple(tuple(map(float, r)) for r in t) for t in tables)
    return log, ratio, slope, bend


def _table(rows: _Rows, q: Array, r: Array) -> Array:
    """Σₖ rᵏ Pₖ(q)."""
    total = jnp.zeros_like(q)
    for row in rows[::-1]:
        total = total * r + special._series(row, q)
    return total


def _value_factor(nu: Array, k: Array) -> Array:
    """The quotient of two terms of ₀F₁(ν + 1; y), over y."""
    return 1 / (k * (nu + k))


def _next_factor(nu: Array, k: Array) -> Array:
    """Of ₀F₁(ν + 2; y)."""
    return 1 / (k * (nu + (k + 1)))


def _slope_factor(nu: Array, k: Array) -> Array:
    """Of ₁F₂(ν + ½; 2ν + 2, ν + 2; 4y)."""
    return (4 * nu + (4 * k - 2)) / (k * (2 * nu + (k + 1)) * (nu + (k + 1)))


def _bend_factor(nu: Array, k: Array) -> Array:
    """Of ₁F₂(ν + 3/2; 2ν + 3, ν + 3; 4y), to which the derivative of the former is proportional."""
    return (4 * nu + (4 * k + 2)) / (k * (2 * nu + (k + 2)) * (nu + (k + 2)))


_Series = tuple[Callable[[Array, Array], Array], int, int]  # factor, first k, even number of terms


def _sums(nu: Array, y: Array, *series: _Series) -> tuple[Array, ...]:
    """Each of the series 1 + c₁y(1 + c₂y(1 + …)), all in one loop of two turns.

    It is a loop to be a wall: what is used twice XLA computes twice, and what is made of it four
    times. The factors of a scalar order are computed once, not for each x.
    """
    scalar = nu.ndim == 0
    tables = []
    for factor, first, count in series:
        k = jnp.asarray(np.arange(first + count - 1, first - 1, -1).reshape(2, -1), y.dtype)
        tables.append(factor(nu, k) if scalar else k)

    def half(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        result = []
        for total, table, (factor, _, count) in zip(sums, tables, series, strict=True):
            row = table[i]
            for j in range(count // 2):
                c = row[j] if scalar else factor(nu, row[0] - j)
                total = 1 + (y * c) * total
            result.append(total)
        return tuple(result)

    ones = jnp.ones(jnp.broadcast_shapes(nu.shape, y.shape), y.dtype)
    return jax.lax.fori_loop(0, 2, half, (ones,) * len(series))


def _walled(value: Array) -> Array:
    """`value`, finished: whoever reads it in several places reads an array.

    XLA (that of JAX 0.10 on a CPU) else writes out the expansion anew for each reader and each way of
    indexing, which under nested `vmap` is beyond any memory. A loop of two turns is a wall to it;
    `optimization_barrier` is not.
    """
    return jax.lax.fori_loop(0, 2, lambda i, held: jnp.where(i > 0, value, held), value)


def _frame(nu: Array, x: Array) -> tuple[Array, Array, Array, Array]:
    """w = √(ν² + x²), x/w, ν/w and x/(w + ν), also where squares would overflow."""
    big = jnp.maximum(nu, x)
    a, b = nu / big, x / big
    root = jnp.sqrt(a * a + b * b)
    return big * root, b / root, a / root, b / (root + a)


def _split(nu: Array, x: Array, plan: _Plan) -> tuple[Array, Array, Array]:
    """Where the series serve; x there and 0 elsewhere; x elsewhere and the edge there."""
    near = (x < plan.edge) & (nu < plan.edge)
    return near, jnp.where(near, x, 0.0), jnp.where(near, plan.edge, x)


def _over_x(nu: Array, f: Array, above: Array) -> Array:
    """A/x by ₀F₁(ν + 1; x²/4) and ₀F₁(ν + 2; x²/4)."""
    return above / ((2 * nu + 2) * f)


def _near_complement(nu: Array, x: Array, per: Array, slope: Array) -> Array:
    a = x * per
    return jnp.where(a < 0.5, 1 - a, ((2 * nu + 1) * per + slope) / (1 + a))


@jax.custom_jvp
@jax.jit
def _log_iv_scaled(nu: Array, x: Array) -> Array:
    return _walled(_log_scaled(nu, x, less=False))


@jax.custom_jvp
@jax.jit
def _log_iv_excess(nu: Array, x: Array) -> Array:
    return _walled(_log_scaled(nu, x, less=True))


def _log_scaled(nu: Array, x: Array, *, less: bool) -> Array:
    """log ₀F₁(ν + 1; x²/4), if `less` minus x, which is taken from w − ν where that is large."""
    plan = _plan(x)
    near, _, _ = _split(nu, x, plan)
    near = near | (x < jnp.sqrt(nu + 1))  # below ¼, Debye's terms would not resolve it
    small, large = jnp.where(near, x, 0.0), jnp.where(near, plan.edge, x)
    y = 0.25 * small * small
    (rest,) = _sums(nu, y, (_value_factor, 2, plan.value))
    series = jnp.log1p((y / (nu + 1)) * rest)
    # w − ν = x s and log((w + ν)/2ν) = log(1 + x s/2ν). Where Stirling's expansion of Γ(ν + 1) serves,
    # its leading terms are taken together with those of I.
    w, b, p, s = _frame(nu, large)
    gap = large * s
    order = jnp.where(nu > 0, nu, 1.0)
    lead = -large * _lead(b, p) if less else gap
    main = lead - jnp.where(nu > 0, nu * jnp.log1p(0.5 * gap / order), 0.0)
    wide = nu >= special._FAR
    r = 1 / jnp.where(wide, nu, special._FAR)
    stirling = r * special._series(special._FOR_LOG_GAMMA, r * r) - 0.5 * jnp.log1p(r * gap)
    below = jnp.where(wide | (nu == 0), 1.0, nu)
    gamma = special.log_gamma(below + 1) - below * jnp.log(below) + below
    gamma = jnp.where(nu > 0, gamma, 0.0) - 0.5 * (_LOG_2PI + jnp.log(w))
    log, *_ = _debye(plan.debye)
    rest = jnp.where(wide, stirling, gamma) + _table(log, p * p, 1 / w) / w
    return jnp.where(near, series - small if less else series, main + rest)


@jax.custom_jvp
@jax.jit
def _log_iv(nu: Array, x: Array) -> Array:
    plan = _plan(x)
    near, small, large = _split(nu, x, plan)
    y = 0.25 * small * small
    half = jnp.where(nu > 0, 0.5 * small, 1.0)
    (rest,) = _sums(nu, y, (_value_factor, 2, plan.value))
    series = jnp.log1p((y / (nu + 1)) * rest)
    series = series + (jnp.where(nu > 0, nu * jnp.log(half), 0.0) - special.log_gamma(nu + 1))
    w, _, p, s = _frame(nu, large)
    log, *_ = _debye(plan.debye)
    rest = _table(log, p * p, 1 / w) / w - 0.5 * (_LOG_2PI + jnp.log(w))
    return _walled(jnp.where(near, series, (w + nu * jnp.log(s)) + rest))


@jax.custom_jvp
@jax.jit
def _ratio(nu: Array, x: Array) -> Array:
    plan = _plan(x)
    near, small, large = _split(nu, x, plan)
    per = _over_x(nu, *_sums(nu, 0.25 * small * small, *plan.ratio))
    w, b, p, s = _frame(nu, large)
    _, ratio, *_ = _debye(plan.debye)
    return _walled(jnp.where(near, small * per, s + (b / w) * _table(ratio, p * p, 1 / w)))


@jax.custom_jvp
@jax.jit
def _complement(nu: Array, x: Array) -> Array:
    plan = _plan(x)
    near, small, large = _split(nu, x, plan)
    f, above, g = _sums(nu, 0.25 * small * small, *plan.ratio, plan.rise)
    series = _near_complement(nu, small, _over_x(nu, f, above), g / ((2 * nu + 2) * f * f))
    w, b, p, _ = _frame(nu, large)
    _, ratio, *_ = _debye(plan.debye)
    return _walled(jnp.where(near, series, _lead(b, p) - (b / w) * _table(ratio, p * p, 1 / w)))


def _lead(b: Array, p: Array) -> Array:
    """1 − x/(w + ν), where b = x/w and p = ν/w."""
    return p * (1 + p / (1 + b)) / (1 + p)


@jax.custom_jvp
@jax.jit
def _slope(nu: Array, x: Array) -> Array:
    plan = _plan(x)
    near, small, large = _split(nu, x, plan)
    f, g = _sums(nu, 0.25 * small * small, plan.ratio[0], plan.rise)
    w, _, p, _ = _frame(nu, large)
    _, _, slope, _ = _debye(plan.debye_slope)
    r = 1 / w
    far = r * (p / (1 + p) + r * _table(slope, p * p, r))
    return _walled(jnp.where(near, g / ((2 * nu + 2) * f * f), far))


@jax.jit
def _bend(nu: Array, x: Array) -> Array:
    """A″. Near, 2(ν + 1)A′ = g/f², and the derivatives of f and g are series of the same kind."""
    plan = _plan(x)
    near, small, large = _split(nu, x, plan)
    bend = (_bend_factor, 1, plan.slope)
    f, above, g, h = _sums(nu, 0.25 * small * small, *plan.ratio, plan.rise, bend)
    series = (
        small * ((2 * nu + 1) / (nu + 2) * h - 2 * g * (above / f)) / (2 * nu + 2) ** 2 / (f * f)
    )
    w, b, p, _ = _frame(nu, large)
    *_, bend = _debye(plan.debye_slope)
    r = 1 / w
    far = b * (r * (r * (r * _table(bend, p * p, r) - p * (2 + p) / (1 + p) ** 2)))
    return _walled(jnp.where(near, series, far))


def _step(nu: Array, x: Array, r: Array, rest: Array, plan: _Plan) -> Array:
    """Halley's step from x towards A(x) = r, in A or in 1/(1 − A); all of it relative to x."""
    near, small, large = _split(nu, x, plan)
    f, above, g = _sums(nu, 0.25 * small * small, *plan.ratio, plan.rise)
    per, slope = _over_x(nu, f, above), g / ((2 * nu + 2) * f * f)
    near_bend = -2 * small * small * per - (2 * nu + 1) * (1 - per / slope)  # x A″/A′
    w, b, p, s = _frame(nu, large)
    _, rows, *_ = _debye(plan.debye)
    i, q = 1 / w, p * p
    fall = (b * i) * _table(rows, q, i)
    _, _, slopes, bends = _debye(min(plan.debye_slope, plan.debye))
    scaled = p / (1 + p) + i * _table(slopes, q, i)
    far_bend = b * b * (i * _table(bends[:2], q, i) - p * (2 + p) / (1 + p) ** 2) / scaled

    a = jnp.where(near, small * per, s + fall)
    c = jnp.where(near, _near_complement(nu, small, per, slope), _lead(b, p) - fall)
    rise = jnp.where(near, small * slope, b * scaled)  # x A′
    bend = jnp.where(near, near_bend, far_bend)
    high = r >= 0.5
    newton = jnp.where(high, (c - rest) * (c / rest), r - a) / rise
    bend = jnp.where(high, bend + 2 * rise / c, bend)
    move = newton / jnp.maximum(1 + 0.5 * newton * bend, 0.25)
    return x + x * jnp.clip(move, -0.5, 1.0)


@jax.custom_jvp
@jax.jit
def _inverse(nu: Array, r: Array, rest: Array) -> Array:
    inside = r > 0
    safe, left = jnp.where(inside, r, 0.5), jnp.where(inside, rest, 0.5)
    q, gap = safe * safe, left * (1 + safe)  # 1 − r²
    bump = gap / (1 + q) * (1 + 2.2 / (1 + 1.2 * nu) * q * gap)
    alpha = nu + 0.5
    root = jnp.sqrt((alpha * alpha) * q + gap * ((nu + 1.5) * (alpha + bump)))
    x = safe * (alpha + root) / gap
    x = _step(nu, x, safe, left, _ROUGH)
    x = _step(nu, x, safe, left, _plan(x))
    return jnp.where(inside, x, r)  # 0, or NaN


_log_iv_scaled.defjvp(lambda p, t: (_log_iv_scaled(*p), _ratio(*p) * t[1] + t[0]))
_log_iv_excess.defjvp(lambda p, t: (_log_iv_excess(*p), -_complement(*p) * t[1] + t[0]))
_ratio.defjvp(lambda p, t: (_ratio(*p), _slope(*p) * t[1] + t[0]))
_complement.defjvp(lambda p, t: (_complement(*p), -_slope(*p) * t[1] + t[0]))
_slope.defjvp(lambda p, t: (_slope(*p), _bend(*p) * t[1] + t[0]))


@_log_iv.defjvp
def _log_iv_jvp(primals, tangents):
    nu, x = primals
    pole = jnp.where(nu > 0, nu / jnp.where(nu > 0, x, 1.0), 0.0)
    return _log_iv(nu, x), (_ratio(nu, x) + pole) * tangents[1] + tangents[0]


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
    x = _inverse(*primals)
    return x, tangents[1] / _slope(primals[0], x) + tangents[0]


def _orders(nu: ArrayLike, x: Array) -> tuple[Array, Array]:
    """ν and x of one dtype and shape, NaN, in the derivative too, outside the domain."""
    dtype = jnp.result_type(float, nu, x)
    nu, x = jnp.broadcast_arrays(jnp.asarray(nu, dtype), jnp.asarray(x, dtype))
    valid = (x > 0) & (x < jnp.inf) & (jnp.abs(nu) < jnp.inf)
    known = jnp.where(valid, 1.0, jnp.nan).astype(dtype)
    return nu * known, x * known


class _Frame(NamedTuple):
    """Where the integrand of K lies, for ν ≥ 0, and how it is walked."""

    nu: Array
    x: Array
    w: Array
    gap: Array  # w − ν
    crest: Array  # w/x = cosh t*
    mode: Array  # t* = asinh(ν/x), where it is largest
    broad: Array  # is the peak wider than t*? Then moments are about 0, else about t*.
    whole: Array  # does the walk begin at t = 0?
    left: Array
    stretch: Array
    plateau: Array


class _Node(NamedTuple):
    t: Array
    shift: Array  # t − t*
    here: Array  # t less what moments are about
    there: Array  # −t less the same
    up: Array  # the integrand at t, over its peak, times the step
    down: Array  # at −t
    odd: Array  # up − down
    speed: Array  # dt/dv
    fall: Array  # up is speed · exp −fall


def _kv_frame(nu: Array, x: Array) -> _Frame:
    """With u = t − t* the integrand is exp(νt* − w − g), g = (w − ν)(cosh u − 1) + ν(exp u − 1 − u).

    Both terms are positive. g is above d from u = 2 asinh √(d/2w) on, and below −u where either of
    its terms is; ν less 2 stands for ν there, so that 1/y² counts as well. Where the mode is so near
    0 that t = 0 counts, or the stretch is long, the walk begins at 0: the integrand, with that at −t,
    is even in t, so the end costs nothing. A long stretch, that is a tiny x, is a plateau between
    t = ±log 1/x, and t = v + M tanh(v/4) walks fast over its middle.
    """
    rule = _RULES[float(jnp.finfo(x.dtype).eps) < 1e-10]
    w, b, p, s = _frame(nu, x)
    steep = b < 0.1  # there ν/x may overflow
    ratio = (p + p * p / (1 + b)) / jnp.where(steep, 1.0, b)
    mode = jnp.where(steep, jnp.log(w) + jnp.log1p(p) - jnp.log(x), jnp.log1p(ratio))
    half = math.sqrt(0.5 * rule.drop)
    right = 2 * jnp.arcsinh(half / jnp.sqrt(w))
    kappa = rule.drop / jnp.maximum(nu - 2, 1e-3)
    left = jnp.minimum(
        0.5 * (kappa + jnp.sqrt(kappa * kappa + 8 * kappa)),
        2 * jnp.arcsinh(half / (jnp.sqrt(x) * jnp.sqrt(s))),
    )
    whole = (left >= mode) | (left + right > rule.reach)
    length = right + jnp.where(whole, mode, left)
    plateau = jnp.maximum(length - rule.reach, 0.0)
    broad = mode * jnp.sqrt(w) < 1
    stretch = jnp.minimum(length, rule.reach)
    return _Frame(nu, x, w, x * s, 1 / b, mode, broad, whole, left, stretch, plateau)


def _kv_sums(frame: _Frame, terms: Callable[[_Node], list[Array]]) -> tuple[Array, ...]:
    """∫ exp(νt − x cosh t) dt over its largest value, and the means of what `terms` makes of a node.

    One loop over the nodes: nothing of the size of all of them is ever stored.
    """
    rule = _RULES[float(jnp.finfo(frame.x.dtype).eps) < 1e-10]

    def visit(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
        pair = []
        for j in range(2):
            k = (2 * i + j).astype(frame.x.dtype)
            step = frame.stretch * (k / (rule.nodes - 1))
            bow = jnp.tanh(0.25 * step)
            walked = step + frame.plateau * bow
            shift = walked - jnp.where(frame.whole, frame.mode, frame.left)
            t = jnp.where(frame.whole, walked, frame.mode + shift)
            end = jnp.where((k == 0) | (k == rule.nodes - 1), 0.25, 0.5)
            speed = end * (1 + 0.25 * frame.plateau * (1 - bow) * (1 + bow))
            rise, back = exp_excess(shift), exp_excess(-shift)
            fall = frame.gap * (0.5 * (rise + back)) + frame.nu * rise
            up = speed * jnp.exp(-fall)
            here = jnp.where(frame.broad, t, shift)
            there = jnp.where(frame.broad, -t, -(shift + 2 * frame.mode))
            under = -2 * frame.nu * t
            down, odd = up * jnp.exp(under), -up * jnp.expm1(under)
            node = _Node(t, shift, here, there, up, down, odd, speed, fall)
            pair.append([node.up + node.down, *terms(node)])
        return tuple(s + (p + q) for s, p, q in zip(sums, *pair, strict=True))

    zero = jnp.zeros_like(frame.x)
    shapes = jax.eval_shape(terms, _Node(*[zero] * len(_Node._fields)))
    sums = jax.lax.fori_loop(0, rule.nodes // 2, visit, (zero,) * (1 + len(shapes)))
    return (sums[0] * (frame.stretch / (rule.nodes - 1)), *(s / sums[0] for s in sums[1:]))


def _kv_means(frame: _Frame, terms: Callable[[_Node], list[Array]]) -> tuple[Array, ...]:
    return _kv_sums(frame, terms)[1:]


def _lift(frame: _Frame, node: _Node) -> Array:
    """cosh t − cosh t*."""
    close = jnp.abs(node.shift) < 1
    u = jnp.where(close, node.shift, 0.0)
    near = frame.crest * (0.5 * (exp_excess(u) + exp_excess(-u))) + frame.nu / frame.x * jnp.sinh(u)
    return jnp.where(close, near, jnp.cosh(node.t) - frame.crest)


@jax.custom_jvp
@jax.jit
def _log_kv(nu: Array, x: Array) -> Array:
    frame = _kv_frame(nu, x)
    (total,) = _kv_sums(frame, lambda node: [])
    return (nu * frame.mode - frame.w) + jnp.log(total)


@jax.custom_jvp
@jax.jit
def _kv_slopes(nu: Array, x: Array) -> tuple[Array, Array]:
    """∂/∂ν and −∂/∂x of log K: the means of t and of cosh t."""
    frame = _kv_frame(nu, x)

    def terms(node: _Node) -> list[Array]:
        return [node.t * node.odd, _lift(frame, node) * (node.up + node.down)]

    log, lift = _kv_means(frame, terms)
    return log, frame.crest + lift


_Powers = tuple[tuple[int, int], ...]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
@functools.partial(jax.jit, static_argnums=0)
def _kv_raw(powers: _Powers, nu: Array, x: Array) -> tuple[Array, ...]:
    """The means of t′ᵃ(cosh t − cosh t*)ᵇ for these a, b, where t′ is t or t − t*.

    What is subtracted is a constant: d E f = E f(t′dν − cosh t dx) − E f E(t′dν − cosh t dx).
    """
    frame = _kv_frame(nu, x)

    def terms(node: _Node) -> list[Array]:
        lift = _lift(frame, node)

        def both(a: int) -> Array:
            apart = node.up * node.here**a + node.down * node.there**a
            return jnp.where(frame.broad, node.odd * node.t**a, apart) if a % 2 else apart

        return [both(a) * lift**b for a, b in powers]

    return _kv_means(frame, terms)


def _kv_bends(nu: Array, x: Array) -> tuple[Array, Array, Array]:
    """Variance of t, covariance, variance of cosh t."""
    t, c, tt, tc, cc = _kv_raw(((1, 0), (0, 1), (2, 0), (1, 1), (0, 2)), nu, x)
    return tt - t * t, tc - t * c, cc - c * c


@_log_kv.defjvp
def _log_kv_jvp(primals, tangents):
    log, cosh = _kv_slopes(*primals)
    return _log_kv(*primals), log * tangents[0] - cosh * tangents[1]


@_kv_slopes.defjvp
def _kv_slopes_jvp(primals, tangents):
    both, cross, cosh = _kv_bends(*primals)
    nu, x = tangents
    return _kv_slopes(*primals), (both * nu - cross * x, cross * nu - cosh * x)


@_kv_raw.defjvp
def _kv_raw_jvp(powers, primals, tangents):
    nu, x = tangents
    more = tuple((a + 1, b) for a, b in powers) + tuple((a, b + 1) for a, b in powers)
    means = _kv_raw(powers, *primals)
    t, c, *rest = _kv_raw(((1, 0), (0, 1), *more), *primals)
    with_t, with_c = rest[: len(powers)], rest[len(powers) :]
    moved = tuple(
        (f - m * t) * nu - (g - m * c) * x for m, f, g in zip(means, with_t, with_c, strict=True)
    )
    return means, moved
