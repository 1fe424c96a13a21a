"""Laws on finitely many outcomes."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, special
from dualflat.geometry._logits import Logits
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.algebra import Scaled
from dualflat.geometry.families import _counts
from dualflat.geometry.families._image import Borrowed
from dualflat.geometry.families._scalar import counts_from, on_support
from dualflat.geometry.families.binomial import Binomial
from dualflat.geometry.families.dirichlet import Dirichlet


@register
@dataclasses.dataclass(frozen=True)
class Categorical(Logits):
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

    >>> import jax.numpy as jnp
    >>> psi = Categorical(2)
    >>> psi.log_probabilities(jnp.array([0.0, 0.0])).round(4)  # −log 3, thrice
    Array([-1.0986, -1.0986, -1.0986], dtype=float32)
    """

    def log_probabilities(self, theta: Array) -> Array:
        """log pⱼ for j = 0, …, n, shape (n + 1,); relatively accurate also where p is near 1."""
        return self._log_probabilities(theta)[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is the number of an outcome."""
        return ()

    def statistic(self, x: Array) -> Array:
        """1 at the place of outcome x, shape (n,); all 0 for the reference."""
        return (x == jnp.arange(1, self.n + 1)).astype(x.dtype)

    def log_base(self, x: Array) -> Array:
        """0; −∞ but for 0, 1, …, n."""
        return on_support(x, counts_from(0, x) & (x <= self.n), jnp.zeros_like(x))

    def log_saturated(self, x: Array) -> Array:
        """0: the law whose mean is T(x) is certain."""
        return jnp.zeros_like(x)

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)

    def entropy(self, theta: Array) -> Array:
        """−Σ pⱼ log pⱼ, all terms of one sign; 0 where pⱼ = 0."""
        logs = self.log_probabilities(theta)
        p = jnp.exp(logs)
        return -jnp.where(p > 0, p * logs, 0.0).sum()

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Numbers of outcomes."""
        logits = jnp.concatenate([jnp.zeros(1, theta.dtype), theta])
        return jax.random.categorical(key, logits, shape=shape).astype(theta.dtype)

    def prior(self) -> Dirichlet:
        """Laws of the probabilities."""
        return Dirichlet(self.n + 1)

    def law_of(self, parameter: Array) -> Array:
        """θ at the probabilities."""
        return self.from_usual(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """How often each outcome came, shape (n + 1,)."""
        return jnp.concatenate([weight[None] - total.sum(), total])

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`probabilities` of the outcomes 0, …, n, shape (n + 1,)."""
        return {"probabilities": jnp.exp(self.log_probabilities(theta))}

    def from_usual(self, probabilities: Array) -> Array:
        """θᵢ = log pᵢ/p₀; NaN unless all pⱼ > 0 and Σ pⱼ = 1 to a few roundings."""
        return log_odds(probabilities, self.n, "Categorical")


@register
@dataclasses.dataclass(frozen=True)
class Multinomial(Borrowed):
    """Counts of the outcomes 0, …, n of m independent trials; with respect to counting.

        T(x) = (x₁, …, xₙ),  h = m!/x₀! ⋯ xₙ!,    θᵢ = log pᵢ/p₀,    ηᵢ = mpᵢ,
        ψ(θ) = m log(1 + Σ exp θᵢ),    m times the potential of `Categorical(n)`.

    An event has shape (n + 1,), the counts of all outcomes, which sum to m.

    Attributes:
      n: outcomes minus one, at least 1.
      trials: m, at least 1.

    >>> Multinomial(2, 6).to_eta(jnp.zeros(2)).round(4)
    Array([2., 2.], dtype=float32)
    """

    n: int = dataclasses.field(metadata={"static": True})
    trials: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "n", 1, "the number of outcomes minus one")
        settle_size(self, "trials", 1, "the number of trials")

    def _source(self) -> Scaled:
        return Scaled(Categorical(self.n), float(self.trials))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(n + 1,): the counts of all outcomes."""
        return (self.n + 1,)

    def _inside(self, x: Array) -> Array:
        return counts_from(0, x).all() & (x.sum() == self.trials)

    def statistic(self, x: Array) -> Array:
        """(x₁, …, xₙ)."""
        return x[1:]

    def log_base(self, x: Array) -> Array:
        """log m!/x₀! ⋯ xₙ!; −∞ but for counts that sum to m."""
        inside = self._inside(x)
        whole = special.log_gamma(jnp.asarray(self.trials + 1.0, x.dtype))
        ways = whole - special.log_gamma(jnp.where(x >= 0, x, 0.0) + 1).sum()
        return on_support(x.sum(), inside, ways)

    def log_saturated(self, x: Array) -> Array:
        """log of the probability of x under p = x/m."""
        whole = special.log_factorial_excess(jnp.asarray(float(self.trials), x.dtype))
        return whole - special.log_factorial_excess(jnp.where(x >= 0, x, 0.0)).sum()

    def entropy(self, theta: Array) -> Array:
        """Σⱼ E[Xⱼ log Xⱼ/mpⱼ − Xⱼ + mpⱼ + c(Xⱼ)] − c(m) of binomial counts Xⱼ, c = log x! − x log x + x."""
        m = jnp.asarray(float(self.trials), theta.dtype)
        log_p = Categorical(self.n).log_probabilities(theta)
        least = -float(jnp.finfo(theta.dtype).tiny)
        log_odds = log_p - _numerics.log1mexp(jnp.minimum(log_p, least))

        def of_one(odds, log_mean):
            def cost(x):
                away = _numerics.relative_entropy(x, jnp.exp(log_mean), None, log_mean)
                return away + special.log_factorial_excess(x)

            one = Binomial(self.trials)
            return _counts.mean_in_window(one, odds[None], float(self.trials), cost)

        costs = jax.vmap(of_one)(log_odds, log_p + jnp.log(m))
        return costs.sum() - special.log_factorial_excess(m)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Counts, each binomial among the trials that those before it have left."""
        logs = Categorical(self.n).log_probabilities(theta)
        left = jnp.full(shape, float(self.trials), theta.dtype)
        counts = []
        for j, one in enumerate(jax.random.split(key, self.n)):
            share = jnp.exp(logs[j] - jax.nn.logsumexp(logs[j:]))
            drawn = jax.random.binomial(one, left, jnp.minimum(share, 1.0), shape, theta.dtype)
            counts.append(drawn)
            left = left - drawn
        return jnp.stack([*counts, left], -1)

    def prior(self) -> Dirichlet:
        """Laws of the probabilities."""
        return Dirichlet(self.n + 1)

    def law_of(self, parameter: Array) -> Array:
        """θ at the probabilities."""
        return self.from_usual(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """How often each outcome came, shape (n + 1,)."""
        return jnp.concatenate([self.trials * weight[None] - total.sum(), total])

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`probabilities` of the outcomes, shape (n + 1,)."""
        return Categorical(self.n).to_usual(theta)

    def from_usual(self, probabilities: Array) -> Array:
        """θᵢ = log pᵢ/p₀; NaN unless all pⱼ > 0 and Σ pⱼ = 1 to a few roundings."""
        return log_odds(probabilities, self.n, "Multinomial")


def log_odds(probabilities: Array, n: int, kind: str) -> Array:
    """log pᵢ/p₀ for i = 1, …, n."""
    p = jnp.asarray(probabilities)
    p = p.astype(jnp.result_type(float, p))
    if p.shape != (n + 1,):
        raise ValueError(
            f"{kind}: probabilities have shape {p.shape}. Wanted ({n + 1},), the reference first."
        )
    slack = 8 * (n + 1) * float(jnp.finfo(p.dtype).eps)
    good = (p > 0).all() & (jnp.abs(p.sum() - 1) <= slack)
    return jnp.where(good, _numerics.log_quotient(p[1:], jnp.broadcast_to(p[0], (n,))), jnp.nan)
