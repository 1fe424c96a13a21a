"""Generalized Dirichlet laws: probabilities by breaking a stick with independent beta variates."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.algebra import Product
from dualflat.geometry.families._image import Borrowed
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.beta import Beta
from dualflat.geometry.families.dirichlet import Dirichlet


@register
@dataclasses.dataclass(frozen=True)
class GeneralizedDirichlet(Borrowed):
    """Connor and Mosimann's laws of n probabilities x₁ + … + xₙ = 1 (1969); w.r.t. dx₁ ⋯ dx_{n−1}.

        xᵢ = vᵢ(1 − v₁)⋯(1 − v_{i−1}) with independent vᵢ ~ Beta(αᵢ, βᵢ), i < n,
        T(x) = (log vᵢ, log(1 − vᵢ)) pair by pair,  θ = (α₁, β₁, …),  log h = −Σ log xᵢ − …,

    a `Product` of n − 1 beta potentials. A point has 2(n − 1) entries. It is a Dirichlet law where
    βᵢ = αᵢ₊₁ + βᵢ₊₁.

    Attributes:
      n: how many probabilities, at least 2.

    >>> GeneralizedDirichlet(3).to_eta(jnp.array([1.0, 2.0, 1.0, 1.0])).round(4)
    Array([-1.5, -0.5, -1. , -1. ], dtype=float32)
    """

    n: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "n", 2, "the number of probabilities")

    def _source(self) -> Product:
        return Product((Dirichlet(2),) * (self.n - 1))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(n,): n probabilities."""
        return (self.n,)

    def _parts(self, x: Array) -> tuple[Array, Array, Array]:
        """log vᵢ, log(1 − vᵢ), and the logarithm of what was left before i, for i < n."""
        rests = jnp.cumsum(x[::-1])[::-1]  # xᵢ + … + xₙ, small ones first
        left = jnp.log(rests[:-1])
        return jnp.log(x[:-1]) - left, jnp.log(rests[1:]) - left, left

    def statistic(self, x: Array) -> Array:
        """(log v₁, log(1 − v₁), log v₂, …)."""
        log_v, log_rest, _ = self._parts(x)
        return jnp.stack([log_v, log_rest], 1).ravel()

    def log_base(self, x: Array) -> Array:
        """−Σ log vᵢ(1 − vᵢ) − log of what was left; −∞ unless all xᵢ > 0 and Σ xᵢ = 1."""
        slack = 8 * self.n * float(jnp.finfo(x.dtype).eps)
        inside = (x > 0).all() & (jnp.abs(x.sum() - 1) <= slack)
        safe = jnp.where(inside, x, jnp.full_like(x, 1 / self.n))
        log_v, log_rest, left = self._parts(safe)
        return on_support(x.sum(), inside, -(log_v + log_rest + left).sum())

    def mean_log_base(self, theta: Array) -> Array:
        """−Σ E log vᵢ(1 − vᵢ) − Σ E log of what was left."""
        eta = self.to_eta(theta).reshape(-1, 2)
        before = jnp.cumsum(eta[:, 1]) - eta[:, 1]
        return -eta.sum() - before.sum()

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Beta variates, and the stick broken by them."""
        pairs = theta.reshape(-1, 2)
        keys = jax.random.split(key, self.n - 1)
        drawn = [Dirichlet(2).draw(k, t, shape) for k, t in zip(keys, pairs, strict=True)]
        left, parts = jnp.ones(shape, theta.dtype), []
        for v in drawn:
            parts.append(left * v[..., 0])
            left = left * v[..., 1]
        return jnp.stack([*parts, left], -1)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`alpha` (n − 1,) and `beta` (n − 1,)."""
        alpha, beta = theta.reshape(-1, 2).T
        return {"alpha": alpha, "beta": beta}

    def from_usual(self, alpha: Array, beta: Array) -> Array:
        """θ; NaN unless all are positive and finite."""
        thetas = jax.vmap(Beta().from_usual)(jnp.asarray(alpha), jnp.asarray(beta))
        if thetas.shape[0] != self.n - 1:
            raise ValueError(
                f"GeneralizedDirichlet: alpha has {thetas.shape[0]} entries. Wanted {self.n - 1}."
            )
        return thetas.ravel()
