"""Mixtures of fixed laws: the families that are flat the other way."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import known_numbers, register
from dualflat.geometry.operators import Dense


@register
@dataclasses.dataclass(frozen=True)
class Mixtures:
    """Mixtures p_w = w₀p₀ + … + wₙpₙ of n + 1 fixed laws, a potential of their weights w₁, …, wₙ.

        ψ(w) = ∫ p_w log p_w,  minus the entropy,    ηᵢ = ∫ (pᵢ − p₀) log p_w,
        G = ∫ (pᵢ − p₀)(pⱼ − p₀)/p_w,    D(w, w′) = KL(p_w ‖ p_w′),    w₀ = 1 − Σ wᵢ.

    Weights are m-affine coordinates: the roles of θ and η are those of the dual of an exponential
    family. The integrals are sums over nodes x_k with weights of their own: all of a finite set,
    quadrature, or a sample from some law q with weights 1/(N q(x_k)) (Monte Carlo; then all that
    follows is exact for the sums). D is a sum of terms that are not negative.

    The domain is the open simplex.

    Attributes:
      densities: pⱼ(x_k), shape (n + 1, K), not negative.
      node_weights: shape (K,); 1 each if left out.

    >>> coins = jnp.array([[0.9, 0.1], [0.2, 0.8]])
    >>> Mixtures(coins)(jnp.array([0.5])).round(4)  # minus the entropy of (0.55, 0.45)
    Array(-0.6881, dtype=float32)
    """

    densities: Any
    node_weights: Any = 1.0

    def __post_init__(self):
        shape = jnp.shape(self.densities)
        if len(shape) != 2 or shape[0] < 2 or jnp.shape(self.node_weights) not in ((), shape[1:]):
            raise ValueError(
                f"Mixtures: densities {shape}, node_weights {jnp.shape(self.node_weights)}. Wanted"
                " (n + 1, K) with n ≥ 1, and (K,)."
            )
        known = known_numbers(self.densities)
        if known is None:
            return
        if not (np.isfinite(known).all() and (known >= 0).all()):
            raise ValueError("Mixtures: densities must be finite and not negative.")
        if np.linalg.matrix_rank(known[1:] - known[0]) < shape[0] - 1:
            raise ValueError(
                "Mixtures: one of the laws is a mixture of others, so that different weights are the"
                " same law. Leave it out."
            )

    @property
    def dim(self) -> int:
        """n."""
        return jnp.shape(self.densities)[0] - 1

    def _parts(self, w: Array) -> tuple[Array, Array, Array, Array]:
        """p_w at the nodes, pᵢ − p₀ there, pⱼ, and the weights of the nodes; NaN off the simplex."""
        p = jnp.asarray(self.densities, w.dtype)
        nodes = jnp.broadcast_to(jnp.asarray(self.node_weights, w.dtype), p.shape[1:])
        rest = _numerics.one_minus_sum(w)
        good = jnp.where(self.in_domain(w), 1.0, jnp.nan).astype(w.dtype)
        return (rest * p[0] + w @ p[1:]) * good, p[1:] - p[0], p, nodes

    def in_domain(self, theta: Array) -> Array:
        """Is every weight positive, w₀ too?"""
        return (theta > 0).all() & (_numerics.one_minus_sum(theta) > 0)

    def starting_point(self, dtype: Any) -> Array:
        """Equal weights."""
        return jnp.full(self.dim, 1 / (self.dim + 1), dtype)

    def __call__(self, theta: Array, /) -> Array:
        """Σ ω p log p over the nodes, a scalar."""
        p, _, _, nodes = self._parts(theta)
        some = p > 0  # where all densities underflow there is nothing, and nothing to differentiate
        return (
            jnp.where(some, nodes * p * jnp.log(jnp.where(some, p, 1.0)), 0.0).sum() + 0 * p.sum()
        )

    def to_eta(self, theta: Array) -> Array:
        """Σ ω (pᵢ − p₀)(1 + log p), shape (n,); the 1 is 0 where the pⱼ have one mass."""
        p, rows, _, nodes = self._parts(theta)
        some = p > 0
        return rows @ jnp.where(some, nodes * (1 + jnp.log(jnp.where(some, p, 1.0))), 0.0)

    def hessian(self, theta: Array) -> Dense:
        """Σ ω (pᵢ − p₀)(pⱼ − p₀)/p."""
        p, rows, _, nodes = self._parts(theta)
        scaled = rows * jnp.where(p > 0, nodes / jnp.where(p > 0, p, 1.0), 0.0)
        square = jnp.tril(scaled @ rows.T) + 0 * p.sum()
        return Dense(square + jnp.tril(square, -1).T)

    def curvature(self, theta: Array, v: Array) -> Array:
        """Σ ω (v·(p − p₀))²/p."""
        p, rows, _, nodes = self._parts(theta)
        moved = v @ rows
        return (nodes * moved * jnp.where(p > 0, moved / jnp.where(p > 0, p, 1.0), 0.0)).sum() + (
            0 * p.sum()
        )

    def divergence(self, theta: Array, base: Array) -> Array:
        """Σ ω (p log p/p′ − p + p′), with p − p′ made of the differences of the weights."""
        p, rows, _, nodes = self._parts(theta)
        p_base, *_ = self._parts(base)
        terms = _numerics.relative_entropy(p, p_base, (theta - base) @ rows)
        return (nodes * terms).sum()

    def responsibilities(self, theta: Array) -> Array:
        """wⱼpⱼ(x_k)/p_w(x_k), shape (n + 1, K): what an EM step averages. wⱼ where p_w underflows."""
        p, _, parts, _ = self._parts(theta)
        w = jnp.append(_numerics.one_minus_sum(theta), theta)
        return jnp.where(p > 0, w[:, None] * parts / jnp.where(p > 0, p, 1.0), w[:, None])
