"""Every potential of the table against the same potential in 60 digits, in both precisions."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from dualflat.geometry import _numerics
from dualflat.geometry.divergence import bregman, fenchel_young
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.legendre import conjugate, dual_point, to_theta
from dualflat.geometry.metric import curvature, gradient, metric_operator
from dualflat.geometry.potentials.entropies import Burg, NegativeEntropy
from dualflat.geometry.potentials.norms import PNorm
from dualflat.geometry.potentials.simplex import SimplexEntropy
from tests.geometry.potentials_table import TABLE

COUNT = 3
every_entry = pytest.mark.parametrize("name", TABLE)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


def exact(x):
    return [mp.mpf(float(t)) for t in x]


def hessian(entry, theta):
    """∇²ψ from ∇ψ, by differences in twice the digits: right to more than any double holds."""
    n, step = len(theta), mp.mpf(10) ** -30
    columns = []
    with mp.workdps(2 * mp.mp.dps):
        for j in range(n):
            up, down = (
                entry.gradient([t + s * (i == j) for i, t in enumerate(theta)])
                for s in (step, -step)
            )
            columns.append([(a - b) / (2 * step) for a, b in zip(up, down, strict=True)])
    return mp.matrix(n, n) + mp.matrix(columns).T


def dual(entry, theta, eta):
    """The θ with ∇ψ(θ) = η, from one that is within rounding of it: two Newton steps."""
    g = hessian(entry, theta)
    for _ in range(2):
        residual = [e - h for e, h in zip(eta, entry.gradient(theta), strict=True)]
        theta = [t + s for t, s in zip(theta, mp.lu_solve(g, mp.matrix(residual)), strict=True)]
    return theta


def everything(psi, theta, base, eta, v):
    """What is to be compared, at one point."""
    g = metric_operator(psi, theta)
    sv = g.root(v)
    found = {
        "value": psi(theta),
        "eta": gradient(psi, theta),
        "theta": to_theta(psi, eta),
        "searched": dual_point(psi, eta).value,
        "conjugate": conjugate(psi, eta),
        "divergence": bregman(psi, theta, base),
        "gap": fenchel_young(psi, base, eta),
        "curvature": curvature(psi, theta, v),
        "apply": g.apply(v),
        "solve": g.solve(v),
        "diagonal": g.diagonal(),
        "dense": g.dense(),
        "logdet": g.logdet(),
        "root": sv @ g.solve(sv),
    }
    return found


def truth(entry, theta, base, eta, v):
    """The same in mpmath, each with the size that rounding errors are to be compared with."""
    g = hessian(entry, theta)
    inverse, n = mp.inverse(g), len(theta)
    slope, star = entry.gradient(theta), dual(entry, theta, eta)
    products = [t * e for t, e in zip(star, eta, strict=True)]

    def dot(a, b):
        return mp.fsum(x * y for x, y in zip(a, b, strict=True))

    def sizes(matrix, x):
        return [mp.fsum(abs(matrix[i, j] * x[j]) for j in range(n)) for i in range(n)]

    def bregman_exact(p, q):
        step = [a - b for a, b in zip(p, q, strict=True)]
        return entry.value(p) - entry.value(q) - dot(entry.gradient(q), step)

    phi = dot(star, eta) - entry.value(star)
    gap = bregman_exact(base, star)
    steps = [abs(e * (a - b)) for e, a, b in zip(eta, base, star, strict=True)]
    condition = max(sizes(g, [1] * n)) * max(sizes(inverse, [1] * n))
    applied, solved = list(g * mp.matrix(v)), list(inverse * mp.matrix(v))
    value_size = abs(entry.value(theta)) + mp.fsum(
        abs(t * e) for t, e in zip(theta, slope, strict=True)
    )
    theta_size = [a + abs(b) for a, b in zip(sizes(inverse, eta), star, strict=True)]
    return {
        "value": (entry.value(theta), value_size),
        "eta": (slope, [a + abs(b) for a, b in zip(sizes(g, theta), slope, strict=True)]),
        "theta": (star, theta_size),
        "searched": (star, [condition * max(theta_size)] * n),
        "conjugate": (phi, abs(phi) + mp.fsum(abs(x) for x in products)),
        "divergence": (d := bregman_exact(theta, base), condition * d),
        "gap": (gap, condition * gap + mp.fsum(steps)),
        "curvature": (dot(v, applied), condition * dot(v, applied)),
        "apply": (applied, [condition * max(abs(x) for x in applied)] * n),
        "solve": (solved, [condition * max(abs(x) for x in solved)] * n),
        "diagonal": ([g[i, i] for i in range(n)], [condition * g[i, i] for i in range(n)]),
        "dense": ([g[i, j] for i in range(n) for j in range(n)], [condition * mp.mnorm(g)] * n**2),
        "logdet": (mp.log(mp.det(g)), condition + abs(mp.log(mp.det(g)))),
        "root": (dot(v, v), condition * dot(v, v)),
    }


def worst(found, expected):
    """The largest |found − truth| over its size."""
    true, size = expected
    pairs = zip(
        np.ravel(found),
        np.ravel(np.asarray(true, dtype=object)),
        np.ravel(np.asarray(size, dtype=object)),
        strict=True,
    )
    return max(float(abs(mp.mpf(float(f)) - t) / s) if s else float(f != t) for f, t, s in pairs)


def points(entry, dtype):
    """θ, a base at distances from near to far, and a vector v."""
    rng = np.random.default_rng(20265)
    theta, other = (entry.draw(rng, COUNT).astype(dtype) for _ in range(2))
    shares = np.array([1e-4, 0.01, 1.0])[:, None]
    v = rng.normal(size=theta.shape).astype(dtype)
    return theta, (theta + shares * (other - theta)).astype(dtype), v


# What was found at worst is 6 ε times these sizes, and 15 ε for p-norms, whose powers XLA rounds.
BOUND = 64


@every_dtype
@every_entry
def test_everything_against_sixty_digits(name, dtype, x64):
    entry = TABLE[name]
    theta, base, v = points(entry, dtype)

    @jax.jit
    @jax.vmap
    def compute(theta, base, v):
        eta = gradient(entry.psi, theta)
        return eta, everything(entry.psi, theta, base, eta, v)

    eta, found = compute(theta, base, v)
    for k in range(COUNT):
        expected = truth(entry, *(exact(x[k]) for x in (theta, base, eta, v)))
        for what, values in found.items():
            assert values.dtype == dtype, what
            error = worst(values[k], expected[what])
            assert error <= BOUND * np.finfo(dtype).eps, (what, k, error)
        assert found["divergence"][k] >= 0
        assert found["gap"][k] >= 0


def exact_kl(x, y):
    return x * mp.log(x / y) - x + y if x else y


def exact_itakura_saito(x, y):
    return x / y - 1 - mp.log(x / y)


@every_dtype
def test_entropic_divergences_at_every_size_and_distance(dtype, x64):
    """Worst found: 4 ε, at sizes to 1e±28 or 1e±250 and distances from 1e-4 to 1e6 times the base."""
    rng, info = np.random.default_rng(20267), np.finfo(dtype)
    size = 28 if dtype == np.float32 else 250
    for low, high in ((-4, -1), (-0.62, -0.58), (-0.5, -0.1), (-0.1, 0.0), (0.0, 0.1), (0.1, 6)):
        base = (10.0 ** rng.uniform(-size, size, 100)).astype(dtype)
        u = 10.0 ** rng.uniform(low, high, 100)
        u = np.where((rng.random(100) < 0.5) & (u < 1), -u, u)
        theta = (base * (1 + u)).astype(dtype)
        bare = jnp.asarray(u.astype(dtype))
        for psi, exact_one in ((NegativeEntropy(1), exact_kl), (Burg(1), exact_itakura_saito)):
            each = jax.jit(jax.vmap(lambda t, b, psi=psi: bregman(psi, t, b)))
            found = each(jnp.asarray(theta)[:, None], jnp.asarray(base)[:, None])
            for f, t, b in zip(found, exact(theta), exact(base), strict=True):
                d = exact_one(t, b)
                if d > 100 * float(info.tiny):
                    assert abs(mp.mpf(float(f)) - d) <= 16 * float(info.eps) * d, (psi, t, b)
        for f, v in zip(jax.jit(_numerics.log1p_excess)(bare), exact(bare), strict=True):
            d = exact_kl(1 + v, mp.mpf(1))
            assert abs(mp.mpf(float(f)) - d) <= 16 * float(info.eps) * d, v


@every_dtype
def test_a_quotient_out_of_range_is_a_difference_of_logs(dtype, x64):
    """x/y over- or underflows, or y is 0 and only log y known; and the derivatives are theirs."""
    big = dtype(1e30 if dtype == np.float32 else 1e250)
    bound = 4 * np.finfo(dtype).eps
    points = [(big, 1 / big, None), (1 / big, big, None), (dtype(0.75), dtype(0), dtype(-1000.0))]
    for x, y, log_y in points:
        given = None if log_y is None else jnp.asarray(log_y)

        def kl(x, y, given=given):
            return _numerics.relative_entropy(x, y, log_y=given)

        value, slope = jax.jit(jax.value_and_grad(kl))(x, y)
        at, of = mp.mpf(float(x)), mp.mpf(float(y))
        log = mp.log(at) - (mp.log(of) if log_y is None else mp.mpf(float(log_y)))
        truth = at * log - at + of
        assert abs(mp.mpf(float(value)) - truth) <= bound * truth
        assert abs(mp.mpf(float(slope)) - log) <= bound * abs(log)
    assert _numerics.relative_entropy(dtype(0), dtype(0)) == 0
    assert _numerics.relative_entropy(dtype(0), big) == big
    assert jax.grad(_numerics.relative_entropy, argnums=1)(dtype(0), dtype(0.5)) == 1
    assert jax.grad(_numerics.relative_entropy, argnums=1)(dtype(0.5), dtype(0.5)) == 0
    for u in (-0.75, -0.5, 0.0, 0.5, 1.0, 3.0):
        slope = jax.grad(_numerics.log1p_excess)(dtype(u))
        np.testing.assert_allclose(slope, np.log1p(u), rtol=8 * np.finfo(dtype).eps)
        slope = jax.grad(_numerics.log_excess)(dtype(1 + u), dtype(1))
        np.testing.assert_allclose(slope, u / (1 + u), rtol=8 * np.finfo(dtype).eps)


def exact_p_norm(t, b, p):
    return abs(t) ** p / p + abs(b) ** p * (p - 1) / p - t * mp.sign(b) * abs(b) ** (p - 1)


@every_dtype
@pytest.mark.parametrize("p", [1 + 2.0**-20, 1.001, 1.5, 2.0, 4.0, 50.0])
def test_p_norms_at_every_distance_and_exponent(p, dtype, x64):
    """Worst found: 5 ε, with p − 1 down to 1e-6, at distances from 1e-3 to 1e4, both signs."""
    rng, info, p = np.random.default_rng(20268), np.finfo(dtype), dtype(p)
    size = float(5 / p if dtype == np.float32 else 50 / p)
    psi, power = PNorm(1, p), mp.mpf(float(p))
    each = jax.jit(jax.vmap(lambda t, b: bregman(psi, t, b)))
    for low, high in ((-3, -1), (-0.7, -0.3), (-0.3, 0), (0, 1), (1, 4)):
        base = (10.0 ** rng.uniform(-size, size, 60)).astype(dtype)
        base = base * np.where(rng.random(60) < 0.5, -1, 1)
        u = 10.0 ** rng.uniform(low, high, 60) * np.where(rng.random(60) < 0.5, -1, 1)
        base, theta = base.astype(dtype), (base * (1 + u)).astype(dtype)
        found = each(theta[:, None], base[:, None])
        for f, t, b in zip(found, exact(theta), exact(base), strict=True):
            d = exact_p_norm(t, b, power)
            if 100 * float(info.tiny) < d < float(info.max) / 100:
                assert abs(mp.mpf(float(f)) - d) <= 24 * float(info.eps) * d, (t, b)
    one = jnp.ones(1, dtype)
    assert bregman(psi, one, one) == 0
    slope = jax.grad(lambda t: psi.divergence(t, one))
    np.testing.assert_allclose(slope(0 * one), -1, rtol=4 * info.eps)
    for t in (0.25, 1.0, 1.5, 3.0):
        true = float(mp.mpf(t) ** (power - 1) - 1)
        np.testing.assert_allclose(slope(t * one), true, rtol=64 * info.eps / float(p - 1))


@pytest.mark.parametrize("kind", [Burg, Categorical, SimplexEntropy, lambda n: PNorm(n, 3.0)])
def test_a_size_is_an_integer(kind):
    assert kind(np.int64(2)).dim == kind(2).dim == 2
    assert kind(np.int64(2)) == kind(2)
    for wrong in (True, np.True_, 2.0, np.float64(2), "2", None, 0, -1, np.int64(0)):
        with pytest.raises(ValueError, match="Wanted an integer of at least 1"):
            kind(wrong)


def test_an_exponent_is_above_one():
    for wrong in (1, 1.0, 0.5, -2, np.inf, np.nan, np.float32(1), jnp.array(0.5), jnp.ones(2)):
        with pytest.raises(ValueError, match=r"PNorm: p is .* Wanted one finite number above 1"):
            PNorm(2, wrong)
    two = jnp.array([1.0, 2.0])
    for right in (2, 1.5, np.float32(3), jnp.array(2.5)):
        assert np.isfinite(PNorm(2, right)(two))

    def value(p):
        return PNorm(2, p)(two)

    # What is traced cannot be refused.
    np.testing.assert_array_equal(np.isnan(jax.jit(jax.vmap(value))(jnp.array([0.5, 3.0]))), [1, 0])
    assert np.isfinite(jax.grad(value)(3.0))
    tree = jax.tree.map(lambda _: None, PNorm(2, 3.0))
    assert tree.p is None
