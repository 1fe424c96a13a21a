"""Laws of f(Y) for Y from a family: another statistic and support, the very same geometry."""

import abc
import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.families.base import entropy, log_prob

_KNOWLEDGE = frozenset(
    {
        "in_domain",
        "in_dual_domain",
        "starting_point",
        "guess",
        "to_eta",
        "to_theta",
        "conjugate",
        "hessian",
        "curvature",
        "divergence",
        "gap",
    }
)  # see `potential.Potential`


@dataclasses.dataclass(frozen=True)
class Borrowed(abc.ABC):
    """A family whose potential is that of something else, `_source`, with all that it knows."""

    @abc.abstractmethod
    def _source(self) -> Any: ...

    @property
    def dim(self) -> int:
        """The dimension of the manifold, n."""
        return self._source().dim

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar."""
        return self._source()(theta)

    def __getattr__(self, name: str) -> Any:
        if name in _KNOWLEDGE:
            return getattr(self._source(), name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}.")


@dataclasses.dataclass(frozen=True)
class Image(Borrowed):
    """The laws of x = f(y) for laws of y, f smooth and invertible: T is that of y, and

    log h(x) = log h of y + log |dy/dx|,    so that ψ, η, G, D are those of the family of y.
    """

    @abc.abstractmethod
    def _forward(self, y: Array) -> Array: ...

    @abc.abstractmethod
    def _backward(self, x: Array) -> Array: ...

    @abc.abstractmethod
    def _log_slope(self, x: Array) -> Array:
        """log |dy/dx|."""

    @abc.abstractmethod
    def _supports(self, x: Array) -> Array:
        """Is x inside the support? NaN is not."""

    def _inside(self, x: Array) -> tuple[Array, Array]:
        """Is x inside, and x, or a number that is."""
        inside = self._supports(x)
        return inside, jnp.where(inside, x, self._forward(self._some(x)))

    def _some(self, x: Array) -> Array:
        return jnp.full_like(x, 0.5)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """That of the family of y."""
        return self._source().event_shape

    def statistic(self, x: Array) -> Array:
        """T(x), shape (n,)."""
        return self._source().statistic(self._backward(self._inside(x)[1]))

    def log_base(self, x: Array) -> Array:
        """log h(x); −∞ outside the support."""
        inside, safe = self._inside(x)
        base = self._source().log_base(self._backward(safe)) + self._log_slope(safe)
        return on_support(x.sum(), inside, base)

    def log_density(self, theta: Array, x: Array) -> Array:
        """That of y, and log |dy/dx|."""
        safe = self._inside(x)[1]
        return log_prob(self._source(), theta, self._backward(safe)) + self._log_slope(safe)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """f(y) for drawn y."""
        return self._forward(self._source().draw(key, theta, shape))

    def entropy(self, theta: Array) -> Array:
        """That of y, less E log |dy/dx|."""
        return entropy(self._source(), theta) - self._mean_log_slope(theta)

    @abc.abstractmethod
    def _mean_log_slope(self, theta: Array) -> Array: ...
