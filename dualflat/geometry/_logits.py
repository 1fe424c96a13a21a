"""What the categorical laws and log-sum-exp share, which is everything but the name."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import settle_size
from dualflat.geometry.operators import DiagonalMinusRankOne


@dataclasses.dataclass(frozen=True)
class Logits:
    """ψ(θ) = log(1 + Σ exp θᵢ) on ℝⁿ, with p₀ = 1/(1 + Σ exp θⱼ) and pᵢ = p₀ exp θᵢ = ηᵢ.

    Not for use by itself: whoever inherits it gives it a name and a story.
    """

    n: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "n", 1, "the number of outcomes minus one")

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

    def in_dual_domain(self, eta: Array) -> Array:
        """Is every ηⱼ positive, η₀ = 1 − Σ ηᵢ too?"""
        return (eta > 0).all() & (_numerics.one_minus_sum(eta) > 0)

    def starting_point(self, dtype: Any) -> Array:
        """The uniform law, θ = 0."""
        return jnp.zeros(self.n, dtype)

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
        odds0, odds = self._odds(theta)
        return odds / (odds.sum() + odds0)

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

    def hessian(self, theta: Array) -> DiagonalMinusRankOne:
        """diag(p) − ppᵀ, whose complement 1 − Σ pᵢ²/pᵢ is p₀."""
        odds0, odds = self._odds(theta)
        total = odds0 + odds.sum()
        p = odds / total
        return DiagonalMinusRankOne(p, p, jnp.ones((), p.dtype), odds0 / total)

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

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(q‖p) = log Σ qⱼ exp(Δⱼ − c), c = Σ qⱼΔⱼ, for p the law of θ, q of the base; Δ₀ = 0.

        With dⱼ = Δⱼ − c, of which q has the mean 0, it is log(1 + Σ qⱼ (exp dⱼ − 1 − dⱼ)): no term
        is negative, nothing cancels near or far, and a rounded c is wrong only by its square. Δ is
        counted from that of the base's most probable outcome t, so that c is small if q is sure.

        Where qⱼ exp dⱼ could be 0·∞ the term is qₜ exp(θⱼ − θₜ − c) (1 − (1 + dⱼ) exp −dⱼ): a q below
        the smallest normal number, even 0, loses nothing. Where that overflows: ψ(θ) − ψ(θ′) − c.
        """
        info = jnp.finfo(theta.dtype)
        log_tiny, far = math.log(float(info.tiny)), 0.5 * math.log(float(info.max))
        m = jnp.max(base, initial=0.0)
        # The reference outcome apart: a row of n + 1 would be copied.
        zero, lead, lead0 = jnp.zeros((), base.dtype), base - m, -m

        # A compiler may compute the base once for its maximum and again, to another last digit, for
        # what lies below that: to look for a lead of exactly 0 would find none.
        rounding = -8 * float(info.eps) * jnp.maximum(jnp.abs(m), 1.0)

        def at_top(x: Array, x0: Array) -> Array:
            rest = jnp.max(x, initial=-jnp.inf, where=lead >= rounding)
            return jnp.maximum(rest, jnp.where(lead0 >= rounding, x0, -jnp.inf))

        def weight(lead: Array) -> tuple[Array, Array]:
            """Odds as a product that keeps those below the smallest normal number."""
            faint = lead < log_tiny
            lift = jnp.where(faint, -0.5 * log_tiny, 0.0)
            return jnp.exp(lead + lift), jnp.where(faint, math.exp(0.5 * log_tiny), 1.0)

        delta = jnp.where(base > -jnp.inf, theta - base, 0.0)
        top, top_end = at_top(delta, zero), at_top(theta, zero)
        off, off0 = delta - top, -top
        (odds, scale), (odds0, scale0) = weight(lead), weight(lead0)
        total = (odds * scale).sum() + odds0 * scale0
        share = jnp.where(off > -jnp.inf, odds * (scale * off), -jnp.inf)
        c = (share.sum() + odds0 * (scale0 * off0)) / total

        def term(end: Array, lead: Array, off: Array, odds: Array, scale: Array) -> Array:
            d = jnp.where(lead > -jnp.inf, off - c, jnp.inf)
            by_p = (d > far) | ((d > 1) & (lead < log_tiny))
            x = jnp.where(by_p, jnp.minimum(d, 1e3), 1.0)
            p = jnp.exp(jnp.where(by_p, end - top_end - c, 0.0))
            by_q = odds * (scale * _numerics.exp_excess(jnp.where(by_p, 0.0, d)))
            return jnp.where(by_p, p * (1 - (1 + x) * jnp.exp(-x)), by_q)

        terms = term(theta, lead, off, odds, scale).sum() + term(zero, lead0, off0, odds0, scale0)
        book = self(theta) - self(base) - (jnp.where(top > -jnp.inf, c, 0.0) + top)
        return jnp.where(terms < jnp.inf, jnp.log1p(terms / total), book)

    def _odds(self, theta: Array) -> tuple[Array, Array]:
        """exp(−m) and exp(θᵢ − m) for m = max(0, θ₁, …, θₙ), held still: it cancels in what follows."""
        top = jnp.max(theta, initial=0.0)
        m = jax.lax.stop_gradient(jnp.where(top < jnp.inf, top, jnp.nan))
        return jnp.exp(-m), jnp.exp(theta - m)

    def gap(self, theta: Array, eta: Array) -> Array:
        """ψ(θ) + φ(η) − ⟨θ, η⟩ = KL(η‖p) = Σ (ηⱼ log ηⱼ/pⱼ − ηⱼ + pⱼ), for η in the closed simplex.

        Every term is nonnegative; near ηⱼ = pⱼ it is pⱼ((1+u) log(1+u) − u) with u = ηⱼ/pⱼ − 1.
        """
        log_p, _ = self._log_probabilities(theta)
        full = self._complete(eta)
        return _numerics.relative_entropy(full, jnp.exp(log_p), log_y=log_p).sum()

    def _complete(self, eta: Array) -> Array:
        """(η₀, η₁, …, ηₙ), NaN throughout outside the closed simplex."""
        rest = _numerics.one_minus_sum(eta)
        inside = (eta >= 0).all() & (rest >= 0)
        return jnp.where(inside, jnp.concatenate([rest[None], eta]), jnp.nan)
