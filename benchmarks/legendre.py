"""What the dual map of any ψ costs and is worth. Run `python -m benchmarks.legendre`.

For each ψ and dtype, 100,000 points at once: `dual_point`, which knows nothing of ψ but how to call it,
beside a Newton written by hand for that ψ (explicit gradient and Hessian, no damping, no domain, no
status), from the same starting point, interleaved.

`backward` is the largest ‖∇ψ(θ) − η‖ / (ε max(‖η‖, ‖Gθ‖)), with ∇ψ(θ) in extended precision:
rounding θ alone costs about ½ ‖Gθ‖.
"""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np

from dualflat.geometry.legendre import dual_point

COUNT, ROUNDS = 100_000, 7


def log_sum_exp(theta):
    return jax.nn.logsumexp(jnp.append(theta, 0.0))


def log_sum_exp_by_hand(theta):
    top = jnp.maximum(theta.max(), 0.0)
    odds = jnp.exp(theta - top)
    p = odds / (odds.sum() + jnp.exp(-top))
    return p, jnp.diag(p) - jnp.outer(p, p)


def log_sum_exp_exactly(theta):
    odds = np.exp(theta)
    p = odds / (1 + odds.sum(-1, keepdims=True))
    return p, lambda v: p * v - p * (p * v).sum(-1, keepdims=True)


def quartic(theta):
    return jnp.exp(theta).sum() + 0.25 * (theta @ theta) ** 2


def quartic_by_hand(theta):
    square = theta @ theta
    slope = jnp.exp(theta) + square * theta
    return slope, jnp.diag(jnp.exp(theta) + square) + 2 * jnp.outer(theta, theta)


def quartic_exactly(theta):
    square = (theta**2).sum(-1, keepdims=True)

    def apply(v):
        return (np.exp(theta) + square) * v + 2 * theta * (theta * v).sum(-1, keepdims=True)

    return np.exp(theta) + square * theta, apply


def barrier(theta):
    """−Σ log(1 − θᵢ²) + ½ (Σθ)²: a box."""
    return -jnp.log1p(-(theta**2)).sum() + 0.5 * theta.sum() ** 2


def barrier_by_hand(theta):
    rest = 1 - theta**2
    slope = 2 * theta / rest + theta.sum()
    return slope, jnp.diag(2 / rest + 4 * theta**2 / rest**2) + 1.0


def barrier_exactly(theta):
    rest = 1 - theta**2
    curve = 2 / rest + 4 * theta**2 / rest**2
    return 2 * theta / rest + theta.sum(
        -1, keepdims=True
    ), lambda v: curve * v + v.sum(-1, keepdims=True)


CASES = {
    "log-sum-exp, n = 3": (log_sum_exp, log_sum_exp_by_hand, log_sum_exp_exactly, 3, 2.0),
    "log-sum-exp, n = 10": (log_sum_exp, log_sum_exp_by_hand, log_sum_exp_exactly, 10, 1.0),
    "exp + quartic, n = 3": (quartic, quartic_by_hand, quartic_exactly, 3, 2.0),
    "box barrier, n = 5": (barrier, barrier_by_hand, barrier_exactly, 5, 1.0),
}


def by_hand(slope_and_hessian, eta, rtol):
    """Newton as one writes it for a ψ that one knows."""

    def body(state):
        theta, residual, steps = state
        _, hessian = slope_and_hessian(theta)
        factor = jax.scipy.linalg.cho_factor(hessian, lower=True)
        theta = theta - jax.scipy.linalg.cho_solve(factor, residual)
        return theta, slope_and_hessian(theta)[0] - eta, steps + 1

    def running(state):
        _, residual, steps = state
        return (jnp.linalg.norm(residual) > rtol * jnp.linalg.norm(eta)) & (steps < 64)

    start = jnp.zeros_like(eta)
    state = (start, slope_and_hessian(start)[0] - eta, 0)
    return jax.lax.while_loop(running, body, state)[0]


def compiled(fn, *args):
    start = time.perf_counter()
    program = jax.jit(fn).lower(*args).compile()
    return program, 1e3 * (time.perf_counter() - start)


def main() -> None:
    for dtype in (np.float32, np.float64):
        eps = float(np.finfo(dtype).eps)
        with jax.enable_x64(dtype == np.float64):
            for name, (psi, hand, exactly, n, spread) in CASES.items():
                rng = np.random.default_rng(20266)
                box = psi is barrier
                theta = rng.uniform(-0.95, 0.95, (COUNT, n)) if box else rng.normal(size=(COUNT, n))
                theta = spread * theta
                eta = jnp.asarray(exactly(theta)[0].astype(dtype))

                def ours(etas, psi=psi):
                    return jax.vmap(lambda e: dual_point(psi, e))(etas)

                def peer(etas, hand=hand, eps=eps):
                    return jax.vmap(lambda e: by_hand(hand, e, 16 * eps))(etas)

                run, ours_ms = compiled(ours, eta)
                other, peer_ms = compiled(peer, eta)
                _, one_ms = compiled(lambda e, psi=psi: dual_point(psi, e), eta[0])
                found, times = jax.block_until_ready(run(eta)), []
                theirs = jax.block_until_ready(other(eta))
                for _ in range(ROUNDS):
                    marks = [time.perf_counter()]
                    for program in (run, other):
                        jax.block_until_ready(program(eta))
                        marks.append(time.perf_counter())
                    times.append(np.diff(marks))
                times = np.array(times) / COUNT * 1e9

                def backward(values, exactly=exactly, eta=eta, eps=eps):
                    wide = np.asarray(values, np.longdouble)
                    slope, apply = exactly(wide)
                    wrong = np.linalg.norm(
                        (slope - np.asarray(eta, np.longdouble)).astype(float), axis=1
                    )
                    size = np.maximum(
                        np.linalg.norm(np.asarray(eta, float), axis=1),
                        np.linalg.norm(apply(wide).astype(float), axis=1),
                    )
                    return float(np.nanmax(wrong / size) / eps)

                ratio = np.percentile(times[:, 0] / times[:, 1], [25, 50, 75])
                row = {
                    "psi": name,
                    "dtype": np.dtype(dtype).name,
                    "points": COUNT,
                    "ns_per_point": round(float(np.median(times[:, 0]))),
                    "by_hand_ns": round(float(np.median(times[:, 1]))),
                    "ratio": [round(float(r), 2) for r in ratio],
                    "compile_ms": round(ours_ms),
                    "compile_one_ms": round(one_ms),
                    "by_hand_compile_ms": round(peer_ms),
                    "backward": round(backward(found.value), 2),
                    "by_hand_backward": round(backward(theirs), 2),
                    "nan": int(np.isnan(np.asarray(found.value)).any(1).sum()),
                    "by_hand_nan": int((~np.isfinite(np.asarray(theirs))).any(1).sum()),
                    "steps": [int(found.steps.min()), int(found.steps.max())],
                }
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
