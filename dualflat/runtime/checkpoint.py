"""Checkpoints: what survives a crash, and how one knows that it did.

orbax writes and reads the arrays: each process its own shards, restorable onto another mesh and
another number of processes. What orbax does not promise is added here, see `whole`: a step counts
only when every byte is on the disk and a manifest, written last, vouches for it; every byte is
compared with the manifest before anything is parsed; an old step loses its name before its files.

    <directory>/<step>/state/…         the arrays, in orbax's format
    <directory>/<step>/record.json     the leaves' names, shapes and dtypes; record; metrics
    <directory>/<step>/manifest.json   size and SHA-256 of all of the above
    <directory>/<step>.partial         a save in progress, or what a crash left of one
    <directory>/<step>.removing        an old step on its way out, or what a crash left of one
    <directory>/<step>.damaged         a step that failed its check, kept aside for inspection

All of the project's orbax is in this file.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import threading
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from dualflat.contracts import PyTree
from dualflat.runtime import whole

_FORMAT = 1
_STATE = "state"
_RECORD = "record.json"
_DAMAGED = ".damaged"
_STEP = re.compile(r"0|[1-9][0-9]*")
_LEFTOVER = re.compile(
    rf"(?:0|[1-9][0-9]*)(?:{re.escape(whole.PARTIAL)}|(?:{re.escape(_DAMAGED)})?"
    rf"{re.escape(whole.REMOVING)})"
)
_BARRIER_SECONDS = 600  # how long one process waits for the slowest to write its shards
_WORDS = 1024  # bytes of an error's text that the other processes are told


class CheckpointError(RuntimeError):
    """A checkpoint could not be saved or loaded; `__cause__` holds what the system said."""


class DamagedCheckpointWarning(UserWarning):
    """A step is damaged and an older one was used. Names the step, the file and what is wrong."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `Checkpoints.load` found.

    Attributes:
      step: the step that was loaded.
      state: the pytree, with the shardings of the template.
      record: what was saved beside it, as JSON gives it back (tuples are lists).
      metrics: name → float, as saved.
    """

    step: int
    state: PyTree
    record: dict[str, Any]
    metrics: dict[str, float]


class Checkpoints:
    """The checkpoints of one run, in one folder of a file system that all its processes see.

    A context manager: leaving it waits for the save in progress. Under `jax.distributed` every
    process makes one and calls `save`, `wait`, `load` and `close` in the same order; process 0
    alone decides, seals and removes, and a failure in one process is raised in all.

    One writer a folder. Readers change nothing, so they may look on while a run is saving.

    Args:
      directory: created by the first save.
      keep: how many of the newest steps to keep, at least 1.
      keep_best: how many of the best steps to keep beside them, by `best_metric`. Steps that were
        saved without it, or where it is NaN, are nobody's best.
      best_metric: the name of the metric that ranks steps.
      best_mode: "min" or "max".
      read_only: refuse to save, for those who only look on.

    Raises:
      ValueError: an argument is out of its range, or `directory` is a URL.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 5,
        keep_best: int = 1,
        best_metric: str = "test_loss",
        best_mode: Literal["min", "max"] = "min",
        read_only: bool = False,
    ):
        if keep < 1:
            raise ValueError(f"keep={keep}: at least the newest step has to stay, so 1 or more")
        if keep_best < 0:
            raise ValueError(f"keep_best={keep_best}: a count of steps, 0 or more")
        if best_mode not in ("min", "max"):
            raise ValueError(f"best_mode={best_mode!r}: 'min' or 'max'")
        if "://" in os.fspath(directory):
            raise ValueError(
                f"directory={os.fspath(directory)!r} is a URL. Only mounted file systems can"
                " promise that a checkpoint is on the disk: mount the bucket, or give a path"
            )
        self._directory = Path(os.path.abspath(directory))
        self._keep = keep
        self._keep_best = keep_best
        self._best_metric = best_metric
        self._sign = 1.0 if best_mode == "min" else -1.0
        self._orbax: ocp.AsyncCheckpointer | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None  # of the background save, until it is raised
        self._pending: int | None = None  # the step that the background is saving
        self._metrics: dict[int, dict[str, float]] = {}
        self._damaged: set[int] = set()
        self._swept = False
        self._closed = False
        self._read_only = read_only

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        # The other processes may not be on their way here, so wait for our own part alone.
        self._join()
        if self._failure is not None:
            error.add_note(f"The checkpoint of step {self._pending} failed too: {self._failure}")
        self._pending = self._failure = None
        self._closed = True
        self._let_go()

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        record: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Save `state` as `step`, in the background.

        Returns once the arrays have been copied off the devices, so donating them afterwards is
        safe. Waits for the save before it; the step is durable after the next `wait`, `save` or
        `close`.

        Args:
          step: greater than every step in the folder.
          state: pytree of jax arrays (typed PRNG keys included), numpy arrays, bool, int, float.
            Under `jax.distributed` what is not a global array is taken from process 0.
          record: JSON-able facts to give back, small ones.
          metrics: name → number, for the choice of the best steps.

        Raises:
          CheckpointError: the save before this one failed, or this one cannot begin.
        """
        self.wait()
        if self._closed:
            raise CheckpointError(f"{self._directory}: save({step}) after close()")
        if self._read_only:
            raise CheckpointError(f"{self._directory}: save({step}), but opened to be read only")
        numbers = {name: float(value) for name, value in (metrics or {}).items()}
        partial = self._directory / f"{step}{whole.PARTIAL}"
        arrays: dict[str, Any] = {}
        doing = f"saving step {step} in {self._directory}"
        made = False
        try:
            with self._all_or_none(doing):
                if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                    raise ValueError(f"step={step!r}: a step is a whole number, 0 or more")
                arrays, leaves = _dismantle(state)
                text = json.dumps(
                    {
                        "format": _FORMAT,
                        "step": step,
                        "record": dict(record),
                        "metrics": numbers,
                        "leaves": leaves,
                    }
                ).encode()
                if jax.process_index() == 0:
                    self._make_room(step, partial)
                    made = True
                    whole.write_file(partial / _RECORD, text)
            if arrays:
                with _as_checkpoint_error(doing):
                    self._writer().save(partial / _STATE, args=ocp.args.PyTreeSave(arrays))
        except BaseException:
            self._abandon(partial if made else None)
            raise
        self._pending = step
        self._thread = threading.Thread(
            target=self._finish, args=(step, partial, numbers), name=f"checkpoint-{step}"
        )
        self._thread.start()

    def wait(self) -> None:
        """Return when everything saved so far is durable.

        Raises:
          CheckpointError: a save in the background failed. Raised once; the next save may succeed.
        """
        self._join()
        if self._pending is None:
            return
        step, failure = self._pending, self._failure
        self._pending = self._failure = None
        with self._all_or_none(f"saving step {step} in {self._directory}"):
            if failure is not None:
                raise failure

    def steps(self) -> list[int]:
        """The steps that carry a whole manifest, ascending. Does not read the arrays."""
        return [step for step in self._numbered() if _sealed(self._directory / str(step))]

    def load(self, abstract_state: PyTree, step: int | None = None) -> Restored | None:
        """Load a step onto the devices that `abstract_state` asks for.

        Every byte is compared with the manifest first. Without `step`, a damaged newest step gives
        a `DamagedCheckpointWarning` and the newest whole one is loaded.

        Args:
          abstract_state: pytree like the one saved, of `jax.ShapeDtypeStruct` with shardings (any
            mesh, any number of processes). A numpy array or a Python number in it asks for one.
          step: the step to load; None for the newest whole one.

        Returns:
          None where the folder holds no checkpoint.

        Raises:
          CheckpointError: `step` is missing or damaged; every step is damaged; or names, shapes or
            dtypes of the leaves are not those of `abstract_state`. Nothing is cast.
        """
        self.wait()
        chosen: int | None = None
        with self._all_or_none(f"loading from {self._directory}"):
            if jax.process_index() == 0:
                chosen = self._choose(step)
        if jax.process_count() > 1:
            told = multihost_utils.broadcast_one_to_all(
                np.asarray(
                    [-1 if chosen is None else chosen >> 31, (chosen or 0) & 0x7FFFFFFF]
                ).astype(np.int32)
            )
            high, low = (int(part) for part in np.asarray(told))
            chosen = None if high < 0 else high << 31 | low
        if chosen is None:
            return None
        folder = self._directory / str(chosen)
        state, held = None, {}
        try:
            with self._all_or_none(f"loading step {chosen} from {self._directory}"):
                held = _held(folder)
                state = self._assemble(folder, held, abstract_state)
        except CheckpointError:
            if step is None and jax.process_count() == 1 and not folder.exists():
                return self.load(abstract_state)  # the run that writes here has just removed it
            raise
        return Restored(chosen, state, held["record"], held["metrics"])

    def read_record(self, step: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """The record of a step (None: of the newest whose record is whole), without its arrays.

        Compares the record's bytes with the manifest, not those of the arrays. Concerns this
        process alone.

        Returns:
          (step, record), or None where the folder holds no checkpoint.

        Raises:
          CheckpointError: `step` is missing or damaged, or every step is.
        """
        with _as_checkpoint_error(f"reading a record in {self._directory}"):
            chosen = self._choose(step, check=_held)
            if chosen is None:
                return None
            return chosen, _held(self._directory / str(chosen))["record"]

    def close(self) -> None:
        """Wait for the save in progress and let go of the threads. May be called twice.

        Raises:
          CheckpointError: that save failed.
        """
        try:
            self.wait()
        finally:
            self._closed = True
            self._let_go()

    # ---- saving

    def _writer(self) -> ocp.AsyncCheckpointer:
        if self._orbax is None:
            self._orbax = ocp.AsyncCheckpointer(
                # Trained numbers do not compress (8 % in float32), and trying costs twice the rest.
                ocp.PyTreeCheckpointHandler(use_compression=False),
                async_options=ocp.options.AsyncOptions(
                    timeout_secs=_BARRIER_SECONDS,
                    # A folder that cannot be made is an error here and now; made in the background
                    # its failure leaves a thread that waits for ever.
                    create_directories_asynchronously=False,
                ),
            )
        return self._orbax

    def _make_room(self, step: int, partial: Path) -> None:
        """Process 0: make `partial`, with nothing in the way of it and of its final name."""
        whole.make_folder(self._directory)
        if not self._swept:
            for name in os.listdir(self._directory):
                if _LEFTOVER.fullmatch(name):
                    _discard(self._directory / name)
            self._swept = True
        for other in sorted(self._damaged):
            self._set_aside(other)
        self._damaged.clear()
        if os.path.lexists(self._directory / str(step)) and step not in self._numbered():
            raise FileExistsError(
                f"{self._directory / str(step)} is not a folder: move it away, or save elsewhere"
            )
        for other in reversed(self._numbered()):
            if other < step:
                break
            folder = self._directory / str(other)
            if not (folder / whole.MANIFEST).exists() and not (folder / _RECORD).exists():
                if other > step:
                    continue  # not a checkpoint, and not in the way
                raise FileExistsError(
                    f"{folder} exists and is not a checkpoint: move it away, or save elsewhere"
                )
            try:
                whole.verify(folder)
            except whole.NotWholeError:
                self._set_aside(other)
                continue
            raise FileExistsError(
                f"step {other} is already saved, and steps have to grow. To go back to an earlier"
                f" step, move the later ones out of {self._directory} or save elsewhere"
            )
        os.mkdir(partial)

    def _set_aside(self, step: int) -> None:
        folder = self._directory / str(step)
        aside = folder.with_name(folder.name + _DAMAGED)
        if aside.is_dir():
            whole.remove(aside)
        with contextlib.suppress(FileNotFoundError):
            whole.publish(folder, aside)

    def _finish(self, step: int, partial: Path, metrics: dict[str, float]) -> None:
        """In the background: wait for the bytes, vouch for them, give them their name."""
        try:
            if self._orbax is not None:
                self._orbax.wait_until_finished()  # on process 0: of all processes
            if jax.process_index() == 0:
                whole.seal(partial)
                whole.publish(partial, self._directory / str(step))
        except BaseException as error:
            self._failure = error
            with contextlib.suppress(Exception):
                self._abandon(partial)
            return
        try:
            self._metrics[step] = metrics
            if jax.process_index() == 0:
                self._remove_old()
        except BaseException as error:
            error.add_note(f"Step {step} itself is saved; removing older ones failed.")
            self._failure = error

    def _remove_old(self) -> None:
        steps = self.steps()
        kept = set(steps[-self._keep :])
        ranked = []
        for step in steps:
            if step not in self._metrics:
                try:
                    self._metrics[step] = _held(self._directory / str(step))["metrics"]
                except (whole.NotWholeError, ValueError):
                    self._metrics[step] = {}  # damaged: nobody's best, and gone when its time comes
            value = self._metrics[step].get(self._best_metric, math.nan)
            if not math.isnan(value):
                ranked.append((self._sign * value, step))
        kept.update(step for _, step in sorted(ranked)[: self._keep_best])
        for step in steps:
            if step not in kept:
                whole.remove(self._directory / str(step))
                self._metrics.pop(step, None)

    def _abandon(self, partial: Path | None) -> None:
        """After a failure: no half-written files, so that a full disk is usable again."""
        self._let_go()
        if partial is not None and jax.process_index() == 0:
            _discard(partial)

    # ---- loading

    def _choose(self, step: int | None, check: Any = whole.verify) -> int | None:
        """Process 0: the step to load, verified."""
        found = self._numbered()
        if step is not None:
            if step not in found:
                raise FileNotFoundError(
                    f"{self._directory} holds no step {step}; its whole steps are {self.steps()}"
                )
            try:
                check(self._directory / str(step))
            except whole.NotWholeError as error:
                raise whole.NotWholeError(f"step {step} is damaged: {error}") from error
            return step
        damage = []
        for candidate in reversed(found):
            folder = self._directory / str(candidate)
            try:
                check(folder)
            except whole.NotWholeError as error:
                if not folder.exists():
                    continue  # the run that writes here has just removed it
                damage.append((candidate, error))
                continue
            for other, error in damage:
                self._damaged.add(other)
                warnings.warn(
                    f"step {other} is damaged: {error}. Step {candidate} is used instead",
                    DamagedCheckpointWarning,
                    stacklevel=3,
                )
            return candidate
        if damage:
            raise whole.NotWholeError(
                "no step here is whole: "
                + "; ".join(f"step {other}: {error}" for other, error in damage)
                + ". To begin anew, use an empty folder"
            )
        return None

    def _assemble(self, folder: Path, held: dict[str, Any], abstract_state: PyTree) -> PyTree:
        """The state in `folder`, in the structure and with the shardings of `abstract_state`."""
        paths, treedef = jax.tree_util.tree_flatten_with_path(abstract_state)
        wanted = {jax.tree_util.keystr(path): leaf for path, leaf in paths}
        stored = {leaf["path"]: leaf for leaf in held["leaves"]}
        _compare(stored, wanted)
        arguments = {}
        for path, leaf in stored.items():
            if leaf["kind"] in ("array", "key"):
                arguments[leaf["name"]] = _how_to_restore(leaf, wanted[path])
        arrays = {}
        if arguments:
            everything = ocp.args.PyTreeRestore(dict.fromkeys(arguments, 0), arguments)
            arrays = self._writer().restore(folder / _STATE, args=everything)
        leaves = [_restored(stored[path], like, arrays) for path, like in wanted.items()]
        return jax.tree_util.tree_unflatten(treedef, leaves)

    # ---- both

    def _numbered(self) -> list[int]:
        """Folders that are named like a step, ascending."""
        try:
            with os.scandir(self._directory) as found:
                names = [e.name for e in found if e.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if _STEP.fullmatch(name))

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _let_go(self) -> None:
        writer, self._orbax = self._orbax, None
        if writer is not None:
            with contextlib.suppress(Exception):  # what failed has been reported already
                writer.close()

    @contextlib.contextmanager
    def _all_or_none(self, doing: str):
        """Raise in every process what was raised in one, as a CheckpointError.

        A process that went on alone would wait for the others in its next collective, for ever.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        if jax.process_count() > 1:
            words = b"" if failure is None else f"{type(failure).__name__}: {failure}".encode()
            mine = np.zeros(_WORDS, np.uint8)
            mine[: min(len(words), _WORDS)] = np.frombuffer(words[:_WORDS], np.uint8)
            for process, text in enumerate(multihost_utils.process_allgather(mine)):
                said = np.asarray(text).tobytes().rstrip(b"\0").decode(errors="replace")
                if said and failure is None:
                    raise CheckpointError(f"{doing} failed in process {process}: {said}")
        if isinstance(failure, CheckpointError):
            raise failure
        if failure is not None:
            raise _failed(doing, failure) from failure


@contextlib.contextmanager
def _as_checkpoint_error(doing: str):
    try:
        yield
    except Exception as error:
        raise _failed(doing, error) from error


def _failed(doing: str, error: BaseException) -> CheckpointError:
    words = str(error) or type(error).__name__
    return CheckpointError(f"{doing} failed: {words}")


def _discard(folder: Path) -> None:
    """Remove what was never whole. A writer that has not noticed yet gets a few more chances."""
    for attempt in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return
        time.sleep(0.02 * 2**attempt)


def _sealed(folder: Path) -> bool:
    try:
        return _RECORD in whole.entries(folder)
    except whole.NotWholeError:
        return False


def _held(folder: Path) -> dict[str, Any]:
    held = json.loads(whole.read(folder, _RECORD))
    if held["format"] != _FORMAT:
        raise ValueError(
            f"{folder / _RECORD} has format {held['format']!r}, this version reads {_FORMAT}:"
            " it was written by another version of dualflat"
        )
    return held


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(leaf: Any) -> dict[str, Any]:
    """Kind, shape and dtype of a leaf, saved or asked for.

    Raises:
      TypeError: it is not something that a checkpoint holds.
    """
    # Kept apart from arrays, to come back as themselves. By exact type: np.float64 is a float too.
    if type(leaf) in (bool, int, float):
        return {"kind": type(leaf).__name__, "shape": [], "dtype": type(leaf).__name__}
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        raise TypeError(f"is a {type(leaf).__name__}")
    shape = [int(size) for size in leaf.shape]
    if _is_key(leaf):
        return {"kind": "key", "shape": shape, "dtype": str(leaf.dtype)}
    dtype = np.dtype(leaf.dtype)
    if dtype.hasobject or dtype.kind in "SUMm" or dtype.names is not None:
        raise TypeError(f"is an array of {dtype}")
    return {"kind": "empty" if 0 in shape else "array", "shape": shape, "dtype": dtype.name}


def _dismantle(state: PyTree) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The arrays of `state` under names of their own, and the table that says which is which."""
    arrays, table = {}, []
    for number, (path, leaf) in enumerate(jax.tree_util.tree_flatten_with_path(state)[0]):
        where = jax.tree_util.keystr(path)
        try:
            row = {"path": where, **_describe(leaf)}
        except TypeError as error:
            raise TypeError(
                f"leaf {where} {error}; a checkpoint holds arrays of numbers, PRNG keys, bool, int"
                " and float. Put anything else into `record`"
            ) from None
        if row["kind"] in ("array", "key"):
            plain = jax.tree_util.keystr(path, simple=True, separator=".")
            row["name"] = f"{number:04d}_" + re.sub(r"[^A-Za-z0-9_.-]", "_", plain)
            if row["kind"] == "key":
                row["implementation"] = str(jax.random.key_impl(leaf))
                leaf = jax.random.key_data(leaf)
            if not isinstance(leaf, jax.Array):
                leaf = np.array(leaf)  # a copy: the caller may go on writing into it
            elif jax.process_count() > 1 and leaf.is_fully_addressable:
                leaf = np.array(leaf)  # every process has its own; that of process 0 is saved
            arrays[row["name"]] = leaf
        elif row["kind"] == "float":
            row["value"] = leaf.hex()
        elif row["kind"] in ("bool", "int"):
            row["value"] = leaf
        table.append(row)
    return arrays, table


def _compare(stored: Mapping[str, dict[str, Any]], wanted: Mapping[str, Any]) -> None:
    """Refuse a template whose leaves are not the stored ones. (orbax would cast, silently.)"""
    wrong = [f"{path} is saved, but not asked for" for path in stored if path not in wanted]
    wrong += [f"{path} is asked for, but not saved" for path in wanted if path not in stored]
    for path, leaf in wanted.items():
        if path in stored:
            asked = _describe(leaf)
            there = stored[path]
            if any(asked[what] != there[what] for what in ("kind", "shape", "dtype")):
                wrong.append(
                    f"{path} is {there['dtype']}{there['shape']}, asked for is"
                    f" {asked['dtype']}{asked['shape']}"
                )
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            "the checkpoint belongs to another model or optimiser: " + "; ".join(wrong[:5]) + more
        )


def _target(like: Any) -> jax.sharding.Sharding | None:
    """The sharding a leaf is wanted with; None where it is wanted as a numpy array."""
    if isinstance(like, np.ndarray | np.generic):
        return None
    sharding = getattr(like, "sharding", None)
    if sharding is not None:
        return sharding
    if jax.process_count() > 1:
        raise ValueError(
            "abstract_state has a leaf without a sharding; several processes need one to know who"
            " holds what"
        )
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def _by_way_of_the_host(sharding: jax.sharding.Sharding | None) -> bool:
    return sharding is None or (jax.process_count() > 1 and sharding.is_fully_addressable)


def _how_to_restore(leaf: dict[str, Any], like: Any) -> ocp.RestoreArgs:
    sharding = _target(like)
    if _by_way_of_the_host(sharding):
        return ocp.RestoreArgs(restore_type=np.ndarray)
    return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=sharding)


def _restored(leaf: dict[str, Any], like: Any, arrays: Mapping[str, Any]) -> Any:
    if leaf["kind"] == "float":
        return float.fromhex(leaf["value"])
    if leaf["kind"] in ("bool", "int"):
        return leaf["value"]
    sharding = _target(like)
    if leaf["kind"] == "empty":
        empty = np.zeros(leaf["shape"], np.dtype(like.dtype))
        if sharding is None:
            return empty
        return jax.make_array_from_callback(empty.shape, sharding, lambda index: empty[index])
    array = arrays[leaf["name"]]
    if sharding is None:
        return array[()] if isinstance(like, np.generic) else array
    if _by_way_of_the_host(sharding):
        array = jax.device_put(array, sharding)
    if leaf["kind"] == "key":
        return jax.random.wrap_key_data(array, impl=leaf["implementation"])
    if array.dtype != like.dtype or array.shape != tuple(like.shape):
        raise ValueError(
            f"{leaf['path']} was saved as {leaf['dtype']}{leaf['shape']} and came back as"
            f" {array.dtype}{list(array.shape)}; 64-bit leaves need x64 to be on"
        )
    return array
