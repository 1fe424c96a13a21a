"""Laws of directions: von Mises and Fisher's on spheres, von Mises' on the circle."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics, bessel
from dualflat.geometry._tree import register, settle_size
from dualflat.geometry.families._image import Borrowed
from dualflat.geometry.families._scalar import on_support
from dualflat.geometry.operators import DiagonalMinusRankOne


@register
@dataclasses.dataclass(frozen=True)
class VonMisesFisher:
    """Von Mises and Fisher's laws of unit vectors x in ℝᵖ; with respect to the sphere's surface.

        T(x) = x,  h = 1,    θ = κμ,    η = A(κ)μ,  A = I_{ν+1}/I_ν,  ν = p/2 − 1,
        ψ(θ) = log |S^{p−1}| + log ₀F₁(p/2; κ²/4),    G = (A/κ)(I − μμᵀ) + A′(κ) μμᵀ,

    with the concentration κ = |θ| and the mean direction μ. The domain is ℝᵖ, the range of η the open
    unit ball: 0 is the uniform law, and a point like any other. Everything about κ is from `bessel`,
    right from κ = 1e-300 to 1e12 and to orders of 1e5; in particular A′ and 1 − A are not the differences
    of the textbooks. The divergence is a radial one, whose integrand is positive, and one of angles,

        KL(θ′ ‖ θ) = ψ(κ) − ψ(κ′) − A(κ′)(κ − κ′) + A(κ′) κ (1 − cos∠).

    Near |η| = 1 the concentration is in 1 − |η|, which η has rounded: see `from_resultant`.

    Attributes:
      p: the dimension of the space, at least 2.

    >>> VonMisesFisher(3).to_eta(jnp.array([0.0, 0.0, 1.0])).round(4)  # coth 1 − 1
    Array([0.   , 0.   , 0.313], dtype=float32)
    """

    p: int = dataclasses.field(metadata={"static": True})

    def __post_init__(self):
        settle_size(self, "p", 2, "the dimension of the space that holds the sphere")

    @property
    def dim(self) -> int:
        """p."""
        return self.p

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(p,)."""
        return (self.p,)

    @property
    def _order(self) -> float:
        return self.p / 2 - 1

    @property
    def _log_area(self) -> float:
        return math.log(2) + self.p / 2 * math.log(math.pi) - math.lgamma(self.p / 2)

    def in_domain(self, theta: Array) -> Array:
        """Is θ finite?"""
        return jnp.isfinite(theta).all() & (_norm(theta) < jnp.inf)

    def in_dual_domain(self, eta: Array) -> Array:
        """Is |η| < 1?"""
        return _norm(eta) < 1

    def starting_point(self, dtype: Any) -> Array:
        """The uniform law."""
        return jnp.zeros(self.p, dtype)

    def __call__(self, theta: Array, /) -> Array:
        """ψ(θ), a scalar."""
        return _log_normalizer(self, theta)

    def _per(self, kappa: Array) -> Array:
        """A(κ)/κ, which is 1/p at 0."""
        small = kappa == 0
        safe = jnp.where(small, 1.0, kappa)
        return jnp.where(small, 1 / self.p, bessel.bessel_ratio(self._order, safe) / safe)

    def to_eta(self, theta: Array) -> Array:
        """(A/κ)θ, shape (p,)."""
        return self._per(_length(theta)) * theta

    def to_theta(self, eta: Array) -> Array:
        """κη/|η| with A(κ) = |η|; NaN unless |η| < 1."""
        length = _length(eta)
        small = length == 0
        safe = jnp.where(small, 0.5, length)
        kappa = bessel.inverse_bessel_ratio(self._order, safe)
        return jnp.where(small, float(self.p), kappa / safe) * eta

    def from_resultant(self, direction: Array, complement: Array) -> Array:
        """θ of the law with mean direction μ (p,) and 1 − |η| = `complement` in (0, 1].

        For concentrated laws, of which |η| is 1 to the last digit: 1 − |η| is about (p − 1)/2κ. NaN for
        a direction that is not of length 1 to a few roundings.
        """
        direction = jnp.asarray(direction)
        rest = jnp.asarray(complement, direction.dtype)
        kappa = bessel.inverse_bessel_ratio(self._order, 1 - rest, rest)
        return kappa * _unit(direction)

    def conjugate(self, eta: Array) -> Array:
        """φ(η) = A κ − ψ; NaN unless |η| < 1."""
        length = _length(eta)
        kappa = bessel.inverse_bessel_ratio(self._order, length)
        return length * kappa - bessel.log_iv_scaled(self._order, kappa) - self._log_area

    def hessian(self, theta: Array) -> DiagonalMinusRankOne:
        """(A/κ)I − (A/κ − A′)μμᵀ, whose complement is A′κ/A."""
        kappa = _length(theta)
        per, slope = self._per(kappa), bessel.bessel_ratio_slope(self._order, kappa)
        mean = theta / jnp.where(kappa == 0, 1.0, kappa)
        return DiagonalMinusRankOne(
            jnp.full_like(theta, 1.0) * per, mean, jnp.maximum(per - slope, 0.0), slope / per
        )

    def curvature(self, theta: Array, v: Array) -> Array:
        """(A/κ)|v⊥|² + A′⟨μ, v⟩²."""
        kappa = _length(theta)
        mean = theta / jnp.where(kappa == 0, 1.0, kappa)
        along = mean @ v
        across = v - along * mean
        slope = bessel.bessel_ratio_slope(self._order, kappa)
        return self._per(kappa) * (across @ across) + slope * along * along

    def divergence(self, theta: Array, base: Array) -> Array:
        """KL(base ‖ θ): the radial divergence, and A(κ′)κ(1 − cos∠) from the part of θ − θ′ across μ′."""
        kappa, kappa_base = _length(theta), _length(base)
        step, mean = theta - base, base / jnp.where(kappa_base == 0, 1.0, kappa_base)
        along = mean @ theta
        across = step - (mean @ step) * mean
        acute = along > 0
        sine = across @ across / jnp.where(acute, kappa + along, 1.0)
        angle = jnp.where(acute, sine, kappa - along)
        both = kappa + kappa_base
        gap = step @ ((theta + base) / jnp.where(both == 0, 1.0, both))
        ratio = bessel.bessel_ratio(self._order, kappa_base)
        return self._radial(kappa, kappa_base, gap) + ratio * jnp.maximum(angle, 0.0)

    def _radial(self, kappa: Array, base: Array, gap: Array) -> Array:
        """f(κ) − f(κ′) − A(κ′)(κ − κ′) for f = log ₀F₁: ∫ (κ − x)A′(x) dx in log x, if they are close."""
        nu, positive = self._order, (kappa > 0) & (base > 0)
        start = jnp.where(positive, base, 1.0)
        share = jnp.where(positive, gap / start, 0.0)
        near = positive & (share > -0.5) & (share < 0.75)
        level = _numerics.log_quotient(1 + jnp.where(near, share, 0.0), jnp.ones_like(share))
        tiny = jnp.abs(share) < 1e-3  # 1 + share is rounded; the logarithm's series is not
        s = jnp.where(near & tiny, share, 0.0)
        level = jnp.where(tiny, s * (1 - s * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s / 5)))), level)
        nodes, weights = (jnp.asarray(v, kappa.dtype) for v in _numerics.unit_nodes(8))
        at = start * jnp.exp(level * nodes)
        rise = at * jnp.expm1(level * (1 - nodes))
        close = level * (weights @ (rise * at * bessel.bessel_ratio_slope(nu, at)))
        f, f_base = bessel.log_iv_scaled(nu, kappa), bessel.log_iv_scaled(nu, base)
        plain = f - f_base - bessel.bessel_ratio(nu, base) * gap
        rest = bessel.log_iv_excess(nu, kappa) - bessel.log_iv_excess(nu, base)
        less = rest + bessel.bessel_ratio_complement(nu, base) * gap
        low = jnp.maximum(f, f_base) < 0.5 * jnp.maximum(kappa, base)
        return jnp.where(near, close, jnp.maximum(jnp.where(low, plain, less), 0.0))

    # --- laws ------------------------------------------------------------------------------------

    def statistic(self, x: Array) -> Array:
        """x."""
        return x

    def log_base(self, x: Array) -> Array:
        """0; −∞ unless |x| = 1 to a few roundings."""
        slack = 8 * math.sqrt(self.p) * float(jnp.finfo(x.dtype).eps)
        inside = jnp.abs(x @ x - 1) <= slack
        return on_support(x.sum(), inside, jnp.zeros((), x.dtype))

    def mean_log_base(self, theta: Array) -> Array:
        """0."""
        return jnp.zeros((), theta.dtype)

    def log_density(self, theta: Array, x: Array) -> Array:
        """−κ(1 − cos∠) − (ψ − κ), with 1 − cos∠ = ½|x − μ|²."""
        kappa = _length(theta)
        away = x - theta / jnp.where(kappa == 0, 1.0, kappa)
        level = self._log_area + bessel.log_iv_excess(self._order, kappa)
        return -0.5 * kappa * (away @ away) - level

    def entropy(self, theta: Array) -> Array:
        """log |S| + (f − κ) + κ(1 − A)."""
        kappa = _length(theta)
        rest = bessel.bessel_ratio_complement(self._order, kappa)
        return self._log_area + bessel.log_iv_excess(self._order, kappa) + kappa * rest

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """By rejection of 1 − cos∠ (Wood 1994), whose rate stays above one half, and a free tangent."""
        kappa, m = _length(theta), self.p - 1
        keys = jax.random.split(key, 3)
        b = m / (2 * kappa + jnp.sqrt(4 * kappa * kappa + m * m))
        middle = (1 - b) / (1 + b)
        top = m * jnp.log(4 * b / (1 + b) ** 2)  # of 1 − middle²
        log_tiny = float(jnp.finfo(theta.dtype).tiny)

        def propose(state):
            key, fall, done, steps = state
            key, one, two = jax.random.split(key, 3)
            z = jax.random.beta(one, m / 2, m / 2, shape, theta.dtype)
            u = jax.random.uniform(two, shape, theta.dtype, minval=log_tiny)
            new = 2 * b * z / (1 - (1 - b) * z)  # 1 − cos
            rest = (1 - middle) + middle * new  # 1 − middle cos
            level = kappa * ((1 - middle) - new) + m * jnp.log(rest) - top
            good = (level >= jnp.log(u)) & ~done
            return key, jnp.where(good, new, fall), done | good, steps + 1

        state = keys[0], jnp.zeros(shape, theta.dtype), jnp.zeros(shape, bool), 0
        _, fall, done, _ = jax.lax.while_loop(lambda s: ~s[2].all() & (s[3] < 1000), propose, state)
        fall = jnp.where(done, fall, jnp.nan)[..., None]
        basis = jnp.zeros(self.p, theta.dtype).at[0].set(1.0)
        mean = jnp.where(kappa == 0, basis, theta / jnp.where(kappa == 0, 1.0, kappa))
        noise = jax.random.normal(keys[1], (*shape, self.p), theta.dtype)
        across = noise - (noise @ mean)[..., None] * mean
        across = across / jnp.linalg.norm(across, axis=-1, keepdims=True)
        x = (1 - fall) * mean + jnp.sqrt(fall * (2 - fall)) * across
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean_direction` μ (p,) and `concentration` κ; of the uniform law μ is 0."""
        kappa = _length(theta)
        mean = theta / jnp.where(kappa == 0, 1.0, kappa)
        return {"mean_direction": mean, "concentration": kappa}

    def from_usual(self, mean_direction: Array, concentration: Array) -> Array:
        """θ = κμ; NaN unless |μ| = 1 to a few roundings and 0 ≤ κ < ∞."""
        mean = jnp.asarray(mean_direction)
        if mean.shape != (self.p,):
            raise ValueError(
                f"VonMisesFisher: mean_direction has shape {mean.shape}. Wanted ({self.p},)."
            )
        kappa = jnp.asarray(concentration, mean.dtype)
        good = (kappa >= 0) & (kappa < jnp.inf)
        return jnp.where(kappa == 0, 0.0 * mean, kappa * _unit(mean)) * jnp.where(
            good, 1.0, jnp.nan
        )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_normalizer(laws: VonMisesFisher, theta: Array) -> Array:
    return laws._log_area + bessel.log_iv_scaled(laws._order, _length(theta))


@_log_normalizer.defjvp
def _log_normalizer_jvp(laws, primals, tangents):
    # Not through |θ|, whose derivatives end at 0.
    return _log_normalizer(laws, *primals), laws.to_eta(*primals) @ tangents[0]


def _norm(x: Array) -> Array:
    """|x|, also where squares over- or underflow; NaN where an entry is."""
    big = jnp.max(jnp.abs(x))
    scale = jnp.where((big > 0) & (big < jnp.inf), big, 1.0)
    return jnp.where(big == jnp.inf, jnp.inf, scale * jnp.sqrt(jnp.sum((x / scale) ** 2)))


def _length(x: Array) -> Array:
    """|x| with the gradient 0 at 0; NaN unless it is finite."""
    zero = (x == 0).all()
    scale = jax.lax.stop_gradient(jnp.where(zero, 1.0, jnp.max(jnp.abs(x))))
    unit = jnp.where(zero, 1.0, x / scale)
    length = scale * jnp.sqrt(unit @ unit)
    return jnp.where(zero, 0.0, length) * jnp.where(length < jnp.inf, 1.0, jnp.nan)


def _unit(x: Array) -> Array:
    """x, NaN unless |x| = 1 to a few roundings."""
    slack = 8 * x.shape[0] ** 0.5 * float(jnp.finfo(x.dtype).eps)
    return x * jnp.where(jnp.abs(x @ x - 1) <= slack, 1.0, jnp.nan).astype(x.dtype)


@register
@dataclasses.dataclass(frozen=True)
class VonMises(Borrowed):
    """Von Mises' laws of an angle x; with respect to Lebesgue measure on a full turn.

        T(x) = (cos x, sin x),  h = 1,    θ = κ(cos m, sin m),    ψ(θ) = log 2π I₀(κ),

    the potential of `VonMisesFisher(2)`. Any real x is an angle; densities are per radian of one turn,
    and draws lie in (−π, π].

    >>> VonMises().to_usual(jnp.array([0.0, 2.0]))["mean"].round(4)  # a quarter turn
    Array(1.5708, dtype=float32)
    """

    def _source(self) -> VonMisesFisher:
        return VonMisesFisher(2)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """(): an event is an angle in radians."""
        return ()

    def statistic(self, x: Array) -> Array:
        """(cos x, sin x)."""
        return jnp.stack([jnp.cos(x), jnp.sin(x)])

    def log_base(self, x: Array) -> Array:
        """0."""
        return on_support(x, jnp.isfinite(x), jnp.zeros_like(x))

    def log_density(self, theta: Array, x: Array) -> Array:
        """That of the point at the angle x."""
        return self._source().log_density(theta, self.statistic(x))

    def entropy(self, theta: Array) -> Array:
        """That on the circle."""
        return self._source().entropy(theta)

    def draw(self, key: Array, theta: Array, shape: tuple[int, ...]) -> Array:
        """Angles in (−π, π]."""
        x = self._source().draw(key, theta, shape)
        return jnp.arctan2(x[..., 1], x[..., 0])

    def to_usual(self, theta: Array) -> dict[str, Array]:
        """`mean` m in (−π, π] and `concentration` κ."""
        zero = (theta == 0).all()
        safe = jnp.where(zero, 1.0, theta)
        angle = jnp.where(zero, 0.0, jnp.arctan2(safe[1], safe[0]))
        return {"mean": angle, "concentration": _length(theta)}

    def from_usual(self, mean: Array, concentration: Array) -> Array:
        """θ = κ(cos m, sin m); NaN unless m is finite and 0 ≤ κ < ∞."""
        kappa = jnp.asarray(concentration)
        kappa = kappa.astype(jnp.result_type(float, kappa))
        good = (kappa >= 0) & (kappa < jnp.inf)
        return kappa * self.statistic(jnp.asarray(mean)) * jnp.where(good, 1.0, jnp.nan)
