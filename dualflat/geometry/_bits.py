"""One bit with log-odds t, p = 1/(1 + exp −t): its entropy and divergences without lost digits."""

import jax.numpy as jnp
from jax import Array

from dualflat.geometry import _numerics


def sigmoid(t: Array) -> Array:
    """1/(1 + exp −t), relatively accurate on both sides."""
    up = t >= 0
    small = jnp.exp(jnp.where(up, -t, t))
    return jnp.where(up, 1.0, small) / (1 + small)


def log_odds(s: Array, m: Array | float = 1.0) -> Array:
    """log s/(m − s) for 0 < s < m, to 2 ε of itself (measured), near ½m as 2 artanh z, mz = 2s − m exactly."""
    z = (2 * s - m) / m
    near = jnp.abs(z) < 1 / 3
    close = _numerics.twice_artanh(jnp.where(near, z, 0.0))
    return jnp.where(near, close, jnp.log(jnp.where(near, 1.0, s / (m - s))))


def bit_entropy(p: Array) -> Array:
    """p log p + (1 − p) log(1 − p), 0 at both ends."""
    certain = p == 1
    q = jnp.where(certain, 0.0, p)
    return _numerics.xlogx(p) + jnp.where(certain, 0.0, (1 - q) * jnp.log1p(-q))


def softplus_divergence(t: Array, base: Array) -> Array:
    """KL of the bit with log-odds `base` from the bit with log-odds t.

    With p ≤ ½ the probability of the base's rarer side, Δ = t − base seen from there and
    z = p(exp Δ − 1) it is log(1 + z) − pΔ = p(exp Δ − 1 − Δ) − (z − log(1 + z)), computed so for
    |Δ| < 2; beyond, softplus(t) − softplus(base) − pΔ. Neither loses more than a factor of 3.
    """
    side = jnp.where(base > 0, -1.0, 1.0).astype(base.dtype)
    change, low, end = side * (t - base), -jnp.abs(base), side * t
    small = jnp.exp(low)
    p = small / (1 + small)
    near = jnp.abs(change) < 2
    excess, rise = _numerics.exp_excess_by_halves(jnp.where(near, change, 0.0))
    z = p * rise
    large = z > 0.9  # |z| < ½ where it is negative
    log = jnp.log1p(jnp.where(large, z, jnp.exp(-jnp.abs(end))))
    left = jnp.where(large, z - log, _numerics.minus_log1p_excess(jnp.where(large, 0.0, z)))
    far = jnp.maximum(end, 0.0) + log - jnp.log1p(small) - p * change
    return jnp.where(near, p * excess - left, far)


def _bit(t: Array) -> tuple[Array, Array, Array, Array]:
    """p, 1 − p and their logarithms, from one exponential of −|t|."""
    up = t >= 0
    small = jnp.exp(jnp.where(up, -t, t))
    whole, log_whole = 1 + small, jnp.log1p(small)
    p, q = jnp.where(up, 1.0, small) / whole, jnp.where(up, small, 1.0) / whole
    return p, q, jnp.where(up, 0.0, t) - log_whole, jnp.where(up, -t, 0.0) - log_whole


def bit_gap(t: Array, p: Array, q: Array) -> Array:
    """KL of the bit with probabilities (p of 1, q of 0) from the bit with log-odds t."""
    p_law, q_law, log_p, log_q = _bit(t)
    step = jnp.where(t > 0, q_law - q, p - p_law)  # from the smaller two
    one = _numerics.relative_entropy(p, p_law, step, log_p)
    return one + _numerics.relative_entropy(q, q_law, -step, log_q)
