"""What the trainer costs over the bare loop of the same step.

    python -m benchmarks.trainer [--data DIR] [--steps 100] [--rounds 3]

Turn by turn in one process: the bare loop (one jit of gradient and update, its batches on the device
before it starts), the trainer with nothing to report, and the trainer with checkpoints and
summaries every 100 steps. Evaluation is work of its own, not overhead: its seconds stand apart, and
the rate with it included too. One JSON line a row.
"""

import argparse
import functools
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dualflat.contracts import Options
from dualflat.learn.tasks import mnist
from dualflat.runtime import feed, sync
from dualflat.runtime.checkpoint import Checkpoints
from dualflat.runtime.duties import Silent
from dualflat.runtime.placement import make_mesh
from dualflat.runtime.summary import Summary


class Clock(Silent):
    """When each report came, and the reports."""

    def __init__(self):
        self.seen = []

    def report(self, report, /):
        self.seen.append((time.perf_counter(), report))


def bare(task, steps):
    """Return steps/s of the least that could be called a training loop."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, key, batch):
        grads, metrics = task.gradient(state.params, batch, jax.random.fold_in(key, state.step))
        return task.apply(state, grads, jnp.int32(0)), metrics

    state, key = jax.jit(task.init)(jax.random.key(0)), jax.random.key(1)
    rows = [feed.rows(0, k, task.batch_size, len(task.train)) for k in range(20)]
    batches = [jax.device_put(task.train[r]) for r in rows]
    state, _ = jax.block_until_ready(step(state, key, batches[0]))
    began = time.perf_counter()
    for k in range(steps):
        state, metrics = step(state, key, batches[k % len(batches)])
        if k % 2:  # no deeper a queue than the trainer keeps
            metrics["loss"].block_until_ready()
    jax.block_until_ready(state)
    return steps / (time.perf_counter() - began)


def trained(task, mesh, folder, every):
    """Return (stepping rate, rate with saves and records, rate with all, seconds an evaluation, a save)."""
    clock = Clock()
    with Checkpoints(folder / "checkpoints") as checkpoints:
        sync.train(
            task,
            mesh,
            checkpoints,
            every=every,
            watch=clock,
            summary=lambda start: Summary(folder, start=start),
        )
    reports = [report for _, report in clock.seen]
    stepping = statistics.median(report.steps_per_s for report in reports)
    pairs = list(zip(clock.seen, clock.seen[1:], strict=False))
    with_saves = [every / (b - a - report.evaluate_s) for (a, _), (b, report) in pairs]
    with_all = [every / (b - a) for (a, _), (b, _) in pairs]
    median = lambda values: statistics.median(values) if values else None  # noqa: E731
    return (
        stepping,
        median(with_saves),
        median(with_all),
        reports[-1].evaluate_s,
        median([r.save_s for r in reports]),
    )


def quartiles(values):
    values = [value for value in values if value is not None]
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": round(middle, 3), "q1": round(low, 3), "q3": round(high, 3)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=None)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    quiet = mnist.task(Options(data=args.data, max_steps=args.steps + 1))
    busy = mnist.task(Options(data=args.data, max_steps=3 * 100))
    mesh = make_mesh({"worker": 1, "ps": 1}, jax.devices())
    rates = {"bare": [], "trainer": [], "trainer_saving": [], "trainer_saving_and_evaluating": []}
    ratios = {"trainer": [], "trainer_saving": [], "trainer_saving_and_evaluating": []}
    seconds = {"evaluate": [], "save_blocking": []}
    for _ in range(args.rounds):
        folder = Path(tempfile.mkdtemp())
        try:
            first = bare(quiet, args.steps)
            stepping, *_ = trained(quiet, mesh, folder / "quiet", every=10**9)
            second = bare(quiet, args.steps)
            _, saving, everything, evaluate_s, save_s = trained(
                busy, mesh, folder / "busy", every=100
            )
            third = bare(quiet, args.steps)
        finally:
            shutil.rmtree(folder)
        rates["bare"] += [first, second, third]
        for name, rate, peer in [
            ("trainer", stepping, (first + second) / 2),
            ("trainer_saving", saving, (second + third) / 2),
            ("trainer_saving_and_evaluating", everything, (second + third) / 2),
        ]:
            rates[name].append(rate)
            ratios[name].append(rate / peer)
        seconds["evaluate"].append(evaluate_s)
        seconds["save_blocking"].append(save_s)
    for name, values in rates.items():
        row = {"name": name, "jax": jax.__version__, "steps_per_s": quartiles(values)}
        if name in ratios:
            row["ratio_to_bare"] = quartiles(ratios[name])
        print(json.dumps(row), flush=True)
    for name, values in seconds.items():
        print(json.dumps({"name": name, "seconds": quartiles(values)}), flush=True)


if __name__ == "__main__":
    main()
