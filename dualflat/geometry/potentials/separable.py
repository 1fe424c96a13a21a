"""Sums of one scalar function over the entries, ψ(θ) = Σ f(θᵢ): what they share, said once."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import settle_size
from dualflat.geometry.operators import Diagonal


@dataclasses.dataclass(frozen=True)
class Separable(abc.ABC):
    """ψ(θ) = Σ f(θᵢ) for a strictly convex f on an open interval. Everything is entry by entry:

        ηᵢ = f′(θᵢ),   θᵢ = (f′)⁻¹(ηᵢ),   φ(η) = Σ f*(ηᵢ),   G = diag f″(θᵢ),   D = Σ D_f(θᵢ, θ′ᵢ).

    A potential of this kind says what f, f′, (f′)⁻¹, f*, f″, D_f and f(t) + f*(s) − ts are, on which
    interval and with which image. Beyond the interval, and at infinity, ψ is NaN and so is the
    derivative in that entry; on an end that is finite ψ is its limit, which is what φ needs of a
    dual. An end is no point of the manifold, and `in_domain` refuses it.

    Attributes:
      n: how many entries, at least 1.
    """

    n: int = dataclasses.field(metadata={"static": True})

    domain: ClassVar[tuple[float, float]] = (-jnp.inf, jnp.inf)
    range: ClassVar[tuple[float, float]] = (-jnp.inf, jnp.inf)
    middle: ClassVar[float] = 0.0  # a point of the domain

    def __post_init__(self):
        settle_size(self, "n", 1, "the number of entries of a point")

    @abc.abstractmethod
    def _value(self, t: Array) -> Array:
        """The f of each entry, and so on below; only for entries in the closed interval."""

    @abc.abstractmethod
    def _slope(self, t: Array) -> Array: ...

    @abc.abstractmethod
    def _bend(self, t: Array) -> Array: ...

    @abc.abstractmethod
    def _inverse(self, s: Array) -> Array: ...

    @abc.abstractmethod
    def _conjugate(self, s: Array) -> Array: ...

    @abc.abstractmethod
    def _divergence(self, t: Array, base: Array) -> Array: ...

    def _gap(self, t: Array, s: Array) -> Array:
        return self._divergence(t, self._inverse(s))

    def _image(self) -> tuple[float, float]:
        return self.range

    @property
    def dim(self) -> int:
        """The number of entries, n."""
        return self.n

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ) = Σ f(θᵢ), a scalar."""
        return self._value(_within(theta, self.domain, closed=True)).sum()

    def in_domain(self, theta: Array) -> Array:
        """Is every entry finite and in the open interval?"""
        return _inside(theta, self.domain).all()

    def in_dual_domain(self, eta: Array) -> Array:
        """Is every entry finite and in the open image of f′?"""
        return _inside(eta, self._image()).all()

    def starting_point(self, dtype: Any) -> Array:
        """One point of the interval, n times."""
        return jnp.full(self.n, self.middle, dtype)

    def to_eta(self, theta: Array) -> Array:
        """f′(θᵢ), shape (n,)."""
        return self._slope(_within(theta, self.domain))

    def to_theta(self, eta: Array) -> Array:
        """(f′)⁻¹(ηᵢ), shape (n,); an entry that no θᵢ reaches is NaN."""
        return self._inverse(_within(eta, self._image()))

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = Σ f*(ηᵢ), its limit where ηᵢ is a finite end of the image, NaN beyond."""
        return self._conjugate(_within(eta, self._image(), closed=True)).sum()

    def hessian(self, theta: Array) -> Diagonal:
        """diag f″(θᵢ)."""
        return Diagonal(self._bend(_within(theta, self.domain)))

    def curvature(self, theta: Array, v: Array) -> Array:
        """Σ f″(θᵢ) vᵢ²; an infinite f″ counts for nothing where vᵢ is 0."""
        bend = jnp.where(v == 0, 0.0, self._bend(_within(theta, self.domain)))
        return (bend * v * v).sum()

    def divergence(self, theta: Array, base: Array) -> Array:
        """Σ D_f(θᵢ, θ′ᵢ), every term nonnegative and to a few ε."""
        theta, base = _within(theta, self.domain), _within(base, self.domain)
        return self._divergence(theta, base).sum()

    def gap(self, theta: Array, eta: Array) -> Array:
        """Σ f(θᵢ) + f*(ηᵢ) − θᵢηᵢ, every term nonnegative and to a few ε."""
        theta, eta = _within(theta, self.domain), _within(eta, self._image(), closed=True)
        return self._gap(theta, eta).sum()


def _inside(x: Array, interval: tuple[float, float], *, closed: bool = False) -> Array:
    low, high = interval
    within = (x >= low) & (x <= high) if closed else (x > low) & (x < high)
    return within & jnp.isfinite(x)


def _within(x: Array, interval: tuple[float, float], *, closed: bool = False) -> Array:
    """x, with NaN, in the derivative too, for entries outside."""
    return x * jnp.where(_inside(x, interval, closed=closed), 1.0, jnp.nan).astype(x.dtype)
