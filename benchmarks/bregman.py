"""What an exact divergence costs: the book beside ours. Run `python -m benchmarks.bregman`.

Errors are relative, against mpmath with 60 digits, at relative distances 1e-8 … 10; `negative`
counts values below zero. Times are for 10,000 points at once.
"""

import json

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from benchmarks._measure import measure
from dualflat.geometry.divergence import bregman
from tests.geometry.truth import DISTANCES, EXACT, away

BATCH = 10_000


def textbook(psi, theta, base):
    return psi(theta) - psi(base) - jax.grad(psi)(base) @ (theta - base)


def main() -> None:
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            for family, exact in EXACT.items():
                thetas, base = away(exact, DISTANCES, dtype)
                many = jnp.asarray(np.resize(thetas, (BATCH, thetas.shape[1])))
                truth = [exact.bregman(theta, base) for theta in thetas]
                for fn in (textbook, bregman):
                    run = jax.vmap(lambda t, fn=fn, e=exact, b=base: fn(e.psi, t, jnp.asarray(b)))
                    values, cost = measure(run, many)
                    values = np.asarray(values[: len(truth)])
                    wrong = {
                        f"{distance:g}": f"{float(abs(mp.mpf(float(v)) - t) / t):.0e}"
                        for distance, v, t in zip(DISTANCES, values, truth, strict=True)
                        if t  # at the smallest distances float32 rounds θ to the base
                    }
                    print(
                        json.dumps(
                            {
                                "name": fn.__name__,
                                "family": family,
                                "dtype": np.dtype(dtype).name,
                                "batch": BATCH,
                                **cost,
                                "negative": int((values < 0).sum()),
                                "relative_error": wrong,
                            }
                        ),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
