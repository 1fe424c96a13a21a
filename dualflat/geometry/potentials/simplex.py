"""Log-sum-exp, and its dual: minus the entropy of a probability vector."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._logits import Logits
from dualflat.geometry._tree import register
from dualflat.geometry.operators import DiagonalMinusRankOne


@register
@dataclasses.dataclass(frozen=True)
class LogSumExp(Logits):
    """ψ(θ) = log(1 + Σ exp θᵢ), a smooth maximum of 0 and the θᵢ.

        ηᵢ = exp θᵢ/(1 + Σ exp θⱼ),    φ(η) = Σ ηⱼ log ηⱼ,    G = diag(η) − ηηᵀ,

    j = 0, …, n with η₀ = 1 − Σ ηᵢ. (log Σ exp θᵢ without the 1 does not change along (1, …, 1) in more
    than its value, so that its metric is singular: one of the θ has to be the zero.) The domain is
    ℝⁿ, continued to θᵢ = −∞, and the range of ∇ψ the open simplex. Products with G and G⁻¹ take
    O(n). The same potential as a family of laws is `Categorical`; its dual is `SimplexEntropy`.

    Attributes:
      n: how many θᵢ, at least 1.

    >>> psi = LogSumExp(2)
    >>> psi.to_eta(jnp.log(jnp.array([1.0, 2.0])))
    Array([0.25, 0.5 ], dtype=float32)
    """


@register
@dataclasses.dataclass(frozen=True)
class SimplexEntropy:
    """Minus the entropy of n + 1 probabilities, of which n are coordinates and θ₀ = 1 − Σ θᵢ.

        ψ(θ) = Σ θⱼ log θⱼ,    ηᵢ = log θᵢ/θ₀,    φ(η) = log(1 + Σ exp ηᵢ),
        G = diag(1/θᵢ) + 11ᵀ/θ₀,    D(θ, θ′) = Σ θⱼ log θⱼ/θ′ⱼ = KL(θ‖θ′),    j = 0, …, n.

    The domain is the open simplex; ψ and the gap continue to its faces, with 0 log 0 = 0. The range of
    ∇ψ is ℝⁿ. θ₀ is summed with its rounding carried along, and θ₀ − θ′₀ is the sum of the other
    differences, so that close points keep their digits. The dual of `LogSumExp`.

    Attributes:
      n: how many coordinates, at least 1.

    >>> psi = SimplexEntropy(2)
    >>> psi(jnp.array([0.25, 0.25])).round(4)  # −1.5 log 2
    Array(-1.0397, dtype=float32)
    """

    n: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        self._dual  # noqa: B018 (raises where n is no dimension)

    @property
    def _dual(self) -> LogSumExp:
        return LogSumExp(self.n)

    @property
    def dim(self) -> int:
        """The number of coordinates, n."""
        return self.n

    def __call__(self, theta: Array, /) -> Array:
        """Σ θⱼ log θⱼ, a scalar; NaN outside the closed simplex."""
        return self._dual.conjugate(theta)

    def in_domain(self, theta: Array) -> Array:
        """Is every θⱼ positive, θ₀ too?"""
        return self._dual.in_dual_domain(theta)

    def in_dual_domain(self, eta: Array) -> Array:
        """Is every ηᵢ finite?"""
        return jnp.isfinite(eta).all()

    def starting_point(self, dtype: Any) -> Array:
        """The uniform law."""
        return jnp.full(self.n, 1 / (self.n + 1), dtype)

    def to_eta(self, theta: Array) -> Array:
        """log θᵢ/θ₀, shape (n,)."""
        return self._dual.to_theta(theta)

    def to_theta(self, eta: Array) -> Array:
        """exp ηᵢ/(1 + Σ exp ηⱼ), shape (n,)."""
        return self._dual.to_eta(eta)

    def conjugate(self, eta: Array) -> Array:
        """log(1 + Σ exp ηᵢ), a scalar."""
        return self._dual(eta)

    def hessian(self, theta: Array) -> DiagonalMinusRankOne:
        """diag(1/θᵢ) + 11ᵀ/θ₀, whose complement is 1/θ₀."""
        inverse = 1 / _numerics.one_minus_sum(theta)
        return DiagonalMinusRankOne(1 / theta, jnp.ones_like(theta), -inverse, inverse)

    def curvature(self, theta: Array, v: Array) -> Array:
        """Σ vⱼ²/θⱼ with v₀ = −Σ vᵢ."""
        return (v * v / theta).sum() + v.sum() ** 2 / _numerics.one_minus_sum(theta)

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(θ‖θ′), every term θⱼ log θⱼ/θ′ⱼ − θⱼ + θ′ⱼ nonnegative and to a few ε."""
        step = theta - base
        each = _numerics.relative_entropy(theta, base, step).sum()
        rest, rest_base = _numerics.one_minus_sum(theta), _numerics.one_minus_sum(base)
        return each + _numerics.relative_entropy(rest, rest_base, -step.sum())

    def gap(self, theta: Array, eta: Array) -> Array:
        """The gap of log-sum-exp, its arguments exchanged."""
        return self._dual.gap(eta, theta)
