"""Fenchel-Young losses over batches: what a learner pays for saying θ when the truth was η.

    L(θ, η) = ψ(θ) + φ(η) − ⟨θ, η⟩ ≥ 0,  = 0 only where ∇ψ(θ) = η;      ∂L/∂θ = ∇ψ(θ) − η.

A loss of this form is convex in θ whatever ψ is, and its gradient is a difference of dual
coordinates. For the categorical potential it is the cross entropy of the softmax.
"""

import jax
import jax.numpy as jnp
from jax import Array

from dualflat.geometry.divergence import fenchel_young
from dualflat.geometry.potential import Potential


def classification_gap(logits: Array, labels: Array) -> Array:
    """Fenchel-Young gap between categorical laws and the labels that were seen, one per example.

    With θᵢ = zᵢ − z₀ for i = 1, …, k−1, ψ the potential of `Categorical(k − 1)` and η the vertex
    of the simplex that stands for the label y (where φ = 0):

        L = ψ(θ) + φ(η) − ⟨θ, η⟩ = log Σⱼ exp(zⱼ − z_y) = −log softmax(z)_y.

    The form computed has m = maxⱼ(zⱼ − z_y) ≥ 0 and sums over j ≠ y only,

        L = m + log1p(Σ exp(zⱼ − z_y − m) + expm1(−m)),

    which subtracts nothing of its own size: a confident right answer costs exp(−30), not 0, and a
    confident wrong one costs its margin. Its derivatives are softmax(z)ⱼ for j ≠ y and minus their
    sum for y, at every order and just as free of cancellation.

    Args:
      logits: shape (..., k), k ≥ 2, floating. Any finite value is safe. −∞ on a class other than
        the label excludes that class (its gradient is 0); on the label it makes the loss +∞ and
        the gradient NaN. +∞ or NaN anywhere makes the example's loss and gradient NaN.
      labels: shape (...), integers in [0, k). Outside it, loss and gradient are NaN: a gather would
        silently have clamped the index.

    Returns:
      shape (...), dtype of `logits`, nonnegative. Average it as the task demands.

    Raises:
      ValueError: for shapes that do not match, for labels that are not integers or logits that are
        not floating; before tracing.

    >>> classification_gap(jnp.array([[0.0, 0.0], [0.0, 40.0]]), jnp.array([0, 1]))
    Array([6.931472e-01, 4.248354e-18], dtype=float32)
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    if logits.ndim == 0 or logits.shape[:-1] != labels.shape or logits.shape[-1] < 2:
        raise ValueError(
            f"classification_gap: logits {logits.shape} and labels {labels.shape} do not match."
            " Wanted (..., k) with k ≥ 2, and (...): one integer per row of logits."
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"classification_gap: logits are {logits.dtype}. Wanted real floating.")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"classification_gap: labels are {labels.dtype}. Wanted integers; for soft labels"
            " use fenchel_young_loss with a Categorical potential."
        )
    # A mask and not a gather: its derivative is a mask again and not a scatter, which would cost
    # more than all the rest. A label that is no class is NaN, so that the gradient is NaN too.
    own = labels[..., None] == jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    missing = jnp.where(own.any(-1), 0.0, jnp.nan).astype(logits.dtype)
    seen = jnp.where(own, logits, 0.0).sum(-1) + missing
    lead = logits - seen[..., None]  # exactly 0 at the label
    # L does not depend on m, so neither do its derivatives: they are exact with m held still.
    m = jax.lax.stop_gradient(jnp.maximum(lead.max(-1), 0.0))
    others = jnp.where(own, 0.0, jnp.exp(lead - m[..., None])).sum(-1)
    loss = m + jnp.log1p(others + jnp.expm1(-m))
    hopeless = (seen == -jnp.inf) & jnp.isfinite(logits.max(-1))
    return jnp.where(hopeless, jnp.inf, loss)


def fenchel_young_loss(psi: Potential, thetas: Array, etas: Array) -> Array:
    """Fenchel-Young gap ψ(θ) + φ(η) − ⟨θ, η⟩ of each example, for any potential.

    Args:
      psi: the potential.
      thetas: shape (..., n), what the model says.
      etas: shape (..., n), what was seen: sufficient statistics, or their means. On the edge of
        the range of ∇ψ, where single observations often lie, ψ must know φ in closed form.

    Returns:
      shape (...), nonnegative; NaN for an example that is impossible, and for that one only.

    Raises:
      ValueError: for shapes that do not match each other or ψ.

    >>> from dualflat.geometry.families.categorical import Categorical
    >>> thetas, etas = jnp.zeros((2, 1)), jnp.array([[0.5], [1.0]])
    >>> fenchel_young_loss(Categorical(1), thetas, etas).round(4)
    Array([0.    , 0.6931], dtype=float32)
    """
    thetas, etas = jnp.asarray(thetas), jnp.asarray(etas)
    if thetas.ndim < 1 or thetas.shape != etas.shape:
        raise ValueError(
            f"fenchel_young_loss: thetas {thetas.shape} and etas {etas.shape} do not match."
            " Wanted one shape (..., n)."
        )
    rows = (-1, thetas.shape[-1])
    gaps = jax.vmap(lambda theta, eta: fenchel_young(psi, theta, eta))(
        thetas.reshape(rows), etas.reshape(rows)
    )
    return gaps.reshape(thetas.shape[:-1])
