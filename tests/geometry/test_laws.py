"""Every law for every family: one line here earns a family all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dualflat.geometry import laws
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.metric import metric
from tests.geometry.truth import user_made


def gaussian_points(rng, count):
    psi = Gaussian(2)
    roots = rng.normal(size=(count, 2, 2)) * 0.4 + np.eye(2)
    means = rng.normal(size=(count, 2))
    covariances = jnp.asarray(roots @ np.swapaxes(roots, 1, 2) + 0.2 * np.eye(2))
    return jax.vmap(psi.from_mean_covariance)(jnp.asarray(means), covariances)


def free_points(n):
    return lambda rng, count: jnp.asarray(rng.uniform(-2.5, 2.5, (count, n)))


FAMILIES = {
    "categorical": (Categorical(3), free_points(3)),
    "gaussian": (Gaussian(2), gaussian_points),
    "user-made": (user_made, free_points(2)),  # everything by search and autodiff
}
ONE_POINT = (
    laws.involution,
    laws.biorthogonality,
    laws.dual_metrics_are_inverse,
    laws.fenchel_young_equality,
)
TWO_POINTS = (laws.legendre_duality, laws.gap_is_divergence, laws.convexity)
THREE_POINTS = (laws.three_points, laws.pythagoras)
COUNT = 40


def residuals(psi, thetas):
    """The worst |residual| of each law over the points, and the conditions of their metrics."""

    def at(p, q, r):
        found = {law.__name__: law(psi, p) for law in ONE_POINT}
        found |= {law.__name__: law(psi, p, q) for law in TWO_POINTS}
        found |= {law.__name__: law(psi, p, q, r) for law in THREE_POINTS}
        return found, jnp.linalg.cond(metric(psi, p))

    # A little of the way to the next point, so that q + u in Pythagoras stays inside the domain.
    q = thetas + 0.2 * (jnp.roll(thetas, 1, 0) - thetas)
    r = thetas + 0.2 * (jnp.roll(thetas, 2, 0) - thetas)
    found, condition = jax.jit(jax.vmap(at))(thetas, q, r)
    return {k: np.abs(v).reshape(COUNT, -1).max(1) for k, v in found.items()}, np.asarray(condition)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_law_holds(name, x64):
    """Residuals within 1e3 ε cond(G): the best that a solve with G can promise, with room."""
    psi, draw = FAMILIES[name]
    found, condition = residuals(psi, draw(np.random.default_rng(20261), COUNT))
    assert condition.max() < 1e7
    bound = 1e3 * np.finfo(np.float64).eps * condition
    for law, worst in found.items():
        assert (worst <= bound).all(), (law, worst.max(), (worst / bound).max())


def test_the_laws_can_fail(x64):
    """A potential whose closed form is wrong by 1e-6 breaks the laws that mention it."""

    class Wrong(Categorical):
        def to_theta(self, eta):
            return super().to_theta(eta) * (1 + 1e-6)

    jax.tree_util.register_dataclass(Wrong, data_fields=[], meta_fields=["n"])
    found, condition = residuals(Wrong(3), free_points(3)(np.random.default_rng(20262), COUNT))
    bound = 1e3 * np.finfo(np.float64).eps * condition.max()
    broken = {law for law, worst in found.items() if not worst.max() <= bound}
    assert broken >= {"involution", "biorthogonality", "dual_metrics_are_inverse"}
    assert "three_points" not in broken
