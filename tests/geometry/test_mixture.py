"""Mixtures of fixed laws as a potential of their weights, and families made from statistics."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.base import kl, log_prob, sample
from dualflat.geometry.families.from_statistics import counts, finite, from_statistics, interval
from dualflat.geometry.families.gamma import Gamma
from dualflat.geometry.families.mixture import Mixtures
from dualflat.geometry.families.normal import Normal
from dualflat.geometry.legendre import to_eta, to_theta
from dualflat.geometry.metric import metric
from dualflat.geometry.special import log_gamma

LINE = interval()
CENTERS = (-1.0, 0.5, 2.0)


def normal_mixtures():
    laws = jnp.stack([Normal().from_usual(c, 1.0) for c in CENTERS])
    at = jax.vmap(jax.vmap(lambda t, x: log_prob(Normal(), t, x), (None, 0)), (0, None))
    densities = jnp.exp(at(laws, jnp.asarray(LINE.nodes)))
    return Mixtures(densities, jnp.exp(jnp.asarray(LINE.log_weights)))


def density(w, x):
    full = [1 - sum(w), *w]
    return sum(v * mp.npdf(x, c) for v, c in zip(full, CENTERS, strict=True))


def integral(f):
    return float(mp.quad(f, [-12, -4, 0, 2, 6, 14]))


def test_mixtures_are_the_other_flat_family(x64):
    """ψ, η, G and D against quadrature with 30 digits, of three normal laws."""
    psi = normal_mixtures()
    w, other = np.array([0.25, 0.5]), np.array([0.2, 0.1])
    exact, exact_other = ([mp.mpf(float(a)) for a in u] for u in (w, other))
    p, q = (lambda x: density(exact, x)), (lambda x: density(exact_other, x))
    found = jax.jit(
        lambda a, b: (psi(a), to_eta(psi, a), metric(psi, a), bregman(psi, a, b), psi.to_eta(b))
    )(w, other)
    np.testing.assert_allclose(found[0], integral(lambda x: p(x) * mp.log(p(x))), rtol=1e-12)
    np.testing.assert_allclose(found[1], jax.grad(psi)(jnp.asarray(w)), rtol=1e-12)
    steps = [lambda x, c=c: mp.npdf(x, c) - mp.npdf(x, CENTERS[0]) for c in CENTERS[1:]]
    fisher = [[integral(lambda x, f=f, g=g: f(x) * g(x) / p(x)) for f in steps] for g in steps]
    np.testing.assert_allclose(found[2], fisher, rtol=1e-12)
    truth = integral(lambda x: p(x) * mp.log(p(x) / q(x)))
    np.testing.assert_allclose(found[3], truth, rtol=1e-12)
    near = w + np.array([1e-8, -2e-8])
    gap = bregman(psi, near, w)
    assert gap > 0
    np.testing.assert_allclose(gap, 0.5 * (near - w) @ found[2] @ (near - w), rtol=1e-6)
    np.testing.assert_allclose(to_theta(psi, found[1]), w, rtol=1e-10)  # found by search


def test_what_an_em_step_averages(x64):
    psi = normal_mixtures()
    shares = psi.responsibilities(jnp.array([0.25, 0.5]))
    np.testing.assert_allclose(shares.sum(0), 1.0, rtol=1e-12, atol=1e-12)


def test_off_the_simplex_there_is_no_mixture(x64):
    psi = Mixtures(np.array([[0.9, 0.1], [0.2, 0.8]]))
    for w in ([0.0], [1.0], [1.5], [np.nan]):
        assert jnp.isnan(psi(jnp.array(w)))
        assert jnp.isnan(metric(psi, jnp.array(w))).all()
    with pytest.raises(ValueError, match="mixture of others"):
        Mixtures(np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45]]))
    with pytest.raises(ValueError, match="not negative"):
        Mixtures(np.array([[1.1, -0.1], [0.2, 0.8]]))
    with pytest.raises(ValueError, match="Wanted"):
        Mixtures(np.ones(3))


def test_a_made_gamma_family_is_the_gamma_family(x64):
    """ψ, η, G, KL and θ(η) by quadrature against closed forms."""
    made = from_statistics(
        lambda x: jnp.stack([jnp.log(x), x]), interval(0.0), lambda x: -jnp.log(x), start=[1, -1]
    )
    known = Gamma()

    def look(family, theta, other):
        eta = to_eta(family, theta)
        return (
            family(theta),
            eta,
            metric(family, theta),
            kl(family, theta, other),
            (to_theta(family, eta)),
        )

    thetas = jnp.array([[2.5, -3.0], [20.0, -0.5], [0.5, -1.0]])
    tables = [
        jax.jit(jax.vmap(lambda t, o, f=f: look(f, t, o)))(thetas, jnp.roll(thetas, 1, 0))
        for f in (made, known)
    ]
    for found, truth in zip(*tables, strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-9)


def test_what_the_nodes_cannot_hold_is_flagged(x64):
    line = from_statistics(lambda x: jnp.stack([x, x * x]), LINE, start=[0, -1])
    for theta in ([5e6, -5e5], [1e4, -50.0], [0.0, 0.5], [0.0, 0.0]):  # too narrow, or no law
        theta = jnp.array(theta)
        assert jnp.isnan(line(theta))
        assert jnp.isnan(to_eta(line, theta)).all()
    few = from_statistics(lambda x: x, counts(0, 64), lambda x: -log_gamma(x + 1))
    assert few.in_domain(jnp.array([1.0]))
    assert jnp.isnan(few(jnp.array([4.5])))  # a mean of 90 counts


def test_a_made_family_says_what_is_wrong():
    with pytest.raises(ValueError, match="cannot be normalised"):
        from_statistics(lambda x: jnp.stack([x, x * x]), LINE)
    with pytest.raises(ValueError, match="is empty"):
        interval(1.0, 1.0)


def test_events_of_a_finite_support():
    dice = from_statistics(lambda x: x, finite(np.arange(1.0, 7.0)))
    assert log_prob(dice, jnp.array([0.0]), 3.0) == pytest.approx(-np.log(6), rel=1e-6)
    assert log_prob(dice, jnp.array([0.0]), 7.0) == -np.inf
    rolls = sample(dice, jax.random.key(0), jnp.array([0.5]), 1000)
    assert set(np.unique(rolls)) <= set(range(1, 7))
