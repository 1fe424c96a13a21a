import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat.geometry.legendre import conjugate, dual_point, to_theta
from dualflat.geometry.metric import inverse_metric, lower_index, metric, raise_index
from dualflat.geometry.solve import Status


def logistic(theta):
    return jnp.logaddexp(0.0, theta).sum()


find = jax.jit(jax.vmap(lambda eta: dual_point(logistic, eta)))


def test_newton_finds_what_there_is_and_says_so_where_there_is_not(x64):
    """The range of ∇ψ is (0, 1): 1 is on its edge, where the residual vanishes as θ → ∞."""
    eta = np.array([[0.5], [1e-3], [1 - 1e-9], [1.0], [1.2], [0.0], [-1.0], [np.nan], [1e-30]])
    found = find(eta)
    good = np.array([True, True, True, False, False, False, False, False, False])
    np.testing.assert_array_equal(found.status == Status.CONVERGED, good)
    np.testing.assert_array_equal(np.isfinite(found.value[:, 0]), good)
    truth = np.log(eta[:3] / (1 - eta[:3]))
    np.testing.assert_allclose(found.value[:3], truth, rtol=1e-6)
    np.testing.assert_allclose(found.value[:2], truth[:2], rtol=1e-14)


def test_bad_rows_leave_the_others_bit_identical(x64):
    eta = np.array([[0.5], [1e-3], [0.9]] * 3)
    spoilt = eta.copy()
    spoilt[[1, 4, 6]] = [[np.nan], [1.0], [-3.0]]
    keep = np.array([0, 2, 3, 5, 7, 8])
    np.testing.assert_array_equal(find(eta).value[keep], find(spoilt).value[keep])
    assert np.isnan(find(spoilt).value[np.array([1, 4, 6])]).all()


def test_float32_converges_too():
    found = find(np.array([[0.5], [1e-3], [0.99]], np.float32))
    assert found.value.dtype == jnp.float32
    np.testing.assert_array_equal(found.status, Status.CONVERGED)
    np.testing.assert_allclose(found.value[1:, 0], np.log([1e-3 / 0.999, 99.0]), rtol=1e-5)


def test_the_search_stays_inside_a_domain_that_it_cannot_see(x64):
    """ψ = −Σ log(−θ) is finite (NaN-free) at θ > 0 if written with |θ|: only `in_domain` knows."""

    @jax.tree_util.register_static
    class Exponential:
        def __call__(self, theta):
            return -jnp.log(jnp.abs(theta)).sum()

        def in_domain(self, theta):
            return (theta < 0).all()

        def starting_point(self, dtype):
            return -jnp.ones(2, dtype)

    found = dual_point(Exponential(), jnp.array([1e6, 1e-6]))
    np.testing.assert_allclose(found.checked(), [-1e-6, -1e6], rtol=1e-13)
    outside = dual_point(Exponential(), jnp.array([1.0, 1.0]), jnp.array([1.0, -1.0]))
    assert outside.status == Status.NONFINITE
    with pytest.raises(RuntimeError, match=r"NONFINITE after 0 steps: the start is outside"):
        outside.checked()


def test_checked_says_which_row_and_refuses_tracers(x64):
    with pytest.raises(RuntimeError, match=r"MAX_STEPS .* in 1 of 2 problems, first at \(1,\)"):
        find(np.array([[0.5], [0.0]])).checked()
    with pytest.raises(TypeError, match="inside jit"):
        jax.jit(lambda e: dual_point(logistic, e).checked())(jnp.array([0.5]))


def test_derivatives_of_the_conjugate_at_every_order(x64):
    """∇φ = θ, ∇²φ = G⁻¹, φ‴ = (2η − 1)/(η(1 − η))², forwards and backwards."""
    eta = jnp.array([0.3])
    phi = lambda e: conjugate(logistic, e)  # noqa: E731

    @jax.jit
    def orders(e):
        second = jax.hessian(phi)
        return jax.grad(phi)(e), second(e), jax.jacfwd(second)(e), jax.jacrev(second)(e)

    first, second, third, third_back = orders(eta)
    theta = to_theta(logistic, eta)
    np.testing.assert_allclose(first, theta, rtol=1e-14)
    np.testing.assert_allclose(second, inverse_metric(logistic, theta), rtol=1e-13)
    exact = (2 * 0.3 - 1) / (0.3 * 0.7) ** 2
    np.testing.assert_allclose(np.ravel([third, third_back]), exact, rtol=1e-12)


def test_parameters_of_psi_are_differentiated(x64):
    """ψ_a = aψ: θ_a(η) = θ(η/a), φ_a(η) = aφ(η/a); so ∂φ/∂a = −ψ(θ), ∂θ/∂a = −η/a² · dθ/dη."""
    eta, a = jnp.array([0.3]), 1.5

    @jax.jit
    def slopes(a):
        return (
            jax.grad(lambda a: conjugate(lambda t: a * logistic(t), eta))(a),
            jax.jacrev(lambda a: to_theta(lambda t: a * logistic(t), eta))(a),
        )

    along_phi, along_theta = slopes(a)
    p = 0.3 / a
    np.testing.assert_allclose(along_phi, np.log1p(-p), rtol=1e-13)
    np.testing.assert_allclose(along_theta, [-0.3 / a**2 / (p * (1 - p))], rtol=1e-13)


def test_raising_undoes_lowering(x64):
    theta, v = jnp.array([0.3, -2.0]), jnp.array([1.0, 2.0])
    lowered = lower_index(logistic, theta, v)
    np.testing.assert_allclose(lowered, metric(logistic, theta) @ v, rtol=1e-14)
    np.testing.assert_allclose(raise_index(logistic, theta, lowered), v, rtol=1e-13)
