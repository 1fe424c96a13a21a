"""Log-linear models on finite sets, Boltzmann machines and Ising models, by summing over all states."""

import abc
import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import known_numbers, register, settle_size
from dualflat.geometry.families._scalar import counts_from, on_support
from dualflat.geometry.legendre import dual_point
from dualflat.geometry.operators import Dense

_MOST_STATES = 2**20


@dataclasses.dataclass(frozen=True)
class Enumerated(abc.ABC):
    """A family on K states that are counted one by one: rows T(x), and the logarithms of h.

        ψ(θ) = log Σₖ hₖ exp⟨θ, Tₖ⟩,    η = Σ pₖTₖ,    G = Σ pₖ (Tₖ − η)(Tₖ − η)ᵀ,
        D(θ, θ′) = log(1 + Σ p′ₖ (exp dₖ − 1 − dₖ)),    dₖ = ⟨θ − θ′, Tₖ − η′⟩.

    Deviations are counted from the most probable state, whose own from the mean is then a sum over
    the others: a law that is nearly certain keeps the digits of its variance. θ(η) is searched; on a
    face of the polytope of the Tₖ, and beyond, there is none.
    """

    @abc.abstractmethod
    def _rows(self, dtype: Any) -> Array:
        """T of every state, shape (K, n)."""

    @abc.abstractmethod
    def _levels(self, dtype: Any) -> Array:
        """log h of every state, shape (K,)."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """The dimension of the manifold, n."""

    def _log_weights(self, theta: Array) -> Array:
        good = jnp.isfinite(theta).all()
        theta = theta * jnp.where(good, 1.0, jnp.nan).astype(theta.dtype)
        return self._rows(theta.dtype) @ theta + self._levels(theta.dtype)

    def _probabilities(self, theta: Array) -> tuple[Array, Array]:
        """The probability of every state, and the number of a most probable one."""
        weights = self._log_weights(theta)
        return jax.nn.softmax(weights), jnp.argmax(weights)

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite?"""
        return jnp.isfinite(theta).all()

    def starting_point(self, dtype: Any) -> Array:
        """θ = 0."""
        return jnp.zeros(self.dim, dtype)

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar."""
        return jax.nn.logsumexp(self._log_weights(theta))

    def to_eta(self, theta: Array) -> Array:
        """Σ pₖTₖ, shape (n,)."""
        return self._probabilities(theta)[0] @ self._rows(theta.dtype)

    def to_theta(self, eta: Array) -> Array:
        """By search. NaN where η is on a face, or nearer to one than rounding: ⟨θ, η⟩ = max ⟨θ, Tₖ⟩."""
        theta = dual_point(self, eta).value
        reach = jnp.max(self._rows(eta.dtype) @ theta) - eta @ theta
        rounding = 2 * float(jnp.finfo(eta.dtype).eps) * (jnp.abs(eta) @ jnp.abs(theta))
        inside = (reach > rounding) | (theta == 0).all()
        return theta * jnp.where(inside, 1.0, jnp.nan).astype(eta.dtype)

    def _deviations(self, theta: Array) -> tuple[Array, Array]:
        p, top = self._probabilities(theta)
        rows = self._rows(theta.dtype)
        from_top = rows - rows[top]
        return p, from_top - p @ from_top

    def hessian(self, theta: Array) -> Dense:
        """The covariance of T, shape (n, n)."""
        p, away = self._deviations(theta)
        square = jnp.tril((away * p[:, None]).T @ away)
        return Dense(square + jnp.tril(square, -1).T)

    def curvature(self, theta: Array, v: Array) -> Array:
        """The variance of ⟨v, T⟩."""
        p, away = self._deviations(theta)
        return p @ (away @ v) ** 2

    def divergence(self, theta: Array, base: Array) -> Array:
        """log(1 + Σ p′ₖ (exp dₖ − 1 − dₖ)); where an exponential overflows, ψ(θ) − ψ(θ′) − ⟨Δ, η′⟩."""
        p, away = self._deviations(base)
        d = away @ (theta - base)
        terms = jnp.where(p > 0, p * _numerics.exp_excess(d), 0.0).sum()
        book = self(theta) - self(base) - (theta - base) @ self.to_eta(base)
        return jnp.where(terms < jnp.inf, jnp.log1p(terms), jnp.maximum(book, 0.0))

    def mean_log_base(self, theta: Array) -> Array:
        """Σ pₖ log hₖ."""
        p, levels = self._probabilities(theta)[0], self._levels(theta.dtype)
        return jnp.where(p > 0, p * levels, 0.0).sum()

    def _numbers(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Drawn states, by number."""
        return jax.random.categorical(key, self._log_weights(theta), shape=shape)


@register
@dataclasses.dataclass(frozen=True)
class LogLinear(Enumerated):
    """Laws on {0, …, K − 1} with p(k) ∝ h(k) exp⟨θ, T(k)⟩ for a table T; with respect to counting.

    Attributes:
      table: T, shape (K, n), whose rows span n dimensions: else two θ would be one law.
      log_weights: log h, shape (K,); 0 if left out.

    Raises:
      ValueError: for a table of another shape, with numbers that are not finite, or of lower rank.

    >>> model = LogLinear(jnp.array([[0.0], [1.0], [2.0]]))  # three equidistant levels
    >>> model.to_eta(jnp.array([0.0]))
    Array([1.], dtype=float32)
    """

    table: Any
    log_weights: Any = 0.0

    def __post_init__(self):
        shape = jnp.shape(self.table)
        if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
            raise ValueError(f"LogLinear: table has shape {shape}. Wanted (K, n), K ≥ 2, n ≥ 1.")
        if jnp.shape(self.log_weights) not in ((), shape[:1]):
            raise ValueError(
                f"LogLinear: log_weights has shape {jnp.shape(self.log_weights)}. Wanted {shape[:1]}."
            )
        known = known_numbers(self.table)
        if known is None:
            return
        if not np.isfinite(known).all():
            raise ValueError("LogLinear: the table holds numbers that are not finite.")
        rank = np.linalg.matrix_rank(known - known[0])
        if rank < shape[1]:
            raise ValueError(
                f"LogLinear: the differences of the rows span {rank} of {shape[1]} dimensions, so that"
                " different θ are the same law. Leave out columns that the others determine."
            )

    @property
    def dim(self) -> int:
        """The number of columns, n."""
        return jnp.shape(self.table)[1]

    def _rows(self, dtype: Any) -> Array:
        return jnp.asarray(self.table, dtype)

    def _levels(self, dtype: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(self.log_weights, dtype), jnp.shape(self.table)[:1])

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is the number of a state."""
        return ()

    def _inside(self, x: Array) -> tuple[Array, Array]:
        count = jnp.shape(self.table)[0]
        inside = counts_from(0, x) & (x < count)
        return inside, jnp.where(inside, x, 0.0).astype(jnp.int32)

    def statistic(self, x: Array) -> Array:
        """The row of state x, shape (n,)."""
        return self._rows(x.dtype)[self._inside(x)[1]]

    def log_base(self, x: Array) -> Array:
        """log h(x); −∞ but for 0, …, K − 1."""
        inside, safe = self._inside(x)
        return on_support(x, inside, self._levels(x.dtype)[safe])

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Numbers of states."""
        return self._numbers(key, theta, shape).astype(theta.dtype)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`theta` itself: there are no other usual parameters."""
        return {"theta": theta}

    def from_usual(self, theta: Array) -> Array:
        """θ."""
        return jnp.asarray(theta)


@dataclasses.dataclass(frozen=True)
class _Units(Enumerated):
    """n units, each in one of two states, with a field on every unit and a coupling of every pair."""

    n: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "n", 1, "the number of units")
        if 2**self.n > _MOST_STATES:
            raise ValueError(
                f"{type(self).__name__}: n is {self.n}, which has {2**self.n} states. Their sum is"
                f" taken exactly, for at most {_MOST_STATES}."
            )

    def _sides(self) -> tuple[float, float]:
        raise NotImplementedError

    @property
    def dim(self) -> int:
        """n + n(n − 1)/2."""
        return self.n * (self.n + 1) // 2

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(n,): the states of all units."""
        return (self.n,)

    def _states(self) -> np.ndarray:
        return np.array(list(itertools.product(self._sides(), repeat=self.n)))

    def _rows(self, dtype: Any) -> Array:
        states = self._states()
        i, j = np.triu_indices(self.n, 1)
        return jnp.asarray(np.concatenate([states, states[:, i] * states[:, j]], 1), dtype)

    def _levels(self, dtype: Any) -> Array:
        return jnp.zeros(2**self.n, dtype)

    def statistic(self, x: Array) -> Array:
        """(xᵢ; xᵢxⱼ for i < j, row by row)."""
        i, j = np.triu_indices(self.n, 1)
        return jnp.concatenate([x, x[i] * x[j]])

    def log_base(self, x: Array) -> Array:
        """0; −∞ for anything but states of units."""
        low, high = self._sides()
        return on_support(x.sum(), ((x == low) | (x == high)).all(), jnp.zeros((), x.dtype))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """States of all units, exact and independent."""
        return jnp.asarray(self._states(), theta.dtype)[self._numbers(key, theta, shape)]

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`field` b (n,) and `coupling` W (n, n), symmetric with zero diagonal."""
        i, j = np.triu_indices(self.n, 1)
        upper = jnp.zeros((self.n, self.n), theta.dtype).at[i, j].set(theta[self.n :])
        return {"field": theta[: self.n], "coupling": upper + upper.T}

    def from_usual(self, field: Array, coupling: Array) -> Array:
        """θ = (b; Wᵢⱼ for i < j): of W the upper triangle is read."""
        i, j = np.triu_indices(self.n, 1)
        return jnp.concatenate([jnp.asarray(field), jnp.asarray(coupling)[i, j]])


@register
@dataclasses.dataclass(frozen=True)
class Boltzmann(_Units):
    """The Boltzmann machine of n visible units x ∈ {0, 1}ⁿ; with respect to counting.

        p(x) ∝ exp(Σ bᵢxᵢ + Σ_{i<j} Wᵢⱼxᵢxⱼ),    θ = (b; Wᵢⱼ for i < j row by row),    h = 1.

    All 2ⁿ states are summed, so that n is at most 20.

    Attributes:
      n: the number of units.

    >>> Boltzmann(2).to_eta(jnp.zeros(3))  # two fair coins
    Array([0.5 , 0.5 , 0.25], dtype=float32)
    """

    def _sides(self) -> tuple[float, float]:
        return (0.0, 1.0)


@register
@dataclasses.dataclass(frozen=True)
class Ising(_Units):
    """The Ising model of n spins x ∈ {−1, 1}ⁿ with fields and pair couplings; w.r.t. counting.

        p(x) ∝ exp(Σ bᵢxᵢ + Σ_{i<j} Wᵢⱼxᵢxⱼ),    θ = (b; Wᵢⱼ for i < j row by row),    h = 1.

    All 2ⁿ states are summed, so that n is at most 20. An affine image of `Boltzmann`.

    Attributes:
      n: the number of spins.

    >>> Ising(2).to_eta(jnp.zeros(3))
    Array([0., 0., 0.], dtype=float32)
    """

    def _sides(self) -> tuple[float, float]:
        return (-1.0, 1.0)
