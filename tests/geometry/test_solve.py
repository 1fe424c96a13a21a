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
    good = np.array([True, True, True, False, False, False, False, False, True])
    np.testing.assert_array_equal(found.status == Status.CONVERGED, good)
    np.testing.assert_array_equal(np.isfinite(found.value[:, 0]), good)
    truth = np.log(eta[:3] / (1 - eta[:3]))
    np.testing.assert_allclose(found.value[:3], truth, rtol=1e-6)
    np.testing.assert_allclose(found.value[:2], truth[:2], rtol=1e-14)
    np.testing.assert_allclose(found.value[8], np.log(1e-30), rtol=1e-14)


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_rounded_more_coarsely_than_they_are_large_do_not_stop_it(x64, dtype):
    """log(1 + Σ exp θ) near 0 as most people write it: right to an ε of 1, not of itself."""
    psi = lambda theta: jax.nn.logsumexp(jnp.append(theta, 0.0))  # noqa: E731
    small = np.array([1e-2, 1e-4, 1e-6, 1e-8, 1e-12], dtype)
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2000, 3)) * rng.choice([1, 4, 8], (2000, 1))
    p = np.exp(logits - logits.max(1, keepdims=True))
    eta = np.concatenate([np.stack([small, small], 1), (p / p.sum(1, keepdims=True))[:, 1:]])
    eta = eta.astype(dtype)
    found = jax.jit(jax.vmap(lambda eta: dual_point(psi, eta)))(eta)
    assert found.value.dtype == dtype
    eps, rest = np.finfo(dtype).eps, 1 - eta.astype(np.float64).sum(1)
    # What is left for outcome 0 may be rounding of η: there nothing is determined.
    certain = rest > 256 * eps
    np.testing.assert_array_equal(found.status[certain], Status.CONVERGED)
    truth = np.log(eta[certain].astype(np.float64) / rest[certain, None])
    blur = 8 * eps * (1 + 1 / rest[certain, None] + np.abs(truth))
    assert (np.abs(found.value[certain] - truth) < blur).all()
    assert found.steps[certain].max() < 40


def test_one_variable_stays_where_psi_is_a_number(x64):
    """ψ = −log θ is NaN for θ < 0, and its slope −1/θ is not."""
    psi = lambda theta: -jnp.log(theta).sum()  # noqa: E731
    for eta in (-0.1, -3.0, -1e8, -1e300):
        found = dual_point(psi, jnp.array([eta]), jnp.ones(1))
        np.testing.assert_allclose(found.checked(), -1 / eta, rtol=4e-16)


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


class Burg:
    """−Σ log θ on the orthant, its domain and nothing else known: θ = −1/η at any size."""

    def __call__(self, theta):
        return -jnp.log(theta).sum()

    def in_domain(self, theta):
        return (theta > 0).all()

    def starting_point(self, dtype):
        return jnp.ones(self.n, dtype)


class Burg1(Burg):
    n = 1


class Burg2(Burg):
    n = 2


for potential in (Burg1, Burg2):
    jax.tree_util.register_static(potential)


def test_any_size_is_reached_from_one_start(x64):
    """One variable: sixty octaves are sixty halvings at most. Two: 30 decades each, both ways."""
    eta = -np.array([[1.0], [1e-30], [1e30], [1e-150], [1e150]])
    found = jax.jit(jax.vmap(lambda e: dual_point(Burg1(), e)))(eta)
    np.testing.assert_allclose(found.value, -1 / eta, rtol=1e-15)
    assert found.steps.max() <= 64
    eta = -np.array([[1.0, 2.0], [1e-6, 1e6], [1e-30, 1e30], [1e6, 1e6]])
    found = jax.jit(jax.vmap(lambda e: dual_point(Burg2(), e)))(eta)
    np.testing.assert_allclose(found.value, -1 / eta, rtol=1e-15)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_units_of_psi_and_of_theta_do_not_matter(factor, x64):
    """Steps are damped by λ, which is not blind to a factor of ψ; doubling makes up for it."""

    @jax.jit
    def search(eta):
        scaled = dual_point(lambda t: factor * jnp.cosh(t).sum(), factor * eta)
        units = dual_point(lambda t: jnp.cosh(t * factor).sum(), factor * eta)
        return scaled, units

    eta = jnp.array([-1e-3, 2e6])
    scaled, units = search(eta)
    np.testing.assert_allclose(scaled.value, np.arcsinh(eta), rtol=1e-15)
    np.testing.assert_allclose(units.value, np.arcsinh(eta) / factor, rtol=1e-15)
    assert max(scaled.steps, units.steps) <= 12


def test_entries_of_any_size_are_found_to_their_own_digits(x64):
    """θ³ + 1e-8 θ = η for η = 1e12 and 1e-12: of the whole, the second is nothing."""
    eta = jnp.array([1e12, 1e-12])
    found = dual_point(lambda t: (t**4).sum() / 4 + 0.5e-8 * (t @ t), eta)
    theta = found.checked()
    np.testing.assert_allclose(theta**3 + 1e-8 * theta, eta, rtol=1e-14)


def test_zero_is_a_target_like_another(x64):
    found = dual_point(lambda t: jnp.sqrt(1 + t @ t), jnp.zeros(2))
    np.testing.assert_array_equal(found.checked(), 0.0)


def test_what_a_potential_knows_to_be_out_of_reach_is_said(x64):
    @jax.tree_util.register_static
    class Knowing(Burg2):
        def in_dual_domain(self, eta):
            return (eta < 0).all()

    outside = jnp.array([-1.0, 0.0])
    assert dual_point(Burg2(), outside).status != Status.CONVERGED  # it had to be searched for
    found = dual_point(Knowing(), outside)
    assert found.status == Status.UNREACHABLE
    with pytest.raises(RuntimeError, match=r"UNREACHABLE .*outside the range of ∇ψ"):
        found.checked()


def test_a_large_system_is_solved_without_its_matrix(x64):
    """10,000 coordinates of a bare log-sum-exp; and the derivative of what was found."""
    n = 10_000
    psi = lambda t: jax.nn.logsumexp(jnp.append(t, 0.0))  # noqa: E731
    theta = jnp.asarray(np.random.default_rng(20267).normal(size=n))
    eta = jax.grad(psi)(theta)

    @jax.jit
    def search(eta):
        return dual_point(psi, eta), jax.jvp(lambda e: dual_point(psi, e).value, (eta,), (eta,))[1]

    found, moved = search(eta)
    np.testing.assert_allclose(found.checked(), theta, rtol=0, atol=1e-10)
    # Along η the reference outcome pays: θ̇ᵢ = 1 + (1 − p₀)/p₀.
    p0 = 1 - eta.sum()
    np.testing.assert_allclose(moved, 1 + (1 - p0) / p0, rtol=1e-7)


def test_checked_says_which_row_and_refuses_tracers(x64):
    with pytest.raises(RuntimeError, match=r"NONFINITE .* in 1 of 2 problems, first at \(1,\)"):
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
