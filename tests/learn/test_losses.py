import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.families.categorical import Categorical
from dualflat.learn.losses import classification_gap, fenchel_young_loss

LOGITS = np.array(
    [
        [0.0, 0.0, 0.0, 0.0],
        [1.5, -0.25, 3.0, 0.5],
        [60.0, 1.0, 0.0, -5.0],  # p₀ = 1 − 3e-26
        [1e4, 9999.0, -1e4, 3.0],
        [-1e4, 1e4, 0.0, 9999.5],
        [1e-6, 0.0, -1e-6, 0.0],
    ],
    np.float32,
)
LABELS = np.array([3, 2, 0, 0, 0, 1])
value_and_grad = jax.jit(jax.value_and_grad(lambda z, y: classification_gap(z, y).sum()))
gaps = jax.jit(classification_gap)


def truth(z, y):
    """−log softmax(z)_y and its gradient, in 60 digits."""
    with mp.workdps(60):
        lead = [mp.mpf(float(v)) - mp.mpf(float(z[y])) for v in z]
        total = mp.fsum(mp.exp(v) for v in lead)
        p = [mp.exp(v) / total for v in lead]
        rest = mp.fsum(q for j, q in enumerate(p) if j != y)
        gap = mp.log1p(mp.fsum(mp.exp(v) for j, v in enumerate(lead) if j != y))
        return float(gap), [float(q if j != y else -rest) for j, q in enumerate(p)]


def test_the_loss_and_its_gradient_keep_their_digits():
    """Relative to 16 ε for |z| up to 1e4 in float32; what is below 1e-38, XLA flushes."""
    rtol, tiny = 16 * np.finfo(np.float32).eps, 2 * np.finfo(np.float32).tiny
    loss, grad = gaps(LOGITS, LABELS), value_and_grad(LOGITS, LABELS)[1]
    for row, found, slope, label in zip(LOGITS, loss, grad, LABELS, strict=True):
        gap, exact = truth(row, label)
        np.testing.assert_allclose(found, gap, rtol=rtol, atol=tiny)
        # exp(v) has the relative condition |v|, and v = zⱼ − z_y is rounded once.
        np.testing.assert_allclose(slope, exact, rtol=8 * rtol, atol=tiny)


def test_the_usual_formula_would_fail_that():
    usual = jax.nn.logsumexp(LOGITS, axis=-1) - LOGITS[np.arange(6), LABELS]
    assert usual[2] == 0
    assert gaps(LOGITS, LABELS)[2] > 0


def test_it_is_the_gap_of_the_categorical_potential():
    """θᵢ = zᵢ − z₀, η the vertex of the label: the loss is ψ(θ) + φ(η) − ⟨θ, η⟩."""
    z = np.random.default_rng(20265).normal(size=(32, 5)).astype(np.float32) * 3
    labels = np.arange(32) % 5
    vertices = jnp.eye(5)[labels][:, 1:]
    loss = fenchel_young_loss(Categorical(4), z[:, 1:] - z[:, :1], vertices)
    np.testing.assert_allclose(gaps(z, labels), loss, rtol=2e-5)


def test_the_hessian_is_the_metric():
    z = jnp.array([0.5, -1.0, 2.0])
    p = jax.nn.softmax(z)
    hessian = jax.jit(jax.hessian(lambda z: classification_gap(z, jnp.array(1))))(z)
    np.testing.assert_allclose(hessian, jnp.diag(p) - jnp.outer(p, p), atol=1e-7)


def test_what_is_impossible_is_nan_for_its_own_row_only():
    rows = np.array([[0, 1, 2], [0, np.nan, 1], [np.inf, 0, 0], [0, 1, 2], [0, 1, 2]], np.float32)
    labels = np.array([1, 0, 1, 3, -1])
    loss, grad = gaps(rows, labels), value_and_grad(rows, labels)[1]
    good = gaps(np.tile(rows[:1], (5, 1)), np.ones(5, int))
    assert loss[0] == good[0]
    assert np.isfinite(grad[0]).all()
    assert np.isnan(loss[1:]).all()
    assert np.isnan(grad[1:]).all()


def test_infinite_logits_are_limits():
    rows = np.array([[0, 0, -np.inf], [-np.inf, 0, 1]], np.float32)
    loss, grad = gaps(rows, np.array([0, 0])), value_and_grad(rows, np.array([0, 0]))[1]
    np.testing.assert_allclose(loss[0], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(grad[0], [-0.5, 0.5, 0.0])
    assert loss[1] == np.inf
    assert np.isnan(grad[1]).any()


def test_shapes_and_dtypes_are_refused_with_words():
    with pytest.raises(ValueError, match="do not match"):
        classification_gap(jnp.zeros((3, 4)), jnp.zeros(2, int))
    with pytest.raises(ValueError, match="Wanted integers"):
        classification_gap(jnp.zeros((3, 4)), jnp.zeros(3))
    with pytest.raises(ValueError, match="real floating"):
        classification_gap(jnp.zeros((3, 4), int), jnp.zeros(3, int))
    with pytest.raises(ValueError, match="do not match"):
        fenchel_young_loss(Categorical(3), jnp.zeros((2, 3)), jnp.zeros((2, 2)))


def test_any_potential_is_a_loss():
    """ψ = ½|θ|² gives half the squared error, by search for the dual point and all."""

    def psi(theta):
        return 0.5 * theta @ theta

    thetas, etas = jnp.array([[1.0, 2.0], [0.5, -3.0]]), jnp.array([[0.0, 2.0], [0.5, 1.0]])
    loss = jax.jit(lambda t: fenchel_young_loss(psi, t, etas))(thetas)
    np.testing.assert_allclose(loss, [0.5, 8.0], rtol=1e-6)
