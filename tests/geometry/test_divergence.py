import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import _remainder
from dualflat.geometry.divergence import bregman, canonical, fenchel_young, jeffreys
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.legendre import to_eta
from dualflat.geometry.metric import metric
from tests.geometry.truth import DISTANCES, EXACT, HARD, STEPS, away

every_exact = pytest.mark.parametrize("name", EXACT)


def errors(name, dtype, compute):
    exact = EXACT[name]
    thetas, base = away(exact, DISTANCES, dtype)
    values = np.asarray(jax.jit(jax.vmap(lambda t: compute(exact.psi, t, base)))(thetas))
    truth = [exact.bregman(theta, base) for theta in thetas]
    assert values.dtype == dtype
    assert (values >= 0).all()
    return np.array(
        [
            float(abs(mp.mpf(float(v)) - t) / t) if t else float(v)
            for v, t in zip(values, truth, strict=True)
        ]
    )


def textbook(psi, theta, base):
    value = psi(theta) - psi(base) - jax.grad(psi)(base) @ (theta - base)
    return jnp.maximum(value, 0.0)


@every_exact
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_bregman_keeps_its_digits_at_every_distance(name, dtype, x64):
    """Relative distances 1e-8 … 10 against 60 digits; see benchmarks/bregman.py for the figures."""
    bound = {np.float32: 1e-6, np.float64: 2e-13}[dtype]  # found: 4e-7 and 4e-14
    found = errors(name, dtype, bregman)
    assert found.max() <= bound, dict(zip(DISTANCES, found, strict=True))


def test_the_textbook_formula_would_fail_that(x64):
    assert errors("categorical", np.float64, textbook).max() > 0.1
    assert errors("categorical", np.float32, textbook).max() > 0.1


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_bregman_keeps_its_digits_where_both_forms_do_badly(name, dtype, x64):
    """A ψ of size 1e4 with a bend of size 1, and scales far apart: few nodes and the book fail."""
    exact = HARD[name]
    base = exact.base.astype(dtype)
    thetas = np.stack([base + (s * exact.direction).astype(dtype) for s in STEPS])
    truth = [exact.bregman(theta, base) for theta in thetas]

    def worst(compute):
        values = np.asarray(jax.jit(jax.vmap(lambda t: compute(exact.psi, t, base)))(thetas))
        assert (values >= 0).all()
        pairs = [(v, t) for v, t in zip(values, truth, strict=True) if t]
        return max(float(abs(mp.mpf(float(v)) - t) / t) for v, t in pairs)

    def few(psi, theta, base):
        return _remainder.quotient(psi, base, theta, theta - base, refine=False)[0]

    if dtype == np.float64:
        assert worst(bregman) <= 1e-12  # found: 2e-13
        if name == "log-sum-exp at 1e4":
            assert worst(few) > 1e-12
    else:
        # At 1e4 float32 has a spacing of 1e-3: the points between, where ψ bends, are rounded to it.
        spacing = float(np.spacing(np.abs(base).max())) if name == "log-sum-exp at 1e4" else 0.0
        assert worst(bregman) <= 1e-5 + 0.2 * spacing  # found: 7e-5 and 1e-6


@every_exact
def test_derivatives_at_coincidence(name, x64):
    """∂D = 0 and ∂²D = (G, −G; −G, G) at θ = θ′: the metric is what a divergence leaves behind."""
    exact = EXACT[name]
    psi, base = exact.psi, jnp.asarray(exact.base)

    @jax.jit
    def derivatives(point):
        def both(pair):
            return bregman(psi, *jnp.split(pair, 2))

        pair = jnp.concatenate([point, point])
        return both(pair), jax.grad(both)(pair), jax.hessian(both)(pair), metric(psi, point)

    value, grad, hessian, g = derivatives(base)
    assert value == 0
    np.testing.assert_array_equal(grad, 0.0)
    tolerance = 1e-14 * float(jnp.abs(g).max())
    np.testing.assert_allclose(hessian, jnp.block([[g, -g], [-g, g]]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["categorical", "user-made", "burg at many scales"])
def test_third_derivatives_at_coincidence(name, x64):
    """∂ᵢ∂ⱼ∂′ₖD = 0 and ∂ᵢ∂′ⱼ∂′ₖD = −∂ᵢ∂ⱼ∂ₖψ at θ = θ′: Γ = 0 and Γ* = ∂³ψ, as Eguchi reads them."""
    exact = {**EXACT, **HARD}[name]
    psi, point = exact.psi, jnp.asarray(exact.base)
    n = point.size

    def d(theta, base):
        return bregman(psi, theta, base)

    @jax.jit
    def thirds(p):
        forwards = jax.jacfwd(jax.jacfwd(jax.jacfwd(d, 0), 0), 1)(p, p)
        backwards = jax.jacrev(jax.jacrev(jax.jacrev(d, 0), 1), 1)(p, p)
        mixed = jax.jacfwd(jax.jacrev(jax.grad(d, 1), 1), 0)(p, p)  # [base, base, θ]
        pure = jax.jacfwd(jax.hessian(d, 0), 0)(p, p)
        return forwards, backwards, mixed, pure

    forwards, backwards, mixed, pure = thirds(point)
    where = [mp.mpf(float(x)) for x in exact.base]
    truth = np.zeros((n, n, n))
    for index in np.ndindex(n, n, n):
        orders = tuple(index.count(i) for i in range(n))
        # With 60 digits a difference of 20 is a derivative of 20.
        truth[index] = mp.diff(lambda *t: exact.value(t), tuple(where), orders)
    size = np.abs(np.asarray(exact.base))
    scale = 1 / (size[:, None, None] * size[:, None] * size)  # of ∂³ψ where scales are far apart
    for found, wanted in (
        (forwards, np.zeros_like(truth)),
        (backwards, -truth),
        (mixed, -truth),
        (pure, truth),
    ):
        np.testing.assert_array_less(np.abs(found - wanted), 2e-13 * (np.abs(truth) + scale))


@every_exact
def test_gradient_keeps_its_digits(name, x64):
    """∂D/∂θ = ∇ψ(θ) − ∇ψ(θ′), entry by entry, where the difference itself has lost them."""
    exact = EXACT[name]
    thetas, base = away(exact, DISTANCES, np.float64)
    found = np.asarray(jax.jit(jax.vmap(jax.grad(lambda t: bregman(exact.psi, t, base))))(thetas))
    there = exact.gradient([mp.mpf(float(x)) for x in base])
    for theta, row in zip(thetas, found, strict=True):
        here = exact.gradient([mp.mpf(float(x)) for x in theta])
        truth = [a - b for a, b in zip(here, there, strict=True)]
        size = max(abs(t) for t in truth)
        assert (
            max(abs(mp.mpf(float(v)) - t) for v, t in zip(row, truth, strict=True)) < 1e-13 * size
        )


@every_exact
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_jeffreys_is_the_product_without_its_cancellation(name, dtype, x64):
    """⟨Δθ, Δη⟩ at relative distances 1e-8 … 10, the same both ways; the product itself fails."""
    exact = EXACT[name]
    thetas, base = away(exact, DISTANCES, dtype)

    def product(psi, theta, other):
        return (theta - other) @ (to_eta(psi, theta) - to_eta(psi, other))

    @jax.jit
    @jax.vmap
    def run(theta):
        both = jeffreys(exact.psi, theta, base), jeffreys(exact.psi, base, theta)
        return *both, product(exact.psi, theta, base)

    there, back, naive = map(np.asarray, run(thetas))
    np.testing.assert_array_equal(there, back)
    assert there.dtype == dtype
    truth = [exact.bregman(t, base) + exact.bregman(base, t) for t in thetas]
    errors = [
        [float(abs(mp.mpf(float(v)) - t) / t) for v, t in zip(values, truth, strict=True) if t]
        for values in (there, naive)
    ]
    assert max(errors[0]) <= {np.float32: 1e-6, np.float64: 2e-13}[dtype]
    assert max(errors[1]) > {np.float32: 1e-2, np.float64: 1e-10}[dtype]


def test_parameters_of_a_closure_are_differentiated(x64):
    """D is linear in ψ, so ∂D[aψ]/∂a = D[ψ], also where it is 1e-13 and ψ is 1."""
    theta, base = jnp.array([0.3, 0.1]), jnp.array([0.3, 0.1 + 1e-7])

    def user(t):
        return jnp.logaddexp(0.0, t).sum()

    slope = jax.jit(jax.grad(lambda a: bregman(lambda t: a * user(t), theta, base)))(1.5)
    np.testing.assert_allclose(slope, bregman(user, theta, base), rtol=1e-12)


def test_shapes_and_dtypes_are_refused_with_words():
    with pytest.raises(ValueError, match=r"theta has shape \(3,\). Wanted \(2,\)"):
        bregman(Categorical(2), jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match="shapes differ"):
        bregman(lambda t: t @ t, jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        bregman(Categorical(2), jnp.zeros((5, 2)), jnp.zeros((5, 2)))
    with pytest.raises(ValueError, match="Coordinates are real"):
        bregman(Categorical(2), jnp.zeros(2, complex), jnp.zeros(2))


def test_a_point_outside_the_domain_is_nan_and_leaves_the_others_alone(x64):
    psi = Gaussian(2)
    good = jnp.asarray(EXACT["gaussian"].base)
    indefinite = jnp.array([0.0, 0.0, -0.5, -2.0, -0.5])
    negative = jnp.array([0.0, 0.0, 0.5, 0.0, 0.5])  # det > 0
    rows = jnp.stack([good, indefinite, good * 1.5, negative])
    run = jax.jit(jax.vmap(jax.value_and_grad(lambda t: bregman(psi, t, good))))
    value, grad = run(rows)
    alone, alone_grad = run(jnp.stack([good, good, good * 1.5, good]))
    assert np.isnan(value[jnp.array([1, 3])]).all()
    assert np.isnan(grad[jnp.array([1, 3])]).all()
    np.testing.assert_array_equal(value[::2], alone[::2])
    np.testing.assert_array_equal(grad[::2], alone_grad[::2])


def test_fenchel_young_reaches_the_vertices(x64):
    """At a vertex the gap is −log p of the outcome, to the last digits also for p = 1 − 1e-22."""
    psi, theta = Categorical(3), jnp.array([50.0, 0.0, -3.0])
    vertices = jnp.concatenate([jnp.zeros((1, 3)), jnp.eye(3)])
    gaps = jax.vmap(lambda eta: fenchel_young(psi, theta, eta))(vertices)
    odds = [mp.exp(t) for t in (0, 50, 0, -3)]
    truth = [float(mp.log1p((sum(odds) - o) / o)) for o in odds]
    np.testing.assert_allclose(gaps, truth, rtol=1e-14)
    grad = jax.grad(lambda t: fenchel_young(psi, t, vertices[1]))(theta)
    assert np.isfinite(grad).all()
    assert np.isnan(jax.grad(lambda eta: fenchel_young(psi, theta, eta))(vertices[1])).any()
    assert np.isnan(canonical(psi, theta, vertices[1]))  # a vertex is no point of the manifold


def test_fenchel_young_of_a_user_made_potential(x64):
    """θ(η) is searched, D(θ, θ(η)) is exact, and the gradient is ∇ψ(θ) − η."""
    exact = EXACT["user-made"]
    base, theta = jnp.asarray(exact.base), jnp.asarray(exact.base) * 1.1
    eta = jax.grad(exact.psi)(base)
    value, grad = jax.jit(
        jax.value_and_grad(lambda t, e: fenchel_young(exact.psi, t, e), argnums=(0, 1))
    )(theta, eta)
    np.testing.assert_allclose(value, float(exact.bregman(theta, base)), rtol=1e-13)
    np.testing.assert_allclose(grad[0], jax.grad(exact.psi)(theta) - eta, rtol=1e-13)
    np.testing.assert_allclose(grad[1], base - theta, rtol=1e-12)


def test_both_forms_are_used(x64):
    """The choice is real: near the base the remainder, far from it the book."""
    psi, base = EXACT["gaussian"].psi, jnp.asarray(EXACT["gaussian"].base)
    near = [
        bool(_remainder.quotient(psi, base, base * s, base * (s - 1))[1]) for s in (1 + 1e-6, 11.0)
    ]
    assert near == [True, False]


@pytest.mark.parametrize("sharpness", [30.0, 1e3, 1e5])
@pytest.mark.parametrize(("dtype", "allowed"), [(np.float32, 5e-5), (np.float64, 1e-12)])
def test_a_bend_between_the_nodes_is_not_missed(x64, sharpness, dtype, allowed):
    """ψ = ½|θ|² + Σ log(1 + exp kθᵢ)/k turns within 1/k; on both sides of it ψ is a parabola."""

    def psi(theta):
        return 0.5 * theta @ theta + jax.nn.softplus(sharpness * theta).sum() / sharpness

    rng = np.random.default_rng(11)
    theta, base = (rng.uniform(-2, 2, (2000, 2)).astype(dtype) for _ in range(2))
    found = jax.jit(jax.vmap(lambda t, b: bregman(psi, t, b)))(theta, base)
    assert found.dtype == dtype
    t, b = theta.astype(np.float64), base.astype(np.float64)
    rise = np.logaddexp(0, sharpness * t) - np.logaddexp(0, sharpness * b)
    slope = 0.5 * (1 + np.tanh(sharpness * b / 2))
    exact = (0.5 * (t - b) ** 2 + rise / sharpness - slope * (t - b)).sum(1)
    far = np.abs(t - b).max(1) > 0.1  # nearer, the formula above has lost digits itself
    np.testing.assert_allclose(np.asarray(found)[far], exact[far], rtol=allowed)


def test_what_lies_below_its_tangent_has_no_divergence():
    concave = bregman(lambda theta: -theta @ theta, jnp.ones(2), jnp.zeros(2))
    assert jnp.isnan(concave)
