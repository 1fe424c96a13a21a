"""From a loss and an optax transformation to the two functions that every loop uses."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dualflat.contracts import Apply, Batch, Gradient, Metrics, PyTree, TrainState

Loss = Callable[[PyTree, Batch, jax.Array], tuple[jax.Array, Metrics]]


def make_gradient(loss: Loss) -> Gradient:
    """The covector of a batch, from its loss.

    Args:
      loss: (params, batch, key) → (mean loss over the batch, named scalars), pure.

    Returns:
      (params, batch, key) → (∂loss/∂params, the named scalars and `loss`).
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)

    def gradient(params: PyTree, batch: Batch, key: jax.Array, /) -> tuple[PyTree, Metrics]:
        (value, metrics), grads = value_and_grad(params, batch, key)
        return grads, {**metrics, "loss": value}

    return gradient


def make_apply(tx: optax.GradientTransformation) -> Apply:
    """One update of a training state by an optax transformation.

    Args:
      tx: elementwise in the leaves. A transformation with extra arguments is told `staleness`, how
        many versions old the covector is; others do not hear of it.

    Returns:
      (state, grads, staleness) → the next state, whose `step` is one more.
    """
    told = optax.with_extra_args_support(tx)

    def apply(state: TrainState, grads: PyTree, staleness: jax.Array, /) -> TrainState:
        updates, opt_state = told.update(grads, state.opt_state, state.params, staleness=staleness)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1)

    return apply


def init_state(tx: optax.GradientTransformation, params: PyTree) -> TrainState:
    """The state at step 0 of training `params` by `tx`."""
    return TrainState(params, tx.init(params), jnp.zeros((), jnp.int32))
