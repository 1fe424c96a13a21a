"""Generalized inverse Gaussian laws."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import bessel
from dualflat.geometry._tree import register
from dualflat.geometry.families._scalar import on_support, point
from dualflat.geometry.operators import Dense


@register
@dataclasses.dataclass(frozen=True)
class GeneralizedInverseGaussian:
    """Generalized inverse Gaussian laws on x > 0; with respect to Lebesgue measure.

        T(x) = (log x, x, 1/x),  h = 1/x,    θ = (q, −a/2, −b/2),    ω = √(ab),
        ψ(θ) = log 2K_q(ω) + (q/2) log b/a,    η = (E log X, E X, E 1/X).

    The domain is a, b > 0 and any real q; for b = 0 or a = 0 they are gamma and inverse gamma laws,
    which are families of their own. With x = y√(b/a) everything is about the density
    y^(q−1) exp(−ω(y + 1/y)/2): its moments are taken by one quadrature of positive terms, none by a
    difference of Bessel functions. θ(η) is searched.

    >>> gig = GeneralizedInverseGaussian()
    >>> psi = gig(gig.from_usual(order=0.5, a=1.0, b=1.0))
    >>> print(f"{psi:.4f}")  # log 2K_½(1) = ½ log 2π − 1
    -0.0811
    """

    @property
    def dim(self) -> int:
        """3."""
        return 3

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is a number."""
        return ()

    def in_domain(self, theta: Array) -> Array:
        """Are a and b positive, and θ finite?"""
        return jnp.isfinite(theta).all() & (theta[1] < 0) & (theta[2] < 0)

    def in_dual_domain(self, eta: Array) -> Array:
        """Is log E X > E log X > −log E 1/X?"""
        positive = (eta[1:] > 0).all() & jnp.isfinite(eta).all()
        logs = jnp.log(jnp.where(positive, eta[1:], 1.0))
        return positive & (logs[0] > eta[0]) & (eta[0] > -logs[1])

    def starting_point(self, dtype: Any) -> Array:
        """q = 0, a = b = 1."""
        return jnp.array([0.0, -0.5, -0.5], dtype)

    def guess(self, eta: Array) -> Array:
        """The inverse Gaussian-like law q = 0 with the scale √(E X/E 1/X), and ω from E X · E 1/X.

        R = √(E X · E 1/X) is K_{1}/K_{0}(ω) there, about 1 + 1/2ω.
        """
        scale = jnp.sqrt(eta[1] / eta[2])
        spread = jnp.sqrt(eta[1] * eta[2]) - 1
        omega = 0.5 / jnp.where(spread > 0, spread, jnp.nan)
        return jnp.stack([jnp.zeros_like(omega), -omega / scale / 2, -omega * scale / 2])

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar; NaN outside the domain."""
        order, omega, level = _frame(theta)
        return math.log(2) + bessel.log_kv(order, omega) + order * level

    def to_eta(self, theta: Array) -> Array:
        """(E log X, E X, E 1/X)."""
        return _means(theta)

    def hessian(self, theta: Array) -> Dense:
        """The covariance of (log X, X, 1/X)."""
        return Dense(_covariance(theta))

    # --- laws ------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """(log x, x, 1/x)."""
        return jnp.stack([jnp.log(x), x, 1 / x])

    def log_base(self, x: Array) -> Array:
        """−log x; −∞ for x ≤ 0."""
        inside = (x > 0) & (x < jnp.inf)
        return on_support(x, inside, -jnp.log(jnp.where(inside, x, 1.0)))

    def mean_log_base(self, theta: Array) -> Array:
        """−E log X."""
        return -self.to_eta(theta)[0]

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """By the ratio of uniforms in log y about the mode, for a log-concave density of log y.

        With s = log(y/mode) the density is exp(g(s)), g(0) = 0 its maximum. A box around the flat top
        and two exponential tails from where g = −1 (Devroye 1986) accept more than one half.
        """
        order, omega, level = _frame(theta)
        mode = jnp.arcsinh(order / omega)

        def g(s):
            return order * s - omega * (jnp.cosh(mode + s) - jnp.cosh(mode))

        def slope(s):
            return order - omega * jnp.sinh(mode + s)

        curvature = omega * jnp.cosh(mode)

        def edge(sign):
            s = sign * jnp.minimum(jnp.sqrt(2 / curvature), 30.0)
            for _ in range(20):  # Newton for g(s) = −1 from within: g is concave
                s = s - (g(s) + 1) / slope(s)
            return s

        left, right = edge(-1.0), edge(1.0)
        rate_left, rate_right = slope(left), -slope(right)
        mass_left, mass_right = (
            math.exp(-1) / rate_left,
            math.exp(-1) / rate_right,
        )
        middle = right - left
        total = mass_left + middle + mass_right
        least = float(jnp.finfo(theta.dtype).tiny)

        def propose(state):
            key, found, done, steps = state
            key, *keys = jax.random.split(key, 4)
            u, v, w = (jax.random.uniform(k, shape, theta.dtype, minval=least) for k in keys)
            u = u * total
            in_left, in_right = u < mass_left, u > mass_left + middle
            s = left + (u - mass_left)
            s = jnp.where(in_left, left + jnp.log(v) / rate_left, s)
            s = jnp.where(in_right, right - jnp.log(v) / rate_right, s)
            hat = jnp.where(in_left, -1 + rate_left * (s - left), 0.0)
            hat = jnp.where(in_right, -1 - rate_right * (s - right), hat)
            good = (jnp.log(w) + hat <= g(s)) & ~done
            return key, jnp.where(good, s, found), done | good, steps + 1

        state = key, jnp.zeros(shape, theta.dtype), jnp.zeros(shape, bool), 0
        _, s, done, _ = jax.lax.while_loop(lambda x: ~x[2].all() & (x[3] < 1000), propose, state)
        return jnp.exp(jnp.where(done, s, jnp.nan) + mode + level)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`order` q, `a` and `b`."""
        order, a, b = jnp.where(self.in_domain(theta), theta, jnp.nan)
        return {"order": order, "a": -2 * a, "b": -2 * b}

    def from_usual(self, order: Array, a: Array, b: Array) -> Array:
        """θ = (q, −a/2, −b/2); NaN unless q is finite and a, b are positive and finite."""
        theta = jnp.concatenate([point(order), -point(a) / 2, -point(b) / 2])
        return jnp.where(self.in_domain(theta), theta, jnp.nan)


def _frame(theta: Array) -> tuple[Array, Array, Array]:
    """q, ω = √(ab) and ½ log b/a; NaN outside the domain."""
    good = jnp.isfinite(theta).all() & (theta[1] < 0) & (theta[2] < 0)
    a, b = -2 * theta[1:] * jnp.where(good, 1.0, jnp.nan).astype(theta.dtype)
    return theta[0], jnp.sqrt(a) * jnp.sqrt(b), 0.5 * (jnp.log(b) - jnp.log(a))


def _by_autodiff(theta: Array) -> Array:
    return jax.grad(GeneralizedInverseGaussian().__call__)(theta)


@jax.custom_jvp
def _means(theta: Array) -> Array:
    order, omega, level = _frame(theta)
    _, mean, _ = bessel.log_kv_moments(order, omega)
    scale = jnp.exp(level)
    return jnp.stack([mean[0] + level, mean[1] * scale, mean[2] / scale])


@_means.defjvp
def _means_jvp(primals, tangents):
    return _means(*primals), _covariance(*primals) @ tangents[0]


@jax.custom_jvp
def _covariance(theta: Array) -> Array:
    order, omega, level = _frame(theta)
    *_, covariance = bessel.log_kv_moments(order, omega)
    scale = jnp.stack([jnp.ones_like(level), jnp.exp(level), jnp.exp(-level)])
    square = jnp.tril(covariance * scale[:, None] * scale[None, :])
    return square + jnp.tril(square, -1).T


@_covariance.defjvp
def _covariance_jvp(primals, tangents):
    # The quadrature of the moments is not to be differentiated; log K is, to every order.
    return _covariance(*primals), jax.jvp(jax.jacfwd(_by_autodiff), primals, tangents)[1]
