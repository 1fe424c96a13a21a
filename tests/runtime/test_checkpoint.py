"""Checkpoints: what was saved comes back bit for bit, or one is told what is wrong."""

import gc
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dualflat.contracts import TrainState
from dualflat.runtime import whole
from dualflat.runtime.checkpoint import CheckpointError, Checkpoints, DamagedCheckpointWarning

pytestmark = pytest.mark.timeout(120)


class Moments(NamedTuple):
    count: jax.Array
    mu: dict
    nu: dict


def mesh(devices=8):
    return jax.make_mesh(
        (devices,), ("ps",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )


def make_state(step, devices=8):
    """A state with every kind of leaf; its numbers follow from `step`."""
    rng = np.random.default_rng(step)
    split, replicated = NamedSharding(mesh(devices), P("ps")), NamedSharding(mesh(devices), P())
    params = {
        "conv": {"kernel": jax.device_put(rng.normal(size=(16, 5)).astype(np.float32), split)},
        "bias": jax.device_put(jnp.asarray(rng.normal(size=3), jnp.bfloat16), replicated),
        "none": None,
        "nothing": jax.device_put(jnp.zeros((0, 4)), replicated),
    }
    moments = Moments(
        jax.device_put(jnp.int32(step), replicated),
        jax.tree.map(lambda x: x * 2, params),
        jax.tree.map(lambda x: x * 3, params),
    )
    return {
        "train": TrainState(params, (moments, ()), jax.device_put(jnp.int32(step), replicated)),
        "key": jax.device_put(jax.random.key(step), replicated),
        "keys": jax.device_put(jax.random.split(jax.random.key(step, impl="rbg"), 4), replicated),
        "python": [step, -0.0 if step % 2 else float("inf"), True],
        "numpy": rng.integers(0, 2**60, size=3),
        "scalar": np.float64(step / 3),
    }


def abstract(state, devices=8, spec=None):
    def describe(leaf):
        if not isinstance(leaf, jax.Array):
            return leaf
        wanted = leaf.sharding.spec if spec is None else spec
        if leaf.ndim == 0 or leaf.shape[0] % devices:
            wanted = P()
        sharding = NamedSharding(mesh(devices), wanted)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(describe, state)


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()
    return type(leaf), repr(leaf)


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    found, wanted = (jax.tree_util.tree_leaves_with_path(x) for x in (found, wanted))
    for (path, left), (_, right) in zip(found, wanted, strict=True):
        assert bits(left) == bits(right), path


def save(folder, *steps, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for step in steps:
            checkpoints.save(
                step, make_state(step), record={"at": step}, metrics={"test_loss": float(step)}
            )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "two"
    save(folder, 3, 5)
    return folder


@pytest.fixture
def folder(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "copy")


def template():
    return abstract(make_state(0))


# ---- what comes back


def test_every_kind_of_leaf_comes_back_bit_for_bit(two_steps):
    with Checkpoints(two_steps) as checkpoints:
        found = checkpoints.load(template())
        earlier = checkpoints.load(template(), step=3)
        assert checkpoints.steps() == [3, 5]
        assert checkpoints.read_record() == (5, {"at": 5})
        assert checkpoints.read_record(3) == (3, {"at": 3})
    assert (found.step, found.record, found.metrics) == (5, {"at": 5}, {"test_loss": 5.0})
    assert_same(found.state, make_state(5))
    assert_same(earlier.state, make_state(3))
    assert isinstance(found.state["train"].opt_state[0], Moments)
    kernel = found.state["train"].params["conv"]["kernel"]
    assert kernel.sharding == NamedSharding(mesh(), P("ps"))
    drawn = jax.random.normal(found.state["keys"][2], (3,))
    np.testing.assert_array_equal(drawn, jax.random.normal(make_state(5)["keys"][2], (3,)))


@pytest.mark.parametrize(("devices", "spec"), [(2, P("ps")), (4, P()), (1, P()), (8, P("ps"))])
def test_a_step_loads_onto_another_mesh(two_steps, devices, spec):
    with Checkpoints(two_steps) as checkpoints:
        found = checkpoints.load(abstract(make_state(0), devices, spec))
    assert_same(found.state, make_state(5))
    kernel = found.state["train"].params["conv"]["kernel"]
    assert kernel.sharding == NamedSharding(mesh(devices), spec)
    assert len(found.state["key"].sharding.device_set) == devices


def test_leaves_without_a_sharding_come_to_the_first_device(two_steps):
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if isinstance(x, jax.Array) else x,
        make_state(0),
    )
    with Checkpoints(two_steps) as checkpoints:
        found = checkpoints.load(like)
    assert_same(found.state, make_state(5))
    assert found.state["key"].devices() == {jax.devices()[0]}


def test_an_absent_or_empty_folder_holds_no_checkpoint(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with Checkpoints(folder) as checkpoints:
            assert checkpoints.load(template()) is None
            assert checkpoints.read_record() is None
            assert checkpoints.steps() == []
            with pytest.raises(CheckpointError, match=r"holds no step 7; its whole steps are \[\]"):
                checkpoints.load(template(), step=7)
    assert list(tmp_path.iterdir()) == []  # readers leave no trace


def test_a_state_without_arrays_is_a_state(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"n": 3, "e": np.zeros((0, 2))}, record={})
        found = checkpoints.load({"n": 0, "e": np.ones((0, 2))})
    assert found.state["n"] == 3
    assert found.state["e"].shape == (0, 2)


def test_donated_and_overwritten_arrays_are_saved_as_they_were(tmp_path):
    state = {"x": jax.device_put(jnp.arange(2.0**18), jax.devices()[0]), "n": np.arange(10)}
    change = jax.jit(lambda x: x - 7, donate_argnums=0)
    twin = state["x"] + 0
    change(twin)
    assert twin.is_deleted()  # the control: it does give its buffer away
    like = {"x": jax.ShapeDtypeStruct((2**18,), jnp.float32), "n": state["n"]}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, record={})
        for _ in range(3):
            state["x"] = change(state["x"])
        state["n"][:] = 0
        found = checkpoints.load(like)
    assert state["x"][0] == -21
    np.testing.assert_array_equal(found.state["x"], np.arange(2.0**18, dtype=np.float32))
    np.testing.assert_array_equal(found.state["n"], np.arange(10))


def test_64_bit_leaves_survive_with_x64_on_and_are_refused_with_it_off(tmp_path):
    with jax.enable_x64(True), Checkpoints(tmp_path) as checkpoints:
        state = {"x": jnp.arange(3) + 2**40, "y": jnp.float64(1) / 3}
        checkpoints.save(1, state, record={})
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
        assert_same(checkpoints.load(like).state, state)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError, match="x64"):
        checkpoints.load(like)


# ---- templates that do not fit


def change(path, value):
    def changed(state):
        return jax.tree_util.tree_map_with_path(
            lambda p, leaf: value if jax.tree_util.keystr(p) == path else leaf, state
        )

    return changed


KERNEL = "['train'].params['conv']['kernel']"
MISFITS = {
    "shape": (change(KERNEL, jax.ShapeDtypeStruct((16, 6), np.float32)), "[16, 5], asked for is"),
    "dtype": (change(KERNEL, jax.ShapeDtypeStruct((16, 5), jnp.bfloat16)), "is bfloat16[16, 5]"),
    "key for array": (change("['key']", jax.ShapeDtypeStruct((), np.uint32)), "key<fry>[]"),
    "array for int": (change("['python'][0]", jax.ShapeDtypeStruct((), np.int32)), "is int[]"),
    "float for int": (change("['python'][0]", 1.0), "asked for is float[]"),
    "missing": (lambda s: {k: v for k, v in s.items() if k != "key"}, "['key'] is saved, but not"),
    "extra": (lambda s: {**s, "ema": np.zeros(2)}, "['ema'] is asked for, but not saved"),
    "list for tuple": (lambda s: {**s, "python": {"0": 1}}, "['python'][0] is saved, but not"),
}


@pytest.mark.parametrize(("misfit", "words"), MISFITS.values(), ids=MISFITS.keys())
def test_a_template_that_does_not_fit_is_refused_with_words(two_steps, misfit, words):
    with Checkpoints(two_steps) as checkpoints, pytest.raises(CheckpointError) as caught:
        checkpoints.load(misfit(template()))
    assert words in str(caught.value)
    assert "another model or optimiser" in str(caught.value)


# ---- which steps are kept


@pytest.mark.parametrize(
    ("losses", "options", "kept"),
    [
        ([5, 1, 4, 3, 2, 6], {"keep": 2}, [1, 4, 5]),
        ([5, 1, 4, 3, 2, 6], {"keep": 2, "keep_best": 0}, [4, 5]),
        ([5, 1, 4, 3, 2, 6], {"keep": 1, "keep_best": 2}, [1, 4, 5]),
        ([5, 9, 4, 3, 2, 1], {"keep": 1, "best_mode": "max"}, [1, 5]),
        ([float("nan"), 3, 2], {"keep": 1}, [2]),
        ([1, None, None, 2], {"keep": 1}, [0, 3]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, losses, options, kept):
    for part in (slice(0, 2), slice(2, None)):  # a restart in between forgets nothing
        with Checkpoints(tmp_path, **options) as checkpoints:
            for step in range(len(losses))[part]:
                metrics = {} if losses[step] is None else {"test_loss": losses[step]}
                checkpoints.save(step, {"n": step}, record={}, metrics=metrics)
    assert checkpoints.steps() == kept
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, kept))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": 0}, "keep=0"),
        ({"keep_best": -1}, "keep_best=-1"),
        ({"best_mode": "least"}, "best_mode='least'"),
    ],
)
def test_impossible_options_are_refused_at_the_door(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        Checkpoints(tmp_path, **options)


def test_urls_are_refused():
    with pytest.raises(ValueError, match="is a URL"):
        Checkpoints("gs://bucket/run")


# ---- damage


def kinds(step_folder):
    """Every file of a step, by what it is: orbax gives its data files random names."""
    found = {}
    for path in sorted(step_folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(step_folder))
            parent = os.path.dirname(name)
            kind = f"{parent}/data" if os.path.basename(parent) == "d" else name
            found.setdefault(kind, []).append(path)
    return found


def expect_fallback(folder, words, step=3):
    with Checkpoints(folder) as checkpoints:
        with pytest.warns(DamagedCheckpointWarning) as caught:
            found = checkpoints.load(template())
        assert [str(w.message) for w in caught if "step 5 is damaged" in str(w.message)]
        assert words in str(caught[0].message)
        assert "Step 3 is used instead" in str(caught[0].message)
        with pytest.raises(CheckpointError, match="step 5 is damaged"):
            checkpoints.load(template(), step=5)
    assert found.step == step
    assert_same(found.state, make_state(step))


def test_one_flipped_bit_in_any_file_is_seen_and_the_step_before_is_used(folder):
    rng = random.Random(20)  # which bits: any seed must do
    files = kinds(folder / "5")
    assert len(files) >= 9, files.keys()
    for paths in files.values():
        for path in paths:
            data = path.read_bytes()
            for bit in (0, rng.randrange(8 * len(data)), 8 * len(data) - 1):
                damaged = bytearray(data)
                damaged[bit // 8] ^= 1 << bit % 8
                path.write_bytes(damaged)
                with pytest.raises(whole.NotWholeError, match=path.name):
                    whole.verify(folder / "5")
            if path is paths[0]:
                expect_fallback(folder, path.name)
            path.write_bytes(data)
    with Checkpoints(folder) as checkpoints:  # the control: undamaged again, and silent
        assert checkpoints.load(template()).step == 5


def damage_truncate(step):
    path = step / "record.json"
    path.write_bytes(path.read_bytes()[:-1])
    return "record.json"


def damage_tear_manifest(step):
    path = step / whole.MANIFEST
    path.write_bytes(path.read_bytes()[:100])
    return whole.MANIFEST


def damage_lose_manifest(step):
    (step / whole.MANIFEST).unlink()
    return whole.MANIFEST


def damage_lose(step):
    (step / "state/_METADATA").unlink()
    return "_METADATA is missing"


def damage_add(step):
    (step / "state/stray").write_bytes(b"")
    return "stray does not belong there"


def damage_swap(step):
    one, other = step / "record.json", step.parent / "3/record.json"
    mine, yours = one.read_bytes(), other.read_bytes()
    one.write_bytes(yours)
    assert len(mine) == len(yours)  # the control: the sizes tell nothing
    return "record.json"


def damage_blank(step):
    (path,) = [p for p in (step / "state").rglob("*") if p.name == "_sharding"]
    path.write_bytes(bytes(path.stat().st_size))  # what a lost write leaves
    return "_sharding"


DAMAGES = [
    damage_truncate,
    damage_tear_manifest,
    damage_lose_manifest,
    damage_lose,
    damage_add,
    damage_swap,
    damage_blank,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_damage_is_seen_and_training_goes_on(folder, damage):
    words = damage(folder / "5")
    expect_fallback(folder, words)
    # The run goes on from step 3 and comes to step 5 again: the damaged one is kept aside.
    with Checkpoints(folder) as checkpoints:
        with pytest.warns(DamagedCheckpointWarning):
            checkpoints.load(template())
        checkpoints.save(4, make_state(4), record={})
        checkpoints.save(5, make_state(5), record={"again": True})
        found = checkpoints.load(template())
    assert found.record == {"again": True}
    assert sorted(os.listdir(folder)) == ["3", "4", "5", "5.damaged"]


def test_a_damaged_record_is_passed_over_but_never_believed(folder):
    damage_truncate(folder / "5")
    with Checkpoints(folder) as checkpoints:
        with pytest.warns(DamagedCheckpointWarning, match=r"step 5 is damaged.*record\.json"):
            assert checkpoints.read_record() == (3, {"at": 3})
        with pytest.raises(CheckpointError, match=r"step 5 is damaged: .*record\.json holds"):
            checkpoints.read_record(5)


def test_where_every_step_is_damaged_nothing_begins_anew_silently(folder):
    damage_truncate(folder / "5")
    damage_lose(folder / "3")
    nothing = pytest.raises(CheckpointError, match=r"no step here is whole: step 5: .*; step 3: ")
    with Checkpoints(folder) as checkpoints, nothing:
        checkpoints.load(template())


# ---- what is not ours


def test_strangers_are_left_alone(folder):
    (folder / "notes.txt").write_text("mine")
    (folder / "007").mkdir()
    (folder / "tmp.partial").mkdir()
    (folder / "9").mkdir()
    (folder / "9/theirs").write_text("theirs")
    (folder / "6").write_text("a file")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [3, 5]
        with pytest.raises(CheckpointError, match="6 is not a folder: move it away"):
            checkpoints.save(6, make_state(6), record={})
        checkpoints.save(7, make_state(7), record={})
        with pytest.raises(CheckpointError, match="exists and is not a checkpoint: move it away"):
            checkpoints.save(9, make_state(9), record={})
        assert checkpoints.steps() == [3, 5, 7]
    assert (folder / "9/theirs").read_text() == "theirs"
    assert (folder / "6").read_text() == "a file"
    assert {"notes.txt", "007", "tmp.partial"} <= set(os.listdir(folder))


def test_a_folder_of_strangers_is_an_error_not_a_fresh_start(tmp_path):
    (tmp_path / "9").mkdir()
    strange = pytest.raises(CheckpointError, match=r"9/manifest\.json is missing")
    with Checkpoints(tmp_path) as checkpoints, strange:
        checkpoints.load(template())


def test_leftovers_of_a_crash_are_ignored_by_readers_and_removed_by_the_writer(folder):
    shutil.copytree(folder / "5", folder / "6.partial")
    os.rename(folder / "3", folder / "3.removing")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [5]
        assert checkpoints.load(template()).step == 5
        assert {"6.partial", "3.removing"} <= set(os.listdir(folder))
        checkpoints.save(6, make_state(6), record={})
    assert sorted(os.listdir(folder)) == ["5", "6"]


# ---- saves that fail


@pytest.mark.parametrize(
    ("step", "state", "record", "words"),
    [
        (5, {"n": 1}, {}, "step 5 is already saved"),
        (4, {"n": 1}, {}, "step 5 is already saved, and steps have to grow"),
        (-1, {"n": 1}, {}, "step=-1"),
        (6, {"n": {"text": "hello"}}, {}, r"leaf \['n'\]\['text'\] is a str"),
        (6, {"n": np.array(["a"])}, {}, "is an array of <U1"),
        (6, {"n": 1}, {"a": object()}, "not JSON serializable"),
    ],
)
def test_impossible_saves_are_refused_and_leave_no_trace(folder, step, state, record, words):
    with Checkpoints(folder) as checkpoints:
        with pytest.raises(CheckpointError, match=words) as caught:
            checkpoints.save(step, state, record=record)
        assert caught.value.__cause__ is not None
        assert sorted(os.listdir(folder)) == ["3", "5"]
        checkpoints.save(7, make_state(7), record={})  # and the next one succeeds
        checkpoints.wait()
        assert checkpoints.steps() == [3, 5, 7]


def test_readers_and_closed_ones_do_not_save(folder):
    with Checkpoints(folder, read_only=True) as reader:
        with pytest.raises(CheckpointError, match="read only"):
            reader.save(9, make_state(9), record={})
        assert reader.load(template()).step == 5
    with pytest.raises(CheckpointError, match=r"after close\(\)"):
        reader.save(9, make_state(9), record={})
    reader.close()


def save_durably(checkpoints, step, state):
    checkpoints.save(step, state, record={})
    checkpoints.wait()


@pytest.fixture
def file_size_limit():
    """Set the size at which writes fail: the full disk that needs no disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def collected():
    yield
    gc.collect()  # so that what complains when it is collected does so here, not in another test


def orbax_dies_noisily(test):
    """Ignore what is raised where nobody can catch it.

    Where one of its writes fails, orbax closes its event loop before the others have ended, and
    they complain to nobody. What matters is what is raised, and what is left on the disk.
    """
    ignored = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    return pytest.mark.usefixtures("collected")(ignored(test))


@orbax_dies_noisily
@pytest.mark.parametrize("size", [0, 40, 150, 1000, 4000, 100_000])
def test_a_full_disk_raises_cleans_up_and_is_usable_again(folder, file_size_limit, size):
    """Each size fails somewhere else: in the record, in orbax's metadata, in the arrays."""
    state = {**make_state(6), "big": jnp.arange(200_000.0)}
    with Checkpoints(folder) as checkpoints:
        file_size_limit(size)
        with pytest.raises(CheckpointError, match="saving step 6"):
            save_durably(checkpoints, 6, state)
        file_size_limit(resource.RLIM_INFINITY)
        assert sorted(os.listdir(folder)) == ["3", "5"]
        checkpoints.save(6, state, record={})
        checkpoints.wait()
        assert checkpoints.steps() == [3, 5, 6]
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint-")]


def test_an_error_in_the_background_surfaces_once_wherever_one_looks_next(folder, monkeypatch):
    def fail(folder):
        raise OSError(5, "Input/output error")

    def save_and(look):
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(6, make_state(6), record={})
            if look == "save":
                checkpoints.save(7, make_state(7), record={})
            elif look == "load":
                checkpoints.load(template())
            elif look != "exit":
                getattr(checkpoints, look)()

    for look in ("save", "wait", "close", "load", "exit"):
        with monkeypatch.context() as patch:
            patch.setattr(whole, "seal", fail)
            with pytest.raises(CheckpointError, match="Input/output"):
                save_and(look)
        assert sorted(os.listdir(folder)) == ["3", "5"]
    with Checkpoints(folder) as checkpoints:
        with monkeypatch.context() as patch:
            patch.setattr(whole, "seal", fail)
            checkpoints.save(6, make_state(6), record={})
            with pytest.raises(CheckpointError):
                checkpoints.wait()
        checkpoints.wait()
        checkpoints.save(6, make_state(6), record={})
    assert checkpoints.steps() == [3, 5, 6]


def save_and_stumble(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(6, make_state(6), record={})
        raise ZeroDivisionError


def test_an_error_in_the_body_is_not_hidden_by_one_in_the_background(folder, monkeypatch):
    def fail(folder):
        raise OSError("disk on fire")

    monkeypatch.setattr(whole, "seal", fail)
    with pytest.raises(ZeroDivisionError) as caught:
        save_and_stumble(folder)
    assert "step 6 failed too: disk on fire" in caught.value.__notes__[0]


def test_an_error_in_the_body_waits_for_the_save_in_progress(folder):
    with pytest.raises(ZeroDivisionError):
        save_and_stumble(folder)
    assert Checkpoints(folder).steps() == [3, 5, 6]


def test_a_step_that_goes_away_while_it_is_read_is_passed_over(folder, monkeypatch):
    """A reader may look on while the run that writes removes old steps."""
    verify, removed = whole.verify, []

    def remove_after(step):
        verify(step)
        if not removed:
            removed.append(step.name)
            whole.remove(step)

    monkeypatch.setattr(whole, "verify", remove_after)
    monkeypatch.setattr(Checkpoints._choose, "__defaults__", (remove_after,))
    with Checkpoints(folder, read_only=True) as reader:
        found = reader.load(template())
    assert removed == ["5"]
    assert_same(found.state, make_state(3))


def test_a_folder_that_cannot_be_written_raises_promptly(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    mkdir = os.mkdir

    def refuse(path, *args, **kwargs):
        if ".partial" in os.fspath(path) or "beneath" in os.fspath(path):
            raise PermissionError(30, "Read-only file system", os.fspath(path))
        return mkdir(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", refuse)
    for place, words in (
        (folder, "Read-only file system"),
        (tmp_path / "beneath/it", "Read-only file system"),
        (tmp_path / "file/beneath", "is a file where a folder is wanted"),
    ):
        began = time.monotonic()
        with Checkpoints(place) as checkpoints, pytest.raises(CheckpointError, match=words):
            checkpoints.save(6, make_state(6), record={})
        assert time.monotonic() - began < 5
    assert sorted(os.listdir(folder)) == ["3", "5"]


# ---- crashes


class PowerCutError(OSError):
    pass


@orbax_dies_noisily
@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5, 9, 15, 24, 33, 42, 51, 60])
def test_after_a_power_cut_at_any_file_operation_the_newest_whole_step_loads(
    folder, calls, monkeypatch
):
    """From the n-th call on nothing reaches the disk, neither the save's nor its clean-up's."""
    left = [calls]

    def until(act):
        def acting(*args, **kwargs):
            if left[0] <= 0:
                raise PowerCutError("no power")
            left[0] -= 1
            return act(*args, **kwargs)

        return acting

    cut = False
    with monkeypatch.context() as patch:
        for name in ("rename", "fsync", "mkdir", "rmdir", "unlink", "replace"):
            patch.setattr(os, name, until(getattr(os, name)))
        try:
            with Checkpoints(folder, keep=1, keep_best=0) as checkpoints:
                checkpoints.save(6, make_state(6), record={})
        except CheckpointError:
            cut = True
    with Checkpoints(folder, keep=1, keep_best=0) as checkpoints:
        found = checkpoints.load(template())  # silently: warnings are errors
        assert found.step == 6 if not cut else found.step in (5, 6)
        assert_same(found.state, make_state(found.step))
        checkpoints.save(7, make_state(7), record={})
    assert sorted(os.listdir(folder)) == ["7"]


SAVER = """
import sys
import jax, numpy as np
from dualflat.runtime.checkpoint import Checkpoints

with Checkpoints(sys.argv[1], keep=2) as checkpoints:
    for step in range(1, 100_000):
        state = {"x": jax.numpy.full((64, 257), step, "float32"), "n": np.arange(step % 7)}
        checkpoints.save(step, state, record={"step": step}, metrics={"test_loss": step % 5})
        if step % 2:  # half of the saves begin before the one before them is known to be durable
            checkpoints.wait()
            print(step, flush=True)
"""


def start(code, *words, **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment},
    )


def check_survivor(folder, durable, step_of):
    with Checkpoints(folder) as checkpoints:
        step, record = checkpoints.read_record()
        like = {
            "x": jax.ShapeDtypeStruct((64, 257), np.float32),
            "n": np.arange(step % 7),
        }
        found = checkpoints.load(like)  # silently: warnings are errors
    assert found.step == step >= durable
    assert record == {"step": step}
    np.testing.assert_array_equal(found.state["x"], np.full((64, 257), step, np.float32))
    step_of.append(step)


def test_killed_at_any_moment_the_newest_durable_step_loads(tmp_path):
    """A stopped process has left on the disk what a killed one leaves: so each stop is a kill."""
    rng = random.Random(4)  # when: any seed must do
    folder, snapshots = tmp_path / "run", []
    saver = start(SAVER, folder, JAX_NUM_CPU_DEVICES="1")
    said = []

    def listen():
        for line in saver.stdout:
            said.append(int(line))

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        while not said and saver.poll() is None:
            time.sleep(0.05)
        for number in range(30):
            time.sleep(rng.uniform(0, 0.08))
            saver.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, saver.pid, os.WSTOPPED | os.WNOWAIT)
            durable = max(said)  # a lower bound: what is still in the pipe is durable too
            snapshots.append((tmp_path / f"kill-{number}", durable))
            shutil.copytree(folder, snapshots[-1][0])
            saver.send_signal(signal.SIGCONT)
    finally:
        saver.kill()
        reader.join()
        errors = saver.communicate()[1]
    assert saver.returncode == -signal.SIGKILL, errors
    snapshots.append((folder, max(said)))
    steps: list[int] = []
    for place, durable in snapshots:
        check_survivor(place, durable, steps)
    assert len(set(steps)) > 5  # the control: it was killed at different moments
    names = {name for place, _ in snapshots for name in os.listdir(place)}
    assert any(name.endswith(".partial") for name in names), names  # and in the middle of saves


# ---- several processes

MEMBER = """
import json, os, sys, warnings
import jax
folder, address, me = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(
    address, 2, me, cluster_detection_method="deactivate", coordinator_bind_address=address
)
import jax.numpy as jnp, numpy as np
sys.path.insert(0, os.getcwd())
from jax.sharding import NamedSharding, PartitionSpec as P
from tests.runtime import test_checkpoint as t
from dualflat.runtime.checkpoint import Checkpoints, CheckpointError, DamagedCheckpointWarning

whole_mesh = t.mesh(4)
like = t.abstract_for(whole_mesh)
said = {}
with Checkpoints(folder) as checkpoints:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = checkpoints.load(like)
    said["warned"] = [w.category.__name__ for w in caught]
    said["from"] = found.step
    x = found.state["x"]
    said["shards"] = [np.asarray(s.data).tolist() for s in x.addressable_shards]
    def later(step):
        return {
            "x": jax.jit(lambda x: x + step)(x), "r": found.state["r"], "key": found.state["key"],
            "n": step, "local": jnp.float32(step), "numpy": np.arange(3) + step,
        }
    checkpoints.save(8, later(8), record={"step": 8})
    for record in ({"a": object()} if me == 1 else {},):  # one process fails: all are told
        try:
            checkpoints.save(9, later(9), record=record)
        except CheckpointError as error:
            said["error"] = str(error)
    checkpoints.save(10, later(10), record={"step": 10})
    checkpoints.wait()
    said["steps"] = checkpoints.steps()
    again = checkpoints.load(like, step=8)
    said["again"] = [again.step, again.state["n"], float(again.state["local"])]
print("SAID" + json.dumps(said), flush=True)
jax.distributed.shutdown()
"""


def abstract_for(over):
    split, replicated = NamedSharding(over, P("ps")), NamedSharding(over, P())
    key = jax.eval_shape(lambda: jax.random.key(0))
    return {
        "x": jax.ShapeDtypeStruct((8, 3), np.float32, sharding=split),
        "r": jax.ShapeDtypeStruct((5,), np.int32, sharding=replicated),
        "key": jax.ShapeDtypeStruct((), key.dtype, sharding=replicated),
        "n": 0,
        "local": jax.ShapeDtypeStruct(
            (), np.float32, sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        ),
        "numpy": np.arange(3),
    }


@pytest.mark.slow
def test_two_processes_resume_what_one_saved_and_one_what_two_saved(tmp_path):
    x = np.arange(24, dtype=np.float32).reshape(8, 3)
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            state = {
                "x": jax.device_put(x * step, NamedSharding(mesh(), P("ps"))),
                "r": jax.device_put(np.arange(5, dtype=np.int32), NamedSharding(mesh(), P())),
                "key": jax.device_put(jax.random.key(5), NamedSharding(mesh(), P())),
                "n": step,
                "local": jnp.float32(step),
                "numpy": np.arange(3),
            }
            checkpoints.save(step, state, record={})
    damage_truncate(tmp_path / "2")  # so that process 0 decides, and the other follows
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    members = [
        start(MEMBER, tmp_path, address, me, JAX_NUM_CPU_DEVICES="2", PJRT_NPROC="8")
        for me in (0, 1)
    ]
    said = []
    try:
        for member in members:
            out, err = member.communicate(timeout=100)
            assert member.returncode == 0, err[-3000:]
            (line,) = [line for line in out.splitlines() if line.startswith("SAID")]
            said.append(json.loads(line[4:]))
    finally:
        for member in members:
            member.kill()
    assert [s["from"] for s in said] == [1, 1]
    assert [s["warned"] for s in said] == [["DamagedCheckpointWarning"], []]
    assert np.concatenate(said[0]["shards"] + said[1]["shards"]).tolist() == x.tolist()
    assert "not JSON serializable" in said[1]["error"]
    assert "failed in process 1" in said[0]["error"]
    for s in said:
        assert s["steps"] == [1, 8, 10]
        assert s["again"] == [8, 8, 8.0]
    assert sorted(os.listdir(tmp_path)) == ["1", "10", "2.damaged", "8"]
    with warnings.catch_warnings(), Checkpoints(tmp_path) as checkpoints:
        warnings.simplefilter("error")
        found = checkpoints.load(abstract_for(mesh()))
    assert (found.step, found.record) == (10, {"step": 10})
    np.testing.assert_array_equal(found.state["x"], x + 10)
    np.testing.assert_array_equal(found.state["numpy"], np.arange(3) + 10)
    assert float(found.state["local"]) == 10
