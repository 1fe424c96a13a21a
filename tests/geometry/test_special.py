"""The special functions against mpmath, where it hurts, in both precisions."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import special

mp.mp.dps = 60
ROOT = 1.4616321449683622  # of digamma

# Beyond these sizes mpmath's own summation is slow, and two or three terms are exact.
HUGE, TINY = 1e15, 1e-30


def log_gamma(x):
    return mp.loggamma(x) if x < HUGE else x * (mp.log(x) - 1) + log_gamma_excess(x)


def polygamma(m):
    sign = (-1) ** (m + 1)

    def exact(x):
        if x > HUGE:
            head = mp.factorial(m - 1) / x**m if m else -mp.log(x)
            half = mp.factorial(m) / (2 * x ** (m + 1))
            return sign * (head + half + mp.factorial(m + 1) / (12 * x ** (m + 2)))
        if x < TINY:  # ψ(x) = ψ(x + 1) − 1/x
            return sign * mp.factorial(m) / x ** (m + 1) + mp.psi(m, 1)
        return mp.psi(m, x)

    return exact


def log_gamma_excess(x):
    if x > HUGE:
        return (mp.log(2 * mp.pi) - mp.log(x)) / 2 + 1 / (12 * x)
    return mp.loggamma(x) - x * mp.log(x) + x


def digamma_excess(x):
    return -1 / (2 * x) - 1 / (12 * x * x) if x > HUGE else polygamma(0)(x) - mp.log(x)


def trigamma_deficit(x):
    return mp.mpf(1) / 2 - 1 / (12 * x) if x > HUGE else x - 1 / polygamma(1)(x)


# name: function, truth, the bound in ε (and in absolute ε, for what passes through zero unresolved)
FUNCTIONS = {
    "log_gamma": (special.log_gamma, log_gamma, 4, 0),
    "digamma": (special.digamma, polygamma(0), 4, 0),
    "trigamma": (special.trigamma, polygamma(1), 3, 0),
    "polygamma 2": (lambda x: special.polygamma(2, x), polygamma(2), 6, 0),
    "polygamma 5": (lambda x: special.polygamma(5, x), polygamma(5), 12, 0),
    "polygamma 8": (lambda x: special.polygamma(8, x), polygamma(8), 18, 0),
    "log_gamma_excess": (special.log_gamma_excess, log_gamma_excess, 4, 16),
    "digamma_excess": (special.digamma_excess, digamma_excess, 64, 0),
    "trigamma_deficit": (special.trigamma_deficit, trigamma_deficit, 32, 0),
}


def arguments(dtype):
    rng = np.random.default_rng(20266)
    largest = 300 if dtype == np.float64 else 36
    near = np.array([1.0, 2.0, ROOT, 9.0, 0.5])
    steps = rng.normal(size=(5, 8)) * np.repeat([1e-1, 1e-3, 1e-6, 1e-9], 2)
    x = np.concatenate(
        [
            10 ** rng.uniform(-largest, largest, 60),
            10 ** rng.uniform(-6, 6, 60),
            rng.uniform(0, 20, 120),
            (near[:, None] * (1 + steps)).ravel(),
            near,
            np.nextafter(near.astype(dtype), dtype(0)),
            np.nextafter(near.astype(dtype), dtype(100)),
        ]
    )
    return x.astype(dtype)


def errors(found, x, exact, dtype, absolute):
    """|found − truth| / (ε |truth| + absolute ε), leaving out what the dtype cannot hold."""
    info = np.finfo(dtype)
    worst = 0.0
    for f, argument in zip(found, x, strict=True):
        truth = exact(mp.mpf(float(argument)))
        if info.tiny < abs(truth) < info.max:
            error = abs(mp.mpf(float(f)) - truth) / (float(info.eps) * (abs(truth) + absolute))
            worst = max(worst, float(error)) if error == error else np.inf
    return worst


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_everything_against_sixty_digits(dtype, x64):
    x = arguments(dtype)
    found = jax.jit(lambda x: {name: f[0](x) for name, f in FUNCTIONS.items()})(x)
    for name, (_, exact, bound, absolute) in FUNCTIONS.items():
        assert found[name].dtype == dtype
        # Powers x⁻ᵐ below the smallest number are flushed before they are multiplied by (m − 1)!.
        keep = (
            slice(None) if "polygamma" not in name else x < (1e30 if dtype == np.float64 else 1e3)
        )
        worst = errors(found[name][keep], x[keep], exact, dtype, absolute / bound)
        assert worst <= bound, (name, worst)


def test_jax_would_fail_that(x64):
    """The control: what everybody uses, at the same points."""
    x = arguments(np.float64)
    for theirs, exact in ((jax.scipy.special.digamma, polygamma(0)), (jax.lax.lgamma, log_gamma)):
        assert errors(np.asarray(theirs(x)), x, exact, np.float64, 0) > 1e6


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_digamma_is_inverted(dtype, x64):
    """To 4 ε, and what rounding y does to x, from −1e300 to the largest y that has an x."""
    rng = np.random.default_rng(20267)
    top, low = (709.0, -300.0) if dtype == np.float64 else (88.0, -36.0)
    y = np.concatenate(
        [
            -(10 ** rng.uniform(-6, -low, 40)),
            rng.uniform(-5, 5, 60),
            rng.uniform(5, top, 40),
            rng.normal(size=20) * 1e-6,
            [0.0],
        ]
    ).astype(dtype)
    found = jax.jit(special.inverse_digamma)(y)
    assert found.dtype == dtype
    for f, target in zip(found, y, strict=True):
        x = guess = mp.mpf(float(f))
        for _ in range(2):
            x -= (polygamma(0)(x) - mp.mpf(float(target))) / polygamma(1)(x)
        blur = 1 + abs(target) / (x * polygamma(1)(x))
        assert abs(guess - x) <= 4 * np.finfo(dtype).eps * blur * x, (target, f, x)
    ends = special.inverse_digamma(np.array([1e3, np.nan, -np.inf], dtype))
    np.testing.assert_array_equal(ends, np.array([np.inf, np.nan, np.nan]))


def pairs(dtype):
    """Arguments far apart, near each other and next to each other, of every size."""
    rng = np.random.default_rng(20268)
    largest = 300 if dtype == np.float64 else 30
    base = 10 ** np.concatenate([rng.uniform(-largest, largest, 60), rng.uniform(-3, 3, 180)])
    logs = rng.normal(size=base.size) * 10 ** rng.uniform(-8, 0.7, base.size)
    x, base = (base * np.exp(logs)).astype(dtype), base.astype(dtype)
    return np.concatenate([x, np.nextafter(base, dtype(np.inf))]), np.concatenate([base, base])


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_gaps_of_log_gamma_against_a_hundred_digits(dtype, x64):
    x, base = pairs(dtype)
    gaps = {
        "whole": (special.log_gamma_gap, log_gamma, polygamma(0), 6),
        "excess": (special.log_gamma_excess_gap, log_gamma_excess, digamma_excess, 12),
    }
    found = jax.jit(lambda x, base: {name: gap[0](x, base) for name, gap in gaps.items()})(x, base)
    info = np.finfo(dtype)
    for name, (_, value, slope, bound) in gaps.items():
        assert found[name].dtype == dtype
        assert (np.asarray(found[name]) >= 0).all()
        worst = 0.0
        with mp.workdps(100):
            for f, a, b in zip(found[name], x, base, strict=True):
                a, b = mp.mpf(float(a)), mp.mpf(float(b))
                # The truths' own expansions do not bear the subtraction; a tiny step is flushed.
                if max(a, b) > HUGE or abs(a - b) < info.tiny:
                    continue
                truth = value(a) - value(b) - (a - b) * slope(b)
                if info.tiny < truth < info.max:
                    worst = max(worst, float(abs(mp.mpf(float(f)) / truth - 1) / float(info.eps)))
        assert worst <= bound, (name, worst)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_gaps_of_the_slope(dtype, x64):
    x, base = pairs(dtype)
    step = x - base
    turn, lack = jax.jit(special.digamma_excess_gaps)(x, base, step)
    info, worst = np.finfo(dtype), 0.0
    with mp.workdps(100):
        for t, f, a, b in zip(turn, lack, x, base, strict=True):
            a, b = mp.mpf(float(a)), mp.mpf(float(b))
            if max(a, b) > HUGE or abs(a - b) < info.tiny:
                continue
            truth = digamma_excess(a) - digamma_excess(b)
            slope = mp.psi(1, b) - 1 / b if b > TINY else 1 / b**2 - 1 / b
            for found, exact in ((t, truth), (f, (a - b) * slope - truth)):
                if info.tiny * 1e6 < abs(exact) < info.max * 1e-6:
                    worst = max(
                        worst, float(abs(mp.mpf(float(found)) / exact - 1) / float(info.eps))
                    )
    assert worst <= 8, worst


def test_a_gap_bends_as_log_gamma_does(x64):
    """Its derivatives are those of log Γ from its second on, also where both arguments are one."""
    base = jnp.array([1e-3, 0.7, 3.0, 40.0, 1e5])
    x = base * jnp.array([1.0, 1 + 1e-9, 2.0, 0.9, 20.0])
    slope = jax.vmap(jax.grad(special.log_gamma_gap))(x, base)
    bend = jax.vmap(jax.grad(jax.grad(special.log_gamma_gap)))(x, base)
    truth = [
        float(mp.psi(0, a) - mp.psi(0, b))
        for a, b in zip(map(mp.mpf, map(float, x)), map(mp.mpf, map(float, base)), strict=True)
    ]
    np.testing.assert_allclose(slope, truth, rtol=1e-13)
    np.testing.assert_allclose(bend, [float(mp.psi(1, a)) for a in map(float, x)], rtol=1e-13)


def test_derivatives_chain_to_any_order(x64):
    """log Γ → digamma → trigamma → …, forwards and backwards, also of what has no rule of its own."""
    x = jnp.array([0.3, ROOT, 2.0, 8.99, 9.0, 40.0])

    for name, f, order, exact in (
        ("log gamma", special.log_gamma, 3, polygamma(2)),
        ("excess", special.log_gamma_excess, 2, lambda t: mp.psi(1, t) - 1 / t),
        ("deficit", special.trigamma_deficit, 2, lambda t: mp.diff(trigamma_deficit, t, 2)),
    ):
        g = lambda t, f=f: f(t)  # noqa: E731
        for k in range(order):
            g = (jax.grad if k % 2 else jax.jacfwd)(g)
        found = jax.jit(jax.vmap(g))(x)
        truth = [float(exact(mp.mpf(float(t)))) for t in x]
        np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-13, err_msg=name)
    slope = jax.vmap(jax.grad(jax.grad(special.inverse_digamma)))(special.digamma(x))
    truth = [float(-mp.psi(2, t) / mp.psi(1, t) ** 3) for t in map(float, x)]
    np.testing.assert_allclose(slope, truth, rtol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_not_positive_is_nan_and_so_is_its_derivative(name, x64):
    f = FUNCTIONS[name][0]
    x = jnp.array([0.0, -0.5, -1.0, -np.inf, np.nan])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(f)))(x)
    assert np.isnan(value).all()
    assert np.isnan(slope).all()


def test_integers_and_orders():
    np.testing.assert_allclose(special.digamma(2), 0.42278433, rtol=1e-6)
    np.testing.assert_array_equal(special.polygamma(0, 2.5), special.digamma(2.5))
    with pytest.raises(ValueError, match=r"order is -1\. Wanted an integer of at least 0"):
        special.polygamma(-1, 1.0)
