import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry.connection import (
    DualStructure,
    affine_chart_defect,
    alpha_connection,
    change_chart,
    conjugate_connection,
    contract,
    covariant_derivative,
    cubic_tensor,
    curvature_defect,
    curvature_tensor,
    dual_structure,
    duality_defect,
    first_kind,
    levi_civita,
    mean_connection,
    mean_defect,
    metric_defect,
    pull_back,
    ricci_tensor,
    scalar_curvature,
    second_kind,
    sectional_curvature,
    torsion,
    torsion_defect,
)
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.legendre import to_eta
from dualflat.geometry.metric import metric
from tests.geometry.exact_tensors import (
    exact_cubic,
    exact_curvature,
    exact_gamma,
    worst,
)
from tests.geometry.truth import EXACT

ALPHA = 0.4
every_exact = pytest.mark.parametrize("name", EXACT)


def mixed(y):
    """Coordinates in which nothing is straight."""
    return y + 0.1 * jnp.sin(y[::-1]) * y


@functools.cache
def tensors(name):
    """T, Γ and R by both ways at the base, from one program."""
    exact = EXACT[name]
    connection = alpha_connection(exact.psi, ALPHA)

    @jax.jit
    def program(theta):
        return {
            "cubic": cubic_tensor(exact.psi, theta),
            "gamma": connection(theta),
            "curvature": curvature_tensor(connection, theta),
            "by derivatives": curvature_tensor(lambda x: connection(x), theta),
        }

    return program(jnp.asarray(exact.base))


@functools.cache
def charts(name):
    """The connections of one potential in θ, in η and in coordinates that bend, from one program."""
    exact = EXACT[name]
    psi, n = exact.psi, exact.base.size

    @jax.jit
    def program(theta, y, u, v):
        connection = alpha_connection(psi, ALPHA)
        in_eta = alpha_connection(psi, ALPHA, chart="eta")
        flat, bent = dual_structure(psi), dual_structure(psi, ALPHA).in_chart(mixed)
        eta = to_eta(psi, theta)
        return {
            "duality": duality_defect(bent, y),
            "torsion": torsion_defect(bent, y),
            "mean": mean_defect(bent, y),
            "affine": affine_chart_defect(flat, theta),
            "flat": jnp.stack([curvature_tensor(c, theta) for c in (flat.primal, flat.dual)]),
            "gamma": connection(theta),
            "gamma of the dual": flat.dual(theta),
            "carried from eta": change_chart(
                lambda x: jnp.zeros((n, n, n)), lambda x: to_eta(psi, x)
            )(theta),
            "in eta": in_eta(eta),
            "in eta, carried back": change_chart(in_eta, lambda x: to_eta(psi, x))(theta),
            "contracted": contract(connection, theta, u, v),
            "contracted in eta": contract(in_eta, eta, u, v),
        }

    u, v = np.random.default_rng(3).normal(size=(2, n))
    y = np.linspace(0.9, 1.1, n) * exact.base
    found = program(*map(jnp.asarray, (exact.base, y, u, v)))
    return {key: np.asarray(value) for key, value in found.items()} | {"u": u, "v": v}


@every_exact
def test_tensors_agree_with_sixty_digits(name, x64):
    """T, Γ and R, each by itself, to 1e-13 of their largest entry (found: 5e-15)."""
    exact, found = EXACT[name], tensors(name)
    point = [mp.mpf(float(x)) for x in exact.base]
    curvature = exact_curvature(exact, point, ALPHA)
    assert worst(found["cubic"], exact_cubic(exact, point)) < 1e-13
    assert worst(found["gamma"], exact_gamma(exact, point, ALPHA)) < 1e-13
    assert worst(found["curvature"], curvature) < 1e-13
    assert worst(found["by derivatives"], curvature) < 1e-13


def test_a_wrong_alpha_would_fail_that(x64):
    exact = EXACT["user-made"]
    point = [mp.mpf(float(x)) for x in exact.base]
    assert worst(tensors("user-made")["gamma"], exact_gamma(exact, point, ALPHA + 1e-9)) > 1e-10


@pytest.mark.parametrize("name", ["categorical", "user-made"])
def test_a_dual_pair_in_a_bent_chart(name, x64):
    """(5), (6), and that the mean connection is Levi-Civita's, where no Γ vanishes."""
    found, size = charts(name), np.abs(tensors(name)["cubic"]).max()
    for law in ("duality", "torsion", "mean"):
        assert np.abs(found[law]).max() < 1e-13 * max(size, 1), law


@pytest.mark.parametrize("name", ["categorical", "user-made"])
def test_the_affine_charts(name, x64):
    """(10) in θ; the lecture's law of change from η to θ; ∇^(α) in η and carried back to θ."""
    found = charts(name)
    size = np.abs(found["gamma of the dual"]).max()

    def same(one, other):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13 * size)

    assert np.abs(found["affine"]).max() < 1e-14 * np.abs(tensors(name)["cubic"]).max()
    same(found["carried from eta"], found["gamma of the dual"])
    same(found["in eta, carried back"], found["gamma"])
    for chart, whole in (("contracted", "gamma"), ("contracted in eta", "in eta")):
        same(found[chart], np.einsum("ijk,i,j->k", found[whole], found["u"], found["v"]))
    np.testing.assert_array_equal(found["flat"], 0.0)  # ∇* by its formula, 1 − α² = 0


def test_theorem_one_and_duality_without_symmetry(x64):
    """A connection with torsion and its conjugate in any metric: (5) and theorem 1 hold, (6) not.

    So the three are independent, and each defect can be seen.
    """
    twist = jax.random.normal(jax.random.key(0), (3, 3, 3))

    def g(x):
        return jnp.eye(3) + jnp.outer(x, x) + jnp.diag(jnp.sin(x) ** 2)

    def connection(x):
        return twist * jnp.cos(x)[:, None, None] + x[None, :, None]

    @jax.jit
    def program(x):
        pair = DualStructure(g, connection, conjugate_connection(g, connection))
        wrong = DualStructure(g, connection, lambda y: pair.dual(y) + 1e-3)
        symmetric = levi_civita(g)
        return {
            "(5)": duality_defect(pair, x),
            "theorem 1": curvature_defect(pair, x),
            "twice": conjugate_connection(g, pair.dual)(x) - connection(x),
            "its own": conjugate_connection(g, symmetric)(x) - symmetric(x),
            "(1)": metric_defect(g, symmetric, x),
            "(2)": torsion(symmetric, x),
            "kinds": second_kind(g(x), first_kind(g(x), connection(x))) - connection(x),
            "mean": mean_connection(connection, pair.dual, 0.5)(x)
            - 0.75 * connection(x)
            - 0.25 * pair.dual(x),
        }, {
            "(6)": torsion_defect(pair, x),
            "(5)": duality_defect(wrong, x),
            "theorem 1": curvature_defect(wrong, x),
            "mean": mean_defect(pair, x),
            "curved": curvature_tensor(connection, x),
            "(1)": metric_defect(g, connection, x),
        }

    hold, fail = program(jnp.array([0.3, -0.5, 0.7]))
    for law, defect in hold.items():
        assert np.abs(defect).max() < 1e-13, law
    for law, defect in fail.items():
        assert np.abs(defect).max() > 1e-4, law


def test_the_definitions_with_vector_fields(x64):
    """(5) as X g(Y, Z), and the torsion as ∇_X Y − ∇_Y X − [X, Y], (2), for fields that vary."""

    def connection(x):
        return jnp.sin(jnp.arange(8.0).reshape(2, 2, 2) + x[0]) * x[1]

    def g(x):
        return jnp.array([[2.0 + x[0] ** 2, x[1]], [x[1], 3.0]])

    def field(seed):
        return lambda x: jnp.cos(seed * x + jnp.arange(2.0))

    fields = field(1.0), field(2.0), field(3.0)

    @jax.jit
    def program(p):
        x, y, z = (f(p) for f in fields)
        dual = conjugate_connection(g, connection)

        def along(c, direction, f):
            return direction @ covariant_derivative(c, f, p)

        product = jax.jvp(lambda q: fields[1](q) @ g(q) @ fields[2](q), (p,), (x,))[1]
        split = along(connection, x, fields[1]) @ g(p) @ z + y @ g(p) @ along(dual, x, fields[2])
        bracket = jax.jvp(fields[1], (p,), (x,))[1] - jax.jvp(fields[0], (p,), (y,))[1]
        twist = along(connection, x, fields[1]) - along(connection, y, fields[0]) - bracket
        return product - split, twist - jnp.einsum("ijk,i,j->k", torsion(connection, p), x, y)

    for defect in program(jnp.array([0.4, 0.8])):
        assert np.abs(defect).max() < 1e-14


# --- spaces whose curvature is known ---------------------------------------------------------


def sphere(x):
    """Radius 3, seen from the pole."""
    return 9.0 * 4 * jnp.eye(3) / (1 + x @ x) ** 2


def normal(x):
    """Fisher's metric of univariate normal laws in (μ, σ)."""
    return jnp.diag(jnp.array([1.0, 2.0])) / x[1] ** 2


def test_spaces_of_constant_curvature(x64):
    """1/r² on a sphere of dimension 3, −½ for normal laws, (1 − α²)/4 for ∇^(α) on a simplex."""
    psi, theta = Categorical(3), jnp.array([0.3, -1.0, 0.8])
    u, v = jnp.array([1.0, 0.2, -0.5]), jnp.array([0.3, 1.0, 0.1])

    def fisher(x):
        return metric(psi, x)

    @jax.jit
    def program(alpha):
        x, y = jnp.array([0.5, -0.2, 0.1]), jnp.array([0.3, 0.7])
        round_ = levi_civita(sphere)
        return jnp.stack(
            [
                sectional_curvature(sphere, round_, x, u, v) * 9,
                sectional_curvature(sphere, round_, x, u, u + 1e-5 * v) * 9,  # a narrow pair
                scalar_curvature(sphere, round_, x) * 9 / 6,
                ricci_tensor(round_, x)[0, 0] / sphere(x)[0, 0] * 9 / 2,
                sectional_curvature(normal, levi_civita(normal), y, u[:2], v[:2]) * -2,
                sectional_curvature(fisher, levi_civita(fisher), theta, u, v) * 4,
                sectional_curvature(fisher, alpha_connection(psi, alpha), theta, u, v)
                * 4
                / (1 - alpha**2),
            ]
        )

    found = program(ALPHA)
    np.testing.assert_allclose(found[0], 1, rtol=1e-13)
    np.testing.assert_allclose(found[1], 1, rtol=1e-9)  # rounding of u + 1e-5 v is 1e-16 / 1e-5
    np.testing.assert_allclose(found[2:], 1, rtol=1e-12)


def test_a_flat_space_in_disguise(x64):
    """The metric of −Σ log θ is Euclid's in log θ: no curvature, and no Γ in that chart."""

    def burg(theta):
        return -jnp.log(theta).sum()

    @jax.jit
    def program(theta):
        symmetric = alpha_connection(burg, 0.0)
        return (
            curvature_tensor(lambda x: symmetric(x), theta),
            change_chart(symmetric, jnp.exp)(jnp.log(theta)),
            pull_back(lambda x: metric(burg, x), jnp.exp)(jnp.log(theta)) - jnp.eye(2),
            alpha_connection(burg, 0.5)(theta),
        )

    *zeros, other = program(jnp.array([0.5, 3.0]))
    for zero in zeros:
        assert np.abs(zero).max() < 1e-14
    assert np.abs(other).max() > 0.1


# --- as a program ----------------------------------------------------------------------------


def test_parameters_are_differentiated(x64):
    """In α, in a potential's own parameter, and in what a plain function closes over."""
    theta = jnp.array([0.3, -1.0])

    @jax.jit
    def program(a):
        by_alpha = jax.jacrev(lambda s: alpha_connection(Categorical(2), s)(theta))(0.4)
        # Γ does not change when ψ is multiplied; T does, in proportion.
        scaled = jax.jacfwd(lambda s: cubic_tensor(lambda x: s * Categorical(2)(x), theta))(a)
        still = jax.jacrev(lambda s: levi_civita(lambda x: s * normal(x))(theta))(a)
        return by_alpha, scaled, still

    by_alpha, scaled, still = program(2.0)
    half = -alpha_connection(Categorical(2), -1.0)(theta) / 2
    np.testing.assert_allclose(by_alpha, half, rtol=1e-14, atol=1e-15)
    tensor = np.asarray(cubic_tensor(Categorical(2), theta))
    # In a plain function's third derivatives terms cancel: digits are of the largest entry's.
    np.testing.assert_allclose(scaled, tensor, rtol=0, atol=1e-14 * np.abs(tensor).max())
    np.testing.assert_allclose(still, 0, atol=1e-15)


def test_a_connection_passes_through_jit_and_vmap(x64):
    thetas = jnp.array([[0.3, -1.0], [2.0, 0.0], [jnp.inf, 0.0]])
    run = jax.jit(lambda c, xs: jax.vmap(c)(xs))
    found = run(alpha_connection(Categorical(2), 0.0), thetas)
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2]).all()


def test_outside_the_domain_is_nan(x64):
    """Also where a formula would be finite: det Λ > 0 for Λ = −I, and ∂³(−log θ) for θ < 0."""
    negative = jnp.array([0.0, 0.0, 0.5, 0.0, 0.5])
    assert np.isnan(cubic_tensor(Gaussian(2), negative)).all()

    @jax.jit
    def program(x):
        connection = alpha_connection(lambda x: -jnp.log(x).sum(), 1.0)
        return connection(x), jax.jacfwd(lambda x: contract(connection, x, x, x))(x)

    for tensor in program(jnp.array([1.0, -2.0])):
        assert np.isnan(tensor).all()


def test_float32_stays_float32(x64):
    theta = jnp.array([0.3, -1.0], jnp.float32)
    for alpha in (0.5, np.float64(0.5)):
        connection = alpha_connection(Categorical(2), alpha)
        assert connection(theta).dtype == jnp.float32
        assert curvature_tensor(connection, theta).dtype == jnp.float32
    assert cubic_tensor(Categorical(2), theta).dtype == jnp.float32


def test_bad_input_is_refused_with_words():
    with pytest.raises(ValueError, match=r"chart is 'mu'.*'theta' or 'eta'.*change_chart"):
        alpha_connection(Categorical(2), 0.0, chart="mu")
    with pytest.raises(ValueError, match=r"theta has shape \(3,\)"):
        cubic_tensor(Categorical(2), jnp.zeros(3))
