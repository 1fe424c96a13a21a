"""Laws on finitely many outcomes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Categorical:
    """Laws on {0, …, n} that give every outcome a positive probability.

        θᵢ = log pᵢ/p₀,    ηᵢ = pᵢ,    ψ(θ) = log(1 + Σ exp θᵢ),    φ(η) = Σ pⱼ log pⱼ,

    with i = 1, …, n and j = 0, …, n: outcome 0 is the reference, and T(x) is the one-hot vector of
    x without its first entry. The domain is ℝⁿ; ∇ψ maps it onto the open simplex.

    ψ and ∇ψ keep their relative accuracy at any |θ|, and continue to θᵢ = −∞ (pᵢ = 0, gradient 0).
    XLA flushes subnormal numbers, so probabilities below 2e-308 (float64) or 1e-38 (float32) are 0.
    +∞ and NaN give NaN, in the gradient too; so does an η outside the simplex, and, for θ(η), on
    its edge.

    Attributes:
      n: outcomes minus one, at least 1. Holds no arrays: a point is an array of shape (n,).

    >>> psi = Categorical(2)
    >>> psi(jnp.array([0.0, 0.0])).round(4)  # log 3
    Array(1.0986, dtype=float32)
    """

    n: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(
                f"Categorical: n is {self.n!r}. Wanted an integer of at least 1: the number of"
                " outcomes minus one."
            )

    @property
    def dim(self) -> int:
        """The dimension of the manifold, n."""
        return self.n

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ) = log(1 + Σ exp θᵢ), a scalar."""
        return _numerics.logsumexp0(theta)

    def in_domain(self, theta: Array) -> Array:
        """Is every θᵢ below +∞? NaN is not."""
        return (theta < jnp.inf).all()

    def starting_point(self, dtype: Any) -> Array:
        """The uniform law, θ = 0."""
        return jnp.zeros(self.n, dtype)

    def log_probabilities(self, theta: Array) -> Array:
        """log pⱼ for j = 0, …, n, shape (n + 1,); relatively accurate also where p is near 1."""
        return self._log_probabilities(theta)[0]

    def _log_probabilities(self, theta: Array) -> tuple[Array, Array]:
        """The log-probabilities, and a mask of shape (n + 1,) that marks one most probable outcome.

        With q the other outcomes' odds against it, log p = −log1p(Σq) there, and log q − log1p(Σq)
        elsewhere: nothing is subtracted from anything of its own size.
        """
        full = jnp.concatenate([jnp.zeros(1, theta.dtype), theta])
        is_top = jnp.arange(self.n + 1) == jnp.argmax(full)
        top = jnp.where(is_top, full, 0.0).sum()
        lead = full - jnp.where(top < jnp.inf, top, jnp.nan)
        rest = jnp.where(is_top, 0.0, jnp.exp(lead)).sum()
        return lead - jnp.log1p(rest), is_top

    def to_eta(self, theta: Array) -> Array:
        """ηᵢ = pᵢ = exp θᵢ / (1 + Σ exp θⱼ), shape (n,)."""
        top = jnp.max(theta, initial=0.0)
        m = jax.lax.stop_gradient(jnp.where(top < jnp.inf, top, jnp.nan))
        odds = jnp.exp(theta - m)
        return odds / (odds.sum() + jnp.exp(-m))

    def to_theta(self, eta: Array) -> Array:
        """θᵢ = log ηᵢ/η₀ with η₀ = 1 − Σ ηᵢ, shape (n,); NaN unless every ηⱼ is positive.

        η₀ is summed with its rounding carried along: that it is small is no reason to lose it.
        """
        rest = _numerics.one_minus_sum(eta)
        inside = (eta > 0).all() & (rest > 0)
        log_eta = jnp.log(jnp.where(inside, eta, jnp.nan))
        return log_eta - jnp.log(jnp.where(inside, rest, jnp.nan))

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = Σ ηⱼ log ηⱼ, minus the entropy; 0 log 0 = 0 on the edge, NaN outside the simplex.

        An η₀ = 1 − Σ ηᵢ that rounding has made negative is outside: renormalise before.
        """
        return _numerics.xlogx(self._complete(eta)).sum()

    def curvature(self, theta: Array, v: Array) -> Array:
        """vᵀ∇²ψ(θ)v = Var_p(v), with v₀ = 0, as a sum of squares.

        Deviations are taken from the most probable outcome, whose own deviation from the mean is
        then a sum over the others: a saturated law keeps the digits of its tiny variance.
        """
        log_p, is_top = self._log_probabilities(theta)
        p = jnp.exp(log_p)
        full = jnp.concatenate([jnp.zeros(1, v.dtype), v])
        deviation = full - jnp.where(is_top, full, 0.0).sum()
        return p @ (deviation - p @ deviation) ** 2

    def gap(self, theta: Array, eta: Array) -> Array:
        """ψ(θ) + φ(η) − ⟨θ, η⟩ = KL(η‖p) = Σ (ηⱼ log ηⱼ/pⱼ − ηⱼ + pⱼ), for η in the closed simplex.

        Every term is nonnegative; near ηⱼ = pⱼ it is pⱼ((1+u) log(1+u) − u) with u = ηⱼ/pⱼ − 1.
        """
        log_p, _ = self._log_probabilities(theta)
        p, full = jnp.exp(log_p), self._complete(eta)
        near = jnp.abs(full - p) < 0.25 * p
        u = jnp.where(near, full - p, 0.0) / jnp.where(near, p, 1.0)
        # Where p is exactly 0 so is its term, if η is 0 as well.
        cross = jnp.where(full == 0, 0.0, full * jnp.where(full == 0, 0.0, log_p))
        far = _numerics.xlogx(full) - cross - full + p
        return jnp.where(near, p * _numerics.log1p_excess(u), far).sum()

    def _complete(self, eta: Array) -> Array:
        """(η₀, η₁, …, ηₙ), NaN throughout outside the closed simplex."""
        rest = _numerics.one_minus_sum(eta)
        inside = (eta >= 0).all() & (rest >= 0)
        return jnp.where(inside, jnp.concatenate([rest[None], eta]), jnp.nan)
