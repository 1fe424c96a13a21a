import json
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.legendre import conjugate, dual_point, to_eta, to_theta
from dualflat.geometry.metric import curvature, metric

HARD = json.loads((Path(__file__).parent / "hard_points.json").read_text(encoding="utf-8"))
EPS = np.finfo(np.float64).eps


def doubles(hexes):
    return np.array([float.fromhex(h) for h in hexes])


def categorical(point):
    theta = doubles(point["theta"])
    return Categorical(len(theta)), theta, [mp.mpf(e) for e in point["eta"]]


def half(d, flat, off_diagonal):
    """(vector, matrix row by row) → the coordinates of `Gaussian(d)`."""
    rows, columns = np.tril_indices(d)
    square = np.asarray(flat[d:], dtype=object).reshape(d, d)
    factors = np.where(rows == columns, 1, off_diagonal)
    return [*flat[:d], *(square[rows, columns] * factors)]


def gaussian(point):
    d = point["d"]
    theta = np.array(half(d, list(doubles(point["theta"])), 2), dtype=np.float64)
    return Gaussian(d), theta, half(d, [mp.mpf(e) for e in point["eta"]], 1)


HOW = {"categorical": categorical, "multivariate_normal": gaussian}


@pytest.mark.parametrize("point", HARD["points"], ids=lambda p: p["id"])
def test_hard_points(point, x64):
    """ψ, η, θ(η) and φ at points chosen to hurt, against 50 digits; bound 64 ε (1 + condition)."""
    psi, theta, eta = HOW[point["family"]](point)
    condition = 1 + float(point.get("cond_precision", 1))
    tiny = np.finfo(np.float64).tiny  # XLA flushes what is below it

    def close(found, truth, bound):
        truth = mp.mpf(truth)
        assert abs(mp.mpf(float(found)) - truth) <= bound * abs(truth) + 2 * tiny, (found, truth)

    close(psi(jnp.asarray(theta)), point["psi"], 64 * EPS * (1 + condition))
    found = to_eta(psi, theta)
    size = max(abs(e) for e in eta)
    for f, t in zip(found, eta, strict=True):
        assert abs(mp.mpf(float(f)) - t) <= 64 * EPS * condition * size + 2 * tiny
    inverse = point["inverse"]
    eta64 = doubles(inverse["eta"])
    if point["family"] == "multivariate_normal":
        eta64 = np.array(half(psi.d, list(eta64), 1), dtype=np.float64)
    back = to_theta(psi, eta64)
    if not inverse["feasible"]:
        assert np.isnan(back).any()
        return
    truth = [mp.mpf(t) for t in inverse["theta"]]
    if point["family"] == "multivariate_normal":
        truth = half(psi.d, truth, 2)
    worst = max(abs(mp.mpf(float(f)) - t) for f, t in zip(back, truth, strict=True))
    assert worst <= 64 * EPS * condition * (1 + max(abs(t) for t in truth))
    close(conjugate(psi, eta64), inverse["phi"], 64 * EPS * condition)


@pytest.mark.parametrize("pair", HARD["pairs"], ids=lambda p: p["id"])
def test_hard_pairs(pair, x64):
    """D for pairs whose textbook value is noise, to 1e-12."""
    p, q = doubles(pair["theta_p_hex"]), doubles(pair["theta_q_hex"])
    if pair["family"] == "multivariate_normal":
        psi = Gaussian(2)
        p, q = (np.array(half(2, list(x), 2), dtype=np.float64) for x in (p, q))
    else:
        psi = Categorical(len(p))
    for found, truth in ((bregman(psi, p, q), pair["D_pq"]), (bregman(psi, q, p), pair["D_qp"])):
        truth = mp.mpf(truth)
        wrong = abs(mp.mpf(float(found)) - truth)
        assert wrong <= 1e-12 * truth + np.finfo(np.float64).tiny, (found, truth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saturated_categorical_keeps_its_digits(dtype, x64):
    """p₁ = 1 − 1e-13 (or e^-700): log p and curvature lose nothing."""
    psi = Categorical(2)
    for lead in (30.0, 80.0) if dtype == np.float32 else (30.0, 700.0):
        theta = jnp.array([lead, 0.0], dtype)
        log_p = psi.log_probabilities(theta)
        others = 2 * mp.exp(-mp.mpf(lead))
        rtol = 16 * np.finfo(dtype).eps
        np.testing.assert_allclose(log_p[1], float(-mp.log1p(others)), rtol=rtol)
        variance = float(others / (1 + others) ** 2)  # of v = (1, 0), v₀ = 0
        v = jnp.array([1.0, 0.0], dtype)
        np.testing.assert_allclose(curvature(psi, theta, v), variance, rtol=rtol)
        assert to_eta(psi, theta)[1] > 0


def kl_of_logits(theta, base):
    """Σ qⱼ log qⱼ/pⱼ in enough digits for every q there is."""
    with mp.workdps(900):
        p, q = ([mp.mpf(0), *(mp.mpf(float(x)) for x in point)] for point in (theta, base))
        zp, zq = (mp.log(mp.fsum(mp.exp(x) for x in point)) for point in (p, q))
        return mp.fsum(mp.exp(b - zq) * (b - zq - a + zp) for a, b in zip(p, q, strict=True))


FAINT = {  # (θ, base): an outcome, or the reference, whose q is no normal number or not worth one
    "f32": (
        ([-57.0], [-95.0]),
        ([57.0], [95.0]),  # the reference's odds are 0
        ([-80.0], [-87.5]),
        ([-1000.0], [-90.0]),  # q |d|, with q below the smallest normal number
        ([0.0], [-95.0]),
        ([10.0], [-85.0]),
        ([-57.25, 3.0, 3.5], [-95.5, 2.0, 2.5]),
        ([40.8125, 41.125], [30.125, 30.4375]),  # two that share a saturated law
        ([-60.0, -61.0], [-100.0, -200.0]),
        ([60.0, 61.0, 40.0], [95.0, 96.0, 94.0]),
    ),
    "f64": (
        ([-500.0], [-800.0]),
        ([500.0], [800.0]),
        ([-705.0], [-709.5]),
        ([-1e4], [-710.0]),
        ([0.0], [-800.0]),
        ([40.8125, 41.125], [30.125, 30.4375]),
        ([-500.5, -600.0, 2.5], [-800.25, -1e5, 2.0]),
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_outcomes_too_faint_for_a_number_still_count(dtype, x64):
    """KL where q is 0 in this precision and p is not; the worst found is 1.6e-6 and 2e-16."""
    bound = 1e-5 if dtype == np.float32 else 1e-14
    for theta, base in FAINT["f32" if dtype == np.float32 else "f64"]:
        psi = Categorical(len(theta))
        points = jnp.array(theta, dtype), jnp.array(base, dtype)
        found = jax.jit(lambda t, b, psi=psi: bregman(psi, t, b))(*points)
        truth = kl_of_logits(theta, base)
        assert found.dtype == dtype
        assert abs(mp.mpf(float(found)) - truth) <= bound * truth, (theta, base, found)
        batch = jax.vmap(lambda t, b, psi=psi: bregman(psi, t, b))(*(x[None] for x in points))
        np.testing.assert_array_equal(batch[0], found)
        assert bregman(psi, points[1], points[1]) == 0
        slope = jax.grad(lambda t, b, psi=psi: psi.divergence(t, b), argnums=(0, 1))(*points)
        assert np.isfinite(slope).all(), (theta, base)


def test_the_divergence_of_laws_without_an_outcome(x64):
    """q = 0 costs −log(1 − p), q > 0 = p is infinitely far, however small q is."""
    for dtype in (np.float32, np.float64):
        for theta, base, truth in (
            ([-np.inf, 1.0], [-np.inf, 1.0], 0.0),
            ([0.0], [-np.inf], np.log(2.0)),
            ([-np.inf, np.log(3.0)], [-np.inf, 0.0], np.log(2.0) - 0.5 * np.log(3.0)),
            ([-np.inf, 1.0], [0.0, 1.0], np.inf),
            ([-np.inf, 1.0], [5.0, 1.0], np.inf),
            ([-np.inf, 1.0], [-1000.0, 1.0], np.inf),
        ):
            psi = Categorical(len(theta))
            found = bregman(psi, jnp.array(theta, dtype), jnp.array(base, dtype))
            np.testing.assert_allclose(found, truth, rtol=8 * np.finfo(dtype).eps)


def test_curvature_is_the_metric(x64):
    rng = np.random.default_rng(20263)
    for psi, theta in (
        (Categorical(3), rng.normal(size=3)),
        (Gaussian(2), np.array([0.75, -0.5, -0.5, 0.25, -1.0])),
    ):
        v = rng.normal(size=theta.shape)
        np.testing.assert_allclose(curvature(psi, theta, v), v @ metric(psi, theta) @ v, rtol=1e-13)


def test_gaussian_parameters_come_back(x64):
    rng = np.random.default_rng(20264)
    psi, mean = Gaussian(3), rng.normal(size=3)
    low = np.tril(rng.normal(size=(3, 3)), -1) + np.diag(rng.uniform(0.5, 2, 3))
    theta = psi.from_mean_cholesky(mean, jnp.asarray(low))
    np.testing.assert_allclose(
        theta, psi.from_mean_covariance(mean, jnp.asarray(low @ low.T)), rtol=1e-12
    )
    for found, truth in zip(psi.to_mean_covariance(theta), (mean, low @ low.T), strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(psi.to_mean_cholesky(theta)[1], low, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(psi.starting_point(jnp.float64)[3:], [-0.5, 0, -0.5, 0, 0, -0.5])


INVALID_THETA = {
    "categorical +inf": (Categorical(2), [np.inf, np.inf]),
    "categorical nan": (Categorical(2), [np.nan, 0.0]),
    "normal, precision indefinite": (Gaussian(2), [0.0, 0.0, -0.5, -2.0, -0.5]),
    "normal, precision singular": (Gaussian(2), [0.0, 0.0, -0.5, -1.0, -0.5]),
    "normal, precision -I": (Gaussian(2), [0.0, 0.0, 0.5, 0.0, 0.5]),
    "normal nan": (Gaussian(2), [np.nan, 0.0, -0.5, 0.0, -0.5]),
}
INVALID_ETA = {
    "categorical sum > 1": (Categorical(2), [0.6, 0.6]),
    "categorical negative": (Categorical(2), [-0.1, 0.3]),
    "categorical nan": (Categorical(2), [np.nan, 0.3]),
    "normal, no variance": (Gaussian(2), [1.0, 0.0, 1.0, 0.0, 1.0]),
    "normal, indefinite": (Gaussian(2), [0.0, 0.0, 1.0, 2.0, 1.0]),
}


@pytest.mark.parametrize("case", INVALID_THETA)
def test_an_invalid_theta_is_nan_everywhere(case, x64):
    psi, theta = INVALID_THETA[case]
    value, grad = jax.jit(jax.value_and_grad(psi))(jnp.array(theta))
    assert np.isnan(value)
    assert np.isnan(grad).any()
    assert np.isnan(jax.jit(lambda t: to_eta(psi, t))(jnp.array(theta))).any()
    assert np.isnan(metric(psi, jnp.array(theta))).all()


@pytest.mark.parametrize("case", INVALID_ETA)
def test_an_invalid_eta_is_nan_everywhere(case, x64):
    psi, eta = INVALID_ETA[case]
    value, grad = jax.jit(jax.value_and_grad(lambda e: conjugate(psi, e)))(jnp.array(eta))
    assert np.isnan(value)
    assert np.isnan(grad).any()
    found = dual_point(psi, jnp.array(eta))
    assert np.isnan(found.value).all()
    with pytest.raises(RuntimeError, match="solver ended"):
        found.checked()


def test_the_limits_of_the_simplex(x64):
    """θ = −∞ is a law without that outcome; a vertex has φ = 0, and no θ."""
    psi = Categorical(2)
    value, grad = jax.value_and_grad(psi)(jnp.array([-jnp.inf, -jnp.inf]))
    assert value == 0
    np.testing.assert_array_equal(grad, 0.0)
    assert conjugate(psi, jnp.array([1.0, 0.0])) == 0
    assert np.isnan(to_theta(psi, jnp.array([1.0, 0.0]))).any()
    assert not np.isfinite(jax.grad(lambda e: conjugate(psi, e))(jnp.array([1.0, 0.0]))).any()


def test_what_no_family_can_be():
    with pytest.raises(ValueError, match="at least 1"):
        Categorical(0)
    with pytest.raises(ValueError, match="at least 1"):
        Gaussian(0)
    with pytest.raises(ValueError, match=r"Wanted \(2, 2\)"):
        Gaussian(2).from_mean_covariance(jnp.zeros(2), jnp.eye(3))
    with pytest.raises(ValueError, match="mean has shape"):
        Gaussian(2).from_mean_covariance(jnp.zeros(3), jnp.eye(2))
