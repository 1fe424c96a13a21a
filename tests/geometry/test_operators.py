"""Every structured operator against the matrix that it stands for."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.connection import cubic_tensor
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.metric import metric
from dualflat.geometry.operators import (
    Block,
    Dense,
    Diagonal,
    DiagonalMinusRankOne,
    Factored,
    Inverse,
    Operator,
    Paired,
)

D = np.array([0.5, 2.0, 1e-6, 3.0])
U = np.array([0.3, -0.2, 1e-4, 0.7])


def rank_one(weight):
    return DiagonalMinusRankOne(
        jnp.asarray(D),
        jnp.asarray(U),
        jnp.asarray(weight),
        jnp.asarray(1 - weight * (U**2 / D).sum()),
    )


def normal_metric(d):
    rng = np.random.default_rng(20266)
    root = np.eye(d) + 0.2 * rng.normal(size=(d, d))
    law = Gaussian(d)
    theta = law.from_mean_covariance(jnp.asarray(rng.normal(size=d)), jnp.asarray(root @ root.T))
    return law.hessian(theta)


def operators():
    rng = np.random.default_rng(20265)
    square = rng.normal(size=(4, 4))
    dense = Dense(jnp.asarray(square @ square.T + 0.1 * np.eye(4)))
    return {
        "dense": dense,
        "diagonal": Diagonal(jnp.asarray(D)),
        "minus": rank_one(1.0),
        "plus": rank_one(-2.5),
        "block": Block((rank_one(1.0), dense, Diagonal(jnp.asarray(D[:1])))),
        "inverse": Inverse(rank_one(1.0)),
        "inverse of blocks": Inverse(Block((dense, Diagonal(jnp.asarray(D))))),
        "normal": normal_metric(2),
        "normal, by solves": normal_metric(6),
        "factored": Factored(jnp.asarray(np.tril(square) + 3 * np.eye(4))),
        "paired": Paired(jnp.asarray(np.tril(square[:, :2].reshape(2, 2, 2)) + 3 * np.eye(2))),
    }


@pytest.mark.parametrize(
    "name",
    [
        "dense",
        "diagonal",
        "minus",
        "plus",
        "block",
        "inverse",
        "inverse of blocks",
        "factored",
        "paired",
        "normal",
        "normal, by solves",
    ],
)
def test_an_operator_is_its_matrix(name, x64):
    operator = operators()[name]
    assert isinstance(operator, Operator)
    v = jnp.asarray(np.random.default_rng(20266).normal(size=operator.dim))

    @jax.jit
    def everything(operator, v):
        root = jax.vmap(operator.root, in_axes=1, out_axes=1)(jnp.eye(operator.dim))
        return operator.apply(v), operator.solve(v), operator.logdet(), operator.diagonal(), root

    matrix = np.asarray(operator.dense())
    applied, solved, logdet, diagonal, root = everything(operator, v)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(applied, matrix @ v, rtol=1e-13)
    rtol = 1e-14 * np.linalg.cond(matrix)
    np.testing.assert_allclose(solved, np.linalg.solve(matrix, v), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(matrix)[1], rtol=1e-13)
    np.testing.assert_allclose(diagonal, np.diag(matrix), rtol=1e-13)
    scale = np.sqrt(np.diag(matrix))
    np.testing.assert_allclose(
        root @ root.T / np.outer(scale, scale), matrix / np.outer(scale, scale), atol=1e-13
    )


def test_a_given_complement_keeps_what_a_subtraction_loses(x64):
    """Log-sum-exp at odds e⁴⁰: c = p₀ = 4e-18, and 1 − Σp is 0. G⁻¹w = w/p + (Σw)/p₀."""
    p = jnp.array([1.0 - 1e-18, 1e-18])
    c = jnp.asarray(4e-18)
    w = jnp.array([1.0, 2.0])
    good = DiagonalMinusRankOne(p, p, jnp.asarray(1.0), c)
    np.testing.assert_allclose(good.solve(w), w / p + 3.0 / c, rtol=1e-15)
    # The variance of the leading outcome is the probability of the others, and so are its rows.
    matrix = [[5e-18, -1e-18], [-1e-18, 1e-18]]
    np.testing.assert_allclose(good.dense(), matrix, rtol=1e-15)
    np.testing.assert_allclose(good.apply(jnp.array([1.0, 0.0])), matrix[0], rtol=1e-15)
    root = jax.vmap(good.root, in_axes=1, out_axes=1)(jnp.eye(2))
    np.testing.assert_allclose(root @ root.T, matrix, rtol=1e-14)
    assert (p - p * p)[0] == 0  # the control: the formula's diagonal
    lost = DiagonalMinusRankOne(p, p, jnp.asarray(1.0), 1 - p.sum())
    assert np.isnan(lost.solve(w)).all()  # the control


def test_what_is_not_definite_is_nan(x64):
    v = jnp.ones(2)
    for bad in (
        Dense(jnp.array([[1.0, 2.0], [2.0, 1.0]])),
        Diagonal(jnp.array([1.0, -1.0])),
        DiagonalMinusRankOne(jnp.ones(2), jnp.ones(2), jnp.asarray(1.0), jnp.asarray(-1.0)),
    ):
        assert np.isnan(bad.solve(v)).any()
        assert np.isnan(bad.logdet())
        assert np.isnan(bad.root(v)).any()


SATURATED = {
    "f32": ([-88.0, 0.0], [-np.inf, 0.0], [60.0, 0.0], [-60.0, 0.5], [100.0, 0.0], [30.0, 29.0]),
    "f64": ([-740.0, 0.0], [-np.inf, 0.0], [60.0, 0.0], [-400.0, 0.5], [700.0, 0.0], [40.0, 39.0]),
}


def cumulants(theta):
    """diag p − ppᵀ, and the derivative of it: ∂ₖpᵢ = pᵢ(δᵢₖ − pₖ)."""
    with mp.workdps(700):
        odds = [mp.exp(mp.mpf(float(t))) for t in theta]
        p = [x / (1 + mp.fsum(odds)) for x in odds]
        n = range(len(p))
        slope = [[p[i] * ((i == k) - p[k]) for k in n] for i in n]
        second = [[p[i] * ((i == j) - p[j]) for j in n] for i in n]
        third = [
            [
                [(i == j) * slope[i][k] - slope[i][k] * p[j] - p[i] * slope[j][k] for k in n]
                for j in n
            ]
            for i in n
        ]
    return second, third


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])
def test_a_saturated_logit_has_a_metric_and_a_cubic_tensor(dtype, x64):
    """G entry by entry, T beside its largest entry: worst 2e-6 and 3e-15 where exp rounds e⁻¹⁰⁰."""
    info = np.finfo(dtype)
    for theta in SATURATED["f32" if dtype == np.float32 else "f64"]:
        x, psi = jnp.array(theta, dtype), Categorical(2)
        second, third = (np.array(c, dtype=object) for c in cumulants(theta))
        found = jax.jit(lambda t, psi=psi: metric(psi, t))(x)
        assert found.dtype == dtype
        for f, t in zip(np.ravel(found), second.ravel(), strict=True):
            # XLA flushes what is below the smallest normal number
            assert abs(mp.mpf(float(f)) - t) <= 128 * info.eps * abs(t) + info.tiny, (theta, f, t)
        found = jax.vmap(lambda t, psi=psi: cubic_tensor(psi, t))(x[None])[0]
        size = max(abs(t) for t in third.ravel())
        for f, t in zip(np.ravel(found), third.ravel(), strict=True):
            assert abs(mp.mpf(float(f)) - t) <= 64 * info.eps * size + info.tiny, (theta, f, t)
        back = jax.jacrev(lambda t, psi=psi: metric(psi, t))(x)
        np.testing.assert_allclose(back, found, rtol=0, atol=64 * info.eps * float(size))
        assert np.isfinite(jax.hessian(lambda t, psi=psi: metric(psi, t))(x)).all()


def test_an_entry_of_zero_is_alone(x64):
    """d = u = 0: no 0/0 in what needs no inverse, and none of it is positive definite."""
    p = jnp.array([0.0, 0.25])
    operator = DiagonalMinusRankOne(p, p, jnp.asarray(1.0), jnp.asarray(0.75))
    v = jnp.array([2.0, 3.0])
    np.testing.assert_array_equal(operator.dense(), [[0.0, 0.0], [0.0, 0.1875]])
    np.testing.assert_array_equal(operator.apply(v), [0.0, 0.5625])
    np.testing.assert_array_equal(operator.spread(v), [0.0, 0.9375])
    assert np.isnan(operator.logdet())
    assert np.isnan(operator.solve(v)).any()
