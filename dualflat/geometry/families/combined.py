"""Families made of families: independent events side by side, and the same law many times."""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.algebra import Product, Scaled
from dualflat.geometry.families._image import Borrowed
from dualflat.geometry.families.base import entropy, log_prob


@register
@dataclasses.dataclass(frozen=True)
class Independent(Borrowed):
    """Laws of (X₁, …, Xₖ) with independent parts, each from a family of its own.

        θ = (θ₁; …; θₖ),  T = (T₁; …; Tₖ),  h = h₁ ⋯ hₖ,  ψ = Σ ψₖ(θₖ),

    a `Product` of the potentials. An event is one array: those of the parts, flattened, one after the
    other.

    Attributes:
      parts: the families.

    >>> from dualflat.geometry.families.poisson import Poisson
    >>> from dualflat.geometry.families.rates import Exponential
    >>> Independent((Poisson(), Exponential())).to_eta(jnp.array([0.0, -2.0]))
    Array([1. , 0.5], dtype=float32)
    """

    parts: tuple[Any, ...]

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(self.parts))
        if not self.parts:
            raise ValueError("Independent: no parts. Wanted at least one family.")

    def _source(self) -> Product:
        return Product(self.parts)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(the sum of the sizes of the parts' events,)."""
        return (sum(math.prod(part.event_shape) for part in self.parts),)

    def _events(self, x: Array) -> list[Array]:
        sizes = [math.prod(part.event_shape) for part in self.parts]
        pieces = jnp.split(x, list(itertools.accumulate(sizes))[:-1], axis=-1)
        lead = x.shape[:-1]
        return [
            piece.reshape(*lead, *part.event_shape)
            for piece, part in zip(pieces, self.parts, strict=True)
        ]

    def _thetas(self, theta: Array) -> list[Array]:
        sizes = [part.dim for part in self.parts]
        return jnp.split(theta, list(itertools.accumulate(sizes))[:-1])

    def statistic(self, x: Array) -> Array:
        """(T₁; …; Tₖ)."""
        pairs = zip(self.parts, self._events(x), strict=True)
        return jnp.concatenate([part.statistic(y) for part, y in pairs])

    def log_base(self, x: Array) -> Array:
        """Σ log hₖ."""
        return sum(
            (part.log_base(y) for part, y in zip(self.parts, self._events(x), strict=True)),
            start=jnp.zeros((), x.dtype),
        )

    def log_density(self, theta: Array, x: Array) -> Array:
        """Σ log pₖ."""
        rows = zip(self.parts, self._thetas(theta), self._events(x), strict=True)
        return sum((log_prob(*row) for row in rows), start=jnp.zeros((), theta.dtype))

    def entropy(self, theta: Array) -> Array:
        """The sum of the parts' entropies."""
        pairs = zip(self.parts, self._thetas(theta), strict=True)
        return sum((entropy(*pair) for pair in pairs), start=jnp.zeros((), theta.dtype))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Each part by a key of its own."""
        keys = jax.random.split(key, len(self.parts))
        rows = zip(self.parts, keys, self._thetas(theta), strict=True)
        drawn = [part.draw(k, t, shape).reshape(*shape, -1) for part, k, t in rows]
        return jnp.concatenate(drawn, -1)

    def to_usual(self, theta: Array) -> dict[str, Any]:
        """`parts`: the usual parameters of each, a tuple."""
        pairs = zip(self.parts, self._thetas(theta), strict=True)
        return {"parts": tuple(part.to_usual(t) for part, t in pairs)}

    def from_usual(self, parts: Any) -> Array:
        """θ from a tuple of the parts' usual parameters."""
        pairs = zip(self.parts, parts, strict=True)
        return jnp.concatenate([part.from_usual(**usual) for part, usual in pairs])


@register
@dataclasses.dataclass(frozen=True)
class Repeated(Borrowed):
    """Laws of m independent events from one law of a family.

        T(x) = Σ T(xᵢ),  h = Π h(xᵢ),  θ the same,  ψ is m times that of one: so is KL.

    Attributes:
      family: the family of one event.
      count: m, at least 1.

    >>> from dualflat.geometry.families.poisson import Poisson
    >>> Repeated(Poisson(), 3).to_eta(jnp.array([0.0]))
    Array([3.], dtype=float32)
    """

    family: Any
    count: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "count", 1, "the number of events")

    def _source(self) -> Scaled:
        return Scaled(self.family, float(self.count))

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(m, *that of one)."""
        return (self.count, *self.family.event_shape)

    def statistic(self, x: Array) -> Array:
        """Σ T(xᵢ)."""
        return jax.vmap(self.family.statistic)(x).sum(0)

    def log_base(self, x: Array) -> Array:
        """Σ log h(xᵢ)."""
        return jax.vmap(self.family.log_base)(x).sum()

    def log_density(self, theta: Array, x: Array) -> Array:
        """Σ log p(xᵢ)."""
        return jax.vmap(lambda y: log_prob(self.family, theta, y))(x).sum()

    def entropy(self, theta: Array) -> Array:
        """m times that of one."""
        return self.count * entropy(self.family, theta)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """m events each."""
        return self.family.draw(key, theta, (*shape, self.count))

    def to_usual(self, theta: Array) -> dict[str, Any]:
        """Those of one."""
        return self.family.to_usual(theta)

    def from_usual(self, *args: Any, **parameters: Any) -> Array:
        """Those of one."""
        return self.family.from_usual(*args, **parameters)
