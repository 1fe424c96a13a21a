"""What a device holds of the seed's network and Adam, and what a step gathers beside it.

    JAX_NUM_CPU_DEVICES=8 PJRT_NPROC=16 python -m benchmarks.memory

Read from the compiled programs, for 28 × 28 images: nothing is run. One JSON line a mesh:

  state_bytes       parameters and both moments on one device, from the update program's arguments
  of_one_device     the same as a share of what a mesh of one device holds; 1/ps is the promise
  gathered_bytes    beside it while a step runs: every parameter whole, and a whole gradient
  temporary_bytes   all that the gradient program allocates, activations of its part of the batch too
  collectives       what the compiler put into the step
"""

import collections
import json
import re
import tempfile
from pathlib import Path

import jax
import numpy as np

from dualflat.contracts import Options
from dualflat.learn.idx import write_idx
from dualflat.learn.tasks import mnist
from dualflat.runtime import sync
from dualflat.runtime.placement import make_mesh

MESHES = ((1, 1), (1, 2), (1, 4), (1, 8), (4, 1), (4, 2))


def task_of_28():
    """The main job's task on blank images of MNIST's size: only shapes matter here."""
    with tempfile.TemporaryDirectory() as folder:
        for prefix in ("train", "t10k"):
            write_idx(
                Path(folder, f"{prefix}-images-idx3-ubyte"), np.zeros((100, 28, 28), np.uint8)
            )
            write_idx(Path(folder, f"{prefix}-labels-idx1-ubyte"), np.zeros(100, np.uint8))
        return mnist.task(Options(data=folder))


def main():
    task, alone = task_of_28(), None
    for worker, ps in MESHES:
        mesh = make_mesh({"worker": worker, "ps": ps}, jax.devices()[: worker * ps])
        layout = sync.state_layout(task, mesh)
        params, step = layout.part("params"), sync.make_step(task, layout)
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.batch)
            for name, x in task.train[np.arange(100)].items()
        }
        count, key = layout.stored.step, sync.abstract_key(layout)
        gradient = step.gradient.lower(params.stored, count, key, batch).compile()
        update = step.apply.lower(layout.stored, params.stored).compile()
        state = update.memory_analysis().argument_size_in_bytes - params.shard_bytes()
        alone = alone or state
        whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params.natural))
        text = gradient.as_text() + update.as_text()
        found = collections.Counter(re.findall(r" (all-gather|all-reduce|reduce-scatter)\(", text))
        row = {
            "mesh": f"worker={worker},ps={ps}",
            "jax": jax.__version__,
            "state_bytes": state,
            "of_one_device": round(state / alone, 4),
            "gathered_bytes": 2 * whole if ps > 1 else whole,
            "temporary_bytes": gradient.memory_analysis().temp_size_in_bytes,
            "collectives": dict(found),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
