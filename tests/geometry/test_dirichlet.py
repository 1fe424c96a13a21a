"""Dirichlet's laws at every scale: where one α is nearly all of α₀, where all are tiny, all large."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import special
from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.legendre import conjugate, dual_point, to_eta
from dualflat.geometry.metric import metric
from dualflat.geometry.solve import Status

HARD = json.loads((Path(__file__).parent / "hard_points.json").read_text(encoding="utf-8"))
EPS = np.finfo(np.float64).eps


def doubles(hexes):
    return np.array([float.fromhex(h) for h in hexes])


def worst(found, truth):
    """The largest relative error."""
    pairs = zip(np.ravel(found), np.ravel(np.asarray(truth, dtype=object)), strict=True)
    return max(float(abs(mp.mpf(float(f)) - mp.mpf(t)) / abs(mp.mpf(t))) for f, t in pairs)


def exact_metric(theta):
    alpha = [mp.mpf(float(t)) for t in theta]
    weight, n = mp.psi(1, mp.fsum(alpha)), len(alpha)
    return mp.matrix(n, n) + mp.diag([mp.psi(1, a) for a in alpha]) - weight * mp.ones(n, n)


@pytest.mark.parametrize("point", HARD["dirichlet"], ids=lambda p: p["id"])
def test_hard_points(point, x64):
    """ψ, η, θ(η), G⁻¹ and log det G to a few ε where the textbook's formulas have lost them all."""
    theta = doubles(point["theta"])
    psi = Dirichlet(len(theta))
    assert worst(psi(theta), point["psi"]) <= 4 * EPS
    assert worst(to_eta(psi, theta), point["eta"]) <= 4 * EPS
    eta = doubles(point["inverse"]["eta"])
    found = dual_point(psi, eta)
    assert found.steps <= 6
    assert worst(found.checked(), point["inverse"]["theta"]) <= 16 * EPS
    g, w = psi.hessian(theta), np.arange(1.0, len(theta) + 1)
    with mp.workdps(500):
        exact = exact_metric(theta)
        assert worst(g.solve(w), list(mp.lu_solve(exact, mp.matrix(w.tolist())))) <= 32 * EPS
        np.testing.assert_allclose(g.logdet(), float(mp.log(mp.det(exact))), rtol=8 * EPS)


def test_the_conjugate_at_hard_points(x64):
    """φ without the terms that are in ⟨α, η⟩ and in ψ."""
    points = [p for p in HARD["dirichlet"] if len(p["theta"]) == 3]
    eta = np.stack([doubles(p["inverse"]["eta"]) for p in points])
    found = jax.jit(jax.vmap(lambda eta: conjugate(Dirichlet(3), eta)))(eta)
    assert worst(found, [p["inverse"]["phi"] for p in points]) <= 16 * EPS


@pytest.mark.parametrize("pair", HARD["dirichlet pairs"], ids=lambda p: p["id"])
def test_hard_pairs(pair, x64):
    p, q = doubles(pair["theta_p_hex"]), doubles(pair["theta_q_hex"])
    psi = Dirichlet(len(p))
    assert worst(bregman(psi, p, q), pair["D_pq"]) <= 16 * EPS
    assert worst(bregman(psi, q, p), pair["D_qp"]) <= 16 * EPS


def exact_divergence(theta, base):
    theta, base = ([mp.mpf(float(x)) for x in point] for point in (theta, base))
    rest = mp.psi(0, mp.fsum(base))

    def potential(alpha):
        return mp.fsum(map(mp.loggamma, alpha)) - mp.loggamma(mp.fsum(alpha))

    slopes = [(x - y) * (mp.psi(0, y) - rest) for x, y in zip(theta, base, strict=True)]
    return potential(theta) - potential(base) - mp.fsum(slopes)


@pytest.mark.parametrize("name", ["f64", "f32"])
def test_the_divergence_at_any_distance(name, x64):
    """Of any two laws: by one factor, along one coordinate, along all, near and far."""
    dtype, size = (np.float64, 8) if name == "f64" else (np.float32, 4)
    rng = np.random.default_rng(20269)
    base = 10 ** rng.uniform(-size, size, (120, 3))
    base[:30] = base[:30, :1] * rng.uniform(0.1, 1, (30, 3))
    rise = rng.normal(size=(120, 3)) * 10 ** rng.uniform(-size / 2, 0.5, (120, 1))
    rise[::5] = rise[::5, :1]
    rise[1::5, 1:] = 0
    theta, base = (base * np.exp(rise)).astype(dtype), base.astype(dtype)
    found = jax.jit(jax.vmap(lambda *points: bregman(Dirichlet(3), *points)))(theta, base)
    with mp.workdps(100):
        truth = [exact_divergence(*points) for points in zip(theta, base, strict=True)]
    errors = [worst(f, t) / float(np.finfo(dtype).eps) for f, t in zip(found, truth, strict=True)]
    assert max(errors) <= 32
    assert np.median(errors) <= 1.5


def test_the_largest_moves_against_almost_nothing(x64):
    """Where the parts of the divergence leave little, of log Γ's gaps nearly nothing, it finds another form."""
    base = np.array([[80.0, 4e-4], [1e4, 2e-4], [15.0, 2e-6], [4.7, 4e-3]])
    theta = base * np.array([[1.01, 1.0], [1.3, 1.0], [0.97, 1.0], [1.06, 1.0]])
    found = jax.vmap(lambda *points: bregman(Dirichlet(2), *points))(theta, base)
    parts = special.log_gamma_excess_gap(theta[:, 0], base[:, 0])
    assert (found < parts / 16).all()  # so that it is tried
    with mp.workdps(100):
        truth = [exact_divergence(*points) for points in zip(theta, base, strict=True)]
    assert worst(found, truth) <= 32 * EPS


@pytest.mark.parametrize("point", HARD["chi_square_shape"], ids=lambda p: p["id"])
def test_hard_shapes(point, x64):
    """The one-dimensional problem underneath: log Γ, digamma and its inverse."""
    theta, log2 = doubles(point["theta"]), np.log(2)
    value = special.log_gamma(theta) + theta * log2
    assert worst(value, point["psi"]) <= 4 * EPS * (1 + point["cond_psi"])
    assert worst(special.digamma(theta) + log2, point["eta"]) <= 4 * EPS
    eta = doubles(point["inverse"]["eta"])
    exact = mp.mpf(point["inverse"]["theta"][0])
    # What rounding η does to θ.
    blur = max(mp.mpf(abs(eta[0])), 1) / (exact * mp.mpf(point["fisher"][0][0]))
    found = special.inverse_digamma(eta - log2)
    assert worst(found, [exact]) <= 4 * EPS * (1 + float(blur))


SCALES = {"f64": (np.float64, -90, 8), "f32": (np.float32, -12, 2)}


@pytest.mark.parametrize("name", SCALES)
def test_every_point_is_found_again_from_a_guess(name, x64):
    """2000 α of three entries across all scales: every one converges in a few steps.

    The guess is within 10 % below and never above by more than 1 %. What comes back has the dual
    coordinates that were asked for, in units of what rounding α does to them.
    """
    dtype, low, high = SCALES[name]
    psi, eps = Dirichlet(3), np.finfo(dtype).eps
    alpha = 10 ** np.random.default_rng(20268).uniform(low, high, (2000, 3))

    @jax.jit
    @jax.vmap
    def there_and_back(theta):
        eta = psi.to_eta(theta)
        found = dual_point(psi, eta)
        again = psi.to_eta(found.value)
        size = jnp.abs(eta) + psi.hessian(theta).spread(theta)
        return found, psi.guess(eta), psi.in_dual_domain(eta), jnp.abs(again - eta) / size

    theta = alpha.astype(dtype)
    found, guess, reachable, error = there_and_back(theta)
    assert found.value.dtype == guess.dtype == dtype
    assert reachable.all()
    np.testing.assert_array_equal(found.status, Status.CONVERGED)
    assert found.steps.max() <= 10
    # Where α₀ is so large that Σ exp η is 1 up to rounding, the guess can know no better.
    known = theta.sum(1) < 0.01 / eps
    assert (np.abs(guess / theta - 0.95)[known] <= 0.06).all()
    assert error.max() <= 8 * eps


def test_out_of_reach_is_nan_and_says_so(x64):
    """The range of ∇ψ is Σ exp η < 1, and its edge does not belong to it."""
    psi = Dirichlet(3)
    edge = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    inside, beyond = edge * (1 + 1e-9), edge * (1 - 1e-9)
    for eta, reachable in (
        (inside, True),
        (edge, False),
        (beyond, False),
        (jnp.array([0.1, -5.0, -5.0]), False),
        (jnp.array([np.nan, -5.0, -5.0]), False),
        (jnp.array([-np.inf, -5.0, -5.0]), False),
    ):
        assert psi.in_dual_domain(eta) == reachable
        found = dual_point(psi, eta)
        assert (found.status == Status.CONVERGED) == reachable
        assert np.isfinite(found.value).all() == reachable


ALPHAS = {
    "one leads": [1e8, 1e-8, 3e-3],
    "one leads by little": [50.0, 6.0, 2.0],
    "all large": [1e6, 2e6, 5e5],
    "all small": [1e-30, 3e-30, 1e-31],
    "small, one leads": [1e-4, 1e-60, 1e-9],
    "mixed": [0.5, 20.0, 1e-5],
    "alike": [0.4, 0.4, 0.4],
}


@pytest.mark.parametrize("name", ALPHAS)
def test_nothing_cancels_in_the_metric(name, x64):
    """1 − ψ₁(α₀) Σ 1/ψ₁(αᵢ) and the curvature along α itself, to 32 ε."""
    theta = np.array(ALPHAS[name])
    psi = Dirichlet(3)
    with mp.workdps(200):
        exact, alpha = exact_metric(theta), [mp.mpf(float(t)) for t in theta]
        weight = mp.psi(1, mp.fsum(alpha))
        complement = 1 - weight * mp.fsum(1 / mp.psi(1, a) for a in alpha)
        v = mp.matrix(alpha)
        along = (v.T * exact * v)[0]
    assert worst(psi.hessian(theta).complement, complement) <= 32 * EPS
    assert worst(psi.curvature(theta, theta), along) <= 32 * EPS


def test_the_plain_complement_would_fail_that(x64):
    theta = jnp.array(ALPHAS["one leads"])
    plain = 1 - special.trigamma(theta.sum()) * (1 / special.trigamma(theta)).sum()
    assert abs(plain / Dirichlet(3).hessian(theta).complement - 1) > 1e-8


def test_the_cubic_tensor(x64):
    """∂³ψ = δᵢⱼₖ ψ₂(αᵢ) − ψ₂(α₀): through every rule and every branch."""
    for theta in (np.array([0.5, 20.0, 1e-2]), np.array([40.0, 1.0, 2.0])):
        cubic = jax.jit(jax.jacfwd(jax.jacfwd(Dirichlet(3).to_eta)))(theta)
        truth = np.full((3, 3, 3), -float(mp.psi(2, mp.fsum(theta.tolist()))))
        for i, t in enumerate(theta):
            truth[i, i, i] += float(mp.psi(2, float(t)))
        np.testing.assert_allclose(cubic, truth, rtol=1e-11)


@pytest.mark.parametrize("theta", [[-0.5, 2.0], [0.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_what_is_no_law_is_nan_everywhere(theta, x64):
    psi, theta = Dirichlet(2), jnp.array(theta)
    assert not psi.in_domain(theta)
    value, grad = jax.value_and_grad(psi)(theta)
    assert not np.isfinite(value)
    assert not np.isfinite(grad).all()
    assert np.isnan(to_eta(psi, theta)).all()
    assert np.isnan(metric(psi, theta)).all()
    assert np.isnan(bregman(psi, theta, jnp.ones(2)))


def test_one_probability_is_no_family():
    with pytest.raises(ValueError, match=r"n is 1\. Wanted an integer of at least 2"):
        Dirichlet(1)
