"""Waiting times and their like, with one rate: ψ(θ) = −log(−θ) for all of them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics
from dualflat.geometry._tree import known_numbers, register
from dualflat.geometry.families._image import Image
from dualflat.geometry.families._scalar import Scalar, number, on_support, point
from dualflat.geometry.families.gamma import Gamma

_EULER = 0.5772156649015329


@dataclasses.dataclass(frozen=True)
class _Rate(Scalar):
    """θ is minus the rate of an exponential variate T(X)."""

    domain = (-jnp.inf, 0.0)
    range = (0.0, jnp.inf)
    middle = -1.0

    def _value(self, t: Array) -> Array:
        return -jnp.log(-t)

    def _slope(self, t: Array) -> Array:
        return -1 / t

    def _bend(self, t: Array) -> Array:
        return 1 / (t * t)

    def _inverse(self, s: Array) -> Array:
        return -1 / s

    def _conjugate(self, s: Array) -> Array:
        return -1 - jnp.log(s)

    def _divergence(self, t: Array, base: Array) -> Array:
        return _numerics.log_excess(-t, -base)

    def prior(self) -> Gamma:
        """Laws of the rate −θ."""
        return Gamma()

    def law_of(self, parameter: Array) -> Array:
        """θ at the rate −θ."""
        return _minus_positive(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(number of observations, −Σ T)."""
        return jnp.stack([weight, -total[0]])


@register
@dataclasses.dataclass(frozen=True)
class Exponential(_Rate):
    """Exponential laws on x > 0 with rate β; with respect to Lebesgue measure.

        T(x) = x,  h = 1,    θ = −β,    η = 1/β,    ψ(θ) = −log(−θ),    φ(η) = −1 − log η.

    The domain is θ < 0, the range of η (0, ∞).

    >>> Exponential().to_eta(jnp.array([-4.0]))
    Array([0.25], dtype=float32)
    """

    def log_base(self, x: Array) -> Array:
        """0 for x ≥ 0, −∞ below."""
        return on_support(x, (x >= 0) & (x < jnp.inf), jnp.zeros_like(x))

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)

    def entropy(self, theta: Array) -> Array:
        """1 − log β."""
        return 1 - jnp.log(-number(theta))

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """−log u/β."""
        return jax.random.exponential(key, shape, theta.dtype) / -number(theta)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`rate`, β = −θ."""
        return {"rate": _negated(theta)}

    def from_usual(self, rate: Array) -> Array:
        """θ = −β; NaN unless 0 < β < ∞."""
        return _minus_positive(rate)


@register
@dataclasses.dataclass(frozen=True)
class Laplace(_Rate):
    """Laplace's laws around a fixed location a, with scale b; with respect to Lebesgue measure.

        T(x) = |x − a|,  h = ½,    θ = −1/b,    η = b,    ψ(θ) = −log(−θ).

    The location is no natural parameter: with a free one this is no exponential family.

    Attributes:
      location: a, a number or a traced scalar.

    >>> Laplace(0.0).from_usual(scale=2.0)
    Array([-0.5], dtype=float32)
    """

    location: Any = 0.0

    def __post_init__(self):
        _wanted("Laplace", "location", self.location, -math.inf)

    def _statistic(self, x: Array) -> Array:
        return jnp.abs(x - self.location)

    def log_base(self, x: Array) -> Array:
        """−log 2."""
        return on_support(x, jnp.isfinite(x), jnp.full_like(x, -math.log(2)))

    def mean_log_base(self, theta: Array) -> Array:
        """−log 2."""
        return jnp.full((), -math.log(2), theta.dtype)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """a ± an exponential variate."""
        noise = jax.random.laplace(key, shape, theta.dtype)
        return jnp.asarray(self.location, theta.dtype) - noise / number(theta)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`scale`, b = −1/θ."""
        return {"scale": 1 / _negated(theta)}

    def from_usual(self, scale: Array) -> Array:
        """θ = −1/b; NaN unless 0 < b < ∞."""
        return 1 / _minus_positive(scale)


@dataclasses.dataclass(frozen=True)
class _ImageOfExponential(Image):
    """Laws of f(Y) for an exponential Y with rate −θ."""

    def _source(self) -> Exponential:
        return Exponential()

    def prior(self) -> Gamma:
        """Laws of the rate −θ."""
        return Gamma()

    def law_of(self, parameter: Array) -> Array:
        """θ at the rate −θ."""
        return _minus_positive(parameter)

    def prior_step(self, weight: Array, total: Array) -> Array:
        """(number of observations, −Σ T)."""
        return jnp.stack([weight, -total[0]])


@register
@dataclasses.dataclass(frozen=True)
class Weibull(_ImageOfExponential):
    """Weibull's laws on x > 0 with a fixed shape k and a scale s; with respect to Lebesgue measure.

        T(x) = xᵏ,  h = kx^(k−1),    θ = −s^−k,    η = sᵏ,    ψ(θ) = −log(−θ).

    x = y^(1/k) for an exponential y with rate −θ. The shape is no natural parameter.

    Attributes:
      shape: k > 0, a number or a traced scalar.

    >>> Weibull(2.0).from_usual(scale=2.0)
    Array([-0.25], dtype=float32)
    """

    shape: Any

    def __post_init__(self):
        _wanted("Weibull", "shape", self.shape, 0.0)

    def _forward(self, y: Array) -> Array:
        return y ** (1 / jnp.asarray(self.shape, y.dtype))

    def _backward(self, x: Array) -> Array:
        return x ** jnp.asarray(self.shape, x.dtype)

    def _log_slope(self, x: Array) -> Array:
        shape = jnp.asarray(self.shape, x.dtype)
        return jnp.log(shape) + (shape - 1) * jnp.log(x)

    def _supports(self, x: Array) -> Array:
        return (x > 0) & (x < jnp.inf)

    def _mean_log_slope(self, theta: Array) -> Array:
        shape = jnp.asarray(self.shape, theta.dtype)
        return jnp.log(shape) + (1 - 1 / shape) * _mean_log(theta)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`scale`, s = (−θ)^(−1/k)."""
        return {"scale": self._forward(1 / _negated(theta))}

    def from_usual(self, scale: Array) -> Array:
        """θ = −s^−k; NaN unless 0 < s < ∞."""
        return -self._backward(-1 / _minus_positive(scale))


@register
@dataclasses.dataclass(frozen=True)
class Rayleigh(_ImageOfExponential):
    """Rayleigh's laws on x > 0: the length of a plane normal vector with standard deviations σ.

        T(x) = x²,  h = 2x,    θ = −1/2σ²,    η = 2σ²,    ψ(θ) = −log(−θ),

    with respect to Lebesgue measure. x² is exponential with rate −θ.

    >>> Rayleigh().from_usual(scale=2.0)
    Array([-0.125], dtype=float32)
    """

    def _forward(self, y: Array) -> Array:
        return jnp.sqrt(y)

    def _backward(self, x: Array) -> Array:
        return x * x

    def _log_slope(self, x: Array) -> Array:
        return jnp.log(2 * x)

    def _supports(self, x: Array) -> Array:
        return (x > 0) & (x < jnp.inf)

    def _mean_log_slope(self, theta: Array) -> Array:
        return math.log(2) + _mean_log(theta) / 2

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`scale`, σ = 1/√(−2θ)."""
        return {"scale": 1 / jnp.sqrt(2 * _negated(theta))}

    def from_usual(self, scale: Array) -> Array:
        """θ = −1/2σ²; NaN unless 0 < σ < ∞."""
        return -0.5 / _minus_positive(scale) ** 2


@register
@dataclasses.dataclass(frozen=True)
class Pareto(_ImageOfExponential):
    """Pareto's laws on x > m for a fixed scale m, with tail index a; with respect to Lebesgue measure.

        T(x) = log x/m,  h = 1/x,    θ = −a,    η = 1/a,    ψ(θ) = −log(−θ).

    log x/m is exponential with rate a. The scale is the edge of the support, no natural parameter.

    Attributes:
      scale: m > 0, a number or a traced scalar.

    >>> Pareto(1.0).to_eta(jnp.array([-2.0]))  # E log x
    Array([0.5], dtype=float32)
    """

    scale: Any

    def __post_init__(self):
        _wanted("Pareto", "scale", self.scale, 0.0)

    def _forward(self, y: Array) -> Array:
        return jnp.asarray(self.scale, y.dtype) * jnp.exp(y)

    def _backward(self, x: Array) -> Array:
        return _numerics.log_quotient(
            x, jnp.broadcast_to(jnp.asarray(self.scale, x.dtype), x.shape)
        )

    def _log_slope(self, x: Array) -> Array:
        return -jnp.log(x)

    def _supports(self, x: Array) -> Array:
        return (x >= self.scale) & (x < jnp.inf)

    def _mean_log_slope(self, theta: Array) -> Array:
        return 1 / number(theta) - jnp.log(jnp.asarray(self.scale, theta.dtype))

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`index`, a = −θ."""
        return {"index": _negated(theta)}

    def from_usual(self, index: Array) -> Array:
        """θ = −a; NaN unless 0 < a < ∞."""
        return _minus_positive(index)


def _mean_log(theta: Array) -> Array:
    """E log Y of an exponential Y with rate −θ."""
    return -_EULER - jnp.log(-number(theta))


def _negated(theta: Array) -> Array:
    """−θ as a number; NaN unless θ < 0 is finite."""
    t = number(theta)
    return jnp.where((t < 0) & (t > -jnp.inf), -t, jnp.nan)


def _minus_positive(value: Array) -> Array:
    """Minus one positive number as a point; NaN for others."""
    value = point(value)
    return jnp.where((value > 0) & (value < jnp.inf), -value, jnp.nan)


def _wanted(kind: str, name: str, value: Any, above: float) -> None:
    known = known_numbers(value)
    if known is not None and not (known.shape == () and above < known < math.inf):
        positive = "positive" if above == 0 else "finite"
        raise ValueError(f"{kind}: {name} is {value!r}. Wanted one {positive} number.")
