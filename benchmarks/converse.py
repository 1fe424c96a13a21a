"""What it costs to find ψ again from (g, ∇, ∇*), and how right it is. Run `python -m benchmarks.converse`.

Normal laws in (μ, σ), by hand, and on the plane; Dirichlet laws in log α; a user's ψ in a bent
chart. One row for each of

    flatness   the report at one point: the derivatives of the connections are most of it;
    point      θ, η, ψ, φ and both frames, from x;
    hessian    ∇²ψ(θ), through Newton for x(θ): what the rest of the library asks ψ for.

Errors are the worst of the points, relative: of ψ and η against mpmath with 60 digits, of ∇²ψ
against g in the chart, each index by its own length. `steps` are panels, or Newton's. Times are for
BATCH points at once (`flatness`: one).
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measure import measure
from dualflat.geometry.families.dirichlet import Dirichlet
from dualflat.geometry.structure import flatness
from tests.geometry.hidden import HIDDEN, Hidden, exact

BATCH = 1000


def wide_dirichlet(n: int) -> Hidden:
    """Dirichlet laws with n parameters between 0.1 and 10."""
    three = HIDDEN["Dirichlet in log α"]
    points = np.random.default_rng(20266).uniform(-2.3, 2.3, (4, n))
    return Hidden(Dirichlet(n), jnp.exp, np.zeros(n), points, three.value, three.gradient)


def dual(manifold, theta):
    """∇²ψ(θ), and the point it was found at."""

    def eta(theta):
        found = manifold.locate(theta)
        return found.eta, found

    return jax.jacfwd(eta, has_aux=True)(theta)


def worst(found, truth) -> str:
    """Per point relative to its greatest entry, the worst of all."""
    found, truth = (np.asarray(a, np.float64).reshape(len(truth), -1) for a in (found, truth))
    return f"{(np.abs(found - truth).max(1) / np.abs(truth).max(1)).max():.0e}"


def rows(hidden: Hidden, dtype: type):
    """Name, cost and errors of each of the three."""
    origin = jnp.asarray(hidden.origin, dtype)
    few = hidden.points.astype(dtype)
    many = jnp.asarray(np.resize(few, (BATCH, few.shape[1])))
    report, cost = measure(lambda x: flatness(hidden.structure(), x), origin)
    yield "flatness", cost, {"holds": bool(report.holds.all())}

    manifold = jax.jit(hidden.recovered)(origin)
    point, cost = measure(jax.vmap(lambda m, x: m.point(x), (None, 0)), manifold, many)
    hessian, dual_cost = measure(jax.vmap(dual, (None, 0)), manifold, point.theta)
    point, (hessian, found) = jax.tree_util.tree_map(
        lambda a: np.asarray(a)[: len(few)], (point, hessian)
    )
    thetas = [exact(theta) for theta in point.theta]
    psi = [float(hidden.value(theta)) for theta in thetas]
    eta = [[float(slope) for slope in hidden.gradient(theta)] for theta in thetas]
    errors = {"psi_error": worst(point.psi, psi), "eta_error": worst(point.eta, eta)}
    yield "point", cost, {"steps": int(point.steps.max()), **errors}

    g = jax.jit(jax.vmap(hidden.structure().metric))(few)
    length = np.sqrt(np.diagonal(g, axis1=1, axis2=2))
    there = np.einsum("pai,pab,pbj->pij", point.frame, hessian, point.frame)
    gap = np.abs((there - g) / length[:, :, None] / length[:, None, :]).max()
    yield "hessian", dual_cost, {"steps": int(found.steps.max()), "metric_error": f"{gap:.0e}"}


def main() -> None:
    cases = {**HIDDEN, "Dirichlet in log α, n = 20": wide_dirichlet(20)}
    for dtype in (np.float64, np.float32):
        with jax.enable_x64(dtype == np.float64):
            for case, hidden in cases.items():
                for name, cost, errors in rows(hidden, dtype):
                    row = {"name": name, "case": case, "n": hidden.origin.size}
                    row |= {"dtype": np.dtype(dtype).name, **cost, **errors}
                    print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
