"""What a projection costs beside a Newton written by hand. Run `python -m benchmarks.projection`.

`slope` is the worst residual of the projection's equations, relative to the terms they are made of;
`pythagoras` the worst relative difference of the two sides of D(r, p) = D(r, q) + D(q, p) (and of
its counterpart for M); `failed` counts the points without an answer. Times are for the whole batch.

By hand: undamped Newton on the same equations, from the point of the subspace nearest to p in the
sense of least squares (for M from p itself), until a step is below √ε; no test of the domain, no
status, no derivative rule. What it has not found in 64 steps has failed.

The last rows are projections in turn: steps until convergence, and what is left.
"""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measure import measure
from dualflat.geometry.divergence import bregman
from dualflat.geometry.families.categorical import Categorical
from dualflat.geometry.families.gaussian import Gaussian
from dualflat.geometry.legendre import to_eta
from dualflat.geometry.projection import (
    alternating_projections,
    cyclic_projections,
    e_projection,
    m_projection,
    pythagoras,
)
from dualflat.geometry.submanifold import EFlat, MLevel
from tests.geometry.truth import user_made

BATCH = 1000


class Case(NamedTuple):
    psi: object
    points: np.ndarray  # (BATCH, n)
    e_flat: EFlat
    m_flat: MLevel


def independence(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Indicators of the margins of a table, (cells − 1, rows + columns − 2), without cell 0."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    one_hot = [row == i for i in range(1, rows)] + [column == j for j in range(1, columns)]
    return np.stack(one_hot, 1)[1:].astype(float)


def cases(dtype: type) -> dict[str, Case]:
    rng = np.random.default_rng(20263)
    tables, normal = Categorical(24), Gaussian(3)
    margins = independence(5, 5)
    p = rng.dirichlet(np.ones(25), BATCH)
    roots = rng.normal(size=(BATCH, 3, 3)) * 0.5 + np.eye(3)
    laws = jax.vmap(normal.from_mean_covariance)(
        jnp.asarray(rng.normal(size=(BATCH, 3)), dtype),
        jnp.asarray(roots @ np.swapaxes(roots, 1, 2) + 0.1 * np.eye(3), dtype),
    )
    chain = np.delete(np.eye(9), 6, 1)  # Λ₃₁ = 0: a chain 1 — 2 — 3
    return {
        "5 × 5 tables": Case(
            tables,
            (np.log(p[:, 1:]) - np.log(p[:, :1])).astype(dtype),
            EFlat(jnp.zeros(24, dtype), jnp.asarray(margins, dtype)),
            MLevel(jnp.asarray(margins.T, dtype), jnp.full(8, 0.2, dtype)),
        ),
        "normal laws, d = 3": Case(
            normal,
            np.asarray(laws),
            EFlat(jnp.zeros(9, dtype), jnp.asarray(chain, dtype)),
            MLevel(jnp.eye(9, dtype=dtype)[:3], jnp.asarray([0.1, 0.2, 0.3], dtype)),
        ),
        "user-made, n = 2": Case(
            user_made,
            rng.uniform(-1.5, 1.5, (BATCH, 2)).astype(dtype),
            EFlat(jnp.zeros(2, dtype), jnp.asarray([[1.0], [0.5]], dtype)),
            MLevel(jnp.asarray([[1.0, 0.5]], dtype), jnp.asarray([1.0], dtype)),
        ),
    }


def by_hand(psi, origin, frame, target, start):
    """Solves frameᵀ∇ψ(origin + frame u) = target."""
    eps = jnp.finfo(origin.dtype).eps

    def restricted(u):
        return psi(origin + frame @ u)

    def body(state):
        u, _, steps = state
        step = jnp.linalg.solve(jax.hessian(restricted)(u), target - jax.grad(restricted)(u))
        return u + step, jnp.abs(step).max() / (1 + jnp.abs(u).max()), steps + 1

    begin = (start, jnp.array(jnp.inf, start.dtype), 0)
    u, moved, _ = jax.lax.while_loop(lambda s: (s[1] > eps**0.5) & (s[2] < 64), body, begin)
    return origin + frame @ jnp.where(moved <= eps**0.5, u, jnp.nan)


def m_by_hand(psi, theta, e_flat):
    target = to_eta(psi, theta) @ e_flat.directions
    return by_hand(psi, e_flat.origin, e_flat.directions, target, e_flat.coordinates(theta))


def e_by_hand(psi, theta, m_flat):
    return by_hand(psi, theta, m_flat.matrix.T, m_flat.values, jnp.zeros_like(m_flat.values))


def report(**row) -> None:
    print(json.dumps(row, ensure_ascii=False), flush=True)


def check(psi, kind, flat, points, found, other):
    """Worst relative residuals over the answers: of the equation, and of Pythagoras."""

    @jax.jit
    @jax.vmap
    def at(p, q):
        eta = to_eta(psi, q)
        if kind == "m":
            frame, target = flat.directions, to_eta(psi, p) @ flat.directions
            left, right = pythagoras(psi, other, q, p)
        else:
            frame, target = flat.matrix.T, flat.values
            left, right = pythagoras(psi, p, q, other)
        size = jnp.abs(eta) @ jnp.abs(frame) + jnp.abs(target)
        return jnp.abs(eta @ frame - target).max() / size.max(), jnp.abs(left / right - 1)

    slope, sides = (np.asarray(x) for x in at(points, found))
    good = ~np.isnan(np.asarray(found)).any(1)
    return {
        "failed": int((~good).sum()),
        "slope": f"{slope[good].max():.0e}",
        "pythagoras": f"{sides[good].max():.0e}",
    }


def single(dtype: type) -> None:
    for space, case in cases(dtype).items():
        psi, points = case.psi, jnp.asarray(case.points)
        for kind, flat, fns in (
            ("m", case.e_flat, (m_by_hand, lambda *a: m_projection(*a).value)),
            ("e", case.m_flat, (e_by_hand, lambda *a: e_projection(*a).value)),
        ):
            # Another point of the subspace, for Pythagoras: the projection of the second point.
            other = fns[1](psi, points[1], flat)
            for name, fn in zip(("by hand", "ours"), fns, strict=True):
                run = jax.vmap(lambda p, fn=fn, psi=psi, flat=flat: fn(psi, p, flat))
                found, cost = measure(run, points)
                report(
                    name=f"{kind}_projection",
                    by=name,
                    space=space,
                    dtype=np.dtype(dtype).name,
                    batch=BATCH,
                    **cost,
                    **check(psi, kind, flat, points, found, other),
                )


def in_turn(dtype: type) -> None:
    rng = np.random.default_rng(20264)
    psi, margins = Categorical(24), independence(5, 5)
    start = jnp.zeros(24, dtype)
    for tilt in (0.0, 0.1, 0.3):  # away from the right angle, at which two steps are enough
        slant = margins + tilt * rng.normal(size=margins.shape)
        e_flat = EFlat(start, jnp.asarray(margins, dtype))
        common = to_eta(psi, e_flat(jnp.asarray(rng.normal(size=8) * 0.3, dtype)))
        matrix = jnp.asarray(slant.T, dtype)
        met, cost = measure(
            lambda s, m=matrix, c=matrix @ common, e=e_flat: alternating_projections(
                psi, s, e, MLevel(m, c), 2000
            ),
            start,
            repeats=3,
        )
        history = np.asarray(met.history[: int(met.steps)])
        report(
            name="alternating_projections",
            dtype=np.dtype(dtype).name,
            tilt=tilt,
            **cost,
            status=int(met.status),
            steps=int(met.steps),
            divergence=f"{float(met.divergence):.0e}",
            first=f"{history[0]:.0e}",
            rises=int((np.diff(history) > 1e-3 * np.finfo(dtype).eps * history[0]).sum()),
        )
    table = rng.dirichlet(np.ones(25))
    begin = jnp.asarray(np.log(table[1:] / table[0]), dtype)
    levels = [
        MLevel(jnp.asarray(part.T, dtype), jnp.full(4, 0.2, dtype))
        for part in np.split(margins, 2, 1)
    ]
    (found, history), cost = measure(
        lambda s: cyclic_projections(psi, s, levels, 200), begin, repeats=3
    )
    whole = float(bregman(psi, begin, found.value))
    report(
        name="cyclic_projections",
        dtype=np.dtype(dtype).name,
        **cost,
        status=int(found.status),
        steps=int(found.steps),
        pythagoras=f"{abs(float(np.nansum(history)) / whole - 1):.0e}",
    )


def main() -> None:
    for dtype in (np.float32, np.float64):
        with jax.enable_x64(dtype == np.float64):
            single(dtype)
            in_turn(dtype)


if __name__ == "__main__":
    main()
