"""Export: the prediction function of a trained model as a folder that needs no model code.

    <directory>/export/model.stablehlo   the program, by `jax.export`: CPU, CUDA and TPU, any batch
    <directory>/export/weights.npz       its weights, as plain arrays
    <directory>/export/signature.json    what goes in, what comes out, who wrote it, with what
    <directory>/export/manifest.json     size and SHA-256 of the three

The program takes the weights as arguments, so they can be read, compared and carried over to a
program that was exported anew: programs age (`jax.export` promises six months), arrays do not.

Loading needs jax, numpy and flatbuffers; neither the model's code nor flax, optax or orbax. The
bytes are compared with the manifest before anything is parsed: a compiled program with a flipped
bit mostly loads, and computes something else.
"""

import datetime
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from dualflat.contracts import PyTree
from dualflat.runtime import whole

FOLDER = "export"
_FORMAT = 1
_PLATFORMS = ("cpu", "cuda", "tpu")
_BATCH = "b"
_MODEL, _WEIGHTS, _SIGNATURE = "model.stablehlo", "weights.npz", "signature.json"
_FILES = {_MODEL, _WEIGHTS, _SIGNATURE}


class ExportError(RuntimeError):
    """A model could not be exported, loaded, or asked what it was asked."""


def write_export(
    directory: str | os.PathLike[str],
    predict: Callable[[PyTree, Mapping[str, jax.Array]], Mapping[str, jax.Array]],
    params: PyTree,
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    name: str,
    record: Mapping[str, Any],
) -> Path:
    """Write `directory/export`: a self-describing artefact of `predict` at `params`.

    An output that is an input (`{"key": inputs["key"], …}`) is not computed but passed through by
    the host, untouched, whatever its width; the signature says so.

    An older export is replaced. A crash leaves the old or the new one to be loaded, never half.

    Args:
      directory: the model's folder; created where missing.
      predict: (params, inputs) → outputs, dictionaries of arrays whose leading axis is the batch;
        row by row, for any batch size.
      params: pytree of arrays. Where several processes hold its shards, every process has to call,
        and process 0 writes.
      inputs: name → (shape of one example, dtype name).
      name: what the model is called.
      record: JSON-able facts about its making.

    Returns:
      The folder of the export.

    Raises:
      ExportError: `predict` cannot be exported, or the folder cannot be written.
    """
    folder = Path(os.path.abspath(directory)) / FOLDER
    weights = {
        path: _on_host(path, leaf)  # a collective, where several processes hold it
        for path, leaf in _named(params).items()
    }
    if jax.process_index() != 0:
        return folder
    rebuild = jax.tree_util.tree_structure(params)

    def program(weights: dict[str, jax.Array], given: dict[str, jax.Array]) -> Any:
        # jax sorts the names of a dictionary; the tree wants its leaves in its own order.
        leaves = [weights[path] for path in order]
        answer = predict(jax.tree_util.tree_unflatten(rebuild, leaves), given)
        if not isinstance(answer, Mapping) or not answer:
            raise TypeError(f"predict returned {answer!r}, wanted a dictionary of named arrays")
        return dict(answer)

    order = list(weights)
    exported, passed, used = _exported(program, weights, inputs, name)
    signature = {
        "format": _FORMAT,
        "name": name,
        "inputs": {
            key: {"shape": [_BATCH, *shape], "dtype": np.dtype(dtype).name}
            for key, (shape, dtype) in inputs.items()
        },
        "outputs": _outputs(exported, passed, inputs),
        "program_inputs": used,
        "weights": [
            {"name": path, "shape": list(array.shape), "dtype": array.dtype.name}
            for path, array in weights.items()
        ],
        "platforms": list(_PLATFORMS),
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "record": dict(record),
    }
    try:
        text = json.dumps(signature, indent=2, ensure_ascii=False).encode()
        contents = {_MODEL: exported.serialize(), _WEIGHTS: _packed(weights), _SIGNATURE: text}
        _replace(folder, contents)
    except (OSError, TypeError, ValueError, NotImplementedError, whole.NotWholeError) as error:
        raise ExportError(f"writing {folder} failed: {error}") from error
    return folder


def load_export(directory: str | os.PathLike[str]) -> "Exported":
    """Load what `write_export` wrote, from the model's folder or from the export itself.

    Raises:
      ExportError: the export is missing or damaged, holds other files than its own, or was written
        by a version whose programs this one cannot read.
    """
    folder = _find(Path(os.path.abspath(directory)))
    try:
        whole.verify(folder)
        listed = set(whole.entries(folder))
        if listed != _FILES:
            raise ExportError(
                f"{folder} holds {sorted(listed)}, an export holds {sorted(_FILES)}: this is"
                " something else, or was written by another version of dualflat"
            )
        contents = {file: whole.read(folder, file) for file in _FILES}
    except (OSError, whole.NotWholeError) as error:
        raise ExportError(
            f"the export in {folder} is not whole: {error}. Export it anew from a checkpoint"
        ) from error
    try:
        signature = json.loads(contents[_SIGNATURE])
        if signature["format"] != _FORMAT:
            raise ExportError(
                f"{folder} has format {signature['format']!r}, this version reads {_FORMAT}:"
                " load it with the version of dualflat that wrote it, or export it anew"
            )
        weights = _unpacked(contents[_WEIGHTS], signature["weights"])
        written = f"jax {signature['jax']} on {signature['date']}"
    except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ExportError(
            f"{folder} is as it was written, but not an export that this version reads: {error!r}"
        ) from error
    try:
        program = jax_export.deserialize(bytearray(contents[_MODEL]))
    except Exception as error:  # flatbuffers, MLIR and jax each raise their own
        raise ExportError(
            f"{folder / _MODEL} is undamaged, but jax {jax.__version__} cannot read it: it was"
            f" written by {written}. jax.export promises that a program is read by newer versions"
            " for 6 months and by older ones for 3 weeks. Use a jax near that one, or export anew"
            f" from the checkpoint. ({type(error).__name__}: {error})"
        ) from error
    try:
        _check_program(signature, program)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(
            f"{folder / _MODEL} is another program than {_SIGNATURE} describes: {error}"
        ) from error
    return Exported(signature, weights, program)


class Exported:
    """A loaded export: call it with named arrays, get named arrays.

    Attributes:
      signature: what signature.json says: `name`, `inputs`, `outputs`, `weights`, `record`, …
    """

    def __init__(
        self,
        signature: dict[str, Any],
        weights: dict[str, np.ndarray],
        program: jax_export.Exported,
    ):
        self.signature = signature
        self._weights = weights
        self._call = jax.jit(program.call)
        self._placed: dict[str, jax.Array] | None = None

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predict for a batch of any size, 0 included.

        Args:
          inputs: name → array, exactly the names, shapes (after the batch axis) and dtypes of
            `signature["inputs"]`; nothing is cast.

        Returns:
          name → array whose leading axis is the batch, in the order of the rows given. Compiles
          once for every new batch size; `predict_in_batches` keeps that to one.

        Raises:
          ExportError: an input is missing, unknown, or of another shape or dtype.
        """
        given = self._checked(inputs)
        return self._answer(given, _rows(given))

    def predict_in_batches(
        self, inputs: Mapping[str, Any], batch_size: int = 1000
    ) -> dict[str, np.ndarray]:
        """Predict for many rows with the memory of `batch_size`, and one compilation.

        The last batch is filled up by repeating its last row, whose answers are dropped.

        Raises:
          ExportError: as `__call__`.
          ValueError: `batch_size` is less than 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: rows at a time, 1 or more")
        given = self._checked(inputs)
        rows = _rows(given)
        if rows <= batch_size:
            return self._answer(given, rows)
        parts = []
        for start in range(0, rows, batch_size):
            part = {key: array[start : start + batch_size] for key, array in given.items()}
            count = _rows(part)
            if short := batch_size - count:
                part = {
                    key: np.concatenate([array, np.repeat(array[-1:], short, axis=0)])
                    for key, array in part.items()
                }
            computed = self._compute(part, batch_size)
            parts.append({key: array[:count] for key, array in computed.items()})
        computed = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        return self._in_order(given, computed)

    def _answer(self, given: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        return self._in_order(given, self._compute(given, rows))

    def _in_order(
        self, given: dict[str, np.ndarray], computed: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        return {
            key: given[said["input"]] if "input" in said else computed[key]
            for key, said in self.signature["outputs"].items()
        }

    def _compute(self, given: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """The outputs that are computed, for checked inputs."""
        wanted = {
            key: said for key, said in self.signature["outputs"].items() if "input" not in said
        }
        if rows == 0 or not wanted:
            return {
                key: np.zeros([rows, *said["shape"][1:]], np.dtype(said["dtype"]))
                for key, said in wanted.items()
            }
        with jax.enable_x64(self.signature["x64"]):
            if self._placed is None:
                self._placed = jax.device_put(self._weights)
            used = {key: given[key] for key in self.signature["program_inputs"]}
            return {key: np.asarray(x) for key, x in self._call(self._placed, used).items()}

    def _checked(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        wanted = self.signature["inputs"]
        for key in inputs:
            if key not in wanted:
                raise ExportError(f"input {key!r} is unknown: the model takes {sorted(wanted)}")
        given: dict[str, np.ndarray] = {}
        for key, said in wanted.items():
            if key not in inputs:
                raise ExportError(f"input {key!r} is missing: the model takes {sorted(wanted)}")
            array = given[key] = np.asarray(inputs[key])
            dtype, shape = np.dtype(said["dtype"]), tuple(said["shape"][1:])
            if array.dtype != dtype:
                raise ExportError(
                    f"input {key!r} is {array.dtype}, the model takes {dtype}: nothing is cast"
                    f" behind your back, so give it np.asarray(…, np.{dtype})"
                )
            if array.shape[1:] != shape or array.ndim != 1 + len(shape):
                axes = ", ".join(str(size) for size in said["shape"])
                raise ExportError(
                    f"input {key!r} has shape {array.shape}, the model takes ({axes}) with any"
                    f" number {_BATCH} of rows"
                )
        rows = {key: len(array) for key, array in given.items()}
        if len(set(rows.values())) > 1:
            raise ExportError(f"the inputs differ in their number of rows: {rows}")
        return given


def _rows(given: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(given.values())))


# ---- writing


def _named(params: PyTree) -> dict[str, Any]:
    """The leaves of `params` by a readable name, in the order of the tree."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths]
    if len(set(names)) < len(names) or "" in names:  # {"a.b": …, "a": {"b": …}}, or a bare array
        names = ["params" + jax.tree_util.keystr(path) for path in paths]
    return dict(zip(names, jax.tree_util.tree_leaves(params), strict=True))


def _on_host(path: str, leaf: Any) -> np.ndarray:
    if hasattr(leaf, "dtype") and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise ExportError(f"weight {path} is a PRNG key; a prediction has to be deterministic")
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental import multihost_utils  # not needed where one process holds all

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    array = np.asarray(leaf)
    if array.dtype.hasobject or array.dtype.kind in "SUMm":
        raise ExportError(f"weight {path} is a {type(leaf).__name__}; weights are numeric arrays")
    return array


def _exported(
    program: Callable[..., Any],
    weights: dict[str, np.ndarray],
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    name: str,
) -> tuple[jax_export.Exported, dict[str, str], list[str]]:
    """The program without what it only passes on; output → input of that; the inputs it needs."""
    if not inputs:
        raise ExportError(f"{name}: `inputs` is empty, a prediction needs something to go by")
    (b,) = jax_export.symbolic_shape(_BATCH, constraints=[f"{_BATCH} >= 1"])
    given = {
        key: jax.ShapeDtypeStruct((b, *shape), jax.dtypes.canonicalize_dtype(dtype))
        for key, (shape, dtype) in inputs.items()
    }
    abstract = {
        path: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
        for path, x in weights.items()
    }
    try:
        jaxpr, shapes = jax.make_jaxpr(program, return_shape=True)(abstract, given)
    except Exception as error:
        raise ExportError(
            f"{name}: predict cannot be traced for an unknown number {_BATCH} of rows:"
            f" {type(error).__name__}: {error}"
        ) from error
    keys = sorted(given)  # the order of jax's dictionaries
    outputs = jax.tree_util.tree_flatten_with_path(shapes)[0]
    passed, computed = {}, []
    for (path, _), origin in zip(outputs, _origins(jaxpr.jaxpr), strict=True):
        if len(path) != 1:
            raise ExportError(
                f"{name}: output {jax.tree_util.keystr(path)} is nested, wanted arrays"
            )
        key = str(path[0].key)
        if origin is None or origin < len(weights):
            computed.append(key)
        else:
            passed[key] = keys[origin - len(weights)]

    def answer(weights: dict[str, jax.Array], used: dict[str, jax.Array]) -> dict[str, jax.Array]:
        # What is passed through has no part in the program; its value there does not matter.
        rows = next(iter(used.values())).shape[0]
        rest = {k: jax.numpy.zeros((rows, *v.shape[1:]), v.dtype) for k, v in given.items()}
        everything = program(weights, rest | used)
        return {key: everything[key] for key in computed}

    computes = [str(path[0].key) in computed for path, _ in outputs]
    needed = _needed(jaxpr.jaxpr, computes)[len(weights) :]
    used = [key for key, needs in zip(keys, needed, strict=True) if needs]
    used = used or keys[:1]  # the batch size has to come from somewhere
    for key in used:
        asked, there = np.dtype(inputs[key][1]), given[key].dtype
        if asked != there and computed:
            raise ExportError(
                f"{name}: predict computes with input {key!r}, declared {asked}, but jax computes"
                f" in {there} unless x64 is on. Declare it {there}, or export with x64 on"
            )
    for path, array in weights.items():
        if array.dtype != abstract[path].dtype:
            raise ExportError(
                f"{name}: weight {path} is {array.dtype}, but jax computes in"
                f" {abstract[path].dtype} unless x64 is on. Cast it, or export with x64 on"
            )
    try:
        exported = jax_export.export(jax.jit(answer), platforms=_PLATFORMS)(
            abstract, {key: given[key] for key in used}
        )
    except Exception as error:
        raise ExportError(
            f"{name}: predict cannot be exported for {', '.join(_PLATFORMS)} and an unknown number"
            f" of rows: {type(error).__name__}: {error}"
        ) from error
    if exported.nr_devices != 1:
        raise ExportError(
            f"{name}: predict was traced for {exported.nr_devices} devices, an export runs on one:"
            " take the sharding constraints out of it"
        )
    return exported, passed, used


def _inner(equation: Any) -> Any:
    """The jaxpr of a jitted function that is called; None for any other operation."""
    is_call = equation.primitive.name in ("jit", "pjit")
    return equation.params["jaxpr"].jaxpr if is_call else None


def _is_literal(atom: Any) -> bool:
    return hasattr(atom, "val")


def _origins(jaxpr: Any) -> list[int | None]:
    """The number of the argument that each output is, or None. Looks into jitted functions."""
    made = {
        variable: (equation, number)
        for equation in jaxpr.eqns
        for number, variable in enumerate(equation.outvars)
    }
    arguments = {variable: number for number, variable in enumerate(jaxpr.invars)}

    def origin(atom: Any) -> int | None:
        while not _is_literal(atom) and atom not in arguments:
            equation, number = made.get(atom, (None, 0))  # else a constant
            inner = None if equation is None else _inner(equation)
            taken = None if inner is None else _origins(inner)[number]
            if equation is None or taken is None:
                return None
            atom = equation.invars[taken]
        return None if _is_literal(atom) else arguments[atom]

    return [origin(atom) for atom in jaxpr.outvars]


def _needed(jaxpr: Any, outputs: list[bool]) -> list[bool]:
    """Which arguments the marked outputs are computed from. Looks into jitted functions."""

    def variables(atoms: Any, marks: list[bool]) -> set[Any]:
        pairs = zip(atoms, marks, strict=True)
        return {atom for atom, mark in pairs if mark and not _is_literal(atom)}

    live = variables(jaxpr.outvars, outputs)
    for equation in reversed(jaxpr.eqns):
        gives = [variable in live for variable in equation.outvars]
        if any(gives) or equation.effects:
            inner = _inner(equation)
            takes = [True] * len(equation.invars) if inner is None else _needed(inner, gives)
            live |= variables(equation.invars, takes)
    return [variable in live for variable in jaxpr.invars]


def _outputs(
    exported: jax_export.Exported,
    passed: Mapping[str, str],
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
) -> dict[str, Any]:
    described = {}
    shapes = jax.tree_util.tree_unflatten(exported.out_tree, exported.out_avals)
    for key, aval in shapes.items():
        first, rest = (aval.shape[0], aval.shape[1:]) if aval.shape else (None, ())
        if str(first) != _BATCH or not all(isinstance(size, int) for size in rest):
            raise ExportError(
                f"output {key!r} has shape {aval.shape}; an output has the batch as its leading"
                " axis, and only there"
            )
        described[key] = {"shape": [_BATCH, *rest], "dtype": np.dtype(aval.dtype).name}
    for key, source in passed.items():
        shape, dtype = inputs[source]
        described[key] = {
            "shape": [_BATCH, *shape],
            "dtype": np.dtype(dtype).name,
            "input": source,
        }
    return dict(sorted(described.items()))


def _replace(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write, seal, and let the new export take the old one's name."""
    whole.make_folder(folder.parent)
    partial = folder.with_name(folder.name + whole.PARTIAL)
    if not folder.exists() and (partial / whole.MANIFEST).is_file():
        whole.publish(partial, folder)  # a crash came between two renames
    shutil.rmtree(partial, ignore_errors=True)
    try:
        os.mkdir(partial)
        for file, data in contents.items():
            (partial / file).write_bytes(data)
        whole.seal(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk stays usable
        raise
    # From here on the sealed folder counts under either name, see `_find`.
    removing = folder.with_name(folder.name + whole.REMOVING)
    shutil.rmtree(removing, ignore_errors=True)
    if folder.exists():
        os.rename(folder, removing)
    whole.publish(partial, folder)
    shutil.rmtree(removing, ignore_errors=True)


def _packed(weights: Mapping[str, np.ndarray]) -> bytes:
    """An .npz of uncompressed arrays. Types that numpy does not know are stored as their bits."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path, array in weights.items():
            member = zipfile.ZipInfo(
                f"{path}.npy"
            )  # a fixed date: the same weights, the same bytes
            with archive.open(member, "w", force_zip64=True) as out:
                plain = np.asarray(_bits(array), order="C")
                np.lib.format.write_array(out, plain, allow_pickle=False)
    return file.getvalue()


def _bits(array: np.ndarray) -> np.ndarray:
    if array.dtype.isbuiltin == 1:
        return array
    return array.view(f"u{array.dtype.itemsize}")


# ---- loading


def _find(directory: Path) -> Path:
    folder = directory / FOLDER
    if folder.is_dir():
        return folder
    # A crash between two renames leaves the new export sealed under this name.
    partial = directory / (FOLDER + whole.PARTIAL)
    if (partial / whole.MANIFEST).is_file():
        return partial
    if (directory / _SIGNATURE).is_file() or (directory / whole.MANIFEST).is_file():
        return directory
    raise ExportError(f"no export in {directory}: wanted the folder {folder}, or the export itself")


def _unpacked(data: bytes, described: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The weights that the signature names, each of the shape and dtype it names."""
    weights = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = sorted(member.filename for member in archive.infolist())
        if names != sorted(f"{said['name']}.npy" for said in described):
            raise ValueError(f"{_WEIGHTS} holds {names}, and {_SIGNATURE} names others")
        for said in described:
            member = archive.getinfo(f"{said['name']}.npy")
            if member.compress_type != zipfile.ZIP_STORED:  # so nothing is larger than the file
                raise ValueError(f"{member.filename} is compressed, weights are not")
            with archive.open(member) as file:
                found = _header(file)
                dtype = jax.numpy.dtype(said["dtype"])
                bits = dtype if dtype.isbuiltin == 1 else np.dtype(f"u{dtype.itemsize}")
                if found != (tuple(said["shape"]), False, bits):
                    raise ValueError(f"{member.filename} is {found}, wanted {said}")
                # Sized by what is there, not by what the header says is there.
                array = np.frombuffer(file.read(), bits).reshape(said["shape"]).view(dtype)
            weights[said["name"]] = array
    return weights


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        return np.lib.format.read_array_header_2_0(file)
    return np.lib.format.read_array_header_1_0(file)


def _check_program(signature: Mapping[str, Any], program: jax_export.Exported) -> None:
    """Raise ValueError where the program and the signature speak of different things."""

    def described(named: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        return {key: (str([str(n) for n in x["shape"]]), x["dtype"]) for key, x in named.items()}

    def avals(tree: Any, flat: Any) -> Any:
        plain = [{"shape": x.shape, "dtype": np.dtype(x.dtype).name} for x in flat]
        return jax.tree_util.tree_unflatten(tree, plain)

    (weights, used), _ = avals(program.in_tree, program.in_avals)
    outputs = avals(program.out_tree, program.out_avals)
    said = {
        "weights": {x["name"]: x for x in signature["weights"]},
        "inputs": {key: signature["inputs"][key] for key in signature["program_inputs"]},
        "outputs": {key: x for key, x in signature["outputs"].items() if "input" not in x},
    }
    for what, found in (("weights", weights), ("inputs", used), ("outputs", outputs)):
        if described(found) != described(said[what]):
            raise ValueError(
                f"the program's {what} are {described(found)}, the signature's"
                f" {described(said[what])}"
            )
