"""Families whose events are numbers and whose parameter is one number: what they share, said once."""

import abc
import dataclasses

import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry.potentials.separable import Separable


@dataclasses.dataclass(frozen=True)
class Scalar(Separable):
    """A family with θ of shape (1,) and events of shape (): a `Separable` potential with n = 1.

    What such a potential says of f it says of ψ; T, h, sampling and the usual parameters come on
    top. `_statistic` is T as a number.
    """

    n: int = dataclasses.field(default=1, init=False, repr=False, metadata={"static": True})

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is a number."""
        return ()

    def statistic(self, x: Array) -> Array:
        """T(x), shape (1,)."""
        return self._statistic(x)[None]

    def _statistic(self, x: Array) -> Array:
        return x

    @abc.abstractmethod
    def log_base(self, x: Array) -> Array:
        """log h(x), shape ()."""

    @abc.abstractmethod
    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Independent events of this shape; `base.sample` is the public door."""

    def _by_quadrature(self, t: Array, base: Array) -> Array:
        """D(t, base) = ∫ (t − u) f″(u) du between the two, for |t − base| ≤ 1: nonnegative terms."""
        nodes, weights = (jnp.asarray(x, t.dtype) for x in _numerics.unit_nodes(8))
        step = t - base
        bends = self._bend(base[..., None] + step[..., None] * nodes)
        return step * step * (bends @ (weights * (1 - nodes)))


def number(theta: Array) -> Array:
    """The one entry of θ."""
    return theta[0]


def point(value: Array) -> Array:
    """One number as a point, shape (1,), in a floating dtype."""
    value = jnp.asarray(value)
    return value.astype(jnp.result_type(float, value)).reshape(1)


def counts_from(low: float, x: Array) -> Array:
    """Is x one of the integers from `low` on?"""
    return (x >= low) & (x == jnp.floor(x)) & (x < jnp.inf)


def on_support(x: Array, inside: Array, value: Array) -> Array:
    """log h: `value` where x is inside the support, −∞ outside, NaN for NaN."""
    return jnp.where(inside, value, jnp.where(jnp.isnan(x), jnp.nan, -jnp.inf))
