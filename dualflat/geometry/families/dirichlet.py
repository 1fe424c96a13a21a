"""Laws on the probability simplex."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, legendre, special
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.operators import DiagonalMinusRankOne


@register
@dataclasses.dataclass(frozen=True)
class Dirichlet:
    """Dirichlet's laws on n ≥ 2 probabilities x₁ + … + xₙ = 1; for n = 2 the beta laws.

    T(x) = (log xᵢ), with respect to dx Π 1/xᵢ, so with α₀ = Σ αᵢ and ψ₁ = trigamma

        θ = α > 0,    ηᵢ = digamma(αᵢ) − digamma(α₀),    ψ(θ) = Σ log Γ(αᵢ) − log Γ(α₀),
        G = diag ψ₁(αᵢ) − ψ₁(α₀) 11ᵀ,    φ(η) = ⟨α, η⟩ − ψ(α), minus the entropy.

    The domain is the open orthant. The range of ∇ψ is {Σ exp ηᵢ < 1}: T lies on the surface
    Σ exp Tᵢ = 1, which bounds a convex set, and the means of T are the inside of its hull. φ has no
    closed form; θ(η) is searched from a `guess` that is right to a few per cent at any scale.

    Wherever one αᵢ is nearly all of α₀, or all are large, the formulas above subtract numbers that
    agree. Here log Γ and digamma are taken without Stirling's leading terms, which combine to
    Σ αᵢ log αᵢ/α₀ and log αᵢ/α₀; what goes from the largest α to α₀ is an integral over the sum of
    the others; and 1 − ψ₁(α₀) Σ 1/ψ₁(αᵢ), on which every solve rests, is a sum of positive terms.

    Attributes:
      n: how many probabilities, at least 2. With one there is no law to tell from another.

    >>> psi = Dirichlet(3)
    >>> psi.to_eta(jnp.array([1.0, 1.0, 1.0])).round(4)  # E log xᵢ under the uniform law
    Array([-1.5, -1.5, -1.5], dtype=float32)
    >>> legendre.to_theta(psi, jnp.array([-1.5, -1.5, -1.5])).round(4)
    Array([1., 1., 1.], dtype=float32)
    """

    n: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "n", 2, "the number of probabilities")

    @property
    def dim(self) -> int:
        """The dimension of the manifold, n."""
        return self.n

    def in_domain(self, theta: Array) -> Array:
        """Is every αᵢ positive and finite?"""
        return ((theta > 0) & (theta < jnp.inf)).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is Σ exp ηᵢ < 1? It is summed as −expm1 of the largest ηᵢ against the others."""
        return jnp.isfinite(eta).all() & (_shortfall(eta) > 0)

    def starting_point(self, dtype: Any) -> Array:
        """The uniform law, α = 1."""
        return jnp.ones(self.n, dtype)

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ) = Σ αᵢ log αᵢ/α₀ + Σ s(αᵢ) − s(α₀) with s = `special.log_gamma_excess`, a scalar."""
        split = _split(theta)
        each, whole = split.of_all(special.log_gamma_excess)
        return theta @ split.log_share + (each.sum() - whole)

    def to_eta(self, theta: Array) -> Array:
        """digamma(αᵢ) − digamma(α₀) = log αᵢ/α₀ + e(αᵢ) − e(α₀), e = `special.digamma_excess`.

        Where the largest α is more than four fifths of α₀ its ηᵢ is −∫ψ₁ from it to α₀.
        """
        split = _split(theta)
        each, whole = split.of_all(special.digamma_excess)
        integral = split.others * split.mean_to_total(special.trigamma)
        near = split.is_top & split.close
        return jnp.where(near, -integral, split.log_share + (each - whole))

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = Σ (αᵢ e(αᵢ) − s(αᵢ)) − (α₀ e(α₀) − s(α₀)) at α = θ(η), a scalar.

        ⟨α, η⟩ − ψ(α) without the terms that are in both. α is searched; NaN where there is none.
        """
        theta = legendre.to_theta(self, eta)

        each, whole = _split(theta).of_all(
            lambda x: x * special.digamma_excess(x) - special.log_gamma_excess(x)
        )
        return each.sum() - whole

    def hessian(self, theta: Array) -> DiagonalMinusRankOne:
        """diag ψ₁(αᵢ) − ψ₁(α₀) 11ᵀ, with its complement as a sum of positive terms."""
        bend, weight = _split(theta).of_all(special.trigamma)
        complement = weight * _slack(theta, bend, weight)
        return DiagonalMinusRankOne(bend, jnp.ones_like(theta), weight, complement)

    def curvature(self, theta: Array, v: Array) -> Array:
        """vᵀGv = Σ ψ₁(αᵢ)(vᵢ − hᵢ V/H)² + (1/H − ψ₁(α₀))V² for hᵢ = 1/ψ₁(αᵢ), V = Σvᵢ, H = Σhᵢ.

        Both are nonnegative; the second is all that is left along a common factor of large α.
        """
        bend, weight = _split(theta).of_all(special.trigamma)
        whole, shift = (1 / bend).sum(), v.sum() / (1 / bend).sum()
        across = v - shift / bend
        left = weight * _slack(theta, bend, weight) * whole
        return bend @ (across * across) + left * shift * shift

    def divergence(self, theta: Array, base: Array) -> Array:
        """α₀ KL(p, q) + Σ g(αᵢ, α′ᵢ) − g(α₀, α′₀) for p = α/α₀, q = α′/α′₀, g = `log_gamma_excess_gap`.

        The steps from q to p are those of α, less what a common factor does; the largest one's is
        minus the sum of the others'. g(α₀, α′₀) takes a large part of the other terms only where the
        largest αᵢ moves against others that come to little. There the difference of its g and that
        of α₀ is taken as an integral, in a loop that ends after one round.
        """
        parts = _parts(theta, base, theta - base)
        terms = parts.mixed + parts.gaps.sum()
        value = terms - special.log_gamma_excess_gap(*parts.whole)

        # −1 marks what is lost: one array to compute. What does not depend on it XLA would take out
        # of the loop, and always do.
        def again(value: Array) -> Array:
            lost = value < 0
            ends = (jnp.where(lost, x, 1.0) for x in (theta, base, theta - base))
            parts = _parts(*ends)
            apart = parts.mixed + jnp.where(parts.top, 0.0, parts.gaps).sum()
            found = apart + _gap_of_gaps(parts.first, parts.others)
            return jnp.where(lost, jnp.maximum(found, 0.0), value)

        start = jnp.where(value < terms / 16, -1.0, value)
        return jax.lax.while_loop(lambda value: value < 0, again, start)

    def guess(self, eta: Array) -> Array:
        """α(η) for 1/log(1 + e^−y) in the place of the inverse of digamma y, wrong by 6 % at most.

        Then with v = 1/α₀ and softplus(w) = v every αᵢv is v/Lᵢ, Lᵢ = softplus(w − ηᵢ), and Σ αᵢ = α₀
        is one equation, P(v) = N(v): the sum over all but the largest, which increases, against
        1 − v/L of the largest, which decreases. P − N is concave; Newton comes to it from the tangent
        at v = 0, and changes to logarithms of everything beyond v = 1, where all are powers of v.
        """
        index = jnp.argmax(eta)
        is_top, drop = jnp.arange(self.n) == index, -eta[index]

        def step(v):
            w = v + jnp.log(-jnp.expm1(-v))
            plus = jnp.logaddexp(0.0, w - eta)
            slope = jax.nn.sigmoid(w - eta) / -jnp.expm1(-v)  # ∂L/∂v
            others = jnp.where(is_top, 0.0, v / plus).sum()
            others_slope = jnp.where(is_top, 0.0, (1 - v / plus * slope) / plus).sum()
            top, top_slope = _one_minus_share(v, drop)
            straight = v + (top - others) / (others_slope + top_slope)
            bend = v * (others_slope / others + top_slope / top)
            return jnp.where(v < 1, straight, v * jnp.exp(jnp.log(top / others) / bend))

        def body(state):
            v, _, steps = state
            new = step(v)
            return new, jnp.abs(new - v) > 0.01 * v, steps + 1

        lost = _shortfall(eta)
        start = 2 * lost / (self.n - 1 + lost)
        state = (start, start > 0, jnp.zeros((), jnp.int32))
        v, *_ = jax.lax.while_loop(lambda s: s[1] & (s[2] < 32), body, state)
        w = v + jnp.log(-jnp.expm1(-v))
        return 1 / jnp.logaddexp(0.0, w - eta)

    # --- laws ------------------------------------------------------------------------------------

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(n,): n probabilities."""
        return (self.n,)

    def statistic(self, x: Array) -> Array:
        """log xᵢ."""
        return jnp.log(x)

    def log_base(self, x: Array) -> Array:
        """−Σ log xᵢ; −∞ unless all xᵢ > 0 and Σ xᵢ = 1 to a few roundings."""
        slack = 8 * self.n * float(jnp.finfo(x.dtype).eps)
        inside = (x > 0).all() & (jnp.abs(x.sum() - 1) <= slack)
        return on_support(x.sum(), inside, -jnp.log(jnp.where(inside, x, 1.0)).sum())

    def mean_log_base(self, theta: Array) -> Array:
        """−Σ ηᵢ."""
        return -self.to_eta(theta).sum()

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Gamma variates over their sum, by their logarithms."""
        log = jax.random.loggamma(key, theta, (*shape, self.n), theta.dtype)
        return jax.nn.softmax(log, axis=-1)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`concentration` α."""
        return {"concentration": jnp.where(self.in_domain(theta), theta, jnp.nan)}

    def from_usual(self, concentration: Array) -> Array:
        """θ = α; NaN unless all are positive and finite."""
        alpha = jnp.asarray(concentration)
        if alpha.shape != (self.n,):
            raise ValueError(
                f"Dirichlet: concentration has shape {alpha.shape}. Wanted ({self.n},)."
            )
        alpha = alpha.astype(jnp.result_type(float, alpha))
        return jnp.where(self.in_domain(alpha), alpha, jnp.nan)


class _Split(NamedTuple):
    """α as its largest entry and the others."""

    theta: Array  # α, (n,)
    is_top: Array  # (n,), marks one largest entry
    top: Array  # that entry
    others: Array  # the sum of the others
    total: Array  # α₀
    close: Array  # is `top` more than four fifths of α₀?
    log_share: Array  # log αᵢ/α₀, (n,)

    def of_all(self, f: Callable[[Array], Array]) -> tuple[Array, Array]:
        """f(αᵢ) and f(α₀). One evaluation compiles in half the time, two run faster if n is large."""
        if self.theta.shape[0] > 1000:
            return f(self.theta), f(self.total)
        values = f(jnp.append(self.theta, self.total))
        return values[:-1], values[-1]

    def mean_to_total(self, f: Callable[[Array], Array]) -> Array:
        """The mean of f between the largest entry and α₀, if they are close: α₀ is 5/4 of it at most."""
        count = 4 if float(jnp.finfo(self.top.dtype).eps) > 1e-10 else 7
        t, w = (jnp.asarray(x, self.top.dtype) for x in _numerics.unit_nodes(count))
        return w @ f(self.top + self.others * t)


def _split(theta: Array) -> _Split:
    index = jnp.argmax(theta)
    is_top, top = jnp.arange(theta.shape[0]) == index, theta[index]
    others = jnp.where(is_top, 0.0, theta).sum()
    total = top + others
    share = jnp.maximum(theta / total, float(jnp.finfo(theta.dtype).tiny))
    log_share = jnp.where(is_top, -jnp.log1p(others / top), jnp.log(share))
    return _Split(theta, is_top, top, others, total, others < 0.25 * top, log_share)


class _Parts(NamedTuple):
    """What a divergence is made of; (α, α′, α − α′) of the largest entry of α′, of the others, of all."""

    top: Array  # (n,), marks it
    first: Sequence[Array]
    others: Sequence[Array]
    whole: Sequence[Array]
    mixed: Array  # α₀ KL(p, q)
    gaps: Array  # g(αᵢ, α′ᵢ), (n,)


def _parts(theta: Array, base: Array, step: Array) -> _Parts:
    top = jnp.arange(theta.shape[0]) == jnp.argmax(base)

    def parted(x: Array) -> tuple[Array, Array]:
        return jnp.where(top, x, 0.0).sum(), jnp.where(top, 0.0, x).sum()

    first, others = zip(*map(parted, (theta, base, step)), strict=True)
    whole = [x + y for x, y in zip(first, others, strict=True)]
    shares = base / whole[1]
    turn = (step - shares * whole[2]) / whole[0]
    turn = jnp.where(top, -jnp.where(top, 0.0, turn).sum(), turn)
    mixed = whole[0] * _numerics.relative_entropy(theta / whole[0], shares, turn).sum()
    gaps = special.log_gamma_excess_gap(theta, base, step)
    return _Parts(top, first, others, whole, mixed, gaps)


def _gap_of_gaps(first: Sequence[Array], others: Sequence[Array]) -> Array:
    """g(α, α′) − g(α + o, α′ + o′) for g = `log_gamma_excess_gap`, where o/α and o′/α′ are small.

    With x = α + to, x′ = α′ + to′ it is ∫₀¹ o′((x − x′)e″(x′) − e′(x) + e′(x′)) − (o − o′)(e′(x) − e′(x′)) dt.

    Args:
      first, others: (α, α′, α − α′) and (o, o′, o − o′).
    """
    dtype = first[0].dtype
    nodes = _numerics.unit_nodes(3 if float(jnp.finfo(dtype).eps) > 1e-10 else 5)
    t, weights = (jnp.asarray(x, dtype) for x in nodes)
    along = (x + y * t for x, y in zip(first, others, strict=True))
    turn, lack = special.digamma_excess_gaps(*along)
    return weights @ (others[1] * lack - others[2] * turn)


def _slack(theta: Array, bend: Array, weight: Array) -> Array:
    """h(α₀) − Σ h(αᵢ) for h = 1/ψ₁, as a sum of positive terms over all but the largest α.

    h is convex and h(0) = 0, so with q the mean slope of h from the largest α to α₀ it is
    Σ αᵢq − h(αᵢ). If the largest α is not small that is Σ f(αᵢ) − αᵢp, with p = 1 − q the mean slope
    of f(α) = α − h(α), which is `special.trigamma_deficit` and tends to ½.
    """
    split, small = _split(theta), jnp.max(theta) < 1
    each, whole = (special.deficit_of(*x) for x in ((theta, bend), (split.total, weight)))
    each, whole = jnp.where(small, 1 / bend, each), jnp.where(small, 1 / weight, whole)
    from_top = (whole - jnp.where(split.is_top, each, 0.0).sum()) / split.others

    def slope(x):
        return jnp.where(small, *special.reciprocal_trigamma_slope(x))

    mean = jnp.where(split.close, split.mean_to_total(slope), from_top)
    terms = jnp.where(small, 1.0, -1.0) * (theta * mean - each)
    return jnp.where(split.is_top, 0.0, terms).sum()


def _shortfall(eta: Array) -> Array:
    """1 − Σ exp ηᵢ, the largest ηᵢ against the others."""
    is_top = jnp.arange(eta.shape[0]) == jnp.argmax(eta)
    return -jnp.expm1(jnp.max(eta)) - jnp.where(is_top, 0.0, jnp.exp(eta)).sum()


def _one_minus_share(v: Array, drop: Array) -> tuple[Array, Array]:
    """1 − v/L for L = log(1 + c expm1 v), c = exp(drop), and minus its derivative in v.

    They are small where c is near 1 and where v is large. There L − v is taken as one logarithm,
    log(1 + (1 − e^−v)(c − 1)), and L − v ∂L/∂v, where v is small too, as an integral over (0, v).
    """
    near, small = drop < 1, jnp.minimum(drop, 1.0)
    c, rise, log_rest = jnp.exp(small), jnp.expm1(small), jnp.log(-jnp.expm1(-v))
    over = jnp.where(near, jnp.log1p(-jnp.expm1(-v) * rise), jnp.logaddexp(-v, log_rest + drop))
    high = over + v * jnp.expm1(-drop) / (jnp.exp(-drop) + jnp.expm1(v))
    t, weights = (jnp.asarray(x, v.dtype) for x in _numerics.unit_nodes(8))
    x = jnp.minimum(v, 1.0) * t
    low = rise * c * v * v * (weights @ (t * jnp.exp(x) / (1 + c * jnp.expm1(x)) ** 2))
    plus = jnp.logaddexp(0.0, v + log_rest + drop)  # L
    plain = plus - v * jax.nn.sigmoid(v + log_rest + drop) / -jnp.expm1(-v)
    share = jnp.where(near | (v > 1), over / plus, 1 - v / plus)
    slope = jnp.where(v > 1, high, jnp.where(near, low, plain))
    return share, slope / plus**2
