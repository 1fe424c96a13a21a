"""Two classes with the same fields are two trees, also to what has been compiled for one of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from dualflat.geometry._tree import as_tree, compiled, register
from dualflat.geometry.connection import pull_back
from dualflat.geometry.divergence import bregman
from dualflat.geometry.metric import metric
from dualflat.geometry.potentials.logistic import LogCosh, Softplus


@dataclasses.dataclass(frozen=True)
class Bare:
    scale: jax.Array
    n: int = dataclasses.field(metadata={"static": True})


First, Second, Ours, Others = (type(name, (Bare,), {}) for name in ("A", "B", "C", "D"))
for jaxs in (First, Second):
    jax.tree_util.register_dataclass(jaxs)
for ours in (Ours, Others):
    register(ours)


def structure(cls):
    return jax.tree.structure(cls(1.0, 3))


def test_our_classes_are_told_apart():
    assert structure(Ours) != structure(Others)
    assert structure(Ours) == structure(Ours)
    assert jax.tree.structure(Softplus(3)) != jax.tree.structure(LogCosh(3))
    tree = Ours(jnp.ones(2), 3)
    assert jax.tree.map(lambda x: 2 * x, tree).n == 3
    ((path, _),) = jax.tree_util.tree_leaves_with_path(tree)
    assert jax.tree_util.keystr(path) == ".scale"


def test_jax_takes_one_class_for_the_other():
    """Why there is `register`: equal, with hashes that differ."""
    if structure(First) != structure(Second):
        pytest.skip("this JAX tells them apart: `register` and `compiled` can go")
    assert hash(structure(First)) != hash(structure(Second))


@pytest.mark.parametrize("one", [First, Ours])
def test_compiled_asks_for_the_class(one):
    """Of the compiler's own caches only the hash keeps these apart, which is no promise."""
    traced = []

    @compiled
    def name(tree):
        traced.append(type(tree))
        return tree.scale

    for cls in (one, one, {First: Second, Ours: Others}[one], one):
        name(cls(jnp.ones(2), 3))
    assert traced == [one, {First: Second, Ours: Others}[one]]


def test_programs_of_two_potentials_are_two():
    """LogCosh(θ) = Softplus(2θ) − θ − log 2; each asked again after the other."""
    theta, base = jnp.array([0.3, -1.0, 2.0]), jnp.zeros(3)
    for _ in range(3):
        found = bregman(LogCosh(3), theta, base)
        np.testing.assert_allclose(bregman(Softplus(3), 2 * theta, 2 * base), found, rtol=1e-6)
        assert abs(bregman(Softplus(3), theta, base) / found - 1) > 0.1


def test_functions_at_the_leaves_of_a_tree_are_no_obstacle():
    """∇²ψ of a plain function ψ, held by a `Partial`, in the chart x = y³: 9y⁴ eˣ on the diagonal."""
    held = Partial(metric, lambda theta: jnp.exp(theta).sum())
    y = jnp.array([0.5, 1.0])
    wanted = jnp.diag(9 * y**4 * jnp.exp(y**3))
    pulled = pull_back(held, lambda y: y**3)
    np.testing.assert_allclose(pulled(y), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda g, y: g(y))(pulled, y), wanted, rtol=1e-6)
    tree = Ours(jnp.ones(2), 3)
    assert as_tree(tree) is tree
