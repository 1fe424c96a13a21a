"""Tasks by name, the digits that come with the package, and Supervised as a contracts.Task."""

import ast
import dataclasses
import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dualflat.learn.tasks
from dualflat.contracts import Examples, Options
from dualflat.learn.idx import IdxError, read_folder, write_idx
from dualflat.learn.supervised import ArrayExamples, Supervised
from dualflat.learn.tasks import NAMES, resolve
from dualflat.learn.tasks.mnist import DIGITS
from dualflat.runtime.feed import Feed, evaluation_batches
from tests.learn import digits_recipe


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    wanted = digits_recipe.files(bunch.images, bunch.target)
    train, test = read_folder(DIGITS)
    np.testing.assert_array_equal(train.images, wanted["train-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(train.labels, wanted["train-labels-idx1-ubyte.gz"])
    np.testing.assert_array_equal(test.images, wanted["t10k-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(test.labels, wanted["t10k-labels-idx1-ubyte.gz"])
    assert len(train.images) + len(test.images) == len(bunch.images) == 1797


def test_the_digits_can_be_undone_and_are_split_evenly():
    values = np.arange(17)
    np.testing.assert_array_equal(digits_recipe.to_values(digits_recipe.to_bytes(values)), values)
    assert digits_recipe.to_bytes(values)[[0, 16]].tolist() == [0, 255]
    train, test = read_folder(DIGITS)
    assert (len(train.labels), len(test.labels)) == (1438, 359)
    share = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    np.testing.assert_allclose(share, 0.2, atol=0.003)  # half an image of 174 to 183


@pytest.fixture(scope="module")
def digits():
    return resolve("mnist")(Options())


def test_mnist_has_the_numbers_of_the_classic(digits):
    assert digits.inputs == {"key": ((), "int64"), "image": ((64,), "float32")}
    assert (digits.batch_size, digits.optimizer, digits.learning_rate(0)) == (100, "adam", 1e-4)
    for examples in (digits.train, digits.test):
        assert isinstance(examples, Examples)
        first = examples[np.arange(2)]
        assert (first["image"].dtype, first["image"].shape) == (np.uint8, (2, 64))
        assert (first["label"].dtype, first["label"].shape) == (np.int32, (2,))
    assert json.loads(json.dumps(digits.settings)) == digits.settings


def test_settings_change_with_what_must_not(digits, tmp_path):
    again = resolve("mnist")(Options(max_steps=7))
    assert again.settings == digits.settings  # a longer run is the same run
    for change in (
        {"batch_size": 50},
        {"optimizer": "sgd"},
        {"learning_rate": 1e-3},
        {"precision": "bfloat16"},
    ):
        assert resolve("mnist")(Options(**change)).settings != digits.settings
    for name, content in _folder_of(digits).items():
        write_idx(tmp_path / name, content)
    same = resolve("mnist")(Options(data=str(tmp_path)))
    assert same.settings["data"] == digits.settings["data"]  # the bytes count, not the place
    assert same.max_steps == 10_000
    content[-1] ^= 1  # one bit of one label
    write_idx(tmp_path / name, content)
    other = resolve("mnist")(Options(data=str(tmp_path)))
    assert other.settings["data"]["train"] == digits.settings["data"]["train"]
    assert other.settings["data"]["test"] != digits.settings["data"]["test"]


def _folder_of(task):
    found = {}
    for prefix, examples in (("train", task.train), ("t10k", task.test)):
        every = examples[np.arange(len(examples))]
        found[f"{prefix}-images-idx3-ubyte"] = every["image"].reshape(-1, 8, 8)
        found[f"{prefix}-labels-idx1-ubyte"] = every["label"].astype(np.uint8)
    return found


def test_mnist_refuses_what_it_cannot_train_on(tmp_path):
    with pytest.raises(IdxError, match="not a folder"):
        resolve("mnist")(Options(data=str(tmp_path / "absent")))
    with pytest.raises(ValueError, match=r"optimizer 'adma' is not known; choose one of .*adam"):
        resolve("mnist")(Options(optimizer="adma"))
    with pytest.raises(ValueError, match="learning rate nan"):
        resolve("mnist")(Options(learning_rate=float("nan")))
    with pytest.raises(ValueError, match="choose float32 or bfloat16"):
        resolve("mnist")(Options(precision="float16"))
    with pytest.raises(ValueError, match="both are at least 1"):
        resolve("mnist")(Options(batch_size=0))
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", np.zeros((2, 6, 8), np.uint8))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(IdxError, match=r"6 × 8 pixels.*divisible by 4"):
        resolve("mnist")(Options(data=str(tmp_path)))


def test_importing_the_names_imports_nothing_heavy():
    tree = ast.parse(Path(dualflat.learn.tasks.__file__).read_text())
    names = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
    names |= {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in names)
    assert "mnist" in NAMES


@pytest.fixture
def mine(monkeypatch):
    module = types.ModuleType("mine")
    module.number = 3
    module.build = lambda options: ("built", options)
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def test_resolves_a_task_of_ones_own(mine, digits, monkeypatch, tmp_path):
    assert resolve("mine:build")("options") == ("built", "options")
    mine.ready = digits
    assert resolve("mine:ready")(Options()) is digits
    with pytest.raises(ValueError, match="takes no options, but batch_size, precision was given"):
        resolve("mine:ready")(Options(batch_size=3, precision="bfloat16"))
    mine.Kind = type("Kind", (), dict.fromkeys(("gradient", "apply", "init", "train")))
    (tmp_path / "broken_task.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, words in [
        ("mnits", "Known: mnist"),
        ("mine:", "written package.module:attribute"),
        ("mine:a b", "written package.module:attribute"),
        ("../mine:build", "written package.module:attribute"),
        ("not_there:build", "there is no module 'not_there'"),
        ("mine.below:build", "there is no module 'mine.below'"),
        ("mine:absent", "has no 'absent'; it has number, build"),
        ("mine:number", "is of type int"),
        ("mine:Kind", "is a class"),
    ]:
        with pytest.raises(ValueError, match=words):
            resolve(name)
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        resolve("broken_task:build")


def test_array_examples_refuse_what_does_not_fit():
    for arrays in (
        {},
        {"x": np.zeros(0)},
        {"x": np.zeros(3), "y": np.zeros(4)},
        {"x": np.zeros(())},
    ):
        with pytest.raises(ValueError, match="as many examples in each"):
            ArrayExamples(arrays)
    with pytest.raises(TypeError, match="read by rows"):
        list(ArrayExamples({"x": np.zeros(3)}))
    a = ArrayExamples({"x": np.arange(6).reshape(2, 3)})
    b = ArrayExamples({"x": np.arange(6).reshape(3, 2)})
    assert a.digest != b.digest
    assert a.digest == ArrayExamples({"x": np.arange(6).reshape(2, 3)}).digest


def linear(**more):
    """Forty lines less: softmax regression on random dots, as a user would write it."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 64).astype(np.int32)
    image = (np.eye(3, 5)[label] + 0.1 * rng.normal(size=(64, 5))).astype(np.float32)
    examples = ArrayExamples({"image": image, "label": label})
    return Supervised(
        **{
            "name": "dots",
            "initialise": lambda key: {"w": 0.01 * jax.random.normal(key, (5, 3))},
            "model": lambda params, image, key: image @ params["w"],
            "train": examples,
            "test": examples,
            "batch_size": 16,
            "optimizer": "momentum",
            "rate": 0.5,
            **more,
        }
    )


def test_supervised_learns_evaluates_and_predicts():
    task = linear()
    state = task.init(jax.random.key(0))
    assert int(state.step) == 0

    @jax.jit
    def step(state, batch, key):
        grads, metrics = task.gradient(state.params, batch, key)
        return task.apply(state, grads, jnp.int32(0)), metrics

    with Feed(task.train, batch_size=16, seed=0) as feed:
        for k, batch in feed:
            if k == 20:
                break
            state, metrics = step(state, batch, jax.random.key(k))
    assert int(state.step) == 20
    assert set(metrics) == {"loss", "accuracy"}
    sums = [task.evaluate(state.params, b, w) for b, w in evaluation_batches(task.test, 40)]
    every = task.test[np.arange(64)]
    out = task.predict(state.params, {"key": np.arange(5, 69), "image": every["image"]})
    np.testing.assert_array_equal(out["key"], np.arange(5, 69))
    scores = np.asarray(out["scores"], np.float64)
    np.testing.assert_allclose(scores.sum(-1), 1, rtol=1e-6)
    right = (scores.argmax(-1) == every["label"]).sum()
    assert right >= 62
    assert float(sum(s["accuracy"] for s in sums)) == right  # the 16 padded rows did not count
    wanted = -np.log(scores[np.arange(64), every["label"]]).sum()
    np.testing.assert_allclose(float(sum(s["loss"] for s in sums)), wanted, rtol=1e-5)


def test_padding_does_not_count_whatever_it_holds():
    task = linear()
    params = task.initialise(jax.random.key(0))
    batch = task.test[np.arange(4)]
    weight = np.array([1, 1, 0, 0], np.float32)
    clean = task.evaluate(params, batch, weight)
    batch["image"][2:] = np.nan
    padded = task.evaluate(params, batch, weight)
    assert jax.tree.map(float, padded) == jax.tree.map(float, clean)
    assert np.isnan(float(task.evaluate(params, batch, np.ones(4, np.float32))["loss"]))


def test_bytes_mean_what_their_fractions_mean():
    task = linear()
    params = task.initialise(jax.random.key(0))
    pixels = np.arange(20, dtype=np.uint8).reshape(4, 5) * 12
    key = np.arange(4)
    a = task.predict(params, {"key": key, "image": pixels})["scores"]
    b = task.predict(params, {"key": key, "image": (pixels / 255).astype(np.float32)})["scores"]
    np.testing.assert_allclose(a, b, rtol=3e-7)  # two roundings of a float32


def test_bfloat16_computes_short_and_keeps_long():
    seen = []

    def model(params, image, key):
        seen.append((params["w"].dtype, image.dtype))
        return image @ params["w"]

    task = linear(model=model, precision="bfloat16")
    state = task.init(jax.random.key(0))
    grads, metrics = task.gradient(state.params, task.train[np.arange(16)], jax.random.key(0))
    assert seen[-1] == (jnp.bfloat16, jnp.bfloat16)
    assert grads["w"].dtype == state.params["w"].dtype == metrics["loss"].dtype == jnp.float32
    exact, _ = linear().gradient(state.params, task.train[np.arange(16)], jax.random.key(0))
    np.testing.assert_allclose(grads["w"], exact["w"], atol=2e-2)  # bfloat16 has 8 bits
    assert not np.array_equal(grads["w"], exact["w"])


def test_a_rule_and_a_schedule_of_ones_own():
    schedule = optax.linear_schedule(1.0, 0.0, 10)
    task = linear(optimizer="sgd", rate=schedule)
    assert task.learning_rate(5) == 0.5
    assert task.settings["learning_rate"] == "schedule"
    custom = linear(optimizer=optax.sgd(0.25), rate=0.25, watch=lambda params: params)
    assert custom.settings["optimizer"] == "custom"
    state = custom.init(jax.random.key(0))
    moved = custom.apply(state, {"w": jnp.ones((5, 3))}, jnp.int32(0))
    np.testing.assert_allclose(moved.params["w"], state.params["w"] - 0.25, rtol=1e-6)
    assert set(custom.histograms(state.params)) == {"w"}
    with pytest.raises(ValueError, match=r"'label'.* is missing"):
        dataclasses.replace(task, train=ArrayExamples({"image": np.zeros((2, 5), np.float32)}))


def test_mnist_learns_the_digits(digits):
    """From chance to most of the held-out digits in 60 steps at ten times the learning rate."""
    task = resolve("mnist")(Options(learning_rate=1e-3))
    key = jax.random.key(0)
    state = jax.jit(task.init)(key)
    assert set(task.histograms(state.params)) == {"conv_filters1", "conv_filters2"}

    @jax.jit
    def step(state, batch):
        step_key = jax.random.fold_in(key, state.step)
        grads, metrics = task.gradient(state.params, batch, step_key)
        return task.apply(state, grads, jnp.int32(0)), metrics["loss"]

    evaluate = jax.jit(task.evaluate)
    ((batch, weight),) = evaluation_batches(task.test, len(task.test))
    chance = float(evaluate(state.params, batch, weight)["accuracy"]) / len(task.test)
    losses = []
    with Feed(task.train, batch_size=100, seed=0) as feed:
        for k, examples in feed:
            if k == 60:
                break
            state, loss = step(state, examples)
            losses.append(float(loss))
    found = float(evaluate(state.params, batch, weight)["accuracy"]) / len(task.test)
    assert losses[0] == pytest.approx(np.log(10), rel=1e-5)  # the output layer starts at zero
    assert chance < 0.2
    assert found > 0.9


def test_records_are_stacked_row_by_row():
    from dualflat.learn.supervised import RecordExamples

    records = [{"image": np.full(3, k, np.float32), "label": np.int32(k % 2)} for k in range(5)]
    with pytest.raises(ValueError, match="no records"):
        RecordExamples([])
    for source in (records, _grain(records)):
        if source is None:
            continue
        examples = RecordExamples(source)
        assert len(examples) == 5
        found = examples[np.array([4, 0, 4])]
        np.testing.assert_array_equal(found["image"][:, 0], [4, 0, 4])
        np.testing.assert_array_equal(found["label"], [0, 0, 0])


def _grain(records):
    """The same records as grain gives them; None where grain is not installed."""
    try:
        import grain
    except ModuleNotFoundError:
        return None
    return grain.MapDataset.source(records)
