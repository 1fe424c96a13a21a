import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.jensen import (
    alpha_divergence,
    bhattacharyya,
    chernoff_information,
    jensen_bregman,
    renyi,
    skew_jensen,
)
from dualflat.geometry.metric import metric
from tests.geometry.truth import DISTANCES, EXACT, away

every_exact = pytest.mark.parametrize("name", EXACT)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
SKEWS, ORDERS, ALPHAS = (2.0**-30, 0.25, 0.5, 1.0), (0.25, 1.0, 3.0), (-1.0, -0.5, 0.0, 1.0, 1.5)


def of_many(function, psi, theta, other, numbers):
    numbers = jnp.asarray(numbers, theta.dtype)
    return jax.vmap(lambda x: function(psi, theta, other, x))(numbers)


def worst(values, truth):
    """The largest relative error; where the truth overflows so must the value, at 0 it is 0."""
    largest, errors = mp.mpf(float(np.finfo(values.dtype).max)), [0.0]
    for value, exact in zip(values.ravel(), truth, strict=True):
        if abs(exact) < 1e-50:
            assert value == 0
        elif exact > largest:
            assert value == np.inf
        else:
            errors.append(float(abs(mp.mpf(float(value)) - exact) / exact))
    return max(errors)


@every_exact
@every_dtype
def test_digits_at_every_distance(name, dtype, x64):
    """Relative distances 1e-8 … 10 against 60 digits, and never negative. The book's forms fail."""
    exact = EXACT[name]
    thetas, base = away(exact, DISTANCES, dtype)
    psi = exact.psi

    def textbook(theta, s):
        return (1 - s) * psi(theta) + s * psi(base) - psi((1 - s) * theta + s * base)

    @jax.jit
    @jax.vmap
    def run(theta):
        return {
            "skew": of_many(skew_jensen, psi, theta, base, SKEWS[:-1]),
            "renyi": of_many(renyi, psi, theta, base, ORDERS),
            "alpha": of_many(alpha_divergence, psi, theta, base, ALPHAS),
            "chernoff": chernoff_information(psi, theta, base),
            "textbook": textbook(theta, 0.25),
        }

    found = jax.tree.map(np.asarray, run(thetas))
    assert all((x >= 0).all() and x.dtype == dtype for x in jax.tree.leaves(found)[:-1])
    bound = {np.float32: 3e-6, np.float64: 2e-13}[dtype]  # found: 1.2e-6 and 4e-14
    truths = {
        "skew": [exact.jensen(t, base, mp.mpf(s)) for t in thetas for s in SKEWS[:-1]],
        "renyi": [exact.renyi(t, base, mp.mpf(a)) for t in thetas for a in ORDERS],
        "alpha": [exact.alpha(t, base, mp.mpf(a)) for t in thetas for a in ALPHAS],
    }
    for what, truth in truths.items():
        assert worst(found[what], truth) <= bound, what
    information, exponents = zip(*[exact.chernoff(t, base) for t in thetas], strict=True)
    assert worst(found["chernoff"].value, information) <= bound
    apart = np.array([i > 1e-50 for i in information])  # at equality any exponent would do
    off = found["chernoff"].exponent - np.array([float(s) for s in exponents])
    assert np.abs(off[apart]).max() <= 8 * np.finfo(dtype).eps
    book = [exact.jensen(t, base, mp.mpf(0.25)) for t in thetas]
    assert worst(np.abs(found["textbook"]), book) > 0.1


@pytest.mark.slow
@every_exact
def test_hessians_at_coincidence(name, x64):
    """0 with gradient 0 at θ = θ′, and a Hessian of s(1−s)G, aG, G for every α, and ¼G."""
    exact = EXACT[name]
    psi, base = exact.psi, jnp.asarray(exact.base)

    def each(theta):
        return jnp.stack(
            [
                skew_jensen(psi, theta, base, 0.25),
                renyi(psi, theta, base, 3.0),
                renyi(psi, theta, base, 1.0),
                alpha_divergence(psi, theta, base, -1.0),
                alpha_divergence(psi, theta, base, 0.5),
                chernoff_information(psi, theta, base).value,
            ]
        )

    value, grad, hessian = jax.jit(
        lambda t: (each(t), jax.jacrev(each)(t), jax.jacfwd(jax.jacrev(each))(t))
    )(base)
    g = metric(psi, base)
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(grad, 0.0)
    for found, factor in zip(hessian, (3 / 16, 3, 1, 1, 1, 1 / 4), strict=True):
        tolerance = 4e-14 * float(jnp.abs(g).max())
        np.testing.assert_allclose(found, factor * g, rtol=0, atol=tolerance)


def test_derivatives_far_from_coincidence(x64):
    """∂θ, ∂θ′, ∂s and ∂²s of the skew one, and of Chernoff's by the envelope, against 60 digits."""
    exact = EXACT["user-made"]
    psi, theta, other = exact.psi, jnp.asarray(exact.base), jnp.array([-0.25, 1.0])
    p, q = [[mp.mpf(float(x)) for x in point] for point in (theta, other)]

    def slopes(s):
        m = [(1 - s) * a + s * b for a, b in zip(p, q, strict=True)]
        return [exact.gradient(x) for x in (p, m, q)]

    @jax.jit
    def run(theta, other, s):
        grad = jax.grad(lambda *x: skew_jensen(psi, *x), (0, 1, 2))(theta, other, s)
        twice = jax.grad(jax.grad(lambda x: skew_jensen(psi, theta, other, x)))(s)
        chernoff = jax.jacrev(lambda x: chernoff_information(psi, x, other))(theta)
        return grad, twice, chernoff

    (by_theta, by_other, by_s), twice, chernoff = run(theta, other, 0.25)
    s = mp.mpf(0.25)
    at_p, at_m, at_q = slopes(s)
    np.testing.assert_allclose(
        by_theta,
        np.float64([(1 - s) * (a - b) for a, b in zip(at_p, at_m, strict=True)]),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        by_other, np.float64([s * (a - b) for a, b in zip(at_q, at_m, strict=True)]), rtol=1e-12
    )
    for order, found in ((1, by_s), (2, twice)):
        truth = mp.diff(lambda x: exact.jensen(theta, other, x), s, order)
        np.testing.assert_allclose(found, float(truth), rtol=1e-11)

    _, s = exact.chernoff(theta, other)
    at_p, at_m, _ = slopes(s)
    np.testing.assert_allclose(
        chernoff.value,
        np.float64([(1 - s) * (a - b) for a, b in zip(at_p, at_m, strict=True)]),
        rtol=1e-12,
    )
    step = 1e-5
    sides = [exact.chernoff([theta[0] + h, theta[1]], other)[1] for h in (-step, step)]
    # A central difference: its own error is step² times a third derivative.
    np.testing.assert_allclose(
        chernoff.exponent[0], float((sides[1] - sides[0]) / (2 * step)), rtol=1e-8
    )


def test_alpha_and_order_are_smooth_at_the_limits(x64):
    """First and second derivatives in α at ±1 and in the order at 1: no special case is patched in."""
    exact = EXACT["user-made"]
    psi, theta, other = exact.psi, jnp.asarray(exact.base), jnp.array([-0.25, 1.0])
    cases = ((alpha_divergence, exact.alpha, -1.0), (alpha_divergence, exact.alpha, 1.0))
    for function, truth, at in (*cases, (renyi, exact.renyi, 1.0)):
        once = jax.grad(lambda x, f=function: f(psi, theta, other, x))
        found = jax.jit(lambda x, g=once: (g(x), jax.jacfwd(g)(x)))(at)
        h = mp.mpf(10) ** -12  # no truth at the limit itself: differences across it, of 60 digits
        low, high = [truth(theta, other, at + x) for x in (-h, h)]
        middle = truth(theta, other, mp.mpf(at))
        wanted = [(high - low) / (2 * h), (high - 2 * middle + low) / h**2]
        np.testing.assert_allclose(found, np.float64(wanted), rtol=1e-11)


def test_dual_orders(x64):
    """KL both ways at ±1, and who is told from whom: p = p_θ, q = p_θ′."""
    psi, theta, other = Categorical(2), jnp.array([0.3, -1.0]), jnp.array([-0.5, 2.0])
    p, q = (np.append(1 - e.sum(), e) for e in (psi.to_eta(theta), psi.to_eta(other)))
    kl = float((p * np.log(p / q)).sum())
    for value in (
        alpha_divergence(psi, theta, other, -1.0),
        alpha_divergence(psi, other, theta, 1.0),
        renyi(psi, theta, other, 1.0),
        bregman(psi, other, theta),
    ):
        np.testing.assert_allclose(value, kl, rtol=1e-14)
    np.testing.assert_allclose(
        renyi(psi, theta, other, 3.0), np.log((p**3 / q**2).sum()) / 2, rtol=1e-14
    )
    affinity = np.sqrt(p * q).sum()
    np.testing.assert_allclose(bhattacharyya(psi, theta, other), -np.log(affinity), rtol=1e-13)
    np.testing.assert_allclose(jensen_bregman(psi, theta, other), -np.log(affinity), rtol=1e-13)
    np.testing.assert_allclose(
        skew_jensen(psi, theta, other, 0.25), -np.log((p**0.75 * q**0.25).sum()), rtol=1e-13
    )


def test_parameters_of_a_closure_are_differentiated(x64):
    """g[0, s, 1] is linear in ψ, so the derivative in a factor is the divergence itself."""
    theta, other = jnp.array([0.3, 0.1]), jnp.array([0.3, 0.1 + 1e-7])

    def user(t):
        return jnp.logaddexp(0.0, t).sum()

    for other_ in (other, other + 3.0):
        slope = jax.jit(
            jax.grad(lambda a, o=other_: skew_jensen(lambda t: a * user(t), theta, o, 0.3))
        )
        np.testing.assert_allclose(slope(1.5), skew_jensen(user, theta, other_, 0.3), rtol=1e-12)


def test_the_impossible_is_nan_and_the_infinite_is_infinite(x64):
    psi = Gaussian(1)
    wide, narrow = jnp.array([0.5, -0.5]), jnp.array([0.5, -2.0])
    outside = jnp.array([0.5, 0.5])
    run = {
        f: jax.jit(
            jax.vmap(
                jax.value_and_grad(lambda t, o, x, f=f: f(psi, t, o, x), (0, 2)), (None, None, 0)
            )
        )
        for f in (skew_jensen, renyi, alpha_divergence)
    }
    impossible = {
        skew_jensen: [-0.1, 1.1, jnp.nan],
        renyi: [0.0, -1.0, jnp.nan, jnp.inf],
        alpha_divergence: [jnp.nan, jnp.inf, -jnp.inf],
    }
    for f, numbers in impossible.items():
        value, (grad, _) = run[f](narrow, wide, jnp.array(numbers))
        assert np.isnan(value).all(), f
        assert np.isnan(grad).all(), f
        value, (grad, _) = run[f](narrow, outside, jnp.array([0.5]))
        assert np.isnan(value).all()
        assert np.isnan(grad).all()
    # ∫ p^a q^(1−a) of a wide p and a narrow q diverges from a = 4/3 on.
    value, (grad, _) = run[renyi](wide, narrow, jnp.array([0.5, 1.25, 1.5, 3.0]))
    assert np.isfinite(value[:2]).all()
    assert np.isfinite(grad[:2]).all()
    assert (value[2:] == np.inf).all()
    assert not np.isfinite(grad[2:]).any()
    value, _ = run[alpha_divergence](wide, narrow, jnp.array([-2.0, 1.0, 2.0]))
    assert value[0] == np.inf
    assert np.isfinite(value[1:]).all()
    found = chernoff_information(psi, wide, outside)
    assert np.isnan(found.value)
    assert np.isnan(found.exponent)


def test_bad_numbers_are_refused_with_words():
    point = jnp.zeros(2)
    with pytest.raises(ValueError, match=r"renyi: order is float32 of shape \(2,\)"):
        renyi(Categorical(2), point, point, jnp.ones(2))
    with pytest.raises(ValueError, match="alpha is complex64"):
        alpha_divergence(Categorical(2), point, point, 1j)
    with pytest.raises(ValueError, match="shapes differ"):
        skew_jensen(lambda t: t @ t, point, jnp.zeros(3), 0.5)
