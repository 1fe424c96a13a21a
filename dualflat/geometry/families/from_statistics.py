"""A family made from nothing but a statistic T, a base measure h and a support."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dualflat.geometry._tree import as_tree, register
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.finite import Enumerated


@dataclasses.dataclass(frozen=True)
class Support:
    """Where the events of a made family lie, and the nodes at which it is summed or integrated.

    Use `finite`, `counts`, or `interval`.
    """

    nodes: np.ndarray  # (K, *event_shape)
    log_weights: np.ndarray  # (K,)
    contains: Callable[[Array], Array]
    continuous: bool
    ends: tuple[bool, bool]  # does the support go on beyond the first, the last node?

    def __hash__(self):
        return hash((self.nodes.tobytes(), self.log_weights.tobytes()))

    def __eq__(self, other):
        return (
            isinstance(other, Support)
            and np.array_equal(self.nodes, other.nodes)
            and np.array_equal(self.log_weights, other.log_weights)
        )


def finite(events: Any) -> Support:
    """These events and no others, shape (K, *event_shape): summed."""
    nodes = np.asarray(events, np.float64)
    axes = tuple(range(1, nodes.ndim))

    def contains(x):
        return (jnp.asarray(nodes, x.dtype) == x).all(axes).any()

    return Support(nodes, np.zeros(len(nodes)), contains, False, (False, False))


def counts(first: int = 0, most: int = 4096) -> Support:
    """The whole numbers from `first` on, of which `most` are summed.

    A law that has weight beyond the last of them is NaN, not cut off.
    """
    nodes = np.arange(first, first + most, dtype=np.float64)

    def contains(x):
        return (x >= first) & (x == jnp.floor(x)) & (x < jnp.inf)

    return Support(nodes, np.zeros(most), contains, False, (False, True))


def interval(low: float = -np.inf, high: float = np.inf, nodes: int = 1024) -> Support:
    """The open interval (low, high), either end of which may be infinite: integrated.

    By the trapezoidal rule after a change of variable that makes whatever decays at the ends decay
    doubly exponentially (Takahasi and Mori 1974): sinh, exp or tanh of a sinh on the line, a half-line
    and a bounded interval. A law that the nodes do not resolve, or that has weight
    beyond the outermost, is NaN.
    """
    if not low < high:
        raise ValueError(f"interval: ({low}, {high}) is empty. Wanted low < high.")
    t = np.linspace(-1.0, 1.0, nodes)
    step = t[1] - t[0]
    if np.isinf(low) and np.isinf(high):
        u = 4.6 * t
        x = np.sinh(np.pi / 2 * np.sinh(u)) / 4
        log_slope = np.log(np.pi / 2 * np.cosh(u) * np.cosh(np.pi / 2 * np.sinh(u)) / 4)
        log_slope += np.log(4.6)
    elif np.isinf(high) or np.isinf(low):
        u = 6.7 * t
        log_x = np.pi / 2 * np.sinh(u)
        side = 1.0 if np.isinf(high) else -1.0
        x = (low if np.isinf(high) else high) + side * np.exp(log_x)
        log_slope = log_x + np.log(np.pi / 2 * np.cosh(u) * 6.7)
    else:
        u = 3.6 * t
        s = np.pi / 2 * np.sinh(u)
        share = 1 / (1 + np.exp(-2 * s))
        x = low + (high - low) * share
        log_slope = (
            np.log(high - low)
            - 2 * np.logaddexp(0.0, -2 * s)
            - 2 * s
            + np.log(np.pi * np.cosh(u) * 3.6)
        )
    inside = (x > low) & (x < high)

    def contains(x):
        return (x > low) & (x < high)

    return Support(x[inside], (log_slope + np.log(step))[inside], contains, True, (True, True))


@register
@dataclasses.dataclass(frozen=True)
class FromStatistics(Enumerated):
    """The exponential family of a statistic, made by `from_statistics`."""

    function: Any
    log_h: Any
    start: Any
    support: Support = dataclasses.field(metadata={"static": True})

    def _statistic_at(self, x: Array) -> Array:
        return jnp.atleast_1d(self.function(x))

    @property
    def dim(self) -> int:
        """The number of statistics, n."""
        one = jax.ShapeDtypeStruct(self.event_shape, jnp.float32)
        return jax.eval_shape(self._statistic_at, one).shape[0]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return self.support.nodes.shape[1:]

    def starting_point(self, dtype: Any) -> Array:
        """The point that was given, or 0."""
        return jnp.broadcast_to(jnp.asarray(self.start, dtype), (self.dim,))

    def _nodes(self, dtype: Any) -> Array:
        return jnp.asarray(self.support.nodes, dtype)

    def _all_rows(self, dtype: Any) -> tuple[Array, Array]:
        """T at the nodes, and at which of them it is within the range of the dtype; 0 elsewhere."""
        rows = jax.vmap(self._statistic_at)(self._nodes(dtype))
        known = jnp.isfinite(rows).all(-1)
        return jnp.where(known[:, None], rows, 0.0), known

    def _rows(self, dtype: Any) -> Array:
        return self._all_rows(dtype)[0]

    def _levels(self, dtype: Any) -> Array:
        levels = jnp.asarray(self.support.log_weights, dtype)
        if self.log_h is None:
            return levels
        return levels + jax.vmap(self.log_h)(self._nodes(dtype))

    def _log_weights(self, theta: Array) -> Array:
        logs, known = self._unmarked(theta)
        return logs + jnp.where(self._resolved(theta, logs, known), 0.0, jnp.nan).astype(logs.dtype)

    def _unmarked(self, theta: Array) -> tuple[Array, Array]:
        """The log weights, and at which nodes T is within the range of the dtype: −∞ elsewhere."""
        rows, known = self._all_rows(theta.dtype)
        logs = rows @ theta + self._levels(theta.dtype)
        return jnp.where(known & ~jnp.isnan(logs), logs, -jnp.inf), known

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite, and the law resolved by the nodes, with no weight beyond them?"""
        return self._resolved(theta, *self._unmarked(theta))

    def _resolved(self, theta: Array, logs: Array, known: Array) -> Array:
        top = jnp.max(logs)
        logs = logs - top
        eps = float(jnp.finfo(theta.dtype).eps)
        least = np.log(64 * eps)
        first, last = self.support.ends
        good = jnp.isfinite(theta).all() & jnp.isfinite(top)
        good &= jnp.logical_not(first & (logs[jnp.argmax(known)] > least))
        good &= jnp.logical_not(last & (logs[::-1][jnp.argmax(known[::-1])] > least))
        if self.support.continuous:
            # Doubling the step changes little: then halving it would change nothing.
            whole, half = jax.nn.logsumexp(logs), jax.nn.logsumexp(logs[::2])
            good &= jnp.abs(whole - half - np.log(2)) < 1e-3 * eps**0.25
        return good

    def statistic(self, x: Array) -> Array:
        """T(x), shape (n,)."""
        return self._statistic_at(x)

    def log_base(self, x: Array) -> Array:
        """log h(x); −∞ outside the support."""
        inside = self.support.contains(x)
        safe = jnp.where(inside, x, self._nodes(x.dtype)[len(self.support.nodes) // 2])
        base = jnp.zeros((), x.dtype) if self.log_h is None else self.log_h(safe)
        return on_support(x.sum(), inside, base)

    def mean_log_base(self, theta: Array) -> Array:
        """E log h(X), at the nodes."""
        if self.log_h is None:
            return jnp.zeros((), theta.dtype)
        p, _ = self._probabilities(theta)
        values = jax.vmap(self.log_h)(self._nodes(theta.dtype))
        return jnp.where(p > 0, p * values, 0.0).sum()

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Events; on an interval by the inverse of the distribution function between the nodes."""
        nodes = self._nodes(theta.dtype)
        if not self.support.continuous:
            return nodes[self._numbers(key, theta, shape)]
        p, _ = self._probabilities(theta)
        edges = jnp.cumsum(p) - p / 2
        u = jax.random.uniform(key, shape, theta.dtype)
        return jnp.interp(u, edges / edges[-1], nodes)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`theta` itself: there are no other usual parameters."""
        return {"theta": theta}

    def from_usual(self, theta: Array) -> Array:
        """θ."""
        return jnp.asarray(theta)


def from_statistics(
    statistic: Callable[[Array], Array],
    support: Support,
    log_base: Callable[[Array], Array] | None = None,
    start: Any = 0.0,
) -> FromStatistics:
    """The family p(x; θ) ∝ h(x) exp⟨θ, T(x)⟩ on a support, its ψ by summation or quadrature.

    All the geometry and all of `base` and `inference` follow: η and the metric are the mean and the
    covariance of T at the nodes, θ(η) is searched.

    Args:
      statistic: T, from one event to an array (n,) or a number; pure JAX. What it closes over is held
        fixed; make it a pytree (`jax.tree_util.Partial`) to differentiate its own parameters.
      support: `finite(events)`, `counts(first)` or `interval(low, high)`.
      log_base: log h, from one event to a number; 0 if left out.
      start: a θ inside the domain, where searches begin: 0 unless h alone cannot be normalised.

    Returns:
      A family. Its domain is where the nodes resolve the law: elsewhere everything is NaN.

    Raises:
      ValueError: if `start` is not in the domain.

    >>> from dualflat.geometry.families.base import log_prob
    >>> quartic = from_statistics(lambda x: jnp.stack([x, -(x**4)]), interval(), start=[0, 1])
    >>> log_prob(quartic, jnp.array([0.0, 1.0]), 0.0).round(4)  # −log 2Γ(5/4)
    Array(-0.5949, dtype=float32)
    """
    log_h = None if log_base is None else as_tree(log_base)
    family = FromStatistics(as_tree(statistic), log_h, start, support)
    point = family.starting_point(jnp.result_type(float))
    if not family.in_domain(point):
        raise ValueError(
            f"from_statistics: at start = {np.asarray(point)} the law cannot be normalised, or has"
            " weight where there are no nodes. Give a θ inside the domain as `start`; if it is inside,"
            " give the support more nodes."
        )
    return family
