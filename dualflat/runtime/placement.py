"""Which shard of the parameter store holds what: leaves cut by bytes along the mesh axis `ps`.

The store is the training state spread over the devices of one mesh row; every device on the axis
`ps` is one parameter-server shard. A leaf is cut along its longest axis that `ps` divides. Where
`ps` divides none, the longest axis is padded with zeros to the next multiple, so that *every* leaf
with an axis is cut into equal parts and each shard holds 1/ps of the bytes. Only scalars (an
optimiser's step counts) stand on every shard.

Two shapes of one leaf: *natural*, as the model wrote it, which is what a gradient is computed at
and what a checkpoint holds (so that a checkpoint knows nothing of the mesh), and *stored*, padded.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dualflat.contracts import PyTree

WORKER, PS = "worker", "ps"


def parse_mesh(text: str) -> dict[str, int]:
    """Read `worker=4,ps=2` into axis sizes; an axis left out has size 1.

    Raises:
      ValueError: where the text is anything else, saying what was found.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if name not in (WORKER, PS) or not equals or not number.isascii() or not number.isdigit():
            raise ValueError(
                f"mesh {text!r}: found {part.strip()!r}, wanted worker=N or ps=N, as in worker=4,ps=2."
            )
        if name in sizes:
            raise ValueError(f"mesh {text!r}: {name} is given twice.")
        if int(number) < 1:
            raise ValueError(
                f"mesh {text!r}: {name}={number}, but an axis has at least one device."
            )
        sizes[name] = int(number)
    return {WORKER: sizes.get(WORKER, 1), PS: sizes.get(PS, 1)}


def make_mesh(
    sizes: Mapping[str, int] | None,
    devices: Sequence[Any],
    *,
    servers: int = 0,
    batch_size: int | None = None,
) -> Mesh:
    """Lay devices out as worker × ps.

    Args:
      sizes: axis sizes as `parse_mesh` gives them. None uses every device: as many shards as
        `servers` (how many ps tasks the cluster names) where that divides the devices, else one;
        the rest are workers, as many as divide `batch_size`, and what is left over adds shards.
      devices: of all processes, in any order. One process may leave some unused; with several,
        every process must own a device of the mesh.
      servers, batch_size: see `sizes`.

    Raises:
      ValueError: where the devices are too few, or a process would be left out.
    """
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    if sizes is None:
        workers = len(devices) // (servers if servers and len(devices) % servers == 0 else 1)
        if batch_size is not None:
            workers = math.gcd(workers, batch_size)
        sizes = {WORKER: workers, PS: len(devices) // workers}
    workers, ps = sizes[WORKER], sizes[PS]
    processes = {device.process_index for device in devices}
    if workers * ps > len(devices):
        raise ValueError(
            f"mesh worker={workers},ps={ps} takes {workers * ps} devices, and there are {len(devices)}."
            f" Make the mesh smaller, or on a CPU simulate devices: --cpu-devices {workers * ps}."
        )
    chosen = devices[: workers * ps]
    if {device.process_index for device in chosen} != processes:
        raise ValueError(
            f"mesh worker={workers},ps={ps} takes {workers * ps} of {len(devices)} devices and leaves out a"
            f" process of {len(processes)}: with several processes the mesh must use every device."
        )
    grid = np.array(chosen).reshape(workers, ps)
    return Mesh(grid, (WORKER, PS), axis_types=(AxisType.Auto, AxisType.Auto))


def local_mesh() -> Mesh:
    """Return the mesh of this process's first device alone."""
    return make_mesh({WORKER: 1, PS: 1}, jax.local_devices()[:1])


def cut(shape: tuple[int, ...], shards: int) -> tuple[int, tuple[int, ...]] | None:
    """Return the axis along which a leaf of this shape is cut, and its stored shape.

    None for a leaf with no axis, or an empty one: it stands whole on every shard.
    """
    if not shape or 0 in shape:
        return None
    order = sorted(range(len(shape)), key=lambda axis: -shape[axis])  # stable: the first longest
    axis = next((axis for axis in order if shape[axis] % shards == 0), order[0])
    padded = -(-shape[axis] // shards) * shards
    return axis, (*shape[:axis], padded, *shape[axis + 1 :])


@dataclasses.dataclass(frozen=True)
class Rows:
    """Which rows of a global batch this process holds, and the way onto the mesh.

    Attributes:
      sharding: of the global batch, its leading axis split along `worker`.
      batch_size: rows in the global batch; `worker` must divide it.
    """

    sharding: NamedSharding
    batch_size: int

    def __post_init__(self) -> None:
        workers = self.sharding.mesh.shape[WORKER]
        if self.batch_size % workers:
            down = self.batch_size // workers * workers
            near = f"{down} or {down + workers}" if down else f"{workers}"
            raise ValueError(
                f"batch size {self.batch_size} does not divide evenly among the {workers} devices of the"
                f" mesh axis 'worker': take {near}, or another mesh."
            )

    @functools.cached_property
    def part(self) -> slice:
        """The rows that this process's devices hold: one block, since devices stand by process."""
        where = self.sharding.addressable_devices_indices_map((self.batch_size,)).values()
        bounds = {
            (rows.start or 0, self.batch_size if rows.stop is None else rows.stop)
            for (rows,) in filter(None, where)
        }
        low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
        assert sum(b[1] - b[0] for b in bounds) == high - low, f"rows with a gap: {sorted(bounds)}"
        return slice(low, high)

    def place(self, tree: PyTree) -> PyTree:
        """Lay this process's rows, as numpy arrays, onto its devices as parts of global arrays."""
        if jax.process_count() == 1:
            return jax.device_put(tree, self.sharding)

        def leaf(x: np.ndarray) -> jax.Array:
            return jax.make_array_from_process_local_data(
                self.sharding, x, (self.batch_size, *x.shape[1:])
            )

        return jax.tree.map(leaf, tree)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where every leaf of one tree lives on one mesh, and the way between its two shapes.

    Attributes:
      mesh: axes `worker` and `ps`.
      natural: the tree's `jax.ShapeDtypeStruct`s as the model wrote them.
    """

    mesh: Mesh
    natural: PyTree

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of what stands whole on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def batch(self) -> NamedSharding:
        """The sharding of a batch: its leading axis split along `worker`."""
        return NamedSharding(self.mesh, P(WORKER))

    @functools.cached_property
    def stored(self) -> PyTree:
        """The tree of stored `jax.ShapeDtypeStruct`s, with shardings."""
        return jax.tree.map(lambda leaf: self._stored(leaf, self._cut(leaf)), self.natural)

    @functools.cached_property
    def saved(self) -> PyTree:
        """The tree of natural `jax.ShapeDtypeStruct`s, with the shardings a checkpoint is read to.

        As stored, but a leaf that needs padding stands whole, since a cut it cannot have.
        """

        def leaf(natural: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            where = self._cut(natural)
            return self._stored(natural, where if where and where[1] == natural.shape else None)

        return jax.tree.map(leaf, self.natural)

    @functools.cached_property
    def shardings(self) -> PyTree:
        """The tree of stored shardings."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.stored)

    def part(self, name: str) -> "Layout":
        """Return the layout of one attribute of the tree, such as `params`."""
        return Layout(self.mesh, getattr(self.natural, name))

    def pack(self, tree: PyTree) -> PyTree:
        """Natural → stored: pad with zeros and cut. For use inside `jit`.

        The tree is first held whole on every device of a mesh row, as `gather` left it. Without
        that line the compiler carries the cut back into whatever computed the tree, splits
        matrix products by features, and the bits depend on how many shards there are.
        """

        def leaf(x: jax.Array, stored: jax.ShapeDtypeStruct) -> jax.Array:
            x = jax.lax.with_sharding_constraint(x, self.replicated)
            if x.shape != stored.shape:
                x = jnp.pad(x, [(0, to - of) for of, to in zip(x.shape, stored.shape, strict=True)])
            return jax.lax.with_sharding_constraint(x, stored.sharding)

        return jax.tree.map(leaf, tree, self.stored)

    def gather(self, tree: PyTree) -> PyTree:
        """Stored → natural and whole on every device: what a gradient is computed at. Inside `jit`."""

        def leaf(x: jax.Array, natural: jax.ShapeDtypeStruct) -> jax.Array:
            x = jax.lax.with_sharding_constraint(x, self.replicated)
            return x if x.shape == natural.shape else x[tuple(slice(n) for n in natural.shape)]

        return jax.tree.map(leaf, tree, self.natural)

    def to_saved(self, tree: PyTree) -> PyTree:
        """Stored → natural, what a checkpoint holds. Leaves without padding are handed on, not copied."""
        return self._reshape(tree, self.saved)

    def from_saved(self, tree: PyTree) -> PyTree:
        """Natural, as read from a checkpoint → stored."""
        return self._reshape(tree, self.stored)

    def shard_bytes(self) -> int:
        """Bytes of the stored tree that each device on `ps` holds."""
        sizes = jax.tree.map(
            lambda leaf: int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize,
            self.stored,
        )
        return sum(jax.tree.leaves(sizes))

    def _cut(self, leaf: jax.ShapeDtypeStruct) -> tuple[int, tuple[int, ...]] | None:
        return cut(leaf.shape, self.mesh.shape[PS])

    def _stored(
        self, leaf: jax.ShapeDtypeStruct, where: tuple[int, tuple[int, ...]] | None
    ) -> jax.ShapeDtypeStruct:
        if where is None:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.replicated)
        axis, shape = where
        spec = P(*(PS if k == axis else None for k in range(len(shape))))
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=NamedSharding(self.mesh, spec))

    @staticmethod
    def _reshape(tree: PyTree, target: PyTree) -> PyTree:
        """Bring each leaf whose shape differs to its target; one small program for all of them."""
        leaves, structure = jax.tree.flatten(tree)
        wanted = structure.flatten_up_to(target)
        changed = [
            k for k, (x, to) in enumerate(zip(leaves, wanted, strict=True)) if x.shape != to.shape
        ]
        if changed:
            shapes = tuple(wanted[k].shape for k in changed)
            fit = jax.jit(
                _fit, static_argnums=1, out_shardings=[wanted[k].sharding for k in changed]
            )
            for k, x in zip(changed, fit([leaves[k] for k in changed], shapes), strict=True):
                leaves[k] = x
        return jax.tree.unflatten(structure, leaves)


def _fit(leaves: list[Any], shapes: tuple[tuple[int, ...], ...]) -> list[Any]:
    """Cut or zero-pad each leaf at the end of each axis."""
    fitted = []
    for x, shape in zip(leaves, shapes, strict=True):
        x = x[tuple(slice(min(a, b)) for a, b in zip(x.shape, shape, strict=True))]
        fitted.append(jnp.pad(x, [(0, b - a) for a, b in zip(x.shape, shape, strict=True)]))
    return fitted
