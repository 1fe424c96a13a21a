"""Positive-definite solves and quadratic forms. Nothing here forms an inverse to multiply by it."""

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular

from dualflat.geometry import _numerics

UNROLLED = 5  # up to this size a batch is faster entry by entry than by a library call a matrix


def factor(a: Array) -> Array:
    """Lower Cholesky factor of a symmetric matrix (d, d); NaN throughout unless positive definite.

    The test is explicit: LAPACK stops at a negative pivot, but a pivot of exactly zero, or an
    infinite one, must not pass for a positive one either. Only the lower triangle is read; it is
    mirrored first, because the derivative of a Cholesky factor believes its input symmetric.
    """
    if a.shape[0] <= UNROLLED:
        low = _factor_written_out(a)
    else:
        low = jnp.linalg.cholesky(jnp.tril(a) + jnp.tril(a, -1).T, symmetrize_input=False)
    pivots = jnp.diagonal(low)
    return jnp.where(((pivots > 0) & (pivots < jnp.inf)).all(), low, jnp.nan)


def _factor_written_out(a: Array) -> Array:
    d = a.shape[0]
    rows: list[list[Array]] = []
    for i in range(d):
        row: list[Array] = []
        for j in range(i):
            dot = sum((row[k] * rows[j][k] for k in range(j)), start=jnp.zeros((), a.dtype))
            row.append((a[i, j] - dot) / rows[j][j])
        square = sum((x * x for x in row), start=jnp.zeros((), a.dtype))
        row.append(jnp.sqrt(a[i, i] - square))
        rows.append(row)
    zero = jnp.zeros((), a.dtype)
    return jnp.stack([jnp.stack([*row, *[zero] * (d - len(row))]) for row in rows])


def factor_solve(low: Array, b: Array) -> Array:
    """A⁻¹b for A = LLᵀ given by its factor L (d, d); b has shape (d,) or (d, k)."""
    if low.shape[0] > UNROLLED:
        return solve_triangular(low, solve_triangular(low, b, lower=True), lower=True, trans=1)
    d, x = low.shape[0], list(b)
    for i in range(d):
        for k in range(i):
            x[i] = x[i] - low[i, k] * x[k]
        x[i] = x[i] / low[i, i]
    for i in reversed(range(d)):
        for k in range(i + 1, d):
            x[i] = x[i] - low[k, i] * x[k]
        x[i] = x[i] / low[i, i]
    return jnp.stack(x)


def solve_pd(a: Array, b: Array) -> Array:
    """A⁻¹b for a positive-definite A (d, d), b (d,) or (d, k); NaN where A is not.

    A is scaled to unit diagonal first, which makes the solve blind to the units of the coordinates
    (θ ↦ Dθ) and is within a factor d of the best scaling there is (van der Sluis 1969).
    """
    scale = 1 / jnp.sqrt(jnp.diagonal(a))
    low = factor(a * scale[:, None] * scale[None, :])
    column = scale if b.ndim == 1 else scale[:, None]
    return column * factor_solve(low, column * b)


def inverse_pd(a: Array) -> Array:
    """A⁻¹ for a positive-definite A (d, d), exactly symmetric; NaN where A is not."""
    inverse = solve_pd(a, jnp.eye(a.shape[0], dtype=a.dtype))
    return (inverse + inverse.T) / 2


def logdet_factor(low: Array) -> Array:
    """log det A for A = LLᵀ given by its factor."""
    return 2 * jnp.log(jnp.diagonal(low)).sum()


def quadratic_form(a: Array, v: Array) -> Array:
    """vᵀAv for a matrix (d, d) and a vector (d,)."""
    return v @ (a @ v)


def log_det_excess(m: Array, whole: Array) -> tuple[Array, Array]:
    """tr M − log det(I + M) ≥ 0 for a symmetric M (d, d), and the Cholesky factor C of I + M.

    With the pivots 1 + xᵢ = Cᵢᵢ², which are not subtracted from but summed to, xᵢ = Mᵢᵢ − Σ Cᵢₖ² (k < i),

        tr M − log det(I + M) = Σ Cᵢₖ² (k < i) + Σ (xᵢ − log(1 + xᵢ)).

    Where M is large C is that of `whole`, the same matrix I + M by another way, which keeps the digits
    of its small eigenvalues.
    """
    identity = jnp.eye(m.shape[0], dtype=m.dtype)
    near = jnp.abs(m).max() < 0.25
    low = factor(jnp.where(near, identity + m, whole))
    below = (jnp.tril(low, -1) ** 2).sum(1)
    pivots = jnp.diagonal(low) ** 2
    x = jnp.where(near, jnp.diagonal(m) - below, 0.0)
    # x − log(1+x) in terms of (1+u) log(1+u) − u, with 1+u = 1/(1+x).
    excess = (1 + x) * _numerics.log1p_excess(-x / (1 + x))
    far = pivots - 1 - jnp.log(pivots)
    logs = jnp.where(near, excess, jnp.maximum(far, 0.0))
    return below.sum() + logs.sum(), low
