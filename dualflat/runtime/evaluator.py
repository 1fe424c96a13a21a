"""The evaluator: follows a run's checkpoints from outside and evaluates each.

It takes no part in training and may come, go and come again; it reads the shared folder only.
"""

import signal
import time
import warnings
from pathlib import Path

import jax

from dualflat.contracts import Task
from dualflat.runtime import sync
from dualflat.runtime.checkpoint import Checkpoints
from dualflat.runtime.duties import Evaluator, Watcher
from dualflat.runtime.placement import make_mesh
from dualflat.runtime.stop import Stop
from dualflat.runtime.summary import Summary

FOLDER = "eval"


def follow(task: Task, log_dir: Path, *, stop: Stop, watch: Watcher, poll_s: float = 1.0) -> int:
    """Evaluate every checkpoint that appears until the last step's; return the signal or 0.

    Scalars go to `log_dir/eval`, which TensorBoard shows as a run beside the chief's. A checkpoint
    that goes away while it is read (old ones do) is passed over.
    """
    mesh = make_mesh({"worker": 1, "ps": 1}, jax.local_devices())
    layout = sync.state_layout(task, mesh)
    evaluate = Evaluator(task, layout.part("params"))
    done = -1
    with (
        Checkpoints(log_dir / "checkpoints", read_only=True) as checkpoints,
        Summary(log_dir / FOLDER) as records,
    ):
        while done < task.max_steps:
            number = stop()
            if number:
                return number
            step = max(checkpoints.steps(), default=-1)
            if step <= done:
                time.sleep(poll_s)
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                restored = checkpoints.load(
                    {"state": layout.saved, "key": sync.abstract_key(layout)}
                )
            if restored is None or restored.step <= done:
                time.sleep(poll_s)
                continue
            state = layout.from_saved(restored.state["state"])
            test = evaluate(state.params, stop)
            if not test:
                return stop() or signal.SIGTERM
            done = restored.step
            records.scalars(done, {f"Test_{name}": value for name, value in test.items()})
            records.flush()
            watch.note(
                f"step {done}: "
                + ", ".join(f"test {name} {value:.6f}" for name, value in test.items())
            )
    return 0
