"""The exported model: a folder that answers alone, or says what is wrong with it."""

import json
import os
import random
import shutil
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from dualflat.runtime import export, whole
from dualflat.runtime.export import ExportError, load_export, write_export

INPUTS = {"key": ((), "int64"), "image": ((6, 6, 1), "float32")}


def make_params(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 1, 4)), jnp.float32)},
        "dense": [jnp.asarray(rng.normal(size=(36, 5)), jnp.bfloat16), jnp.zeros(5)],
        "scale": jnp.float32(0.5),
    }


def predict(params, inputs):
    hidden = jax.lax.conv_general_dilated(
        inputs["image"],
        params["conv"]["kernel"],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).reshape(inputs["image"].shape[0], -1)
    weight, bias = params["dense"]
    logits = hidden @ weight.astype(jnp.float32) * params["scale"] + bias
    return {"key": inputs["key"], "scores": jax.nn.softmax(logits)}


def ask(rows, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "key": rng.integers(2**31, 2**62, size=rows),
        "image": rng.normal(size=(rows, 6, 6, 1)).astype(np.float32),
    }


def scores(inputs, seed=0):
    keyless = {"key": jnp.zeros(len(inputs["key"])), "image": inputs["image"]}
    return np.asarray(predict(make_params(seed), keyless)["scores"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return write_export(
        folder, predict, make_params(), INPUTS, name="small", record={"steps": 10, "acc": 0.9}
    )


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "export")


@pytest.fixture(scope="module")
def model(written):
    return load_export(written)


# ---- what it answers


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_any_batch_gets_the_answers_of_the_model(model, rows):
    inputs = ask(rows)
    answer = model(inputs)
    assert answer.keys() == {"key", "scores"}
    np.testing.assert_allclose(answer["scores"], scores(inputs), rtol=1e-5)
    assert isinstance(answer["scores"], np.ndarray)


def test_keys_pass_through_untouched_though_jax_has_no_room_for_them(model):
    inputs = ask(7)
    assert (inputs["key"] > 2**31).all()
    assert model(inputs)["key"] is inputs["key"]
    assert model.signature["outputs"]["key"] == {"shape": ["b"], "dtype": "int64", "input": "key"}


def test_an_empty_batch_gets_an_empty_answer(model):
    answer = model(ask(0))
    assert (answer["key"].shape, answer["scores"].shape) == ((0,), (0, 5))
    assert (answer["key"].dtype, answer["scores"].dtype) == (np.int64, np.float32)
    assert model.predict_in_batches(ask(0), 4)["scores"].shape == (0, 5)


@pytest.mark.parametrize("rows", [1, 7, 8, 14, 15])
def test_batches_agree_with_one_call_and_need_one_program(model, rows):
    inputs = ask(rows, seed=rows)
    answer = model.predict_in_batches(inputs, 7)
    assert answer["key"] is inputs["key"]
    np.testing.assert_allclose(answer["scores"], scores(inputs), rtol=1e-5)


def test_batches_of_less_than_one_are_refused(model):
    with pytest.raises(ValueError, match="batch_size=0"):
        model.predict_in_batches(ask(3), 0)


def test_the_model_folder_and_the_export_folder_both_load(written):
    inputs = ask(2)
    for folder in (written, written.parent, str(written.parent)):
        np.testing.assert_allclose(load_export(folder)(inputs)["scores"], scores(inputs), rtol=1e-5)


def test_the_signature_describes_everything(written, model):
    said = json.loads((written / "signature.json").read_bytes())
    assert said == model.signature
    assert said["name"] == "small"
    assert said["inputs"]["image"] == {"shape": ["b", 6, 6, 1], "dtype": "float32"}
    assert said["outputs"]["scores"] == {"shape": ["b", 5], "dtype": "float32"}
    assert said["record"] == {"steps": 10, "acc": 0.9}
    assert said["jax"] == jax.__version__
    assert said["platforms"] == ["cpu", "cuda", "tpu"]
    assert {"name": "dense.0", "shape": [36, 5], "dtype": "bfloat16"} in said["weights"]


def test_the_weights_are_arrays_that_numpy_reads_not_constants_of_the_program(written, tmp_path):
    with np.load(written / "weights.npz", allow_pickle=False) as weights:
        kernel = weights["conv.kernel"]
    np.testing.assert_array_equal(kernel, make_params()["conv"]["kernel"])
    with zipfile.ZipFile(written / "weights.npz") as archive:
        assert archive.testzip() is None
    program = jax_export.deserialize(bytearray((written / "model.stablehlo").read_bytes()))
    assert len(program.in_avals) == 4 + 1  # every weight, and the image
    assert program.platforms == ("cpu", "cuda", "tpu")
    other = write_export(tmp_path, predict, make_params(7), INPUTS, name="small", record={})
    # the same program with other weights gives the other model's answers
    shutil.copy(written / "model.stablehlo", other / "model.stablehlo")
    (other / whole.MANIFEST).unlink()
    whole.seal(other)
    inputs = ask(2)
    answer = load_export(other)(inputs)["scores"]
    np.testing.assert_allclose(answer, scores(inputs, seed=7), rtol=1e-5)
    assert not np.allclose(answer, scores(inputs))


def test_a_jitted_prediction_and_sharded_weights_export_the_same(tmp_path):
    mesh = jax.make_mesh((4,), ("ps",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    params = make_params()
    params["dense"][0] = jax.device_put(params["dense"][0], NamedSharding(mesh, P("ps")))
    write_export(tmp_path, jax.jit(predict), params, INPUTS, name="jitted", record={})
    inputs = ask(2)
    answer = load_export(tmp_path)(inputs)
    assert answer["key"] is inputs["key"]
    np.testing.assert_allclose(answer["scores"], scores(inputs), rtol=1e-5)


def test_wide_numbers_compute_where_x64_is_on(tmp_path):
    with jax.enable_x64(True):
        write_export(
            tmp_path,
            lambda params, inputs: {"next": inputs["n"] + params},
            jnp.int64(2**40),
            {"n": ((), "int64")},
            name="wide",
            record={},
        )
    answer = load_export(tmp_path)({"n": np.arange(3)})
    assert answer["next"].tolist() == [2**40, 2**40 + 1, 2**40 + 2]
    assert jnp.ones(1).dtype == jnp.float32  # and nothing was switched on for good


ALONE = """
import sys
from dualflat.runtime.export import load_export
import numpy as np
model = load_export(sys.argv[1])
answer = model({"key": np.array([2**40, 3]), "image": np.zeros((2, 6, 6, 1), np.float32)})
found = {name.split(".")[0] for name in sys.modules} & {"flax", "optax", "orbax", "dualflat.learn"}
print(answer["key"].tolist(), answer["scores"].shape, sorted(found))
"""


def test_a_process_without_the_model_code_answers(written):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ALONE, written],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd(), "JAX_NUM_CPU_DEVICES": "1"},
    )
    assert done.stdout == "[1099511627776, 3] (2, 5) []\n", done.stderr


# ---- what it refuses


def without(name):
    return lambda inputs: {k: v for k, v in inputs.items() if k != name}


def with_(**changed):
    return lambda inputs: {**inputs, **{k: change(inputs[k]) for k, change in changed.items()}}


MISUSES = {
    "missing": (without("image"), "input 'image' is missing: the model takes"),
    "unknown": (lambda x: {**x, "label": x["key"]}, "input 'label' is unknown"),
    "narrow": (with_(key=lambda k: k.astype(np.int32)), "input 'key' is int32, the model takes"),
    "float64": (with_(image=lambda x: x.astype(float)), "nothing is cast"),
    "object": (with_(key=lambda k: [None, {}]), "input 'key' is object"),
    "flat": (with_(image=lambda x: x.reshape(2, 36)), "takes (b, 6, 6, 1) with any number b"),
    "scalar": (with_(key=lambda k: np.int64(3)), "input 'key' has shape (), the model takes (b)"),
    "rows": (with_(key=lambda k: k[:1]), "differ in their number of rows: {'key': 1, 'image': 2}"),
}


@pytest.mark.parametrize(("misuse", "words"), MISUSES.values(), ids=MISUSES.keys())
def test_inputs_that_do_not_fit_are_refused_with_words(model, misuse, words):
    for call in (model, model.predict_in_batches):
        with pytest.raises(ExportError) as caught:
            call(misuse(ask(2)))
        assert words in str(caught.value)


def one(shape=(), dtype="float32"):
    return {"x": (shape, dtype)}


def branch(params, inputs):
    return {"y": inputs["x"] if inputs["x"].shape[0] > 8 else -inputs["x"]}


REFUSALS = {
    "wide": (lambda p, i: {"y": i["x"] + 1}, {}, one(dtype="int64"), "declared int64, but jax"),
    "wide weight": (lambda p, i: {"y": i["x"] * p}, np.ones(2), one((2,)), "weight params is"),
    "branch": (branch, {}, one(), "for an unknown number b of rows"),
    "mean": (lambda p, i: {"y": i["x"].mean()}, {}, one(), "output 'y' has shape ()"),
    "square": (lambda p, i: {"y": i["x"][:, None] * i["x"]}, {}, one(), "and only there"),
    "nested": (lambda p, i: {"y": {"z": i["x"]}}, {}, one(), "is nested"),
    "array": (lambda p, i: i["x"], {}, one(), "wanted a dictionary of named arrays"),
    "nothing": (lambda p, i: {}, {}, one(), "wanted a dictionary of named arrays"),
    "no inputs": (lambda p, i: {"y": p}, np.float32(1), {}, "`inputs` is empty"),
    "key": (lambda p, i: {"y": i["x"]}, jax.eval_shape, one(), "weights are numeric arrays"),
}


@pytest.mark.parametrize(
    ("function", "params", "inputs", "words"), REFUSALS.values(), ids=REFUSALS.keys()
)
def test_what_cannot_be_exported_is_refused_and_leaves_no_trace(
    tmp_path, function, params, inputs, words
):
    with pytest.raises(ExportError) as caught:
        write_export(tmp_path, function, params, inputs, name="m", record={})
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_prng_keys_are_no_weights(tmp_path):
    with pytest.raises(ExportError, match="is a PRNG key"):
        write_export(tmp_path, predict, {"k": jax.random.key(0)}, INPUTS, name="m", record={})


# ---- damage


FILES = ["model.stablehlo", "weights.npz", "signature.json", whole.MANIFEST]


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere_is_seen(copy, name):
    rng = random.Random(7)  # which bit of each region: any seed must do
    data = (copy / name).read_bytes()
    regions = 64
    for region in range(regions):
        low, high = (8 * len(data) * r // regions for r in (region, region + 1))
        bit = rng.randrange(low, high)
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (copy / name).write_bytes(damaged)
        with pytest.raises(ExportError, match=f"is not whole: .*{name}"):
            load_export(copy)
    (copy / name).write_bytes(data)
    assert load_export(copy)(ask(1))["scores"].shape == (1, 5)  # the control


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_missing_files_are_seen(copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ExportError, match=name):
        load_export(copy)
    path.unlink()
    with pytest.raises(ExportError, match=f"{name} is missing"):
        load_export(copy)


def reseal(folder):
    (folder / whole.MANIFEST).unlink(missing_ok=True)
    whole.seal(folder)


def test_extra_files_are_refused_sealed_or_not(copy):
    (copy / "extra").write_bytes(b"")
    with pytest.raises(ExportError, match="extra does not belong there"):
        load_export(copy)
    reseal(copy)
    with pytest.raises(ExportError, match="this is something else"):
        load_export(copy)


def change_signature(folder, **changes):
    path = folder / "signature.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    reseal(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"weights": []}, "names others"),
        ({"weights": 3}, "not an export that this version reads"),
        ({"inputs": {}}, "another program than signature.json describes"),
        ({"program_inputs": []}, "another program than signature.json describes"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(copy, changes, words):
    change_signature(copy, **changes)
    with pytest.raises(ExportError, match=words):
        load_export(copy)


def test_a_program_of_another_model_is_refused(copy, tmp_path):
    other = write_export(
        tmp_path / "other",
        lambda params, inputs: {"scores": inputs["image"] * params["scale"]},
        make_params(),
        INPUTS,
        name="other",
        record={},
    )
    shutil.copy(other / "model.stablehlo", copy / "model.stablehlo")
    reseal(copy)
    with pytest.raises(ExportError, match=r"another program than signature\.json describes"):
        load_export(copy)


def test_an_unreadable_program_names_the_version_that_wrote_it(copy):
    (copy / "model.stablehlo").write_bytes(b"written by a jax of another century")
    change_signature(copy, jax="9.9.9", date="2031-01-01")
    with pytest.raises(ExportError, match=r"written by jax 9\.9\.9 on 2031-01-01.*6 months"):
        load_export(copy)


def test_pickles_and_compressed_or_mislabelled_weights_are_refused(copy):
    with np.load(copy / "weights.npz") as held:
        weights = dict(held)

    def put(compression=zipfile.ZIP_STORED, **changed):
        arrays = {**weights, **changed}
        with zipfile.ZipFile(copy / "weights.npz", "w", compression) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w") as out:
                    np.lib.format.write_array(out, np.asarray(array))
        reseal(copy)

    put()  # the control: this way of writing them loads
    load_export(copy)
    for words, options in (
        ("is compressed", {"compression": zipfile.ZIP_DEFLATED}),
        (r"scale\.npy is", {"scale": np.array({"a": 1}, dtype=object)}),
        (r"scale\.npy is", {"scale": np.zeros(3, np.float32)}),
    ):
        put(**options)
        with pytest.raises(ExportError, match=words):
            load_export(copy)


def test_a_folder_without_an_export_says_where_it_looked(tmp_path):
    with pytest.raises(ExportError, match=f"no export in {tmp_path}"):
        load_export(tmp_path)
    with pytest.raises(ExportError, match="no export in"):
        load_export(tmp_path / "absent")


# ---- writing


class PowerCutError(OSError):
    pass


def test_a_crash_at_any_file_operation_leaves_the_old_or_the_new_export(written, tmp_path):
    """From the n-th call on nothing reaches the disk; what is there then has to load, whole."""
    names = [name for name in FILES if name != whole.MANIFEST]
    old = {name: (written / name).read_bytes() for name in names}
    new = {**old, "signature.json": old["signature.json"].replace(b'"small"', b'"SMALL"')}
    seen = []
    for calls in range(40):
        folder = shutil.copytree(written, tmp_path / str(calls) / "export")
        left = [calls]

        def until(act, left=left):
            def acting(*args, **kwargs):
                if left[0] <= 0:
                    raise PowerCutError("no power")
                left[0] -= 1
                return act(*args, **kwargs)

            return acting

        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "fsync", "mkdir", "rmdir", "unlink"):
                patch.setattr(os, name, until(getattr(os, name)))
            try:
                export._replace(folder, new)
                cut = False
            except PowerCutError:
                cut = True
        seen.append(load_export(folder.parent).signature["name"])
        assert cut or seen[-1] == "SMALL"
        export._replace(folder, old)  # and the next export finds its way
        assert load_export(folder.parent).signature["name"] == "small"
        assert os.listdir(folder.parent) == ["export"]
    assert seen == sorted(seen, reverse=True)  # first the old, then the new
    assert {seen[0], seen[-1]} == {"small", "SMALL"}


def test_an_older_export_is_replaced(tmp_path):
    for seed in (0, 7):
        write_export(tmp_path, predict, make_params(seed), INPUTS, name="m", record={})
    inputs = ask(2)
    answer = load_export(tmp_path)(inputs)["scores"]
    np.testing.assert_allclose(answer, scores(inputs, seed=7), rtol=1e-5)
    assert os.listdir(tmp_path) == ["export"]


def test_a_folder_that_cannot_be_written_is_an_export_error(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(ExportError, match="not JSON serializable"):
        write_export(tmp_path, predict, make_params(), INPUTS, name="m", record={"a": object()})
    monkeypatch.setattr(whole, "seal", fail)
    with pytest.raises(ExportError, match="No space left on device"):
        write_export(tmp_path, predict, make_params(), INPUTS, name="m", record={})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="is a file where a folder is wanted"):
        write_export(tmp_path / "file", predict, make_params(), INPUTS, name="m", record={})
