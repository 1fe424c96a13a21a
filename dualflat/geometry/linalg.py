"""Positive-definite solves and quadratic forms. Nothing here forms an inverse to multiply by it."""

import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import solve_triangular


def factor(a: Array) -> Array:
    """Lower Cholesky factor of a symmetric matrix (d, d); NaN throughout unless positive definite.

    The test is explicit: LAPACK stops at a negative pivot, but a pivot of exactly zero, or an
    infinite one, must not pass for a positive one either. Only the lower triangle is read; it is
    mirrored first, because the derivative of a Cholesky factor believes its input symmetric.
    """
    low = jnp.linalg.cholesky(jnp.tril(a) + jnp.tril(a, -1).T, symmetrize_input=False)
    pivots = jnp.diagonal(low)
    return jnp.where(((pivots > 0) & (pivots < jnp.inf)).all(), low, jnp.nan)


def factor_solve(low: Array, b: Array) -> Array:
    """A⁻¹b for A = LLᵀ given by its factor L (d, d); b has shape (d,) or (d, k)."""
    return solve_triangular(low, solve_triangular(low, b, lower=True), lower=True, trans=1)


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
