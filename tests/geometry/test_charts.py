"""Charts that survive float32, against mpmath."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.charts import LogProbabilities, MeanCholesky, moments
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.metric import inner


def exact_kl(mean, low, other_mean, other_low):
    with mp.workdps(60):
        m, low, n, k = (
            mp.matrix(np.asarray(v, np.float64).tolist())
            for v in (mean, low, other_mean, other_low)
        )
        white = mp.inverse(k) * (m - n)
        c = mp.inverse(k) * low
        size = sum(c[i, j] ** 2 for i in range(c.rows) for j in range(c.cols))
        logs = 2 * sum(mp.log(c[i, i]) for i in range(c.rows))
        return ((white.T * white)[0] + size - c.rows - logs) / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("distance", [1e-6, 1e-3, 0.3, 3.0])
def test_narrow_laws_far_from_the_origin(dtype, distance, x64):
    """Σ = 1e-8·(…) at the mean 1e4: KL to a few ε of either precision."""
    rng = np.random.default_rng(20267)
    low = 1e-4 * (np.eye(3) + 0.3 * np.tril(rng.normal(size=(3, 3)), -1))
    step = 1e-4 * distance * np.tril(np.abs(rng.normal(size=(3, 3))))
    mean = np.full(3, 1e4)
    laws = [
        MeanCholesky(jnp.asarray(m, dtype), jnp.asarray(v, dtype))
        for m, v in ((mean, low), (mean, low + step))
    ]
    found = jax.jit(lambda a, b: (a.kl(b), b.kl(a), a.kl(a)))(*laws)
    for value, (a, b) in zip(found[:2], (laws, laws[::-1]), strict=True):
        truth = exact_kl(a.mean, a.low, b.mean, b.low)
        assert value.dtype == dtype
        # the difference of the factors is exact; what is left is rounding of the solve
        assert abs(float(value) - truth) <= 64 * np.finfo(dtype).eps * truth, (value, truth)
    assert found[2] == 0


def test_the_chart_is_the_same_geometry(x64):
    rng = np.random.default_rng(20268)
    a, b = (
        MeanCholesky(
            jnp.asarray(rng.normal(size=2)),
            jnp.asarray(np.tril(rng.normal(size=(2, 2)), -1) + np.eye(2)),
        )
        for _ in range(2)
    )
    np.testing.assert_allclose(a.kl(b), bregman(Gaussian(2), b.theta(), a.theta()), rtol=1e-12)
    x = jnp.array([0.3, -0.7])
    np.testing.assert_allclose(a.log_prob(x), Gaussian(2).log_density(a.theta(), x), rtol=1e-13)
    np.testing.assert_allclose(a.entropy(), Gaussian(2).entropy(a.theta()), rtol=1e-13)
    v = jax.tree.map(lambda y: jnp.asarray(rng.normal(size=y.shape)), a)
    moved = jax.jvp(lambda law: law.theta(), (a,), (v,))[1]
    along = MeanCholesky(v.mean, jnp.tril(v.low))
    truth = inner(Gaussian(2), a.theta(), moved, moved)
    np.testing.assert_allclose(a.inner(along, along), truth, rtol=1e-11)


def test_a_fit_in_float32_of_what_natural_parameters_cannot_hold():
    law = MeanCholesky(jnp.full(2, 1e4), jnp.array([[0.1, 0.0], [0.05, 0.2]]))
    xs = law.sample(jax.random.key(0), (20_000,))
    whole, shards = moments(xs), moments(xs[:7000]) + moments(xs[7000:])
    for found in (whole, shards):
        fitted = found.fit()
        np.testing.assert_allclose(fitted.low, law.low, atol=0.01)
        assert fitted.low.dtype == jnp.float32
    np.testing.assert_allclose(shards.scatter, whole.scatter, rtol=1e-3)
    masked = moments(
        jnp.concatenate([xs, jnp.full((5, 2), jnp.nan)]), jnp.r_[jnp.ones(20_000), jnp.zeros(5)]
    )
    np.testing.assert_allclose(masked.scatter, whole.scatter, rtol=1e-4)
    assert jnp.isnan(moments(xs[:1]).fit().low).all()
    with pytest.raises(ValueError, match="Wanted"):
        moments(xs[0])


def test_an_impossible_factor_is_flagged():
    bad = MeanCholesky(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.0, -1.0]]))
    good = MeanCholesky(jnp.zeros(2), jnp.eye(2))
    assert jnp.isnan(bad.kl(good))
    assert jnp.isnan(good.kl(bad))
    assert jnp.isnan(bad.log_prob(jnp.zeros(2)))
    assert jnp.isnan(jax.grad(lambda law: law.kl(good))(bad).mean).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_all_log_probabilities(dtype, x64):
    logits = np.array([0.0, -30.0, 1.0, -60.0])
    other = logits + np.array([0.0, 2.0**-10, -(2.0**-12), 0.5])
    a, b = (LogProbabilities.of(jnp.asarray(v, dtype)) for v in (logits, other))
    with mp.workdps(60):
        p, q = ([mp.exp(mp.mpf(float(x))) for x in law.log_p] for law in (a, b))
        truth = sum(x * mp.log(x / y) - x + y for x, y in zip(p, q, strict=True))
    # log p is rounded at the size of 1, the gap is 1e-3
    np.testing.assert_allclose(a.kl(b), float(truth), rtol=4e3 * np.finfo(dtype).eps)
    np.testing.assert_allclose(a.theta(), a.log_p[1:] - a.log_p[0])
    np.testing.assert_allclose(a.entropy(), Categorical(3).entropy(a.theta()), rtol=1e-5)
    assert a.kl(a) == 0
    never = LogProbabilities(jnp.array([0.0, -np.inf], dtype))
    half = LogProbabilities.of(jnp.zeros(2, dtype))
    assert half.kl(never) == np.inf
    np.testing.assert_allclose(never.kl(half), np.log(2), rtol=1e-6)
