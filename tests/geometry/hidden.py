"""Potentials hidden in charts in which nothing is flat, with their truth in mpmath."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
from jax.tree_util import Partial

from dualflat.geometry.connection import DualStructure, dual_structure
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.structure import recover
from tests.geometry.truth import EXACT, user_made


@dataclasses.dataclass(frozen=True)
class Hidden:
    psi: Any
    chart: Callable  # x ↦ θ
    origin: np.ndarray  # x, float64
    points: np.ndarray  # (k, n), x
    value: Callable[[list], Any]  # mpmath ψ
    gradient: Callable[[list], list]
    given: DualStructure | None = None  # (g, ∇, ∇*) in the chart, if not derived from ψ

    def structure(self):
        """(g, ∇, ∇*) in the chart, all that is given away."""
        return self.given or dual_structure(self.psi).in_chart(self.chart)

    def recovered(self, origin):
        """The manifold, with the free choices made so that ψ is the very ψ it comes from."""
        theta, frame = self.chart(origin), jax.jacfwd(self.chart)(origin)
        eta, level = jax.grad(self.psi)(theta), self.psi(theta)
        return recover(self.structure(), origin, frame=frame, theta=theta, eta=eta, level=level)


def exact(point):
    return [mp.mpf(float(v)) for v in point]


def normal_metric(x):
    return jnp.diag(jnp.array([1.0, 2.0])) / x[1] ** 2


def normal_connection(alpha, x):
    """Γ₁₁² = (1−α)/2σ, Γ₁₂¹ = Γ₂₁¹ = −(1+α)/σ, Γ₂₂² = −(1+2α)/σ (Amari and Nagaoka 2000)."""
    return (
        jnp.zeros((2, 2, 2), x.dtype)
        .at[0, 0, 1].set((1 - alpha) / 2)
        .at[0, 1, 0].set(-1 - alpha)
        .at[1, 0, 0].set(-1 - alpha)
        .at[1, 1, 1].set(-1 - 2 * alpha)
    ) / x[1]  # fmt: skip


def normal(alpha=1.0):
    """Normal laws in (μ, σ), written out by hand."""
    return DualStructure(
        normal_metric, Partial(normal_connection, alpha), Partial(normal_connection, -alpha)
    )


def natural(x):
    """θ of the normal law with this mean and standard deviation."""
    return jnp.stack([x[0] / x[1] ** 2, -0.5 / x[1] ** 2])


def _normal_value(theta):
    linear, quadratic = theta
    return (-(linear**2) / quadratic / 2 - mp.log(-2 * quadratic) + mp.log(2 * mp.pi)) / 2


def _normal_gradient(theta):
    mean = -theta[0] / theta[1] / 2
    return [mean, mean**2 - 1 / theta[1] / 2]


def _normal_plane(x):
    """θ of the law on the plane with mean (x₀, x₁) and precision (x₂ x₃; x₃ x₄)."""
    precision = jnp.array([[x[2], x[3]], [x[3], x[4]]])
    return Gaussian(2).pack(precision @ x[:2], precision)


def _bent(x):
    """A chart of the plane that is neither affine nor of product form."""
    return jnp.stack([x[0] + 0.3 * x[0] ** 3 + 0.2 * x[1], x[1] * (1 + 0.1 * jnp.sin(x[0]))])


HIDDEN = {
    "normal in (μ, σ)": Hidden(
        Gaussian(1),
        natural,
        np.array([0.5, 1.0]),
        np.array([[0.5, 1.0], [0.6, 1.1], [2.0, 0.3], [-3.0, 4.0], [1.0, 0.02]]),
        _normal_value,
        _normal_gradient,
        normal(),
    ),
    "normal on the plane in (μ, Λ)": Hidden(
        Gaussian(2),
        _normal_plane,
        np.array([0.0, 0.5, 1.0, 0.3, 0.75]),
        np.array(
            [
                [0.1, 0.4, 1.1, 0.2, 0.7],
                [1.0, -0.5, 2.5, -0.8, 1.4],
                [-2.0, 1.5, 0.3, 0.1, 2.6],
                [0.3, 0.2, 5.0, 2.0, 0.9],
            ]
        ),
        EXACT["gaussian"].value,
        EXACT["gaussian"].gradient,
    ),
    "Dirichlet in log α": Hidden(
        Dirichlet(3),
        jnp.exp,
        np.array([0.0, 0.5, -0.5]),
        np.array([[0.1, 0.4, -0.3], [1.5, 0.2, 0.9], [-1.5, -1.0, 0.5], [3.0, 2.5, 3.5]]),
        lambda t: sum(mp.loggamma(x) for x in t) - mp.loggamma(sum(t)),
        lambda t: [mp.digamma(x) - mp.digamma(sum(t)) for x in t],
    ),
    "a user's in a bent chart": Hidden(
        user_made,
        _bent,
        np.array([0.2, -0.1]),
        np.array([[0.3, 0.1], [0.9, 0.5], [-1.0, 0.8], [1.2, -1.4]]),
        EXACT["user-made"].value,
        EXACT["user-made"].gradient,
    ),
}
