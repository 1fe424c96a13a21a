"""The two functions of a step, and the update rules by name."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dualflat.contracts import TrainState
from dualflat.learn.optim import NAMES, by_name
from dualflat.learn.step import init_state, make_apply, make_gradient

PARAMS = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([1.0, -2.0])}
GRADS = {"a": jnp.linspace(-1.0, 2.0, 6).reshape(2, 3), "b": jnp.array([0.5, 3.0])}


def test_the_gradient_is_that_of_the_loss_and_reports_it():
    def loss(params, batch, key):
        noise = jax.random.normal(key)
        return (params["w"] * batch["x"]).mean() * noise, {"noise": noise}

    x = jnp.array([1.0, 2.0, 6.0])
    grads, metrics = make_gradient(loss)({"w": jnp.float32(2.0)}, {"x": x}, jax.random.key(0))
    noise = jax.random.normal(jax.random.key(0))
    np.testing.assert_allclose(grads["w"], 3.0 * noise, rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], 6.0 * noise, rtol=1e-6)
    assert metrics["noise"] == noise


def test_apply_counts_and_follows_optax():
    tx = optax.adam(0.1)
    apply = jax.jit(make_apply(tx))
    state = init_state(tx, PARAMS)
    assert isinstance(state, TrainState)
    assert state.step.dtype == jnp.int32
    params, opt_state = PARAMS, tx.init(PARAMS)
    for k in range(3):
        state = apply(state, GRADS, jnp.int32(k))
        updates, opt_state = tx.update(GRADS, opt_state, params)
        params = optax.apply_updates(params, updates)
        assert int(state.step) == k + 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.params, params)


def test_staleness_reaches_the_rules_that_ask_for_it():
    def update(updates, state, params=None, *, staleness, **extra):
        return jax.tree.map(lambda g: -g / (1 + staleness), updates), state

    asks = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    for tx in (asks, optax.chain(optax.identity(), asks)):
        moved = make_apply(tx)(init_state(tx, PARAMS), GRADS, jnp.int32(3))
        np.testing.assert_allclose(moved.params["b"], PARAMS["b"] - GRADS["b"] / 4)
    deaf = optax.sgd(1.0)
    moved = make_apply(deaf)(init_state(deaf, PARAMS), GRADS, jnp.int32(3))
    np.testing.assert_allclose(moved.params["b"], PARAMS["b"] - GRADS["b"])


@pytest.mark.parametrize("name", NAMES)
def test_rules_descend_and_give_on_a_shard_what_they_give_on_the_whole(name):
    tx = by_name(name, 0.01)
    apply = make_apply(tx)

    def twice(params, grads):
        state = init_state(tx, params)
        for _ in range(2):
            state = apply(state, grads, jnp.int32(0))
        return state.params

    whole = twice(PARAMS, GRADS)
    for part in (slice(0, 1), slice(1, 2)):
        shard = twice({"a": PARAMS["a"][part]}, {"a": GRADS["a"][part]})
        # Not bitwise: whether XLA fuses a multiplication with an addition depends on how many
        # elements are left over at the end of a vector, so one unit in the last place may differ.
        np.testing.assert_allclose(shard["a"], whole["a"][part], rtol=2.4e-7)
    slope = sum(float(jnp.vdot(GRADS[leaf], whole[leaf] - PARAMS[leaf])) for leaf in PARAMS)
    assert slope < 0


def test_unknown_rules_and_impossible_rates_are_refused():
    with pytest.raises(ValueError, match=r"'adma' is not known; choose one of adabelief, .*sgd"):
        by_name("adma", 0.1)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be positive and finite"):
            by_name("adam", rate)
    by_name("adam", optax.constant_schedule(0.1))
