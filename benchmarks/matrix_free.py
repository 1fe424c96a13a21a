"""A million coordinates without a matrix. Run `python -m benchmarks.matrix_free`.

The dual map, products Gv and solves G⁻¹w of a log-sum-exp and of a Dirichlet of dimension 10⁶, each in a
process of its own, so that `peak_mib`, the most memory the process ever held, is that row's;
`at_rest_mib` is what it held with JAX and the arguments loaded. Errors are relative, of η(θ(η)) and of G(G⁻¹w), in the
largest entry.
"""

import json
import resource
import subprocess
import sys

N = 1_000_000


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def row(name: str, what: str, dtype: str) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    jax.config.update("jax_enable_x64", dtype == "float64")
    from benchmarks._measure import measure
    from dualflat.geometry.families.dirichlet import Dirichlet
    from dualflat.geometry.legendre import dual_point, to_eta, to_theta
    from dualflat.geometry.metric import lower_index, raise_index
    from dualflat.geometry.potentials.simplex import LogSumExp

    rng = np.random.default_rng(20268)
    if name == "Dirichlet":
        psi, theta = Dirichlet(N), np.exp(rng.normal(size=N))
    else:
        psi, theta = LogSumExp(N), rng.normal(size=N)
    theta, v = jnp.asarray(theta, dtype), jnp.asarray(rng.normal(size=N), dtype)
    eta = jax.block_until_ready(jax.jit(lambda t: to_eta(psi, t))(theta))
    if what == "to_theta":
        args, fn = (eta,), lambda e: to_theta(psi, e)
    elif what == "dual_point":  # the search, also where there is a closed form
        args, fn = (eta,), lambda e: dual_point(psi, e).value
    elif what == "lower_index":
        args, fn = (theta, v), lambda t, v: lower_index(psi, t, v)
    else:
        args, fn = (theta, v), lambda t, w: raise_index(psi, t, w)
    rest = peak_mib()
    value, cost = measure(fn, *args, repeats=7)
    peak = peak_mib()
    if what in ("to_theta", "dual_point"):
        wrong = jnp.abs(to_eta(psi, value) - eta).max() / jnp.abs(eta).max()
    elif what == "raise_index":
        wrong = jnp.abs(lower_index(psi, theta, value) - v).max() / jnp.abs(v).max()
    else:
        wrong = None
    if wrong is not None:
        wrong = f"{float(wrong):.0e}" if jnp.isfinite(value).all() else "nan"
    return {
        "psi": name,
        "n": N,
        "what": what,
        "dtype": dtype,
        **cost,
        "peak_mib": round(peak),
        "at_rest_mib": round(rest),
        "error": wrong,
    }


def main() -> None:
    if len(sys.argv) == 4:
        print(json.dumps(row(*sys.argv[1:])), flush=True)
        return
    for name in ("LogSumExp", "Dirichlet"):
        for what in ("to_theta", "dual_point", "lower_index", "raise_index"):
            for dtype in ("float32", "float64"):
                words = [sys.executable, "-m", "benchmarks.matrix_free", name, what, dtype]
                subprocess.run(words, check=True, timeout=300)


if __name__ == "__main__":
    main()
