"""Separable potentials on positive numbers: minus the entropies of Boltzmann, Burg and Hellinger."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import register
from dualflat.geometry.potentials.separable import Separable


@register
@dataclasses.dataclass(frozen=True)
class NegativeEntropy(Separable):
    """Minus the entropy of n positive numbers, which need not sum to one.

        ψ(θ) = Σ θᵢ log θᵢ − θᵢ,    ηᵢ = log θᵢ,    φ(η) = Σ exp ηᵢ,    G = diag 1/θᵢ,
        D(θ, θ′) = Σ θᵢ log θᵢ/θ′ᵢ − θᵢ + θ′ᵢ,    the Kullback-Leibler divergence KL(θ‖θ′).

    The domain is the open orthant, the range of ∇ψ all of ℝⁿ. D is computed as θ′((1+u) log(1+u) − u)
    with u = (θ − θ′)/θ′ where −½ < u < 1, so that close points keep their digits. Its dual is the
    potential Σ exp of Poisson counts. With Σθᵢ = 1 see `simplex.SimplexEntropy`.

    >>> psi = NegativeEntropy(2)
    >>> psi.divergence(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).round(4)  # 2 log 2 − 1
    Array(0.3863, dtype=float32)
    """

    domain = (0.0, jnp.inf)
    middle = 1.0

    def _value(self, t: Array) -> Array:
        return _numerics.xlogx(t) - t

    def _slope(self, t: Array) -> Array:
        return jnp.log(t)

    def _bend(self, t: Array) -> Array:
        return 1 / t

    def _inverse(self, s: Array) -> Array:
        return jnp.exp(s)

    def _conjugate(self, s: Array) -> Array:
        return jnp.exp(s)

    def _divergence(self, t: Array, base: Array) -> Array:
        return _numerics.relative_entropy(t, base)

    def _gap(self, t: Array, s: Array) -> Array:
        return _numerics.relative_entropy(t, jnp.exp(s), log_y=s)


@register
@dataclasses.dataclass(frozen=True)
class Burg(Separable):
    """Minus Burg's entropy of n positive numbers, the barrier of the orthant.

        ψ(θ) = −Σ log θᵢ,    ηᵢ = −1/θᵢ,    φ(η) = −n − Σ log(−ηᵢ),    G = diag 1/θᵢ²,
        D(θ, θ′) = Σ θᵢ/θ′ᵢ − 1 − log θᵢ/θ′ᵢ,    the Itakura-Saito divergence.

    The domain is the open orthant and the range of ∇ψ the opposite one. D does not change with
    the unit of any entry; near θ′ it is u − log(1+u) with u = (θ − θ′)/θ′, not subtracted.

    >>> psi = Burg(2)
    >>> psi.to_eta(jnp.array([1.0, 2.0]))
    Array([-1. , -0.5], dtype=float32)
    """

    domain = (0.0, jnp.inf)
    range = (-jnp.inf, 0.0)
    middle = 1.0

    def _value(self, t: Array) -> Array:
        return -jnp.log(t)

    def _slope(self, t: Array) -> Array:
        return -1 / t

    def _bend(self, t: Array) -> Array:
        return 1 / (t * t)

    def _inverse(self, s: Array) -> Array:
        return -1 / s

    def _conjugate(self, s: Array) -> Array:
        return -1 - jnp.log(-s)

    def _divergence(self, t: Array, base: Array) -> Array:
        return _numerics.log_excess(t, base)


@register
@dataclasses.dataclass(frozen=True)
class Hellinger(Separable):
    """Minus twice the square roots of n positive numbers.

        ψ(θ) = −2 Σ √θᵢ,    ηᵢ = −1/√θᵢ,    φ(η) = −Σ 1/ηᵢ,    G = diag ½ θᵢ^(−3/2),
        D(θ, θ′) = Σ (√θᵢ − √θ′ᵢ)²/√θ′ᵢ.

    The domain is the open orthant and the range of ∇ψ the opposite one. The difference of roots is
    (θ − θ′)/(√θ + √θ′). It is the α = 0 member between `NegativeEntropy` and `Burg`, up to scale.

    >>> psi = Hellinger(2)
    >>> psi.divergence(jnp.array([4.0, 1.0]), jnp.array([1.0, 1.0]))
    Array(1., dtype=float32)
    """

    domain = (0.0, jnp.inf)
    range = (-jnp.inf, 0.0)
    middle = 1.0

    def _value(self, t: Array) -> Array:
        return -2 * jnp.sqrt(t)

    def _slope(self, t: Array) -> Array:
        return -1 / jnp.sqrt(t)

    def _bend(self, t: Array) -> Array:
        return 0.5 / (t * jnp.sqrt(t))

    def _inverse(self, s: Array) -> Array:
        return 1 / (s * s)

    def _conjugate(self, s: Array) -> Array:
        return 1 / jnp.abs(s)  # +∞ at the end 0, whatever its sign

    def _divergence(self, t: Array, base: Array) -> Array:
        root = jnp.sqrt(base)
        step = (t - base) / (jnp.sqrt(t) + root)
        return step * step / root
