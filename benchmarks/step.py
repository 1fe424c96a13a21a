"""Steps per second of the classical network: ours beside plain flax, in one run.

    python -m benchmarks.step [--rounds 5] [--steps 10] [--sizes 28 8]

Both train the same parameters with the same loss, the same Adam and the same dropout masks on the
same batches of 100; the two are interleaved, and their losses compared. One JSON line per network
and one with the ratio. `cpu_ms` (processor time of the whole process) suffers less from what else
the machine does than `wall_ms`.
"""

import argparse
import json
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dualflat.learn.losses import classification_gap
from dualflat.learn.models import ConvNet
from dualflat.learn.step import init_state, make_apply, make_gradient

BATCH = 100


class PlainFlax(nn.Module):
    """The same network as flax's own layers give it."""

    size: int

    @nn.compact
    def __call__(self, images, *, train=False):
        h = images.reshape(-1, self.size, self.size, 1)
        for filters, name in ((32, "convolution1"), (64, "convolution2")):
            h = nn.max_pool(nn.relu(nn.Conv(filters, (5, 5), name=name)(h)), (2, 2), (2, 2))
        h = nn.relu(nn.Dense(1024, name="hidden")(h.reshape(h.shape[0], -1)))
        # The name is part of how flax derives the mask from the key: both networks share it.
        h = nn.Dropout(0.5, deterministic=not train, name="Dropout_0")(h)
        return nn.Dense(10, name="output")(h)


def stepper(module):
    def loss(params, batch, key):
        scores = module.apply({"params": params}, batch["image"], train=True, rngs={"dropout": key})
        return classification_gap(scores, batch["label"]).mean(), {}

    gradient, apply = make_gradient(loss), make_apply(optax.adam(1e-4))

    def step(state, batch, key):
        grads, metrics = gradient(state.params, batch, jax.random.fold_in(key, state.step))
        return apply(state, grads, jnp.int32(0)), metrics["loss"]

    return jax.jit(step, donate_argnums=0)


def quartiles(samples):
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return {"q1": round(1e3 * low, 2), "median": round(1e3 * middle, 2), "q3": round(1e3 * high, 2)}


def compare(size, rounds, steps):
    rng = np.random.default_rng(0)
    batches = [
        {
            "image": rng.random((BATCH, size * size), np.float32),
            "label": rng.integers(0, 10, BATCH).astype(np.int32),
        }
        for _ in range(8)
    ]
    key = jax.random.key(0)
    ours = ConvNet(size, size)
    params = ours.init(key, jnp.zeros((1, size * size)))["params"]
    runs = {}
    for name, module in (("plain flax", PlainFlax(size)), ("dualflat", ours)):
        state = init_state(optax.adam(1e-4), jax.tree.map(jnp.copy, params))
        began = time.perf_counter()
        compiled = stepper(module).lower(state, batches[0], key).compile()
        runs[name] = {
            "step": compiled,
            "state": state,
            "losses": [],
            "wall": [],
            "cpu": [],
            "compile_s": round(time.perf_counter() - began, 2),
        }
    for _ in range(rounds):
        for run in runs.values():
            for _ in range(steps):
                batch = batches[len(run["losses"]) % len(batches)]
                wall, cpu = time.perf_counter(), time.process_time()
                run["state"], loss = run["step"](run["state"], batch, key)
                jax.block_until_ready(run["state"])
                run["wall"].append(time.perf_counter() - wall)
                run["cpu"].append(time.process_time() - cpu)
                run["losses"].append(float(loss))
    for name, run in runs.items():
        line = {"name": name, "jax": jax.__version__, "size": size, "batch": BATCH}
        line |= {
            "compile_s": run["compile_s"],
            "steps_per_s": round(1 / statistics.median(run["wall"]), 2),
        }
        line |= {"wall_ms": quartiles(run["wall"]), "cpu_ms": quartiles(run["cpu"])}
        print(json.dumps(line), flush=True)
    plain, ours = runs["plain flax"], runs["dualflat"]
    gap = [abs(a - b) / b for a, b in zip(ours["losses"], plain["losses"], strict=True)]
    print(
        json.dumps(
            {
                "name": "dualflat over plain flax",
                "size": size,
                "speed_by_wall": round(
                    statistics.median(plain["wall"]) / statistics.median(ours["wall"]), 2
                ),
                "speed_by_cpu": round(
                    statistics.median(plain["cpu"]) / statistics.median(ours["cpu"]), 2
                ),
                "largest_relative_difference_of_losses": f"{max(gap):.0e}",
                "steps": len(gap),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28, 8])
    args = parser.parse_args()
    for size in args.sizes:
        compare(size, args.rounds, args.steps)
