"""What potentials made of potentials know. Their numbers are held by test_potentials.py."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat.geometry.algebra import AffineImage, Dual, Product, Scaled, Sum, dual
from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.legendre import conjugate, dual_point, to_theta
from dualflat.geometry.operators import Dense, Diagonal, DiagonalMinusRankOne
from dualflat.geometry.potential import knowledge
from dualflat.geometry.potentials.entropies import Burg, NegativeEntropy
from dualflat.geometry.potentials.logistic import LogCosh, Softplus
from dualflat.geometry.potentials.simplex import SimplexEntropy
from dualflat.geometry.solve import Status

ASKED = (
    "in_dual_domain",
    "starting_point",
    "guess",
    "to_theta",
    "conjugate",
    "hessian",
    "divergence",
    "gap",
)


def bare(theta):
    return jnp.logaddexp(0.0, theta).sum()


def known(psi):
    return {name for name in ASKED if knowledge(psi, name) is not None}


SQUARE, TALL = np.array([[1.0, 0.5], [0.0, 2.0]]), np.array([[1.0], [0.5]])
ALWAYS_OF_A_PRODUCT = {"guess", "to_theta", "conjugate", "hessian"}
WHAT_IS_KNOWN = {
    "affine of a function": (AffineImage(bare, SQUARE), set()),
    "affine, square": (AffineImage(Burg(2), SQUARE), set(ASKED) - {"guess", "divergence"}),
    "affine, tall": (AffineImage(Burg(2), TALL), {"starting_point", "hessian"}),
    "sum": (Sum((Burg(2), NegativeEntropy(2))), {"starting_point", "hessian", "divergence"}),
    "sum with a function": (Sum((Burg(2), bare)), set()),
    "product": (
        Product((Burg(2), LogCosh(1))),
        ALWAYS_OF_A_PRODUCT | {"in_dual_domain", "divergence", "gap"},
    ),
    "product with a function": (Product((Burg(2), bare), (2, 1)), ALWAYS_OF_A_PRODUCT),
    "scaled": (Scaled(Burg(2), 2.0), set(ASKED) - {"guess"}),
    "scaled function": (Scaled(bare, 2.0), set()),
    "dual": (Dual(Burg(2)), set(ASKED)),
    "dual of a function": (
        Dual(bare),
        {"in_dual_domain", "guess", "to_theta", "conjugate", "hessian"},
    ),
    "sum in a product": (
        Product((Sum((Burg(2), Burg(2))), LogCosh(1))),
        ALWAYS_OF_A_PRODUCT | {"divergence"},
    ),
}


@pytest.mark.parametrize("name", WHAT_IS_KNOWN)
def test_a_composite_knows_what_its_parts_know_and_no_more(name):
    psi, expected = WHAT_IS_KNOWN[name]
    assert known(psi) == expected


def test_what_is_not_known_says_why():
    with pytest.raises(
        AttributeError, match="Scaled has no to_theta here: a part of it has no to_"
    ):
        Scaled(bare, 2.0).to_theta  # noqa: B018
    with pytest.raises(AttributeError, match="its matrix is not square"):
        AffineImage(Burg(2), TALL).to_theta  # noqa: B018
    assert knowledge(Scaled(bare, 2.0), "dim") is None


def test_a_sum_keeps_the_structure_that_it_can(x64):
    theta = jnp.array([0.3, 0.4, 0.2])
    both = Sum((NegativeEntropy(3), Scaled(Burg(3), 0.5))).hessian(theta)
    assert isinstance(both, Diagonal)
    np.testing.assert_allclose(both.entries, 1 / theta + 0.5 / theta**2, rtol=1e-15)

    d, u = jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 0.5, -1.0])
    for s in (jnp.array(0.5), jnp.array(-0.5)):
        ranked = DiagonalMinusRankOne(d, u, s, 1 - s * (u**2 / d).sum())
        for parts in ((ranked, both), (both, ranked)):
            mixed = Sum(tuple(Fixed(g) for g in parts)).hessian(theta)
            assert isinstance(mixed, DiagonalMinusRankOne)
            dense = ranked.dense() + both.dense()
            np.testing.assert_allclose(mixed.dense(), dense, rtol=1e-15)
            np.testing.assert_allclose(mixed.logdet(), jnp.linalg.slogdet(dense)[1], rtol=1e-13)
    assert isinstance(Sum((Fixed(ranked), Fixed(ranked))).hessian(theta), Dense)


@jax.tree_util.register_static
class Fixed:
    """No potential at all, but it knows a metric."""

    def __init__(self, g):
        self.g = g

    def hessian(self, theta):
        return self.g


def test_parameters_are_differentiated_through_every_layer(x64):
    """ψ_a(θ) = aψ(Aθ): φ_a(η) = aφ_ψ(A⁻ᵀη/a), so ∂φ/∂a = −ψ(Aθ) and ∂φ/∂A = −aη_ψθᵀ at θ(η)."""
    eta = jnp.array([0.3, 0.8])

    @jax.jit
    @jax.grad
    def slopes(parameters):
        factor, matrix = parameters
        return conjugate(Scaled(AffineImage(Softplus(2), matrix), factor), eta)

    factor, matrix = 1.5, jnp.asarray(SQUARE)
    along_factor, along_matrix = slopes((factor, matrix))
    theta = to_theta(Scaled(AffineImage(Softplus(2), matrix), factor), eta)
    image = matrix @ theta
    np.testing.assert_allclose(along_factor, -Softplus(2)(image), rtol=1e-13)
    covector = -factor * Softplus(2).to_eta(image)
    np.testing.assert_allclose(along_matrix, covector[:, None] * theta[None, :], rtol=1e-12)


def test_an_impossible_factor_is_flagged(x64):
    with pytest.raises(ValueError, match=r"factor is -1\.0\. Wanted a positive number"):
        Scaled(Burg(2), -1.0)
    theta = jnp.array([1.0, 2.0])

    @jax.jit
    def answers(factor):
        hidden = Scaled(Burg(2), factor)
        value, grad = jax.value_and_grad(hidden)(theta)
        numbers = value, grad, hidden.to_theta(-theta), bregman(hidden, theta, 2 * theta)
        return hidden.in_domain(theta), numbers

    inside, numbers = answers(2.0)
    assert inside
    assert all(np.isfinite(x).all() for x in numbers)
    for factor in (-1.0, 0.0, np.nan):
        inside, numbers = answers(factor)
        assert not inside
        assert all(np.isnan(x).all() for x in numbers)


def test_the_dual_turns_everything_round(x64):
    psi, theta, base = NegativeEntropy(2), jnp.array([0.5, 2.0]), jnp.array([1.0, 1.75])
    phi = dual(psi)
    assert dual(phi) is psi
    eta, eta_base = psi.to_eta(theta), psi.to_eta(base)
    # D_φ(η, η′) = D_ψ(θ′, θ), also for points so close that a subtraction would lose them
    near = eta * (1 + 1e-9)
    close = near - eta  # exactly
    for first, second, truth in (
        (eta_base, eta, bregman(psi, theta, base)),
        (near, eta, (theta * (close**2 / 2 + close**3 / 6)).sum()),
    ):
        np.testing.assert_allclose(bregman(phi, first, second), truth, rtol=1e-13)
    g = psi.hessian(theta).dense()
    np.testing.assert_allclose(phi.hessian(eta).dense() @ g, np.eye(2), atol=1e-15)
    found = dual_point(phi, theta)
    np.testing.assert_allclose(found.checked(), eta, rtol=1e-15, atol=1e-15)
    assert found.steps <= 1  # it begins where it ends


def test_an_odd_block_is_searched_alone(x64):
    """A block out of reach is NaN; the others keep their closed forms."""
    psi = Product((Burg(1), bare), (1, 2))
    found = to_theta(psi, jnp.array([-0.5, 0.5, 1.5]))
    np.testing.assert_array_equal(np.isnan(found), [False, True, True])
    assert found[0] == 2


def test_a_sum_begins_where_every_part_is_defined(x64):
    """Burg's own start 1 is outside the second part's domain, whose start 0.5 is inside both."""
    half = AffineImage(Burg(1), -jnp.eye(1), 0.75)  # −log(0.75 − θ), begins at −0.25
    psi = Sum((Burg(1), half, Begins(0.5)))
    assert psi.starting_point(jnp.float64) == 0.5
    found = dual_point(psi, jnp.zeros(1))
    np.testing.assert_allclose(found.checked(), [0.375], rtol=1e-14)
    nowhere = Sum((Burg(1), AffineImage(Burg(1), -jnp.eye(1), -1.0)))
    assert dual_point(nowhere, jnp.zeros(1)).status == Status.NONFINITE


@jax.tree_util.register_static
class Begins:
    def __init__(self, start):
        self.start = start

    def __call__(self, theta):
        return jnp.zeros((), theta.dtype)

    def starting_point(self, dtype):
        return jnp.full(1, self.start, dtype)


def test_shapes_are_refused_with_words():
    with pytest.raises(ValueError, match=r"sizes are None for parts of dimensions \(2, None\)"):
        Product((Burg(2), bare))
    with pytest.raises(ValueError, match=r"sizes are \(3, 1\)"):
        Product((Burg(2), bare), (3, 1))
    with pytest.raises(ValueError, match=r"matrix has shape \(1, 2\). Wanted \(m, n\)"):
        AffineImage(bare, TALL.T)(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"Wanted \(3, n\)"):
        AffineImage(Burg(3), SQUARE)(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"dimensions \[2, 3\]"):
        Sum((Burg(2), Burg(3))).dim  # noqa: B018


@pytest.mark.parametrize("factor", [-1.0, 0.0, np.nan, np.inf, np.float32(-2), jnp.asarray(-1.0)])
def test_a_factor_that_is_known_to_be_impossible_is_refused(factor):
    with pytest.raises(ValueError, match="Wanted a positive number"):
        Scaled(Burg(2), factor)


def test_what_stands_for_a_factor_in_a_tree_is_let_through():
    assert Scaled(Burg(2), jax.ShapeDtypeStruct((), jnp.float32)).dim == 2


def test_a_potential_without_a_hash_is_refused_with_words():
    @dataclasses.dataclass
    class Mutable:
        a: float

        def __call__(self, theta):
            return self.a * theta @ theta

    with pytest.raises(TypeError, match="Mutable, which has no hash"):
        bregman(Mutable(1.0), jnp.ones(2), jnp.zeros(2))


@pytest.mark.parametrize("distance", [1e-4, 1e-2, 0.3, 3.0])
def test_the_dual_of_a_family_measures_as_the_named_dual_does(x64, distance):
    """Probabilities down to 1e-12, from Dual(Categorical) and from SimplexEntropy."""
    rng = np.random.default_rng(3)
    logits = 4 * rng.normal(size=(300, 4))
    moved = logits + distance * rng.normal(size=logits.shape)
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (logits, moved))
    by_dual, by_name = (
        jax.jit(jax.vmap(lambda a, b, psi=psi: bregman(psi, a, b)))(p[:, 1:], q[:, 1:])
        for psi in (Dual(Categorical(3)), SimplexEntropy(3))
    )
    np.testing.assert_allclose(by_dual, by_name, rtol=1e-11)
