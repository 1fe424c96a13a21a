"""Learning a law from data: sufficient statistics that merge, maximum likelihood, conjugate priors."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry._tree import register
from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.base import Family
from dualflat.geometry.legendre import to_theta
from dualflat.geometry.metric import gradient
from dualflat.geometry.potential import checked_points, in_domain


@register
@dataclasses.dataclass(frozen=True)
class Statistics:
    """All that a family needs to know of weighted data, whatever their number.

    Those of two shards add up (`a + b`) to those of both, in any order, so that a mean over devices
    is one all-reduce of weight and `total`. The mean is kept and not the sum: merging moves it by a part of a
    difference, and data far from 0 lose nothing.

    Attributes:
      weight: Σ w, shape ().
      mean: Σ w T(x)/Σ w, shape (n,): the η of the data.
      log_base: Σ w log h(x), shape ().
    """

    weight: Array
    mean: Array
    log_base: Array

    def __add__(self, other: "Statistics") -> "Statistics":
        weight = self.weight + other.weight
        share = jnp.where(weight > 0, other.weight / jnp.where(weight > 0, weight, 1.0), 0.0)
        mean = self.mean + share * (other.mean - self.mean)
        return Statistics(weight, mean, self.log_base + other.log_base)

    @property
    def total(self) -> Array:
        """Σ w T(x), shape (n,)."""
        return self.weight * self.mean


def statistics(family: Family, x: Array, weights: Array | None = None) -> Statistics:
    """The sufficient statistics of a batch of events.

    Args:
      family: the family.
      x: shape (count, *event_shape).
      weights: shape (count,), not negative; 1 each if left out. An event of weight 0 counts for
        nothing, whatever it is: padding is masked by it.

    Returns:
      `Statistics`. NaN where an event of positive weight is outside the support, or a weight is
      negative.

    Raises:
      ValueError: for shapes that do not fit.

    >>> from dualflat.geometry.families.poisson import Poisson
    >>> statistics(Poisson(), jnp.array([1.0, 3.0])).mean
    Array([2.], dtype=float32)
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = x.astype(jnp.result_type(float))
    if jnp.iscomplexobj(x) and not getattr(family, "complex_events", False):
        raise ValueError(f"statistics: x is {x.dtype}. Events of {type(family).__name__} are real.")
    if x.ndim != 1 + len(family.event_shape) or x.shape[1:] != family.event_shape:
        raise ValueError(
            f"statistics: x has shape {x.shape}. Wanted (count, *{family.event_shape}), a batch of"
            f" events of {type(family).__name__}."
        )
    w = jnp.ones(x.shape[0], x.real.dtype) if weights is None else jnp.asarray(weights)
    if w.shape != x.shape[:1]:
        raise ValueError(f"statistics: weights have shape {w.shape}. Wanted {x.shape[:1]}.")
    w = w.astype(x.real.dtype)
    base = jax.vmap(family.log_base)(x)
    values = jax.vmap(family.statistic)(x)
    good = jnp.isfinite(base) & (w > 0)
    bad = (~jnp.isfinite(base) & (w > 0)) | ~(w >= 0)
    weight = w.sum()
    share = jnp.where(good, w / jnp.where(weight > 0, weight, 1.0), 0.0)
    mean = share @ jnp.where(good[:, None], values, 0.0)
    log_base = jnp.where(good, w * jnp.where(good, base, 0.0), 0.0).sum()
    mark = jnp.where(bad.any(), jnp.nan, 1.0).astype(mean.dtype)
    return Statistics(weight, mean * mark, log_base * mark)


def fit(family: Family, data: Array | Statistics, weights: Array | None = None) -> Array:
    """The law of largest likelihood: the one whose mean of T is that of the data, θ(η).

    Args:
      family: the family.
      data: `Statistics`, or events of shape (count, *event_shape).
      weights: with events, as in `statistics`.

    Returns:
      θ, shape (n,); NaN where no law of the family has the largest likelihood: too few events, or
      all at an edge (ten coins that all fell on one side).

    >>> from dualflat.geometry.families.gamma import Gamma
    >>> shape, minus_rate = fit(Gamma(), jnp.array([1.0, 2.0, 4.0]))
    >>> print(f"{shape:.3f} {minus_rate:.3f}")
    3.401 -1.458
    """
    if not isinstance(data, Statistics):
        data = statistics(family, data, weights)
    some = jnp.where(data.weight > 0, 1.0, jnp.nan).astype(data.mean.dtype)  # no data, no law
    return to_theta(family, data.mean * some)


def log_likelihood(family: Family, theta: Array, data: Statistics) -> Array:
    """Σ w log p(x; θ) of data of which only the statistics are known."""
    (theta,) = checked_points(family, "log_likelihood", theta=theta)
    value = data.weight * (theta @ data.mean - family(theta)) + data.log_base
    return value * jnp.where(in_domain(family, theta), 1.0, jnp.nan).astype(theta.dtype)


@runtime_checkable
class Conjugate(Family, Protocol):
    """A family that knows its conjugate prior.

    `prior()` is a family of laws of the parameters, and with its own statistic S the likelihood of
    data is proportional to exp⟨step, S⟩ where `step = prior_step(weight, total)` depends on the data
    by their weight and Σ w T(x) only, linearly. `law_of` turns an event of the prior into a θ. Where the
    likelihood has a constant besides, `prior_level()` is its logarithm for one observation.
    """

    def prior(self) -> Family:
        """The family of the prior's laws."""
        ...

    def law_of(self, parameter: Array) -> Array:
        """θ of the law with the parameters that are an event of the prior."""
        ...

    def prior_step(self, weight: Array, total: Array) -> Array:
        """What data add to the prior's natural parameters."""
        ...


def posterior(family: Conjugate, prior_theta: Array, data: Statistics) -> Array:
    """The natural parameters of the posterior, a law of `family.prior()`: those of the prior, plus a step.

    In natural coordinates Bayes' rule is an addition, so that data may come in any order and from
    anywhere.

    >>> from dualflat.geometry.families.binomial import Bernoulli
    >>> coins = statistics(Bernoulli(), jnp.array([1.0, 0.0, 1.0, 1.0]))
    >>> posterior(Bernoulli(), jnp.array([1.0, 1.0]), coins)  # Beta(1 + 3, 1 + 1)
    Array([4., 2.], dtype=float32)
    """
    prior = _prior(family, "posterior")
    (prior_theta,) = checked_points(prior, "posterior", prior_theta=prior_theta)
    good = in_domain(prior, prior_theta)
    prior_theta = prior_theta * jnp.where(good, 1.0, jnp.nan).astype(prior_theta.dtype)
    return prior_theta + family.prior_step(data.weight, data.total)


def log_evidence(family: Conjugate, prior_theta: Array, data: Statistics) -> Array:
    """log ∫ p(data | parameters) dprior = A(posterior) − A(prior) + Σ w log h(x), A the prior's ψ.

    A Legendre pair again: the evidence is a difference of two values of the prior's potential. Where
    the step is short it is ⟨step, ∇A⟩ plus a Bregman divergence, of which the last is small and
    exact; so it is computed.
    """
    prior = _prior(family, "log_evidence")
    (prior_theta,) = checked_points(prior, "log_evidence", prior_theta=prior_theta)
    step = family.prior_step(data.weight, data.total)
    rise = step @ gradient(prior, prior_theta) + bregman(prior, prior_theta + step, prior_theta)
    level = getattr(family, "prior_level", None)
    return rise + data.log_base + (0.0 if level is None else data.weight * level())


def log_predictive(family: Conjugate, prior_theta: Array, x: Array) -> Array:
    """log p(x) of the next event, the parameters averaged over the prior (or a posterior)."""
    return log_evidence(family, prior_theta, statistics(family, jnp.asarray(x)[None]))


def _prior(family: Any, where: str) -> Family:
    known = getattr(family, "prior", None)
    if known is None:
        raise ValueError(
            f"{where}: {type(family).__name__} knows no conjugate prior. Those that do have the"
            " methods prior() and prior_step(weight, total)."
        )
    return known()
