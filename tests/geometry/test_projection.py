import clarabel
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
import scipy.sparse as sp

from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.legendre import to_eta, to_theta
from dualflat.geometry.metric import inverse_metric, metric
from dualflat.geometry.projection import (
    alternating_projections,
    curved_e_projection,
    curved_m_projection,
    cyclic_projections,
    e_projection,
    m_projection,
    m_projection_from_eta,
    orthogonality,
    pythagoras,
)
from dualflat.geometry.solve import Status
from dualflat.geometry.submanifold import EFlat, ELevel, MFlat, MLevel
from tests.geometry.truth import EXACT, user_made

EPS = np.finfo(np.float64).eps
INDEPENDENCE = EFlat(jnp.zeros(3), jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))


def some(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def quadratic(theta):
    return 0.5 * theta @ theta


# --- exact truth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_the_independent_law_nearest_to_a_table_has_its_margins(dtype, x64):
    """And an empty cell does not matter, because only the margins are used; an empty margin does."""
    psi = Categorical(3)
    tables = np.random.default_rng(1).dirichlet(np.ones(4), 50).astype(dtype)
    tables[0] = [0.5, 0.25, 0.25, 0.0]
    tables[1] = [0.5, 0.0, 0.5, 0.0]  # the second variable is never 1

    @jax.jit
    @jax.vmap
    def found(eta):
        onto = m_projection_from_eta(psi, eta, INDEPENDENCE)
        return onto.status, to_eta(psi, onto.value)

    status, eta = found(tables[:, 1:])
    rows = tables[:, 2:].sum(1, dtype=np.float64)
    columns = tables[:, 1::2].sum(1, dtype=np.float64)
    truth = np.stack([(1 - rows) * columns, rows * (1 - columns), rows * columns], 1)
    assert eta.dtype == dtype
    good = np.arange(50) != 1
    np.testing.assert_array_equal(status == Status.CONVERGED, good)
    np.testing.assert_allclose(eta[good], truth[good], rtol=0, atol=20 * np.finfo(dtype).eps)
    assert np.isnan(eta[1]).all()


def test_projections_of_a_normal_law(x64):
    """Onto Λ₁₂ = 0: the variances stay. Onto a mean: the covariance stays. Both exactly."""
    psi = Gaussian(2)
    mean, covariance = jnp.array([1.0, -2.0]), jnp.array([[2.0, 1.2], [1.2, 1.0]])
    p = psi.from_mean_covariance(mean, covariance)
    uncorrelated = ELevel(jnp.eye(5)[3:4], jnp.zeros(1))
    centred = MLevel(jnp.eye(5)[:2], jnp.array([0.5, 0.25]))

    @jax.jit
    def found(p):
        onto_e, onto_m = m_projection(psi, p, uncorrelated), e_projection(psi, p, centred)
        return psi.to_mean_covariance(onto_e.value), psi.to_mean_covariance(onto_m.value)

    (mean_e, covariance_e), (mean_m, covariance_m) = found(p)
    np.testing.assert_allclose(mean_e, mean, rtol=1e-14)
    np.testing.assert_allclose(covariance_e, np.diag([2.0, 1.0]), rtol=0, atol=1e-14)
    np.testing.assert_allclose(mean_m, [0.5, 0.25], rtol=1e-13)
    np.testing.assert_allclose(covariance_m, covariance, rtol=1e-13)


def exact_projections(gradient, p, origin, direction, normal, value):
    """60 digits: u of the m-projection onto the line, λ of the e-projection onto normal·η = value."""
    p, origin, direction, normal = (
        [mp.mpf(float(x)) for x in v] for v in (p, origin, direction, normal)
    )
    eta = gradient(p)

    def on_line(u):
        here = gradient([o + a * u for o, a in zip(origin, direction, strict=True)])
        return sum(a * (h - e) for a, h, e in zip(direction, here, eta, strict=True))

    def on_level(m):
        here = gradient([x + c * m for x, c in zip(p, normal, strict=True)])
        return sum(c * h for c, h in zip(normal, here, strict=True)) - mp.mpf(float(value))

    return mp.findroot(on_line, 0), mp.findroot(on_level, 0)


def test_projections_in_a_user_made_geometry_agree_with_sixty_digits(x64):
    """Value and derivative along a direction of p, both ways of autodiff."""
    exact = EXACT["user-made"]
    p, p_dot = jnp.array([0.5, -0.75]), jnp.array([0.5, 0.25])
    origin, direction = jnp.array([0.0, 0.5]), jnp.array([1.0, 0.5])
    normal, value = jnp.array([1.0, 2.0]), 3.0
    line = EFlat(origin, direction[:, None])
    level = MLevel(normal[None], jnp.array([value]))

    def onto(p):
        return jnp.stack(
            [m_projection(exact.psi, p, line).value, e_projection(exact.psi, p, level).value]
        )

    @jax.jit
    def found(p):
        return *jax.jvp(onto, (p,), (p_dot,)), jax.jacrev(onto)(p) @ p_dot

    points, forward, backward = found(p)

    def truth(p):
        u, m = exact_projections(exact.gradient, p, origin, direction, normal, value)
        on_line = [float(o) + float(a) * u for o, a in zip(origin, direction, strict=True)]
        return mp.matrix([on_line, [x + float(c) * m for x, c in zip(p, normal, strict=True)]])

    step = mp.mpf(2) ** -40  # exact in float64, so that p ± step·ṗ are the points meant
    start = [float(x) for x in p]
    ahead, behind = (
        truth([x + sign * step * float(d) for x, d in zip(start, p_dot, strict=True)])
        for sign in (1, -1)
    )
    slope = np.array(((ahead - behind) / (2 * step)).tolist(), float)  # error step² = 1e-24
    np.testing.assert_allclose(points, np.array(truth(start).tolist(), float), rtol=1e-13)
    np.testing.assert_allclose(forward, slope, rtol=1e-11)
    np.testing.assert_allclose(backward, slope, rtol=1e-11)


def test_an_independent_solver_finds_the_same_law(x64):
    """KL(q‖p) over q ≥ 0, Σq = 1, Cq = c as an exponential-cone programme, by clarabel to 1e-9."""
    p = np.random.default_rng(2).dirichlet(np.ones(6))
    c = np.vstack([np.arange(6.0), np.arange(6.0) ** 2])
    values = np.array([2.0, 6.0])
    # Variables (q, t); t ≥ q log q/p is (−t, q, p) ∈ K_exp. Clarabel wants Ax + s = b, s ∈ K.
    equal = np.hstack([np.vstack([np.ones(6), c]), np.zeros((3, 6))])
    cones, rows = [clarabel.ZeroConeT(3)], [equal]
    right = [1.0, *values]
    for i in range(6):
        block = np.zeros((3, 12))
        block[0, 6 + i], block[1, i] = 1.0, -1.0
        rows.append(block)
        right += [0.0, 0.0, p[i]]
        cones.append(clarabel.ExponentialConeT())
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-12
    objective = np.repeat([0.0, 1.0], 6)
    solved = clarabel.DefaultSolver(
        sp.csc_matrix((12, 12)),
        objective,
        sp.csc_matrix(np.vstack(rows)),
        np.array(right),
        cones,
        settings,
    ).solve()
    psi = Categorical(5)
    found = e_projection(psi, to_theta(psi, p[1:]), MLevel(c[:, 1:], values))
    np.testing.assert_allclose(to_eta(psi, found.checked()), solved.x[1:6], rtol=0, atol=1e-7)
    assert abs(solved.obj_val - float(bregman(psi, to_theta(psi, p[1:]), found.value))) < 1e-9


# --- derivatives -----------------------------------------------------------------------------------


def closed_m(p, origin, a, q):
    q = (q + q.T) / 2  # all that ψ sees of it
    return origin + a @ jnp.linalg.solve(a.T @ q @ a, a.T @ (q @ (p - origin)))


def closed_e(p, c, values, q):
    q = (q + q.T) / 2
    return p + c.T @ jnp.linalg.solve(c @ q @ c.T, values - c @ (q @ p))


def ours_m(p, origin, a, q):
    return m_projection(lambda t: 0.5 * t @ q @ t, p, EFlat(origin, a)).value


def ours_e(p, c, values, q):
    return e_projection(lambda t: 0.5 * t @ q @ t, p, MLevel(c, values)).value


root = np.asarray(some(3, 4, 4)) * 0.5 + np.eye(4)
M_CASE = (some(4, 4), some(5, 4), some(6, 4, 2))
E_CASE = (some(4, 4), some(6, 2, 4), some(7, 2))


@pytest.mark.parametrize(
    ("ours", "closed", "case"),
    [(ours_m, closed_m, M_CASE), (ours_e, closed_e, E_CASE)],
    ids=["m", "e"],
)
def test_derivatives_in_the_point_the_subspace_and_the_potential(ours, closed, case, x64):
    """First and second, forwards over backwards, against the closed form.

    ψ = ½θᵀQθ closes over Q, which is differentiated with everything else.
    """
    case = (*(jnp.asarray(np.asarray(x), jnp.float64) for x in case), jnp.asarray(root @ root.T))
    moves = tuple(some(10 + i, *x.shape) for i, x in enumerate(case))
    weights = some(9, 4)

    def orders(f):
        def scalar(*args):
            return jnp.sin(f(*args) @ weights)  # so that second derivatives mix first ones

        gradient = jax.grad(scalar, argnums=tuple(range(len(case))))
        return jax.jit(lambda *args: (f(*args), *jax.jvp(gradient, args, moves)))(*case)

    for one, other in zip(
        jax.tree.leaves(orders(ours)), jax.tree.leaves(orders(closed)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


# --- theorems --------------------------------------------------------------------------------------


def gaussian_points(count):
    rng = np.random.default_rng(20)
    mean, variance = rng.normal(size=(count, 1)), rng.uniform(0.2, 2, (count, 1, 1))
    return jax.vmap(Gaussian(1).from_mean_covariance)(jnp.asarray(mean), jnp.asarray(variance))


def free_points(n):
    return lambda count: jnp.asarray(np.random.default_rng(21).uniform(-2, 2, (count, n)))


SPACES = {
    "categorical": (Categorical(3), free_points(3)),
    "gaussian": (Gaussian(1), gaussian_points),
    "user-made": (user_made, free_points(2)),
}


@pytest.mark.parametrize("name", SPACES)
def test_pythagoras_and_the_projection_theorem(name, x64):
    """For projections onto lines and hyperplanes through another point: equal sides, right angles.

    A thousandth of the way beside the projection the angle is off by more than a million times the
    tolerance, and Pythagoras by what that angle costs.
    """
    psi, draw = SPACES[name]
    points = draw(20)
    n = points.shape[1]
    a, c = some(22, n, 1), some(23, 1, n)

    @jax.jit
    @jax.vmap
    def found(p, r):
        e_flat = EFlat(r, a)
        m_flat = MLevel(c, c @ to_eta(psi, r))
        on_e = m_projection(psi, p, e_flat).value
        on_m = e_projection(psi, p, m_flat).value
        beside = on_e + 1e-3 * (p - r)
        triples = [(r, on_e, p), (p, on_m, r), (r, beside, p)]
        sides = jax.vmap(lambda *t: pythagoras(psi, *t))(
            *map(jnp.stack, zip(*triples, strict=True))
        )
        on_line = jax.vmap(lambda q: orthogonality(psi, p, q, e_flat))(jnp.stack([on_e, beside]))
        return *sides, *on_line, orthogonality(psi, p, on_m, m_flat)

    left, right, angle_e, skew, angle_m = found(points, jnp.roll(points, 1, 0))
    np.testing.assert_allclose(left[:, :2], right[:, :2], rtol=1e-11)
    assert max(np.abs(angle_e).max(), np.abs(angle_m).max()) < 1e-10
    assert np.abs(left[:, 2] / right[:, 2] - 1).max() > 1e-6
    assert np.abs(skew).max() > 1e-4


def test_what_cannot_be_projected_is_flagged_and_leaves_the_others_alone(x64):
    """Means that no law has, points outside the domain, NaN, dependent equations."""
    psi = Gaussian(1)
    p = psi.from_mean_covariance(jnp.zeros(1), jnp.eye(1))
    outside = jnp.array([0.0, 0.5])
    second = MLevel(jnp.array([[0.0, 1.0]]), jnp.array([0.0]))  # E x² = …

    @jax.jit
    @jax.vmap
    def found(p, value):
        return e_projection(psi, p, MLevel(second.matrix, value))

    values = jnp.array([[1.0], [-1.0], [2.0], [0.0], [3.0], [jnp.nan]])
    points = jnp.stack([p, p, p, p, outside, p])
    mixed, alone = found(points, values), found(points, jnp.abs(values).at[3:].set(1.0) + 0)
    good = np.array([True, False, True, False, False, False])
    np.testing.assert_array_equal(mixed.status == Status.CONVERGED, good)
    np.testing.assert_array_equal(np.isfinite(mixed.value).all(1), good)
    np.testing.assert_array_equal(mixed.value[good], alone.value[good])
    twice = MLevel(jnp.ones((2, 3)), jnp.full(2, 0.5))
    dependent = e_projection(Categorical(3), jnp.zeros(3), twice)
    assert dependent.status != Status.CONVERGED
    assert np.isnan(dependent.value).all()


def test_the_wrong_kind_of_subspace_is_refused_with_words():
    point = jnp.zeros(2)
    line = jnp.ones((2, 1))
    with pytest.raises(ValueError, match=r"m_projection: found MFlat where an e-flat subspace"):
        m_projection(quadratic, point, MFlat(point, line))
    with pytest.raises(ValueError, match=r"e_projection: found ELevel where an m-flat subspace"):
        e_projection(quadratic, point, ELevel(line.T, jnp.ones(1)))
    with pytest.raises(ValueError, match=r"m_flats is empty"):
        cyclic_projections(quadratic, point, [])
    with pytest.raises(ValueError, match=r"to a point of shape \(1,\). Wanted \(2,\)"):
        curved_m_projection(quadratic, point, lambda u: u, jnp.zeros(1))


# --- curved submanifolds ---------------------------------------------------------------------------


def normal_curve(u):
    """Normal laws with mean u and variance u²."""
    return jnp.stack([1 / u[0], -0.5 / u[0] ** 2])


def test_projections_onto_a_curve_of_normal_laws(x64):
    """The m-projection solves u² + m₁u − m₂ = 0, the e-projection 2u² − μu − σ² = 0, u > 0.

    So do their derivatives, of which the second is one along a direction.
    """
    psi = Gaussian(1)

    def truth_m(theta):
        first, second = to_eta(psi, theta)
        return (-first + jnp.sqrt(first**2 + 4 * second)) / 2

    def truth_e(theta):
        mean, covariance = psi.to_mean_covariance(theta)
        return (mean[0] + jnp.sqrt(mean[0] ** 2 + 8 * covariance[0, 0])) / 4

    def found_m(theta):
        return curved_m_projection(psi, theta, normal_curve, jnp.array([4.0])).value[0]

    def found_e(theta):
        return curved_e_projection(psi, theta, normal_curve, jnp.array([0.3])).value[0]

    def orders(f):
        return jax.jit(lambda t: (f(t), *jax.jvp(jax.grad(f), (t,), (some(50, 2),))))

    theta = psi.from_mean_covariance(jnp.array([1.5]), jnp.array([[0.8]]))
    for found, truth in ((found_m, truth_m), (found_e, truth_e)):
        for one, other in zip(orders(found)(theta), orders(truth)(theta), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11)


def test_only_minima_are_projections(x64):
    """The far side of a circle is a maximum; from its centre every point is as near as another."""

    @jax.jit
    @jax.vmap
    def found(p, u):
        def circle(u):
            return jnp.concatenate([jnp.cos(u), jnp.sin(u)])

        return curved_m_projection(quadratic, p, circle, u)

    east = jnp.array([2.0, 0.0])
    points = jnp.stack([east, -east, 0 * east, jnp.array([jnp.nan, 0.0]), east / 2])
    ended = found(points, jnp.array([[3.0], [0.0], [1.0], [1.0], [0.0]]))
    expected = [Status.CONVERGED, Status.STALLED, Status.STALLED, Status.NONFINITE]
    np.testing.assert_array_equal(ended.status, [*expected, Status.CONVERGED])
    np.testing.assert_allclose(ended.value[jnp.array([0, 4])], 0, rtol=0, atol=1e-15)
    assert np.isnan(ended.value[1:4]).all()


# --- in turn ---------------------------------------------------------------------------------------


def test_alternating_projections_end_in_the_common_point(x64):
    """E a plane and M a line of laws that cross at an angle: C∇ψ(θ₀ + Au) = c is solved at the end.

    So are its derivatives, here those of one Newton step for that equation, in A, C and c.
    """
    psi, start = Categorical(3), jnp.array([0.3, -0.4, 1.0])
    common = jnp.array([0.5, -0.2, 0.3])
    a = some(60, 3, 2)
    c = a.T + 1.5 * some(61, 2, 3)
    case = (a, c, c @ to_eta(psi, common))

    def meet(a, c, values):
        return alternating_projections(psi, start, EFlat(common, a), MLevel(c, values), 200)

    def newton(a, c, values):
        """From θ = common, u = 0, where the equation holds."""
        jacobian = c @ metric(psi, common) @ a
        return common + a @ jnp.linalg.solve(jacobian, values - c @ to_eta(psi, common))

    @jax.jit
    def found(*case):
        def scalar(*args):
            met = meet(*args)
            return met.e_point.sum(), met

        (_, met), slopes = jax.value_and_grad(scalar, argnums=(0, 1, 2), has_aux=True)(*case)
        return met, slopes, jax.grad(lambda *args: newton(*args).sum(), argnums=(0, 1, 2))(*case)

    met, slopes, true_slopes = found(*case)
    steps = int(met.steps)
    assert met.status == Status.CONVERGED
    assert 5 < steps < 200
    np.testing.assert_allclose(met.e_point, common, rtol=0, atol=1e-11)
    np.testing.assert_allclose(met.m_point, common, rtol=0, atol=1e-11)
    assert 0 <= met.divergence < 1e-22
    assert (np.diff(met.history[:steps]) <= 0).all()
    assert met.history[0] > 1e-4
    assert np.isnan(met.history[steps:]).all()
    for one, other in zip(slopes, true_slopes, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_alternating_projections_find_the_distance_of_skew_lines(x64):
    """ψ = ½|θ|²: E and M are lines in space, D is ½d², and its gradient follows the lines."""
    start = jnp.zeros(3)
    lines = (some(30, 3), some(31, 3, 1), some(32, 3), some(33, 3, 1))

    def ours(o, a, p, b):
        met = alternating_projections(quadratic, start, EFlat(o, a), MFlat(p, b), 300)
        return met.divergence, met.status

    def closed(o, a, p, b):
        normal = jnp.cross(a[:, 0], b[:, 0])
        return 0.5 * ((p - o) @ normal) ** 2 / (normal @ normal)

    (value, status), slopes = jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2, 3), has_aux=True))(
        *lines
    )
    truth, true_slopes = jax.jit(jax.value_and_grad(closed, argnums=(0, 1, 2, 3)))(*lines)
    assert status == Status.CONVERGED
    np.testing.assert_allclose(value, truth, rtol=1e-12)
    for one, other in zip(slopes, true_slopes, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_alternating_projections_say_when_there_is_no_end_or_no_derivative(x64):
    """A limit that depends on the start has no derivative; a subspace of no laws has no limit.

    And 30 steps are too few where E and M cross at a small angle.
    """
    psi, start = Categorical(3), jnp.array([0.3, -0.4, 1.0])
    plane = EFlat(jnp.zeros(3), some(60, 3, 2))

    @jax.jit
    @jax.vmap
    def found(value, normal):
        def end(value):
            met = alternating_projections(psi, start, plane, MLevel(normal, value), 30)
            return met.e_point[0], (met.status, met.history)

        return jax.value_and_grad(end, has_aux=True)(value)

    across, origin = jnp.eye(3)[:1], jnp.zeros(3)
    upright = jnp.asarray(np.linalg.svd(plane.directions.T)[2][2:])  # 0 along the plane
    tangent = upright @ inverse_metric(psi, origin)  # M touches E at θ = 0
    small = tangent + 0.02 * across
    normals = jnp.stack([across, across, across, across, small])
    values = jnp.array([[0.2], [1.2], [jnp.nan], [0.3], *(small @ to_eta(psi, origin))[None]])
    (value, (status, history)), slope = found(values, normals)
    good = np.array([True, False, False, True, False])
    np.testing.assert_array_equal(status == Status.CONVERGED, good)
    np.testing.assert_array_equal(np.isfinite(value), good)
    assert np.isnan(slope).all()
    assert status[4] == Status.MAX_STEPS
    assert np.isfinite(history[4]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_cyclic_projections_are_proportional_fitting(dtype, x64):
    """Against the classical algorithm on a 3 × 3 table; what was moved adds up to D(start, limit).

    The third subspace repeats what the first two say. The gradient is that of the e-projection onto
    the independent equations, and where it contradicts them there is no limit.
    """
    psi = Categorical(8)
    table = np.random.default_rng(40).dirichlet(np.full(9, 2.0))
    rows, columns = np.array([0.2, 0.5, 0.3]), np.array([0.3, 0.3, 0.4])
    cells = np.arange(9).reshape(3, 3)
    matrix = np.zeros((5, 8), dtype)
    for k in (1, 2):
        matrix[k - 1, cells[k] - 1] = 1
        matrix[k + 1, cells[:, k] - 1] = 1
    matrix[4] = matrix[0] + matrix[1]
    values = np.array([*rows[1:], *columns[1:], rows[1:].sum()], dtype)
    start = to_theta(psi, jnp.asarray(table[1:], dtype))

    def all_three(start, values):
        parts = [MLevel(matrix[i], values[i]) for i in (slice(0, 2), slice(2, 4), slice(4, 5))]
        return cyclic_projections(psi, start, parts, 60)

    @jax.jit
    def found(start, values):
        solution, history = all_three(start, values)
        return solution, history, bregman(psi, start, solution.value)

    @jax.jit
    def slopes(start, values):
        return (
            jax.jacrev(lambda t: all_three(t, values)[0].value)(start),
            jax.jacfwd(lambda t: e_projection(psi, t, MLevel(matrix[:4], values[:4])).value)(start),
        )

    solution, history, moved = found(start, values)
    fitted = table.reshape(3, 3).copy()
    for _ in range(200):
        fitted *= (rows / fitted.sum(1))[:, None]
        fitted *= columns / fitted.sum(0)
    eps = np.finfo(dtype).eps
    assert solution.value.dtype == dtype
    np.testing.assert_allclose(
        to_eta(psi, solution.checked()), fitted.ravel()[1:], rtol=0, atol=10 * eps**0.75
    )
    assert 2 < solution.steps < 60
    np.testing.assert_allclose(np.nansum(history), moved, rtol=20 * eps**0.75)
    if dtype == np.float64:  # the rule is the same
        np.testing.assert_allclose(*slopes(start, values), rtol=0, atol=50 * eps**0.75)
    contradicted = found(start, values + np.array([0, 0, 0, 0, 0.01], dtype))[0]
    assert contradicted.status == Status.MAX_STEPS
    assert np.isnan(contradicted.value).all()
