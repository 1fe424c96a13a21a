"""Counts that are more, or less, spread than Poisson's."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from dualflat.geometry import special
from dualflat.geometry._tree import register
from dualflat.geometry.families._scalar import counts_from, on_support, point
from dualflat.geometry.families.finite import Enumerated

_COUNTS = 4096


@register
@dataclasses.dataclass(frozen=True)
class ConwayMaxwellPoisson(Enumerated):
    """Conway and Maxwell's laws of counts, p(x) ∝ λˣ/(x!)^ν; with respect to counting.

        T(x) = (x, log x!),  h = 1,    θ = (log λ, −ν),    ψ(θ) = log Σₓ λˣ/(x!)^ν.

    Poisson's for ν = 1, the geometric law for ν = 0, Bernoulli's as ν → ∞. ψ is summed over the first
    4096 counts. The domain is ν > 0, or ν = 0 and λ < 1, as far as no weight is beyond them: else
    everything is NaN.

    >>> family = ConwayMaxwellPoisson()
    >>> family(jnp.array([0.0, -1.0])).round(4)  # ν = 1 is Poisson's: ψ = λ
    Array(1., dtype=float32)
    """

    @property
    def dim(self) -> int:
        """2."""
        return 2

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is a count."""
        return ()

    def _rows(self, dtype: jnp.dtype) -> Array:
        x = jnp.arange(_COUNTS, dtype=dtype)
        return jnp.stack([x, special.log_gamma(x + 1)], 1)

    def _levels(self, dtype: jnp.dtype) -> Array:
        return jnp.zeros(_COUNTS, dtype)

    def _log_weights(self, theta: Array) -> Array:
        logs = super()._log_weights(theta)
        return logs + jnp.where(self._summed(theta, logs), 0.0, jnp.nan).astype(logs.dtype)

    def _summed(self, theta: Array, logs: Array) -> Array:
        """Do the weights fall at the last of the counts, to nothing against the largest?"""
        least = jnp.log(float(jnp.finfo(logs.dtype).eps) / _COUNTS)
        falls = (theta[1] < 0) | ((theta[1] == 0) & (theta[0] < 0))
        return jnp.isfinite(theta).all() & falls & (logs[-1] - jnp.max(logs) < least)

    def in_domain(self, theta: Array) -> Array:
        """Is ν ≥ 0 (λ < 1 where it is 0), and the sum over the first 4096 counts all there is?"""
        return self._summed(theta, super()._log_weights(theta))

    def starting_point(self, dtype: jnp.dtype) -> Array:
        """λ = ν = 1."""
        return jnp.array([0.0, -1.0], dtype)

    def statistic(self, x: Array) -> Array:
        """(x, log x!)."""
        return jnp.stack([x, special.log_gamma(jnp.where(x >= 0, x, 0.0) + 1)])

    def log_base(self, x: Array) -> Array:
        """0; −∞ but for whole numbers from 0 on."""
        return on_support(x, counts_from(0, x), jnp.zeros_like(x))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Counts."""
        return self._numbers(key, theta, shape).astype(theta.dtype)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`rate` λ and `dispersion` ν."""
        return {"rate": jnp.exp(theta[0]), "dispersion": -theta[1]}

    def from_usual(self, rate: Array, dispersion: Array) -> Array:
        """θ = (log λ, −ν); NaN outside the domain."""
        theta = jnp.concatenate([jnp.log(point(rate)), -point(dispersion)])
        return jnp.where(self.in_domain(theta), theta, jnp.nan)
