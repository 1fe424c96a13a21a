"""Exponential families: a potential ψ, a statistic T and a base measure h; what all of them share.

A family is a potential (see `potential.Potential`), so that all of the geometry applies to it; and
it knows the laws whose geometry that is. What is said here is true of every family and is written
once; a family's own file says what only it knows.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import compiled
from dualflat.geometry.divergence import bregman, fenchel_young
from dualflat.geometry.metric import gradient
from dualflat.geometry.potential import Potential, checked_points, in_domain, knowledge


@runtime_checkable
class Family(Potential, Protocol):
    """An exponential family of laws on some set of events x,

        p(x; θ) = h(x) exp(⟨θ, T(x)⟩ − ψ(θ)),    η = E T(X).

    Beside what a potential may know, a family says

    | attribute | what it says |
    | --- | --- |
    | `event_shape` | the shape of one x, a tuple |
    | `statistic(x)` | T(x), shape (n,); NaN where x is outside the support |
    | `log_base(x)` | log h(x), shape (); −∞ outside the support, NaN for NaN |
    | `draw(key, theta, shape)` | independent x, shape (*shape, *event_shape) |
    | `to_usual(theta)` | the parameters of the textbooks, a dict of arrays |
    | `from_usual(**parameters)` | θ from them; NaN where they are impossible |

    and it may know, to be faster or more accurate than what follows from those,

    | attribute | what it says |
    | --- | --- |
    | `log_saturated(x)` | log h(x) + φ(T(x)), the log-density at x of the law whose mean is T(x) |
    | `log_density(theta, x)` | log p(x; θ), without cancellation |
    | `mean_log_base(theta)` | E log h(X) |
    | `entropy(theta)` | −E log p(X; θ), without cancellation |
    | `complex_events` | True if events are complex numbers |

    Densities are with respect to the measure that the family's docstring names: counting, Lebesgue,
    or that of a sphere; h is part of the density.
    """

    @property
    def dim(self) -> int:
        """n."""
        ...

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        ...

    def statistic(self, x: Array) -> Array:
        """T(x), shape (n,)."""
        ...

    def log_base(self, x: Array) -> Array:
        """log h(x), shape ()."""
        ...

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Independent events."""
        ...

    def to_usual(self, theta: Array) -> Mapping[str, Array]:
        """The parameters of the textbooks."""
        ...

    def from_usual(self, *args: Any, **parameters: Any) -> Array:
        """θ from them."""
        ...


def log_prob(family: Family, theta: Array, x: Array) -> Array:
    """log p(x; θ): the logarithm of the probability of x, or of its density.

    The book's ⟨θ, T(x)⟩ − ψ(θ) + log h(x) subtracts numbers that agree when the law is narrow (for
    a Poisson count of 1e10 they are 1e11, and the result −12). Where the family knows the density of
    the law that fits x best, the value is that less the Fenchel-Young gap, of which neither loses
    digits:

        log p(x; θ) = [log h(x) + φ(T(x))] − [ψ(θ) + φ(T(x)) − ⟨θ, T(x)⟩].

    The derivatives are the true ones: ∂θ = T(x) − η, and in x that of ⟨θ, T(x)⟩ + log h(x).

    Args:
      family: the family.
      theta: shape (n,).
      x: one event, shape `family.event_shape`; integers are taken as numbers.

    Returns:
      shape (). −∞ outside the support; NaN, with a NaN gradient, for θ outside the domain or x NaN.

    Raises:
      ValueError: for shapes that do not fit the family.

    >>> from dualflat.geometry.families.poisson import Poisson
    >>> log_prob(Poisson(), jnp.array([0.0]), 2).round(4)  # −1 − log 2
    Array(-1.6931, dtype=float32)
    """
    theta, x = _checked(family, "log_prob", theta, x)
    return _log_prob_compiled(family, theta, x)


@jax.custom_jvp
def _log_prob(family: Family, theta: Array, x: Array) -> Array:
    density, saturated = (knowledge(family, n) for n in ("log_density", "log_saturated"))
    base = family.log_base(x)
    # Off the support T(x) may be anything; what is computed there is thrown away.
    if density is not None:
        value = density(theta, x)
    elif saturated is not None:
        value = saturated(x) - fenchel_young(family, theta, family.statistic(x))
    else:
        value = theta @ family.statistic(x) - family(theta) + base
    value = jnp.where(base == -jnp.inf, -jnp.inf, value)
    return value * _one_or_nan(in_domain(family, theta) & ~jnp.isnan(base), theta.dtype)


@_log_prob.defjvp
def _log_prob_jvp(primals, tangents):
    family, theta, x = primals
    family_dot, theta_dot, x_dot = tangents
    value = _log_prob(family, theta, x)
    change = (family.statistic(x) - gradient(family, theta)) @ theta_dot

    def of_the_rest(family, x):
        return theta @ family.statistic(x) - family(theta) + family.log_base(x)

    change = change + jax.jvp(of_the_rest, (family, x), (family_dot, x_dot))[1]
    good = in_domain(family, theta) & jnp.isfinite(value)
    return value, change * _one_or_nan(good, theta.dtype)


_log_prob_compiled = compiled(_log_prob)


def sample(family: Family, key: Array, theta: Array, shape: int | tuple[int, ...] = ()) -> Array:
    """Independent draws from the law θ.

    Args:
      family: the family.
      key: one `jax.random.key`.
      theta: shape (n,).
      shape: how many, a number or a shape.

    Returns:
      shape (*shape, *event_shape), in the dtype of θ; counts are whole numbers in that dtype. NaN
      for θ outside the domain.

    Raises:
      ValueError: for anything but one key, and for a θ that does not fit.

    >>> from dualflat.geometry.families.poisson import Poisson
    >>> sample(Poisson(), jax.random.key(0), jnp.array([1.0]), 1000).mean().round(1)  # exp 1
    Array(2.7, dtype=float32)
    """
    (theta,) = checked_points(family, "sample", theta=theta)
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.shape != ():
        found = f"{getattr(key, 'dtype', type(key).__name__)} of shape {getattr(key, 'shape', ())}"
        raise ValueError(
            f"sample: key is {found}. Wanted one key, as jax.random.key(seed) or one of"
            " jax.random.split makes it; an old one goes through jax.random.wrap_key_data."
        )
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    good = in_domain(family, theta)
    return family.draw(key, theta, shape) * _one_or_nan(good, theta.dtype)


def kl(family: Family, theta: Array, other: Array) -> Array:
    """KL(p_θ ‖ p_θ′) = E_θ log p_θ/p_θ′ ≥ 0, in nats: the Bregman divergence D(θ′, θ) of ψ.

    Of two laws of one family, at any distance, without cancellation; see `divergence.bregman`.

    >>> from dualflat.geometry.families.poisson import Poisson
    >>> kl(Poisson(), jnp.log(jnp.array([2.0])), jnp.log(jnp.array([1.0]))).round(4)  # 2 log 2 − 1
    Array(0.3863, dtype=float32)
    """
    return bregman(family, other, theta)


def entropy(family: Family, theta: Array) -> Array:
    """−E log p(X; θ) = −φ(η) − E log h(X), in nats; differential entropy for densities.

    Computed as ψ(θ) − ⟨θ, η⟩ − E log h(X), unless the family knows better.

    Returns:
      shape (); NaN outside the domain.

    Raises:
      NotImplementedError: if the family knows no E log h(X).
    """
    (theta,) = checked_points(family, "entropy", theta=theta)
    own, mean_log_base = (knowledge(family, n) for n in ("entropy", "mean_log_base"))
    if own is not None:
        value = own(theta)
    elif mean_log_base is not None:
        value = family(theta) - theta @ gradient(family, theta) - mean_log_base(theta)
    else:
        raise NotImplementedError(
            f"entropy: {type(family).__name__} does not know the mean of log h. Give it a method"
            " mean_log_base(theta), or entropy(theta)."
        )
    return value * _one_or_nan(in_domain(family, theta), theta.dtype)


def cross_entropy(family: Family, theta: Array, other: Array) -> Array:
    """−E_θ log p(X; θ′) = entropy of θ + KL(p_θ ‖ p_θ′): what coding θ's events for θ′ costs."""
    return entropy(family, theta) + kl(family, theta, other)


def _checked(family: Family, where: str, theta: Any, x: Any) -> tuple[Array, Array]:
    (theta,) = checked_points(family, where, theta=theta)
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating) and not knowledge(family, "complex_events"):
        raise ValueError(f"{where}: x is {x.dtype}. Events of {type(family).__name__} are real.")
    if x.shape != family.event_shape:
        raise ValueError(
            f"{where}: x has shape {x.shape}. Wanted {family.event_shape}, one event of"
            f" {type(family).__name__}; for a batch use jax.vmap."
        )
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(theta.dtype)
    return theta, x


def _one_or_nan(good: Array, dtype: Any) -> Array:
    return jnp.where(good, 1.0, jnp.nan).astype(dtype)
