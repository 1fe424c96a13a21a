"""What an exact divergence costs: the book beside ours. Run `python -m benchmarks.bregman`.

Three rows each: the book's ψ(θ) − ψ(θ′) − ⟨∇ψ(θ′), θ − θ′⟩; `bregman` of ψ as a bare function; and
`bregman` of the family, which brings its own rationalised form. Errors are relative, against mpmath
with 60 digits, at relative distances 1e-8 … 10; `negative` counts values below zero. Times are for
100,000 pairs at once, each with a base of its own; `of_book` is the median as a multiple of the
book's.
"""

import json

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np

from benchmarks._measure import measure
from dualflat.geometry.divergence import bregman
from tests.geometry.truth import DISTANCES, EXACT, away

BATCH = 100_000


def textbook(psi, theta, base):
    return psi(theta) - psi(base) - jax.grad(psi)(base) @ (theta - base)


def main() -> None:
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            for family, exact in EXACT.items():
                thetas, base = away(exact, DISTANCES, dtype)
                many = jnp.asarray(np.resize(thetas, (BATCH, thetas.shape[1])))
                bases = jnp.asarray(np.resize(base, many.shape))
                truth = [exact.bregman(theta, base) for theta in thetas]
                bare = lambda t, e=exact: e.psi(t)  # noqa: E731 (knows nothing but its values)
                cases = {
                    "book": (textbook, exact.psi),
                    "bare": (bregman, bare),
                    "family": (bregman, exact.psi),
                }
                book = None
                for name, (fn, psi) in cases.items():
                    run = jax.vmap(lambda t, b, fn=fn, psi=psi: fn(psi, t, b))
                    values, cost = measure(run, many, bases, repeats=11)
                    book = book or cost["median_us"]
                    values = np.asarray(values[: len(truth)])
                    wrong = {
                        f"{distance:g}": f"{float(abs(mp.mpf(float(v)) - t) / t):.0e}"
                        for distance, v, t in zip(DISTANCES, values, truth, strict=True)
                        if t  # at the smallest distances float32 rounds θ to the base
                    }
                    print(
                        json.dumps(
                            {
                                "name": name,
                                "family": family,
                                "dtype": np.dtype(dtype).name,
                                "batch": BATCH,
                                **cost,
                                "of_book": round(cost["median_us"] / book, 2),
                                "negative": int((values < 0).sum()),
                                "relative_error": wrong,
                            }
                        ),
                        flush=True,
                    )


if __name__ == "__main__":
    main()
