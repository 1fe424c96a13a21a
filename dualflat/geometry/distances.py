"""Rao's distance between laws and the geodesics, family by family: closed forms, and what replaces them.

The length of the shortest path between two laws in the Fisher metric. `geodesic.distance` gives it
for any potential; the functions here know their family, so that they are exact where there is a
closed form, fast where there is none, and keep their digits between laws that nearly agree: what is
computed starts from differences of parameters. They take the usual parameters, not θ, of two laws.

All are symmetric in the two laws, 0 with gradient 0 where these are equal, and NaN, the gradient
too, where the parameters belong to no law. A `geodesic_…` runs from the first law at t = 0 to the
other at t = 1 with constant speed: its point at t lies at t times their distance.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import lu_factor, lu_solve, solve_triangular

from dualflat.geometry import geodesic, linalg, ode, special
from dualflat.geometry._numerics import log_quotient
from dualflat.geometry._tree import compiled, register
from dualflat.geometry.solve import Status

# --- closed forms ----------------------------------------------------------------------------


def fisher_rao_categorical(p: Array, q: Array, *, trials: Array | float = 1) -> Array:
    """Between two categorical laws, or two multinomial laws of as many trials.

    p ↦ 2√p carries the simplex onto the sphere of radius 2, where geodesics are arcs; n trials
    multiply the metric by n:

        d(p, q) = 2√n arccos Σ √(pᵢqᵢ) = 4√n arcsin ½‖√p − √q‖,   √p − √q = (p − q)/(√p + √q).

    The last form is the one computed: p − q is exact for close laws, so d keeps a relative
    error of a few ε where the arccos form has lost every digit (d < √ε).

    Args:
      p, q: shape (k,), nonnegative, each summing to 1; the sum is not checked. Zeros are allowed.
      trials: n > 0.

    Returns:
      shape (), in [0, π√n], a length in the Fisher metric: d² ≈ 2 KL(p‖q) for close laws.
      Where pᵢ = qᵢ = 0 the gradient has the entry 0, that of the law without this outcome; where
      only one of them is 0 it is infinite.

    Source: Rao 1945.

    >>> p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.5, 0.0, 0.5])
    >>> print(f"{fisher_rao_categorical(p, q):.4f}")  # 2 arccos ½
    2.0944
    """
    p, q, trials = _floats(p, q, trials)
    gap = _root_gap(p, q)
    arc = 4 * jnp.arcsin(jnp.minimum(0.5 * _norm(gap), 1.0))
    return jnp.sqrt(_positive(trials)) * arc


def geodesic_categorical(p: Array, q: Array, t: Array | float) -> Array:
    """The point at time t of the Fisher-Rao geodesic between two categorical laws.

    An arc of the sphere of √p. With the angle L = d/2 between √p and √q,

        √pᵢ(t) = a √pᵢ + b √qᵢ,    a = sin((1−t)L)/sin L,    b = sin(tL)/sin L.

    The number of trials of multinomial laws does not change it.

    Args:
      p, q: as in `fisher_rao_categorical`.
      t: shape (); 0 at p, 1 at q. Beyond, the geodesic goes on until an entry is 0; NaN from there on.

    Returns:
      shape (k,), nonnegative, of sum 1. The gradient is infinite at an entry that is 0 in one of them.

    >>> p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.5, 0.0, 0.5])
    >>> print(*(f"{x:.4f}" for x in geodesic_categorical(p, q, 0.5)))
    0.6667 0.1667 0.1667
    """
    p, q, t = _floats(p, q, t)
    half = 2 * jnp.arcsin(jnp.minimum(0.5 * _norm(_root_gap(p, q)), 1.0))
    return _on_arc(p, q, half, t)


def _on_arc(p: Array, q: Array, angle: Array, t: Array) -> Array:
    a, b = _sine_share(1 - t, angle), _sine_share(t, angle)
    none = (p == 0) & (q == 0)
    p, q = jnp.where(none, 1.0, p), jnp.where(none, 1.0, q)
    root = jnp.where(none, 0.0, a * jnp.sqrt(p) + b * jnp.sqrt(q))
    return root * root * _inside((root >= 0).all(), root)


def _sine_share(t: Array, angle: Array) -> Array:
    """sin(tL)/sin L, which is t at L = 0; for L up to ½π."""
    small = angle < 1e-3  # the next terms of the series are of the fourth order
    x = jnp.where(small, 1.0, angle)
    near = t * (1 + (1 - t * t) * angle * angle / 6)
    return jnp.where(small, near, jnp.sin(t * x) / jnp.sin(x))


def fisher_rao_bernoulli(p: Array, q: Array, *, trials: Array | float = 1) -> Array:
    """Between two Bernoulli laws, or two binomial laws of as many trials.

        d(p, q) = 2√n |arcsin √p − arcsin √q| = 2√n atan2(s, c),
        s = |p − q| / (√(p(1−q)) + √(q(1−p))),    c = √(pq) + √((1−p)(1−q)).

    s and c are the sine and the cosine of the angle; no term of them cancels.

    Args:
      p, q: shape (), in [0, 1].
      trials: n > 0.

    Returns:
      shape (), in [0, π√n]. The gradient is infinite where one of them is 0 or 1.

    >>> print(f"{fisher_rao_bernoulli(0.0, 1.0):.4f}")
    3.1416
    """
    p, q, trials = _floats(p, q, trials)
    inside = jnp.where((p >= 0) & (p <= 1) & (q >= 0) & (q <= 1), 1.0, jnp.nan)
    same = p == q
    p_, q_ = jnp.where(same, 0.5, p), jnp.where(same, 0.5, q)
    step = p_ - q_
    sine = jnp.abs(step) / (jnp.sqrt(p_ * (1 - q_)) + jnp.sqrt(q_ * (1 - p_)))
    cosine = jnp.sqrt(p_ * q_) + jnp.sqrt((1 - p_) * (1 - q_))
    arc = jnp.where(same, 0.0, jnp.arctan2(sine, cosine))
    return 2 * jnp.sqrt(_positive(trials)) * arc * inside * (1 + 0 * (p + q))


def geodesic_bernoulli(p: Array, q: Array, t: Array | float) -> Array:
    """The point at time t of the Fisher-Rao geodesic between two Bernoulli laws.

    √p(t) is as in `geodesic_categorical`: arcsin √p moves with constant speed.

    Args:
      p, q: shape (), in [0, 1].
      t: shape (); 0 at p, 1 at q. Beyond, the geodesic goes on to 0 or to 1; NaN from there on.

    Returns:
      shape (), in [0, 1].

    >>> print(f"{geodesic_bernoulli(0.0, 1.0, 0.5):.4f}")
    0.5000
    """
    p, q, t = _floats(p, q, t)
    angle = fisher_rao_bernoulli(p, q) / 2
    ends = jnp.stack([p, 1 - p]), jnp.stack([q, 1 - q])
    return _on_arc(*ends, angle, t)[0]


def fisher_rao_poisson(rate: Array, other: Array) -> Array:
    """Between two Poisson laws: d(λ, μ) = 2|√λ − √μ| = 2|λ − μ|/(√λ + √μ), the latter computed.

    Args:
      rate, other: shape (), nonnegative.

    Returns:
      shape (), nonnegative. The gradient is infinite where only one of them is 0.

    >>> print(f"{fisher_rao_poisson(1.0, 4.0):.4f}")
    2.0000
    """
    rate, other = _floats(rate, other)
    return 2 * _absolute(_root_gap(rate, other))


def geodesic_poisson(rate: Array, other: Array, t: Array | float) -> Array:
    """The point at time t of the Fisher-Rao geodesic between two Poisson laws: √λ moves straight.

    Args:
      rate, other: shape (), nonnegative.
      t: shape (); 0 at the first law, 1 at the other. Beyond, the geodesic goes on to 0; NaN from
        there on.

    Returns:
      the rate at t, shape ().

    >>> print(f"{geodesic_poisson(1.0, 9.0, 0.5):.4f}")
    4.0000
    """
    rate, other, t = _floats(rate, other, t)
    none = (rate == 0) & (other == 0)
    first, last = jnp.where(none, 1.0, rate), jnp.where(none, 1.0, other)
    root = jnp.where(none, 0.0, (1 - t) * jnp.sqrt(first) + t * jnp.sqrt(last))
    return root * root * _inside(root >= 0, root)


def fisher_rao_scale(scale: Array, other: Array, *, information: Array | float = 1.0) -> Array:
    """Between two laws that differ in one scale: d(σ, σ′) = √I |log σ/σ′|.

    Of a scale, or a rate, the Fisher information is I/σ². I = 1 for exponential, Laplace (scale) and
    Pareto (exponent) laws, 2 for normal laws with a known mean, k for gamma laws of known shape k,
    k² for Weibull laws of known shape k.

    Args:
      scale, other: shape (), positive.
      information: I > 0.

    Returns:
      shape (), nonnegative.

    >>> print(f"{fisher_rao_scale(1.0, 2.0):.4f}")  # log 2
    0.6931
    """
    scale, other, information = _floats(scale, other, information)
    scale, other = _positive(scale), _positive(other)
    ratio = log_quotient(jnp.maximum(scale, other), jnp.minimum(scale, other))
    return jnp.sqrt(_positive(information)) * _absolute(ratio)


def geodesic_scale(scale: Array, other: Array, t: Array | float) -> Array:
    """The point at time t of the geodesic between two laws that differ in one scale: σ(σ′/σ)ᵗ.

    Args:
      scale, other: shape (), positive; as in `fisher_rao_scale`.
      t: shape (); 0 at the first law, 1 at the other. Beyond, the geodesic goes on.

    Returns:
      the scale at t, shape ().

    >>> print(f"{geodesic_scale(1.0, 9.0, 0.5):.4f}")
    3.0000
    """
    scale, other, t = _floats(scale, other, t)
    scale, other = _positive(scale), _positive(other)
    early = t < 0.5
    near, far = jnp.where(early, scale, other), jnp.where(early, other, scale)
    return near * jnp.exp(jnp.where(early, t, 1 - t) * log_quotient(far, near))


def fisher_rao_normal(mean: Array, std: Array, other_mean: Array, other_std: Array) -> Array:
    """Between two normal laws on the line.

    The metric (dμ² + 2dσ²)/σ² is twice that of the half-plane (μ/√2, σ), whose curvature is −1:

        d = √2 arcosh(1 + 2δ²) = 2√2 arsinh δ,    δ = √((μ − μ′)²/2 + (σ − σ′)²) / (2√(σσ′)).

    The last form is the one computed.

    Args:
      mean, std: of the one, shape (); the standard deviation is positive.
      other_mean, other_std: of the other.

    Returns:
      shape (), nonnegative.

    Source: Atkinson and Mitchell 1981.

    >>> print(f"{fisher_rao_normal(0.0, 1.0, 1.0, 1.0):.4f}")  # √2 arcosh(1 + ¼)
    0.9803
    """
    mean, std, other_mean, other_std = _floats(mean, std, other_mean, other_std)
    std, other_std = _positive(std), _positive(other_std)
    moved = jnp.stack([(mean - other_mean) * math.sqrt(0.5), std - other_std])
    return 2 * math.sqrt(2) * jnp.arcsinh(_norm(moved) / (2 * jnp.sqrt(std) * jnp.sqrt(other_std)))


def geodesic_normal(
    mean: Array, std: Array, other_mean: Array, other_std: Array, t: Array | float
) -> tuple[Array, Array]:
    """The point at time t of the Fisher-Rao geodesic between two normal laws on the line.

    On the hyperboloid, of which 1/σ and μ/σ are linear coordinates, with L = d/√2,

        X(t) = a X₀ + b X₁,    a = sinh((1−t)L)/sinh L,    b = sinh(tL)/sinh L.

    Args:
      mean, std, other_mean, other_std: as in `fisher_rao_normal`.
      t: shape (); 0 at the first law, 1 at the other. Beyond, the geodesic goes on.

    Returns:
      the mean and the standard deviation at t.

    >>> mean, std = geodesic_normal(0.0, 1.0, 2.0, 1.0, 0.5)  # on the circle μ²/2 + σ²
    >>> print(f"{mean:.4f} {std:.4f}")
    1.0000 1.2247
    """
    mean, std, other_mean, other_std, t = _floats(mean, std, other_mean, other_std, t)
    length = fisher_rao_normal(mean, std, other_mean, other_std) * math.sqrt(0.5)
    a, b = _sinh_share(1 - t, length), _sinh_share(t, length)
    near_start = t < 0.5
    whole = a * other_std + b * std
    ahead = mean + b * std / whole * (other_mean - mean)
    back = other_mean - a * other_std / whole * (other_mean - mean)
    return jnp.where(near_start, ahead, back), std / whole * other_std


def _sinh_share(t: Array, length: Array) -> Array:
    """sinh(tL)/sinh L, which is t at L = 0."""
    small = length < 1e-3  # the next terms of the series are of the fourth order
    x = jnp.where(small, 1.0, length)
    far = jnp.exp((jnp.abs(t) - 1) * x) * jnp.sign(t)
    far = far * jnp.expm1(-2 * jnp.abs(t) * x) / jnp.expm1(-2 * x)
    return jnp.where(small, t * (1 + (t * t - 1) * length * length / 6), far)


# --- normal laws in several dimensions -------------------------------------------------------
# An affine map makes of the two laws (0, I) and (m, diag r²). Geodesics from (0, I) with velocity
# (x, B) are images of exp(tA) with
#
#     A = [[−B, x, 0], [xᵀ, 0, −xᵀ], [0, −x, B]]        (Eriksen 1987):
#
# the upper left block of exp(tA) is Σ⁻¹, the one beside it Σ⁻¹μ. A is symmetric and in the Lie
# algebra of O(d+1, d). The elements of that group over (m, diag r²) are, up to a rotation from the right,
#
#     W = [[I, 0, 0], [mᵀ, 1, 0], [K − ½mmᵀ, −m, I]] diag(r⁻¹, 1, r),    K skew,
#
# and WWᵀ = exp A with a symmetric A, whose upper right block in general is not 0. ½‖A‖ is the distance
# from I in the symmetric space of the group, so by the first variation it is stationary in K exactly
# where that block is 0: where A belongs to a geodesic of normal laws. The eigenvalues of A are ±aᵢ and 0.
# In coordinates where the group keeps diag(−1, …, 1, …) the block of W that mixes the signs is
#
#     T(K) = [½(r⁻¹ − r + ½mmᵀr⁻¹ − Kr⁻¹), m/√2],    (d, d+1),    with singular values sinh ½aᵢ,
#
# so that d² = ¼‖A‖² is the minimum over K of 2 Σ arsinh² σᵢ(T(K)). T is affine in K and small where the
# laws are near, and it knows exp ½A where exp A would be its square. arsinh² √x is concave, so Σ arsinh²
# has a quadratic majorant for nothing: Newton's steps retreat to its minimum where they do not
# descend. Far apart (the nearest example found: d = 12.7) there can be several geodesics and several minima. The
# better of two is taken; no third start has found a better one.

MVN_STEPS = 500


def fisher_rao_mvn(
    mean: Array, covariance: Array, other_mean: Array, other_covariance: Array
) -> Array:
    """Between two normal laws on ℝᵈ, by a minimum over d(d−1)/2 numbers.

    The metric is dμᵀΣ⁻¹dμ + ½ tr(Σ⁻¹dΣ)². With equal means d = √(½ Σ log² λᵢ), λ the eigenvalues of
    Σ⁻¹Σ′. In general there is no closed form. For the laws (0, I) and (m, diag r²), to which an affine
    map brings any two,

        d² = min 2 Σ arsinh² σᵢ(T(K)),    T(K) = [½(r⁻¹ − r + ½mmᵀr⁻¹ − Kr⁻¹), m/√2],
              K

    over skew matrices K, with the singular values σᵢ of T. For d = 1 that is `fisher_rao_normal`. The
    minimum is found by Newton's steps. Only differences of the parameters enter, so that near laws
    keep their digits. The gradient is that of the first variation, (⟨γ̇₁, dq⟩ − ⟨γ̇₀, dp⟩)/d, and needs
    no derivative of an eigenvector; second derivatives exist.

    Args:
      mean, covariance: of the one, shapes (d,) and (d, d). Of a covariance the symmetric part counts.
      other_mean, other_covariance: of the other.

    Returns:
      shape (), nonnegative; NaN where a covariance is not positive definite, and where the search
      failed. Far apart, from a length of 12 on, several geodesics can join two laws; the shortest
      of those that were looked for counts.

    Source: Eriksen 1987 and Calvo and Oller 1991 for the geodesics from a point; the minimum, which
    replaces the search for their velocity, is derived beside the code.

    >>> eye = jnp.eye(2)
    >>> d = fisher_rao_mvn(jnp.zeros(2), eye, jnp.array([1.0, 0.0]), eye)
    >>> print(f"{d:.4f}")  # as on the line
    0.9803
    """
    p, q = _mvn_laws(mean, covariance, other_mean, other_covariance, "fisher_rao_mvn")
    return _mvn_distance(*_mvn_ordered(p, q))


def geodesic_mvn(
    mean: Array, covariance: Array, other_mean: Array, other_covariance: Array, t: Array | float
) -> tuple[Array, Array]:
    """The point at time t of the Fisher-Rao geodesic between two normal laws on ℝᵈ.

    Its velocity comes from the minimum of `fisher_rao_mvn`, the point from Eriksen's exponential,
    taken from the nearer end.

    Args:
      mean, covariance, other_mean, other_covariance: as in `fisher_rao_mvn`.
      t: shape (); 0 at the first law, 1 at the other. Beyond, the geodesic goes on.

    Returns:
      the mean (d,) and the covariance (d, d) at t; NaN as in `fisher_rao_mvn`. Differentiable.

    >>> eye = jnp.eye(2)
    >>> mean, covariance = geodesic_mvn(jnp.zeros(2), eye, jnp.array([2.0, 0.0]), eye, 0.5)
    >>> covariance.round(4)  # wider on the way, along the way
    Array([[1.5, 0. ],
           [0. , 1. ]], dtype=float32)
    """
    p, q = _mvn_laws(mean, covariance, other_mean, other_covariance, "geodesic_mvn")
    (t,) = _floats(t)
    return _mvn_point(p, q, t.astype(p.mean.dtype))


class _Normal(NamedTuple):
    """A normal law, or a tangent vector of their manifold."""

    mean: Array  # (d,)
    covariance: Array  # (d, d), symmetric


def _mvn_laws(
    mean: Array, covariance: Array, other_mean: Array, other_covariance: Array, where: str
) -> tuple[_Normal, _Normal]:
    m, s, n, c = _floats(mean, covariance, other_mean, other_covariance)
    d = m.shape[0] if m.ndim == 1 else 0
    if not (d and n.shape == (d,) and s.shape == c.shape == (d, d)):
        raise ValueError(
            f"{where}: the shapes are {m.shape} and {s.shape} for the one law, {n.shape} and {c.shape}"
            " for the other. Wanted (d,) and (d, d) twice. For many laws use jax.vmap."
        )
    return _Normal(m, (s + s.T) / 2), _Normal(n, (c + c.T) / 2)


def _mvn_ordered(p: _Normal, q: _Normal) -> tuple[_Normal, _Normal]:
    """The lexicographically smaller first: d(p, q) and d(q, p) are one search."""
    swap = _is_after(*(jnp.append(law.mean, law.covariance) for law in (p, q)))
    first, last = (jax.tree.map(lambda a, b: jnp.where(swap, b, a), *x) for x in ((p, q), (q, p)))
    return first, last


class _Pair(NamedTuple):
    """Two normal laws in the frame where they are (0, I) and (m, diag r²)."""

    frame: Array  # F with FFᵀ the first covariance, (d, d)
    mean: Array  # m
    root: Array  # r
    rise: Array  # r² − 1


def _mvn_pair(p: _Normal, q: _Normal) -> _Pair:
    low, other_low = linalg.factor(p.covariance), linalg.factor(q.covariance)

    def whitened(b):
        return solve_triangular(low, b, lower=True)

    step = whitened(whitened(q.covariance - p.covariance).T)
    # Near, the eigenvalues of the difference keep its digits. Far, singular values of L⁻¹L′ keep
    # those of small eigenvalues, of which they are the roots.
    near = jnp.linalg.norm(step) < 0.5
    rise, axes = jnp.linalg.eigh(jnp.where(near, step + step.T, 0.0) / 2)
    far_axes, far_root, _ = jnp.linalg.svd(whitened(other_low))
    return _Pair(
        low @ jnp.where(near, axes, far_axes),
        jnp.where(near, axes, far_axes).T @ whitened(q.mean - p.mean),
        jnp.where(near, jnp.sqrt(1 + rise), far_root),
        jnp.where(near, rise, (far_root - 1) * (far_root + 1)),
    )


class _Corner(NamedTuple):
    """T = UσVᵀ of a skew K."""

    value: Array  # Σ arsinh² σᵢ
    u: Array  # (d, d)
    sigma: Array  # (d,)
    vt: Array  # (d + 1, d + 1)

    def blend(self) -> Array:
        """Z = U(2 arsinh σ/√(1+σ²))Vᵀ, the slope of Σ arsinh² σᵢ in T, (d, d + 1)."""
        return (self.u * (_slope_ratio(self.sigma) * self.sigma)) @ self.vt[:-1]


class _MvnSearch(NamedTuple):
    k: Array
    corner: _Corner
    caution: Array  # from 0, Newton's system, to 1, the majorant's
    change: Array  # the square of the last step, in the majorant
    steps: Array
    status: Array


def _mvn_corner(pair: _Pair, k: Array) -> _Corner:
    m, r = pair.mean, pair.root
    first = (jnp.diag(-pair.rise) + jnp.outer(m, m) / 2 - _skew(k, len(m))) / (2 * r)
    u, sigma, vt = jnp.linalg.svd(jnp.append(first, m[:, None] * math.sqrt(0.5), 1))
    return _Corner((jnp.arcsinh(sigma) ** 2).sum(), u, sigma, vt)


def _mvn_search(pair: _Pair, k: Array) -> _MvnSearch:
    d, dtype = len(pair.mean), pair.mean.dtype
    eps = float(jnp.finfo(dtype).eps)
    rows, columns = np.tril_indices(d, -1)

    def systems(corner: _Corner) -> tuple[Array, Array, Array]:
        """The slope of Σ arsinh² σᵢ in K, its Hessian and that of its majorant."""
        za = corner.blend()[:, :-1] / pair.root
        slope = za[columns, rows] - za[rows, columns]
        # UᵀṪV for every direction Eᵢⱼ − Eⱼᵢ of K, where Ṫ = −½K̇r⁻¹.
        u, v = corner.u, corner.vt[:, :-1].T / pair.root[:, None]
        turned = (
            u[columns][:, :, None] * v[rows][:, None] - u[rows][:, :, None] * v[columns][:, None]
        )
        square, last = turned[:, :, :-1] / 2, turned[:, :, -1] / 2
        ratio = _slope_ratio(corner.sigma)
        parts = [(square + square.mT) / 2, (square - square.mT) / 2]
        weights = [*_divided_slopes(corner.sigma), ratio]
        parts = jnp.concatenate([x.reshape(len(rows), -1) for x in (*parts, last)], 1)
        newton = (parts * jnp.concatenate([w.ravel() for w in weights])) @ parts.T
        flat = turned.reshape(len(rows), -1) / 2
        return slope / 2, newton, (flat * jnp.repeat(ratio, d + 1)) @ flat.T

    def body(s: _MvnSearch) -> _MvnSearch:
        slope, newton, majorant = systems(s.corner)
        step = -linalg.solve_pd(newton + s.caution * (majorant - newton), slope)
        k = s.k + step
        corner = _mvn_corner(pair, k)
        value, change = s.corner.value, step @ majorant @ step
        # Below what rounding makes of the value, the steps must shrink, not the value.
        rounding = eps * (value + s.corner.sigma.max() * jnp.sqrt(value))
        blind = jnp.isfinite(corner.value) & (change <= 64 * rounding)
        good = (corner.value < value) | blind
        done = blind & ((change <= eps**1.5 * value) | (change > s.change / 4))
        caution = jnp.where(good, s.caution / 8, jnp.clip(8 * s.caution, 0.01, 1.0))
        status = jnp.where(done, Status.CONVERGED, -1)
        status = jnp.where(~good & (s.caution == 1), Status.STALLED, status)
        k, corner, change = jax.tree.map(
            lambda a, b: jnp.where(good, a, b),
            (k, corner, jnp.where(blind, change, jnp.inf)),
            (s.k, s.corner, s.change),
        )
        caution = jnp.where(caution < 1e-3, 0.0, caution)
        return _MvnSearch(k, corner, caution, change, s.steps + 1, status.astype(jnp.int32))

    corner, zero = _mvn_corner(pair, k), jnp.zeros((), dtype)
    status = jnp.where(jnp.isfinite(corner.value), -1, Status.NONFINITE)
    start = _MvnSearch(k, corner, zero, jnp.inf + zero, jnp.int32(0), status.astype(jnp.int32))
    return jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < MVN_STEPS), body, start)


def _mvn_nearest(pair: _Pair) -> _MvnSearch:
    """The better of two minima: from K = 0, and from where ‖T‖ is least."""
    m, square = pair.mean, pair.root**2
    rows, columns = np.tril_indices(len(m), -1)
    zero = jnp.zeros(len(rows), m.dtype)
    if len(m) == 1:
        still = jnp.zeros((), m.dtype)
        return _MvnSearch(
            zero, _mvn_corner(pair, zero), still, still, jnp.int32(0), jnp.int32(Status.CONVERGED)
        )
    tilt = (square[rows] - square[columns]) / (square[rows] + square[columns])
    starts = jnp.stack([zero, m[rows] * m[columns] / 2 * tilt])
    found = jax.vmap(lambda k: _mvn_search(pair, k))(starts)
    value = jnp.where(found.status == Status.CONVERGED, found.corner.value, jnp.inf)
    best = jnp.argmin(value)
    return jax.tree.map(lambda x: x[best], found)


def _mvn_solved(p: _Normal, q: _Normal) -> tuple[Array, Array, Array, _Pair]:
    """The distance, C at both ends in the frames F and Fr, and the pair."""
    pair = _mvn_pair(p, q)
    found = _mvn_nearest(pair)
    good = (found.status == Status.CONVERGED) & jnp.isfinite(found.corner.value)
    believed = jnp.where(good, 1.0, jnp.nan).astype(pair.mean.dtype)
    m, r = pair.mean, pair.root
    corner, z = found.corner, found.corner.blend() * believed
    # W = exp(½A)·(a rotation), so with the other diagonal blocks of W
    #     C = Z W₊₊ᵀ,    C′ = W₋₋ᵀ Z.
    mean, shift = jnp.diag(r + 1 / r) / 2, (_skew(found.k, len(m)) - jnp.outer(m, m) / 2) / (2 * r)
    side = m * math.sqrt(0.5)
    plus = jnp.block(
        [[mean + shift, -side[:, None]], [(side / r)[None], jnp.ones((1, 1), r.dtype)]]
    )
    length = math.sqrt(2) * _norm(jnp.arcsinh(corner.sigma)) * believed
    return length, z @ plus.T, (mean - shift).T @ z, pair


def _mvn_velocity_in(frame: Array, c: Array) -> _Normal:
    """(μ̇, Σ̇) of C = [−B, √2x] in the frame F: (Fx, FBFᵀ)."""
    b = -(c[:, :-1] + c[:, :-1].T) / 2
    return _Normal(frame @ c[:, -1] * math.sqrt(0.5), frame @ b @ frame.T)


def _skew(k: Array, d: int) -> Array:
    low = jnp.zeros((d, d), k.dtype).at[np.tril_indices(d, -1)].set(k, unique_indices=True)
    return low - low.T


def _slope_ratio(sigma: Array) -> Array:
    """ζ/σ for ζ = 2 arsinh σ/√(1+σ²); 2 at 0."""
    some = sigma > 0
    safe = jnp.where(some, sigma, 1.0)
    return jnp.where(some, 2 * jnp.arcsinh(safe) / (safe * jnp.sqrt(1 + safe * safe)), 2.0)


def _divided_slopes(sigma: Array) -> tuple[Array, Array]:
    """(ζᵢ − ζⱼ)/(σᵢ − σⱼ), or the derivative where they are close, and (ζᵢ + ζⱼ)/(σᵢ + σⱼ)."""
    zeta = _slope_ratio(sigma) * sigma
    gap, middle = sigma[:, None] - sigma, (sigma[:, None] + sigma) / 2
    close = jnp.abs(gap) <= float(jnp.finfo(sigma.dtype).eps) ** (1 / 3) * (1 + middle)
    w = jnp.arcsinh(middle)
    slope = 2 * (1 - w * jnp.tanh(w)) / (1 + middle * middle)
    minus = jnp.where(close, slope, (zeta[:, None] - zeta) / jnp.where(close, 1.0, gap))
    some = middle > 0
    plus = (zeta[:, None] + zeta) / (2 * jnp.where(some, middle, 1.0))
    return minus, jnp.where(some, plus, 2.0)


@jax.custom_jvp
def _mvn_distance(p: _Normal, q: _Normal) -> Array:
    return _mvn_geodesic(p, q)[0]


@_mvn_distance.defjvp
def _mvn_distance_jvp(primals, tangents):
    p, q = primals
    length, *ends = _mvn_geodesic(p, q)
    return length, _mvn_first_variation(p, q, length, *ends, *tangents)


def _mvn_first_variation(
    p: _Normal,
    q: _Normal,
    length: Array,
    at_p: _Normal,
    at_q: _Normal,
    p_dot: _Normal,
    q_dot: _Normal,
) -> Array:
    """ḋ = (⟨γ̇₁, q̇⟩ − ⟨γ̇₀, ṗ⟩)/d."""
    change = _mvn_inner(q, at_q, q_dot) - _mvn_inner(p, at_p, p_dot)
    return _quotient_at_rest(change, length)


def _mvn_inner(law: _Normal, v: _Normal, w: _Normal) -> Array:
    """⟨v, w⟩ in the Fisher metric."""
    low = linalg.factor(law.covariance)
    (x, a), (y, b) = _mvn_whitened(low, v), _mvn_whitened(low, w)
    return x @ y + (a * b).sum() / 2


def _mvn_whitened(low: Array, v: _Normal) -> _Normal:
    def whitened(b):
        return solve_triangular(low, b, lower=True)

    return _Normal(whitened(v.mean), whitened(whitened(v.covariance).T))


@jax.custom_jvp
@compiled
def _mvn_geodesic(p: _Normal, q: _Normal) -> tuple[Array, _Normal, _Normal]:
    """The distance, and the velocities of the geodesic at both ends."""
    length, at_start, at_end, pair = _mvn_solved(p, q)
    first = _mvn_velocity_in(pair.frame, at_start)
    return length, first, _mvn_velocity_in(pair.frame * pair.root, at_end)


@_mvn_geodesic.defjvp
def _mvn_geodesic_jvp(primals, tangents):
    (p, q), (p_dot, q_dot) = primals, tangents
    length, at_p, at_q = _mvn_geodesic(p, q)
    back = jax.tree.map(jnp.negative, at_q)
    # Both ends by one program: the velocity at q is minus that of the way back.
    there_and_back = jax.tree.map(lambda a, b: jnp.stack([a, b]), (p, q, at_p), (q, p, back))
    moves = jax.tree.map(lambda a, b: jnp.stack([a, b]), (p_dot, q_dot), (q_dot, p_dot))
    change = jax.vmap(_mvn_velocity_change)(*there_and_back, *moves)
    first, last = (jax.tree.map(lambda x, i=i: x[i], change) for i in range(2))
    longer = _mvn_first_variation(p, q, length, at_p, at_q, p_dot, q_dot)
    return (length, at_p, at_q), (longer, first, jax.tree.map(jnp.negative, last))


def _mvn_velocity_change(
    p: _Normal, q: _Normal, velocity: _Normal, p_dot: _Normal, q_dot: _Normal
) -> _Normal:
    """v̇ from exp(p; v) = q, that is ∂ᵥexp·v̇ = q̇ − ∂ₚexp·ṗ, in the frames of p and of q."""
    d = len(p.mean)
    rows = np.tril_indices(d)
    low, other_low = linalg.factor(p.covariance), linalg.factor(q.covariance)

    def arrow(z: Array) -> _Normal:
        half = jnp.zeros((d, d), z.dtype).at[rows].set(z[d:], unique_indices=True)
        return _Normal(low @ z[:d], low @ (half + half.T) @ low.T)

    def flat(w: _Normal) -> Array:
        x, b = _mvn_whitened(other_low, w)
        return jnp.append(x, b[rows])

    def along(v_dot: _Normal) -> Array:
        return flat(jax.jvp(lambda v: _mvn_shoot(p, v, one), (velocity,), (v_dot,))[1])

    one = jnp.ones((), p.mean.dtype)
    size = d + len(rows[0])
    system = jax.vmap(lambda z: along(arrow(z)), out_axes=1)(jnp.eye(size, dtype=one.dtype))
    carried = jax.jvp(lambda law: _mvn_shoot(law, velocity, one), (p,), (p_dot,))[1]
    wanted = jax.tree.map(jnp.subtract, q_dot, carried)
    return arrow(jnp.linalg.solve(system, flat(wanted)))


def _mvn_shoot(p: _Normal, velocity: _Normal, t: Array) -> _Normal:
    """Where the geodesic from p is at time t: W = exp ½tA, (Σ⁻¹, Σ⁻¹μ) a part of WWᵀ."""
    d = len(p.mean)
    low = linalg.factor(p.covariance)
    x, b = _mvn_whitened(low, velocity)
    x, zero = x[:, None], jnp.zeros((d, d), b.dtype)
    still = jnp.zeros((1, 1), b.dtype)
    half = t / 2 * jnp.block([[-b, x, zero], [x.T, still, -x.T], [zero, -x, b]])
    half = jnp.eye(2 * d + 1, dtype=b.dtype) + _expm1(half)
    covariance = linalg.inverse_pd(half[:d] @ half[:d].T)
    moved = low @ covariance @ low.T
    return _Normal(p.mean + low @ (covariance @ (half[:d] @ half[d])), (moved + moved.T) / 2)


def _expm1(a: Array) -> Array:
    """exp A − I of a symmetric matrix, by Taylor's series of 2⁻¹⁰A and Y ↦ 2Y + Y², ten times.

    Y keeps its relative accuracy. For ‖A‖ < 256; compiled and differentiated in no time.
    """
    a = a / 1024
    y = a
    for k in range(12, 1, -1):
        y = a + a @ y / k
    for _ in range(10):
        y = 2 * y + y @ y
    return y


@compiled
def _mvn_point(p: _Normal, q: _Normal, t: Array) -> tuple[Array, Array]:
    _, at_p, at_q = _mvn_geodesic(p, q)
    back = jax.tree.map(jnp.negative, at_q)
    early = t < 0.5
    law, velocity = jax.tree.map(lambda a, b: jnp.where(early, a, b), (p, at_p), (q, back))
    point = _mvn_shoot(law, velocity, jnp.where(early, t, 1 - t))
    return point.mean, point.covariance


# --- Dirichlet laws --------------------------------------------------------------------------
# G = diag ψ₁(αᵢ) − ψ₁(α₀)11ᵀ, α₀ = Σ αᵢ, is the metric of a hypersurface: Σ ψ₁(αᵢ)dαᵢ² − ψ₁(α₀)dα₀² as if
# α₀ were a coordinate of its own. So one multiplier λ(t) is all that couples the coordinates,
#
#     ψ₁(αᵢ)α̈ᵢ + ½ψ₂(αᵢ)α̇ᵢ² = λ        for every i and for α₀.
#
# In xᵢ = log αᵢ, with h = 1/ψ₁ and r = −½αψ₂/ψ₁, which falls from 1 at 0 to ½ at ∞,
#
#     ẍᵢ = λh(αᵢ)/αᵢ + (rᵢ − 1)ẋᵢ²,    λ(h(α₀) − Σ h(αᵢ)) = Σ rᵢαᵢẋᵢ² − r₀α₀ẋ₀².
#
# At M nodes Newton's system is K systems of size M side by side and one more for λ.


COARSE, FINE = 4, 12  # panels of the first search, and of the second where the first has failed


def fisher_rao_dirichlet(alpha: Array, other: Array) -> Array:
    """Between two Dirichlet laws, by collocation of the geodesic in log α.

    The metric is diag ψ₁(αᵢ) − ψ₁(Σαᵢ)11ᵀ with ψ₁ the trigamma function. There is no closed form.
    The space is negatively curved, so that there is one geodesic; it is searched on a few panels of 12
    nodes that move to where it bends, first 4, and 12 where these fail. The unknowns are accelerations,
    which vanish for near laws: these keep their digits. The gradient is that of the first variation.

    Args:
      alpha, other: shape (k,), k ≥ 2, positive.

    Returns:
      shape (), nonnegative; NaN where the panels do not resolve the geodesic to √ε (no example was
      met below a length of 30). Of laws that differ along a common factor of αᵢ ≫ 1, or where one αᵢ
      is nearly all of α₀, rounding α itself costs digits: the metric is nearly singular there.

    Source: Le Brigant, Preston and Puechmorel 2021 for the curvature.

    >>> d = fisher_rao_dirichlet(jnp.array([1.0, 1.0]), jnp.array([2.0, 2.0]))
    >>> print(f"{d:.4f}")
    0.5636
    """
    alpha, other = _dirichlet_laws(alpha, other, "fisher_rao_dirichlet")
    swap = _is_after(alpha, other)
    return _dirichlet_distance(jnp.where(swap, other, alpha), jnp.where(swap, alpha, other))


def fisher_rao_beta(a: Array, b: Array, other_a: Array, other_b: Array) -> Array:
    """Between two beta laws, which are Dirichlet laws on two probabilities.

    Args:
      a, b: of the one, shape (), positive.
      other_a, other_b: of the other.

    Returns:
      as `fisher_rao_dirichlet`.

    >>> print(f"{fisher_rao_beta(1.0, 1.0, 2.0, 2.0):.4f}")
    0.5636
    """
    a, b, other_a, other_b = _floats(a, b, other_a, other_b)
    return fisher_rao_dirichlet(jnp.stack([a, b]), jnp.stack([other_a, other_b]))


def geodesic_dirichlet(alpha: Array, other: Array, t: Array | float) -> Array:
    """The point at time t of the Fisher-Rao geodesic between two Dirichlet laws.

    Args:
      alpha, other: as in `fisher_rao_dirichlet`, whose search finds it.
      t: shape (), in [0, 1]: 0 at the first law, 1 at the other.

    Returns:
      α at t, shape (k,); NaN as in `fisher_rao_dirichlet`, and outside [0, 1]. Differentiable.

    >>> print(*(f"{x:.4f}" for x in geodesic_dirichlet(jnp.array([1.0, 4.0]), jnp.array([4.0, 1.0]), 0.5)))
    1.0599 1.0599
    """
    alpha, other = _dirichlet_laws(alpha, other, "geodesic_dirichlet")
    swap = _is_after(alpha, other)
    (t,) = _floats(t)
    t = jnp.where(swap, 1 - t, t).astype(alpha.dtype)
    return _dirichlet_point(jnp.where(swap, other, alpha), jnp.where(swap, alpha, other), t)


def geodesic_beta(
    a: Array, b: Array, other_a: Array, other_b: Array, t: Array | float
) -> tuple[Array, Array]:
    """The point at time t of the Fisher-Rao geodesic between two beta laws.

    Args:
      a, b, other_a, other_b: as in `fisher_rao_beta`.
      t: as in `geodesic_dirichlet`.

    Returns:
      both shapes at t.

    >>> a, b = geodesic_beta(1.0, 4.0, 4.0, 1.0, 0.5)
    >>> print(f"{a:.4f} {b:.4f}")
    1.0599 1.0599
    """
    a, b, other_a, other_b = _floats(a, b, other_a, other_b)
    point = geodesic_dirichlet(jnp.stack([a, b]), jnp.stack([other_a, other_b]), t)
    return point[0], point[1]


def _dirichlet_laws(alpha: Array, other: Array, where: str) -> tuple[Array, Array]:
    alpha, other = _floats(alpha, other)
    if alpha.ndim != 1 or alpha.shape != other.shape or len(alpha) < 2:
        raise ValueError(
            f"{where}: the shapes are {alpha.shape} and {other.shape}. Wanted (k,) twice,"
            " k at least 2. For many laws use jax.vmap."
        )
    return _positive(alpha), _positive(other)


class _Shape(NamedTuple):
    """Functions of α that the equations are made of."""

    alpha: Array
    bend: Array  # ψ₁
    weight: Array  # h/α = 1/(αψ₁)
    r: Array
    excess: Array  # r − ½
    r_slope: Array  # dr/d log α


def _shape(alpha: Array) -> _Shape:
    one, two, three = (special.polygamma(k, alpha) for k in (1, 2, 3))
    r = -alpha * two / one / 2
    deficit, slope = jax.jvp(special.trigamma_deficit, (alpha,), (jnp.ones_like(alpha),))
    excess = jnp.where(alpha < 1, r - 0.5, one * (deficit - alpha * slope) / 2)
    return _Shape(alpha, one, 1 / (alpha * one), r, excess, r * (1 + alpha * three / two + 2 * r))


def _slack(alpha: Array, total: Array) -> Array:
    """h(α₀) − Σ h(αᵢ) over the last axis, of α − h where α is large."""
    small = alpha.max(-1) < 1
    deficit = special.trigamma_deficit(alpha).sum(-1) - special.trigamma_deficit(total)
    plain = 1 / special.trigamma(total) - (1 / special.trigamma(alpha)).sum(-1)
    return jnp.where(small, plain, deficit)


def _dirichlet_inner(alpha: Array, v: Array, w: Array) -> Array:
    """⟨v, w⟩ of vectors in log α, of which ⟨v, v⟩ is a sum of two squares that do not cancel."""
    total, bend = alpha.sum(-1), special.trigamma(alpha)
    room = (1 / bend).sum(-1)

    def parts(v: Array) -> tuple[Array, Array]:
        shift = (alpha * v).sum(-1) / room
        return alpha * v - shift[..., None] / bend, shift

    (across, along), (other_across, other_along) = parts(v), parts(w)
    left = _slack(alpha, total) * special.trigamma(total) * room
    return (bend * across * other_across).sum(-1) + left * along * other_along


class _Bend(NamedTuple):
    """Γ(ẋ, ẋ) at the nodes and its derivatives: diag(own) − weight ⊗ λ′ by x and by ẋ."""

    value: Array  # (M, K)
    own_x: Array
    own_v: Array
    weight: Array
    multiplier_x: Array  # ∂λ/∂x
    multiplier_v: Array


def _dirichlet_bend(alpha: Array, v: Array) -> _Bend:
    total = alpha.sum(-1, keepdims=True)
    both = _shape(jnp.concatenate([alpha, total], -1))
    s, whole = (_Shape(*(x[..., cut] for x in both)) for cut in (slice(-1), slice(-1, None)))
    mean = (alpha * v).sum(-1, keepdims=True) / total
    across, slack = v - mean, _slack(alpha, total[..., 0])[..., None]
    terms = alpha * (s.r * across * across + 2 * mean * s.excess * across)
    left = (alpha * s.excess).sum(-1, keepdims=True) - total * whole.excess
    rise = terms.sum(-1, keepdims=True) + mean * mean * left
    multiplier = rise / slack
    rise_x = alpha * (
        (s.r_slope + s.r) * v * v - (whole.r_slope - whole.r) * mean * mean - 2 * whole.r * mean * v
    )
    rise_v = 2 * alpha * (s.r * v - whole.r * mean)
    slack_x = 2 * alpha * (whole.r * whole.weight - s.r * s.weight)
    return _Bend(
        -s.weight * multiplier - (s.r - 1) * v * v,
        -s.weight * (2 * s.r - 1) * multiplier - s.r_slope * v * v,
        -2 * (s.r - 1) * v,
        s.weight,
        (rise_x - multiplier * slack_x) / slack,
        rise_v / slack,
    )


def _dirichlet_solve(mesh: ode.Mesh, bend: _Bend, goal: Array, right: Array) -> Array:
    """(I + goal·∂Γ(x)(ẋ, ẋ)/∂a)⁻¹ of (M, K): each coordinate by itself, then λ for all."""
    once, twice = geodesic._integrals(mesh, "end")
    m = len(mesh.nodes)
    own = bend.own_x.T[:, :, None] * twice + bend.own_v.T[:, :, None] * once  # (K, M, M)
    eye = jnp.eye(m, dtype=right.dtype)
    factors = jax.vmap(lu_factor)(eye + goal * own)
    # Two solves, so that what is linear in `right` stays apart, for derivatives backwards.
    alone = jax.vmap(lu_solve)(factors, right.T)  # (K, M)
    pulled = jax.vmap(lu_solve)(factors, goal * bend.weight.T[:, :, None] * eye)
    seen = bend.multiplier_x.T[:, :, None] * twice + bend.multiplier_v.T[:, :, None] * once
    seen = seen.swapaxes(0, 1).reshape(m, -1)  # λ of the accelerations, (M, KM)
    multiplier = jnp.linalg.solve(eye - seen @ pulled.reshape(-1, m), seen @ alone.ravel())
    return (alone + pulled @ multiplier).T


def _dirichlet_search(
    alpha: Array, slope: Array, found: tuple[Array, Array, Array], wanted: Array
) -> tuple[tuple[Array, Array, Array], Array]:
    """As `geodesic._collocate`, from x = 0 at α to x = slope: breaks, accelerations, λ; status."""
    dtype = alpha.dtype
    eps = float(jnp.finfo(dtype).eps)
    norm, chosen = geodesic._norm, geodesic._chosen

    def look(s: geodesic._Search) -> geodesic._Search:
        mesh, fresh = ode.mesh(s.breaks), s.residual == jnp.inf
        a = s.trial + s.damping * s.step
        x, v = geodesic._path(mesh, "end", jnp.zeros_like(slope), slope, a)
        bend = _dirichlet_bend(alpha * jnp.exp(x), v)
        residual = a + s.goal * bend.value
        step = -_dirichlet_solve(mesh, bend, s.goal, residual)
        finite, size = jnp.isfinite(step).all(), norm(residual)
        shorter = size <= (1 - s.damping / 4) * s.residual
        stuck = ~fresh & ~shorter & (norm(s.step) <= eps**0.5 * (norm(slope) + norm(a)))
        small = norm(step) <= eps**0.75 * (norm(slope) + norm(a))
        done = finite & (small | stuck)
        good = finite & (shorter | done)
        lost = ~good & (fresh | (s.damping < 0.2))
        found = a + step
        wrong = geodesic._unresolved(mesh, slope, x, found)
        unresolved = wrong.max()
        whole = done & (s.goal == 1)
        settled = (unresolved <= eps**0.65) | (unresolved > 0.5 * s.unresolved)
        jump = jnp.where(done, 2.0, jnp.where(lost, 0.25, 1.0)) * s.jump
        status = jnp.where(unresolved <= eps**0.5, Status.CONVERGED, Status.STALLED)
        status = jnp.where(whole & settled, status, -1)
        status = jnp.where(jump < 1e-3, Status.STALLED, status)
        status = jnp.where((s.steps == 0) & ~finite, Status.NONFINITE, status)
        finer = geodesic._finer(s.breaks, wrong)
        moved = ode.interpolated(s.breaks, found, ode.mesh(finer).nodes)
        found = chosen(whole & settled, (s.breaks, found), (finer, moved))
        solved = chosen(done, (*found, s.goal), s.solved)
        restart = done | lost
        onward = chosen(
            good,
            (a, size, step, jnp.minimum(1.0, 2 * s.damping)),
            (s.trial, s.residual, s.step, s.damping / 2),
        )
        trial, residual, step, damping = chosen(restart, (solved[1], jnp.inf, 0.0, 1.0), onward)
        return geodesic._Search(
            breaks=jnp.where(restart, solved[0], s.breaks),
            goal=jnp.where(restart, jnp.minimum(1.0, solved[2] + jump), s.goal),
            trial=trial,
            residual=residual,
            step=step,
            damping=damping,
            solved=solved,
            jump=jump,
            unresolved=jnp.where(whole, unresolved, s.unresolved),
            steps=s.steps + 1,
            status=status.astype(jnp.int32),
        )

    one, none = jnp.ones((), dtype), jnp.inf * jnp.ones((), dtype)
    still = jnp.zeros_like(found[1])
    status = jnp.where(wanted, -1, Status.STALLED).astype(jnp.int32)
    start = geodesic._Search(
        found[0], one, found[1], none, still, one, found, one, none, jnp.int32(0), status
    )
    end = jax.lax.while_loop(lambda s: (s.status < 0) & (s.steps < geodesic.MAX_STEPS), look, start)
    return end.solved, end.status


class _Arc(NamedTuple):
    """A geodesic by its length and its velocities at the ends."""

    length: Array
    at_start: Array
    at_end: Array


@jax.custom_jvp
def _dirichlet_path(alpha: Array, slope: Array) -> tuple[Array, Array]:
    """Breaks of the fine panels and the accelerations at their nodes; NaN where not found."""
    dtype, even = alpha.dtype, ode.uniform(COARSE, alpha.dtype)
    straight = even, jnp.zeros((COARSE * ode.NODES, len(slope)), dtype), jnp.zeros((), dtype)
    found, status = _dirichlet_search(alpha, slope, straight, jnp.array(True))
    # Where that has failed, it has at least begun.
    failed = (status != Status.CONVERGED) & jnp.isfinite(slope).all()
    ratio = FINE // COARSE
    parts = found[0][:-1, None] + jnp.diff(found[0])[:, None] * jnp.arange(ratio) / ratio
    breaks = jnp.append(parts.ravel(), found[0][-1:])
    finer = breaks, ode.interpolated(found[0], found[1], ode.mesh(breaks).nodes), found[2]
    found, again = _dirichlet_search(alpha, slope, finer, failed)
    good = (status == Status.CONVERGED) | (again == Status.CONVERGED)
    return found[0], jnp.where(good, found[1], jnp.nan)


@_dirichlet_path.defjvp
def _dirichlet_path_jvp(primals, tangents):
    (alpha, slope), (alpha_dot, slope_dot) = primals, tangents
    breaks, a = _dirichlet_path(alpha, slope)
    mesh = ode.mesh(breaks)
    x, v = geodesic._path(mesh, "end", jnp.zeros_like(slope), slope, a)
    bend = _dirichlet_bend(alpha * jnp.exp(x), v)
    # a + Γ(ẋ, ẋ) = 0 holds on any mesh, so the mesh stands still. At fixed a, log α and ẋ move by
    x_dot = alpha_dot / alpha + mesh.nodes[:, None] * slope_dot
    pull = bend.multiplier_x * x_dot + bend.multiplier_v * slope_dot
    drift = bend.own_x * x_dot + bend.own_v * slope_dot - bend.weight * pull.sum(1, keepdims=True)
    a_dot = -_dirichlet_solve(mesh, bend, jnp.ones_like(breaks[0]), drift)
    return (breaks, a), (jnp.zeros_like(breaks), a_dot)


@compiled
def _dirichlet_geodesic(alpha: Array, other: Array) -> _Arc:
    slope = log_quotient(other, alpha)
    breaks, a = _dirichlet_path(alpha, slope)
    mesh = ode.mesh(breaks)
    x, v = geodesic._path(mesh, "end", jnp.zeros_like(slope), slope, a)
    squares = _dirichlet_inner(alpha * jnp.exp(x), v, v)
    back = ((1 - mesh.nodes) * mesh.weights) @ a
    length = _norm(jnp.sqrt(mesh.weights * squares))
    return _Arc(length, slope - back, slope + mesh.weights @ a - back)


@compiled
def _dirichlet_point(alpha: Array, other: Array, t: Array) -> Array:
    slope = log_quotient(other, alpha)
    breaks, a = _dirichlet_path(alpha, slope)
    unread = jnp.zeros((), jnp.int32)  # where nothing was found a is NaN
    path = geodesic._curve(breaks, a, jnp.zeros_like(slope), slope, unread, unread)
    return alpha * jnp.exp(path(t))


@jax.custom_jvp
def _dirichlet_distance(alpha: Array, other: Array) -> Array:
    return _dirichlet_geodesic(alpha, other).length


@_dirichlet_distance.defjvp
def _dirichlet_distance_jvp(primals, tangents):
    alpha, other = primals
    arc = _dirichlet_geodesic(alpha, other)
    change = _dirichlet_inner(other, arc.at_end, tangents[1] / other)
    change = change - _dirichlet_inner(alpha, arc.at_start, tangents[0] / alpha)
    return arc.length, _quotient_at_rest(change, arc.length)


# --- gamma laws ------------------------------------------------------------------------------

GAMMA_PANELS = 8


def fisher_rao_gamma(shape: Array, rate: Array, other_shape: Array, other_rate: Array) -> Array:
    """Between two gamma laws, by collocation of the geodesic.

    The shape α and the mean m = α/rate are orthogonal, and the metric knows no unit of m:

        ds² = (ψ₁(α) − 1/α) dα² + α d(log m)²,    ψ₁ the trigamma function.

    It is computed in log α and log m, from differences of these. There is no closed form; `geodesic`
    finds the path, and the gradient is that of the first variation.

    Args:
      shape, rate: of the one, shape (), positive.
      other_shape, other_rate: of the other.

    Returns:
      shape (), nonnegative; NaN where the panels do not resolve the geodesic, which is then long.

    >>> print(f"{fisher_rao_gamma(1.0, 1.0, 2.0, 1.0):.4f}")
    0.9709
    """
    p = jnp.stack(_floats(shape, rate, other_shape, other_rate)[:2])
    q = jnp.stack(_floats(shape, rate, other_shape, other_rate)[2:])
    p, q = _positive(p), _positive(q)
    swap = _is_after(p, q)
    return _gamma_distance(jnp.where(swap, q, p), jnp.where(swap, p, q))


def geodesic_gamma(
    shape: Array, rate: Array, other_shape: Array, other_rate: Array, t: Array | float
) -> tuple[Array, Array]:
    """The point at time t of the Fisher-Rao geodesic between two gamma laws.

    Args:
      shape, rate, other_shape, other_rate: as in `fisher_rao_gamma`.
      t: shape (), in [0, 1]: 0 at the first law, 1 at the other.

    Returns:
      the shape and the rate at t; NaN as in `fisher_rao_gamma`, and outside [0, 1]. Differentiable.

    >>> shape, rate = geodesic_gamma(1.0, 1.0, 2.0, 1.0, 0.5)
    >>> print(f"{shape:.4f} {rate:.4f}")
    1.3194 0.8793
    """
    shape, rate, other_shape, other_rate = _floats(shape, rate, other_shape, other_rate)
    p = _positive(jnp.stack([shape, rate]))
    q = _positive(jnp.stack([other_shape, other_rate]))
    swap = _is_after(p, q)
    (t,) = _floats(t)
    t = jnp.where(swap, 1 - t, t).astype(p.dtype)
    point = _gamma_point(jnp.where(swap, q, p), jnp.where(swap, p, q), t)
    return point[0], point[1]


@register
@dataclasses.dataclass(frozen=True)
class _GammaConnection:
    """Levi-Civita's connection in x = (log α/α₁, log m/m₁)."""

    shape: Array  # α₁

    def __call__(self, x: Array) -> Array:
        units = jnp.eye(2, dtype=x.dtype)
        return jax.vmap(lambda u: jax.vmap(lambda v: self.contract(x, u, v))(units))(units)

    def contract(self, x: Array, u: Array, v: Array) -> Array:
        s = _shape(self.shape * jnp.exp(x[0]))
        deficit, slope = jax.jvp(special.trigamma_deficit, (s.alpha,), (jnp.ones_like(s.alpha),))
        bend = s.alpha * slope / deficit / 2 - s.excess
        first = bend * u[0] * v[0] - u[1] * v[1] / (2 * deficit * s.bend)
        return jnp.stack([first, (u[0] * v[1] + u[1] * v[0]) / 2])


def _gamma_weights(alpha: Array) -> Array:
    """(α²ψ₁ − α, α): the metric in log α and log m."""
    return jnp.stack([alpha * special.trigamma_deficit(alpha) * special.trigamma(alpha), alpha], -1)


def _gamma_step(p: Array, q: Array) -> Array:
    return _gamma_move(log_quotient(q, p))


def _gamma_move(logs: Array) -> Array:
    """(d log α, d log m) of (d log α, d log rate)."""
    return jnp.stack([logs[0], logs[0] - logs[1]])


def _gamma_path(p: Array, q: Array) -> geodesic.Geodesic:
    step = _gamma_step(p, q)
    return geodesic.geodesic(
        _GammaConnection(p[0]), jnp.zeros_like(step), step, panels=GAMMA_PANELS
    )


@compiled
def _gamma_point(p: Array, q: Array, t: Array) -> Array:
    x = _gamma_path(p, q)(t)
    return p * jnp.exp(jnp.stack([x[0], x[0] - x[1]]))


@compiled
def _gamma_geodesic(p: Array, q: Array) -> _Arc:
    path = _gamma_path(p, q)
    weights, x, v = path.at_nodes()
    squares = (_gamma_weights(p[0] * jnp.exp(x[:, 0])) * v * v).sum(-1)
    return _Arc(_norm(jnp.sqrt(weights * squares)), path.velocity(0.0), path.velocity(1.0))


@jax.custom_jvp
def _gamma_distance(p: Array, q: Array) -> Array:
    return _gamma_geodesic(p, q).length


@_gamma_distance.defjvp
def _gamma_distance_jvp(primals, tangents):
    p, q = primals
    arc = _gamma_geodesic(p, q)
    change = (_gamma_weights(q[0]) * arc.at_end) @ _gamma_move(tangents[1] / q)
    change = change - (_gamma_weights(p[0]) * arc.at_start) @ _gamma_move(tangents[0] / p)
    return arc.length, _quotient_at_rest(change, arc.length)


# --- small tools -----------------------------------------------------------------------------


def _floats(*values) -> tuple[Array, ...]:
    """All as arrays of one floating type."""
    dtype = jnp.result_type(float, *values)
    return tuple(jnp.asarray(value, dtype) for value in values)


def _positive(x: Array) -> Array:
    """x where it is positive and finite, NaN, in the derivative too, elsewhere."""
    return x * jnp.where((x > 0) & (x < jnp.inf), 1.0, jnp.nan).astype(x.dtype)


def _inside(inside: Array, x: Array) -> Array:
    """1 where it is, NaN elsewhere, in the dtype of x."""
    return jnp.where(inside, 1.0, jnp.nan).astype(x.dtype)


def _quotient_at_rest(change: Array, length: Array) -> Array:
    """change/length, 0 where the length is 0."""
    still = length == 0
    return jnp.where(still, 0.0, change / jnp.where(still, 1.0, length))


def _is_after(p: Array, q: Array) -> Array:
    """Is p lexicographically larger than q?"""
    first = jnp.argmax(p != q)
    return p[first] > q[first]


def _absolute(x: Array) -> Array:
    """|x| with derivative 0 at 0."""
    return x * jnp.sign(x)


def _root_gap(p: Array, q: Array) -> Array:
    """√p − √q as (p − q)/(√p + √q); where both are 0 it is 0, and so is its derivative."""
    none = (p == 0) & (q == 0)
    p, q = jnp.where(none, 1.0, p), jnp.where(none, 1.0, q)
    return (p - q) / (jnp.sqrt(p) + jnp.sqrt(q))


def _norm(v: Array) -> Array:
    """‖v‖ with derivative 0 at 0; no square of it overflows or underflows."""
    size = jax.lax.stop_gradient(jnp.abs(v).max())
    still = size == 0
    unit = v / jnp.where(still, 1.0, size)
    return size * jnp.where(still, 0.0, jnp.sqrt(jnp.where(still, 1.0, (unit * unit).sum())))
