"""What tensors and transport cost, and how right they are. Run `python -m benchmarks.connections`.

For each potential with 60-digit truth, float64: the cubic tensor, Γ of ∇^(α), the curvature from
T (`curvature`) and from derivatives of Γ (`curvature by derivatives`), at 1,000 points at once; each
`error` is the worst at one point against mpmath, relative to the largest entry. Then a dual pair
(∇^(α), ∇^(−α)) carried along a curve and round a loop: `error` is the largest change of g(A, B) over
an orthonormal frame's.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measure import measure
from dualflat.geometry.connection import (
    alpha_connection,
    cubic_tensor,
    curvature_tensor,
    dual_structure,
)
from dualflat.geometry.metric import metric
from dualflat.geometry.transport import holonomy_defect, transport_defect
from tests.geometry.exact_tensors import exact_cubic, exact_curvature, exact_gamma, worst
from tests.geometry.truth import EXACT

ALPHA, BATCH = 0.4, 1000


def tensors(psi):
    connection = alpha_connection(psi, ALPHA)
    return {
        "cubic tensor": lambda theta: cubic_tensor(psi, theta),
        "gamma": connection,
        "curvature": lambda theta: curvature_tensor(connection, theta),
        "curvature by derivatives": lambda theta: curvature_tensor(lambda x: connection(x), theta),
    }


def carried(psi, base):
    """The two defects in an orthonormal frame at the base, on curves of the size of a unit ball."""
    pair = dual_structure(psi, ALPHA)

    def defects(base):
        low = jnp.linalg.cholesky(metric(psi, base))
        frame = jnp.linalg.inv(low).T  # orthonormal columns
        u, v = 0.2 * frame[:, 0], 0.2 * frame[:, -1]

        def loop(t):
            turn = 2 * jnp.pi * t
            return base + u * jnp.sin(turn) + v * (jnp.cos(turn) - 1 + 0.2 * jnp.sin(2 * turn))

        def way(t):
            return base + u * t + v * jnp.sin(2 * t)

        found = transport_defect(pair, way), holonomy_defect(pair, loop)
        return tuple(frame.T @ defect @ frame for defect in found)

    return defects, jnp.asarray(base)


def main() -> None:
    with jax.enable_x64(True):
        for case, exact in EXACT.items():
            base = exact.base.tolist()
            truth = {
                "cubic tensor": exact_cubic(exact, base),
                "gamma": exact_gamma(exact, base, ALPHA),
                "curvature": exact_curvature(exact, base, ALPHA),
            }
            truth["curvature by derivatives"] = truth["curvature"]
            many = jnp.asarray(np.tile(exact.base, (BATCH, 1)))
            rows = []
            for name, fn in tensors(exact.psi).items():
                value, cost = measure(jax.vmap(fn), many)
                rows.append((name, BATCH, cost, worst(value[0], truth[name])))
            fn, start = carried(exact.psi, exact.base)
            defects, cost = measure(fn, start)
            for name, defect in zip(("along a curve", "round a loop"), defects, strict=True):
                rows.append((name, 1, cost, float(jnp.abs(defect).max())))
            for name, batch, cost, error in rows:
                row = {"name": name, "case": case, "n": len(base), "batch": batch}
                print(json.dumps({**row, **cost, "error": f"{error:.0e}"}), flush=True)


if __name__ == "__main__":
    main()
