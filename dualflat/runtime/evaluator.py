"""The evaluator: follows a run's checkpoints from outside and evaluates each.

It takes no part in training and may come, go and come again; it reads the shared folder only.
"""

import time
import warnings
from pathlib import Path

from dualflat.contracts import Task
from dualflat.runtime import sync
from dualflat.runtime.checkpoint import CheckpointError, Checkpoints
from dualflat.runtime.duties import Evaluator, Watcher, test_scalars
from dualflat.runtime.placement import Layout, local_mesh
from dualflat.runtime.stop import Stop
from dualflat.runtime.summary import Summary, read_metrics

FOLDER = "eval"


def follow(
    task: Task,
    folder: Path,
    log_dir: Path,
    *,
    seed: int,
    since: float,
    stop: Stop,
    watch: Watcher,
    poll_s: float = 1.0,
) -> int:
    """Evaluate every checkpoint that appears, up to the last step's; return the signal or 0.

    Scalars go to `log_dir/eval`, which TensorBoard shows as a run beside the chief's; one that is
    recorded there already is not evaluated again. A checkpoint that goes away before it is read (old
    ones do), that is damaged, or that belongs to another run is passed over.

    Args:
      task: the run's task.
      folder: of the checkpoints.
      log_dir: the run's.
      seed: the run's.
      since: seconds since the epoch; checkpoints saved before are an earlier run's.
      stop: asked between checkpoints and evaluation batches.
      watch: told of each evaluation.
      poll_s: seconds between two looks into the folder.
    """
    layout = sync.state_layout(task, local_mesh())
    evaluate = Evaluator(task, layout.part("params"))
    records_dir = log_dir / FOLDER
    done = max((int(line["step"]) for line in read_metrics(records_dir)), default=-1)
    passed: set[tuple[int, float]] = set()
    with (
        Checkpoints(folder, read_only=True) as checkpoints,
        Summary(records_dir, start=max(done, 0)) as records,
    ):
        while done < task.max_steps:
            for step in [s for s in checkpoints.steps() if s > done]:
                saved = _saved_at(folder / str(step))
                if saved < since or (step, saved) in passed:
                    continue
                params = _params(task, layout, checkpoints, step, seed)
                if params is None:
                    passed.add((step, saved))
                    continue
                test = evaluate(params, stop)
                if test is None:
                    return stop()
                done = step
                records.scalars(step, test_scalars(test))
                records.flush()
                watch.note(
                    f"step {step}: " + ", ".join(f"test {k} {v:.6f}" for k, v in test.items())
                )
            if stop():
                return stop()
            if done < task.max_steps:
                time.sleep(poll_s)
    return 0


def _saved_at(folder: Path) -> float:
    """When a checkpoint was saved, in seconds since the epoch; −1 where it is gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return -1.0


def _params(task: Task, layout: Layout, checkpoints: Checkpoints, step: int, seed: int):
    """The parameters of a step; None where it is gone, damaged, or another run's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = checkpoints.read_record(step)
            if found is None:
                return None
            sync.require_same_run(found[1], task, seed, step)
            restored = checkpoints.load(sync.saved_form(layout), step)
        except (CheckpointError, ValueError):
            return None
    return None if restored is None else layout.from_saved(restored.state["state"]).params
