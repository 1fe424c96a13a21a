import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import submanifold
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.legendre import to_eta, to_theta
from dualflat.geometry.metric import inverse_metric, metric
from dualflat.geometry.solve import Status
from dualflat.geometry.submanifold import (
    EFlat,
    ELevel,
    MFlat,
    MLevel,
    contains,
    distance_to,
    dual_point_on,
    e_curvature,
    from_mixed,
    induced_metric,
    m_curvature,
    mixed_metric,
    normal_frame,
    restricted,
    statistical_curvature,
    to_mixed,
)
from tests.geometry.truth import EXACT, user_made

EPS = np.finfo(np.float64).eps


def quadratic(theta):
    return 0.5 * theta @ theta


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


# --- affine subspaces ----------------------------------------------------------------------------


def test_both_descriptions_are_of_the_same_subspace(x64):
    flat, u = EFlat(some(1, 5), some(2, 5, 2)), some(3, 2)
    level = flat.constraints()
    back = level.span()
    assert (flat.dim, level.dim, back.dim) == (2, 2, 2)
    assert isinstance(level, ELevel)
    assert isinstance(MFlat(some(1, 5), some(2, 5, 2)).constraints(), MLevel)
    np.testing.assert_allclose(level.matrix @ flat(u), level.values, rtol=0, atol=1e-14)
    np.testing.assert_allclose(level.matrix @ level.matrix.T, np.eye(3), rtol=0, atol=1e-14)
    np.testing.assert_allclose(back(back.coordinates(flat(u))), flat(u), rtol=0, atol=1e-14)
    np.testing.assert_allclose(flat.coordinates(flat(u)), u, rtol=1e-13)
    again = EFlat.from_constraints(level.matrix, level.values)
    np.testing.assert_array_equal(again.origin, back.origin)


def test_membership_is_judged_to_rounding(x64):
    """And no more coarsely: a point 1e-13 beside the subspace is not on it."""
    psi, base = Gaussian(2), jnp.asarray(EXACT["gaussian"].base)
    e_flat = EFlat(base - 0.1, jnp.stack([some(12, 5), jnp.ones(5)], 1))
    m_flat = MFlat(to_eta(psi, base), some(4, 5, 2))

    @jax.jit
    def judged(theta):
        return contains(psi, theta, e_flat), contains(psi, theta, m_flat)

    assert all(judged(base))
    assert not any(judged(base * (1 + 1e-12)))
    outside = jnp.array([0.0, 0.0, 0.5, 0.0, 0.5])
    assert not judged(outside)[1]


def test_distance_is_euclids_for_a_quadratic_and_differentiable_in_the_subspace(x64):
    """The e-flat form is a projection along A, the m-flat one goes through a basis of A's normals.

    For ψ = ½|θ|² they are one function of A, in value and in its first two derivatives. A basis of normals
    held still would give the right value and the wrong gradient.
    """
    theta, origin, a = some(5, 4), some(6, 4), some(7, 4, 2)

    def along(a):
        return distance_to(quadratic, theta, EFlat(origin, a))

    def across(a):
        return distance_to(quadratic, theta, MFlat(origin, a))

    def everything(f):
        return jax.jit(lambda a: (f(a), *jax.jvp(jax.grad(f), (a,), (some(14, 4, 2),))))(a)

    q, _ = np.linalg.qr(a)
    gap = theta - origin
    found, expected = everything(across), everything(along)
    np.testing.assert_allclose(expected[0], np.linalg.norm(gap - q @ (q.T @ gap)), rtol=1e-14)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    assert np.abs(expected[1]).max() > 0.01
    assert distance_to(quadratic, origin, EFlat(origin, a)) == 0
    assert (jax.grad(lambda t: distance_to(quadratic, t, EFlat(origin, a)))(origin) == 0).all()


def test_distance_does_not_see_units(x64):
    """θ ↦ Dθ with D up to 1e6 changes neither distance."""
    psi, theta = user_made, jnp.array([0.5, -0.75])
    d = jnp.array([1e6, 1e-2])
    e_flat = EFlat(jnp.array([0.0, 1.0]), jnp.array([[1.0], [2.0]]))
    m_flat = MLevel(jnp.array([[1.0, 2.0]]), jnp.array([3.0]))

    def scaled(t):
        return psi(t * d)

    here = distance_to(psi, theta, e_flat), distance_to(psi, theta, m_flat)
    there = (
        distance_to(scaled, theta / d, EFlat(e_flat.origin / d, e_flat.directions / d[:, None])),
        distance_to(scaled, theta / d, MLevel(m_flat.matrix / d, m_flat.values)),
    )
    np.testing.assert_allclose(here, there, rtol=1e-12)


def test_dependent_directions_are_no_subspace(x64):
    """A column given twice, in whatever units, is found by its pivot: NaN and not a guess."""
    twice = jnp.stack([some(8, 4), 1e8 * some(8, 4)], 1)
    assert np.isnan(distance_to(quadratic, some(5, 4), MFlat(some(6, 4), twice)))
    assert np.isnan(EFlat(some(6, 4), twice).coordinates(some(5, 4))).all()
    units = jnp.stack([some(8, 4), 1e-12 * some(9, 4)], 1)  # independent: small is not dependent
    assert np.isfinite(EFlat(some(6, 4), units).coordinates(some(5, 4))).all()


def test_a_flat_subspace_is_a_dually_flat_manifold(x64):
    """Its potential has the induced metric, and the dual coordinates Aᵀη (or Bᵀθ)."""
    psi, theta = Categorical(3), jnp.array([0.5, -1.25, 2.0])
    a, u = some(10, 3, 2), jnp.array([0.3, -0.2])
    e_flat, m_flat = EFlat(theta, a), MFlat(to_eta(psi, theta), 0.01 * a)

    @jax.jit
    def found(u):
        on_e, on_m = restricted(psi, e_flat), restricted(psi, m_flat)
        q = to_theta(psi, m_flat(u))
        return (
            (jax.hessian(on_e)(u), induced_metric(psi, e_flat, u)),
            (jax.grad(on_e)(u), to_eta(psi, e_flat(u)) @ a),
            (jax.hessian(on_m)(u), 1e-4 * a.T @ inverse_metric(psi, q) @ a),
            (jax.grad(on_m)(u), 0.01 * q @ a),
        )

    for one, other in found(u):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_the_search_finds_its_way_into_a_subspace_it_begins_beside(dtype, x64):
    """Normal laws with Λ₁₂ = 5: neither the start (Λ = I) nor the point of E nearest to it is one.

    The answer has the variances asked for and a covariance that solves the quadratic below. Where
    Λ₁₁ = −1, no point of the subspace is inside the domain.
    """
    psi, identity = Gaussian(2), np.eye(5, dtype=dtype)
    origins = jnp.asarray([[0.0, 0.0, -0.5, -5.0, -0.5], [0.0, 0.0, 0.5, 0.0, -0.5]], dtype)
    frames = jnp.asarray(np.stack([identity[:, [0, 1, 2, 4]], identity[:, [0, 1, 3, 4]]]))
    slopes = jnp.asarray([0.0, 0.0, 2.0, 3.0], dtype)  # mean 0, and in the first variances 2 and 3
    assert not psi.in_domain(origins[0])

    @jax.jit
    @jax.vmap
    def found(origin, frame):
        return dual_point_on(psi, EFlat(origin, frame), slopes)

    ended = found(origins, frames)
    assert ended.value.dtype == dtype
    np.testing.assert_array_equal(ended.status, [Status.CONVERGED, Status.NONFINITE])
    assert np.isnan(ended.value[1]).all()
    _, covariance = psi.to_mean_covariance(ended.value[0])
    # −s / (6 − s²) = 5 with s = Σ₁₂: 5s² − s − 30 = 0, of whose roots |s| < √6 is taken.
    s = (1 - np.sqrt(601)) / 10
    tolerance = 100 * np.finfo(dtype).eps * np.linalg.cond([[2, s], [s, 3]])
    np.testing.assert_allclose(covariance, [[2, s], [s, 3]], rtol=tolerance)


# --- mixed coordinates ---------------------------------------------------------------------------

MIXED = {
    "categorical": (Categorical(3), jnp.array([0.5, -1.25, 2.0]), 2),
    "user-made": (user_made, jnp.array([0.5, -0.75]), 1),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_coordinates_split_the_metric(name, x64):
    """θ(mixed) inverts, and the metric pulled back through that search is of two blocks.

    The pull-back knows no orthogonality; `mixed_metric` is the closed form. In coordinates that mix
    the same two the other way (a sheared chart) the off-diagonal block is there.
    """
    psi, theta, split = MIXED[name]
    theta = jnp.asarray(theta, jnp.float64)

    def shear(mixed):
        return mixed.at[:split].add(0.5 * mixed[-1])

    def pulled(chart, mixed):
        frames = jax.jacfwd(chart)(mixed), jax.jacrev(chart)(mixed)
        return [frame.T @ metric(psi, theta) @ frame for frame in frames]

    @jax.jit
    def found(theta):
        mixed = to_mixed(psi, theta, split)

        def chart(m):
            return from_mixed(psi, m, split).value

        sheared = jnp.linalg.solve(jax.jacfwd(shear)(mixed), mixed)
        return (
            chart(mixed),
            pulled(chart, mixed),
            mixed_metric(psi, theta, split),
            pulled(lambda m: chart(shear(m)), sheared)[0],
        )

    back, both, closed, sheared = found(theta)
    tolerance = 1e3 * EPS * np.linalg.cond(metric(psi, theta)) * np.abs(closed).max()
    np.testing.assert_allclose(back, theta, rtol=1e-12, atol=1e-13)
    for g in both:
        np.testing.assert_allclose(g, closed, rtol=0, atol=tolerance)
    assert np.abs(sheared[:split, split:]).max() > 1e6 * tolerance


def test_mixed_coordinates_of_a_normal_law(x64):
    """(μ; Λ) is mixed, h = Λμ exactly: to the second derivative, ∂²h/∂μ∂Λ."""
    psi, mixed = Gaussian(1), jnp.array([3.0, -0.25])

    @jax.jit
    def orders(m):
        def chart(m):
            return from_mixed(psi, m, 1).value

        return chart(m), jax.jacfwd(chart)(m), jax.jacrev(jax.jacfwd(chart))(m)

    value, first, second = orders(mixed)  # θ = (−2mμ, m) for m = −½Λ
    np.testing.assert_allclose(value, [1.5, -0.25], rtol=1e-14)
    np.testing.assert_allclose(first, [[0.5, -6.0], [0.0, 1.0]], rtol=0, atol=1e-13)
    expected = np.zeros((2, 2, 2))
    expected[0, 0, 1] = expected[0, 1, 0] = -2
    np.testing.assert_allclose(second, expected, rtol=0, atol=1e-12)
    impossible = from_mixed(psi, jnp.array([3.0, 0.25]), 1)  # a negative precision
    assert impossible.status == Status.NONFINITE


# --- curved submanifolds -------------------------------------------------------------------------


def normal_curve(u):
    """Normal laws with mean u and variance u²: θ = (1/u, −1/2u²)."""
    return jnp.stack([1 / u[0], -0.5 / u[0] ** 2])


def efron(u):
    """γ² by Efron's determinant, in mpmath: |M| / ν₂₀³ with M of η̇·θ̇, η̇·θ̈, θ̈·η-like products.

    For θ(u) with G: ν₂₀ = θ̇ᵀGθ̇, ν₁₁ = θ̇ᵀGθ̈, ν₀₂ = θ̈ᵀGθ̈.
    """
    u = mp.mpf(u)
    first, second = mp.matrix([-1 / u**2, 1 / u**3]), mp.matrix([2 / u**3, -3 / u**4])
    mean, variance = u, u * u
    g = mp.matrix(
        [
            [variance, 2 * mean * variance],
            [2 * mean * variance, 4 * mean**2 * variance + 2 * variance**2],
        ]
    )
    a, b, c = ((x.T * g * y)[0] for x, y in ((first, first), (first, second), (second, second)))
    return (a * c - b * b) / a**3


def test_statistical_curvature_is_efrons(x64):
    found = jax.jit(lambda u: statistical_curvature(Gaussian(1), normal_curve, u))
    for u in (0.5, 3.0):
        np.testing.assert_allclose(found(jnp.array([u])), float(efron(u)), rtol=1e-12)


def test_spheres_have_the_curvature_of_spheres(x64):
    """H⁽ᵉ⁾ = H⁽ᵐ⁾ = −g n/r in Euclidean space; γ² = k/r²; and in a frame as in `normal_frame`."""
    r = 2.0

    def sphere(u):
        return r * jnp.stack(
            [jnp.sin(u[0]) * jnp.cos(u[1]), jnp.sin(u[0]) * jnp.sin(u[1]), jnp.cos(u[0])]
        )

    @jax.jit
    def found(u):
        return (
            e_curvature(quadratic, sphere, u),
            m_curvature(quadratic, sphere, u),
            induced_metric(quadratic, sphere, u),
            normal_frame(quadratic, sphere, u),
            statistical_curvature(quadratic, sphere, u),
        )

    u = jnp.array([1.1, 0.4])
    e, m, g, normal, gamma = found(u)
    expected = -g[:, :, None] * sphere(u) / r**2
    np.testing.assert_allclose(e, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(m, expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(g, np.diag([r**2, (r * np.sin(1.1)) ** 2]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(np.abs(sphere(u) @ normal), [r], rtol=1e-14)
    np.testing.assert_allclose(gamma, 2 / r**2, rtol=1e-14)


def test_flat_submanifolds_are_flat_in_their_own_sense_only(x64):
    """An e-flat one has no e- and some m-curvature, an m-flat one the other way round."""
    psi, theta = Categorical(3), jnp.array([0.5, -1.25, 2.0])
    a, u = some(13, 3, 2), jnp.array([0.02, -0.01])
    e_flat, m_flat = EFlat(theta, a), MFlat(to_eta(psi, theta), 0.1 * a)

    @jax.jit
    def found(u):
        def mixture(w):
            return to_theta(psi, m_flat(w))

        def curvatures(embedding):
            return e_curvature(psi, embedding, u), m_curvature(psi, embedding, u)

        return *curvatures(e_flat), *curvatures(mixture), statistical_curvature(psi, e_flat, u)

    e_of_e, m_of_e, e_of_m, m_of_m, gamma = found(u)
    assert (e_of_e == 0).all()
    assert gamma == 0
    assert np.abs(m_of_m).max() < 1e-12
    assert np.abs(m_of_e).max() > 1e-2
    assert np.abs(e_of_m).max() > 1e-2


def test_curvatures_are_tensors_and_agree_with_sixty_digits(x64):
    """The curve (u, u²) of a user-made ψ: H·n for both connections, against mpmath.

    ∂²η along the curve is differentiated there at 60 digits. Reparametrised by u = e^v, H gets the
    factor u², the bare second derivative does not, and γ² does not change.
    """
    exact = EXACT["user-made"]

    def curve(u):
        return jnp.concatenate([u, u**2])

    @jax.jit
    def found(u):
        v = jnp.log(u)

        def again(v):
            return curve(jnp.exp(v))

        return (
            jnp.stack([f(exact.psi, curve, u)[0, 0] for f in (e_curvature, m_curvature)]),
            jnp.stack([f(exact.psi, again, v)[0, 0] for f in (e_curvature, m_curvature)]),
            jnp.stack(
                [
                    statistical_curvature(exact.psi, curve, u),
                    statistical_curvature(exact.psi, again, v),
                ]
            ),
            normal_frame(exact.psi, curve, u)[:, 0],
            metric(exact.psi, curve(u)),
        )

    u = 0.7
    h, h_again, gammas, n, g = found(jnp.array([u]))
    point = mp.mpf(u)
    exact_g = mp.matrix(
        [
            [
                mp.diff(lambda *t, i=i: exact.gradient(list(t))[i], (point, point**2), order)
                for order in ((1, 0), (0, 1))
            ]
            for i in range(2)
        ]
    )
    tangent = mp.matrix([1, 2 * point])
    lowered = exact_g * tangent
    normal = mp.matrix([-lowered[1], lowered[0]])  # nᵀGθ̇ = 0
    normal /= mp.sqrt((normal.T * exact_g * normal)[0])
    second_eta = [mp.diff(lambda u, i=i: exact.gradient([u, u * u])[i], point, 2) for i in range(2)]
    components = [
        (normal.T * exact_g * mp.matrix([0, 2]))[0],
        normal[0] * second_eta[0] + normal[1] * second_eta[1],
    ]
    sign = np.sign(float(normal[0]) * n[0] + float(normal[1]) * n[1])
    np.testing.assert_allclose(sign * n, [float(x) for x in normal], rtol=1e-13)
    np.testing.assert_allclose(sign * (h @ g @ n), [float(c) for c in components], rtol=1e-12)
    np.testing.assert_allclose(h_again, u**2 * h, rtol=1e-12)
    np.testing.assert_allclose(gammas[0], gammas[1], rtol=1e-12)
    assert not np.allclose([0.0, 4 * u**2], u**2 * np.array([0.0, 2.0]), rtol=1e-12)


def test_what_is_no_immersion_is_nan(x64):
    def cusp(u):
        return jnp.concatenate([u**2, u**3])

    @jax.jit
    def found(u):
        return (
            e_curvature(quadratic, cusp, u),
            statistical_curvature(quadratic, cusp, u),
            induced_metric(Gaussian(1), lambda u: jnp.append(u, 1.0), u),  # a positive θ₂
        )

    at_cusp, beside = found(jnp.zeros(1)), found(jnp.ones(1))
    assert all(np.isnan(x).all() for x in at_cusp)
    assert np.isfinite(beside[0]).all()


# --- words ---------------------------------------------------------------------------------------


def test_bad_subspaces_are_refused_with_words():
    point = jnp.zeros(3)
    with pytest.raises(ValueError, match=r"origin of shape \(3,\) and directions of shape \(3,\)"):
        contains(quadratic, point, EFlat(point, point))
    with pytest.raises(ValueError, match=r"Wanted \(m, n\) and \(m,\), 1 ≤ m < n"):
        distance_to(quadratic, point, MLevel(jnp.eye(3), point))
    with pytest.raises(ValueError, match=r"shapes differ"):
        distance_to(quadratic, point, MLevel(jnp.ones((1, 4)), jnp.ones(1)))
    with pytest.raises(ValueError, match=r"found tuple where a subspace is wanted"):
        contains(quadratic, point, (point, point))
    with pytest.raises(ValueError, match=r"split is 3 .* 1 ≤ k < n"):
        to_mixed(quadratic, point, 3)
    with pytest.raises(ValueError, match=r"slopes has shape \(2,\). Wanted \(1,\)"):
        dual_point_on(quadratic, EFlat(point, jnp.ones((3, 1))), jnp.ones(2))
    with pytest.raises(ValueError, match=r"Wanted \(1,\)"):
        induced_metric(quadratic, EFlat(point, jnp.ones((3, 1))), jnp.ones(2))


def test_float32_stays_float32():
    """Also where the subspace is given in integers."""
    psi, flat = Categorical(3), EFlat(np.zeros(3, int), np.ones((3, 1), int))

    @jax.jit
    def found(theta):
        mixed = from_mixed(psi, to_mixed(psi, theta, 2), 2).value
        return mixed, distance_to(psi, theta, flat), statistical_curvature(psi, flat, theta[:1])

    theta = jnp.array([0.5, -1.0, 0.25])
    mixed, *others = found(theta)
    np.testing.assert_allclose(mixed, theta, rtol=1e-5)
    assert {x.dtype for x in (mixed, *others)} == {jnp.dtype("float32")}


def test_the_complement_moves_with_the_columns(x64):
    """Held still, the basis of normals would have no derivative: the test above would fail."""
    a, moved = some(7, 4, 2), some(11, 4, 2)
    _, n_dot = jax.jvp(submanifold._complement, (a,), (moved,))
    n = submanifold._complement(a)
    np.testing.assert_allclose(moved.T @ n + a.T @ n_dot, 0, rtol=0, atol=1e-14)
