"""The converse of the lecture: ψ found again from (g, ∇, ∇*), and a reason where there is none."""

import dataclasses

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from jax.tree_util import Partial

from dualflat.geometry.connection import DualStructure, dual_structure, levi_civita
from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.solve import Status
from dualflat.geometry.structure import (
    affine_coordinates,
    biorthogonality_defect,
    bregman_report,
    canonical_divergence,
    examine,
    flatness,
    from_divergence,
    jacobian_defect,
    legendre_defect,
    recover,
)
from tests.geometry.hidden import HIDDEN, exact, natural, normal, normal_connection, normal_metric

NORMAL = HIDDEN["normal in (μ, σ)"]
ORIGIN, POINTS = NORMAL.origin, NORMAL.points
normal_manifold = jax.jit(NORMAL.recovered)


def metric_at(points):
    return np.stack([np.diag([1.0, 2.0]) / sigma**2 for _, sigma in points])


@jax.jit
def look(manifold, x):
    """A point from x and again from θ, and ∂η/∂θ there: the Hessian of ψ."""
    point = manifold.point(x)

    def dual(theta):
        found = manifold.locate(theta)
        return found.eta, found

    hessian, found = jax.jacfwd(dual, has_aux=True)(point.theta)
    return point, found, hessian


look_at = jax.vmap(look, (None, 0))


def relative(found, truth):
    """The greatest error of each point, relative to its own greatest entry."""
    found, truth = (np.asarray(a, np.float64).reshape(len(found), -1) for a in (found, truth))
    return np.abs(found - truth).max(1) / np.abs(truth).max(1)


# --- ψ is found again ------------------------------------------------------------------------


# Normal laws on the plane take long to compile: benchmarks/converse.py has them.
@pytest.mark.parametrize(
    "name",
    ["a user's in a bent chart", pytest.param("Dirichlet in log α", marks=pytest.mark.slow)],
)
def test_psi_is_found_again_in_any_chart(x64, name):
    """Rounding alone is left: 3e-14 measured at the point farthest out, 10 times that allowed."""
    hidden = HIDDEN[name]

    @jax.jit
    def all_of(origin, points):
        manifold = hidden.recovered(origin)
        g = jax.vmap(hidden.structure().metric)(points)
        return manifold.report, jax.vmap(manifold.point)(points), jax.vmap(hidden.chart)(points), g

    report, point, chart, g = all_of(hidden.origin, hidden.points)
    report.checked()
    np.testing.assert_array_equal(point.status, Status.CONVERGED)
    assert relative(point.theta, chart).max() < 3e-13
    thetas = [exact(theta) for theta in point.theta]
    eta = [[float(slope) for slope in hidden.gradient(theta)] for theta in thetas]
    assert relative(point.eta, eta).max() < 3e-13
    psi = [float(hidden.value(theta)) for theta in thetas]
    np.testing.assert_allclose(point.psi, psi, rtol=3e-13)
    # ∂η/∂θ is the metric. In the chart, each index by its own length.
    there = np.einsum("pai,paj->pij", point.frame, point.dual_frame)
    length = np.sqrt(np.diagonal(g, axis1=1, axis2=2))
    assert np.abs((there - g) / length[:, :, None] / length[:, None, :]).max() < 1e-12


def test_psi_from_g_and_gamma_by_hand(x64):
    """Nothing here was derived from a potential by this library."""
    point, found, hessian = look_at(normal_manifold(ORIGIN), jnp.asarray(POINTS))
    theta = np.asarray(natural(POINTS.T)).T
    assert relative(point.theta, theta).max() < 1e-13
    for there in (point, found):
        truth = [float(NORMAL.value(exact(t))) for t in there.theta]
        np.testing.assert_allclose(there.psi, truth, rtol=1e-12)
        np.testing.assert_allclose(there.psi + there.phi, (theta * there.eta).sum(1), rtol=1e-12)
    back = np.einsum("pai,pab,pbj->pij", point.frame, hessian, point.frame)
    assert relative(back, metric_at(POINTS)).max() < 1e-12


def test_float32_stays_float32():
    """θ and η to a few hundred ε; the connections themselves are rounded to ε all the way."""
    point, found, hessian = look_at(
        normal_manifold(ORIGIN.astype("f4")), jnp.asarray(POINTS[:4], "f4")
    )
    assert {leaf.dtype for leaf in jax.tree_util.tree_leaves((point[:7], hessian))} == {
        jnp.dtype("float32")
    }
    assert relative(point.theta, np.asarray(natural(POINTS[:4].T)).T).max() < 3e-5
    assert relative(found.x, POINTS[:4]).max() < 3e-5
    back = np.einsum("pai,pab,pbj->pij", point.frame, hessian, point.frame)
    assert relative(back, metric_at(POINTS[:4])).max() < 3e-5


def test_the_potential_serves_the_rest_of_the_library(x64):
    psi, theta = normal_manifold(ORIGIN).potential, natural(jnp.asarray(POINTS[2]))
    base = natural(jnp.asarray(POINTS[3]))

    @jax.jit
    def all_of(psi):
        eta = psi.to_eta(theta)
        inside = psi.in_domain(theta), psi.in_domain(-theta)
        return psi.to_theta(eta), psi.conjugate(eta), bregman(psi, theta, base), inside

    back, phi, divergence, inside = all_of(psi)
    known = Gaussian(1)
    np.testing.assert_allclose(back, theta, rtol=1e-12)
    np.testing.assert_allclose(phi, known.conjugate(known.to_eta(theta)), rtol=1e-12)
    np.testing.assert_allclose(divergence, bregman(known, theta, base), rtol=1e-12)
    assert tuple(map(bool, inside)) == (True, False)
    assert psi.dim == 2
    np.testing.assert_array_equal(psi.starting_point(jnp.float64), natural(ORIGIN))


# --- derivatives -----------------------------------------------------------------------------


def test_derivatives_at_every_order_forwards_and_backwards(x64):
    manifold, theta = normal_manifold(ORIGIN), natural(jnp.asarray(POINTS[2]))

    def orders(psi):
        slope, fwd, rev = jax.grad(psi), jax.jacfwd, jax.jacrev
        return slope(theta), rev(fwd(slope))(theta), fwd(fwd(rev(slope)))(theta)

    found = jax.jit(lambda m: orders(m.potential))(manifold)
    for order, truth in zip(found, jax.jit(lambda: orders(Gaussian(1)))(), strict=True):
        np.testing.assert_allclose(order, truth, rtol=1e-11, atol=1e-11 * np.abs(truth).max())


@pytest.mark.parametrize(
    ("mode", "connection"),
    [
        (jax.jacfwd, lambda a: Partial(lambda a, x: a + 0 * x[:, None, None], a)),
        (jax.jacrev, lambda a: lambda x: a + 0 * x[:, None, None]),
    ],
    ids=["forwards, a pytree", "backwards, a closure"],
)
def test_parameters_origin_and_frame_are_differentiated(x64, mode, connection):
    """Γ = a: θ = θ₀ + e(exp(a(x − o)) − 1)/a."""

    def coordinate(a, o, e, x):
        return affine_coordinates(connection(a), o[None], frame=e[None, None])(x[None])[0]

    def formula(a, o, e, x):
        return e * jnp.expm1(a * (x - o)) / a

    at = tuple(jnp.asarray(v) for v in (1.5, -0.5, 2.0, 3.0))
    every = (0, 1, 2, 3)
    once, twice = jax.jit(
        lambda *at: (mode(coordinate, every)(*at), mode(mode(coordinate, every), every)(*at))
    )(*at)
    np.testing.assert_allclose(once, jax.grad(formula, every)(*at), rtol=1e-13)
    truth = jax.hessian(formula, every)(*at)
    mixed = [(i, j) for i in every for j in every if (i, j) != (0, 0)]
    np.testing.assert_allclose(
        [twice[i][j] for i, j in mixed], [truth[i][j] for i, j in mixed], rtol=1e-12, atol=1e-12
    )


def test_psi_does_not_depend_on_the_origin(x64):
    """With the choices tied to the true θ; the rule for a moving origin is what makes it so."""
    theta = natural(jnp.asarray(POINTS[2]))
    psi, slope = jax.jit(
        jax.value_and_grad(lambda origin: normal_manifold(origin).potential(theta))
    )(jnp.asarray(ORIGIN))
    np.testing.assert_allclose(slope / psi, 0, atol=1e-12)


# --- how far, and no farther -----------------------------------------------------------------


def test_a_ray_is_resolved_or_nan(x64):
    """Γ = ω cos ωx, so that ∂θ = exp(sin ωx): 12 nodes see ω = 3, panels ω = 60, nothing 1e4."""
    omega = jnp.array([3.0, 60.0, 1e4])

    @jax.jit
    @jax.vmap
    def coordinate(omega):
        wave = affine_coordinates(
            lambda x: (omega * jnp.cos(omega * x))[:, None, None], jnp.zeros(1)
        )
        return wave(jnp.ones(1))[0], wave.status(jnp.ones(1))

    value, status = coordinate(omega)
    truth = [
        float(mp.quad(lambda x, w=w: mp.exp(mp.sin(w * x)), mp.linspace(0, 1, 40))) for w in (3, 60)
    ]
    np.testing.assert_allclose(value[:2], truth, rtol=1e-13)
    assert np.isnan(value[2])
    assert list(status) == [Status.CONVERGED, Status.CONVERGED, Status.MAX_STEPS]


def test_beyond_the_chart_everything_is_nan_also_the_gradient(x64):
    """σ = 0, and σ < 0, where g and Γ are finite again; and θ with no law."""
    manifold = normal_manifold(ORIGIN)
    beyond = jnp.array([[0.5, 0.0], [0.5, -1.0], [3.0, -0.2], [np.nan, 1.0], [0.5, 0.9]])

    @jax.jit
    @jax.vmap
    def outside(x):
        theta = natural(x) * jnp.where(jnp.arange(2) == 1, jnp.sign(x[1] - 0.1), 1.0)
        point, found = manifold.point(x), manifold.locate(theta)
        slopes = jax.grad(manifold.psi)(x), jax.grad(manifold.potential)(theta)
        values = [*point[1:7], *found[:7], *slopes]
        return jnp.stack([jnp.isnan(v).any() for v in values]), point.status, found.status

    nan, point_status, found_status = outside(beyond)
    np.testing.assert_array_equal(nan, (np.arange(5) < 4)[:, None] & np.ones(15, bool))
    for status in (point_status, found_status):
        np.testing.assert_array_equal(status == Status.CONVERGED, np.arange(5) == 4)


# --- the lemmas ------------------------------------------------------------------------------


@jax.jit
def defects(manifold, points):
    each = biorthogonality_defect, jacobian_defect, legendre_defect
    found = [jax.vmap(defect, (None, 0))(manifold, points) for defect in each]
    return found, jax.vmap(examine, (None, 0))(manifold, points)


def test_the_three_lemmas_and_what_breaks_them(x64):
    manifold, points = normal_manifold(ORIGIN), jnp.asarray(POINTS)
    found, report = defects(manifold, points)
    report.checked()
    for defect in found:
        assert np.abs(defect).max() < 1e-10  # g's condition in θ is 1e9 at the last point
    # An η that is affine as well, but not the one that G belongs to; and one that is not affine.
    other = dataclasses.replace(manifold.eta, frame=1.001 * manifold.eta.frame)
    found, _ = defects(dataclasses.replace(manifold, eta=other), points)
    assert (np.abs(found[0]).max((1, 2)) > 1e-4).all()
    assert (np.abs(found[1]).max((1, 2, 3)) > 1e-4).all()
    assert np.abs(found[2]).max() < 1e-13  # ψ and φ do not know g
    bent = affine_coordinates(
        Partial(normal_connection, -0.999),
        manifold.eta.origin,
        frame=manifold.eta.frame,
        units=manifold.eta.units,
    )
    _, report = defects(dataclasses.replace(manifold, eta=bent), points)
    failed = [c for c, holds in zip(report.conditions, report.holds[2], strict=True) if not holds]
    assert failed == ["(11) g(∂ᵢ, ∂ʲ) = δᵢʲ", "(12) gᵢⱼ = ∂ηᵢ/∂θʲ", "(13) gⁱʲ = ∂θⁱ/∂ηⱼ"]


# --- reports ---------------------------------------------------------------------------------


def _constant(array, x):
    return array


def constant(array):
    """A field that is the same everywhere; all of them are one program."""
    return Partial(_constant, np.asarray(array, np.float64))


def sphere(x):
    return jnp.diag(jnp.stack([jnp.ones_like(x[0]), jnp.sin(x[0]) ** 2]))


LEVI_CIVITA = levi_civita(sphere)
FLAT = constant(np.zeros((2, 2, 2)))
SHEAR = np.zeros((2, 2, 2))
SHEAR[0, 1, 1] = 1.0  # a frame that grows along x₀: parallel, flat, twisted
TURN = np.einsum("ij,k->ijk", [[0.0, 1.0], [-1.0, 0.0]], [1.0, 0.0])

STRUCTURES = {
    "euclidean": (DualStructure(constant(np.eye(2)), FLAT, FLAT), []),
    "normal": (normal(), []),
    "normal, dual read first": (normal(-1.0), []),
    "normal, alpha": (normal(0.5), ["R = 0", "R* = 0"]),
    "sphere": (DualStructure(sphere, LEVI_CIVITA, LEVI_CIVITA), ["R = 0", "R* = 0"]),
    "metric not symmetric": (
        DualStructure(constant([[2.0, 0.5], [0.3, 1.0]]), FLAT, FLAT),
        ["g symmetric"],
    ),
    "metric indefinite": (
        DualStructure(constant([[1.0, 2.0], [2.0, 1.0]]), FLAT, FLAT),
        ["g > 0"],
    ),
    "metric degenerate": (DualStructure(constant([[1.0, 1.0], [1.0, 1.0]]), FLAT, FLAT), ["g > 0"]),
    "not dual": (DualStructure(normal_metric, normal().primal, normal().primal), ["(5) duality"]),
    "twisted, and back": (
        DualStructure(constant(np.eye(2)), constant(SHEAR), constant(-SHEAR)),
        ["T = 0", "T* = 0"],
    ),
    "twisted": (
        DualStructure(constant(np.eye(2)), constant(TURN), FLAT),
        ["(5) duality", "(6) T + T* = 0", "T = 0", "R = 0"],
    ),
    "nowhere": (
        DualStructure(constant(np.full((2, 2), np.nan)), FLAT, FLAT),
        ["g symmetric", "g > 0", "(5) duality"],
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_condition_that_fails_is_named(x64, name):
    structure, failing = STRUCTURES[name]
    report = flatness(structure, jnp.array([0.7, 1.3]))
    failed = [c for c, holds in zip(report.conditions, report.holds, strict=True) if not holds]
    assert failed == failing


def test_float32_tells_flat_from_curved():
    for alpha, flat in ((1.0, True), (0.99, False)):
        report = flatness(normal(np.float32(alpha)), jnp.array([0.7, 1.3], jnp.float32))
        assert report.residual.dtype == jnp.float32
        assert bool(report.holds.all()) == flat


def test_nothing_plausible_comes_from_a_structure_that_is_not_flat(x64):
    manifold = recover(normal(0.5), jnp.asarray(ORIGIN))
    assert np.isnan(np.stack(manifold.point(jnp.asarray(POINTS[1]))[3:5])).all()
    with pytest.raises(RuntimeError, match="2 of 8 conditions fail"):
        manifold.report.checked()


def test_a_report_says_where_and_by_how_much(x64):
    """R₀₁₀¹ of the unit sphere is −1 in units of length."""
    report = flatness(STRUCTURES["sphere"][0], jnp.array([0.7, 0.0]))
    k = report.conditions.index("R = 0")
    assert {int(i) for i in report.component[k]} == {0, 1}
    assert 0.1 < report.residual[k] <= 1

    @jax.jit
    @jax.vmap
    def look(x):  # a shear that begins at x₀ = 1
        shear = constant(SHEAR)(x) * jnp.where(x[0] > 1, 1e-6, 0.0)
        return flatness(DualStructure(constant(np.eye(2)), lambda x: shear, lambda x: -shear), x)

    batch = look(jnp.array([[0.0, 1.0], [0.5, 1.0], [1.5, 0.25]]))
    np.testing.assert_array_equal(batch.holds.all(1), [True, True, False])
    with pytest.raises(RuntimeError, match=r"2 of 8 conditions fail") as error:
        batch.checked()
    line = next(line for line in str(error.value).splitlines() if "T = 0" in line)
    assert "point (2,), x = [1.5, 0.25], component (0, 1, 1); in 1 of 3 points" in line
    with pytest.raises(TypeError, match="inside jit"):
        jax.jit(lambda x: flatness(STRUCTURES["euclidean"][0], x).checked())(jnp.ones(2))
    assert str(batch) == str(error.value)
    assert batch.checked is not None


def test_units_of_the_coordinates_do_not_matter(x64):
    """x ↦ (10⁶x₀, 10⁻⁶x₁): the same residuals."""
    units, x = jnp.array([1e6, 1e-6]), jnp.array([0.7, 1.3])
    here = flatness(normal(0.5), x)
    there = flatness(normal(0.5).in_chart(lambda y: y / units), x * units)
    np.testing.assert_allclose(here.residual, there.residual, rtol=1e-10, atol=1e-14)
    np.testing.assert_array_equal(here.holds, there.holds)
    assert not here.holds.all()


def test_shapes_are_checked_before_anything_is_computed():
    with pytest.raises(ValueError, match=r"flatness: x has shape \(1, 2\)"):
        flatness(normal(), jnp.ones((1, 2)))
    with pytest.raises(ValueError, match=r"recover: dual has shape \(2, 2\) .* Wanted \(2, 2, 2\)"):
        recover(DualStructure(normal_metric, FLAT, normal_metric), jnp.ones(2))
    with pytest.raises(ValueError, match=r"recover: frame has shape \(2,\). Wanted \(2, 2\)"):
        recover(normal(), jnp.ones(2), frame=jnp.ones(2))
    with pytest.raises(ValueError, match=r"affine_coordinates: shapes differ"):
        affine_coordinates(FLAT, jnp.ones(2), value=jnp.ones(3))


# --- from a divergence -----------------------------------------------------------------------


def test_the_structure_of_a_bregman_divergence_is_that_of_its_potential(x64):
    """In the order of `bregman(psi, theta, base)`; with KL(x ‖ x′) the two change places."""
    psi, theta = Categorical(2), jnp.array([0.3, -0.8])

    def plain(p, q):
        return psi(p) - psi(q) - jax.grad(psi)(q) @ (p - q)

    @jax.jit
    def fields(structure):
        return structure.metric(theta), structure.primal(theta), structure.dual(theta)

    truth = fields(dual_structure(psi))
    assert np.abs(truth[2]).max() > 0.1
    for divergence in (plain, lambda p, q: bregman(psi, p, q)):
        for found, want in zip(fields(from_divergence(divergence)), truth, strict=True):
            np.testing.assert_allclose(found, want, rtol=0, atol=1e-13)
    backwards = fields(from_divergence(lambda p, q: plain(q, p)))
    np.testing.assert_allclose(backwards[1], truth[2], atol=1e-13)


def kl(x, base):
    """KL(base ‖ x) of normal laws in (μ, σ)."""
    ratio = base[1] / x[1]
    return -jnp.log(ratio) + (ratio**2 - 1) / 2 + ((base[0] - x[0]) / x[1]) ** 2 / 2


def simplex(divergence):
    """A divergence of laws (p₀, p₁, 1 − p₀ − p₁) from one of measures."""
    complete = lambda p: jnp.append(p, 1 - p.sum())  # noqa: E731
    return lambda p, q: divergence(complete(p), complete(q))


def hellinger(p, q):
    return 2 * ((jnp.sqrt(p) - jnp.sqrt(q)) ** 2).sum()


def fisher_rao_squared(p, q):
    """½d² with d = 2 arccos Σ√pq. Near p = q it is 2h(1 + h/6 + …), h = ‖√p − √q‖²."""
    h = ((jnp.sqrt(p) - jnp.sqrt(q)) ** 2).sum()
    return 2 * h * (1 + h / 12 + h**2 / 90)


def blend(divergences, weights, x, base):
    return sum(w * d(x, base) for w, d in zip(weights, divergences, strict=True))


def failures(divergences, weights):
    """What `bregman_report` finds wrong with each row of weights; compiled once for all."""
    x, base = jnp.array([0.2, 0.35]), jnp.array([0.4, 0.3])

    @jax.jit
    @jax.vmap
    def look(w):
        return bregman_report(Partial(Partial(blend, divergences), w), x, base)

    report = look(jnp.asarray(weights, x.dtype))
    names = np.array(report.conditions)
    return [list(names[~holds]) for holds in np.asarray(report.holds)]


CURVED = ["R = 0", "R* = 0"]
CANONICAL = ["D is canonical"]


def test_a_divergence_that_is_not_bregman_is_found_out(x64):
    """KL, the same backwards, with a fourth power that no derivative sees, symmetrised, tilted."""
    parts = (
        kl,
        lambda x, base: kl(base, x),
        lambda x, base: ((x - base) ** 4).sum(),
        lambda x, base: (x - base).sum(),
    )
    weights = [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0.1]]
    bent = ["∂D = ∂′D = 0"]
    wanted = [[], [], CANONICAL, CURVED + CANONICAL, bent + CANONICAL]
    assert failures(parts, weights) == wanted


def test_laws_are_a_sphere_for_hellinger_and_fisher_rao(x64):
    """Hellinger's is Bregman, and flat, only if the total may be anything."""
    parts = simplex(hellinger), simplex(fisher_rao_squared), hellinger
    wanted = [CURVED + CANONICAL, CURVED + CANONICAL, []]
    assert failures(parts, np.eye(3)) == wanted


def test_psi_comes_back_from_a_divergence(x64):
    """∂η/∂θ, in x, is g; and ψ, normalised at the origin, is the divergence from there."""
    manifold = recover(from_divergence(kl), jnp.asarray(ORIGIN))
    manifold.report.checked()
    point = jax.jit(jax.vmap(manifold.point))(POINTS[:4])
    back = np.einsum("pai,paj->pij", point.frame, point.dual_frame)
    assert relative(back, metric_at(POINTS[:4])).max() < 1e-12
    np.testing.assert_allclose(point.psi, kl(POINTS[:4].T, ORIGIN), rtol=1e-12, atol=1e-15)
    assert [point.psi[0], point.phi[0], *point.theta[0], *point.eta[0]] == [0] * 6


def test_the_canonical_divergence_keeps_its_digits_at_every_distance(x64):
    """KL(base ‖ x) against mpmath; the formula in float64 has none left at 1e-8."""
    base = np.array([0.5, 1.0])
    points = base + np.outer([1e-8, 1e-6, 1e-4, 1e-2, 1.0], [0.6, -0.8])
    found = jax.jit(jax.vmap(lambda x: canonical_divergence(normal(), x, base)))(points)
    truth = []
    for x in points:
        (m, s), (m_0, s_0) = exact(x), exact(base)
        truth.append(mp.log(s / s_0) + ((s_0 / s) ** 2 - 1 + ((m - m_0) / s) ** 2) / 2)
    truth = np.array(truth, float)
    np.testing.assert_allclose(found, truth, rtol=1e-13)
    book = np.array([kl(x, base) for x in points])
    assert np.abs(book / truth - 1)[0] > 0.1
    assert canonical_divergence(normal(), base, base) == 0
