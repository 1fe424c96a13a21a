"""Beta laws on the unit interval."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import register
from dualflat.geometry.families._image import Borrowed
from dualflat.geometry.families._scalar import on_support, point
from dualflat.geometry.families.dirichlet import Dirichlet


@register
@dataclasses.dataclass(frozen=True)
class Beta(Borrowed):
    """Beta laws on 0 < x < 1 with shapes α, β > 0; with respect to Lebesgue measure.

        T(x) = (log x, log(1 − x)),  h = 1/x(1 − x),    θ = (α, β),
        ψ(θ) = log Γ(α) + log Γ(β) − log Γ(α + β),    the potential of `Dirichlet(2)`.

    >>> Beta().to_eta(jnp.array([1.0, 1.0])).round(4)  # E log x of the uniform law
    Array([-1., -1.], dtype=float32)
    """

    def _source(self) -> Dirichlet:
        return Dirichlet(2)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is a number."""
        return ()

    def statistic(self, x: Array) -> Array:
        """(log x, log(1 − x))."""
        return self._source().statistic(jnp.stack([x, 1 - x]))

    def log_base(self, x: Array) -> Array:
        """−log x − log(1 − x); −∞ outside the open interval."""
        inside = (x > 0) & (x < 1)
        safe = jnp.where(inside, x, 0.5)
        return on_support(x, inside, -jnp.log(safe) - jnp.log1p(-safe))

    def mean_log_base(self, theta: Array) -> Array:
        """−E log X − E log(1 − X)."""
        return -self.to_eta(theta).sum()

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """The first of two proportions."""
        return self._source().draw(key, theta, shape)[..., 0]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`alpha` and `beta`."""
        alpha, beta = self._source().to_usual(theta)["concentration"]
        return {"alpha": alpha, "beta": beta}

    def from_usual(self, alpha: Array, beta: Array) -> Array:
        """θ = (α, β); NaN unless both are positive and finite."""
        theta = jnp.concatenate([point(alpha), point(beta)])
        return jnp.where(self._source().in_domain(theta), theta, jnp.nan)
