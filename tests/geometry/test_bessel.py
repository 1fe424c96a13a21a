"""The Bessel functions against mpmath, in both precisions: where it hurts, and how much it may."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import bessel

# The largest error in ε there may be, in float64 and float32, a little above what is measured on
# these points. Who makes one smaller lowers its number here.
MOST = {
    "log_iv_scaled": (2, 2.5),
    "log_iv": (1.5, 1.5),  # over w + ν asinh(ν/x) or, if that is larger, 1
    "bessel_ratio": (3, 3.5),
    "bessel_ratio_complement": (2.5, 2.5),
    "bessel_ratio_slope": (9, 6),
    "second derivative of A": (140, 70),
    "inverse_bessel_ratio": (6, 6),  # times the condition of the problem
    "log_kv": (4, 4),  # over 1 + w + ν asinh(ν/x)
    "moments": (110, 160),
    "log_kv in ν": (60, 60),
    "log_kv in x": (110, 160),
}
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])


def most(name, dtype):
    return MOST[name][0 if dtype == np.float64 else 1]


def in_epsilons(found, truth, dtype, scale=None):
    """|found − truth|/(ε scale), and 0 where the scale is not a normal number of this precision."""
    info, result = np.finfo(dtype), []
    scale = [abs(t) for t in truth] if scale is None else scale
    for f, t, s in zip(np.ravel(found), truth, scale, strict=True):
        if not 10 * info.tiny < s < info.max / 10:
            result.append(0.0)
        elif np.isfinite(f):
            result.append(float(abs(mp.mpf(float(f)) - t) / s) / float(info.eps))
        else:
            result.append(np.inf)
    return np.array(result)


def assert_right(name, errors, dtype, points):
    worst = int(np.argmax(errors))
    assert errors[worst] <= most(name, dtype), (name, errors[worst], points[worst])


def points_of_i(dtype):
    named = [
        *((0, x) for x in (3e-151, 50, 600, 1000, 1e4, 1e12, 1e-300)),
        *((0.5, 1e10), (49, 50), (499, 0.000977), (99999, 3e5), (1, 2e4), (49, 1e6)),
    ]
    rng = np.random.default_rng(20271)
    for nu in (0, 0.5, 1, 3.7, 7, 13.9, 24.5, 26, 499, 2e5):
        named += [(nu, x) for x in (10 ** rng.uniform(-5, 3), *rng.uniform(0, 26, 2), nu / 3 + 0.1)]
        named += [(nu, x) for x in (13.99, 14.01, 24.99, 25.01)] if nu < 8 else []
    nu, x = np.array(named).T.astype(dtype)
    keep = x > 1e-37 if dtype == np.float32 else x > 0
    return nu[keep], x[keep]


def hankel(nu, x):
    """I_ν(x) exp(−x) √(2πx) for x so large that its asymptotic series gives 60 digits."""
    term = total = mp.mpf(1)
    k = 0
    while abs(term) > mp.mpf(10) ** -65:
        k += 1
        term *= -(4 * nu * nu - (2 * k - 1) ** 2) / (8 * k * x)
        total += term
    return total


def ratio(nu, x):
    if x < 1e-20:
        return x / (2 * (nu + 1))
    if x > 3000 and x > 50 * nu * nu:
        return hankel(nu + 1, x) / hankel(nu, x)
    damped, steps = 0.0, 0
    while damped < 180:  # each step backwards multiplies an error by about exp −2 asinh(k/x)
        steps += 1
        damped += 2 * math.asinh(float(nu + steps) / float(x))
    r = x / (nu + steps + mp.sqrt(x * x + (nu + steps) ** 2))
    for k in range(steps, 0, -1):
        r = 1 / (2 * (nu + k) / x + r)
    return r


def log_scaled(nu, x):
    if x > 3000 and x > 50 * nu * nu:
        lead = x - mp.log(2 * mp.pi * x) / 2 + mp.loggamma(nu + 1) + nu * mp.log(2 / x)
        return lead + mp.log(hankel(nu, x))
    term, total, k = mp.mpf(1), mp.mpf(0), 0
    while term > total * mp.mpf(10) ** -60:
        k += 1
        term *= x * x / (4 * k * (nu + k))
        total += term
    return mp.log1p(total)


@functools.cache
def truth_of_i(nu, x):
    """log ₀F₁, log I, A, 1 − A, A′, A″, and what rounding log I may cost."""
    with mp.workdps(110):
        nu, x = mp.mpf(nu), mp.mpf(x)
        log, a = log_scaled(nu, x), ratio(nu, x)
        if x < 1e-20:
            slope, bend = 1 / (2 * (nu + 1)), -3 * x / (4 * (nu + 1) ** 2 * (nu + 2))
        else:
            slope = (1 - a) * (1 + a) - (2 * nu + 1) * a / x
            bend = -2 * a * slope - (2 * nu + 1) * (slope - a / x) / x
        w, fall = mp.sqrt(nu * nu + x * x), nu * mp.asinh(nu / x)
        plain = log + nu * mp.log(x / 2) - mp.loggamma(nu + 1)
        return log, plain, a, 1 - a, slope, bend, max(w + fall, 1)


def along(f):
    """(f, ∂f/∂x) of an elementwise f(ν, x)."""
    return lambda nu, x: jax.jvp(lambda z: f(nu, z), (x,), (jnp.ones_like(x),))


OF_I = {
    "log_iv_scaled": bessel.log_iv_scaled,
    "log_iv": bessel.log_iv,
    "bessel_ratio": bessel.bessel_ratio,
    "bessel_ratio_complement": bessel.bessel_ratio_complement,
    "bessel_ratio_slope": bessel.bessel_ratio_slope,
}
ENDS = [(0, 0), (2, 0)]
OUTSIDE = [(1, -1), (1, np.nan), (1, np.inf), (-1, 1), (np.nan, 1), (np.inf, 1), (-0.1, 0)]
SIZE = 660
compiled = jax.jit(lambda nu, x: {name: along(f)(nu, x) for name, f in OF_I.items()})


def all_of_i(nu, x):
    """(value, slope) of each function: compiled once, for arrays of one size."""
    found = compiled(np.resize(nu, SIZE), np.resize(x, SIZE))
    return {name: np.array(both)[:, : len(x)] for name, both in found.items()}


@functools.cache
def found_of_i(dtype):
    """The points and what is found there, at the ends and outside."""
    nu, x = points_of_i(dtype)
    n, z = np.array(ENDS + OUTSIDE, dtype).T
    return nu, x, all_of_i(np.append(nu, n), np.append(x, z))


@DTYPES
def test_everything_about_i_against_mpmath(dtype, x64):
    """Values and derivatives: (log ₀F₁)′ = A, (1 − A)′ = −A′, (log I)′ = A + ν/x."""
    nu, x, found = found_of_i(dtype)
    points = list(zip(nu, x, strict=True))
    truths = zip(*(truth_of_i(float(n), float(z)) for n, z in points), strict=True)
    log, plain, a, rest, slope, bend, size = map(list, truths)
    growth = [t + mp.mpf(float(n)) / mp.mpf(float(z)) for t, (n, z) in zip(a, points, strict=True)]
    f = {name: (value[: len(x)], tangent[: len(x)]) for name, (value, tangent) in found.items()}
    for name, values, truth, scale in (
        ("log_iv_scaled", f["log_iv_scaled"][0], log, None),
        ("log_iv", f["log_iv"][0], plain, size),
        ("bessel_ratio", f["bessel_ratio"][0], a, None),
        ("bessel_ratio_complement", f["bessel_ratio_complement"][0], rest, None),
        ("bessel_ratio_slope", f["bessel_ratio_slope"][0], slope, None),
        ("bessel_ratio", f["log_iv_scaled"][1], a, None),
        ("bessel_ratio", f["log_iv"][1], growth, None),
        ("bessel_ratio_slope", f["bessel_ratio"][1], slope, None),
        ("bessel_ratio_slope", -f["bessel_ratio_complement"][1], slope, None),
        ("second derivative of A", f["bessel_ratio_slope"][1], bend, None),
    ):
        assert values.dtype == dtype
        assert_right(name, in_epsilons(values, truth, dtype, scale), dtype, points)
    assert (f["log_iv_scaled"][0] >= 0).all()
    assert (f["bessel_ratio_slope"][0] > 0).all()
    assert ((f["bessel_ratio"][0] >= 0) & (f["bessel_ratio"][0] <= 1)).all()
    assert (f["bessel_ratio_complement"][0] > 0).all()


@DTYPES
def test_the_ends_of_i_and_what_is_outside(dtype, x64):
    *_, found = found_of_i(dtype)
    for name, ends in {  # values, slopes; at ν = 0 and ν = 2
        "log_iv_scaled": [[0, 0], [0, 0]],
        "log_iv": [[0, -np.inf], [0, np.inf]],
        "bessel_ratio": [[0, 0], [1 / 2, 1 / 6]],
        "bessel_ratio_complement": [[1, 1], [-1 / 2, -1 / 6]],
        "bessel_ratio_slope": [[1 / 2, 1 / 6], [0, 0]],
    }.items():
        outside = len(found[name][0]) - len(OUTSIDE)
        np.testing.assert_allclose(found[name][:, outside - 2 : outside], ends, rtol=1e-6)
        assert np.isnan(found[name][:, outside:]).all()


def test_the_truth_is_that_of_mpmath_itself():
    """The recurrence, the expansions and the rule above against besseli and besselk."""
    for nu, x in ((0, 50), (3.7, 9), (49, 50), (0, 4000)):
        log, plain, a, *_ = truth_of_i(float(nu), float(x))
        del log
        nu, x = mp.mpf(nu), mp.mpf(x)
        with mp.workdps(50):
            assert abs(plain - mp.log(mp.besseli(nu, x))) < 1e-40
            assert abs(a - mp.besseli(nu + 1, x) / mp.besseli(nu, x)) < 1e-40
    for nu, x in ((0.3, 2), (12, 0.01), (2.5, 40)):
        with mp.workdps(40):
            exact = mp.log(mp.besselk(mp.mpf(nu), mp.mpf(x)))
            slope = mp.diff(lambda n, x=x: mp.log(mp.besselk(n, mp.mpf(x))), mp.mpf(nu))
        log, mean, *_ = truth_of_k(float(nu), float(x))
        assert abs(log - exact) < 1e-17
        assert abs(mean[0] - slope) < 1e-17


def test_the_textbook_would_fail_that(x64):
    """The control: A′ by its differences is noise where A is near 1."""
    nu, x = 0.0, 1e10
    a = bessel.bessel_ratio(nu, x)
    exact = float(truth_of_i(nu, x)[4])
    assert abs((1 - a) * (1 + a) - (2 * nu + 1) * a / x - exact) > 1e3 * exact
    np.testing.assert_allclose(bessel.bessel_ratio_slope(nu, x), exact, rtol=1e-15)


def test_the_third_derivative_of_a():
    """It is that of the formula for A″, on both sides of the border."""
    nu, x = np.array([[0.5, 0.5, 30.0], [2.0, 40.0, 20.0]], np.float32)
    found = jax.jit(along(lambda n, z: along(bessel.bessel_ratio_slope)(n, z)[1]))(nu, x)[1]
    for n, z, f in zip(nu, x, found, strict=True):
        with mp.workdps(60):
            exact = mp.diff(lambda t, n=n: ratio(mp.mpf(float(n)), t), mp.mpf(float(z)), 3)
        np.testing.assert_allclose(f, float(exact), rtol=1e-4)


def test_under_vmap_and_grad_and_with_a_derivative_in_the_order():
    """NaN stays where it is; and the derivative of I in its order, which is not offered, is NaN."""
    x = jnp.array([2.0, -1.0, jnp.nan, 60.0])
    by_x = jax.jit(jax.vmap(jax.grad(bessel.log_iv_scaled, argnums=1), (None, 0)))(1.0, x)
    np.testing.assert_allclose(by_x, jax.jit(bessel.bessel_ratio)(1.0, x), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(by_x), [False, True, True, False])
    for f in (bessel.log_iv, bessel.bessel_ratio):
        assert np.isnan(jax.jit(jax.vmap(jax.grad(f), (None, 0)))(1.0, x)).all()


def test_orders_and_arguments_of_any_kind():
    """Python numbers, integers, arrays that broadcast, and an order that `vmap` runs over."""
    f = jax.jit(bessel.bessel_ratio)
    exact = f(jnp.array([1.0, 30.0])[:, None], jnp.array([[2.0, 60.0, 5.0]]))
    assert exact.shape == (2, 3)
    mapped = jax.vmap(jax.vmap(f, (None, 0)), (0, None))(
        jnp.array([1, 30]), jnp.array([2.0, 60.0, 5.0])
    )
    np.testing.assert_allclose(mapped, exact, rtol=1e-6)
    np.testing.assert_allclose(f(1, 2), exact[0, 0], rtol=1e-6)
    assert bessel.log_iv(0.5, jnp.float32(1)).dtype == np.float32
    assert bessel.log_kv(0.5, jnp.float32(1)).dtype == np.float32


@jax.jit
def inverse(nu, r, rest):
    return along(lambda n, r: bessel.inverse_bessel_ratio(n, r, rest))(nu, r)


@DTYPES
def test_the_ratio_is_inverted(dtype, x64):
    """x ↦ (A, 1 − A) ↦ x, to a few ε times the condition, which is below 2 with the complement."""
    rng = np.random.default_rng(20272)
    nu = np.repeat([0, 0.5, 1, 2.3, 6, 20, 24.9, 25.1, 49, 499, 99999], 60)
    spread = np.where(np.arange(nu.size) % 2, rng.uniform(-9, 9, nu.size), rng.uniform(-1, 1.6))
    x = (nu + 1) * 10**spread
    nu, x = nu.astype(dtype), x.astype(dtype)

    parts = ("bessel_ratio", "bessel_ratio_complement", "bessel_ratio_slope")
    found = all_of_i(nu, x)
    r, rest, slope = (found[name][0] for name in parts)

    found, found_slope = map(np.asarray, inverse(nu, r, rest))
    plain = np.asarray(inverse(nu, r, 1 - r)[0])  # which is what it takes by itself
    assert found.dtype == found_slope.dtype == dtype
    eps, points = np.finfo(dtype).eps, list(zip(nu, x, strict=True))
    condition = np.where(r < 0.5, r, rest) / (x * slope)
    assert condition.max() < 2
    errors = np.abs(found.astype(float) / x - 1) / eps / condition
    assert_right("inverse_bessel_ratio", errors, dtype, points)
    known = r < 1
    errors = np.abs(plain.astype(float) / x - 1)[known] / eps / (r / (x * slope))[known]
    assert_right("inverse_bessel_ratio", errors, dtype, points)
    np.testing.assert_allclose(found_slope * slope, 1, rtol=1e3 * eps)
    assert np.isnan(plain[~known]).all()


@DTYPES
def test_the_ends_of_the_inverse(dtype, x64):
    tiny = 1e-300 if dtype == np.float64 else 1e-35
    nan = np.nan
    table = [  # ν, r, 1 − r; x and dx/dr
        *((2, 0, 1, 0, 6), (2, tiny, 1, 6 * tiny, 6), (2, 1, tiny, 2.5 / tiny, None)),
        *((2, 1, 0, nan, nan), (2, -0.1, 1.1, nan, nan), (2, 1.5, -0.5, nan, nan)),
        *((2, nan, nan, nan, nan), (2, 0.5, nan, nan, nan), (-1, 0.5, 0.5, nan, nan)),
    ]
    filled = table + [table[0]] * (SIZE - len(table))
    nu, r, rest = np.array([row[:3] for row in filled], dtype).T
    for found, row in zip(np.transpose(inverse(nu, r, rest)), table, strict=False):
        np.testing.assert_allclose(found[0], row[3], rtol=1e-6)
        if row[4] is not None:
            np.testing.assert_allclose(found[1], row[4], rtol=1e-6)


def points_of_k(dtype):
    rng = np.random.default_rng(20273)
    named = [
        *((0.1, 1e-10), (1e-6, 1e-3), (-2.7, 1e-10), (1.5, 1e-10), (0.5, 1.0), (1.5, 1.0)),
        *((2e5, 1.0), (-300, 250), (1e5, 66274), (1e5, 1e-5), (10, 1e6), (1e-6, 1e6), (2, 2)),
    ]
    named += [(nu, 10 ** rng.uniform(-6, 4)) for nu in (0.1, 0.9, 2.1, 5, 11.5, 60, 1e3)]
    named += [(0.3, 1e-300), (1e5, 1e12)] if dtype == np.float64 else []
    return np.array(named).T.astype(dtype)


@functools.cache
def truth_of_k(nu, x):
    """log K, means and covariance of (log y, y, 1/y), the same of (t, −cosh t), and w + ν asinh ν/x.

    By a rule of its own, on the whole line and finer than it must be.
    """
    with mp.workdps(45):
        negative, nu, x = nu < 0, mp.mpf(abs(nu)), mp.mpf(x)
        w, mode = mp.sqrt(nu * nu + x * x), mp.asinh(nu / x)
        step = min(1 / mp.sqrt(w), mp.mpf("0.36")) / 2
        nodes = []
        for sign in (1, -1):
            k = (1 - sign) // 2
            while True:
                u = sign * k * step
                e = mp.exp(u)
                drop = x * x / (w + nu) * ((e + 1 / e) / 2 - 1) + nu * (e - 1 - u)
                if drop > 60 + 2 * max(0, -u):
                    break
                nodes.append((mode + u, e, mp.exp(-drop)))
                k += 1
        total, y = sum(p for *_, p in nodes), mp.exp(mode)
        mass = [p / total for *_, p in nodes]
        statistics = [[t for t, *_ in nodes], [y * e for _, e, _ in nodes]]
        statistics.append([1 / s for s in statistics[1]])
        if negative:
            statistics = [[-t for t in statistics[0]], statistics[2], statistics[1]]
        statistics.append([-(p + q) / 2 for p, q in zip(*statistics[1:], strict=True)])
        mean = [mp.fdot(mass, s) for s in statistics]
        away = [[v - m for v in s] for s, m in zip(statistics, mean, strict=True)]
        cov = [[mp.fsum(map(lambda p, f, g: p * f * g, mass, a, b)) for b in away] for a in away]
        log = nu * mode - w + mp.log(step * total / 2)
        return log, mean, cov, 1 + w + nu * mode


ENDS_OF_K = [(0, 1), (1, 0), (1, -1), (1, np.nan), (np.nan, 1), (1, np.inf)]


@jax.jit
def all_of_k(nu, x):
    def both(nu, x):
        first = jax.grad(bessel.log_kv, argnums=(0, 1))
        return first(nu, x), jax.jacrev(first, argnums=(0, 1))(nu, x)

    return bessel.log_kv_moments(nu, x), jax.vmap(both)(nu, x)


@functools.cache
def found_of_k(dtype):
    nu, x = points_of_k(dtype)
    n, z = np.array(ENDS_OF_K, dtype).T
    return nu, x, jax.tree.map(np.asarray, all_of_k(np.append(nu, n), np.append(x, z)))


@DTYPES
def test_everything_about_k_against_mpmath(dtype, x64):
    nu, x, found = found_of_k(dtype)
    points = list(zip(nu, x, strict=True))
    truth = [truth_of_k(float(n), float(z)) for n, z in points]
    (log, mean, cov), (first, second) = jax.tree.map(lambda leaf: leaf[: len(x)], found)
    assert log.dtype == mean.dtype == cov.dtype == first[0].dtype == dtype
    assert (mean.shape, cov.shape) == ((len(x), 3), (len(x), 3, 3))
    errors = in_epsilons(log, [t[0] for t in truth], dtype, [t[3] for t in truth])
    assert_right("log_kv", errors, dtype, points)
    # beyond, the square of y or 1/y is no number
    held = np.abs(np.log(x)) < 0.5 * np.log(np.finfo(dtype).max) - 5
    for i in range(3):
        errors = in_epsilons(mean[:, i], [t[1][i] for t in truth], dtype)
        assert_right("moments", np.where(held, errors, 0), dtype, points)
        for j in range(3):
            errors = in_epsilons(cov[:, i, j], [t[2][i][j] for t in truth], dtype)
            assert_right("moments", np.where(held, errors, 0), dtype, points)
    for i, n in ((0, 0), (1, 3)):
        name = "log_kv in x" if i else "log_kv in ν"
        assert_right(name, in_epsilons(first[i], [t[1][n] for t in truth], dtype), dtype, points)
        for j, m in ((0, 0), (1, 3)):
            name = "log_kv in x" if i or j else "log_kv in ν"
            errors = in_epsilons(second[i][j], [t[2][n][m] for t in truth], dtype)
            assert_right(name, np.where(held | (i + j == 0), errors, 0), dtype, points)


def test_k_is_even_in_its_order_and_elementary_at_half_integers(x64):
    """Half-integer orders are elementary: K_{1/2} = √(π/2x) exp −x, K_{3/2} = K_{1/2}(1 + 1/x)."""
    x = jnp.array([0.1, 1.0, 30.0])
    half = 0.5 * jnp.log(jnp.pi / (2 * x)) - x
    orders = jnp.array([[0.5], [-0.5], [1.5], [-1.5]])
    found = bessel.log_kv(orders, x[None])
    expected = jnp.stack([half, half, half + jnp.log1p(1 / x), half + jnp.log1p(1 / x)])
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)


def test_k_has_a_third_derivative():
    third = jax.jit(jax.jacfwd(jax.jacfwd(jax.jacfwd(bessel.log_kv))))(2.0, 1.5)
    with mp.workdps(40):
        exact = mp.diff(lambda n: mp.log(mp.besselk(n, mp.mpf(1.5))), mp.mpf(2), 3)
    np.testing.assert_allclose(third, float(exact), rtol=1e-4)


@DTYPES
def test_k_of_order_zero_and_outside_its_domain(dtype, x64):
    *_, found = found_of_k(dtype)
    (_, mean, _), (first, _) = found
    assert mean[-len(ENDS_OF_K)][0] == first[0][-len(ENDS_OF_K)] == 0  # at ν = 0, by symmetry
    for part in jax.tree.leaves(found):
        assert np.isnan(part[1 - len(ENDS_OF_K) :]).all()
