import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat.geometry.connection import alpha_connection, levi_civita
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.geodesic import (
    distance,
    e_geodesic,
    energy,
    exponential,
    geodesic,
    geodesic_from,
    geodesic_path,
    length,
    logarithm,
    m_exponential,
    m_geodesic,
    m_logarithm,
    midpoint,
    squared_distance,
)
from dualflat.geometry.legendre import to_eta
from dualflat.geometry.metric import metric
from dualflat.geometry.solve import Status
from tests.geometry.truth import mp

CATEGORICAL = Categorical(2)
A, B = np.array([0.5, -1.0]), np.array([-1.0, 0.75])


def normal(x):
    """Fisher's metric of univariate normal laws in (μ, σ)."""
    return jnp.where(x[1] > 0, 1.0, jnp.nan) * jnp.diag(jnp.array([1.0, 2.0])) / x[1] ** 2


def hyperbolic(p, q):
    """d² between two normal laws in closed form, twice differentiable also at p = q."""
    u = ((p[0] - q[0]) ** 2 / 2 + (p[1] - q[1]) ** 2) / (2 * p[1] * q[1])
    # arcosh(1 + u)² = 2u(1 − u/6 + …)
    safe = jnp.where(u > 1e-4, u, 1.0)
    far = jnp.log1p(safe + jnp.sqrt(safe * (safe + 2))) ** 2
    return 2 * jnp.where(u > 1e-4, far, 2 * u - u**2 / 3 + 4 * u**3 / 45 - u**4 / 35)


def exact_normal(p, q):
    (m, s), (n, t) = ([mp.mpf(float(x)) for x in point] for point in (p, q))
    return mp.sqrt(2) * mp.acosh(1 + ((m - n) ** 2 / 2 + (s - t) ** 2) / (2 * s * t))


PAIRS = {
    "near": ([0.0, 1.0], [1e-9, 1 + 1e-9]),
    "1e-4": ([2.0, 1.0], [2.0001, 0.9999]),
    "one": ([0.0, 1.0], [1.0, 2.0]),
    "across": ([0.0, 1.0], [3.0, 0.5]),
    "narrow": ([0.0, 0.01], [0.0, 10.0]),
    "wide": ([0.0, 1.0], [20.0, 1.0]),
    "far": ([0.0, 0.1], [20.0, 0.1]),
}


@pytest.mark.slow
def test_distances_of_normal_laws(x64):
    """Rao's distance from 2e-9 to 14, relative 1e-12 (found: 5e-15), the same both ways."""
    p, q = (np.array([pair[i] for pair in PAIRS.values()]) for i in (0, 1))
    run = jax.jit(jax.vmap(lambda p, q: distance(normal, p, q, panels=8)))
    there, back = run(p, q), run(q, p)
    np.testing.assert_array_equal(there, back)
    for name, found, x, y in zip(PAIRS, there, p, q, strict=True):
        truth = exact_normal(x, y)
        assert abs(mp.mpf(float(found)) - truth) < 1e-12 * truth, name


@pytest.mark.slow
def test_derivatives_at_every_distance(x64):
    """Gradient and Hessian of d², forwards, backwards and mixed, also at p = q: there 2(G, −G; −G, G).

    No iterate is differentiated, so they are as good as the value.
    """

    def found(z):
        return squared_distance(normal, z[:2], z[2:])

    def closed(z):
        return hyperbolic(z[:2], z[2:])

    @jax.jit
    @jax.vmap
    def program(z):
        return (
            found(z) - closed(z),
            jax.jacfwd(found)(z) - jax.grad(closed)(z),
            jax.jacfwd(jax.jacrev(found))(z) - jax.hessian(closed)(z),
        )

    points = jnp.array([[0.0, 1.0, 1.0, 0.7], [0.3, 0.5, -1.0, 2.0], [0.3, 0.5, 0.3, 0.5]])
    for defect in program(points):
        assert np.abs(defect).max() < 1e-12
    still = jax.grad(lambda q: distance(normal, points[2, :2], q))(points[2, :2])
    np.testing.assert_array_equal(still, 0.0)


def test_the_same_geodesic_both_ways(x64):
    """Reversed in time; d(p, q) then differs by rounding even where the search is not shared."""
    connection = levi_civita(normal)
    t = jnp.linspace(0, 1, 9)

    @jax.jit
    def program(p, q):
        there, back = geodesic(connection, p, q), geodesic(connection, q, p)
        apart = jax.vmap(there)(t) - jax.vmap(back)(1 - t)
        ends = there(0.0) - p, there(1.0) - q
        return apart, length(normal, there) - length(normal, back), ends

    apart, difference, ends = program(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0]))
    assert np.abs(apart).max() < 1e-14
    assert abs(difference) < 1e-14
    assert np.abs(ends).max() < 1e-15


def test_the_simplex_is_a_sphere(x64):
    """2√p lies on a sphere of radius 2: great circles, and d = 4 arcsin ½‖√p − √q‖."""

    def on_the_sphere(theta):
        return 2 * jnp.sqrt(jnp.concatenate([1 - to_eta(CATEGORICAL, theta).sum()[None],
                                             to_eta(CATEGORICAL, theta)]))  # fmt: skip

    @jax.jit
    def program(a, b):
        p, q = on_the_sphere(a), on_the_sphere(b)
        arc = 4 * jnp.arcsin(jnp.linalg.norm(p - q) / 4)
        middle = (p + q) / jnp.linalg.norm(p + q) * 2
        d = distance(lambda x: metric(CATEGORICAL, x), a, b)
        half = midpoint(alpha_connection(CATEGORICAL, 0.0), a, b)
        return d / arc - 1, on_the_sphere(half) - middle

    for defect in program(jnp.asarray(A), jnp.asarray(B)):
        assert np.abs(defect).max() < 1e-12


def test_flat_geodesics_are_the_closed_ones(x64):
    """α = 1 is straight in θ, to the last bits; α = −1 is the mixture, straight in η."""
    t = jnp.linspace(0, 1, 9)

    @jax.jit
    def program(a, b):
        found = [geodesic(alpha_connection(CATEGORICAL, s), a, b, panels=8) for s in (1.0, -1.0)]
        closed = e_geodesic(CATEGORICAL, a, b), m_geodesic(CATEGORICAL, a, b)
        apart = [jax.vmap(f)(t) - jax.vmap(c)(t) for f, c in zip(found, closed, strict=True)]
        v = m_logarithm(CATEGORICAL, a, b)
        eta = jax.vmap(lambda s: to_eta(CATEGORICAL, closed[1](s)))(t)
        return {
            "e": apart[0],
            "m": apart[1],
            "m logarithm": found[1].velocities[0] - v,
            "m exponential": m_exponential(CATEGORICAL, a, v) - b,
            "straight in eta": jnp.diff(eta, 2, axis=0),
        }, m_logarithm(CATEGORICAL, a, a + 1e-9) / 1e-9

    defects, near = program(jnp.asarray(A), jnp.asarray(B))
    for name, defect in defects.items():
        assert np.abs(defect).max() < 1e-12, name
    np.testing.assert_allclose(near, 1.0, rtol=1e-6)  # 1e-9 / ulp(θ) is what a + 1e-9 keeps


def test_exponential_and_logarithm(x64):
    """Each undoes the other for any connection, near points keep their digits, diffrax agrees."""
    connection = alpha_connection(CATEGORICAL, 0.5)

    @jax.jit
    def program(a, b):
        v = logarithm(connection, a, b)
        forwards = jax.jacfwd(lambda v: exponential(connection, a, v))(v)
        backwards = jax.jacrev(lambda b: logarithm(connection, a, b))(b)
        times = jnp.array([0.0, 0.5, 1.0])
        path, velocities = geodesic_path(connection, a, v, times)
        curve = geodesic_from(connection, a, v)
        step = jnp.array([1.0, -2.0]) * 2.0**-30  # exact, so that near points are what they seem
        return {
            "exp log": exponential(connection, a, v) - b,
            "inverse derivatives": forwards @ backwards - jnp.eye(2),
            "diffrax": (path - jax.vmap(curve)(times)) * 1e-2,  # its tolerance is ε^¾
            "velocity": (velocities[-1] - curve.velocity(1.0)) * 1e-2,
            "near": (logarithm(connection, a, a + step) - step) / jnp.abs(step).max() * 1e-4,
        }

    for name, defect in program(jnp.asarray(A), jnp.asarray(B)).items():
        assert np.abs(defect).max() < 2e-13, name


def test_parameters_of_a_closure_are_differentiated(x64):
    """√(a d²) by a, and the α-family by α, where the connection is made inside what is traced."""
    p, q = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.7])

    def scaled(a):
        return distance(lambda x: a * normal(x), p, q)

    def bent(alpha):
        return midpoint(alpha_connection(CATEGORICAL, alpha), jnp.asarray(A), jnp.asarray(B))

    @jax.jit
    def program():
        h = 1e-4
        slope = jax.jacfwd(bent)(0.2)
        return jax.grad(scaled)(4.0) - scaled(1.0) / 4, slope - (
            bent(0.2 + h) - bent(0.2 - h)
        ) / 2 / h

    by_scale, by_alpha = program()
    assert abs(by_scale) < 1e-14
    assert np.abs(by_alpha).max() < 1e-7  # h² of the difference it is compared with


def test_lengths_and_energies_of_curves(x64):
    """A geodesic is shorter than the straight line; length² = 2 energy only for constant speed."""
    p, q = jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0])

    @jax.jit
    def program():
        curve = geodesic(levi_civita(normal), p, q)
        line = lambda t: p + t * (q - p)  # noqa: E731
        return [(length(normal, c), energy(normal, c)) for c in (curve, line)]

    (shortest, least), (straight, more) = program()
    np.testing.assert_allclose(shortest**2, 2 * least, rtol=1e-13)
    assert shortest < straight - 1e-3
    assert straight**2 < 2 * more * (1 - 1e-3)


def test_what_is_not_found_is_nan_and_leaves_the_others_alone(x64):
    """Ends outside the domain, and a distance that one panel cannot resolve and eight can."""
    connection = levi_civita(normal)
    good, outside = jnp.array([1.0, 0.7]), jnp.array([1.0, -0.7])
    far = jnp.array([20.0, 1.0])
    p = jnp.array([0.0, 1.0])

    run = jax.jit(jax.vmap(lambda q: geodesic(connection, p, q, panels=1)))
    found = run(jnp.stack([good, outside, far]))
    alone = run(jnp.stack([good, good, good]))
    assert [Status(int(s)) for s in found.status[:2]] == [Status.CONVERGED, Status.NONFINITE]
    assert found.status[2] in (Status.STALLED, Status.MAX_STEPS)
    assert np.isnan(found.accelerations[1:]).all()
    np.testing.assert_array_equal(found.accelerations[0], alone.accelerations[0])
    assert geodesic(connection, p, far, panels=8).status == Status.CONVERGED
    with pytest.raises(RuntimeError, match=r"NONFINITE after 1 steps in 2 of 3, first at \(1,\)"):
        found.checked()
    with pytest.raises(RuntimeError, match=r"Give more `panels`, another chart"):
        jax.tree.map(lambda x: x[2], found).checked()
    assert np.isnan(jax.jacrev(lambda q: distance(normal, p, q))(outside)).all()
    assert np.isnan(alone.checked().accelerations).sum() == 0


def test_a_multivariate_normal_at_float32(x64):
    """float32 stays float32, and finds what float64 finds, to a few of its ε."""
    psi = Gaussian(2)
    ends = [
        psi.from_mean_covariance(jnp.array(mean), jnp.array(covariance))
        for mean, covariance in (
            ([0.0, 0.0], [[1.0, 0.2], [0.2, 1.0]]),
            ([0.5, -0.3], [[1.5, -0.1], [-0.1, 0.8]]),
        )
    ]
    run = jax.jit(lambda p, q: distance(lambda x: metric(psi, x), p, q, panels=1))
    double = run(*ends)
    single = run(*(end.astype(jnp.float32) for end in ends))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, double, rtol=2e-6)


def test_bad_input_is_refused_with_words():
    connection = alpha_connection(CATEGORICAL, 0.0)
    with pytest.raises(ValueError, match=r"geodesic: start has shape \(2, 2\).*jax\.vmap"):
        geodesic(connection, jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"panels is 0.*positive integer"):
        geodesic(connection, jnp.zeros(2), jnp.zeros(2), panels=0)
    with pytest.raises(TypeError, match="do not exist inside jit"):
        jax.jit(lambda x: geodesic(connection, x, x).checked().status)(jnp.zeros(2))
    curve = geodesic(connection, jnp.zeros(2), jnp.ones(2))
    assert np.isnan(curve(1.5)).all()
