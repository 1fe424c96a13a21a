"""Every leaf is cut into equal parts, and the two shapes of a leaf go into each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualflat.runtime import sync
from dualflat.runtime.placement import Layout, Rows, cut, make_mesh, parse_mesh
from tests.runtime.tiny import Tiny

shapes = st.lists(st.integers(0, 40), max_size=4).map(tuple)


@given(shape=shapes, shards=st.integers(1, 9))
def test_every_axis_splits_evenly_and_no_byte_is_lost(shape, shards):
    found = cut(shape, shards)
    if found is None:
        assert not shape or 0 in shape
        return
    axis, stored = found
    assert stored[axis] % shards == 0
    assert 0 <= stored[axis] - shape[axis] < shards
    assert stored[:axis] + stored[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
    if any(n % shards == 0 for n in shape):
        assert stored == shape, "nothing is padded where some axis divides"


@pytest.mark.parametrize("ps", [1, 2, 8])
def test_each_shard_holds_its_part_of_the_state(mesh_of, ps):
    """State bytes per device fall as 1/ps: from the layout and from the compiled program."""
    task = Tiny()
    layout = sync.state_layout(task, mesh_of(1, ps))
    whole = sync.state_layout(task, mesh_of(1, 1)).shard_bytes()
    axes = [max(x.shape) for x in jax.tree.leaves(layout.natural) if x.shape]
    padded = max(-(-n // ps) * ps / n for n in axes)  # 3 over 8 shards is the worst: 8/3
    scalars = sum(x.dtype.itemsize for x in jax.tree.leaves(layout.natural) if not x.shape)
    assert layout.shard_bytes() - scalars <= padded * (whole - scalars) / ps
    for leaf in jax.tree.leaves(layout.stored):
        if leaf.shape:
            part = leaf.sharding.shard_shape(leaf.shape)
            assert np.prod(part) * ps == np.prod(leaf.shape), "every leaf is cut into equal parts"
    state, _ = sync.make_init(task, layout)(0)
    program = sync.make_step(task, layout).apply.lower(state, state.params).compile()
    measured = program.memory_analysis().argument_size_in_bytes
    expected = (
        layout.shard_bytes() + layout.part("params").shard_bytes()
    )  # the state, and a gradient
    assert abs(measured - expected) <= 64  # alignment
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
    assert held == layout.shard_bytes()


@pytest.mark.parametrize("ps", [1, 3, 8])
def test_stored_and_natural_shapes_go_into_each_other(mesh_of, ps):
    mesh = mesh_of(1, ps)
    tree = {"a": np.arange(35.0).reshape(5, 7), "b": np.arange(16.0), "c": np.float64(3.0)}
    layout = Layout(
        mesh, jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.float32), tree)
    )
    tree = jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
    stored = jax.jit(layout.pack)(tree)
    for leaf, want in zip(jax.tree.leaves(stored), jax.tree.leaves(layout.stored), strict=True):
        assert leaf.shape == want.shape
        assert leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim)
    for back in (jax.jit(layout.gather)(stored), layout.to_saved(stored)):
        jax.tree.map(np.testing.assert_array_equal, back, tree)
    again = layout.from_saved(layout.to_saved(stored))
    jax.tree.map(np.testing.assert_array_equal, again, stored)


def test_padding_is_never_trained(mesh_of):
    task = Tiny()
    layout = sync.state_layout(task, mesh_of(1, 8))
    state, key = sync.make_init(task, layout)(0)
    step, rows = sync.make_step(task, layout), Rows(layout.batch, 16)
    for _ in range(3):
        state, _ = step(state, key, rows.place(task.train[np.arange(16)]))
    padded = 0
    for leaf, natural in zip(jax.tree.leaves(state), jax.tree.leaves(layout.natural), strict=True):
        beyond = np.ones(leaf.shape, bool)
        beyond[tuple(slice(n) for n in natural.shape)] = False
        padded += beyond.sum()
        assert not np.asarray(leaf)[beyond].any()
    assert padded, "a test of padding needs some"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("worker=4,ps=2", {"worker": 4, "ps": 2}),
        ("ps=2, worker=1", {"worker": 1, "ps": 2}),
        ("worker=8", {"worker": 8, "ps": 1}),
    ],
)
def test_a_mesh_is_read(text, sizes):
    assert parse_mesh(text) == sizes


@pytest.mark.parametrize(
    "text", ["", "4x2", "worker", "worker=", "worker=0", "worker=-1", "data=2", "ps=1,ps=2", "ps=²"]
)
def test_a_mesh_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match="mesh"):
        parse_mesh(text)


def test_default_mesh_gives_ps_as_many_shards_as_the_cluster_has_servers():
    devices = jax.devices()
    assert dict(make_mesh(None, devices).shape) == {"worker": 8, "ps": 1}
    assert dict(make_mesh(None, devices, servers=2).shape) == {"worker": 4, "ps": 2}
    assert dict(make_mesh(None, devices, servers=3).shape) == {"worker": 8, "ps": 1}
    # workers divide the batch; what is left over holds shards
    assert dict(make_mesh(None, devices, batch_size=100).shape) == {"worker": 4, "ps": 2}
    assert dict(make_mesh(None, devices, servers=2, batch_size=100).shape) == {"worker": 4, "ps": 2}
    assert dict(make_mesh(None, devices[:3], batch_size=100).shape) == {"worker": 1, "ps": 3}


def test_a_mesh_larger_than_the_machine_is_refused():
    with pytest.raises(ValueError, match="--cpu-devices 16"):
        make_mesh({"worker": 8, "ps": 2}, jax.devices())


def test_a_batch_that_does_not_divide_is_refused(mesh_of):
    layout = sync.state_layout(Tiny(), mesh_of(8, 1))
    with pytest.raises(ValueError, match="take 96 or 104"):
        Rows(layout.batch, 100)
    assert Rows(layout.batch, 104).part == slice(0, 104)


def test_rows_land_where_the_mesh_says(mesh_of):
    layout = sync.state_layout(Tiny(), mesh_of(4, 2))
    placed = Rows(layout.batch, 8).place({"x": np.arange(8)})["x"]
    assert {s.data.shape for s in placed.addressable_shards} == {(2,)}
    np.testing.assert_array_equal(jnp.asarray(placed), np.arange(8))
