"""Dirichlet's laws in efax beside ours, in one process of one JAX: digits and speed.

    python -m benchmarks.peers.efax_dirichlet [--venv DIR] [--batch 10000] [--dim 10]

Makes a virtual environment with efax (once; it is kept) and runs there. Rows of two kinds, each in
float32 and float64, ours and efax's in turn:

- `kl`: KL(p‖q) at relative distances 1e-8 … 1: relative errors against mpmath with 60 digits (of
  points as each library holds them: efax keeps α − 1), how many values are negative, and the time
  of a batch;
- `to_theta`: α from E log x. `backward_eps` is the largest |∇ψ(α̂) − η| over |η|, in ε times
  max(1, ‖Gα‖/‖η‖), of 200 rows, by mpmath; `lost` counts rows of all that are not finite.

`of_float64` is a library's time in float32 as a multiple of its own in float64.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from benchmarks.peers._environment import environment

ROOT = Path(__file__).resolve().parents[2]
DISTANCES = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)
SAMPLE = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-efax")
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=10)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        return compare(args.batch, args.dim)
    python = environment(args.venv, "efax, mpmath", "efax", "mpmath")
    command = [python, "-m", "benchmarks.peers.efax_dirichlet", "--here"]
    words = ["--batch", str(args.batch), "--dim", str(args.dim)]
    surroundings = {**os.environ, "JAX_PLATFORMS": "cpu"}
    subprocess.run([*command, *words], check=True, cwd=ROOT, env=surroundings)
    return None


def compare(batch: int, dim: int) -> None:
    import efax
    import jax
    import mpmath as mp
    import numpy as np

    from benchmarks._measure import measure
    from dualflat.geometry.divergence import bregman
    from dualflat.geometry.families.dirichlet import Dirichlet
    from dualflat.geometry.legendre import to_theta

    mp.mp.dps = 60
    psi = Dirichlet(dim)

    def exact(rows):
        return [[mp.mpf(float(x)) for x in row] for row in rows]

    def slope(alpha):
        whole = mp.digamma(mp.fsum(alpha))
        return [mp.digamma(a) - whole for a in alpha]

    def value(alpha):
        return mp.fsum(map(mp.loggamma, alpha)) - mp.loggamma(mp.fsum(alpha))

    def kl(p, q):
        steps = zip(slope(p), p, q, strict=True)
        return value(q) - value(p) - mp.fsum(s * (b - a) for s, a, b in steps)

    def backward(found, eta, eps):
        worst = 0.0
        for alpha, wanted in zip(exact(found[:SAMPLE]), exact(eta[:SAMPLE]), strict=True):
            if not all(mp.isfinite(a) for a in alpha):
                continue
            bends, whole = [mp.psi(1, a) * a for a in alpha], mp.psi(1, mp.fsum(alpha))
            size = mp.norm([b - whole * mp.fsum(alpha) for b in bends]) / mp.norm(wanted)
            gap = mp.norm([s - w for s, w in zip(slope(alpha), wanted, strict=True)])
            worst = max(worst, float(gap / mp.norm(wanted) / eps / max(1, size)))
        return round(worst, 2)

    def efax_kl(p, q):
        return efax.DirichletNP(p).kl_divergence(efax.DirichletNP(q))

    def efax_to_theta(eta):
        return efax.DirichletEP(eta).to_nat().alpha_minus_one

    ours_kl = jax.vmap(lambda p, q: bregman(psi, q, p))
    ours_to_theta = jax.vmap(lambda eta: to_theta(psi, eta))
    times: dict[tuple[str, str], float] = {}

    def row(name, library, dtype, cost, **more):
        key = np.dtype(dtype).name
        times[name + library, key] = cost["median_us"]
        other = times.get((name + library, "float64"))
        ratio = {"of_float64": round(cost["median_us"] / other, 2)} if key == "float32" else {}
        shape = {"batch": batch, "n": dim, "jax": jax.__version__}
        print(
            json.dumps({"name": name, "library": library, "dtype": key, **shape, **cost}
                       | ratio | more),
            flush=True,
        )  # fmt: skip

    rng = np.random.default_rng(0)
    drawn = np.exp(rng.uniform(np.log(0.1), np.log(50.0), (batch, dim)))
    signs = rng.choice([-1.0, 1.0], (batch, dim))
    for dtype in (np.float64, np.float32):
        eps = float(np.finfo(dtype).eps)
        with jax.enable_x64(dtype == np.float64):
            # α whose α − 1 is exact too, so that both libraries are asked about the same law
            shifted = (drawn - 1).astype(dtype)
            alpha = (shifted + np.asarray(1, dtype)).astype(dtype)
            shifted = (alpha - np.asarray(1, dtype)).astype(dtype)
            distance = np.resize(DISTANCES, batch)[:, None]
            near = (alpha * (1 + 0.5 * signs * distance)).astype(dtype)
            near_shifted = (near - np.asarray(1, dtype)).astype(dtype)
            asked = {
                "dualflat": (ours_kl, alpha, near, 0),
                "efax": (efax_kl, shifted, near_shifted, 1),
            }
            for library, (fn, p, q, shift) in asked.items():
                values, cost = measure(fn, p, q, repeats=7)
                values, wrong = np.asarray(values), {}
                for index, length in enumerate(DISTANCES):
                    rows = slice(index, 40 * len(DISTANCES), len(DISTANCES))
                    laws = ([[x + shift for x in r] for r in exact(side[rows])] for side in (p, q))
                    truth = [kl(a, b) for a, b in zip(*laws, strict=True)]
                    errors = [
                        abs(float(v) / t - 1)
                        for v, t in zip(values[rows], truth, strict=True)
                        if t > 0  # the smallest steps are rounded away in float32
                    ]
                    if errors:
                        wrong[f"{length:g}"] = f"{float(max(errors)):.0e}"
                row("kl", library, dtype, cost,
                    relative_error=wrong, negative=int((values < 0).sum()))  # fmt: skip
            eta = np.asarray(jax.jit(jax.vmap(psi.to_eta))(alpha))
            for library, fn, shift in (
                ("dualflat", ours_to_theta, 0),
                ("efax", efax_to_theta, 1),
            ):
                found, cost = measure(fn, eta, repeats=5)
                found = np.asarray(found).astype(np.float64) + shift
                lost = int((~np.isfinite(found).all(1)).sum())
                row("to_theta", library, dtype, cost,
                    backward_eps=backward(found, eta, eps), lost=lost)  # fmt: skip


if __name__ == "__main__":
    main()
