"""What each primitive costs to compile and to run, n ≤ 20. Run `python -m benchmarks.primitives`.

One row a primitive and potential: log-sum-exp as a bare function, of which only values are known, and
the categorical laws, which know everything. One call at one point, compiled for that call alone.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dualflat as df
from benchmarks._measure import measure


def log_sum_exp(theta):
    return jax.nn.logsumexp(jnp.append(theta, 0.0))


def primitives(psi: Any, n: int) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    rng = np.random.default_rng(20267)
    theta, other, v = (jnp.asarray(rng.normal(size=n)) for _ in range(3))
    eta = df.to_eta(psi, theta)
    basis = jnp.asarray(rng.normal(size=(n, 2)))
    return {
        "to_eta": (lambda t: df.to_eta(psi, t), (theta,)),
        "to_theta": (lambda e: df.to_theta(psi, e), (eta,)),
        "conjugate": (lambda e: df.conjugate(psi, e), (eta,)),
        "derivative of to_theta": (jax.jacfwd(lambda e: df.to_theta(psi, e)), (eta,)),
        "metric": (lambda t: df.metric(psi, t), (theta,)),
        "inverse_metric": (lambda t: df.inverse_metric(psi, t), (theta,)),
        "raise_index": (lambda t, w: df.raise_index(psi, t, w), (theta, v)),
        "log_det_metric": (lambda t: df.log_det_metric(psi, t), (theta,)),
        "bregman": (lambda p, q: df.bregman(psi, p, q), (theta, other)),
        "gradient of bregman": (jax.grad(lambda p, q: df.bregman(psi, p, q)), (theta, other)),
        "skew_jensen": (lambda p, q: df.skew_jensen(psi, p, q, 0.3), (theta, other)),
        "chernoff_information": (
            lambda p, q: df.chernoff_information(psi, p, q).value,
            (theta, other),
        ),
        "cubic_tensor": (lambda t: df.cubic_tensor(psi, t), (theta,)),
        "alpha_connection": (df.alpha_connection(psi, 0.3), (theta,)),
        "curvature_tensor": (
            lambda t: df.curvature_tensor(df.alpha_connection(psi, 0.3), t),
            (theta,),
        ),
        "m_geodesic": (lambda p, q: df.m_geodesic(psi, p, q)(0.5), (theta, other)),
        "m_transport": (lambda p, q, x: df.m_transport(psi, p, q, x), (theta, other, v)),
        "m_projection": (
            lambda p, r, b: df.m_projection(psi, p, df.EFlat(r, b)).value,
            (theta, other, basis),
        ),
        "e_projection": (
            lambda p, r, b: df.e_projection(psi, p, df.MFlat(r, 0.01 * b)).value,
            (theta, eta, basis),
        ),
    }


def main() -> None:
    with jax.enable_x64(True):
        for n in (3, 20):
            for case, psi in {"bare": log_sum_exp, "categorical": df.Categorical(n)}.items():
                for name, (fn, args) in primitives(psi, n).items():
                    value, cost = measure(fn, *args, repeats=11)
                    finite = bool(jnp.isfinite(value).all())
                    row = {"name": name, "case": case, "n": n, **cost, "finite": finite}
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
