"""Rao's distances against 50 digits: closed forms as they stand, the others by their geodesics.

Where there is no closed form the truth is exact to second order: the geodesic is followed with 30
digits or more from the velocity that was found, and where it misses the other law by δ, the distance is |v₀|
plus ⟨γ̇₁, δ⟩/|v₀|.
"""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import distances
from dualflat.geometry.distances import (
    fisher_rao_bernoulli,
    fisher_rao_beta,
    fisher_rao_categorical,
    fisher_rao_dirichlet,
    fisher_rao_gamma,
    fisher_rao_mvn,
    fisher_rao_normal,
    fisher_rao_poisson,
    fisher_rao_scale,
    geodesic_bernoulli,
    geodesic_beta,
    geodesic_categorical,
    geodesic_dirichlet,
    geodesic_gamma,
    geodesic_mvn,
    geodesic_normal,
    geodesic_poisson,
    geodesic_scale,
)

EPS = np.finfo(np.float64).eps


def exact(a):
    """The numbers themselves, as mpmath sees them."""
    a = np.asarray(a, np.float64)
    if a.ndim < 2:
        return [mp.mpf(x) for x in a.ravel().tolist()]
    return mp.matrix(a.tolist())


# --- closed forms ----------------------------------------------------------------------------


def exact_normal(m, s, n, t):
    return mp.sqrt(2) * mp.acosh(1 + ((m - n) ** 2 / 2 + (s - t) ** 2) / (2 * s * t))


def exact_categorical(*x):
    p, q = x[: len(x) // 2], x[len(x) // 2 :]
    chord = mp.sqrt(mp.fsum((mp.sqrt(a) - mp.sqrt(b)) ** 2 for a, b in zip(p, q, strict=True)))
    return 4 * mp.asin(chord / 2)


CLOSED = {
    "categorical": (
        lambda x: fisher_rao_categorical(x[:3], x[3:]),
        exact_categorical,
        [0.2, 0.3, 0.5],
        [-1.0, 3.0, -2.0],
    ),
    "multinomial": (
        lambda x: fisher_rao_categorical(x[:2], x[2:], trials=7),
        lambda *x: mp.sqrt(7) * exact_categorical(*x),
        [0.01, 0.99],
        [1.0, -1.0],
    ),
    "bernoulli": (
        lambda x: fisher_rao_bernoulli(x[0], x[1]),
        lambda p, q: 2 * abs(mp.asin(mp.sqrt(p)) - mp.asin(mp.sqrt(q))),
        [0.3],
        [0.3],
    ),
    "poisson": (
        lambda x: fisher_rao_poisson(x[0], x[1]),
        lambda a, b: 2 * abs(mp.sqrt(a) - mp.sqrt(b)),
        [3.0],
        [2.0],
    ),
    "scale": (
        lambda x: fisher_rao_scale(x[0], x[1], information=2.0),
        lambda a, b: mp.sqrt(2) * abs(mp.log(a / b)),
        [5.0],
        [3.0],
    ),
    "normal": (
        lambda x: fisher_rao_normal(*x),
        exact_normal,
        [-2.0, 0.7],
        [1.0, 0.5],
    ),
}


def swapped(x):
    return np.concatenate([x[len(x) // 2 :], x[: len(x) // 2]])


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name, x64):
    """Values to 8 ε and gradients to 256 ε, from laws 1e-12 apart to far ones; symmetric to the bit."""
    f, truth, base, direction = CLOSED[name]
    f = jax.jit(jax.value_and_grad(f))
    for step in (1e-12, 1e-9, 1e-5, 1e-2, 0.15):
        x = np.concatenate([base, np.add(base, step * np.array(direction) / 2)])
        if name == "normal" and step == 0.15:
            x = np.array([-2.0, 1e-3, 40.0, 30.0])
        value, grad = f(x)
        with mp.workdps(60):
            at = exact(x)
            want = truth(*at)
            slopes = [
                mp.diff(
                    truth,
                    tuple(at),
                    tuple(int(i == j) for j in range(len(at))),
                    h=mp.mpf(10) ** -30,
                )
                for i in range(len(at))
            ]
        assert abs(value / float(want) - 1) <= 8 * EPS
        np.testing.assert_allclose(grad, np.array(slopes, float), rtol=256 * EPS, atol=0)
        assert f(swapped(x))[0] == value


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_at_equality_and_in_float32(name):
    f, truth, base, direction = CLOSED[name]
    f = jax.jit(jax.value_and_grad(f))
    x = np.concatenate([base, base]).astype(np.float32)
    value, grad = f(x)
    assert value.dtype == grad.dtype == np.float32
    assert value == 0
    np.testing.assert_array_equal(grad, 0)
    for step in (1e-4, 0.1):
        x = np.concatenate([base, np.add(base, step * np.array(direction) / 2)]).astype(np.float32)
        value, grad = f(x)
        assert abs(value / float(truth(*exact(x))) - 1) <= 8 * np.finfo(np.float32).eps
        assert np.isfinite(grad).all()
    for bad in (-0.25, np.nan):
        x[len(base) - 1] = bad  # a probability, a rate, a scale
        value, grad = f(x)
        assert np.isnan(value)
        assert np.isnan(grad).any()


def test_zeros_and_the_rim(x64):
    p, q = jnp.array([0.5, 0.5, 0.0, 0.0]), jnp.array([0.0, 0.5, 0.5, 0.0])
    value, grad = jax.value_and_grad(fisher_rao_categorical)(p, q)
    np.testing.assert_allclose(value, 2 * np.pi / 3, rtol=4 * EPS)
    assert np.isfinite(grad[np.array([0, 1, 3])]).all()
    assert grad[2] == -np.inf
    np.testing.assert_allclose(
        fisher_rao_categorical(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), trials=4.0),
        2 * np.pi,
        rtol=4 * EPS,
    )
    np.testing.assert_allclose(fisher_rao_bernoulli(0.0, 1.0), np.pi, rtol=4 * EPS)
    assert fisher_rao_bernoulli(1.0, 1.0) == 0
    assert fisher_rao_poisson(0.0, 0.0) == 0
    assert fisher_rao_poisson(0.0, 9.0) == 6


def test_bernoulli_is_categorical(x64):
    for p, q in np.random.default_rng(1).uniform(0.1, 0.9, (5, 2)):
        both = fisher_rao_categorical(jnp.array([p, 1 - p]), jnp.array([q, 1 - q]), trials=3)
        np.testing.assert_allclose(fisher_rao_bernoulli(p, q, trials=3), both, rtol=32 * EPS)


def test_the_geodesic_of_normal_laws(x64):
    """It divides the distance, lies on an ellipse about the axis σ = 0, and ends where it should."""
    p, q = (0.3, 1.5), (2.0, 0.4)
    whole = fisher_rao_normal(*p, *q)
    points = [geodesic_normal(*p, *q, t) for t in (0.0, 0.25, 0.5, 0.9, 1.0)]
    for t, point in zip((0.0, 0.25, 0.5, 0.9, 1.0), points, strict=True):
        np.testing.assert_allclose(fisher_rao_normal(*p, *point), t * whole, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(
            fisher_rao_normal(*point, *q), (1 - t) * whole, rtol=1e-14, atol=1e-15
        )
    np.testing.assert_allclose(points[0], p, rtol=EPS)
    np.testing.assert_allclose(points[-1], q, rtol=EPS)
    np.testing.assert_allclose(geodesic_normal(1.0, 2.0, 1.0, 2.0, 0.3), (1.0, 2.0), rtol=EPS)
    near = geodesic_normal(1.0, 2.0, 1.0 + 1e-9, 2.0 + 1e-9, 0.25)
    np.testing.assert_allclose(near, (1.0 + 2.5e-10, 2.0 + 2.5e-10), rtol=4 * EPS)


# name: distance and geodesic on vectors, two laws, ε that dividing the distance may cost
PATHS = {
    "categorical": (
        fisher_rao_categorical, geodesic_categorical, [0.2, 0.3, 0.5], [0.6, 0.3, 0.1], 64,
    ),
    "categorical, opposite": (
        fisher_rao_categorical, geodesic_categorical, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], 64,
    ),
    "Bernoulli": (
        lambda p, q: fisher_rao_bernoulli(p[0], q[0]),
        lambda p, q, t: geodesic_bernoulli(p[0], q[0], t)[None],
        [0.001], [0.7], 64,
    ),
    "Poisson": (
        lambda p, q: fisher_rao_poisson(p[0], q[0]),
        lambda p, q, t: geodesic_poisson(p[0], q[0], t)[None],
        [0.0], [12.0], 64,
    ),
    "scale": (
        lambda p, q: fisher_rao_scale(p[0], q[0]),
        lambda p, q, t: geodesic_scale(p[0], q[0], t)[None],
        [1e-8], [3e5], 64,
    ),
    "gamma": (
        lambda p, q: fisher_rao_gamma(*p, *q),
        lambda p, q, t: jnp.stack(geodesic_gamma(*p, *q, t)),
        [0.3, 2.0], [5.0, 0.1], 1e5,
    ),
    "beta": (
        lambda p, q: fisher_rao_beta(*p, *q),
        lambda p, q, t: jnp.stack(geodesic_beta(*p, *q, t)),
        [0.3, 8.0], [5.0, 0.7], 1e5,
    ),
    "Dirichlet": (
        fisher_rao_dirichlet, geodesic_dirichlet, [0.5, 1.0, 3.0], [4.0, 1.5, 0.25], 1e5,
    ),
}  # fmt: skip


# Two searches to compile for each: the beta laws are Dirichlet laws.
paths = [pytest.param(n, marks=pytest.mark.slow) if n == "beta" else n for n in PATHS]


@pytest.mark.parametrize("name", paths)
def test_a_geodesic_divides_the_distance(name, x64):
    """Its point at t is at t times the distance from the one and at the rest of it from the other."""
    distance, path, p, q, loose = PATHS[name]
    p, q, times = jnp.array(p), jnp.array(q), jnp.array([0.0, 0.25, 0.5, 0.75, 1.0])
    look = jax.jit(jax.vmap(path, in_axes=(None, None, 0)))
    points, back = look(p, q, times), look(q, p, times)
    pairs = [(p, x) for x in points] + [(x, q) for x in points]
    between = jax.jit(jax.vmap(distance))(*(jnp.stack(ends) for ends in zip(*pairs, strict=True)))
    ahead, behind, whole = between[:5], between[5:], between[4]
    size = loose * EPS
    np.testing.assert_allclose(points[0], p, rtol=16 * EPS, atol=16 * EPS)
    np.testing.assert_allclose(points[-1], q, rtol=16 * EPS, atol=16 * EPS)
    np.testing.assert_allclose(ahead, times * whole, rtol=size, atol=size * whole)
    np.testing.assert_allclose(behind, (1 - times) * whole, rtol=size, atol=size * whole)
    np.testing.assert_allclose(back[::-1], points, rtol=16 * EPS, atol=16 * EPS)
    if name.startswith("categorical"):
        np.testing.assert_allclose(points.sum(1), 1, rtol=8 * EPS)


@pytest.mark.parametrize("name", paths)
def test_a_geodesic_between_near_laws_and_its_derivatives(name, x64):
    _, path, p, q, _ = PATHS[name]
    p, q = 0.5 * jnp.array(p) + 0.25 * jnp.array(q), 0.25 * jnp.array(p) + 0.5 * jnp.array(q)
    if name.startswith("categorical"):
        p, q = (x + (1 - x.sum()) / 3 for x in (p, q))
    move = jnp.linspace(1, -1, len(p)) if len(p) > 1 else jnp.ones(1)
    near = p + 1e-9 * move
    look = jax.jit(path)
    np.testing.assert_allclose(look(p, near, 0.25), p + 0.25 * (near - p), rtol=8 * EPS)
    np.testing.assert_allclose(look(p, p, 0.7), p, rtol=4 * EPS)
    along = jax.jit(lambda p, q, t: jax.jvp(path, (p, q, t), (move, -move, jnp.ones_like(t))))
    _, slope = along(p, q, jnp.array(0.3))
    h = 1e-5
    change = look(p + h * move, q - h * move, 0.3 + h) - look(p - h * move, q + h * move, 0.3 - h)
    np.testing.assert_allclose(slope, change / (2 * h), rtol=1e-7, atol=1e-8)
    _, still = along(p, p, jnp.array(0.3))
    np.testing.assert_allclose(still, 0.7 * move - 0.3 * move, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", paths)
def test_no_law_has_no_geodesic(name):
    _, path, p, q, _ = PATHS[name]
    p, q = jnp.array(p, jnp.float32), jnp.array(q, jnp.float32)
    assert path(p, q, 0.5).dtype == jnp.float32
    bad = p.at[0].set(-1.0)
    assert np.isnan(path(bad, q, 0.5)).all()
    assert np.isnan(path(q, bad, 0.5)).all()
    assert np.isnan(jax.jacfwd(path)(bad, q, 0.5)).any()


def test_a_geodesic_goes_on_to_the_rim(x64):
    """Beyond its ends: √λ is straight, an arc ends where a probability is 0."""
    np.testing.assert_allclose(geodesic_poisson(4.0, 9.0, 3.0), 25.0)
    assert np.isnan(geodesic_poisson(4.0, 9.0, -3.0))
    p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.5, 0.0, 0.5])
    assert (geodesic_categorical(p, q, 0.999) > 0).all()
    assert np.isnan(geodesic_categorical(p, q, 1.001)).all()
    np.testing.assert_allclose(geodesic_scale(2.0, 4.0, 2.0), 8.0)
    assert np.isnan(geodesic_gamma(1.0, 1.0, 2.0, 1.0, 1.5)).all()
    assert np.isnan(geodesic_dirichlet(jnp.ones(2), 2 * jnp.ones(2), -0.5)).all()


# --- normal laws in several dimensions -------------------------------------------------------

mvn = jax.jit(jax.value_and_grad(fisher_rao_mvn, argnums=(0, 1, 2, 3)))
mvn_point = jax.jit(geodesic_mvn)


def eriksen(x, b):
    """μ, Σ and their velocities at t = 1 of the geodesic from (0, I) along (x, B)."""
    d = len(x)
    a = mp.zeros(2 * d + 1)
    for i in range(d):
        a[i, d] = a[d, i] = x[i]
        a[d, d + 1 + i] = a[d + 1 + i, d] = -x[i]
        for j in range(d):
            a[i, j], a[d + 1 + i, d + 1 + j] = -b[i, j], b[i, j]
    whole = mp.expm(a / 4, method="taylor")
    whole = whole * whole
    whole = whole * whole
    moving = a * whole
    covariance = whole[:d, :d] ** -1
    mean = covariance * whole[:d, d]
    turning = -covariance * moving[:d, :d] * covariance
    return (
        mean,
        covariance,
        covariance * moving[:d, d] - covariance * moving[:d, :d] * mean,
        turning,
    )


def exact_mvn(p, q):
    """The distance, and its slopes in q as vectors of the metric: γ̇₁/d with lowered index."""
    with mp.workdps(50):
        found, slopes = mvn(*p, *q)
        low, found = mp.cholesky(exact(p[1])), mp.mpf(float(found))
        root = low**-1
        x = -found * low.T * mp.matrix(exact(slopes[0]))
        b = -2 * found * low.T * exact(slopes[1]) * low
        b = (b + b.T) / 2
        mean, covariance, mean_dot, covariance_dot = eriksen(x, b)
        length = mp.sqrt(mp.fsum(y * y for y in x) + mp.fsum(y * y for y in b) / 2)
        inverse = covariance**-1
        by_mean = root.T * (inverse * mean_dot) / length
        by_covariance = root.T * (inverse * covariance_dot * inverse) * root / length / 2
        miss = mp.matrix(exact(q[0])) - mp.matrix(exact(p[0])) - root**-1 * mean
        off = exact(q[1]) - root**-1 * covariance * (root**-1).T
        change = (by_mean.T * miss)[0] + mp.fsum(
            by_covariance[i, j] * off[i, j] for i in range(len(x)) for j in range(len(x))
        )
        as_array = functools.partial(np.array, dtype=float)
        return length + change, as_array(by_mean.tolist()).ravel(), as_array(by_covariance.tolist())


def some_covariance(rng, d):
    a = rng.normal(size=(d, d))
    return a @ a.T + 0.3 * np.eye(d)


def some_normal(rng, d):
    return rng.normal(size=d), some_covariance(rng, d)


@pytest.mark.parametrize("d", [2, 3])
def test_mvn_against_fifty_digits(d, x64):
    """1e-13 for laws 1e-9 to 5 apart, gradients to 1e-11: Eriksen's exponential as the other route."""
    rng = np.random.default_rng(d)
    mean, covariance = some_normal(rng, d)
    turn = rng.normal(size=(d, d))
    for step in (1e-9, 1e-4, 0.1, 1.0, 4.0):
        other = mean + step * rng.normal(size=d), covariance + step * (turn @ turn.T)
        value, grad = mvn(mean, covariance, *other)
        want, by_mean, by_covariance = exact_mvn((mean, covariance), other)
        assert abs(mp.mpf(float(value)) / want - 1) <= 1e-13
        np.testing.assert_allclose(grad[2], by_mean, atol=1e-11 * np.abs(by_mean).max())
        np.testing.assert_allclose(grad[3], by_covariance, atol=1e-11 * np.abs(by_covariance).max())
        assert mvn(*other, mean, covariance)[0] == value
        np.testing.assert_array_equal(mvn(*other, mean, covariance)[1][0], grad[2])


def test_the_gradient_of_mvn_is_that_of_the_truth(x64):
    """Central differences of the 50-digit distance."""
    rng = np.random.default_rng(7)
    p, q = some_normal(rng, 2), some_normal(rng, 2)
    moves = [
        rng.normal(size=2),
        some_covariance(rng, 2),
        rng.normal(size=2),
        some_covariance(rng, 2),
    ]
    _, grad = mvn(*p, *q)
    h = 2e-6

    def at(s):
        law = [a + s * b for a, b in zip((*p, *q), moves, strict=True)]
        return exact_mvn(law[:2], law[2:])[0]

    slope = float((at(h) - at(-h)) / (2 * h))
    np.testing.assert_allclose(
        sum((g * m).sum() for g, m in zip(grad, moves, strict=True)), slope, rtol=1e-9
    )


def test_mvn_where_there_is_a_closed_form(x64):
    """One dimension; equal means; independent coordinates of which one mean differs."""
    for m, v, n, w in ((0.0, 1.0, 2.0, 9.0), (1.0, 0.04, 1.0 + 1e-9, 0.04), (0.0, 1.0, 1e5, 1e-4)):
        with mp.workdps(50):
            want = exact_normal(mp.mpf(m), mp.sqrt(v), mp.mpf(n), mp.sqrt(w))
        found = mvn(np.array([m]), np.array([[v]]), np.array([n]), np.array([[w]]))[0]
        np.testing.assert_allclose(found, float(want), rtol=16 * EPS)
    rng = np.random.default_rng(3)
    a, b, zero = some_covariance(rng, 3), some_covariance(rng, 3), np.zeros(3)
    with mp.workdps(40):
        root = mp.cholesky(exact(a)) ** -1
        logs = [mp.log(x) for x in mp.eigsy(root * exact(b) * root.T, eigvals_only=True)]
        want = mp.sqrt(mp.fsum(x * x for x in logs) / 2)
    np.testing.assert_allclose(mvn(zero, a, zero, b)[0], float(want), rtol=16 * EPS)
    # Reflections of the other coordinates leave both laws alone, so all between them is diagonal, too.
    parts = [(0.1, 1.0, 0.7, 2.0), (-1.0, 0.5, -1.0, 0.4), (0.0, 3.0, 0.0, 3.0)]
    m, s, n, t = np.array(parts).T
    want = np.linalg.norm([float(exact_normal(*map(mp.mpf, x))) for x in parts])
    np.testing.assert_allclose(mvn(m, np.diag(s**2), n, np.diag(t**2))[0], want, rtol=16 * EPS)
    # Not so if two means differ: through laws that are correlated the way is shorter.
    n = n + np.array([0.0, 1.0, 0.0])
    parts = [float(exact_normal(*map(mp.mpf, x))) for x in zip(m, s, n, t, strict=True)]
    assert 0.99 < mvn(m, np.diag(s**2), n, np.diag(t**2))[0] / np.linalg.norm(parts) < 1 - 1e-3


def test_mvn_is_a_distance_that_knows_no_units(x64):
    """Affine maps of x change nothing, and the triangle inequality holds."""
    rng = np.random.default_rng(11)
    for _ in range(8):
        p, q, r = (some_normal(rng, 3) for _ in range(3))
        pq, qr, pr = (float(mvn(*a, *b)[0]) for a, b in ((p, q), (q, r), (p, r)))
        assert pr <= (pq + qr) * (1 + 8 * EPS)
        f, shift = rng.normal(size=(3, 3)) + 2 * np.eye(3), rng.normal(size=3)
        moved = [(f @ m + shift, f @ s @ f.T) for m, s in (p, q)]
        np.testing.assert_allclose(mvn(*moved[0], *moved[1])[0], pq, rtol=1e-12)


def test_the_geodesic_of_mvn(x64):
    """It divides the distance, begins and ends where it should, and the halves meet."""
    rng = np.random.default_rng(12)
    p, q = some_normal(rng, 3), some_normal(rng, 3)
    whole = mvn(*p, *q)[0]
    for t in (0.2, 0.5, 0.7):
        point = mvn_point(*p, *q, t)
        np.testing.assert_allclose(mvn(*p, *point)[0], t * whole, rtol=1e-13)
        np.testing.assert_allclose(mvn(*point, *q)[0], (1 - t) * whole, rtol=1e-13)
    for t, law in ((0.0, p), (1.0, q)):
        for found, want in zip(mvn_point(*p, *q, t), law, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-13)
    left, right = mvn_point(*p, *q, 0.5 - 1e-15), mvn_point(*p, *q, 0.5)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_mvn_in_eight_dimensions(x64):
    """Eriksen's exponential of what was found ends at the other law."""
    rng = np.random.default_rng(13)
    d = 8
    a, b = rng.normal(size=(2, d, d))
    p = rng.normal(size=d), a @ a.T / d + 0.5 * np.eye(d)
    q = rng.normal(size=d), b @ b.T / d + 0.5 * np.eye(d)
    value, grad = mvn(*p, *q)
    start = distances._Normal(-value * p[1] @ grad[0], -2 * value * p[1] @ grad[1] @ p[1])
    mean, covariance = jax.jit(distances._mvn_shoot)(distances._Normal(*p), start, 1.0)
    np.testing.assert_allclose(mean, q[0], atol=1e-12)
    np.testing.assert_allclose(covariance, q[1], atol=1e-12)


def test_several_geodesics_join_normal_laws_far_apart(x64):
    """Geodesics are not unique: two minima, both ending at the law, and the shorter is the distance."""
    mean, root = np.array([-12.45147001, 850.32713819]), np.array([0.0615432492, 61.8562326])
    pair = distances._Pair(jnp.eye(2), jnp.array(mean), jnp.array(root), jnp.array(root**2 - 1))
    start = mean[0] * mean[1] / 2
    search = jax.jit(distances._mvn_search)
    lengths = [
        float(jnp.sqrt(2 * search(pair, jnp.array([k * start])).corner.value)) for k in (0.2, 0.95)
    ]
    np.testing.assert_allclose(lengths, [15.98156192, 15.87100371], atol=1e-7)
    value, grad = mvn(np.zeros(2), np.eye(2), mean, np.diag(root**2))
    np.testing.assert_allclose(value, min(lengths), rtol=1e-9)
    want, by_mean, _ = exact_mvn((np.zeros(2), np.eye(2)), (mean, np.diag(root**2)))
    np.testing.assert_allclose(value, float(want), rtol=1e-9)
    np.testing.assert_allclose(grad[2], by_mean, atol=1e-6 * np.abs(by_mean).max())


@pytest.mark.parametrize("d", [1, 3])
def test_mvn_at_equality_and_beyond_the_domain(d, x64):
    rng = np.random.default_rng(14)
    p = some_normal(rng, d)
    value, grad = mvn(*p, *p)
    assert value == 0
    for g in grad:
        np.testing.assert_array_equal(g, 0)
    for bad in (-p[1], 0 * p[1], np.nan * p[1]):
        value, grad = mvn(*p, p[0], bad)
        assert np.isnan(value)
        assert all(np.isnan(g).all() for g in grad)
        assert np.isnan(mvn_point(*p, p[0], bad, 0.3)[1]).all()
    with pytest.raises(ValueError, match=r"fisher_rao_mvn: the shapes are .*jax\.vmap"):
        fisher_rao_mvn(np.zeros((2, d)), p[1], p[0], p[1])


def test_mvn_in_float32_and_in_batches():
    rng = np.random.default_rng(15)
    laws = [(some_normal(rng, 2), some_normal(rng, 2)) for _ in range(4)]
    batch = [np.stack(x).astype(np.float32) for x in zip(*((*p, *q) for p, q in laws), strict=True)]
    found = jax.jit(jax.vmap(fisher_rao_mvn))(*batch)
    assert found.dtype == np.float32
    with jax.enable_x64(True):
        want = [float(mvn(*(np.float64(x[i]) for x in batch))[0]) for i in range(4)]
    np.testing.assert_allclose(found, want, rtol=3e-6)


@pytest.mark.slow
def test_second_derivatives(x64):
    """Hessians, and derivatives of points of a geodesic, through the equations that were solved."""
    rng = np.random.default_rng(16)
    p, q = some_normal(rng, 2), some_normal(rng, 2)
    moves = [
        rng.normal(size=2),
        some_covariance(rng, 2),
        rng.normal(size=2),
        some_covariance(rng, 2),
    ]
    a, b, da, db = rng.uniform(0.5, 4, (4, 3))

    def law(s):
        return [x + s * m for x, m in zip((*p, *q), moves, strict=True)]

    cases = [
        lambda s: fisher_rao_mvn(*law(s)),
        lambda s: fisher_rao_dirichlet(a + s * da, b + s * db),
        lambda s: fisher_rao_gamma(a[0] + s * da[0], a[1], b[0], b[1] + s * db[1]),
    ]
    h = 1e-4
    for f in cases:
        slope, bend = jax.jit(jax.grad(f)), jax.jit(jax.grad(jax.grad(f)))
        np.testing.assert_allclose(bend(0.0), (slope(h) - slope(-h)) / (2 * h), rtol=1e-6)
    path = jax.jit(lambda s: geodesic_mvn(*law(s), 0.3))
    for found, up, down in zip(jax.jit(jax.jacfwd(path))(0.0), path(h), path(-h), strict=True):
        np.testing.assert_allclose(found, (up - down) / (2 * h), atol=1e-6)


# --- Dirichlet and gamma laws ----------------------------------------------------------------

dirichlet = jax.jit(jax.value_and_grad(fisher_rao_dirichlet, argnums=(0, 1)))
gamma = jax.jit(jax.value_and_grad(lambda p, q: fisher_rao_gamma(*p, *q), argnums=(0, 1)))


def carried(acceleration, x, v, steps):
    """ẍ = a(x, ẋ) to t = 1: Gragg's midpoint rule, extrapolated to order 16."""
    y = [*x, *v]
    n, order = len(x), 8

    def field(y):
        return [*y[n:], *acceleration(y[:n], y[n:])]

    def moved(y, dy, h):
        return [a + h * b for a, b in zip(y, dy, strict=True)]

    for _ in range(steps):
        first, rows = field(y), []
        for k in range(1, order + 1):
            h = mp.mpf(1) / steps / (2 * k)
            last, now = y, moved(y, first, h)
            for _ in range(2 * k - 1):
                last, now = now, moved(last, field(now), 2 * h)
            now = [(a + b) / 2 for a, b in zip(now, moved(last, field(now), h), strict=True)]
            row = [now]
            for j in range(1, k):
                ratio = (mp.mpf(k) / (k - j)) ** 2 - 1
                row.append(
                    [a + (a - b) / ratio for a, b in zip(row[-1], rows[-1][j - 1], strict=True)]
                )
            rows.append(row)
        y = rows[-1][-1]
    return y[:n], y[n:]


def dirichlet_metric(x):
    alpha = [mp.exp(t) for t in x]
    last = mp.psi(1, mp.fsum(alpha))
    return mp.matrix(
        [
            [a * b * ((mp.psi(1, a) if i == j else 0) - last) for j, b in enumerate(alpha)]
            for i, a in enumerate(alpha)
        ]
    )


def dirichlet_acceleration(x, v):
    """The textbook's: Gα̈ = −½ψ₂ terms in α, then by the logarithm."""
    alpha = [mp.exp(t) for t in x]
    total, w = mp.fsum(alpha), [a * t for a, t in zip(alpha, v, strict=True)]
    n, last = len(alpha), mp.psi(1, total)
    g = mp.matrix(n) - last * mp.ones(n)
    for i, a in enumerate(alpha):
        g[i, i] += mp.psi(1, a)
    whole = mp.psi(2, total) * mp.fsum(w) ** 2
    side = mp.matrix([-(mp.psi(2, a) * t * t - whole) / 2 for a, t in zip(alpha, w, strict=True)])
    bent = mp.lu_solve(g, side)
    return [bent[i] / alpha[i] - v[i] ** 2 for i in range(n)]


def gamma_metric(x):
    alpha = mp.exp(x[0])
    return mp.matrix([[alpha**2 * mp.psi(1, alpha) - alpha, 0], [0, alpha]])


def gamma_acceleration(x, v):
    alpha = mp.exp(x[0])
    one, two = mp.psi(1, alpha), mp.psi(2, alpha)
    a, slope = alpha**2 * one - alpha, 2 * alpha**2 * one + alpha**3 * two - alpha
    return [(alpha * v[1] ** 2 - slope * v[0] ** 2) / (2 * a), -v[0] * v[1]]


def exact_arc(metric, acceleration, x, y, found, slope, steps):
    """The distance, and its slope at y; from the distance and its slope at x that were found."""
    g = metric(x)
    v = -found * mp.lu_solve(g, mp.matrix(slope))
    at, v_at = carried(acceleration, x, list(v), steps)
    length = mp.sqrt((v.T * g * v)[0])
    slope = metric(at) * mp.matrix(v_at) / length
    miss = mp.matrix([a - b for a, b in zip(y, at, strict=True)])
    return length + (slope.T * miss)[0], slope


def exact_dirichlet(a, b, steps=3):
    found, grad = dirichlet(a, b)
    with mp.workdps(30):
        p, q = exact(a), exact(b)
        x, y = ([mp.log(t) for t in z] for z in (p, q))
        slope = [s * t for s, t in zip(exact(grad[0]), p, strict=True)]
        value, slope = exact_arc(
            dirichlet_metric, dirichlet_acceleration, x, y, mp.mpf(float(found)), slope, steps
        )
        return value, np.array([float(s / t) for s, t in zip(slope, q, strict=True)])


def exact_gamma(p, q, steps=4):
    found, grad = gamma(p, q)
    with mp.workdps(30):
        (a, r), (b, s), (by_shape, by_rate) = exact(p), exact(q), exact(grad[0])
        x, y = [mp.log(a), mp.log(a / r)], [mp.log(b), mp.log(b / s)]
        slope = [a * by_shape + r * by_rate, -r * by_rate]
        value, slope = exact_arc(
            gamma_metric, gamma_acceleration, x, y, mp.mpf(float(found)), slope, steps
        )
        return value, np.array([float((slope[0] + slope[1]) / b), float(-slope[1] / s)])


DIRICHLETS = {
    "mild": ([0.7, 3.0, 2.0], [2.0, 0.4, 5.0]),
    "one leads": ([20.0, 0.5, 0.1], [0.2, 0.3, 4.0]),
    "near": ([0.7, 3.0, 2.0], [0.7 + 1e-9, 3.0 - 2e-9, 2.0 + 1e-9]),
    "large": ([300.0, 500.0, 200.0], [290.0, 480.0, 260.0]),
    "small": ([1e-3, 2e-3, 5e-4], [2e-3, 1e-3, 3e-3]),
}
# What rounding α does to the distance, along a common factor of large ones above all.
BLUR = {"large": 1e-12}


@pytest.mark.parametrize("name", DIRICHLETS)
def test_dirichlet_against_thirty_digits(name, x64):
    a, b = (np.array(x) for x in DIRICHLETS[name])
    value, grad = dirichlet(a, b)
    want, slope = exact_dirichlet(a, b, steps=10 if name == "one leads" else 3)
    assert abs(mp.mpf(float(value)) / want - 1) <= BLUR.get(name, 1e-13)
    np.testing.assert_allclose(grad[1], slope, atol=1e-10 * np.abs(slope).max())
    assert dirichlet(b, a)[0] == value
    np.testing.assert_array_equal(dirichlet(b, a)[1][0], grad[1])
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(dirichlet(a[order], b[order])[0], value, rtol=BLUR.get(name, 1e-13))


GAMMAS = {
    "mild": ([1.0, 1.0], [2.0, 1.5]),
    "there and back": ([2.0, 1.0], [2.0, 30.0]),
    "near": ([5.0, 0.3], [5.0 + 1e-9, 0.3 + 1e-9]),
    "small and large": ([0.05, 1.0], [60.0, 2.0]),
}


@pytest.mark.parametrize("name", GAMMAS)
def test_gamma_against_thirty_digits(name, x64):
    p, q = (np.array(x) for x in GAMMAS[name])
    value, grad = gamma(p, q)
    want, slope = exact_gamma(p, q, steps=12 if name == "small and large" else 4)
    assert abs(mp.mpf(float(value)) / want - 1) <= 1e-13
    np.testing.assert_allclose(grad[1], slope, atol=1e-10 * np.abs(slope).max())
    assert gamma(q, p)[0] == value
    units = np.array([1.0, 16.0])  # of the rate
    np.testing.assert_allclose(gamma(p * units, q * units)[0], value, rtol=8 * EPS)


def test_far_dirichlet_laws(x64):
    """Where the first search fails the second does not: dαᵀGdα agrees with the length at both ends."""
    for a, b in (([100.0, 0.01, 0.01], [0.01, 0.01, 100.0]), ([1e4, 1.0, 1.0], [1.0, 1.0, 1e4])):
        _, grad = dirichlet(np.array(a), np.array(b))
        for law, slope in zip((a, b), grad, strict=True):  # ∂d is of length 1 in G⁻¹
            with mp.workdps(30):
                by_log = mp.matrix([s * t for s, t in zip(exact(slope), exact(law), strict=True)])
                g = dirichlet_metric([mp.log(t) for t in exact(law)])
                size = (by_log.T * mp.lu_solve(g, by_log))[0]
            np.testing.assert_allclose(float(size), 1, rtol=1e-9)


def test_the_laws_of_one_shape_are_a_scale_family_only_at_first(x64):
    """Near, √α|log| of the rates; far, the path through other shapes is shorter."""
    for ratio in (1 + 1e-6, 100.0):
        straight = fisher_rao_scale(1.0, ratio, information=3.0)
        found = gamma(np.array([3.0, 1.0]), np.array([3.0, ratio]))[0]
        assert found <= straight
        assert (1 - found / straight < 1e-11) == (ratio < 2)


def test_triangles(x64):
    rng = np.random.default_rng(17)
    for _ in range(6):
        a, b, c = 10 ** rng.uniform(-1, 1.5, (3, 3))
        sides = [float(dirichlet(x, y)[0]) for x, y in ((a, b), (b, c), (a, c))]
        assert sides[2] <= (sides[0] + sides[1]) * (1 + 1e-12)
        sides = [float(gamma(x[:2], y[:2])[0]) for x, y in ((a, b), (b, c), (a, c))]
        assert sides[2] <= (sides[0] + sides[1]) * (1 + 1e-12)


def test_dirichlet_and_gamma_at_equality_and_beyond_the_domain(x64):
    for f, p in ((dirichlet, np.array([0.3, 4.0, 2.0])), (gamma, np.array([2.0, 0.1]))):
        value, grad = f(p, p)
        assert value == 0
        np.testing.assert_array_equal(grad, 0)
        for bad in (-1.0, 0.0, np.nan, np.inf):
            q = p.copy()
            q[0] = bad
            value, grad = f(p, q)
            assert np.isnan(value)
            assert np.isnan(np.asarray(grad[1])).all()
    with pytest.raises(ValueError, match=r"fisher_rao_dirichlet: the shapes .*k at least 2"):
        fisher_rao_dirichlet(np.ones(1), np.ones(1))


@pytest.mark.slow
def test_beta_and_float32():
    """The truths were computed as above, with 30 digits."""
    p, q = np.float32([0.75, 3.0]), np.float32([2.0, 0.5])
    for f, want in ((fisher_rao_beta, 2.38238349403777), (fisher_rao_gamma, 2.79512988887927)):
        found = jax.jit(f)(*p, *q)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, want, rtol=1e-5)
